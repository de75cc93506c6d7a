"""Which code a result depends on, and that the pipeline says the same."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deepmerge.closure import PACKAGE, closure, fingerprint
from deepmerge.jobs.tune import search

ROOT = Path(__file__).parents[1]
CLUSTER = "deepmerge/cluster/*"  # where work is done changes no result
TRIAL = "deepmerge.model.objective"


# A small package


@pytest.fixture
def package(tmp_path):
    """A function that makes a package `p` of these files and lists the closure of some of its modules."""

    def make(files, *modules, without=()):
        for name, content in {"__init__.py": "", "leaf.py": "", **files}.items():
            path = tmp_path / "p" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return [name.removeprefix("p/") for name in closure(modules, without, tmp_path / "p")]

    return make


@pytest.mark.parametrize(
    "imported",
    [
        "import p.leaf",
        "import p.leaf as other",
        "import os, p.leaf",
        "from p import leaf",
        "from p import leaf as other",
        "from p.leaf import anything",
        "from p.leaf import *",
        "from . import leaf",
        "from .leaf import anything",
        "def f():\n    from p import leaf",
        "class A:\n    def f(self):\n        if self:\n            import p.leaf",
        "try:\n    from p import leaf\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('p.leaf')",
        "from importlib import import_module\nimport_module('p.leaf')",
    ],
)
def test_an_import_counts_however_it_is_written_and_wherever_it_stands(package, imported):
    assert package({"a.py": imported, "other.py": ""}, "p.a") == ["a.py", "leaf.py"]


@pytest.mark.parametrize("text", ["import os, numpy", "from pathlib import Path", "'import p.leaf'", "# import p.leaf"])
def test_other_packages_and_words_do_not_count(package, text):
    assert package({"a.py": text}, "p.a") == ["a.py"]


def test_imports_are_followed_to_their_end_and_around_circles(package):
    files = {
        "a.py": "from p import b",
        "b.py": "from p.sub import c",
        "sub/__init__.py": "",
        "sub/c.py": "import p.a, p.leaf",
    }
    assert package(files, "p.a") == ["a.py", "b.py", "leaf.py", "sub/c.py"]
    assert package(files, "p.sub.c", "p.leaf") == ["a.py", "b.py", "leaf.py", "sub/c.py"]


def test_relative_imports_count_from_where_they_stand(package):
    files = {
        "sub/__init__.py": "from . import c\nX = 1",
        "sub/c.py": "from .. import leaf",
        "a.py": "from p.sub import X",
    }
    assert package(files, "p.a") == ["a.py", "leaf.py", "sub/__init__.py", "sub/c.py"]


HANDING_ON = '"""A list."""\nfrom p.sub.c import f\nfrom p.sub.d import g\n__all__ = ["f", "g"]\n'
SUB = {"sub/__init__.py": HANDING_ON, "sub/c.py": "", "sub/d.py": "import p.leaf"}


def test_a_list_of_names_counts_for_who_takes_a_name_from_it_and_for_no_other(package):
    assert package({**SUB, "a.py": "from p.sub import c"}, "p.a") == ["a.py", "sub/c.py"]
    everything = ["a.py", "leaf.py", "sub/__init__.py", "sub/c.py", "sub/d.py"]
    for taken in ("from p.sub import f", "import p.sub", "import importlib\nimportlib.import_module('p.sub')"):
        assert package({**SUB, "a.py": taken}, "p.a") == everything


def test_a_package_that_does_something_counts_for_all_its_modules(package):
    files = {**SUB, "sub/__init__.py": "from p import leaf\nleaf.prepare()", "a.py": "from p.sub import c"}
    assert package(files, "p.a") == ["a.py", "leaf.py", "sub/__init__.py", "sub/c.py"]


def test_what_is_left_out_takes_along_what_it_alone_imports(package):
    files = {"a.py": "from p import some_figures, b", "b.py": "", "some_figures.py": "from p import b, leaf"}
    assert package(files, "p.a", without=["*figures.py"]) == ["a.py", "b.py"]


def test_a_module_that_there_is_not_is_a_mistake(package):
    with pytest.raises(ValueError, match=r"modules should be of p, got 'p\.gone'"):
        package({}, "p.gone")


def test_the_fingerprint_follows_names_and_contents_alone(package, tmp_path):
    package({"a.py": "x = 1", "b.py": "y = 1"})

    def found(*files):
        return fingerprint([f"p/{name}" for name in files], tmp_path / "p")

    before = found("a.py", "b.py")
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert found("b.py", "a.py") == before
    package({"a.py": "x = 1y", "b.py": " = 1"})
    assert found("a.py", "b.py") != before
    package({"a.py": "x = 1", "b.py": "y = 1", "c.py": "z = 1"})
    assert found("a.py", "b.py") == before != found("a.py", "b.py", "c.py")


# The project's own code


@pytest.mark.parametrize("module", ["deepmerge.data.splits", "deepmerge.analysis.metrics", "deepmerge.config"])
def test_python_loads_nothing_of_the_package_that_the_closure_lacks(module):
    code = f"import sys, {module}; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('deepmerge')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    names = {Path(path).relative_to(ROOT).as_posix() for path in loaded.split()}
    assert {name for name in names if not name.endswith("__init__.py")} <= set(closure([module]))


def test_a_trial_depends_on_what_trains_and_scores_and_chooses_settings_and_on_no_figure():
    code = search.trial_code()
    assert {f"deepmerge/model/{name}.py" for name in ("network", "learner", "training", "prediction")} <= set(code)
    assert {f"deepmerge/tracking/{name}.py" for name in ("sampler", "studies")} <= set(code)
    assert not [name for name in code if re.search("figures|plots|jobs|studies/|analysis", name)]


@pytest.mark.parametrize(
    ("file", "is_another"),
    [
        ("model/prediction.py", True),
        ("data/released/layout.py", True),
        ("tracking/studies.py", True),
        ("tracking/sampler.py", True),
        ("plots/history.py", False),
        ("jobs/tune/figures.py", False),
        ("jobs/tune/search.py", False),
        ("cluster/crew.py", False),
        ("tracking/ui.py", False),
    ],
)
def test_a_study_is_another_one_after_an_edit_to_what_its_values_depend_on(tmp_path, file, is_another):
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))

    def found():
        chosen_by = [f"deepmerge/tracking/{name}.py" for name in ("sampler", "studies")]
        return fingerprint([*closure([TRIAL], [CLUSTER], copy), *chosen_by], copy)

    before = found()
    assert before == fingerprint(search.trial_code())
    (copy / file).write_text((copy / file).read_text() + "\n# edited\n")
    assert (found() != before) == is_another


# dvc.yaml

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MODULES = {stage: stage for stage in ("train", "evaluate")}
MODULES |= {"gradcam": "gradcam.gradcam", "promote": "promote.promote", "compare": "compare.compare"}
FIGURES = ("*/plots/*", "*figures.py")


def hands_figures_to_dvc(stage):
    return any(str(out).endswith(".png") for out in PIPELINE[stage]["outs"])


def expected(stage):
    """The code that a stage of the pipeline depends on, as dvc.yaml says in its first lines."""
    if stage == "split":
        return closure(["deepmerge.data.splits"], [CLUSTER])
    if stage == "tune":
        return search.trial_code()
    without = [CLUSTER, "deepmerge/tracking/*", *(() if hands_figures_to_dvc(stage) else FIGURES)]
    return closure([f"deepmerge.jobs.{MODULES[stage]}"], without)


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_of_the_pipeline_depends_on_the_code_that_makes_its_results_and_on_no_other(stage):
    listed = [name for name in PIPELINE[stage]["deps"] if name.startswith("deepmerge")]
    wanted = sorted(expected(stage))
    assert sorted(listed) == wanted, f"deps of {stage} in dvc.yaml should be\n      - " + "\n      - ".join(wanted)


def test_some_stages_hand_figures_to_dvc_and_some_do_not_so_that_the_rule_means_something():
    assert {stage for stage in PIPELINE if hands_figures_to_dvc(stage)} == {"gradcam", "compare"}
