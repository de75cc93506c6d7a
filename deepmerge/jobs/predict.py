"""Score images of any number with a trained model."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from deepmerge.analysis.calibration import BALANCE, at_prior, tempered
from deepmerge.data.formats.image_file import open_images
from deepmerge.data.released.archive import explained_disk_errors
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs.judged import trained_merger_fraction
from deepmerge.jobs.run import Results
from deepmerge.model import devices, prediction
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv")
CALIBRATION = "calibration.json"  # what `study probabilities` leaves with a model
GROUP = 1 << 16  # rows written at a time

Write = Callable[[np.ndarray, np.ndarray], None]
Calibrate = Callable[[np.ndarray], np.ndarray]


def predict(images: Path, model: str, out: Path, merger_fraction: float | None = None) -> Results:
    """Write the merger probability of every image in an npy or FITS file (N, F, H, W) to `out`, a Parquet or CSV file.

    Columns `row` (from 0) and `probability`, undefined where an image has NaN or infinite pixels; and, where the
    `merger_fraction` among such galaxies is given, `calibrated`: the probability at that fraction, by Bayes' rule from
    the one that the model was trained at and the temperature that `study probabilities` found for it. A Parquet file
    tells of the model in its metadata: `model` as given, `run_id`, and `data_fingerprint` of the training data. `model`
    is what `runs.find` takes, without 'last'. Raises InputError for other files, images of another shape than the
    model's and a place that cannot be written to; then an older `out` stays as it was.
    """
    _check_out(out)
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
        told = {"model": model, "run_id": run.info.run_id}
        told["data_fingerprint"] = run.data.tags.get("data_fingerprint", "unknown")
        calibrated = None
        if merger_fraction is not None:
            temperature, trained_at = _temperature(run), trained_merger_fraction(run)
            told |= {"merger_fraction": str(merger_fraction), "temperature": str(temperature)}
            told |= {"trained_at": str(trained_at)}
            calibrated = partial(
                _calibrated, trained_at=trained_at, temperature=temperature, merger_fraction=merger_fraction
            )
        scores = prediction.predict_pieces(network, file.pieces(prediction.batch_size(file.shape)))
        counted = _Summary()
        with (
            explained_disk_errors(out.parent),
            replacing(out) as aside,
            _table(aside, told, calibrated) as write,
            progress_bar(f"Scoring {images.name}", file.shape[0]) as advance,
        ):
            for start, group in _grouped(scores, advance):
                write(np.arange(start, start + len(group)), group)
                counted.add(group)
    if counted.undefined:
        log.warning(
            "%d of %d images have NaN or infinite pixels; their probability is left undefined",
            counted.undefined,
            counted.images,
        )
    return {"run_id": run.info.run_id, **counted.results(), "written": str(out)}


def _temperature(run: runs.Run) -> float:
    try:
        return float(runs.read_json(run, CALIBRATION)["temperature"])
    except InputError:
        raise InputError(
            f"--merger-fraction needs the calibration of run {run.info.run_id}, which has none; make it with "
            f"'deepmerge study probabilities {run.data.tags.get('dataset', 'DATASET')} --model {run.info.run_id}'"
        ) from None


def _calibrated(scores: np.ndarray, trained_at: float, temperature: float, merger_fraction: float) -> np.ndarray:
    found = np.full(len(scores), np.nan)
    known = ~np.isnan(scores)
    at_balance = tempered(at_prior(scores[known], BALANCE, trained_at), temperature)
    found[known] = at_prior(at_balance, merger_fraction)
    return found


class _Summary:
    """Counts over all probabilities, of which none is kept."""

    def __init__(self) -> None:
        self.images = self.undefined = self.mergers = 0
        self.sum = 0.0

    def add(self, probabilities: np.ndarray) -> None:
        known = probabilities[~np.isnan(probabilities)]
        self.images += len(probabilities)
        self.undefined += len(probabilities) - len(known)
        self.mergers += int((known >= 0.5).sum())
        self.sum += float(known.sum())

    def results(self) -> Results:
        known = self.images - self.undefined
        shares = (self.sum / known, self.mergers / known) if known else (np.nan, np.nan)
        return {"images": self.images, "mean_probability": shares[0], "share_above_0.5": shares[1]}


def _check_out(out: Path) -> None:
    if out.suffix not in SUFFIXES or out.is_dir():
        raise InputError(f"out should be a file ending in {' or '.join(SUFFIXES)}, got {out}")


def _grouped(scores: Iterator[np.ndarray], advance: Callable[..., None]) -> Iterator[tuple[int, np.ndarray]]:
    """Join probabilities to groups of about GROUP images; yields the first row of each and its values."""
    start, held = 0, [np.empty(0)]
    for found in scores:
        advance(len(found))
        held.append(found)
        if sum(map(len, held)) >= GROUP:
            group = np.concatenate(held)
            yield start, group
            start, held = start + len(group), [np.empty(0)]
    yield start, np.concatenate(held)


@contextmanager
def _table(path: Path, metadata: dict[str, str], calibrated: Calibrate | None) -> Iterator[Write]:
    """Yield what appends rows and probabilities to a new table; its suffix chooses CSV or Parquet."""
    names = ["row", "probability", *(["calibrated"] if calibrated else [])]

    def columns(rows: np.ndarray, probabilities: np.ndarray) -> list[np.ndarray]:
        return [rows, probabilities, *([calibrated(probabilities)] if calibrated else [])]

    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            file.write(",".join(names) + "\n")
            yield lambda rows, probabilities: pd.DataFrame(
                dict(zip(names, columns(rows, probabilities), strict=True))
            ).to_csv(file, header=False, index=False)
        return
    types = [pa.int64(), *[pa.float64()] * (len(names) - 1)]
    schema = pa.schema(list(zip(names, types, strict=True)), metadata)
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows, probabilities: writer.write_table(pa.table(columns(rows, probabilities), schema=schema))
