"""The figure of a verdict: both models' values and their difference."""

from matplotlib.figure import Figure

from deepmerge.estimate import METRICS, UNDEFINED
from deepmerge.jobs.promote.gate import Verdict, percent
from deepmerge.plots.forest import Line, forest


def draw(verdict: Verdict, candidate: str, sample: str = "", *, note: str | None = None) -> Figure:
    """Draw both models' values and their difference with intervals; the title says the verdict.

    `candidate` names the candidate; `sample` says in small print on what both were measured. Missing
    values are written as undefined.
    """
    name, better = METRICS[verdict.metric]
    return forest(
        [
            Line(candidate, [verdict.candidate, verdict.difference]),
            Line(verdict.against.partition(" (")[0] or "none", [verdict.reigning, UNDEFINED], 1),
        ],
        [name, f"Candidate − reigning, {percent(verdict.level)} (shaded: better)"],
        references=[None, 0.0],
        better=[0, better],
        caption=sample,
        title=f"{candidate} {verdict.decision}: {verdict.reason}",
        note=note,
    )
