import inspect
import logging
import os
import pkgutil
import signal
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import typer
import yaml
from typer.core import TyperOption
from typer.testing import CliRunner

from deepmerge import cli, config
from deepmerge.analysis import saliency
from deepmerge.cli import options
from deepmerge.cli.options import SettingsCommand
from deepmerge.cli.output import show

ROOT = Path(__file__).parents[1]
README = str(ROOT / "README.md")
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

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


# Where what a command runs lies.
JOBS = {
    "main": "jobs.main",
    "train": "jobs.train",
    "evaluate": "jobs.evaluate",
    "gradcam": "jobs.gradcam.gradcam",
    "predict": "jobs.predict",
    "serve": "jobs.serve",
    "write_report": "report.collect",
    "cross_validate": "studies.folds.study",
    "measure_leakage": "studies.leakage",
    "compare_recipes": "studies.recipes",
    "judge_baselines": "studies.baselines.study",
    "measure_selection": "studies.selection.study",
    "judge_probabilities": "studies.probabilities.study",
    "measure_transfer": "studies.transfer.study",
}


@pytest.fixture
def jobs(monkeypatch):
    """In place of the jobs: notes which was called, with what in the order of its parameters, returns a measurement."""
    calls = []
    for name, module in JOBS.items():
        place = f"deepmerge.{module}.{name}"
        job = pkgutil.resolve_name(f"deepmerge.{module}:{name}")

        def call(name, signature, *given, **options):
            bound = signature.bind(*given, **options)
            bound.apply_defaults()
            calls.append((name, *bound.arguments.values()))
            return {"test_auc": 0.5}

        monkeypatch.setattr(place, partial(call, name, inspect.signature(job)))
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
    assert all(parameter.help for parameter in command.params if isinstance(parameter, TyperOption))


@pytest.mark.parametrize("words", [[], ["data"], ["study"]], ids=" ".join)
def test_a_group_without_a_command_shows_what_there_is(words):
    done = in_fresh_python(f"import sys; sys.argv = ['deepmerge', *{words}]\nfrom deepmerge import cli\ncli.main()")
    assert "Usage:" in done.stdout + done.stderr
    assert "Error" not in done.stdout + done.stderr


TRAINING = [words for words, command in COMMANDS if isinstance(command, SettingsCommand)]


@pytest.mark.parametrize("words", TRAINING, ids=" ".join)
def test_the_help_of_training_lists_every_setting_with_its_default(words):
    flat = " ".join(CliRunner().invoke(cli.app, [*words, "--help"]).output.split())
    for section in config.SECTIONS.values():
        for setting, field in section.model_fields.items():
            assert f"--{setting.replace('_', '-')} <" in flat
            assert field.default is None or f"default: {str(field.default).lower()}]" in flat


@pytest.mark.parametrize(
    "line",
    [
        "--dropout <float> share of units dropped in training [at least 0, below 1; default: 0.2]",
        "--epochs <int> largest number of epochs [at least 1; default: 20]",
        "--stretch <raw|standard|asinh|log> scaling of the pixel values [default: asinh]",
        "--augment <true|false> turn and flip training images at random [default: true]",
        "--split-table <path> CSV with a split to take, as 'deepmerge data split' writes it --architecture",
    ],
)
def test_the_help_of_a_setting_says_type_range_and_default(line):
    assert line in " ".join(CliRunner().invoke(cli.app, ["train", "--help"]).output.split())


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["--batch-size", "32"], {"batch_size": 32}),
        (["--batch_size", "32"], {"batch_size": 32}),
        (["--batch-size=32"], {"batch_size": 32}),
        (["--batch_size=32"], {"batch_size": 32}),
        (["--epochs", "3", "--learning-rate=1e-3"], {"epochs": 3, "learning_rate": 0.001}),
        (["--augment", "false", "--split", "rows"], {"augment": False, "split": "rows"}),
        (["--split_table", "a_b.csv"], {"split_table": Path("a_b.csv")}),
        ([], {}),
    ],
)
def test_settings_are_read_in_every_spelling(run, jobs, experiment, arguments, settings):
    assert run("train", experiment, *arguments) == (0, [])
    loaded = jobs[0][1]
    assert loaded == config.load(experiment, settings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepmerge train --stretch a", ["asinh"]),
        ("deepmerge train --augment ", ["true", "false"]),
        ("deepmerge train --spl", ["--split", "--split-seed", "--split-table"]),
        ("deepmerge gradcam noisy --method h", ["hirescam"]),
        ("deepmerge train pristine-", ["pristine-3filters"]),
        ("deepmerge compare noisy pristine-", ["pristine-3filters"]),
    ],
)
def test_the_shell_completes_choices_and_data_sets(line, expected):
    words = {"_DEEPMERGE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", "from deepmerge.cli import app; app(prog_name='deepmerge')"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **words},
    )
    assert done.stdout.split() == expected, done.stderr


