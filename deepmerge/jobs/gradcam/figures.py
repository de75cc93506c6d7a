"""The figures of a model's saliency maps: single galaxies, layers, means of groups, and a page of chosen images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import saliency
from deepmerge.data.batches import gather
from deepmerge.data.memory_map import forget
from deepmerge.jobs import saliency_figures
from deepmerge.jobs.gradcam.chosen import Images
from deepmerge.jobs.gradcam.grid_figures import MOST_LAYERS, Group, activation_grid, layer_grid, mean_maps
from deepmerge.jobs.judged import LAYER_METHOD, Judged
from deepmerge.jobs.run import warning

PANELS = 2  # galaxies of each kind and certainty among the panels
MOST = 24  # images on a page of chosen ones
AT_ONCE = 512  # images in memory for the means
STRIPED = 128  # test images in which stripes are looked for; their galaxies lie in all directions
OUTCOMES = {"TP": "True positive", "FP": "False positive", "TN": "True negative", "FN": "False negative"}
STAGES = ("past", "future", "non-merger")


def drawn(
    judged: Judged, maps: np.ndarray, table: pd.DataFrame, explainer: saliency.Explainer, stripes: dict[str, float]
) -> dict[str, Figure]:
    """Figures of the maps (n, 2, H, W) of the test images, a line each of `table`, by name; stripes: see `striped`."""
    chosen = saliency.panel_rows(
        *(table[name].to_numpy() for name in ("label", "probability")),
        per_kind=PANELS,
        galaxies=table["galaxy_id"].to_numpy(),
    )
    pages = {
        "gradcam": _panels(judged, maps, table, chosen, explainer.name, f"Saliency maps ({explainer.title})"),
        "saliency_layers": _layers(judged, maps, table, chosen, explainer),
        "saliency_means": _means(judged, maps, table, f"Mean maps ({explainer.title})"),
    }
    return pages | ({"activations": _activations(judged, table, chosen, stripes)} if stripes else {})


def striped(judged: Judged, table: pd.DataFrame) -> dict[str, float]:
    """`saliency.column_power` of the images, 1 in no direction, and behind each convolution: of some test images."""
    some = table.sample(min(len(table), STRIPED), random_state=np.random.default_rng(0))
    images, _ = _images(judged, some)
    found = saliency.activations(judged.model, images)
    if not found:
        return {}
    of_images = saliency.column_power(saliency.Opened(judged.model).stretched(images))
    return {"image": of_images, **{name: saliency.column_power(each) for name, each in found.items()}}


def selection(
    judged: Judged, images: Images, maps: np.ndarray, targets: Sequence[str], method: str, title: str
) -> Figure:
    """The first MOST of chosen images, each beside its map for each of the targets, (n, targets, H, W)."""
    shown = images.table.head(MOST)
    pixels = gather(images.pixels, *(shown[name].to_numpy() for name in ("row", "transform")))
    captions = []
    for line in shown.to_dict("records"):
        known = [f"galaxy {line['galaxy_id']}"] if "galaxy_id" in line else []
        known += [f"row {line['row']}"] + ([f"{line['outcome']}, {line['stage']}"] if "outcome" in line else [])
        captions.append(f"{'  '.join(known)}\nP(merger) = {line['probability']:.2f}")
    if len(shown) < len(images.table):
        title = f"{title}: the first {MOST} of {len(images.table)}"
    return saliency_figures.comparison(
        [pixels] * len(targets),
        [saliency.displayed(maps[: len(shown), number], method) for number in range(len(targets))],
        captions,
        [f"for a {target}" for target in targets],
        masks=None if images.masks is None else images.masks[:MOST],
        filters=judged.data.filters,
        title=title,
        note=warning(judged.data, judged.split),
    )


def _images(judged: Judged, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray | None]:
    rows, transforms = (table[name].to_numpy() for name in ("row", "transform"))
    return gather(judged.data.images, rows, transforms), judged.masks(rows, transforms)


def _panels(
    judged: Judged, maps: np.ndarray, table: pd.DataFrame, chosen: dict[str, saliency.Panel], method: str, title: str
) -> Figure:
    picks = [
        (line, kind, certainty)
        for kind, panel in chosen.items()
        for certainty, lines in panel._asdict().items()
        for line in lines
    ]
    lines = np.array([line for line, _, _ in picks], dtype=np.int64)
    shown = table.iloc[lines]
    images, masks = _images(judged, shown)
    shown_maps = saliency.displayed(maps[lines], method)
    return saliency_figures.panels(
        images,
        shown_maps[:, 0],
        shown_maps[:, 1],
        captions=[f"galaxy {line.galaxy_id}   P(merger) = {line.probability:.2f}" for line in shown.itertuples()],
        kinds=[kind for _, kind, _ in picks],
        certainties=[certainty for _, _, certainty in picks],
        masks=masks,
        filters=judged.data.filters,
        title=title,
        note=warning(judged.data, judged.split),
    )


def _layers(
    judged: Judged,
    maps: np.ndarray,
    table: pd.DataFrame,
    chosen: dict[str, saliency.Panel],
    explainer: saliency.Explainer,
) -> Figure:
    """The surest image of each outcome: what spoke for the class that was given, in each layer.

    By the method of the explainer or, where that looks at the pixels, by LAYER_METHOD, with its own map beside.
    """
    picks = [(kind, panel.confident[0]) for kind, panel in chosen.items() if len(panel.confident)]
    lines = np.array([line for _, line in picks], dtype=np.int64)
    shown = table.iloc[lines]
    images, masks = _images(judged, shown)
    given = np.where(shown["probability"] >= 0.5, 0, 1)  # of saliency.TARGETS
    of_pixels = explainer.layer == saliency.PIXELS
    method = LAYER_METHOD if of_pixels else explainer.name
    heats = {}
    for name in _some(list(saliency.convolutions(judged.model)), MOST_LAYERS - of_pixels):
        found = saliency.maps(judged.model, images, method=method, layer=name)
        heats[f"{saliency.METHODS[method].title}\n{name}"] = found[np.arange(len(lines)), given]
    if of_pixels:
        heats[f"{explainer.method.title}\n{explainer.layer}"] = saliency.displayed(maps[lines, given], explainer.name)
    captions = [
        f"{OUTCOMES[kind]}: galaxy {line.galaxy_id} ({line.stage}), P(merger) = {line.probability:.2f}"
        for (kind, _), line in zip(picks, shown.itertuples(), strict=True)
    ]
    return layer_grid(
        images,
        heats,
        captions,
        judged.data.filters,
        masks=masks,
        title="What spoke for the answer, layer by layer",
        note=warning(judged.data, judged.split),
    )


def _activations(
    judged: Judged, table: pd.DataFrame, chosen: dict[str, saliency.Panel], stripes: dict[str, float]
) -> Figure:
    """What the layers make of one galaxy, the surest recognised merger where there is one."""
    kind, panel = next((kind, panel) for kind, panel in chosen.items() if len(panel.confident))
    line = table.iloc[panel.confident[0]]
    images, _ = _images(judged, table.iloc[panel.confident[:1]])
    features = saliency.activations(judged.model, images)
    names = _some(list(features))
    filters = {name: each.shape[-1] for name, each in features.items()}
    labels = [
        f"{name}: {filters[name]} filters of {' × '.join(map(str, features[name].shape[1:3]))}, "
        f"column to row power {stripes[name]:.2f} (images {stripes['image']:.2f})"
        for name in names
    ]
    return activation_grid(
        images[0],
        {name: features[name][0] for name in names},
        labels,
        judged.data.filters,
        title=f"Activations: {OUTCOMES[kind].lower()}, galaxy {line['galaxy_id']} ({line['stage']}), "
        f"P(merger) = {line['probability']:.2f}",
        note=warning(judged.data, judged.split),
    )


def _some(names: list[str], most: int = MOST_LAYERS) -> list[str]:
    """At most so many of the layers, from the first to the last."""
    return [names[place] for place in np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)]


def _means(judged: Judged, maps: np.ndarray, table: pd.DataFrame, title: str) -> Figure:
    """Mean image and maps of each outcome and each stage."""
    outcome = saliency.outcomes(table["label"].to_numpy(), table["probability"].to_numpy())
    groups = {f"{name}s": outcome == kind for kind, name in OUTCOMES.items()}
    groups |= {f"Stage: {stage}": (table["stage"] == stage).to_numpy() for stage in STAGES}
    means = [_mean(judged, maps, table, name, np.flatnonzero(which)) for name, which in groups.items() if which.any()]
    return mean_maps(means, judged.data.filters, title=title, note=warning(judged.data, judged.split))


def _mean(judged: Judged, maps: np.ndarray, table: pd.DataFrame, name: str, lines: np.ndarray) -> Group:
    parts = np.array_split(lines, len(lines) // AT_ONCE + 1)
    image = np.sum([_images(judged, table.iloc[part])[0].sum(axis=0, dtype=float) for part in parts], axis=0)
    both = np.zeros(maps.shape[1:])
    for part in parts:
        both += maps[part].sum(axis=0, dtype=float)
        forget(maps)
    return Group(name, len(lines), image / len(lines), *(both / len(lines)))
