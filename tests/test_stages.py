"""Networks that tell past from future mergers, too."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from conftest import blob
from sklearn import metrics as sk

import deepmerge as dm
from deepmerge import config
from deepmerge.analysis import saliency, stages
from deepmerge.data import labels
from deepmerge.data.turns import possible_transforms, transform
from deepmerge.errors import InputError
from deepmerge.model import devices, network, prediction, stretch
from deepmerge.model.learner import cross_entropy

devices.prepare()

SHAPE = (32, 32, 2)


def images(count=6, seed=0):
    return np.random.default_rng(seed).lognormal(size=(count, *SHAPE)).astype(np.float32)


def built(kind="stage", **settings):
    keras.utils.set_random_seed(3)
    pixels = stretch.measure(images(40), "asinh")
    return network.build(SHAPE, config.Network(labels=kind, **settings), pixels)


def drawn(galaxies=60, views=4, seed=1):
    """Stages, probabilities that know something of them, and galaxies."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(galaxies), views)
    words = np.array(stages.STAGES)[rng.choice(3, galaxies, p=[0.3, 0.2, 0.5])][ids]
    logits = rng.normal(size=(len(ids), 3)) + 1.5 * (words[:, None] == np.array(stages.STAGES))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return words, p, ids


@pytest.mark.parametrize("architecture", config.network.OURS)
def test_the_stages_of_a_merger_add_up_to_it_in_every_turn(architecture):
    model = built(architecture=architecture)
    given = images()
    answers = model(given, training=False).numpy()
    assert answers.shape == (6, 3)
    assert ((answers > 0) & (answers < 1)).all()
    np.testing.assert_allclose(answers[:, 1] + answers[:, 2], answers[:, 0], rtol=1e-5)
    for code in possible_transforms(SHAPE[:2]):
        turned = np.moveaxis(transform(np.moveaxis(given, -1, 1), code), 1, -1)
        if architecture != "published":  # whose softmax leaves next to nothing to differ
            np.testing.assert_allclose(model(turned, training=False).numpy(), answers, atol=1e-5)


def test_a_saved_network_tells_the_same_and_a_pixel_that_is_none_has_no_answer(tmp_path):
    model, given = built(), images()
    given[2, 0, 0, 0] = np.nan
    model.save(tmp_path / "m.keras")
    loaded = prediction.load(tmp_path / "m.keras")
    (found,) = prediction.outputs_of_pieces(loaded, [np.moveaxis(given, -1, 1)])
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(found[others], model(given, training=False).numpy()[others], rtol=1e-5)
    rows = np.arange(6)
    stacked = np.moveaxis(given, -1, 1)
    np.testing.assert_array_equal(prediction.predict(loaded, stacked, rows, rows * 0), found[:, 0])
    np.testing.assert_array_equal(prediction.outputs(loaded, stacked, rows, rows * 0), found)


