"""The gate: its verdict and figure as pure functions."""

import numpy as np
import pytest
from matplotlib.text import Text

from deepmerge.analysis import metrics
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.jobs.promote import figure, gate


def sample(galaxies=90, seed=0):
    """Labels and galaxies of test images, one galaxy in three a merger, four views each."""
    galaxy = np.repeat(np.arange(galaxies), 4)
    return (galaxy % 3 == 0).astype(int), galaxy, np.random.default_rng(seed)


def scores(labels, rng, skill):
    return 1 / (1 + np.exp(-skill * (2 * labels - 1) - rng.normal(size=len(labels))))


LABELS, GALAXIES, RNG = sample()
GOOD, FAIR = scores(LABELS, RNG, 1.5), scores(LABELS, RNG, 0.7)


def test_the_metrics_that_may_decide_are_all_whose_differences_have_an_interval_but_the_counts():
    change = metrics.difference(LABELS, GOOD, FAIR, GALAXIES)
    assert set(gate.DECISIVE) == {name for name, found in change.items() if np.isfinite(found).all()}
    assert len(set(gate.DECISIVE)) == len(gate.DECISIVE)


@pytest.mark.parametrize("metric", gate.DECISIVE)
def test_the_better_model_is_promoted_and_the_worse_one_refused_by_every_metric(metric):
    labels, galaxies = LABELS[:240], GALAXIES[:240]  # sixty galaxies tell these two apart, and quickly
    perfect, poor = np.where(labels == 1, 0.99, 0.01), scores(labels, np.random.default_rng(1), 0.2)
    up = gate.judge(labels, perfect, poor, galaxies, metric, "version 1")
    down = gate.judge(labels, poor, perfect, galaxies, metric, "version 1")
    assert (up.decision, down.decision) == ("promoted", "refused")
    assert "is better than that of version 1" in up.reason
    assert "is worse than that of version 1" in down.reason


def test_the_verdict_holds_the_numbers_that_it_was_made_from():
    found = gate.judge(LABELS, GOOD, FAIR, GALAXIES, "auc", "version 1")
    assert found.candidate == metrics.evaluate(LABELS, GOOD, GALAXIES).metrics["auc"]
    assert found.reigning == metrics.evaluate(LABELS, FAIR, GALAXIES).metrics["auc"]
    assert found.difference == metrics.difference(LABELS, GOOD, FAIR, GALAXIES, level=0.975)["auc"]
    assert "97.5 % interval" in found.reason
    assert (found.images, found.galaxies) == (360, 90)
    assert f"{found.difference.low:+.4f}" in found.reason


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_a_difference_within_noise_is_refused_whichever_way_it_points(metric):
    other = scores(LABELS, np.random.default_rng(3), 1.5)  # as good, with errors of its own
    for pair in ((GOOD, other), (other, GOOD), (GOOD, GOOD)):
        found = gate.judge(LABELS, *pair, GALAXIES, metric, "version 1")
        assert found.decision == "refused"
        assert "within noise" in found.reason


def test_the_trivial_classifier_is_what_a_first_model_has_to_beat():
    for metric, value in (("auc", 0.5), ("balanced_accuracy", 0.5), ("brier_at_balance", 0.25)):
        found = gate.judge(LABELS, FAIR, None, GALAXIES, metric)
        assert found.reigning.value == pytest.approx(value)
        assert (found.decision, found.against) == ("promoted", gate.TRIVIAL)
    guess = np.random.default_rng(4).uniform(size=len(LABELS))
    assert gate.judge(LABELS, guess, None, GALAXIES, "auc").decision == "refused"


def test_force_promotes_what_would_be_refused_and_its_reason_is_kept():
    found = gate.judge(LABELS, FAIR, GOOD, GALAXIES, "auc", "version 1", force="the champion needs a licence")
    assert found.decision == "forced"
    assert found.reason.endswith("; forced: the champion needs a licence")
    assert "is worse" in found.reason


def test_force_changes_nothing_for_a_better_model():
    pair = (LABELS, GOOD, FAIR, GALAXIES, "auc", "version 1")
    assert gate.judge(*pair, force="why not") == gate.judge(*pair)


def test_a_difference_without_an_interval_is_no_reason_to_promote():
    one = (LABELS == 0) | (GALAXIES == 0)  # a single merger, whose scatter cannot be known
    found = gate.judge(LABELS[one], GOOD[one], FAIR[one], GALAXIES[one], "auc", "version 1")
    assert found.decision == "refused"
    assert "has no interval" in found.reason
    never = gate.judge(LABELS, GOOD, np.full(len(GOOD), 0.1), GALAXIES, "purity", "version 1")
    assert (never.decision, np.isnan(never.reigning.value)) == ("refused", True)


