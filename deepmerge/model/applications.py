"""The networks of keras.applications, on images of any number of filters, with ImageNet's weights or without."""

import inspect
import warnings
from typing import Any

import keras
import numpy as np

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.model.calling import Body, in_one_line, with_options

CHANNELS = 3  # of ImageNet's pictures
# What these were trained on, in pixels of 0 to 255; standardised images are brought there. The others take numbers of
# order 1, as standardised images are, or are told to (include_preprocessing).
MEAN, SPREAD = 118.0, 58.0  # of ImageNet's pixels
WITHIN = ("EfficientNetB",)  # scale 0 to 255 themselves
AROUND_0 = ("VGG", "ResNet50", "ResNet101", "ResNet152")  # less the mean; their V2 take -1 to 1
OURS = ("include_top", "weights", "input_tensor", "input_shape", "classes", "classifier_activation", "name")


def names() -> list[str]:
    """What `keras.applications` offers."""
    return sorted(name for name, value in vars(keras.applications).items() if inspect.isfunction(value))


def body(name: str, settings: config.Network) -> Body:
    """A network of keras.applications without its top: standardised images (n, H, W, F) -> pooled features (n, k).

    With ImageNet's weights, which Keras fetches, the filters become three channels by a 1×1 convolution that is learned
    on; three filters are taken as they are. Raises InputError for a name that
    Keras does not have.
    """
    if name not in names():
        raise InputError(
            f"network.architecture should be keras.applications. and one of {', '.join(names())}, got {name!r}"
        )
    function, where = getattr(keras.applications, name), f"keras.applications.{name}"

    def make(images: keras.KerasTensor, /, **options: Any) -> Any:
        del images
        return function(include_top=False, **options)

    parameters = inspect.signature(function).parameters
    own = [parameter.replace(kind=parameter.KEYWORD_ONLY) for key, parameter in parameters.items() if key not in OURS]
    first = inspect.Parameter("images", inspect.Parameter.POSITIONAL_ONLY)
    make.__signature__ = inspect.Signature([first, *own])  # type: ignore[attr-defined]
    defaults = {"pooling": "avg", **({"include_preprocessing": False} if "include_preprocessing" in parameters else {})}

    def build(images: keras.KerasTensor) -> keras.KerasTensor:
        from_imagenet = settings.weights == "imagenet"
        if from_imagenet and images.shape[-1] != CHANNELS:
            images = _three_channels(images)
        x = _as_trained(images, name)
        given = {"weights": "imagenet" if from_imagenet else None, "input_shape": tuple(images.shape[1:])}
        options = settings.model_copy(update={"options": {**defaults, **settings.options}})
        base = with_options(make, options, where, given)
        with in_one_line(where), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*usually expects 1 or 3 input channels")
            features = base(x)(x)
        return keras.layers.Dropout(settings.dropout)(features)

    build.__name__ = name
    return build


def _three_channels(images: keras.KerasTensor) -> keras.KerasTensor:
    """A 1×1 convolution that begins with the filters in their order, those between two channels shared by both."""
    filters = images.shape[-1]
    layer = keras.layers.Conv2D(CHANNELS, 1, use_bias=False, name="to_three_channels")
    channels = layer(images)
    places = np.linspace(0, filters - 1, CHANNELS)
    kernel = np.maximum(0, 1 - np.abs(np.arange(filters)[:, np.newaxis] - places))
    layer.set_weights([kernel[np.newaxis, np.newaxis]])
    return channels


def _as_trained(images: keras.KerasTensor, name: str) -> keras.KerasTensor:
    if name.startswith(WITHIN):
        return keras.layers.Rescaling(SPREAD, MEAN, name="as_on_imagenet")(images)
    if name.startswith(AROUND_0) and not name.endswith("V2"):
        return keras.layers.Rescaling(SPREAD, name="as_on_imagenet")(images)
    return images
