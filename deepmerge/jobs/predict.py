"""Score images of any number with a trained model."""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from deepmerge import cluster
from deepmerge.analysis.calibration import BALANCE, at_prior, tempered
from deepmerge.data import positions
from deepmerge.data.dataset import read_source
from deepmerge.data.formats import cache
from deepmerge.data.formats.image_file import ImageFile, open_images
from deepmerge.data.released.archive import explained_disk_errors
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs.judged import PIXELS, trained_merger_fraction
from deepmerge.jobs.run import Results
from deepmerge.model import devices, prediction
from deepmerge.model.familiarity import EXPECTED, MARGIN, Comparison, Familiar
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv")
CALIBRATION = "calibration.json"  # what `study probabilities` leaves with a model
GROUP = 1 << 16  # rows written at a time
SHARD = 1 << 14  # rows of a part of a data set, which one process scores in half a minute
SCORING = "_scoring.json"  # in such a folder: what its parts depend on; readers of Parquet pass over such names

Calibrate = Callable[[np.ndarray], np.ndarray]


def predict(
    images: Path,
    model: str,
    out: Path,
    merger_fraction: float | None = None,
    catalogue: Path | None = None,
    workers: cluster.Where = None,
) -> Results:
    """Write the merger probability of every image in an npy or FITS file (N, F, H, W) to `out`, a Parquet or CSV file.

    Or to a folder, where `out` has no suffix: a Parquet data set that `workers` write side by side, a part for each
    SHARD images. Parts that an earlier call wrote, with the same model and images, stay.

    Columns: `row` (from 0); `galaxy_id`, `ra` and `dec` where a catalogue has them, the one given or the one noted
    beside the images; `probability`, undefined where an image has NaN or infinite pixels; `calibrated` where the
    `merger_fraction` among such galaxies is given: the probability at that fraction, by Bayes' rule from the one that
    the model was trained at and the temperature that `study probabilities` found for it; and `unlike`, how far the
    image's pixels lie beyond those of training images, as `familiarity.Comparison` has it, where the model knows them.

    The metadata of a Parquet file tell of the model: `model` as given, `run_id`, and `data_fingerprint` of the training
    data. `model` is what `runs.find` takes, without 'last'. Raises InputError for other files, images of another shape
    than the model's and a place that cannot be written to; then an older `out` stays as it was.
    """
    if out.suffix not in (*SUFFIXES, "") or (out.suffix and out.is_dir()) or (not out.suffix and out.is_file()):
        raise InputError(f"out should be a file ending in {' or '.join(SUFFIXES)}, or a folder, got {out}")
    if workers is not None and out.suffix:
        raise InputError(f"--cluster should come with a folder for --out, to which all can write, got the file {out}")
    if merger_fraction is not None and not 0 < merger_fraction < 1:
        raise InputError(f"merger_fraction should lie between 0 and 1, got {merger_fraction}")
    if model == runs.LAST:
        raise InputError(
            "model should be a run id, a models:/ URI or a run.json: 'last' is the newest of a data set, and images "
            "alone do not say of which; 'deepmerge models' lists what there is"
        )
    devices.prepare()
    with open_images(images) as file:
        run = runs.find(model, "DATASET")
        network = prediction.load(runs.model_file(run))
        height, width, filters = network.input_shape[1:]
        file.require((filters, height, width))
        metadata = {"model": model, "run_id": run.info.run_id}
        metadata["data_fingerprint"] = run.data.tags.get(runs.FINGERPRINT, "unknown")
        calibrate: Calibrate | None = None
        if merger_fraction is not None:
            priors: dict[str, Any] = {"merger_fraction": merger_fraction, "temperature": _temperature(run)}
            priors["trained_at"] = trained_merger_fraction(run)
            metadata |= {name: str(value) for name, value in priors.items()}
            calibrate = partial(_calibrated, **priors)
        beside = _identities(images, catalogue, file.shape[0])
        comparison = _comparison(run)
        if not out.suffix:
            known = {**metadata, "images": str(images), "state": cache.state(images), "catalogue": _told(beside)}
            scored = Scored(metadata, calibrate, None if comparison is None else comparison.familiar)
            totals = _in_shards(file, out, beside, scored, known, runs.model_file(run).read_bytes(), workers)
        else:
            totals = Totals()
            with (
                explained_disk_errors(out.parent),
                replacing(out) as aside,
                _table(aside, metadata) as write,
                progress_bar(f"Scoring {images.name}", file.shape[0]) as advance,
            ):
                pieces = file.pieces(prediction.batch_size(file.shape))
                for table in _tables(network, pieces, 0, beside, calibrate, comparison, advance):
                    write(table)
                    totals.add(table)
    if totals.scored < totals.count:
        log.warning(
            "%d of %d images have NaN or infinite pixels; their probability is left undefined",
            totals.count - totals.scored,
            totals.count,
        )
    shares = (totals.sum / totals.scored, totals.mergers / totals.scored) if totals.scored else (np.nan, np.nan)
    summary = dict(zip(("mean_probability", "share_above_0.5"), shares, strict=True))
    if comparison is not None:
        summary["share_unlike_training"] = totals.unlike / totals.count if totals.count else np.nan
        said = comparison.said() if out.suffix else totals.said()
        if said is not None:
            log.log(logging.WARNING if totals.unlike > EXPECTED * totals.count else logging.INFO, said)
    return {"run_id": run.info.run_id, "images": totals.count, **summary, "written": str(out)}


