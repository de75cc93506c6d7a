"""Map what speaks for a merger, and against it, in test images or chosen ones; and say how far that can be believed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deepmerge.analysis import saliency
from deepmerge.data.formats import cache
from deepmerge.data.memory_map import forget
from deepmerge.errors import InputError
from deepmerge.jobs.gradcam import chosen, figures, files, judging
from deepmerge.jobs.judged import Judged, reload, saliency_method
from deepmerge.jobs.run import Results, log_figures, write_json, write_table
from deepmerge.model import prediction
from deepmerge.plots import canvas
from deepmerge.progress import progress_bar
from deepmerge.tracking import runs

FOLDER = "saliency"  # of the artifacts
TRUST = "trust.csv"
STRIPES = "stripes.csv"
VERDICT = "saliency_verdict"  # tag of the run: how far its maps can be believed


def gradcam(
    dataset: str,
    model: str,
    layer: str | None = None,
    method: str | None = None,
    methods: str | None = None,
    target: str | None = None,
    selection: str | None = None,
    pdf: bool = False,
    out: Path | None = None,
) -> Results:
    """Map what speaks for either class; the results go to the model's own run.

    Without a selection every test image is mapped, and the maps are put to the test, those of further `methods`
    (separated by commas, or 'all') too. selection: as `chosen.parse` takes it; target: of saliency.TARGETS, both if not
    given: the images and class whose maps are written as npy and FITS. `out` is a folder for copies of the results.
    Raises InputError for unknown words, and for rows and galaxies that the data do not have.
    """
    if target not in (None, *saliency.TARGETS):
        raise InputError(f"target should be one of {', '.join(saliency.TARGETS)}, got {target!r}")
    if selection is None and target is not None:
        raise InputError("target should come with a selection, got none; say --selection all for every test image")
    judged_methods = judging.methods_of(methods)
    choose = None if selection is None else chosen.parse(selection)
    judged = reload(dataset, model)
    found = {"run_id": judged.run.info.run_id}
    if choose is None:
        with runs.reopened(judged.run):
            return found | gradcam_in_run(judged, layer, method, pdf, out, judged_methods)
    images = choose.images(judged)
    if not len(images.table):
        raise InputError(f"selection should mean images of {judged.data.name}, got {selection!r}, of which it has none")
    with runs.reopened(judged.run):
        return found | _selected(judged, layer, method, choose, images, target, pdf, out)


def gradcam_in_run(
    judged: Judged,
    layer: str | None,
    method: str | None,
    pdf: bool,
    out: Path | None = None,
    methods: Sequence[str] = (),
) -> Results:
    """Explain a model in its own run, which is open: maps of all test images, how far to believe them, figures.

    `out` gets ``gradcam.png`` and ``saliency.json``.
    """
    part = judged.split.test
    explainer = _explainer(judged, layer, method)
    table = part.described(judged.data).assign(probability=judged.scores("test"))
    with runs.artifact_folder(FOLDER) as folder:
        maps = _mapped(explainer, judged.data.images, table, folder / "test_maps.npy", judged.data.name)
        table.to_csv(folder / "test_maps.csv", index=False)
        files.write_readme(folder, "test_maps", explainer, saliency.TARGETS)
        stripes = figures.striped(judged, table)
        if stripes:
            write_table(
                pd.DataFrame({"layer": list(stripes), "column_to_row_power": stripes.values()}), folder / STRIPES
            )
        drawn = figures.drawn(judged, maps, table, explainer, stripes)
        trust = judging.judge(judged, table, explainer, layer, methods)
        if trust is not None:
            write_table(trust.table.frame(), folder / TRUST)
            runs.set_tags({VERDICT: trust.verdict})
        forget(maps)
    results: Results = {"saliency_method": explainer.name, "saliency_layer": explainer.layer}
    if stripes:
        results["test_stripes"] = max(power for layer, power in stripes.items() if layer != "image")
    if trust is not None:
        results |= trust.metrics() | {VERDICT: trust.verdict}
    log_figures(drawn, pdf)
    runs.log_metrics({name: value for name, value in results.items() if isinstance(value, float)})
    if out is not None:
        canvas.save(drawn["gradcam"], out / "gradcam.png")
        write_json(results, out / "saliency.json")
    return results


def _selected(
    judged: Judged,
    layer: str | None,
    method: str | None,
    choose: chosen.Choice,
    images: chosen.Images,
    target: str | None,
    pdf: bool,
    out: Path | None,
) -> Results:
    """Maps of chosen images as files and on a page, below the folder of the selection's name."""
    explainer = _explainer(judged, layer, method)
    targets = saliency.TARGETS if target is None else (target,)
    with runs.artifact_folder(f"{FOLDER}/{choose.name}") as folder:
        maps = _mapped(explainer, images.pixels, images.table, folder / "maps.npy", choose.title, targets)
        cards = files.header(judged, explainer)
        files.write_fits(folder / "maps.fits", maps, targets, images.table, cards)
        on_sky = files.write_on_sky(folder, images.files, maps, targets, cards)
        images.table.to_csv(folder / "maps.csv", index=False)
        files.write_readme(folder, "maps", explainer, targets, on_sky)
        page = figures.selection(judged, images, maps, targets, explainer.name, f"{choose.title} ({explainer.title})")
        canvas.save(page, folder / "maps.png", pdf=pdf)
        if out is not None:
            files.copy(folder, out)
    results: Results = {"selection": choose.name, "images": len(images.table), "artifacts": f"{FOLDER}/{choose.name}"}
    return results | {"with_wcs": on_sky, "saliency_layer": explainer.layer}


def _explainer(judged: Judged, layer: str | None, method: str | None) -> saliency.Explainer:
    return saliency.Explainer(judged.model, layer, method=saliency_method(method, layer))


def _mapped(
    explainer: saliency.Explainer,
    pixels: np.ndarray,
    table: pd.DataFrame,
    path: Path,
    title: str,
    targets: Sequence[str] = saliency.TARGETS,
) -> np.ndarray:
    """Maps (n, targets, H, W) of the lines of a table, images among `pixels` (N, F, H, W), in a memory-mapped file."""
    places = [saliency.TARGETS.index(target) for target in targets]
    maps = cache.create(path, (len(table), len(targets), *pixels.shape[2:]), np.dtype(np.float32))
    rows, transforms = (table[name].to_numpy() for name in ("row", "transform"))
    start = 0
    with progress_bar(f"{explainer.method.title} on {title}", len(table)) as advance:
        for piece in explainer.batches(prediction.batches(pixels, rows, transforms)):
            maps[start : start + len(piece)] = piece[:, places]
            forget(maps)
            start += len(piece)
            advance(len(piece))
    maps.flush()
    return maps
