"""Builds the pages and the reference: sphinx-build -W docs site."""

import labelsmooth

project, author = "labelsmooth", "the labelsmooth authors"
release = labelsmooth.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "labelsmooth"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
suppress_warnings = ["myst.xref_missing"]  # the README also links to files that are no pages