def test_its_loss_is_the_cross_entropy_of_the_stages_that_are_known():
    """−ln P(stage) for each image; −ln P(merger) where the stage of a merger is unknown."""
    model = built(symmetry="none", dropout=0.0, l2=0.0)
    codes = np.array([labels.NON_MERGER, labels.MERGER, labels.PAST, labels.FUTURE, labels.PAST, 0], np.float32)
    answers = model(images(), training=False).numpy().astype(float)
    expected = -np.log(
        [1 - answers[0, 0], answers[1, 0], answers[2, 1], answers[3, 2], answers[4, 1], 1 - answers[5, 0]]
    )
    found = cross_entropy(tf.constant(codes), tf.constant(answers, tf.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_maps_are_of_the_merger_as_without_stages():
    given = images()
    plain, told = built("merger", symmetry="none"), built(symmetry="none")
    told.set_weights([*plain.get_weights(), *told.get_weights()[-2:]])
    for method in saliency.METHODS:
        np.testing.assert_allclose(
            saliency.maps(told, given, method=method), saliency.maps(plain, given, method=method), rtol=1e-4, atol=1e-6
        )


def test_codes_follow_the_stages_and_need_past_and_future_ones_to_learn_from():
    words = pd.Series(["past", "future", "merger", "non-merger", "past"])
    assert labels.codes(words, np.arange(5)).tolist() == [2, 3, 1, 0, 2]
    with pytest.raises(
        InputError, match=r"^network.labels: stage needs past and future mergers .* got no future one; "
    ):
        labels.codes(words, np.array([0, 2, 3]))
    with pytest.raises(InputError, match="got no past and no future one"):
        labels.codes(words, np.array([2, 3]))


def test_metrics_are_those_of_scikit_learn():
    words, p, ids = drawn()
    found = stages.evaluate(words, p, ids)
    called = np.array(stages.STAGES)[p.argmax(axis=1)]
    names = list(stages.STAGES)
    np.testing.assert_array_equal(found.confusion, sk.confusion_matrix(words, called, labels=names))
    shares = sk.confusion_matrix(words, called, labels=names, normalize="true")
    np.testing.assert_allclose(found.confusion_fraction.value, shares)
    slow = {"stage_balanced_accuracy": sk.balanced_accuracy_score(words, called)}
    weights = 1 / pd.Series(words).map(pd.Series(words).value_counts()).to_numpy()
    slow["stage_log_loss_at_balance"] = sk.log_loss(words, p[:, [1, 2, 0]], labels=sorted(names), sample_weight=weights)
    recall = sk.recall_score(words, called, labels=names, average=None)
    precision = sk.precision_score(words, called, labels=names, average=None)
    for k, name in enumerate(("past", "future", "non_merger")):
        slow |= {f"{name}_completeness": recall[k], f"{name}_purity": precision[k]}
        slow[f"{name}_auc"] = sk.roc_auc_score(words == names[k], p[:, k])
    mergers = words != "non-merger"
    slow["past_or_future_auc"] = sk.roc_auc_score(words[mergers] == "past", (p[:, 0] / p[:, :2].sum(1))[mergers])
    assert set(found.metrics) == set(slow) == set(stages.METRICS)
    for name, estimate in found.metrics.items():
        assert estimate.value == pytest.approx(slow[name]), name
        assert estimate.low < estimate.value < estimate.high, name


def test_intervals_are_over_galaxies_not_over_images():
    words, p, ids = drawn()
    once = stages.evaluate(words, p, ids).metrics
    again = stages.evaluate(np.tile(words, 3), np.tile(p, (3, 1)), np.tile(ids, 3)).metrics
    for name in once:
        assert again[name] == pytest.approx(once[name]), name


def test_a_stage_that_is_absent_leaves_undefined_what_needs_it_and_nothing_else():
    words, p, ids = drawn()
    there = words != "future"
    found = stages.evaluate(words[there], p[there], ids[there]).metrics
    lost = {"future_auc", "future_completeness", "stage_balanced_accuracy", "stage_log_loss_at_balance"}
    assert {name for name, each in found.items() if np.isnan(each.value)} == lost | {"past_or_future_auc"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda words, p, ids: (words, p[:, :2], ids),
            r"^probabilities should have shape \(240, 3\), one column a stage",
        ),
        (
            lambda words, p, ids: (np.where(words == "past", "merger", words), p, ids),
            "^stages should be among past, fut",
        ),
        (lambda words, p, ids: (words, 2 * p, ids), r"^probabilities should lie in \[0, 1\], got"),
    ],
)
def test_what_is_no_stage_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        stages.evaluate(*change(*drawn()))


def sample(galaxies=120):
    """Galaxies whose stage shows: past mergers have a wide envelope, future ones a neighbour."""
    rng = np.random.default_rng(5)
    words = np.array(["past", "future", "non-merger"])[np.arange(galaxies) % 3]
    pictures = np.empty((galaxies * 2, 2, 32, 32), np.float32)
    for place, word in enumerate(np.repeat(words, 2)):
        scene = 20 * blob(32, 0, 0, 2.0)
        if word == "past":
            scene += 6 * blob(32, 0, 0, 6.0)
        if word == "future":
            angle = rng.uniform(0, 2 * np.pi)
            scene += 15 * blob(32, 8 * np.cos(angle), 8 * np.sin(angle), 1.6)
        pictures[place] = scene + rng.normal(0, 0.3, (2, 32, 32))
    table = pd.DataFrame({"galaxy_id": np.repeat(np.arange(galaxies), 2), "stage": np.repeat(words, 2)})
    return pictures, (table["stage"] != "non-merger").to_numpy(np.uint8), table


@pytest.mark.slow
def test_a_notebook_trains_judges_and_shows_it(tmp_path):
    pictures, truth, table = sample()
    data = dm.Dataset.from_arrays(pictures, truth, catalogue=table)
    split = dm.split(data, seed=1)
    model = dm.train(data, split, labels="stage", epochs=12, batch_size=16, learning_rate=3e-3)
    result = dm.evaluate(model, data, split.test)
    assert result["stage_balanced_accuracy"].value > 0.8
    assert result["past_or_future_auc"].value > 0.9
    assert result["auc"].value > 0.9
    assert "AUC, past against future mergers" in repr(result)
    told = model.stages(pictures[:4])
    np.testing.assert_allclose(told.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(1 - told[:, 2], model.predict(pictures[:4]))
    dm.plot.save(dm.plot.stages(result), tmp_path / "stages.png")
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(dm.load_model(tmp_path / "m.keras").stages(pictures[:4]), told, rtol=1e-5)
    with pytest.raises(InputError, match="should tell stages"):
        dm.train(data, split, epochs=1).stages(pictures[:4])


@pytest.mark.slow
def test_without_stages_in_the_catalogue_it_is_refused_before_training():
    pictures, truth, table = sample(30)
    data = dm.Dataset.from_arrays(pictures, truth, galaxy_id=table["galaxy_id"])
    with pytest.raises(InputError, match="needs past and future mergers to learn from"):
        dm.train(data, dm.split(data, seed=1), labels="stage", epochs=1)
