"""Make a user of the MLflow server, or give them a new password: `python user.py NAME > NAME.env`.

Prints what they need as NAME=VALUE, the address being SERVER_URL. The server is asked as its administrator, with
MLFLOW_AUTH_ADMIN_PASSWORD, at SERVER_HOST and SERVER_PORT. Exit status 2: no such name can be; 1: the server refused.
"""

import os
import re
import secrets
import sys
import warnings

ADMIN = "admin"


def give(server: str, name: str, password: str) -> None:
    """Let `name` log in with `password`, whether they were there before or not; raises MlflowException if refused."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.client import AuthServiceClient

    users = AuthServiceClient(server)
    try:
        users.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        users.update_user_password(name, password)


def main() -> None:
    """Parse, ask the server, print."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name == ADMIN:
        print(
            f"user.py: a user's name should be letters, digits, '.', '_' and '-', not {ADMIN}, got {name!r}",
            file=sys.stderr,
        )
        sys.exit(2)
    host = os.environ.get("SERVER_HOST", "127.0.0.1").replace("0.0.0.0", "127.0.0.1")
    server = f"http://{host}:{os.environ.get('SERVER_PORT', '5000')}"
    os.environ |= {
        "MLFLOW_TRACKING_USERNAME": ADMIN,
        "MLFLOW_TRACKING_PASSWORD": os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"],
    }
    password = secrets.token_urlsafe(18)
    warnings.filterwarnings("ignore", module="mlflow")  # what its own packages deprecate
    try:
        give(server, name, password)
    except Exception as error:  # MLflow's own, or of a connection
        print(f"user.py: {server} made no user {name}: {error}", file=sys.stderr)
        sys.exit(1)
    print(f"MLFLOW_TRACKING_URI={os.environ.get('SERVER_URL', server)}")
    print(f"MLFLOW_TRACKING_USERNAME={name}\nMLFLOW_TRACKING_PASSWORD={password}")


if __name__ == "__main__":
    main()
