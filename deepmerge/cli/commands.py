"""The command line: parse, call one stage, print. Heavy imports wait until a command runs."""

import logging
import os
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from deepmerge.cli import data, study
from deepmerge.cli.loading import quietly
from deepmerge.cli.options import Command, Dataset, Layer, Method, Model, ModelOf, Out, Params, Pdf, SettingsCommand
from deepmerge.cli.output import show, show_table
from deepmerge.tracking import passwords

# Failures whose message says it all; by name, since importing their classes takes seconds.
ONE_LINE_FAILURES = ("TrainingDiverged", "MlflowException", "WorkerFailed", "OperationalError", "StorageInternalError")
STATEMENT = r"\[SQL|\(Background"  # how SQLAlchemy begins what it adds to the words of a database

app = typer.Typer(
    help="Train, evaluate, explain and compare networks that tell merging galaxies from non-merging ones.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


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
    with quietly():
        from deepmerge.jobs.main import main

    show(main(experiment, layer=layer, method=method, pdf=pdf))


@app.command(cls=SettingsCommand)
def train(ctx: typer.Context, dataset: Dataset, params: Params = None, pdf: Pdf = False, out: Out = None) -> None:
    """Train a model; validation decides when to stop, the test images stay unseen."""
    from deepmerge import config

    experiment = config.load(dataset, ctx.obj, params)
    with quietly():
        from deepmerge.jobs import train

    show(train.train(experiment, pdf=pdf, out=out))


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
    with quietly():
        from deepmerge.jobs.tune import search

    found = search.tune(experiment, tuned, workers=workers, storage=storage, name=study, seeds=seeds, pdf=pdf, out=out)
    show(found)


@app.command(hidden=True)
def work() -> None:
    """Run trials of a study; started by tune."""
    with quietly():
        from deepmerge.jobs.tune import search

    search.work()


@app.command()
def evaluate(
    dataset: ModelOf,
    model: Model = "last",
    folds: Annotated[
        int | None, typer.Option(help="Train its recipe anew on so many folds, to score every galaxy.", min=2)
    ] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Score a trained model on its test galaxies, with 95 % intervals over galaxies; or its recipe on all galaxies."""
    if folds is None:
        with quietly():
            from deepmerge.jobs import evaluate

        show(evaluate.evaluate(dataset, model, pdf=pdf, out=out))
    else:
        with quietly():
            from deepmerge.studies.folds.study import cross_validate

        show(cross_validate(dataset, model, count=folds, pdf=pdf, out=out))


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
    with quietly():
        from deepmerge.jobs import gradcam

    show(gradcam.gradcam(dataset, model, layer=layer, method=method, pdf=pdf, out=out))


@app.command()
def compare(
    datasets: Annotated[list[str], typer.Argument(help="Two or more data sets, also as one word: pristine,noisy.")],
    models: Annotated[str | None, typer.Option(help="Their models, separated by commas; default: the newest.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("results/comparison"),
) -> None:
    """Compare models of several variants, each also on the images of the others; one table, three figures."""
    names = ",".join(datasets).split(",")
    with quietly():
        from deepmerge.jobs.compare import compare

    show(compare.compare(names, models.split(",") if models else ["last"] * len(names), out=out))


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
    from deepmerge import config
    from deepmerge.errors import InputError, Refused

    if rollback:
        if force is not None or model != "last":
            raise InputError("--rollback should stand alone: it takes the previous champion, for no other reason")
        from deepmerge.tracking import registry

        show(registry.rollback(dataset))
        return
    with quietly():
        from deepmerge.jobs.promote import promote

    found = promote.promote(dataset, model, metric=metric or config.Promotion().metric, force=force, out=out)
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


@app.command(cls=Command)
def predict(
    images: Annotated[Path, typer.Argument(help="npy or FITS file, channels first: (N, filters, H, W).")],
    model: Annotated[str, typer.Option(help="Run id, run.json of a training, or models:/deepmerge-pristine@champion.")],
    out: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")] = Path("scores.parquet"),
    merger_fraction: Annotated[
        float | None, typer.Option(help="Share of mergers among such galaxies: adds probabilities calibrated for it.")
    ] = None,
) -> None:
    """Score images of any number: probability of a merger, one row an image.

    Pixels in the units of the training images. A server of the same model (mlflow models serve) gives the same numbers,
    but takes the images channels last: (N, H, W, filters).
    """
    with quietly():
        from deepmerge.jobs import predict

    show(predict.predict(images, model, out=out, merger_fraction=merger_fraction))


@app.command()
def report(
    datasets: Annotated[list[str], typer.Argument(help="Data sets, also as one word: pristine,noisy.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("results/report.html"),
    readme: Annotated[
        Path | None,
        typer.Option(help="Markdown file whose results, between two markers, are written anew too.", exists=True),
    ] = None,
) -> None:
    """Write one HTML page about the newest model and the newest studies of each data set; a few seconds."""
    with quietly():
        from deepmerge.report.collect import write_report

    show(write_report(",".join(datasets).split(","), out=out, readme=readme))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000,
    datasets: Annotated[str, typer.Option(help="Data sets whose newest runs are compared.")] = "pristine,noisy",
) -> None:
    """Start the MLflow UI here and print the address of the page that compares the newest runs."""
    from deepmerge.tracking import ui

    ui.serve(port, tuple(datasets.split(",")))


def _end_cleanly_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the process as an exception does: servers stopped, files half-written removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores SIGHUP, and that should stay so
            signal.signal(number, lambda number, frame: sys.exit(128 + number))


def main() -> None:
    """Run the command line. Exit status: 0 done, 2 wrong input, 3 promotion refused (one line each), 1 all else."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    told = logging.StreamHandler(sys.stderr)
    told.setFormatter(passwords.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[told])
    _end_cleanly_on_signals()
    from deepmerge.errors import InputError, Refused

    # Without arguments there is nothing to be wrong: the parser shows the help.
    one_line = sys.argv[1:] not in ([], ["data"], ["study"])
    try:
        sys.exit(app(standalone_mode=not one_line))
    except InputError as error:
        message = str(error)
    except Refused as refusal:
        print(f"Refused: {passwords.scrubbed(str(refusal))}", file=sys.stderr)
        sys.exit(3)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ in ONE_LINE_FAILURES:
            # What Optuna's database said is behind the exception; databases add the statement and a link.
            said = str(error.__cause__ if type(error).__name__ == "StorageInternalError" else error)
            said = " ".join(re.split(STATEMENT, said)[0].split())
            print(f"Error: {passwords.scrubbed(said)}", file=sys.stderr)
            sys.exit(1)
        # The parser's errors are no public class of Typer; each knows its message.
        if not hasattr(error, "format_message"):
            print(passwords.scrubbed(traceback.format_exc()), end="", file=sys.stderr)
            sys.exit(1)
        message = f"{error.format_message().rstrip('.')}; --help lists what there is"
    print(f"Error: {passwords.scrubbed(message)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
