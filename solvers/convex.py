r"""Exact solution of continuous FDMA by its hidden convexity, method ``convex``.

Two prices decouple the devices: mu per Hz of spectrum and, under global pooling, nu per unit of the kept
share Q = sum w_k s_k^2, the slope of the convex stability term at a trial Q0. For any mu >= 0 and Q0,

    G*  >=  gap(Q0) - gap'(Q0) Q0 - mu B + sum_k min_x F_k(x; mu, gap'(Q0))

by weak duality and the tangent of gap. A safeguarded Newton method on (log mu, Q0) finds the best prices;
every iterate also yields an allocation within all budgets, so both bounds hold whenever it stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.errors import EdgeallocError
from edgealloc.problem import Problem
from edgealloc.result import Diagnosis, Result, Snapshot, Status, relative_gap
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.cell import Cell, Incumbent
from edgealloc.solvers.common import solve_common
from edgealloc.solvers.diagnose import diagnose
from edgealloc.solvers.response import BANDWIDTH, SLOPE, X_MU, X_NU, V, X, new_table
from edgealloc.units import FloatArray

__all__ = ["solve_convex"]

_MAX_ITERATIONS = 300
_NEWTON_ITERATIONS = 40  # then bisection of Q around bisection of mu, which cannot fail


def solve_convex(problem: Problem, options: Options | None = None) -> Result:
    """Prove the optimum of a log-convex problem: continuous FDMA with the inverse-keep term.

    Parameters
    ----------
    problem
        ``problem.structure.log_convex`` must hold; one common keep rate is allowed.
    options
        Gap, limits, callback.

    Returns
    -------
    Result
        ``optimal``; ``infeasible`` with its diagnosis; ``feasible`` or ``no_solution`` when a limit came first.

    Raises
    ------
    EdgeallocError
        When the problem is not log-convex; the message says why.
    """
    options = options or Options()
    if not problem.structure.log_convex:
        why = "; ".join(problem.structure.reasons)
        raise EdgeallocError(f"method 'convex' takes log-convex problems only: {why}; use method='auto'")
    with Control(options) as control:
        cell = Cell.of(problem)
        findings = diagnose(cell)
        if findings:
            return _finish(cell, control, Incumbent(), 0, findings)
        if problem.instance.common_keep:
            best, iterations = solve_common(cell, control)
        else:
            best, iterations = _solve_prices(cell, control)
        return _finish(cell, control, best, iterations)


def _solve_prices(cell: Cell, control: Control) -> tuple[Incumbent, int]:
    """Search the prices until the gap is closed, a limit is reached, or rounding stops the search."""
    options, best = control.options, Incumbent()
    table = new_table(len(cell.low))
    value, keep = cell.problem.free
    q_free = float(cell.weight @ np.square(keep))
    table[X] = np.log(keep)
    unpriced = cell.bandwidth_at(table[X], table[V])
    if float(np.sum(unpriced[BANDWIDTH])) <= cell.bandwidth_hz:
        best.improve(cell, 0.0, q_free, unpriced)
        control.report(_snapshot(control, 1, best, "the spectrum is not scarce"))
        return best, 1
    if options.warm_start is not None and options.warm_start.keep.shape == cell.low.shape:
        inst = cell.problem.instance
        table[X] = np.log(np.clip(options.warm_start.keep, inst.keep_min, inst.keep_max))
    else:
        table[X] = np.minimum(table[X], np.maximum(cell.low, -1.0))
    search = _PriceSearch(mu=0.2 * value / cell.bandwidth_hz, q=0.5 * q_free, q_high=min(1.0, 1.001 * q_free))
    watched = options.log or options.callback is not None
    for iteration in range(1, _MAX_ITERATIONS + 1):
        cell.answer(search.mu, search.q, table)
        residual = search.observe(cell, table)
        stop = control.stopped() or iteration == _MAX_ITERATIONS
        # A bound and an allocation cost about an answer, so they are taken near convergence or on demand.
        if residual < 0.01 * math.sqrt(options.rel_gap) or watched or stop:
            best.improve(cell, search.mu, search.q, table)
            control.report(_snapshot(control, iteration, best, search.note))
        if best.gap <= options.rel_gap or stop or control.stopped() or not search.step():
            break
    return best, iteration


def _snapshot(control: Control, iteration: int, best: Incumbent, note: str) -> Snapshot:
    return Snapshot("convex", control.seconds, iteration, best.lower, best.upper, best.gap, note=note)


@dataclass(slots=True, eq=False)
class _PriceSearch:
    """Finds (mu, Q) with total bandwidth B and sum w s^2 = Q.

    First Newton on (log mu, Q). Should it not converge, bisection of Q around bisection of log mu: the total
    falls in mu, and at the mu that meets it sum w s^2 - Q falls in Q, for the dual function is concave.
    """

    mu: float
    q: float
    q_low: float = 0.0
    q_high: float = 1.0
    mu_low: float = 0.0
    mu_high: float = math.inf
    steps: int = 0
    miss: tuple[float, float] = (math.inf, math.inf)
    move: tuple[float, float] = (0.0, 0.0)
    pooled: bool = True
    note: str = ""

    def observe(self, cell: Cell, table: FloatArray) -> float:
        """Take in the devices' answers; returns the larger residual of the two equations."""
        self.pooled = cell.problem.pooled
        band = table[BANDWIDTH]
        total = float(np.sum(band))
        square = cell.weight * np.exp(2.0 * table[X])
        kept = float(np.sum(square)) if self.pooled else self.q
        rise = band * table[SLOPE] / total
        bend = 0.0
        if self.pooled:
            step = 1e-6 * self.q
            bend = (cell.price_of_kept(self.q + step) - cell.price_of_kept(self.q - step)) / (2.0 * step)
        a, b = float(rise @ table[X_MU]), float(rise @ table[X_NU]) * bend
        c = 2.0 * float(square @ table[X_MU])
        d = 2.0 * float(square @ table[X_NU]) * bend - 1.0
        over, gain = math.log(total / cell.bandwidth_hz), kept - self.q
        det = a * d - b * c
        self.miss = (over, gain)
        aim = over + 1e-13  # a hair below B, so that the answers fit as they are
        self.move = ((b * gain - d * aim) / det, (c * aim - a * gain) / det) if det > 0.0 else (math.nan, math.nan)
        self.note = f"bandwidth {total / cell.bandwidth_hz:.6g} of what there is, kept share {kept:.6g}"
        return max(abs(over), abs(gain))

    def step(self) -> bool:
        """Move to the next prices; False when they can no longer move."""
        self.steps += 1
        y, dq = self.move
        if self.steps <= _NEWTON_ITERATIONS and math.isfinite(y) and math.isfinite(dq):
            mu = self.mu * math.exp(min(max(y, -4.0), 4.0))
            q = min(max(self.q + (dq if self.pooled else 0.0), 0.3 * self.q), 0.5 * (self.q + self.q_high))
            moved = mu != self.mu or q != self.q
            self.mu, self.q = mu, q
            return moved
        return self._bisect()

    def _bisect(self) -> bool:
        over, gain = self.miss
        if over > 0.0:
            self.mu_low = self.mu
        else:
            self.mu_high = self.mu
        if not math.isfinite(self.mu_high):
            self.mu *= 16.0
        elif self.mu_low == 0.0:
            self.mu /= 16.0
        elif self.mu_high / self.mu_low > 1.0 + 1e-12:
            self.mu = math.sqrt(self.mu_low * self.mu_high)
        elif self.pooled and self.q_high - self.q_low > 1e-14:
            if gain > 0.0:
                self.q_low = self.q
            else:
                self.q_high = self.q
            self.q = 0.5 * (self.q_low + self.q_high)
            self.mu_low, self.mu_high = self.mu_low / 4.0, self.mu_high * 4.0
        else:
            return False
        return True


