"""Settings of an experiment: what they are, their defaults, ranges and checks. Every default stands here alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deepmerge.errors import InputError

EXPERIMENTS = Path("experiments")


class Settings(BaseModel):
    """A group of settings; an unknown key is an error, and none changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Settings):
    """Where the arrays lie. Relative paths start at the folder of the experiment file."""

    images: Path = Field(description="npy (N, F, H, W), any numeric type, H and W at least 32")
    labels: Path = Field(description="npy (N,), 1 = merger, 0 = non-merger")
    catalogue: Path | None = Field(None, description="CSV, one row an image; else ids follow from the row layout")
    masks: Path | None = Field(None, description="npy (N, H, W), 1 on merger features, where these are known")

    def below(self, folder: Path) -> "Data":
        """The same files, relative paths starting at `folder`."""
        return Data.model_validate({key: None if path is None else folder / path for key, path in self})


class Split(Settings):
    """Which images train, validate and test."""

    split: Literal["galaxy", "rows"] = Field(
        "galaxy", description="'galaxy' keeps a galaxy's images together; 'rows' leaks test galaxies, as published"
    )
    split_seed: int = Field(5, ge=0, lt=2**32, description="seed of the split")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of galaxies (or rows) for validation")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of galaxies (or rows) for the test")
    split_table: Path | None = Field(None, description="CSV with a split to take, as 'deepmerge data split' writes it")

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> "Split":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction should be below 1, to leave images for training")
        return self


class Network(Settings):
    """The network and what happens to the pixels inside it."""

    architecture: Literal["default", "published"] = Field("default", description="which network")
    stretch: Literal["raw", "standard", "asinh", "log"] = Field("asinh", description="what happens to pixels first")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of units dropped in training")
    l2: float = Field(1e-4, ge=0, description="penalty on the weights of the dense layers")


class Training(Settings):
    """How the network learns."""

    epochs: int = Field(20, ge=1, description="most epochs")
    batch_size: int = Field(64, ge=1, description="images in a batch")
    learning_rate: float = Field(1e-3, gt=0, description="first learning rate of Adam")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="learning rate over the epochs")
    patience: int = Field(20, ge=1, description="epochs without a lower validation loss before training stops")
    balance: Literal["sampling", "weights", "none"] = Field("sampling", description="how the rarer class counts more")
    augment: bool = Field(True, description="turn and flip training images at random")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, order and turns")


class Experiment(Settings):
    """One experiment: a data set and everything that is done with it."""

    name: str
    data: Data
    split: Split = Split()
    network: Network = Network()
    training: Training = Training()

    def settings(self) -> dict[str, Any]:
        """All settings but the file paths as one flat mapping, e.g. ``{"dropout": 0.2, "epochs": 30, …}``."""
        return {**dict(self.split), **dict(self.network), **dict(self.training)}


# The sections whose settings the command line and `mlflow run -P` may override, by their flat names.
SECTIONS: dict[str, type[Settings]] = {"split": Split, "network": Network, "training": Training}


def load(dataset: str, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read ``experiments/<dataset>.yaml``, or the experiment file that `dataset` is a path to.

    `overrides` maps flat setting names (``epochs``) to values that win over the file; None values are passed over.
    Raises InputError for an unknown data set, key or value.
    """
    path = _experiment_file(dataset)
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} should be YAML, but: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold settings such as 'data:' and 'training:', got {content!r}")
    given = {"name": path.stem, **content}
    for name, value in (overrides or {}).items():
        if value is not None:
            section = _section_of(name)
            inner = given.get(section) or {}
            # Anything but a mapping is left for the check below to refuse.
            given[section] = {**inner, name: value} if isinstance(inner, dict) else inner
    experiment = _validated(given, str(path))
    # Paths in the file start at its folder, paths in overrides at the working directory.
    split = experiment.split
    if split.split_table and "split_table" in (content.get("split") or {}) and not (overrides or {}).get("split_table"):
        split = split.model_copy(update={"split_table": path.parent / split.split_table})
    return experiment.model_copy(update={"data": experiment.data.below(path.parent), "split": split})


def from_record(record: Mapping[str, Any], source: str) -> Experiment:
    """Rebuild an experiment from `Experiment.model_dump` output, as stored with a run; `source` names it in errors."""
    return _validated(dict(record), source)


def name_of(dataset: str) -> str:
    """The name under which runs of `dataset` are tracked; also where its experiment file is gone."""
    try:
        return load(dataset).name
    except InputError:
        return Path(dataset).stem if dataset.endswith((".yaml", ".yml")) else dataset


def names() -> list[str]:
    """Names that `load` accepts here: the stems of ``experiments/*.yaml``."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def _experiment_file(dataset: str) -> Path:
    path = Path(dataset)
    if path.suffix not in (".yaml", ".yml"):
        path = EXPERIMENTS / f"{dataset}.yaml"
    if path.is_file():
        return path
    choices = ", ".join(names()) or f"none found in {EXPERIMENTS.absolute()}"
    raise InputError(f"dataset should be one of: {choices} (or the path of an experiment file), got {dataset!r}")


def _section_of(name: str) -> str:
    for section, settings in SECTIONS.items():
        if name in settings.model_fields:
            return section
    known = ", ".join(sorted(key for settings in SECTIONS.values() for key in settings.model_fields))
    raise InputError(f"setting should be one of: {known}; got {name!r}")


def _validated(content: dict[str, Any], source: str) -> Experiment:
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(_explain(e) for e in error.errors())}") from None


def _explain(error: Any) -> str:
    *sections, key = error["loc"] or ("settings",)
    where = ".".join(str(part) for part in (*sections, key))
    if error["type"] == "extra_forbidden":
        owner = SECTIONS.get(sections[0]) if sections else Experiment
        known = ", ".join((owner or Data).model_fields)
        return f"unknown key {where!r}; expected one of: {known}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where!r} {expected}, got {error['input']!r}"
