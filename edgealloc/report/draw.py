"""All pictures of a result, into a folder."""

from __future__ import annotations

from pathlib import Path

from edgealloc.files.disk import make_folder
from edgealloc.formulation.result import Result
from edgealloc.report.allocation_picture import plot_allocation
from edgealloc.report.canvas import save_figure
from edgealloc.report.carrier_picture import plot_subcarriers
from edgealloc.report.cell_picture import plot_cell
from edgealloc.units import BoolArray, FloatArray

__all__ = ["PICTURES", "draw"]

PICTURES = ("allocation", "cell", "subcarriers")  # names of the files, without ending


def draw(
    result: Result,
    folder: str | Path,
    position_m: FloatArray | None = None,
    line_of_sight: BoolArray | None = None,
) -> list[Path]:
    """Write every picture that fits a result into a folder, as PNG files; returns their paths.

    The map of the cell needs positions in m, shape [K, 2] (whether devices see the base station, shape [K], is
    marked where it is given), the sub-carrier map an OFDMA instance.

    Raises
    ------
    InputError
        When the positions do not belong to these devices.
    MissingPackageError, StatusError
        Without matplotlib; when the result carries no allocation.
    """
    figures = {"allocation": plot_allocation(result)}
    if position_m is not None:
        figures["cell"] = plot_cell(result, position_m, line_of_sight)
    if result.problem.instance.access == "ofdma":
        figures["subcarriers"] = plot_subcarriers(result)
    folder = make_folder(folder)
    return [save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]
