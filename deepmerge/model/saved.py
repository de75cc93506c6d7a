"""What a network has to be so that it can be saved, and loaded wherever Keras is: layers of Keras, all in a row."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from deepmerge.errors import InputError
from deepmerge.files import folder_aside


def plain(model: keras.Model) -> keras.Model:
    """The same network with the layers of models in it among its own, where saliency finds them.

    Raises InputError for layers that are not built into Keras.
    """
    nested = False
    while any(isinstance(layer, keras.Model) for layer in model.layers):
        nested = True
        model = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=_inner)
    for layer in model.layers:
        _require_built_in(layer)
    if nested:  # each layer stands in two models by now, and has two outputs
        clone = keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        model = clone
    return model


def numbered(model: keras.Model) -> keras.Model:
    """The network, its layers without names of their own numbered by their kind: called the same in every process."""
    counts: Counter[str] = Counter()
    for layer in model.layers:
        usual = re.sub(r"_\d+$", "", layer.name)
        if usual.replace("_", "") == type(layer).__name__.lower():
            usual = usual.removeprefix("fast_")  # a layer for training is called as the one that is saved
            layer.name = f"{usual}_{counts[usual]}" if counts[usual] else usual
            counts[usual] += 1
    return model


def packed(model: keras.Model) -> bytes:
    """The network as a Keras file, to be sent to another process."""
    with folder_aside("deepmerge-model") as folder:
        path = folder / "model.keras"
        model.save(path)
        return path.read_bytes()


def unpacked(content: bytes) -> keras.Model:
    """The network in a Keras file; safe mode refuses files with code in them."""
    with folder_aside("deepmerge-model") as folder:
        path = folder / "model.keras"
        path.write_bytes(content)
        return keras.models.load_model(path, compile=False, safe_mode=True)


def require_reloadable(model: keras.Model) -> None:
    """Raise InputError unless the network gives the same numbers when it was saved and loaded."""
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype(np.float32)
    with folder_aside("deepmerge") as folder:
        path = folder / "model.keras"
        try:
            model.save(path)
            loaded = keras.models.load_model(path, compile=False, safe_mode=True)
        except (ValueError, TypeError, OSError) as error:
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"the network should be of layers that Keras saves and loads in safe mode, but: {said}"
            ) from None
    before, after = (np.asarray(one(images, training=False)) for one in (model, loaded))
    if not np.allclose(before, after, atol=1e-5, equal_nan=True):
        raise InputError(
            f"the network should give the same numbers when it was saved and loaded, got {after.ravel().tolist()} for "
            f"{before.ravel().tolist()}; does a layer keep numbers that are no weights?"
        )


def _inner(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return operation.call(*args, **kwargs) if isinstance(operation, keras.Model) else operation(*args, **kwargs)


def _require_built_in(layer: keras.layers.Layer) -> None:
    why: str | None
    try:
        why = next(_foreign(keras.saving.serialize_keras_object(layer)), None)
    except (ValueError, TypeError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:200]
    if why is not None:
        raise InputError(
            f"layer {layer.name} ({type(layer).__name__}) should be of layers and functions that are built into Keras, "
            f"got {why}: a saved network with it could not be loaded without its code; write it with Keras's layers "
            "and keras.ops"
        )


def _foreign(settings: Any) -> Iterator[str]:
    """Classes and functions in the settings of a layer that are not Keras's, and code."""
    if isinstance(settings, list | tuple):
        for one in settings:
            yield from _foreign(one)
    elif isinstance(settings, dict):
        kind, module = settings.get("class_name"), settings.get("module")
        if kind in ("Lambda", "__lambda__"):
            yield "a lambda"
        elif kind is not None and str(module).split(".")[0] != "keras":
            yield str(settings["config"] if kind == "function" else kind)
        for one in settings.values():
            yield from _foreign(one)
