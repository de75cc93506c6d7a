"""Settings that carry a network from the images that it learns on to others: their noise, and their features."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from deepmerge.config import yaml_file
from deepmerge.config.section import Settings

FILES = (".yaml", ".yml", ".npy", ".fits", ".fit", ".fz", ".h5", ".hdf5", ".csv", ".parquet")

LEARNED = "learned"
Method = Literal["stretch", "mmd", "coral", "sinkhorn", "dann"]
Named = TypeVar("Named", "Noise", "Adapt")


class Noise(Settings):
    """Noise to add to training images, in their own units; `like` stays beside the numbers that were measured."""

    sigma: tuple[float, ...] | None = Field(None, description="standard deviation of the sky: a number or one a filter")
    gain: tuple[float | None, ...] | None = Field(
        None, description="counts per unit, for the noise of the light itself: a number, or one a filter; null: none"
    )
    like: str | None = Field(None, description="data set, or file of images, whose noise is measured")

    @field_validator("sigma", "gain", mode="before")
    @classmethod
    def _of_each_filter(cls, value: Any) -> Any:
        return of_each_filter(value)

    @model_validator(mode="after")
    def _says_how_much(self) -> "Noise":
        if self.sigma is None and self.like is None:
            raise ValueError("should say sigma, or like: a data set whose noise is measured")
        if self.sigma is None and self.gain is not None:
            raise ValueError("should say sigma beside gain; like alone measures both")
        if not all(value >= 0 for value in self.sigma or ()):
            raise ValueError("should have sigma at 0 or above")
        if not all(value > 0 for value in self.gain or () if value is not None):
            raise ValueError("should have gain above 0, or null where the light itself has no noise")
        return self


# Found on mock galaxies of another seed than the demo's, one training each: above three to ten times as much, the
# features of all images become the same and nothing is learned.
WEIGHTS = {"stretch": 0.0, "mmd": 2.0, "coral": 50.0, "sinkhorn": 0.07, "dann": 0.1}


class Adapt(Settings):
    """What makes a network see the same in images of another data set, whose labels are never read."""

    to: str = Field(description="data set, or file of images, whose training part is looked at, without labels")
    method: Method = Field(
        "mmd",
        description="what pulls the features in front of the last layer together; 'stretch': nothing. With all of them "
        "the constants of the stretch are those of the target",
    )
    weight: float | Literal["learned"] | None = Field(
        None,
        description="of that penalty beside the log loss, at its full height; by default 2 for mmd, 50 for coral, "
        "0.07 for sinkhorn, 0.1 for dann. 'learned': with the network, after a third of the training (SIDDA)",
    )
    ramp: bool | None = Field(
        None,
        description="whether the weight rises from 0 over the training (Ganin et al. 2016); default: only dann",
    )

    @field_validator("weight", mode="before")
    @classmethod
    def _is_above_0(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None or value == LEARNED or (is_number and 0 < value < math.inf):
            return value
        raise ValueError(f"should be a number above 0, or {LEARNED!r}, got {value!r}")

    @model_validator(mode="after")
    def _has_a_weight_to_learn(self) -> "Adapt":
        if self.learns_weight and (self.method in ("stretch", "dann") or self.ramp):
            raise ValueError("should have a weight that is learned with mmd, coral or sinkhorn alone, without ramp")
        return self

    @property
    def learns_weight(self) -> bool:
        """Whether the weight is learned with the network."""
        return self.weight == LEARNED

    @property
    def full_weight(self) -> float:
        """The weight at its full height; 1 where it is learned."""
        if isinstance(self.weight, str):
            return 1.0
        return WEIGHTS[self.method] if self.weight is None else self.weight

    @property
    def rises(self) -> bool:
        """Whether the weight rises over the training: as published, that of dann does and the others stay."""
        return self.method == "dann" if self.ramp is None else self.ramp


def of_each_filter(value: Any) -> Any:
    """A number as a list of one, which is meant for each filter; lists, and all else, as they are."""
    if isinstance(value, bool) or (isinstance(value, Sequence) and any(isinstance(one, bool) for one in value)):
        raise ValueError("should be a number, or a list with one for each filter")
    if isinstance(value, int | float):
        return (value,)
    if isinstance(value, Sequence) and not value:
        raise ValueError("should be a number, or a list with one for each filter")
    return value


def written(value: Any) -> Any:
    """A value as it stands in a file of settings, where it is text from the command line."""
    return yaml_file.value(value) if isinstance(value, str) else value


def below(folder: Path, settings: Named, name: str) -> Named:
    """The same settings, the file that `name` names starting at `folder`; a data set's name stays."""
    reference = getattr(settings, name)
    if reference is None or not ("/" in reference or reference.endswith(FILES)):
        return settings
    return settings.model_copy(update={name: str(folder / reference)})
