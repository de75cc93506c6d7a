"""What becomes of a model's scores when something in the same images has changed, with intervals over galaxies."""

import numpy as np
from numpy.typing import ArrayLike

from deepmerge.analysis.bootstrap import Sample, bands
from deepmerge.analysis.calibration import logits
from deepmerge.analysis.metrics import difference, evaluate
from deepmerge.estimate import Estimate

MEASURED = ("auc", "completeness")


def effect(
    labels: ArrayLike,
    before: ArrayLike,
    after: ArrayLike,
    galaxies: ArrayLike,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Compare scores of the same images before and after a change to them.

    before, after: (n,) merger probabilities; all else, and the intervals, as in `metrics.evaluate`. For each of
    MEASURED its value after the change and, as `<name>_change`, after − before, paired; `logit_change` is the mean of
    the change of logit over the images of mergers.
    Raises InputError for input that is not as above.
    """
    sample, reference = Sample.of(labels, after, galaxies), Sample.of(labels, before, galaxies)
    y, p, ids, _ = sample
    values = evaluate(y, p, ids, resamples=resamples, seed=seed).metrics
    changes = difference(y, p, reference.probabilities, ids, resamples=resamples, seed=seed)
    moved = logits(p) - logits(reference.probabilities)
    mergers = sample.sums(np.column_stack([np.ones_like(moved), moved]))[:, 1]

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        images, total = (weights @ mergers).T
        return {"logit_change": total / images}

    (logit_change,) = bands(sample, mean, resamples, seed).values()
    measured = {
        key: each for name in MEASURED for key, each in ((name, values[name]), (f"{name}_change", changes[name]))
    }
    return measured | {"logit_change": Estimate(*map(float, logit_change))}
