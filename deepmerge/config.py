"""Settings of an experiment: what they are, their defaults, ranges and checks. Every default stands here alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from deepmerge import yaml_file
from deepmerge.errors import InputError
from deepmerge.yaml_file import shown

EXPERIMENTS = Path("experiments")
TUNED = "tuned"  # name of the settings that `tune` finds
# Names become those of runs, registered models, files and options of the command line. ASCII alone, since an umlaut can
# be one character or two that look alike.
NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
NAMES = "1 to 100 letters (a-z, A-Z), digits, '_', '-' and '.', not '.' or '-' at its beginning nor '.' at its end"


class Settings(BaseModel):
    """A group of settings; an unknown key is an error, and none changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float, float | None):
            raise ValueError("should be a number")
        return value


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
    batch_norm: Literal["architecture", "channels", "width"] = Field(
        "architecture", description="axis of batch norm; 'architecture': as the network has it"
    )
    hidden: Literal["architecture", "relu", "softmax"] = Field(
        "architecture", description="activation of the hidden dense layers; 'architecture': as the network has it"
    )
    width: float = Field(1.0, gt=0, description="factor on the numbers of convolution filters and hidden units")


class Training(Settings):
    """How the network learns."""

    epochs: int = Field(20, ge=1, description="most epochs")
    batch_size: int = Field(64, ge=1, description="images in a batch")
    learning_rate: float = Field(1e-3, gt=0, description="first learning rate of Adam")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="learning rate over the epochs")
    patience: int = Field(20, ge=1, description="epochs without a lower validation log loss before training stops")
    balance: Literal["sampling", "weights", "none"] = Field("sampling", description="how the rarer class counts more")
    augment: bool = Field(True, description="turn and flip training images at random")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32", description="what layers compute with; 'mixed' is faster on a GPU, the weights stay float32"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of weights, order and turns")


NOT_SEARCHED = ("seed", "precision")  # nothing that one could be good at
# Which section a setting belongs to that a search may name.
SEARCHABLE: dict[str, type[Settings]] = {
    name: section for section in (Network, Training) for name in section.model_fields if name not in NOT_SEARCHED
}


class Range(Settings):
    """What a search may try for one setting: numbers from `low` to `high`, or else `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = Field(False, description="spread evenly over the logarithm")
    choices: tuple[bool | int | float | str, ...] = ()

    @field_validator("choices", mode="before")
    @classmethod
    def _plain(cls, choices: Any) -> Any:
        if not isinstance(choices, list | tuple) or not all(isinstance(one, int | float | str) for one in choices):
            raise ValueError("should be a list of numbers or words")
        return choices

    @model_validator(mode="after")
    def _complete(self) -> "Range":
        if (self.low is None or self.high is None) == (len(self.choices) < 2):
            raise ValueError("should have low and high, or choices of two or more values")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("should have low below high")
        if self.log and (self.low is None or self.low <= 0):
            raise ValueError("should have low above 0 where log is true")
        return self

    def holds(self, value: Any) -> bool:
        """Whether the search can come to `value`."""
        if self.low is None or self.high is None:
            return value in self.choices
        return bool(self.low <= value <= self.high)


class Tuning(Settings):
    """How `tune` searches for better settings."""

    trials: int = Field(30, ge=1, description="trials in all, those of earlier calls counted")
    objective: Literal["log_loss", "auc"] = Field("log_loss", description="what to improve on the validation galaxies")
    folds: int = Field(1, ge=1, description="above 1: mean over so many folds of the galaxies outside the test")
    pruning: bool = Field(True, description="stop trials that fall behind the median of the others")
    space: dict[str, Range] = Field(
        {
            "dropout": Range(low=0.0, high=0.6),
            "l2": Range(low=1e-6, high=1e-2, log=True),
            "learning_rate": Range(low=5e-5, high=1e-2, log=True),
        },
        min_length=1,
        description="settings to search: {low, high, log} or {choices}",
    )

    @field_validator("space")
    @classmethod
    def _of_settings(cls, space: dict[str, Range]) -> dict[str, Range]:
        return {name: _fitted(name, allowed) for name, allowed in space.items()}


def _fitted(name: str, allowed: Range) -> Range:
    """What a search may try for the setting `name`, its choices as the setting has them: 0.001 for "1e-3"."""
    if name not in SEARCHABLE:
        raise ValueError(f"should name settings among {', '.join(sorted(SEARCHABLE))}; {shown(name)} is none of them")
    try:
        values = [
            getattr(SEARCHABLE[name].model_validate({name: value}), name)
            for value in allowed.choices or (allowed.low, allowed.high)
        ]
    except ValidationError as error:
        raise ValueError(f"should fit its settings, but {_explain(error.errors()[0])}") from None
    if not allowed.choices:
        if SEARCHABLE[name].model_fields[name].annotation not in (int, float):
            raise ValueError(f"should have choices for {name}, which is no number")
        return allowed
    if twice := [value for number, value in enumerate(values) if value in values[:number]]:
        raise ValueError(f"should have each choice of {name} once; {twice[0]!r} is there twice")
    return allowed.model_copy(update={"choices": tuple(values)})


class Params(Settings):
    """Where settings come from that win over the file's: their name, and the study and data that they were found on."""

    name: str
    study: str | None = None
    data_fingerprint: str | None = None


