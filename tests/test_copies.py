from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deepmerge import config
from deepmerge.data import check, copies, dataset, splits
from deepmerge.data.turns import transform
from deepmerge.errors import InputError

GALAXIES = 60
SUBSETS = {  # codes of the transforms that were saved beside each other
    "flips and turns of the release": [0, 4, 6, 1, 2],
    "all eight": list(range(8)),
    "quarter turns": [0, 1],
    "three quarter turns": [0, 3],
    "half turns": [0, 2],
    "mirrored along a diagonal": [0, 5, 7],
    "duplicates": [0, 0],
    "none of them as it was": [3, 6],
}
OBLONG = [0, 2, 4, 6]


def pixels(count=GALAXIES, filters=1, height=32, width=32, dtype="f4", seed=0):
    found = np.random.default_rng(seed).normal(0, 50, (count, filters, height, width))
    return (found > 0 if dtype == "?" else np.abs(found) if "u" in dtype else found).astype(dtype)


def copied(images, codes):
    return np.concatenate([transform(images, code) for code in codes])


def data(images, times=1, ids=None):
    """The images as a data set: a merger in five, each image a galaxy of its own where no ids (N,) are given."""
    labels = np.tile(np.arange(len(images) // times) % 5 == 0, times).astype(np.uint8)
    catalogue = pd.DataFrame(
        {
            "galaxy_id": np.arange(len(images)) if ids is None else ids,
            "view": 0,
            "copy": 0,
            "stage": np.where(labels == 1, "merger", "non-merger"),
        }
    )
    return dataset.Dataset("mine", images, labels, catalogue, None, "own", tuple("abc"[: images.shape[1]]))


def split_of(found):
    return splits.split_galaxies(found, config.Split())


def part_of(split):
    return {row: name for name in splits.PARTS for row in getattr(split, name).rows}


# In training


@pytest.mark.parametrize("codes", SUBSETS.values(), ids=SUBSETS)
@pytest.mark.parametrize("filters", [1, 2])
def test_copies_in_other_parts_of_the_split_are_refused_with_two_rows_their_parts_and_the_mend(codes, filters):
    found = data(copied(pixels(filters=filters), codes), len(codes))
    split = split_of(found)
    with pytest.raises(InputError, match="give a catalogue in which copies share their galaxy_id") as refusal:
        copies.require_apart(found, [split])
    said = str(refusal.value)
    assert "\n" not in said
    words = said.replace("(", "").replace(")", "").split()
    (other, its_part), (one, part) = ((int(words[i + 1]), words[i + 2]) for i, w in enumerate(words) if w == "row")
    assert one % GALAXIES == other % GALAXIES
    assert (part, its_part) == (part_of(split)[one], part_of(split)[other])
    assert part != its_part
    parts = pd.Series(part_of(split)).groupby(lambda row: row % GALAXIES).nunique()
    assert f"{(parts > 1).sum()} such images" in said


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f8", ">f8", "f2", "i2", ">i2", "u1", "u2", "i4", ">i8", "u8", "g", "?"]
)
@pytest.mark.parametrize("codes", [SUBSETS["flips and turns of the release"], [0, 0]])
def test_copies_are_found_in_pixels_of_any_type(dtype, codes):
    images = pixels(dtype=dtype)
    found = data(copied(images, codes), len(codes))
    with pytest.raises(InputError, match="in several parts"):
        copies.require_apart(found, [split_of(found)])
    found = data(images)
    copies.require_apart(found, [split_of(found)])


@pytest.mark.parametrize("shape", [(32, 40), (41, 33)])
def test_copies_of_oblong_images_are_found(shape):
    found = data(copied(pixels(height=shape[0], width=shape[1]), OBLONG), 4)
    with pytest.raises(InputError, match="in several parts"):
        copies.require_apart(found, [split_of(found)])


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1, 1e30])
def test_copies_are_found_in_any_unit(scale):
    found = data(copied((pixels(dtype="f8") * scale).astype("f4"), [0, 1]), 2)
    with pytest.raises(InputError, match="in several parts"):
        copies.require_apart(found, [split_of(found)])


def test_copies_in_any_order_and_of_some_images_only_are_found():
    images = pixels()
    mixed = np.concatenate([images, np.rot90(images[7:8], 1, (2, 3))])
    mixed = mixed[np.random.default_rng(5).permutation(len(mixed))]
    found = data(mixed)
    [rows] = copies.across(found.images, copies.keys(found.images), np.arange(len(mixed)))
    one, other = mixed[rows[0]], mixed[rows[1]]
    assert (np.rot90(one, 1, (1, 2)) == other).all() or (np.rot90(other, 1, (1, 2)) == one).all()


