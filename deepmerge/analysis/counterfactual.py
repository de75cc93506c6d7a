"""What becomes of a model's scores when something in the same images has changed, with intervals over galaxies."""

import numpy as np
from numpy.typing import ArrayLike

from deepmerge.analysis import intervals
from deepmerge.analysis.calibration import logits
from deepmerge.analysis.metrics import difference, evaluate
from deepmerge.analysis.sample import Sample
from deepmerge.estimate import Estimate

MEASURED = ("auc", "completeness")


def effect(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    galaxies: ArrayLike,
) -> dict[str, Estimate]:
    """Compare scores of the same images before and after a change to them.

    before, after: (n,) merger probabilities; all else, and the intervals, as in `metrics.evaluate`. For each of
    MEASURED its value after the change and, as `<name>_change`, after − before, paired; `logit_change` is the mean of
    the change of logit over the images of mergers.
    Raises InputError for input that is not as above.
    """
    sample, reference = Sample.of(labels, after, galaxies), Sample.of(labels, before, galaxies)
    y, p, ids = sample.labels, sample.probabilities, sample.ids
    values = evaluate(y, p, ids, resamples=0).metrics
    changes = difference(y, p, reference.probabilities, ids)
    moved = logits(p) - logits(reference.probabilities)
    totals = sample.sums(np.column_stack([np.ones_like(moved), moved]))[:, 1]
    mean = intervals.of_sums(totals, lambda sums: {"logit_change": sums[:, 1] / sums[:, 0]})["logit_change"]
    logit_change = intervals.difference(mean.value, intervals.error(sample, mean.influence))
    measured = {
        key: each for name in MEASURED for key, each in ((name, values[name]), (f"{name}_change", changes[name]))
    }
    return measured | {"logit_change": Estimate(*map(float, logit_change))}