class Experiment(Settings):
    """One experiment: a data set and everything that is done with it."""

    name: str
    data: Data
    split: Split = Split()
    network: Network = Network()
    training: Training = Training()
    tuning: Tuning = Tuning()
    params: Params | None = None

    def settings(self) -> dict[str, Any]:
        """All settings but the file paths as one flat mapping, e.g. ``{"dropout": 0.2, "epochs": 30, …}``."""
        return {**dict(self.split), **dict(self.network), **dict(self.training)}

    def first_trial(self) -> dict[str, Any]:
        """The experiment's own values of the settings to search: what a study tries first.

        Raises InputError where they lie outside the search space, since the study could not compare with them.
        """
        settings = self.settings()
        for name, allowed in self.tuning.space.items():
            if not allowed.holds(settings[name]):
                raise InputError(
                    f"tuning.space.{name} should include the experiment's own value, {settings[name]}, which the study "
                    f"tries first, got {allowed.model_dump(exclude_defaults=True)}"
                )
        return {name: settings[name] for name in self.tuning.space}

    def reseeded(self, number: int) -> "Experiment":
        """The same experiment with other seeds of split and training, `number` further on."""
        split = self.split.model_copy(update={"split_seed": self.split.split_seed + number})
        training = self.training.model_copy(update={"seed": self.training.seed + number})
        return self.model_copy(update={"split": split, "training": training})

    def with_settings(self, settings: Mapping[str, Any]) -> "Experiment":
        """The same experiment with other values of network and training settings, by their flat names, checked."""
        parts = {}
        for section in ("network", "training"):
            old = getattr(self, section)
            new = {name: settings[name] for name in type(old).model_fields if name in settings}
            parts[section] = type(old).model_validate({**dict(old), **new})
        return self.model_copy(update=parts)


# The sections whose settings the command line and `mlflow run -P` may override, by their flat names.
SECTIONS: dict[str, type[Settings]] = {"split": Split, "network": Network, "training": Training}


