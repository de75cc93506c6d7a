import ast
import hashlib
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml
from mlflow.projects import _project_spec
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from deepmerge import cli

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


# MLproject and the documented commands


def command(words):
    """The click command that the words of a `deepmerge` command line name, and the words behind its name."""
    found = typer.main.get_command(cli.app)
    while hasattr(found, "commands"):
        if not words or words[0] not in found.commands:
            raise ValueError(f"deepmerge should have a command {' '.join(words[:1])!r}")
        found, words = found.commands[words[0]], words[1:]
    return found, words


def check_deepmerge(words):
    """Raise ValueError where a `deepmerge` command line names a command or an option that does not exist."""
    found, rest = command(words)
    for word in rest:
        name = word.partition("=")[0]
        if name.startswith("-") and name not in options(found):
            raise ValueError(f"deepmerge {found.name} should have an option {name}")


def options(found):
    """Every option of a click command, the settings among them."""
    return {option for parameter in found.get_params(found.context_class(found)) for option in parameter.opts}


def check_mlflow_run(words):
    """Raise ValueError where `mlflow run .` is given an entry point or a parameter that does not exist."""
    project = _project_spec.load_project(str(ROOT))
    values = {option: [b for a, b in pairwise(words) if a == option] for option in ("-e", "-P")}
    name = (values["-e"] or ["main"])[0]
    if name not in project._entry_points:
        raise ValueError(f"MLproject should have an entry point {name!r}")
    entry = project.get_entry_point(name)
    found, _ = command(entry.command.split()[3:])
    for parameter in (pair.partition("=")[0] for pair in values["-P"]):
        if parameter not in entry.parameters and f"--{parameter.replace('_', '-')}" not in options(found):
            raise ValueError(f"entry point {name} should take a parameter {parameter!r}")


def check_make(words):
    for target in (word for word in words if "=" not in word and not word.startswith("-")):
        if target not in TARGETS:
            raise ValueError(f"Makefile should have a target {target!r}")


CHECKS = {"deepmerge": check_deepmerge, "mlflow run": check_mlflow_run, "make": check_make}


