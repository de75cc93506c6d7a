"""A trained model with the data that it is judged on: all scoring of images of a data set goes through here."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from deepmerge import config
from deepmerge.data import dataset as datasets
from deepmerge.data import splits
from deepmerge.data.batches import gather
from deepmerge.data.dataset import Dataset
from deepmerge.data.splits import Part, Split
from deepmerge.errors import InputError
from deepmerge.jobs import networks
from deepmerge.jobs.run import RECORD, SPLIT_TABLE, require_room
from deepmerge.model import devices, dropout, prediction
from deepmerge.model.features import with_features
from deepmerge.progress import Advance, progress_bar
from deepmerge.tracking import runs

PREDICTIONS = "predictions.parquet"  # artifact of an evaluated run: one line an image of every part
MERGER_FRACTION = "trained_at_merger_fraction"  # metadata of a model
PIXELS = "training_pixels"  # metadata of a model: what `familiarity` knows of the images that it was trained on
# By the trial of maps on the demo sample (docs/explanation/saliency.md), noisy and pristine: of all methods these maps
# lie on the merger's features most (0.38 and 0.28 of them; light 0.15 and 0.35), and without their pixels the logit of
# noisy mergers falls most (5.7; light 2.5), while no method beats the light on pristine ones.
SALIENCY_METHOD = "smoothgrad"
SEED = "seed"  # of a training, among the parameters of its run
# The best of those that look at a layer, at a tenth of the time: where there are many maps or a layer is named.
LAYER_METHOD = "hirescam"


def saliency_method(method: str | None, layer: str | int | None) -> str:
    """The method of saliency maps: the one that is named, or else the default, which a named layer changes."""
    return method or (SALIENCY_METHOD if layer is None else LAYER_METHOD)


@dataclass(frozen=True)
class Trained:
    """The run of a trained model, the experiment that it was, and the data that it trained on."""

    run: runs.Run
    experiment: config.Experiment
    data: Dataset


@dataclass(frozen=True)
class Judged(Trained):
    """A trained model, the data that it is judged on, and their split: the one way to score images of a data set."""

    split: Split
    model: keras.Model

    def on(self, other: "Judged") -> "Judged":
        """The same model, judged on the data of another one as these are split there."""
        return replace(self, data=other.data, split=other.split)

    def scores(self, part: str | Part, *, afresh: bool = False) -> np.ndarray:
        """Merger probability of the images of a part, (n,): 'train', 'validation', 'test', or any images of the data.

        Read from the predictions that an evaluation left with the run, where it scored these images, unless `afresh`.
        Scoring images that neither train nor validate is counted as a look at them.
        """
        images = self._images(part)
        stored = None if afresh else self._stored(images)
        if stored is not None:
            return stored
        return self.outputs(images)[:, 0]

    def outputs(self, part: str | Part) -> np.ndarray:
        """What the network says of the images of a part, (n, k): of a merger, and of its stages if it tells them.

        Counted as a look like `scores`.
        """
        images = self._images(part)
        with progress_bar(f"Scoring {self.data.name}", len(images)) as advance:
            found = prediction.outputs(self.model, self.data.images, images.rows, images.transforms, advance)
        look_at(self.run.info.run_id, self.data, images, self.split)
        return found

    def features(self, part: str | Part) -> tuple[np.ndarray, np.ndarray]:
        """The last hidden layer's values for the images of a part, (n, k), and their merger probability, (n,).

        Counted as a look like `scores`.
        """
        images = self._images(part)
        model = with_features(self.model)
        with progress_bar(f"Embedding {self.data.name}", len(images)) as advance:
            found = prediction.outputs(model, self.data.images, images.rows, images.transforms, advance)
        look_at(self.run.info.run_id, self.data, images, self.split)
        width = self.model.output_shape[-1]
        return found[:, :-width], found[:, -width]

    def dropout_scores(self, part: str | Part, passes: int, seed: int, advance: Advance) -> np.ndarray:
        """Mean merger probability of the images of a part over answers with dropout, (n,), as `monte_carlo` gives it.

        Counted as a look like `scores`. Raises ValueError where the network has no dropout.
        """
        images = self._images(part)
        scores = dropout.monte_carlo(self.model, self.data, images, passes, seed, advance)
        look_at(self.run.info.run_id, self.data, images, self.split)
        return scores

    def others(self) -> Iterator[runs.Run]:
        """Other trainings on the same data and split, the newest first; none where the store does not answer."""
        for run in runs.others_if_reachable("train", self.data.name, self.data.fingerprint):
            same = run.data.tags.get("split_fingerprint") == self.split.fingerprint
            if same and run.info.run_id != self.run.info.run_id:
                yield run

    def other_seeds(self, most: int) -> list[keras.Model]:
        """At most so many networks that differ from this one in the seed of their training alone, the newest."""
        own = self.run.data.params
        found: list[keras.Model] = []
        for run in self.others():
            if len(found) == most:
                break
            theirs = run.data.params
            if theirs != own and {**theirs, SEED: own.get(SEED)} == own:
                with suppress(InputError):  # its files are gone or were changed
                    found.append(prediction.load(runs.model_file(run)))
        return found

    def masks(self, rows: np.ndarray, transforms: np.ndarray) -> np.ndarray | None:
        """The true features of mergers in images of the data, (n, H, W); None where the data do not know them."""
        masks = self.data.masks
        return None if masks is None else gather(masks[:, np.newaxis], rows, transforms)[..., 0]

    def _images(self, part: str | Part) -> Part:
        return part if isinstance(part, Part) else getattr(self.split, part)

    def _stored(self, images: Part) -> np.ndarray | None:
        """Probabilities that the run's evaluation stored; None where it scored other data, or not all these images."""
        if self._predictions is None or self.run.data.tags.get(runs.FINGERPRINT) != self.data.fingerprint:
            return None
        wanted = pd.MultiIndex.from_arrays([images.rows, images.transforms])
        places = self._predictions.index.get_indexer(wanted)
        return None if (places < 0).any() else self._predictions.to_numpy()[places]

    @cached_property
    def _predictions(self) -> pd.Series | None:
        """Probabilities in the run by row and transform; None where it was not evaluated yet."""
        try:
            table = pd.read_parquet(runs.read_artifact(self.run, PREDICTIONS))
        except InputError:
            return None
        return table.set_index(["row", "transform"])["probability"]


