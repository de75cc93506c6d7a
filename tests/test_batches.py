import numpy as np
import pytest

from deepmerge.data.batches import TrainingBatches, class_weights, gather
from deepmerge.data.noise import Degradation, Noise
from deepmerge.data.splits import Part
from deepmerge.data.targets import Unlabelled
from deepmerge.data.turns import TRANSFORMS
from deepmerge.errors import InputError


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(40, 2, 6, 6)).astype(">f4")


def batches(images, labels=None, transforms=None, **settings):
    labels = np.repeat([1, 0], [10, 30]).astype(np.uint8) if labels is None else labels
    rows = np.arange(len(labels))
    part = Part(rows, np.zeros(len(rows), np.uint8) if transforms is None else transforms)
    chosen = {"batch_size": 8, "balance": "none", "augment": False, "seed": 0, **settings}
    return TrainingBatches(images, labels, part, **chosen)


def contents(epoch):
    return [np.concatenate(arrays) for arrays in zip(*(epoch.batch(i) for i in range(len(epoch))), strict=True)]


def test_gather_agrees_with_plain_indexing_in_any_order(images):
    rows = np.array([7, 3, 3, 39, 0])
    found = gather(images, rows)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    assert (found == np.moveaxis(images[rows], 1, -1)).all()


@pytest.mark.parametrize("dtype", [">f4", "f8", "f2", "i2", "u1"])
def test_gather_turns_by_quarters_and_then_upside_down(images, dtype):
    """Against one image at a time with its filters behind, as a network sees it."""
    images = (100 * images).astype(dtype)
    rows, codes = np.array([9, 2, 2, 30, 0, 1, 8, 5]), np.arange(TRANSFORMS)
    for row, code, got in zip(rows, codes, gather(images, rows, codes), strict=True):
        expected = np.rot90(np.moveaxis(images[row], 0, -1), code % 4)
        np.testing.assert_array_equal(got, (np.flipud(expected) if code >= 4 else expected).astype(np.float32))


def test_an_epoch_shows_every_image_once(images):
    shown, labels, weights = contents(batches(images).epoch(0))
    expected = gather(images, np.arange(40))
    assert sorted(map(bytes, shown)) == sorted(map(bytes, expected))
    assert labels.sum() == 10
    assert (weights == 1).all()


def test_epochs_differ_repeat_and_follow_the_seed(images):
    def pixels(epoch, **settings):
        return contents(batches(images, augment=True, **settings).epoch(epoch))[0].tobytes()

    assert pixels(3) == pixels(3)
    assert len({pixels(0), pixels(1), pixels(0, seed=1)}) == 3


def test_augmentation_only_turns_and_flips(images):
    shown, _, _ = contents(batches(images, augment=True).epoch(0))
    allowed = {bytes(gather(images, [row], [code])[0]) for row in range(40) for code in range(TRANSFORMS)}
    assert set(map(bytes, shown)) <= allowed
    assert len(set(map(bytes, shown)) & set(map(bytes, gather(images, np.arange(40))))) < 20


def test_oblong_images_are_not_turned_on_their_side():
    oblong = np.random.default_rng(0).normal(size=(40, 2, 6, 8))
    shown, _, _ = contents(batches(oblong, augment=True).epoch(0))
    assert shown.shape == (40, 6, 8, 2)


def test_without_augmentation_the_copies_of_the_split_are_shown(images):
    transforms = np.arange(40, dtype=np.uint8) % 8
    shown, _, _ = contents(batches(images, transforms=transforms).epoch(0))
    assert sorted(map(bytes, shown)) == sorted(map(bytes, gather(images, np.arange(40), transforms)))


def test_sampling_shows_both_classes_equally_often_and_every_image(images):
    epoch = batches(images, balance="sampling").epoch(0)
    assert np.bincount(epoch.labels).tolist() == [30, 30]
    assert set(epoch.rows) == set(range(40))


def test_weights_make_both_classes_weigh_the_same(images):
    epoch = batches(images, balance="weights").epoch(0)
    assert epoch.weights[epoch.labels == 1].sum() == pytest.approx(epoch.weights[epoch.labels == 0].sum())
    assert epoch.weights.mean() == pytest.approx(1)
    assert class_weights(np.array([0, 1, 1, 1], np.uint8)).tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])


def test_a_single_class_cannot_be_trained_on(images):
    with pytest.raises(InputError, match="both classes"):
        batches(images, labels=np.ones(40, np.uint8))


@pytest.mark.parametrize(("balance", "fraction"), [("sampling", 0.5), ("weights", 0.5), ("none", 0.25)])
def test_the_merger_fraction_is_the_prior_of_what_a_network_sees(images, balance, fraction):
    """As weighed in the loss: what its log loss is least at where the images say nothing."""
    made = batches(images, balance=balance)
    labels, weights = (
        np.concatenate(found)
        for found in list(zip(*(made.epoch(0).batch(i) for i in range(len(made))), strict=True))[1:]
    )
    assert made.merger_fraction == fraction == pytest.approx(np.average(labels, weights=weights))


# What is done to images, and target images beside them


@pytest.fixture
def degradation():
    return Degradation(None, Noise(np.full(2, 0.5), np.full(2, np.inf)))


def test_noise_is_drawn_anew_for_each_image_of_each_epoch_and_repeats(images, degradation):
    def added(number, **settings):
        epochs = [batches(images, degradation=d, **settings).epoch(number) for d in (degradation, None)]
        return contents(epochs[0])[0] - contents(epochs[1])[0]

    first = added(0)
    assert first.std() == pytest.approx(0.5, rel=0.1)
    assert len({one.tobytes() for one in first}) == 40
    np.testing.assert_array_equal(first, added(0))
    for other in (added(1), added(0, seed=1)):
        assert np.abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_noise_and_targets_are_the_same_on_any_number_of_devices(images, degradation, parts):
    target = Unlabelled("sky", images, np.arange(40).astype(str), np.arange(30))
    epoch = batches(images, degradation=degradation, target=target, augment=True).epoch(2)
    for index in range(len(epoch)):
        for read in (lambda *of: epoch.batch(*of)[0], epoch.target):
            cut = np.concatenate([read(index, part, parts) for part in range(parts)])
            np.testing.assert_array_equal(cut, read(index))


def test_targets_are_shown_as_often_as_each_other_and_change_nothing_of_the_others(images):
    sky = np.arange(12 * 2 * 6 * 6, dtype=np.float32).reshape(12, 2, 6, 6)
    target = Unlabelled("sky", sky, np.arange(12).astype(str), np.array([1, 3, 5, 7, 9, 11]))
    epoch, alone = (batches(images, target=t, augment=True, balance="sampling").epoch(1) for t in (target, None))
    for with_target, without in zip(contents(epoch), contents(alone), strict=True):
        np.testing.assert_array_equal(with_target, without)
    shown = np.concatenate([epoch.target(index) for index in range(len(epoch))])
    assert shown.shape == contents(epoch)[0].shape
    rows, counts = np.unique(shown.min(axis=(1, 2, 3)) // 72, return_counts=True)
    assert set(rows) == {1, 3, 5, 7, 9, 11}
    assert counts.max() - counts.min() <= 1
    orders = [
        np.concatenate([each.target(index) for index in range(len(each))]).tobytes()
        for each in (epoch, batches(images, target=target, augment=True, balance="sampling").epoch(2))
    ]
    assert orders[0] != orders[1]
