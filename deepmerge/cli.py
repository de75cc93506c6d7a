"""The command line: parse, call one stage, print. Heavy imports wait until a command runs."""

import importlib
import logging
import os
import re
import signal
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class SettingsCommand(TyperCommand):
    """A command that takes every setting of `deepmerge.config` as an option, and lists them in its help.

    They come as ``--batch-size 32``, ``--batch_size 32`` (from ``mlflow run -P``) or ``--batch-size=32`` and arrive in
    ``ctx.obj`` as strings: the configuration alone knows names, types, ranges and defaults.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take out the settings before the parser sees the command's own options."""
        own = {option for parameter in self.params for option in parameter.opts} | {"--help"}
        ctx.obj, rest = settings(args, own)
        return super().parse_args(ctx, rest)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List the settings behind the command's own options."""
        from deepmerge import config

        fields = [item for section in config.SECTIONS.values() for item in section.model_fields.items()]
        with formatter.section(
            "Settings (they win over the experiment file; in brackets what holds when neither says)"
        ):
            formatter.write_dl(
                [
                    (f"--{name.replace('_', '-')} VALUE", f"{field.description} [{field.default}]")
                    for name, field in fields
                ]
            )


# Failures whose message says it all; by name, since importing their classes takes seconds.
ONE_LINE_FAILURES = ("TrainingDiverged", "MlflowException", "WorkerFailed", "OperationalError", "StorageInternalError")


def settings(words: Sequence[str], own: Container[str]) -> tuple[dict[str, str], list[str]]:
    """Part command-line words into settings, by name, and the rest: options in `own` and words without dashes."""
    from deepmerge.errors import InputError

    found, rest = {}, []
    coming = iter(words)
    for word in coming:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in own:
            rest.append(word)
            continue
        given = value if equals else next(coming, None)
        if given is None:
            raise InputError(f"settings should look like --epochs 3, got {word!r}")
        found[name[2:].replace("-", "_")] = given
    return found, rest


STATEMENT = r"\[SQL|\(Background"  # how SQLAlchemy begins what it adds to the words of a database


app = typer.Typer(
    help="Train, evaluate, explain and compare networks that tell merging galaxies from non-merging ones.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Make, fetch, convert and check the images.", no_args_is_help=True)
app.add_typer(data, name="data")

Dataset = Annotated[str, typer.Argument(help="Name of experiments/<dataset>.yaml, or the path of such a file.")]
ModelOf = Annotated[str, typer.Argument(help="Data set whose newest model is meant, unless --model says which.")]
Model = Annotated[
    str, typer.Option(help="Run id, models:/ URI, run.json of a training, or 'last': the newest of DATASET.")
]
Params = Annotated[
    str | None,
    typer.Option(help="'tuned': the settings that tune found; or a file of such settings. They win over the file's."),
]
Layer = Annotated[str | None, typer.Option(help="Convolution to explain, by name or number; default: the last.")]
Method = Annotated[str | None, typer.Option(help="hirescam (default), or gradcam as in the paper.")]
Out = Annotated[Path | None, typer.Option(help="Folder for results that other programs read, DVC among them.")]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write figures as PDF too.")]
Folder = Annotated[Path, typer.Option(help="Where the files go.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace other data of the same name.")]


@app.command("main", cls=SettingsCommand)
def main_command(
    ctx: typer.Context,
    dataset: Dataset,
    params: Params = None,
    layer: Layer = None,
    method: Method = None,
    pdf: Pdf = False,
) -> None:
    """Train, evaluate and explain one model, in one MLflow run."""
    from deepmerge import config

    experiment = config.load(dataset, ctx.obj, params)
    show(stages().main(experiment, layer, method, pdf))


@app.command(cls=SettingsCommand)
def train(ctx: typer.Context, dataset: Dataset, params: Params = None, pdf: Pdf = False, out: Out = None) -> None:
    """Train a model; validation decides when to stop, the test images stay unseen."""
    from deepmerge import config

    experiment = config.load(dataset, ctx.obj, params)
    show(stages().train(experiment, pdf, out))


