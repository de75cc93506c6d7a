"""The DVC pipeline, as a user runs it: real processes in a copy of the project."""

import json
import re
import shutil

import pandas as pd
import pytest
import yaml

pytestmark = pytest.mark.slow

VARIANTS = ("pristine", "noisy")
STEPS = ("split", "tune", "train", "evaluate", "gradcam", "promote")
STAGES = {f"{stage}@{dataset}" for stage in STEPS for dataset in VARIANTS} | {"compare"}


@pytest.fixture(scope="module")
def project(checkout):
    """A copy of the project with a small versioned sample, two trials of one epoch each, after `dvc repro`."""
    for dataset in VARIANTS:
        path = checkout.folder / "experiments" / f"{dataset}.yaml"
        text = re.sub(r"epochs: \d+", "epochs: 1", path.read_text())
        path.write_text(re.sub(r"trials: \d+", "trials: 2", text))
    checkout.succeed("dvc", "add", "--quiet", "data")
    checkout.commit("A small sample")
    checkout.succeed("dvc", "repro")
    checkout.commit("A first result")
    return checkout


def changed(project):
    """Stages that `dvc repro` would run again for what changed in their own dependencies."""
    status = json.loads(project.succeed("dvc", "status", "--json").stdout)
    return {stage for stage in status if stage in STAGES}


def test_every_result_is_there_and_its_run_in_mlflow(project):
    assert set(re.findall(r"^(\S+):$", (project.folder / "dvc.lock").read_text(), re.M)) >= {"stages"}
    for dataset in VARIANTS:
        results = project.folder / "results" / dataset
        noted = json.loads((results / "run.json").read_text())["run_id"]
        run = next(run for run in project.runs() if run.info.run_id == noted)
        assert run.data.tags["dvc_stage"] == f"train@{dataset}"
        assert run.info.status == "FINISHED"
        measured = json.loads((results / "metrics.json").read_text())
        assert run.data.metrics["test_auc"] == measured["test_auc"]
        assert (results / "gradcam.png").stat().st_size > 10_000
        tuned = yaml.safe_load((project.folder / "experiments" / "tuned" / f"{dataset}.yaml").read_text())
        assert {name: run.data.params[name] for name in tuned["settings"]} == {
            name: str(value) for name, value in tuned["settings"].items()
        }
        assert run.data.tags["study"] == tuned["study"]["name"]
        assert len(pd.read_csv(results / "study.csv")) == 2
        verdict = json.loads((results / "promotion.json").read_text())
        assert (verdict["run_id"], verdict["model"]) == (noted, f"deepmerge-{dataset}")
        assert verdict["decision"] in ("promoted", "refused")
    table = pd.read_csv(project.folder / "results" / "comparison" / "metrics.csv")
    assert set(zip(table["trained_on"], table["judged_on"], strict=True)) == {
        (a, b) for a in VARIANTS for b in VARIANTS
    }


def test_a_second_repro_has_nothing_to_do(project):
    before = len(project.runs())
    assert "up to date" in project.succeed("dvc", "repro").stdout
    assert len(project.runs()) == before
    assert project.succeed("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("deepmerge/plots/roc.py", '"""', '"""Curves. ', {"compare"}),
        ("deepmerge/model/prediction.py", '"""', '"""Scores. ', STAGES - {"split@pristine", "split@noisy"}),
        (
            "deepmerge/analysis/saliency/explainer.py",
            '"""',
            '"""Maps. ',
            {"gradcam@pristine", "gradcam@noisy", "compare"},
        ),
        ("deepmerge/jobs/promote/gate.py", '"""', '"""Gate. ', {"promote@pristine", "promote@noisy"}),
        (
            *("deepmerge/model/network.py", '"""', '"""Nets. '),
            {"tune@pristine", "tune@noisy", "train@pristine", "train@noisy", "compare"},
        ),
        ("experiments/pristine.yaml", "dropout: 0.2", "dropout: 0.3", {"tune@pristine", "train@pristine"}),
        ("experiments/noisy.yaml", "split_seed: 5", "split_seed: 6", {"split@noisy", "tune@noisy", "train@noisy"}),
        ("experiments/noisy.yaml", "trials: 2", "trials: 3", {"tune@noisy"}),
        ("experiments/noisy.yaml", "# Noisy", "# Very noisy", set()),
        ("README.md", "DeepMerge", "Deep Merge", set()),
        ("deepmerge/tracking/ui.py", '"""', '"""UI. ', set()),
    ],
)
def test_a_change_touches_the_stages_that_depend_on_it_and_no_other(project, file, old, new, expected):
    path = project.folder / file
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        assert changed(project) == expected
    finally:
        path.write_text(before)
    assert changed(project) == set()


def test_metrics_and_plots_are_shown_without_a_network(project):
    shown = json.loads(project.succeed("dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    assert 0 <= files["results/noisy/metrics.json"]["data"]["test_auc"] <= 1
    project.succeed("dvc", "plots", "show")
    page = (project.folder / "dvc_plots" / "index.html").read_text()
    assert "<script src" not in page
    for title in ("Validation log loss", "ROC", "Reliability", "Confusion pristine"):
        assert title in page


@pytest.mark.parametrize("where", [[], ["--temp"]])
def test_an_experiment_with_another_setting_is_a_run_of_its_own(project, where):
    setting = f"experiments/noisy.yaml:training.batch_size={'32' if where else '16'}"
    project.succeed("dvc", "exp", "run", *where, "--name", f"trial{len(where)}", "-S", setting, "train@noisy")
    run = project.runs()[0]
    assert run.data.params["batch_size"] == setting.rpartition("=")[2]
    assert run.data.tags["dvc_experiment"] == f"trial{len(where)}"
    assert project.succeed("dvc", "exp", "show", "--csv").stdout.count(f"trial{len(where)}") == 1
    project.succeed("git", "checkout", "--quiet", ".")
    project.succeed("dvc", "checkout", "--quiet", "--force")


def test_changed_data_are_named_before_repro_takes_them(project):
    path = project.folder / "data" / "noisy_2filt_y.npy"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([1 - before[-1]]))
    try:
        assert "modified: data/noisy_2filt_y.npy" in project.command("deepmerge", "data", "check", "pristine").stdout
    finally:
        path.write_bytes(before)
    assert "the folder holds what it says" in project.succeed("deepmerge", "data", "check", "pristine").stdout


def test_data_travel_through_a_remote(project, tmp_path):
    project.succeed("dvc", "remote", "add", "--local", "--default", "store", str(tmp_path / "store"))
    project.succeed("dvc", "push", "data.dvc")
    before = (project.folder / "data" / "catalogue.csv").read_bytes()
    shutil.rmtree(project.folder / "data")
    shutil.rmtree(project.folder / ".dvc" / "cache")
    missing = project.command("deepmerge", "data", "check", "pristine")
    assert missing.returncode == 2
    assert "'deepmerge data simulate' makes the demo sample" in missing.stderr
    assert project.command("dvc", "repro").returncode != 0
    project.succeed("dvc", "pull", "data.dvc")
    assert (project.folder / "data" / "catalogue.csv").read_bytes() == before


def test_a_run_that_mlflow_does_not_know_is_explained(project):
    database = project.folder / "mlflow.db"
    aside = database.rename(project.folder / "mlflow.aside")
    try:
        done = project.command("deepmerge", "evaluate", "pristine", "--model", "results/pristine/run.json")
    finally:
        database.unlink(missing_ok=True)
        aside.rename(database)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert len(said) == 1
    assert "dvc repro --force train@pristine" in said[0]
