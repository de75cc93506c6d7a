"""Simple statistics of images, none of which sees a shape: what a network could use as a shortcut."""

import numpy as np
import pandas as pd

from deepmerge.data.dataset import Dataset, chunks

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
# Outer radii of the rings, as shares of half the shorter side: fine where galaxies are bright.
RINGS = (0.04, 0.08, 0.12, 0.18, 0.25, 0.33, 0.43, 0.54, 0.67, 0.82, 1.0, 1.42)
FRAME = 2  # pixels
_MAD_TO_SIGMA = 1.4826  # of normally distributed values
COORDINATES = ("ra", "dec")


def of_images(data: Dataset) -> dict[str, pd.DataFrame]:
    """Statistics of all images by what they measure; one row an image, NaN where one is not defined.

    fluxes: the sum of each filter, and the colours; quantiles: of the pixels of each filter; radial profile: mean of
    each ring around the centre; edge frame: mean, scatter and quantiles of the outermost FRAME pixels; noise: scatter
    of neighbouring pixels' differences; missing pixels: shares that are NaN, zero, or equal to the commonest value;
    coordinates: where the catalogue has them.
    """
    parts = [_measured(np.asarray(data.images[chunk], np.float64)) for chunk in chunks(data.images)]
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
    if set(COORDINATES) <= set(data.catalogue):
        tables["coordinates"] = data.catalogue[list(COORDINATES)].astype(float).reset_index(drop=True)
    return tables


def _measured(images: np.ndarray) -> dict[str, pd.DataFrame]:
    """The tables of some images (n, F, H, W)."""
    pixels = np.where(np.isfinite(images), images, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            name: pd.DataFrame(function(pixels).reshape(len(images), -1)).replace([np.inf, -np.inf], np.nan)
            for name, function in STATISTICS.items()
        }


def _fluxes(images: np.ndarray) -> np.ndarray:
    flux = np.nansum(images, (2, 3))
    return np.concatenate([flux, flux[:, :-1] / flux[:, 1:]], axis=1)


def _quantiles(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.nanquantile(images, QUANTILES, axis=(2, 3)), 0, -1)


def _profile(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[2:]
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2
    ring = np.searchsorted(RINGS, 2 * np.hypot(y, x) / min(height, width))
    means = [np.nanmean(images[:, :, ring == number], axis=2) for number in np.unique(ring)]
    return np.stack(means, axis=-1)


def _edge(images: np.ndarray) -> np.ndarray:
    inner = np.zeros(images.shape[2:], bool)
    inner[FRAME:-FRAME, FRAME:-FRAME] = True
    frame = images[:, :, ~inner]
    moments = np.stack([np.nanmean(frame, axis=2), np.nanstd(frame, axis=2)], axis=-1)
    return np.concatenate([moments, np.moveaxis(np.nanquantile(frame, QUANTILES, axis=2), 0, -1)], axis=-1)


def _noise(images: np.ndarray) -> np.ndarray:
    steps = np.diff(images, axis=3) / np.sqrt(2)
    return _MAD_TO_SIGMA * np.nanmedian(np.abs(steps - np.nanmedian(steps, (2, 3), keepdims=True)), (2, 3))


def _missing(images: np.ndarray) -> np.ndarray:
    values = np.sort(images.reshape(*images.shape[:2], -1), axis=2)
    equal = np.concatenate([np.zeros((*values.shape[:2], 1), bool), values[:, :, 1:] == values[:, :, :-1]], axis=2)
    places = np.arange(values.shape[2])
    # The longest run of equal values: the distance of each place from the last one that differs from its neighbour.
    run = places - np.maximum.accumulate(np.where(equal, 0, places), axis=2)
    shares = [np.isnan(values).mean(2), (values == 0).mean(2), (run.max(2) + 1) / values.shape[2]]
    return np.stack(shares, axis=-1)


STATISTICS = {
    "fluxes": _fluxes,
    "quantiles": _quantiles,
    "radial profile": _profile,
    "edge frame": _edge,
    "noise": _noise,
    "missing pixels": _missing,
}
