"""A side constraint for a linear program: a cap per slice, with discrete keep levels and proven optimality.

Run: python examples/slice_cap_highs.py
"""

from __future__ import annotations

import numpy as np

import edgealloc
from edgealloc.scenario import CellOptions, make_cell

SLICE = [0, 1, 2]


def main() -> None:
    """Cap a slice of three devices at ever less spectrum."""
    cell = make_cell(CellOptions(devices=8), np.random.default_rng(1)).instance
    levels = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0])
    stepped = cell.with_changes(keep_levels=(levels,) * cell.num_devices)
    print("cap [% of band]   least bound   proven within   slice holds [%]")
    for share in (1.0, 0.3, 0.2, 0.1):
        cap = edgealloc.SpectrumCap(share * cell.bandwidth_hz, SLICE, "slice")
        result = edgealloc.solve(stepped, "highs", constraints=[cap])
        if result.allocation is None or result.allocation.bandwidth_hz is None:
            print(f"{100 * share:15.0f}   {result.status.value}")
            continue
        held = result.allocation.bandwidth_hz[SLICE].sum() / cell.bandwidth_hz
        print(f"{100 * share:15.0f}   {result.objective:11.6f}   {result.rel_gap:13.1e}   {100 * held:15.2f}")


if __name__ == "__main__":
    main()
