"""Which model is meant by a name, a file and a run, and how its images are scored and looks at them counted."""

import ast
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import splits
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.jobs import evaluate, judged
from deepmerge.jobs.judged import PREDICTIONS, Judged
from deepmerge.jobs.run import RECORD
from deepmerge.model import devices, prediction
from deepmerge.tracking import looks, runs

# TensorFlow takes its threads before its first operation, which in this process may be another test's.
devices.prepare()


@pytest.fixture
def folders(write_sample, tmp_path, monkeypatch):
    """Two folders, each with its own mine.yaml; the second has twelve galaxies less."""
    written = write_sample("mine", catalogue=False)
    for name, count in (("A", 120), ("B", 96)):
        shutil.copytree(written.parent, tmp_path / name)
        for path in (tmp_path / name).glob("*.npy"):
            np.save(path, np.load(path)[-count:])
    shutil.rmtree(written.parent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(file):
    """A run as training on an experiment file leaves it, without its model; its id."""
    experiment = config.load(file)
    data = datasets.read(experiment.data, experiment.name)
    tags = {"dataset": experiment.name, runs.TRAINED: "yes", runs.FINGERPRINT: data.fingerprint}
    with runs.new_run("mine-default", tags) as run_id:
        runs.log_json(experiment.model_dump(mode="json"), RECORD)
    return run_id


@pytest.fixture
def ids(client, folders):
    """A model of each folder, the second the newer one."""
    return {name: trained(f"{name}/mine.yaml") for name in ("A", "B")}


def test_a_file_means_its_own_data_whatever_else_is_called_the_same(ids, folders):
    for name, count in (("A", 120), ("B", 96)):
        for model in ("last", ids[name]):
            found = judged.find(f"{name}/mine.yaml", model)
            assert found.run.info.run_id == ids[name]
            assert len(found.data.images) == count
            assert found.experiment.data.images.resolve() == folders / name / "mine_X.npy"


@pytest.mark.parametrize(("file", "other"), [("A/mine.yaml", "B"), ("B/mine.yaml", "A")])
def test_a_model_of_other_data_is_refused_though_it_is_named(ids, file, other):
    with pytest.raises(InputError, match=f"trained on the data of mine .*got run {ids[other]} of 'mine'"):
        judged.find(file, ids[other])


def test_a_file_whose_data_nobody_trained_on_has_no_model(client, folders):
    np.save("A/mine_X.npy", np.load("A/mine_X.npy") + 3)
    theirs = trained("B/mine.yaml")
    with pytest.raises(InputError, match=f"found only run .* of 'mine', started in {folders}, with other data"):
        judged.find("A/mine.yaml", "last")
    assert judged.find("B/mine.yaml", "last").run.info.run_id == theirs


def test_a_file_with_other_data_than_before_has_no_model_any_more(client, folders):
    before = trained("A/mine.yaml")
    np.save("A/mine_X.npy", np.load("A/mine_X.npy") + 1)
    for model in ("last", before):
        with pytest.raises(InputError, match="with other data"):
            judged.find("A/mine.yaml", model)


def test_data_are_read_and_hashed_once(ids, monkeypatch):
    hashed = []
    whole = datasets.chunks
    monkeypatch.setattr(datasets, "chunks", lambda images: hashed.append(len(images)) or whole(images))
    found = judged.find("A/mine.yaml", "last")
    assert found.data.fingerprint == found.run.data.tags[runs.FINGERPRINT]
    assert hashed == [120]


def test_a_name_whose_file_is_gone_means_the_newest_model_of_that_name(ids, folders):
    assert judged.find("mine", "last").run.info.run_id == ids["B"]
    assert len(judged.find("mine", ids["A"]).data.images) == 120
    np_file = folders / "A" / "mine_y.npy"
    np_file.unlink()
    with pytest.raises(InputError, match="labels expected at"):
        judged.find("mine", ids["A"])


def test_a_name_with_a_file_means_the_data_of_that_file(ids, folders, monkeypatch):
    shutil.copytree(folders / "A", folders / "experiments")
    assert judged.find("mine", "last").run.info.run_id == ids["A"]


@pytest.mark.parametrize("file", ["C/mine.yaml", "mine.yml"])
def test_a_file_that_is_not_there_means_no_model(ids, file):
    with pytest.raises(InputError, match=f"or the path of an experiment file., got '{file}'"):
        judged.find(file, "last")


def test_a_file_that_cannot_be_read_means_no_model(ids, folders):
    (folders / "A" / "mine.yaml").write_text("data: 7")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        judged.find("A/mine.yaml", ids["A"])


def test_studies_are_those_of_the_data_too(client, folders):
    made = {}
    for name in ("A", "B"):
        experiment = config.load(f"{name}/mine.yaml")
        data = datasets.read(experiment.data, experiment.name)
        tags = {"dataset": "mine", "kind": "folds", runs.FINGERPRINT: data.fingerprint}
        with runs.new_run("mine-folds", tags) as made[name]:
            runs.log_json(experiment.model_dump(mode="json"), RECORD)
    for name in ("A", "B"):
        assert judged.newest_study(f"{name}/mine.yaml", "folds", "x").run.info.run_id == made[name]


# --- scores ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    """A network that was not trained, with dropout."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dropout(0.2), keras.layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input((32, 32, 2)), *layers])


@pytest.fixture
def subject(client, write_sample, network):
    """A model with its data and split, in a run that holds neither model nor predictions."""
    experiment = config.load(str(write_sample()))
    data = datasets.read(experiment.data, experiment.name)
    with runs.new_run("tiny", {runs.FINGERPRINT: data.fingerprint}) as run_id:
        pass
    return Judged(mlflow.get_run(run_id), experiment, data, splits.make(data, experiment.split), network)


def count(subject, part=None, data=None):
    """How many models have been scored on these images, by default those of the test."""
    return looks.so_far((part or subject.split.test).fingerprint(data or subject.data))


def evaluated(subject):
    """The same model after its predictions were stored."""
    with runs.reopened(subject.run):
        runs.log_table(evaluate.predictions(subject), PREDICTIONS)
    return replace(subject)


@pytest.fixture
def forbid(monkeypatch):
    """Forbid that networks are asked from here on."""

    def outputs(*arguments):
        raise AssertionError("images were scored")

    return lambda: monkeypatch.setattr(prediction, "outputs", outputs)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_stored_and_fresh_scores_are_the_same_to_the_last_bit(subject, forbid, part):
    chosen = getattr(subject.split, part)
    fresh = subject.scores(part)
    expected = prediction.predict(subject.model, subject.data.images, chosen.rows, chosen.transforms)
    np.testing.assert_array_equal(fresh, expected, strict=True)
    stored = evaluated(subject)
    forbid()
    np.testing.assert_array_equal(stored.scores(part), fresh, strict=True)


def test_any_images_among_those_stored_are_read_in_the_order_they_are_asked_for(subject, forbid):
    stored = evaluated(subject)
    test = subject.split.test
    some = Part(test.rows[[5, 0, 3]], test.transforms[[5, 0, 3]])
    expected = subject.scores("test")[[5, 0, 3]]
    forbid()
    np.testing.assert_array_equal(stored.scores(some), expected)


def test_images_that_no_evaluation_scored_and_other_data_are_predicted(subject):
    stored = evaluated(subject)
    test = subject.split.test
    turned = Part(test.rows, test.transforms + 1)
    assert (stored.scores(turned) != stored.scores("test")).any()
    data = subject.data
    brighter = replace(data, images=data.images * 2)
    found = stored.on(replace(subject, data=brighter)).scores("test")
    expected = prediction.predict(
        subject.model, brighter.images, subject.split.test.rows, subject.split.test.transforms
    )
    np.testing.assert_array_equal(found, expected)
    assert (found != stored.scores("test")).any()
    assert count(subject, data=brighter) == 1


def test_an_evaluation_scores_afresh_although_older_predictions_are_stored(subject, forbid):
    stored = evaluated(subject)
    forbid()
    with pytest.raises(AssertionError, match="images were scored"):
        evaluate.predictions(stored)


def test_positions_of_the_catalogue_stand_with_the_predictions(subject):
    catalogue = subject.data.catalogue
    placed = catalogue.assign(dec=np.linspace(-1, 1, len(catalogue)), ra=np.arange(len(catalogue)))
    table = evaluate.predictions(replace(subject, data=replace(subject.data, catalogue=placed)))
    assert list(table)[-5:] == ["label", "ra", "dec", "probability", "galaxy_probability"]
    np.testing.assert_array_equal(table["ra"], table["row"])
    assert not {"ra", "dec"} & set(evaluate.predictions(subject))


# --- looks -------------------------------------------------------------------------------------------------


SCORINGS = {
    "the test": lambda subject: subject.scores("test"),
    "all images": lambda subject: subject.scores(
        Part(*(subject.split.table()[n].to_numpy() for n in ("row", "transform")))
    ),
    "with dropout": lambda subject: subject.dropout_scores("test", 2, 0, lambda steps: None),
    "an evaluation": evaluated,
}


@pytest.mark.parametrize("how", SCORINGS)
def test_scoring_test_images_is_a_look_once_for_a_model(subject, how):
    before = count(subject)
    SCORINGS[how](subject)
    assert count(subject) == before + 1
    SCORINGS[how](subject)
    assert count(subject) == before + 1


def test_training_and_validation_images_may_be_scored_at_will(subject):
    before = count(subject)
    subject.scores("train")
    subject.scores("validation")
    assert count(subject) == before


def test_images_outside_the_split_are_counted_as_test_images_of_their_own(subject):
    parts = subject.split
    unseen = Part(parts.test.rows[:6], parts.test.transforms[:6])
    inside = replace(subject, split=replace(parts, test=Part(parts.test.rows[6:], parts.test.transforms[6:])))
    before = count(subject, unseen), count(inside)
    inside.scores(unseen)
    assert (count(subject, unseen), count(inside)) == (before[0] + 1, before[1])


def calls(source):
    """Dotted names of all functions that Python source calls."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


def scores_by_itself(source):
    """Whether source asks a network about images of a data set without `Judged`."""
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return bool(
        calls(source) & {"prediction.predict", "prediction.outputs", "dropout.monte_carlo"}
        or imported & {"deepmerge.model.prediction.predict", "deepmerge.model.dropout.monte_carlo"}
    )


def test_a_module_that_scores_by_itself_is_noticed():
    assert scores_by_itself("def f():\n    return prediction.predict(model, images)")
    assert scores_by_itself("dropout.monte_carlo(model)")
    assert scores_by_itself("from deepmerge.model.prediction import load, predict")
    assert not scores_by_itself("prediction.predict_pieces(model, pieces)\njudged.scores('test')")


PACKAGE = Path(judged.__file__).parents[1]
UPPER = [path for room in ("jobs", "studies", "report", "cli") for path in sorted((PACKAGE / room).rglob("*.py"))]


@pytest.mark.parametrize("path", UPPER, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_judged_alone_scores_images_of_a_data_set(path):
    assert scores_by_itself(path.read_text()) == (path == Path(judged.__file__))
