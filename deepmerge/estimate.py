"""What was measured, with its 95 % interval: one way to name it, to store it and to write it.

Everything that tells of a metric takes it from here: runs, tables, figures, the gate of promotion, reports. Names are
those of `METRICS`; stored flat (an MLflow run, a JSON file, a row of a table) the interval of `x` is `x_low`, `x_high`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

LOW, HIGH = "_low", "_high"
AT_BALANCE = "_at_balance"  # of a metric in which both classes weigh the same, whatever the sample
OF_GALAXIES = "galaxy_"  # before a metric of galaxies, each by the mean probability of its images


class Estimate(NamedTuple):
    """A number and the ends of its 95 % interval; NaN is undefined, for the ends alone: no interval."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether both ends of the interval are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def text(self, form: str = "z.3f") -> str:
        """Write "0.966 [0.939, 0.989]", without an interval that is undefined; "undefined" for a value that is."""
        if math.isnan(self.value):
            return "undefined"
        interval = f" [{self.low:{form}}, {self.high:{form}}]" if self.has_interval else ""
        return f"{self.value:{form}}{interval}"

    def flat(self, name: str) -> dict[str, float]:
        """`name`, `name_low` and `name_high`, as runs and tables store it."""
        return {name: self.value, f"{name}{LOW}": self.low, f"{name}{HIGH}": self.high}


UNDEFINED = Estimate(math.nan)


class Metric(NamedTuple):
    """How a metric is written, and which side is better: +1 higher, −1 lower, 0 neither."""

    label: str
    better: int


_BASIC = {
    "auc": Metric("AUC", 1),
    "balanced_accuracy": Metric("Balanced accuracy", 1),
    "accuracy": Metric("Accuracy", 1),
    "purity": Metric("Purity", 1),
    "completeness": Metric("Completeness", 1),
    "f1": Metric("F1 score", 1),
    "average_precision": Metric("Average precision", 1),
    "brier": Metric("Brier score", -1),
    "log_loss": Metric("Log loss", -1),
    "calibration_error": Metric("Calibration error", -1),
}
# Those that depend on the class ratio; the others do not, or are one of them at balance.
WITH_BALANCE = ("purity", "f1", "average_precision", "brier", "log_loss", "calibration_error")
# Those that are also of galaxies, by all of their views together. None with a threshold: of some 24 mergers often all
# are found, and then nothing tells how far the share may be from the truth (tests/test_coverage.py).
WITH_VIEWS = ("auc", "average_precision", f"log_loss{AT_BALANCE}")
_OF_IMAGES: dict[str, Metric] = {
    **_BASIC,
    # Of the line that calibrated probabilities lie on: 0 and 1; and 0.
    "calibration_intercept": Metric("Calibration intercept", 0),
    "calibration_slope": Metric("Calibration slope", 0),
    "calibration_squared_error": Metric("Squared calibration error", 0),
    **{f"{name}{AT_BALANCE}": Metric(f"{_BASIC[name].label} at balance", _BASIC[name].better) for name in WITH_BALANCE},
}
METRICS = _OF_IMAGES | {
    f"{OF_GALAXIES}{name}": Metric(f"{_OF_IMAGES[name].label} of galaxies", _OF_IMAGES[name].better)
    for name in WITH_VIEWS
}


def flat(estimates: Mapping[str, Estimate], prefix: str = "") -> dict[str, float]:
    """Store estimates flat: `<prefix>_<name>`, with `_low` and `_high` for the interval."""
    head = f"{prefix}_" if prefix else ""
    return {key: number for name, each in estimates.items() for key, number in each.flat(f"{head}{name}").items()}


def read(stored: Mapping[Any, Any], name: str) -> Estimate:
    """The estimate that is stored flat as `name`; what is missing is undefined."""
    return Estimate(*(float(stored.get(f"{name}{end}", math.nan)) for end in ("", LOW, HIGH)))


def gathered(stored: Mapping[str, float], prefix: str = "") -> dict[str, Estimate]:
    """The inverse of `flat`: all estimates whose names begin with `<prefix>_`, by the rest of their name."""
    head = f"{prefix}_" if prefix else ""
    return {name.removeprefix(head): read(stored, name) for name in names(stored) if name.startswith(head)}


def names(stored: Iterable[str]) -> list[str]:
    """The names among those of flat storage that are no ends of intervals, in their order."""
    columns = list(stored)
    present = set(columns)

    def is_end(name: str) -> bool:
        ends = (name.removesuffix(end) for end in (LOW, HIGH) if name.endswith(end))
        return any(base in present and not is_end(base) for base in ends)

    return [name for name in columns if not is_end(name)]
