"""One image from its file, or from a file a filter: JPEG, PNG and other pictures, or FITS."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepmerge import config
from deepmerge.data.formats import fits_file
from deepmerge.data.formats.sizes import channels_first, choose, fit
from deepmerge.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif")
COLOURS = ("red", "green", "blue")

_AS_IS = ("RGB", "L", "I;16", "I;16B", "I;16L", "I", "F")
_CONVERTED = {"RGBA": "RGB", "P": "RGB", "RGBX": "RGB", "PA": "RGB", "LA": "L", "1": "L"}  # without what is transparent


def is_image(name: str) -> bool:
    """Whether a file is a picture or FITS, by its name."""
    return name.lower().endswith(PICTURES) or fits_file.plain_name(name) != name


def read(paths: Sequence[Path], data: config.Data) -> np.ndarray:
    """An image (F, H, W) from one file that holds all filters, or from one for each, with the size and filters wanted.

    Pictures keep their type (uint8, uint16), red, green and blue being filters; FITS images are float32, from the first
    HDU with two or three axes or the one named SCI. Raises InputError, without the path, for what cannot be read.
    """
    planes = []
    for path in paths:
        try:
            image = _picture(path) if path.suffix.lower() in PICTURES or not _is_fits(path) else _fits(path)
        except FileNotFoundError:
            raise InputError("no such file") from None
        except OSError as error:
            raise InputError(error.strerror or str(error)) from None
        if len(paths) > 1 and len(image) != 1:
            raise InputError(
                f"{len(image)} channels in {path.name}, expected 1 since each filter has a file of its own"
            )
        planes.append(fit(image, data.size, data.resize))
    if len({(plane.shape, plane.dtype) for plane in planes}) > 1:
        raise InputError(f"filters of {', '.join(text(plane) for plane in planes)}, expected the same for all")
    return choose(np.concatenate(planes), data.filters)


def text(image: np.ndarray) -> str:
    """What an image (F, H, W) is, in words."""
    filters, height, width = image.shape
    return f"{height} × {width} pixels, {filters} channel{'s' if filters != 1 else ''}, {image.dtype}"


def _is_fits(path: Path) -> bool:
    return fits_file.is_fits(path)


def _picture(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.mode not in (*_AS_IS, *_CONVERTED):
                raise InputError(f"colours of the kind {picture.mode}, expected RGB or grey")
            pixels = np.asarray(picture.convert(_CONVERTED.get(picture.mode, picture.mode)))
    except (InputError, MemoryError, FileNotFoundError):
        raise
    except UnidentifiedImageError:
        what = "no image that can be read" if path.stat().st_size else "empty"
        raise InputError(what) from None
    except Exception as error:  # of a damaged file Pillow raises OSError, SyntaxError, ValueError and others
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError("truncated" if "truncated" in said else f"damaged ({said})") from None
    return np.moveaxis(pixels, 2, 0) if pixels.ndim == 3 else pixels[np.newaxis]


def _fits(path: Path) -> np.ndarray:
    try:
        with fits_file.opened(path, axes=(2, 3)) as file:
            pixels = file.read(slice(None))
    except InputError as error:
        said = str(error)
        raise InputError("truncated" if "truncated" in said else said.replace(f" {path}", " it")) from None
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim not in (2, 3):
        raise InputError(f"an array {pixels.shape}, expected (H, W) or (filters, H, W)")
    image = pixels[np.newaxis] if pixels.ndim == 2 else channels_first(pixels[np.newaxis])[0]
    with np.errstate(over="ignore"):
        return image.astype(np.float32)
