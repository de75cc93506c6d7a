import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deepmerge.data.released import layout
from deepmerge.errors import InputError

REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", Path(__file__).parents[2] / "shared" / "real"))
needs_real = pytest.mark.skipif(
    not (REAL / "subsamples_ID.npy").exists(), reason=f"the real catalogue arrays are not in {REAL}"
)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return layout.layout_catalogue()


@pytest.fixture(scope="module")
def real() -> pd.DataFrame:
    arrays = {name: np.load(REAL / file) for name, file in layout.CATALOGUE_FILES.items()}
    return layout.catalogue_from_arrays(**arrays)


def small_arrays() -> dict[str, np.ndarray]:
    """One merger past, one future (4 views × 5 copies each), one non-merger of 3 views."""
    ids = np.concatenate([np.tile(np.repeat([7, 9], 4), 5), [2, 2, 2]])
    labels = np.select([ids[:, None] == 7, ids[:, None] == 9], [[1, 1, 0], [1, 0, 1]], [0, 0, 0])
    values = np.linspace(9.8, 11.9, len(ids))
    return {
        "ids": ids,
        "subsample_labels": labels,
        "log_mstar": values,
        "concentration": values,
        "m20": -values,
    }


def test_layout_has_the_published_counts(rows):
    assert list(rows.columns) == ["galaxy_id", "view", "copy", "stage"]
    assert len(rows) == layout.ROWS == 15426
    galaxies = rows.groupby("stage")["galaxy_id"].nunique()
    assert galaxies.to_dict() == {"merger": 406, "non-merger": 1827}
    assert rows["stage"].value_counts().to_dict() == {"merger": 8120, "non-merger": 7306}
    assert not rows.duplicated(["galaxy_id", "view", "copy"]).any()


def test_layout_is_the_measured_formula(rows):
    row = np.arange(8120)
    mergers = rows.iloc[:8120]
    assert (mergers["copy"] == row // 1624).all()
    assert (mergers["galaxy_id"] == row % 1624 // 4).all()
    assert (mergers["view"] == row % 4).all()
    assert (rows["copy"].iloc[8120:] == 0).all()


def test_only_the_galaxy_at_rows_8240_and_8241_has_two_views(rows):
    views = rows[rows["stage"] == "non-merger"].groupby("galaxy_id").size()
    (short,) = views.index[views != 4]
    assert views[short] == 2
    assert rows.index[rows["galaxy_id"] == short].tolist() == [8240, 8241]


def test_stages_views_and_copies_follow_from_the_arrays():
    table = layout.catalogue_from_arrays(**small_arrays())
    assert list(table.columns) == [
        "galaxy_id",
        "view",
        "copy",
        "stage",
        "log_mstar",
        "concentration",
        "m20",
    ]
    assert table["stage"].tolist() == (["past"] * 4 + ["future"] * 4) * 5 + ["non-merger"] * 3
    assert table["view"].tolist() == [0, 1, 2, 3] * 10 + [0, 1, 2]
    assert table["copy"].tolist() == np.repeat([0, 1, 2, 3, 4, 0], [8, 8, 8, 8, 8, 3]).tolist()


@pytest.mark.parametrize("name", ["subsample_labels", "log_mstar", "concentration", "m20"])
def test_arrays_of_another_length_are_refused(name):
    arrays = small_arrays()
    arrays[name] = arrays[name][:-1]
    with pytest.raises(InputError, match=f"one length.*{name}"):
        layout.catalogue_from_arrays(**arrays)


@pytest.mark.parametrize("labels", [[1, 0, 0], [1, 1, 1], [0, 1, 0], [2, 1, 1], [0, 1, -1]])
def test_merger_must_be_past_or_future(labels):
    arrays = small_arrays()
    arrays["subsample_labels"][3] = labels
    with pytest.raises(InputError, match=r"merger = past \+ future"):
        layout.catalogue_from_arrays(**arrays)


def test_file_names_are_those_of_authors_and_archive():
    two = "hlsp_deepmerge_hst_acs-wfc3_illustris-z2_f814w-f160w_v1_sim-"
    three = "hlsp_deepmerge_hst-jwst_acs-wfc3-nircam_illustris-z2_f814w-f160w-f356w_v1_sim-"
    assert {release.fits_name: release.stem for release in layout.RELEASES.values()} == {
        f"{two}pristine.fits": "pristine_2filt",
        f"{two}noisy.fits": "noisy_2filt",
        f"{three}pristine.fits": "pristine",
        f"{three}noisy.fits": "noisy",
    }


@pytest.mark.parametrize(("variant", "filters"), [("clean", 2), ("noisy", 1), ("noisy", 4)])
def test_what_was_not_released_is_refused(variant, filters):
    with pytest.raises(InputError, match="pristine or noisy with 2 or 3 filters"):
        layout.release(variant, filters)


def test_the_release_is_known_by_name_shape_and_order_of_labels(rows):
    labels = (rows["stage"] == "merger").to_numpy().astype(np.uint8)
    shape = (15426, 2, 75, 75)
    fits = layout.release("noisy", 2).fits_name
    assert layout.is_released(shape, labels, fits, "noisy_2filt")
    assert layout.is_released(shape, labels, "renamed.fits", "noisy_2filt")
    assert layout.is_released(shape, labels, fits, "mine")
    assert not layout.is_released(shape, labels, "mine.fits", "mine")
    assert not layout.is_released(shape, labels[::-1], fits, "mine")
    for bad_shape, bad_labels in [
        ((15425, 2, 75, 75), labels[1:]),
        ((15426, 3, 75, 75), labels),
        (shape, labels[::-1]),
    ]:
        with pytest.raises(InputError, match="another name"):
            layout.is_released(bad_shape, bad_labels, "mine.fits", "noisy_2filt")
    with pytest.raises(InputError, match="leave the stem out"):
        layout.is_released(shape, labels, fits, "pristine_2filt")


@needs_real
def test_layout_groups_the_rows_as_the_real_ids_do(rows, real):
    pairs = pd.DataFrame({"made_up": rows["galaxy_id"], "real": real["galaxy_id"]}).drop_duplicates()
    assert pairs["made_up"].is_unique
    assert pairs["real"].is_unique
    assert len(pairs) == 406 + 1827
    pd.testing.assert_frame_equal(rows[["view", "copy"]], real[["view", "copy"]])
    assert ((rows["stage"] == "merger") == (real["stage"] != "non-merger")).all()


@needs_real
def test_real_catalogue_has_the_published_counts(real):
    assert real.groupby("stage")["galaxy_id"].nunique().to_dict() == {
        "past": 301,
        "future": 105,
        "non-merger": 1827,
    }
    assert real.index[real["galaxy_id"] == real["galaxy_id"][8240]].tolist() == [8240, 8241]
    assert round(real["m20"].isna().mean(), 2) == 0.52
    assert (real["m20"].isna() == real["concentration"].isna()).all()
    assert real["log_mstar"].notna().all()


@needs_real
def test_copies_of_a_real_view_share_their_measurements(real):
    measured = real[["log_mstar", "concentration", "m20"]].to_numpy()[:8120].reshape(5, 1624, 3)
    np.testing.assert_array_equal(measured, np.broadcast_to(measured[0], measured.shape))
