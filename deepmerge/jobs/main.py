"""The main job: train, evaluate and explain one model, in one run."""

from deepmerge import config
from deepmerge.jobs import networks
from deepmerge.jobs.evaluate import evaluate_in_run
from deepmerge.jobs.gradcam import gradcam_in_run
from deepmerge.jobs.judged import Trained, load
from deepmerge.jobs.run import Results
from deepmerge.jobs.train import assist, train_in_run, training_run
from deepmerge.model import devices
from deepmerge.tracking import runs


def main(
    experiment: config.Experiment, layer: str | None = None, method: str | None = None, pdf: bool = False
) -> Results:
    """Train, evaluate and explain; the model is judged as it was saved."""
    if not devices.is_chief():
        return assist(experiment)
    experiment = networks.pinned(experiment)
    with training_run(experiment) as (data, split):
        trained = train_in_run(experiment, data, split, pdf)
        run = runs.find(trained["run_id"], experiment.name)
        judged = load(Trained(run, experiment, data), split)
        return {**trained, **evaluate_in_run(judged, pdf), **gradcam_in_run(judged, layer, method, pdf)}
