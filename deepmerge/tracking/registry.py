"""The model registry: a registered model for each data set, a version for each run, aliases for the champions."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion as Version
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.estimate import UNDEFINED, read
from deepmerge.tracking import mutex, runs

PREFIX = "deepmerge-"
CHAMPION, PREVIOUS = "champion", "previous"
MOVING = "moving"  # tag of a registered model while its aliases are moved, one after another: where each goes
# What a version takes over from its run, where the run has it.
TAGS = ("dataset", "data_source", "data_fingerprint", "split", "split_fingerprint", "git_commit", "git_dirty")
SETTINGS = ("dropout", "l2", "learning_rate", "params", "study")
HEADLINE = {"test_auc": "test AUC", "test_balanced_accuracy": "balanced accuracy"}
VERDICT = "promotion_"  # how the tags of the last verdict begin


def register(run: runs.Run) -> Version:
    """The version of a trained run in ``deepmerge-<dataset>``, made if need be, with the tags that the run has by now.

    Raises InputError when the run holds no model.
    """
    client = MlflowClient()
    run = client.get_run(run.info.run_id)
    model_id = runs.model_id(run)
    name = PREFIX + run.data.tags["dataset"]
    tags, description = _tags(run), _description(run)
    with _only_one(name):
        versions = _versions(f"name = '{name}' and run_id = '{run.info.run_id}'")
        if versions:
            version = versions[0]
            _tag(version, {key: value for key, value in tags.items() if version.tags.get(key) != value})
            client.update_model_version(name, version.version, description)
        else:
            with suppress(MlflowException):  # it exists, or else the next line says what is wrong
                client.create_registered_model(name, {"dataset": run.data.tags["dataset"]})
            version = client.create_model_version(
                name,
                f"models:/{model_id}",
                run.info.run_id,
                tags,
                description=description,
                await_creation_for=0,  # it is there; MLflow would say that it waits
                model_id=model_id,
            )
            # The model's page in the UI names its versions.
            linked = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
            linked.append({"name": name, "version": version.version})
            client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(linked)})
    return client.get_model_version(name, version.version)


def champion(name: str) -> Version | None:
    """The reigning version of a registered model."""
    return _aliased(name, CHAMPION)


def crown(version: Version, reigning: Version | None) -> bool:
    """Make `version` champion in place of `reigning`, which becomes the previous one.

    False, and nothing is changed, when another than `reigning` has become champion meanwhile.
    """
    with _only_one(version.name):
        now = champion(version.name)  # right before it moves: another machine knows nothing of this one's lock
        if (now and now.version) != (reigning and reigning.version):
            return False
        _move(version.name, {PREVIOUS: now.version} if now else {}, version.version)
    return True


def previous(name: str) -> Version | None:
    """The version that was champion of a registered model before the reigning one."""
    return _aliased(name, PREVIOUS)


def rollback(dataset: str) -> dict[str, str]:
    """Swap the champion of a data set and the version that was champion before it; a second time swaps back.

    Raises InputError when there is none.
    """
    runs.connect()
    name = PREFIX + config.name_of(dataset)
    with _only_one(name):
        now, before = champion(name), previous(name)
        if now is None or before is None or now.version == before.version:
            present = "no champion" if now is None else f"champion version {now.version} and no previous one"
            raise InputError(
                f"a rollback needs a champion of {name} and the one before it, found {present} in "
                f"{runs.store()}; 'deepmerge promote {dataset}' makes champions"
            )
        _move(name, {PREVIOUS: now.version}, before.version)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    _tag(before, {"rollback": f"{when}: champion again in place of version {now.version}"})
    _tag(now, {"rollback": f"{when}: version {before.version} is champion again"})
    return {"model": name, CHAMPION: f"version {before.version}", PREVIOUS: f"version {now.version}"}


def behind(version: Version) -> tuple[runs.Run, Path]:
    """The run of a version and the local path of its Keras file. Raises InputError where either was deleted."""
    try:
        run = MlflowClient().get_run(version.run_id)
        deleted = run.info.lifecycle_stage == "deleted"
        path = runs.model_file(run)
        problem = f"run {version.run_id} was deleted" * deleted or f"there is no file {path}" * (not path.exists())
    except (MlflowException, OSError, InputError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
    if problem:
        raise InputError(
            f"{version.name} version {version.version}, the champion, should have its run and its model, but: "
            f"{problem}; bring them back ('mlflow runs restore'), or replace it with --rollback or --force REASON"
        )
    return run, path


def record(version: Version, verdict: Mapping[str, object], folder: Path) -> None:
    """Put a verdict into the tags of a version and of its run, which is open, and its files beside the model.

    An earlier verdict goes.
    """
    client = MlflowClient()
    run, old = client.get_run(version.run_id), client.get_model_version(version.name, version.version)
    tags = {f"{VERDICT}{name}": str(value) for name, value in verdict.items()}
    for tag in _outdated(run.data.tags, tags):
        client.delete_tag(version.run_id, tag)
    for tag in _outdated(old.tags, tags):
        client.delete_model_version_tag(version.name, version.version, tag)
    runs.set_tags(tags)
    _tag(version, tags)
    client.log_model_artifacts(runs.model_id(run), str(folder))


def _outdated(tags: Mapping[str, str], verdict: Mapping[str, str]) -> list[str]:
    return [tag for tag in tags if tag.startswith(VERDICT) and tag not in verdict]


def listing(dataset: str | None = None) -> list[dict[str, str]]:
    """One line of texts for each registered version, of all data sets or of one, the newest first."""
    runs.connect()
    models = mlflow.search_registered_models(filter_string=f"name LIKE '{PREFIX}%'", order_by=["name"])
    wanted = [PREFIX + config.name_of(dataset)] if dataset else [model.name for model in models]
    return [
        {
            "model": model.name,
            "version": str(version.version),
            "aliases": ", ".join(sorted(a for a, of in model.aliases.items() if int(of) == int(version.version))),
            **{name: _interval(version.tags, name) for name in HEADLINE},
            "split": version.tags.get("split", ""),
            "data_source": version.tags.get("data_source", ""),
            "decision": version.tags.get(f"{VERDICT}decision", ""),
            "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ"),
            "run_id": version.run_id or "",
        }
        for model in models
        if model.name in wanted and model.name.startswith(PREFIX)  # LIKE takes the case as it comes
        for version in sorted(_versions(f"name = '{model.name}'"), key=lambda version: -int(version.version))
    ]


@contextmanager
def _only_one(name: str) -> Iterator[None]:
    """Hold the lock of a registered model, whose aliases are moved to the end first where somebody was cut off."""
    with mutex.only_one(name):
        try:
            left = MlflowClient().get_registered_model(name).tags.get(MOVING)
        except MlflowException:  # not made yet
            left = None
        if left is not None:
            _set_aliases(name, json.loads(left))
        yield


def _move(name: str, others: Mapping[str, str], champion: str) -> None:
    """Move aliases to versions, the champion's last. Cut off in between, whoever holds the lock next moves the rest."""
    aliases = {**others, CHAMPION: champion}
    MlflowClient().set_registered_model_tag(name, MOVING, json.dumps(aliases))
    _set_aliases(name, aliases)


