"""All images of a data set, of a model's data or of a file on one page, to be looked at and tagged in a browser."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.analysis import saliency
from deepmerge.data import dataset as datasets
from deepmerge.data import positions, tags
from deepmerge.data.dataset import Dataset, read_source
from deepmerge.data.formats import any_table
from deepmerge.data.formats.image_file import open_images
from deepmerge.data.memory_map import forget
from deepmerge.data.missing import undefined
from deepmerge.data.splits import Part
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.gallery.packs import Packs
from deepmerge.gallery.page import Gallery, html_page
from deepmerge.gallery.thumbnails import channels, colours, heat, shrunk
from deepmerge.jobs.embed import EMBEDDING
from deepmerge.jobs.gallery import columns
from deepmerge.jobs.judged import LAYER_METHOD, PREDICTIONS, SALIENCY_METHOD, Judged, reload
from deepmerge.jobs.run import Results, warning
from deepmerge.model import prediction
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

PAGE = "gallery.html"
MOST = 20_000  # images on a page
OTHERS = 4  # other models whose scores are compared with this one's
BATCH_PIXELS = 256 * 2 * 75 * 75  # of images that are drawn at a time


def gallery(
    subject: str,
    out: Path,
    *,
    table: Path | None = None,
    tagged: Path | None = None,
    stretch: str = "log",
    most: int = MOST,
) -> Results:
    """Write the gallery of a data set with its newest model, if there is one; of a model; or of a file of images.

    subject: a data set, a model as `runs.find` takes it, or a file or folder of images. table: of a file of images, a
    row an image, such as `predict` writes, whose columns are shown. tagged: a table of tags to go on from. stretch: one
    of `thumbnails.STRETCHES`. Of more than `most` images random ones are shown. A model's gallery is logged to its run.
    Raises InputError for what is none of the three, and for an `out` that does not end in .html.
    """
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"out should be a file ending in .html, got {out}")
    results: Results = {}
    if not _names_data(subject) and _file(subject).exists() and not subject.endswith(".json"):
        page = of_file(Path(subject), table, tagged, stretch, most)
    elif table is not None:
        raise InputError(f"a table is for a file of images, got one for {subject}, which is none")
    elif (judged := _model(subject)) is not None:
        page = of_model(judged, tagged, stretch, most)
        with runs.reopened(judged.run):
            _log(page)
        results["run_id"] = judged.run.info.run_id
    else:
        experiment = config.load(subject)
        data = datasets.read(experiment.data, experiment.name)
        page = of_data(data, experiment.data, tagged, stretch, most)
    with replacing(out) as aside:
        aside.write_text(html_page(page), encoding="utf-8")
    return {**results, "images": len(page.thumbnails), "tagged": len(page.tagged), "written": str(out)}


def gallery_in_run(judged: Judged) -> Results:
    """Log the gallery of a model to its own run, which is open."""
    _log(of_model(judged))
    return {}


def of_file(path: Path, table: Path | None, tagged: Path | None, stretch: str = "log", most: int = MOST) -> Gallery:
    """The gallery of a file of images, with what its catalogue and a table say of them."""
    with open_images(path) as file:
        file.require((None, None, None))
        count = file.shape[0]
        known = pd.DataFrame({"row": np.arange(count)}).join(_beside(path, count))
        if table is not None:
            cells = any_table.read(table, "table", [])
            if len(cells) != count:
                raise InputError(f"table {table} should have {count} rows, one for each image, got {len(cells)}")
            known = known.join(cells[[name for name in cells if name not in known]])
        rows = _some(np.arange(count), most)
        pictures, start = Packs(), 0
        with progress_bar(f"Drawing {path.name}", count) as advance:
            for piece in file.pieces(_batch(file.shape)):
                chosen = np.isin(np.arange(start, start + len(piece)), rows)
                pictures.add(colours(shrunk(piece[chosen]), stretch))
                start += len(piece)
                advance(len(piece))
        filters = [f"filter {number + 1}" for number in range(file.shape[1])]
    shown = known.iloc[rows].reset_index(drop=True)
    ids = known["galaxy_id"] if "galaxy_id" in known else pd.Series(np.arange(count))
    return Gallery(
        title=path.name,
        warning="",
        facts=_facts(shown, count),
        columns=columns.described(shown),
        thumbnails=pictures,
        filters=_three(filters),
        tags=tags.TAGS,
        tagged=_tagged([tagged], ids, rows, None),
        key=f"deepmerge {path.resolve()}",
        made_with=f"deepmerge gallery {path}",
        sort="probability" if "probability" in shown else "row",
    )


def of_data(
    data: Dataset, files: config.Data, tagged: Path | None = None, stretch: str = "log", most: int = MOST
) -> Gallery:
    """The gallery of a data set without a model: all images but copies."""
    shown = np.flatnonzero((data.catalogue["copy"] == 0).to_numpy() | ~data.used)
    rows = _some(shown, most)
    return _page(data, files, columns.of_data(data, rows), len(shown), tagged, stretch)


def of_model(judged: Judged, tagged: Path | None = None, stretch: str = "log", most: int = MOST) -> Gallery:
    """The gallery of a model: all images that its split holds or its data leave out, large errors first."""
    data, run = judged.data, judged.run
    parts = judged.split.table().drop_duplicates("row")
    probability = judged.scores(Part(parts["row"].to_numpy(), parts["transform"].to_numpy()))
    scores = pd.Series(probability, parts["row"].to_numpy())
    everything = np.union1d(scores.index, data.excluded)
    rows = _some(everything, most)
    known = columns.of_data(data, rows) | columns.of_scores(scores, data, rows)
    known["split"] = parts.set_index("row")["split"].reindex(rows).fillna("left out").to_numpy()
    models = [scores, *islice(_other_scores(judged), OTHERS)]
    if len(models) > 1:
        known["models"] = pd.concat(models, axis=1).reindex(rows).std(axis=1, ddof=1).to_numpy()
    method = LAYER_METHOD if saliency.convolutions(judged.model) else SALIENCY_METHOD
    embedding = _embedding(judged, rows)
    if embedding is not None:
        known["anomaly"] = embedding["anomaly"].to_numpy()
    page = _page(data, judged.experiment.data, known, len(everything), tagged, stretch)
    return replace(
        page,
        warning=warning(data, judged.split) or "",
        facts=[*page.facts, f"model {run.info.run_name}", f"run {run.info.run_id[:8]}"],
        sort="galaxy_error",
        maps=_maps(judged, rows, method),
        maps_title=f"{saliency.METHODS[method].title} maps",
        places=None if embedding is None else embedding[["map_x", "map_y"]].to_numpy(),
        neighbours=None if embedding is None else _neighbours(embedding, rows),
    )


def _names_data(subject: str) -> bool:
    return subject in config.names() or subject.endswith((".yaml", ".yml"))


def _file(subject: str) -> Path:
    """The file or folder of images that a subject may name, a part of it behind a colon."""
    return config.Data.model_construct(images=Path(subject)).located()[0]


def _model(subject: str) -> Judged | None:
    """The model that is meant, with its data; None for a data set without one."""
    if not _names_data(subject):
        if Path(subject).suffix not in ("", ".json") and not subject.startswith("models:/"):
            raise InputError(
                f"subject should be a data set, a model, or a file of images, got {subject}, where there is no file"
            )
        run = runs.find(subject, "DATASET")
        return reload(run.data.tags["dataset"], run.info.run_id)
    experiment = config.load(subject)
    data = datasets.read(experiment.data, experiment.name)
    try:
        run = runs.find(runs.LAST, data.name, data.fingerprint)
    except InputError:
        log.info("%s has no model of these data yet: images are shown without scores", data.name)
        return None
    return reload(subject, run.info.run_id)


def _page(
    data: Dataset, files: config.Data, known: columns.Known, count: int, tagged: Path | None, stretch: str
) -> Gallery:
    """The page of rows of a data set, of `count` that might be shown, with what is known of them."""
    shown = pd.DataFrame(known)
    rows = shown["row"].to_numpy()
    pictures = Packs()
    with progress_bar(f"Drawing {data.name}", len(rows)) as advance:
        for part in np.array_split(rows, -(-len(rows) // _batch(data.images.shape))):
            pixels = undefined(np.asarray(data.images[part]), data.missing)
            pictures.add(colours(shrunk(pixels), stretch))
            forget(data.images)
            advance(len(part))
    return Gallery(
        title=data.name,
        warning=warning(data) or "",
        facts=_facts(shown, count),
        columns=columns.described(shown),
        thumbnails=pictures,
        filters=_three(data.filters),
        tags=tags.TAGS,
        tagged=_tagged([files.exclude, files.relabel, tagged], data.catalogue["galaxy_id"], rows, data.labels),
        key=f"deepmerge {data.name} {files.images.resolve()}",
        made_with=f"deepmerge gallery {data.name}",
    )


def _other_scores(judged: Judged) -> Iterator[pd.Series]:
    """Probabilities, by row, of other evaluated models of the same data and split, the newest first."""
    for run in judged.others():
        try:
            table = pd.read_parquet(runs.read_artifact(run, PREDICTIONS))
        except InputError:  # trained, and not evaluated
            continue
        yield table.drop_duplicates("row").set_index("row")["probability"]


def _embedding(judged: Judged, rows: np.ndarray) -> pd.DataFrame | None:
    """The embedding of these rows that `embed` left with the run; None where it left none."""
    try:
        table = pd.read_parquet(runs.read_artifact(judged.run, EMBEDDING))
    except InputError:
        return None
    return table.drop_duplicates("row").set_index("row").reindex(rows)


def _neighbours(embedding: pd.DataFrame, rows: np.ndarray) -> list[list[int]]:
    """Numbers of the images most like each, of those that are shown, the nearest first."""
    number = {int(row): place for place, row in enumerate(rows)}
    names = [str(name) for name in embedding if re.fullmatch(r"neighbour_\d+", str(name))]
    near = embedding[names].to_numpy(float)
    return [[number[int(row)] for row in line if row == row and int(row) in number] for line in near]


def _maps(judged: Judged, rows: np.ndarray, method: str) -> Packs:
    """Saliency maps of these rows at a third of their size, more than a layer has."""
    explainer = saliency.Explainer(judged.model, method=method)
    packs, upright = Packs(), np.zeros(len(rows), np.uint8)
    with progress_bar(f"Maps of {judged.data.name}", len(rows)) as advance:
        for batch in prediction.batches(judged.data.images, rows, upright):
            finite = np.isfinite(undefined(batch, judged.data.missing)).all((1, 2, 3))
            maps = np.zeros((len(batch), len(saliency.TARGETS), *batch.shape[1:3]), np.float32)
            if finite.any():
                maps[finite] = np.concatenate(list(explainer.batches(batch[finite])))
            packs.add(heat(maps[..., 1::3, 1::3]))
            advance(len(batch))
    return packs


def _some(rows: np.ndarray, most: int) -> np.ndarray:
    return rows if len(rows) <= most else np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _batch(shape: tuple[int, ...]) -> int:
    """How many images of an array (N, F, H, W) are drawn at a time."""
    return max(1, BATCH_PIXELS // int(np.prod(shape[1:])))


def _facts(shown: pd.DataFrame, count: int) -> list[str]:
    galaxies = f" of {shown['galaxy_id'].nunique():,} galaxies" if "galaxy_id" in shown else ""
    drawn = f", at random from {count:,}" if len(shown) < count else ""
    return [f"{len(shown):,} images{galaxies}{drawn}"]


def _three(names: Sequence[str]) -> tuple[str, str, str]:
    """What is shown red, green and blue."""
    red, green, blue = (names[number] if number >= 0 else "mean" for number in channels(len(names)))
    return red, green, blue


def _tagged(
    files: Sequence[Path | None], galaxy_id: pd.Series, rows: np.ndarray, labels: np.ndarray | None
) -> dict[int, tuple[str, str]]:
    """Tags that tables give images, by the number of an image among `rows`, with the labels that were meant."""
    number = {int(row): place for place, row in enumerate(rows)}
    found: dict[int, tuple[str, str]] = {}
    for file in dict.fromkeys(file for file in files if file is not None):
        for row, tag, label in tags.read(file, galaxy_id).itertuples(index=False):
            if tag in tags.TAGS and row in number:
                meant = "" if labels is None else str(columns.LABELS[int(labels[row] if np.isnan(label) else label)])
                found[number[row]] = (tag, meant)
    return found


def _beside(path: Path, count: int) -> pd.DataFrame:
    """What the catalogue noted beside a file of images tells of them."""
    noted = None if path.is_dir() else read_source(path).get("catalogue")
    file = None if noted is None else path.parent / noted
    return pd.DataFrame() if file is None or not file.is_file() else positions.identities(file, count)


def _log(page: Gallery) -> None:
    with runs.artifact_folder(".") as folder:
        (folder / PAGE).write_text(html_page(page), encoding="utf-8")
