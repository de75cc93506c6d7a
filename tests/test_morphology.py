import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq

from deepmerge.analysis import morphology
from deepmerge.analysis.morphology import BAD, GOOD, NOT_MEASURED, QUANTITIES, measure, measure_image
from deepmerge.errors import InputError

SIZE = 75
SCALE = 4.0  # scale length of the disc in pixels
REAL = Path(__file__).parents[2] / "shared" / "real"


def disc(x=0.0, y=0.0, flux=1000.0, scale=SCALE, axis_ratio=1.0, size=SIZE, fine=5):
    """A face-on exponential disc (Sérsic n = 1), integrated over each pixel by `fine` samples a side."""
    at = (np.arange(size * fine) + 0.5) / fine - size / 2
    radius = np.hypot(at[None, :] - x, (at[:, None] - y) / axis_ratio)
    light = np.exp(-radius / scale) / (2 * math.pi * scale**2 * axis_ratio) / fine**2
    return flux * light.reshape(size, fine, size, fine).sum(axis=(1, 3))


def noise(sigma=0.4, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, (SIZE, SIZE))


@pytest.fixture(scope="module")
def measured_disc():
    return measure_image(disc())


# --- one image ---------------------------------------------------------------------------------------------


def test_an_exponential_disc_has_its_analytic_petrosian_radius_flux_and_concentration(measured_disc):
    def within(x):  # share of the light within x scale lengths
        return 1 - (1 + x) * math.exp(-x)

    petrosian = brentq(lambda x: math.exp(-x) - 0.2 * 2 * within(x) / x**2, 1, 10)  # local = a fifth of mean brightness
    total = within(1.5 * petrosian)  # as in the definition of C
    r20, r80 = (brentq(lambda x, share=share: within(x) - share * total, 0.1, 10) for share in (0.2, 0.8))
    assert measured_disc["rpetro_circ"] == pytest.approx(petrosian * SCALE, rel=0.02)
    assert measured_disc["flux"] == pytest.approx(1000 * within(2 * petrosian), rel=0.01)
    assert 5 * math.log10(r80 / r20) == pytest.approx(2.7, abs=0.05)  # as published for discs
    assert measured_disc["concentration"] == pytest.approx(5 * math.log10(r80 / r20), abs=0.03)


def test_the_gini_coefficient_is_the_mean_difference_of_the_disc_s_pixels(measured_disc):
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    pixels = disc()[np.hypot(rows, columns) <= measured_disc["rpetro_circ"]]
    differences = sum(abs(a - b) for a in pixels for b in pixels)
    n = len(pixels)
    assert measured_disc["gini"] == pytest.approx(differences / (2 * pixels.mean() * n * (n - 1)), abs=0.02)


def test_a_symmetric_disc_has_no_asymmetry_of_light_or_shape_and_one_nucleus(measured_disc):
    assert measured_disc["asymmetry"] == pytest.approx(0, abs=0.005)
    assert measured_disc["shape_asymmetry"] == pytest.approx(0, abs=0.02)
    assert measured_disc["ellipticity"] == pytest.approx(0, abs=0.01)
    assert measured_disc["multimode"] == measured_disc["intensity"] == 0
    assert measured_disc["deviation"] == pytest.approx(0, abs=0.02)


def test_ellipticity_is_that_of_an_inclined_disc():
    assert measure_image(disc(axis_ratio=0.6))["ellipticity"] == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(
    "changed",
    [np.rot90, np.flipud, lambda image: image * 1e-3, lambda image: image + 10, lambda image: image.astype(np.float32)],
    ids=["turned", "flipped", "fainter unit", "brighter sky", "single precision"],
)
def test_morphology_depends_on_neither_orientation_nor_unit_nor_sky_level(changed):
    scene = disc(x=1.3, axis_ratio=0.7) + 0.3 * disc(x=8, y=5, scale=1.5) + noise(0.02)
    plain, other = measure_image(scene), measure_image(changed(scene))
    for name in set(QUANTITIES) - {"flux"}:
        assert other[name] == pytest.approx(plain[name], rel=0.03, abs=0.02), name


def test_a_second_nucleus_shows_in_asymmetry_m20_and_multimode(measured_disc):
    double = measure_image(disc() + 0.4 * disc(x=9, scale=1.5))
    assert double["asymmetry"] > measured_disc["asymmetry"] + 0.2
    assert double["m20"] > measured_disc["m20"] + 0.3
    assert double["multimode"] > 0.1


def test_a_companion_that_touches_belongs_to_the_galaxy_and_one_apart_does_not(measured_disc):
    assert measure_image(disc() + disc(x=11))["flux"] > 1.7 * measured_disc["flux"]
    apart = measure_image(disc(x=-3, scale=2) + disc(x=29, y=29, flux=3000, scale=1))
    assert apart["flux"] == pytest.approx(1000, rel=0.05)


