"""The study of what carries over: its plan, its table against slow numbers, and the whole on a tiny sample."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import predictions
from sklearn.metrics import roc_auc_score

from deepmerge import config
from deepmerge.data import dataset, targets
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate
from deepmerge.jobs.run import SIMULATED
from deepmerge.studies.transfer import study, table
from deepmerge.studies.transfer.study import NAMES, measure_transfer, note_of, plan
from deepmerge.studies.transfer.table import LABELLED, NONE, Scored

slow = pytest.mark.slow


@pytest.fixture
def pair(write_sample):
    """Experiment files of a sample and of the same galaxies under more noise."""
    source, target = write_sample("source"), write_sample("noisy")
    images = np.load(target.with_name("noisy_X.npy"))
    noise = np.random.default_rng(3).normal(0, 1.5, images.shape)
    np.save(target.with_name("noisy_X.npy"), (images + noise).astype(np.float32))
    return source, target


def of_other_galaxies(path):
    """Give the galaxies of a sample other ids, in another order."""
    catalogue = pd.read_csv(path.with_name(f"{path.stem}.csv"))
    catalogue["galaxy_id"] = [f"s{galaxy}" for galaxy in catalogue["galaxy_id"]]
    catalogue.to_csv(path.with_name(f"{path.stem}.csv"), index=False)


def test_each_training_differs_from_the_experiment_in_what_it_says(pair):
    text = f"{{to: {pair[1]}, method: coral, weight: 7}}"
    experiment = config.load(str(pair[0]), {"adapt": text, "psf": "2", "noise": "{sigma: 9}"})
    target = config.load(str(pair[1]))
    planned = plan(experiment, target, "noisy", config.Study().methods)
    assert list(planned) == [NONE, *NAMES.values(), LABELLED]
    bare = experiment.with_settings({"noise": None, "psf": None, "adapt": None})
    assert planned[NONE] == bare
    assert planned[LABELLED] == bare.model_copy(update={"name": "noisy", "data": target.data})
    assert planned[NAMES["noise"]].training.noise == config.Noise(like="noisy")
    assert planned[NAMES["noise"]].training.psf == (2.0,)
    for method in ("stretch", "mmd", "coral", "sinkhorn", "dann"):
        weight = 7 if method == "coral" else None
        adapt = config.Adapt(to="noisy", method=method, weight=weight)
        assert planned[NAMES[method]] == bare.with_settings({"adapt": adapt})
    assert list(plan(experiment, target, "noisy", ("mmd", "noise", "mmd"))) == [NONE, "MMD", NAMES["noise"], LABELLED]


@pytest.mark.parametrize("same", [True, False])
def test_what_tests_never_trains_and_no_label_of_the_target_parts_it(pair, same):
    if not same:
        of_other_galaxies(pair[1])
    experiment, target = (config.load(str(path)) for path in pair)
    data, other = (dataset.read(one.data, one.name) for one in (experiment, target))
    folds = list(study._folds(experiment, data, other, targets.read(str(pair[1])), 3))
    for one, split in ((data, "source"), (other, "target")):
        tested = [set(one.galaxies[getattr(fold, split).test.rows]) for fold in folds]
        assert sorted(galaxy for fold in tested for galaxy in fold) == list(range(60))
    for fold in folds:
        trained, validated, tested = (
            set(other.galaxies[part.rows]) for part in (fold.target.train, fold.target.validation, fold.target.test)
        )
        assert not trained & tested
        assert not validated & (trained | tested)
        seen = set(other.galaxies[fold.seen.rows])
        assert not seen & tested
        assert seen == trained if same else seen == trained | validated
    y = np.load(pair[1].with_name("noisy_y.npy"))
    np.save(pair[1].with_name("noisy_y.npy"), 1 - y)
    blind = list(study._folds(experiment, data, other, targets.read(str(pair[1])), 3))
    for fold, again in zip(folds, blind, strict=True):
        np.testing.assert_array_equal(fold.seen.rows, again.seen.rows)
        np.testing.assert_array_equal(fold.target.test.rows, again.target.test.rows)


def scored(scatter, seed=0):
    """Two seeds, of the same galaxies in two folds."""
    labels, first, galaxy = predictions(60, 2, scatter=scatter, seed=seed)
    rng = np.random.default_rng(seed)
    second = np.clip(first + rng.normal(0, 0.05, len(first)), 0.001, 0.999)
    lines = pd.DataFrame({"row": np.arange(len(labels)), "label": labels, "galaxy": galaxy, "fold": galaxy % 2})
    return Scored(lines, np.stack([first, second]))


def auc_by_hand(one):
    """The mean over folds and seeds, as all folds have as many pairs."""
    found = []
    for probability in one.probability:
        ranked = np.empty(len(probability))
        for fold in (0, 1):
            inside = (one.lines["fold"] == fold).to_numpy()
            ranked[inside] = pd.Series(probability[inside]).rank() / inside.sum()
        found.append(roc_auc_score(one.lines["label"], ranked))
    return np.mean(found)


def test_the_table_is_that_of_slow_numbers():
    scores = {
        NONE: (scored(0.2), scored(6)),
        NAMES["noise"]: (scored(0.3), scored(1)),
        NAMES["mmd"]: (scored(0.3), scored(4)),
        LABELLED: (scored(5), scored(0.2)),
    }
    found = table.of_scores(scores).set_index("training")
    for name, (source, target) in scores.items():
        assert found.loc[name, "test_auc"] == pytest.approx(auc_by_hand(target), abs=2e-3)
        assert found.loc[name, "source_auc"] == pytest.approx(auc_by_hand(source), abs=2e-3)
    auc = found["test_auc"]
    np.testing.assert_allclose(found["recovered"], (auc - auc[NONE]) / (auc[LABELLED] - auc[NONE]))
    np.testing.assert_allclose(found["change_auc"], auc - auc[NONE], atol=1e-9)
    assert found["change_auc_p"].isna().tolist() == [True, False, False, True]
    assert found.loc[NAMES["noise"], "change_auc_p"] <= found.loc[NAMES["mmd"], "change_auc_p"]
    assert found["test_calibration_slope"].between(0, 10).all()
    assert (found["test_auc_low"] < auc).all()


def test_nothing_is_recovered_where_nothing_is_lost():
    scores = {NONE: (scored(1), scored(1)), NAMES["mmd"]: (scored(1), scored(2)), LABELLED: (scored(1), scored(6))}
    found = table.of_scores(scores)
    assert found["recovered"].isna().all()
    assert "of what was lost" not in table.sentence(found, "noisy")


def test_the_sentence_names_the_best_without_labels():
    lines = [(NONE, 0.5, 0.0), ("MMD", 0.8, 0.75), ("noise of the target", 0.88, 0.95), (LABELLED, 0.9, 1.0)]
    found = pd.DataFrame(
        [{"training": n, **Estimate(a, a - 0.1, a + 0.1).flat("test_auc"), "recovered": r} for n, a, r in lines]
    )
    assert table.sentence(found, "noisy") == (
        "AUC on noisy: **0.500 [0.400, 0.600]** as it is, 0.900 [0.800, 1.000] trained on the target. "
        "Best without labels: noise of the target, 0.880 [0.780, 0.980], 95 % of what was lost."
    )


def test_the_sentence_says_where_nothing_is_brought_back():
    lines = [
        (NONE, 0.52, Estimate(0, 0, 0)),
        ("MMD", 0.49, Estimate(-0.1, -0.6, 0.5)),
        (LABELLED, 0.8, Estimate(1, 1, 1)),
    ]
    found = pd.DataFrame(
        [{"training": n, **Estimate(a, a - 0.1, a + 0.1).flat("test_auc"), **r.flat("recovered")} for n, a, r in lines]
    )
    assert table.sentence(found, "sky").endswith(
        "Without labels nothing brings back any of it for certain; highest: MMD, 0.490 [0.390, 0.590]."
    )


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (("simulated", "simulated"), SIMULATED),
        (("simulated", "own"), f"mocks: {SIMULATED}"),
        (("own", "simulated"), f"sky: {SIMULATED}"),
        (("own", "own"), None),
    ],
)
def test_figures_say_which_of_the_samples_is_simulated(sources, said):
    one, other = (SimpleNamespace(name=n, data_source=s) for n, s in zip(("mocks", "sky"), sources, strict=True))
    assert note_of(one, other) == said


def measured(pair, out, **options):
    quick = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3}
    experiment, target = config.load(str(pair[0]), quick), config.load(str(pair[1]))
    settings = config.study_of(str(pair[0]), **{"folds": 2, "seeds": 1, **options})
    return measure_transfer(experiment, target, str(pair[1]), settings, out=out)


def test_images_of_another_shape_are_refused_before_training(pair, write_sample):
    with pytest.raises(InputError, match=r"shape of the source's, \(2, 32, 32\), got \(1, 32, 32\)"):
        measured((pair[0], write_sample("one", filters=1)), None)


@slow
@pytest.mark.parametrize("same", [True, False])
def test_the_study_tabulates_every_training_on_both_samples(pair, tmp_path, client, same):
    if not same:
        of_other_galaxies(pair[1])
    found = measured(pair, tmp_path / "out", methods="stretch,noise,dann", seeds=2)
    lines = pd.read_csv(tmp_path / "out" / "transfer.csv").set_index("training")
    assert list(lines.index) == [NONE, NAMES["stretch"], NAMES["noise"], NAMES["dann"], LABELLED]
    run = client.get_run(found["run_id"])
    assert (run.data.tags["kind"], run.data.tags["target"]) == ("transfer", "noisy")
    assert {"figures/transfer.png", "figures/saliency.png"} <= {
        f"figures/{one.path.split('/')[-1]}" for one in client.list_artifacts(found["run_id"], "figures")
    }
    trials = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{found['run_id']}'")
    assert len(trials) == 5 * 2 * 2
    noised = [trial for trial in trials if trial.data.tags["training"] == NAMES["noise"]]
    for trial in noised:
        path = Path(client.download_artifacts(trial.info.run_id, "experiment.json"))
        record = config.from_record(json.loads(path.read_text()), "record")
        np.testing.assert_allclose(record.training.noise.sigma, 1.5, rtol=0.1)
        assert record.training.noise.like == str(pair[1])
    adapted = [trial for trial in trials if trial.data.tags["training"] == NAMES["dann"]]
    assert len({trial.data.tags["adapted_to_sha256"] for trial in adapted}) == 1
    on_target = [trial for trial in trials if trial.data.tags["training"] == LABELLED]
    assert {trial.data.tags["dataset"] for trial in on_target} == {"noisy"}
    assert found["folds"] == 2
    assert lines.loc[LABELLED, "recovered"] == 1 or np.isnan(lines.loc[LABELLED, "recovered"])
