"""Studies as a user runs them, on a small sample: what they say is checked against slow independent versions."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import environment
from mlflow.tracking import MlflowClient
from sklearn.metrics import roc_auc_score

from deepmerge.report.collect import HEADLINE, RESULTS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EPOCHS = 2


class Desk:
    """A folder with a sample, a trained model and, once they are made, its studies."""

    def __init__(self, folder, experiment):
        self.folder = folder
        self.experiment = experiment
        self.client = MlflowClient(f"sqlite:///{folder}/mlflow.db")

    def command(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "deepmerge", *map(str, words)],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=False,
        )

    def succeed(self, *words):
        done = self.command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def runs(self, condition):
        return self.client.search_runs([e.experiment_id for e in self.client.search_experiments()], condition)

    def study(self, kind):
        [run] = self.runs(f"tags.kind = '{kind}'")
        assert run.info.status == "FINISHED"
        return run

    def trials(self, study):
        found = self.runs(f"tags.`mlflow.parentRunId` = '{study.info.run_id}'")
        assert {run.info.status for run in found} <= {"FINISHED"}
        return found

    def artifact(self, run, path):
        return Path(run.info.artifact_uri.removeprefix("file://"), path)

    def artifacts(self, run):
        root = self.artifact(run, "")
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A sample that can be learned: 48 galaxies from two sides, mergers with two nuclei, and their mass."""
    folder = tmp_path_factory.mktemp("studies")
    rng = np.random.default_rng(5)
    stages = np.repeat(["past", "future", "non-merger"], [12, 10, 26])
    y, x = np.mgrid[:48, :48] - 23.5
    images = np.empty((2 * len(stages), 2, 48, 48), np.float32)
    for number, stage in enumerate(np.repeat(stages, 2)):
        scene = 20 * np.exp(-np.hypot(x, y) / 3)
        if stage != "non-merger":
            angle = rng.uniform(0, 2 * np.pi)
            scene += 15 * np.exp(-((x - 7 * np.cos(angle)) ** 2 + (y - 7 * np.sin(angle)) ** 2) / 4)
        images[number] = scene + rng.normal(0, 0.3, (2, 48, 48))
    np.save(folder / "tiny_X.npy", images)
    np.save(folder / "tiny_y.npy", np.repeat(stages != "non-merger", 2).astype(np.uint8))
    catalogue = {
        "galaxy_id": np.repeat(200 + np.arange(len(stages)), 2),
        "view": np.tile([0, 1], len(stages)),
        "stage": np.repeat(stages, 2),
        "log_mstar": np.repeat(rng.normal(10.3, 0.3, len(stages)), 2),
    }
    # The real catalogue has them too; here they are known for half of the rows.
    for name in ("concentration", "m20"):
        catalogue[name] = np.where(rng.random(len(images)) < 0.5, rng.normal(size=len(images)), np.nan)
    pd.DataFrame(catalogue).to_csv(folder / "tiny.csv", index=False)
    (folder / "tiny.yaml").write_text(
        "data: {images: tiny_X.npy, labels: tiny_y.npy, catalogue: tiny.csv}\n"
        f"training: {{epochs: {EPOCHS}, batch_size: 16, learning_rate: 0.003}}\n"
    )
    made = Desk(folder, folder / "tiny.yaml")
    made.succeed("main", "tiny.yaml")
    return made


@pytest.fixture(scope="module")
def folds(desk):
    desk.succeed("evaluate", "tiny.yaml", "--folds", "3", "--out", "out/folds")
    return desk.study("folds")


@pytest.fixture(scope="module")
def leakage(desk):
    desk.succeed("study", "leakage", "tiny.yaml", "--seeds", "2", "--out", "out/leakage")
    return desk.study("leakage")


@pytest.fixture(scope="module")
def recipes(desk):
    words = (
        "--folds",
        "2",
        "--seeds",
        "2",
        "--epochs",
        "1",
        "--published-epochs",
        "1",
        "--target",
        "0.69",
        "--out",
        "out/recipes",
    )
    desk.succeed("study", "recipes", "tiny.yaml", *words)
    return desk.study("recipes")


@pytest.fixture(scope="module")
def baselines(desk):
    desk.succeed("study", "baselines", "tiny.yaml", "--seeds", "2", "--out", "out/baselines")
    return desk.study("baselines")


@pytest.fixture(scope="module")
def selection(desk, folds):
    desk.succeed("study", "selection", "tiny.yaml", "--model", "folds", "--bins", "3", "--out", "out/selection")
    return desk.study("selection")


