"""The package as a user without a checkout has it: built as a wheel and installed, in an empty folder."""

import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import BIN, ROOT, environment

pytestmark = pytest.mark.slow

HEAVY = ["tensorflow", "keras", "mlflow", "pandas", "numpy", "matplotlib", "sklearn", "pydantic", "typer"]


def run(program, *words):
    done = subprocess.run([BIN / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, since setuptools leaves its build/ beside what it builds
    for name in ("deepmerge", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run("uv", "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, source)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel, and all that it depends on from this one; its folder of commands."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    run("uv", "pip", "install", "--offline", "--no-deps", "--python", folder / "bin" / "python", wheel)
    [packages] = (folder / "lib").glob("python*/site-packages")
    # Found after the wheel, and without this environment's .pth files, one of which names the checkout.
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    return folder / "bin"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture
def succeed(installed, here):
    def succeed(program, *words):
        done = subprocess.run(
            [str(installed / program), *words],
            cwd=here,
            env=environment(PATH=f"{installed}:/usr/bin:/bin"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return succeed


def test_the_wheel_holds_the_experiments_and_what_pages_are_made_of(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    others = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "deepmerge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert others <= held
    assert {f"deepmerge/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")} <= held
    assert not [name for name in held if name.startswith(("tests", "benchmarks", "experiments"))]


def test_the_package_is_the_installed_one_and_imports_nothing_heavy(succeed, installed):
    code = f"import sys, deepmerge; print(deepmerge.__file__, [name for name in {HEAVY} if name in sys.modules])"
    place, imported = succeed("python", "-c", code).rstrip().split(" ", 1)
    assert Path(place).is_relative_to(installed.parent)
    assert imported == "[]"


def test_the_demo_runs_in_an_empty_folder(succeed, here):
    assert succeed("deepmerge", "--version").split(".")[0].isdecimal()
    succeed("deepmerge", "data", "simulate", "--galaxies", "60", "--merger-fraction", "0.6")
    shown = succeed("deepmerge", "main", "pristine", "--epochs", "1")
    assert "test_auc" in shown
    assert (here / "mlflow.db").exists()
    assert not (here / "experiments").exists()
