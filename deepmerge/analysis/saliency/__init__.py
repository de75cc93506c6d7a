"""Where a network looked: maps by several methods, and the images worth showing them for."""

from deepmerge.analysis.saliency.activations import activations, column_power
from deepmerge.analysis.saliency.explainer import METHODS, PIXELS, TARGETS, Explainer, displayed, maps
from deepmerge.analysis.saliency.opened import Opened, convolutions
from deepmerge.analysis.saliency.panels import KINDS, Panel, outcomes, panel_rows

__all__ = [
    "KINDS",
    "METHODS",
    "PIXELS",
    "TARGETS",
    "Explainer",
    "Opened",
    "Panel",
    "activations",
    "column_power",
    "convolutions",
    "displayed",
    "maps",
    "outcomes",
    "panel_rows",
]
