"""A study's numbers are those of textbooks, and what it found stands in its run and in its folder."""

import json
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from deepmerge import config
from deepmerge.estimate import Estimate, read
from deepmerge.jobs.run import LEAKS, SIMULATED
from deepmerge.studies import base
from deepmerge.studies.base import Findings, Study
from deepmerge.studies.recipes import CHANGES

# Student's t of 97.5 % by degrees of freedom, as tables print it.
T = {1: 12.7062, 2: 4.3027, 4: 2.7764, 9: 2.2622}


# --- numbers and their words -------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", T)
@pytest.mark.parametrize("middle", [0.5, 0.97])
def test_the_interval_of_a_mean_is_that_of_students_table_for_its_logit(freedom, middle):
    values = np.random.default_rng(freedom).normal(middle, 0.01, freedom + 1).tolist()
    mean, error = statistics.mean(values), statistics.stdev(values) / (freedom + 1) ** 0.5

    def logit(p):
        return np.log(p / (1 - p))

    half = T[freedom] * error * (logit(mean + 1e-6) - logit(mean - 1e-6)) / 2e-6
    found = base.mean_with_interval(values)
    assert found.value == pytest.approx(mean)
    np.testing.assert_allclose(
        [logit(found.low), logit(found.high)], [logit(mean) - half, logit(mean) + half], rtol=1e-3
    )


def test_far_from_the_bounds_the_interval_of_a_mean_is_that_of_students_table():
    values = [0.51, 0.49, 0.505, 0.5, 0.495]
    half = T[4] * statistics.stdev(values) / 5**0.5
    np.testing.assert_allclose(base.mean_with_interval(values), [0.5, 0.5 - half, 0.5 + half], rtol=1e-3)
    changes = base.mean_with_interval(np.array(values) - 0.49, base.DIFFERENCE)
    np.testing.assert_allclose(changes, [0.01, 0.01 - half, 0.01 + half], rtol=1e-2)


def odd_values(rng):
    """Shares of several trainings, many of them at a bound or very near it."""
    count = int(rng.integers(1, 9))
    kinds = (
        rng.random(count),
        rng.integers(0, 2, count).astype(float),
        1 - 10 ** -rng.uniform(0, 320, count),
        10 ** -rng.uniform(0, 320, count),
        rng.choice([0.0, 1.0, 0.5, 1e-17, 1 - 2**-53], count),
        np.full(count, rng.random()),
    )
    return kinds[rng.integers(len(kinds))]


@pytest.mark.parametrize("bounds", [base.SHARE, base.DIFFERENCE])
def test_the_interval_of_a_mean_stays_within_its_bounds_and_holds_the_mean_for_any_values(bounds):
    rng = np.random.default_rng(0)
    low, high = bounds
    for _ in range(3000):
        values = low + (high - low) * odd_values(rng)
        found = base.mean_with_interval(values, bounds)
        assert found.value == values.mean()
        turned = base.mean_with_interval(low + high - values, bounds)
        if np.isnan([found.low, found.high]).any():
            assert np.isnan([found.low, found.high]).all()
            # What scatters less than a number can say beside a bound counts as nothing.
            assert np.ptp(values) == 0 or min(found.value - low, high - found.value) < 1e-15
            continue
        assert low <= found.low <= found.value <= found.high <= high, values
        if min(found.value - low, high - found.value) > 1e-6:  # beside a bound 1 - p is rounded
            np.testing.assert_allclose(low + high - np.array(turned)[[0, 2, 1]], found, atol=1e-8)


def test_ten_mergers_in_five_folds_give_no_mean_auc_above_one():
    """What `evaluate --folds` found on a small survey: Student's interval for the mean itself went to 1.02."""
    values = [1.0, 0.94, 1.0, 0.87, 1.0]
    found = base.mean_with_interval(values)
    assert statistics.mean(values) + T[4] * statistics.stdev(values) / 5**0.5 > 1.02
    assert 0.7 < found.low < found.value < found.high < 1


