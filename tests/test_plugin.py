import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow.tracking
import pytest
from mlflow.projects import utils
from mlflow.utils.conda import get_conda_bin_executable

from deepmerge.tracking import plugin

ROOT = Path(__file__).parents[1]


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_conda(monkeypatch, tmp_path):
    """An environment without conda; tests then put one somewhere."""
    monkeypatch.delenv("MLFLOW_CONDA_HOME", raising=False)
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.delenv(plugin.OPT_OUT, raising=False)
    (tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "path"))


@pytest.mark.parametrize(
    ("files", "variables", "found"),
    [
        ([], {}, False),
        (["path/conda"], {}, True),
        (["a/conda", "a/mamba"], {"CONDA_EXE": "a/mamba"}, True),
        (["a/conda"], {"CONDA_EXE": "a/conda"}, True),
        ([], {"CONDA_EXE": "gone/conda"}, False),
        (["path/conda"], {"CONDA_EXE": "gone/conda"}, False),  # MLflow looks beside CONDA_EXE only
        (["home/bin/conda"], {"MLFLOW_CONDA_HOME": "home"}, True),
        (["path/conda", "a/conda"], {"MLFLOW_CONDA_HOME": "gone", "CONDA_EXE": "a/conda"}, False),
    ],
)
def test_conda_is_found_where_mlflow_would_run_it(no_conda, monkeypatch, tmp_path, files, variables, found):
    for name in files:
        executable(tmp_path / name)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert plugin.conda_found() is found
    try:
        subprocess.run([get_conda_bin_executable("conda")], check=True)  # as MLflow tries it
        runs = True
    except OSError:
        runs = False
    assert runs is found


def test_a_conda_that_may_not_be_run_is_none(no_conda, tmp_path):
    executable(tmp_path / "path" / "conda").chmod(0o644)
    assert not plugin.conda_found()


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (b"name: deepmerge\nentry_points: {}\n", True),
        (b"name: deepmerge-other\n", False),
        (b"name: M\xfcller\n", False),
        (None, False),
    ],
)
def test_only_this_project_is_this_project(tmp_path, content, ours):
    if content is not None:
        (tmp_path / "MLproject").write_bytes(content)
    assert plugin.is_this_project(str(tmp_path)) is ours
    assert plugin.is_this_project(str(ROOT))
    assert not plugin.is_this_project("https://github.com/somebody/something.git")


HEAVY = ["tensorflow", "keras", "pandas", "matplotlib", "sklearn", "mlflow"]
REPORT = f"""
import json, sys
before = [name for name in {HEAVY} if name in sys.modules]
import mlflow.projects
from mlflow.projects.backend import loader
from mlflow.tracking.default_experiment import registry
mine = [c.__name__ for c in loader.MLFLOW_BACKENDS["local"].__mro__ if c.__module__.startswith("deepmerge")]
from mlflow.projects.backend import local
mine.append(local.get_or_create_run.__name__)
experiments = sum(type(p).__module__.startswith("deepmerge") for p in registry._default_experiment_provider_registry)
print(json.dumps({{"before": before, "mine": mine, "experiments": experiments}}))
"""
WITHOUT_ENTRY_POINTS = """
import importlib.metadata as metadata
metadata.entry_points = lambda **_: metadata.EntryPoints()
import mlflow.projects.backend.loader
"""


