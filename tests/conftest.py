"""Fixtures that several test modules share."""

import os
from collections.abc import Callable
from pathlib import Path

# TensorFlow reads it at import; tests of stages would otherwise drown in its greetings.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import numpy as np
import pandas as pd
import pytest
import yaml

GALAXIES = {"past": 14, "future": 10, "non-merger": 36}
VIEWS = 2


def blob(size: int, x: float, y: float, width: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))


@pytest.fixture
def write_sample(tmp_path: Path) -> Callable[..., Path]:
    """Write a small sample that can be learned (mergers have two nuclei); returns its experiment file."""

    def write(name: str = "tiny", size: int = 32, filters: int = 2, catalogue: bool = True, **settings: object) -> Path:
        rng = np.random.default_rng(11)
        stages = np.repeat(list(GALAXIES), list(GALAXIES.values()))
        images = np.empty((len(stages) * VIEWS, filters, size, size), np.float32)
        for i, stage in enumerate(np.repeat(stages, VIEWS)):
            scene = 20 * blob(size, 0, 0, 2.0)
            if stage != "non-merger":
                angle = rng.uniform(0, 2 * np.pi)
                scene += 15 * blob(size, 7 * np.cos(angle), 7 * np.sin(angle), 1.6)
            images[i] = scene + rng.normal(0, 0.3, (filters, size, size))
        folder = tmp_path / "sample"
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{name}_X.npy", images)
        np.save(folder / f"{name}_y.npy", np.repeat(stages != "non-merger", VIEWS).astype(np.uint8))
        data = {"images": f"{name}_X.npy", "labels": f"{name}_y.npy"}
        if catalogue:
            ids = np.repeat(100 + np.arange(len(stages)), VIEWS)
            table = {
                "galaxy_id": ids,
                "view": np.tile(np.arange(VIEWS), len(stages)),
                "stage": np.repeat(stages, VIEWS),
            }
            pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
            data["catalogue"] = f"{name}.csv"
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"data": data, **settings}))
        return path

    return write
