"""The team's server of deploy/server.sh by plain processes: users, many requests, a study, backup and restore."""

import hashlib
import os
import shutil
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
import requests
from conftest import free_port
from distributed import Client, Security
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client
from mlflow.tracking import MlflowClient
from test_cluster import started
from test_deploy import server, values
from test_tuning_end_to_end import Desk, postgres_programs

pytestmark = pytest.mark.slow


class Team:
    """A server that runs, with the users alice and bob."""

    def __init__(self, home):
        self.home = home
        self.variables = {
            **{name: str(free_port()) for name in ("SERVER_PORT", "DASK_PORT", "PGPORT")},
            "SERVER_WORKERS": "2",
        }
        self.url = f"http://127.0.0.1:{self.variables['SERVER_PORT']}"
        self.dask = f"tls://127.0.0.1:{self.variables['DASK_PORT']}"

    def command(self, *words):
        return server(self.home, *words, **self.variables)

    def succeed(self, *words):
        done = self.command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def login(self, name):
        """The environment in which a user works."""
        if name == "admin":
            password = values(self.home / "secrets.env")["MLFLOW_AUTH_ADMIN_PASSWORD"]
            return {
                "MLFLOW_TRACKING_URI": self.url,
                "MLFLOW_TRACKING_USERNAME": name,
                "MLFLOW_TRACKING_PASSWORD": password,
            }
        return values(self.home / "users" / f"{name}.env")

    def auth(self, name):
        login = self.login(name)
        return login["MLFLOW_TRACKING_USERNAME"], login["MLFLOW_TRACKING_PASSWORD"]

    def ask(self, name, path, **how):
        """An answer of the REST interface; a GET, or a POST where there is something to say."""
        url = f"{self.url}/api/2.0/{path}"
        method = "POST" if "json" in how else "GET"
        return requests.request(method, url, auth=name and self.auth(name), timeout=120, **how)


@pytest.fixture(scope="module")
def team():
    if postgres_programs() is None:
        if os.environ.get("DEEPMERGE_REQUIRE_POSTGRES"):
            pytest.fail("there should be a PostgreSQL server, got none: install Debian's package postgresql")
        pytest.skip("no PostgreSQL server on this machine (Debian: apt install postgresql)")
    # Not in pytest's own folder, which a root's other users, such as postgres, cannot pass through.
    folder = Path(tempfile.mkdtemp(prefix="deepmerge-team-"))
    folder.chmod(0o711)
    found = Team(folder / "server")
    try:
        found.succeed("start")
        for name in ("alice", "bob"):
            found.succeed("user", name)
        yield found
    finally:
        found.command("stop")
        shutil.rmtree(folder)


@pytest.fixture
def as_user(team, monkeypatch):
    """Become a user, for MLflow's own functions in this process; returns a client."""

    def become(name):
        for variable, value in team.login(name).items():
            monkeypatch.setenv(variable, value)
        return MlflowClient(team.url)

    return become


def test_the_server_runs_on_loopback_and_tells_nobody_its_passwords(team):
    assert team.command("status").returncode == 0
    before = {file.name: file.read_text() for file in (team.home / "run").iterdir()}
    team.succeed("start")
    assert {file.name: file.read_text() for file in (team.home / "run").iterdir()} == before
    given = [*values(team.home / "secrets.env").values(), team.auth("alice")[1]]
    shown = [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()]
    assert not [word for word in shown if any(password in word for password in given)]
    logged = "".join(file.read_text() for file in (team.home / "log").iterdir())
    assert not [password for password in given if password in logged]
    for file in [*team.home.glob("*.env"), *(team.home / "users").iterdir(), *(team.home / "dask").iterdir()]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ports = {int(port) for name, port in team.variables.items() if name.endswith("PORT")}
    heard = [c.laddr for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port in ports]
    assert {address.port for address in heard} == ports
    assert {address.ip for address in heard} == {"127.0.0.1"}


def test_a_user_adds_runs_to_anothers_experiment_and_cannot_delete_it(team, as_user):
    client = as_user("alice")
    experiment = client.create_experiment("of alice")
    mine = client.create_run(experiment).info.run_id

    client = as_user("bob")
    assert client.get_experiment_by_name("of alice").experiment_id == experiment
    run = client.create_run(experiment).info.run_id
    client.log_metric(run, "auc", 0.9)
    client.log_text(run, "from bob", "note.txt")
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_experiment(experiment)
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_run(mine)
    assert client.get_experiment(experiment).lifecycle_stage == "active"

    client = as_user("alice")
    assert client.get_run(run).data.metrics == {"auc": 0.9}
    client.delete_run(run)
    # As the page on it says.
    get_app_client("basic-auth", tracking_uri=team.url).grant_user_permission("bob", "experiment", experiment, "MANAGE")
    client = as_user("bob")
    client.delete_experiment(experiment)
    assert client.get_experiment(experiment).lifecycle_stage == "deleted"


def test_strangers_other_names_of_the_server_and_old_passwords_are_refused(team):
    path = "mlflow/experiments/search?max_results=1"
    assert team.ask("alice", path).status_code == 200
    assert team.ask(None, path).status_code == 401
    for wrong in (("alice", "x" * 20), ("admin", "password1234"), ("nobody", "x" * 20)):
        assert requests.get(f"{team.url}/api/2.0/{path}", auth=wrong, timeout=60).status_code == 401
    assert team.ask("alice", path, headers={"Host": "evil.example.org"}).status_code == 403
    assert team.ask("alice", "mlflow/users/create", json={"username": "eve", "password": "x" * 20}).status_code == 403
    team.succeed("user", "carol")
    old = team.auth("carol")
    team.succeed("user", "carol")
    assert requests.get(f"{team.url}/api/2.0/{path}", auth=old, timeout=60).status_code == 401
    assert team.ask("carol", path).status_code == 200


