"""Which settings to try next."""

from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, Trial

from deepmerge import config

RANDOM_TRIALS = 10  # before the sampler learns from them; Optuna's own number


class Sampler(optuna.samplers.TPESampler):
    """TPE whose random numbers follow from the seed and the place of a trial in its study.

    So workers never draw the same numbers, and a study that was interrupted goes on as if it had not been: Optuna
    keeps no state of its samplers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=RANDOM_TRIALS)
        self.seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Begin anew with the seed of this trial."""
        place = _place(trial, study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
        super().__init__(seed=seed, n_startup_trials=RANDOM_TRIALS)


def _place(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    """The number that a trial would have had, had none been cut off and tried again."""
    original = trial.system_attrs.get("failed_trial", trial.number)
    return original - sum("failed_trial" in other.system_attrs for other in trials if other.number < original)


def suggest(trial: Trial, name: str, allowed: config.Range, is_whole: bool) -> Any:
    """Let the sampler of a trial choose one setting, a whole number or not, among those allowed."""
    if allowed.low is None or allowed.high is None:
        return trial.suggest_categorical(name, allowed.choices)
    if is_whole:
        return trial.suggest_int(name, int(allowed.low), int(allowed.high), log=allowed.log)
    return trial.suggest_float(name, allowed.low, allowed.high, log=allowed.log)
