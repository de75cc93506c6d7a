"""The forest plot writes every number, leaves out what is undefined, and keeps its texts apart."""

from itertools import combinations, compress

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.plots.canvas import PAGE
from deepmerge.plots.forest import Line, forest
from deepmerge.plots.marks import COLOURS

pytestmark = pytest.mark.usefixtures("no_warnings")

NOTE = "Simulated demo data, not Illustris"
NONE = Estimate(np.nan, np.nan, np.nan)
RECIPES = [
    Line("as the experiment says", [Estimate(0.966, 0.939, 0.989), Estimate(0.904, 0.861, 0.94), Estimate(0, 0, 0)]),
    Line("no flips and turns", [Estimate(0.941, 0.9, 0.97), Estimate(0.88, 0.8, 0.9), Estimate(-0.025, -0.051, 0.002)]),
    Line("published recipe", [Estimate(0.902, 0.85, 0.94), NONE, Estimate(-0.064, -0.1, -0.03)], 1),
]  # fmt: skip
COLUMNS = ["AUC", "Balanced accuracy", "AUC, change (paired)"]
FAINT = Line("random rows", [Estimate(0.95, 0.93, 0.97)] * 3, 1, [[0.94, 0.96], [0.93, 0.97], []])


def drawn(lines=tuple(RECIPES), columns=COLUMNS, title="Recipes", **more):
    return forest(lines, columns, title=title, **more)


CASES = {
    "three recipes": lambda **more: drawn(references=[None, None, 0.0], **more),
    "one line, one column": lambda **more: drawn([Line("AUC", [Estimate(0.5, 0.4, 0.6)])], ["AUC"], **more),
    "nothing known": lambda **more: drawn([Line("a", [NONE] * 3), Line("b", [NONE] * 3)], **more),
    "groups and single values": lambda **more: drawn([*RECIPES, FAINT], groups=["by galaxy", "by random rows"], **more),
    "long names": lambda **more: drawn([line._replace(name=f"{line.name}, " * 4) for line in RECIPES * 4], **more),
    "many lines": lambda **more: drawn(RECIPES * 10, references=[0.5, 0.5, 0.0], **more),
    "small changes": lambda **more: drawn([Line("a", [Estimate(-0.003, -0.009, 0.004)] * 3)], **more),
    "no interval": lambda **more: drawn([Line("one seed", [Estimate(0.9, np.nan, np.nan)] * 3)], **more),
}


