"""What a network has to beat: Random Forest and logistic regression on morphology and catalogue, and no look at all."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deepmerge.analysis import intervals, metrics, morphology
from deepmerge.cluster import Where
from deepmerge.data.dataset import Dataset
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate, read
from deepmerge.jobs.judged import reload
from deepmerge.jobs.run import Results, warning
from deepmerge.jobs.trial import again, train_all
from deepmerge.plots.forest import Line, forest
from deepmerge.studies import base
from deepmerge.studies.base import Caption, Findings, Study
from deepmerge.studies.baselines import forests
from deepmerge.studies.leakage import CATALOGUE
from deepmerge.studies.selection.study import shapes

STUDY = Study(
    "baselines",
    "What a network has to beat",
    "deepmerge study baselines {}",
    captions={
        "baselines": Caption(
            "Network and baselines",
            "The same test galaxies, means over seeds; the last column is the difference to the network.",
        ),
        "importance": Caption("What the Random Forest looks at", "Loss of test AUC when one quantity is shuffled."),
    },
    tables={"baselines": "network and baselines on the same test galaxies, means over seeds"},
)
NETWORK = "network"


def judge_baselines(
    dataset: str, model: str, seeds: int, pdf: bool = False, out: Path | None = None, workers: Where = None
) -> Results:
    """Train the baselines on the training galaxies of a model and judge them beside it on its test galaxies.

    The network and each Random Forest are trained with `seeds` seeds, of which the model itself is the first.
    Morphology is measured in every filter of the images themselves; from the catalogue come mass, concentration and
    M20, where it has them.
    """
    judged = reload(dataset, model)
    experiment, data = judged.experiment, judged.data
    if judged.split.protocol != "galaxy":
        raise InputError(
            "baselines should be judged on galaxies that they did not train on, got a model of a random-row split; "
            "name a model with split: galaxy"
        )
    parts = judged.split
    rows = np.concatenate([parts.train.rows, parts.test.rows])
    train, test = np.arange(len(parts.train)), np.arange(len(parts.train), len(rows))
    measured = {name: shapes(data, rows, number, workers) for number, name in enumerate(_filters(data))}
    labels, galaxies = data.labels[rows], data.galaxies[rows]
    run_id, note = judged.run.info.run_id, warning(data, parts)

    def measure(study: str) -> Findings:
        trials = train_all(study, f"{seeds} seeds on {data.name}", again(judged, seeds), workers)
        scored = {NETWORK: np.stack([judged.scores("test"), *(trial.probability for trial in trials)])}
        sources = _sources(data, rows, measured)
        for source, features in sources.items():
            for kind in (forests.RANDOM_FOREST, forests.LOGISTIC):
                scored[f"{forests.BASELINES[kind]}, {source}"] = np.stack(
                    [
                        forests.scores(kind, features, labels, train, galaxies=galaxies, seed=seed)[test]
                        for seed in range(seeds)
                    ]
                )
        scored[forests.BASELINES[forests.TRIVIAL]] = np.full((seeds, len(test)), 0.5)
        table = _table(scored, labels[test], galaxies[test])
        used = sources["morphology"]
        importance = forests.importance(forests.RANDOM_FOREST, used, labels, train, test, galaxies)
        flags = _flags(list(measured.values())[-1], labels)
        estimates = {
            "judged": run_id,
            "seeds": seeds,
            "test_images": len(test),
            "test_galaxies": len(np.unique(galaxies[test])),
            **base.named(table, "method"),
            **{f"morphology_{flag}": share for flag, share in flags.loc["all"].to_dict().items()},
        }
        tables = {"baselines": table, "importance": importance, "flags": flags.reset_index()}
        tables["morphology"] = pd.concat(measured, names=["filter"]).reset_index("filter")
        return Findings(sentence(table), estimates, tables, _figures(table, importance, data.name, note))

    return base.conduct(STUDY, experiment, data, measure, note=note, tags={"judged": run_id}, pdf=pdf, out=out)


def _filters(data: Dataset) -> list[str]:
    return list(data.filters or (f"filter {number}" for number in range(1, data.images.shape[1] + 1)))


def _sources(data: Dataset, rows: np.ndarray, measured: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Tables of quantities by where they come from. What the simulator knows of an encounter is no such quantity."""
    names = [name for name in CATALOGUE if name in data.catalogue]
    catalogue = data.catalogue[names].iloc[rows].reset_index(drop=True)
    shape = pd.concat(
        [each[list(morphology.QUANTITIES)].add_suffix(f" {name}") for name, each in measured.items()], axis=1
    )
    if not names:
        return {"morphology": shape}
    words = ", ".join(names).replace("log_mstar", "log M*").replace("m20", "M20")
    both = pd.concat([shape, catalogue.add_prefix("given_")], axis=1)
    return {"morphology": shape, f"catalogue ({words})": catalogue, "both": both}


def _table(scored: dict[str, np.ndarray], labels: np.ndarray, galaxies: np.ndarray) -> pd.DataFrame:
    """One line a method: metrics, and their paired differences to the network, with intervals over galaxies and seeds.

    scored: (seeds, n) probabilities by method. `change_auc_p` is Holm's for all methods of the table.
    """
    lines = []
    for method, probabilities in scored.items():
        measured = metrics.over_seeds(labels, probabilities, galaxies)
        change = metrics.difference(labels, probabilities, scored[NETWORK], galaxies)
        p = metrics.p_value(labels, probabilities, scored[NETWORK], galaxies)
        lines.append({"method": method, **base.compared(measured, change), "change_auc_p": p})
    table = pd.DataFrame(lines)
    return table.assign(change_auc_p=intervals.holm(table["change_auc_p"].to_numpy()))


def _flags(measured: pd.DataFrame, labels: np.ndarray) -> pd.DataFrame:
    """Share of the images with each quality flag of the morphology in the last filter: mergers, non-mergers, all."""
    flags = measured["flag"].to_numpy()
    groups = {"mergers": labels == 1, "non-mergers": labels == 0, "all": np.ones(len(labels), bool)}
    shares = {
        group: {name: float((flags[chosen] == flag).mean()) for flag, name in morphology.FLAGS.items()}
        for group, chosen in groups.items()
    }
    return pd.DataFrame(shares).T.rename_axis("images")


def _figures(table: pd.DataFrame, importance: pd.DataFrame, name: str, note: str | None) -> dict[str, Figure]:
    losses = [
        Line(line["feature"], [Estimate(line["value"], line["low"], line["high"])], 1)
        for line in importance.to_dict("records")
    ]
    return {
        "baselines": base.comparison(
            table,
            (table["method"] != NETWORK).astype(int).tolist(),
            "AUC − network's (paired)",
            guess=0.5,
            title=f"The network and what it has to beat, test galaxies of {name}",
            note=note,
        ),
        "importance": forest(
            losses,
            ["AUC lost when it is shuffled"],
            references=[0.0],
            title="What the Random Forest on morphology looks at",
            note=note,
        ),
    }


def sentence(table: pd.DataFrame) -> str:
    """AUC of the network and of the best baseline: the first of several that are alike."""
    lines = {line["method"]: line for line in table.to_dict("records")}
    others = [method for method in lines if method not in (NETWORK, forests.BASELINES[forests.TRIVIAL])]
    best = max(others, key=lambda method: lines[method]["test_auc"])
    ours, theirs, change = (
        read(lines[method], name).text()
        for method, name in ((NETWORK, "test_auc"), (best, "test_auc"), (best, "change_auc"))
    )
    return f"AUC **{ours}** of the network, {theirs} of the best baseline ({best}), difference {change}."
