"""A continuous FDMA problem as arrays for the compiled kernels: answers, bounds and allocations.

The rows come twice: true, for lower bounds, and shrunk by :data:`SHRINK`, for whatever becomes an allocation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import relative_gap
from edgealloc.formulation.device import AdapterChoice, chosen_adapter, cycles, payload_bits
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.fdma.caps import Caps
from edgealloc.solvers.fdma.response import (
    BANDWIDTH,
    COMPUTE,
    SLOPE,
    UPLOAD,
    V,
    X,
    answers,
    bandwidths,
    floor_of_answers,
    new_table,
)
from edgealloc.solvers.row import PER_BIT, PMAX, device_rows
from edgealloc.units import FloatArray

__all__ = ["SHRINK", "Cell", "Incumbent"]

# Deadline, energy and power are reduced by this share where allocations are computed, so that rounding errors
# cannot break the true budgets. It costs the objective about as much, relatively.
SHRINK = 1e-12
# Rounding errors of the sums that make up a dual value, in units of their absolute terms.
_ROUNDING = 64.0 * 2.0**-53
_SPARE = 1e-14  # of the band, so that a rounded sum or quotient does not hide a few units too many


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """Arrays of one problem; see :mod:`edgealloc.solvers.fdma.response` for the kernels that take them.

    Parameters
    ----------
    problem, adapter
        The problem and the adapter that each device trains.
    rows, safe_rows
        Device rows with the true and with the shrunk budgets. Shape [K, WIDTH].
    under, weight, scale
        A w_k factor_k; w_k; 1 / (2 n_k delta) for device pooling. Shape [K].
    pool
        Constants of the stability term. Shape [5].
    low, high
        log keep_min and log keep_max. Shape [K].
    caps
        The band, and the caps of the problem.
    """

    problem: Problem
    adapter: AdapterChoice
    rows: FloatArray
    safe_rows: FloatArray
    under: FloatArray
    weight: FloatArray
    scale: FloatArray
    pool: FloatArray
    low: FloatArray
    high: FloatArray
    caps: Caps

    @classmethod
    def of(cls, problem: Problem) -> Cell:
        """The arrays of a problem without a menu (or with its first rows)."""
        inst = problem.instance
        adapter = chosen_adapter(inst, np.zeros(inst.num_devices, dtype=np.intp))
        term = problem.stability
        kind = 0.0 if problem.pooled else 1.0
        weights = inst.weights
        low, high = inst.keep_min, inst.keep_max
        if inst.common_keep:
            low, high = np.full_like(low, low.max()), np.full_like(high, high.min())
        return cls(
            problem=problem,
            adapter=adapter,
            rows=device_rows(inst, adapter),
            safe_rows=device_rows(inst, adapter, SHRINK),
            under=inst.bound.underfit_weight * weights * adapter.underfit_factor,
            weight=weights,
            scale=np.broadcast_to(term.scale, weights.shape).copy(),
            pool=np.array([kind, term.base, term.spread, term.curvature, term.sparsity]),
            low=np.log(low),
            high=np.log(high),
            caps=Caps.of(problem, inst.bandwidth_hz, inst.bandwidth_hz * (1.0 - _SPARE)),
        )

    @property
    def bandwidth_hz(self) -> float:
        """The shared bandwidth B in Hz."""
        return self.problem.instance.bandwidth_hz

    def price_of_kept(self, q0: float) -> float:
        """Price nu = gap'(Q0) of the kept share Q; 0 for device pooling."""
        return self.problem.stability.pooled_slope(q0) if self.problem.pooled else 0.0

    def answer(self, mu: float, q0: float, table: FloatArray, close: float = 1e-8) -> None:
        """Let all devices answer the prices mu per Hz and gap'(q0), in place.

        Parameters
        ----------
        mu, q0
            Price of a Hz, and the kept share at whose slope it is priced.
        table
            Answer table, the start and the result. Shape [10, K].
        close
            Log keep is wrong by about its square.
        """
        nu, rows, low, high = self.price_of_kept(q0), self.safe_rows, self.low, self.high
        answers(rows, self.under, self.weight, self.scale, self.pool, mu, nu, low, high, close, table)

    def lower_bound(self, mu: float, q0: float, table: FloatArray) -> float:
        """Dual value at prices, minus a margin for every rounding error on the way (docs/mathematics.md, 5).

        Parameters
        ----------
        mu, q0
            Price of a Hz, and the kept share at whose slope it is priced.
        table
            Answers at these prices, or any others. Shape [10, K].

        Returns
        -------
        float
            A proven lower bound of G.
        """
        nu = self.price_of_kept(q0)
        floors = np.empty(len(self.low))
        floor_of_answers(
            self.rows, self.under, self.weight, self.scale, self.pool, mu, nu, self.low, self.high, table, floors
        )
        gap = float(self.problem.stability.value(np.asarray(q0))) if self.problem.pooled else 0.0
        size = gap + 2.0 * nu + mu * self.bandwidth_hz + float(np.sum(np.abs(floors)))
        return math.fsum((gap, -nu * q0, -mu * self.bandwidth_hz, math.fsum(floors))) - _ROUNDING * size

    def bandwidth_at(self, x: FloatArray, v: FloatArray) -> FloatArray:
        """A table with the least bandwidths at x = log keep under the shrunk budgets. Shape [10, K]."""
        table = new_table(len(self.low))
        bandwidths(self.safe_rows, x, v, table)
        return table

    def relaxed_bandwidth_at(self, x: FloatArray) -> FloatArray:
        """As :meth:`bandwidth_at` under budgets enlarged by SHRINK: what is blocked there is blocked. [10, K]."""
        rows = device_rows(self.problem.instance, self.adapter, -SHRINK)
        table = new_table(len(x))
        bandwidths(rows, x, np.zeros_like(x), table)
        return table

    def answer_each(self, price: FloatArray, q0: float, table: FloatArray) -> None:
        """As :meth:`answer` with a price per Hz for each device, shape [K]; ``table`` has shape [10, K]."""
        nu = self.price_of_kept(q0)
        for one in np.unique(price):
            at = np.flatnonzero(price == one)
            some = np.ascontiguousarray(table[:, at])
            answers(
                self.safe_rows[at], self.under[at], self.weight[at], self.scale[at], self.pool, float(one), nu,
                self.low[at], self.high[at], 1e-8, some,
            )  # fmt: skip
            table[:, at] = some

    def lower_bound_each(self, rows: FloatArray, q0: float, table: FloatArray) -> float:
        """As :meth:`lower_bound` at prices of all rows of the caps, shape [R]; ``table`` has shape [10, K]."""
        nu, price, floors = self.price_of_kept(q0), rows @ self.caps.spectrum, np.empty(len(self.low))
        for one in np.unique(price):
            at = np.flatnonzero(price == one)
            some = np.empty(len(at))
            floor_of_answers(
                self.rows[at], self.under[at], self.weight[at], self.scale[at], self.pool, float(one), nu,
                self.low[at], self.high[at], np.ascontiguousarray(table[:, at]), some,
            )  # fmt: skip
            floors[at] = some
        paid = rows * self.caps.most
        gap = self.gap_at(q0)
        size = gap + 2.0 * nu + 2.0 * float(np.sum(paid)) + float(np.sum(np.abs(floors)))
        value = math.fsum((gap, -nu * q0, -math.fsum(paid), math.fsum(floors)))
        return value - (_ROUNDING + len(rows) * 2.0**-50) * size

    def gap_at(self, q0: float) -> float:
        """The pooled stability term at a kept share; 0 for device pooling."""
        return float(self.problem.stability.value(np.asarray(q0))) if self.problem.pooled else 0.0

    def kept_at(self, nu: float) -> float:
        """The kept share in [0, 1] at which its price is nu, by bisection; the price does not fall."""
        low, high = 0.0, 1.0
        for _ in range(54):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.price_of_kept(middle) < nu else (low, middle)
        return 0.5 * (low + high)

    def least_total_hz(self, x: FloatArray) -> float:
        """Proven lower bound of the total bandwidth in Hz at x = log keep, shape [K]; ``inf`` if none does."""
        return float(np.sum(self.least_hz(x))) * (1.0 - 1e-13)

    def short(self, x: FloatArray) -> bool:
        """Whether the bandwidths at x = log keep, shape [K], provably exceed the band or a cap."""
        with np.errstate(invalid="ignore"):
            each = np.where(self.caps.spectrum > 0.0, self.caps.spectrum * self.least_hz(x), 0.0)
        return bool(np.any(np.sum(each, axis=1) * (1.0 - 1e-13) > self.caps.most))

    def excess(self, table: FloatArray, reach: FloatArray | float) -> tuple[float, float]:
        """Log of the fullest row over what there is, and its slope where x moves by ``reach`` [K]. [10, K]."""
        band, caps = table[BANDWIDTH], self.caps
        use = np.sum(caps.usage(band, np.zeros(len(band), dtype=bool)), axis=1)
        if not np.all(np.isfinite(use)):
            return math.inf, math.inf
        i = int(np.argmax(use / caps.safe))
        slope = float(np.sum(caps.spectrum[i] * band * table[SLOPE] * reach)) / float(use[i])
        return math.log(float(use[i]) / float(caps.safe[i])), slope

    def least_hz(self, x: FloatArray) -> FloatArray:
        """Proven lower bounds of bandwidths in Hz at x = log keep; all ``inf`` if none does for one. Shape [K]."""
        table = self.bandwidth_at(x, np.zeros_like(x))
        if not np.all(np.isfinite(table[BANDWIDTH])):
            relaxed = self.relaxed_bandwidth_at(x)[BANDWIDTH]
            return np.full_like(x, math.inf if not np.all(np.isfinite(relaxed)) else -math.inf)
        nothing, floors = np.zeros_like(x), np.empty_like(x)
        floor_of_answers(self.rows, nothing, nothing, nothing, np.zeros(5), 1.0, 0.0, x, x, table, floors)
        return floors

    def fit(self, table: FloatArray) -> FloatArray | None:
        """Answers cut back towards keep_min, all by one share, until band and caps suffice.

        The logarithm of the total bandwidth is convex in that share (a sum of log-convex functions of
        linear functions), so a chord finds a share that fits and a Newton step one that does not. Where that is
        by less than a digit of the share, steps of one digit and more are taken.

        Parameters
        ----------
        table
            Answer table. Shape [10, K].

        Returns
        -------
        array or None
            A table of the same shape, or None when not even keep_min fits.
        """
        reach = table[X] - self.low

        def excess(theta: float) -> tuple[FloatArray, float, float]:
            """Table at a share of the way from keep_min; log of its bandwidth over the limit, and its slope."""
            trial = self.bandwidth_at(self.low + theta * reach, table[V])
            return trial, *self.excess(trial, reach)

        trial, over, slope = excess(1.0)
        if over <= 0.0:
            return trial
        best, under, _slope = excess(0.0)
        if under > 0.0:
            return None
        low, high, digit = 0.0, 1.0, 1e-15
        for _ in range(100):
            if under > -1e-12 or high - low <= 1e-15:
                break
            chord = 0.5 * (low + high) if math.isinf(over) else low + (high - low) * -under / (over - under)
            trial, value, rise = excess(chord)
            if value <= 0.0:
                best, low, under = trial, chord, value
            else:
                high, over, slope = chord, value, rise
            newton = high - max(over / slope, digit)
            if math.isfinite(over) and low < newton < high:
                trial, value, rise = excess(newton)
                if value <= 0.0:
                    best, low, under = trial, newton, value
                else:
                    high, over, slope, digit = newton, value, rise, 4.0 * digit
        return best

    def allocation(self, table: FloatArray) -> Allocation | None:
        """The allocation of fitted answers; keep rates are shaved should a budget still be broken.

        Parameters
        ----------
        table
            Answer table that fits the spectrum. Shape [10, K].

        Returns
        -------
        Allocation or None
            Within all budgets; None where shaving does not help.
        """
        inst = self.problem.instance
        keep = np.clip(np.exp(table[X]), inst.keep_min, inst.keep_max)
        work, bits = cycles(self.adapter, keep), payload_bits(inst, self.adapter, keep)
        with np.errstate(divide="ignore", invalid="ignore"):
            freq = np.clip(work / table[COMPUTE], inst.freq_min_hz, inst.freq_max_hz)
        freq = np.where(work > 0.0, freq, inst.freq_min_hz)
        least = self.safe_rows[:, PER_BIT]
        power = least * bits * (np.expm1(table[V]) / table[V]) / table[UPLOAD]
        power = np.minimum(power, self.safe_rows[:, PMAX])
        allocation = Allocation(keep=keep, freq_hz=freq, power_w=power, bandwidth_hz=table[BANDWIDTH])
        for shave in (0.0, 1e-12, 1e-11, 1e-10, 1e-9):
            lowered = np.maximum(allocation.keep * (1.0 - shave), inst.keep_min)
            if inst.common_keep:
                lowered = np.full_like(lowered, lowered.min())
            allocation = replace(allocation, keep=lowered)
            if not self.problem.violations(allocation):
                return allocation
        return None