def test_the_version_is_that_of_the_installed_package():
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"{metadata.version('deepmerge-lab')}\n"


def test_settings_may_come_before_the_data_set(run, jobs, experiment):
    assert run("train", "--epochs", "7", experiment) == (0, [])
    assert jobs[0][1].settings()["epochs"] == 7


def test_settings_reach_the_job_with_their_types(run, jobs, experiment):
    assert run("train", experiment, "--batch-size", "32", "--dropout=0.5", "--pdf", "--augment", "false") == (0, [])
    [(name, loaded, pdf, *_)] = jobs
    assert (name, loaded.name, pdf) == ("train", "mine", True)
    settings = loaded.settings()
    assert (settings["batch_size"], settings["dropout"], settings["augment"]) == (32, 0.5, False)


def test_main_takes_settings_and_options_of_its_own(run, jobs, experiment, capsys):
    assert run("main", experiment, "--layer", "conv2d_1", "--epochs", "7") == (0, [])
    [(name, loaded, *others)] = jobs
    assert (name, loaded.settings()["epochs"], others) == ("main", 7, ["conv2d_1", None, False])


def test_evaluate_and_gradcam_name_data_set_and_model(run, jobs):
    run("evaluate", "noisy", "--model", "models:/m/1")
    run("gradcam", "noisy", "--layer", "conv2d", "--method", "gradcam", "--pdf")
    judged, explained = jobs
    assert judged[:4] == ("evaluate", "noisy", "models:/m/1", False)
    assert explained == ("gradcam", "noisy", "last", "conv2d", "gradcam", None, None, None, True, None)


def test_gradcam_takes_what_to_map_and_what_to_judge(run, jobs):
    run("gradcam", "noisy", "--selection", "rows:3,5-9", "--target", "non-merger", "--methods", "all")
    assert jobs[0][5:8] == ("all", "non-merger", "rows:3,5-9")


def test_every_method_of_saliency_can_be_asked_for():
    assert set(get_args(options.METHODS)) == set(saliency.METHODS)


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (["evaluate", "noisy", "--folds", "5"], ("cross_validate", "noisy", "last", 5, False, None, None)),
        (
            ["evaluate", "noisy", "--folds=3", "--model", "abc", "--pdf", "--out", "a", "--cluster", "tcp://h:1"],
            ("cross_validate", "noisy", "abc", 3, True, Path("a"), "tcp://h:1"),
        ),
        (["study", "baselines", "noisy"], ("judge_baselines", "noisy", "last", 5, False, None, None)),
        (
            ["study", "baselines", "noisy", "--model", "abc", "--seeds", "1", "--pdf", "--out", "a"],
            ("judge_baselines", "noisy", "abc", 1, True, Path("a"), None),
        ),
        (["study", "selection", "noisy"], ("measure_selection", "noisy", "last", 5, False, None)),
        (
            ["study", "selection", "noisy", "--model", "folds", "--bins", "3", "--pdf", "--out", "a"],
            ("measure_selection", "noisy", "folds", 3, True, Path("a")),
        ),
        (
            ["study", "probabilities", "noisy"],
            ("judge_probabilities", "noisy", "last", config.Study(), False, None, None),
        ),
        (
            ["study", "probabilities", "noisy", "--members", "2", "--passes", "4", "--purity", "0.6", "--model", "m"],
            ("judge_probabilities", "noisy", "m", config.Study(members=2, passes=4, purity=0.6), False, None, None),
        ),
        (["report", "noisy"], ("write_report", ["noisy"], Path("results/report.html"), ())),
        (
            ["report", "pristine,noisy", "mine", "--out", "a.html", "--readme", README],
            ("write_report", ["pristine", "noisy", "mine"], Path("a.html"), [Path(README)]),
        ),
        (["serve", "noisy"], ("serve", "noisy", "127.0.0.1", 5002)),
        (["serve", "m", "--host", "0.0.0.0", "--port", "80"], ("serve", "m", "0.0.0.0", 80)),
        (
            ["predict", "x.npy", "--model", "m"],
            ("predict", Path("x.npy"), "m", Path("scores.parquet"), None, None, None),
        ),
        (
            ["predict", "x.npy", "--model", "m", "--merger-fraction", "0.1", "--out", "a.csv"],
            ("predict", Path("x.npy"), "m", Path("a.csv"), 0.1, None, None),
        ),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else "",
)
def test_what_is_asked_arrives_at_the_job(run, jobs, words, called):
    assert run(*words) == (0, [])
    assert jobs == [called]


