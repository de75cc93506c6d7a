"""The sections of an experiment that say what studies and promotions ask for."""

import pytest

from deepmerge import config
from deepmerge.errors import InputError


@pytest.fixture
def load(tmp_path):
    def load(text=""):
        path = tmp_path / "mine.yaml"
        path.write_text(f"data: {{images: x.npy, labels: y.npy}}\n{text}")
        return config.load(str(path))

    return load


def test_a_record_from_before_there_were_studies_and_promotions_in_it_is_read(load):
    record = load().model_dump(mode="json")
    assert config.from_record(record, "record") == load()
    for section in ("study", "promotion"):
        del record[section]
    del record["tuning"]["seeds"]
    assert config.from_record(record, "record") == load()


def test_an_experiment_file_says_what_its_studies_and_promotions_ask_for(load):
    found = load("study: {seeds: 2, merger_fractions: [0.2, 0.01]}\npromotion: {metric: brier}\n")
    assert (found.study.seeds, found.study.folds, found.study.merger_fractions) == (2, 5, (0.2, 0.01))
    assert found.promotion.metric == "brier"
    assert config.from_record(found.model_dump(mode="json"), "record") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: {seed: 2}", r"unknown key 'study\.seed'; expected one of: seeds, folds, "),
        ("study: {purity: 2}", r"'study\.purity' should be less than or equal to 1, got 2"),
        ("study: {merger_fractions: [0.1, 1]}", r"'study\.merger_fractions' should lie between 0 and 1"),
        ("promotion: {metric: 3}", r"'promotion\.metric' should be a valid string, got 3"),
        ("promotion: {by: auc}", r"unknown key 'promotion\.by'; expected one of: metric"),
    ],
)
def test_what_is_wrong_in_them_is_named_with_what_is_expected(load, text, message):
    with pytest.raises(InputError, match=message):
        load(text)