@dataclass
class Totals:
    """Of the images that were scored: all, those with a probability, mergers among these, and those unlike training."""

    count: int = 0
    scored: int = 0
    mergers: int = 0
    unlike: int = 0
    sum: float = 0.0

    def add(self, table: pd.DataFrame) -> None:
        """Count the rows of a table."""
        defined = table["probability"].dropna()
        self.count += len(table)
        self.scored += len(defined)
        self.mergers += int((defined >= 0.5).sum())
        self.unlike += int((table["unlike"] > MARGIN).sum()) if "unlike" in table else 0
        self.sum += float(defined.sum())

    def said(self) -> str | None:
        """One line about images that are unlike those of the training; None where none is."""
        if not self.unlike:
            return None
        return (
            f"{self.unlike} of {self.count} images ({self.unlike / self.count:.0%}) are unlike those that the model "
            "was trained on, as the column unlike says; check their units, background and noise"
        )


@dataclass(frozen=True)
class Scored:
    """What is the same for all shards: metadata of the files, the calibration, and the images of the training."""

    metadata: dict[str, str]
    calibrate: Calibrate | None
    familiar: Familiar | None


@dataclass(frozen=True)
class Shard:
    """Successive rows of the images to score into a file of their own; beside: their identities."""

    images: Path
    rows: range
    beside: pd.DataFrame
    part: Path
    scored: Scored

    def __call__(self, model: bytes) -> int:
        """Score them, unless the file is there; returns their number."""
        devices.prepare()
        comparison = None if self.scored.familiar is None else Comparison(self.scored.familiar)
        with (
            open_images(self.images) as file,
            explained_disk_errors(self.part.parent),
            replacing(self.part) as aside,
            _table(aside, self.scored.metadata) as write,
        ):
            pieces = file.pieces(prediction.batch_size(file.shape), self.rows)
            start, network = self.rows.start, prediction.unpacked(model)
            for table in _tables(network, pieces, start, self.beside, self.scored.calibrate, comparison, _nothing):
                write(table)
        return len(self.rows)


def _in_shards(
    file: ImageFile,
    out: Path,
    beside: pd.DataFrame,
    scored: Scored,
    known: dict[str, Any],
    model: bytes,
    workers: cluster.Where,
) -> Totals:
    """Score into a folder what is not there yet. Raises InputError where it holds other scores."""
    count = file.shape[0]
    known |= {"rows": count, "shard": SHARD, "model_sha256": hashlib.sha256(model).hexdigest()}
    _claim(out, json.loads(json.dumps(known)))
    rows = [range(start, min(start + SHARD, count)) for start in range(0, max(count, 1), SHARD)]
    parts = {out.resolve() / f"part-{each.start // SHARD:06}.parquet": each for each in rows}
    wanted = [
        Shard(file.path.resolve(), each, beside.iloc[each.start : each.stop], part, scored)
        for part, each in parts.items()
        if not part.exists()
    ]
    usual = cluster.count_side_by_side()
    with progress_bar(f"Scoring {file.path.name}", count) as advance:
        advance(count - sum(len(shard.rows) for shard in wanted))
        if wanted:
            with cluster.opened(workers, len(wanted), usual) as room:
                sent = room.send(model)
                for shard in wanted:
                    room.submit(shard, sent=sent)
                for _ in wanted:
                    advance(room.next().result())
    totals = Totals()
    for part in parts:
        columns = [name for name in ("probability", "unlike") if name in parquet.read_schema(part).names]
        totals.add(pd.read_parquet(part, columns=columns))
    return totals


def _claim(out: Path, known: dict[str, Any]) -> None:
    """Make the folder for these scores, or go on in it. Raises InputError where it holds anything else."""
    note = out / SCORING
    if out.exists() and any(out.iterdir()):
        try:
            earlier = json.loads(note.read_text())
        except (OSError, ValueError):
            raise InputError(f"out should be a new folder, got {out}, which holds other things") from None
        if earlier != known:
            changed = ", ".join(name for name in known if earlier.get(name) != known[name])
            raise InputError(f"out should be a new folder, got {out}, which holds scores with another {changed}")
        for left in out.glob(".part-*"):  # of a process that was killed
            left.unlink(missing_ok=True)
        return
    with explained_disk_errors(out), replacing(note) as aside:
        aside.write_text(json.dumps(known, indent=2) + "\n")


