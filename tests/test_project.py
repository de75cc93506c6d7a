import ast
import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


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
GROUND = {"errors", "files", "progress", "estimate", "cluster", "closure", "loading", "stopping"}
BELOW_JOBS = {"model", "analysis", "tracking", "data", "plots", "gallery", "config"}
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
    "gallery": set(),
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


def test_the_citation_names_the_version_and_the_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_workflow_runs_the_gate_and_the_gate_builds_the_docs():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = {job: [step.get("run") for step in content["steps"]] for job, content in workflow["jobs"].items()}
    assert "bash .ci/run" in steps["gate"]
    assert any("pip-audit" in str(step) for step in steps["audit"])
    assert "\nmake docs\n" in (ROOT / ".ci" / "run").read_text()


def test_every_page_of_the_docs_is_in_a_table_of_contents():
    docs = ROOT / "docs"
    pages = {str(path.relative_to(docs).with_suffix("")) for path in docs.rglob("*.md") if "_build" not in path.parts}
    listed = {"index"}
    for index in docs.rglob("index.md"):
        [block] = re.findall(r"```{toctree}\n(?::.*\n)*\n?([^`]*)```", index.read_text())
        names = [re.sub(r".*<(.*)>", r"\1", line) for line in block.split("\n") if line]
        listed |= {str((index.parent / name).relative_to(docs)) for name in names}
    assert pages == listed


def test_readme_fits_on_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
