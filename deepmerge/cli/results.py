"""Commands about what others made: compare, promote and list models, report, and the MLflow UI."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from deepmerge.cli.options import Cluster, Datasets, Model, ModelOf, Out, writable, writable_files
from deepmerge.cli.output import show, show_table
from deepmerge.errors import InputError, Refused
from deepmerge.loading import quietly

app = typer.Typer()


@app.command()
def compare(
    datasets: Datasets,
    models: Annotated[
        str | None, Option(help="One model per data set, separated by commas; default: the newest of each.")
    ] = None,
    seeds: Annotated[
        int,
        Option(help="Above 1: compare recipes, each trained with so many seeds, with their differences.", min=1),
    ] = 1,
    cluster: Cluster = None,
    out: Annotated[Path, Option(help="Folder for tables and figures.", callback=writable)] = Path("results/comparison"),
) -> None:
    """Compare models of two or more data sets. Each also scores the images of the others.

    Two models may differ by the luck of their seeds alone. Whether one recipe is better than another, --seeds 5 says.
    """
    names = ",".join(datasets).split(",")
    with quietly():
        from deepmerge.jobs.compare import compare

    named = models.split(",") if models else ["last"] * len(names)
    show(compare.compare(names, named, out=out, seeds=seeds, workers=cluster))


@app.command()
def promote(
    dataset: ModelOf,
    model: Model = "last",
    metric: Annotated[str | None, Option(help="Metric that decides, by its name in the output of evaluate.")] = None,
    on: Annotated[
        Literal["test", "folds"], Option(help="Judge on the test galaxies, or on all of them as evaluate --folds did.")
    ] = "test",
    force: Annotated[
        str | None, Option(help="Promote even if the gate refuses, for this reason, which is recorded.")
    ] = None,
    rollback: Annotated[bool, Option("--rollback", help="Make the previous champion champion again.")] = False,
    allow_refusal: Annotated[
        bool, Option("--allow-refusal", help="Exit with status 0 even when the gate refuses.")
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
    verdict = promote.promote(dataset, model, metric=decides, on=on, force=force, out=out)
    show(verdict)
    if verdict["decision"] == "refused" and not allow_refusal:
        raise Refused(f"{verdict['model']} version {verdict['version']} was refused: {verdict['reason']}")


@app.command()
def models(
    dataset: Annotated[str | None, Argument(help="Data set whose models to list; default: all.")] = None,
) -> None:
    """List registered models. With aliases, metrics and the gate's decision; tab-separated if not on a terminal."""
    from deepmerge.tracking import registry

    if rows := registry.listing(dataset):
        show_table(rows)
    else:
        of = f" of {dataset}" if dataset else ""
        print(f"No registered model{of} yet; 'deepmerge promote' registers one", file=sys.stderr)


@app.command()
def report(
    datasets: Datasets,
    out: Annotated[Path, Option(help="The page to write.", callback=writable_files)] = Path("results/report.html"),
    readme: Annotated[
        list[Path] | None,
        Option(
            help="Markdown file whose parts between markers are renewed; may be given more than once.",
            exists=True,
            callback=writable_files,
        ),
    ] = None,
) -> None:
    """Write an HTML page of results. It shows the newest model and the newest studies of each data set."""
    with quietly():
        from deepmerge.report.collect import write_report

    show(write_report(",".join(datasets).split(","), out=out, readme=readme or ()))


@app.command()
def serve(
    model: Annotated[str, Argument(help="Run id, run.json of a training, or models:/deepmerge-pristine@champion.")],
    host: Annotated[str, Option(help="Address to listen at; 0.0.0.0 lets other machines ask.")] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to listen at.", min=1, max=65535)] = 5002,
) -> None:
    """Serve a model: images as JSON in, merger probabilities out. Its files are checked, its input is bounded."""
    with quietly():
        from deepmerge.jobs import serve as job

    job.serve(model, host=host, port=port)


@app.command()
def sync() -> None:
    """Send what earlier commands could not deliver to their tracking server. Exit status 1 while something is left."""
    with quietly():
        from deepmerge.tracking import sync as sending

    show(sending.sync())


@app.command()
def ui(
    port: Annotated[int, Option(help="Port on this machine.", min=1, max=65535)] = 5000,
    datasets: Annotated[
        str, Option(help="Data sets whose newest runs to compare, separated by commas.")
    ] = "pristine,noisy",
) -> None:
    """Start the MLflow UI on this machine. Prints the address of the page that compares the newest runs."""
    from deepmerge.tracking import ui

    ui.serve(port, tuple(datasets.split(",")))
