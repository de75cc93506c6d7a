"""One function a command, composing data, model, analysis and tracking; `cli` calls nothing else."""

from deepmerge.stages.baselines import judge_baselines
from deepmerge.stages.comparison import compare
from deepmerge.stages.cross_validation import cross_validate
from deepmerge.stages.evaluation import evaluate
from deepmerge.stages.explanation import gradcam
from deepmerge.stages.leakage import measure_leakage
from deepmerge.stages.probabilities import judge_probabilities
from deepmerge.stages.promotion import promote
from deepmerge.stages.recipes import compare_recipes
from deepmerge.stages.reporting import write_report
from deepmerge.stages.scoring import predict
from deepmerge.stages.selection import measure_selection
from deepmerge.stages.training import train
from deepmerge.stages.tuning import tune, work
from deepmerge.stages.whole import main

__all__ = [
    "compare",
    "compare_recipes",
    "cross_validate",
    "evaluate",
    "gradcam",
    "judge_baselines",
    "judge_probabilities",
    "main",
    "measure_leakage",
    "measure_selection",
    "predict",
    "promote",
    "train",
    "tune",
    "work",
    "write_report",
]
