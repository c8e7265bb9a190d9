"""What a longer round buys: the proven optimum of one cell under a range of deadlines.

Run: python examples/deadline_tradeoff.py
"""

from __future__ import annotations

import numpy as np

import edgealloc
from edgealloc.scenario import CellOptions, make_cell


def main() -> None:
    """Solve one cell under deadlines from half to four times its own, and print the least bound of each."""
    instance = make_cell(CellOptions(devices=12), np.random.default_rng(1)).instance
    print("deadline [s]   least bound   proven within   mean dropout")
    for factor in (0.5, 0.7, 1.0, 1.4, 2.0, 4.0):
        result = edgealloc.solve(instance.with_changes(latency_s=factor * instance.latency_s), rel_gap=1e-8)
        deadline = f"{factor * instance.latency_s:12.1f}"
        if result.allocation is None:
            print(f"{deadline}   infeasible: {result.diagnosis[0].message}")
            continue
        dropout = result.allocation.dropout.mean()
        print(f"{deadline}   {result.objective:11.6f}   {result.rel_gap:13.1e}   {dropout:12.3f}")


if __name__ == "__main__":
    main()
