"""Train the settings that a study found with several seeds, and register the best of these models."""

import logging

from deepmerge import config
from deepmerge.jobs.main import main
from deepmerge.jobs.run import Results
from deepmerge.tracking import registry, runs
from deepmerge.tracking.studies import FrozenTrial, Study

log = logging.getLogger(__name__)

WINNER = "winner"  # key of a note in a study


def train_winner(study: Study, experiment: config.Experiment, best: FrozenTrial, pdf: bool) -> Results:
    """Train, judge and explain the winner with as many seeds as the experiment says; register the best on validation.

    Nothing is trained where that was done already.
    """
    seeds = experiment.tuning.seeds
    earlier = study.notes.get(WINNER) or {}
    if earlier.get("trial") == best.number and earlier.get("seeds", 0) >= seeds and runs.knows(earlier["run_id"]):
        log.info("The winner has been trained already")
        return {"winner_run_id": earlier["run_id"], "registered": earlier["registered"]}
    winner = experiment.with_settings(best.params)
    fingerprint = study.notes["identity"]["data_fingerprint"]
    params = config.Params(name=config.TUNED, study=study.name, data_fingerprint=fingerprint)
    trained = []
    for seed in range(winner.training.seed, winner.training.seed + seeds):
        seeded = winner.with_settings({"seed": seed}).model_copy(update={"params": params})
        trained.append(main(seeded, pdf=pdf))
    score = f"best_val_{experiment.tuning.objective}"
    chosen = max(trained, key=lambda results: study.better * results[score])
    run_id = chosen.pop("run_id")
    version = registry.register(runs.find(run_id, experiment.name))
    registered = f"{version.name} version {version.version}"
    study.note(**{WINNER: {"trial": best.number, "seeds": seeds, "run_id": run_id, "registered": registered}})
    return {"winner_run_id": run_id, "registered": registered, **chosen}
