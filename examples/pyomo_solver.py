"""Any Pyomo solver, and a constraint of one's own in a Pyomo model.

Run: python examples/pyomo_solver.py
"""

from __future__ import annotations

import math

import numpy as np
import pyomo.environ as pyo

import edgealloc
from edgealloc import Problem
from edgealloc.scenario import CellOptions, make_cell
from edgealloc.solvers.backends.pyomo_run import solve_model


def main() -> None:
    """Solve with IPOPT as it is, and with dev-0000 forced to keep half of its adapter."""
    problem = Problem(make_cell(CellOptions(devices=8), np.random.default_rng(1)).instance)
    print(edgealloc.solve(problem, "pyomo:ipopt"))
    model = edgealloc.to_pyomo(problem, form="log")
    model.mine = pyo.Constraint(expr=model.x["dev-0000"] >= math.log(0.5))  # x is the log of the keep rate
    result = solve_model(problem, model, "ipopt")
    print(result)
    assert result.allocation is not None
    print(f"dev-0000 keeps {result.allocation.keep[0]:.6f}")


if __name__ == "__main__":
    main()
