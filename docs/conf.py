"""Sphinx configuration: Markdown pages, numpydoc docstrings, formulas as MathML. Build with `make docs`."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

project = "edgealloc"
author = "The edgealloc developers"
project_copyright = author
release = version = installed("edgealloc")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Browsers typeset MathML by themselves: formulas need no script, no network and no font of ours.
html_math_renderer = "mathml"
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
html_static_path = ["_static"]
html_css_files = ["site.css"]


def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as MathML; what the converter does not know would print as it stands: an error."""
    html = str(convert(formula.replace("{aligned}", "{align*}"), display=display))
    if "<mi>\\" in html or "<mi>&</mi>" in html:
        raise ValueError(f"latex2mathml does not know all of {formula}")
    return html


def inline_formula(writer: Any, node: Any) -> None:
    """A formula within a line, as the HTML writer asks for it."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def displayed_formula(writer: Any, node: Any) -> None:
    """A formula of its own; where it is too wide for the screen it is scrolled by itself, not the page."""
    writer.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>\n')
    raise SkipNode


def setup(app: Any) -> None:
    """Tell Sphinx of the renderer."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
