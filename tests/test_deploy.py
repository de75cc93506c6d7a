"""What lies in deploy/: each file against the rules of what reads it; test_team_server.py starts the server."""

import json
import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml
from conftest import BIN, environment, free_port

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SERVER = DEPLOY / "server.sh"
SCRIPTS = sorted([*DEPLOY.glob("*.sh"), *DEPLOY.rglob("*.sbatch")])
JOBS = sorted(DEPLOY.rglob("*.sbatch"))


# --- Shell ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n", script], check=True)
    checked = subprocess.run([BIN / "shellcheck", "-s", "bash", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def server(home, *words, path=None, **variables):
    """Run `server.sh` on a server in the folder `home`."""
    # The scheduler takes in what commands send it, so it has their code.
    env = environment(DEEPMERGE_SERVER=str(home), PYTHONPATH=str(ROOT), **variables)
    env = {name: value for name, value in env.items() if not name.startswith("PG")} | {
        name: value for name, value in variables.items() if name.startswith("PG")
    }
    if path is not None:
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
    return subprocess.run([SERVER, *words], env=env, capture_output=True, text=True, check=False, timeout=240)


def values(file):
    """What a file of NAME=VALUE holds."""
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines)}


@pytest.mark.parametrize("words", [(), ("begin",), ("start", "now"), ("user",), ("backup",), ("restore", "a", "b")])
def test_a_wrong_command_line_is_answered_with_the_right_ones(tmp_path, words):
    done = server(tmp_path / "server", *words)
    assert done.returncode == 2
    assert {line.split()[1] for line in done.stderr.splitlines()} == {
        *("start", "stop", "status", "user", "backup", "restore", "secrets"),
    }
    assert not (tmp_path / "server").exists()


def test_passwords_are_random_and_for_their_owner_only(tmp_path):
    one, two = tmp_path / "one.env", tmp_path / "two.env"
    for file in (one, two):
        assert server(tmp_path, "secrets", str(file)).returncode == 0
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    names = {"MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY", "PGPASSWORD"}
    assert set(values(one)) == names
    assert not set(values(one).values()) & set(values(two).values())
    assert all(len(value) >= 40 for value in values(one).values())
    before = one.read_text()
    again = server(tmp_path, "secrets", str(one))
    assert (again.returncode, one.read_text()) == (2, before)


