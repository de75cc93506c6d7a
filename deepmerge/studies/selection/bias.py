"""Tests whether a model treats galaxies of a class differently by their properties."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from deepmerge.analysis import checks, intervals
from deepmerge.studies.selection.rates import CLASSES, galaxy_means


def bias_tests(
    properties: Mapping[str, np.ndarray],
    labels: np.ndarray,
    probabilities: np.ndarray,
    galaxies: np.ndarray,
    *,
    permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Test within each class whether a galaxy's score depends on a property of the galaxy.

    Null hypothesis: among the galaxies of a class, score and property are independent. A small p-value says that the
    model treats some of them differently, not why: a property may itself show how visible a merger is.

    properties: name → (n,) values, NaN where not measured; all else and errors as in `metrics.evaluate`.
    Statistic: Spearman's rank correlation between a galaxy's means of probability and property over its measured
    images. The p-value permutes galaxies: (1 + k) / (1 + permutations), k of them with a correlation of either sign at
    least as large (Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9, 39), hence never 0. `p_holm` corrects for all
    tests of the table (Holm 1979, Scand. J. Stat. 6, 65).

    Two rows a property, mergers first. Columns: `property`, `class`, `galaxies`, `not_measured` (galaxies left out),
    `correlation`, `p_value`, `p_holm`; these three are NaN for constant values or fewer than two galaxies, and such a
    test is not counted.
    """
    y, p, ids = checks.predictions(labels, probabilities, galaxies)
    checks.whole_number("permutations", permutations, 1, usual=2000)
    rows = []
    for name, values in properties.items():
        x = checks.measurements(f"property {name!r}", values, len(y))
        for label in (1, 0):
            used = (y == label) & ~np.isnan(x)
            count = len(np.unique(ids[used]))
            left_out = len(np.unique(ids[y == label])) - count
            tested = _permutation_test(
                galaxy_means(p[used], ids[used]), galaxy_means(x[used], ids[used]), permutations, seed
            )
            rows.append((name, CLASSES[label], count, left_out, *tested))
    names = ["property", "class", "galaxies", "not_measured", "correlation", "p_value"]
    table = pd.DataFrame(rows, columns=names)
    return table.assign(p_holm=intervals.holm(table["p_value"].to_numpy(dtype=float)))


def _permutation_test(a: np.ndarray, b: np.ndarray, permutations: int, seed: int) -> tuple[float, float]:
    """Spearman's correlation of two lists and its two-sided p-value."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
    norms = [np.sqrt(each @ each) for each in ranks]
    if not all(norms):
        return np.nan, np.nan
    first, second = (each / norm for each, norm in zip(ranks, norms, strict=True))
    correlation = float(first @ second)
    # The same stream in every test: a result does not depend on the other tests.
    rng = np.random.default_rng(seed)
    drawn = np.array([first @ rng.permutation(second) for _ in range(permutations)])
    as_large = np.abs(drawn) >= abs(correlation) - 1e-12  # sums of the same ranks differ by rounding
    return correlation, float((1 + as_large.sum()) / (1 + permutations))
