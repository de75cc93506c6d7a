"""What several commands take: settings of an experiment, and options of one meaning."""

import inspect
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer import Argument, Option
from typer.core import TyperCommand

from deepmerge.files import require_writable, require_writable_file

if TYPE_CHECKING:
    from deepmerge.config import Experiment


def data_sets() -> list[str]:
    """Names of data sets, for the shell to complete."""
    from deepmerge import config

    return config.names()


Dataset = Annotated[
    str, Argument(help="Name of experiments/<dataset>.yaml, or the path of such a file.", autocompletion=data_sets)
]
Datasets = Annotated[list[str], Argument(help="Data sets, also as one word: pristine,noisy.", autocompletion=data_sets)]
ModelOf = Annotated[
    str, Argument(help="Data set whose newest model is taken, unless --model names another.", autocompletion=data_sets)
]
Model = Annotated[str, Option(help="Run id, models:/ URI, run.json of a training, or 'last': the newest of DATASET.")]
Params = Annotated[
    str | None,
    Option(help="'tuned', the settings that tune wrote, or a YAML file of settings. They override DATASET's."),
]
Layer = Annotated[
    str | None,
    Option(
        help="Layer to look at, by name, or a convolution by its number; smoothgrad, integrated, occlusion take none."
    ),
]
METHODS = Literal["gradcam", "guided", "gradcam++", "hirescam", "layercam", "smoothgrad", "integrated", "occlusion"]
Method = Annotated[
    METHODS | None,
    Option(
        help="Default: smoothgrad, or hirescam with --layer. gradcam: as in the paper; guided: as in its notebooks."
    ),
]


def writable(folder: Path | None) -> Path | None:
    """The folder that was given, tried before any work is done. Raises InputError where it cannot be written to."""
    if folder is not None:
        require_writable(folder)
    return folder


def writable_files(paths: Path | list[Path] | None) -> Path | list[Path] | None:
    """The file or files that were given to be written, tried likewise."""
    for path in paths if isinstance(paths, list) else [paths] if paths else []:
        require_writable_file(path)
    return paths


Out = Annotated[
    Path | None,
    Option(help="Folder for a copy of the results as files, for DVC and other programs.", callback=writable),
]
Pdf = Annotated[bool, Option("--pdf", help="Write figures as PDF too.")]

Cluster = Annotated[
    str | None,
    Option(
        "--cluster",
        "--workers",
        help="Who works side by side: a number of processes here (default: one a core or a GPU), the address "
        "of a Dask scheduler, tcp://host:8786, or a YAML file of jobs for dask-jobqueue.",
        metavar="NUMBER|ADDRESS|FILE",
    ),
]

SETTINGS = "Settings (they override the experiment file; the defaults hold where it has none)"
KINDS = {int: "int", float: "float", str: "name", str | None: "name", dict[str, Any]: "{name: value}"}
# Of types that import pydantic, by their names.
MAPPINGS = {"Noise": "{name: value}", "Adapt": "{name: value}", "tuple": "number|[numbers]"}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}  # words for pydantic's names


class Command(TyperCommand):
    """A command whose options may have underscores too, as ``mlflow run -P merger_fraction=0.1`` passes them on."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell options with dashes; whatever is no option stays as it is."""
        options = {option for parameter in self.get_params(ctx) for option in parameter.opts}

        def dashed(word: str) -> str:
            name, equals, value = word.partition("=")
            option = name.replace("_", "-")
            return f"{option}{equals}{value}" if option in options else word

        return super().parse_args(ctx, [dashed(word) for word in args])


class SettingsCommand(Command):
    """A command that takes every setting of `deepmerge.config` as an option.

    `ctx.obj` holds those that were given, by name and as text; `experiment` has them checked like those of a file. The
    options are made when the command is parsed, since the schema imports pydantic.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters, then the settings."""
        return [*super().get_params(ctx), *_settings()]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Separate the settings from the parameters of the command's function."""
        rest = super().parse_args(ctx, args)
        values = {setting.name: ctx.params.pop(setting.name, None) for setting in _settings()}
        ctx.obj = {name: value for name, value in values.items() if value is not None}
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the settings below the command's own options."""
        sections = defaultdict(list)
        for parameter in self.get_params(ctx):
            title = SETTINGS if parameter in _settings() else f"{parameter.param_type_name.title()}s"
            sections[title].append(parameter.get_help_record(ctx))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def experiment(ctx: typer.Context, dataset: str, **options: Any) -> "Experiment":
    """The experiment of a data set with the settings of a `SettingsCommand`; options: as for `config.load`."""
    from deepmerge import config

    return config.load(dataset, overrides=ctx.obj, **options)


@cache
def _settings() -> Sequence[Any]:
    """Every setting as an option that takes text, described by its field of the schema."""
    from deepmerge import config

    def command() -> None: ...

    # Typer makes options from the signature of a function, and in no other public way.
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(field))
            for section in config.SECTIONS.values()
            for name, field in section.model_fields.items()
        ]
    )
    app = typer.Typer(add_completion=False)
    app.command()(command)
    parsed: Any = typer.main.get_command(app)
    return tuple(parsed.params)


def _option(field: Any) -> Any:
    """Type of the option for a field of the schema."""
    choices, default = [], field.default
    if field.annotation is bool:
        choices, default = ["true", "false"], str(default).lower()
    elif get_origin(field.annotation) is Literal:
        choices = list(get_args(field.annotation))
    notes = [f"{word} {getattr(m, key)}" for m in field.metadata for key, word in LIMITS.items() if hasattr(m, key)]
    notes = [", ".join(notes), f"default: {default}" if default is not None else ""]
    named = next((kind for name, kind in MAPPINGS.items() if name in str(field.annotation)), "path")
    kind = "|".join(choices) or KINDS.get(field.annotation, named)
    text = f"{field.description}  [{'; '.join(filter(None, notes))}]".removesuffix("  []")
    return Annotated[str | None, Option(help=text, metavar=f"<{kind}>", autocompletion=lambda: choices)]
