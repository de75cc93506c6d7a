"""Images from the MAST archive or any FITS file: download, check, and convert to npy.

Accepted is plain FITS: images (N, F, H, W) of any numeric type in the first HDU (BSCALE, BZERO and BLANK are
applied), and a table of one column, the 0/1 labels, in the second. Compressed files are to be unpacked first.
"""

import errno
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from deepmerge.data import dataset, download, release
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
    base_url: str = release.ARCHIVE_URL,
    catalogue_url: str = release.CATALOGUE_URL,
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
    name, stem = release.fits_name(variant, filters), release.file_stem(variant, filters)
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
        fresh = overwrite or not (folder / release.CATALOGUE_NAME).exists()
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

    Args:
        path: plain FITS, images (N, F, H, W) in HDU 0 with H, W ≥ 32, 0/1 labels in the table of HDU 1.
        folder: where the arrays go, (N, F, H, W) float32 and (N,) uint8, in the machine's byte order.
        stem: name of the arrays; by default the authors' name for an archive file, else the file's own.
        catalogue_arrays: folder with the authors' five catalogue arrays. The released sample gets a
            `release_catalogue.csv` from them or, without them, from its row order.
        overwrite: replace arrays of the same name that came from elsewhere.

    Raises:
        InputError: not such a file, truncated or compressed, no space, or other data of the same name.
    """
    stem = stem or release.stems_by_fits_name().get(path.name, path.name.removesuffix(".fits"))
    if not stem or Path(stem).name != stem:
        raise InputError(f"Expected a plain name for the arrays, got {stem!r}; give a stem like my_survey.")
    catalogue = None if catalogue_arrays is None else _read_catalogue(catalogue_arrays)
    _convert(path, folder, path.name, stem, catalogue, overwrite)


# --- converting --------------------------------------------------------------------------------------------


def _convert(path: Path, folder: Path, name: str, stem: str, catalogue: pd.DataFrame | None, overwrite: bool) -> None:
    """Write all files of one sample, or none; `name` is the FITS file's own name, without `.part`."""
    with _open_images(path) as (images, labels):
        shape: tuple[int, ...] = images.shape
        released = release.is_released(shape, labels, name, stem)
        if not overwrite:
            _refuse_other_source(folder, stem, "released" if released else "own", name)
        if catalogue is not None and not released:
            raise InputError(f"The catalogue arrays belong to the released sample, but {path} is not that.")
        source = _source(name, shape[1], released, bitpix=images.header["BITPIX"])
        with explained_disk_errors(folder), ExitStack() as stack:
            # Renamed in reverse order: the sidecar, which vouches for the others, comes last.
            _write_records(stack, folder, stem, source, labels, catalogue)
            y, x = (stack.enter_context(replacing(folder / f"{stem}_{end}.npy")) for end in "yX")
            _write_npy(y, labels.shape, np.uint8, [labels])
            _write_npy(x, shape, np.float32, _chunks(images))


@contextmanager
def open_fits(path: Path) -> Iterator[Any]:
    """Yield the HDUs of a plain FITS file, the first one complete; sections of their data are read one by one.

    Raises InputError for a file that is no plain FITS, or truncated.
    """
    from astropy.io import fits
    from astropy.utils.exceptions import AstropyWarning

    _check_plain_fits(path)
    with ExitStack() as stack:
        # Of a truncated file astropy only warns; the checks below refuse it.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", AstropyWarning)
        with _explained_format_errors(path):
            # Sections of an unmapped file are read one by one: memory stays flat.
            hdus = stack.enter_context(fits.open(path, memmap=False))
            _check_complete(path, hdus[0])
        yield hdus


@contextmanager
def _open_images(path: Path) -> Iterator[tuple[Any, NDArray[np.uint8]]]:
    """Yield the image HDU and the (N,) labels of a FITS file, its layout and length checked."""
    with open_fits(path) as hdus:
        with _explained_format_errors(path):
            images = hdus[0]
            if len(hdus) < 2 or len(images.shape) != 4 or min(images.shape[2:]) < dataset.SMALLEST_SIDE:
                found = "; ".join(f"{hdu[3]} {hdu[5]}" for hdu in hdus.info(output=False))
                raise InputError(
                    f"Expected in {path} images (N, filters, H, W) with H, W ≥ {dataset.SMALLEST_SIDE} "
                    f"and a table of labels, got (axes reversed) {found}. Write it so, channels first and "
                    "uncompressed."
                )
            _check_complete(path, hdus[1])
            labels = _labels(path, hdus[1], images.shape[0])
        yield images, labels


@contextmanager
def _explained_format_errors(path: Path) -> Iterator[None]:
    from astropy.io import fits

    try:
        yield
    except InputError:
        raise
    except (OSError, TypeError, ValueError, KeyError, fits.VerifyError) as error:
        raise InputError(f"Expected a FITS file, but {path} cannot be read as one: {error}.") from error


def _check_plain_fits(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"Expected a FITS file, but there is none at {path}.")
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith((b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"PK", b"\xfd7zXZ")):
        raise InputError(f"Expected plain FITS, but {path} is compressed. Unpack it first (gunzip, unzip).")
    if start != b"SIMPLE  =":
        raise InputError(f"Expected a FITS file, but {path} is {download.kind_of(start)}. Download it again.")


