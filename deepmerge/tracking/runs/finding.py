"""Find runs: which model, or which study, is meant by a name, an id, a file or a URI."""

import json
import logging
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
from deepmerge.tracking import launcher, passwords, processes
from deepmerge.tracking.runs.artifacts import FINGERPRINT
from deepmerge.tracking.runs.delivery import TRAINED
from deepmerge.tracking.runs.opening import FAILURE, connect, store
from deepmerge.tracking.runs.provenance import STARTED_IN
from deepmerge.tracking.runs.writing import as_known, is_open

log = logging.getLogger(__name__)

LAST = "last"
FINISHED = "FINISHED"  # the status of runs that ended well: no other counts as a model
PAGE = 10  # runs that are asked for at a time
MOST = 1000  # runs that are looked at to tell what there is


def find(model: str, dataset: str, fingerprint: str | None = None) -> Run:
    """The run of a trained model.

    `model` is a run id, a ``models:/`` URI, the path of a ``run.json`` that `train` wrote, the name of a data set for
    its newest, or 'last' for the newest of `dataset`. With a `fingerprint` it has to be trained on the data that this
    one belongs to: others may be called the same. Raises InputError when there is none, and for a run that did not end
    well.
    """
    if (known := as_known(model)) is not None and fingerprint is None:
        return known
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
        words = passwords.scrubbed(error.message)
        raise InputError(f"model should exist in {store()}, got {model!r}: {words}{hint}") from None
    if run.info.status != FINISHED and not is_open(run.info.run_id):
        why = run.data.tags.get(FAILURE, "it was stopped, or still runs")
        raise InputError(
            f"model should be of a run that ended well, got run {run.info.run_id}, which is {run.info.status} ({why}); "
            f"train anew"
        )
    if fingerprint is not None and run.data.tags.get(FINGERPRINT) != fingerprint:
        raise InputError(
            f"model should be trained on the data of {dataset} (fingerprint {fingerprint}), got {_described(run)}; "
            f"train anew, or name the experiment file of those data"
        )
    return run


def running_children(parent: str, tags: Mapping[str, str]) -> list[str]:
    """Ids of the runs below `parent` that have these tags and look as if they ran."""
    runs = _newest_runs({"mlflow.parentRunId": parent, **tags}, "attributes.status = 'RUNNING'")
    return [run.info.run_id for run in runs]


def cut_off_from_its_study(tags: Mapping[str, str]) -> Run | None:
    """The newest run with these tags that ended well, below one that did not and whose process is gone."""
    for run in islice(_newest_runs(tags, "attributes.status = 'FINISHED'"), MOST):
        parent = mlflow.get_run(run.data.tags["mlflow.parentRunId"])
        process = json.loads(parent.data.tags.get(launcher.PROCESS, "{}"))
        is_gone = parent.info.status == "RUNNING" and processes.is_gone(process)
        if is_gone or parent.info.status in ("KILLED", "FAILED"):
            return run
    return None


def newest(datasets: Sequence[str]) -> list[Run]:
    """The newest run with a trained model of each data set that has one; by name alone."""
    connect()
    return [run for name in datasets for run in islice(_trained_runs(name), 1)]


def newest_studies(kind: str, dataset: str, fingerprint: str | None = None) -> Iterator[Run]:
    """Finished runs of this kind about a data set, newest first; those of the data with this fingerprint, if any."""
    connect()
    tags = {"kind": kind, "dataset": dataset, FINGERPRINT: fingerprint}
    yield from _newest_runs(tags, f"attributes.status = '{FINISHED}'")


def others_if_reachable(kind: str, dataset: str, fingerprint: str) -> Iterator[Run]:
    """`newest_studies`, for what can be done without; it ends, and says so, where the store does not answer."""
    try:
        yield from newest_studies(kind, dataset, fingerprint)
    except MlflowException as error:
        log.warning("Other runs could not be asked for: %s", passwords.scrubbed(error.message))


def newest_study(kind: str, command: str, dataset: str, fingerprint: str | None = None) -> Run:
    """The newest finished run of this kind; InputError, with the command that makes one, where there is none."""
    for run in newest_studies(kind, dataset, fingerprint):
        return run
    data = "" if fingerprint is None else f" (fingerprint {fingerprint})"
    raise InputError(
        f"expected a run of kind {kind} about {dataset!r}{data} in {store()}, found none; make one with '{command}'"
    )


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
    for run in _trained_runs(name) if config.NAME.fullmatch(name) else ():
        return run
    raise InputError(
        "model should be 'last', a run id of 32 hexadecimal digits, a models:/ URI, a run.json, or the name of a "
        f"data set that has a trained model in {store()}, got {name!r}"
    )


def _last_run(dataset: str, fingerprint: str | None) -> Run:
    for run in _trained_runs(dataset, fingerprint):
        return run
    for other in _trained_runs(dataset):
        raise InputError(
            f"expected a model trained on the data of {dataset} (fingerprint {fingerprint}) in {store()}, found only "
            f"{_described(other)}; train anew, or name the experiment file of those data"
        )
    others = {run.data.tags["dataset"] for run in islice(_trained_runs(), MOST)}
    raise InputError(
        f"expected a trained model of dataset {dataset!r} in {store()}, found none "
        f"(of others: {', '.join(sorted(others)) or 'none'}); "
        f"train one with 'deepmerge train {dataset}', or name a run id with --model"
    )


def _trained_runs(dataset: str | None = None, fingerprint: str | None = None) -> Iterator[Run]:
    """Runs with a trained model that ended well, newest first."""
    tags = {TRAINED: "yes", "dataset": dataset, FINGERPRINT: fingerprint}
    yield from _newest_runs(tags, f"attributes.status = '{FINISHED}'")


def _newest_runs(tags: Mapping[str, str | None], *conditions: str) -> Iterator[Run]:
    """Runs of all experiments with these tags (None: any), newest first, asked for as they are needed."""
    experiments = [experiment.experiment_id for experiment in mlflow.search_experiments()]
    terms = [f"tags.`{name}` = '{value}'" for name, value in tags.items() if value is not None]
    token = None
    while token != "":
        page = MlflowClient().search_runs(
            experiments,
            " and ".join([*terms, *conditions]),
            max_results=PAGE,
            order_by=["start_time DESC"],
            page_token=token,
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
