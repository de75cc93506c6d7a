"""Settings of the network: which one it is, and with what weights it begins."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from deepmerge.config import yaml_file
from deepmerge.config.section import Settings
from deepmerge.errors import InputError

OPTION = "options."  # before the name of an option of a network, where settings have flat names
OURS = ("default", "published", "compact", "invariant")
APPLICATION = "keras.applications."
RECORDED = "recorded:"  # before the file of a network that a loaded run names; it is not run
_OWN = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


class Network(Settings):
    """The network and what happens to the pixels inside it."""

    architecture: str = Field(
        "default",
        description="'default', 'published', 'compact', 'invariant', a function of your own as FILE.py:NAME, or "
        "keras.applications.NAME",
    )
    stretch: Literal["raw", "standard", "asinh", "log"] = Field("asinh", description="scaling of the pixel values")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of units dropped in training")
    # Far above these a weight, or the memory of any machine, ends.
    l2: float = Field(1e-4, ge=0, le=1e6, description="penalty on the weights of the dense layers")
    batch_norm: Literal["architecture", "channels", "width"] = Field(
        "architecture", description="axis of batch norm; 'architecture': as the network has it"
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="share of the running mean that batch norm keeps in a step")
    hidden: Literal["architecture", "relu", "softmax"] = Field(
        "architecture", description="activation of the hidden dense layers; 'architecture': as the network has it"
    )
    width: float = Field(1.0, gt=0, le=100, description="factor on the numbers of convolution filters and hidden units")
    symmetry: Literal["none", "average"] = Field(
        "average", description="'average': the answer is the mean over the flips and turns of an image"
    )
    labels: Literal["merger", "stage"] = Field(
        "merger", description="what it tells apart: mergers from others, or with 'stage' also past from future mergers"
    )
    options: dict[str, Any] = Field({}, description="what your own function, or that of keras.applications, is given")
    weights: Literal["none", "imagenet"] = Field("none", description="first weights of a network of keras.applications")
    start: str | None = Field(
        None,
        description="trained network whose weights are the first ones: models:/ URI, run id, run.json or .keras file",
    )
    start_stretch: Literal["measured", "kept"] = Field(
        "measured", description="with start, pixel statistics: 'measured' on the new training images, 'kept': of start"
    )
    freeze: str | None = Field(None, description="layer up to which, and with which, the weights stay the first ones")

    @field_validator("architecture")
    @classmethod
    def _known(cls, text: str) -> str:
        if text in OURS or _OWN.fullmatch(text):
            return text
        if text.startswith(APPLICATION) and text.removeprefix(APPLICATION).isidentifier():
            return text
        ours = ", ".join(f"'{name}'" for name in OURS)
        raise ValueError(f"should be {ours}, FILE.py:FUNCTION or keras.applications.NAME")

    @field_validator("options", mode="before")
    @classmethod
    def _plain(cls, options: Any) -> Any:
        if isinstance(options, str):  # from the command line
            options = yaml_file.value(options)
        if not isinstance(options, dict) or not all(isinstance(name, str) and name.isidentifier() for name in options):
            raise ValueError("should be names with values, such as {depth: 3}")
        for value in options.values():
            if not all(
                isinstance(one, bool | int | float | str) for one in (value if isinstance(value, list) else [value])
            ):
                raise ValueError("should have numbers, words or lists of these as values")
        return options

    @model_validator(mode="after")
    def _begins_once(self) -> "Network":
        if self.weights != "none" and self.application is None:
            raise ValueError(f"weights: {self.weights} should go with keras.applications, got {self.architecture!r}")
        if self.weights != "none" and self.start is not None:
            raise ValueError(f"weights: {self.weights} and start both tell the first weights; keep one of them")
        if self.start_stretch == "kept" and self.start is None:
            raise ValueError("start_stretch: kept should go with start, which names a trained network")
        return self

    @property
    def source(self) -> tuple[Path, str] | None:
        """File and function of a network of the user's own."""
        found = _OWN.fullmatch(self.architecture)
        return (Path(found[1]), found[2]) if found else None

    def code(self) -> bytes:
        """The file of a network of the user's own. Raises InputError where it cannot be read."""
        path, name = self.source or (Path(self.architecture), "")
        try:
            return path.read_bytes()
        except OSError as error:
            raise InputError(
                f"network.architecture should name a Python file and a function in it, such as my_network.py:build, "
                f"got {path}:{name}, but: {error.strerror}"
            ) from None

    @property
    def averages(self) -> bool:
        """Whether the answer is made a mean over turns; that of 'invariant' is the same for each of them as it is."""
        return self.symmetry == "average" and self.architecture != "invariant"

    @property
    def is_recorded(self) -> bool:
        """Whether a loaded run, and not an experiment file, names the user's own network: its file is not run."""
        return self.architecture.startswith(RECORDED)

    @property
    def application(self) -> str | None:
        """Name of a network of keras.applications."""
        return self.architecture.removeprefix(APPLICATION) if self.architecture.startswith(APPLICATION) else None

    @property
    def title(self) -> str:
        """What the network is called: ours by their names, others without their file or package."""
        return self.source[1] if self.source else self.application or self.architecture

    def flat(self) -> dict[str, Any]:
        """All settings, each option by a name of its own: ``{"options.depth": 3, …}``."""
        settings = {name: value for name, value in self if name != "options"}
        return {**settings, **{f"{OPTION}{name}": value for name, value in self.options.items()}}

    def below(self, folder: Path, names: Collection[str] = ("architecture", "start")) -> "Network":
        """The same network, relative paths of the settings `names` starting at `folder`."""
        moved = {}
        if "architecture" in names and self.source is not None:
            moved["architecture"] = f"{folder / self.source[0]}:{self.source[1]}"
        if "start" in names and self.start is not None and self.start.endswith((".keras", ".json")):
            moved["start"] = str(folder / self.start)
        return self.model_copy(update=moved)
