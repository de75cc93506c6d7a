"""Images from the MAST archive or any FITS file: download, check, and convert to npy.

Accepted are images (N, F, H, W) of any numeric type in one HDU (see fits_file), and a table with as many rows that
holds the 0/1 labels and, if there is one, the catalogue (see fits_table). The archive's own files have the images in
the first HDU, and in the second a table of one column, the label.
"""

import errno
import json
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from deepmerge.data import dataset
from deepmerge.data.formats import fits_file, fits_table
from deepmerge.data.formats.fits_file import FitsFile
from deepmerge.data.released import download, layout
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.progress import progress_bar

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 24
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


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

    Raises:
        InputError: no such variant, no network, no space, not what the archive should serve, or other
            data of the same name in `folder` and not `overwrite`.
    """
    name, stem = layout.fits_name(variant, filters), layout.file_stem(variant, filters)
    fits, part = folder / name, folder / f"{name}.part"
    with explained_disk_errors(folder):
        if not overwrite:
            if _is_finished(folder, stem, filters):
                logger.info("%s is already in %s: no images downloaded.", stem, folder)
                _add_records(folder, stem, catalogue_url)
                return
            _refuse_other_source(folder, stem, "released", name)
        folder.mkdir(parents=True, exist_ok=True)
        if not fits.exists():
            download.download(_join(base_url, name), part, magic=b"SIMPLE  =")
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
    """Convert a FITS file on disk to `<stem>_X.npy`, `<stem>_y.npy` and `<stem>_source.json` in `folder`.

    Where the table has more than the labels, the rest goes to `<stem>_catalogue.csv`, which `<stem>_source.json` names.

    Args:
        path: images (N, F, H, W) in one HDU with H, W ≥ 32, and a table of N rows with 0/1 labels (see fits_table);
            plain, tile-compressed (fpack), or packed by gzip, bzip2 or xz.
        folder: where the arrays go, (N, F, H, W) float32 and (N,) uint8, in the machine's byte order.
        stem: name of the arrays; by default the authors' name for an archive file, else the file's own, without
            what FITS and compression add to it.
        catalogue_arrays: folder with the authors' five catalogue arrays. The released sample gets a
            `release_catalogue.csv` from them or, without them, from its row order.
        overwrite: replace arrays of the same name that came from elsewhere.

    Raises:
        InputError: not such a file, truncated or damaged, no space, or other data of the same name.
    """
    plain = fits_file.plain_name(path.name)
    stem = stem or layout.stems_by_fits_name().get(f"{plain}.fits", plain)
    if not stem or Path(stem).name != stem:
        raise InputError(f"Expected a plain name for the arrays, got {stem!r}; give a stem like my_survey.")
    catalogue = None if catalogue_arrays is None else _read_catalogue(catalogue_arrays)
    _convert(path, folder, path.name, stem, catalogue, overwrite)


# --- converting --------------------------------------------------------------------------------------------


def _convert(path: Path, folder: Path, name: str, stem: str, arrays: pd.DataFrame | None, overwrite: bool) -> None:
    """Write all files of one sample, or none; `name` is the FITS file's own name, without `.part`."""
    with fits_file.opened(path) as file:
        _require_stack(file)
        labels, catalogue = fits_table.read(file)
        released = layout.is_released(file.shape, labels, f"{fits_file.plain_name(name)}.fits", stem)
        if arrays is not None and not released:
            raise InputError(f"The catalogue arrays belong to the released sample, but {path} is not that.")
        own = None if catalogue is None else f"{stem}_catalogue.csv"
        if not overwrite:
            _refuse_other_source(folder, stem, "released" if released else "own", name, None if released else own)
        source = _source(name, file.shape[1], released, own, bitpix=file.bitpix)
        with explained_disk_errors(folder), ExitStack() as stack:
            # Renamed in reverse order: the sidecar, which vouches for the others, comes last.
            _write_records(stack, folder, stem, source, labels, arrays if released else catalogue)
            y, x = (stack.enter_context(replacing(folder / f"{stem}_{end}.npy")) for end in "yX")
            _write_npy(y, labels.shape, np.uint8, [labels])
            _write_npy(x, file.shape, np.float32, _chunks(file))


def _require_stack(file: FitsFile) -> None:
    if len(file.shape) != 4 or min(file.shape[2:]) < dataset.SMALLEST_SIDE:
        raise InputError(
            f"Expected in {file.path} images (N, filters, H, W), channels first, with H, W ≥ {dataset.SMALLEST_SIDE}, "
            f"and a table of labels, got {file.contents}. Write it so."
        )


