"""Settings of a training: how the network learns, and what is done to the images that it learns from."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from deepmerge.config.section import Settings
from deepmerge.config.transfer import Adapt, Noise, below, of_each_filter, written


class Training(Settings):
    """How the network learns."""

    epochs: int = Field(20, ge=1, description="largest number of epochs")
    batch_size: int = Field(64, ge=1, description="images in a batch")
    learning_rate: float = Field(1e-3, gt=0, description="first learning rate of Adam")
    weight_decay: float = Field(0, ge=0, description="share of each weight taken off in a step, times its rate")
    label_smoothing: float = Field(0, ge=0, lt=1, description="how far the labels learned are drawn towards 0.5")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="learning rate over the epochs")
    keep: Literal["last", "best"] = Field(
        "last", description="weights to keep: at the end of training, or at the epoch of the lowest validation log loss"
    )
    patience: int = Field(
        20, ge=1, description="keep: best: epochs without a lower validation log loss before training stops"
    )
    balance: Literal["sampling", "weights", "none"] = Field("sampling", description="how the rarer class is boosted")
    augment: bool = Field(True, description="turn and flip training images at random")
    noise: Noise | None = Field(
        None, description="noise to add to training images, anew in each epoch: {sigma, gain} or {like: data set}"
    )
    psf: tuple[float, ...] | None = Field(
        None, description="blur of training images, before the noise: sigma in pixels, a number or one a filter"
    )
    adapt: Adapt | None = Field(None, description="unlabelled images to adapt to: {to: data set, method, weight}")
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = Field(
        "float32", description="what layers compute with; 'mixed' is faster on a GPU, the weights stay float32"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of initial weights, batch order and augmentation")

    @field_validator("noise", "adapt", mode="before")
    @classmethod
    def _mapping(cls, value: Any) -> Any:
        value = written(value)
        if not isinstance(value, dict | Settings | None):
            raise ValueError("should be names with values, such as {sigma: 0.4}, {like: noisy} or {to: noisy}")
        return value

    @field_validator("psf", mode="before")
    @classmethod
    def _of_each_filter(cls, value: Any) -> Any:
        return of_each_filter(written(value))

    @field_validator("psf")
    @classmethod
    def _is_a_width(cls, widths: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if not all(width > 0 for width in widths or ()):
            raise ValueError("should be above 0")
        return widths

    def below(self, folder: Path, names: Collection[str] = ("noise", "adapt")) -> "Training":
        """The same settings, relative paths of the settings `names` starting at `folder`."""
        moved: dict[str, Settings] = {}
        if "noise" in names and self.noise is not None:
            moved["noise"] = below(folder, self.noise, "like")
        if "adapt" in names and self.adapt is not None:
            moved["adapt"] = below(folder, self.adapt, "to")
        return self.model_copy(update=moved)

    def flat(self) -> dict[str, Any]:
        """All settings by their names, those of several parts as mappings."""
        return {
            name: value.model_dump(mode="json", exclude_none=True) if isinstance(value, Settings) else value
            for name, value in self
        }