def probability(model: keras.Model, data: Dataset, images: Part, advance: Advance = lambda steps: None) -> np.ndarray:
    """Merger probability of images of a data set, (n,), for a process that knows nothing of runs.

    Whoever gets it in the end has to say so by `look_at`.
    """
    return prediction.predict(model, data.images, images.rows, images.transforms, advance)


def look_at(run_id: str, data: Dataset, images: Part, split: Split | None) -> None:
    """Count that the model of a run scored images, but for those that train or validate in its split."""
    tested = images if split is None else images.without(split.train, split.validation)
    if len(tested):
        runs.count_look(run_id, tested.fingerprint(data))


def reload(dataset: str, model: str) -> Judged:
    """Load a model (`runs.find` says how it may be named) of a data set, and the data that it was trained on.

    Raises InputError where these are not the data that `dataset` names.
    """
    devices.prepare()
    trained = find(dataset, model)
    split = replace(split_of(trained.run), seed=trained.experiment.split.split_seed)
    require_room(trained.data, split)
    return load(trained, split)


def split_of(run: runs.Run) -> Split:
    """The split that a run trained on. Raises InputError where the run holds none."""
    return splits.from_table(pd.read_csv(runs.read_artifact(run, SPLIT_TABLE)), run.data.tags["split"])


def find(dataset: str, model: str) -> Trained:
    """A trained model of the data that `dataset` names, by its experiment file or, where that is gone, by name alone.

    Raises InputError where there is none, and where the model was trained on other data.
    """
    return _found(dataset, partial(runs.find, model))


def newest_study(dataset: str, kind: str, command: str) -> Trained:
    """The newest study of this kind about the data that `dataset` names, as `find` takes it.

    Raises InputError, with the command that makes one, where there is none.
    """
    return _found(dataset, partial(runs.newest_study, kind, command))


def _found(dataset: str, look_for: Callable[[str, str | None], runs.Run]) -> Trained:
    meant = meant_by(dataset)
    if meant is None:
        return _as_recorded(look_for(config.name_of(dataset), None))
    files, data = meant
    run = look_for(data.name, data.fingerprint)
    return Trained(run, _record(run, config.load(dataset).network).model_copy(update={"data": files}), data)


def meant_by(dataset: str) -> tuple[config.Data, Dataset] | None:
    """The files and the data that an experiment file names; None where `dataset` is a name whose file is gone.

    Raises InputError where the file, or the data, cannot be read.
    """
    if dataset not in config.names() and Path(dataset).suffix not in (".yaml", ".yml"):
        return None
    experiment = config.load(dataset)
    return experiment.data, datasets.read(experiment.data, experiment.name)


def _record(run: runs.Run, named: config.Network | None = None) -> config.Experiment:
    """The experiment that a run was; code of its own may run only where it is `named` by the user's experiment file."""
    experiment = config.from_record(runs.read_json(run, RECORD), f"{RECORD} of run {run.info.run_id}")
    network = networks.of_record(experiment.network, run.data.tags, named)
    return experiment.model_copy(update={"network": network})


def _as_recorded(run: runs.Run) -> Trained:
    """A run with the data that its record names. Raises InputError where these are no longer what it trained on."""
    experiment = _record(run)
    if not experiment.data.located()[0].exists():  # the training was started in another folder than this command
        folder = Path(run.data.tags.get(runs.STARTED_IN, ""))
        experiment = experiment.model_copy(update={"data": experiment.data.below(folder)})
    data = datasets.read(experiment.data, experiment.name)
    fingerprint = run.data.tags[runs.FINGERPRINT]
    if data.fingerprint != fingerprint:
        raise InputError(
            f"{experiment.data.images} and its labels and catalogue should be those of run {run.info.run_id} "
            f"(fingerprint {fingerprint}), got {data.fingerprint}; bring the old data back or train anew"
        )
    return Trained(run, experiment, data)


def load(trained: Trained, split: Split) -> Judged:
    """Load the model of a run whose data and split are at hand. Raises InputError where it takes other images."""
    model = prediction.load(runs.model_file(trained.run))
    prediction.require_shape(model, trained.data.images)
    return Judged(trained.run, trained.experiment, trained.data, split, model)


def trained_merger_fraction(run: runs.Run) -> float:
    """The share of mergers at which the probabilities of the run's model are meant; trained at balance, 0.5.

    Raises InputError for a model whose metadata do not say.
    """
    try:
        return float(runs.model_metadata(run)[MERGER_FRACTION])
    except KeyError:
        raise InputError(
            f"the model of run {run.info.run_id} should tell the merger fraction that it was trained at, but does not, "
            "as it is of an older version of deepmerge; train it anew"
        ) from None
