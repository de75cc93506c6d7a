"""Commands that show images to people, and where the network sees them."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from deepmerge.cli.options import Command, Model, ModelOf, data_sets, writable_files
from deepmerge.cli.output import show
from deepmerge.loading import quietly

app = typer.Typer()


@app.command(cls=Command)
def gallery(
    subject: Annotated[
        str,
        Argument(
            help="Data set (with its newest model, if it has one), model (run id, models:/ URI, run.json), or file of "
            "images.",
            autocompletion=data_sets,
        ),
    ],
    out: Annotated[Path, Option(help="The page to write.", callback=writable_files)] = Path("results/gallery.html"),
    tags: Annotated[Path | None, Option(help="Table of tags to go on from, as the gallery exports it.")] = None,
    table: Annotated[
        Path | None, Option(help="Of a file of images: a table with a row an image, such as predict writes.")
    ] = None,
    stretch: Annotated[
        Literal["log", "asinh"], Option(help="log: faint features of each filter; asinh: colours as they are.")
    ] = "log",
    most: Annotated[int, Option(help="Images on the page at most; of more, random ones are shown.", min=1)] = 20_000,
) -> None:
    """Show all images on one page. Sort, filter and tag them in a browser; nothing is fetched, nothing leaves it.

    The tags are exported as a table that experiments read: data.relabel and data.exclude. A model's page is logged to
    its run.
    """
    with quietly():
        from deepmerge.jobs.gallery.gallery import gallery

    show(gallery(subject, out, table=table, tagged=tags, stretch=stretch, most=most))


@app.command()
def embed(
    dataset: ModelOf,
    model: Model = "last",
    out: Annotated[
        Path | None, Option(help="Also write the table here, a .parquet file.", callback=writable_files)
    ] = None,
) -> None:
    """Say where the network sees each image. Features of its last hidden layer, neighbours, anomalies and a map.

    The table is logged to the model's run, where gallery and predict find it.
    """
    with quietly():
        from deepmerge.jobs.embed import embed

    show(embed(dataset, model, out=out))
