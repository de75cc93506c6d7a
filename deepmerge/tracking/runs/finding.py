"""Find runs: which model, or which study, is meant by a name, an id, a file or a URI."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.tracking import passwords
from deepmerge.tracking.runs.artifacts import FINGERPRINT, TRAINED
from deepmerge.tracking.runs.opening import FAILURE, connect, store
from deepmerge.tracking.runs.provenance import STARTED_IN

LAST = "last"
PAGE = 10  # runs that are asked for at a time
MOST = 1000  # runs that are looked at to tell what there is


def find(model: str, dataset: str, fingerprint: str | None = None) -> Run:
    """The run of a trained model.

    `model` is a run id, a ``models:/`` URI, the path of a ``run.json`` that `train` wrote, the name of a data set for
    its newest, or 'last' for the newest of `dataset`. Where the `fingerprint` of the data that are meant is given, the
    run trained on these: others may be called the same. Raises InputError when there is none, and for a run that did
    not end well.
    """
    connect()
    hint = ""
    if model.endswith(".json"):
        hint = f"; {model} is of another store: train anew, in the pipeline with dvc repro --force train@{dataset}"
        model = _noted_run(Path(model))
    client = MlflowClient()
    try:
        if model == LAST:
            return _last_run(dataset, fingerprint)
        if model.startswith("models:/"):
            run = client.get_run(_run_behind(client, model))
        elif re.fullmatch(r"[0-9a-f]{32}", model):
            run = client.get_run(model)
        else:
            run = _newest_of(model)
    except MlflowException as error:
        raise InputError(
            f"model should exist in {store()}, got {model!r}: {passwords.scrubbed(error.message)}{hint}"
        ) from None
    _require_ended_well(run)
    if fingerprint is not None and run.data.tags.get(FINGERPRINT) != fingerprint:
        raise InputError(
            f"model should be trained on the data of {dataset} (fingerprint {fingerprint}), got {_described(run)}; "
            f"train anew, or name the experiment file of those data"
        )
    return run


def running_children(parent: str, tags: Mapping[str, str]) -> list[str]:
    """Ids of the runs below `parent` that have these tags and look as if they ran."""
    conditions = [f"tags.`{name}` = '{value}'" for name, value in {"mlflow.parentRunId": parent, **tags}.items()]
    found = _newest_runs(" and ".join([*conditions, "attributes.status = 'RUNNING'"]))
    return [run.info.run_id for run in found]


def newest(datasets: Sequence[str]) -> list[Run]:
    """The newest run with a trained model of each data set that has one; by name alone."""
    connect()
    found = (next(_trained_runs(f"tags.dataset = '{name}' and tags.{TRAINED} = 'yes'"), None) for name in datasets)
    return [run for run in found if run is not None]


def newest_studies(kind: str, dataset: str, fingerprint: str | None = None) -> Iterator[Run]:
    """Finished runs of this kind about a data set, newest first; of these data, where a fingerprint tells of them."""
    connect()
    same = "" if fingerprint is None else f" and tags.{FINGERPRINT} = '{fingerprint}'"
    condition = f"tags.kind = '{kind}' and tags.dataset = '{dataset}' and attributes.status = 'FINISHED'{same}"
    yield from _newest_runs(condition)


def newest_study(kind: str, command: str, dataset: str, fingerprint: str | None = None) -> Run:
    """The newest finished run of this kind; InputError, with the command that makes one, where there is none."""
    found = next(newest_studies(kind, dataset, fingerprint), None)
    if found is None:
        data = "" if fingerprint is None else f" (fingerprint {fingerprint})"
        raise InputError(
            f"expected a run of kind {kind} about {dataset!r}{data} in {store()}, found none; make one with '{command}'"
        )
    return found


def _require_ended_well(run: Run) -> None:
    """Raise InputError for a run whose training failed or was stopped, or goes on in another process."""
    active = mlflow.active_run()
    if not _ended_well(run) and not (active and active.info.run_id == run.info.run_id):
        why = run.data.tags.get(FAILURE, "it was stopped, or is not at its end yet")
        raise InputError(
            f"model should be of a run that ended well, got run {run.info.run_id}, which is {run.info.status} ({why}); "
            f"train anew"
        )


def _ended_well(run: Run) -> bool:
    """Whether a run ended FINISHED; one that is open again keeps the end of its training."""
    return run.info.status == "FINISHED" or (run.info.status == "RUNNING" and bool(run.info.end_time))


def _described(run: Run) -> str:
    """A run and its data, for a message."""
    tags = run.data.tags
    return (
        f"run {run.info.run_id} of {tags.get('dataset', 'no data set')!r}, started in "
        f"{tags.get(STARTED_IN, 'an unknown folder')}, with other data (fingerprint {tags.get(FINGERPRINT)})"
    )


def _noted_run(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"model should be a file with a run_id, as 'deepmerge train --out' writes it, got {path}"
        ) from None


def _newest_of(name: str) -> Run:
    """The newest model of the data set of this name, whatever its data."""
    found = None
    if config.NAME.fullmatch(name):
        found = next(_trained_runs(f"tags.dataset = '{name}' and tags.{TRAINED} = 'yes'"), None)
    if found is None:
        raise InputError(
            "model should be 'last', a run id of 32 hexadecimal digits, a models:/ URI, a run.json, or the name of a "
            f"data set that has a trained model in {store()}, got {name!r}"
        )
    return found


def _last_run(dataset: str, fingerprint: str | None) -> Run:
    named = f"tags.dataset = '{dataset}' and tags.{TRAINED} = 'yes'"
    same = "" if fingerprint is None else f" and tags.{FINGERPRINT} = '{fingerprint}'"
    found = next(_trained_runs(named + same), None)
    if found is not None:
        return found
    other = next(_trained_runs(named), None)
    if other is not None:
        raise InputError(
            f"expected a model trained on the data of {dataset} (fingerprint {fingerprint}) in {store()}, found only "
            f"{_described(other)}; train anew, or name the experiment file of those data"
        )
    others = {run.data.tags["dataset"] for run in islice(_trained_runs(f"tags.{TRAINED} = 'yes'"), MOST)}
    raise InputError(
        f"expected a trained model of dataset {dataset!r} in {store()}, found none "
        f"(of others: {', '.join(sorted(others)) or 'none'}); "
        f"train one with 'deepmerge train {dataset}', or name a run id with --model"
    )


def _trained_runs(condition: str) -> Iterator[Run]:
    """Runs that ended well, newest first."""
    going = "attributes.status != 'FAILED' and attributes.status != 'KILLED'"
    return filter(_ended_well, _newest_runs(f"{condition} and {going}"))


def _newest_runs(condition: str, experiments: Sequence[str] | None = None) -> Iterator[Run]:
    """Runs of these experiments, by default of all, newest first, asked for as they are needed."""
    if experiments is None:
        experiments = [e.experiment_id for e in mlflow.search_experiments()]
    token = None
    while token != "":
        page = MlflowClient().search_runs(
            list(experiments), condition, max_results=PAGE, order_by=["start_time DESC"], page_token=token
        )
        yield from page
        token = page.token or ""


def _run_behind(client: MlflowClient, uri: str) -> str:
    name = uri.removeprefix("models:/")
    if "@" in name:
        return client.get_model_version_by_alias(*name.split("@", 1)).run_id
    if "/" in name:
        return client.get_model_version(*name.split("/", 1)).run_id
    return client.get_logged_model(name).source_run_id
