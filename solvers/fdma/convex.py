r"""Exact solution of continuous FDMA by its hidden convexity, method ``convex``.

Two prices decouple the devices: mu per Hz of spectrum and, under global pooling, nu per unit of the kept
share Q = sum w_k s_k^2, the slope of the convex stability term at a trial Q0. For any mu >= 0 and Q0,

    G*  >=  gap(Q0) - gap'(Q0) Q0 - mu B + sum_k min_x F_k(x; mu, gap'(Q0))

by weak duality and the tangent of gap. A safeguarded Newton method on (log mu, Q0) finds the best prices;
every iterate also yields an allocation within all budgets, so both bounds hold whenever it stops.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.outcome import Diagnosis, Snapshot
from edgealloc.errors import RefusedError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import infeasible, nothing_found, proven, unsolved
from edgealloc.solvers.fdma.cell import Cell, Incumbent
from edgealloc.solvers.fdma.common_rate import solve_common
from edgealloc.solvers.fdma.diagnose import diagnose
from edgealloc.solvers.fdma.response import BANDWIDTH, SLOPE, X_MU, X_NU, V, X, new_table
from edgealloc.solvers.fdma.slices import solve_slices
from edgealloc.units import FloatArray

__all__ = ["solve_convex"]

_MAX_ITERATIONS = 1000
_PRICE = 700.0  # logarithm of the highest price that is a double


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
    RefusedError
        When the problem is not log-convex; the message says why.
    """
    options = options or Options()
    if not problem.structure.log_convex:
        why = "; ".join(problem.structure.reasons)
        raise RefusedError(f"method 'convex' takes log-convex problems only: {why}; use method='auto'")
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
    table = new_table(len(cell.low))
    keep = cell.problem.free[1]
    q_free = float(cell.weight @ np.square(keep))
    table[X] = np.log(keep)
    unpriced = cell.bandwidth_at(table[X], table[V])
    best = Incumbent()
    if cell.caps.fits(unpriced[BANDWIDTH]) if cell.caps else np.sum(unpriced[BANDWIDTH]) <= cell.bandwidth_hz:
        cell.answer(0.0, q_free, unpriced)  # the free minimum to full precision
        best.improve(cell, 0.0, q_free, unpriced)
        control.report(_snapshot(control, 1, best, "the spectrum is not scarce"))
        return best, 1
    warm = control.options.warm_start
    if warm is not None and warm.keep.shape == cell.low.shape:
        inst = cell.problem.instance
        table[X] = np.log(np.clip(warm.keep, inst.keep_min, inst.keep_max))
    else:
        table[X] = np.minimum(table[X], np.maximum(cell.low, -1.0))
    if cell.caps:
        return solve_slices(cell, control, table)
    search = _PriceSearch(cell, control, table, best)
    mu, q = 0.2 * cell.problem.size / cell.bandwidth_hz, 0.5 * q_free
    try:
        mu, q = search.newton(mu, q, min(1.0, 1.001 * q_free))
        search.nested(mu, min(1.0, 1.001 * q_free))
        search.take_stock()  # the prices came to rest before the equations were met to the last digits
    except _Stop:
        if best.answer is None:  # no price meets the spectrum where keeping more is worth nothing
            search.take_stock()
    return best, search.iterations


def _snapshot(control: Control, iteration: int, best: Incumbent, note: str) -> Snapshot:
    return Snapshot("convex", control.seconds, iteration, best.lower, best.upper, best.gap, note=note)


class _Stop(Exception):
    """The gap is closed, a limit is reached, or the prices are as good as rounding allows."""


@dataclass(frozen=True, slots=True)
class _Response:
    """What the devices' answers to prices (mu, Q) add up to.

    Parameters
    ----------
    over
        log(total bandwidth / B).
    gain
        sum w s^2 - Q; 0 for device pooling, which has no Q.
    jacobian
        Derivatives (over_y, over_q, gain_y, gain_q) with y = log mu.
    """

    over: float
    gain: float
    jacobian: tuple[float, float, float, float]

    @property
    def residual(self) -> float:
        """Largest residual of the two equations."""
        return max(abs(self.over), abs(self.gain))


