"""Functions of others: their options checked, their errors told in one line."""

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import keras
from pydantic import ConfigDict, TypeAdapter, ValidationError

from deepmerge import config
from deepmerge.errors import InputError

Answer: TypeAlias = "keras.KerasTensor | keras.Model"
Body = Callable[[keras.KerasTensor], Answer]  # standardised images (n, H, W, F) -> features (n, k), or a model of these

SETTINGS = "settings"  # a parameter of this name gets the network's settings, any other an option
SHOWN = 300  # characters of somebody else's error


@contextmanager
def in_one_line(what: str, path: Path | None = None) -> Iterator[None]:
    """Raise InputError, with the line where it is of the file at `path`, for anything that the body raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        words = error.msg if isinstance(error, SyntaxError) else str(error)
        said = " ".join(words.split())
        said = said if len(said) <= SHOWN else f"{said[:SHOWN]}…"
        where = what if line is None else f"{what}, line {line}"
        raise InputError(f"{where}: {type(error).__name__}: {said}") from error


def with_options(
    function: Callable[..., Answer], settings: config.Network, name: str, kept: Mapping[str, Any] | None = None
) -> Body:
    """The function of images alone, with the options of the settings, checked; `kept` are arguments beside these.

    Raises InputError for an option that is unknown, missing or of another type.
    """
    kept = dict(kept or {})
    parameters = list(inspect.signature(function).parameters.values())[1:]  # the first takes the images
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and parameter.name not in kept
    }
    if named.pop(SETTINGS, None) is not None:
        kept[SETTINGS] = settings
    for option in settings.options:
        if option not in named and (not takes_any or option in kept):
            raise InputError(f"network.options of {name} should be among {', '.join(named) or 'none'}, got {option!r}")
    for option, parameter in named.items():
        if option not in settings.options and parameter.default is parameter.empty:
            raise InputError(f"network.options should give {option}, which {name} takes, got {settings.options}")
    options = {option: _checked(option, value, named.get(option), name) for option, value in settings.options.items()}

    def build(images: keras.KerasTensor) -> Answer:
        return function(images, **kept, **options)

    build.__name__ = getattr(function, "__name__", "network")
    return build


def _checked(option: str, value: Any, parameter: inspect.Parameter | None, name: str) -> Any:
    """The value of an option as its parameter is annotated or, without that, as its default is."""
    kind: Any = Any if parameter is None else parameter.annotation
    if parameter is not None and kind is parameter.empty:
        kind = type(parameter.default) if type(parameter.default) in (bool, int, float, str) else Any
    if isinstance(kind, str):  # an annotation that is not evaluated; those of plain values are told all the same
        kind = {"bool": bool, "int": int, "float": float, "str": str}.get(kind, Any)
    if isinstance(value, bool) and kind in (int, float):
        raise InputError(f"network.options.{option} of {name} should be a number, got {value}")
    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Input ")
        raise InputError(f"network.options.{option} of {name} {said}, got {value!r}") from None