def load(
    dataset: str,
    overrides: Mapping[str, Any] | None = None,
    params: str | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> Experiment:
    """Read ``experiments/<dataset>.yaml``, or the experiment file that `dataset` is a path to.

    `params` names settings that win over the file's: ``tuned`` is what `tune` left in ``tuned/<dataset>.yaml`` beside
    it; a path is such a file. `overrides` maps flat setting names (``epochs``) to values that win over both, `tuning`
    likewise for the section of that name; None values are passed over. Raises InputError for an unknown data set, key
    or value, and for a name, given or by default the file's, that is not like NAME.
    """
    path = _experiment_file(dataset)
    content = yaml_file.read(path, "settings such as 'data:' and 'training:'")
    given = {"name": path.stem, **content}
    _check_name(given["name"], path, "name" in content)
    found: dict[str, Any] = {}
    source = str(path)
    if params is not None:
        file = params_file(dataset, params)
        found, study = read_params(file)
        source = f"{path} with {file}"
        found_on = study.get("data_fingerprint")
        given["params"] = {"name": params, "study": study.get("name"), "data_fingerprint": found_on}
    for name, value in {**found, **(overrides or {})}.items():
        if value is not None:
            _put(given, _section_of(name, f"{source}: " if name in found else ""), name, value)
    for name, value in (tuning or {}).items():
        if value is not None:
            _put(given, "tuning", name, value)
    experiment = _validated(given, source)
    # Paths in the file start at its folder, paths in overrides at the working directory.
    split = experiment.split
    if split.split_table and "split_table" in (content.get("split") or {}) and not (overrides or {}).get("split_table"):
        split = split.model_copy(update={"split_table": path.parent / split.split_table})
    return experiment.model_copy(update={"data": experiment.data.below(path.parent), "split": split})


def from_record(record: Mapping[str, Any], source: str) -> Experiment:
    """Rebuild an experiment from `Experiment.model_dump` output, as stored with a run; `source` names it in errors."""
    return _validated(dict(record), source)


def name_of(dataset: str) -> str:
    """The name under which runs of `dataset` are tracked; also where its experiment file is gone.

    Raises InputError for a file that is there and wrong, and for what can be nobody's name.
    """
    if _is_file(_path(dataset)):
        return load(dataset).name
    name = Path(dataset).stem if dataset.endswith((".yaml", ".yml")) else dataset
    if not NAME.fullmatch(name):
        raise _unknown(dataset)
    return name


def names() -> list[str]:
    """Names that `load` accepts here: the stems of ``experiments/*.yaml``."""
    return sorted(path.stem for path in EXPERIMENTS.glob("*.yaml"))


def params_file(dataset: str, params: str) -> Path:
    """Where the settings called `params` of a data set lie: ``<params>/<dataset>.yaml`` beside its experiment file."""
    path = Path(params)
    if path.suffix in (".yaml", ".yml"):
        return path
    experiment = _experiment_file(dataset)
    return experiment.parent / params / f"{experiment.stem}.yaml"


def read_params(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flat settings below ``settings`` in a file that `tune` wrote, and what it says of the ``study``, if anything.

    Raises InputError where there is no such file.
    """
    if not path.is_file():
        raise InputError(
            f"params should be 'tuned' or the path of a YAML file, with settings at {path}, where there is no file; "
            f"'deepmerge tune' makes one"
        )
    content = yaml_file.read(path, "'settings:' with names and values, as 'deepmerge tune' writes it")
    found, study = content.get("settings"), content.get("study") or {}
    if not isinstance(found, dict) or not isinstance(study, dict):
        raise InputError(f"{path} should hold 'settings:' with names and values, got {shown(found)}")
    return found, study


def _put(given: dict[str, Any], section: str, name: str, value: Any) -> None:
    inner = given.get(section) or {}
    # Anything but a mapping is left for the check to refuse.
    given[section] = {**inner, name: value} if isinstance(inner, dict) else inner


def _experiment_file(dataset: str) -> Path:
    path = _path(dataset)
    if not _is_file(path):
        raise _unknown(dataset)
    return path


def _path(dataset: str) -> Path:
    path = Path(dataset)
    return path if path.suffix in (".yaml", ".yml") else EXPERIMENTS / f"{dataset}.yaml"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a file, or a folder that one may not look into
        return False


def _unknown(dataset: str) -> InputError:
    choices = ", ".join(names()) or f"none found in {EXPERIMENTS.absolute()}"
    return InputError(f"dataset should be one of: {choices} (or the path of an experiment file), got {shown(dataset)}")


def _check_name(name: Any, path: Path, given: bool) -> None:
    if isinstance(name, str) and NAME.fullmatch(name):
        return
    if given and not isinstance(name, str):
        raise InputError(f"{path}: 'name' should be text, got {shown(name)}; put it in quotes")
    other = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip(".-") or "my-survey"
    whence = "'name' should be" if given else "the file's name is the experiment's, which should be"
    mend = f"write 'name: {other}'" + ("" if given else " into the file, or rename it")
    raise InputError(f"{path}: {whence} {NAMES}, got {shown(name)}; {mend}")


def _section_of(name: str, where: str) -> str:
    for section, settings in SECTIONS.items():
        if name in settings.model_fields:
            return section
    known = ", ".join(sorted(key for settings in SECTIONS.values() for key in settings.model_fields))
    raise InputError(f"{where}setting should be one of: {known}; got {shown(name)}")


def _validated(content: dict[str, Any], source: str) -> Experiment:
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(_explain(e) for e in error.errors())}") from None


def _explain(error: Any) -> str:
    *sections, key = error["loc"] or ("settings",)
    where = ".".join(str(part) for part in (*sections, key))
    if error["type"] == "extra_forbidden":
        owners: dict[str, type[Settings]] = {"data": Data, "tuning": Tuning, "params": Params, **SECTIONS}
        owner: type[Settings] = Experiment
        if sections:
            owner = Range if len(sections) > 1 else owners[sections[0]]
        known = ", ".join(owner.model_fields)
        return f"unknown key {shown(where)}; expected one of: {known}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where!r} {expected}, got {shown(error['input'])}"
