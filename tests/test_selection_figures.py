"""The figures show the numbers of their tables and how many galaxies these rest on, and survive odd input."""

from functools import partial

import numpy as np
import pytest
from conftest import texts

from deepmerge.errors import InputError
from deepmerge.studies.selection import figures
from deepmerge.studies.selection import rates as tables

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data – not Illustris"


def sample(galaxies=60, views=4, seed=0):
    rng = np.random.default_rng(seed)
    galaxy = np.repeat(np.arange(galaxies), views)
    labels = (galaxy % 3 == 0).astype(int)
    stages = np.where(labels == 0, "non-merger", np.where(galaxy % 2, "past", "future"))
    mass = rng.normal(10.3, 0.4, galaxies)[galaxy]
    probabilities = rng.beta(2 + 3 * labels, 5 - 3 * labels)
    return labels, probabilities, galaxy, stages, mass


Y, P, GALAXY, STAGE, MASS = sample()
PARTLY = np.where(GALAXY % 5, MASS, np.nan)
BINS = tables.by_bins(MASS, Y, P, GALAXY)
WITH_UNMEASURED = tables.by_bins(PARTLY, Y, P, GALAXY, bins=3)
STAGES = tables.by_stage(STAGE, Y, P, GALAXY)
VIEWS = tables.view_agreement(Y, P, GALAXY)
BUILDERS = {
    "selection": partial(figures.selection, {"log M* (solar masses)": BINS, "Concentration": WITH_UNMEASURED}),
    "four": partial(figures.selection, {f"{' '.join(['property'] * 20)} {i}": WITH_UNMEASURED for i in range(4)}),
    "stages": partial(figures.stages, STAGES),
    "score_and_mass": partial(figures.score_and_mass, MASS, P, STAGE),
    "agreement": partial(figures.agreement, VIEWS),
}


def points(axes):
    """Places of what is drawn as single points."""
    return [line.get_xydata()[0].tolist() for line in axes.get_lines() if len(line.get_xydata()) == 1]


def hollow(axes):
    return [line.get_markerfacecolor() == "white" for line in axes.get_lines() if line.get_marker() in ("o", "s")]


def vertical(axes):
    """The intervals, as (x, low, high)."""
    segments = [segment for lines in axes.collections for segment in lines.get_segments()]
    ends = [segment for segment in segments if len(segment)]  # none where the interval is NaN
    return [(a[0], a[1], b[1]) for a, b in ends if a[0] == b[0]]


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_a_long_note_and_all_else_are_written_within_the_page(build):
    note = " ".join([NOTE] * 8)
    figure = build(note=note)
    assert note in texts(figure)
    drawn = figure.get_tightbbox()
    assert (drawn.min >= 0).all()
    assert (drawn.max <= figure.get_size_inches()).all()


def test_selection_draws_each_bin_with_its_intervals_and_the_whole_sample():
    figure = figures.selection({"mass": BINS})
    assert len(figure.axes) == 4
    bins, whole = BINS.iloc[1:], BINS.iloc[0]
    for axes, rate in zip(figure.axes[1:], figures.SHOWN_RATES, strict=True):
        np.testing.assert_allclose(points(axes), bins[["centre", rate]])
        defined = bins[bins[f"{rate}_low"].notna()]
        np.testing.assert_allclose(vertical(axes), defined[["centre", f"{rate}_low", f"{rate}_high"]])
        across = axes.collections[0].get_segments()
        np.testing.assert_allclose([(a[0], b[0], a[1]) for a, b in across], bins[["low", "high", rate]])
        assert any(set(line.get_ydata()) == {whole[rate]} for line in axes.get_lines())


def test_selection_counts_the_galaxies_of_each_bin_over_the_panels():
    counts = figures.selection({"mass": WITH_UNMEASURED}).axes[0]
    written = [text.get_text() for text in counts.texts]
    bins = WITH_UNMEASURED.iloc[1:]
    others = bins["galaxies"] - bins["merger_galaxies"]
    assert written == [str(n) for pair in zip(bins["merger_galaxies"], others, strict=True) for n in pair]
    assert [label.get_text() for label in counts.get_yticklabels()] == ["mergers", "non-mergers"]


def test_what_is_not_measured_stands_apart_of_the_bins_and_of_the_ticks():
    figure = figures.selection({"mass": WITH_UNMEASURED})
    axes = figure.axes[1]
    end = WITH_UNMEASURED["high"][0]
    assert points(axes)[-1][0] > end
    assert axes.get_xticks().max() <= end + 0.05 * (end - WITH_UNMEASURED["low"][0])
    assert "property not measured" in texts(figure)
    assert "property not measured" not in texts(figures.selection({"mass": BINS}))


def test_a_point_without_interval_is_hollow_and_explained():
    perfect = tables.by_bins(MASS, Y, np.where(Y == 1, 0.9, P), GALAXY, bins=2)
    figure = figures.selection({"mass": perfect})
    assert hollow(figure.axes[1]) == [True, True]
    assert hollow(figure.axes[3]) == [False, False]
    assert any("no interval" in text for text in texts(figure))
    known = tables.by_bins(MASS, Y, P, GALAXY, bins=2)
    assert not any("no interval" in text for text in texts(figures.selection({"mass": known})))


