"""One figure of the benchmark in seconds, for the guided tour."""

from __future__ import annotations

from pathlib import Path

from edgealloc.bench.charts import plot_sweep
from edgealloc.bench.suites import SUITES
from edgealloc.bench.sweep import BenchOptions, cells_of, frame_of, run_cell
from edgealloc.files.disk import make_folder
from edgealloc.report.canvas import save_figure

__all__ = ["draw_demo"]


def draw_demo(folder: Path) -> Path:
    """Run the suite ``demo``, write its figure into a folder, and return the path.

    Raises
    ------
    ImportError
        Without pandas (extra ``frame``).
    MissingPackageError
        Without matplotlib (extra ``plot``).
    """
    suite = SUITES["demo"]()
    cells = cells_of(suite, suite.methods, BenchOptions(rel_gap=1e-6))
    figure = plot_sweep(frame_of([run_cell(cell) for cell in cells]))
    return save_figure(figure, make_folder(folder) / "demo-deadline.png")
