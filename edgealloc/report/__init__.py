"""Tables and pictures for people.

Pictures return a matplotlib figure and touch no global state; :func:`save_figure` writes it as PNG, PDF or SVG, by
the ending of the file. The names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.report.allocation_picture import plot_allocation as plot_allocation
    from edgealloc.report.canvas import save_figure as save_figure
    from edgealloc.report.carrier_picture import plot_subcarriers as plot_subcarriers
    from edgealloc.report.cell_picture import plot_cell as plot_cell
    from edgealloc.report.curves.front import plot_front as plot_front
    from edgealloc.report.curves.gaps import plot_gaps as plot_gaps
    from edgealloc.report.curves.keeps import plot_keeps as plot_keeps
    from edgealloc.report.curves.trace import plot_bounds as plot_bounds
    from edgealloc.report.curves.trace import plot_convergence as plot_convergence
    from edgealloc.report.draw import draw as draw
    from edgealloc.report.simulation_picture import plot_simulation as plot_simulation
    from edgealloc.report.style import looks_of as looks_of

_HOME = {
    "draw": "draw",
    "looks_of": "style",
    "plot_allocation": "allocation_picture",
    "plot_bounds": "curves.trace",
    "plot_cell": "cell_picture",
    "plot_convergence": "curves.trace",
    "plot_front": "curves.front",
    "plot_gaps": "curves.gaps",
    "plot_keeps": "curves.keeps",
    "plot_simulation": "simulation_picture",
    "plot_subcarriers": "carrier_picture",
    "save_figure": "canvas",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