@dataclass(slots=True, eq=False)
class _PriceSearch:
    """Finds (mu, Q) at which the total bandwidth is B and sum w s^2 is Q."""

    cell: Cell
    control: Control
    table: FloatArray
    best: Incumbent
    iterations: int = 0
    settled: int = 0
    residual: float = math.inf
    at: tuple[float, float] | None = None
    prices: tuple[float, float] = (0.0, 0.0)

    def take_stock(self, note: str = "") -> None:
        """A bound and an allocation from the present answers."""
        self.best.improve(self.cell, *self.prices, self.table)
        self.control.report(_snapshot(self.control, self.iterations, self.best, note))

    def probe(self, mu: float, q: float) -> _Response:
        """Let the devices answer, and take a bound and an allocation where they are worth their cost.

        Raises
        ------
        _Stop
            When the search is over.
        """
        cell, table, options = self.cell, self.table, self.control.options
        pooled = cell.problem.pooled
        nu = cell.price_of_kept(q)
        if self.at is not None:  # first-order prediction, from which the devices' Newton methods start
            table[X] += table[X_MU] * (math.log(mu) - self.at[0]) + table[X_NU] * (nu - self.at[1])
        # Newton squares the residual: answers need not be better than the prices at which they are given,
        # nor, for the bound, than the gap asked for.
        close = min(0.1 * self.residual, 0.03 * math.sqrt(options.rel_gap)) if self.residual < 0.3 else 0.03
        cell.answer(mu, q, table, max(close, 1e-8))
        self.at, self.prices = (math.log(mu), nu), (mu, q)
        self.iterations += 1
        band = table[BANDWIDTH]
        total = float(np.sum(band))
        square = cell.weight * np.exp(2.0 * table[X])
        with np.errstate(invalid="ignore"):  # a sum beyond doubles has no shares: the residual is inf too
            rise = band * table[SLOPE] / total
        bend, kept = 0.0, q
        if pooled:
            step = 1e-6 * q
            bend = (cell.price_of_kept(q + step) - cell.price_of_kept(q - step)) / (2.0 * step)
            kept = float(np.sum(square))
        response = _Response(
            math.log(total / cell.bandwidth_hz),
            kept - q,
            (
                float(rise @ table[X_MU]),
                float(rise @ table[X_NU]) * bend,
                2.0 * float(square @ table[X_MU]),
                2.0 * float(square @ table[X_NU]) * bend - 1.0,
            ),
        )
        self.residual = response.residual
        note = f"bandwidth {total / cell.bandwidth_hz:.6g} of what there is, kept share {kept:.6g}"
        last = self.control.stopped() or self.iterations >= _MAX_ITERATIONS
        if response.residual < options.rel_gap or last:
            self.take_stock(note)
        else:
            self.control.report(_snapshot(self.control, self.iterations, self.best, note))
            if self.control.stopped():  # by the callback
                self.take_stock(note)
        self.settled = self.settled + 1 if response.residual < 1e-11 else 0
        if self.best.gap <= options.rel_gap or last or self.control.stopped() or self.settled == 3:
            raise _Stop
        return response

    def newton(self, mu: float, q: float, q_high: float) -> tuple[float, float]:
        """Newton on (log mu, Q); returns when three steps in a row bring nothing, for answers have kinks."""
        least, idle = math.inf, 0
        while idle < 3:
            response = self.probe(mu, q)
            idle = 0 if response.residual < 0.7 * least else idle + 1
            least = min(least, response.residual)
            a, b, c, d = response.jacobian
            # Aim a hair below B, at no cost that shows in the gap: the answers then fit as they are.
            over, gain = response.over + min(1e-9, 1e-3 * self.control.options.rel_gap), response.gain
            det = a * d - b * c
            if not det > 0.0:
                break
            y, dq = (b * gain - d * over) / det, (c * over - a * gain) / det
            _in_range(math.log(mu) + min(max(y, -4.0), 4.0))
            mu *= math.exp(min(max(y, -4.0), 4.0))
            if self.cell.problem.pooled:
                q += min(max(dq, -0.7 * q), 0.5 * (q_high - q))
        return mu, q

    def nested(self, mu: float, q_high: float) -> None:
        """A root in Q around a root in log mu, which cannot fail.

        The total bandwidth falls in mu; at the mu that meets B, sum w s^2 - Q falls in Q, because the dual
        function stays concave when it is maximised over mu.
        """
        from scipy.optimize import brentq  # costs more to import than most instances to solve

        start = math.log(mu)

        def at_best_price(q: float) -> float:
            nonlocal start
            low = high = start
            # answers depend on their starting point in the last digits, so each is asked for once only
            over = functools.cache(lambda y: self.probe(math.exp(y), q).over)
            while over(low) < 0.0:
                low = _in_range(low - 1.0)
            while over(high) > 0.0:
                high = _in_range(high + 1.0)
            start = brentq(over, low, high, xtol=1e-14, rtol=1e-15)
            return self.probe(math.exp(start), q).gain

        if self.cell.problem.pooled:
            brentq(at_best_price, 1e-9 * q_high, q_high, xtol=1e-16, rtol=1e-15)
        else:
            at_best_price(q_high)


def _in_range(log_price: float) -> float:
    """A price that is a double.

    Raises
    ------
    _Stop
        For another: no price of spectrum clears it, for its sum never meets what there is.
    """
    if abs(log_price) > _PRICE:
        raise _Stop
    return log_price


def _finish(
    cell: Cell, control: Control, best: Incumbent, iterations: int, findings: tuple[Diagnosis, ...] = ()
) -> Result:
    """The result, with the objective of the allocation as it is returned."""
    problem = cell.problem
    if findings:
        result = infeasible(problem, "convex", control, findings)
    elif best.answer is None:
        result = nothing_found(problem, "convex", control, best.lower)
    elif (allocation := cell.allocation(best.answer)) is None:
        message = "the allocation found breaks a budget by rounding; method 'bnb' may do better"
        result = unsolved(problem, "convex", control, best.lower, f"{message}; please report the instance")
    else:
        value = problem.objective(allocation.keep)
        rest = "the prices came to rest: "
        result = proven(problem, "convex", control, allocation, value, best.lower, rest)
        told = {row.label: price for row, price in zip(cell.caps.rows, best.rows[1:], strict=False)}
        result = replace(result, prices={"spectrum_per_hz": best.mu, "kept_share": best.q, **told})
        result = replace(result, proof=best.rows or None)
    return replace(result, iterations=iterations)
