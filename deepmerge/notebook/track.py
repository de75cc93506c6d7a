"""MLflow for a notebook: what happens inside `track` is logged as one run, and outside nothing is."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pandas as pd

from deepmerge.analysis.metrics import Evaluation
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Split
from deepmerge.jobs.evaluate import log_evaluation
from deepmerge.jobs.judged import PREDICTIONS
from deepmerge.jobs.run import header_tags, log_split
from deepmerge.jobs.train import log_epoch, log_trained
from deepmerge.model.training import Trained
from deepmerge.tracking import outbox, runs

log = logging.getLogger(__name__)

_is_tracked: ContextVar[bool] = ContextVar("tracked", default=False)


@contextmanager
def track(name: str) -> Iterator[str]:
    """Log what is trained and evaluated in the body as one MLflow run of this name; yields its id.

    The run holds settings, fingerprints of data and split, the metrics of every epoch, the model, test metrics,
    predictions and figures, in the experiment `deepmerge`, as a run of the command line does. It ends FAILED, with the
    reason, when the body raises.

    Examples
    --------
    >>> with dm.track("my run"):
    ...     model = dm.train(data, split)
    """
    with runs.new_run(name, {"kind": "notebook"}) as run_id:
        token = _is_tracked.set(True)
        try:
            yield run_id
        finally:
            _is_tracked.reset(token)
    if left := outbox.undelivered():
        log.warning("%s", left)


def begin(data: Dataset, split: Split, settings: Mapping[str, Any]) -> None:
    """Log what is trained, and on what, where that is tracked."""
    if _is_tracked.get():
        runs.set_tags(header_tags("notebook", data, split))
        runs.log_parameters({"dataset": data.name, **settings})
        log_split(split, data)
        runs.log_environment()


def epoch(number: int, values: Mapping[str, float]) -> None:
    """Log the measures of an epoch, from 1, where that is tracked."""
    if _is_tracked.get():
        log_epoch(number, values)


def end(trained: Trained, data: Dataset, split: Split) -> None:
    """Log a trained network, where that is tracked."""
    if _is_tracked.get():
        log_trained(trained, data, split, pdf=False)


def evaluation(measured: Evaluation, predictions: pd.DataFrame, name: str, note: str | None) -> None:
    """Log metrics, predictions and figures of an evaluation, where that is tracked."""
    if _is_tracked.get():
        runs.log_table(predictions.assign(split="test"), PREDICTIONS)
        log_evaluation(measured, predictions, name, note, pdf=False)