def _chunks(file: FitsFile) -> Iterator[NDArray[Any]]:
    n = file.shape[0]
    step = max(1, CHUNK_BYTES // math.prod(file.shape[1:]))
    with progress_bar("converting", n) as advance:
        for start in range(0, n, step):
            chunk = file.read(slice(start, start + step))
            yield chunk
            advance(len(chunk))


def _write_npy(path: Path, shape: tuple[int, ...], dtype: DTypeLike, chunks: Iterable[NDArray[Any]]) -> None:
    # Written, not mapped: on a full disk a mapped file kills the process where a write raises.
    with path.open("wb") as out:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for chunk in chunks:
            out.write(np.ascontiguousarray(chunk, dtype=dtype).data)


# --- which sample it is, and the files that say so ---------------------------------------------------------


def _source(
    name: str | None, filters: int, released: bool, own_catalogue: str | None = None, **settings: Any
) -> dict[str, Any]:
    own = f"Own images, imported from {name}"
    names = layout.FILTERS[filters] if released else [f"filter {i + 1}" for i in range(filters)]
    return {
        "data_source": "released" if released else "own",
        "description": "DeepMerge, Illustris-1 at z = 2 (Ciprijanovic et al. 2020)" if released else own,
        "filters": list(names),
        "doi": layout.DOI if released else None,
        "catalogue": layout.CATALOGUE_NAME if released else own_catalogue,
        "masks": None,
        "settings": {"fits": name, **settings},
    }


def _write_records(
    stack: ExitStack,
    folder: Path,
    stem: str,
    source: dict[str, Any],
    labels: NDArray[np.uint8],
    catalogue: pd.DataFrame | None,
) -> None:
    """Write the sidecar and the catalogue; for the released sample, if it is better than the one there."""
    sidecar = stack.enter_context(replacing(dataset.source_file(folder / f"{stem}_X.npy")))
    sidecar.write_text(json.dumps(source, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
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


def _add_records(folder: Path, stem: str, catalogue_url: str) -> None:
    """Give finished released arrays the sidecar or the catalogue that they lack."""
    images = folder / f"{stem}_X.npy"
    source, fresh = dataset.read_source(images), not (folder / layout.CATALOGUE_NAME).exists()
    if source and not fresh:
        return
    shape = np.load(images, mmap_mode="r").shape
    labels = np.load(folder / f"{stem}_y.npy").astype(np.uint8)
    layout.is_released(shape, labels, stem, stem)
    source = source or _source(None, shape[1], released=True)
    catalogue = _download_catalogue(catalogue_url) if fresh else None
    with ExitStack() as stack:
        _write_records(stack, folder, stem, source, labels, catalogue)


def _is_finished(folder: Path, stem: str, filters: int) -> bool:
    """Whether both arrays are there in the released shapes and nothing says that they came from elsewhere."""
    shapes = {"X": layout.image_shape(filters), "y": (layout.ROWS,)}
    try:
        arrays = {end: np.load(folder / f"{stem}_{end}.npy", mmap_mode="r") for end in shapes}
    except (OSError, ValueError, EOFError):
        return False
    right = all(arrays[end].shape == shape for end, shape in shapes.items())
    return right and dataset.read_source(folder / f"{stem}_X.npy").get("data_source", "released") == "released"


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
    arrays = {}
    for argument, file in layout.CATALOGUE_FILES.items():
        try:
            arrays[argument] = np.load(folder / file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"Expected the catalogue array {folder / file}, got: {error}.") from error
    return layout.catalogue_from_arrays(**arrays)


def _download_catalogue(url: str) -> pd.DataFrame | None:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for file in layout.CATALOGUE_FILES.values():
                download.download(_join(url, file), Path(scratch) / file, magic=b"\x93NUMPY")
            return _read_catalogue(Path(scratch))
        except InputError as error:
            logger.warning(
                "No catalogue arrays: %s Galaxy ids follow from the row order instead; past and future, "
                "mass, concentration and M20 are missing. Delete %s and fetch again to try once more.",
                error,
                layout.CATALOGUE_NAME,
            )
            return None


def _join(base: str, name: str) -> str:
    return f"{base.rstrip('/')}/{name}"


@contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Turn what a full, missing or protected disk raises into an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(
            f"Cannot write to {folder}: {error.strerror}. Free some space or choose another folder, then run "
            "the same command again."
        ) from error
