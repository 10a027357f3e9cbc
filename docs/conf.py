"""Builds the site: sphinx-build -W docs site. It needs no network, and neither do the pages."""

import importlib.util
import os
from pathlib import Path

import labelsmooth

project, author = "labelsmooth", "the labelsmooth authors"
release = labelsmooth.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
]
exclude_patterns = ["_templates"]
templates_path = ["_templates"]
nitpicky = True  # a name that is meant as a link and leads nowhere is an error
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|dist|collections|pathlib|lightning|transformers|trl)\..*"),
    # In annotations: what is not offered by its name, and names that are imported.
    (r"py:class", r"labelsmooth\.(.*\.)?_.*"),
    (r"py:class", r"labelsmooth\.study\.(analysis|data|evaluation|planning)\..*"),
    (r"py:class", r"Axes|Mixed|Module|Tensor|Tree|\w+Options"),
]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "forward"}  # its arguments are those of the call
# What the extras bring need not be installed to read about it.
autodoc_mock_imports = ["accelerate", "lightning", "transformers", "trl"]

# Links into other projects' documentation need the network: LABELSMOOTH_INTERSPHINX=1 switches them on.
if os.environ.get("LABELSMOOTH_INTERSPHINX") == "1":
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
    "transformers": ("https://huggingface.co/docs/transformers/main/en", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "optuna": ("https://optuna.readthedocs.io/en/stable", None),
}

# MathJax in one file with its fonts, copied into the site, so that formulas need no network.
_mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
assert _mathjax is not None, "pip install 'labelsmooth[docs]'"
mathjax_path = "tex-svg.js"

html_theme = "furo"
highlight_language = "none"  # of what a program prints
html_title = "labelsmooth"
html_static_path = ["_static", str(Path(str(_mathjax.origin)).parent / "static" / "mathjax" / mathjax_path)]
html_css_files = ["tables.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