def _check_complete(path: Path, hdu: Any) -> None:
    needed, size = hdu.fileinfo()["datLoc"] + hdu.size, path.stat().st_size
    if size < needed:
        raise InputError(
            f"{path} is truncated: its headers announce at least {needed} bytes, it has {size}. Get it again."
        )


def _labels(path: Path, table: Any, n: int) -> NDArray[np.uint8]:
    names = getattr(getattr(table, "columns", None), "names", [])
    if len(names) != 1:
        raise InputError(f"Expected in HDU 1 of {path} a table of one column, the label, got {names}.")
    labels = np.asarray(table.data.field(0)).ravel()
    if len(labels) != n or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"Expected in HDU 1 of {path} {n} labels, 1 (merger) or 0, one an image, "
            f"got {len(labels)} of the values {np.unique(labels)[:5].tolist()}."
        )
    return labels.astype(np.uint8)


def _chunks(images: Any) -> Iterator[NDArray[Any]]:
    n = images.shape[0]
    step = max(1, CHUNK_BYTES * n // images.size)
    with progress_bar("converting", n) as advance:
        for start in range(0, n, step):
            chunk = images.section[start : start + step]
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


def _source(name: str | None, filters: int, released: bool, **settings: Any) -> dict[str, Any]:
    own = f"Own images, imported from {name}"
    names = release.FILTERS[filters] if released else [f"filter {i + 1}" for i in range(filters)]
    return {
        "data_source": "released" if released else "own",
        "description": "DeepMerge, Illustris-1 at z = 2 (Ciprijanovic et al. 2020)" if released else own,
        "filters": list(names),
        "doi": release.DOI if released else None,
        "catalogue": release.CATALOGUE_NAME if released else None,
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
    """Write the sidecar and, for the released sample, a better catalogue than the one there, if any."""
    sidecar = stack.enter_context(replacing(dataset.source_file(folder / f"{stem}_X.npy")))
    sidecar.write_text(json.dumps(source, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    path = folder / release.CATALOGUE_NAME
    if not source["catalogue"] or (catalogue is None and path.exists()):
        return
    catalogue = release.layout_catalogue() if catalogue is None else catalogue
    mergers = catalogue["stage"].to_numpy() != "non-merger"
    if len(mergers) != len(labels) or (mergers != labels).any():
        raise InputError("Expected mergers in the same rows of catalogue arrays and labels; they differ.")
    catalogue.to_csv(stack.enter_context(replacing(path)), index=False)


def _add_records(folder: Path, stem: str, catalogue_url: str) -> None:
    """Give finished released arrays the sidecar or the catalogue that they lack."""
    images = folder / f"{stem}_X.npy"
    source, fresh = dataset.read_source(images), not (folder / release.CATALOGUE_NAME).exists()
    if source and not fresh:
        return
    shape = np.load(images, mmap_mode="r").shape
    labels = np.load(folder / f"{stem}_y.npy").astype(np.uint8)
    release.is_released(shape, labels, stem, stem)
    source = source or _source(None, shape[1], released=True)
    catalogue = _download_catalogue(catalogue_url) if fresh else None
    with ExitStack() as stack:
        _write_records(stack, folder, stem, source, labels, catalogue)


def _is_finished(folder: Path, stem: str, filters: int) -> bool:
    """Whether both arrays are there in the released shapes and nothing says that they came from elsewhere."""
    shapes = {"X": release.image_shape(filters), "y": (release.ROWS,)}
    try:
        arrays = {end: np.load(folder / f"{stem}_{end}.npy", mmap_mode="r") for end in shapes}
    except (OSError, ValueError, EOFError):
        return False
    right = all(arrays[end].shape == shape for end, shape in shapes.items())
    return right and dataset.read_source(folder / f"{stem}_X.npy").get("data_source", "released") == "released"


def _refuse_other_source(folder: Path, stem: str, data_source: str, name: str) -> None:
    """Raise if arrays of that stem are there and their sidecar does not say that they came from this file."""
    arrays = [path for end in "Xy" if (path := folder / f"{stem}_{end}.npy").exists()]
    recorded = dataset.read_source(folder / f"{stem}_X.npy")
    found, file = recorded.get("data_source", "unknown"), (recorded.get("settings") or {}).get("fits")
    if arrays and not (found == data_source and (found == "released" or file == name)):
        raise InputError(
            f"{arrays[0]} holds {found} data{f' from {file}' if file else ''}, not {name}. "
            "Choose another folder, or replace them with --overwrite (overwrite=True)."
        )


def _read_catalogue(folder: Path) -> pd.DataFrame:
    arrays = {}
    for argument, file in release.CATALOGUE_FILES.items():
        try:
            arrays[argument] = np.load(folder / file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"Expected the catalogue array {folder / file}, got: {error}.") from error
    return release.catalogue_from_arrays(**arrays)


def _download_catalogue(url: str) -> pd.DataFrame | None:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for file in release.CATALOGUE_FILES.values():
                download.download(_join(url, file), Path(scratch) / file, magic=b"\x93NUMPY")
            return _read_catalogue(Path(scratch))
        except InputError as error:
            logger.warning(
                "No catalogue arrays: %s Galaxy ids follow from the row order instead; past and future, "
                "mass, concentration and M20 are missing. Delete %s and fetch again to try once more.",
                error,
                release.CATALOGUE_NAME,
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