def test_given_passwords_are_kept_and_one_for_a_given_database_is_never_made_up(tmp_path):
    file = tmp_path / "secrets.env"
    refused = server(tmp_path, "secrets", str(file), PGHOST="db.example.org")
    assert (refused.returncode, file.exists()) == (2, False)
    assert "PGPASSWORD should be the password for PostgreSQL on db.example.org" in refused.stderr
    given = {"PGHOST": "db.example.org", "PGPASSWORD": "of the database", "MLFLOW_AUTH_ADMIN_PASSWORD": "of the admin"}
    assert server(tmp_path, "secrets", str(file), **given).returncode == 0
    found = subprocess.run(
        ["bash", "-c", f'source {file}; printf "%s|%s" "$PGPASSWORD" "$MLFLOW_AUTH_ADMIN_PASSWORD"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "of the database|of the admin"


def test_missing_packages_are_named_with_the_way_to_install_them(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    done = server(tmp_path / "server", "start", path=tmp_path / "bin")
    assert done.returncode == 2
    assert "pip install 'deepmerge-lab[server]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"])
def test_mlflow_does_not_start_without_a_password(name):
    given = {"SERVER_ARTIFACTS": "a", "PGHOST": "h", "PGUSER": "u", "PGPASSWORD": "p", "PGDATABASE": "d"}
    given |= {"MLFLOW_AUTH_ADMIN_PASSWORD": "a", "MLFLOW_FLASK_SERVER_SECRET_KEY": "k", name: ""}
    done = subprocess.run(
        [DEPLOY / "mlflow.sh"], env=environment(**given), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert f"{name} should be set" in done.stderr


@pytest.fixture
def elsewhere(tmp_path):
    """The folder of a server whose PostgreSQL is another machine's, as if it had been started once."""
    home = tmp_path / "server"
    (home / "run").mkdir(parents=True)
    ports = {"SERVER_PORT": free_port(), "DASK_PORT": free_port(), "PGPORT": free_port()}
    settings = {"SERVER_HOST": "127.0.0.1", "PGHOST": "127.0.0.1", "PGUSER": "me", "PGDATABASE": "d", **ports}
    (home / "settings.env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    (home / "secrets.env").write_text("PGPASSWORD=x\nMLFLOW_AUTH_ADMIN_PASSWORD=y\n")
    return home


def test_stop_ends_no_process_that_has_taken_the_number_of_one_of_ours(elsewhere):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        (elsewhere / "run" / "mlflow").write_text(f"{stranger.pid}\n")
        assert server(elsewhere, "status").returncode == 3
        assert server(elsewhere, "stop").returncode == 0
        assert stranger.poll() is None
        assert not (elsewhere / "run" / "mlflow").exists()
        stranger.kill()


def test_a_port_that_another_program_holds_is_refused(elsewhere):
    port = values(elsewhere / "settings.env")["SERVER_PORT"]
    with socket.create_server(("127.0.0.1", int(port))):
        done = server(elsewhere, "start")
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert server(elsewhere, "status").returncode == 3


@pytest.mark.parametrize("words", [("stop",), ("status",), ("user", "alice"), ("backup", "/tmp")])
def test_where_no_server_was_made_it_says_so(tmp_path, words):
    done = server(tmp_path / "server", *words)
    assert done.returncode == 2
    assert "server.sh start makes one" in done.stderr


@pytest.mark.parametrize("name", ["admin", "a b", "", "../x", "a" * 65])
def test_a_name_that_cannot_be_a_users_is_refused(elsewhere, name):
    done = server(elsewhere, "user", name)
    assert done.returncode == 2
    assert "a user's name should be" in done.stderr
    assert not list(elsewhere.rglob("*.env.new"))


# --- Files of other programs ----------------------------------------------------------------------------------

TEXT, WORDS = {"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}
TIME = {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?$", "minLength": 2}
SETTINGS = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}


def closed(required=(), **properties):
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# As in the Compose Specification, of which this is the part that we use.
SERVICE = closed(
    ["image", "command", "restart"],
    image=TEXT,
    build=closed(["context", "dockerfile"], context=TEXT, dockerfile=TEXT),
    command=WORDS,
    environment=SETTINGS,
    volumes={"type": "array", "items": {"type": "string", "pattern": "^[^:]+(:-[^}]*})?:/[^:]+$"}},
    networks=WORDS,
    ports={"type": "array", "items": {"type": "string", "pattern": r"^\$\{\w+:-127\.0\.0\.1\}:\d+:\d+$"}},
    depends_on={
        "type": "object",
        "additionalProperties": closed(["condition"], condition={"enum": ["service_healthy"]}),
    },
    healthcheck=closed(
        ["test", "interval", "timeout", "retries"],
        test={"type": "array", "items": TEXT, "minItems": 2, "contains": {"const": "CMD"}},
        interval=TIME,
        timeout=TIME,
        start_period=TIME,
        retries={"type": "integer", "minimum": 1},
    ),
    deploy=closed(replicas={"type": "integer", "minimum": 1}),
    init={"type": "boolean"},
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
    stop_grace_period=TIME,
    shm_size={"type": "string", "pattern": r"^\d+[kmg]b$"},
    working_dir={"type": "string", "pattern": "^/"},
    user=TEXT,
    profiles=WORDS,
)
COMPOSE = {
    **closed(
        ["name", "services"],
        name={"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        services={"type": "object", "additionalProperties": SERVICE},
        networks={"type": "object", "additionalProperties": closed(internal={"type": "boolean"})},
        volumes={"type": "object", "additionalProperties": {"type": "null"}},
    ),
    "patternProperties": {"^x-": {}},
}


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_the_compose_file_is_one_and_names_nothing_that_is_not_there(compose):
    jsonschema.validate(compose, COMPOSE)
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        assert set(service.get("networks", [])) <= {"default", *compose["networks"]}
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if re.match(r"\w", volume)}
        assert named <= set(compose["volumes"])
        if "build" in service:
            folder = DEPLOY / service["build"]["context"]
            assert (folder / service["build"]["dockerfile"]).is_file()
    for name in {other for service in compose["services"].values() for other in service.get("depends_on", {})}:
        assert "healthcheck" in compose["services"][name]  # what others wait for


def test_the_compose_file_holds_no_password_and_starts_without_none(compose):
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if value and ("PASSWORD" in name or "KEY" in name):
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value)
    given = {"PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"}
    assert set(re.findall(r"\$\{(\w+):\?", json.dumps(compose))) == given
    # Those that run what they are sent know none of them.
    assert not [
        name for name in compose["services"] if name.startswith("dask") and ":?" in str(compose["services"][name])
    ]


def test_the_database_is_reached_by_mlflow_alone_and_what_is_kept_lies_in_volumes(compose):
    services = compose["services"]
    inside = {name for name, service in services.items() if "inside" in service.get("networks", [])}
    assert inside == {"postgres", "mlflow"}
    assert compose["networks"]["inside"]["internal"]
    assert services["postgres"]["networks"] == ["inside"]
    assert [name for name, service in services.items() if "ports" in service] == ["mlflow"]
    assert services["postgres"]["volumes"] == ["database:/var/lib/postgresql/data"]
    assert f"artifacts:{services['mlflow']['environment']['SERVER_ARTIFACTS']}" in services["mlflow"]["volumes"]


def test_docker_compose_reads_the_file(tmp_path):
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker with compose on this machine")
    file = tmp_path / "secrets.env"
    server(tmp_path, "secrets", str(file))
    words = ["docker", "compose", "--env-file", file, "-f", DEPLOY / "compose.yaml", "config"]
    read = subprocess.run(words, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert values(file)["PGPASSWORD"] in read.stdout
    words[3] = os.devnull
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0


def test_the_image_holds_what_the_services_start(compose):
    copied = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^COPY \. \.$", copied, re.MULTILINE)
    folder = re.search(r"^WORKDIR (/\S+)$", copied, re.MULTILINE)[1]
    script = Path(compose["services"]["mlflow"]["command"][0])
    assert os.access(ROOT / script.relative_to(folder), os.X_OK)
    assert re.search(r"^USER (?!root)\w+$", copied, re.MULTILINE)
    left_out = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {"**/*.env", ".git", "data"} <= set(left_out)
    assert not {"deepmerge", "deploy", "experiments"} & set(left_out)


# As in the OpenAPI of Kubernetes (Job, batch/v1; PersistentVolumeClaim, v1), of which this is the part that we use.
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
QUANTITY = {"type": "string", "pattern": r"^\d+(m|Ki|Mi|Gi|Ti)?$"}
WHOLE = {"type": "integer", "minimum": 0}
META = closed(name=NAME, labels={"type": "object", "additionalProperties": TEXT})
AMOUNTS = closed(["cpu", "memory"], cpu=QUANTITY, memory=QUANTITY)
CONTAINER = closed(
    ["name", "image", "command", "resources"],
    name=NAME,
    image=TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    command=WORDS,
    workingDir={"type": "string", "pattern": "^/"},
    envFrom={"type": "array", "items": closed(["secretRef"], secretRef=closed(["name"], name=NAME))},
    env={"type": "array", "items": closed(["name", "value"], name=TEXT, value=TEXT)},
    resources=closed(["requests", "limits"], requests=AMOUNTS, limits=AMOUNTS),
    securityContext=closed(
        allowPrivilegeEscalation={"const": False},
        capabilities=closed(drop=WORDS),
    ),
    volumeMounts={"type": "array", "items": closed(["name", "mountPath"], name=NAME, mountPath=TEXT)},
)
CLAIMED = closed(
    ["name", "persistentVolumeClaim"], name=NAME, persistentVolumeClaim=closed(["claimName"], claimName=NAME)
)
POD = closed(
    ["restartPolicy", "containers", "terminationGracePeriodSeconds"],
    hostname=NAME,
    restartPolicy={"enum": ["Never", "OnFailure"]},  # a Job takes no other
    terminationGracePeriodSeconds=WHOLE,
    automountServiceAccountToken={"type": "boolean"},
    securityContext=closed(runAsNonRoot={"const": True}, runAsUser=WHOLE, runAsGroup=WHOLE, fsGroup=WHOLE),
    containers={"type": "array", "items": CONTAINER, "minItems": 1},
    volumes={"type": "array", "items": CLAIMED},
)
RULE = closed(
    ["action"],
    action={"enum": ["FailJob", "Ignore", "Count", "FailIndex"]},
    onExitCodes=closed(
        ["operator", "values"],
        containerName=NAME,
        operator={"enum": ["In", "NotIn"]},
        values={"type": "array", "items": {"type": "integer"}, "minItems": 1},
    ),
    onPodConditions={
        "type": "array",
        "items": closed(["type", "status"], type=TEXT, status={"enum": ["True", "False"]}),
    },
)
KINDS = {
    "Job": closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "batch/v1"},
        kind={"const": "Job"},
        metadata=META,
        spec=closed(
            ["template", "backoffLimit"],
            backoffLimit=WHOLE,
            ttlSecondsAfterFinished=WHOLE,
            podFailurePolicy=closed(["rules"], rules={"type": "array", "items": RULE, "minItems": 1, "maxItems": 20}),
            template=closed(["spec"], metadata=META, spec=POD),
        ),
    ),
    "PersistentVolumeClaim": closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "v1"},
        kind={"const": "PersistentVolumeClaim"},
        metadata=META,
        spec=closed(
            ["accessModes", "resources"],
            accessModes={"type": "array", "items": {"enum": ["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]}},
            resources=closed(["requests"], requests=closed(["storage"], storage=QUANTITY)),
        ),
    ),
}


def test_the_kubernetes_job_is_one_and_its_parts_fit():
    found = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes" / "train.yaml").read_text())}
    assert set(found) == set(KINDS)
    for kind, content in found.items():
        jsonschema.validate(content, KINDS[kind])
    pod = found["Job"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["workingDir"] in {mount["mountPath"] for mount in container["volumeMounts"]}
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]}
    assert claims == {found["PersistentVolumeClaim"]["metadata"]["name"]}
    # Rules for exit codes are for jobs whose containers are not started again in place.
    policy = found["Job"]["spec"]["podFailurePolicy"]["rules"]
    assert pod["restartPolicy"] == "Never"
    assert [rule["onExitCodes"]["values"] for rule in policy if rule["action"] == "FailJob"] == [[2]]
    assert {rule["onExitCodes"]["containerName"] for rule in policy if "onExitCodes" in rule} == {container["name"]}


# Of the manual of sbatch (Slurm 24): the options that take a value here, and its form.
SBATCH = {
    "job-name": r"[\w-]+",
    "array": r"\d+(-\d+)?(%\d+)?",
    "nodes": r"\d+",
    "ntasks": r"\d+",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]?",
    "time": r"(\d+-)?\d\d:\d\d:\d\d",
    "output": r"[\w.%-]*%[jA][\w.%-]*",
    "open-mode": "append|truncate",
    "signal": r"[BR]{0,2}:?(TERM|INT|USR1|USR2)(@\d{1,5})?",
    "requeue": None,
}


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_the_options_of_slurm_jobs_are_known_and_stand_where_slurm_reads_them(job):
    lines = job.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    options = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH")]
    assert not [line for line in lines[first:] if "SBATCH" in line]  # Slurm stops reading at the first command
    assert len({name for name, _, _ in options}) == len(options)
    for name, equals, value in options:
        assert re.fullmatch(SBATCH[name], value) if SBATCH[name] else not equals
    names = {name for name, _, _ in options}
    assert ("array" in names) == ("$SLURM_ARRAY_TASK_ID" in job.read_text())
    assert "signal" in names  # so that a run is closed before the time limit kills it


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("train", ["main", "noisy", "--epochs", "3"]),
        ("array", ["main", "noisy", "--epochs", "3", "--seed", "4"]),
    ],
)
def test_a_slurm_job_gives_its_words_and_the_login_to_the_command(tmp_path, job, words):
    for name, script in {
        "srun": '#!/bin/bash\n[[ $1 == --* ]] && shift\nexec "$@"\n',
        "deepmerge": '#!/bin/bash\nprintf "%s\\n" "$MLFLOW_TRACKING_USERNAME" "$OMP_NUM_THREADS" "$@"\n',
    }.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "login").write_text("MLFLOW_TRACKING_USERNAME=alice\n")
    env = environment(DEEPMERGE_LOGIN=str(tmp_path / "login"), SLURM_CPUS_PER_TASK="4", SLURM_ARRAY_TASK_ID="4")
    env["PATH"] = f"{tmp_path}{os.pathsep}{env['PATH']}"
    script = DEPLOY / "slurm" / f"{job}.sbatch"
    done = subprocess.run(["bash", script, *words[1:4]], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["alice", "4", *words]
