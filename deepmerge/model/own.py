"""Networks that are not ours, between stretch and probability: functions of a user's own, and keras.applications."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import keras

from deepmerge import config
from deepmerge.errors import InputError
from deepmerge.model import applications
from deepmerge.model.calling import Answer, Body, in_one_line, with_options


def body(settings: config.Network, function: Callable[..., Answer] | None = None) -> Body | None:
    """What takes the place of our architectures: `function`, or what the settings name; None for one of ours.

    A file that the settings name is run. Raises InputError, in one line with the file's own error and its line, where
    that fails, and for options that the function does not take.
    """
    if function is not None:
        return with_options(function, settings, getattr(function, "__name__", "network"))
    if settings.application is not None:
        return applications.body(settings.application, settings)
    if settings.source is None:
        if settings.options:
            raise InputError(
                f"network.options are for a network of your own or keras.applications, got {settings.options} for the "
                f"architecture {settings.architecture!r}; leave them out"
            )
        return None
    if settings.is_recorded:
        code = settings.architecture.removeprefix(config.RECORDED)
        raise InputError(
            f"the network was made by code, {code}, which runs only where an experiment file names it: write "
            "network.architecture, with the file as it was, into the experiment file of the data"
        )
    path, name = settings.source
    taken = with_options(_function(settings.code(), path, name), settings, f"{path}:{name}")

    def build(images: keras.KerasTensor) -> Answer:
        with in_one_line(str(path), path), _nothing_registered():
            return taken(images)

    build.__name__ = name
    return build


@contextmanager
def _nothing_registered() -> Iterator[None]:
    """Take back what the body registers with Keras: MLflow would pickle it into every model that is saved then."""
    registered = keras.saving.get_custom_objects()
    before = dict(registered)
    try:
        yield
    finally:
        registered.clear()
        registered.update(before)


def _function(source: bytes, path: Path, name: str) -> Callable[..., Answer]:
    """The function of this name in the source of a Python file, which is run."""
    # No name by which it could be imported: nothing that loads a model should come upon it.
    module = ModuleType(f"<{path.name}>")
    module.__file__ = str(path)
    with in_one_line(str(path), path), _nothing_registered():
        exec(compile(source, str(path), "exec"), module.__dict__)
    found = getattr(module, name, None)
    if not inspect.isfunction(found):
        own = [
            key
            for key, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__
        ]
        raise InputError(
            f"network.architecture should name a function of {path} ({', '.join(own) or 'which has none'}), got "
            f"{name!r}"
        )
    return found


def features(body: Body, images: keras.KerasTensor, precision: str, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Features (n, k) of images, by layers that compute with `precision`; `pixels` are what the images are made of.

    Raises InputError for any other answer.
    """
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        answer = body(images)
        if isinstance(answer, keras.Model) and any(tensor is pixels for tensor in answer.inputs):
            answer = answer.output  # Keras found out where the images came from
        elif isinstance(answer, keras.Model):
            with in_one_line(f"the model of {getattr(body, '__name__', 'network')}"):
                answer = answer(images)
    finally:
        keras.config.set_dtype_policy(usual)
    if len(getattr(answer, "shape", ())) != 2:
        raise InputError(
            "a network of your own should take a Keras tensor of standardised images (n, H, W, F) and return features "
            f"(n, k), got {getattr(answer, 'shape', type(answer).__name__)}; end it in Flatten or global pooling"
        )
    return answer
