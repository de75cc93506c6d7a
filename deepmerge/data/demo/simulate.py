"""The embedded sample: mock galaxies in the layout of the released DeepMerge files, made anew from a seed.

It lets anyone run everything without a download. The sidecars say that it is simulated, not Illustris.
How galaxies move is in galaxy and orbits, how they shine in light and scene, what the telescope makes of it in
render; here are the sample as a whole and its files.
"""

import csv
import json
import math
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from deepmerge.cluster import Room, Where, opened
from deepmerge.data import demo
from deepmerge.data.demo import Ingredient
from deepmerge.data.demo.render import FILTERS, IMAGE_SIZE, VIEWS, Views, render_views
from deepmerge.data.demo.scene import Stage, Truth, draw_scene
from deepmerge.data.formats import npy_file
from deepmerge.errors import InputError
from deepmerge.files import folder_aside
from deepmerge.progress import progress_bar

# 301 of the release's 406 mergers (74 %) are past ones.
PAST_FRACTION = 0.72
# A split in three parts needs this many galaxies of a stage to put one into each.
FEWEST_OF_A_STAGE = 3

BATCH = 8  # galaxies that a worker draws in one go, in a fifth of a second

VARIANTS = ("pristine", "noisy")
CATALOGUE, MASKS = "catalogue.csv", "feature_masks.npy"
DATA_SOURCE = "simulated"
DESCRIPTION = (
    "Mock galaxies drawn by the deepmerge simulator (test particles in analytic potentials); "
    "not Illustris, not the released DeepMerge images, and no basis for results about real galaxies."
)
INGREDIENTS: tuple[Ingredient, ...] = get_args(Ingredient)
COLUMNS = ("galaxy_id", "view", "copy", *Truth._fields)


class _Task(NamedTuple):
    seed: int
    galaxy_id: int
    stage: Stage
    without: tuple[Ingredient, ...]


def simulate(
    folder: Path,
    *,
    galaxies: int = demo.GALAXIES,
    merger_fraction: float = demo.MERGER_FRACTION,
    seed: int = demo.SEED,
    without: Sequence[str] = (),
    workers: Where = None,
) -> None:
    """Write a sample of mock galaxies, VIEWS images each, to `folder`.

    For both variants `<variant>_2filt_X.npy` (N, 2, 75, 75) float32, `<variant>_2filt_y.npy` (N,) uint8 and
    `<variant>_2filt_source.json`; `feature_masks.npy` (N, 75, 75) uint8 and `catalogue.csv` in the same rows.
    Mergers come first, views of a galaxy side by side. The same seed gives the same bytes whatever the
    `workers` (see `cluster.opened`). All files appear at the end or none does.
    `without` leaves out ingredients of encounters (INGREDIENTS), all else being the same to the last random number:
    counterfactuals, whose images differ by these ingredients alone.

    Raises InputError if an argument is out of range or `folder` holds images that are not simulated.
    """
    from deepmerge.data.dataset import write_source  # loads pandas, which the workers do not need

    _check_arguments(galaxies, merger_fraction, seed, without)
    _check_folder(folder)
    stages = draw_stages(galaxies, merger_fraction, seed)
    left_out = tuple(name for name in INGREDIENTS if name in without)
    tasks = [_Task(seed, number, stage, left_out) for number, stage in enumerate(stages)]
    batches = [tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH)]
    source = {
        "data_source": DATA_SOURCE,
        "description": DESCRIPTION,
        "filters": list(FILTERS),
        "catalogue": CATALOGUE,
        "masks": MASKS,
        "settings": {
            "galaxies": galaxies,
            "merger_fraction": merger_fraction,
            "seed": seed,
            "without": left_out,
            "views": VIEWS,
            "image_size": IMAGE_SIZE,
        },
    }
    with ExitStack() as stack:
        room = stack.enter_context(opened(workers, len(batches)))
        folder.mkdir(parents=True, exist_ok=True)
        aside = stack.enter_context(folder_aside(".simulate", folder))
        _write_sample(aside, batches, room)
        for variant in VARIANTS:
            write_source(aside / f"{variant}_2filt_source.json", source)
        for path in sorted(aside.iterdir()):
            path.replace(folder / path.name)


def draw_stages(galaxies: int, merger_fraction: float, seed: int) -> list[Stage]:
    """The stage of each galaxy: mergers first, past and future ones mixed, then non-mergers."""
    past, future, others = count_stages(galaxies, merger_fraction)
    # The third number keeps this stream apart from those of the galaxies, [seed, galaxy_id].
    order = np.random.default_rng([seed, 0, 1]).permutation(past + future)
    mergers: list[Stage] = ["past" if place < past else "future" for place in order]
    rest: list[Stage] = ["non-merger"] * others
    return mergers + rest


