"""The headline and the model card hold what was measured, and how far it can be trusted."""

from html import unescape

import numpy as np

from deepmerge.analysis.metrics import evaluate
from deepmerge.estimate import Estimate
from deepmerge.report.card import HEADLINE, PUBLISHED, headline, model_card
from deepmerge.report.page import Report, html_page


def sample(mergers=2):
    labels = np.repeat([1] * mergers + [0] * (12 - mergers), 4)
    probabilities = np.random.default_rng(0).uniform(size=48) * 0.7 + labels * 0.3
    return evaluate(labels, probabilities, np.repeat(np.arange(12), 4), resamples=50).metrics


def test_the_headline_gives_every_metric_of_every_data_set_and_what_was_published_apart():
    found = {"mine": sample(), "yours": sample(6)}
    table = headline(found)
    rows = {row[0]: row[1:] for row in table.rows}
    for name, words in HEADLINE.items():
        assert rows[words][:2] == [found["mine"][name].text(), found["yours"][name].text()]
    assert table.header[1:3] == ["mine", "yours"]
    assert table.apart == 2
    assert all("random rows" in name for name in table.header[-2:])
    published = [row[-2:] for row in rows.values()]
    assert len([cells for cells in published if cells != ["–", "–"]]) == len(PUBLISHED)
    for metric, values in PUBLISHED.items():
        assert rows[HEADLINE[metric]][-2:] == list(values)
    # From the confusion matrix of the notebook on noisy images: [[1038, 387], [365, 1295]].
    assert f"{(1038 + 1295) / 3085:.3f}" == PUBLISHED["accuracy"][1]
    assert f"{1295 / (1295 + 387):.3f}" == PUBLISHED["purity"][1]
    assert f"{1295 / (1295 + 365):.3f}" == PUBLISHED["completeness"][1]
    for warning in ("98.6 %", "neither comparable", "upper or lower bound", "arXiv:2004.11981"):
        assert warning in " ".join(table.caption.split())


def test_the_headline_tells_what_accuracy_costs_nothing():
    rows = {row[0]: row[1] for row in headline({"rare": sample(2)}).rows}
    assert rows["Test images (of which mergers)"] == "48 (8)"
    assert rows["Accuracy of naming the commoner class every time"] == f"{40 / 48:.3f}"


def test_metrics_that_a_run_does_not_hold_are_undefined_not_zero():
    rows = {row[0]: row[1] for row in headline({"d": {"auc": Estimate(0.9, 0.8, 1.0)}}).rows}
    assert rows.pop("AUC") == "0.900 [0.800, 1.000]"
    assert set(rows.values()) == {"undefined"}


def card(**changed):
    given = {
        "architecture": "default",
        "parameters": 174_505,
        "settings": {"dropout": 0.2, "augment": True},
        "parts": {"train": (503, 2012), "test": (145, 580)},
        "protocol": "galaxy",
        "simulated": True,
        "origin": {"commit": "c33bc0e", "threads": "2"},
    }
    return model_card("deepmerge-noisy, version 3", **given | changed)


def texts(section):
    """All that a section says."""
    return unescape(html_page(Report("", "", "", {}, [section], "")))


def test_a_model_card_has_the_parts_of_mitchell_et_al_and_what_makes_the_model_again():
    titles = [part.title for part in card().sections]
    for topic in ("details", "Intended", "Factors", "Metrics", "Training and evaluation", "Ethical", "Caveats"):
        assert any(topic in title for title in titles)
    shown = texts(card())
    for content in ("174,505", "c33bc0e", "dropout", "2,012", "merger fraction", "domain adaptation"):
        assert content in shown


def test_a_model_card_says_which_data_and_which_split():
    assert "not Illustris" in texts(card())
    assert "not Illustris" not in texts(card(simulated=False))
    assert "no galaxy is in two parts" in texts(card())
    leaking = texts(card(protocol="rows"))
    assert "optimistic" in leaking
    assert "no galaxy is in two parts" not in leaking
