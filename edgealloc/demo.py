"""The guided tour behind ``make demo``: realistic cells, proven allocations, checks, pictures, other methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgealloc.api import solve
from edgealloc.figures import draw
from edgealloc.instance import Instance
from edgealloc.io import save_instance
from edgealloc.problem import Problem
from edgealloc.report import allocation_table, comparison_table, proof_text
from edgealloc.result import Result
from edgealloc.scenario import CellOptions, make_cell
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import search
from edgealloc.solvers.tree import draw as draw_tree
from edgealloc.units import FloatArray
from edgealloc.verify import verify_files

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run"]

Places = tuple[FloatArray, NDArray[np.bool_]]  # positions in m and line of sight, for the map of the cell

# What papers compare with; `edgealloc.solvers.baselines.BASELINES` lists them all.
_OTHERS = ("psca", "psca+", "baseline:equal", "baseline:best-channel", "baseline:no-dropout")


def run(folder: Path, devices: int, seed: int, console: Console) -> None:
    """Go through the tour, printing to ``console`` and writing files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    console.print("The first run on a machine compiles the solvers: only later runs show their true seconds.\n")
    cell = make_cell(CellOptions(devices=devices), np.random.default_rng(seed))
    instance = cell.instance
    console.rule("1. a cell with its own band for everybody (FDMA)")
    console.print(
        f"An urban macro cell (3GPP TR 38.901 UMa): {devices} devices, "
        f"{int(cell.line_of_sight.sum())} of them in line of sight, share {instance.bandwidth_hz / 1e3:.4g} kHz; "
        f"each trains a LoRA adapter and must report within {instance.latency_s:g} s.\n"
    )
    _prove(instance, folder, "demo-fdma", console, (cell.position_m, cell.line_of_sight))
    console.rule("2. the same cell, where keep rates come in tenths")
    levels = (np.round(np.arange(0.1, 1.05, 0.1), 1),) * devices
    tenths = instance.with_changes(name=f"{instance.name}-tenths", keep_levels=levels)
    coarse, outcome = search(Problem(tenths), Options(rel_gap=1e-6, time_limit=60.0))
    console.print(proof_text(coarse), markup=False, highlight=False)
    if outcome is not None:
        console.print(f"search tree   {len(outcome.tree.nodes)} nodes, depth {outcome.tree.depth}")
        console.print(
            "picture      ", str(draw_tree(outcome.tree, folder / "demo-tenths-tree.png")), highlight=False
        )
    console.rule("3. a cell that deals out sub-carriers (OFDMA)")
    options = CellOptions(devices=min(devices, 6), access="ofdma", subcarriers=32)
    cell = make_cell(options, np.random.default_rng(seed))
    exact = _prove(cell.instance, folder, "demo-ofdma", console, (cell.position_m, cell.line_of_sight))
    console.rule("4. the same cell by the fast method and by simple schemes")
    console.print("Gaps are measured against the bound that branch and bound proved.\n")
    console.print(comparison_table([exact, *(solve(cell.instance, name, seed=seed) for name in _OTHERS)]))


def _prove(instance: Instance, folder: Path, name: str, console: Console, places: Places) -> Result:
    """Solve, save, check and draw one cell."""
    case = save_instance(instance, folder / f"{name}.json")
    result = solve(instance, rel_gap=1e-6, time_limit=60.0)
    solution = result.save(folder / f"{name}-solution.json")
    console.print(allocation_table(result))
    console.print(proof_text(result), markup=False, highlight=False)
    result.raise_for_status()
    console.print(f"\n{verify_files(case, solution)}", markup=False, highlight=False)
    pictures = draw(result, folder / name, *places)
    console.print("\nfiles    ", *(str(path) for path in (case, solution)), highlight=False)
    console.print("pictures ", *(str(path) for path in pictures), highlight=False)
    return result