@pytest.mark.parametrize(
    ("protocol", "security", "said"),
    [("tcp", dict, "closed|reset"), ("tls", Security.temporary, "TLS certificate does not match")],
    ids=["in the clear", "with a key of their own"],
)
def test_the_scheduler_takes_in_nobody_without_its_key(team, protocol, security, said):
    address = team.dask.replace("tls", protocol)
    with pytest.raises(OSError, match=said):
        Client(address, security=security(), timeout=4, set_as_default=False)


def test_a_server_that_was_killed_starts_again_with_what_it_had(team, as_user):
    client = as_user("alice")
    experiment = client.create_experiment("before the kill")
    leader = psutil.Process(int((team.home / "run" / "mlflow").read_text()))
    left = leader.children(recursive=True)
    leader.kill()
    leader.wait()
    assert team.command("status").returncode == 1
    team.succeed("start")
    assert not [process for process in left if process.is_running()]
    assert client.get_experiment(experiment).name == "before the kill"


def test_two_hundred_requests_at_once_are_all_kept(team, as_user):
    client = as_user("alice")
    run = client.create_run(client.create_experiment("many at once")).info.run_id
    together, auth = threading.Barrier(200), team.auth("alice")

    def log(step):
        together.wait()
        metric = {"run_id": run, "key": "loss", "value": step**2, "timestamp": 1, "step": step}
        return requests.post(
            f"{team.url}/api/2.0/mlflow/runs/log-metric", json=metric, auth=auth, timeout=120
        ).status_code

    with ThreadPoolExecutor(200) as crowd:
        assert set(crowd.map(log, range(200))) == {200}
    history = client.get_metric_history(run, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(step, step**2) for step in range(200)]


def test_two_workers_tune_and_what_came_of_it_outlives_the_server(team, as_user, write_sample, tmp_path, monkeypatch):
    """The study of alice on the encrypted scheduler; then a backup, everything wiped, and the backup restored."""
    space = {"dropout": {"low": 0.0, "high": 0.6}}
    (tmp_path / "desk").mkdir()
    desk = Desk(tmp_path / "desk", write_sample(tuning={"space": space, "pruning": False}))
    desk.tracking = team.url
    as_user("alice")
    certified = {"DASK_CONFIG": str(team.home / "dask")}
    words = ("--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--local-directory", str(tmp_path))
    quick = ("--epochs", "2", "--batch-size", "32", "--folds", "1")
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(started("dask_worker", team.dask, *words, **certified))
        desk.tune(3, workers=team.dask, seeds=1, quick=quick, **certified, **team.login("alice"))
    desk.check(3)
    client = as_user("bob")
    [version] = client.search_model_versions("name = 'deepmerge-tiny'")
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_registered_model("deepmerge-tiny")

    before, scored = contents(team, client), loaded(version)
    assert version.run_id in {run["info"]["run_id"] for run in before["runs"]}
    assert len(before["files"]) > 10
    backups = team.home.parent / "backups"
    backups.mkdir(mode=0o711)
    team.succeed("backup", str(backups))
    [backup] = backups.iterdir()
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    refused = team.command("restore", str(backup))
    assert (refused.returncode, contents(team, client) == before) == (2, True)
    team.succeed("stop")
    assert team.command("status").returncode == 3
    shutil.rmtree(team.home)

    whole = (backup / "database").read_bytes()
    (backup / "database").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = team.command("restore", str(backup))
    assert (damaged.returncode, "nothing was restored" in damaged.stderr) == (1, True)
    assert not list(team.home.glob("*/*"))
    (backup / "database").write_bytes(whole)
    team.succeed("restore", str(backup))
    team.succeed("start")
    client = as_user("bob")
    assert contents(team, client) == before
    np.testing.assert_array_equal(loaded(version), scored)
    with pytest.raises(MlflowException, match="Permission denied"):
        client.delete_registered_model("deepmerge-tiny")
    as_user("alice").delete_registered_model("deepmerge-tiny")


def loaded(version):
    """What a registered model, fetched through the server, says of some images."""
    model = mlflow.tensorflow.load_model(version.source)
    return model.predict(np.linspace(0, 9, 4 * 32 * 32 * 2, dtype=np.float32).reshape(4, 32, 32, 2), verbose=0)


def contents(team, client):
    """All that a server keeps: experiments, runs with their metrics' histories, models, files, users."""
    experiments = client.search_experiments(view_type=ViewType.ALL)
    ids = [experiment.experiment_id for experiment in experiments]
    runs = client.search_runs(ids, run_view_type=ViewType.ALL, max_results=10_000)
    names = [(run.info.run_id, name) for run in runs for name in run.data.metrics]
    with ThreadPoolExecutor(8) as several:
        histories = list(several.map(lambda name: [dict(m) for m in client.get_metric_history(*name)], names))
    artifacts = team.home / "artifacts"
    return {
        "experiments": [dict(experiment) for experiment in experiments],
        "runs": [run.to_dictionary() for run in runs],
        "histories": dict(zip(names, histories, strict=True)),
        "models": [dict(model) for model in client.search_registered_models()],
        "files": {str(f.relative_to(artifacts)): digest(f) for f in artifacts.rglob("*") if f.is_file()},
        "users": team.ask("admin", "mlflow/users/list").json(),
    }


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()
