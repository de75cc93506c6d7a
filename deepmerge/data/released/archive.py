"""Images from the MAST archive or any FITS file: download, check, and convert to npy.

Accepted are images (N, F, H, W) of any numeric type in one HDU (see fits_file), and a table with as many rows that
holds the 0/1 labels and, if there is one, the catalogue (see fits_table). The archive's own files have the images in
the first HDU, and in the second a table of one column, the label.
"""

import logging
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge.data import dataset
from deepmerge.data.formats import fits_file, fits_table, npy_file
from deepmerge.data.released import download, layout
from deepmerge.errors import InputError
from deepmerge.files import folder_aside, replacing
from deepmerge.progress import progress_bar

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 24


def fetch(
    variant: str,
    folder: Path,
    *,
    filters: int = 2,
    base_url: str = layout.ARCHIVE_URL,
    catalogue_url: str = layout.CATALOGUE_URL,
    overwrite: bool = False,
) -> None:
    """Download one variant of the released sample and its catalogue into `folder`, and convert it.

    Writes `<stem>_X.npy` (15426, filters, 75, 75) float32, `<stem>_y.npy` (15426,) uint8,
    `release_catalogue.csv` and `<stem>_source.json`; stem as the authors: `pristine_2filt`, `pristine`, ….
    Arrays that are there already are not downloaded again; what lacks beside them is added. An interrupted
    download stays as `*.fits.part` and the next call goes on with it. A FITS file of the archive's name that
    lies in `folder` is used and kept. Proxies are taken from the environment.

    Raises InputError for no such variant, no network, not what the archive should serve, and for other data of the
    same name in `folder` unless `overwrite`; OSError where the disk is full.
    """
    release = layout.release(variant, filters)
    name, stem = release.fits_name, release.stem
    fits, part = folder / name, folder / f"{name}.part"
    if not overwrite:
        if _is_finished(folder, release):
            logger.info("%s is already in %s: no images downloaded.", stem, folder)
            _add_records(folder, release, catalogue_url)
            return
        _refuse_other_source(folder, stem, "released", name)
    folder.mkdir(parents=True, exist_ok=True)
    if not fits.exists():
        download.download(f"{base_url.rstrip('/')}/{name}", part, magic=fits_file.MAGIC)
    fresh = overwrite or not (folder / layout.CATALOGUE_NAME).exists()
    catalogue = _download_catalogue(catalogue_url) if fresh else None
    if fits.exists():
        logger.info("Using %s, which is already there.", fits)
        _convert(fits, folder, name, stem, catalogue, overwrite)
        return
    try:
        _convert(part, folder, name, stem, catalogue, overwrite)
    except InputError as error:
        raise InputError(f"{error} The download is kept as {part}; delete it to start afresh.") from error
    part.unlink()
    download.notes_file(part).unlink(missing_ok=True)


