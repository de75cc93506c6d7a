"""What a network knows of an image before it decides: the values of its last hidden layer."""

import keras

from deepmerge.data.labels import UNIT
from deepmerge.errors import InputError


def with_features(model: keras.Model) -> keras.Model:
    """The same network with the values of its last hidden layer before what it gives: (n, k + outputs) float32.

    Raises InputError for a network that does not end in a dense layer.
    """
    last = next((layer for layer in model.layers if layer.name == UNIT), model.layers[-1] if model.layers else None)
    if not isinstance(last, keras.layers.Dense) or len(last.input.shape) != 2:
        raise InputError(
            f"the network should end in a dense layer, whose inputs are the features, got {type(last).__name__}"
        )
    join = keras.layers.Concatenate(name="features_and_outputs", dtype="float32")
    return keras.Model(model.inputs, join([last.input, model.outputs[0]]))
