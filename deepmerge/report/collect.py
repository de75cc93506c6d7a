"""One page about data sets: what was measured, how, and how far it can be trusted; from the runs alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import splits
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, read
from deepmerge.files import replacing
from deepmerge.jobs.judged import meant_by
from deepmerge.jobs.run import LEAKS, RECORD, SIMULATED, SPLIT_TABLE, Results
from deepmerge.model import devices, prediction
from deepmerge.report import markdown
from deepmerge.report import page as pages
from deepmerge.report.page import Picture, Report, Section, Table
from deepmerge.studies import leakage, recipes
from deepmerge.studies.baselines import study as baselines
from deepmerge.studies.folds import study as folds
from deepmerge.studies.probabilities import study as probabilities
from deepmerge.studies.selection import study as selection
from deepmerge.tracking import runs

PAGE = "report.html"
BEGIN = "<!-- results: written by deepmerge report, do not edit -->"
END = "<!-- end of results -->"
# Title of a figure and how to read it, by the name that the runs give it.
CAPTIONS = {
    "roc": ("ROC curve", "Completeness against the share of non-mergers that are called mergers."),
    "reliability": (
        "Reliability",
        "Share of mergers among images of a predicted probability, at the sample's own ratio.",
    ),
    "confusion_matrix": ("Confusion matrix", "Images by true and predicted class, at a probability of 0.5."),
    "scores": ("Scores by stage", "How the predicted probabilities of each stage are spread."),
    "history": ("Training history", "The weights kept are those of the star, the lowest validation log loss."),
    "gradcam": (
        "Where the network looked",
        "What spoke for a merger and against it, in images of every kind of answer.",
    ),
    "leakage": ("Claimed and true", "Each network asked about its own test images and about galaxies that nobody saw."),
    "catalogue": (
        "A Random Forest on three numbers",
        "The three tell one galaxy from others, not what is a merger: random rows let the forest know it again.",
    ),
    "folds": ("Folds", "Each fold's network on the galaxies that it had not seen, and all of them together."),
    "recipes": (
        "Recipes on the same folds",
        "The last column is the difference to the experiment's own recipe, paired.",
    ),
    "baselines": ("Network and baselines", "The same test galaxies; the last column is the difference to the network."),
    "importance": ("What the Random Forest looks at", "Loss of test AUC when one quantity is shuffled."),
    "selection": ("Selection function", "Rates in bins of a property; dashes and shade are the whole sample."),
    "stages": ("Stages", "Share of the images that is called a merger."),
    "score_and_mass": ("Scores and stellar mass", "As figure 7 of the paper; the line is the running median."),
    "agreement": (
        "Views of one galaxy",
        "Share of galaxies right from one, most, all views; hollow: independent views.",
    ),
    "calibration": ("Calibration", "What was predicted against what was found, if half were mergers."),
    "purity_completeness": (
        "Purity and completeness",
        "By the fraction of mergers among the galaxies that are judged.",
    ),
    "costs": ("Gain and cost", "Change against the one network, on the same galaxies, and what it takes."),
}
JUDGED = {"judged": "judged run", "recipe_of": "recipe of run"}  # tags of a study, and what to call them
MODEL_FIGURES = ("roc", "reliability", "confusion_matrix", "scores", "history", "gradcam")


class Study(NamedTuple):
    """How a kind of study is shown: title, the command that makes it, its figures, and its tables with captions."""

    title: str
    command: str
    figures: tuple[str, ...]
    tables: dict[str, str]


STUDIES = {
    leakage.KIND: Study(
        "What the published protocol leaks", "deepmerge study leakage {}", ("leakage", "catalogue"), {}
    ),
    folds.KIND: Study("All galaxies, in folds", "deepmerge evaluate {} --folds 5", ("folds", "roc", "scores"), {}),
    recipes.KIND: Study(
        "Which part of the recipe matters",
        "deepmerge study recipes {}",
        ("recipes",),
        {"recipes": "metrics on all galaxies, change against the experiment's own recipe, and time to the target"},
    ),
    baselines.KIND: Study(
        "What a network has to beat",
        "deepmerge study baselines {}",
        ("baselines", "importance"),
        {"baselines": "network and baselines on the same test galaxies"},
    ),
    selection.KIND: Study(
        "On what kind of galaxy it works",
        "deepmerge study selection {} --model folds",
        ("selection", "stages", "score_and_mass", "agreement"),
        {"bias_tests": "does the score depend on a property, within a class? Null hypothesis: it does not"},
    ),
    probabilities.KIND: Study(
        "What the probabilities mean",
        "deepmerge study probabilities {}",
        ("calibration", "purity_completeness", "costs"),
        {"gains": "calibration, dropout and ensemble on the same test galaxies"},
    ),
}


def write_report(datasets: Sequence[str], out: Path, readme: Path | None) -> Results:
    """Write one HTML page about the newest model of each data set and the newest study of each kind.

    The page needs nothing but itself; it is logged to the runs of these models. `readme` is a Markdown file whose part
    between two markers is written anew from the same runs. Raises InputError where a data set has no evaluated model.
    """
    devices.prepare()
    told = [_Told(name) for name in datasets]
    warnings = dict.fromkeys(said for one in told for said in one.warnings)
    page = pages.html_page(
        Report(
            title=f"Merging galaxies: {', '.join(one.name for one in told)}",
            subtitle="Networks that tell merging from non-merging galaxies, after DeepMerge",
            warning=". ".join(warnings),
            facts={one.name: one.summary for one in told},
            sections=[_headline(told), *(one.section() for one in told), *(one.card() for one in told)],
            made_with=f"deepmerge report {' '.join(datasets)}",
        )
    )
    if readme is not None:  # refused, where it has no markers, before anything is written
        text = markdown.replace_between(readme.read_text(encoding="utf-8"), BEGIN, END, _markdown(told))
        with replacing(readme) as aside:
            aside.write_text(text, encoding="utf-8")
    with replacing(out) as aside:
        aside.write_text(page, encoding="utf-8")
    for one in told:
        with runs.reopened(one.run), runs.artifact_folder(".") as folder:
            (folder / PAGE).write_text(page, encoding="utf-8")
    return {"written": str(out), **{f"{one.name}_run_id": one.run.info.run_id for one in told}}


class _Told:
    """What the runs tell of one data set."""

    def __init__(self, dataset: str) -> None:
        # A name means whatever is newest under it; a file means its own data.
        meant = meant_by(dataset) if dataset.endswith((".yaml", ".yml")) else None
        fingerprint = None if meant is None else meant[1].fingerprint
        self.run = runs.find(runs.LAST, config.name_of(dataset), fingerprint)
        self.name = self.run.data.tags["dataset"]
        self.metrics = estimates(self.run, "test")
        if "auc" not in self.metrics:
            raise InputError(
                f"the newest model of {self.name} should be evaluated, run {self.run.info.run_id} is not; "
                f"'deepmerge evaluate {self.name}' does it"
            )
        self.split = pd.read_csv(runs.read_artifact(self.run, SPLIT_TABLE))
        self.experiment = config.from_record(runs.read_json(self.run, RECORD), RECORD)
        # Of other data that were once called the same, nothing is told.
        newest = {
            kind: next(runs.newest_studies(kind, self.name, self.run.data.tags[runs.FINGERPRINT]), None)
            for kind in STUDIES
        }
        self.studies = {kind: run for kind, run in newest.items() if run is not None}

    @property
    def warnings(self) -> list[str]:
        tags = self.run.data.tags
        return [SIMULATED] * (tags["data_source"] == "simulated") + [LEAKS] * (tags["split"] == "rows")

    @property
    def summary(self) -> str:
        """Where it comes from, in one line."""
        tags = self.run.data.tags
        galaxies = self.split["galaxy_id"].nunique()
        return f"{len(self.split):,} images of {galaxies:,} galaxies, {tags['data_source']}; split by {tags['split']}"

    def section(self) -> Section:
        tags = self.run.data.tags
        return Section(
            f"{self.name}: model and studies",
            notes=self.warnings,
            facts={
                "run": self.run.info.run_id,
                "data fingerprint": tags["data_fingerprint"],
                "split fingerprint": tags["split_fingerprint"],
                "commit": f"{tags['git_commit']} (changes not committed: {tags['git_dirty']})",
            },
            pictures=_pictures(self.run, MODEL_FIGURES),
            sections=[_study_section(STUDIES[kind], run, self.name) for kind, run in self.studies.items()],
        )

    def card(self) -> Section:
        tags, params = self.run.data.tags, self.run.data.params
        parts = {}
        for part in splits.PARTS:
            lines = self.split[self.split["split"] == part]
            parts[part] = (lines["galaxy_id"].nunique(), len(lines))
        return pages.model_card(
            self.name,
            architecture=self.experiment.network.architecture,
            parameters=prediction.load(runs.model_file(self.run)).count_params(),
            settings={key: value for key, value in params.items() if key not in ("dataset", "split_table")},
            parts=parts,
            protocol=tags["split"],
            simulated=tags["data_source"] == "simulated",
            origin={
                name: tags[name]
                for name in ("data_fingerprint", "split_fingerprint", "git_commit", "git_dirty", "threads")
                if name in tags
            },
        )


def estimates(run: runs.Run, prefix: str) -> dict[str, Estimate]:
    """Metrics of a run that begin with `prefix`, with their intervals, by the rest of their name."""
    measured = run.data.metrics
    names = [name for name in measured if name.startswith(f"{prefix}_") and not name.endswith(("_low", "_high"))]
    return {name.removeprefix(f"{prefix}_"): read(measured, name) for name in names}


def tabulated(frame: pd.DataFrame, caption: str, *, folded: bool = False) -> Table:
    """A table for people of one for programs: values and their intervals in one cell, numbers to three digits."""
    frame = frame.rename(columns={"low": "value_low", "high": "value_high"}) if "value" in frame else frame
    names = [name for name in frame.columns if not str(name).endswith(("_low", "_high"))]
    rows = [[_cell(line, name) for name in names] for line in frame.to_dict("records")]
    return Table(caption, [str(name).replace("_", " ") for name in names], rows, folded=folded)


def _cell(line: dict[Any, Any], name: str) -> str:
    value = line[name]
    if f"{name}_low" in line:
        return read(line, name).text()
    if isinstance(value, float):
        return "undefined" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def _headline(told: "Sequence[_Told]") -> Section:
    honest = all(LEAKS not in one.warnings for one in told)
    said = (
        "Each number is of test images whose galaxies the network has not seen, with its 95 % interval over galaxies."
    )
    table = pages.headline({one.name: one.metrics for one in told})
    return Section("Headline", paragraphs=[said] * honest, tables=[table])


def _study_section(study: Study, run: runs.Run, dataset: str) -> Section:
    judged = {name: run.data.tags[tag] for tag, name in JUDGED.items() if tag in run.data.tags}
    tables = []
    for name, caption in study.tables.items():
        frame = pd.read_csv(runs.read_artifact(run, f"{name}.csv"))
        tables.append(tabulated(frame, f"{dataset}: {caption}", folded=len(frame) > 8))
    return Section(
        f"{study.title} ({dataset})",
        paragraphs=[_description(run)],
        facts={"command": study.command.format(dataset), "run": run.info.run_id, **judged},
        tables=tables,
        pictures=_pictures(run, study.figures),
    )


def _description(run: runs.Run) -> str:
    return run.data.tags.get("mlflow.note.content", "").replace("**", "")


def _pictures(run: runs.Run, names: Sequence[str]) -> list[Picture]:
    """The figures of a run that are there."""
    found = []
    for name in names:
        try:
            path = runs.read_artifact(run, f"figures/{name}.png")
        except InputError:
            continue
        found.append(Picture(*CAPTIONS[name], path.read_bytes()))
    return found


def _markdown(told: "Sequence[_Told]") -> str:
    """The headline and what each study found, with its command, for a README."""
    parts = ["", markdown.markdown_table(pages.headline({one.name: one.metrics for one in told})), ""]
    for kind, study in STUDIES.items():
        done = [one for one in told if kind in one.studies]
        if not done:
            continue
        commands = "\n".join(study.command.format(one.name) for one in done)
        parts += [f"### {study.title}", "", f"```\n{commands}\n```", ""]
        for one in done:
            parts += [f"- {one.name}: {_description(one.studies[kind])}"]
        parts += [""]
        for one in done:
            for name, caption in study.tables.items():
                frame = pd.read_csv(runs.read_artifact(one.studies[kind], f"{name}.csv"))
                parts += [markdown.markdown_table(tabulated(frame, f"{one.name}: {caption}")), ""]
    return "\n".join(parts)