def test_a_memory_mapped_file_in_fortran_order_is_read(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(copied(pixels(), [0, 6])))
    found = data(np.load(tmp_path / "x.npy", mmap_mode="r"), 2)
    with pytest.raises(InputError, match="flipped left to right"):
        copies.require_apart(found, [split_of(found)])


def test_a_catalogue_that_gives_copies_one_id_is_accepted():
    codes = SUBSETS["all eight"]
    found = data(copied(pixels(), codes), len(codes), np.tile(np.arange(GALAXIES), len(codes)))
    copies.require_apart(found, [split_of(found)])
    assert check.check(found).problems == []


def test_rows_that_the_catalogue_calls_copies_are_in_no_part_and_do_not_count():
    found = data(copied(pixels(), [0, 4]), 2)
    found.catalogue["copy"] = np.repeat([0, 1], GALAXIES)
    copies.require_apart(found, [split_of(found)])


def test_a_split_by_rows_leaks_on_purpose_and_is_not_even_read():
    found = data(copied(pixels(), [0, 4]), 2)
    leaking = splits.split_rows(found, config.Split(split="rows"))
    unread = dataset.Dataset("mine", None, found.labels, found.catalogue, None, "own", ("a",))
    copies.require_apart(unread, [leaking])


def test_copies_within_one_part_are_fine():
    found = data(copied(pixels(), [0, 4]), 2)
    rows = np.arange(2 * GALAXIES)
    parts = [rows[rows % GALAXIES % 3 == number] for number in range(3)]
    apart = splits.Split("galaxy", *(splits.Part(part, np.zeros(len(part), np.uint8)) for part in parts))
    copies.require_apart(found, [apart])
    with pytest.raises(InputError, match="in several parts"):
        copies.require_apart(found, [apart, split_of(found)])


def test_different_images_pass_even_where_they_hold_the_same_values():
    rng = np.random.default_rng(2)
    one = pixels(1).ravel()
    shuffled = np.stack([rng.permutation(one) for _ in range(GALAXIES)]).reshape(GALAXIES, 1, 32, 32)
    sparse = np.zeros_like(shuffled, dtype="u1")
    sparse[np.arange(GALAXIES), 0, np.arange(GALAXIES) % 16, 3 + np.arange(GALAXIES) // 16] = 1
    distinct = sparse[[0, 17, 34, 51]]  # one bright pixel each, at distances that no turn makes equal
    for images in (shuffled, distinct):
        assert copies.across(images, copies.keys(images), np.arange(len(images))) == []


def test_filters_turn_together():
    images = pixels(filters=2)
    images[1] = [images[0, 0], images[0, 1, ::-1]]
    images[2] = images[0, ::-1]
    assert copies.across(images, copies.keys(images), np.arange(GALAXIES)) == []


def test_pixels_that_changed_places_without_a_turn_make_another_image():
    images = pixels()
    images[1] = images[0]
    images[1, 0, 0, 0], images[1, 0, -1, -1] = images[0, 0, -1, -1], images[0, 0, 0, 0]
    assert copies.keys(images)[0] == copies.keys(images)[1]  # so that it is the second look that tells
    assert copies.across(images, copies.keys(images), np.arange(GALAXIES)) == []


@pytest.mark.parametrize("dtype", ["f4", ">f8"])
def test_zeros_of_either_sign_and_any_nan_are_alike(dtype):
    images = pixels(dtype=dtype)
    images[0, 0, :4], images[0, 0, 4:6] = 0, np.nan
    images[1] = np.rot90(images[0], 1, (1, 2))
    images[1][images[1] == 0] = -0.0
    images[1][np.isnan(images[1])] = -np.float64("nan")
    [rows] = copies.across(images, copies.keys(images), np.arange(GALAXIES))
    assert rows.tolist() == [0, 1]
    assert copies.how(images, 0, 1) == "turned by 90°"


@pytest.mark.parametrize("value", [0, -0.0, 3.5, np.nan])
def test_constant_images_repeat_nothing(value):
    images = pixels(filters=2)
    images[::2] = value
    images[::4, 1] = 7
    found = data(images)
    copies.require_apart(found, [split_of(found)])


def test_how_a_row_repeats_another_is_said_for_all_turns():
    image = pixels(1)
    images = copied(image, range(8))
    words = [copies.how(images, 0, row) for row in range(8)]
    assert words == list(copies.HOW)
    assert copies.how(np.stack([image[0], image[0, :, ::-1]]), 0, 1) == "flipped upside down"
    assert copies.how(np.stack([image[0], image[0, :, :, ::-1]]), 0, 1) == "flipped left to right"
    assert copies.how(np.stack([image[0], image[0].swapaxes(1, 2)]), 0, 1) == "flipped along the diagonal"


def test_keys_do_not_depend_on_how_the_images_are_cut(monkeypatch):
    images = pixels(filters=2)
    whole = copies.keys(images)
    assert len(set(whole)) == GALAXIES
    assert copies.keys(images[:0]).shape == (0,)
    monkeypatch.setattr(copies, "_BLOCK_BYTES", 1)
    np.testing.assert_array_equal(copies.keys(images), whole)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "u1", "i8"])
