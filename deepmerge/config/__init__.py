"""Settings of an experiment: what they are (schema), and how they are read (load)."""

from deepmerge.config.load import NAME as NAME
from deepmerge.config.load import TUNED as TUNED
from deepmerge.config.load import checked as checked
from deepmerge.config.load import from_record as from_record
from deepmerge.config.load import load as load
from deepmerge.config.load import name_of as name_of
from deepmerge.config.load import names as names
from deepmerge.config.load import params_file as params_file
from deepmerge.config.load import promotion_of as promotion_of
from deepmerge.config.load import sections as sections
from deepmerge.config.load import study_of as study_of
from deepmerge.config.network import OPTION as OPTION
from deepmerge.config.network import RECORDED as RECORDED
from deepmerge.config.network import Network as Network
from deepmerge.config.schema import SEARCHABLE as SEARCHABLE
from deepmerge.config.schema import SECTIONS as SECTIONS
from deepmerge.config.schema import Data as Data
from deepmerge.config.schema import Experiment as Experiment
from deepmerge.config.schema import Params as Params
from deepmerge.config.schema import Promotion as Promotion
from deepmerge.config.schema import Range as Range
from deepmerge.config.schema import Split as Split
from deepmerge.config.schema import Study as Study
from deepmerge.config.schema import Training as Training
from deepmerge.config.schema import Tuning as Tuning
from deepmerge.config.section import Settings as Settings