@pytest.fixture(scope="module")
def probabilities(desk):
    words = ("--folds", "2", "--members", "2", "--passes", "4", "--purity", "0.6", "--out", "out/probabilities")
    desk.succeed("study", "probabilities", "tiny.yaml", *words)
    return desk.study("probabilities")


def test_folds_score_every_galaxy_by_a_network_that_had_not_seen_it(desk, folds):
    table = pd.read_parquet(desk.artifact(folds, "predictions.parquet"))
    assert sorted(table["row"]) == list(range(96))
    by_fold = {run.data.tags["fold"]: run for run in desk.trials(folds)}
    assert sorted(by_fold) == ["1", "2", "3"]
    catalogue = pd.read_csv(desk.folder / "tiny.csv")
    for fold, run in by_fold.items():
        split = pd.read_csv(desk.artifact(run, "split.csv"))
        seen = set(catalogue["galaxy_id"].iloc[split.loc[split["split"] != "test", "row"]])
        assert not seen & set(table.loc[table["fold"] == int(fold), "galaxy_id"])


def test_the_metrics_of_folds_are_those_of_all_predictions_together(desk, folds):
    table = pd.read_parquet(desk.artifact(folds, "predictions.parquet"))
    ranks = table.groupby("fold")["probability"].rank(pct=True)  # a network may be surer of everything than another
    sizes = table.groupby("fold")["probability"].transform("size")
    assert folds.data.metrics["test_auc"] == pytest.approx(roc_auc_score(table["label"], ranks - 0.5 / sizes))
    right = (table["probability"] >= 0.5) == (table["label"] == 1)
    assert folds.data.metrics["test_accuracy"] == pytest.approx(right.mean())
    each = [roc_auc_score(lines["label"], lines["probability"]) for _, lines in table.groupby("fold")]
    assert folds.data.metrics["folds_mean_auc"] == pytest.approx(np.mean(each))
    assert {"figures/folds.png", "figures/roc.png", "folds.csv", "study.json"} <= desk.artifacts(folds)


def test_the_models_of_folds_are_kept_but_none_is_the_newest_of_its_data_set(desk, folds):
    [run, *_] = desk.trials(folds)
    split = pd.read_csv(desk.artifact(run, "split.csv"))
    desk.succeed("evaluate", "tiny.yaml", "--model", run.info.run_id)
    table = pd.read_parquet(desk.artifact(desk.client.get_run(run.info.run_id), "predictions.parquet"))
    whole = pd.read_parquet(desk.artifact(folds, "predictions.parquet"))
    assert len(table) == len(split)
    again = table[table["split"] == "test"].set_index("row")["probability"].sort_index()
    before = whole[whole["fold"] == int(run.data.tags["fold"])].set_index("row")["probability"].sort_index()
    np.testing.assert_allclose(again, before, atol=1e-6)
    [main] = desk.runs("tags.trained = 'yes'")
    assert main.data.tags["dataset"] == "tiny"


def test_leakage_tells_what_is_claimed_and_what_is_true_of_galaxies_that_nobody_saw(desk, leakage):
    table = pd.read_csv(desk.folder / "out/leakage/trainings.csv")
    assert len(table) == 2 * 2 * 2
    assert len(desk.trials(leakage)) == 2 * 2
    metrics = leakage.data.metrics
    for protocol in ("rows", "galaxy"):
        ours = table[table["protocol"] == protocol]
        claimed, unseen = (ours[ours["judged_on"] == place]["test_auc"].to_numpy() for place in ("claimed", "unseen"))
        assert metrics[f"{protocol}_excess_auc"] == pytest.approx((claimed - unseen).mean())
    assert metrics["rows_shared_galaxies"] > 0.7
    assert metrics["galaxy_shared_galaxies"] == 0
    sizes = table[table["judged_on"] == "claimed"].groupby("seed")["images"].nunique()
    assert (sizes == 1).all()  # as many test images under both protocols


def test_leakage_judges_a_forest_on_the_catalogue_where_it_is_measured(desk, leakage):
    catalogue = pd.read_csv(desk.folder / "tiny.csv").dropna()
    assert leakage.data.metrics["catalogue_rows"] == len(catalogue)
    table = pd.read_csv(desk.folder / "out/leakage/catalogue.csv")
    mean = table[table["protocol"] == "galaxy"]["auc"].mean()
    assert leakage.data.metrics["forest_galaxy_auc"] == pytest.approx(mean)


