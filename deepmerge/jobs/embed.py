"""Where the network sees each image: features of its last hidden layer, distances, neighbours and a map."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.analysis import embedding
from deepmerge.data.splits import Part
from deepmerge.files import replacing
from deepmerge.jobs.judged import Judged, reload
from deepmerge.jobs.run import Results
from deepmerge.tracking import runs

EMBEDDING = "embedding.parquet"  # artifact: a line an image of every part
SPACE = "embedding_space.npz"  # artifact: what `predict` compares new images with
NEIGHBOURS = 8
DOMAIN = "domain_auc"


def embed(dataset: str, model: str, out: Path | None = None) -> Results:
    """Embed all images of a model's split; table and space go to the model's own run, the table to `out`, too.

    Raises InputError for an `out` that does not end in .parquet, and as `judged.reload`.
    """
    judged = reload(dataset, model)
    table, space = embedded(judged)
    with runs.reopened(judged.run), runs.artifact_folder(".") as folder:
        table.to_parquet(folder / EMBEDDING, index=False)
        space.save(folder / SPACE)
        results = summary(table, space)
        runs.log_metrics({name: value for name, value in results.items() if isinstance(value, float)})
    if out is not None:
        with replacing(out) as aside:
            table.to_parquet(aside, index=False)
    return {"run_id": judged.run.info.run_id, **results, **({} if out is None else {"written": str(out)})}


def embedded(judged: Judged) -> tuple[pd.DataFrame, embedding.Space]:
    """A line an image of every part, and the space in which they stand.

    Columns: split, row, transform, galaxy_id, view, stage, label, probability; `feature_1` …: the last hidden layer;
    `pca_1` …: along the principal axes of training features, in their standard deviations; `map_x`, `map_y`: t-SNE of
    these; `anomaly`: mean distance to the five nearest training images of other galaxies over its 99th percentile among
    validation images; `neighbour_1` …: rows of the nearest images of other galaxies.
    """
    split, data = judged.split, judged.data
    parts = split.table()
    everything = Part(parts["row"].to_numpy(), parts["transform"].to_numpy())
    features, probability = judged.features(everything)
    trains, validates = ((parts["split"] == name).to_numpy() for name in ("train", "validation"))
    space = embedding.fit(features[trains])
    points, galaxies = space.at(features), data.galaxies[everything.rows]
    away = embedding.distances(points, space.points, galaxies, galaxies[trains])
    space = replace(space, limit=float(np.percentile(away[validates], embedding.LIMIT)))
    near, _ = embedding.neighbours(points, points, NEIGHBOURS, galaxies, galaxies)
    places = embedding.flat_map(points, split.seed)
    columns = {
        "probability": probability,
        **{f"feature_{i + 1}": values for i, values in enumerate(features.T.astype(np.float32))},
        **{f"pca_{i + 1}": values for i, values in enumerate(points.T.astype(np.float32))},
        "map_x": places[:, 0],
        "map_y": places[:, 1],
        "anomaly": away / space.limit,
        **{f"neighbour_{i + 1}": everything.rows[chosen] for i, chosen in enumerate(near.T)},
    }
    described = everything.described(data)
    described.insert(0, "split", parts["split"].to_numpy())
    return pd.concat([described, pd.DataFrame(columns)], axis=1), space


def summary(table: pd.DataFrame, space: embedding.Space) -> Results:
    """How the test images lie among those of the training: share of distant ones, and AUC of telling the two apart."""
    axes = [f"pca_{i + 1}" for i in range(len(space.axes))]
    test = table[table["split"] == "test"]
    return {
        "features": sum(str(name).startswith("feature_") for name in table),
        "axes": len(axes),
        "test_share_distant": float((test["anomaly"] > 1).mean()),
        f"test_{DOMAIN}": embedding.domain_auc(space.points, test[axes].to_numpy(), 0),
    }