@pytest.mark.parametrize(
    ("words", "stage", "others"),
    [
        (["leakage"], "measure_leakage", [5, None, False, None, None]),
        (
            ["leakage", "--seeds", "2", "--catalogue-arrays", "c", "--pdf", "--out", "a"],
            "measure_leakage",
            [2, Path("c"), True, Path("a"), None],
        ),
        (["recipes"], "compare_recipes", [5, 5, 60, 0.5, False, None, None]),
        (
            ["recipes", "--folds", "2", "--seeds", "1", "--published-epochs", "1", "--target", "0.69", "--out", "a"],
            "compare_recipes",
            [2, 1, 1, 0.69, False, Path("a"), None],
        ),
    ],
)
def test_studies_that_train_take_settings_and_options_of_their_own(run, jobs, experiment, words, stage, others):
    assert run("study", words[0], experiment, "--epochs", "7", *words[1:]) == (0, [])
    [(name, loaded, *found)] = jobs
    assert (name, loaded.name, loaded.settings()["epochs"], found) == (stage, "mine", 7, others)


def test_a_transfer_takes_two_data_sets_and_the_settings_of_the_first(run, jobs, experiment):
    words = ("--epochs", "7", "--folds", "2", "--seeds=1", "--methods", "noise, mmd", "--out", "a")
    assert run("study", "transfer", experiment, "noisy", *words) == (0, [])
    [(name, source, target, reference, study, *others)] = jobs
    assert (name, source.name, target.name, reference) == ("measure_transfer", "mine", "noisy", "noisy")
    assert source.settings()["epochs"] == 7
    assert (study.folds, study.seeds, study.methods, others) == (2, 1, ("noise", "mmd"), [False, Path("a"), None])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "transfer", "EXPERIMENT"], "Missing argument 'target'"),
        (["study", "transfer", "EXPERIMENT", "gone"], "dataset should be one of: "),
        (["study", "transfer", "EXPERIMENT", "noisy", "--methods", "magic"], "'methods.0' should be"),
        (["train", "EXPERIMENT", "--noise", "{sigm: 1}"], "unknown key 'training.noise.sigm'"),
        (["train", "prestine"], "Error: dataset should be one of: "),
        (["main", "gone.yaml"], "got 'gone.yaml'"),
        (["train", "EXPERIMENT", "--epoch", "3"], "No such option: --epoch, did you mean --epochs?"),
        (["train", "--epoch", "EXPERIMENT"], "No such option: --epoch, did you mean --epochs?"),
        (["train", "EXPERIMENT", "--batch_siz=3"], "No such option: --batch_siz, did you mean --batch-size?"),
        (["train", "EXPERIMENT", "--xyzzy", "3"], "No such option: --xyzzy; --help lists what there is"),
        (["main", "EXPERIMENT", "--epochs", "abc"], "'training.epochs' should be a valid integer"),
        (["main", "EXPERIMENT", "--epochs", "2.5"], "'training.epochs' should be a valid integer"),
        (["train", "EXPERIMENT", "--dropout", "1.5"], "'network.dropout' should be less than 1, got '1.5'"),
        (["train", "EXPERIMENT", "--learning-rate", "nan"], "'training.learning_rate'"),
        (["train", "EXPERIMENT", "--epochs"], "Option '--epochs' requires an argument; --help lists"),
        (
            ["train", "EXPERIMENT", "--stretch="],
            "'network.stretch' should be 'raw', 'standard', 'asinh' or 'log', got ''",
        ),
        (["train", "EXPERIMENT", "--dropout", "-1"], "should be greater than or equal to 0, got '-1'"),
        (["train", "EXPERIMENT", "--augment", "maybe"], "'training.augment' should be a valid boolean"),
        (["gradcam", "pristine", "--method", "gradcan"], "Invalid value for '--method'"),
        (["train", "EXPERIMENT", "epochs=3"], "unexpected extra argument(s) (epochs=3)"),
        (["evaluate", "pristine", "--modell", "last"], "--modell"),
        (["evaluate", "pristine", "--folds", "1"], "Invalid value for '--folds'"),
        (["study", "leakage", "EXPERIMENT", "--seeds", "0"], "Invalid value for '--seeds'"),
        (["study", "leakage", "EXPERIMENT", "--epoch", "3"], "No such option: --epoch, did you mean --epochs?"),
        (["study", "recipes", "EXPERIMENT", "--published-epochs", "0"], "Invalid value for '--published-epochs'"),
        (["study", "selection", "pristine", "--bins", "0"], "Invalid value for '--bins'"),
        (["study", "probabilities", "pristine", "--purity", "1.5"], "Invalid value for '--purity'"),
        (["study", "baselines", "pristine", "--epochs", "3"], "--epochs"),
        (["study", "leakages", "pristine"], "No such command 'leakages'"),
        (["predict", "x.npy", "--model", "m", "--merger-fraction", "few"], "Invalid value for '--merger-fraction'"),
        (["report", "noisy", "--readme", "gone.md"], "Invalid value for '--readme'"),
        (["report"], "Missing argument 'datasets'"),
        (["ui", "--port", "abc"], "Invalid value for '--port'"),
        (["trian", "pristine"], "No such command 'trian'"),
        (["data", "simulate", "--without", "gas"], "should be among companion, tides, young stars, nuclei, got 'gas'"),
        (["data", "check", "EXPERIMENT"], "x.npy, where there is no file; 'deepmerge data simulate' makes"),
    ],
)
def test_wrong_input_ends_with_status_2_and_one_line(run, jobs, experiment, arguments, said):
    status, lines = run(*[experiment if word == "EXPERIMENT" else word for word in arguments])
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert said in lines[0]
    assert jobs == []


