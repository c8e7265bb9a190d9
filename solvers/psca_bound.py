"""Root dual bounds for P-SCA's allocations: how far from the optimum they can be at most."""

from __future__ import annotations

import math

import numpy as np

from edgealloc.problem import Problem
from edgealloc.result import Allocation
from edgealloc.solvers.base import Control
from edgealloc.solvers.cell import Cell
from edgealloc.solvers.response import BANDWIDTH, X, new_table
from edgealloc.units import FloatArray

__all__ = ["root_bound"]


def root_bound(
    problem: Problem, allocation: Allocation, prices: FloatArray, control: Control
) -> tuple[float, dict[str, float]]:
    """A proven lower bound and the prices behind it; ``-inf`` where there is none to be had cheaply.

    FDMA with the inverse-keep term: weak duality from the relaxed price of the band on (solvers/cell.py).
    """
    if problem.structure.log_convex and not problem.instance.common_keep:
        cell = Cell.of(problem)
        q = float(cell.weight @ np.square(allocation.keep))
        table = new_table(len(allocation.keep))
        table[X] = np.log(allocation.keep)
        best, best_mu = -math.inf, 0.0
        low, high = -math.inf, math.inf
        log_mu = math.log(max(float(prices[0]), 1e-12) / problem.instance.bandwidth_hz)
        for _ in range(40):  # the total bandwidth falls in the price; any price gives a bound
            mu = math.exp(log_mu)
            cell.answer(mu, q, table)
            bound = cell.lower_bound(mu, q, table)
            if bound > best:
                best, best_mu = bound, mu
            over = math.log(float(np.sum(table[BANDWIDTH])) / cell.bandwidth_hz)
            if abs(over) < 1e-9 or high - low < 1e-9 or control.stopped():
                break
            low, high = (log_mu, high) if over > 0.0 else (low, log_mu)
            step = log_mu + over  # the demand has an elasticity of about -1
            inside = low < step < high
            log_mu = (
                step
                if inside
                else 0.5 * (low + high)
                if math.isfinite(low + high)
                else log_mu + math.copysign(1.0, over)
            )
        return best, {"spectrum_per_hz": best_mu, "kept_share": q}
    return -math.inf, {}
