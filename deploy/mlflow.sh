#!/usr/bin/env bash
# MLflow's server with users, in the foreground: what server.sh and compose.yaml both run.
#
# Its database is the one that libpq's own variables name (PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE), so that no
# password stands in an address or in the list of processes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

refuse() { printf 'mlflow.sh: %s\n' "$*" >&2; exit 2; }
for name in PG{HOST,USER,PASSWORD,DATABASE} MLFLOW_{AUTH_ADMIN_PASSWORD,FLASK_SERVER_SECRET_KEY} SERVER_ARTIFACTS; do
	[[ -n ${!name:-} ]] || refuse "$name should be set, and is not; server.sh secrets FILE makes passwords"
done
python -c "import flask_wtf, psycopg" 2> /dev/null ||
	refuse "python on the PATH should have the packages of the server: pip install 'deepmerge-lab[server]'"

export MLFLOW_BACKEND_STORE_URI=postgresql+psycopg://
export MLFLOW_AUTH_CONFIG_PATH=$here/basic_auth.ini
export MLFLOW_DISABLE_TELEMETRY=true
# Nothing here uses MLflow's job runners, which are seven processes.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
# A worker that is too busy to say within 5 seconds that it lives would be killed by default, and with it all that it was
# asked: so it happened to 96 of 200 requests at once on a machine with other work.
exec python -m mlflow server --app-name basic-auth \
	--host "${SERVER_HOST:-127.0.0.1}" --port "${SERVER_PORT:-5000}" --workers "${SERVER_WORKERS:-4}" \
	--allowed-hosts "${SERVER_ALLOWED_HOSTS:-localhost,localhost:*,127.0.0.1,127.0.0.1:*}" \
	--uvicorn-opts "--timeout-worker-healthcheck 120" \
	--serve-artifacts --artifacts-destination "$SERVER_ARTIFACTS"
