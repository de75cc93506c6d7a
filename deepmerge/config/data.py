"""Settings of a data set: its files, what their columns are called, and what stands for missing pixels."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from deepmerge.config.section import Settings

LONGEST = 255  # bytes of the name of a file, on all systems


class Columns(Settings):
    """What the columns of a table are called, where they have other names than the usual ones."""

    id: str | None = Field(None, description="the galaxy's id, the same for all images of a galaxy")
    label: str | None = Field(None, description="merger or not")
    file: str | list[str] | None = Field(None, description="the file of an image, or a column for each filter")
    ra: str | None = Field(None, description="right ascension in degrees")
    dec: str | None = Field(None, description="declination in degrees")


class Missing(Settings):
    """What stands in an image for a pixel that was not measured, and what the network takes it for."""

    value: tuple[float | str, ...] = Field(description="the sentinel: a number (-99), nan, or a list of such")
    fill: float | str = Field(
        0.0, description="pixel value in its place; 'median': that of the filter's other training pixels"
    )

    @field_validator("value", mode="before")
    @classmethod
    def _sentinels(cls, value: Any) -> Any:
        values = [
            str(one).lower() if one != one else one for one in (value if isinstance(value, list | tuple) else [value])
        ]
        if not values or not all(one == "nan" or _is_finite(one) for one in values):
            raise ValueError("should be a number, nan, or a list of such")
        return values

    @field_validator("fill", mode="before")
    @classmethod
    def _filling(cls, fill: Any) -> Any:
        if fill != "median" and not _is_finite(fill):
            raise ValueError("should be a number or median")
        return fill


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Data(Settings):
    """Where images, labels and catalogue lie. Relative paths start at the folder of the experiment file."""

    images: Path = Field(
        description="npy (N, F, H, W); FITS, also file.fits:HDU; HDF5, also file.h5:dataset; a table that names files; "
        "a folder of class folders"
    )
    labels: Path | None = Field(None, description="npy (N,), 1 = merger, 0 = non-merger; else from file or table")
    catalogue: Path | None = Field(None, description="table, one row an image; else ids follow from the row layout")
    masks: Path | None = Field(None, description="npy (N, H, W), 1 on merger features, where these are known")
    size: int | None = Field(None, ge=32, description="side of the images in pixels; else as they are, all alike")
    resize: Literal["crop", "resample"] = Field(
        "crop", description="to that size: 'crop' keeps the centre and its pixel scale, 'resample' the field of view"
    )
    filters: tuple[int, ...] | None = Field(
        None, min_length=1, description="which filters to take, counted from 0, in this order; else all"
    )
    columns: Columns = Field(Columns(), description="names of the table's columns id, label, file, ra and dec")
    mergers: list[str | int] | None = Field(None, description="labels that mean a merger; all others mean none")
    folder: Path | None = Field(None, description="where the files that a table names lie; else beside the table")
    cache: Path = Field(Path(".deepmerge/cache"), description="where images that are no npy are kept decoded")
    exclude: Path | None = Field(
        None, description="table of images to leave out, as the gallery writes it: those tagged 'artefact'"
    )
    relabel: Path | None = Field(
        None, description="table of galaxies whose label is wrong, as the gallery writes it: by tag, or by label"
    )
    missing: Missing | None = Field(None, description="what stands for pixels that were not measured: {value, fill}")

    @model_validator(mode="after")
    def _has_labels(self) -> "Data":
        if self.images.suffix == ".npy" and self.labels is None and self.catalogue is None:
            raise ValueError("should name labels, an npy or a catalogue with a column label")
        return self

    @field_validator("images", "labels", "catalogue", "masks", "folder", "cache")
    @classmethod
    def _is_a_path(cls, path: Path | None) -> Path | None:
        if path is not None and any(len(os.fsencode(part)) > LONGEST for part in path.parts):
            raise ValueError(f"should be a path of names of at most {LONGEST} bytes each")
        return path

    @field_validator("filters")
    @classmethod
    def _each_once(cls, filters: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if filters is not None and (min(filters) < 0 or len(set(filters)) < len(filters)):
            raise ValueError("should be different whole numbers from 0 on")
        return filters

    @property
    def as_they_are(self) -> bool:
        """Whether images of whatever shape are taken without a change."""
        return self.size is None and self.filters is None

    def located(self) -> tuple[Path, str | None]:
        """The file or folder that `images` names, and the dataset or HDU that it names in it, behind a colon."""
        file, _, part = str(self.images).rpartition(":")
        return (Path(file), part) if Path(file).is_file() and part else (self.images, None)

    def placed(self, place: Callable[[Path], Path]) -> "Data":
        """The same settings, each path as `place` gives it."""
        return self.model_copy(update={name: place(value) for name, value in self if isinstance(value, Path)})

    def below(self, folder: Path) -> "Data":
        """The same files, relative paths starting at `folder`."""
        return self.placed(lambda path: folder / path)
