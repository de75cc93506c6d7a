"""The commands: parse, call one function, print. Heavy imports wait until a command runs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

import deepmerge
from deepmerge.cli import data, study
from deepmerge.cli.options import (
    Command,
    Dataset,
    Datasets,
    Layer,
    Method,
    Model,
    ModelOf,
    Out,
    Params,
    Pdf,
    SettingsCommand,
)
from deepmerge.cli.output import show, show_table
from deepmerge.errors import InputError, Refused
from deepmerge.loading import quietly

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")


def print_version(wanted: bool) -> None:
    """Print the version of the package, and end."""
    if wanted:
        print(deepmerge.__version__)
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate, explain and compare networks that tell merging galaxies from non-merging ones."""


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

    experiment = config.load(dataset, overrides=ctx.obj, params=params)
    with quietly():
        from deepmerge.jobs.main import main

    show(main(experiment, layer=layer, method=method, pdf=pdf))


@app.command(cls=SettingsCommand)
def train(ctx: typer.Context, dataset: Dataset, params: Params = None, pdf: Pdf = False, out: Out = None) -> None:
    """Train a model. Validation decides when to stop; the test images stay unseen."""
    from deepmerge import config

    experiment = config.load(dataset, overrides=ctx.obj, params=params)
    with quietly():
        from deepmerge.jobs import train

    show(train.train(experiment, pdf=pdf, out=out))


@app.command(cls=SettingsCommand)
def tune(
    ctx: typer.Context,
    dataset: Dataset,
    trials: Annotated[int | None, typer.Option(help="Trials in total, including those of earlier calls.")] = None,
    objective: Annotated[
        Literal["log_loss", "auc"] | None, typer.Option(help="What to improve on the validation galaxies.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="If above 1, score each trial by its mean over this many folds of the galaxies outside the test."
        ),
    ] = None,
    pruning: Annotated[bool | None, typer.Option(help="Stop trials that fall behind the median.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine; default: one per core.", min=1)
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database of the Optuna studies; default: optuna.db beside mlflow.db.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study; default: made from data set, settings and data.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Models to train with the winning settings; 0 for none.", min=0)
    ] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Search for better settings, then train, evaluate and explain the winner.

    The search sees the validation galaxies only; the winner's model is registered. If interrupted, the same command
    goes on where it stopped. Other machines join the search with the same command and --storage.
    """
    from deepmerge import config

    tuning = {"trials": trials, "objective": objective, "folds": folds, "pruning": pruning, "seeds": seeds}
    experiment = config.load(dataset, overrides=ctx.obj, tuning=tuning)
    tuned = config.params_file(dataset, config.TUNED)
    with quietly():
        from deepmerge.jobs.tune import search

    results = search.tune(experiment, tuned, workers=workers, storage=storage, name=study, pdf=pdf, out=out)
    show(results)


@app.command(hidden=True)
def work() -> None:
    """Run trials of a study. Started by tune, not by hand."""
    with quietly():
        from deepmerge.jobs.tune import search

    search.work()


@app.command()
def evaluate(
    dataset: ModelOf,
    model: Model = "last",
    folds: Annotated[
        int | None,
        typer.Option(
            help="Instead train its recipe anew on this many folds, so that every galaxy is scored once.", min=2
        ),
    ] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Score a model on its test galaxies. All metrics come with 95 % intervals over galaxies."""
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
    """Map what in each test image speaks for a merger and what against it."""
    with quietly():
        from deepmerge.jobs import gradcam

    show(gradcam.gradcam(dataset, model, layer=layer, method=method, pdf=pdf, out=out))


@app.command()
def compare(
    datasets: Datasets,
    models: Annotated[
        str | None, typer.Option(help="One model per data set, separated by commas; default: the newest of each.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path("results/comparison"),
) -> None:
    """Compare models of two or more data sets. Each also scores the images of the others."""
    names = ",".join(datasets).split(",")
    with quietly():
        from deepmerge.jobs.compare import compare

    show(compare.compare(names, models.split(",") if models else ["last"] * len(names), out=out))


@app.command()
def promote(
    dataset: ModelOf,
    model: Model = "last",
    metric: Annotated[
        str | None, typer.Option(help="Metric that decides, by its name in the output of evaluate.")
    ] = None,
    force: Annotated[
        str | None, typer.Option(help="Promote even if the gate refuses, for this reason, which is recorded.")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Make the previous champion champion again.")] = False,
    allow_refusal: Annotated[
        bool, typer.Option("--allow-refusal", help="Exit with status 0 even when the gate refuses.")
    ] = False,
    out: Out = None,
) -> None:
    """Make a model champion if it beats the present one. Exit status 3 if the gate refuses it."""
    from deepmerge import config

    if rollback:
        if force is not None or model != "last":
            raise InputError("--rollback should stand alone: it takes the previous champion, for no other reason")
        from deepmerge.tracking import registry

        show(registry.rollback(dataset))
        return
    with quietly():
        from deepmerge.jobs.promote import promote

    decides = config.promotion_of(dataset, metric=metric).metric
    results = promote.promote(dataset, model, metric=decides, force=force, out=out)
    show(results)
    if results["decision"] == "refused" and not allow_refusal:
        raise Refused(f"{results['model']} version {results['version']} was refused: {results['reason']}")


@app.command()
def models(
    dataset: Annotated[str | None, typer.Argument(help="Data set whose models to list; default: all.")] = None,
) -> None:
    """List registered models. With aliases, metrics and the gate's decision; tab-separated if not on a terminal."""
    from deepmerge.tracking import registry

    rows = registry.listing(dataset)
    if rows:
        show_table(rows)
    else:
        of = f" of {dataset}" if dataset else ""
        print(f"No registered model{of} yet; 'deepmerge promote' registers one", file=sys.stderr)


@app.command(cls=Command)
def predict(
    images: Annotated[Path, typer.Argument(help="npy or FITS file of images, channels first: (N, filters, H, W).")],
    model: Annotated[str, typer.Option(help="Run id, run.json of a training, or models:/deepmerge-pristine@champion.")],
    out: Annotated[Path, typer.Option(help="Table to write, .parquet or .csv.")] = Path("scores.parquet"),
    merger_fraction: Annotated[
        float | None, typer.Option(help="Expected share of mergers, 0 to 1: adds probabilities calibrated for it.")
    ] = None,
) -> None:
    """Score images: the probability of a merger, one row per image.

    Pixels should be in the units of the training images. A server of the same model (mlflow models serve) gives the
    same numbers, but takes images channels last: (N, H, W, filters).
    """
    with quietly():
        from deepmerge.jobs import predict

    show(predict.predict(images, model, out=out, merger_fraction=merger_fraction))


@app.command()
def report(
    datasets: Datasets,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("results/report.html"),
    readme: Annotated[
        Path | None,
        typer.Option(help="Markdown file in which to renew the results between its two markers.", exists=True),
    ] = None,
) -> None:
    """Write an HTML page of results. It shows the newest model and the newest studies of each data set."""
    with quietly():
        from deepmerge.report.collect import write_report

    show(write_report(",".join(datasets).split(","), out=out, readme=readme))


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on this machine.", min=1, max=65535)] = 5000,
    datasets: Annotated[
        str, typer.Option(help="Data sets whose newest runs to compare, separated by commas.")
    ] = "pristine,noisy",
) -> None:
    """Start the MLflow UI on this machine. Prints the address of the page that compares the newest runs."""
    from deepmerge.tracking import ui

    ui.serve(port, tuple(datasets.split(",")))