def import_fits(
    path: Path,
    folder: Path,
    *,
    stem: str | None = None,
    catalogue_arrays: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Convert a FITS file to `<stem>_X.npy` (N, F, H, W) float32, `<stem>_y.npy` (N,) uint8 and `<stem>_source.json`.

    Where the table has more than the labels, the rest goes to `<stem>_catalogue.csv`, which `<stem>_source.json` names.
    path: plain, tile-compressed (fpack), or packed by gzip, bzip2 or xz; H, W ≥ 32. stem: by default the authors' name
    for an archive file, else the file's own, without what FITS and compression add to it. catalogue_arrays: folder with
    the authors' five catalogue arrays; the released sample gets a `release_catalogue.csv` from them or, without them,
    from its row order. overwrite: replace arrays of the same name that came from elsewhere.

    Raises InputError for a file that is not such, truncated or damaged, and for other data of the same name; OSError
    where the disk is full.
    """
    plain = fits_file.plain_name(path.name)
    authors = (release.stem for release in layout.RELEASES.values() if release.fits_name == f"{plain}.fits")
    stem = stem or next(authors, plain)
    if not stem or Path(stem).name != stem:
        raise InputError(f"Expected a plain name for the arrays, got {stem!r}; give a stem like my_survey.")
    catalogue = None if catalogue_arrays is None else _read_catalogue(catalogue_arrays)
    _convert(path, folder, path.name, stem, catalogue, overwrite)


def _convert(path: Path, folder: Path, name: str, stem: str, arrays: pd.DataFrame | None, overwrite: bool) -> None:
    """Write all files of one sample, or none; `name` is the FITS file's own name, without `.part`."""
    with fits_file.opened(path) as file:
        if len(file.shape) != 4 or min(file.shape[2:]) < dataset.SMALLEST_SIDE:
            raise InputError(
                f"Expected in {path} images (N, filters, H, W), channels first, with H, W ≥ {dataset.SMALLEST_SIDE}, "
                f"and a table of labels, got {file.contents}. Write it so."
            )
        labels, catalogue = fits_table.read(file)
        released = layout.is_released(file.shape, labels, f"{fits_file.plain_name(name)}.fits", stem)
        if arrays is not None and not released:
            raise InputError(f"The catalogue arrays belong to the released sample, but {path} is not that.")
        if released:
            source, catalogue = _released_source(file.shape[1], fits=name, bitpix=file.bitpix), arrays
        else:
            source = {
                "data_source": "own",
                "description": f"Own images, imported from {name}",
                "filters": [f"filter {i + 1}" for i in range(file.shape[1])],
                "doi": None,
                "catalogue": None if catalogue is None else f"{stem}_catalogue.csv",
                "masks": None,
                "settings": {"fits": name, "bitpix": file.bitpix},
            }
        if not overwrite:
            own_catalogue = None if released else source["catalogue"]
            _refuse_other_source(folder, stem, source["data_source"], name, own_catalogue)
        with ExitStack() as stack:
            # Renamed in reverse order: the sidecar, which vouches for the others, comes last.
            _write_records(stack, folder, stem, source, labels, catalogue)
            y, x = (
                stack.enter_context(stack.enter_context(replacing(folder / f"{stem}_{end}.npy")).open("wb"))
                for end in "yX"
            )
            np.save(y, labels)
            npy_file.write_header(x, np.float32, file.shape)
            step = max(1, CHUNK_BYTES // math.prod(file.shape[1:]))
            advance = stack.enter_context(progress_bar("converting", len(labels)))
            for start in range(0, len(labels), step):
                part = slice(start, min(start + step, len(labels)))
                x.write(np.ascontiguousarray(file.read(part), np.float32).data)
                advance(part.stop - start)


def _released_source(filters: int, **settings: Any) -> dict[str, Any]:
    return {
        "data_source": "released",
        "description": "DeepMerge, Illustris-1 at z = 2 (Ciprijanovic et al. 2020)",
        "filters": list(layout.release("noisy", filters).filters),
        "doi": layout.DOI,
        "catalogue": layout.CATALOGUE_NAME,
        "masks": None,
        "settings": settings,
    }


def _write_records(
    stack: ExitStack,
    folder: Path,
    stem: str,
    source: dict[str, Any],
    labels: np.ndarray,
    catalogue: pd.DataFrame | None,
) -> None:
    """Write the sidecar and the catalogue; for the released sample, if it is better than the one there."""
    dataset.write_source(stack.enter_context(replacing(dataset.source_file(folder / f"{stem}_X.npy"))), source)
    if not source["catalogue"]:
        return
    path = folder / source["catalogue"]
    if source["data_source"] == "released":
        if catalogue is None and path.exists():
            return
        catalogue = layout.layout_catalogue() if catalogue is None else catalogue
        mergers = catalogue["stage"].to_numpy() != "non-merger"
        if len(mergers) != len(labels) or (mergers != labels).any():
            raise InputError("Expected mergers in the same rows of catalogue arrays and labels; they differ.")
    assert catalogue is not None
    catalogue.to_csv(stack.enter_context(replacing(path)), index=False)


def _add_records(folder: Path, release: layout.Release, catalogue_url: str) -> None:
    """Give finished released arrays the sidecar or the catalogue that they lack."""
    images = folder / f"{release.stem}_X.npy"
    source, fresh = dataset.read_source(images), not (folder / layout.CATALOGUE_NAME).exists()
    if source and not fresh:
        return
    labels = np.load(folder / f"{release.stem}_y.npy").astype(np.uint8)
    layout.is_released(release.shape, labels, release.stem, release.stem)
    catalogue = _download_catalogue(catalogue_url) if fresh else None
    with ExitStack() as stack:
        source = source or _released_source(len(release.filters), fits=None)
        _write_records(stack, folder, release.stem, source, labels, catalogue)


def _is_finished(folder: Path, release: layout.Release) -> bool:
    """Whether both arrays are there in the released shapes and nothing says that they came from elsewhere."""
    images = folder / f"{release.stem}_X.npy"
    try:
        shapes = [np.load(folder / f"{release.stem}_{end}.npy", mmap_mode="r").shape for end in "Xy"]
    except (OSError, ValueError, EOFError):
        return False
    origin = dataset.read_source(images).get("data_source", "released")
    return shapes == [release.shape, release.shape[:1]] and origin == "released"


def _refuse_other_source(folder: Path, stem: str, data_source: str, name: str, catalogue: str | None = None) -> None:
    """Raise if arrays of that stem are there and their sidecar does not say that they came from this file.

    Also if a `catalogue` of that name is there which the sidecar does not name.
    """
    arrays = [path for end in "Xy" if (path := folder / f"{stem}_{end}.npy").exists()]
    recorded = dataset.read_source(folder / f"{stem}_X.npy")
    origin, file = recorded.get("data_source", "unknown"), (recorded.get("settings") or {}).get("fits")
    if arrays and not (origin == data_source and (origin == "released" or file == name)):
        raise InputError(
            f"{arrays[0]} holds {origin} data{f' from {file}' if file else ''}, not {name}. "
            "Choose another folder, or replace them with --overwrite (overwrite=True)."
        )
    if catalogue is not None and catalogue != recorded.get("catalogue") and (folder / catalogue).exists():
        raise InputError(
            f"{folder / catalogue} is there already and came from elsewhere. Choose another folder or stem, or replace "
            "it with --overwrite (overwrite=True)."
        )


def _read_catalogue(folder: Path) -> pd.DataFrame:
    paths = {name: folder / file for name, file in layout.CATALOGUE_FILES.items()}
    arrays = {name: np.array(dataset.open_array(path, f"catalogue array {name}")) for name, path in paths.items()}
    return layout.catalogue_from_arrays(**arrays)


def _download_catalogue(url: str) -> pd.DataFrame | None:
    with folder_aside("deepmerge") as scratch:
        try:
            for file in layout.CATALOGUE_FILES.values():
                download.download(f"{url.rstrip('/')}/{file}", scratch / file, magic=b"\x93NUMPY")
            return _read_catalogue(scratch)
        except InputError as error:
            logger.warning(
                "No catalogue arrays: %s Galaxy ids follow from the row order instead; past and future, "
                "mass, concentration and M20 are missing. Delete %s and fetch again to try once more.",
                error,
                layout.CATALOGUE_NAME,
            )
            return None
