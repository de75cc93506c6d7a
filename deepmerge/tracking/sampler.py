"""Which settings to try next."""

from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial

from deepmerge import config

RANDOM_TRIALS = 10  # before the sampler learns from them; Optuna's own number


class Sampler(optuna.samplers.BaseSampler):
    """TPE whose random numbers follow from the seed and the place of a trial in its study.

    So workers never draw the same numbers, and a study that was interrupted goes on as if it had not been: Optuna
    keeps no state of its samplers.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Draw the seed of a trial."""
        place = _place(trial, study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
        self._tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As TPE does."""
        return self._tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As TPE does."""
        return self._tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As TPE does."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def _place(trial: FrozenTrial, trials: list[FrozenTrial]) -> int:
    """The number that a trial would have had, had none been cut off and tried again."""
    original = trial.system_attrs.get("failed_trial", trial.number)
    return original - sum("failed_trial" in other.system_attrs for other in trials if other.number < original)


def suggest(trial: Trial, name: str, allowed: config.Range) -> Any:
    """Let the sampler of a trial choose one setting among those allowed."""
    if allowed.low is None or allowed.high is None:
        return trial.suggest_categorical(name, allowed.choices)
    if config.SEARCHABLE[name].model_fields[name].annotation is int:
        return trial.suggest_int(name, int(allowed.low), int(allowed.high), log=allowed.log)
    return trial.suggest_float(name, allowed.low, allowed.high, log=allowed.log)
