"""First weights: a network begins with those of a trained one, and some of its layers keep them."""

import difflib
from pathlib import Path

import keras

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.model import stretch
from deepmerge.model.stretch import PixelStatistics

NEAREST = 5  # layers that a message names


def load(settings: config.Network) -> keras.Model | None:
    """The trained network that `settings.start`, a ``.keras`` file, holds; None without one.

    Safe mode refuses files with code in them. Raises InputError for a file that cannot be read.
    """
    if settings.start is None:
        return None
    path = Path(settings.start)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"network.start should be a trained network that Keras can load, got {path}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None


def pixel_statistics(start: keras.Model, settings: config.Network) -> PixelStatistics:
    """The constants of the stretch of a trained network. Raises InputError where it has another stretch, or none."""
    kind, found = stretch.of(start)
    if kind != settings.stretch:
        raise InputError(
            f"network.stretch should be {kind!r}, which the network of start has and start_stretch: kept takes over, "
            f"got {settings.stretch!r}"
        )
    if len(found.softening) != start.input_shape[-1]:
        raise InputError("network.start should be a network that deepmerge trained, for start_stretch: kept")
    return found


def begin(model: keras.Model, start: keras.Model | None, settings: config.Network) -> None:
    """Give a network the weights of a trained one, if any, and fix the layers up to the one to freeze, if any.

    Raises InputError where the trained network takes other images or is another one, and for an unknown layer.
    """
    if start is not None:
        _require_alike(model, start, settings)
        model.set_weights(start.get_weights())
    if settings.freeze is not None:
        _freeze(model, settings.freeze)


def _require_alike(model: keras.Model, start: keras.Model, settings: config.Network) -> None:
    where = f"network.start ({settings.start})"
    (height, width, filters), (its_height, its_width, its_filters) = model.input_shape[1:], start.input_shape[1:]
    if filters != its_filters:
        raise InputError(
            f"{where} should take images of {filters} filters, as the data have, got a network of {its_filters}; name "
            "one of as many filters, leave filters out of the data, or train without start"
        )
    ours, theirs = ([tuple(w.shape) for w in one.get_weights()] for one in (model, start))
    if ours == theirs:
        return
    if (height, width) != (its_height, its_width):
        raise InputError(
            f"{where} should take images of {height} × {width} pixels, as the data have, got a network for "
            f"{its_height} × {its_width}; crop or resample the images to that, or train without start"
        )
    raise InputError(
        f"{where} should be a network of the same architecture, {settings.title}, got {start.name} with "
        f"{start.count_params():,} parameters instead of {model.count_params():,}; set architecture, options and width "
        "as it was trained with"
    )


def _freeze(model: keras.Model, name: str) -> None:
    names = [layer.name for layer in model.layers]
    if name not in names:
        learned = [layer.name for layer in model.layers if layer.weights]
        near = difflib.get_close_matches(name, learned, NEAREST, 0) if len(learned) > 2 * NEAREST else learned
        raise InputError(f"network.freeze should be a layer of the network, such as {', '.join(near)}; got {name!r}")
    for layer in model.layers[: names.index(name) + 1]:
        layer.trainable = False
    if not model.trainable_variables:
        raise InputError(f"network.freeze should leave layers to learn, got the last one, {name!r}")
