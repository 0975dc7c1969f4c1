"""How Sphinx builds the documentation: `nox -s docs`."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for generated.py

project = "trio-entrypoint"
author = "the trio-entrypoint developers"
project_copyright = author
version = release = installed_version("trio-entrypoint")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinxcontrib_trio",
    "generated",
]
exclude_patterns = ["_build", "benchmarks"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]

# In docstrings, `name` is code, and a link where there is something to link to.
default_role = "py:obj"
add_module_names = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = "trio-entrypoint"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "default"
smartquotes_action = "D"  # dashes only: quotes stay as they have to be typed
