"""The released DeepMerge sample: its files, its filters, and which row shows which galaxy.

Images: Ciprijanovic et al. 2020, doi 10.17909/t9-vqk6-pc80 (MAST); paper: A&C 32, 100390, arXiv:2004.11981.
Catalogue arrays: github.com/deepskies/deepmerge-public, Apache-2.0. The archive publishes no checksums.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deepmerge.errors import InputError

VARIANTS: Final = ("pristine", "noisy")
FILTERS: Final = {2: ("F814W", "F160W"), 3: ("F814W", "F160W", "F356W")}
DOI: Final = "10.17909/t9-vqk6-pc80"
ARCHIVE_URL: Final = "https://archive.stsci.edu/hlsps/deepmerge/"
CATALOGUE_URL: Final = "https://raw.githubusercontent.com/deepskies/deepmerge-public/master/"
CATALOGUE_NAME: Final = "release_catalogue.csv"

# The arguments of `catalogue_from_arrays` and the authors' files that hold them.
CATALOGUE_FILES: Final = {
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


def file_stem(variant: str, filters: int) -> str:
    """Return the authors' name of the arrays of one variant, without `_X.npy` and `_y.npy`.

    Raises:
        InputError: no such variant (pristine, noisy) or number of filters (2, 3) was released.
    """
    _check_released(variant, filters)
    return f"{variant}_2filt" if filters == 2 else variant


def fits_name(variant: str, filters: int) -> str:
    """Return the archive's file name of one variant.

    Raises:
        InputError: no such variant (pristine, noisy) or number of filters (2, 3) was released.
    """
    _check_released(variant, filters)
    instruments = {2: "hst_acs-wfc3", 3: "hst-jwst_acs-wfc3-nircam"}[filters]
    bands = "-".join(FILTERS[filters]).lower()
    return f"hlsp_deepmerge_{instruments}_illustris-z2_{bands}_v1_sim-{variant}.fits"


def stems_by_fits_name() -> dict[str, str]:
    """Return the authors' array names of the archive's four FITS files."""
    pairs = [(variant, filters) for variant in VARIANTS for filters in FILTERS]
    return {fits_name(*pair): file_stem(*pair) for pair in pairs}


def image_shape(filters: int) -> tuple[int, int, int, int]:
    """Return the shape (15426, filters, 75, 75) of the released images."""
    return ROWS, filters, IMAGE_SIZE, IMAGE_SIZE


def is_released(shape: tuple[int, ...], labels: NDArray[np.integer], name: str, stem: str) -> bool:
    """Tell whether images are the released sample: by their name, if shape and labels bear it out.

    Args:
        shape: of the images.
        labels: (N,) of 0 and 1; the release has all its mergers first.
        name: of the file they come from.
        stem: name they are to bear.

    Raises:
        InputError: the stem is the authors' name of other images than these.
    """
    stems = stems_by_fits_name()
    by_name, by_stem = stems.get(name), stem if stem in stems.values() else None
    if by_name and by_stem and by_name != by_stem:
        raise InputError(f"{name} holds the arrays {by_name}, not {stem}; leave the stem out.")
    claim = by_stem or by_name
    if not claim:
        return False
    expected = image_shape(2 if claim.endswith("_2filt") else 3)
    mergers = MERGERS * VIEWS * COPIES
    if shape == expected and labels[:mergers].all() and not labels[mergers:].any():
        return True
    if by_stem:
        raise InputError(
            f"Expected under the released name {stem} images {expected}, rows 0–{mergers - 1} mergers and "
            f"the rest not, got {shape} and {labels.sum()} mergers. Give other data another name (stem)."
        )
    return False


def layout_catalogue() -> pd.DataFrame:
    """Return the catalogue that follows from the row order alone, for when the catalogue arrays are missing.

    15426 rows: galaxy_id (made-up running numbers, mergers first), view (0–3), copy (0–4) and stage. The
    row order does not tell past from future, so stage is "merger" or "non-merger" here.
    """
    views = np.full(NON_MERGERS, VIEWS)
    views[SHORT_NON_MERGER] = SHORT_VIEWS
    mergers = np.tile(np.repeat(np.arange(MERGERS), VIEWS), COPIES)
    non_mergers = np.repeat(np.arange(MERGERS, MERGERS + NON_MERGERS), views)
    galaxy_id = np.concatenate([mergers, non_mergers])
    return _catalogue(galaxy_id, np.where(galaxy_id < MERGERS, "merger", "non-merger"))


def catalogue_from_arrays(
    ids: NDArray[np.integer],
    subsample_labels: NDArray[np.integer],
    log_mstar: NDArray[np.floating],
    concentration: NDArray[np.floating],
    m20: NDArray[np.floating],
) -> pd.DataFrame:
    """Return the catalogue of the authors' row-aligned arrays.

    Args:
        ids: (n,) subhalo number of the galaxy in each row.
        subsample_labels: (n, 3) of 0 and 1: merger, past merger, future merger.
        log_mstar: (n,) log10 of the stellar mass in solar masses.
        concentration: (n,) concentration C, NaN where not measured.
        m20: (n,) second moment of the brightest 20 %, NaN where not measured.

    Returns:
        n rows: galaxy_id, view, copy, stage ("past", "future", "non-merger"), log_mstar, concentration, m20.

    Raises:
        InputError: the arrays do not fit together, or a merger is not either past or future.
    """
    columns = {"log_mstar": log_mstar, "concentration": concentration, "m20": m20}
    n = len(ids)
    shapes = {"ids": ids.shape, **{name: values.shape for name, values in columns.items()}}
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


def _catalogue(galaxy_id: NDArray[np.integer], stage: NDArray[np.str_]) -> pd.DataFrame:
    table = pd.DataFrame({"galaxy_id": galaxy_id})
    # Within a galaxy, the views of one copy come before those of the next.
    occurrence = table.groupby("galaxy_id").cumcount()
    return table.assign(view=occurrence % VIEWS, copy=occurrence // VIEWS, stage=stage)


def _check_released(variant: str, filters: int) -> None:
    if variant not in VARIANTS or filters not in FILTERS:
        raise InputError(
            f"Expected variant pristine or noisy with 2 or 3 filters, got {variant!r} with {filters!r}; "
            "nothing else was released."
        )
