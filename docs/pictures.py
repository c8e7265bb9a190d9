"""Draw the pictures of README.md and of the gallery: ``python docs/pictures.py`` (extras plot and frame).

Everything that is drawn is solved here, to a proof, from a random cell of fixed seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import edgealloc
from edgealloc.report.allocation_picture import plot_allocation
from edgealloc.report.canvas import save_figure
from edgealloc.report.carrier_picture import plot_subcarriers
from edgealloc.report.cell_picture import plot_cell
from edgealloc.report.simulation_picture import plot_simulation
from edgealloc.rounds import SimulateOptions, simulate
from edgealloc.scenario import CellOptions, make_cell
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import search
from edgealloc.solvers.search.tree import draw


def main(folder: Path) -> None:
    """Write all pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)

    band = make_cell(CellOptions(devices=20, environment="uma"), np.random.default_rng(7))
    result = edgealloc.solve(band.instance, rel_gap=1e-6)
    save_figure(plot_cell(result, band.position_m, band.line_of_sight), folder / "cell.png", dpi=90)
    save_figure(plot_allocation(result), folder / "allocation.png", dpi=90)

    ofdma = make_cell(CellOptions(devices=8, access="ofdma", subcarriers=64), np.random.default_rng(5))
    result = edgealloc.solve(ofdma.instance, rel_gap=1e-6)
    save_figure(plot_subcarriers(result), folder / "subcarriers.png", dpi=90)

    hard = make_cell(CellOptions(devices=20, underfit="perturbation"), np.random.default_rng(3)).instance
    _, outcome = search(edgealloc.Problem(hard), Options(rel_gap=1e-6))
    if outcome is not None:
        draw(outcome.tree, folder / "tree.png")

    rng = np.random.default_rng(2)
    few = make_cell(CellOptions(devices=3), rng)
    policies = ("equal-split", "rollover", "virtual-queue")
    frame = simulate(SimulateOptions(rounds=60, policies=policies), few, rng)
    save_figure(plot_simulation(frame, "three devices, 60 rounds"), folder / "rounds.png", dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
