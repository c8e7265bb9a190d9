"""The guided tour behind ``make demo``: a realistic cell, its proven allocation, the check, the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgealloc.api import solve
from edgealloc.figures import draw
from edgealloc.io import save_instance
from edgealloc.report import allocation_table, proof_text
from edgealloc.scenario import CellOptions, make_cell
from edgealloc.verify import verify_files

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run"]


def run(folder: Path, devices: int, seed: int, console: Console) -> None:
    """Go through the tour, printing to ``console`` and writing files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    cell = make_cell(CellOptions(devices=devices), np.random.default_rng(seed))
    instance = cell.instance
    console.print(
        f"An urban macro cell (3GPP TR 38.901 UMa): {devices} devices, "
        f"{int(cell.line_of_sight.sum())} of them in line of sight, share {instance.bandwidth_hz / 1e3:.4g} kHz; "
        f"each trains a LoRA adapter and must report within {instance.latency_s:g} s.\n"
    )
    case = save_instance(instance, folder / "demo-fdma.json")
    result = solve(instance, rel_gap=1e-6)
    solution = result.save(folder / "demo-fdma-solution.json")
    console.print(allocation_table(result))
    console.print(proof_text(result), markup=False, highlight=False)
    result.raise_for_status()
    console.print(f"\n{verify_files(case, solution)}", markup=False, highlight=False)
    pictures = draw(result, folder, cell.position_m, cell.line_of_sight)
    console.print("\nfiles    ", *(str(path) for path in (case, solution)), highlight=False)
    console.print("pictures ", *(str(path) for path in pictures), highlight=False)
