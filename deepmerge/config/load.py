"""Experiments from YAML files, overridden by the command line; and rebuilt from the records of runs."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from deepmerge.config import yaml_file
from deepmerge.config.schema import SECTIONS, Data, Experiment, Network, Promotion, Settings, Study, Training, explain
from deepmerge.config.yaml_file import shown
from deepmerge.errors import InputError

Section = TypeVar("Section", bound=Settings)

EXPERIMENTS = Path("experiments")
PACKAGED = Path(__file__).parents[1] / "experiments"  # the project's own, there when it is installed from a wheel
TUNED = "tuned"  # name of the settings that `tune` finds
# Names become those of runs, registered models, files and options of the command line. ASCII alone, since an umlaut can
# be one character or two that look alike.
NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
NAMES = "1 to 100 letters (a-z, A-Z), digits, '_', '-' and '.', not '.' or '-' at its beginning nor '.' at its end"


def load(
    dataset: str,
    overrides: Mapping[str, Any] | None = None,
    params: str | None = None,
    tuning: Mapping[str, Any] | None = None,
) -> Experiment:
    """Read ``experiments/<dataset>.yaml``, or the experiment file that `dataset` is a path to.

    A name that has no file there is looked up among the project's own experiments, which the installed package holds.
    Paths in such a file start at the working directory's ``experiments/``, whether it is there or not.
    `params` names settings that override the file's: ``tuned`` is what `tune` wrote to ``tuned/<dataset>.yaml`` beside
    it; a path is such a file. `overrides` maps flat setting names (``epochs``) to values that override both, `tuning`
    likewise for the section of that name; None values are ignored. Raises InputError for an unknown data set, key or
    value, and for a name (by default the file's) that NAME does not match.
    """
    path = _experiment_file(dataset)
    content = yaml_file.read(path, "settings such as 'data:' and 'training:'")
    merged = {"name": path.stem, **content}
    _check_name(merged["name"], path, "name" in content)
    named: dict[str, Any] = {}
    source = str(path)
    if params is not None:
        file = params_file(dataset, params)
        named, study = read_params(file)
        source = f"{path} with {file}"
        fingerprint = study.get("data_fingerprint")
        merged["params"] = {"name": params, "study": study.get("name"), "data_fingerprint": fingerprint}
    for name, value in {**named, **(overrides or {})}.items():
        if value is not None:
            _put(merged, _section_of(name, f"{source}: " if name in named else ""), name, value)
    for name, value in (tuning or {}).items():
        if value is not None:
            _put(merged, "tuning", name, value)
    experiment = _validated(merged, source)
    # Paths in the file start at its folder, paths in overrides at the working directory.
    data, split = experiment.data.below(_folder(path)), experiment.split
    if split.split_table and "split_table" in (content.get("split") or {}) and not (overrides or {}).get("split_table"):
        split = split.model_copy(update={"split_table": _folder(path) / split.split_table})
    if path.parent == PACKAGED:  # experiments/../data is no place where there is no experiments/
        files = {name: os.path.normpath(file) for name, file in data if isinstance(file, Path)}
        data = Data.model_validate({**dict(data), **files})
    return experiment.model_copy(update={"data": data, "split": split})


def from_record(record: Mapping[str, Any], source: str) -> Experiment:
    """Rebuild an experiment from `Experiment.model_dump` output, as stored with a run; `source` names it in errors."""
    return _validated(dict(record), source)


def name_of(dataset: str) -> str:
    """The name under which runs of `dataset` are tracked, even if its experiment file is gone.

    Raises InputError for a file that exists and is wrong, and for a name that NAME does not match.
    """
    if _is_file(_path(dataset)):
        return load(dataset).name
    name = Path(dataset).stem if dataset.endswith((".yaml", ".yml")) else dataset
    if not NAME.fullmatch(name):
        raise _unknown(dataset)
    return name


def names() -> list[str]:
    """Names that `load` accepts here: the stems of ``experiments/*.yaml``, and those of the installed package."""
    return sorted({path.stem for folder in (EXPERIMENTS, PACKAGED) for path in folder.glob("*.yaml")})


def params_file(dataset: str, params: str) -> Path:
    """Path of the settings called `params` of a data set: ``<params>/<dataset>.yaml`` beside its experiment file."""
    path = Path(params)
    if path.suffix in (".yaml", ".yml"):
        return path
    experiment = _experiment_file(dataset)
    return _folder(experiment) / params / f"{experiment.stem}.yaml"


def read_params(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The flat settings below ``settings`` in a file that `tune` wrote, and its ``study`` section, empty without one.

    Raises InputError if there is no such file.
    """
    if not path.is_file():
        raise InputError(
            f"params should be 'tuned' or the path of a YAML file, with settings at {path}, where there is no file; "
            f"'deepmerge tune' makes one"
        )
    content = yaml_file.read(path, "'settings:' with names and values, as 'deepmerge tune' writes it")
    settings, study = content.get("settings"), content.get("study") or {}
    if not isinstance(settings, dict) or not isinstance(study, dict):
        raise InputError(f"{path} should hold 'settings:' with names and values, got {shown(settings)}")
    return settings, study


def _put(content: dict[str, Any], section: str, name: str, value: Any) -> None:
    inner = content.get(section) or {}
    # Anything but a mapping is left for the check to refuse.
    content[section] = {**inner, name: value} if isinstance(inner, dict) else inner


def _experiment_file(dataset: str) -> Path:
    path = _path(dataset)
    if not _is_file(path):
        raise _unknown(dataset)
    return path


def _path(dataset: str) -> Path:
    path = Path(dataset)
    if path.suffix in (".yaml", ".yml"):
        return path
    path = EXPERIMENTS / f"{dataset}.yaml"
    packaged = PACKAGED / f"{dataset}.yaml"
    return packaged if not _is_file(path) and _is_file(packaged) else path


def _folder(path: Path) -> Path:
    """Where what belongs to an experiment file lies: beside it, but for one of the package in the working directory."""
    return EXPERIMENTS if path.parent == PACKAGED else path.parent


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for a file, or a folder that one may not look into
        return False


def _unknown(dataset: str) -> InputError:
    choices = ", ".join(names()) or f"none found in {EXPERIMENTS.absolute()}"
    return InputError(f"dataset should be one of: {choices} (or the path of an experiment file), got {shown(dataset)}")


def _check_name(name: Any, path: Path, in_file: bool) -> None:
    if isinstance(name, str) and NAME.fullmatch(name):
        return
    if in_file and not isinstance(name, str):
        raise InputError(f"{path}: 'name' should be text, got {shown(name)}; put it in quotes")
    other = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip(".-") or "my-survey"
    subject = "'name' should be" if in_file else "the file's name is the experiment's, which should be"
    mend = f"write 'name: {other}'" + ("" if in_file else " into the file, or rename it")
    raise InputError(f"{path}: {subject} {NAMES}, got {shown(name)}; {mend}")


def _section_of(name: str, where: str) -> str:
    for section, settings in SECTIONS.items():
        if name in settings.model_fields:
            return section
    choices = ", ".join(sorted(key for settings in SECTIONS.values() for key in settings.model_fields))
    raise InputError(f"{where}setting should be one of: {choices}; got {shown(name)}")


def _validated(content: dict[str, Any], source: str) -> Experiment:
    try:
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(explain(e) for e in error.errors())}") from None


def sections(settings: Mapping[str, Any]) -> tuple[Network, Training]:
    """The sections of network and training from settings by their flat names, the others by default.

    Raises InputError for an unknown name or a wrong value.
    """
    known = {*Network.model_fields, *Training.model_fields}
    for name in settings:
        if name not in known:
            raise InputError(f"setting should be one of: {', '.join(sorted(known))}; got {shown(name)}")

    def section(home: type[Section]) -> Section:
        return checked(home, {name: value for name, value in settings.items() if name in home.model_fields})

    return section(Network), section(Training)


def checked(section: type[Section], values: Mapping[str, Any]) -> Section:
    """A section of settings from its values. Raises InputError for a wrong one."""
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        raise InputError("; ".join(explain(entry) for entry in error.errors())) from None


def study_of(dataset: str, **asked: Any) -> Study:
    """What studies of a data set ask for: `asked` where that is not None, else its experiment file, else defaults."""
    return checked(Study, {**(dict(load(dataset).study) if _is_file(_path(dataset)) else {}), **_given(asked)})


def promotion_of(dataset: str, **asked: Any) -> Promotion:
    """What decides promotions of a data set, as `study_of` has it for studies."""
    return checked(Promotion, {**(dict(load(dataset).promotion) if _is_file(_path(dataset)) else {}), **_given(asked)})


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}
