"""What all pictures share: a figure, its title, names that fit, the way to a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.errors import Fault, InputError, needs, printable
from edgealloc.files.disk import write_file
from edgealloc.formulation.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MAX_NAMED = 40  # devices that still get a bar and a name of their own


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches.

    Raises
    ------
    MissingPackageError
        Without matplotlib.
    """
    needs("matplotlib", "plot", "drawing a figure")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def heading(result: Result) -> str:
    """One line above a picture: instance, bound, method and gap."""
    name, method = caption(result.problem.instance.name), caption(result.method)
    gap = f", proven within {result.rel_gap:.1g}" if np.isfinite(result.rel_gap) else ", no lower bound"
    return f"{name}: bound {result.objective:.6g} by {method}{gap}"


def short_name(name: str) -> str:
    """A name of at most 14 characters, as a picture takes it (:func:`caption`)."""
    return caption(name if len(name) <= 14 else name[:13] + "…")


def caption(text: object) -> str:
    """Text of others for matplotlib: escapes for what is not printable, and dollars that make no formula."""
    return printable(text).replace("$", r"\$")


def save_figure(figure: Figure, path: str | Path, **options: Any) -> Path:
    """Write a figure; the file appears whole or not at all.

    Parameters
    ----------
    figure
        What to write.
    path
        Where to; its ending says the format, PNG without one.
    **options
        For matplotlib's ``savefig``, such as ``dpi``.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    InputError
        When matplotlib has no such format, or the file cannot be written.
    """
    form = Path(path).suffix.lstrip(".").lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if form not in known:
        raise InputError(str(path), [Fault("picture", "ending", repr(form), ", ".join(sorted(known)))])
    buffer = BytesIO()
    figure.savefig(buffer, format=form, **options)
    return write_file(buffer.getvalue(), path)
