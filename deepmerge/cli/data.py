"""Commands that make, fetch, convert and check the images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deepmerge.cli.options import Dataset, SettingsCommand
from deepmerge.cli.output import show

app = typer.Typer(help="Make, fetch, convert and check the images.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option(help="Where the files go.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace other data of the same name.")]


@app.command()
def simulate(
    folder: Folder = Path("data"),
    galaxies: Annotated[int | None, typer.Option(help="Galaxies, four views each.")] = None,
    merger_fraction: Annotated[float | None, typer.Option(help="Share of mergers among them.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same bytes.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
) -> None:
    """Make the demo sample: mock galaxies, pristine and noisy, with catalogue and feature masks."""
    from deepmerge.data.demo.simulate import simulate

    given: dict[str, Any] = {
        "galaxies": galaxies,
        "merger_fraction": merger_fraction,
        "seed": seed,
        "workers": workers,
    }
    simulate(folder, **{name: value for name, value in given.items() if value is not None})


@app.command()
def fetch(
    variant: Annotated[str, typer.Argument(help="pristine or noisy.")],
    filters: Annotated[int, typer.Option(help="2: F814W, F160W; 3: and F356W.")] = 2,
    folder: Folder = Path("data"),
    base_url: Annotated[str | None, typer.Option(help="Another place that holds the FITS files.")] = None,
    catalogue_url: Annotated[str | None, typer.Option(help="Another place that holds the catalogue arrays.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Download the released images and their catalogue; goes on where it was interrupted."""
    from deepmerge.data.released import archive

    places = {"base_url": base_url, "catalogue_url": catalogue_url}
    given = {name: url for name, url in places.items() if url is not None}
    archive.fetch(variant, folder, filters=filters, overwrite=overwrite, **given)


@app.command("import")
def import_(
    fits: Annotated[Path, typer.Argument(help="FITS file, also .fz, .gz, .bz2 or .xz.")],
    folder: Folder = Path("data"),
    stem: Annotated[str | None, typer.Option(help="Name of the arrays; default: after the file.")] = None,
    catalogue_arrays: Annotated[Path | None, typer.Option(help="Folder with the authors' catalogue arrays.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a FITS file on disk to the arrays and the catalogue that training reads.

    It holds images (N, filters, H, W) in one HDU (the first that has four axes, or the one named SCI) and a table of N
    rows. That has a column of 0/1 labels (label, y, class, merger, is_merger, or the only one) and may have the
    galaxy's id (galaxy_id, subhalo_id, object_id, objid, source_id, id, name …), view, copy, stage, and more.
    """
    from deepmerge.data.released import archive

    archive.import_fits(fits, folder, stem=stem, catalogue_arrays=catalogue_arrays, overwrite=overwrite)


@app.command()
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


@app.command(cls=SettingsCommand)
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
        splits.published(made, images).to_csv(aside, index=False)
    show(
        {
            "split": made.protocol,
            "fingerprint": made.fingerprint,
            **{name: len(getattr(made, name)) for name in splits.PARTS},
        }
    )