def documented_commands(text):
    """Command lines in the fenced blocks of Markdown, without comments and prompts."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    lines = [part.strip() for line in lines for part in line.removeprefix("$ ").split(" && ")]
    return [line for line in lines if re.match(r"(mlflow run|deepmerge|make)( |$)", line)]


def check_documented(line):
    words = shlex.split(line, comments=True)
    name = "mlflow run" if words[0] == "mlflow" else words[0]
    CHECKS[name](words[len(name.split()) :])


def readme_commands():
    path = ROOT / "README.md"
    return documented_commands(path.read_text()) if path.exists() else []


@pytest.mark.skipif(not readme_commands(), reason="there is no README.md with commands")
@pytest.mark.parametrize("line", readme_commands() or [""])
def test_every_command_of_the_readme_exists(line):
    check_documented(line)


@pytest.mark.parametrize(
    "line",
    [
        "deepmerge trane pristine",
        "deepmerge data chek mine.yaml",
        "deepmerge evaluate noisy --modle last",
        "deepmerge train noisy --epoch 3",
        "deepmerge evaluate noisy --epochs 3",
        "mlflow run . -e tran -P dataset=noisy",
        "mlflow run . -P epoch=3  # -P epochs=3",
        "mlflow run . -e evaluate -P epochs=3",
        "make demos",
        "make data dmo",
    ],
)
def test_the_check_of_documented_commands_notices_slips(line):
    [found] = documented_commands(f"text\n```sh\n$ {line}\n```\n")
    with pytest.raises(ValueError, match=r"should (have|take)"):
        check_documented(found)


def test_documented_commands_are_found_across_lines_and_outside_them_ignored():
    text = "`make nothing`\n```\nmake data && mlflow run . \\\n  -P epochs=3\nother thing\n```\ndeepmerge nothing\n"
    assert documented_commands(text) == ["make data", "mlflow run .    -P epochs=3"]


def test_entry_points_are_deepmerge_commands_that_take_the_declared_parameters():
    project = _project_spec.load_project(str(ROOT))
    assert project.name == "deepmerge"
    assert {"main", "train", "evaluate", "gradcam"} <= set(project._entry_points)
    for name, entry in project._entry_points.items():
        needed = {name: "x" for name, parameter in entry.parameters.items() if parameter.default is None}
        line = entry.compute_command(needed, storage_dir=None)
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "deepmerge"]
        found, rest = command(words[3:])
        assert found.name == name
        check_deepmerge(words[3:])
        found.make_context(name, list(rest))  # parses, so that no required argument is missing
        assert set(re.findall(r"{(\w+)}", entry.command)) == set(entry.parameters)


def test_undeclared_parameters_become_settings_of_the_command():
    entry = _project_spec.load_project(str(ROOT)).get_entry_point("main")
    words = shlex.split(entry.compute_command({"dataset": "noisy", "batch_size": "32"}, storage_dir=None))
    found, rest = command(words[3:])
    context = found.make_context("main", list(rest))
    assert context.params["dataset"] == "noisy"
    assert context.obj == {"batch_size": "32"}


def test_every_make_target_has_help_and_is_phony():
    helped = set(re.findall(r"^([a-z-]+):.*## \S", MAKEFILE, re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split())
    assert helped == TARGETS == phony


# The environment


def pins(name):
    """Versions by package name, of a file that holds nothing but exact pins."""
    found = {}
    for line in (ROOT / name).read_text().splitlines():
        requirement = Requirement(line)
        assert requirement.url is None, line
        [pin] = requirement.specifier
        assert pin.operator == "==", line
        key = canonicalize_name(requirement.name)
        assert key not in found, line
        found[key] = pin.version
    return found


@pytest.mark.parametrize(
    ("name", "extras"), [("requirements.txt", []), ("requirements-dev.txt", PROJECT["optional-dependencies"]["dev"])]
)
def test_requirements_pin_every_dependency_to_a_version_that_satisfies_it(name, extras):
    pinned = pins(name)
    for requirement in map(Requirement, [*PROJECT["dependencies"], *extras]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_the_development_pins_agree_with_the_others():
    users, developers = pins("requirements.txt"), pins("requirements-dev.txt")
    assert {name: developers.get(name) for name in users} == users


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "conda.yaml", "pyproject.toml"])
def test_no_file_of_the_environment_names_an_index_or_a_host(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"https?:|file:|git\+|index-url|find-links|trusted-host|^-", text, re.MULTILINE)


def test_conda_yaml_holds_the_python_of_the_pins_and_the_pins_alone():
    text = (ROOT / "conda.yaml").read_text()
    content = yaml.safe_load(text)
    python, pip, packages = content["dependencies"]
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    assert set(re.findall(r"--python-version (\S+)", MAKEFILE)) == {version}
    assert (pip, packages) == ("pip", {"pip": ["-r requirements.txt"]})
    digest = hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()
    assert f"# requirements.txt sha256: {digest}" in text.splitlines(), "run 'make lock'"


def test_no_other_file_describes_the_environment():
    assert not [name for name in ("python_env.yaml", "uv.lock", "environment.yml") if (ROOT / name).exists()]


# The arrows of DESIGN.md

# What each room may import besides itself and the ground; DESIGN.md draws it.
GROUND = {"errors", "files", "progress", "estimate", "cluster", "closure", "loading"}
BELOW_JOBS = {"model", "analysis", "tracking", "data", "plots", "config"}
MAY_IMPORT = {
    "__main__": {"cli"},
    "cli": {"report", "studies", "jobs"} | BELOW_JOBS,
    "notebook": {"jobs"} | BELOW_JOBS,
    "report": {"studies", "jobs"} | BELOW_JOBS,
    "studies": {"jobs"} | BELOW_JOBS,
    "jobs": BELOW_JOBS,
    "tracking": {"config"},
    "analysis": {"data", "config"},
    "model": {"data", "config"},
    "data": {"config"},
    "plots": set(),
    "config": set(),
    **{name: set() for name in GROUND},
}
SCIENCE = {"tensorflow", "keras", "sklearn", "scipy", "astropy", "matplotlib"}


def imports(source):
    """Dotted names of all modules that Python source imports, also inside functions and by import_module."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports should be absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add(ast.literal_eval(node.args[0]))
    return found


MODULES = {
    str(path.relative_to(ROOT)): imports(path.read_text())
    for path in sorted((ROOT / "deepmerge").rglob("*.py"))
    if path != ROOT / "deepmerge" / "__init__.py"
}


def room(name):
    return Path(name).parts[1].removesuffix(".py")


def rooms_imported(names):
    return {name.split(".")[1] for name in names if name.startswith("deepmerge.")}


def test_imports_are_read_wherever_they_stand():
    source = (
        "import a.b\nfrom c import d\ndef f():\n    from deepmerge.model import x\n    importlib.import_module('e')\n"
    )
    assert imports(source) == {"a.b", "c.d", "deepmerge.model.x", "e"}


@pytest.mark.parametrize("name", MODULES)
def test_arrows_run_down_only(name):
    own = room(name)
    assert own in MAY_IMPORT, "a new room needs its place in DESIGN.md and here"
    assert rooms_imported(MODULES[name]) <= {own} | MAY_IMPORT[own] | GROUND


def test_the_upper_rooms_use_those_below_so_that_the_arrows_mean_something():
    def used_by(own):
        return set().union(*(rooms_imported(names) for name, names in MODULES.items() if room(name) == own))

    assert used_by("cli") >= {"report", "studies", "jobs"}
    assert used_by("report") >= {"studies", "jobs"}
    assert used_by("studies") >= {"jobs"}
    assert used_by("jobs") >= BELOW_JOBS


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) == "tracking"])
def test_tracking_knows_no_science(name):
    assert not {module.split(".")[0] for module in MODULES[name]} & SCIENCE


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) != "tracking"])
def test_tracking_alone_knows_mlflow_and_optuna(name):
    assert not {module.split(".")[0] for module in MODULES[name]} & {"mlflow", "optuna"}
