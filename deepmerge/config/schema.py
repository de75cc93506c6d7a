"""Settings of an experiment: what they are, their defaults, ranges and checks. Every default stands here alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from deepmerge.config.data import Columns, Data, Missing
from deepmerge.config.network import OPTION, Network
from deepmerge.config.section import Settings
from deepmerge.config.training import Training
from deepmerge.config.transfer import Adapt, Method, Noise
from deepmerge.config.yaml_file import shown
from deepmerge.errors import InputError


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


# Nothing that one could be good at; and options, which are searched one by one.
NOT_SEARCHED = {"seed", "precision", "options", "weights", "start", "start_stretch", "freeze", "noise", "psf", "adapt"}
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
    folds: int | None = Field(
        None,
        ge=1,
        description="above 1: mean over so many folds of the galaxies outside the test; by default 1, or 3 where fewer "
        "than 50 galaxies of the rarer class validate",
    )
    pruning: bool = Field(True, description="stop trials that fall behind the median of the others")
    seeds: int = Field(1, ge=0, description="models to train with the winning settings; 0: none")
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
    is_option = name.startswith(OPTION)
    if name not in SEARCHABLE and not is_option:
        known = ", ".join(sorted([*SEARCHABLE, f"{OPTION}NAME"]))
        raise ValueError(f"should name settings among {known}; {shown(name)} is none of them")
    values = list(allowed.choices or (allowed.low, allowed.high))
    try:
        if not is_option:
            values = [getattr(SEARCHABLE[name].model_validate({name: value}), name) for value in values]
    except ValidationError as error:
        raise ValueError(f"should fit its settings, but {explain(error.errors()[0])}") from None
    if not allowed.choices:
        if is_option:  # what it takes, its function tells
            return allowed
        if SEARCHABLE[name].model_fields[name].annotation not in (int, float):
            raise ValueError(f"should have choices for {name}, which is no number")
        return allowed
    if twice := [value for number, value in enumerate(values) if value in values[:number]]:
        raise ValueError(f"should have each choice of {name} once; {twice[0]!r} is there twice")
    return allowed.model_copy(update={"choices": tuple(values)})


class Study(Settings):
    """How much the studies do, and what they ask for."""

    seeds: int = Field(
        5,
        ge=1,
        description="leakage: trainings of each protocol, each with galaxies of its own; recipes, transfer: of each in "
        "each fold; baselines: of the network and of each forest",
    )
    folds: int = Field(
        5,
        ge=2,
        description="recipes, shortcuts, transfer: every galaxy is tested in one of so many folds; probabilities: of "
        "those outside the test",
    )
    methods: tuple[Literal["noise", Method], ...] = Field(
        ("stretch", "noise", "mmd", "coral", "sinkhorn", "dann"),
        description="transfer: what to carry the network over with, beside nothing and training on the target",
    )
    published_epochs: int = Field(60, ge=1, description="recipes: epochs of the published recipe, which wanted 500")
    target: float = Field(0.5, gt=0, description="recipes: validation log loss whose epochs and seconds are counted")
    bins: int = Field(5, ge=1, description="selection: bins of each property, equally many galaxies in each")
    members: int = Field(5, ge=1, description="probabilities: networks of the ensemble, the model among them")
    passes: int = Field(30, ge=1, description="probabilities: answers of Monte-Carlo dropout that are averaged")
    purity: float = Field(0.8, ge=0.01, le=1, description="probabilities: purity wanted at each merger fraction")
    merger_fractions: tuple[float, ...] = Field(
        (0.18, 0.10, 0.03),
        min_length=1,
        description="probabilities: mergers among galaxies of a survey; 0.18: the release without copies",
    )

    @field_validator("methods", mode="before")
    @classmethod
    def _of_one_word(cls, methods: Any) -> Any:
        words = [word.strip() for word in methods.split(",")] if isinstance(methods, str) else methods
        if not words:
            raise ValueError("should name one way or more")
        return words

    @field_validator("merger_fractions")
    @classmethod
    def _between_0_and_1(cls, fractions: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < fraction < 1 for fraction in fractions):
            raise ValueError("should lie between 0 and 1")
        return fractions


class Promotion(Settings):
    """What decides whether a model becomes champion."""

    metric: str = Field("auc", description="metric that decides, as evaluate names it")


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
    study: Study = Study()
    promotion: Promotion = Promotion()
    params: Params | None = None

    def settings(self) -> dict[str, Any]:
        """All settings but the file paths as one flat mapping, e.g. ``{"dropout": 0.2, "epochs": 30, …}``."""
        return {**dict(self.split), **self.network.flat(), **self.training.flat()}

    def is_whole(self, name: str) -> bool:
        """Whether a setting, by its flat name, is a whole number; an option is what its own value is."""
        if name.startswith(OPTION):
            return type(self.settings().get(name)) is int
        return SEARCHABLE[name].model_fields[name].annotation is int

    def first_trial(self) -> dict[str, Any]:
        """The experiment's own values of the settings to search: what a study tries first.

        Raises InputError where they lie outside the search space, since the study could not compare with them.
        """
        settings = self.settings()
        for name, allowed in self.tuning.space.items():
            if name not in settings:
                raise InputError(
                    f"tuning.space.{name} should be an option that network.options gives a value, which the study "
                    f"tries first, got {self.network.options}"
                )
            ends = [end for end in (allowed.low, allowed.high) if end is not None]
            if self.is_whole(name) and not all(float(end).is_integer() for end in ends):
                raise InputError(
                    f"tuning.space.{name} should have whole numbers, as {settings[name]} is one, got {ends}"
                )
            if ends and (isinstance(settings[name], bool) or not isinstance(settings[name], int | float)):
                raise InputError(f"tuning.space.{name} should have choices, since {settings[name]!r} is no number")
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
            if section == "network":
                options = {key.removeprefix(OPTION): settings[key] for key in settings if key.startswith(OPTION)}
                new["options"] = {**new.get("options", self.network.options), **options}
            parts[section] = type(old).model_validate({**dict(old), **new})
        return self.model_copy(update=parts)


# The sections whose settings the command line and `mlflow run -P` may override, by their flat names.
SECTIONS: dict[str, type[Settings]] = {"split": Split, "network": Network, "training": Training}
_OWNERS = SECTIONS | {"": Experiment, "data": Data, "tuning": Tuning, "study": Study, "promotion": Promotion}
_OWNERS |= {"params": Params}
_INNER: dict[str, type[Settings]] = {"columns": Columns, "missing": Missing, "noise": Noise, "adapt": Adapt}


def explain(error: Any) -> str:
    """What is wrong with a setting, from an entry of `ValidationError.errors()`, for a message."""
    *sections, key = error["loc"] or ("settings",)
    where = ".".join(str(part) for part in (*sections, key))
    if error["type"] == "extra_forbidden":
        owner = _INNER.get(str(sections[-1]), Range) if len(sections) > 1 else _OWNERS["".join(sections)]
        return f"unknown key {shown(where)}; expected one of: {', '.join(owner.model_fields)}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    expected = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where!r} {expected}, got {shown(error['input'])}"
