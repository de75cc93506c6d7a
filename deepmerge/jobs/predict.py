"""Score images of any number with a trained model."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from deepmerge.analysis import embedding
from deepmerge.analysis.calibration import BALANCE, at_prior, tempered
from deepmerge.data import positions
from deepmerge.data.dataset import read_source
from deepmerge.data.formats.image_file import open_images
from deepmerge.data.released.archive import explained_disk_errors
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs.embed import DOMAIN, SPACE
from deepmerge.jobs.judged import PIXELS, trained_merger_fraction
from deepmerge.jobs.run import Results
from deepmerge.model import devices, prediction
from deepmerge.model.familiarity import EXPECTED, Comparison, Familiar
from deepmerge.model.features import with_features
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv")
CALIBRATION = "calibration.json"  # what `study probabilities` leaves with a model
DISTANT = 0.05  # share of distant images from which on a warning is due; 1 % are distant by the limit's definition
# AUC of telling new images from those of the training from which on a warning is due. On the noisy demo sample: test
# images 0.53, equally many mergers and non-mergers of them 0.67; fluxes × 1.3 0.82, noise × √2 0.95, no galaxy 0.98.
TOLD_APART = 0.8
GROUP = 1 << 16  # rows written at a time

Calibrate = Callable[[np.ndarray], np.ndarray]


def predict(
    images: Path, model: str, out: Path, merger_fraction: float | None = None, catalogue: Path | None = None
) -> Results:
    """Write the merger probability of every image in an npy or FITS file (N, F, H, W) to `out`, a Parquet or CSV file.

    Columns: `row` (from 0); `galaxy_id`, `ra` and `dec` where a catalogue has them, the one given or the one noted
    beside the images; `probability`, undefined where an image has NaN or infinite pixels; `past_probability` and
    `future_probability`, which add up to it, where the model tells stages; `calibrated` where the
    `merger_fraction` among such galaxies is given: the probability at that fraction, by Bayes' rule from the one that
    the model was trained at and the temperature that `study probabilities` found for it; `unlike`, how far the
    image's pixels lie beyond those of training images, as `familiarity.Comparison` has it, where the model knows them;
    and `anomaly`, how far it lies from them to the network, as `embed` has it, where that was called for the model.

    Where galaxies have several images, a second table beside `out`, with `_galaxies` in its name, has a line for each
    galaxy: `galaxy_id`; `images`, those with a probability; and `probability`, the mean of theirs.

    The metadata of a Parquet file tell of the model: `model` as given, `run_id`, and `data_fingerprint` of the training
    data. `model` is what `runs.find` takes, without 'last'. Raises InputError for other files, images of another shape
    than the model's and a place that cannot be written to; then an older `out` stays as it was.
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
        calibrate: Calibrate | None = None
        if merger_fraction is not None:
            priors: dict[str, Any] = {"merger_fraction": merger_fraction, "temperature": _temperature(run)}
            priors["trained_at"] = trained_merger_fraction(run)
            metadata |= {name: str(value) for name, value in priors.items()}
            calibrate = partial(_calibrated, **priors)
        beside = _identities(images, catalogue, file.shape[0])
        comparison, newcomers = _comparison(run), _newcomers(run)
        in_views = "galaxy_id" in beside and beside["galaxy_id"].duplicated().any()
        found: list[np.ndarray] = []
        totals = np.zeros(4)  # images, those with a probability, mergers among these, sum of the probabilities
        with (
            explained_disk_errors(out.parent),
            replacing(out) as aside,
            _table(aside, metadata) as write,
            progress_bar(f"Scoring {images.name}", file.shape[0]) as advance,
        ):
            pieces = _scored(network, file.pieces(prediction.batch_size(file.shape)), comparison, newcomers)
            for group in _grouped(pieces, advance):
                start, scores = int(totals[0]), group["probability"]
                rows = slice(start, start + len(scores))
                columns: dict[str, np.ndarray] = {
                    "row": np.arange(start, rows.stop),
                    **{str(n): beside[n].to_numpy()[rows] for n in beside},
                }
                columns["probability"] = scores
                if calibrate is not None:
                    columns["calibrated"] = calibrate(scores)
                write(pd.DataFrame({**columns, **group}))
                if in_views:
                    found.append(scores)
                defined = scores[~np.isnan(scores)]
                totals += len(scores), len(defined), (defined >= 0.5).sum(), defined.sum()
        if in_views:
            galaxies = _by_galaxy(beside["galaxy_id"], np.concatenate(found))
            with (
                explained_disk_errors(out.parent),
                replacing(_of_galaxies(out)) as aside,
                _table(aside, metadata) as write,
            ):
                write(galaxies)
    count, scored, mergers, total = totals.tolist()
    if scored < count:
        log.warning(
            "%d of %d images have NaN or infinite pixels; their probability is left undefined", count - scored, count
        )
    shares = (total / scored, mergers / scored) if scored else (np.nan, np.nan)
    names = ("mean_probability", "share_above_0.5")
    summary = dict(zip(names, shares, strict=True))
    if comparison is not None:
        summary["share_unlike_training"] = comparison.unlike / count if count else np.nan
        if (said := comparison.said()) is not None:
            log.log(logging.WARNING if comparison.unlike > EXPECTED * count else logging.INFO, said)
    if newcomers is not None:
        summary |= _told(newcomers)
    written = {"written": str(out), **({"written_galaxies": str(_of_galaxies(out))} if in_views else {})}
    return {"run_id": run.info.run_id, "images": int(count), **summary, **written}


