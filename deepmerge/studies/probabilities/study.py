"""What a model's probabilities mean, and what makes them better: calibration, thresholds, dropout, an ensemble."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.analysis import calibration
from deepmerge.analysis.calibration import BALANCE
from deepmerge.analysis.sample import THRESHOLD
from deepmerge.data import copies
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, read
from deepmerge.jobs.judged import Judged, reload, trained_merger_fraction
from deepmerge.jobs.predict import CALIBRATION
from deepmerge.jobs.run import Results, warning
from deepmerge.progress import progress_bar
from deepmerge.studies import base
from deepmerge.studies.base import Caption, Findings, Study
from deepmerge.studies.probabilities import figures
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

STUDY = Study(
    "probabilities",
    "What the probabilities mean",
    "deepmerge study probabilities {}",
    captions={
        "calibration": Caption("Calibration", "What was predicted against what was found, if half were mergers."),
        "purity_completeness": Caption(
            "Purity and completeness", "By the fraction of mergers among the galaxies that are judged."
        ),
        "costs": Caption("Gain and cost", "Change against the one network, on the same galaxies, and what it takes."),
    },
    tables={"gains": "calibration, dropout and ensemble on the same test galaxies"},
)
THRESHOLDS = np.round(np.linspace(0.01, 0.99, 99), 2)
TEMPERATURE, ISOTONIC, DROPOUT, ENSEMBLE = "temperature", "isotonic", "MC dropout", "ensemble"
ALONE = {"training": 1.0, "prediction": 1.0}  # cost of the one network
RELIABLE = "calibration_error_at_balance"


class Methods(NamedTuple):
    """Test probabilities by method, at balance, and what each cost in units of one network: training and prediction."""

    scores: dict[str, np.ndarray]
    costs: dict[str, dict[str, float]]


def judge_probabilities(
    dataset: str, model: str, settings: config.Study, pdf: bool = False, out: Path | None = None
) -> Results:
    """Calibrate a model on its validation galaxies, choose thresholds there, and judge both on its test galaxies.

    It is compared with Monte-Carlo dropout and an ensemble of networks, of which the model is one and the others differ
    in their seed. Thresholds are those with the purity of the settings at each of their merger fractions. The
    calibration is kept with the model, for `predict`.
    """
    judged = reload(dataset, model)
    experiment = judged.experiment
    copies.require_apart(judged.data, [judged.split])
    trained_at = trained_merger_fraction(judged.run)
    validation = _Scored.of(judged, judged.split.validation, trained_at)
    test = _Scored.of(judged, judged.split.test, trained_at)
    fitted = {
        "temperature": calibration.fit_temperature(validation.labels, validation.scores),
        "validation_galaxies": len(np.unique(validation.galaxies)),
    }
    isotonic = calibration.fit_isotonic(validation.labels, validation.scores)
    note = warning(judged.data, judged.split)

    def measure(study: str) -> Findings:
        methods = _methods(study, judged, settings.members, settings.passes, trained_at)
        tempered = calibration.tempered(test.scores, fitted["temperature"])
        others = {TEMPERATURE: tempered, ISOTONIC: isotonic(test.scores), **methods.scores}
        costs = {**dict.fromkeys((TEMPERATURE, ISOTONIC), ALONE), **methods.costs}
        gains = calibration.gains(test.labels, test.galaxies, test.scores, others)
        points, chosen = _operating_points(validation, test, settings)
        facts: dict[str, float | str] = {"judged": judged.run.info.run_id, "members": settings.members}
        facts |= {"passes": settings.passes, "wanted_purity": settings.purity}
        return Findings(
            _sentence(fitted["temperature"], gains),
            {**facts, **fitted, **_estimates(gains), **_at_thresholds(points, chosen, settings.merger_fractions)},
            {
                "gains": gains,
                "operating_points": pd.concat([t.assign(mergers=n) for n, t in points.items()], ignore_index=True),
            },
            {
                "calibration": _calibration_figure(test, others, gains, note),
                "purity_completeness": figures.purity_completeness(points, chosen, note=note),
                "costs": figures.costs(gains, costs, note=note),
            },
        )

    tags = {"judged": judged.run.info.run_id}
    results = base.conduct(STUDY, experiment, judged.data, measure, note=note, tags=tags, pdf=pdf, out=out)
    with runs.reopened(judged.run):
        runs.log_json({**fitted, "study": results["run_id"]}, CALIBRATION)
    return results


class _Scored(NamedTuple):
    """Images of one part: labels, galaxies and the model's probabilities at balance, (n,) each."""

    labels: np.ndarray
    galaxies: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, judged: Judged, part: Part, trained_at: float) -> "_Scored":
        data = judged.data
        scores = calibration.at_prior(judged.scores(part), BALANCE, trained_at)
        return cls(data.labels[part.rows], data.galaxies[part.rows], scores)


