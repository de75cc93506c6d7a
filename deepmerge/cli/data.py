"""Commands that make, fetch, convert and check the images."""

import logging
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer
from typer import Argument, Context, Option

from deepmerge.cli.options import Cluster, Command, Dataset, SettingsCommand, experiment, writable, writable_files
from deepmerge.cli.output import show
from deepmerge.data import demo

log = logging.getLogger(__name__)
app = typer.Typer(help="Make, fetch, convert and check the images.", no_args_is_help=True)

Folder = Annotated[Path, Option(help="Folder to write to.", callback=writable)]
_INGREDIENTS = get_args(demo.Ingredient)
Overwrite = Annotated[bool, Option("--overwrite", help="Replace data of the same name.")]


@app.command()
def simulate(
    folder: Folder = Path("data"),
    galaxies: Annotated[int, Option(help="Number of galaxies, four views each.")] = demo.GALAXIES,
    merger_fraction: Annotated[
        float, Option(help="Share of mergers among the galaxies.", show_default="1/6")
    ] = demo.MERGER_FRACTION,
    seed: Annotated[int, Option(help="The same seed gives the same bytes.")] = demo.SEED,
    without: Annotated[
        list[str] | None,
        Option(
            help=f"Leave this out of encounters, all else being the same: {', '.join(_INGREDIENTS)}. May be given more "
            "than once.",
            autocompletion=lambda: list(_INGREDIENTS),
        ),
    ] = None,
    cluster: Cluster = None,
) -> None:
    """Make the demo sample. Mock galaxies, pristine and noisy, with catalogue and masks of merger features."""
    from deepmerge.data.demo.simulate import simulate

    simulate(
        folder, galaxies=galaxies, merger_fraction=merger_fraction, seed=seed, without=without or (), workers=cluster
    )


@app.command()
def fetch(
    variant: Annotated[Literal["pristine", "noisy"], Argument(help="Without or with sky noise.")],
    filters: Annotated[int, Option(help="2: F814W, F160W; 3: F356W too.")] = 2,
    folder: Folder = Path("data"),
    base_url: Annotated[
        str | None, Option(help="Address of a folder with the FITS files; default: the MAST archive.")
    ] = None,
    catalogue_url: Annotated[
        str | None, Option(help="Address of a folder with the catalogue arrays; default: the authors' repository.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Download the released images and their catalogue. If interrupted, the same command goes on."""
    from deepmerge.data.released import archive, layout

    base, catalogue = base_url or layout.ARCHIVE_URL, catalogue_url or layout.CATALOGUE_URL
    archive.fetch(variant, folder, filters=filters, base_url=base, catalogue_url=catalogue, overwrite=overwrite)


@app.command("import")
def import_(
    fits: Annotated[Path, Argument(help="FITS file, also compressed: .fz, .gz, .bz2 or .xz.")],
    folder: Folder = Path("data"),
    stem: Annotated[str | None, Option(help="Name of the arrays; default: the file's.")] = None,
    catalogue_arrays: Annotated[Path | None, Option(help="Folder with the authors' catalogue arrays.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a FITS file to the arrays and the catalogue that training reads.

    The file should hold images (N, filters, H, W) in one HDU (the first with four axes, or the one named SCI) and a
    table of N rows with a column of 0/1 labels (label, y, class, merger, is_merger, or its only column). Columns for
    the galaxy's id (galaxy_id, subhalo_id, object_id, objid, source_id, id, name …), view, copy, stage and others go
    into the catalogue.
    """
    from deepmerge.data.released import archive

    archive.import_fits(fits, folder, stem=stem, catalogue_arrays=catalogue_arrays, overwrite=overwrite)


@app.command(cls=Command)
def cutouts(
    catalogue: Annotated[Path, Argument(help="Table with ra and dec: CSV, ECSV, FITS, VOTable or Parquet.")],
    mosaics: Annotated[list[Path], Argument(help="FITS images with a WCS, one for each filter.")],
    size: Annotated[int, Option(help="Width and height of the cutouts in pixels.")] = 75,
    out: Folder = Path("data"),
    blank: Annotated[float, Option(help="Leave out objects with a larger share of pixels that are NaN or 0.")] = 0.1,
    filters: Annotated[str | None, Option(help="Their names, separated by commas; default: as the files say.")] = None,
    stem: Annotated[str | None, Option(help="Name of the arrays; default: the catalogue's.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Cut images out of mosaics. One an object of a catalogue, with its id, position and label.

    ra and dec are degrees (ICRS), or sexagesimal; an id and 0/1 labels are found by their usual names. Objects over the
    edge or on blank parts are listed in a table with the reason. Beside the images stands an experiment file that
    trains on them.
    """
    from deepmerge.data.cutouts import cut

    names = None if filters is None else [name.strip() for name in filters.split(",")]
    show(cut(catalogue, mosaics, out, size=size, blank=blank, filters=names, stem=stem, overwrite=overwrite))


@app.command()
def check(dataset: Dataset) -> None:
    """Check a data set. Reads every image and reports what is there and what is wrong with it."""
    from deepmerge import config
    from deepmerge.data import check, versions
    from deepmerge.data import dataset as datasets
    from deepmerge.errors import InputError

    settings = config.load(dataset)
    report = check.check(datasets.read(settings.data, settings.name))
    folder = settings.data.located()[0].resolve().parent
    changed = versions.changes(folder)
    if changed is not None:
        report.facts[f"{folder.name}.dvc"] = "; ".join(changed) or "the folder holds what it says"
    show(report.facts)
    for warning in report.warnings:
        log.warning(warning)
    if report.problems:
        raise InputError(f"{dataset} should be clean, but: {'; '.join(report.problems)}")


@app.command(cls=SettingsCommand)
def split(
    ctx: Context,
    dataset: Dataset,
    out: Annotated[Path, Option(help="CSV file to write.", callback=writable_files)] = Path("split.csv"),
) -> None:
    """Write the split as a table. Says of each image whether it trains, validates or tests; for train --split-table."""
    from deepmerge.data import dataset as datasets
    from deepmerge.data import splits
    from deepmerge.files import replacing

    settings = experiment(ctx, dataset)
    images = datasets.read(settings.data, settings.name)
    made = splits.make(images, settings.split)
    with replacing(out) as aside:
        splits.published(made, images).to_csv(aside, index=False)
    sizes = {name: len(getattr(made, name)) for name in splits.PARTS}
    show({"split": made.protocol, "fingerprint": made.fingerprint, **sizes})