def written(figure):
    return [" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_visible()]


def points(axes):
    """Single markers: (x, y, colour) of the values, without those of the legend."""
    found = [line for line in axes.get_lines() if line.get_marker() == "o" and line.get_alpha() is None]
    return [(*map(float, line.get_xydata()[0]), line.get_color()) for line in found if len(line.get_xydata())]


def boxes(figure):
    """Each text of the figure with the rectangle that it takes."""
    found = [text for text in figure.texts if text.get_text()]
    for axes in figure.axes:
        low, high = axes.get_xlim()
        in_view = [low <= tick <= high for tick in axes.get_xticks()]
        found += [*axes.texts, axes.xaxis.label, *compress(axes.get_xticklabels(), in_view)]
        if axes is figure.axes[0]:
            found += axes.get_yticklabels()
    for legend in figure.legends:
        found += legend.get_texts()
    shown = [text for text in found if text.get_text() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_title_note_and_all_else_are_written_within_the_page_and_no_setting_is_touched(build):
    settings = dict(mpl.rcParams)
    title, note = " ".join(["title"] * 30), " ".join([NOTE] * 8)
    figure = build(title=title, note=note)
    assert dict(mpl.rcParams) == settings
    assert {title, note} <= set(written(figure))
    extent, page = figure.get_tightbbox(), figure.get_size_inches()
    assert (extent.min >= 0).all()
    assert (extent.max <= page).all()
    assert page[0] == PAGE


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_no_text_lies_over_another(build):
    found = boxes(build(note=NOTE))
    for (one, box), (other, its) in combinations(found, 2):
        across = min(box.x1, its.x1) - max(box.x0, its.x0)
        down = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert across <= 0 or down <= 0, (one, other)


def test_every_number_is_written_with_its_interval_beside_its_point():
    figure = drawn()
    texts = written(figure)
    for line in RECIPES:
        for value, low, high in line.estimates:
            if np.isfinite(value):
                said = f"{value:.3f} [{low:.3f}, {high:.3f}]".replace("-", "−")
                assert said in texts
    for number, axes in enumerate(figure.axes):
        known = [line for line in RECIPES if np.isfinite(line.estimates[number].value)]
        assert [point[0] for point in points(axes)] == [line.estimates[number].value for line in known]
        whiskers = [bar.get_segments()[0][:, 0] for bar in axes.collections]
        assert [tuple(ends) for ends in whiskers] == [line.estimates[number][1:] for line in known]
        assert [text.get_position()[1] for text in axes.texts] == [point[1] for point in points(axes)]


def test_lines_stand_beneath_one_another_in_the_order_given():
    figure = drawn()
    axes = figure.axes[0]
    bottom, top = axes.get_ylim()
    assert bottom > top
    heights = [point[1] for point in points(axes)]
    assert heights == sorted(heights)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [line.name for line in RECIPES]
    np.testing.assert_allclose(axes.get_yticks(), heights)
    assert [axes.get_xlabel() for axes in figure.axes] == COLUMNS


def test_an_undefined_estimate_leaves_its_place_empty():
    figure = drawn()
    assert [len(points(axes)) for axes in figure.axes] == [3, 2, 3]
    assert not any("nan" in text for text in written(figure))


def test_an_estimate_without_interval_is_written_alone():
    figure = CASES["no interval"]()
    assert written(figure).count("0.900") == 3
    assert not any("nan" in text for text in written(figure))


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0001, "0.000"), (-0.0006, "−0.001"), (-0.0, "0.000"), (-1.0, "−1.000")]
)
def test_nothing_is_less_than_nothing(value, text):
    figure = drawn([Line("a", [Estimate(value, np.nan, np.nan)])], ["change"])
    assert [text.get_text() for text in figure.axes[0].texts] == [text]


def test_groups_have_their_colour_and_single_values_are_drawn_beneath():
    figure = CASES["groups and single values"]()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["by galaxy", "by random rows"]
    first, _, last = figure.axes
    assert [point[2] for point in points(first)] == [COLOURS[0], COLOURS[0], COLOURS[1], COLOURS[1]]
    assert [to_hex(handle.get_color(), keep_alpha=False).upper() for handle in legend.legend_handles] == [*COLOURS[:2]]
    faint = [line.get_xdata().tolist() for line in first.get_lines() if line.get_alpha() is not None]
    assert faint == [[0.94, 0.96]]
    assert not [line for line in last.get_lines() if line.get_alpha() is not None and len(line.get_xdata())]


def test_references_are_drawn_where_there_is_one():
    figure = drawn(references=[None, 0.5, 0.0])
    dotted = [[line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] for axes in figure.axes]
    assert dotted == [[], [0.5], [0.0]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"lines": []}, "a line and a column at least, received"),
        ({"lines": [Line("a", [])], "columns": []}, "a line and a column at least, received"),
        ({"columns": COLUMNS[:2]}, "line as the experiment says: expected 2 estimates"),
        ({"lines": [RECIPES[0]._replace(group=len(COLOURS))]}, f"expected a group below {len(COLOURS)}"),
        ({"lines": [RECIPES[0]._replace(group=-1)]}, "received -1"),
        ({"lines": [FAINT._replace(faint=[[0.9]])]}, "expected none or 3 lists of single values"),
        ({"references": [0.5]}, "references: expected none or 3, one a column"),
        ({"groups": ["g"] * (len(COLOURS) + 1)}, f"groups: expected at most {len(COLOURS)}"),
    ],
)
def test_wrong_input_is_refused_in_one_line(given, said):
    with pytest.raises(InputError) as error:
        drawn(**given)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
