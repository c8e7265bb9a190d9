"""An OFDMA problem as arrays for the compiled kernels.

The rows come twice: with budgets larger by a few units in the last place, for lower bounds, and smaller by
:data:`SHRINK`, for whatever becomes an allocation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from edgealloc.formulation.constrained import most_subcarriers
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.logistic import Logistic
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.curve import objective_vector
from edgealloc.solvers.ofdma.kernels.device import BAND, EPS, MODE_WIDTH, SCALE, TERM, UNDER, WEIGHT
from edgealloc.solvers.ofdma.kernels.pools import Pools
from edgealloc.solvers.ofdma.kernels.share import CURVE, KIND
from edgealloc.solvers.row import DEADLINE, ENERGY, PMAX, SMAX, SMIN, WIDTH, device_rows
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["SHRINK", "Assignment", "OfdmaCell"]


# Budgets are reduced by this share where allocations are computed, so that rounding cannot break the true ones.
SHRINK = 1e-12
_GRID = 129  # rates of a non-convex objective before the best interval is refined
_OUTWARD = 16.0 * EPS  # the units in the last place by which products and quotients of the input may be off


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """Who owns which sub-carrier, and what the devices do with them.

    Parameters
    ----------
    owner
        Owner of each sub-carrier, -1 for none. Shape [M].
    mode
        Mode of each device, -1 when left out. Shape [K].
    keep
        Keep rates, 0 when left out. Shape [K].
    """

    owner: IntArray
    mode: IntArray
    keep: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class OfdmaCell:
    """Arrays of one problem. A *mode* is a device with one row of its menu.

    Parameters
    ----------
    problem
        The problem.
    device, option
        Device and menu row (-1 without a menu) of each mode. Shape [I].
    start
        Modes of device k: start[k] to start[k + 1] - 1. Shape [K + 1].
    rows, safe_rows
        Mode rows with budgets rounded up, and shrunk. Shape [I, MODE_WIDTH].
    objective
        See :mod:`edgealloc.solvers.ofdma.kernels.share`; one after another where devices differ. Shape [8 + 5 P].
    levels
        Allowed keep rates of each mode, padded with nan. Shape [I, J].
    out
        Share of a device left out, inf where that is not allowed. Shape [K].
    inv_a, log2_a, order
        1 / a in W of each device's sub-carriers in increasing order, its negative binary logarithm, and which
        sub-carriers they are. Shapes [K, M].
    most
        How many sub-carriers a device may own: M, or less where a constraint says so. Shape [K].
    pools
        The stability terms that couple devices.
    size
        Size of the objective, for tolerances.
    worst
        What no objective of devices that all take part exceeds, less the least stability term.
    counting
        The objective is only the number of devices left out.
    common
        All devices that take part share one keep rate.
    """

    problem: Problem
    device: IntArray
    option: IntArray
    start: IntArray
    rows: FloatArray
    safe_rows: FloatArray
    objective: FloatArray
    levels: FloatArray
    out: FloatArray
    inv_a: FloatArray
    log2_a: FloatArray
    order: IntArray
    most: IntArray
    pools: Pools
    size: float
    worst: float
    counting: bool = False
    common: bool = False

    @classmethod
    def of(cls, problem: Problem) -> OfdmaCell:
        """The arrays of a problem."""
        inst, bound = problem.instance, problem.instance.bound
        modes = [
            (k, j if menu else -1)
            for k in range(inst.num_devices)
            for menu in [inst.adapter_options[k] if inst.adapter_options else None]
            for j in range(len(menu or (None,)))
        ]
        device = np.array([k for k, _j in modes])
        option = np.array([j for _k, j in modes])
        rows = _rows(problem, device, option)
        objective, begin = objective_vector(problem)
        pools = Pools.of(problem, objective)
        rows[:, TERM] = begin[device]
        safe = rows.copy()
        beside = np.maximum(inst.latency_s - rows[:, DEADLINE], 0.0)  # what is downloaded beside takes so long
        for column in (DEADLINE, PMAX):
            safe[:, column] *= 1.0 - SHRINK
            rows[:, column] *= 1.0 + _OUTWARD
        safe[:, DEADLINE] -= SHRINK * beside
        rows[:, DEADLINE] += _OUTWARD * beside
        safe[:, ENERGY] -= SHRINK * inst.energy_j[device]
        rows[:, ENERGY] += _OUTWARD * inst.energy_j[device]
        given = [inst.keep_levels[k] if inst.keep_levels else None for k in device]
        levels = np.full((len(modes), max((len(v) for v in given if v is not None), default=0)), np.nan)
        for i, values in enumerate(given):
            if values is not None:
                levels[i, : len(values)] = values
                rows[i, [SMIN, SMAX]] = safe[i, [SMIN, SMAX]] = values[0], values[-1]
        if inst.common_keep and inst.exclusion_penalty is None:
            levels = _share_range(rows, safe, levels)
        term, none = problem.stability, np.zeros(inst.num_devices)
        own = term.value(none) if problem.objective.own else none
        out = np.full(inst.num_devices, np.inf)
        if inst.exclusion_penalty is not None:
            out = inst.weights * (bound.underfit_weight * inst.exclusion_penalty + own)
        with np.errstate(divide="ignore"):
            inv = inst.noise_psd_w_per_hz * subcarrier_hz(inst) / inst.gain * (1.0 - _OUTWARD)
            order = np.argsort(inv, axis=1, kind="stable")
            inv = np.ascontiguousarray(np.take_along_axis(inv, order, axis=1))
            log2 = -np.log2(inv)
        return cls(
            problem=problem,
            device=device,
            option=option,
            start=np.searchsorted(device, np.arange(inst.num_devices + 1)),
            rows=rows,
            safe_rows=safe,
            objective=objective,
            levels=levels,
            out=out,
            inv_a=inv,
            log2_a=log2,
            order=order,
            most=most_subcarriers(inst, problem.constraints),
            pools=pools,
            size=max(problem.size, 1e-300),
            worst=_worst(problem, pools),
            common=inst.common_keep,
        )

    def feasibility(self) -> OfdmaCell:
        """The same devices, to leave as few out as possible: least keep rates, cost 1 for each left out."""
        rows, safe = self.rows.copy(), self.safe_rows.copy()
        for table in (rows, safe):
            table[:, UNDER] = 0.0
            table[:, SMAX] = table[:, SMIN]
        objective = self.objective.copy()
        objective[1:4] = 1.0, 0.0, 0.0  # each device has its own stability term, which is zero
        levels = np.full((len(rows), 0), np.nan)
        return replace(
            self,
            rows=rows,
            safe_rows=safe,
            objective=objective,
            pools=self.pools.without_terms(objective),
            levels=levels,
            out=np.ones(len(self.out)),
            size=1.0,
            worst=0.0,
            counting=True,
            common=False,  # all rates are the least common one
        )

    @property
    def devices(self) -> int:
        """K."""
        return len(self.inv_a)

    @property
    def subcarriers(self) -> int:
        """M."""
        return int(self.inv_a.shape[1])

    @property
    def capped(self) -> bool:
        """Whether a constraint limits how many sub-carriers some device may own."""
        return bool(np.any(self.most < self.subcarriers))

    @property
    def pooled(self) -> bool:
        """Whether stability terms of pooled data couple devices."""
        return self.pools.coupled

    @property
    def curved(self) -> bool:
        """Whether shares may be non-convex in s^2 while the pooled stability term couples them."""
        return bool(np.any(self.objective[self.rows[:, TERM].astype(np.intp) + KIND] >= CURVE)) and self.pooled

    @property
    def dear(self) -> float:
        """A thousandth of what it costs, to a search, when a device that must take part does not.

        The size of the objective says how dear that is but where the terms of the objective are far apart: what
        devices cost that keep little may be 1e4 times the free minimum and more.
        """
        left_out = float(np.max(self.out, initial=0.0, where=np.isfinite(self.out)))
        return max(self.size, left_out, 2e-3 * self.worst)

    def takes(self, plan: Assignment) -> bool:
        """Whether the devices that a plan leaves out may be left out."""
        return self.counting or bool(np.all(np.isfinite(self.out[plan.mode < 0])))

    def prices(self, keep: FloatArray) -> FloatArray:
        """Prices of w s^2 of the pools where devices keep rates [K]. Shape [E]."""
        everyone = np.arange(self.devices)
        return self.pools.slopes(self.pools.kept(everyone, self.problem.instance.weights, np.square(keep)))

    def cap(self, mode: int, mask: BoolArray, safe: bool = False) -> tuple[float, float]:
        """(Largest keep rate, water level in W) of a mode on a set of sub-carriers, shape [M]."""
        k = self.device[mode]
        used = mask[self.order[k]].astype(float)
        row = (self.safe_rows if safe else self.rows)[mode]
        cap, level = keep_cap(row, self.inv_a[k], self.log2_a[k], used)
        return float(cap), float(level)

    def keeps(self, owner: IntArray, mode: IntArray, at: FloatArray | None = None) -> Assignment | None:
        """The best keep rates of an assignment with given modes; None when a device has none or owns too many.

        ``at`` [K] chooses the level of every device that has levels; the others then are optimal. With curves it
        is only a start.
        """
        on = np.flatnonzero(mode >= 0)
        keep = np.zeros(self.devices)
        if np.any(np.bincount(owner[owner >= 0], minlength=self.devices)[on] > self.most[on]):
            return None
        if len(on):
            caps = np.array([self.cap(int(mode[k]), owner == k, safe=True)[0] for k in on])
            rows, levels = self.safe_rows[mode[on]], self.levels[mode[on]]
            discrete = ~np.isnan(levels).all(axis=1)
            least = rows[:, SMIN]
            if at is not None and not self.curved:
                levels = np.where(discrete, at[on], np.nan)[:, None]
                least = np.where(discrete, at[on], least)
            if np.any(caps < least):
                return None
            if self.common:
                rate = self._common_rate(on, mode, caps)
                if rate is None:
                    return None
                keep[on] = rate
                return Assignment(np.where((owner >= 0) & (mode[owner] >= 0), owner, -1), mode, keep)
            if at is not None and self.curved:
                first = np.minimum(np.maximum(at[on], least), caps)
                best = self.pools.best_keeps(on, rows, levels, caps, first)
            else:
                best = self.pools.best_keeps(on, rows, levels, caps)
            best = np.clip(best, rows[:, SMIN], rows[:, SMAX])
            for i in np.flatnonzero(discrete):  # the level itself, whatever squaring did; never one above the cap
                allowed = np.where(levels[i] <= caps[i], levels[i], np.nan)
                best[i] = allowed[np.nanargmin(np.abs(allowed - best[i]))]
            keep[on] = best
        return Assignment(np.where((owner >= 0) & (mode[owner] >= 0), owner, -1), mode, keep)

    def _common_rate(self, on: IntArray, mode: IntArray, caps: FloatArray) -> float | None:
        """The best rate that devices ``on`` share under their caps; None when they have none in common."""
        rows, levels = self.safe_rows[mode[on]], self.levels[mode[on]]
        low, high = float(rows[:, SMIN].max()), float(np.minimum(caps, rows[:, SMAX]).min())
        discrete = ~np.isnan(levels).all(axis=1)
        selected = mode >= 0
        option = np.where(selected, self.option[mode], 0)

        def value(rate: float) -> float:
            return self.problem.objective(np.where(selected, rate, 0.0), selected, np.maximum(option, 0))

        if discrete.any():
            shared = reduce(np.intersect1d, levels[discrete])
            rates = [float(s) for s in shared if low <= s <= high]
        else:
            rates = [low, high] if low <= high else []
            if rates and self.problem.underfit.square_convex and value(high) > value(high - 1e-7 * (high - low)):
                rates.append(_least(value, low, high))
            elif rates and not self.problem.underfit.square_convex:
                grid = np.linspace(low, high, _GRID)
                if isinstance(self.problem.underfit.value, Logistic):
                    grid = np.union1d(grid, np.clip(self.problem.underfit.value.fall(), low, high))
                best = int(np.argmin([value(s) for s in grid]))
                rates.append(
                    _least(value, float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)]))
                )
        return min(rates, key=value, default=None)

    def value(self, plan: Assignment) -> float:
        """Objective of an assignment."""
        if self.counting:
            return float(np.sum(plan.mode < 0))
        option = np.where(plan.mode >= 0, self.option[plan.mode], -1)
        return self.problem.objective(plan.keep, plan.mode >= 0, np.maximum(option, 0))


def _worst(problem: Problem, pools: Pools) -> float:
    """Underfitting at the least keep rates and stability at the most."""
    inst = problem.instance
    factor = max((row.underfit_factor for menu in inst.adapter_options or () for row in menu or ()), default=1.0)
    under = inst.bound.underfit_weight * max(factor, 1.0) * problem.underfit.value(inst.keep_min)
    own = np.square(inst.keep_max)
    if problem.objective.own:
        kept = problem.stability.value(own)
    else:
        kept = problem.stability.value(pools.kept(np.arange(len(own)), inst.weights, own))[pools.device]
    return float(inst.weights @ (np.abs(under) + np.abs(kept)))


def _share_range(rows: FloatArray, safe: FloatArray, levels: FloatArray) -> FloatArray:
    """Cut all rows to the range of rates that all devices share; returns the levels that all allow. Shape [I, J].

    Rows are left without any rate where devices share none.
    """
    discrete = ~np.isnan(levels).all(axis=1) if levels.shape[1] else np.zeros(len(rows), bool)
    low, high = rows[:, SMIN].max(), rows[:, SMAX].min()
    if discrete.any():
        shared = reduce(np.intersect1d, levels[discrete])
        shared = shared[(shared >= low) & (shared <= high)]
        low, high = (shared[0], shared[-1]) if len(shared) else (1.0, 0.0)
        levels = np.tile(shared, (len(rows), 1))
    for table in (rows, safe):
        table[:, SMIN], table[:, SMAX] = low, high
    return levels


def _least(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one local minimum is least, by golden section."""
    ratio = 0.5 * (math.sqrt(5.0) - 1.0)
    x, y = high - ratio * (high - low), low + ratio * (high - low)
    fx, fy = value(x), value(y)
    for _ in range(60):
        if fx <= fy:
            high, y, fy = y, x, fx
            x = high - ratio * (high - low)
            fx = value(x)
        else:
            low, x, fx = x, y, fy
            y = low + ratio * (high - low)
            fy = value(y)
    return x if fx <= fy else y


def _rows(problem: Problem, device: IntArray, option: IntArray) -> FloatArray:
    """Rows of modes with budgets as given, see :mod:`.kernels.device`. Shape [I, MODE_WIDTH]."""
    inst = problem.instance
    sizes = np.array([len(menu) if menu else 0 for menu in inst.adapter_options or (None,) * inst.num_devices])
    own = problem.stability.scale if problem.objective.own else np.zeros(inst.num_devices)
    rows = np.empty((len(device), MODE_WIDTH))
    for o in range(max(int(sizes.max(initial=0)), 1)):
        adapter = chosen_adapter(inst, np.where(sizes > 0, np.minimum(o, sizes - 1), -1))
        at = np.maximum(option, 0) == o
        rows[at, :WIDTH] = device_rows(inst, adapter)[device[at]]
        rows[at, UNDER] = (inst.bound.underfit_weight * inst.weights * adapter.underfit_factor)[device[at]]
    rows[:, WEIGHT], rows[:, SCALE], rows[:, BAND] = inst.weights[device], own[device], subcarrier_hz(inst)
    return rows
