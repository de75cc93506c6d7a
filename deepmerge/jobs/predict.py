"""Score images of any number with a trained model."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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

Calibrate = Callable[[np.ndarray], np.ndarray]


def predict(images: Path, model: str, out: Path, merger_fraction: float | None = None) -> Results:
    """Write the merger probability of every image in an npy or FITS file (N, F, H, W) to `out`, a Parquet or CSV file.

    Columns `row` (from 0) and `probability`, undefined where an image has NaN or infinite pixels; and, where the
    `merger_fraction` among such galaxies is given, `calibrated`: the probability at that fraction, by Bayes' rule from
    the one that the model was trained at and the temperature that `study probabilities` found for it. The metadata of a
    Parquet file tell of the model: `model` as given, `run_id`, and `data_fingerprint` of the training data. `model` is
    what `runs.find` takes, without 'last'. Raises InputError for other files, images of another shape than the model's
    and a place that cannot be written to; then an older `out` stays as it was.
    """
    if out.suffix not in SUFFIXES or out.is_dir():
        raise InputError(f"out should be a file ending in {' or '.join(SUFFIXES)}, got {out}")
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
        calibrate = None
        if merger_fraction is not None:
            priors: dict[str, Any] = {"merger_fraction": merger_fraction, "temperature": _temperature(run)}
            priors["trained_at"] = trained_merger_fraction(run)
            metadata |= {name: str(value) for name, value in priors.items()}
            calibrate = partial(_calibrated, **priors)
        scores = prediction.predict_pieces(network, file.pieces(prediction.batch_size(file.shape)))
        totals = np.zeros(4)  # images, those with a probability, mergers among these, sum of the probabilities
        with (
            explained_disk_errors(out.parent),
            replacing(out) as aside,
            _table(aside, metadata, calibrate) as write,
            progress_bar(f"Scoring {images.name}", file.shape[0]) as advance,
        ):
            for group in _grouped(scores, advance):
                write(int(totals[0]), group)
                defined = group[~np.isnan(group)]
                totals += len(group), len(defined), (defined >= 0.5).sum(), defined.sum()
    count, scored, mergers, total = totals.tolist()
    if scored < count:
        log.warning(
            "%d of %d images have NaN or infinite pixels; their probability is left undefined", count - scored, count
        )
    shares = (total / scored, mergers / scored) if scored else (np.nan, np.nan)
    names = ("mean_probability", "share_above_0.5")
    summary = dict(zip(names, shares, strict=True))
    return {"run_id": run.info.run_id, "images": int(count), **summary, "written": str(out)}


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


def _grouped(scores: Iterator[np.ndarray], advance: Callable[..., None]) -> Iterator[np.ndarray]:
    """Join probabilities to groups of at least GROUP images, but for the last one."""
    waiting = [np.empty(0)]
    for piece in scores:
        advance(len(piece))
        waiting.append(piece)
        if sum(map(len, waiting)) >= GROUP:
            yield np.concatenate(waiting)
            waiting = [np.empty(0)]
    yield np.concatenate(waiting)


@contextmanager
def _table(
    path: Path, metadata: dict[str, str], calibrate: Calibrate | None
) -> Iterator[Callable[[int, np.ndarray], object]]:
    """Yield what appends probabilities from a row on to a new table; its suffix chooses CSV or Parquet."""

    def columns(start: int, probabilities: np.ndarray) -> dict[str, np.ndarray]:
        table = {"row": np.arange(start, start + len(probabilities)), "probability": probabilities}
        return table if calibrate is None else {**table, "calibrated": calibrate(probabilities)}

    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            yield lambda start, scores: pd.DataFrame(columns(start, scores)).to_csv(
                file, header=start == 0, index=False
            )
        return
    schema = pa.table(columns(0, np.empty(0))).schema.with_metadata(metadata)
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda start, probabilities: writer.write_table(pa.table(columns(start, probabilities), schema=schema))
