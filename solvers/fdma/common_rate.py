"""One keep rate for all devices (the paper's scalar gamma) in continuous FDMA.

G is convex in x = log s and the bandwidths only cap x from above. The optimum is therefore the free minimum,
or the largest x whose bandwidths sum to B, or fill a cap. The bound needs no duality: beyond an x at which the
*proven* least bandwidths exceed one of these nothing is feasible, and G falls up to there.

Derived: docs/mathematics.md, section 7.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.data.outcome import Snapshot
from edgealloc.solvers.base import Control
from edgealloc.solvers.fdma.cell import Cell, Incumbent
from edgealloc.solvers.fdma.response import V, new_table
from edgealloc.units import FloatArray

__all__ = ["solve_common"]


def solve_common(cell: Cell, control: Control) -> tuple[Incumbent, int]:
    """Best common keep rate with its bound.

    Parameters
    ----------
    cell
        An instance that is feasible at the largest keep_min.
    control
        Clock, limits and snapshots.

    Returns
    -------
    tuple of Incumbent and int
        The best answers and the bound; the number of iterations.
    """
    best = Incumbent()
    low, high = float(cell.low.max()), float(cell.high.min())
    free = math.log(float(cell.problem.free[1][0]))
    top = min(max(free, low), high)  # more than this is never wanted
    table = new_table(len(cell.low))

    def excess(x: float) -> tuple[FloatArray, float, float]:
        """Table at x = log keep, log of its bandwidth over the limit, and the slope of that in x."""
        trial = cell.bandwidth_at(np.full_like(cell.low, x), table[V])
        return trial, *cell.excess(trial, 1.0)

    def bound_from(x: float) -> None:
        value = cell.problem.objective(np.full_like(cell.low, math.exp(x)))
        best.lower = max(best.lower, value * (1.0 - 1e-14))

    def report(note: str) -> None:
        control.report(Snapshot("convex", control.seconds, iteration, best.lower, best.upper, best.gap, note=note))

    iteration, left, right = 1, low, top
    trial, over, slope = excess(top)
    if over <= 0.0:
        best.offer(cell, trial)
        bound_from(top)
        report("the spectrum is not scarce")
        return best, iteration
    bound_from(free)
    # The log of the total is convex in x: Newton falls monotonically to its right from the right. Where no
    # bandwidth suffices there is no slope, and the interval is halved instead.
    while iteration < 200 and not control.stopped():
        iteration += 1
        new = right - over / slope if math.isfinite(over) else 0.5 * (left + right)
        if right - new <= 1e-14 * (1.0 + abs(right)):
            break
        if new <= left:
            new = 0.5 * (left + right)
        trial, value, rise = excess(new)
        if value > 0.0:
            right, over, slope = new, value, rise
        else:
            left = new
            best.offer(cell, trial)
        report(f"keep rate at most {math.exp(right):.9f}")
    # One point on either side of the right: the nearest that fits, and the nearest proved not to.
    steps = [0.0] + [1e-14 * 4.0**i for i in range(16)]
    for step in steps:
        trial, over, _slope = excess(max(right - step, low))
        if over <= -1e-14:
            best.offer(cell, trial)
            break
    for step in steps:
        if cell.short(np.full_like(cell.low, right + step)):
            bound_from(min(right + step, free))
            break
    report("both sides of the largest keep rate that fits")
    return best, iteration
