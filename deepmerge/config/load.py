"""Experiments from YAML files, overridden by the command line; and rebuilt from the records of runs."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from deepmerge.config import yaml_file
from deepmerge.config.network import OPTION, Network
from deepmerge.config.schema import SECTIONS, Experiment, Promotion, Study, explain
from deepmerge.config.section import Settings
from deepmerge.config.training import Training
from deepmerge.config.yaml_file import shown
from deepmerge.errors import InputError

Section = TypeVar("Section", bound=Settings)

EXPERIMENTS = Path("experiments")
PACKAGED = Path(__file__).parents[1] / "experiments"  # the project's own, there when it is installed from a wheel
# What was done before there was a setting for it, where that is not the default.
BEFORE: dict[str, dict[str, Any]] = {"network": {"symmetry": "none"}, "training": {"keep": "best"}}
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

    A name without a file there is looked up among the project's own experiments, which the installed package holds;
    paths in these start at the working directory's ``experiments/``, whether it is there or not.
    `params` names settings that override the file's: ``tuned`` is what `tune` wrote to ``tuned/<dataset>.yaml`` beside
    it; a path is such a file. `overrides` maps flat setting names (``epochs``) to values that override both, `tuning`
    likewise for the section of that name; None values are ignored. Raises InputError for an unknown data set, key or
    value, and for a name (by default the file's) that NAME does not match.
    """
    path = _experiment_file(dataset)
    folder, source = _folder(path), str(path)
    content = yaml_file.read(path, "settings such as 'data:' and 'training:'")
    merged = {"name": path.stem, **content}
    _check_name(merged["name"], path, "name" in content)
    overrides = _without_none(overrides or {})
    tuned: dict[str, Any] = {}
    if params is not None:
        file = params_file(dataset, params)
        tuned, study = _read_params(file)
        source = f"{path} with {file}"
        merged["params"] = {
            "name": params,
            "study": study.get("name"),
            "data_fingerprint": study.get("data_fingerprint"),
        }
    for name, value in {**_without_none(tuned), **overrides}.items():
        section = _owner(name, SECTIONS, f"{source}: " if name in tuned else "")
        merged[section] = _with(merged.get(section), {name: value})
    if tuning:
        merged["tuning"] = _with(merged.get("tuning"), _without_none(tuning))
    experiment = checked(Experiment, merged, source)
    # Paths in the file start at its folder, paths in overrides at the working directory.
    data, split = experiment.data.below(folder), experiment.split
    if split.split_table and "split_table" not in overrides:
        split = split.model_copy(update={"split_table": folder / split.split_table})
    if path.parent == PACKAGED:  # experiments/../data leads nowhere where there is no experiments/
        data = data.placed(lambda file: Path(os.path.normpath(file)))
    elsewhere = {*_without_none(tuned), *overrides}
    network = experiment.network.below(folder, {"architecture", "start"} - elsewhere)
    training = experiment.training.below(folder, {"noise", "adapt"} - elsewhere)
    return experiment.model_copy(update={"data": data, "split": split, "network": network, "training": training})


def from_record(record: Mapping[str, Any], source: str) -> Experiment:
    """Rebuild an experiment from `Experiment.model_dump` output, as stored with a run; `source` names it in errors.

    Settings that a run of before did not know yet have the values by which it was made.
    """
    complete = {name: {**BEFORE[name], **record[name]} for name in BEFORE if isinstance(record.get(name), Mapping)}
    return checked(Experiment, {**record, **complete}, source)


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


def _read_params(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _with(section: Any, values: Mapping[str, Any]) -> Any:
    """A section with these values; anything but a mapping is left for the check to refuse.

    An option of a network (``options.depth``) goes into the mapping of these.
    """
    section = {} if section is None else section
    if not isinstance(section, dict):
        return section
    options = {name.removeprefix(OPTION): value for name, value in values.items() if name.startswith(OPTION)}
    inner = {"options": _with(section.get("options"), options)} if options else {}
    return {**section, **{name: value for name, value in values.items() if not name.startswith(OPTION)}, **inner}


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


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
    if not isinstance(name, str):
        raise InputError(f"{path}: 'name' should be text, got {shown(name)}; put it in quotes")
    other = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip(".-") or "my-survey"
    subject = "'name' should be" if in_file else "the file's name is the experiment's, which should be"
    mend = f"write 'name: {other}'" + ("" if in_file else " into the file, or rename it")
    raise InputError(f"{path}: {subject} {NAMES}, got {shown(name)}; {mend}")


def _owner(name: str, sections: Mapping[str, type[Settings]], where: str = "") -> str:
    """The section that has a setting of this name. Raises InputError where none has."""
    if name.startswith(OPTION) and "network" in sections:
        return "network"
    owners = {field: section for section, settings in sections.items() for field in settings.model_fields}
    if name not in owners:
        raise InputError(f"{where}setting should be one of: {', '.join(sorted(owners))}; got {shown(name)}")
    return owners[name]


def checked(section: type[Section], values: Mapping[str, Any], source: str = "") -> Section:
    """A section of settings, or a whole experiment, from its values.

    Raises InputError for a wrong one, which begins with `source` where that is not empty.
    """
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(explain(entry) for entry in error.errors())
        raise InputError(f"{source}: {problems}" if source else problems) from None


def sections(settings: Mapping[str, Any]) -> tuple[Network, Training]:
    """The sections of network and training from settings by their flat names, the others by default.

    Raises InputError for an unknown name or a wrong value.
    """
    values: dict[str, dict[str, Any]] = {"network": {}, "training": {}}
    for name, value in settings.items():
        values[_owner(name, {"network": Network, "training": Training})][name] = value
    return checked(Network, values["network"]), checked(Training, values["training"])


def study_of(dataset: str, **options: Any) -> Study:
    """What studies of a data set ask for: options that are not None, else its experiment file, else the defaults."""
    written = load(dataset).study if _is_file(_path(dataset)) else Study()
    return checked(Study, {**dict(written), **_without_none(options)})


def promotion_of(dataset: str, **options: Any) -> Promotion:
    """What decides promotions of a data set, from the same places as in `study_of`."""
    written = load(dataset).promotion if _is_file(_path(dataset)) else Promotion()
    return checked(Promotion, {**dict(written), **_without_none(options)})
