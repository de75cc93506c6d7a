"""What the two protocols claim above the truth, from made-up trainings."""

import numpy as np
import pandas as pd
import pytest

from deepmerge.studies import base, leakage


def trainings(seeds=5):
    rng = np.random.default_rng(0)
    lines = []
    for seed in range(seeds):
        for protocol, claimed in (("rows", 0.95), ("galaxy", 0.88)):
            for place, level, images in (("claimed", claimed, 450), ("unseen", 0.87, 600)):
                scores = {f"test_{name}": level + 0.02 * rng.normal() for name in base.SHOWN}
                counts = {"images": images, "trained_images": 1500, "shared_galaxies": float(protocol == "rows")}
                lines.append({"protocol": protocol, "seed": seed, "judged_on": place, **scores, **counts})
    return pd.DataFrame(lines)


def test_each_mean_has_an_interval_wider_for_the_galaxies_that_seeds_share():
    table = trainings()
    found = leakage._summary(table)
    for name in ("rows_claimed_auc", "galaxy_unseen_auc", "rows_excess_auc", "rows_over_galaxy_balanced_accuracy"):
        assert found[name].low < found[name].value < found[name].high, name
    apart = leakage._by_seed(table, "auc")["rows"]
    alone = base.mean_with_interval(apart["claimed"] - apart["unseen"], base.DIFFERENCE)
    widened = np.sqrt((1 / 5 + 600 / 1500) / (1 / 5))
    assert found["rows_excess_auc"].high - found["rows_excess_auc"].low == pytest.approx(
        widened * (alone.high - alone.low), rel=0.02
    )
