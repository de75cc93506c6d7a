"""The main job: train, evaluate and explain one model, in one run."""

import logging

from deepmerge import config
from deepmerge.analysis import saliency
from deepmerge.jobs import networks
from deepmerge.jobs.evaluate import evaluate_in_run
from deepmerge.jobs.gallery.gallery import gallery_in_run
from deepmerge.jobs.gradcam.gradcam import gradcam_in_run
from deepmerge.jobs.judged import Trained, load, saliency_method
from deepmerge.jobs.run import Results
from deepmerge.jobs.train import assist, train_in_run, training_run
from deepmerge.model import devices
from deepmerge.tracking import runs

log = logging.getLogger(__name__)


def main(
    experiment: config.Experiment, layer: str | None = None, method: str | None = None, pdf: bool = False
) -> Results:
    """Train, evaluate and explain; the model is judged as it was saved.

    What an interrupted call with the same experiment has done is not done again.

    A network without a convolution has no maps of layers, and is not explained where such are asked for.
    """
    if not devices.is_chief():
        return assist(experiment)
    experiment = networks.pinned(experiment)
    with training_run(experiment) as (experiment, data, split, unfinished):
        trained = train_in_run(experiment, data, split, unfinished, pdf)
        run = runs.find(trained["run_id"], experiment.name)
        judged = load(Trained(run, experiment, data), split)
        results = {**trained, **unfinished.once("evaluate", lambda: evaluate_in_run(judged, pdf))}
        unfinished.once("gallery", lambda: gallery_in_run(judged))
        used = saliency.METHODS[saliency_method(method, layer)]
        if used.of_layer and not saliency.convolutions(judged.model):
            log.warning("a network without a Conv2D has no %s: it is trained and evaluated, not explained", used.title)
            return results
        return {**results, **unfinished.once("gradcam", lambda: gradcam_in_run(judged, layer, method, pdf))}