def _of_galaxies(out: Path) -> Path:
    return out.with_stem(f"{out.stem}_galaxies")


def _by_galaxy(galaxies: pd.Series, probability: np.ndarray) -> pd.DataFrame:
    """A line a galaxy, in the order of its first image: id, how many images were scored, their mean probability."""
    images = pd.DataFrame({"galaxy_id": galaxies, "probability": probability})
    groups = images.groupby("galaxy_id", sort=False)["probability"]
    return groups.agg(images="count", probability="mean").reset_index()


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


def _newcomers(run: runs.Run) -> embedding.Newcomers | None:
    """What compares images with those of the training as the network sees them; None where `embed` was not called."""
    try:
        return embedding.Newcomers(embedding.Space.load(runs.read_artifact(run, SPACE)))
    except InputError:
        return None


def _told(newcomers: embedding.Newcomers) -> dict[str, float]:
    """How far images lie from those of the training as the network sees them, with a warning where that is far."""
    share = newcomers.distant / newcomers.seen if newcomers.seen else np.nan
    auc = newcomers.domain_auc()
    if auc > TOLD_APART:
        log.warning(
            "a classifier tells these images from the training images by the features of the last hidden layer (AUC "
            "%.2f; 0.5 where they are alike): the model's scores of them need a check of their own",
            auc,
        )
    if share > DISTANT:
        log.warning(
            "%d of %d images (%.0f%%) are farther from the training images, in the features of the last hidden layer, "
            "than 99%% of the validation images were; the model does not know such galaxies",
            newcomers.distant,
            newcomers.seen,
            100 * share,
        )
    return {"share_distant": share, DOMAIN: auc}


def _scored(
    network: keras.Model,
    pieces: Iterable[np.ndarray],
    comparison: Comparison | None,
    newcomers: embedding.Newcomers | None,
) -> Iterator[dict[str, np.ndarray]]:
    """Columns about the images of each piece: those of `prediction.columns`, and where there is something to compare
    with, `unlike` and `anomaly`.
    """
    found: deque[np.ndarray] = deque()  # some pieces ahead of the probabilities

    def compared() -> Iterator[np.ndarray]:
        for piece in pieces:
            if comparison is not None:
                found.append(comparison.add(piece))
            yield piece

    model = network if newcomers is None else with_features(network)
    width = network.output_shape[-1]

    def described(outputs: np.ndarray, unlike: np.ndarray) -> dict[str, np.ndarray]:
        columns = prediction.columns(outputs[:, -width:])
        if comparison is not None:
            columns["unlike"] = unlike
        if newcomers is not None:
            columns["anomaly"] = newcomers.add(outputs[:, :-width]) if len(outputs) else np.empty(0)
        return columns

    yield described(np.empty((0, model.output_shape[-1])), np.empty(0))
    for outputs in prediction.outputs_of_pieces(model, compared()):
        yield described(outputs, found.popleft() if found else np.empty(0))


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
