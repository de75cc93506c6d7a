"""One page about data sets: what was measured, how, and how far it can be trusted; from the runs alone."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import splits
from deepmerge.data.formats import tables
from deepmerge.errors import InputError
from deepmerge.estimate import UNDEFINED, Estimate, gathered, names, read
from deepmerge.files import replacing
from deepmerge.jobs.judged import meant_by
from deepmerge.jobs.run import LEAKS, SPLIT_TABLE, Results
from deepmerge.model import devices, prediction
from deepmerge.report import card, markdown
from deepmerge.report.page import Picture, Report, Section, Table, html_page
from deepmerge.studies.base import MODEL_FIGURES, Caption, Study, warnings
from deepmerge.studies.folds import study as folds
from deepmerge.studies.registry import STUDIES
from deepmerge.studies.shortcuts import study as shortcuts
from deepmerge.tracking import runs

PAGE = "report.html"
# Markers of a Markdown file; between them stands the brief headline, or all results.
HEADLINE = ("<!-- headline: written by deepmerge report, do not edit -->", "<!-- end of headline -->")
RESULTS = ("<!-- results: written by deepmerge report, do not edit -->", "<!-- end of results -->")
BRIEF = ("auc", "galaxy_auc", "balanced_accuracy", "completeness", "purity_at_balance", "purity", "brier_at_balance")
UNSEEN = "Each number is of test images whose galaxies the network has not seen, with its 95 % interval over galaxies."
ORIGIN = ("data_fingerprint", "split_fingerprint", "git_commit", "git_dirty", "threads")
JUDGED = {"judged": "judged run", "recipe_of": "recipe of run"}  # tags of a study, and what to call them


def write_report(datasets: Sequence[str], out: Path, readme: Sequence[Path] = ()) -> Results:
    """Write one HTML page about the newest model of each data set and the newest study of each kind.

    The page needs nothing but itself; it is logged to the runs of these models. `readme` names Markdown files whose
    parts between markers are written anew from the same runs: a brief headline, or all results. Raises InputError where
    a data set has no evaluated model, and for a file without markers.
    """
    devices.prepare()
    subjects = [Subject(name) for name in datasets]
    leak = any(LEAKS in one.warnings for one in subjects)
    first = Section("Headline", paragraphs=[] if leak else [UNSEEN], tables=[_headline(subjects)])
    report = Report(
        title=f"Merging galaxies: {', '.join(one.name for one in subjects)}",
        subtitle="Networks that tell merging from non-merging galaxies, after DeepMerge",
        warning=". ".join(dict.fromkeys(text for one in subjects for text in one.warnings)),
        facts={one.name: one.summary for one in subjects},
        sections=[first, *(one.section() for one in subjects), *(one.card() for one in subjects)],
        made_with=f"deepmerge report {' '.join(datasets)}",
    )
    page = html_page(report)
    texts = {path: _renewed(path.read_text(encoding="utf-8"), subjects) for path in readme}  # refused before writing
    for path, text in texts.items():
        with replacing(path) as aside:
            aside.write_text(text, encoding="utf-8")
    with replacing(out) as aside:
        aside.write_text(page, encoding="utf-8")
    for one in subjects:
        with runs.reopened(one.run), runs.artifact_folder(".") as folder:
            (folder / PAGE).write_text(page, encoding="utf-8")
    return {"written": str(out), **{f"{one.name}_run_id": one.run.info.run_id for one in subjects}}


class Subject:
    """A data set, as its newest model and its newest studies show it."""

    def __init__(self, dataset: str) -> None:
        # A name means whatever is newest under it; a file means its own data.
        meant = meant_by(dataset) if dataset.endswith((".yaml", ".yml")) else None
        fingerprint = None if meant is None else meant[1].fingerprint
        self.run = runs.find(runs.LAST, config.name_of(dataset), fingerprint)
        self.name = self.run.data.tags["dataset"]
        self.warnings = warnings(self.run)
        self.metrics = gathered(self.run.data.metrics, "test")
        if "auc" not in self.metrics:
            raise InputError(
                f"the newest model of {self.name} should be evaluated, run {self.run.info.run_id} is not; "
                f"'deepmerge evaluate {self.name}' does it"
            )
        table = tables.read(runs.read_artifact(self.run, SPLIT_TABLE), "split table", ["split", "galaxy_id"])
        self.images, self.galaxies = len(table), table["galaxy_id"].nunique()
        by_part = {part: table.loc[table["split"] == part, "galaxy_id"] for part in splits.PARTS}
        self.parts = {part: (ids.nunique(), len(ids)) for part, ids in by_part.items()}
        # The newest of each kind, of these data and not of others that were once called the same.
        of_these = (self.name, self.run.data.tags[runs.FINGERPRINT])
        self.studies = {kind: run for kind in STUDIES for run in islice(runs.newest_studies(kind, *of_these), 1)}
        if simple := self.studies.get(shortcuts.STUDY.kind):
            # Over all galaxies, as the study has it, where the network was judged so, too.
            measured = self.studies[folds.STUDY.kind].data.metrics if folds.STUDY.kind in self.studies else {}
            network = measured.get("test_auc", self.metrics["auc"].value)
            self.warnings += filter(None, [shortcuts.near(simple.data.metrics, network)])

    @property
    def summary(self) -> str:
        """Where it comes from, in one line."""
        tags = self.run.data.tags
        return f"{self.images:,} images of {self.galaxies:,} galaxies, {tags['data_source']}; split by {tags['split']}"

    def section(self) -> Section:
        """The model, and each of its studies in a section within."""
        tags = self.run.data.tags
        return Section(
            f"{self.name}: model and studies",
            notes=self.warnings,
            facts={
                "run": self.run.info.run_id,
                "data fingerprint": tags["data_fingerprint"],
                "split fingerprint": tags["split_fingerprint"],
                "commit": f"{tags['git_commit']} (changes not committed: {tags['git_dirty']})",
                "images": f"deepmerge gallery {self.name} shows all of them with scores and saliency maps",
            },
            pictures=pictures(self.run, MODEL_FIGURES),
            sections=[study_section(STUDIES[kind], run, self.name) for kind, run in self.studies.items()],
        )

    def card(self) -> Section:
        """Its model card."""
        tags, params = self.run.data.tags, self.run.data.params
        return card.model_card(
            self.name,
            architecture=params["architecture"],
            parameters=prediction.load(runs.model_file(self.run)).count_params(),
            settings={key: value for key, value in params.items() if key not in ("dataset", "split_table")},
            parts=self.parts,
            protocol=tags["split"],
            simulated=tags["data_source"] == "simulated",
            origin={name: tags[name] for name in ORIGIN if name in tags},
        )


def tabulated(frame: pd.DataFrame, caption: str, *, folded: bool = False) -> Table:
    """A table for people of one for programs: values and their intervals in one cell, numbers to three digits."""
    if "value" in frame:
        frame = frame.rename(columns=dict(zip(Estimate._fields, UNDEFINED.flat("value"), strict=True)))
    columns = names(frame.columns)

    def cell(line: dict[Any, Any], name: str) -> str:
        value = line[name]
        if UNDEFINED.flat(name).keys() <= line.keys():
            return read(line, name).text()
        if isinstance(value, float):
            return "undefined" if np.isnan(value) else f"{value:.4g}"
        return str(value)

    rows = [[cell(line, name) for name in columns] for line in frame.to_dict("records")]
    return Table(caption, [name.replace("_", " ") for name in columns], rows, folded=folded)


def _headline(subjects: Sequence[Subject]) -> Table:
    return card.headline({one.name: one.metrics for one in subjects})


def study_section(study: Study, run: runs.Run, dataset: str) -> Section:
    """What a study of a data set found, and with which command."""
    judged = {name: run.data.tags[tag] for tag, name in JUDGED.items() if tag in run.data.tags}
    return Section(
        f"{study.title} ({dataset})",
        paragraphs=[_description(run)],
        facts={"command": _command(study, run, dataset), "run": run.info.run_id, **judged},
        tables=_tables(study, run, dataset),
        pictures=pictures(run, study.captions),
    )


def _command(study: Study, run: runs.Run, dataset: str) -> str:
    return study.command.format(dataset, **run.data.tags)


def _description(run: runs.Run) -> str:
    return run.data.tags.get("mlflow.note.content", "").replace("**", "")


def _tables(study: Study, run: runs.Run, dataset: str) -> list[Table]:
    """The tables of a study's run that are there."""
    shown = []
    for name, caption in study.tables.items():
        with suppress(InputError):
            frame = pd.read_csv(runs.read_artifact(run, f"{name}.csv"))
            shown.append(tabulated(frame, f"{dataset}: {caption}", folded=len(frame) > 8))
    return shown


