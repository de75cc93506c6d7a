"""Images decoded into the cache: those of many files by several processes, those of an array piece by piece."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepmerge import cluster, config
from deepmerge.data.formats import cache, stamps
from deepmerge.data.formats.files import MOST_TOLD, Files, joined
from deepmerge.data.formats.sizes import channels_first, choose, fit
from deepmerge.data.memory_map import forget
from deepmerge.errors import InputError
from deepmerge.progress import progress_bar

PART = 64  # files that a process decodes in one go
MANY = 3000  # files that take longer to decode than further processes take to start
_PIECE_BYTES = 32 * 2**20


def of_files(found: Files, data: config.Data, workers: cluster.Where = None) -> np.ndarray:
    """Images (N, F, H, W), memory-mapped, decoded by `workers` processes (of many, by default one a core) if need be.

    Raises InputError that names the files which cannot be read, or differ from the first, up to MOST_TOLD.
    """
    states = [tuple(cache.state(joined(found.folder, name)) for name in names) for names in found.names]
    made_from = [*_wanted(data), *zip(found.names, states, strict=True)]
    processes = 1 if workers is None and len(found.names) < MANY else workers
    return cache.array(data.cache, found.where.stem, made_from, lambda into: _decode(found, data, into, processes))


def of_array(
    data: config.Data, path: Path, part: str | None, shape: tuple[int, ...], read: Callable[[slice], np.ndarray]
) -> np.ndarray:
    """Images (N, F, H, W), memory-mapped, of an array of `shape` in a file, which `read` gives slices of.

    Channels may come last, or be missing. Raises InputError for another shape, and for images smaller than the size.
    """
    if len(shape) not in (3, 4) or 0 in shape:
        raise InputError(f"images in {path} should have shape (N, filters, H, W) or (N, H, W, filters), got {shape}")
    try:
        first = _decoded(read(slice(0, 1)), data)
    except InputError as error:
        raise InputError(f"images in {path} have {error}") from None

    def make(into: Path) -> None:
        out = cache.create(into, (shape[0], *first.shape[1:]), first.dtype.newbyteorder("="))
        step = max(1, _PIECE_BYTES // (int(np.prod(shape[1:])) * first.itemsize))
        with progress_bar("Decoding images", shape[0]) as advance:
            for start in range(0, shape[0], step):
                rows = slice(start, min(start + step, shape[0]))
                out[rows] = _decoded(read(rows), data)
                forget(out)
                advance(rows.stop - rows.start)

    name = f"{path.stem}-{part.replace('/', '-')}" if part else path.stem
    return cache.array(data.cache, name, [*_wanted(data), part, path.name, cache.state(path)], make)


def _wanted(data: config.Data) -> tuple[object, ...]:
    """What decoded images depend on beside their files."""
    return data.size, data.resize, data.filters


def _decoded(images: np.ndarray, data: config.Data) -> np.ndarray:
    return choose(fit(channels_first(images), data.size, data.resize), data.filters)


@dataclass(frozen=True)
class _Part:
    """What a process decodes in one go: rows from `start`, as `data` wants them, into the array in the file `into`."""

    start: int
    paths: list[tuple[Path, ...]]
    into: Path
    data: config.Data


def _decode(found: Files, data: config.Data, into: Path, workers: cluster.Where) -> None:
    paths = [tuple(found.folder / name for name in names) for names in found.names]
    problems: dict[int, str] = {}
    for row, image in enumerate(paths):
        try:
            first = stamps.read(image, data)
            break
        except InputError as error:
            problems[row] = str(error)
            if len(problems) == MOST_TOLD:
                raise _refusal(found, problems) from None
    else:
        raise _refusal(found, problems)
    cache.create(into, (len(paths), *first.shape), first.dtype)
    parts = [_Part(start, paths[start : start + PART], into, data) for start in range(0, len(paths), PART)]
    with progress_bar("Decoding images", len(paths)) as advance, cluster.opened(workers, len(parts)) as room:
        for part, wrong in zip(parts, room.map(_decode_part, parts), strict=True):
            problems.update(wrong)
            if len(problems) >= MOST_TOLD:
                break
            advance(len(part.paths))
    if problems:
        raise _refusal(found, problems)


def _decode_part(part: _Part) -> dict[int, str]:
    """Decode files; what is wrong with them by row."""
    out = np.lib.format.open_memmap(part.into, "r+")
    problems = {}
    for row, paths in enumerate(part.paths, part.start):
        try:
            image = stamps.read(paths, part.data)
            if image.shape != out.shape[1:] or image.dtype != out.dtype:
                expected = stamps.text(np.empty(out.shape[1:], out.dtype))
                mend = "; 'size:' brings all to one" if image.shape[1:] != out.shape[2:] else ""
                raise InputError(f"{stamps.text(image)}, expected {expected} as in the first{mend}")
            out[row] = image
        except InputError as error:
            problems[row] = str(error)
    forget(out)
    return problems


def _refusal(found: Files, problems: dict[int, str]) -> InputError:
    told = dict(sorted(problems.items())[:MOST_TOLD])
    said = "; ".join(
        f"file {row + 1} of {len(found.names)}, {', '.join(found.names[row])}: {problem}"
        for row, problem in told.items()
    )
    more = ", and perhaps further ones" if len(told) == MOST_TOLD else ""
    return InputError(f"the images of {found.where} cannot all be read: {said}{more}; get them anew, or leave them out")