def _methods(study: str, judged: Judged, members: int, passes: int, trained_at: float) -> Methods:
    """Dropout and ensemble on the test images; a network without dropout has no such method."""
    experiment = judged.experiment
    began = time.perf_counter()
    alone = judged.scores("test", afresh=True)
    one = time.perf_counter() - began
    probabilities, costs = {}, {}
    steps = (members - 1) * experiment.training.epochs + passes
    with progress_bar(f"Ensemble and dropout on {judged.data.name}", steps) as advance:
        try:
            began = time.perf_counter()
            probabilities[DROPOUT] = judged.dropout_scores("test", passes, 0, advance)
            costs[DROPOUT] = ALONE | {"prediction": (time.perf_counter() - began) / one}
        except ValueError:
            advance(passes)
        answers = [alone]
        for number in range(1, members):
            training = experiment.training.model_copy(update={"seed": experiment.training.seed + number})
            member = experiment.model_copy(update={"training": training})
            name = f"member {number + 1}"
            trial = base.run(study, name, judged.data, judged.split, member, advance, tags={"member": name})
            answers.append(trial.probability)
        if members > 1:
            probabilities[ENSEMBLE] = np.mean(answers, axis=0)
            costs[ENSEMBLE] = {"training": float(members), "prediction": float(members)}
    return Methods({name: calibration.at_prior(p, BALANCE, trained_at) for name, p in probabilities.items()}, costs)


def _operating_points(
    validation: _Scored, test: _Scored, settings: config.Study
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Purity and completeness of the test at each fraction of mergers, and the thresholds chosen on validation.

    Where validation offers no threshold of that purity, there is none.
    """
    points, chosen = {}, {}
    for fraction in settings.merger_fractions:
        name = f"{100 * fraction:.0f} % mergers"
        try:
            chosen[name] = calibration.choose_threshold(
                validation.labels, validation.scores, fraction, purity=settings.purity
            )
        except InputError as refusal:
            log.warning("No threshold chosen for %s: %s", name, refusal)
        thresholds = np.unique([*THRESHOLDS, chosen[name]]) if name in chosen else THRESHOLDS
        points[name] = calibration.operating_points(test.labels, test.scores, test.galaxies, fraction, thresholds)
    return points, chosen


def _calibration_figure(
    test: _Scored, others: Mapping[str, np.ndarray], gains: pd.DataFrame, note: str | None
) -> Figure:
    scores = {calibration.REFERENCE: test.scores, **others}
    errors = gains[gains["metric"] == RELIABLE].set_index("method")
    return figures.calibration(
        {name: calibration.reliability(test.labels, p, test.galaxies, BALANCE) for name, p in scores.items()},
        {name: Estimate(*errors.loc[name, ["value", "low", "high"]]) for name in scores},
        note=note,
    )


def _estimates(gains: pd.DataFrame) -> dict[str, Estimate]:
    """Each estimate of the table of gains, and its change, under the name of its method and metric."""
    estimates: dict[str, Estimate] = {}
    for line in gains.to_dict("records"):
        name = f"{line['method'].replace(' ', '_')}_{line['metric']}"
        estimates |= {name: Estimate(line["value"], line["low"], line["high"]), f"{name}_change": read(line, "change")}
    return estimates


def _at_thresholds(
    points: Mapping[str, pd.DataFrame], chosen: Mapping[str, float], fractions: Sequence[float]
) -> dict[str, Estimate | float]:
    """Purity and completeness at 0.5 and at the chosen threshold, for each fraction of mergers."""
    estimates: dict[str, Estimate | float] = {}
    for fraction, (name, table) in zip(fractions, points.items(), strict=True):
        at = {"at_half": THRESHOLD, **({"chosen": chosen[name]} if name in chosen else {})}
        for place, threshold in at.items():
            line = table[np.isclose(table["threshold"], threshold)].iloc[0]
            prefix = f"mergers_{100 * fraction:.0f}_percent_{place}"
            estimates[f"{prefix}_threshold"] = threshold
            estimates |= {f"{prefix}_{metric}": read(line.to_dict(), metric) for metric in ("purity", "completeness")}
    return estimates


def _sentence(temperature: float, gains: pd.DataFrame) -> str:
    log_loss = gains[gains["metric"] == "log_loss_at_balance"].set_index("method")["value"]
    listed = ", ".join(f"{name} {value:.3f}" for name, value in log_loss.items())
    return f"**Temperature {temperature:.2f}** from validation. Log loss at balance: {listed}."
