"""One function a command, composing data, model, analysis and tracking; `cli` calls nothing else."""

from deepmerge.stages.baselines import baselines
from deepmerge.stages.comparison import compare
from deepmerge.stages.cross_validation import cross_validate
from deepmerge.stages.evaluation import evaluate
from deepmerge.stages.explanation import gradcam
from deepmerge.stages.leakage import leakage
from deepmerge.stages.probabilities import probabilities
from deepmerge.stages.promotion import promote
from deepmerge.stages.recipes import recipes
from deepmerge.stages.scoring import predict
from deepmerge.stages.selection import selection
from deepmerge.stages.training import train
from deepmerge.stages.tuning import tune, work
from deepmerge.stages.whole import main

__all__ = [
    "baselines",
    "compare",
    "cross_validate",
    "evaluate",
    "gradcam",
    "leakage",
    "main",
    "predict",
    "probabilities",
    "promote",
    "recipes",
    "selection",
    "train",
    "tune",
    "work",
]
