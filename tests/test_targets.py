"""Targets: images that are read without labels, and the part of them that a training may see."""

import numpy as np
import pandas as pd
import pytest
import yaml

from deepmerge import config
from deepmerge.data import dataset, splits, targets
from deepmerge.errors import InputError


@pytest.fixture
def source(write_sample):
    experiment = config.load(str(write_sample("source")))
    data = dataset.read(experiment.data, experiment.name)
    return data, splits.make(data, experiment.split)


@pytest.fixture
def noisy(write_sample):
    """The same galaxies with more noise; its experiment file."""
    path = write_sample("noisy")
    images = np.load(path.with_name("noisy_X.npy"))
    rng = np.random.default_rng(3)
    images += rng.normal(size=images.shape) * np.array([2.0, 1.0])[:, np.newaxis, np.newaxis]
    np.save(path.with_name("noisy_X.npy"), images)
    return path


def others(path, count=50):
    """Other galaxies, of which there are no labels, behind the same experiment file."""
    rng = np.random.default_rng(4)
    np.save(path.with_name("noisy_X.npy"), rng.normal(0, 2, (2 * count, 2, 32, 32)).astype(np.float32))
    pd.DataFrame({"galaxy_id": [f"s{number // 2}" for number in range(2 * count)]}).to_csv(
        path.with_name("noisy.csv"), index=False
    )


def test_labels_are_never_opened(noisy):
    with_labels = targets.read(str(noisy))
    noisy.with_name("noisy_y.npy").write_text("no labels here")
    table = pd.read_csv(noisy.with_name("noisy.csv"))
    table.drop(columns="stage").to_csv(noisy.with_name("noisy.csv"), index=False)
    found = targets.read(str(noisy))
    np.testing.assert_array_equal(found.images, with_labels.images)
    assert found.galaxies.tolist() == with_labels.galaxies.tolist() == table["galaxy_id"].astype(str).tolist()
    noisy.with_name("noisy_y.npy").unlink()
    assert len(targets.read(str(noisy)).rows) == len(table)


def test_a_file_of_images_will_do(noisy):
    found = targets.read(str(noisy.with_name("noisy_X.npy")))
    assert (found.name, found.images.shape) == ("noisy_X", (120, 2, 32, 32))
    assert len(set(found.galaxies)) == 120


def test_of_the_same_galaxies_those_are_seen_that_train(source, noisy):
    data, split = source
    found = targets.beside(targets.read(str(noisy)), data, split)
    assert targets.are_same(found, data)
    np.testing.assert_array_equal(found.rows, np.sort(split.train.rows))


def test_of_other_galaxies_those_are_seen_that_no_fold_holds_out(source, noisy):
    others(noisy)
    data, split = source
    target = targets.read(str(noisy))
    assert not targets.are_same(target, data)
    found = targets.beside(target, data, split)
    seen, all_of_them = set(found.galaxies[found.rows]), set(target.galaxies)
    assert len(seen) == 40  # one fifth tests, as in the split
    unseen = target.galaxies[targets.held_out(target, 0, 5, split.seed)]
    assert set(unseen) == all_of_them - seen
    folds = [set(target.galaxies[targets.held_out(target, number, 5, 1)]) for number in range(5)]
    assert sorted(galaxy for fold in folds for galaxy in fold) == sorted(all_of_them)
    with pytest.raises(InputError, match="folds should be 2 to 50, the galaxies of noisy, got 51"):
        targets.held_out(target, 0, 51, 1)


def test_noise_like_that_of_a_target_is_measured_on_what_trains(source, noisy):
    data, split = source
    settings = config.Training(noise=config.Noise(like=str(noisy)))
    found = targets.resolved(settings, data, split)
    np.testing.assert_allclose(found.noise.sigma, [2.0, 1.0], rtol=0.05)
    assert found.noise.like == str(noisy)
    assert targets.resolved(found, data, split) == found
    images = np.load(noisy.with_name("noisy_X.npy"))
    images[np.concatenate([split.test.rows, split.validation.rows])] = np.nan
    np.save(noisy.with_name("noisy_X.npy"), images)
    assert targets.resolved(settings, data, split) == found
    noisy.unlink()
    assert targets.resolved(found, data, split) == found  # the numbers stand beside the name


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"noise": {"like": "gone"}}, "dataset should be one of: "),
        ({"noise": {"like": "gone.yaml"}}, "got 'gone.yaml'"),
        ({"noise": {"like": "ONE"}}, "noise.like should name images of 2 filters, as those to train on, got 1 of one"),
        ({"noise": {"like": "SOURCE"}}, "target images should be noisier than those to train on"),
        ({"noise": {"sigma": [1, 2, 3]}}, "training.noise.sigma should be a number, or 2 of them, .* got 3"),
        ({"noise": {"sigma": 1, "gain": [1, 2, 3]}}, "training.noise.gain should be a number, or 2 of them"),
        ({"psf": [1, 2, 3]}, "training.psf should be a number, or 2 of them"),
        ({"adapt": {"to": "ONE"}}, r"adapt.to should name images of shape \(N, 2, 32, 32\), .* got \(120, 1, 32, 32\)"),
        ({"adapt": {"to": "gone"}}, "dataset should be one of: "),
    ],
)
def test_what_does_not_fit_is_refused_before_training(source, write_sample, training, said):
    data, split = source
    one = write_sample("one", filters=1)
    text = yaml.safe_dump(training).replace("ONE", str(one)).replace("SOURCE", str(one.with_name("source.yaml")))
    with pytest.raises(InputError, match=said):
        targets.resolved(config.Training.model_validate(yaml.safe_load(text)), data, split)


def test_missing_pixels_of_a_target_are_filled_as_it_says():
    images = np.array([1, 2, 6, -99], np.float32).reshape(1, 2, 2, 1)
    for fill, expected in ((0.0, 0), ("median", 2)):
        missing = config.Missing.model_validate({"value": -99, "fill": fill})
        target = targets.Unlabelled("sky", images, np.array(["a"]), np.array([0]), missing)
        assert target.filled(images).ravel().tolist() == [1, 2, 6, expected]
    plain = targets.Unlabelled("sky", images, np.array(["a"]), np.array([0]))
    assert plain.filled(images) is images
