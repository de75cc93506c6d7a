"""Settings in YAML files: numbers as they look, every key once, and nothing that expands without end.

Plain words mean what YAML 1.2 says (its core schema), as they do to DVC. PyYAML goes by YAML 1.1, where ``1e-3`` is
text, ``012`` is ten, ``1:30`` is ninety and ``no`` is false.
"""

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from deepmerge.errors import InputError

LARGEST = 100_000  # bytes of a file; an experiment has some five hundred
DEEPEST = 20  # levels, what aliases stand for counted
MOST = 200_000  # characters and values, what aliases stand for counted
SHOWN = 120  # characters of a wrong value that an error shows

_TAG = "tag:yaml.org,2002:"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
# In the order in which they are tried; by the characters that a word of the kind can begin with.
_WORDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (rf"{_FLOAT}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    "merge": (r"<<", ["<"]),
}


def read(path: Path, what: str) -> dict[str, Any]:
    """Content of a YAML file that should be a mapping, described as `what` in the InputError where it is not.

    Raises InputError, with the line where it is known, for a file that cannot be read or is no YAML, for a key that
    stands twice or is no text, and for what is too large, too deep or expands to too much.
    """
    text = _text(path)
    try:
        content = _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        spaces = "; YAML is indented with spaces, not tabs" if "'\\t'" in problem else ""
        raise InputError(f"{where}: should be YAML, but: {problem}{spaces}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(f"{path}, line {line}: should be text, got the character {error.character:#x}") from None
    except (ValueError, OverflowError) as error:  # of a number behind \\U that is no character
        raise InputError(f"{path}: should be YAML, but: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold {what}, got {'nothing' if content is None else shown(content)}")
    return content


def value(text: str) -> Any:
    """A value as it stands in a file of settings, from text on the command line; text that is no YAML stays text."""
    try:
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError):
        return text


def written(content: dict[str, Any]) -> str:
    """Content as YAML that reads the same by either version of it."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def shown(value: Any) -> str:
    """A wrong value as an error shows it: in one line, and not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} should be a file that can be read, but: {error.strerror or error}") from None
    if len(data) > LARGEST:
        raise InputError(f"{path} should be a file of settings, of at most {LARGEST} bytes, got a larger one")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: should be text in UTF-8, got the byte {data[error.start]:#x}; save it as UTF-8"
        ) from None


class _Loader(yaml.SafeLoader):
    """PyYAML's, for plain values alone, words by YAML 1.2, and keys that are text and stand once."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._extents: dict[int, tuple[int, int]] = {}  # size and depth of each complete node

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._extents:
                raise _problem("an anchor should not hold itself", mark)
            return node
        self._level += 1
        if self._level > DEEPEST:
            raise _problem(f"settings should lie within {DEEPEST} levels", mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        self._extents[id(node)] = size, depth = self._extent(node)
        if size > MOST or depth > DEEPEST:
            raise _problem("aliases should not stand for so much", mark)
        return node

    def _extent(self, node: Any) -> tuple[int, int]:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value), 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        inner = [self._extents[id(part)] for part in parts]
        return 1 + sum(size for size, _ in inner), 1 + max((depth for _, depth in inner), default=0)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in (f"{_TAG}str", f"{_TAG}merge"):
                what = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a mapping"
                raise _problem(f"keys should be names, got {what}", key.start_mark)
            if key.value in lines:
                other = lines[key.value]
                raise _problem(f"the key {shown(key.value)} stands in line {other} too; keep one", key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return node

    def construct_int(self, node: Any) -> int:
        """A whole number; leading zeros mean nothing."""
        text = self.construct_scalar(node)
        try:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:  # it has thousands of digits, or its tag says that it is a number and it is none
            raise _problem(f"should be a whole number, got {shown(text)}", node.start_mark) from None

    def construct_float(self, node: Any) -> float:
        """A number."""
        text = self.construct_scalar(node)
        try:
            return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:
            raise _problem(f"should be a number, got {shown(text)}", node.start_mark) from None


class _Dumper(yaml.SafeDumper):
    """PyYAML's, which also quotes text that YAML 1.2 would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _WORDS.items():
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.yaml_constructors = {
    **{f"{_TAG}{kind}": getattr(_Loader, f"construct_yaml_{kind}") for kind in ("null", "bool", "str", "seq", "map")},
    f"{_TAG}int": _Loader.construct_int,
    f"{_TAG}float": _Loader.construct_float,
    None: _Loader.construct_undefined,
}
