"""Which files of this package a result depends on: the modules that compute it, and all that they import."""

import ast
import fnmatch
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def closure(modules: Iterable[str], without: Iterable[str] = (), package: Path = PACKAGE) -> list[str]:
    """Files of `modules` and of all that these import of `package`, as ``deepmerge/data/splits.py``, sorted.

    An import counts wherever it stands, in a function too. The ``__init__`` of a package counts where it does more than
    re-export names, or where a name is imported from it. Files like one of the patterns `without` are left out, with
    what these alone import. Raises ValueError for a module outside the package.
    """
    patterns, files, waiting = list(without), set(), list(modules)
    while waiting:
        module = waiting.pop()
        path = _file(module, package)
        if path is None:
            raise ValueError(f"modules should be of {package.name}, got {module!r}")
        name = path.relative_to(package.parent).as_posix()
        if name in files or any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
            continue
        files.add(name)
        waiting += _imports(path, module, package)
        waiting += [parent for parent in _parents(module) if _does_something(_file(parent, package))]
    return sorted(files)


def fingerprint(files: Iterable[str], package: Path = PACKAGE) -> str:
    """What tells these files, named as `closure` does, from others: 16 hexadecimal digits of names and contents."""
    digest = hashlib.sha256()
    for name in sorted(files):
        content = (package.parent / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _imports(path: Path, module: str, package: Path) -> Iterator[str]:
    """Modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, path)
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [str(word.value) for word in node.args[:1] if isinstance(word, ast.Constant)]
        else:
            continue
        for name in names:
            if name.split(".")[0] == package.name:
                yield name if _file(name, package) else name.rpartition(".")[0]


def _absolute(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The dotted name of what a file imports from, which may be relative to its own place."""
    if not node.level:
        return str(node.module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return importlib.util.resolve_name("." * node.level + (node.module or ""), package)


def _parents(module: str) -> list[str]:
    """The packages around a module but for the outermost, which imports its names only when they are used."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(2, len(parts))]


def _file(module: str, package: Path) -> Path | None:
    place = package.parent.joinpath(*module.split("."))
    candidates = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _does_something(path: Path | None) -> bool:
    """Whether the ``__init__`` of a package holds more than a docstring, imports and the list of its names."""
    if path is None:
        return False
    return not all(
        isinstance(line, ast.Import | ast.ImportFrom)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        or (isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__")
        for line in ast.parse(path.read_bytes()).body
    )
