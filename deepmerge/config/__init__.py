"""Settings of an experiment: what they are (schema), and how they are read (load)."""

from deepmerge.config.load import TUNED, checked, from_record, load, name_of, names, params_file, read_params, sections
from deepmerge.config.schema import (
    SEARCHABLE,
    SECTIONS,
    Data,
    Experiment,
    Network,
    Params,
    Promotion,
    Range,
    Settings,
    Split,
    Study,
    Training,
    Tuning,
)

__all__ = [
    "SEARCHABLE",
    "SECTIONS",
    "TUNED",
    "Data",
    "Experiment",
    "Network",
    "Params",
    "Promotion",
    "Range",
    "Settings",
    "Split",
    "Study",
    "Training",
    "Tuning",
    "checked",
    "from_record",
    "load",
    "name_of",
    "names",
    "params_file",
    "read_params",
    "sections",
]
