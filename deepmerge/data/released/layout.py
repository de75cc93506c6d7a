"""The released DeepMerge sample: its files, its filters, and which row shows which galaxy.

Images: Ciprijanovic et al. 2020, doi 10.17909/t9-vqk6-pc80 (MAST); paper: A&C 32, 100390, arXiv:2004.11981.
Catalogue arrays: github.com/deepskies/deepmerge-public, Apache-2.0. The archive publishes no checksums.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from deepmerge.errors import InputError

DOI = "10.17909/t9-vqk6-pc80"
ARCHIVE_URL = "https://archive.stsci.edu/hlsps/deepmerge/"
CATALOGUE_URL = "https://raw.githubusercontent.com/deepskies/deepmerge-public/master/"
CATALOGUE_NAME = "release_catalogue.csv"
# The arguments of `catalogue_from_arrays` and the authors' files that hold them.
CATALOGUE_FILES = {
    "ids": "subsamples_ID.npy",
    "subsample_labels": "subsamples_y.npy",
    "log_mstar": "logMstar.npy",
    "concentration": "concentration.npy",
    "m20": "m20.npy",
}

# Measured on the catalogue arrays: five equally ordered blocks (identity, flipud, fliplr, rot90, rot180) of
# 406 mergers × 4 views, then 1827 non-mergers × 4 views, but for one of which only two views were released.
ROWS = 15426
IMAGE_SIZE = 75
VIEWS = 4
COPIES = 5
MERGERS = 406
NON_MERGERS = 1827
SHORT_NON_MERGER = 30
SHORT_VIEWS = 2


class Release(NamedTuple):
    """One of the four released sets of images: its filters, the archive's file, and the authors' name of the arrays."""

    filters: tuple[str, ...]
    fits_name: str
    stem: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, F, H, W) of the images."""
        return ROWS, len(self.filters), IMAGE_SIZE, IMAGE_SIZE


_TWO, _THREE = ("F814W", "F160W"), ("F814W", "F160W", "F356W")
_FITS = "hlsp_deepmerge_hst_acs-wfc3_illustris-z2_f814w-f160w_v1_sim-{}.fits"
_FITS_3 = "hlsp_deepmerge_hst-jwst_acs-wfc3-nircam_illustris-z2_f814w-f160w-f356w_v1_sim-{}.fits"
RELEASES = {
    (variant, len(filters)): Release(filters, fits_name.format(variant), stem.format(variant))
    for variant in ("pristine", "noisy")
    for filters, fits_name, stem in ((_TWO, _FITS, "{}_2filt"), (_THREE, _FITS_3, "{}"))
}


def release(variant: str, filters: int) -> Release:
    """The release of a variant (pristine, noisy) with 2 or 3 filters. Raises InputError for any other."""
    if (variant, filters) not in RELEASES:
        raise InputError(
            f"Expected variant pristine or noisy with 2 or 3 filters, got {variant!r} with {filters!r}; "
            "nothing else was released."
        )
    return RELEASES[variant, filters]


def is_released(shape: tuple[int, ...], labels: np.ndarray, fits_name: str, stem: str) -> bool:
    """Whether images are released ones: by the name of their file or arrays, if shape and labels bear it out.

    shape: of the images; labels: (N,) of 0 and 1, the release has all its mergers first; fits_name: of the file they
    come from; stem: name that the arrays get. Raises InputError where that is the authors' name of other images.
    """
    by_name = next((one for one in RELEASES.values() if one.fits_name == fits_name), None)
    by_stem = next((one for one in RELEASES.values() if one.stem == stem), None)
    if by_name and by_stem and by_name != by_stem:
        raise InputError(f"{fits_name} holds the arrays {by_name.stem}, not {stem}; leave the stem out.")
    claim = by_stem or by_name
    if claim is None:
        return False
    mergers = MERGERS * VIEWS * COPIES
    if shape == claim.shape and labels[:mergers].all() and not labels[mergers:].any():
        return True
    if by_stem:
        raise InputError(
            f"Expected under the released name {stem} images {claim.shape}, rows 0–{mergers - 1} mergers and "
            f"the rest not, got {shape} and {labels.sum()} mergers. Give other data another name (stem)."
        )
    return False


def layout_catalogue() -> pd.DataFrame:
    """The catalogue that follows from the order of the rows, for where the catalogue arrays are missing.

    15426 rows: galaxy_id (made-up running numbers, mergers first), view (0–3), copy (0–4) and stage, "merger" or
    "non-merger", since the order does not tell past from future.
    """
    views = np.full(NON_MERGERS, VIEWS)
    views[SHORT_NON_MERGER] = SHORT_VIEWS
    mergers = np.tile(np.repeat(np.arange(MERGERS), VIEWS), COPIES)
    non_mergers = np.repeat(np.arange(MERGERS, MERGERS + NON_MERGERS), views)
    galaxy_id = np.concatenate([mergers, non_mergers])
    return _catalogue(galaxy_id, np.where(galaxy_id < MERGERS, "merger", "non-merger"))


def catalogue_from_arrays(
    ids: np.ndarray, subsample_labels: np.ndarray, log_mstar: np.ndarray, concentration: np.ndarray, m20: np.ndarray
) -> pd.DataFrame:
    """The catalogue of the authors' row-aligned arrays.

    ids: (n,) subhalo number of each row's galaxy; subsample_labels: (n, 3) of 0 and 1, merger, past and future;
    log_mstar: (n,) log10 of the stellar mass in solar masses; concentration and m20: (n,), NaN where not measured.
    Returns n rows of galaxy_id, view, copy, stage, log_mstar, concentration and m20. Raises InputError where the arrays
    do not fit together, or a merger is not either past or future.
    """
    n = len(ids)
    columns = {"log_mstar": log_mstar, "concentration": concentration, "m20": m20}
    shapes = {name: values.shape for name, values in {"ids": ids, **columns}.items()}
    wrong = [f"{name} {shape}" for name, shape in shapes.items() if shape != (n,)]
    if subsample_labels.shape != (n, 3):
        wrong.append(f"subsample_labels {subsample_labels.shape}, not ({n}, 3)")
    if wrong:
        raise InputError(
            f"Expected catalogue arrays of one length ({n} ids), got {', '.join(wrong)}. "
            "Take all five files from one version of deepskies/deepmerge-public."
        )
    merger, past, future = subsample_labels.T
    if not (np.isin(subsample_labels, (0, 1)).all() and (merger == past + future).all()):
        raise InputError(
            "Expected 0/1 columns merger = past + future in the subsample labels, got rows that break this. "
            "Take subsamples_y.npy from deepskies/deepmerge-public as it is."
        )
    stage = np.select([past == 1, future == 1], ["past", "future"], "non-merger")
    return _catalogue(ids, stage).assign(**columns)


def _catalogue(galaxy_id: np.ndarray, stage: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"galaxy_id": galaxy_id})
    # Within a galaxy, the views of one copy come before those of the next.
    occurrence = table.groupby("galaxy_id").cumcount()
    return table.assign(view=occurrence % VIEWS, copy=occurrence // VIEWS, stage=stage)
