import threading

import keras
import numpy as np
import pytest

from deepmerge.data.batches import gather
from deepmerge.errors import InputError
from deepmerge.model import prediction


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 2)),
            layers.Conv2D(3, 5, activation="relu"),
            layers.Flatten(),
            layers.Dense(1, "sigmoid"),
        ]
    )


@pytest.fixture
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(prediction, "BATCH_PIXELS", 4 * 32 * 32)


IMAGES = np.random.default_rng(0).normal(0, 3, (23, 2, 32, 32))


def all_at_once(model, rows, transforms):
    return np.asarray(model(gather(IMAGES, rows, transforms), training=False))[:, 0]


def test_batches_change_no_number_and_keep_the_order(model, few_at_a_time):
    rows, transforms = np.array([7, 3, 22, *range(20), 7]), np.arange(24) % 8
    steps = []
    found = prediction.predict(model, IMAGES, rows, transforms, steps.append)
    np.testing.assert_allclose(found, all_at_once(model, rows, transforms), atol=1e-6)
    assert found.dtype == np.float64
    assert (sum(steps), max(steps)) == (24, 4)
    assert prediction.predict(model, IMAGES, rows[:0], transforms[:0]).shape == (0,)


@pytest.mark.parametrize("sizes", [[23], [1] * 23, [0, 5, 17, 1]])
def test_pieces_give_the_numbers_of_the_whole(model, sizes):
    pieces = np.split(IMAGES, np.cumsum(sizes)[:-1])
    found = list(prediction.predict_pieces(model, pieces))
    assert [len(piece) for piece in found] == sizes
    np.testing.assert_allclose(np.concatenate(found), all_at_once(model, np.arange(23), None), atol=1e-6)


def test_no_more_pieces_are_taken_than_are_under_way(model):
    taken, done = 0, 0
    ahead = []

    def pieces():
        nonlocal taken
        for _ in range(20):
            taken += 1
            ahead.append(taken - done)
            yield IMAGES[:1]

    for _ in prediction.predict_pieces(model, pieces()):
        done += 1
    assert done == 20
    assert max(ahead) <= prediction.WORKERS + 2


def test_a_failure_while_reading_ends_the_work_and_its_threads(model):
    def pieces():
        yield IMAGES[:5]
        raise OSError("the disk is gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        list(prediction.predict_pieces(model, pieces()))
    assert threading.active_count() <= before


@pytest.mark.parametrize("shape", [(9, 2, 40, 40), (9, 2, 32, 33), (9, 3, 32, 32), (9, 32, 32, 2), (1, 2, 75, 75)])
def test_images_of_another_shape_than_the_models_are_refused_before_any_is_scored(model, shape):
    rows = np.arange(shape[0])
    steps = []
    said = rf"should have shape \(N, 2, 32, 32\), which the model was trained on, got \({', '.join(map(str, shape))}\)"
    with pytest.raises(InputError, match=said):
        prediction.predict(model, np.zeros(shape, np.float32), rows, rows * 0, steps.append)
    assert steps == []


def test_the_network_is_traced_once_for_batches_of_any_size(model):
    for count in (1, 5, 23):
        prediction.predict(model, IMAGES, np.arange(count), np.zeros(count, int))
    assert prediction.compiled(model).experimental_get_tracing_count() == 1
