"""Images that lie in files of their own: named by a table, or in a folder with a folder for each class."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deepmerge import config
from deepmerge.data.catalogue import COLUMNS
from deepmerge.data.formats import any_table, fits_file, stamps
from deepmerge.data.formats.columns import find, named, wanted
from deepmerge.errors import InputError

log = logging.getLogger(__name__)

MOST_TOLD = 10  # files that a message names
CATALOGUE = "catalogue"  # stem of the table that a folder is read by, where it holds one


@dataclass(frozen=True)
class Files:
    """The files of N images, each `names` (N,) of one or of one a filter, below `folder`, and the table of N rows."""

    where: Path
    folder: Path
    names: list[tuple[str, ...]]
    table: pd.DataFrame
    filters: tuple[str, ...] | None


def listed(path: Path, data: config.Data) -> Files:
    """The files that a table names, or those in the class folders of a folder.

    A folder that holds a table called catalogue is read by that. Raises InputError for a table or a folder that does
    not say which file belongs to which image, and tells together of rows without a file, files in several rows and
    files without a row; the last alone are a warning.
    """
    if not path.is_dir():
        return _of_table(path, data)
    tables = [
        file
        for file in sorted(path.glob(f"{CATALOGUE}.*"))
        if any_table.is_table(file) or fits_file.plain_name(file.name) != file.name
    ]
    if len(tables) > 1:
        raise InputError(f"{path} should hold one catalogue, got {', '.join(file.name for file in tables)}; name one")
    return _of_table(tables[0], data) if tables else _of_folder(path)


def _of_table(path: Path, data: config.Data) -> Files:
    asked = data.columns
    several = isinstance(asked.file, list)
    needed = [[name] for name in asked.file] if isinstance(asked.file, list) else [wanted("file", asked)]
    table = any_table.read(path, "table of files", needed, COLUMNS)
    if not len(table):
        raise InputError(f"table of files {path} should have a row for each image, got none")
    columns = [str(find(list(table.columns), names)) for names in needed]
    names = list(zip(*(table[column] for column in columns), strict=True))
    folder = path.parent if data.folder is None else data.folder
    _check(names, folder, path)
    named_table = named(table, asked, path, data.labels is not None)
    if not several:
        named_table = named_table.rename(columns={columns[0]: "file"})
    plain = (re.sub(r"(?i)[\s_-]*(file|filename|path|image)$", "", column) for column in columns)
    return Files(path, folder, names, named_table, tuple(plain) if several else None)


def _of_folder(folder: Path) -> Files:
    found = sorted(path.relative_to(folder) for path in folder.rglob("*") if stamps.is_image(path.name))
    outside = [path for path in found if len(path.parts) == 1]
    if outside or not found:
        raise InputError(
            f"{folder} should hold a table {CATALOGUE}.csv that names files, or a folder of images for each class, "
            f"such as merger and non-merger, got {len(outside) or 'no'} images"
            + (f" beside the folders ({outside[0]} is the first)" if outside else "")
        )
    names = [path.as_posix() for path in found]
    table = pd.DataFrame({"file": names, "label": [path.parts[0] for path in found]}, dtype="str")
    return Files(folder, folder, [(name,) for name in names], table, None)


def _check(names: list[tuple[str, ...]], folder: Path, path: Path) -> None:
    """Tell of rows without a file, of files in several rows, and of files without a row."""
    rows: dict[str, list[int]] = defaultdict(list)
    there: dict[str, set[str]] = {}  # the files of each folder that is named
    missing = []
    for row, group in enumerate(names):
        for name in group:
            file = os.path.normpath(joined(folder, name))
            place = file.rpartition(os.sep)[0]
            if place not in there:
                there[place] = _files_in(place)
            if name and file in there[place]:
                rows[file].append(row)
            else:
                missing.append(f"data row {row}: {name or 'nothing'}")
    repeated = [
        f"{os.path.relpath(file, folder)} in data rows {' and '.join(map(str, places[:3]))}"
        for file, places in rows.items()
        if len(places) > 1
    ]
    unnamed = set().union(*there.values()) - rows.keys() - {os.path.normpath(path)}
    without = [os.path.relpath(file, folder) for file in sorted(unnamed) if stamps.is_image(file)]
    said = [
        f"{_number(missing, 'file')} not there ({_some(missing)})" if missing else "",
        f"{_number(repeated, 'file')} named more than once ({_some(repeated)})" if repeated else "",
        f"{_number(without, 'image')} without a row ({_some(without)})" if without else "",
    ]
    problems = "; ".join(each for each in said if each)
    if missing or repeated:
        raise InputError(
            f"{path} should name the files of its images in {folder}, each once, but: {problems}; mend the table, or "
            "name the folder of the files: 'folder:' below 'data:'"
        )
    if without:
        log.warning("%s: %s, left out", path, problems)


def joined(folder: Path, name: str) -> str:
    """Where a file of this name lies, as text: a Path for each of 10⁵ files would take seconds."""
    return os.path.join(folder, name)  # noqa: PTH118


def _files_in(folder: str) -> set[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return {os.path.normpath(entry.path) for entry in entries if entry.is_file()}
    except OSError:
        return set()


def _number(found: list[str], what: str) -> str:
    return f"{len(found)} {what}{'s' if len(found) > 1 else ''}"


def _some(found: Iterable[str]) -> str:
    found = list(found)
    return "; ".join(found[:MOST_TOLD]) + ("; …" if len(found) > MOST_TOLD else "")
