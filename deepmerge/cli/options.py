"""What several commands take: settings of an experiment, and options of one meaning."""

import inspect
from collections.abc import Container, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand


def data_sets(incomplete: str) -> list[str]:
    """Names of data sets that begin like `incomplete`, for the shell."""
    from deepmerge import config

    return [name for name in config.names() if name.startswith(incomplete)]


Dataset = Annotated[
    str,
    typer.Argument(
        help="Name of experiments/<dataset>.yaml, or the path of such a file.",
        autocompletion=data_sets,
    ),
]
Datasets = Annotated[
    list[str],
    typer.Argument(help="Data sets, also as one word: pristine,noisy.", autocompletion=data_sets),
]
ModelOf = Annotated[
    str,
    typer.Argument(
        help="Data set whose newest model is taken, unless --model names another.",
        autocompletion=data_sets,
    ),
]
Model = Annotated[
    str, typer.Option(help="Run id, models:/ URI, run.json of a training, or 'last': the newest of DATASET.")
]
Params = Annotated[
    str | None,
    typer.Option(help="'tuned', the settings that tune wrote, or a YAML file of settings. They override DATASET's."),
]
Layer = Annotated[
    str | None, typer.Option(help="Convolutional layer to explain, by name or number; default: the last.")
]
Method = Annotated[
    Literal["hirescam", "gradcam"] | None, typer.Option(help="Default: hirescam; gradcam as in the paper.")
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for a copy of the results as files, for DVC and other programs.")
]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write figures as PDF too.")]


# How the help words the limits of a setting, by pydantic's names.
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Command(TyperCommand):
    """A command whose options may have underscores too, as ``mlflow run -P merger_fraction=0.1`` hands them on."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell the options that there are with dashes."""
        options = {option for parameter in self.get_params(ctx) for option in parameter.opts}
        return super().parse_args(ctx, [_dashed(word, options) for word in args])


def _dashed(word: str, options: Container[str]) -> str:
    """The option that `word` means but for its underscores; any other word as it is."""
    name, equals, value = word.partition("=")
    dashed = name.replace("_", "-")
    return f"{dashed}{equals}{value}" if dashed in options else word


class SettingsCommand(Command):
    """A command that takes every setting of `deepmerge.config` as an option.

    The values arrive in ``ctx.obj``, by name and as text: `config.load` checks them like those of a file. The options
    are made when the command is parsed, since the schema imports pydantic.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, then the settings."""
        return [*super().get_params(ctx), *_settings()]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Part the settings from what the command's function takes."""
        rest = super().parse_args(ctx, args)
        values = {setting.name: ctx.params.pop(setting.name, None) for setting in _settings()}
        ctx.obj = {name: value for name, value in values.items() if value is not None}
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the settings below the command's own options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            kind = f"{parameter.param_type_name.title()}s"
            title = (
                "Settings (they override the experiment file; the defaults hold where it has none)"
                if parameter in _settings()
                else kind
            )
            if record := parameter.get_help_record(ctx):
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


@cache
def _settings() -> Sequence[Any]:
    """Every setting as an option that takes text, described by its field of the schema."""
    from deepmerge import config

    fields = {name: field for section in config.SECTIONS.values() for name, field in section.model_fields.items()}

    def command() -> None: ...

    # Typer reads the signature of a function: that is its public way to make options.
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(field))
        for name, field in fields.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(command)
    made: Any = typer.main.get_command(app)
    return tuple(made.params)


def _option(field: Any) -> Any:
    """Type of the option for a field of the schema."""
    if field.annotation is bool:
        choices, default = ["true", "false"], str(field.default).lower()
    else:
        choices = list(get_args(field.annotation)) if get_origin(field.annotation) is Literal else []
        default = field.default
    limits = [
        f"{word} {getattr(limit, key)}"
        for limit in field.metadata
        for key, word in LIMITS.items()
        if hasattr(limit, key)
    ]
    notes = [", ".join(limits), f"default: {default}" if default is not None else ""]
    kind = "|".join(choices) or {int: "int", float: "float"}.get(field.annotation, "path")
    return Annotated[
        str | None,
        typer.Option(
            help=f"{field.description}  [{'; '.join(filter(None, notes))}]".removesuffix("  []"),
            metavar=f"<{kind}>",
            autocompletion=lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)],
        ),
    ]