def test_without_a_comparison_nothing_is_measured_and_only_force_promotes():
    found = gate.without_comparison("auc", "other data", "version 1")
    assert (found.decision, found.reason, found.images) == ("refused", "other data", 0)
    assert np.isnan([found.candidate, found.reigning, found.difference]).all()
    assert gate.without_comparison("auc", "other data", "version 1", "new data").decision == "forced"


def test_each_look_spends_a_share_of_the_error_and_all_of_them_together_the_whole():
    spent = [(1 - gate.level_at(look)) / 2 for look in range(1, 10_000)]
    assert spent[0] == pytest.approx(gate.ERROR / 2)
    assert (np.diff(spent) < 0).all()
    assert sum(spent) == pytest.approx(gate.ERROR, rel=1e-3)
    first, tenth = (gate.judge(LABELS, GOOD, FAIR, GALAXIES, "auc", look=look).difference for look in (1, 10))
    assert tenth.low < first.low < first.value == tenth.value
    assert (gate.percent(0.95), gate.percent(gate.level_at(1)), gate.percent(0.99955)) == ("95 %", "97.5 %", "99.955 %")


@pytest.mark.parametrize("metric", metrics.WITHOUT_INTERVAL)
def test_a_metric_whose_differences_have_no_interval_cannot_decide_and_the_reason_is_said(metric):
    with pytest.raises(InputError, match=f"got '{metric}', whose differences have no interval to decide by$"):
        gate.check_metric(metric)


@pytest.mark.parametrize("metric", ["tp", "AUC", "", "test_auc"])
def test_an_unknown_metric_is_refused_with_the_known_ones(metric):
    with pytest.raises(InputError, match=f"metric should be one of: auc, .*brier_at_balance.*; got '{metric}'"):
        gate.judge(LABELS, GOOD, FAIR, GALAXIES, metric)


# --- its figure --------------------------------------------------------------------------------------------


def verdict(**changes):
    return gate.judge(LABELS, GOOD, FAIR, GALAXIES, **{"metric": "auc", "against": "version 1", **changes})


VERDICTS = {
    "promoted": verdict(),
    "lower is better": verdict(metric="log_loss_at_balance"),
    "trivial": gate.judge(LABELS, GOOD, None, GALAXIES, "auc"),
    "forced": gate.judge(LABELS, FAIR, GOOD, GALAXIES, "auc", "version 1", force="a long reason " * 20),
    "the same": gate.judge(LABELS, GOOD, GOOD, GALAXIES, "auc", "version 1"),
    "not measured": gate.without_comparison("auc", "other data", "version 1"),
    "nobody": gate.without_comparison("auc", "rows"),
    "no interval": gate.Verdict(
        "auc", *[Estimate(0.7, np.nan, np.nan)] * 3, "version 1", "refused", "has no interval", 9, 3
    ),
}


@pytest.mark.parametrize("which", VERDICTS)
def test_the_figure_says_the_verdict_and_keeps_within_its_page(which):
    found = VERDICTS[which]
    drawing = figure.draw(found, "deepmerge-noisy version 12", "580 images", note="Simulated demo data")
    said = " ".join(text.get_text() for text in drawing.findobj(Text)).replace("\n", " ")
    assert f"deepmerge-noisy version 12 {found.decision}: {found.reason}".strip() in said
    assert "Simulated demo data" in said
    assert "580 images" in said
    drawn = drawing.get_tightbbox()
    assert (drawn.min >= 0).all()
    assert (drawn.max <= drawing.get_size_inches()).all()


def test_the_figure_draws_values_and_difference_with_their_intervals():
    found = VERDICTS["promoted"]
    values, change = figure.draw(found, "version 2").axes
    drawn = [line.get_segments()[0][:, 0].tolist() for axes in (values, change) for line in axes.collections]
    assert drawn == [list(found.candidate[1:]), list(found.reigning[1:]), list(found.difference[1:])]
    points = [line.get_xdata()[0] for line in [*values.lines, *change.lines] if line.get_marker() == "o"]
    assert points == [found.candidate.value, found.reigning.value, found.difference.value]
    assert [label.get_text() for label in values.get_yticklabels()] == ["version 2", "version 1"]


@pytest.mark.parametrize(("which", "side"), [("promoted", 1), ("lower is better", -1)])
def test_the_better_side_is_shaded(which, side):
    change = figure.draw(VERDICTS[which], "version 2").axes[1]
    [band] = change.patches
    ends = band.get_x(), band.get_x() + band.get_width()
    assert min(ends, key=abs) == 0
    assert np.sign(sum(ends)) == side == np.sign(VERDICTS[which].difference.value)
    assert "not measured" not in " ".join(text.get_text() for text in change.texts)