def test_keys_of_whole_numbers_tell_images_apart_in_any_type(dtype):
    images = np.random.default_rng(0).integers(0, 3, (3000, 1, 32, 32)).astype(dtype)
    assert len(set(copies.keys(images))) == 3000


# In every job that trains


@pytest.fixture
def augmented(tmp_path):
    """The experiment file of flipped and turned copies without a catalogue."""
    codes = SUBSETS["flips and turns of the release"]
    np.save(tmp_path / "x.npy", copied(pixels(filters=2), codes))
    np.save(tmp_path / "y.npy", data(copied(pixels(), codes), len(codes)).labels)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"data": {"images": "x.npy", "labels": "y.npy"}}))
    return path


def _main(experiment, patch):
    from deepmerge.jobs.main import main

    main(experiment)


def _train(experiment, patch):
    from deepmerge.jobs.train import train

    train(experiment)


def _assist(experiment, patch):
    from deepmerge.jobs.train import assist

    assist(experiment)


def _tune(experiment, patch):
    from deepmerge.jobs.tune.search import tune

    tune(experiment, experiment.data.images.with_name("tuned.yaml"))


def _tune_on_folds(experiment, patch):
    tuning = experiment.tuning.model_copy(update={"folds": 3})
    from deepmerge.jobs.tune.search import tune

    tune(experiment.model_copy(update={"tuning": tuning}), experiment.data.images.with_name("tuned.yaml"))


def _recipes(experiment, patch):
    from deepmerge.studies.recipes import compare_recipes

    compare_recipes(experiment, folds=3, seeds=1, published_epochs=1, target=0.5)


def _leakage(experiment, patch):
    from deepmerge.studies.leakage import measure_leakage

    measure_leakage(experiment, 1, None)


def _folds(experiment, patch):
    run = SimpleNamespace(info=SimpleNamespace(run_id="r"))
    trained = SimpleNamespace(run=run, experiment=experiment, data=dataset.read(experiment.data, "mine"))
    patch.setattr("deepmerge.studies.folds.study.find", lambda *args: trained)
    from deepmerge.studies.folds.study import cross_validate

    cross_validate("mine", "last", 3)


def _probabilities(experiment, patch):
    opened = dataset.read(experiment.data, "mine")
    judged = SimpleNamespace(run=None, experiment=experiment, data=opened, split=split_of(opened))
    patch.setattr("deepmerge.studies.probabilities.study.reload", lambda *args: judged)
    from deepmerge.studies.probabilities.study import judge_probabilities

    judge_probabilities("mine", "last", config.Study())


JOBS = [_main, _train, _assist, _tune, _tune_on_folds, _recipes, _leakage, _folds, _probabilities]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__.strip("_"))
def test_no_job_opens_a_run_or_trains_on_parts_that_share_images(augmented, job, monkeypatch):
    def forbidden(*args, **settings):
        pytest.fail("the copies should have been refused before")

    for place in ("model.training.train", "tracking.runs.new_run", "tracking.runs.continued", "tracking.runs.connect"):
        monkeypatch.setattr(f"deepmerge.{place}", forbidden)
    with pytest.raises(InputError, match="in several parts; give a catalogue"):
        job(config.load(str(augmented)), monkeypatch)


def test_the_published_protocol_goes_on_to_train(augmented, monkeypatch):
    class Begun(Exception):
        pass

    def begin(*args, **settings):
        raise Begun

    monkeypatch.setattr("deepmerge.tracking.runs.opening.new_run", begin)
    from deepmerge.jobs.train import train

    with pytest.raises(Begun):
        train(config.load(str(augmented), {"split": "rows"}))


@given(st.integers(0, 2**31), st.integers(0, GALAXIES - 1), st.sampled_from(range(8)), st.booleans())
def test_a_copy_is_found_in_whichever_row_and_turn(seed, row, code, constant_elsewhere):
    images = pixels(seed=seed, width=32)
    if constant_elsewhere:
        images[np.arange(GALAXIES) != row] = 1
    both = np.concatenate([images, transform(images[row], code)[np.newaxis]])
    [rows] = copies.across(both, copies.keys(both), np.arange(len(both)))
    assert rows.tolist() == [row, GALAXIES]
    assert copies.how(both, row, GALAXIES) == copies.HOW[code]