def test_where_nothing_scatters_there_is_no_interval():
    for value in (0.0, 0.3, 1.0):
        found = base.mean_with_interval([value] * 4)
        assert found.value == pytest.approx(value)
        assert np.isnan([found.low, found.high]).all()


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [base.mean_with_interval(rng.normal(0.5, 0.1, 3)) for _ in range(2000)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
    near = [base.mean_with_interval(rng.beta(18, 2, 5)) for _ in range(2000)]  # Student's for the mean: 0.92
    assert np.mean([one.low <= 0.9 <= one.high for one in near]) == pytest.approx(0.95, abs=0.015)


def test_one_training_has_a_mean_and_no_interval():
    found = base.mean_with_interval([0.8])
    assert found.value == 0.8
    assert np.isnan([found.low, found.high]).all()


def test_an_undefined_training_makes_the_mean_undefined():
    assert np.isnan(base.mean_with_interval([0.8, np.nan, 0.9])).all()


def test_an_estimate_is_read_with_its_ends_and_is_undefined_without_them():
    results = {"test_auc": 0.9, "test_auc_low": 0.8, "test_auc_high": 1, "test_auc_rank": 3}
    assert read(results, "test_auc") == Estimate(0.9, 0.8, 1.0)
    np.testing.assert_equal(tuple(read({"auc": 0.9}, "auc")), (0.9, np.nan, np.nan))
    assert np.isnan(read(results, "auc")).all()


def test_numbers_of_a_table_are_named_after_their_line_and_column():
    lines = ["as the experiment says", "Random Forest, morphology", "0.5 always", "(a) [µ] <b>"]
    table = pd.DataFrame({"method": lines, "test_auc": [0.9, 0.8, 0.5, np.nan], "images": [7, 8, 9, 10]})
    found = base.named(table, "method")
    assert found["as_the_experiment_says_test_auc"] == 0.9
    assert found["Random_Forest_morphology_images"] == 8
    assert found["0_5_always_test_auc"] == 0.5
    assert len(found) == table["images"].size * 2
    assert all(isinstance(value, float) for value in found.values())


def test_the_names_are_such_that_mlflow_takes_them_and_no_two_recipes_share_one():
    table = pd.DataFrame({"recipe": list(CHANGES), "auc": np.arange(len(CHANGES))})
    found = base.named(table, "recipe")
    assert list(found.values()) == table["auc"].tolist()
    assert all(re.fullmatch(r"[A-Za-z0-9_\-./ ]+", name) for name in found)


# --- the runner --------------------------------------------------------------------------------------------

STUDY = Study("odd", "Odd things", "deepmerge study odd {}", {}, {})


@pytest.fixture
def conducted(client, tmp_path, write_sample):
    """The run of a study that found an estimate, a fact and an undefined number; its results and its folder."""
    experiment = config.load(str(write_sample()))
    data = base.datasets.read(experiment.data, experiment.name)
    table = pd.DataFrame({"auc": [0.9, 0.8]})
    seen = []

    def measure(run_id):
        seen.append(run_id)
        estimates = {"folds": 5, "judged": "b", "auc": Estimate(0.9, 0.8, 0.95), "error": Estimate(0.1)}
        return Findings("**AUC 0.9**.", estimates, {"folds": table}, {"drawn": Figure()})

    out = tmp_path / "out"
    results = base.conduct(STUDY, experiment, data, measure, note=LEAKS, tags={"judged": "b"}, out=out)
    assert seen == [results["run_id"]]
    return client.get_run(results["run_id"]), results, out


def test_what_a_study_found_is_logged_and_written_for_programs(conducted):
    run, results, out = conducted
    interval = {"auc": 0.9, "auc_low": 0.8, "auc_high": 0.95}
    stored = {"run_id": run.info.run_id, "folds": 5, "judged": "b", **interval, "error": 0.1}
    assert list(results) == [*stored, "error_low", "error_high"]
    assert {name: results[name] for name in stored} == stored
    assert run.data.metrics == {"folds": 5, **interval, "error": 0.1}  # MLflow takes nothing undefined
    assert (run.data.tags["kind"], run.data.tags["judged"]) == ("odd", "b")
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / "figures" / "drawn.png").exists()
    assert sorted(path.name for path in out.iterdir()) == ["folds.csv", "study.json"]
    for folder in (artifacts, out):
        assert json.loads((folder / "study.json").read_text()) == stored  # JSON has no undefined numbers
        assert pd.read_csv(folder / "folds.csv")["auc"].tolist() == [0.9, 0.8]


def test_the_sentence_of_a_study_carries_its_warning(conducted):
    run, _, _ = conducted
    assert run.data.tags["mlflow.note.content"] == f"**AUC 0.9**. {LEAKS}"


@pytest.mark.parametrize(
    ("source", "split", "expected"),
    [
        ("simulated", "galaxy", [SIMULATED]),
        ("illustris", "rows", [LEAKS]),
        ("simulated", "rows", [SIMULATED, LEAKS]),
        ("illustris", "galaxy", []),
    ],
)
def test_a_run_warns_of_simulated_data_and_of_a_leaking_split(source, split, expected):
    run = SimpleNamespace(data=SimpleNamespace(tags={"data_source": source, "split": split}))
    assert base.warnings(run) == expected