def test_selection_of_a_property_that_nobody_measured_or_that_is_constant():
    for values in (np.full(len(Y), np.nan), np.ones(len(Y))):
        table = tables.by_bins(values, Y, P, GALAXY)
        assert len(points(figures.selection({"x": table}).axes[1])) == 1


def test_stages_show_value_interval_and_counts():
    figure = figures.stages(STAGES)
    axes = figure.axes[0]
    assert [x for x, _ in points(axes)] == STAGES["value"].tolist()
    row = STAGES.iloc[0]
    assert f"past merger, completeness {row['galaxies']} galaxies, {row['images']} images" in texts(figure)
    assert f"{row['value']:.3f} [{row['value_low']:.3f}, {row['value_high']:.3f}]" in texts(figure)
    assert any("non-merger, false positive rate" in text for text in texts(figure))


def test_score_and_mass_shows_every_image_and_counts_those_without_mass():
    mass = MASS.copy()
    mass[Y == 1] = np.where(np.arange((Y == 1).sum()) < 7, np.nan, mass[Y == 1])
    figure = figures.score_and_mass(mass, P, np.where(Y == 1, "merger", "non-merger"))
    shown = [axes.collections[0].get_offsets() for axes in figure.axes]
    np.testing.assert_array_equal(shown[0], np.column_stack([mass, P])[Y == 0])
    assert len(shown[1]) == 73
    assert "merger (n = 73, 7 without mass)" in texts(figure)


def test_the_contours_hold_their_share_of_the_images():
    rng = np.random.default_rng(4)
    mass, scores = rng.normal(10, 0.3, 1500), rng.beta(1.0, 4.0, 1500)  # scores pile up at 0
    axes = figures.score_and_mass(mass, scores, ["past"] * 1500).axes[0]
    outer, inner = axes.collections[1].get_paths()
    for path, share in ((outer, 0.86), (inner, 0.39)):
        # The contours end at the edge of the plane; closed along it they hold the points.
        inside = path.contains_points(np.column_stack([mass, scores]))
        assert inside.mean() == pytest.approx(share, abs=0.02)


def test_the_running_median_is_that_of_bins_of_equally_many_images():
    order = np.random.default_rng(0).permutation(90)
    x, y = np.arange(90.0), np.arange(90.0) % 30
    masses, scores = figures.running_median(x[order], y[order])
    assert masses == [14.5, 44.5, 74.5]
    assert scores == [14.5] * 3


@pytest.mark.parametrize(
    ("mass", "scores"),
    [
        ([10.0], [0.5]),
        ([np.nan] * 30, np.linspace(0, 1, 30)),
        ([10.0] * 30, np.linspace(0, 1, 30)),
        (np.linspace(9, 11, 30), [1.0] * 30),
        (np.linspace(9, 11, 30), np.linspace(0, 1, 30)),
        ([10.0] * 29 + [11.0], [0.0] * 29 + [1.0]),
    ],
    ids=["one", "no mass", "one mass", "one score", "a line", "two points"],
)
def test_score_and_mass_of_few_or_identical_images_needs_no_contour(mass, scores):
    axes = figures.score_and_mass(mass, scores, ["past"] * len(scores)).axes[0]
    assert len(axes.collections[0].get_offsets()) == np.isfinite(mass).sum()


def test_agreement_draws_shares_intervals_and_what_independent_views_would_give():
    figure = figures.agreement(VIEWS)
    axes = figure.axes[0]
    drawn = [y for _, y in points(axes)]
    for _, row in VIEWS.iterrows():
        for name in tables.AGREEMENT:
            assert row[name] in drawn
            assert row[f"{name}_expected"] in drawn
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert np.isnan(low) or any((a, b) == (low, high) for _, a, b in vertical(axes))
        assert any(f"{row['class']} ({row['galaxies']} galaxies)" in text for text in texts(figure))
    assert len(drawn) == 12


def test_agreement_and_stages_of_one_class_without_intervals():
    here = Y == 0
    views = tables.view_agreement(Y[here], P[here], GALAXY[here])
    assert len(points(figures.agreement(views).axes[0])) == 6
    stages = tables.by_stage(STAGE[here], Y[here], np.full(here.sum(), 0.1), GALAXY[here])  # never wrong
    assert hollow(figures.stages(stages).axes[0]) == [True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.selection({}), "tables: expected 1 to 4 properties, received 0"),
        (lambda: figures.selection(dict.fromkeys("abcde", BINS)), "tables: expected 1 to 4 properties, received 5"),
        (lambda: figures.stages(STAGES[:0]), "a line and a column at least"),
        (lambda: figures.agreement(VIEWS[:0]), "table: expected one class or more"),
        (lambda: figures.score_and_mass([10.0], [1.5], ["past"]), "probabilities: expected values from 0 to 1"),
        (lambda: figures.score_and_mass([10.0, 11.0], [0.5], ["past"]), r"log_mass: expected shape \(1\)"),
        (lambda: figures.score_and_mass([10.0], [0.5], ["merging"]), "stages: expected words of"),
        (lambda: figures.score_and_mass([], [], []), "stages: expected one image or more"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