def _told(beside: pd.DataFrame) -> str:
    return hashlib.sha256(beside.to_csv(index=False).encode()).hexdigest() if len(beside) else ""


def _nothing(steps: int = 1, note: str | None = None) -> None:
    """Advance no bar: a worker has none."""


def _tables(
    network: keras.Model,
    pieces: Iterable[np.ndarray],
    start: int,
    beside: pd.DataFrame,
    calibrate: Calibrate | None,
    comparison: Comparison | None,
    advance: Callable[..., None],
) -> Iterator[pd.DataFrame]:
    """Tables of the images in pieces, rows from `start`; beside: their identities, from the first on."""
    done = 0
    for group in _grouped(_scored(network, pieces, comparison), advance):
        scores = group["probability"]
        rows = slice(done, done + len(scores))
        done = rows.stop
        columns: dict[str, np.ndarray] = {
            "row": np.arange(start + rows.start, start + rows.stop),
            **{str(n): beside[n].to_numpy()[rows] for n in beside},
        }
        columns["probability"] = scores
        if calibrate is not None:
            columns["calibrated"] = calibrate(scores)
        yield pd.DataFrame({**columns, **group})


def _identities(images: Path, catalogue: Path | None, count: int) -> pd.DataFrame:
    """galaxy_id, ra and dec of the images, as far as anything tells of them; no column where nothing does."""
    if catalogue is None:
        noted = read_source(images).get("catalogue")
        catalogue = images.parent / noted if noted else None
        if catalogue is None or not catalogue.is_file():
            return pd.DataFrame()
    return positions.identities(catalogue, count)


def _comparison(run: runs.Run) -> Comparison | None:
    """What compares images with those that the run's model was trained on; None for a model that does not know them."""
    pixels = runs.model_metadata(run).get(PIXELS)
    return None if pixels is None else Comparison(Familiar.of_metadata(pixels))


def _scored(
    network: keras.Model, pieces: Iterable[np.ndarray], comparison: Comparison | None
) -> Iterator[dict[str, np.ndarray]]:
    """Columns about the images of each piece: `probability` and, where there is something to compare with, `unlike`."""
    found: deque[np.ndarray] = deque()  # some pieces ahead of the probabilities

    def compared() -> Iterator[np.ndarray]:
        for piece in pieces:
            if comparison is not None:
                found.append(comparison.add(piece))
            yield piece

    yield {name: np.empty(0) for name in ("probability",) + ("unlike",) * (comparison is not None)}
    for scores in prediction.predict_pieces(network, compared()):
        yield {"probability": scores, **({"unlike": found.popleft()} if comparison is not None else {})}


def _temperature(run: runs.Run) -> float:
    try:
        return float(runs.read_json(run, CALIBRATION)["temperature"])
    except InputError:
        raise InputError(
            f"--merger-fraction needs the calibration of run {run.info.run_id}, which has none; make it with "
            f"'deepmerge study probabilities {run.data.tags.get('dataset', 'DATASET')} --model {run.info.run_id}'"
        ) from None


def _calibrated(scores: np.ndarray, trained_at: float, temperature: float, merger_fraction: float) -> np.ndarray:
    calibrated, defined = np.full(len(scores), np.nan), ~np.isnan(scores)
    at_balance = tempered(at_prior(scores[defined], BALANCE, trained_at), temperature)
    calibrated[defined] = at_prior(at_balance, merger_fraction)
    return calibrated


def _grouped(pieces: Iterable[dict[str, np.ndarray]], advance: Callable[..., None]) -> Iterator[dict[str, np.ndarray]]:
    """Join columns to groups of at least GROUP images, but for the last one."""
    waiting: list[dict[str, np.ndarray]] = []

    def joined() -> dict[str, np.ndarray]:
        return {name: np.concatenate([piece[name] for piece in waiting]) for name in waiting[0]}

    for piece in pieces:
        advance(len(piece["probability"]))
        waiting.append(piece)
        if sum(len(one["probability"]) for one in waiting) >= GROUP:
            yield joined()
            waiting = []
    if waiting:
        yield joined()


@contextmanager
def _table(path: Path, metadata: dict[str, str]) -> Iterator[Callable[[pd.DataFrame], object]]:
    """Yield what appends rows to a new table; its suffix chooses CSV or Parquet."""
    with ExitStack() as stack:
        file = stack.enter_context(path.open("w", newline="")) if path.suffix == ".csv" else None
        parquet_file: parquet.ParquetWriter | None = None

        def write(rows: pd.DataFrame) -> None:
            nonlocal parquet_file
            if file is not None:
                rows.to_csv(file, header=file.tell() == 0, index=False)
                return
            table = pa.Table.from_pandas(rows, preserve_index=False)
            if parquet_file is None:
                schema = table.schema.with_metadata(metadata)
                parquet_file = stack.enter_context(parquet.ParquetWriter(path, schema))
            parquet_file.write_table(table.cast(parquet_file.schema))

        yield write
