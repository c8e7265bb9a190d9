"""All pictures of a result, into a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgealloc.files.disk import make_folder
from edgealloc.formulation.result import Result
from edgealloc.report.allocation_picture import plot_allocation
from edgealloc.report.canvas import save_figure
from edgealloc.report.carrier_picture import plot_subcarriers
from edgealloc.report.cell_picture import plot_cell
from edgealloc.report.curves.trace import plot_bounds, plot_convergence
from edgealloc.units import BoolArray, FloatArray

__all__ = ["PICTURES", "draw"]

PICTURES = ("allocation", "bounds", "cell", "convergence", "subcarriers")  # names of the files, without ending


def draw(
    result: Result,
    folder: str | Path,
    position_m: FloatArray | None = None,
    line_of_sight: BoolArray | None = None,
    ending: str = "png",
) -> list[Path]:
    """Write every picture that fits a result into a folder.

    Parameters
    ----------
    result
        A result with an allocation. The sub-carrier map needs one of OFDMA, bounds a proof, convergence P-SCA.
    folder
        Where to; made if need be.
    position_m
        Positions in m for the map of the cell. Shape [K, 2].
    line_of_sight
        Which devices see the base station; marked on the map where given. Shape [K].
    ending
        ``png``, ``pdf``, ``svg``: the format.

    Returns
    -------
    list of pathlib.Path
        What was written.

    Raises
    ------
    InputError
        When the positions do not belong to these devices, or matplotlib has no such format.
    MissingPackageError, StatusError
        Without matplotlib; when the result carries no allocation.
    """
    figures = {"allocation": plot_allocation(result)}
    if position_m is not None:
        figures["cell"] = plot_cell(result, position_m, line_of_sight)
    if result.problem.instance.access == "ofdma":
        figures["subcarriers"] = plot_subcarriers(result)
    if any(at.step is not None for at in result.trace):
        figures["convergence"] = plot_convergence(result)
    elif len(result.trace) > 1 and np.isfinite(result.lower_bound):
        figures["bounds"] = plot_bounds(result)
    folder = make_folder(folder)
    return [save_figure(figure, folder / f"{name}.{ending}") for name, figure in figures.items()]