def test_a_good_measurement_is_flagged_good_without_a_reason_and_any_other_tells_its_reason():
    good = measure_image(disc(flux=5000) + noise())
    assert (good["flag"], good["reason"]) == (GOOD, "")
    tilted = measure_image(disc() + noise(0.01) + np.linspace(0, 3, SIZE))
    assert tilted["flag"] == BAD
    assert "background" in tilted["reason"]


def test_signal_to_noise_halves_when_the_noise_doubles_and_is_unknown_without_noise(measured_disc):
    once, twice = (measure_image(disc(flux=1e4) + noise(sigma))["sn_per_pixel"] for sigma in (0.2, 0.4))
    assert once / twice == pytest.approx(2, rel=0.05)
    black = np.where(disc() > 0.05, disc(), 0)  # no light in the frame at all
    measured = measure_image(black)
    assert math.isnan(measured["sn_per_pixel"])
    assert measured["concentration"] == pytest.approx(measured_disc["concentration"], abs=0.1)


def test_dead_pixels_are_left_out_and_not_taken_for_black(measured_disc):
    dead = disc()
    dead[:32, 43:] = np.nan  # a corner of the image, and of the galaxy
    dead[50, 20] = np.inf
    assert measure_image(dead)["rpetro_circ"] == pytest.approx(measured_disc["rpetro_circ"], rel=0.03)


