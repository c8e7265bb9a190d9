"""A constraint of one's own in cvxpy: three devices of one tenant may hold a fifth of the band together.

Run: python examples/constraint_in_cvxpy.py
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np

import edgealloc
from edgealloc import Problem
from edgealloc.scenario import CellOptions, make_cell

TENANT = [0, 1, 2]
SHARE = 0.2


def main() -> None:
    """Solve a cell without and with the cap, and print what the cap costs."""
    problem = Problem(make_cell(CellOptions(devices=8), np.random.default_rng(1)).instance)
    model = edgealloc.to_cvxpy(problem)
    free = model.solve()
    # model.bandwidth is log(b / B), so its exponential is a share of the band, and convex
    capped = model.solve([cp.sum(cp.exp(model.bandwidth[TENANT])) <= SHARE])
    for name, result in (("without cap", free), ("with cap", capped)):
        allocation = result.raise_for_status().allocation
        assert allocation is not None
        assert allocation.bandwidth_hz is not None
        held = allocation.bandwidth_hz[TENANT].sum() / problem.instance.bandwidth_hz
        print(f"{name:12s} bound G {result.objective:.6f}, the tenant holds {held:.4f} of the band")
    print(capped.message)


if __name__ == "__main__":
    main()
