import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

from deepmerge import config
from deepmerge.cli import commands as cli
from deepmerge.cli import options
from deepmerge.errors import InputError

ROOT = Path(__file__).parents[1]
HEAVY = ["tensorflow", "keras", "mlflow", "pandas", "matplotlib", "sklearn", "pydantic"]


def in_fresh_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process; returns its exit status and the lines it wrote to stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deepmerge", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err.splitlines()

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stages(monkeypatch):
    """In place of the stages: notes which was called with what, and returns a measurement."""
    calls = []

    def stage(name):
        def call(*arguments):
            calls.append((name, *arguments))
            return {"test_auc": 0.5}

        return call

    names = ("main", "train", "evaluate", "gradcam")
    monkeypatch.setattr(cli, "stages", lambda: SimpleNamespace(**{name: stage(name) for name in names}))
    return calls


@pytest.fixture
def experiment(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"data": {"images": "x.npy", "labels": "y.npy"}}))
    return str(path)


def commands(group, path=()):
    """Every command below a group: words that call it, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield [*path, name], command


COMMANDS = list(commands(typer.main.get_command(cli.app)))


def test_help_imports_nothing_heavy():
    done = in_fresh_python(
        "import sys; sys.argv = ['deepmerge', '--help']\n"
        "from deepmerge.cli import main\n"
        "try: main()\n"
        f"finally: print('IMPORTED', [name for name in {HEAVY} if name in sys.modules])"
    )
    assert done.returncode == 0, done.stderr
    assert "IMPORTED []" in done.stdout
    assert "gradcam" in done.stdout


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_every_command_explains_itself(words):
    result = CliRunner().invoke(cli.app, [*words, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    command = next(command for path, command in COMMANDS if path == words)
    assert command.help.split("\n")[0].split(". ")[0][:40] in result.output
    assert all(parameter.help for parameter in command.params if isinstance(parameter, click.Option))


@pytest.mark.parametrize("name", ["main", "train"])
def test_the_help_of_training_lists_every_setting_with_its_default(name):
    listed = CliRunner().invoke(cli.app, [name, "--help"]).output
    flat = " ".join(listed.split())
    for section in config.SECTIONS.values():
        for setting, field in section.model_fields.items():
            assert f"--{setting.replace('_', '-')} VALUE" in flat
            assert f"[{field.default}]" in flat


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--batch-size", "32"], {"batch_size": "32"}),
        (["--batch_size", "32"], {"batch_size": "32"}),
        (["--batch-size=32"], {"batch_size": "32"}),
        (["--epochs", "3", "--learning-rate=1e-3"], {"epochs": "3", "learning_rate": "1e-3"}),
        (["--dropout", "-1"], {"dropout": "-1"}),
        (["--stretch="], {"stretch": ""}),
        ([], {}),
    ],
)
def test_settings_are_read_in_every_spelling(arguments, found):
    assert options.settings(arguments, own=["--pdf"]) == (found, [])


@pytest.mark.parametrize(
    ("arguments", "stray"),
    [(["--pdf", "a", "--epochs", "3"], ["--pdf", "a"]), (["epochs=3"], ["epochs=3"]), (["-e", "3"], ["-e", "3"])],
)
def test_what_is_no_setting_is_left_to_the_parser(arguments, stray):
    assert options.settings(arguments, own=["--pdf"])[1] == stray


def test_a_setting_without_its_value_is_refused():
    with pytest.raises(InputError, match="should look like --epochs 3, got '--epochs'"):
        options.settings(["mine", "--epochs"], own=[])


def test_settings_may_come_before_the_data_set(run, stages, experiment):
    assert run("train", "--epochs", "7", experiment) == (0, [])
    assert stages[0][1].settings()["epochs"] == 7


def test_settings_reach_the_stage_with_their_types(run, stages, experiment):
    assert run("train", experiment, "--batch-size", "32", "--dropout=0.5", "--pdf", "--augment", "false") == (0, [])
    [(name, loaded, pdf, *_)] = stages
    assert (name, loaded.name, pdf) == ("train", "mine", True)
    settings = loaded.settings()
    assert (settings["batch_size"], settings["dropout"], settings["augment"]) == (32, 0.5, False)


def test_main_takes_settings_and_options_of_its_own(run, stages, experiment, capsys):
    assert run("main", experiment, "--layer", "conv2d_1", "--epochs", "7") == (0, [])
    [(name, loaded, *others)] = stages
    assert (name, loaded.settings()["epochs"], others) == ("main", 7, ["conv2d_1", None, False])


def test_evaluate_and_gradcam_name_data_set_and_model(run, stages):
    run("evaluate", "noisy", "--model", "models:/m/1")
    run("gradcam", "noisy", "--layer", "conv2d", "--method", "gradcam", "--pdf")
    judged, explained = stages
    assert judged[:4] == ("evaluate", "noisy", "models:/m/1", False)
    assert explained[:6] == ("gradcam", "noisy", "last", "conv2d", "gradcam", True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "prestine"], "Error: dataset should be one of: "),
        (["main", "gone.yaml"], "got 'gone.yaml'"),
        (["train", "EXPERIMENT", "--epoch", "3"], "setting should be one of: architecture,"),
        (["main", "EXPERIMENT", "--epochs", "abc"], "'training.epochs' should be a valid integer"),
        (["main", "EXPERIMENT", "--epochs", "2.5"], "'training.epochs' should be a valid integer"),
        (["train", "EXPERIMENT", "--dropout", "1.5"], "'network.dropout' should be less than 1, got '1.5'"),
        (["train", "EXPERIMENT", "--learning-rate", "nan"], "'training.learning_rate'"),
        (["train", "EXPERIMENT", "--epochs"], "settings should look like --epochs 3, got '--epochs'"),
        (["train", "EXPERIMENT", "epochs=3"], "unexpected extra argument(s) (epochs=3)"),
        (["evaluate", "pristine", "--modell", "last"], "--modell"),
        (["ui", "--port", "abc"], "Invalid value for '--port'"),
        (["trian", "pristine"], "No such command 'trian'"),
        (["data", "check", "EXPERIMENT"], "x.npy, where there is no file; 'deepmerge data simulate' makes"),
    ],
)
def test_wrong_input_ends_with_status_2_and_one_line(run, stages, experiment, arguments, said):
    status, lines = run(*[experiment if word == "EXPERIMENT" else word for word in arguments])
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert said in lines[0]
    assert stages == []


def write_images(experiment, images):
    np.save(Path(experiment).with_name("x.npy"), images)
    np.save(Path(experiment).with_name("y.npy"), np.array([1, 1, 0, 0]))


def test_problems_that_the_data_check_finds_end_with_status_2(run, experiment, capsys):
    images = np.random.default_rng(0).normal(size=(4, 2, 32, 32)).astype(np.float32)
    images[2] = images[1]
    images[3, 0, 0, 0] = np.nan
    write_images(experiment, images)
    status, lines = run("data", "check", experiment)
    assert status == 2
    assert len(lines) == 1
    assert "1 images hold NaN or infinite pixels, the first in row 3" in lines[0]
    assert "1 images appear in both classes" in lines[0]


def test_clean_data_pass_the_check_and_are_described(run, experiment, monkeypatch, capsys):
    write_images(experiment, np.random.default_rng(0).normal(size=(4, 2, 32, 32)).astype(np.float32))
    monkeypatch.setattr(sys, "argv", ["deepmerge", "data", "check", experiment])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert "(4, 2, 32, 32) float32" in capsys.readouterr().out


def test_a_real_process_says_one_line_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "deepmerge", "train", "prestine", "--epochs", "3"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: dataset should be one of: none found in ")


def test_other_failures_end_with_status_1_and_their_traceback():
    done = in_fresh_python(
        "import sys; sys.argv = ['deepmerge', 'evaluate', 'noisy']\n"
        "from deepmerge.cli import commands as cli\n"
        "def stages(): raise OSError('disk full')\n"
        "cli.stages = stages\n"
        "cli.main()"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("OSError: disk full\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_a_command_with_its_cleaning_up_done(run, stages, monkeypatch, number):
    cleaned = []

    def evaluate(*arguments):
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(cli, "stages", lambda: SimpleNamespace(evaluate=evaluate))
    signal.signal(number, signal.SIG_DFL)
    assert run("evaluate", "noisy") == (128 + number, [])
    assert cleaned == [True]


def test_a_signal_that_the_caller_ignores_stays_ignored(run, stages):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    run("evaluate", "noisy")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_results_are_shown_one_a_line_with_their_intervals(capsys):
    cli.show(
        {
            "run_id": "abc",
            "best_epoch": 3,
            "test_auc": 0.81234567,
            "test_auc_low": 0.75,
            "test_auc_high": 0.875001,
            "test_purity": float("nan"),
        }
    )
    assert capsys.readouterr().out == (
        "run_id       abc\n"
        "best_epoch   3\n"
        "test_auc     0.8123  [0.75, 0.875]\n"
        "test_purity  nan\n"
    )  # fmt: skip


def test_no_results_show_nothing(capsys):
    cli.show({})
    assert capsys.readouterr().out == ""