ODD = {
    "black": np.zeros((SIZE, SIZE)),
    "constant": np.full((SIZE, SIZE), 3.0),
    "NaN": np.full((SIZE, SIZE), np.nan),
    "infinite": np.full((SIZE, SIZE), np.inf),
    "no sky": np.where(disc() > 1, disc(), np.nan),
    "one bright pixel": np.eye(1, SIZE * SIZE, 37 * SIZE + 37).reshape(SIZE, SIZE),
    "one huge pixel": 1e30 * np.eye(1, SIZE * SIZE, 37 * SIZE + 37).reshape(SIZE, SIZE),
    "negative": -disc(),
    "source at the edge": disc(x=36) + noise(0.01),
    "source out of the frame": disc(x=60),
    "noise": noise(),
    "ramp": np.add.outer(np.arange(SIZE), np.arange(SIZE)).astype(float),
    "chequered": np.indices((SIZE, SIZE)).sum(axis=0) % 2,
    "true and false": disc() > 1,
    "tiny": disc()[36:39, 36:39],
    "oblong": disc()[20:55],
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_image_gives_finite_numbers_or_nan_with_a_reason_and_never_fails(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured = measure_image(ODD[kind])
    assert list(measured) == [*QUANTITIES, "flag", "reason"]
    values = np.array([measured[name] for name in QUANTITIES])
    assert not np.isinf(values).any()
    assert -99 not in values
    assert bool(measured["reason"]) == (measured["flag"] != GOOD)
    assert "\n" not in measured["reason"]
    if measured["flag"] == NOT_MEASURED:
        assert np.isnan(values).all()


@pytest.mark.parametrize("kind", ["black", "constant", "NaN", "negative"])
def test_where_there_is_no_source_nothing_is_measured(kind):
    measured = measure_image(ODD[kind])
    assert measured["flag"] == NOT_MEASURED
    assert measured["reason"].startswith("no source")


def test_a_failure_within_statmorph_is_a_reason_and_no_crash(monkeypatch):
    def fails(*_, **__):
        raise AssertionError("two\nlines")

    monkeypatch.setattr("statmorph.SourceMorphology", fails)
    measured = measure_image(disc())
    assert (measured["flag"], measured["reason"]) == (NOT_MEASURED, "failed with AssertionError: two lines")


def test_an_array_that_is_no_image_is_refused():
    with pytest.raises(InputError, match=r"\(H, W\), got \(2, 75, 75\)"):
        measure_image(np.zeros((2, SIZE, SIZE)))


# --- many images -------------------------------------------------------------------------------------------


@pytest.fixture
def images():
    """Twenty images (20, 2, 32, 32) that a stand-in measures at once."""
    return np.random.default_rng(2).normal(size=(20, 2, 32, 32)).astype(np.float32)


@pytest.fixture
def quick(monkeypatch):
    """Measures the mean of an image as its flux; returns what was measured, in order."""
    done = []

    def measured(image):
        done.append(float(image.mean()))
        return {**dict.fromkeys(QUANTITIES, np.nan), "flux": done[-1], "flag": BAD, "reason": "a stand-in"}

    monkeypatch.setattr(morphology, "measure_image", measured)
    monkeypatch.setattr(morphology, "_CHUNK", 3)
    monkeypatch.setattr(morphology, "_BATCH", 6)
    return done


def cached(images, rows, folder, fingerprint="abc", filter_index=1, **settings):
    return measure(images, rows, filter_index, workers=1, cache=folder, fingerprint=fingerprint, **settings)


@pytest.mark.slow
def test_lines_come_in_the_order_of_the_rows_and_do_not_depend_on_the_number_of_workers(monkeypatch, capfd):
    monkeypatch.setattr(morphology, "_CHUNK", 2)
    images = np.stack([[np.zeros((48, 48)), disc(x=k, size=48)] for k in range(4)]).astype(np.float32)
    rows = np.array([3, 0, 2])
    steps = []
    alone = measure(images, rows, 1, workers=1)
    shared = measure(images, rows, 1, workers=2, advance=steps.append)
    pd.testing.assert_frame_equal(alone, shared)
    assert alone["row"].tolist() == rows.tolist()
    assert sum(steps) == len(rows)
    assert capfd.readouterr().err == ""  # processes, too, keep statmorph's warnings to themselves
    expected = measure_image(images[2, 1])
    assert alone.loc[2, list(QUANTITIES)].tolist() == pytest.approx([expected[q] for q in QUANTITIES], nan_ok=True)


def test_only_missing_rows_are_measured_when_a_cache_knows_the_others(images, quick, tmp_path):
    steps = []
    first = cached(images, [5, 3, 8], tmp_path)
    assert len(quick) == 3
    more = cached(images, [8, 1, 3, 19], tmp_path, advance=steps.append)
    assert len(quick) == 5
    assert sum(steps) == 4
    assert more["flux"].tolist() == pytest.approx([images[row, 1].mean() for row in (8, 1, 3, 19)])
    pd.testing.assert_frame_equal(cached(images, [5, 3, 8], tmp_path), first)
    assert len(quick) == 5


def test_a_row_asked_for_twice_is_measured_once_and_no_row_gives_an_empty_table(images, quick):
    assert measure(images, [4, 4], 0, workers=1)["row"].tolist() == [4, 4]
    assert len(quick) == 1
    assert measure(images, [], 0).empty


def test_measurements_of_other_data_another_filter_or_another_method_are_not_taken_over(
    images, quick, tmp_path, monkeypatch
):
    cached(images, [0], tmp_path)
    cached(images, [0], tmp_path, fingerprint="def")
    cached(images, [0], tmp_path, filter_index=0)
    monkeypatch.setattr(morphology, "METHOD", morphology.METHOD + 1)
    cached(images, [0], tmp_path)
    assert len(quick) == 4
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("damage", [b"", b"PAR1 and then nothing", None], ids=["empty", "cut off", "other columns"])
def test_a_damaged_cache_is_measured_anew(images, quick, tmp_path, damage):
    first = cached(images, [0, 1], tmp_path)
    (file,) = tmp_path.iterdir()
    if damage is None:
        pd.DataFrame({"row": [0]}).to_parquet(file)
    else:
        file.write_bytes(damage)
    pd.testing.assert_frame_equal(cached(images, [0, 1], tmp_path), first)
    assert len(quick) == 4
    cached(images, [0, 1], tmp_path)
    assert len(quick) == 4


def test_interrupted_work_keeps_what_was_done(images, quick, tmp_path):
    def advance(steps):
        if len(quick) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(images, np.arange(20), tmp_path, advance=advance)
    cached(images, np.arange(20), tmp_path)
    assert len(quick) == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": [20]}, "row numbers 0 … 19"),
        ({"rows": [-1]}, "row numbers 0 … 19"),
        ({"rows": [0.5]}, "row numbers 0 … 19"),
        ({"rows": [True, False]}, "row numbers 0 … 19"),
        ({"filter_index": 2}, "filter_index should be 0 … 1"),
        ({"workers": 0}, "at least one worker, got 0"),
        ({"cache": Path("cache")}, "fingerprint"),
        ({"images": np.zeros((20, 32, 32))}, r"\(N, filters, H, W\)"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(images, settings, message):
    with pytest.raises(InputError, match=message) as error:
        measure(**{"images": images, "rows": [0], "filter_index": 0, **settings})
    assert "\n" not in str(error.value)


# --- real galaxies -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real SDSS galaxies of EFIGI are not in {REAL}")
def test_interacting_galaxies_of_efigi_are_more_asymmetric_and_most_measurements_are_good():
    images, labels = np.load(REAL / "efigi_dev_X.npy"), np.load(REAL / "efigi_dev_y.npy")
    rows = np.concatenate([np.flatnonzero(labels == label)[:40] for label in (0, 1)])
    measured = measure(images, rows, 1)
    assert (measured["flag"] == GOOD).mean() > 0.75
    medians = measured.groupby(labels[rows])[["asymmetry", "shape_asymmetry", "m20"]].median()
    assert (medians.loc[1] > medians.loc[0]).all()
