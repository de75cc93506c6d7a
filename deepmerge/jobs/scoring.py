"""Tables of scores of images that come in pieces: made, written group by group, and summed up."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from deepmerge.analysis.embedding import Newcomers
from deepmerge.model import prediction
from deepmerge.model.familiarity import MARGIN, Comparison
from deepmerge.model.features import with_features
from deepmerge.progress import Advance

GROUP = 1 << 16  # rows written at a time

Calibrate = Callable[[np.ndarray], np.ndarray]


@dataclass
class Totals:
    """Of the images that were scored: all, those with a probability, mergers among these, those unlike training, in
    their pixels, and those distant from it to the network.
    """

    count: int = 0
    scored: int = 0
    mergers: int = 0
    unlike: int = 0
    distant: int = 0
    sum: float = 0.0

    def add(self, table: pd.DataFrame) -> None:
        """Count the rows of a table."""
        defined = table["probability"].dropna()
        self.count += len(table)
        self.scored += len(defined)
        self.mergers += int((defined >= 0.5).sum())
        self.unlike += int((table["unlike"] > MARGIN).sum()) if "unlike" in table else 0
        self.distant += int((table["anomaly"] > 1).sum()) if "anomaly" in table else 0
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
class Compared:
    """What images are compared with, where there is something: pixels of the training, and what the network saw."""

    pixels: Comparison | None = None
    features: Newcomers | None = None


def tables(
    network: keras.Model,
    pieces: Iterable[np.ndarray],
    start: int,
    beside: pd.DataFrame,
    calibrate: Calibrate | None,
    compared: Compared,
    advance: Advance,
) -> Iterator[pd.DataFrame]:
    """Tables of the images in pieces, rows from `start`; beside: their identities, from the first on."""
    done = 0
    for group in _grouped(_scored(network, pieces, compared), advance):
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


def _scored(network: keras.Model, pieces: Iterable[np.ndarray], compared: Compared) -> Iterator[dict[str, np.ndarray]]:
    """Columns about the images of each piece: those of `prediction.columns`, and where there is something to compare
    with, `unlike` and `anomaly`.
    """
    found: deque[np.ndarray] = deque()  # some pieces ahead of the probabilities

    def seen() -> Iterator[np.ndarray]:
        for piece in pieces:
            if compared.pixels is not None:
                found.append(compared.pixels.add(piece))
            yield piece

    model = network if compared.features is None else with_features(network)
    width = network.output_shape[-1]

    def described(outputs: np.ndarray, unlike: np.ndarray) -> dict[str, np.ndarray]:
        columns = prediction.columns(outputs[:, -width:])
        if compared.pixels is not None:
            columns["unlike"] = unlike
        if compared.features is not None:
            columns["anomaly"] = compared.features.add(outputs[:, :-width]) if len(outputs) else np.empty(0)
        return columns

    yield described(np.empty((0, model.output_shape[-1])), np.empty(0))
    for outputs in prediction.outputs_of_pieces(model, seen()):
        yield described(outputs, found.popleft() if found else np.empty(0))


def _grouped(pieces: Iterable[dict[str, np.ndarray]], advance: Advance) -> Iterator[dict[str, np.ndarray]]:
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
def writing(path: Path, metadata: dict[str, str]) -> Iterator[Callable[[pd.DataFrame], object]]:
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
