"""Map what speaks for a merger, and against it, in every test image."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import saliency
from deepmerge.analysis.saliency import pointing
from deepmerge.data.batches import gather
from deepmerge.data.memory_map import forget
from deepmerge.jobs import saliency_figures
from deepmerge.jobs.judged import SALIENCY_METHOD, Judged, reload
from deepmerge.jobs.run import Results, log_figures, warning, write_json
from deepmerge.model import prediction
from deepmerge.plots import canvas
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

GAMES = 512  # images in memory at a time for the pointing game
PANELS = 2  # galaxies of each kind and certainty among the panels


def gradcam(
    dataset: str,
    model: str,
    layer: str | None = None,
    method: str | None = None,
    pdf: bool = False,
    out: Path | None = None,
) -> Results:
    """Map what speaks for either class in every test image; the results go to the model's own run.

    `out` is a folder for ``gradcam.png`` and ``saliency.json``.
    """
    judged = reload(dataset, model)
    with runs.reopened(judged.run):
        return {"run_id": judged.run.info.run_id, **gradcam_in_run(judged, layer, method, pdf, out)}


def gradcam_in_run(
    judged: Judged, layer: str | None, method: str | None, pdf: bool, out: Path | None = None
) -> Results:
    """Explain a model in its own run, which is open."""
    data, part = judged.data, judged.split.test
    method = method or SALIENCY_METHOD
    explainer = saliency.Explainer(judged.model, layer, method=method)
    table = part.described(data).assign(probability=judged.scores("test"))
    with runs.artifact_folder("saliency") as folder:
        shape = (len(part), len(saliency.TARGETS), *data.images.shape[2:])
        maps = np.lib.format.open_memmap(folder / "test_maps.npy", "w+", np.float32, shape)
        start = 0
        with progress_bar(f"Grad-CAM on {data.name}", len(part)) as advance:
            for piece in explainer.batches(prediction.batches(data.images, part.rows, part.transforms)):
                maps[start : start + len(piece)] = piece
                forget(maps)
                start += len(piece)
                advance(len(piece))
        maps.flush()
        table.to_csv(folder / "test_maps.csv", index=False)
        (folder / "README.txt").write_text(
            f"test_maps.npy (images, targets, height, width): {explainer.title} for"
            f" the targets {', '.join(saliency.TARGETS)}, in units of the logit.\n"
            "Line i of test_maps.csv is image i.\n"
        )
        panels = _panels(judged, maps, table, f"Saliency maps ({explainer.title})")
        results = {"saliency_method": method, "saliency_layer": explainer.layer, **_pointing(judged, maps, table)}
    log_figures({"gradcam": panels}, pdf)
    runs.log_metrics({name: value for name, value in results.items() if isinstance(value, float)})
    if out is not None:
        canvas.save(panels, out / "gradcam.png")
        write_json(results, out / "saliency.json")
    return results


def _panels(judged: Judged, maps: np.ndarray, table: pd.DataFrame, title: str) -> Figure:
    data = judged.data
    labels, scores, galaxies = (table[name].to_numpy() for name in ("label", "probability", "galaxy_id"))
    chosen = saliency.panel_rows(labels, scores, per_kind=PANELS, galaxies=galaxies)
    picks = [
        (line, kind, certainty)
        for kind, panel in chosen.items()
        for certainty, lines in panel._asdict().items()
        for line in lines
    ]
    lines = np.array([line for line, _, _ in picks], dtype=np.int64)
    rows, transforms = (table[name].to_numpy()[lines] for name in ("row", "transform"))
    return saliency_figures.panels(
        gather(data.images, rows, transforms),
        maps[lines, 0],
        maps[lines, 1],
        captions=[f"galaxy {galaxies[line]}   P(merger) = {scores[line]:.2f}" for line in lines],
        kinds=[kind for _, kind, _ in picks],
        certainties=[certainty for _, _, certainty in picks],
        masks=judged.masks(rows, transforms),
        filters=data.filters,
        title=title,
        note=warning(data, judged.split),
    )


def _pointing(judged: Judged, maps: np.ndarray, table: pd.DataFrame) -> dict[str, float]:
    """How often the merger map of a true positive peaks on the known merger features, where these are known."""
    hits = np.flatnonzero((table["label"] == 1) & (table["probability"] >= 0.5))
    rows, transforms = table["row"].to_numpy(), table["transform"].to_numpy()
    games = []
    for part in np.array_split(hits, len(hits) // GAMES + 1):
        masks = judged.masks(rows[part], transforms[part])
        if masks is None:
            return {}
        light = gather(judged.data.images, rows[part], transforms[part])[..., -1]
        games.append(pointing.pointing(maps[part, 0], masks, light))
        forget(maps)
    return {f"test_pointing_{name}": float(value) for name, value in asdict(pointing.pooled(games)).items()}
