"""Score images of any number with a trained model."""

import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge import cluster
from deepmerge.analysis import embedding
from deepmerge.analysis.calibration import BALANCE, at_prior, tempered
from deepmerge.data import positions
from deepmerge.data.dataset import read_source
from deepmerge.data.formats import cache
from deepmerge.data.formats.image_file import open_images
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs import scoring, shards
from deepmerge.jobs.embed import DOMAIN, SPACE
from deepmerge.jobs.judged import PIXELS, trained_merger_fraction
from deepmerge.jobs.run import Results
from deepmerge.model import devices, prediction
from deepmerge.model.familiarity import EXPECTED, Comparison, Familiar
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

log = logging.getLogger(__name__)

SUFFIXES = (".parquet", ".csv")
CALIBRATION = "calibration.json"  # what `study probabilities` leaves with a model
DISTANT = 0.05  # share of distant images from which on a warning is due; 1 % are distant by the limit's definition
# AUC of telling new images from those of the training from which on a warning is due. On the noisy demo sample: test
# images 0.53, equally many mergers and non-mergers of them 0.67; fluxes × 1.3 0.82, noise × √2 0.95, no galaxy 0.98.
TOLD_APART = 0.8


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
    beside the images; `probability`, undefined where an image has NaN or infinite pixels; `past_probability` and
    `future_probability`, which add up to it, where the model tells stages; `calibrated` where the
    `merger_fraction` among such galaxies is given: the probability at that fraction, by Bayes' rule from the one that
    the model was trained at and the temperature that `study probabilities` found for it; `unlike`, how far the
    image's pixels lie beyond those of training images, as `familiarity.Comparison` has it, where the model knows them;
    and `anomaly`, how far it lies from them to the network, as `embed` has it, where that was called for the model.

    Where galaxies have several images, a second table beside `out`, with `_galaxies` in its name, has a line for each
    galaxy: `galaxy_id`; `images`, those with a probability; and `probability`, the mean of theirs.

    The metadata of a Parquet file tell of the model: `model` as given, `run_id`, and `data_fingerprint` of the training
    data. `model` is what `runs.find` takes, without 'last'. What is returned is logged in a run of kind `predict`, too,
    once all is written. Raises InputError for other files, images of another shape
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
        calibrate: scoring.Calibrate | None = None
        if merger_fraction is not None:
            priors: dict[str, Any] = {"merger_fraction": merger_fraction, "temperature": _temperature(run)}
            priors["trained_at"] = trained_merger_fraction(run)
            metadata |= {name: str(value) for name, value in priors.items()}
            calibrate = partial(_calibrated, **priors)
        beside = _identities(images, catalogue, file.shape[0])
        comparison, space = _comparison(run), _space(run)
        newcomers = None if space is None else embedding.Newcomers(space)
        in_views = "galaxy_id" in beside and beside["galaxy_id"].duplicated().any()
        if not out.suffix:
            known = {**metadata, "images": str(images), "state": cache.state(images), "catalogue": _told(beside)}
            scored = shards.Scored(metadata, calibrate, None if comparison is None else comparison.familiar, space)
            totals = shards.score(file, out, beside, scored, known, runs.model_file(run).read_bytes(), workers)
        else:
            totals = scoring.Totals()
            with (
                replacing(out) as aside,
                scoring.writing(aside, metadata) as write,
                progress_bar(f"Scoring {images.name}", file.shape[0]) as advance,
            ):
                pieces = file.pieces(prediction.batch_size(file.shape))
                compared = scoring.Compared(comparison, newcomers)
                for table in scoring.tables(network, pieces, 0, beside, calibrate, compared, advance):
                    write(table)
                    totals.add(table)
        if in_views:
            _write_galaxies(out, metadata)
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
    if newcomers is not None:
        summary |= _distant(totals, newcomers.domain_auc() if out.suffix else np.nan)
    written = {"written": str(out), **({"written_galaxies": str(_of_galaxies(out))} if in_views else {})}
    logged = _logged(
        run, {**metadata, "images": images.resolve(), "out": out.resolve()}, {**summary, "images": totals.count}
    )
    return {"run_id": run.info.run_id, "images": totals.count, **summary, **written, "logged_in": logged}


def _logged(run: runs.Run, parameters: dict[str, Any], metrics: dict[str, float]) -> str:
    """Leave a run that says which model scored which images, and how like its own they were; its id."""
    tags = {"kind": "predict", "scored_by": run.info.run_id, "dataset": run.data.tags.get("dataset", "unknown")}
    with runs.new_run(f"predict {Path(parameters['images']).name}", tags) as run_id:
        runs.log_parameters(parameters)
        runs.log_metrics(metrics)
    return run_id


def _of_galaxies(out: Path) -> Path:
    """Where the table of galaxies lies beside that, or the folder, of images."""
    return out.with_name(f"{out.stem}_galaxies{out.suffix or '.parquet'}")


def _write_galaxies(out: Path, metadata: dict[str, str]) -> None:
    """A line a galaxy, in the order of its first image: id, how many images were scored, their mean probability."""
    columns = ["galaxy_id", "probability"]
    images = (
        pd.read_csv(out, usecols=columns, dtype={"galaxy_id": str})
        if out.suffix == ".csv"
        else pd.read_parquet(out, columns=columns)
    )
    groups = images.groupby("galaxy_id", sort=False)["probability"]
    with replacing(_of_galaxies(out)) as aside, scoring.writing(aside, metadata) as write:
        write(groups.agg(images="count", probability="mean").reset_index())


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


def _space(run: runs.Run) -> embedding.Space | None:
    """Where the training images lie as the network sees them; None where `embed` was not called."""
    try:
        return embedding.Space.load(runs.read_artifact(run, SPACE))
    except InputError:
        return None


def _distant(totals: scoring.Totals, auc: float) -> dict[str, float]:
    """How far images lie from those of the training as the network sees them, with a warning where that is far.

    auc: how well they can be told from these; undefined for a folder of scores, which holds no features.
    """
    share = totals.distant / totals.scored if totals.scored else np.nan
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
            totals.distant,
            totals.scored,
            100 * share,
        )
    return {"share_distant": share, DOMAIN: auc}


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


def _told(beside: pd.DataFrame) -> str:
    return hashlib.sha256(beside.to_csv(index=False).encode()).hexdigest() if len(beside) else ""
