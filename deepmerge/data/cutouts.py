"""Cutouts: from a catalogue of positions and mosaics of the sky, one a filter, to images that training reads."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from deepmerge.config import yaml_file
from deepmerge.data import catalogue as catalogues
from deepmerge.data import mosaics, positions
from deepmerge.data.dataset import SMALLEST_SIDE
from deepmerge.data.formats import fits_file
from deepmerge.data.formats.columns import LABELS, find
from deepmerge.data.mosaics import Mosaic
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.progress import progress_bar

log = logging.getLogger(__name__)

SIZE = 75  # pixels, as in the release
BLANK = 0.1  # share of pixels without a value above which an object is left out
ENDS = {  # what is written, by its end behind the stem; the images last
    "experiment": ".yaml",
    "left_out": "_left_out.csv",
    "source": "_source.json",
    "catalogue": "_catalogue.csv",
    "labels": "_y.npy",
    "images": "_X.npy",
}


def cut(
    catalogue: Path,
    paths: Sequence[Path],
    folder: Path,
    *,
    size: int = SIZE,
    blank: float = BLANK,
    filters: Sequence[str] | None = None,
    stem: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Cut images (N, F, size, size) float32 out of mosaics around the positions of a catalogue.

    Writes to `folder`, all of it or nothing: `<stem>_X.npy`; `<stem>_catalogue.csv`, a row an image in the same order
    with galaxy_id, ra, dec, the catalogue's other columns and catalogue_row, from 0; `<stem>_left_out.csv`, the objects
    without an image and the reason; `<stem>_source.json`; `<stem>_y.npy` where the catalogue has labels; and, where
    these are of both classes, the experiment `<stem>.yaml`. An object has no image where it is not wholly on every
    mosaic, or where more than the share `blank` of its pixels in a filter is NaN or exactly 0. By default `stem` is the
    catalogue's name, and `filters` are what the headers say (FILTER), or else the names of the files.

    Raises InputError for catalogues and mosaics that cannot be read or do not fit one another, and for older files.
    """
    if size < SMALLEST_SIDE:
        raise InputError(f"size should be at least {SMALLEST_SIDE} pixels, got {size}")
    if not 0 <= blank < 1:
        raise InputError(f"blank should be a share from 0 to below 1, got {blank}")
    files = _files(folder, stem or fits_file.plain_name(catalogue.name).partition(".")[0])
    if not overwrite and (there := [path for path in files.values() if path.exists()]):
        raise InputError(f"{there[0]} is there already; choose another folder or stem, or replace it with --overwrite")
    table, labels = _objects(catalogue)
    with mosaics.opened(paths, size) as opened, ExitStack() as stack:
        names = _names(filters, opened)

        def aside(what: str) -> Path:
            return stack.enter_context(replacing(files[what]))

        images = aside("images")
        with images.open("wb") as file:
            cuts = _cut_all(file, table, opened, names, size, blank)
        if not cuts.rows:
            raise _none_left(catalogue, table, opened, cuts)
        left_out = table.loc[list(cuts.reasons), ["galaxy_id", "ra", "dec"]]
        left_out = left_out.assign(catalogue_row=list(cuts.reasons), reason=list(cuts.reasons.values()))
        left_out.to_csv(aside("left_out"), index=False)
        kept = table.iloc[cuts.rows].assign(catalogue_row=cuts.rows)
        if labels is not None:
            kept.insert(3, "label", labels[cuts.rows])
            with aside("labels").open("wb") as file:
                np.save(file, labels[cuts.rows])
        kept.to_csv(aside("catalogue"), index=False)
        made_of = {"catalogue": catalogue.name, "mosaics": [path.name for path in paths], "size": size}
        source = {"data_source": "own", "filters": names, "catalogue": files["catalogue"].name, "settings": made_of}
        aside("source").write_text(json.dumps(source, indent=2) + "\n")
        trainable = labels is not None and len(np.unique(labels[cuts.rows])) == 2
        if trainable:
            aside("experiment").write_text(_experiment(files, catalogue, cuts.undefined > 0))
    for what in ("labels",) * (labels is None) + ("experiment",) * (not trainable):
        files[what].unlink(missing_ok=True)  # of other images, which these replaced
    _report(cuts, len(table), files)
    results = {"images": len(cuts.rows), "left_out": len(cuts.reasons), "written": str(files["images"])}
    return {**results, "experiment": str(files["experiment"])} if trainable else results


@dataclass
class _Cuts:
    """What became of the rows of a catalogue: those with an image in order, the reasons of the others by row.

    undefined: images that hold NaN.
    """

    rows: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)
    undefined: int = 0


def _files(folder: Path, stem: str) -> dict[str, Path]:
    if not stem or Path(stem).name != stem:
        raise InputError(f"stem should be a plain name such as my_survey, got {stem!r}")
    return {what: folder / f"{stem}{end}" for what, end in ENDS.items()}