def test_recipes_are_compared_on_the_same_galaxies(desk, recipes):
    table = pd.read_csv(desk.folder / "out/recipes/recipes.csv").set_index("recipe")
    assert len(desk.trials(recipes)) == 2 * 2 * len(table)  # folds, seeds
    own = table.loc["as the experiment says"]
    assert own["change_auc"] == own["change_auc_low"] == own["change_auc_high"] == 0
    np.testing.assert_allclose(table["change_auc"], table["test_auc"] - own["test_auc"], atol=1e-9)
    assert (table["seconds_an_epoch"] > 0).all()
    assert ((table["trainings_at_target"] >= 2) | table["epochs_to_target"].isna()).all()
    published = [run for run in desk.trials(recipes) if run.data.tags["recipe"] == "published recipe"]
    assert {run.data.params["architecture"] for run in published} == {"published"}


def test_baselines_learn_and_are_judged_on_the_galaxies_of_the_network(desk, baselines):
    table = pd.read_csv(desk.folder / "out/baselines/baselines.csv").set_index("method")
    [main] = desk.runs("tags.trained = 'yes'")
    [again] = desk.trials(baselines)  # the model itself is the first seed
    assert int(again.data.params["seed"]) == int(main.data.params["seed"]) + 1
    both = [run.data.metrics["test_auc"] for run in (main, again)]
    assert table.loc["network", "test_auc"] == pytest.approx(np.mean(both))
    assert table.loc["network", "change_auc"] == 0
    assert table.loc["0.5 always", "test_auc"] == 0.5
    assert table.loc["Random Forest, morphology", "test_auc"] > 0.7  # two nuclei are easy to measure
    flags = pd.read_csv(desk.folder / "out/baselines/flags.csv").set_index("images")
    np.testing.assert_allclose(flags.sum(axis=1), 1)
    measured = pd.read_csv(desk.folder / "out/baselines/morphology.csv")
    split = pd.read_csv(desk.artifact(main, "split.csv"))
    assert set(measured["row"]) == set(split.loc[split["split"] != "validation", "row"])
    assert {"figures/baselines.png", "figures/importance.png"} <= desk.artifacts(baselines)


def test_morphology_is_measured_once(desk, baselines):
    caches = sorted((desk.folder / "results" / "cache").glob("morphology-*.parquet"))
    before = [cache.stat().st_mtime_ns for cache in caches]
    assert len(before) == 2  # one a filter
    desk.succeed("study", "baselines", "tiny.yaml", "--seeds", "2")
    assert [cache.stat().st_mtime_ns for cache in caches] == before
    for run in desk.runs("tags.kind = 'baselines'"):
        if run.info.run_id != baselines.info.run_id:
            assert run.data.metrics == baselines.data.metrics
            desk.client.delete_run(run.info.run_id)


def test_selection_counts_the_predictions_of_the_folds(desk, selection, folds):
    table = pd.read_parquet(desk.artifact(folds, "predictions.parquet"))
    stages = pd.read_csv(desk.folder / "out/selection/stages.csv").set_index("stage")
    for stage, lines in table.groupby("stage"):
        assert stages.loc[stage, "value"] == pytest.approx((lines["probability"] >= 0.5).mean())
    bins = pd.read_csv(desk.folder / "out/selection/selection.csv")
    whole = bins[(bins["property"] == "log_mstar") & (bins["bin"] == "all")].iloc[0]
    mergers = table[table["label"] == 1]
    assert whole["completeness"] == pytest.approx((mergers["probability"] >= 0.5).mean())
    assert set(bins["property"]) == {"log_mstar", "concentration", "m20", "log_sn"}
    assert (bins[bins["property"] == "m20"]["bin"] == "not measured").any()  # the catalogue's, not the pixels'
    assert selection.data.tags["judged"] == folds.info.run_id


def test_selection_without_folds_is_of_the_test_galaxies(desk):
    found = desk.succeed("study", "selection", "tiny.yaml", "--bins", "2")
    [main] = desk.runs("tags.trained = 'yes'")
    assert re.search(rf"^judged +{main.info.run_id}$", found, re.MULTILINE)
    newest = desk.runs("tags.kind = 'selection'")[0]
    desk.client.delete_run(newest.info.run_id)


