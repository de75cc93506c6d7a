"""The documented commands: that they exist, and that each runs as it stands, in a copy of the project."""

import os
import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from mlflow.projects import _project_spec

from deepmerge import cli

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("DEEPMERGE_REAL_DATA", ROOT.parent / "shared" / "real"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

slow = pytest.mark.slow

# Documented lines that the tests below do not run, and why not.
NOT_RUN = {
    r"make (demo|data|repro)": "sets up an environment from a package index; the check of the repository does it",
    r"source .*|(uv )?pip install .*|uv build .*": "makes or enters an environment; test_wheel.py",
    r"mlflow run . --env-manager .*": "makes an environment; below, with one epoch",
    r"deepmerge ui": "serves until it is stopped; test_ui.py",
    r"(MLFLOW_\S+ mlflow models|deepmerge) serve .*": "serves until it is stopped; test_serving.py",
    r"srun .*|#SBATCH .*|sbatch .*": "wants a queue",
    r"deploy/server.sh .*": "goes on until it is stopped; test_team_server.py",
    r"umask 077|docker compose .*|kubectl .*|set -a; source .*": "wants a cluster or its users; test_deploy.py",
    r"from mlflow.server import get_app_client": "wants a server; test_team_server.py",
    r"dvc .*|deepmerge report .*--readme .*": "test_pipeline.py",
    r"deepmerge data fetch .*": "downloads gigabytes; test_archive.py has an archive of its own",
    r"export .*|.*head-node.*": "wants other machines",
    r".*--trials 60 .*|deepmerge study recipes .*": "trains for long; test_tuning_end_to_end.py, test_studies.py",
    r"deepmerge study baselines .*": "measures shapes for minutes; test_studies.py",
    r"deepmerge study transfer .*": "trains for long; test_transfer.py",
    r".* --rollback": "wants two champions; test_promote_end_to_end.py",
    r"import numpy as np\nimport requests": "wants a server; test_serving.py",
}

# What has to be done before a line, beyond the lines above it: an empty project has no calibration, for one.
BEFORE = {
    r"deepmerge predict .*--merger-fraction.*": "deepmerge study probabilities noisy",
    r"deepmerge report .*": "deepmerge evaluate pristine",
}


def fences(text, *languages):
    """The contents of the fenced blocks of Markdown in these languages; those of MyST ({code-cell}) are none."""
    blocks = re.findall(r"^( *)```(\S*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [content for _, language, content in blocks if language in languages]


def lines_of(text):
    """Command lines of the shell's blocks, each whole and without its comment."""
    lines = "".join(fences(text, "bash", "sh", "")).replace("\\\n", " ").split("\n")
    return [re.sub(r"\s+# .*", "", part).strip() for line in lines for part in line.split(" && ") if part.strip()]


def answers_of(text):
    """The answer to each command of the console's blocks, in which a prompt stands before the command."""
    calls = [call for block in fences(text, "console") for call in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return dict(call.rstrip().split("\n", 1) for call in calls)


def not_run(text):
    """Why a line or a script is not run, if it is not."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(rf"(?:{pattern})(?:\n|$)", text)), None)


COMMANDS = list(dict.fromkeys(line for page in PAGES for line in lines_of(page.read_text())))
SCRIPTS = {page.stem: "\n".join(scripts) for page in PAGES if (scripts := fences(page.read_text(), "python"))}
ANSWERS = {line: answer for page in PAGES for line, answer in answers_of(page.read_text()).items()}
# Lines that differ in nothing but pristine and noisy do the same work: one of them is run.
SHAPES = {re.sub(r"(?<![\w-])(pristine|noisy)(?![\w-])", "*", line): line for line in sorted(COMMANDS, reverse=True)}
TO_RUN = [line for line in COMMANDS if line in SHAPES.values() and not not_run(line)]
OURS = [line for line in COMMANDS if re.match(r"(mlflow run|deepmerge|make)( |$)", line)]


# That they exist


def command(words):
    """The click command that the words of a `deepmerge` command line name, and the words behind its name."""
    found = typer.main.get_command(cli.app)
    while hasattr(found, "commands"):
        if not words or words[0] not in found.commands:
            raise ValueError(f"deepmerge should have a command {' '.join(words[:1])!r}")
        found, words = found.commands[words[0]], words[1:]
    return found, words


def check_deepmerge(words):
    """Raise ValueError where a `deepmerge` command line names a command or an option that does not exist."""
    found, rest = command(words)
    for word in rest:
        name = word.partition("=")[0]
        if name.startswith("-") and name not in options(found):
            raise ValueError(f"deepmerge {found.name} should have an option {name}")


def options(found):
    """Every option of a click command, the settings among them."""
    return {option for parameter in found.get_params(found.context_class(found)) for option in parameter.opts}


def check_mlflow_run(words):
    """Raise ValueError where `mlflow run .` is given an entry point or a parameter that does not exist."""
    project = _project_spec.load_project(str(ROOT))
    values = {option: [b for a, b in pairwise(words) if a == option] for option in ("-e", "-P")}
    name = (values["-e"] or ["main"])[0]
    if name not in project._entry_points:
        raise ValueError(f"MLproject should have an entry point {name!r}")
    entry = project.get_entry_point(name)
    found, _ = command(entry.command.split()[3:])
    for parameter in (pair.partition("=")[0] for pair in values["-P"]):
        if parameter not in entry.parameters and f"--{parameter.replace('_', '-')}" not in options(found):
            raise ValueError(f"entry point {name} should take a parameter {parameter!r}")


def check_make(words):
    for target in (word for word in words if "=" not in word and not word.startswith("-")):
        if target not in TARGETS:
            raise ValueError(f"Makefile should have a target {target!r}")


CHECKS = {"deepmerge": check_deepmerge, "mlflow run": check_mlflow_run, "make": check_make}


def check_documented(line):
    words = shlex.split(line)
    name = "mlflow run" if words[0] == "mlflow" else words[0]
    CHECKS[name](words[len(name.split()) :])


@pytest.mark.parametrize("line", OURS)
def test_every_documented_command_exists(line):
    check_documented(line)


@pytest.mark.parametrize(
    "line",
    [
        "deepmerge trane pristine",
        "deepmerge data chek mine.yaml",
        "deepmerge evaluate noisy --modle last",
        "deepmerge train noisy --epoch 3",
        "deepmerge evaluate noisy --epochs 3",
        "mlflow run . -e tran -P dataset=noisy",
        "mlflow run . -P epoch=3  # -P epochs=3",
        "mlflow run . -e evaluate -P epochs=3",
        "make demos",
        "make data dmo",
    ],
)
def test_the_check_of_documented_commands_notices_slips(line):
    [command] = lines_of(f"text\n```sh\n{line}\n```\n")
    with pytest.raises(ValueError, match=r"should (have|take)"):
        check_documented(command)


def test_documented_commands_are_found_across_lines_and_outside_them_ignored():
    text = (
        "`make nothing`\n```bash\nmake data && mlflow run . \\\n  -P epochs=3  # few\n```\ndeepmerge nothing\n"
        "```text\nmake nothing\n```\n```{code-cell}\n!make nothing\n```\n- a list:\n  ```bash\n  deepmerge ui\n  ```\n"
        "```console\n$ deepmerge models\nno\nmodel\n$ make x\nno\n```\n"
    )
    assert lines_of(text) == ["make data", "mlflow run .    -P epochs=3", "deepmerge ui"]
    assert answers_of(text) == {"deepmerge models": "no\nmodel", "make x": "no"}


def test_what_is_not_run_is_documented_still():
    texts = [*COMMANDS, *SCRIPTS.values()]
    for pattern in NOT_RUN:
        assert any(re.match(rf"(?:{pattern})(?:\n|$)", text) for text in texts), pattern


def test_entry_points_are_deepmerge_commands_that_take_the_declared_parameters():
    project = _project_spec.load_project(str(ROOT))
    assert project.name == "deepmerge"
    assert {"main", "train", "evaluate", "gradcam"} <= set(project._entry_points)
    for name, entry in project._entry_points.items():
        needed = {name: "x" for name, parameter in entry.parameters.items() if parameter.default is None}
        line = entry.compute_command(needed, storage_dir=None)
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "deepmerge"]
        found, rest = command(words[3:])
        assert found.name == name
        check_deepmerge(words[3:])
        found.make_context(name, list(rest))  # parses, so that no required argument is missing
        assert set(re.findall(r"{(\w+)}", entry.command)) == set(entry.parameters)


def test_undeclared_parameters_become_settings_of_the_command():
    entry = _project_spec.load_project(str(ROOT)).get_entry_point("main")
    words = shlex.split(entry.compute_command({"dataset": "noisy", "batch_size": "32"}, storage_dir=None))
    found, rest = command(words[3:])
    context = found.make_context("main", list(rest))
    assert context.params["dataset"] == "noisy"
    assert context.obj == {"batch_size": "32"}


# That they run


@pytest.fixture(scope="module")
def project(checkout):
    """A copy of the project with few galaxies and epochs, and the files that the pages take for the reader's own."""
    study = {"seeds": 2, "folds": 2, "published_epochs": 1, "members": 2, "passes": 2, "bins": 2}
    for path in (checkout.folder / "experiments").glob("*.yaml"):
        text = re.sub(r"epochs: \d+", "epochs: 2", re.sub(r"trials: \d+", "trials: 2", path.read_text()))
        path.write_text(f"{text}\n{yaml.safe_dump({'study': study})}")
    checkout.commit("Little work")
    mine = next(block for block in fences(PAGES[0].read_text(), "yaml") if block.startswith("# mine.yaml"))
    (checkout.folder / "mine.yaml").write_text(mine.replace("epochs: 40", "epochs: 2"))
    for own, ours in {"my_images.npy": "noisy_2filt_X.npy", "my_labels.npy": "noisy_2filt_y.npy"}.items():
        (checkout.folder / own).symlink_to(checkout.folder / "data" / ours)
    galaxies = np.arange(len(np.load(checkout.folder / "my_labels.npy"))) // 4
    pd.DataFrame({"galaxy_id": galaxies}).to_csv(checkout.folder / "my.csv", index=False)
    with (checkout.folder / ".git" / "info" / "exclude").open("a") as ignored:
        ignored.write("mine.yaml\nmy*\n/other\n/scores.*\n*.keras\n")
    return checkout


@pytest.fixture(scope="module")
def run_line(project):
    """Run a documented line, once for all tests of this module; the process, and the newest run after it."""

    @cache
    def run(line):
        return project.command(*shlex.split(line)), next(iter(project.runs()), None)

    return run


@pytest.fixture(scope="module")
def literal(run_line):
    """What the first command of the README did: the process and its run."""
    return run_line("mlflow run . -P dataset=pristine")


def scores(run):
    return {name: value for name, value in run.data.metrics.items() if name.startswith(("test_", "best_", "val_"))}


@slow
def test_the_literal_command_runs_without_conda_in_the_projects_experiment(project, literal):
    done, run = literal
    said = [line for line in done.stderr.splitlines() if line.startswith("deepmerge: no conda here")]
    assert len(said) == 1
    assert run.info.status == "FINISHED"
    assert project.experiment(run) == "deepmerge"
    assert run.data.tags["mlflow.project.env"] == "local"
    assert run.data.params["epochs"] == "2"
    assert {"train_loss", "val_auc", "test_auc", "test_auc_low", "test_saliency_hit"} <= set(run.data.metrics)
    assert "test_auc" in done.stdout


@slow
def test_the_run_tells_commit_and_origin_of_the_data(project, literal):
    _, run = literal
    commit = project.succeed("git", "rev-parse", "HEAD").stdout.strip()
    assert run.data.tags["mlflow.source.git.commit"] == commit
    assert (run.data.tags["git_commit"], run.data.tags["git_dirty"]) == (commit, "no")
    assert run.data.tags["data_source"] == "simulated"
    assert not project.artifact(run, "environment/uncommitted.diff").exists()


@slow
def test_the_run_leaves_the_checkout_clean(project, literal):
    assert project.succeed("git", "status", "--porcelain").stdout == ""


@slow
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


@slow
def test_two_doors_give_the_same_numbers_to_the_last_digit(project, literal):
    _, launched = literal
    project.succeed("deepmerge", "main", "pristine")
    direct = project.runs()[0]
    assert direct.info.run_id != launched.info.run_id
    assert project.experiment(direct) == "deepmerge"
    assert len(scores(direct)) > 20
    assert scores(direct) == scores(launched)
    same = ("data_fingerprint", "split_fingerprint", "threads")
    assert [direct.data.tags[tag] for tag in same] == [launched.data.tags[tag] for tag in same]


@slow
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


@slow
@pytest.mark.parametrize("line", TO_RUN)
def test_every_documented_command_runs(line, literal, run_line):
    said = ""
    for pattern, earlier in BEFORE.items():
        if re.fullmatch(pattern, line):
            before = run_line(earlier)[0]
            assert before.returncode == 0, before.stderr
            said += before.stderr
    done, _ = run_line(line)
    if "No temperature is kept" in said:  # a model of so little training need not have one
        assert done.returncode == 2
        assert "needs the calibration" in done.stderr
        return
    # It may well be refused, too.
    assert done.returncode in ((0, 3) if " promote " in line else (0,)), done.stderr


@slow
@pytest.mark.parametrize("line", ANSWERS)
def test_a_documented_answer_is_what_the_command_says(line, run_line):
    done, _ = run_line(line)
    assert (done.stdout + done.stderr).strip() == ANSWERS[line]


@slow
@pytest.mark.parametrize("page", [name for name, script in SCRIPTS.items() if not not_run(script)])
def test_every_documented_script_runs(page, project):
    done = project.succeed("python", "-c", SCRIPTS[page], PYTHONPATH=str(project.folder))
    # A script that imports Keras before us hears TensorFlow's greeting.
    greeting = r"WARNING: All log messages before absl|I0000 |To enable the following instructions"
    assert [line for line in done.stderr.splitlines() if not re.match(greeting, line)] == []


@slow
def test_the_local_environment_can_be_asked_for(project):
    words = ("-e", "train", "-P", "dataset=noisy", "-P", "epochs=1")
    done = project.succeed("mlflow", "run", ".", "--env-manager", "local", *words)
    assert "no conda here" not in done.stderr
    run = project.runs()[0]
    assert (run.info.status, run.data.tags["dataset"], run.data.tags["trained"]) == ("FINISHED", "noisy", "yes")
    assert not [name for name in run.data.metrics if name.startswith("test_")]


@slow
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


@slow
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


@slow
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


@slow
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
