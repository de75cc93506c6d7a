"""What MLflow loads from this package: the default experiment, whole databases, `mlflow run` without conda.

MLflow imports this module with every ``import mlflow``, so it stays light. It imports nothing of MLflow at the top:
were it imported before MLflow, MLflow would find it half made. So its providers have the methods of MLflow's abstract
classes (RunContextProvider, DefaultExperimentProvider) without deriving from them.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from deepmerge.tracking import launcher, passwords

EXPERIMENT = "deepmerge"
OPT_OUT = "DEEPMERGE_CONDA_FALLBACK"  # set it to 'off' to let MLflow fail where there is no conda
_LOADER = "mlflow.projects.backend.loader"


def is_this_project(uri: str) -> bool:
    """Whether `uri` is a local folder with the MLproject file of this project."""
    try:
        return Path(uri, "MLproject").read_text().startswith(f"name: {EXPERIMENT}\n")
    except (OSError, ValueError):  # no such file; not a path or not text
        return False


class DeepmergeExperiment:
    """Gives runs started in this project's folder the experiment `deepmerge`, as `mlflow run .` names none."""

    def in_context(self) -> bool:
        """Whether the working directory is this project."""
        return is_this_project(".")

    def get_experiment_id(self) -> str:
        """Id of the experiment, made if need be."""
        return experiment_id(EXPERIMENT)


def experiment_id(name: str, artifact_location: str | None = None) -> str:
    """Id of an experiment, made if need be; processes that ask at the same moment get the same one.

    MLflow's own `set_experiment` leaves those who come second with the experiment called Default.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id


def sqlite_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """MLflow's own store in an sqlite file, which is made whole or not at all.

    Registered as the store of such addresses, since `mlflow run` opens it before any command of ours.
    """
    from mlflow.tracking._tracking_service.utils import _get_sqlalchemy_store

    from deepmerge.tracking import database

    database.make_store(store_uri)
    return _get_sqlalchemy_store(store_uri, artifact_uri)


class CondaFallback:
    """Adds no tags. MLflow loads this group of plugins at import, in time for the hook at the foot of this module."""

    def in_context(self) -> bool:
        """Never: there is nothing to tag."""
        return False

    def tags(self) -> dict[str, str]:
        """No tags."""
        return {}


def conda_found() -> bool:
    """Whether MLflow would find a conda to run: beneath MLFLOW_CONDA_HOME, else beside CONDA_EXE, else on PATH."""
    from mlflow.utils.conda import get_conda_bin_executable

    return shutil.which(get_conda_bin_executable("conda")) is not None


def _adapt(loader: ModuleType) -> None:
    """Let `mlflow run` of this project fall back to MLflow's own environment, and log addresses without passwords."""
    loader.MLFLOW_BACKENDS["local"] = with_fallback(loader.MLFLOW_BACKENDS["local"])
    hide_passwords(importlib.import_module("mlflow.projects.backend.local"))


def with_fallback(backend: Any) -> type:
    """A local backend that runs this project in MLflow's own environment where there is no conda.

    MLproject names conda.yaml, and without conda `mlflow run .` would fail and leave its run RUNNING for ever. Neither
    an option in a file nor an environment variable chooses another environment manager, hence this replacement.
    """
    from mlflow.projects import utils
    from mlflow.tracking import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENV

    class LocalBackend(backend):
        def run(self, project_uri: str, entry_point: str, params: Any, version: Any, backend_config: dict[str, Any],
                tracking_uri: str, experiment_id: str) -> Any:  # fmt: skip
            falls_back = (
                backend_config.get(utils.PROJECT_ENV_MANAGER) is None
                and os.environ.get(OPT_OUT) != "off"
                and is_this_project(project_uri)
                and not conda_found()
            )
            if falls_back:
                print(
                    f"deepmerge: no conda here, so this runs in MLflow's own environment, {sys.prefix} "
                    f"(like --env-manager local; {OPT_OUT}=off forbids it)",
                    file=sys.stderr,
                )
                backend_config[utils.PROJECT_ENV_MANAGER] = "local"
            with launcher.announced():
                submitted = super().run(
                    project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id
                )
            if falls_back:
                MlflowClient().set_tag(submitted.run_id, MLFLOW_PROJECT_ENV, "local")
            return submitted

    return LocalBackend


def hide_passwords(local: ModuleType) -> None:
    """Let MLflow's local backend make the run of this project with addresses (`storage`) without their passwords.

    The command that it starts gets them as they are. A parameter that is logged cannot be changed any more. The run
    tells whose it is, so that it does not look as if it ran for ever should the launcher be killed.
    """
    from mlflow.tracking import MlflowClient

    make_run = local.get_or_create_run

    def make_run_without_passwords(
        run_id: Any, uri: str, experiment_id: str, work_dir: str, version: Any, entry_point: str, parameters: dict
    ) -> Any:
        if not is_this_project(work_dir):
            return make_run(run_id, uri, experiment_id, work_dir, version, entry_point, parameters)
        parameters = {name: passwords.hidden(str(value)) for name, value in parameters.items()}
        run = make_run(run_id, uri, experiment_id, work_dir, version, entry_point, parameters)
        MlflowClient().set_tag(run.info.run_id, launcher.PROCESS, launcher.named())
        return run

    local.get_or_create_run = make_run_without_passwords  # type: ignore[attr-defined]


class _LoaderHook(importlib.abc.MetaPathFinder):
    """Acts once, when MLflow's backend loader is imported; importing it from here would be circular."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != _LOADER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_adapt(module: ModuleType) -> None:
            execute(module)
            _adapt(module)

        spec.loader.exec_module = execute_and_adapt  # type: ignore[method-assign]  # the point of the hook
        return spec


if _LOADER in sys.modules:
    _adapt(sys.modules[_LOADER])
else:
    sys.meta_path.insert(0, _LoaderHook())
