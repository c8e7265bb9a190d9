"""Sphinx configuration: Markdown pages, numpydoc docstrings. Build with `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "edgealloc"
author = "The edgealloc developers"
project_copyright = author
release = version = installed("edgealloc")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "numpydoc",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Pages link to files of the repository (sources, results); these are not part of the site.
suppress_warnings = ["myst.xref_missing"]
autosummary_generate = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"edgealloc {release}"
html_show_sourcelink = False