def _finish(
    cell: Cell, control: Control, best: Incumbent, iterations: int, findings: tuple[Diagnosis, ...] = ()
) -> Result:
    """The result, with the objective of the allocation as it is returned."""
    problem, rel_gap = cell.problem, control.options.rel_gap
    result = Result(
        problem=problem,
        method="convex",
        status=Status.NO_SOLUTION,
        objective=math.inf,
        lower_bound=best.lower,
        free_objective=problem.free_objective,
        allocation=None,
        seconds=0.0,
        iterations=iterations,
        trace=tuple(control.trace),
    )
    if findings:
        message = "\n".join(finding.message for finding in findings)
        result = replace(
            result, status=Status.INFEASIBLE, lower_bound=math.inf, diagnosis=findings, message=message
        )
    elif best.answer is None:
        why = control.reason or "the feasible set is thinner than the rounding margin of 1e-12"
        result = replace(result, message=f"no allocation found: {why}; allow more time or relax a budget")
    else:
        allocation = cell.allocation(best.answer)
        value = problem.objective(allocation.keep)
        closed = relative_gap(value, best.lower) <= rel_gap
        why = control.reason or "the prices came to rest: rounding limits the gap, ask for a larger rel_gap"
        result = replace(
            result,
            status=Status.OPTIMAL if closed else Status.FEASIBLE,
            objective=value,
            allocation=allocation,
            message="" if closed else f"stopped with a gap: {why}",
            prices={"spectrum_per_hz": best.mu, "kept_share": best.q},
        )
    return replace(result, seconds=control.seconds)
