"""Builds the site: sphinx-build -W docs site. It needs no network, and neither do the pages."""

import importlib.util
import os
import re
from pathlib import Path

import torch
from sphinx.application import Sphinx

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
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_templates", "**/GALLERY_HEADER.rst", "tutorial/generated/index.rst"]
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

# Each script runs, and becomes a page with its output and its pictures; a claim that fails ends the build.
torch.set_num_threads(1)  # their networks are too small for more
sphinx_gallery_conf = {
    "examples_dirs": ["tutorial", "gallery"],
    "gallery_dirs": ["tutorial/generated", "gallery/generated"],
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "capture_repr": (),  # what is printed is enough
    "image_srcset": ["2x"],
    "css": ("sg_gallery",),
    "notebook_extensions": set(),
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 600,
}


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_pages)


def link_to_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """A link to a script, which works on GitHub, leads to the script's page on the site."""
    text = source[0].replace("gallery/GALLERY_HEADER.rst)", "gallery/generated/index.rst)")
    source[0] = re.sub(r"\]\((\S*\b(?:tutorial|gallery))/(\w+)\.py", r"](\1/generated/\2.rst", text)


html_theme = "furo"
highlight_language = "none"  # of what a program prints
html_title = "labelsmooth"
html_static_path = ["_static", str(Path(str(_mathjax.origin)).parent / "static" / "mathjax" / mathjax_path)]
html_css_files = ["tables.css", "gallery.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