def test_ingredients_of_encounters_are_left_out_on_request(run, tmp_path):
    small = ["--galaxies", "18", "--merger-fraction", "0.5", "--workers", "1", "--folder", str(tmp_path)]
    assert run("data", "simulate", *small, "--without", "young stars", "--without", "tides")[0] == 0
    source = yaml.safe_load((tmp_path / "noisy_2filt_source.json").read_text())
    assert source["settings"]["without"] == ["tides", "young stars"]


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
        "from deepmerge import cli\n"
        "from deepmerge.loading import quietly\n"
        "def fail(*given, **options): raise OSError('disk full')\n"
        "with quietly(): from deepmerge.jobs import evaluate\n"
        "evaluate.evaluate = fail\n"
        "cli.main()"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("OSError: disk full\n")


FAILURES = {
    "InputError": ("from deepmerge.errors import InputError", 2),
    "Refused": ("from deepmerge.errors import Refused", 3),
    "Failed": ("from deepmerge.errors import Failed", 1),
    "MlflowException": ("from mlflow.exceptions import MlflowException", 1),
    "OSError": ("", 1),
}


@pytest.mark.parametrize("name", FAILURES)
def test_no_failure_tells_a_password(name, monkeypatch, run):
    made, status = FAILURES[name]
    space: dict = {}
    exec(f"{made}\nmade = {name}('no answer from http://me:s3cret@host, nor at db?password=s3cret')", space)

    def evaluate(*given, **options):
        raise space["made"]

    monkeypatch.setattr("deepmerge.jobs.evaluate.evaluate", evaluate)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@host")
    found, lines = run("evaluate", "noisy")
    assert found == status
    assert len(lines) == 1 or name == "OSError"
    assert "http://me@host" in lines[-1]
    assert "s3cret" not in "\n".join(line for line in lines if "exec(" not in line)


@pytest.mark.parametrize("option", ["--port=postgresql://me:s3cret@host", "--datasets=a --b=http://host?token=s3cret"])
def test_an_option_that_is_wrong_is_said_without_a_password(run, option):
    status, lines = run("ui", *option.split())
    assert status == 2
    assert "s3cret" not in lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_a_command_with_its_cleaning_up_done(run, jobs, monkeypatch, number):
    cleaned = []

    def evaluate(*given, **options):
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)

    monkeypatch.setattr("deepmerge.jobs.evaluate.evaluate", evaluate)
    signal.signal(number, signal.SIG_DFL)
    assert run("evaluate", "noisy") == (128 + number, [])
    assert cleaned == [True]


def test_a_signal_that_the_caller_ignores_stays_ignored(run, jobs):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    run("evaluate", "noisy")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_results_are_shown_one_a_line_with_their_intervals(capsys):
    show(
        {
            "run_id": "abc",
            "best_epoch": 3,
            "test_auc": 0.81234567,
            "test_auc_low": 0.75,
            "test_auc_high": 0.875001,
            "test_purity": float("nan"),
            "test_brier": 0.25,
            "test_brier_low": float("nan"),
            "test_brier_high": float("nan"),
        }
    )
    assert capsys.readouterr().out == (
        "run_id       abc\n"
        "best_epoch   3\n"
        "test_auc     0.8123  [0.75, 0.875]\n"
        "test_purity  undefined\n"
        "test_brier   0.25\n"
    )  # fmt: skip


def test_no_results_show_nothing(capsys):
    show({})
    assert capsys.readouterr().out == ""
