"""Root dual bounds for P-SCA's allocations: how far from the optimum they can be at most."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.base import Control
from edgealloc.solvers.fdma.cell import Cell
from edgealloc.solvers.fdma.response import BANDWIDTH, X, new_table
from edgealloc.units import FloatArray

__all__ = ["root_bound"]

_LEAST_TIME_S, _SHARE = 1.0, 2.0  # the root node may take this long, or this many times what P-SCA took


def root_bound(
    problem: Problem, allocation: Allocation, prices: FloatArray, control: Control
) -> tuple[float, dict[str, float]]:
    """A proven lower bound and the prices behind it.

    FDMA with the inverse-keep term: weak duality from the relaxed price of the band on (solvers/fdma/cell.py). Any
    other problem: the root node of branch and bound, for about as long as P-SCA itself took.

    Parameters
    ----------
    problem, allocation
        The problem and P-SCA's allocation.
    prices
        Prices of the columns from the relaxed sub-problem. Shape [M].
    control
        Clock and limits.

    Returns
    -------
    bound, prices
        ``-inf`` where there is none to be had cheaply; ``spectrum_per_hz`` and ``kept_share``, or nothing.
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
    return _searched(problem, allocation, control), {}


def _searched(problem: Problem, allocation: Allocation, control: Control) -> float:
    """The bound of the exact method's root node, begun with the allocation as incumbent."""
    from edgealloc.solvers.exact import search

    limit = max(_LEAST_TIME_S, _SHARE * control.seconds)
    if control.options.time_limit is not None:
        limit = min(limit, max(control.options.time_limit - control.seconds, 1e-3))
    root = replace(
        control.options,
        time_limit=limit,
        warm_start=allocation,
        callback=lambda snapshot: snapshot.nodes >= 1,
        log=False,
    )
    try:
        result, _tree = search(problem, root)
    except EdgeallocError:  # the exact method does not take the problem
        return -math.inf
    return result.lower_bound if math.isfinite(result.lower_bound) else -math.inf
