"""What a model's probabilities mean, and what makes them better: calibration, thresholds, dropout, an ensemble."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.analysis import calibration
from deepmerge.analysis.calibration import BALANCE
from deepmerge.analysis.sample import THRESHOLD
from deepmerge.cluster import Where
from deepmerge.data import copies, protocols
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, read
from deepmerge.jobs.judged import Judged, reload, trained_merger_fraction
from deepmerge.jobs.predict import CALIBRATION
from deepmerge.jobs.run import Results, warning
from deepmerge.jobs.trial import Order, again, train_all
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
    dataset: str,
    model: str,
    settings: config.Study,
    pdf: bool = False,
    out: Path | None = None,
    workers: Where = None,
) -> Results:
    """Calibrate a model and choose thresholds on galaxies outside its test, and judge both on its test galaxies.

    Its recipe is trained anew on folds of these galaxies, so that each is scored by a network that has not seen it:
    the validation galaxies are too few, and chose the epoch. The model is compared with Monte-Carlo dropout and an
    ensemble of networks, of which it is one and the others differ in their seed. Thresholds are those with the purity
    of the settings at each of their merger fractions. The temperature is kept with the model, for `predict`, unless
    it has no interval.
    """
    judged = reload(dataset, model)
    experiment = judged.experiment
    copies.require_apart(judged.data, [judged.split])
    trained_at = trained_merger_fraction(judged.run)
    test = _Scored.of(judged, judged.split.test, trained_at)
    note = warning(judged.data, judged.split)
    temperatures: list[Estimate] = []

    def measure(study: str) -> Findings:
        folds, members = _orders(judged, settings)
        title = f"{len(folds)} folds and {len(members)} further members of {judged.data.name}"
        trials = train_all(study, title, folds + members, workers)
        answers = [trial.probability for trial in trials]
        unseen = _out_of_fold(judged, folds, answers[: len(folds)], trained_at)
        temperature = calibration.temperature(*unseen)
        temperatures.append(temperature)
        isotonic = calibration.fit_isotonic(unseen.labels, unseen.scores)
        methods = _methods(judged, answers[len(folds) :], settings.passes, trained_at)
        tempered = calibration.tempered(test.scores, temperature.value)
        others = {TEMPERATURE: tempered, ISOTONIC: isotonic(test.scores), **methods.scores}
        in_folds = ALONE | {"training": ALONE["training"] + settings.folds}
        costs = {**dict.fromkeys((TEMPERATURE, ISOTONIC), in_folds), **methods.costs}
        gains = calibration.gains(test.labels, test.galaxies, test.scores, others)
        points, chosen = _operating_points(unseen, test, settings)
        facts: dict[str, float | str] = {"judged": judged.run.info.run_id, "members": settings.members}
        facts |= {"passes": settings.passes, "folds": settings.folds, "wanted_purity": settings.purity}
        fitted: dict[str, Estimate | float] = {
            "temperature": temperature,
            "calibration_galaxies": len(np.unique(unseen.galaxies)),
        }
        return Findings(
            _sentence(temperature, gains),
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
    [temperature] = temperatures
    if temperature.has_interval:
        with runs.reopened(judged.run):
            runs.log_json({**temperature.flat("temperature"), "study": results["run_id"]}, CALIBRATION)
    else:
        log.warning(
            "No temperature is kept with the model: %.3g, at an end of what is searched or of too few galaxies, says "
            "nothing of its probabilities",
            temperature.value,
        )
    return results


class _Scored(NamedTuple):
    """Images of one part: labels, galaxies and the model's probabilities at balance, (n,) each."""

    labels: np.ndarray
    scores: np.ndarray
    galaxies: np.ndarray

    @classmethod
    def of(cls, judged: Judged, part: Part, trained_at: float) -> "_Scored":
        data = judged.data
        scores = calibration.at_prior(judged.scores(part), BALANCE, trained_at)
        return cls(data.labels[part.rows], scores, data.galaxies[part.rows])


def _orders(judged: Judged, settings: config.Study) -> tuple[list[Order], list[Order]]:
    """The recipe on folds of all galaxies outside the test, and with other seeds for the ensemble."""
    data, experiment = judged.data, judged.experiment
    outside = np.concatenate([judged.split.train.rows, judged.split.validation.rows])
    folds = [
        Order(f"fold {number}", experiment, data, split, {"fold": str(number)})
        for number, split in enumerate(protocols.cross(data, experiment.split, settings.folds, outside), 1)
    ]
    members = [
        replace(order, name=f"member {number}", tags={"member": f"member {number}"})
        for number, order in enumerate(again(judged, settings.members), 2)
    ]
    return folds, members


def _out_of_fold(judged: Judged, folds: Sequence[Order], answers: Sequence[np.ndarray], trained_at: float) -> _Scored:
    """All images outside the test, each scored by the one of the networks that had not seen its galaxy."""
    rows = np.concatenate([order.split.test.rows for order in folds])
    scores = calibration.at_prior(np.concatenate(answers), BALANCE, trained_at)
    return _Scored(judged.data.labels[rows], scores, judged.data.galaxies[rows])


def _methods(judged: Judged, others: Sequence[np.ndarray], passes: int, trained_at: float) -> Methods:
    """Dropout, and the ensemble with `others`, on the test images; a network without dropout has no such method."""
    began = time.perf_counter()
    alone = judged.scores("test", afresh=True)
    one = time.perf_counter() - began
    probabilities, costs = {}, {}
    with progress_bar(f"Dropout on {judged.data.name}", passes) as advance, suppress(ValueError):
        began = time.perf_counter()
        probabilities[DROPOUT] = judged.dropout_scores("test", passes, 0, advance)
        costs[DROPOUT] = ALONE | {"prediction": (time.perf_counter() - began) / one}
    if others:
        members = float(len(others) + 1)
        probabilities[ENSEMBLE] = np.mean([alone, *others], axis=0)
        costs[ENSEMBLE] = {"training": members, "prediction": members}
    return Methods({name: calibration.at_prior(p, BALANCE, trained_at) for name, p in probabilities.items()}, costs)


def _operating_points(
    unseen: _Scored, test: _Scored, settings: config.Study
) -> tuple[dict[str, pd.DataFrame], dict[str, float]]:
    """Purity and completeness of the test at each fraction of mergers, and the thresholds chosen outside the test.

    Where no threshold has that purity there, there is none.
    """
    points, chosen = {}, {}
    for fraction in settings.merger_fractions:
        name = f"{100 * fraction:.0f} % mergers"
        try:
            chosen[name] = calibration.choose_threshold(unseen.labels, unseen.scores, fraction, purity=settings.purity)
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


def _sentence(temperature: Estimate, gains: pd.DataFrame) -> str:
    log_loss = gains[gains["metric"] == "log_loss_at_balance"].set_index("method")["value"]
    listed = ", ".join(f"{name} {value:.3f}" for name, value in log_loss.items())
    return f"**Temperature {temperature.text('.2f')}** from galaxies outside the test. Log loss at balance: {listed}."