def pictures(run: runs.Run, captions: Mapping[str, Caption]) -> list[Picture]:
    """The figures of a run that are there."""
    shown = []
    for name, caption in captions.items():
        with suppress(InputError):
            shown.append(Picture(*caption, runs.read_artifact(run, f"figures/{name}.png").read_bytes()))
    return shown


def _renewed(text: str, subjects: Sequence[Subject]) -> str:
    """A Markdown text with what stands between its markers written anew."""
    brief = {name: words for name, words in card.HEADLINE.items() if name in BRIEF}
    writers = {
        HEADLINE: lambda: markdown.markdown_table(card.brief(brief, {one.name: one.metrics for one in subjects})),
        RESULTS: lambda: _markdown(subjects),
    }
    present = [markers for markers in writers if markers[0] in text] or [RESULTS]
    for markers in present:
        text = markdown.replace_between(text, *markers, writers[markers]())
    return text


def _markdown(subjects: Sequence[Subject]) -> str:
    """The headline and what each study showed, with its command."""
    parts = [markdown.markdown_table(_headline(subjects))]
    for kind, study in STUDIES.items():
        done = {one.name: one.studies[kind] for one in subjects if kind in one.studies}
        if done:
            commands = "\n".join(_command(study, run, name) for name, run in done.items())
            sentences = "\n".join(f"- {name}: {_description(run)}" for name, run in done.items())
            parts += [f"## {study.title}", f"```\n{commands}\n```", sentences]
            parts += [
                markdown.markdown_table(table) for name, run in done.items() for table in _tables(study, run, name)
            ]
    return "\n\n".join(parts)