def count_stages(galaxies: int, merger_fraction: float) -> tuple[int, int, int]:
    """Number of past mergers, future mergers and non-mergers."""
    mergers = round(galaxies * merger_fraction)
    past = round(mergers * PAST_FRACTION)
    return past, mergers - past, galaxies - mergers


def simulate_galaxy(
    seed: int, galaxy_id: int, stage: Stage, without: Collection[Ingredient] = ()
) -> tuple[Views, Truth]:
    """One galaxy; depends on nothing but the arguments, so neither order nor worker matter."""
    rng = np.random.default_rng([seed, galaxy_id])
    scene = draw_scene(rng, stage, without)
    return render_views(rng, scene), scene.truth


def _run(batch: Sequence[_Task]) -> list[tuple[Views, Truth]]:
    return [simulate_galaxy(*task) for task in batch]


def _check_arguments(galaxies: int, merger_fraction: float, seed: int, without: Sequence[str]) -> None:
    if not 0 < merger_fraction < 1:
        raise InputError(f"expected a merger fraction between 0 and 1, received {merger_fraction}; try 0.17")
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more, received {seed}")
    if isinstance(without, str):
        raise InputError(f"ingredients to leave out should be a list, such as [{INGREDIENTS[0]!r}], got {without!r}")
    if unknown := [name for name in without if name not in INGREDIENTS]:
        raise InputError(f"ingredients to leave out should be among {', '.join(INGREDIENTS)}, got {unknown[0]!r}")
    if galaxies < 1 or min(count_stages(galaxies, merger_fraction)) < FEWEST_OF_A_STAGE:
        enough = max(galaxies, 1)
        while min(count_stages(enough, merger_fraction)) < FEWEST_OF_A_STAGE:
            enough += 1
        raise InputError(
            f"expected at least {FEWEST_OF_A_STAGE} galaxies of each stage (past, future, non-merger), "
            f"received {galaxies} galaxies with merger fraction {merger_fraction:g}; "
            f"use {enough} galaxies or more"
        )


def _check_folder(folder: Path) -> None:
    """Never overwrite images that cannot be made again by a command."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder, received the file {folder}; name another folder")
    sources = [folder / f"{variant}_2filt_source.json" for variant in VARIANTS]
    ours = [source.exists() and _is_simulated(source) for source in sources]
    for variant, simulated in zip(VARIANTS, ours, strict=True):
        others = [] if simulated else [folder / f"{variant}_2filt_{part}.npy" for part in "Xy"]
        others += [] if any(ours) else [folder / CATALOGUE, folder / MASKS]
        for path in others:
            if path.exists():
                raise InputError(
                    f"expected a folder without other data than simulated ones, received {path}, which no "
                    "simulated source beside it vouches for; name another folder or move that file away"
                )


def _is_simulated(source: Path) -> bool:
    try:
        return bool(json.loads(source.read_text())["data_source"] == DATA_SOURCE)
    except (ValueError, KeyError, TypeError):
        return False


def _write_sample(folder: Path, batches: Sequence[Sequence[_Task]], room: Room) -> None:
    """Write arrays and catalogue galaxy by galaxy, so that memory holds a few galaxies at a time."""
    tasks = [task for batch in batches for task in batch]
    rows = len(tasks) * VIEWS
    labels = np.repeat([task.stage != "non-merger" for task in tasks], VIEWS).astype(np.uint8)
    with ExitStack() as stack:
        results = chain.from_iterable(room.map(_run, batches))
        advance = stack.enter_context(progress_bar("Simulating galaxies", len(tasks)))
        images = {}
        for variant in VARIANTS:
            np.save(folder / f"{variant}_2filt_y.npy", labels)
            path = folder / f"{variant}_2filt_X.npy"
            images[variant] = stack.enter_context(path.open("wb"))
            npy_file.write_header(images[variant], np.float32, (rows, len(FILTERS), IMAGE_SIZE, IMAGE_SIZE))
        masks = stack.enter_context((folder / MASKS).open("wb"))
        npy_file.write_header(masks, np.uint8, (rows, IMAGE_SIZE, IMAGE_SIZE))
        catalogue = csv.writer(stack.enter_context((folder / CATALOGUE).open("w", newline="")), lineterminator="\n")
        catalogue.writerow(COLUMNS)
        for task, (views, truth) in zip(tasks, results, strict=True):
            images["pristine"].write(views.pristine.tobytes())
            images["noisy"].write(views.noisy.tobytes())
            masks.write(views.masks.tobytes())
            cells = [_to_cell(value) for value in truth]
            catalogue.writerows([task.galaxy_id, view, 0, *cells] for view in range(VIEWS))
            advance()


def _to_cell(value: str | float) -> str:
    """A cell of the catalogue; empty for NaN."""
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.4f}"
