"""What a network has to beat: classifiers of measured quantities, such as morphology, that see no pixels.

They give probabilities at balance, as the networks do, so that all are judged by the same metrics.
"""

from typing import Any

import numpy as np
import pandas as pd

from deepmerge.analysis import checks, metrics
from deepmerge.cluster import count_cores
from deepmerge.errors import InputError
from deepmerge.estimate import Estimate

RANDOM_FOREST, LOGISTIC, TRIVIAL = "random_forest", "logistic", "trivial"
# The forest is the method of Snyder et al. 2019, MNRAS 486, 3702; the regression takes standardised quantities.
BASELINES = {RANDOM_FOREST: "Random Forest", LOGISTIC: "logistic regression", TRIVIAL: "0.5 always"}
PROTOCOLS = ("rows", "galaxy")
TEST_SHARE = 0.2  # as in the published split of rows

# Settings of the forest are ours. Trees: more change the scores by less than their intervals.
_TREES = 100
_SMALLEST_LEAF = 8  # images, twice the views of a galaxy: a leaf that holds one galaxy alone has learned it by heart
_LEAVES = (2, 4, 8, 16, 32)  # among which folds of the training galaxies choose
_INNER_FOLDS = 5


def scores(
    kind: str,
    features: pd.DataFrame,
    labels: np.ndarray,
    train: np.ndarray,
    *,
    galaxies: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Probabilities of a merger for all n images, (n,), from one of BASELINES trained on the rows `train` alone.

    features: (n, k) numbers; NaN is replaced by the median of the training rows and marked in a column, since a failed
    measurement says something of the image. labels: (n,) 0 or 1 = merger, used in the rows `train` only. With galaxies,
    (n,) ids, the smallest leaf of a Random Forest is chosen on folds of the training galaxies. Raises InputError for
    other input, and where training rows lack a class.
    """
    values, labels, train = _checked(kind, features, labels, train)
    return _predicted(_fitted(kind, values, labels, train, seed, galaxies), values)


def importance(
    kind: str,
    features: pd.DataFrame,
    labels: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    galaxies: np.ndarray,
    *,
    repeats: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """How much AUC on the rows `held_out` is lost when one quantity is shuffled among them, the greatest loss first.

    Permutation importance (Breiman 2001, Machine Learning 45, 5), `repeats` shuffles together; columns: feature, value,
    low, high: the loss and its 95 % interval over galaxies, (n,) ids. Correlated quantities
    share their importance. Otherwise as `scores` with these galaxies.
    """
    values, labels, train = _checked(kind, features, labels, train)
    held_out = checks.row_numbers("held_out", held_out, len(values))
    model = _fitted(kind, values, labels, train, seed, galaxies)
    unshuffled = values[held_out]
    rng = np.random.default_rng(seed)
    held = (labels[held_out], _predicted(model, unshuffled), np.asarray(galaxies)[held_out])
    truth, whole, ids = (np.tile(array, repeats) for array in held)
    lines = []
    for column, name in enumerate(features.columns):
        shuffled = np.tile(unshuffled, (repeats, 1))
        shuffled[:, column] = np.concatenate([rng.permutation(unshuffled[:, column]) for _ in range(repeats)])
        loss = metrics.difference(truth, whole, _predicted(model, shuffled), ids)["auc"]
        lines.append({"feature": name, **loss._asdict()})
    table = pd.DataFrame(lines, columns=["feature", *Estimate._fields])
    return table.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def leak(
    features: pd.DataFrame, labels: np.ndarray, galaxies: np.ndarray, *, repeats: int = 10, seed: int = 0
) -> pd.DataFrame:
    """What a split of rows lets a Random Forest memorise: its test scores under both PROTOCOLS.

    A fifth of the rows (stratified by class), or of the galaxies, is the test set, `repeats` times: a line each.
    Columns: protocol, repeat, accuracy, balanced_accuracy, auc, and shared_galaxies: the share of test rows whose
    galaxy is in training. features (n, k) and labels (n,) as in `scores`; galaxies (n,) ids.
    """
    from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

    values, labels, _ = _checked(RANDOM_FOREST, features, labels, np.arange(len(features)))
    ids = np.unique(np.asarray(galaxies), return_inverse=True)[1]
    by_row, by_galaxy = (
        splitter(repeats, test_size=TEST_SHARE, random_state=seed)
        for splitter in (StratifiedShuffleSplit, GroupShuffleSplit)
    )
    draws = (by_row.split(values, labels), by_galaxy.split(values, labels, ids))
    lines = []
    for protocol, splits in zip(PROTOCOLS, draws, strict=True):
        for repeat, (train, test) in enumerate(splits):
            model = _fitted(RANDOM_FOREST, values, labels, train, seed)
            scored = metrics.point_metrics(labels[test], _predicted(model, values[test]))
            measured = {name: scored[name] for name in ("accuracy", "balanced_accuracy", "auc")}
            shared = float(np.isin(ids[test], ids[train]).mean())
            lines.append({"protocol": protocol, "repeat": repeat, **measured, "shared_galaxies": shared})
    return pd.DataFrame(lines)


def _checked(
    kind: str, features: pd.DataFrame, labels: np.ndarray, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if kind not in BASELINES:
        raise InputError(f"a baseline should be one of: {', '.join(BASELINES)}; got {kind!r}")
    try:
        values = features.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise InputError(f"features should be columns of numbers, got: {error}") from None
    labels = np.asarray(labels)
    if not values.shape[1] or labels.shape != (len(values),):
        raise InputError(
            "features should have a column at least, and labels an entry for each of their rows, "
            f"got shapes {values.shape} and {labels.shape}"
        )
    if np.isinf(values).any():
        names = features.columns[np.isinf(values).any(axis=0)]
        raise InputError(f"features should be finite, or NaN where not measured, got infinity in: {', '.join(names)}")
    train = checks.row_numbers("train", train, len(values))
    if set(labels[train].tolist()) != {0, 1}:
        got = np.unique(labels[train]).tolist()
        raise InputError(f"training rows should have both labels, 0 (non-merger) and 1 (merger), got {got}")
    return values, labels, train


def _fitted(
    kind: str, values: np.ndarray, labels: np.ndarray, train: np.ndarray, seed: int, galaxies: np.ndarray | None = None
) -> Any:
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    if kind == RANDOM_FOREST:
        forest = RandomForestClassifier(
            _TREES, min_samples_leaf=_SMALLEST_LEAF, class_weight="balanced", random_state=seed, n_jobs=count_cores()
        )
        model = make_pipeline(imputer, forest)
        if galaxies is not None:
            forest.set_params(min_samples_leaf=_smallest_leaf(model, values[train], labels[train], galaxies[train]))
        model.fit(values[train], labels[train])
        # Threads would sum up the trees in any order, and the last digit of a score with them.
        forest.set_params(n_jobs=1)
        return model
    if kind == LOGISTIC:
        logistic = LogisticRegression(class_weight="balanced", max_iter=1000)
        return make_pipeline(imputer, StandardScaler(), logistic).fit(values[train], labels[train])
    return DummyClassifier(strategy="uniform").fit(values[train], labels[train])


def _smallest_leaf(model: Any, values: np.ndarray, labels: np.ndarray, galaxies: np.ndarray) -> int:
    """The one of _LEAVES with the best AUC on folds of these galaxies; the usual one where there are too few."""
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    ids = np.unique(galaxies, return_inverse=True)[1]
    if min(len(np.unique(ids[labels == label])) for label in (0, 1)) < _INNER_FOLDS:
        return _SMALLEST_LEAF
    folds = StratifiedGroupKFold(_INNER_FOLDS, shuffle=True, random_state=0)
    name = "randomforestclassifier__min_samples_leaf"
    search = GridSearchCV(model, {name: _LEAVES}, scoring="roc_auc", cv=folds, refit=False)
    return int(search.fit(values, labels, groups=ids).best_params_[name])


def _predicted(model: Any, values: np.ndarray) -> np.ndarray:
    # Sums of many leaves may end a rounding error above 1.
    return np.clip(model.predict_proba(values)[:, 1], 0, 1)
