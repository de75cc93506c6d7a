"""Optuna studies: which settings to try next, in a database that any number of workers share.

A study ends with an exact number of finished trials. Finished is what ran to its end, what was pruned, and what failed
by its own settings (a loss that is not finite). A trial that was cut off (a killed process, a full disk, Ctrl-C) is
queued again with the same settings, and the run that it left in MLflow is closed.
"""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from deepmerge import config
from deepmerge.estimate import METRICS
from deepmerge.tracking import processes, runs
from deepmerge.tracking.sampler import Sampler, suggest
from deepmerge.tracking.study_storage import GRACE, open_storage, without_warnings

log = logging.getLogger(__name__)

RETRIES = 3  # how often a trial that was cut off is tried again; after that it may be what kills its worker
PAUSE = 1.0  # seconds between two looks of a worker that has nothing to do until another one ends
UNPRUNED_TRIALS = 5  # that a median needs; Optuna's own number

Report = Callable[[int, float, Mapping[str, float]], None]
Objective = Callable[[dict[str, Any], Report], float]


class _Surplus(Exception):
    """Another worker took the last place in the study at the same moment."""


class _NotFinite(Exception):
    """The objective is no number that trials could be compared by."""


class _TakenAway(Exception):
    """This worker was thought dead, and its trial given to another."""


