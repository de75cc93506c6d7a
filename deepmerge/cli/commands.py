"""The commands: parse, call one function, print. Heavy imports wait until a command runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Context, Option

import deepmerge
from deepmerge.cli import data, look, results, study
from deepmerge.cli.options import (
    Cluster,
    Command,
    Dataset,
    Layer,
    Method,
    Model,
    ModelOf,
    Out,
    Params,
    Pdf,
    SettingsCommand,
    experiment,
    writable,
    writable_files,
)
from deepmerge.cli.output import show
from deepmerge.loading import quietly

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def print_version(wanted: bool) -> None:
    """Print the version of the package, and end."""
    if wanted:
        print(deepmerge.__version__)
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train, evaluate, explain and compare networks that tell merging galaxies from non-merging ones."""


@app.command("main", cls=SettingsCommand)
def main_command(
    ctx: Context, dataset: Dataset, params: Params = None, layer: Layer = None, method: Method = None, pdf: Pdf = False
) -> None:
    """Train, evaluate and explain one model, in one MLflow run."""
    settings = experiment(ctx, dataset, params=params)
    with quietly():
        from deepmerge.jobs.main import main

    show(main(settings, layer=layer, method=method, pdf=pdf))


@app.command(cls=SettingsCommand)
def train(ctx: Context, dataset: Dataset, params: Params = None, pdf: Pdf = False, out: Out = None) -> None:
    """Train a model. Validation decides when to stop; the test images stay unseen."""
    settings = experiment(ctx, dataset, params=params)
    with quietly():
        from deepmerge.jobs import train

    show(train.train(settings, pdf=pdf, out=out))


@app.command(cls=SettingsCommand)
def tune(
    ctx: Context,
    dataset: Dataset,
    trials: Annotated[int | None, Option(help="Trials in total, including those of earlier calls.")] = None,
    objective: Annotated[
        Literal["log_loss", "auc"] | None, Option(help="What to improve on the validation galaxies.")
    ] = None,
    folds: Annotated[
        int | None, Option(help="If above 1, score each trial by its mean over folds of the galaxies outside the test.")
    ] = None,
    pruning: Annotated[bool | None, Option(help="Stop trials that fall behind the median.")] = None,
    cluster: Cluster = None,
    storage: Annotated[
        str | None, Option(help="Database of the Optuna studies; default: optuna.db beside mlflow.db.")
    ] = None,
    study: Annotated[
        str | None, Option(help="Name of the study; default: made from data set, settings and data.")
    ] = None,
    seeds: Annotated[int | None, Option(help="Models to train with the winning settings; 0 for none.", min=0)] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Search for better settings, then train, evaluate and explain the winner.

    The search sees the validation galaxies only; the winner's model is registered. If interrupted, the same command
    goes on where it stopped. With --cluster, other machines train; they read the same files, and need nothing else.
    """
    from deepmerge import config

    tuning = {"trials": trials, "objective": objective, "folds": folds, "pruning": pruning, "seeds": seeds}
    settings = experiment(ctx, dataset, tuning=tuning)
    tuned = config.params_file(dataset, config.TUNED)
    with quietly():
        from deepmerge.jobs.tune import search

    show(search.tune(settings, tuned, workers=cluster, storage=storage, name=study, pdf=pdf, out=out))


@app.command()
def evaluate(
    dataset: ModelOf,
    model: Model = "last",
    folds: Annotated[
        int | None,
        Option(help="Instead train its recipe anew on so many folds, so that every galaxy is scored once.", min=2),
    ] = None,
    cluster: Cluster = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Score a model on its test galaxies. All metrics come with 95 % intervals over galaxies."""
    with quietly():
        from deepmerge.jobs import evaluate
        from deepmerge.studies.folds.study import cross_validate

    if folds is None:
        show(evaluate.evaluate(dataset, model, pdf=pdf, out=out))
    else:
        show(cross_validate(dataset, model, count=folds, pdf=pdf, out=out, workers=cluster))


@app.command()
def gradcam(
    dataset: ModelOf,
    model: Model = "last",
    layer: Layer = None,
    method: Method = None,
    methods: Annotated[
        str | None, Option(help="Further methods to put to the test, separated by commas, or 'all': takes minutes.")
    ] = None,
    selection: Annotated[
        str | None,
        Option(
            help="Write maps of some images as npy and FITS, and a page of them: confident, uncertain, wrong or all of "
            "the test, rows:3,17,40-44 or galaxies:12,15 of the data, or a path of your own images."
        ),
    ] = None,
    target: Annotated[
        Literal["merger", "non-merger"] | None, Option(help="Class whose maps are written; default: both.")
    ] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Map what in each test image speaks for a merger and what against it, and say how far that can be believed."""
    with quietly():
        from deepmerge.jobs.gradcam import gradcam

    show(
        gradcam.gradcam(
            dataset,
            model,
            layer=layer,
            method=method,
            methods=methods,
            selection=selection,
            target=target,
            pdf=pdf,
            out=out,
        )
    )


@app.command(cls=Command)
def predict(
    images: Annotated[Path, Argument(help="npy or FITS file of images, channels first: (N, filters, H, W).")],
    model: Annotated[str, Option(help="Run id, run.json of a training, or models:/deepmerge-pristine@champion.")],
    out: Annotated[
        Path,
        Option(
            help="Table to write, .parquet or .csv; or a folder, for a Parquet data set of many images.",
            callback=lambda path: writable_files(path) if path.suffix else writable(path),
        ),
    ] = Path("scores.parquet"),
    merger_fraction: Annotated[
        float | None, Option(help="Expected share of mergers, 0 to 1: adds probabilities calibrated for it.")
    ] = None,
    catalogue: Annotated[
        Path | None,
        Option(help="Table with galaxy_id, ra or dec, a row an image; default: the one noted beside the images."),
    ] = None,
    cluster: Cluster = None,
) -> None:
    """Score images: the probability of a merger, one row per image, with its id and position where these are known.

    Pixels should be in the units of the training images. A server of the same model (mlflow models serve) gives the
    same numbers, but takes images channels last: (N, H, W, filters). Into a folder many processes write side by side
    (--cluster); if interrupted, the same command goes on.
    """
    with quietly():
        from deepmerge.jobs import predict

    show(predict.predict(images, model, out=out, merger_fraction=merger_fraction, catalogue=catalogue, workers=cluster))


app.add_typer(look.app)
app.add_typer(results.app)
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
