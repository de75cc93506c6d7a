import io
import re
from types import SimpleNamespace

import pandas as pd
import pytest
import typer

from deepmerge.cli import commands as cli
from deepmerge.errors import InputError
from deepmerge.report import collect
from deepmerge.report.collect import tabulated
from deepmerge.report.page import PNG
from deepmerge.studies.base import MODEL_FIGURES
from deepmerge.studies.registry import STUDIES

PICTURE = PNG + bytes(24)


def from_csv(text):
    """A table as the report reads it from a run."""
    return pd.read_csv(io.StringIO(text))


def run_with(metrics=None, **tags):
    return SimpleNamespace(data=SimpleNamespace(metrics=metrics or {}, tags=tags))


# --- tables ------------------------------------------------------------------------------------------------


def test_a_value_and_its_interval_share_a_cell_and_the_order_of_columns_stays():
    frame = from_csv(
        "recipe,test_auc,test_auc_low,test_auc_high,trainings_at_target,seconds_to_target\n"
        "own,0.9664,0.9386,0.9891,5,123.4567\n"
        "published recipe,0.9,0.85,0.95,0,\n"
    )
    table = tabulated(frame, "mine: recipes", folded=True)
    assert table.header == ["recipe", "test auc", "trainings at target", "seconds to target"]
    assert table.rows == [
        ["own", "0.966 [0.939, 0.989]", "5", "123.5"],
        ["published recipe", "0.900 [0.850, 0.950]", "0", "undefined"],
    ]
    assert (table.caption, table.folded) == ("mine: recipes", True)
    assert not tabulated(frame, "mine").folded


def test_a_column_called_value_has_its_interval_in_low_and_high():
    frame = from_csv("method,metric,value,low,high,images\nensemble,auc,0.9,0.85,0.95,40\n")
    table = tabulated(frame, "gains")
    assert table.header == ["method", "metric", "value", "images"]
    assert table.rows == [["ensemble", "auc", "0.900 [0.850, 0.950]", "40"]]


def test_columns_low_and_high_of_no_value_stay_columns():
    table = tabulated(from_csv("bin,low,high\n1,9.5,10.25\n"), "bins")
    assert (table.header, table.rows) == (["bin", "low", "high"], [["1", "9.5", "10.25"]])


def test_what_is_undefined_is_said_and_never_a_number():
    table = tabulated(from_csv("a,auc,auc_low,auc_high,p\nx,,,,\ny,0.5,,,1e-12\n"), "odd")
    assert table.rows == [["x", "undefined", "undefined"], ["y", "0.500", "1e-12"]]


def test_a_table_without_lines_keeps_its_header():
    table = tabulated(from_csv("a,auc,auc_low,auc_high\n"), "empty")
    assert (table.header, table.rows) == (["a", "auc"], [])


def test_the_frame_is_not_changed():
    frame = from_csv("method,value,low,high\na,1,0,2\n")
    before = frame.copy()
    tabulated(frame, "gains")
    pd.testing.assert_frame_equal(frame, before)


# --- what is read of runs ----------------------------------------------------------------------------------


def test_only_figures_that_a_run_has_are_shown_with_their_captions(tmp_path, monkeypatch):
    (tmp_path / "roc.png").write_bytes(PICTURE)

    def artifact(run, path):
        found = tmp_path / path.removeprefix("figures/")
        if not found.exists():
            raise InputError("no such file")
        return found

    monkeypatch.setattr(collect.runs, "read_artifact", artifact)
    [picture] = collect.pictures(run_with(), MODEL_FIGURES)
    assert (picture.title, picture.caption, picture.png) == (*MODEL_FIGURES["roc"], PICTURE)


@pytest.mark.parametrize("ids", [["NA", "nan", "007", "7"], ["1", "2", "3", "4"]])
def test_galaxies_are_counted_by_their_ids_as_they_are_written(tmp_path, monkeypatch, ids):
    tags = {"dataset": "noisy", "data_source": "simulated", "split": "galaxy", "data_fingerprint": "f"}
    run = run_with({"test_auc": 0.9}, **tags)
    lines = {"row": range(8), "galaxy_id": [*ids, *ids], "split": ["train", "train", "validation", "test"] * 2}
    pd.DataFrame(lines).to_csv(tmp_path / "split.csv", index=False)
    monkeypatch.setattr(collect.runs, "find", lambda *_: run)
    monkeypatch.setattr(collect.runs, "newest_studies", lambda *_: iter(()))
    monkeypatch.setattr(collect.runs, "read_artifact", lambda _, path: tmp_path / path)
    subject = collect.Subject("noisy")
    assert subject.summary == "8 images of 4 galaxies, simulated; split by galaxy"
    assert subject.parts == {"train": (2, 4), "validation": (1, 2), "test": (1, 2)}


def test_a_section_of_a_study_says_what_it_found_and_how_to_make_it_again(tmp_path, monkeypatch):
    study = STUDIES["recipes"]
    for count, folded in ((8, False), (9, True)):
        pd.DataFrame({"recipe": ["own"] * count}).to_csv(tmp_path / "recipes.csv", index=False)

        def artifact(run, path):
            if path != "recipes.csv":
                raise InputError("no such file")
            return tmp_path / path

        monkeypatch.setattr(collect.runs, "read_artifact", artifact)
        run = run_with(**{"mlflow.note.content": "AUC **0.9** here."})
        run.info = SimpleNamespace(run_id="a" * 32)
        section = collect.study_section(study, run, "noisy")
        assert section.facts == {"command": "deepmerge study recipes noisy", "run": "a" * 32}
        assert section.paragraphs == ["AUC 0.9 here."]
        assert [(len(table.rows), table.folded) for table in section.tables] == [(count, folded)]


# --- the list of studies -----------------------------------------------------------------------------------


def test_every_caption_has_a_title_and_ends_as_a_sentence():
    for captions in (MODEL_FIGURES, *(study.captions for study in STUDIES.values())):
        for caption in captions.values():
            assert caption.title
            assert caption.text.endswith(".")


def test_studies_go_by_their_kind_and_name_their_figures_alike_only_where_these_are_alike():
    assert [study.kind for study in STUDIES.values()] == list(STUDIES)
    everywhere = [MODEL_FIGURES, *(study.captions for study in STUDIES.values())]
    captions = {(name, caption) for each in everywhere for name, caption in each.items()}
    assert len(captions) == len({name for name, _ in captions})


@pytest.mark.parametrize("kind", STUDIES)
def test_the_command_of_every_study_is_one_of_the_command_line(kind):
    program, *words = STUDIES[kind].command.format("pristine", target="noisy").split()
    assert program == "deepmerge"
    command = typer.main.get_command(cli.app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    context = command.make_context(command.name, words)  # which refuses unknown options and values
    assert context.params["dataset"] == "pristine"


def test_every_study_of_the_command_line_is_reported():
    told = {
        re.split(r"study ", study.command)[1].split()[0] for study in STUDIES.values() if " study " in study.command
    }
    assert told == set(typer.main.get_command(cli.app).commands["study"].commands)