def in_fresh_python(code: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.slow  # a fresh Python that imports MLflow
def test_mlflow_itself_loads_the_plugin_and_replaces_the_local_backend_once():
    found = in_fresh_python(REPORT)
    assert (found["mine"], found["experiments"]) == (["LocalBackend", "make_run_without_passwords"], 1)


@pytest.mark.slow  # a fresh Python that imports MLflow
def test_the_plugin_may_come_first_and_is_light():
    found = in_fresh_python("import deepmerge.tracking.plugin" + REPORT)
    assert (found["mine"], found["experiments"]) == (["LocalBackend", "make_run_without_passwords"], 1)
    assert found["before"] == []


@pytest.mark.slow  # a fresh Python that imports MLflow
def test_the_plugin_may_come_after_the_backend_was_loaded():
    found = in_fresh_python(WITHOUT_ENTRY_POINTS + "import deepmerge.tracking.plugin" + REPORT)
    assert found["mine"] == ["LocalBackend", "make_run_without_passwords"]


@pytest.fixture
def launch(no_conda, monkeypatch):
    """Run a project through the replaced backend; returns what MLflow's own got, and the tags that were set."""
    got: list[dict] = []
    tags: list[tuple] = []

    class Backend:
        def run(self, project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id):
            got.append({**backend_config, "arguments": (project_uri, entry_point, params, version)})
            return SimpleNamespace(run_id="abc")

    class Client:
        def set_tag(self, *tag):
            tags.append(tag)

    monkeypatch.setattr(mlflow.tracking, "MlflowClient", Client)
    backend = plugin.with_fallback(Backend)()

    def launch(uri: Path = ROOT, manager: str | None = None):
        submitted = backend.run(
            str(uri), "main", {"a": "b"}, None, {utils.PROJECT_ENV_MANAGER: manager}, "sqlite:///x", "7"
        )
        assert submitted.run_id == "abc"
        assert got[-1]["arguments"] == (str(uri), "main", {"a": "b"}, None)
        return got[-1][utils.PROJECT_ENV_MANAGER], tags

    return launch


def test_without_conda_the_project_runs_in_mlflows_own_environment_and_says_so(launch, capsys):
    assert launch() == ("local", [("abc", "mlflow.project.env", "local")])
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert sys.prefix in said.err
    assert plugin.OPT_OUT in said.err


def left_alone(result, capsys, manager=None):
    assert result == (manager, [])
    assert capsys.readouterr() == ("", "")


def test_with_conda_nothing_changes(launch, tmp_path, capsys):
    executable(tmp_path / "path" / "conda")
    left_alone(launch(), capsys)


@pytest.mark.parametrize("manager", ["conda", "uv", "virtualenv", "local"])
def test_a_chosen_environment_manager_is_kept(launch, manager, capsys):
    left_alone(launch(manager=manager), capsys, manager)


def test_other_projects_are_left_alone(launch, tmp_path, capsys):
    (tmp_path / "MLproject").write_text("name: another\n")
    left_alone(launch(tmp_path), capsys)


def test_the_fallback_can_be_switched_off(launch, monkeypatch, capsys):
    monkeypatch.setenv(plugin.OPT_OUT, "off")
    left_alone(launch(), capsys)


@pytest.mark.parametrize(
    ("ours", "logged"), [(True, "postgresql://me@host/db"), (False, "postgresql://me:s3cret@host/db")]
)
def test_the_run_of_this_project_is_made_with_addresses_without_passwords(tmp_path, monkeypatch, ours, logged):
    made, tags = [], []
    run = SimpleNamespace(info=SimpleNamespace(run_id="abc"))
    monkeypatch.setattr(mlflow.tracking, "MlflowClient", lambda: SimpleNamespace(set_tag=lambda *tag: tags.append(tag)))
    local = SimpleNamespace(get_or_create_run=lambda *arguments: made.append(arguments) or run)
    plugin.hide_passwords(local)
    given = {"dataset": "noisy", "trials": 8, "storage": "postgresql://me:s3cret@host/db"}
    folder = str(ROOT if ours else tmp_path)
    assert local.get_or_create_run(None, ".", "7", folder, None, "tune", given) is run
    assert [(tag[:2], json.loads(tag[2])["pid"]) for tag in tags] == [(("abc", "process"), str(os.getpid()))] * ours
    assert {name: str(value) for name, value in made[0][-1].items()} == {**given, "trials": "8", "storage": logged}
    assert given["storage"] == "postgresql://me:s3cret@host/db"  # the command connects with it


def test_runs_in_the_project_folder_go_to_its_experiment_and_others_do_not(monkeypatch, tmp_path):
    experiments: dict[str, str] = {}

    class Client:
        def get_experiment_by_name(self, name):
            return SimpleNamespace(experiment_id=experiments[name]) if name in experiments else None

        def create_experiment(self, name, artifact_location=None):
            assert name not in experiments
            experiments[name] = "5"
            return "5"

    monkeypatch.setattr(mlflow.tracking, "MlflowClient", Client)
    provider = plugin.DeepmergeExperiment()
    monkeypatch.chdir(tmp_path)
    assert not provider.in_context()
    monkeypatch.chdir(ROOT)
    assert provider.in_context()
    assert [provider.get_experiment_id() for _ in range(2)] == ["5", "5"]
    assert experiments == {"deepmerge": "5"}


def test_the_provider_of_run_tags_adds_none():
    provider = plugin.CondaFallback()
    assert (provider.in_context(), provider.tags()) == (False, {})