def test_an_ensemble_is_the_mean_of_its_members(desk, probabilities):
    gains = pd.read_csv(desk.folder / "out/probabilities/gains.csv")
    assert set(gains["method"]) == {"reference", "temperature", "isotonic", "MC dropout", "ensemble"}
    [main] = desk.runs("tags.trained = 'yes'")
    reference = gains[(gains["method"] == "reference") & (gains["metric"] == "auc")]["value"].item()
    assert reference == pytest.approx(main.data.metrics["test_auc"])
    [member] = [run for run in desk.trials(probabilities) if "member" in run.data.tags]
    assert int(member.data.params["seed"]) == int(main.data.params["seed"]) + 1
    assert probabilities.data.metrics["temperature_auc"] == pytest.approx(reference)  # it keeps the order


def test_the_calibration_is_fitted_on_galaxies_outside_the_test_that_no_scoring_network_had_seen(desk, probabilities):
    [main] = desk.runs("tags.trained = 'yes'")
    whole = pd.read_csv(desk.artifact(main, "split.csv"))
    tested = set(whole[whole["split"] == "test"]["row"])
    folds = [
        pd.read_csv(desk.artifact(run, "split.csv")) for run in desk.trials(probabilities) if "fold" in run.data.tags
    ]
    assert len(folds) == 2
    scored = [set(table[table["split"] == "test"]["row"]) for table in folds]
    assert not scored[0] & scored[1]
    assert scored[0] | scored[1] == set(whole["row"]) - tested
    assert not any(tested & set(table["row"]) for table in folds)
    assert probabilities.data.metrics["temperature_low"] < probabilities.data.metrics["temperature_high"]


def test_the_calibration_stays_with_the_model_and_predict_uses_it(desk, probabilities):
    [main] = desk.runs("tags.trained = 'yes'")
    kept = json.loads(desk.artifact(main, "calibration.json").read_text())
    assert kept["temperature"] == pytest.approx(probabilities.data.metrics["temperature"])
    words = ("--model", main.info.run_id, "--out", "scores.csv", "--merger-fraction", "0.1")
    desk.succeed("predict", "tiny_X.npy", *words)
    table = pd.read_csv(desk.folder / "scores.csv")
    p = np.clip(table["probability"], np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps)
    odds = (p / (1 - p)) ** (1 / kept["temperature"]) * 0.1 / 0.9
    np.testing.assert_allclose(table["calibrated"], odds / (1 + odds), rtol=1e-6)


def test_a_report_is_one_page_that_asks_for_nothing_and_says_what_the_runs_say(
    desk, folds, leakage, recipes, baselines, selection, probabilities
):
    readme = desk.folder / "README.md"
    (begin, end), brief = RESULTS, desk.folder / "brief.md"
    readme.write_text(f"# Mine\n\n{begin}\nold\n{end}\n\nEnd.\n")
    brief.write_text("\n".join(HEADLINE))
    desk.succeed("report", "tiny.yaml", "--out", "page.html", "--readme", "README.md", "--readme", "brief.md")
    assert "| AUC " in brief.read_text()
    assert "study" not in brief.read_text()
    page = (desk.folder / "page.html").read_text()
    [main] = desk.runs("tags.trained = 'yes'")
    assert f"{main.data.metrics['test_auc']:.3f}" in page
    assert f"{folds.data.metrics['test_auc']:.3f} [" in page
    assert not re.search(r"<(script|link|iframe)|src=\"(?!data:)|url\((?!data:)", page)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) > 15
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert "report.html" in desk.artifacts(main)
    text = readme.read_text()
    assert text.startswith("# Mine\n")
    assert text.endswith("\n\nEnd.\n")
    assert "old" not in text.split(end)[0].split(begin)[1].split()
    assert "deepmerge study leakage tiny" in text
    desk.succeed("report", "tiny.yaml", "--out", "page.html", "--readme", "README.md")
    assert readme.read_text() == text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("study", "leakage", "tiny.yaml", "--catalogue-arrays", "nowhere"), "--catalogue-arrays should be a folder"),
        (("study", "selection", "nobody", "--model", "folds"), "make one with 'deepmerge evaluate"),
        (("evaluate", "tiny.yaml", "--folds", "40"), "folds should be 2 to 10"),
        (("report", "nobody"), "expected a trained model"),
        (("report", "tiny.yaml", "--readme", "tiny.csv"), "expected the marker"),
    ],
)
def test_wrong_words_are_refused_in_one_line(desk, words, said):
    done = desk.command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
