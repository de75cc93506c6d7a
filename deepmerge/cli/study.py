"""Commands that answer one question about a data set, each with a table and figures in a run of its own."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Context, Option

from deepmerge.cli.options import (
    Cluster,
    Dataset,
    Model,
    ModelOf,
    Out,
    Params,
    Pdf,
    SettingsCommand,
    data_sets,
    experiment,
)
from deepmerge.cli.output import show
from deepmerge.loading import quietly

app = typer.Typer(
    help="Answer one question about a data set, by a run with a table and figures. Times: demo sample, two cores. "
    "Defaults of options: the section study of the experiment file.",
    no_args_is_help=True,
)

Arrays = Annotated[Path | None, Option(help="Folder with the authors' catalogue arrays, for the Random Forest.")]


@app.command(cls=SettingsCommand)
def shortcuts(
    ctx: Context,
    dataset: Dataset,
    folds: Annotated[int | None, Option(help="Number of folds; every galaxy is tested in one of them.", min=2)] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """What do simple statistics know of the label, without any shape? No network is trained. 1 minute.

    Fluxes, quantiles of the pixels, radial profile, edge of the frame, noise, missing pixels and, where the catalogue
    has them, coordinates. Ask this of your own sample before anything else.
    """
    from deepmerge import config

    settings, study = experiment(ctx, dataset), config.study_of(dataset, folds=folds)
    with quietly():
        from deepmerge.studies.shortcuts.study import find_shortcuts

    show(find_shortcuts(settings, study.folds, pdf=pdf, out=out))


@app.command(cls=SettingsCommand)
def leakage(
    ctx: Context,
    dataset: Dataset,
    seeds: Annotated[
        int | None, Option(help="Trainings per protocol, each with its own draw of galaxies.", min=1)
    ] = None,
    catalogue_arrays: Arrays = None,
    params: Params = None,
    cluster: Cluster = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """How much better does the published protocol make a network look than it is? 7 minutes.

    Trains the same recipe after a split of random rows and after a split by galaxy, of equal sizes, and scores each on
    its own test images and on galaxies that neither has seen.
    """
    from deepmerge import config

    settings, study = experiment(ctx, dataset, params=params), config.study_of(dataset, seeds=seeds)
    with quietly():
        from deepmerge.studies.leakage import measure_leakage

    show(measure_leakage(settings, seeds=study.seeds, catalogue=catalogue_arrays, pdf=pdf, out=out, workers=cluster))


@app.command(cls=SettingsCommand)
def recipes(
    ctx: Context,
    dataset: Dataset,
    folds: Annotated[int | None, Option(help="Number of folds; every galaxy is tested in one of them.", min=2)] = None,
    seeds: Annotated[
        int | None, Option(help="Trainings of each recipe in each fold, which differ in seed.", min=1)
    ] = None,
    published_epochs: Annotated[
        int | None, Option(help="Epochs of the published recipe, which had 500.", min=1)
    ] = None,
    target: Annotated[
        float | None, Option(help="Validation log loss; the epochs and seconds to reach it are reported.")
    ] = None,
    params: Params = None,
    cluster: Cluster = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Which part of the recipe matters? The default, the published one, and one change at a time. 3 hours."""
    from deepmerge import config

    settings = experiment(ctx, dataset, params=params)
    study = config.study_of(dataset, folds=folds, seeds=seeds, published_epochs=published_epochs, target=target)
    with quietly():
        from deepmerge.studies.recipes import compare_recipes

    asked = {name: getattr(study, name) for name in ("folds", "seeds", "published_epochs", "target")}
    show(compare_recipes(settings, **asked, pdf=pdf, out=out, workers=cluster))


@app.command()
def baselines(
    dataset: ModelOf,
    model: Model = "last",
    seeds: Annotated[
        int | None, Option(help="Trainings of the network, the model among them, and of each forest.", min=1)
    ] = None,
    cluster: Cluster = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Is a network better than Random Forest and logistic regression on measured morphology? 15 minutes.

    Measures the morphology of the training and test images (statmorph) once and keeps it in results/cache.
    """
    from deepmerge import config

    study = config.study_of(dataset, seeds=seeds)
    with quietly():
        from deepmerge.studies.baselines.study import judge_baselines

    show(judge_baselines(dataset, model, study.seeds, pdf=pdf, out=out, workers=cluster))


@app.command()
def selection(
    dataset: ModelOf,
    model: Annotated[
        str, Option(help="As for evaluate; or 'folds': all galaxies, as scored by the newest evaluate --folds.")
    ] = "last",
    bins: Annotated[int | None, Option(help="Bins per property, with equally many galaxies in each.", min=1)] = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """For which galaxies does a model work? By stage, mass, concentration, M20, signal-to-noise and view. 2 minutes."""
    from deepmerge import config

    settings = config.study_of(dataset, bins=bins)
    with quietly():
        from deepmerge.studies.selection.study import measure_selection

    show(measure_selection(dataset, model, bins=settings.bins, pdf=pdf, out=out))


@app.command()
def probabilities(
    dataset: ModelOf,
    model: Model = "last",
    folds: Annotated[int | None, Option(help="Folds of the galaxies outside the test, to calibrate on.", min=2)] = None,
    members: Annotated[int | None, Option(help="Networks in the ensemble, including the model itself.", min=1)] = None,
    passes: Annotated[int | None, Option(help="Monte-Carlo dropout passes to average.", min=1)] = None,
    purity: Annotated[float | None, Option(help="Purity to aim for at each merger fraction.", min=0.01, max=1)] = None,
    cluster: Cluster = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """Can the probabilities be trusted? And does calibration, dropout or an ensemble improve them? 8 minutes.

    Stores the calibration with the model, for predict --merger-fraction.
    """
    from deepmerge import config

    settings = config.study_of(dataset, folds=folds, members=members, passes=passes, purity=purity)
    with quietly():
        from deepmerge.studies.probabilities.study import judge_probabilities

    show(judge_probabilities(dataset, model, settings, pdf=pdf, out=out, workers=cluster))


@app.command(cls=SettingsCommand)
def transfer(
    ctx: Context,
    dataset: Dataset,
    target: Annotated[
        str, Argument(help="Data set to carry the network over to, named as DATASET is.", autocompletion=data_sets)
    ],
    folds: Annotated[int | None, Option(help="Number of folds; every galaxy is tested in one of them.", min=2)] = None,
    seeds: Annotated[
        int | None, Option(help="Trainings of each kind in each fold, which differ in seed.", min=1)
    ] = None,
    methods: Annotated[
        str | None, Option(help="What to try, as one word: stretch,noise,mmd,coral,sinkhorn,dann; default: all.")
    ] = None,
    params: Params = None,
    cluster: Cluster = None,
    pdf: Pdf = False,
    out: Out = None,
) -> None:
    """What does a network trained on DATASET know of TARGET, and what carries it over without labels? 4 hours.

    Trains as it is, with the stretch fitted to the target, with the target's noise on the training images, by each
    method of adaptation, and on the target itself. Labels of the target judge, and train nothing but the last.
    """
    from deepmerge import config

    settings, other = experiment(ctx, dataset, params=params), config.load(target)
    study = config.study_of(dataset, folds=folds, seeds=seeds, methods=methods)
    with quietly():
        from deepmerge.studies.transfer.study import measure_transfer

    show(measure_transfer(settings, other, target, study, pdf=pdf, out=out, workers=cluster))
