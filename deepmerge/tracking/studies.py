"""Optuna studies: which settings to try next, asked and told by one command, while others train.

A study ends with an exact number of finished trials. Finished is what ran to its end, what was pruned, and what failed
by its own settings (a loss that is not finite, say). A trial that was cut off (a killed command, a full disk, Ctrl-C)
is queued again with the same settings, and the run that it left in MLflow is closed.
"""

import copy
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from deepmerge import config
from deepmerge.cluster import Piece, Room, WorkerLost
from deepmerge.estimate import METRICS
from deepmerge.tracking import runs
from deepmerge.tracking.sampler import Sampler, suggest
from deepmerge.tracking.study_storage import alone, open_storage, without_warnings

log = logging.getLogger(__name__)

RETRIES = 3  # how often a trial that was cut off is tried again; after that it may be what kills the command
UNPRUNED_TRIALS = 5  # that a median needs; Optuna's own number
CUT_OFF = "cut off; tried again in another run"
ENDS = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}  # of the runs of trials

# What a trial tells after each epoch: its step, the objective so far, metrics of any names, and the threads it has.
Said = tuple[int, float, Mapping[str, float], int]
# The work of a trial with these settings: it reports what it has to say; returns the objective, and all that it said.
Work = Callable[[Mapping[str, Any]], Callable[..., tuple[float, list[Said]] | None]]


class _NotFinite(Exception):
    """The objective is no number that trials could be compared by."""


@dataclass(eq=False)
class _Running:
    """A trial that is under way, and the step that it has told of last."""

    trial: Trial
    run_id: str
    piece: Piece | None = None
    step: int = 0
    is_pruned: bool = False
    failure: str | None = None

    @property
    def is_over(self) -> bool:
        return self.is_pruned or self.failure is not None