class Study:
    """A study in a database, opened in this process."""

    def __init__(self, url: str, name: str, experiment: config.Experiment) -> None:
        """Open the study called `name`; make it where there is none. `created` tells which it was.

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
            "storage": open_storage(url, self._abandoned),
            "study_name": name,
            "sampler": Sampler(experiment.training.seed),
            "pruner": pruner if self.settings.pruning else optuna.pruners.NopPruner(),
        }
        try:
            self.optuna = optuna.create_study(**how, direction=self.direction)
            self.created = True
        except optuna.exceptions.DuplicatedStudyError:
            self.optuna = optuna.load_study(**how)
            self.created = False

    @property
    def notes(self) -> dict[str, Any]:
        """The notes of all processes, as `note` wrote them."""
        return self.optuna.user_attrs

    def note(self, **notes: Any) -> None:
        """Write notes into the study, for every process that opens it."""
        for key, value in notes.items():
            self.optuna.set_user_attr(key, value)

    def run_id(self) -> str | None:
        """The MLflow run of the study, which the process that made the study notes right after."""
        deadline = time.monotonic() + (0 if self.created else GRACE)
        while "run_id" not in self.notes and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return self.notes.get("run_id")

    def claim(self, task: str) -> bool:
        """Take on a task that one process alone should do; False where another has, unless it is known to be gone."""
        holder = self.notes.get(task)
        if holder and not processes.is_gone(holder):
            return False
        self.note(**{task: processes.own()})
        time.sleep(PAUSE)  # of several that claim it at the same moment the last one has it
        return bool(self.notes[task] == processes.own())

    def release(self, task: str) -> None:
        """Give up a task, done or not."""
        self.note(**{task: None})

    def begin_with(self, params: Mapping[str, Any]) -> None:
        """Let the first trial have these settings, unless it has been queued before."""
        self.optuna.enqueue_trial(dict(params), skip_if_exists=True)

    def trials(self) -> list[FrozenTrial]:
        """All trials that tell of settings, by number: finished, running or cut off."""
        return [
            trial
            for trial in self.optuna.get_trials(deepcopy=False)
            if "surplus" not in trial.user_attrs and trial.state != TrialState.WAITING
        ]

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

    def work(self, objective: Objective, parent: str, own_fault: type[Exception], tags: Mapping[str, str]) -> None:
        """Run trials until the study is full; each is an MLflow run with `tags` below the run `parent`.

        `objective` gets settings and a report to call after each epoch with a step, the objective so far and metrics
        of any names. What it raises of the type `own_fault` is the settings' own fault and ends their trial as failed;
        anything else cuts it off and is raised.
        """
        while not self.is_full:
            if sum(map(_is_taken, self.trials())) < self.settings.trials:
                self.try_one(objective, parent, own_fault, tags)
            else:
                time.sleep(PAUSE)

    def try_one(self, objective: Objective, parent: str, own_fault: type[Exception], tags: Mapping[str, str]) -> None:
        """Run one trial, unless another worker takes the last place at the same moment."""
        numbers, space = [], self.settings.space

        def run(trial: Trial) -> float:
            numbers.append(trial.number)
            trial.set_user_attr("worker", processes.own())
            if self._is_surplus(trial.number):
                trial.set_user_attr("surplus", True)
                raise _Surplus
            params = {name: suggest(trial, name, allowed, self._is_whole(name)) for name, allowed in space.items()}
            named = {**tags, "trial": str(trial.number)}
            with runs.child(parent, f"trial-{trial.number}", named, (optuna.TrialPruned, _TakenAway)) as run_id:
                trial.set_user_attr("run_id", run_id)
                try:
                    value = _finite(objective(params, self._reporter(trial)))
                except (own_fault, _NotFinite) as error:
                    trial.set_user_attr("own_fault", str(error))
                    raise
                runs.log_metrics({f"trial_{self.settings.objective}": value})
            return value

        try:
            self.optuna.optimize(run, n_trials=1, catch=(own_fault, _NotFinite, _Surplus))
        except BaseException as error:
            # Between its last report and its end a trial can be taken away too; Optuna then fails in various ways.
            if isinstance(error, Exception) and numbers and self._was_taken_away(numbers[0]):
                log.warning("trial %d was taken for dead and given to another worker; its result is dropped", *numbers)
                return
            for number in numbers:
                self._cut_off(number, ended_by_optuna=True)
            raise

    def _reporter(self, trial: Trial) -> Report:
        def report(step: int, value: float, metrics: Mapping[str, float]) -> None:
            runs.log_metrics(metrics, step=step)
            try:
                trial.report(_finite(value), step)
            except UpdateFinishedTrialError:
                raise _TakenAway from None
            if trial.should_prune():
                raise optuna.TrialPruned(f"behind the median after epoch {step}")

        return report

    def _is_surplus(self, number: int) -> bool:
        """Whether as many trials as are wanted were begun before this one."""
        return sum(trial.number < number and _is_taken(trial) for trial in self.trials()) >= self.settings.trials

    def reap(self) -> None:
        """Queue the trials again whose worker is gone, and close their runs in MLflow."""
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and _is_dead(trial):
                self._cut_off(trial.number)
        with without_warnings():
            optuna.storages.fail_stale_trials(self.optuna)

    def _cut_off(self, number: int, ended_by_optuna: bool = False) -> None:
        """End a trial and queue it again; nothing where another process has ended it.

        Optuna ends a trial itself when its function raises, but does not queue it again.
        """
        with without_warnings():
            try:
                self.optuna.tell(number, state=TrialState.FAIL)
            except (ValueError, UpdateFinishedTrialError):
                trial = self._by_number(number)
                if not ended_by_optuna or trial.state != TrialState.FAIL or self._was_taken_away(number):
                    return
            except StorageInternalError:  # a full disk, say; the next command finds the trial with its worker gone
                return
            self._abandoned(self.optuna, copy.deepcopy(self._by_number(number)))

    def _abandoned(self, study: optuna.Study, trial: FrozenTrial) -> None:
        # A worker can be killed between the start of its run and the note that tells of it.
        run_id, parent = trial.user_attrs.get("run_id"), self.notes.get("run_id")
        left = [run_id] if run_id else runs.running_children(parent, {"trial": str(trial.number)}) if parent else []
        for run in left:
            runs.abandon(run, "cut off; tried again in another run")
        # The retry should not look as if the dead worker had it.
        trial.user_attrs = {}
        if set(trial.params) != set(self.settings.space):
            trial.params, trial.distributions = {}, {}
        self._retry(study, trial)

    def _was_taken_away(self, number: int) -> bool:
        retries = self.optuna.get_trials(deepcopy=False)
        return any(number in trial.system_attrs.get("retry_history", ()) for trial in retries)

    def _by_number(self, number: int) -> FrozenTrial:
        return self.optuna.get_trials(deepcopy=False)[number]

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


def _is_taken(trial: FrozenTrial) -> bool:
    """Whether a trial takes one of the places in the study: finished, or running."""
    return is_finished(trial) or trial.state == TrialState.RUNNING


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise _NotFinite(f"the objective should be finite, got {value}")
    return value


def _is_dead(trial: FrozenTrial) -> bool:
    """Whether a running trial's worker was on this machine and is gone; of others the missing heartbeat tells."""
    worker = trial.user_attrs.get("worker")
    if worker is None:  # it died before it could say who it was, and before its first heartbeat
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > timedelta(seconds=GRACE)
    return processes.is_gone(worker)
