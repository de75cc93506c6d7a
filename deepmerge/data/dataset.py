"""A data set: images, labels and catalogue, read memory-mapped and checked."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import catalogue as catalogues
from deepmerge.data import labels as labels_of
from deepmerge.data import tags
from deepmerge.data.formats import sources
from deepmerge.data.formats.arrays import open_array
from deepmerge.data.formats.sizes import SMALLEST_SIDE
from deepmerge.data.memory_map import forget
from deepmerge.data.missing import found
from deepmerge.data.released import layout
from deepmerge.errors import InputError

log = logging.getLogger(__name__)

SOURCES = ("simulated", "released", "own")
CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Dataset:
    """Images with labels and one catalogue row each.

    images (N, F, H, W), memory-mapped, any numeric type; labels (N,) uint8, 1 = merger;
    catalogue N rows with at least galaxy_id, view, copy, stage; masks (N, H, W) or None;
    data_source one of SOURCES; filters: the F names; catalogued: whether galaxy ids say more than row numbers; missing:
    what stands for pixels that were not measured; excluded: rows (k,) that no split holds, whatever their pixels are.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    catalogue: pd.DataFrame
    masks: np.ndarray | None
    data_source: str
    filters: tuple[str, ...]
    catalogued: bool = True
    missing: config.Missing | None = None
    excluded: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        galaxy_id: Sequence[Any] | np.ndarray | None = None,
        catalogue: pd.DataFrame | None = None,
        masks: np.ndarray | None = None,
        filters: Sequence[str] | None = None,
        name: str = "arrays",
    ) -> "Dataset":
        """A data set of arrays, in memory or memory-mapped.

        images (N, F, H, W), any numeric type, H and W at least SMALLEST_SIDE; labels (N,), 1 = merger, 0 = non-merger;
        galaxy_id (N,), the same for all images of a galaxy, or a catalogue with a column of that name and perhaps view,
        copy and stage; without both each image counts as a galaxy of its own. masks (N, H, W), 1 on merger features;
        filters: F names. Raises InputError where they do not fit one another.

        Example: ``Dataset.from_arrays(x, y, galaxy_id=ids)``
        """
        if galaxy_id is not None and catalogue is not None:
            raise InputError("give galaxy_id or a catalogue that holds it, got both")
        where = "the arrays given"
        images = _checked_images(np.asanyarray(images), where)
        labels = labels_of.checked(np.asarray(labels), len(images), where)
        table = pd.DataFrame({"galaxy_id": list(galaxy_id)}) if galaxy_id is not None else catalogue
        names = tuple(filters or _numbered_filters(images))
        if len(names) != images.shape[1]:
            raise InputError(f"filters should be {images.shape[1]}, as the images have, got {', '.join(names)}")
        return cls(
            name=name,
            images=images,
            labels=labels,
            catalogue=catalogues.read(None, labels) if table is None else catalogues.from_table(table, labels),
            masks=None if masks is None else _checked_masks(np.asanyarray(masks), images, where),
            data_source="own",
            filters=names,
            catalogued=table is not None,
        )

    @cached_property
    def galaxies(self) -> np.ndarray:
        """Galaxy number of each image, (N,), 0 … number of galaxies − 1 in order of galaxy_id."""
        return np.unique(self.catalogue["galaxy_id"].to_numpy(), return_inverse=True)[1]

    @cached_property
    def used(self) -> np.ndarray:
        """Whether an image may train, validate or test, (N,) bool: all but the excluded ones."""
        used = np.ones(len(self.labels), bool)
        used[self.excluded] = False
        return used

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits that change with any pixel, label, galaxy id, copy or stage, and any row excluded."""
        digest = hashlib.sha256(f"{self.images.shape}{self.images.dtype}".encode())
        for chunk in chunks(self.images):
            digest.update(np.ascontiguousarray(self.images[chunk]).data)
        digest.update(self.labels.tobytes())
        digest.update(self.catalogue[["galaxy_id", "view", "copy", "stage"]].to_csv(index=False).encode())
        digest.update(self.excluded.astype(np.int64).tobytes())
        return digest.hexdigest()[:32]


def chunks(images: np.ndarray) -> Iterator[slice]:
    """Slices that walk over the first axis of `images` in pieces of about 64 MiB, and give back its memory."""
    rows = max(1, CHUNK_BYTES // max(1, images[0].nbytes)) if len(images) else 1
    for start in range(0, len(images), rows):
        yield slice(start, min(start + rows, len(images)))
        forget(images)


def read(files: config.Data, name: str, workers: int | None = None) -> Dataset:
    """Open the images that an experiment names, in any format of `formats.sources`, with labels and catalogue.

    workers: processes that decode images; by default one a core where there are many. Raises InputError where images,
    labels and catalogue do not fit one another.
    """
    found = sources.read(files, workers)
    images, where = _checked_images(found.images, files.images), files.images
    source = {} if files.images.is_dir() else read_source(files.images)
    filters = tuple(source.get("filters") or found.filters or _numbered_filters(images))
    if len(filters) != images.shape[1]:
        raise InputError(
            f"filters in {source_file(files.images)} should be the {images.shape[1]} of {files.images}, got "
            f"{len(filters)} ({', '.join(filters)}); name those of the array, or delete that file if it tells of others"
        )
    table, catalogue_file = found.table, files.catalogue or _beside(files.images, source, "catalogue")
    if catalogue_file is not None:
        labelled = files.labels is not None or (table is not None and "label" in table)
        table, where = catalogues.table(catalogue_file, files.columns, labelled), catalogue_file
    labels = _labels(files, len(images), {files.images: found.table, where: table})
    if table is not None and "label" in table and files.mergers is not None:
        table["label"] = labels_of.of_cells(table["label"], files.mergers, where).astype(str)
    catalogued = table is not None and "galaxy_id" in table
    if table is None or (not catalogued and len(labels) == layout.ROWS):
        catalogue = catalogues.read(None, labels)
    else:
        if not catalogued:
            log.warning("no ids in %s: each of the %d images counts as a galaxy of its own", where, len(labels))
            table["galaxy_id"] = np.arange(len(table)).astype(str)
        catalogue = catalogues.from_table(table, labels, where)
    masks_file = files.masks or _beside(files.images, source, "masks")
    data = Dataset(
        name=name,
        images=images,
        labels=labels,
        catalogue=catalogue,
        masks=None if masks_file is None else _checked_masks(open_array(masks_file, "masks"), images, masks_file),
        data_source=source.get("data_source", "own"),
        filters=filters,
        catalogued=catalogued or len(labels) == layout.ROWS,
        missing=files.missing,
    )
    return corrected(data, files)


def corrected(data: Dataset, files: config.Data) -> Dataset:
    """The data without the images that the settings exclude, and with the labels that these correct.

    A galaxy that is said to be a merger gets the stage 'merger', since nobody said which. Raises InputError where the
    tables do not fit the images, and where one class is left.
    """
    ids = data.catalogue["galaxy_id"]
    if files.relabel is not None:
        labels = tags.relabelled(files.relabel, ids, data.labels)
        changed = labels != data.labels
        catalogue = data.catalogue.copy()
        catalogue.loc[changed, "stage"] = np.where(labels[changed] == 1, "merger", "non-merger")
        if "label" in catalogue:
            catalogue["label"] = labels
        log.info("%d galaxies of %s have another label by %s", ids[changed].nunique(), data.name, files.relabel)
        data = replace(data, labels=labels, catalogue=catalogue)
    if files.exclude is not None:
        data = replace(data, excluded=tags.excluded(files.exclude, ids))
        log.info("%d images of %s are left out by %s", len(data.excluded), data.name, files.exclude)
    if tables := [str(path) for path in (files.relabel, files.exclude) if path is not None]:
        labels_of.checked(data.labels[data.used], int(data.used.sum()), f"{files.images} by {' and '.join(tables)}")
    return data


def _labels(files: config.Data, count: int, tables: dict[Path, pd.DataFrame | None]) -> np.ndarray:
    """Labels (N,) from the array that the experiment names, or else from the first table that holds any."""
    if files.labels is not None:
        return labels_of.checked(open_array(files.labels, "labels"), count, files.labels)
    known = {where: table for where, table in tables.items() if table is not None}
    for where, table in known.items():
        if "label" in table:
            return labels_of.checked(labels_of.of_cells(table["label"], files.mergers, where), count, where)
        if "stage" in table:
            return labels_of.checked(labels_of.of_stages(table["stage"], where), count, where)
    held = "; ".join(f"the columns {', '.join(table.columns)}" for table in known.values()) or "no table"
    raise InputError(
        f"the images in {files.images} should come with labels, got {held}; name the column, 'columns: {{label: …}}', "
        "or an npy of labels, 'labels:', below 'data:'"
    )


def require_finite(dataset: Dataset) -> None:
    """Raise InputError where a pixel is NaN or infinite; a network can swallow these without a sign."""
    for chunk in chunks(dataset.images):
        with np.errstate(over="ignore"):  # what float32, the network's type, cannot hold is infinite to it
            pixels = np.asarray(dataset.images[chunk], np.float32)
        finite = (np.isfinite(pixels) | found(pixels, dataset.missing)).all(axis=(1, 2, 3))
        bad = np.flatnonzero(~finite & dataset.used[chunk])
        if len(bad):
            raise InputError(
                f"images of {dataset.name} should be finite, got NaN or infinite pixels in row {chunk.start + bad[0]}; "
                "'deepmerge data check' counts them; say data.missing: {value: nan, fill: 0}, mask them with 0, or "
                "leave those images out with data.exclude"
            )


def source_file(images: Path) -> Path:
    """Where the provenance of an image file is noted: ``pristine_2filt_X.npy`` → ``pristine_2filt_source.json``."""
    return images.with_name(images.stem.removesuffix("_X") + "_source.json")


def read_source(images: Path) -> dict[str, Any]:
    """Provenance of an image file as its maker (simulate, fetch, import) noted it; empty where nobody did.

    Raises InputError for a note that is not such as 'deepmerge data' writes.
    """
    path = source_file(images)
    if not path.is_file():
        return {}
    try:
        source = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        source = None
    if not isinstance(source, dict):
        raise InputError(
            f"{path} should be a JSON object as 'deepmerge data' writes it; delete it or make the data anew"
        )
    for key, right, expected in (
        ("data_source", lambda value: value in SOURCES, f"one of {', '.join(SOURCES)}"),
        ("filters", lambda value: value is None or _are_names(value), "a list of different names"),
        ("catalogue", lambda value: isinstance(value, str | None), "the name of a file, or null"),
        ("masks", lambda value: isinstance(value, str | None), "the name of a file, or null"),
        ("settings", lambda value: isinstance(value, dict | None), "an object, or null"),
    ):
        if key in source and not right(source[key]):
            raise InputError(
                f"{key} in {path} should be {expected}, got {source[key]!r}; mend or delete it, or make the data anew"
            )
    return source


def write_source(path: Path, source: Mapping[str, Any]) -> None:
    """Write the provenance of images as `read_source` reads it."""
    path.write_text(json.dumps(source, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _numbered_filters(images: np.ndarray) -> list[str]:
    return [f"filter {i + 1}" for i in range(images.shape[1])]


def _are_names(values: Any) -> bool:
    """Whether this is a list of texts, all different and none empty."""
    texts = isinstance(values, list) and all(isinstance(value, str) and value.strip() for value in values)
    return texts and len(set(values)) == len(values) > 0


def _beside(images: Path, source: dict[str, Any], what: str) -> Path | None:
    """The file that the provenance of `images` names as `what`, beside them; None where it names none."""
    if source.get(what) is None:
        return None
    path = images.parent / source[what]
    if not path.is_file():
        raise InputError(
            f"{what} expected at {path}, where there is no file; {source_file(images)} names it: bring it there, "
            f"or write null for {what} in that file"
        )
    return path


def _checked_images(images: np.ndarray, path: Path | str) -> np.ndarray:
    if images.dtype.kind not in "buif":
        raise InputError(f"images in {path} should be numbers, got {images.dtype}")
    if images.ndim != 4 or min(images.shape[2:]) < SMALLEST_SIDE or 0 in images.shape:
        raise InputError(
            f"images in {path} should have shape (N, filters, H, W) with H and W at least {SMALLEST_SIDE}, "
            f"got {images.shape}"
        )
    return images


def _checked_masks(masks: np.ndarray, images: np.ndarray, path: Path | str) -> np.ndarray:
    expected = (len(images), *images.shape[2:])
    if masks.shape != expected:
        raise InputError(f"masks in {path} should have shape {expected} like the images, got {masks.shape}")
    if masks.dtype.kind == "f" and not all(np.isfinite(masks[chunk]).all() for chunk in chunks(masks)):
        raise InputError(
            f"masks in {path} should be 0, or not where the feature is, got NaN or infinity; write 0 there"
        )
    return masks
