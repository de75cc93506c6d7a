"""Sphinx settings of the documentation: `make docs` builds it, without network, with every warning an error."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# Notebooks are executed as the docs are built: quietly, and on the CPU, so that every machine gives the same pages.
os.environ.update({"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true"})

project = "DeepMerge"
author = "the DeepMerge authors"
copyright = f"2026, {author}"
version = release = version_of("deepmerge-lab")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinx_design", "reference"]
exclude_patterns = ["_build", "_ext"]
default_role = "code"
smartquotes = False  # they turn --option into –option
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
nb_execution_in_temp = True
nb_output_stderr = "remove"

napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

html_theme = "pydata_sphinx_theme"
html_title = "DeepMerge"
html_static_path = ["_static"]
html_css_files = ["deepmerge.css"]
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "DeepMerge"},
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "pygments_light_style": "tango",
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "use_edit_page_button": False,
}