@app.command(cls=SettingsCommand)
def tune(
    ctx: typer.Context,
    dataset: Dataset,
    trials: Annotated[int | None, typer.Option(help="Trials in all, those of earlier calls counted.")] = None,
    objective: Annotated[str | None, typer.Option(help="log_loss or auc, of the validation galaxies.")] = None,
    folds: Annotated[int | None, typer.Option(help="Above 1: mean over so many folds outside the test.")] = None,
    pruning: Annotated[bool | None, typer.Option(help="Stop trials that fall behind the median.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes here; default: one a core.", min=1)] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database of studies; default: optuna.db beside mlflow.db.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study, to have one of your own.")] = None,
    seeds: Annotated[int, typer.Option(help="Models to train with the winning settings; 0: none.", min=0)] = 1,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Search for better settings on the validation galaxies, then train, judge, explain and register the winner.

    What was interrupted goes on with the same command; further machines join with it against one --storage.
    """
    from deepmerge import config

    asked = {"trials": trials, "objective": objective, "folds": folds, "pruning": pruning}
    experiment = config.load(dataset, ctx.obj, tuning=asked)
    tuned = config.params_file(dataset, config.TUNED)
    found = stages().tune(
        experiment, tuned, workers=workers, storage=storage, name=study, seeds=seeds, pdf=pdf, out=out
    )
    show(found)


@app.command(hidden=True)
def work() -> None:
    """Run trials of a study; started by tune."""
    stages().work()


@app.command()
def evaluate(dataset: ModelOf, model: Model = "last", pdf: Pdf = False, out: Out = None) -> None:
    """Score a trained model on its test galaxies, with 95 % intervals over galaxies."""
    show(stages().evaluate(dataset, model, pdf, out))


@app.command()
def gradcam(
    dataset: ModelOf,
    model: Model = "last",
    layer: Layer = None,
    method: Method = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Map what speaks for a merger, and against it, in every test image."""
    show(stages().gradcam(dataset, model, layer, method, pdf, out))


@app.command()
def compare(
    datasets: Annotated[list[str], typer.Argument(help="Two or more data sets, also as one word: pristine,noisy.")],
    models: Annotated[str | None, typer.Option(help="Their models, separated by commas; default: the newest.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("results/comparison"),
) -> None:
    """Compare models of several variants, each also on the images of the others; one table, three figures."""
    names = ",".join(datasets).split(",")
    show(stages().compare(names, models.split(",") if models else ["last"] * len(names), out))


@app.command()
def promote(
    dataset: ModelOf,
    model: Model = "last",
    metric: Annotated[str | None, typer.Option(help="What decides, as evaluate names it; default: auc.")] = None,
    force: Annotated[str | None, typer.Option(help="Reason to promote it though the gate refuses.")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Swap the champion and the one before it.")] = False,
    allow_refusal: Annotated[bool, typer.Option("--allow-refusal", help="End with 0 also when refused.")] = False,
    out: Out = None,
) -> None:
    """Make a model champion of DATASET if it is better than the one that reigns; exit status 3 if it is refused."""
    from deepmerge.errors import InputError, Refused

    if rollback:
        if force is not None or model != "last":
            raise InputError("--rollback should stand alone: it takes the previous champion, for no other reason")
        from deepmerge.tracking import registry

        show(registry.rollback(dataset))
        return
    found = stages().promote(dataset, model, metric, force, out)
    show(found)
    if found["decision"] == "refused" and not allow_refusal:
        raise Refused(f"{found['model']} version {found['version']} was refused: {found['reason']}")


@app.command()
def models(
    dataset: Annotated[str | None, typer.Argument(help="Data set whose models are meant; default: all.")] = None,
) -> None:
    """List registered models with aliases, metrics and the decision of their gate; for programs, tab-separated."""
    from deepmerge.tracking import registry

    lines = registry.listing(dataset)
    if lines:
        show_table(lines)
    else:
        of = f" of {dataset}" if dataset else ""
        print(f"No registered model{of} yet; 'deepmerge promote' registers one", file=sys.stderr)


@app.command()
def predict(
    images: Annotated[Path, typer.Argument(help="npy or FITS file, channels first: (N, filters, H, W).")],
    model: Annotated[str, typer.Option(help="Run id, run.json of a training, or models:/deepmerge-pristine@champion.")],
    out: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")] = Path("scores.parquet"),
) -> None:
    """Score images of any number: probability of a merger, one row an image.

    Pixels in the units of the training images. A server of the same model (mlflow models serve) gives the same numbers,
    but takes the images channels last: (N, H, W, filters).
    """
    show(stages().predict(images, model, out))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000,
    datasets: Annotated[str, typer.Option(help="Data sets whose newest runs are compared.")] = "pristine,noisy",
) -> None:
    """Start the MLflow UI here and print the address of the page that compares the newest runs."""
    from deepmerge.tracking import ui

    ui.serve(port, tuple(datasets.split(",")))


@data.command()
def simulate(
    folder: Folder = Path("data"),
    galaxies: Annotated[int | None, typer.Option(help="Galaxies, four views each.")] = None,
    merger_fraction: Annotated[float | None, typer.Option(help="Share of mergers among them.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same bytes.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
) -> None:
    """Make the demo sample: mock galaxies, pristine and noisy, with catalogue and feature masks."""
    from deepmerge.data.simulate import simulate

    given: dict[str, Any] = {
        "galaxies": galaxies,
        "merger_fraction": merger_fraction,
        "seed": seed,
        "workers": workers,
    }
    simulate(folder, **{name: value for name, value in given.items() if value is not None})


@data.command()
def fetch(
    variant: Annotated[str, typer.Argument(help="pristine or noisy.")],
    filters: Annotated[int, typer.Option(help="2: F814W, F160W; 3: and F356W.")] = 2,
    folder: Folder = Path("data"),
    base_url: Annotated[str | None, typer.Option(help="Another place that holds the FITS files.")] = None,
    catalogue_url: Annotated[str | None, typer.Option(help="Another place that holds the catalogue arrays.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Download the released images and their catalogue; goes on where it was interrupted."""
    from deepmerge.data import archive

    places = {"base_url": base_url, "catalogue_url": catalogue_url}
    given = {name: url for name, url in places.items() if url is not None}
    archive.fetch(variant, folder, filters=filters, overwrite=overwrite, **given)


@data.command("import")
def import_(
    fits: Annotated[Path, typer.Argument(help="FITS file: images in HDU 0, a table with the label in HDU 1.")],
    folder: Folder = Path("data"),
    stem: Annotated[str | None, typer.Option(help="Name of the arrays; default: after the file.")] = None,
    catalogue_arrays: Annotated[Path | None, typer.Option(help="Folder with the authors' catalogue arrays.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a FITS file on disk to the arrays that training reads."""
    from deepmerge.data import archive

    archive.import_fits(fits, folder, stem=stem, catalogue_arrays=catalogue_arrays, overwrite=overwrite)


@data.command()
def check(dataset: Dataset) -> None:
    """Read all images of a data set once and say what is in them and what is wrong with them."""
    from deepmerge import config
    from deepmerge.data import check, versions
    from deepmerge.data import dataset as datasets
    from deepmerge.errors import InputError

    experiment = config.load(dataset)
    report = check.check(datasets.read(experiment.data, experiment.name))
    folder = experiment.data.images.resolve().parent
    changed = versions.changes(folder)
    if changed is not None:
        report.facts[f"{folder.name}.dvc"] = "; ".join(changed) or "the folder holds what it says"
    show(report.facts)
    if report.problems:
        raise InputError(f"{dataset} should be clean, but: {'; '.join(report.problems)}")


@data.command(cls=SettingsCommand)
def split(
    ctx: typer.Context, dataset: Dataset, out: Annotated[Path, typer.Option(help="CSV to write.")] = Path("split.csv")
) -> None:
    """Write which image trains, validates and tests, for train --split-table or for other programs."""
    from deepmerge import config
    from deepmerge.data import dataset as datasets
    from deepmerge.data import splits
    from deepmerge.files import replacing

    experiment = config.load(dataset, ctx.obj)
    images = datasets.read(experiment.data, experiment.name)
    made = splits.make(images, experiment.split)
    with replacing(out) as aside:
        splits.described(made.table(), images).to_csv(aside, index=False)
    show(
        {
            "split": made.protocol,
            "fingerprint": made.fingerprint,
            **{name: len(getattr(made, name)) for name in splits.PARTS},
        }
    )


def stages() -> ModuleType:
    """Import the stages, with TensorFlow behind them; its greeting on stderr goes nowhere."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            return importlib.import_module("deepmerge.stages")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def show(results: Mapping[str, Any]) -> None:
    """Print one line a result: name, value and, where there is one, its 95 % interval."""
    names = [name for name in results if not name.endswith(("_low", "_high"))]
    width = max(map(len, names), default=0)
    for name in names:
        value = results[name]
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        if f"{name}_low" in results:
            text += f"  [{results[f'{name}_low']:.4g}, {results[f'{name}_high']:.4g}]"
        print(f"{name:{width}}  {text}")


def show_table(lines: Sequence[Mapping[str, str]]) -> None:
    """Print lines of one kind as a table on a terminal, elsewhere separated by tabs below a line of names."""
    if not sys.stdout.isatty():
        print(*("\t".join(cells) for cells in [list(lines[0]), *(list(line.values()) for line in lines)]), sep="\n")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for name in lines[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for line in lines:
        table.add_row(*line.values())
    Console().print(table)


def _end_cleanly_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the process as an exception does: servers stopped, files half-written removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores SIGHUP, and that should stay so
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def main() -> None:
    """Run the command line. Exit status: 0 done, 2 wrong input, 3 promotion refused (one line each), 1 all else."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    _end_cleanly_on_signals()
    from deepmerge.errors import InputError, Refused

    # Without arguments there is nothing to be wrong: the parser shows the help.
    one_line = len(sys.argv) > 1 and sys.argv[1:] != ["data"]
    try:
        sys.exit(app(standalone_mode=not one_line))
    except InputError as error:
        message = str(error)
    except Refused as refusal:
        print(f"Refused: {refusal}", file=sys.stderr)
        sys.exit(3)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ in ONE_LINE_FAILURES:
            # What Optuna's database said is behind the exception; databases add the statement and a link.
            said = str(error.__cause__ if type(error).__name__ == "StorageInternalError" else error)
            print(f"Error: {' '.join(re.split(STATEMENT, said)[0].split())}", file=sys.stderr)
            sys.exit(1)
        # The parser's errors are no public class of Typer; each knows its message.
        if not hasattr(error, "format_message"):
            raise
        message = f"{error.format_message().rstrip('.')}; --help lists what there is"
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
