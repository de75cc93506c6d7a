"""Directives that write the reference of settings and commands from the code, so that it cannot be out of date."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer
from docutils import nodes
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from deepmerge import config
from deepmerge.cli.options import LIMITS
from deepmerge.cli.program import app

# What a value of a type is called, the first that fits.
KINDS = {
    "Columns": "mapping",
    "Noise": "mapping",
    "Adapt": "mapping",
    "list": "list",
    "tuple[typing.Literal": "list of words",
    "Range": "mapping",
    "tuple": "list of numbers",
    "Path": "path",
    "bool": "`true`, `false`",
    "int": "whole number",
    "float": "number",
}


class Settings(SphinxDirective):
    """Tables of all sections of an experiment file: name, values, default, meaning."""

    def run(self) -> list[nodes.Node]:
        """Build the nodes."""
        return self.parse_text_to_nodes("\n".join(_settings()), allow_section_headings=True)


class Commands(SphinxDirective):
    """Usage, arguments and options of every command."""

    def run(self) -> list[nodes.Node]:
        """Build the nodes."""
        program: Any = typer.main.get_command(app)
        return self.parse_text_to_nodes("\n".join(_commands(program, "deepmerge")), allow_section_headings=True)


def _settings() -> Iterator[str]:
    for name, section in config.Experiment.model_fields.items():
        kind: Any = section.annotation
        if not hasattr(kind, "model_fields") or name == "params":
            continue
        yield f"## `{name}`\n\n{kind.__doc__}\n"
        yield from _table(
            ("setting", "values", "default", "meaning"),
            [
                (f"`{key}`", _values(field), _default(field), field.description or "")
                for key, field in kind.model_fields.items()
            ],
        )


def _values(field: Any) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    limits = [
        f"{word} {getattr(limit, key)}"
        for limit in field.metadata
        for key, word in LIMITS.items()
        if hasattr(limit, key)
    ]
    return ", ".join([next((words for kind, words in KINDS.items() if kind in str(field.annotation)), "text"), *limits])


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    match field.default:
        case None | BaseModel():
            return "–"
        case bool():
            return f"`{str(field.default).lower()}`"
        case dict() | tuple():
            return ", ".join(f"`{one}`" for one in field.default)
    return f"`{field.default}`"


def _commands(command: Any, path: str) -> Iterator[str]:
    for name, subcommand in getattr(command, "commands", {}).items():
        if not subcommand.hidden:
            yield from _commands(subcommand, f"{path} {name}")
    if hasattr(command, "commands"):
        return
    context = command.make_context(path, [], resilient_parsing=True)
    settings = {name for section in config.SECTIONS.values() for name in section.model_fields}
    own = [one for one in command.get_params(context) if one.name not in {*settings, "help"}]
    yield f"## `{path}`\n"
    yield f"```text\n{context.command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield f"{inspect.cleandoc(command.help or '').replace('<', '&lt;')}\n"
    records = [one.get_help_record(context) for one in own]
    rows = [(f"`{name}`", text.replace("<", "&lt;")) for name, text in records]
    yield from _table(("argument or option", "meaning"), rows)
    if len(own) + 1 < len(command.get_params(context)):
        yield "All [settings](settings.md) of `split`, `network` and `training` are options too.\n"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if rows:
        for cells in (header, ("---",) * len(header), *rows):
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"
        yield ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the directives."""
    app.add_directive("settings", Settings)
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
