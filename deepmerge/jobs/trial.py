"""Trainings below the run of a job that needs several: folds, recipes, seeds. They are done side by side.

A training is a piece of work that knows nothing of MLflow: only the command writes runs, from what it returns. So an
MLflow server need be reached by the command alone, and no run is left open where a worker is lost.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np

from deepmerge import cluster, config
from deepmerge.analysis.metrics import point_metrics
from deepmerge.closure import closure, fingerprint
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.elsewhere import Rows, Source
from deepmerge.data.splits import Part, Split
from deepmerge.data.targets import Unlabelled
from deepmerge.errors import Failed
from deepmerge.jobs import judged as judging
from deepmerge.jobs import networks
from deepmerge.jobs.judged import Judged
from deepmerge.jobs.run import open_run
from deepmerge.jobs.train import epoch_metrics, measured, metadata_of
from deepmerge.model import devices, saved, training
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

FOLD = "fold"  # mark of a run whose model is one of several and never the newest of its data set
TEST = "test"
DIGEST = "training_digest"  # tag that tells a training from others, by all that it depends on
OUTCOME = "outcome.json"  # artifact of a training: all that it returned, for a study that goes on


@dataclass(frozen=True)
class Order:
    """A training that is wanted: its name and tags, its experiment, data and split.

    also: further images to score, by a name, with the data that they are of and the files of these. keep_model: log it,
    so that the run can be evaluated and explained like any other; wants_model: return it. target: images to adapt to,
    as `training.train` takes them, and to measure noise on.
    """

    name: str
    experiment: config.Experiment
    data: Dataset
    split: Split
    tags: Mapping[str, str] = field(default_factory=dict)
    also: Mapping[str, tuple[Dataset, config.Data, Part]] = field(default_factory=dict)
    keep_model: bool = False
    wants_model: bool = False
    target: Unlabelled | None = None


@dataclass(frozen=True)
class Trial:
    """A training that is done: its history and the epoch kept, and the seconds until the end of each epoch.

    scores: merger probability of the images of the test part, by `test`, and of those asked for, by their names; model:
    where it was wanted.
    """

    run_id: str
    history: dict[str, list[float]]
    best_epoch: int
    seconds: np.ndarray
    scores: dict[str, np.ndarray]
    model: keras.Model | None = None

    @property
    def probability(self) -> np.ndarray:
        """Merger probability of the images of the test part, (n,)."""
        return self.scores[TEST]


@dataclass(frozen=True)
class Outcome:
    """What a training returns. model: a Keras file, where it was asked for, with its metadata."""

    history: dict[str, list[float]]
    best_epoch: int
    seconds: list[float]
    ends: list[float]  # of the epochs, seconds since 1970
    threads: int
    scores: dict[str, list[float]]
    metadata: dict[str, Any] = field(default_factory=dict)
    model: bytes = b""


@dataclass(frozen=True)
class Training:
    """A training as a worker gets it. start: the file of the first weights."""

    source: Source
    split: Split
    experiment: config.Experiment
    scored: Mapping[str, tuple[Source, Part]]
    target: Rows | None = None
    start: bytes | None = None
    returns_model: bool = False

    def __call__(self, report: cluster.Report) -> Outcome | None:
        """Train and score; reports the number of each epoch, from 1, and its validation log loss. None: stopped."""
        threads, data = devices.prepare(), self.source.read()
        keras.utils.clear_session()  # or the graphs of all trainings would stay in memory
        began, seconds, ends = time.perf_counter(), [], []

        def on_epoch(epoch: int, values: Mapping[str, float]) -> None:
            seconds.append(time.perf_counter() - began)
            ends.append(time.time())
            if not report((epoch, float(values["val_log_loss"]))):
                raise cluster.Stopped

        target = None if self.target is None else self.target.read()
        with networks.beginning_with(self.experiment.network, self.start) as network:
            try:
                trained = training.train(data, self.split, network, self.experiment.training, on_epoch, target=target)
            except cluster.Stopped:
                return None
        scores = {
            name: judging.probability(trained.model, source.read(), part).tolist()
            for name, (source, part) in self.scored.items()
        }
        model, metadata = b"", {}
        if self.returns_model:
            metadata = metadata_of(trained, data, self.split)
            model = saved.packed(trained.model)
        return Outcome(trained.history, trained.best_epoch, seconds, ends, threads, scores, metadata, model)

    @property
    def digest(self) -> str:
        """What tells this training from others: its data, settings and code."""
        settings = self.experiment.model_dump(mode="json", include={"network": True, "training": True})
        parts = {
            name: [source.fingerprint, hashlib.sha256(part.table().to_csv(index=False).encode()).hexdigest()]
            for name, (source, part) in self.scored.items()
        }
        start = None if self.start is None else hashlib.sha256(self.start).hexdigest()
        target = None if self.target is None else self.target.rows.tolist()
        code = fingerprint(closure(["deepmerge.model.training"], without=["deepmerge/cluster/*"]))
        known = [self.source.fingerprint, self.split.fingerprint, settings, parts, start, target, code]
        known.append(networks.digests(self.experiment.network.model_copy(update={"start": None}), ""))
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]


def train_all(parent: str, title: str, orders: Sequence[Order], workers: cluster.Where = None) -> list[Trial]:
    """Train in runs below `parent`, side by side in the room of `workers`, and score; the trials in the order given.

    What an earlier command that was interrupted has trained already is taken over, its run put below `parent`. Where a
    training fails, the others go on. Raises Failed then, and InputError where the input is wrong.
    """
    done: dict[int, Trial] = {}
    waiting: dict[cluster.Piece, int] = {}
    failures: list[str] = []
    total = sum(order.experiment.training.epochs for order in orders)
    with progress_bar(title, total) as advance:
        pieces = [piece_of(order) for order in orders]
        for number, (order, piece) in enumerate(zip(orders, pieces, strict=True)):
            if not order.wants_model and (run := runs.cut_off_from_its_study({DIGEST: piece.digest})):
                done[number] = _taken_over(run, parent)
                advance(order.experiment.training.epochs)
        with cluster.opened(workers, len(orders) - len(done), cluster.count_side_by_side()) as room:
            reached = dict.fromkeys(range(len(orders)), 0)

            def hear(said: Sequence[Any], number: int) -> None:
                epoch, loss = said
                advance(max(0, epoch - reached[number]), note=f"{orders[number].name}: validation log loss {loss:.3f}")
                reached[number] = max(reached[number], epoch)

            for number, piece in enumerate(pieces):
                if number not in done:
                    waiting[room.submit(piece, heard=partial(hear, number=number))] = number
            while waiting:
                ended = room.next()
                number = waiting.pop(ended)
                order = orders[number]
                try:
                    done[number] = _logged(parent, order, pieces[number].digest, ended)
                except Failed as failure:
                    log.warning("%s failed: %s", order.name, failure)
                    failures.append(f"{order.name}: {failure}")
                advance(order.experiment.training.epochs - reached[number])
    if failures:
        raise Failed(f"{len(failures)} of {len(orders)} trainings failed; the others are kept. {'; '.join(failures)}")
    return [done[number] for number in range(len(orders))]


def over_seeds(order: Order, count: int) -> list[Order]:
    """The same training with `count` seeds, from its own on."""
    first = order.experiment.training.seed
    return [
        replace(order, name=f"{order.name}, seed {seed}", experiment=order.experiment.with_settings({"seed": seed}))
        for seed in range(first, first + count)
    ]


def again(judged: Judged, count: int) -> list[Order]:
    """The recipe of a model, to be trained again with the next seeds until there are `count` networks of it."""
    tags = {"recipe_of": judged.run.info.run_id}
    return over_seeds(Order(judged.data.name, judged.experiment, judged.data, judged.split, tags), count)[1:]


def piece_of(order: Order) -> Training:
    """The training as a worker gets it."""
    experiment = measured(order.experiment, order.data, order.split, order.target)
    source = Source.of(order.data, experiment.data)
    scored = {TEST: (source, order.split.test)}
    scored |= {name: (Source.of(data, files), part) for name, (data, files, part) in order.also.items()}
    adapt = experiment.training.adapt
    target = None if adapt is None or order.target is None else Rows(adapt.to, order.target.rows)
    start = networks.first_weights(experiment.network, experiment.name)
    model = order.keep_model or order.wants_model
    return Training(source, order.split, experiment, scored, target, start, model)


def _logged(parent: str, order: Order, digest: str, piece: cluster.Piece) -> Trial:
    """The trial of a training that is done, in a run of its own; the run has failed where the training has."""
    experiment = measured(order.experiment, order.data, order.split, order.target)
    tags = {**order.tags, DIGEST: digest}
    with open_run("trial", experiment, order.data, order.split, name=order.name, parent=parent, tags=tags) as run_id:
        outcome: Outcome = piece.result()
        runs.set_tags({"threads": str(outcome.threads)})
        runs.log_history(epoch_metrics(outcome.history), outcome.ends)
        labels = order.data.labels[order.split.test.rows]
        scored = point_metrics(labels, np.array(outcome.scores[TEST]))
        judging.look_at(run_id, order.data, order.split.test, order.split)
        for data, _, part in order.also.values():
            judging.look_at(run_id, data, part, order.split if data is order.data else None)
        runs.log_metrics({"best_epoch": outcome.best_epoch, "seconds": outcome.seconds[-1]})
        runs.log_metrics({f"test_{metric}": value for metric, value in scored.items()})
        runs.log_json(outcome.history, "history.json")
        model = saved.unpacked(outcome.model) if outcome.model else None
        if order.keep_model and model is not None:
            example = gather(order.data.images, order.split.train.rows[:2])
            answer = np.asarray(model(example, training=False))
            runs.log_model(model, example, answer, outcome.metadata, trained=FOLD)
        kept = {"best_epoch": outcome.best_epoch, "seconds": outcome.seconds, "scores": outcome.scores}
        runs.log_json({**kept, "history": outcome.history}, OUTCOME)  # last: whoever holds it is whole
    return _trial(run_id, {**kept, "history": outcome.history}, model if order.wants_model else None)


def _taken_over(run: runs.Run, parent: str) -> Trial:
    runs.put_below(run.info.run_id, parent)
    return _trial(run.info.run_id, runs.read_json(run, OUTCOME))


def _trial(run_id: str, kept: Mapping[str, Any], model: keras.Model | None = None) -> Trial:
    scores = {name: np.array(values) for name, values in kept["scores"].items()}
    return Trial(run_id, kept["history"], kept["best_epoch"], np.array(kept["seconds"]), scores, model)