@dataclass(slots=True, eq=False)
class Incumbent:
    """The best answers that fit and the best bound so far; each is kept on its own.

    Parameters
    ----------
    upper, lower
        G of the best answers, and the best bound.
    mu, q
        Prices of that bound: per Hz, and the kept share Q0.
    rows
        Prices of all rows of the caps, where there are caps.
    answer
        Answer table of the best answers. Shape [10, K].
    """

    upper: float = math.inf
    lower: float = -math.inf
    mu: float = 0.0
    q: float = 0.0
    rows: tuple[float, ...] = ()
    answer: FloatArray | None = None

    @property
    def gap(self) -> float:
        """Relative gap between the two."""
        return relative_gap(self.upper, self.lower)

    def improve(self, cell: Cell, mu: float, q: float, table: FloatArray) -> None:
        """Take the bound of a table [10, K] at prices (mu, gap'(q)), and what its answers cut back give."""
        bound = cell.lower_bound(mu, q, table)
        if bound > self.lower:
            self.lower, self.mu, self.q = bound, mu, q
        self.offer(cell, cell.fit(table))

    def offer(self, cell: Cell, fitted: FloatArray | None) -> None:
        """Keep answers [10, K] that fit the spectrum if they are better than what there is."""
        if fitted is not None:
            value = cell.problem.objective(np.exp(fitted[X]))
            if value < self.upper:
                self.upper, self.answer = value, fitted
