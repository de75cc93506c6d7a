"""The trials of a study as a table."""

from typing import Literal

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from deepmerge.tracking.studies import Study, is_finished

State = Literal["complete", "pruned", "failed", "running", "cut off"]
WORDS: dict[TrialState, State] = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}


def state(trial: FrozenTrial) -> State:
    """In a word: complete, pruned, failed (by its own settings), running, or cut off (and tried again)."""
    if trial.state == TrialState.FAIL:
        return "failed" if is_finished(trial) else "cut off"
    return WORDS.get(trial.state, "running")


def table(study: Study) -> pd.DataFrame:
    """One line a trial: number, state, value, its settings, epochs, seconds, MLflow run, reason of a failure."""
    return pd.DataFrame(
        [
            {
                "number": trial.number,
                "state": state(trial),
                "value": trial.values[0] if trial.state == TrialState.COMPLETE else np.nan,
                "last_value": next(reversed(trial.intermediate_values.values()), np.nan),
                **{name: trial.params.get(name) for name in study.settings.space},
                "epochs": len(trial.intermediate_values),
                "seconds": trial.duration.total_seconds() if trial.duration else np.nan,
                "run_id": trial.user_attrs.get("run_id", ""),
                "reason": trial.user_attrs.get("own_fault", ""),
            }
            for trial in study.trials()
        ]
    )