def _set_aliases(name: str, aliases: Mapping[str, str]) -> None:
    client = MlflowClient()
    for alias, version in aliases.items():
        client.set_registered_model_alias(name, alias, str(version))
    client.delete_registered_model_tag(name, MOVING)


def _tag(version: Version, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(version.name, version.version, key, value)


def _tags(run: runs.Run) -> dict[str, str]:
    values = {**run.data.tags, **run.data.params}
    measured = [key for name in HEADLINE for key in UNDEFINED.flat(name)]
    return {
        **{name: values[name] for name in (*TAGS, *SETTINGS) if name in values},
        **{name: f"{run.data.metrics[name]:.4f}" for name in measured if name in run.data.metrics},
    }


def _description(run: runs.Run) -> str:
    """What the version's page in the UI says first, in Markdown."""
    tags = _tags(run)
    measured = [f"{words} {_interval(tags, name)}" for name, words in HEADLINE.items() if name in tags]
    settings = [f"{name} {_short(tags[name])}" for name in SETTINGS if name in tags]
    return (
        f"Network for **{tags['dataset']}** images ({tags.get('data_source')}), split by {tags.get('split')}: "
        f"**{', '.join(measured) or 'not evaluated yet'}** (95 % intervals over galaxies). "
        f"{', '.join(settings)}. Raw pixels in, merger probability out. Run {run.info.run_id}."
    )


def _short(text: str) -> str:
    """A number with three digits, anything else as it is."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text


def _interval(tags: Mapping[str, str], name: str) -> str:
    """Value and interval of a metric as text; nothing where there is no value."""
    return read(tags, name).text() if name in tags else ""


def _versions(condition: str) -> list[Version]:
    return mlflow.search_model_versions(filter_string=condition)


def _aliased(name: str, alias: str) -> Version | None:
    try:
        return MlflowClient().get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no such model, no such alias
            return None
        raise