def _objects(path: Path) -> tuple[pd.DataFrame, np.ndarray | None]:
    """The objects of a catalogue, galaxy_id, ra and dec first; their labels (n,) uint8 where it has any."""
    table = positions.read(path)
    if table.empty:
        raise InputError(f"catalogue {path} should hold at least one object, got none")
    if "galaxy_id" not in table:
        log.warning("no column of %s is an id: the objects are numbered by their rows, from 0", path)
        table.insert(0, "galaxy_id", np.arange(len(table)))
    table = table.drop(columns=["row", "catalogue_row"], errors="ignore")  # those of another order than the images'
    name = find(list(table.columns), LABELS)
    if name is None:
        return table, None
    labels = catalogues.classes(table[name])
    wrong = np.flatnonzero(~labels.isin([0, 1]))
    if len(wrong):
        raise InputError(
            f"{name} in {path} should be 1 (merger) or 0 in every row, got {table[name][wrong[0]]!r} in data row "
            f"{wrong[0]} ({len(wrong)} such rows); complete it, or call it otherwise if it is no label"
        )
    return table.drop(columns=name), labels.to_numpy(np.uint8)


def _names(filters: Sequence[str] | None, opened: Sequence[Mosaic]) -> list[str]:
    """Names of the filters, all different."""
    if filters is None:
        for names in ([m.filter for m in opened], [fits_file.plain_name(m.path.name) for m in opened]):
            if None not in names and len(set(names)) == len(opened):
                return [str(name) for name in names]
        return [f"filter {number}" for number in range(1, len(opened) + 1)]
    if len(filters) != len(opened) or len(set(filters)) != len(filters) or not all(filters):
        raise InputError(f"filters should be {len(opened)} different names, one a mosaic, got {', '.join(filters)}")
    return list(filters)


def _cut_all(
    file: BinaryIO, table: pd.DataFrame, opened: Sequence[Mosaic], names: Sequence[str], size: int, blank: float
) -> _Cuts:
    """Write the images of all objects that have one as npy, one after the other, so that memory stays flat."""
    cuts = _Cuts()
    places = [mosaic.pixels_of(table["ra"].to_numpy(), table["dec"].to_numpy()) for mosaic in opened]

    def begin() -> None:  # numpy leaves room in the header for any number of images
        shape = (len(cuts.rows), len(opened), size, size)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    begin()
    with progress_bar("Cutting out", len(table)) as advance:
        for row in range(len(table)):
            image = np.empty((len(opened), size, size), "<f4")
            reason = ""
            for number, mosaic in enumerate(opened):
                pixels = mosaic.cut(places[number][row], size)
                if pixels is None:
                    where = places[number][row]
                    inside = ((where > -0.5) & (where < np.array(mosaic.shape[::-1]) - 0.5)).all()
                    reason = f"{'over the edge of' if inside else 'not on'} the {names[number]} mosaic"
                elif np.mean(~np.isfinite(pixels) | (pixels == 0)) > blank:
                    reason = f"blank (NaN or 0) in the {names[number]} mosaic"
                if reason:
                    cuts.reasons[row] = reason
                    break
                image[number] = pixels
            else:
                file.write(image.tobytes())
                cuts.rows.append(row)
                cuts.undefined += bool(np.isnan(image).any())
            advance()
    file.seek(0)
    begin()
    return cuts


def _none_left(catalogue: Path, table: pd.DataFrame, opened: Sequence[Mosaic], cuts: _Cuts) -> InputError:
    ra, mosaic = table["ra"].to_numpy(), opened[0]
    mend = "check that they are of one part of the sky, and the size"
    if ra.max() <= 24:
        places = mosaic.pixels_of(15 * ra, table["dec"].to_numpy())
        if ((places > 0) & (places < mosaic.shape[::-1])).all(1).any():
            mend = "ra seems to be in hours: multiply it by 15"
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(cuts.reasons.values()).most_common(3))
    return InputError(f"objects of {catalogue} should lie on the mosaics, got none that does: {reasons}; {mend}")


def _experiment(files: dict[str, Path], catalogue: Path, undefined: bool) -> str:
    """The experiment file of the images; its paths start at its folder."""
    data: dict[str, Any] = {what: files[what].name for what in ("images", "labels", "catalogue")}
    if undefined:
        data["missing"] = {"value": "nan", "fill": 0}
    return f"# Cutouts around the objects of {catalogue.name}; all other settings have their defaults.\n" + (
        yaml_file.written({"data": data})
    )


def _report(cuts: _Cuts, objects: int, files: dict[str, Path]) -> None:
    for reason, count in Counter(cuts.reasons.values()).most_common():
        log.warning("%d of %d objects left out, listed in %s: %s", count, objects, files["left_out"], reason)
    if cuts.undefined:
        log.warning(
            "%d images have pixels that are NaN; data.missing says what a network takes them for", cuts.undefined
        )
