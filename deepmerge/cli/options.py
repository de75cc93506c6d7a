"""What several commands take: settings of an experiment, and options of one meaning."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

Dataset = Annotated[str, typer.Argument(help="Name of experiments/<dataset>.yaml, or the path of such a file.")]
ModelOf = Annotated[str, typer.Argument(help="Data set whose newest model is meant, unless --model says which.")]
Model = Annotated[
    str, typer.Option(help="Run id, models:/ URI, run.json of a training, or 'last': the newest of DATASET.")
]
Params = Annotated[
    str | None,
    typer.Option(help="'tuned': the settings that tune found; or a file of such settings. They win over the file's."),
]
Layer = Annotated[str | None, typer.Option(help="Convolution to explain, by name or number; default: the last.")]
Method = Annotated[str | None, typer.Option(help="hirescam (default), or gradcam as in the paper.")]
Out = Annotated[Path | None, typer.Option(help="Folder for results that other programs read, DVC among them.")]
Pdf = Annotated[bool, typer.Option("--pdf", help="Write figures as PDF too.")]


class Command(TyperCommand):
    """A command whose options may have underscores too, as ``mlflow run -P merger_fraction=0.1`` hands them on."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spell the command's own options with dashes."""
        return super().parse_args(ctx, [self.spelled(word) for word in args])

    def spelled(self, word: str) -> str:
        """The option as the parser knows it; any other word as it is."""
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        return f"{dashed}{equals}{value}" if dashed in self.own_options() else word

    def own_options(self) -> set[str]:
        """Options that are no settings."""
        return {option for parameter in self.params for option in parameter.opts} | {"--help"}


class SettingsCommand(Command):
    """A command that takes every setting of `deepmerge.config` as an option, and lists them in its help.

    They come as ``--batch-size 32``, ``--batch_size 32`` (from ``mlflow run -P``) or ``--batch-size=32`` and arrive in
    ``ctx.obj`` as strings: the configuration alone knows names, types, ranges and defaults.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take out the settings before the parser sees the command's own options."""
        ctx.obj, rest = settings([self.spelled(word) for word in args], self.own_options())
        return super().parse_args(ctx, rest)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List the settings behind the command's own options."""
        from deepmerge import config

        fields = [item for section in config.SECTIONS.values() for item in section.model_fields.items()]
        with formatter.section(
            "Settings (they win over the experiment file; in brackets what holds when neither says)"
        ):
            formatter.write_dl(
                [
                    (f"--{name.replace('_', '-')} VALUE", f"{field.description} [{field.default}]")
                    for name, field in fields
                ]
            )


def settings(words: Sequence[str], own: Container[str]) -> tuple[dict[str, str], list[str]]:
    """Part command-line words into settings, by name, and the rest: options in `own` and words without dashes."""
    from deepmerge.errors import InputError

    found, rest = {}, []
    coming = iter(words)
    for word in coming:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in own:
            rest.append(word)
            continue
        given = value if equals else next(coming, None)
        if given is None:
            raise InputError(f"settings should look like --epochs 3, got {word!r}")
        found[name[2:].replace("-", "_")] = given
    return found, rest
