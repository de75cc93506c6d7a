"""Score images of any number into a folder: a Parquet data set, a part for each shard, by many workers."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import parquet

from deepmerge import cluster
from deepmerge.analysis.embedding import Newcomers, Space
from deepmerge.data.formats.image_file import ImageFile, open_images
from deepmerge.errors import InputError
from deepmerge.files import replacing
from deepmerge.jobs import scoring
from deepmerge.jobs.scoring import Calibrate, Totals
from deepmerge.model import devices, prediction
from deepmerge.model.familiarity import Comparison, Familiar
from deepmerge.progress import progress_bar

SHARD = 1 << 14  # rows of a part, which one process scores in half a minute
SCORING = "_scoring.json"  # in such a folder: what its parts depend on; readers of Parquet pass over such names


@dataclass(frozen=True)
class Scored:
    """What is the same for all shards: metadata of the files, the calibration, and what is known of the training's
    images: their pixels, and where the network sees them.
    """

    metadata: dict[str, str]
    calibrate: Calibrate | None
    familiar: Familiar | None
    space: Space | None


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
        compared = scoring.Compared(
            None if self.scored.familiar is None else Comparison(self.scored.familiar),
            None if self.scored.space is None else Newcomers(self.scored.space),
        )
        with (
            open_images(self.images) as file,
            replacing(self.part) as aside,
            scoring.writing(aside, self.scored.metadata) as write,
        ):
            pieces = file.pieces(prediction.batch_size(file.shape), self.rows)
            start, network = self.rows.start, prediction.unpacked(model)
            for table in scoring.tables(network, pieces, start, self.beside, self.scored.calibrate, compared, _nothing):
                write(table)
        return len(self.rows)


def score(
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
        columns = [name for name in ("probability", "unlike", "anomaly") if name in parquet.read_schema(part).names]
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
    with replacing(note) as aside:
        aside.write_text(json.dumps(known, indent=2) + "\n")


def _nothing(steps: int = 1, note: str | None = None) -> None:
    """Advance no bar: a worker has none."""
