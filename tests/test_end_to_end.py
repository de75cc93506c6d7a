"""The documented commands, as a user runs them: real processes in a copy of the project."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", ROOT.parent / "shared" / "real"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(checkout):
    return checkout


@pytest.fixture(scope="module")
def literal(project):
    """What the first command of the README did: the process and its run."""
    done = project.succeed("mlflow", "run", ".", "-P", "dataset=pristine", "-P", "epochs=2")
    return done, project.runs()[0]


def scores(run):
    return {name: value for name, value in run.data.metrics.items() if name.startswith(("test_", "best_", "val_"))}


def test_the_literal_command_runs_without_conda_in_the_projects_experiment(project, literal):
    done, run = literal
    said = [line for line in done.stderr.splitlines() if line.startswith("deepmerge: no conda here")]
    assert len(said) == 1
    assert run.info.status == "FINISHED"
    assert project.experiment(run) == "deepmerge"
    assert run.data.tags["mlflow.project.env"] == "local"
    assert run.data.params["epochs"] == "2"
    assert {"train_loss", "val_auc", "test_auc", "test_auc_low", "test_pointing_hit_rate"} <= set(run.data.metrics)
    assert "test_auc" in done.stdout


def test_the_run_tells_commit_and_origin_of_the_data(project, literal):
    _, run = literal
    commit = project.succeed("git", "rev-parse", "HEAD").stdout.strip()
    assert run.data.tags["mlflow.source.git.commit"] == commit
    assert (run.data.tags["git_commit"], run.data.tags["git_dirty"]) == (commit, "no")
    assert run.data.tags["data_source"] == "simulated"
    assert not project.artifact(run, "environment/uncommitted.diff").exists()


def test_the_run_leaves_the_checkout_clean(project, literal):
    assert project.succeed("git", "status", "--porcelain").stdout == ""


def test_evaluate_and_gradcam_judge_the_newest_model_on_its_own_run(project, literal):
    _, model = literal
    predictions = project.artifact(model, "predictions.parquet")
    predictions.unlink()
    for entry in ("evaluate", "gradcam"):
        project.succeed("mlflow", "run", ".", "-e", entry, "-P", "dataset=pristine")
        launcher = project.runs()[0]
        assert launcher.info.status == "FINISHED"
        assert launcher.data.tags["mlflow.parentRunId"] == model.info.run_id
        assert not [name for name in launcher.data.metrics if name.startswith("test_")]
    [judged] = [run for run in project.runs() if run.info.run_id == model.info.run_id]
    assert judged.info.status == "FINISHED"
    assert scores(judged) == scores(model)
    assert predictions.exists()


def test_two_doors_give_the_same_numbers_to_the_last_digit(project, literal):
    _, launched = literal
    project.succeed("deepmerge", "main", "pristine", "--epochs", "2")
    direct = project.runs()[0]
    assert direct.info.run_id != launched.info.run_id
    assert project.experiment(direct) == "deepmerge"
    assert len(scores(direct)) > 20
    assert scores(direct) == scores(launched)
    same = ("data_fingerprint", "split_fingerprint", "threads")
    assert [direct.data.tags[tag] for tag in same] == [launched.data.tags[tag] for tag in same]


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("epochs=abc", "'training.epochs' should be a valid integer"),
        ("dropout=1.5", "'network.dropout' should be less than 1"),
        ("epoch=3", "No such option: --epoch, did you mean --epochs?"),
        ("dataset=prestine", "dataset should be one of: "),
    ],
)
def test_a_wrong_value_is_refused_in_one_clear_line_and_the_run_is_failed(project, parameter, said):
    given = ["-P", parameter] if parameter.startswith("dataset") else ["-P", "dataset=pristine", "-P", parameter]
    done = project.command("mlflow", "run", ".", *given)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert said in line
    assert "Traceback" not in done.stderr
    assert project.runs()[0].info.status == "FAILED"


def test_the_local_environment_can_be_asked_for(project):
    words = ("-e", "train", "-P", "dataset=noisy", "-P", "epochs=1")
    done = project.succeed("mlflow", "run", ".", "--env-manager", "local", *words)
    assert "no conda here" not in done.stderr
    run = project.runs()[0]
    assert (run.info.status, run.data.tags["dataset"], run.data.tags["trained"]) == ("FINISHED", "noisy", "yes")
    assert not [name for name in run.data.metrics if name.startswith("test_")]


def test_tune_is_an_entry_point_whose_run_holds_the_trials_and_train_uses_what_it_found(project):
    given = ("trials=2", "workers=1", "seeds=0", "epochs=1")
    project.succeed("mlflow", "run", ".", "-e", "tune", "-P", "dataset=noisy", *(w for g in given for w in ("-P", g)))
    study = next(run for run in project.runs() if run.data.tags.get("kind") == "study")
    assert study.info.status == "FINISHED"
    assert study.data.tags["mlflow.project.env"] == "local"  # the run that the launcher made
    trials = [run for run in project.runs() if run.data.tags.get("mlflow.parentRunId") == study.info.run_id]
    assert [run.data.tags["kind"] for run in trials] == ["trial"] * 2
    project.succeed("mlflow", "run", ".", "-e", "train", "-P", "dataset=noisy", "-P", "params=tuned", "-P", "epochs=1")
    run = project.runs()[0]
    assert run.data.params["params"] == "tuned"
    assert run.data.tags["study"] == study.data.tags["study"]
    best = min(trials, key=lambda trial: trial.data.metrics["trial_log_loss"])
    assert run.data.params["learning_rate"] == best.data.params["learning_rate"]


def test_a_conda_that_is_there_is_given_the_environment_file(project, tmp_path):
    """The conda here is a script that notes what it is asked for and builds nothing."""
    conda = tmp_path / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho \'{{"envs": []}}\'\n')
    conda.chmod(0o755)
    done = project.command("mlflow", "run", ".", "-P", "dataset=pristine", MLFLOW_CONDA_HOME=str(tmp_path))
    assert "no conda here" not in done.stderr
    asked = (tmp_path / "asked").read_text()
    assert "env create" in asked
    assert f"{project.folder}/conda.yaml" in asked
    assert done.returncode == 1  # there is nothing to activate
    assert project.runs()[0].data.tags["mlflow.project.env"] == "conda"


def test_a_new_environment_is_built_from_the_pins_alone(project, tmp_path):
    words = ("-e", "train", "-P", "dataset=noisy", "-P", "epochs=1")
    project.succeed("mlflow", "run", ".", "--env-manager", "uv", *words, MLFLOW_ENV_ROOT=str(tmp_path / "envs"))
    run = project.runs()[0]
    assert (run.info.status, run.data.tags["mlflow.project.env"]) == ("FINISHED", "uv")
    assert project.experiment(run) == "deepmerge"
    installed = set(project.artifact(run, "environment/packages.txt").read_text().lower().replace("_", "-").split())
    pinned = set((ROOT / "requirements.txt").read_text().lower().split())
    bare = {line.replace(".", "-") for line in installed}
    assert not [pin for pin in pinned if pin.replace(".", "-") not in bare]
    assert not [line for line in installed if line.startswith(("deepmerge-lab", "pytest"))]


@pytest.mark.skipif(not (REAL / "efigi_dev_X.npy").exists(), reason=f"no real galaxies in {REAL}")
def test_real_galaxies_are_told_apart_better_than_by_chance(project, tmp_path):
    """420 galaxies of the SDSS, 84 of them interacting (EFIGI, Baillard et al. 2011), through a file of one's own."""
    data = {"images": "X.npy", "labels": "y.npy", "catalogue": "catalogue.csv"}
    for name, file in data.items():
        source = REAL / f"efigi_dev_{file}"
        assert source.exists(), f"{name} should lie at {source}"
        (tmp_path / file).symlink_to(source)
    mine = tmp_path / "efigi.yaml"
    settings = {"split": {"test_fraction": 0.3}, "training": {"epochs": 8, "batch_size": 8}}
    mine.write_text(yaml.safe_dump({"data": data, **settings}))
    project.succeed("deepmerge", "data", "check", str(mine))
    project.succeed("deepmerge", "train", str(mine))
    project.succeed("deepmerge", "evaluate", str(mine))
    project.succeed("deepmerge", "gradcam", str(mine))
    run = project.runs()[0]
    assert (run.info.status, run.data.tags["data_source"], run.data.tags["dataset"]) == ("FINISHED", "own", "efigi")
    assert run.data.metrics["test_auc"] > 0.5  # 0.60 to 0.65 with five seeds
    predictions = pd.read_parquet(project.artifact(run, "predictions.parquet"))
    catalogue = pd.read_csv(tmp_path / "catalogue.csv")
    assert (predictions["galaxy_id"].to_numpy() == catalogue["galaxy_id"].to_numpy()[predictions["row"]]).all()
    maps = np.load(project.artifact(run, "saliency/test_maps.npy"))
    assert maps.shape == ((predictions["split"] == "test").sum(), 2, 75, 75)
    assert np.isfinite(maps).all()