class Study:
    """A study in a database, which this command alone works on."""

    def __init__(self, url: str, name: str, experiment: config.Experiment) -> None:
        """Open the study called `name`; make it where there is none.

        Raises InputError where the database cannot be opened.
        """
        self.settings, self._is_whole = experiment.tuning, experiment.is_whole
        self.url, self.name = url, name
        self.better = METRICS[self.settings.objective].better  # +1 where higher values are, else −1
        self.direction: Literal["minimize", "maximize"] = "maximize" if self.better > 0 else "minimize"
        # The first half of a learning curve says little about its end: the running statistics of batch norm, by which
        # validation goes, settle in some 500 steps, and until then the loss can rise to several times its start.
        pruner = optuna.pruners.MedianPruner(UNPRUNED_TRIALS, n_warmup_steps=experiment.training.epochs // 2 + 1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with without_warnings():
            self._retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
        how: dict[str, Any] = {
            "storage": open_storage(url),
            "study_name": name,
            "sampler": Sampler(experiment.training.seed),
            "pruner": pruner if self.settings.pruning else optuna.pruners.NopPruner(),
        }
        try:
            self.optuna = optuna.create_study(**how, direction=self.direction)
        except optuna.exceptions.DuplicatedStudyError:
            self.optuna = optuna.load_study(**how)

    @property
    def notes(self) -> dict[str, Any]:
        """The notes of all commands, as `note` wrote them."""
        return self.optuna.user_attrs

    def note(self, **notes: Any) -> None:
        """Write notes into the study, for every command that opens it."""
        for key, value in notes.items():
            self.optuna.set_user_attr(key, value)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other command work on the study meanwhile. Raises InputError where one does."""
        with alone(self.url, self.name):
            yield

    def begin_with(self, params: Mapping[str, Any]) -> None:
        """Let the first trial have these settings, unless it has been queued before."""
        self.optuna.enqueue_trial(dict(params), skip_if_exists=True)

    def trials(self) -> list[FrozenTrial]:
        """All trials that tell of settings, by number: finished, running or cut off."""
        return [trial for trial in self.optuna.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]

    def finished(self) -> int:
        """How many trials count as finished."""
        return sum(map(is_finished, self.trials()))

    @property
    def is_full(self) -> bool:
        """Whether all trials are finished."""
        return self.finished() >= self.settings.trials

    def best(self) -> FrozenTrial | None:
        """The best complete trial, the first among equals."""
        complete = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: self.better * trial.values[0], default=None)

    def work(
        self,
        room: Room,
        work: Work,
        parent: str,
        own_fault: type[Exception],
        tags: Mapping[str, str],
        parameters: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Run trials in the room until the study is full; each is an MLflow run with `tags` below the run `parent`.

        What a trial raises of the type `own_fault` is the settings' own fault and ends it as failed, as the loss of all
        its workers does; anything else cuts all trials off and is raised. `parameters` gives those of a run from the
        settings that are searched; `on_end` is called after each trial.
        """
        running: dict[Piece, _Running] = {}
        try:
            while True:
                while len(running) < room.width and self.finished() + len(running) < self.settings.trials:
                    begun = self._begin(parent, tags, parameters)
                    heard = partial(self._hear, room, begun)
                    begun.piece = room.submit(work(begun.trial.params), heard=heard)
                    running[begun.piece] = begun
                if not running:
                    return
                ended = running[room.next()]
                self._end(room, ended, own_fault)
                del running[ended.piece]  # type: ignore[arg-type]
                on_end()
        except BaseException:
            for begun in running.values():
                self._cut_off(begun.trial.number)
            raise

    def _begin(
        self, parent: str, tags: Mapping[str, str], parameters: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> _Running:
        trial = self.optuna.ask()
        for name, allowed in self.settings.space.items():
            suggest(trial, name, allowed, self._is_whole(name))
        named = {**tags, "trial": str(trial.number)}
        run_id = runs.begin_below(parent, f"trial-{trial.number}", named, parameters(trial.params))
        trial.set_user_attr("run_id", run_id)
        return _Running(trial, run_id)

    def _hear(self, room: Room, running: _Running, said: Said) -> None:
        """Note what a trial tells, unless it told so before its worker was lost, and drop it where it is behind."""
        step, value, metrics, threads = said
        if running.is_over or step <= running.step:
            return
        tags = {"threads": str(threads)} if running.step == 0 else {}
        running.step = step
        runs.log_below(running.run_id, metrics, step, tags)
        if math.isfinite(value):
            running.trial.report(value, step)
            running.is_pruned = running.trial.should_prune()
        else:
            running.failure = str(_not_finite(value))
        if running.is_over and running.piece is not None:
            room.drop(running.piece)

    def _end(self, room: Room, running: _Running, own_fault: type[Exception]) -> None:
        """Tell Optuna and MLflow what became of a trial."""
        value = None
        try:
            result = running.piece.result() if running.piece is not None and not running.is_over else None
            if result is not None:
                value, told = result
                for said in told:  # what is still on its way
                    self._hear(room, running, said)
                if not math.isfinite(value):
                    raise _not_finite(value)
        except (own_fault, WorkerLost, _NotFinite) as error:
            running.failure = f"{type(error).__name__.lstrip('_')}: {error}"
        if running.failure is not None:
            state = TrialState.FAIL
            running.trial.set_user_attr("own_fault", running.failure)
        else:
            state = TrialState.PRUNED if running.is_pruned else TrialState.COMPLETE
        if state == TrialState.COMPLETE and value is not None:
            runs.log_below(running.run_id, {f"trial_{self.settings.objective}": value})
        with without_warnings():
            self.optuna.tell(running.trial, value if state == TrialState.COMPLETE else None, state)
        runs.end_below(running.run_id, ENDS[state], running.failure)

    def resume(self) -> None:
        """Queue the trials again that a command left which is gone, and close their runs in MLflow."""
        for trial in self.trials():
            if trial.state == TrialState.RUNNING:
                self._cut_off(trial.number)
        ends = {trial.user_attrs.get("run_id"): trial for trial in self.trials() if is_finished(trial)}
        for run_id in runs.running_children(self.notes["run_id"], {"kind": "trial"}):
            if run_id in ends:
                runs.end_below(run_id, ENDS[ends[run_id].state], ends[run_id].user_attrs.get("own_fault"))
            else:
                runs.end_below(run_id, "KILLED", CUT_OFF)

    def _cut_off(self, number: int) -> None:
        """End a trial and queue it again."""
        with without_warnings():
            try:
                self.optuna.tell(number, state=TrialState.FAIL)
                trial = copy.deepcopy(self.optuna.get_trials(deepcopy=False)[number])
                run_id = trial.user_attrs.get("run_id")
                # The retry should not look as if it had that run.
                trial.user_attrs = {}
                if set(trial.params) != set(self.settings.space):
                    trial.params, trial.distributions = {}, {}
                self._retry(self.optuna, trial)
            except (ValueError, UpdateFinishedTrialError, StorageInternalError):
                return  # it has ended; or a full disk, say: the next command finds the trial
        if run_id is not None:
            runs.end_below(run_id, "KILLED", CUT_OFF)

    def importances(self) -> dict[str, float]:
        """Share of the objective's variance that each setting explains (functional ANOVA: Hutter et al. 2014, ICML).

        Empty where there are too few complete trials, or all have the same value.
        """
        values = [trial.values[0] for trial in self.trials() if trial.state == TrialState.COMPLETE]
        if len(set(values)) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(self.optuna, evaluator=evaluator)


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial counts: complete, pruned, or failed by its own settings."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "own_fault" in trial.user_attrs


def _not_finite(value: float) -> _NotFinite:
    return _NotFinite(f"the objective should be finite, got {value}")
