"""What all pictures share: a figure, its title, names that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgealloc.errors import needs
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
    gap = f", proven within {result.rel_gap:.1g}" if np.isfinite(result.rel_gap) else ", no lower bound"
    return f"{result.problem.instance.name}: bound {result.objective:.6g} by {result.method}{gap}"


def short_name(name: str) -> str:
    """A name of at most 14 characters."""
    return name if len(name) <= 14 else name[:13] + "…"
