"""One function a command, composing data, model, analysis and tracking; `cli` calls nothing else."""

from deepmerge.stages.comparison import compare
from deepmerge.stages.evaluation import evaluate
from deepmerge.stages.explanation import gradcam
from deepmerge.stages.promotion import promote
from deepmerge.stages.scoring import predict
from deepmerge.stages.training import train
from deepmerge.stages.tuning import tune, work
from deepmerge.stages.whole import main

__all__ = ["compare", "evaluate", "gradcam", "main", "predict", "promote", "train", "tune", "work"]
