r"""The set-partitioning master by HiGHS: a column is a device with a set of sub-carriers, a mode and a keep rate.

.. math::
    \min \sum_c \mathrm{cost}_c x_c + \sum_e y_e + \sum_m (u_m z^+_m - l_m z^-_m) \quad\text{s.t.}\quad
    \sum_{c \in k} x_c = 1,\; \sum_{c \ni m} x_c - z^+_m + z^-_m \le 1,\;
    y_e \ge w_e \mathrm{gap}_e(Q_i) + \mathrm{gap}_e'(Q_i) (\sum_{c \in e} q_c x_c - w_e Q_i)

z keeps the prices within [l, u], a box around the best so far. It only steers them: bounds come from pricing.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.solvers.ofdma.kernels.pools import Pools
from edgealloc.solvers.quiet import quiet_highs
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Master", "MasterPoint"]

Values = list[float] | FloatArray

_SCALE = 1e4  # of the objective over that of the problem, for the tolerances of HiGHS are absolute
_TANGENT = 1e-6  # tangents this close count as one


@dataclass(frozen=True, slots=True, eq=False)
class MasterPoint:
    """Solution of the master.

    Parameters
    ----------
    value
        Its objective.
    mu, nu
        Prices of the sub-carriers, shape [M], and of w s^2 of each pool, shape [E].
    x
        Weights of the columns. Shape [N].
    slack
        Whether the price box is slack.
    """

    value: float
    mu: FloatArray
    nu: FloatArray
    x: FloatArray
    slack: bool


class Master:
    """Columns only grow; a node of the tree switches some off.

    Parameters
    ----------
    devices, subcarriers
        K and M.
    pools
        The stability terms that couple devices.
    no_set_cost
        Cost of the fallback column of each device, above any objective.
    scale
        Size of the objective.
    """

    def __init__(self, devices: int, subcarriers: int, pools: Pools, no_set_cost: float, scale: float) -> None:
        import highspy  # 0.2 s, and only needed here

        self.devices, self.subcarriers, self.pools = devices, subcarriers, pools
        self.scale = _SCALE / scale
        self.inf = highspy.kHighsInf
        self.optimal = highspy.HighsModelStatus.kOptimal
        self.lp = quiet_highs()
        # primal simplex: columns arrive at a primal feasible basis; presolve would discard it
        for name, value in (("threads", 1), ("presolve", "off"), ("simplex_strategy", 4)):
            self.lp.setOptionValue(name, value)
        self.count = 0
        self.mask = np.zeros((256, subcarriers), bool)
        self.cost, self.kept = np.zeros(256), np.zeros(256)
        self.device, self.mode = np.zeros(256, np.int64), np.zeros(256, np.int64)
        self.keep = np.zeros(256)
        self.keys: set[tuple[int, int, bytes, float]] = set()
        self.tangents: list[tuple[int, float]] = []  # a pool, and a mean that it keeps
        for _ in range(devices):
            self._row(1.0, 1.0, [], [])
        for _ in range(subcarriers):
            self._row(-self.inf, 1.0, [], [])
        for k in range(devices):
            self._column(no_set_cost, 0.0, [k], [1.0])
        for _ in pools.weight:
            self._column(1.0, -self.inf if pools.coupled else 0.0, [], [])
        for sign in (-1.0, 1.0):
            for m in range(subcarriers):
                self._column(1.0 if sign < 0 else 0.0, 0.0, [devices + m], [sign])
        self.gaps = devices + len(pools.weight)  # number of the first column after the stability terms
        self.first = self.gaps + 2 * subcarriers
        self.costly = np.ones(2 * subcarriers, bool)

    def _row(
        self, lower: float, upper: float, index: list[int] | IntArray, values: list[float] | FloatArray
    ) -> None:
        self.lp.addRow(lower, upper, len(index), np.asarray(index, np.int32), np.asarray(values, float))

    def _column(
        self, cost: float, lower: float, index: list[int] | IntArray, values: list[float] | FloatArray
    ) -> None:
        self.lp.addCol(
            self.scale * cost, lower, self.inf, len(index), np.asarray(index, np.int32), np.asarray(values, float)
        )

    def add(self, device: int, mode: int, mask: BoolArray, cost: float, kept: float, keep: float) -> bool:
        """Add a column; False if it is there already.

        Parameters
        ----------
        device, mode
            The device, and its mode (-1: left out).
        mask
            Its set of sub-carriers. Shape [M].
        cost
            Its share without prices.
        kept, keep
            w s^2, and s.

        Returns
        -------
        bool
            Whether it is new.
        """
        key = (device, mode, mask.tobytes(), round(keep, 12))
        if key in self.keys:
            return False
        self.keys.add(key)
        if self.count == self.cost.size:
            for name in ("mask", "cost", "kept", "device", "mode", "keep"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros_like(array)]))
        base = self.devices + self.subcarriers
        own = [i for i, (pool, _) in enumerate(self.tangents) if pool == self.pools.device[device]]
        rows = np.r_[device, self.devices + np.flatnonzero(mask), base + np.array(own, dtype=np.intp)]
        falls = [-self.pools.slope(self.tangents[i][1], self.tangents[i][0]) * kept for i in own]
        self._column(cost, 0.0, rows, np.r_[np.ones(1 + int(mask.sum())), falls])
        at = self.count
        self.mask[at], self.cost[at], self.kept[at] = mask, cost, kept
        self.device[at], self.mode[at], self.keep[at] = device, mode, keep
        self.count += 1
        return True

    def add_tangents(self, kept: FloatArray, tolerance: float = 0.0) -> bool:
        """Tangents of the stability terms at means [E] that pools keep; whether any was farther off than told."""
        if not self.pools.coupled:
            return False
        return any([self._add_tangent(e, q, tolerance / len(kept)) for e, q in enumerate(kept.tolist())])

    def _add_tangent(self, pool: int, kept: float, tolerance: float) -> bool:
        pools, near = self.pools, [t for e, t in self.tangents if e == pool]
        if any(abs(kept - t) < _TANGENT for t in near):
            return False
        below = max((pools.gap(t, pool) + pools.slope(t, pool) * (kept - t) for t in near), default=-np.inf)
        value, slope, weight = pools.gap(kept, pool), pools.slope(kept, pool), float(pools.weight[pool])
        if weight * (value - below) <= tolerance:
            return False
        mine = np.flatnonzero(pools.device[self.device[: self.count]] == pool)
        columns = np.r_[self.devices + pool, self.first + mine]
        self._row(weight * (value - slope * kept), self.inf, columns, np.r_[1.0, -slope * self.kept[mine]])
        self.tangents.append((pool, kept))
        return True

    def kept_by(self, x: FloatArray) -> FloatArray:
        """What the pools keep on the mean at weights [N] of the columns. Shape [E]."""
        return self.pools.kept(self.device[: self.count], x, self.kept[: self.count])

    def set_box(self, lower: FloatArray, upper: FloatArray) -> None:
        """Keep prices within [lower, upper]. Shapes [M]."""
        # giving capacity away for nothing is no binding box
        self.costly = np.r_[np.ones(self.subcarriers, bool), lower > 0.0]
        columns = np.arange(self.gaps, self.first, dtype=np.int32)
        self.lp.changeColsCost(columns.size, columns, self.scale * np.r_[upper, -lower])

    def allow(self, usable: BoolArray) -> None:
        """Restrict the columns to those usable, shape [N]."""
        columns = np.arange(self.first, self.first + self.count, dtype=np.int32)
        self.lp.changeColsBounds(columns.size, columns, np.zeros(self.count), np.where(usable, self.inf, 0.0))

    def solve(self, seconds: float) -> MasterPoint | None:
        """Solve within a time; None when HiGHS does not call its point optimal."""
        self.lp.setOptionValue("time_limit", self.lp.getRunTime() + max(seconds, 1e-3))
        self.lp.run()
        if self.lp.getModelStatus() != self.optimal:
            return None
        solution = self.lp.getSolution()
        dual, primal = np.array(solution.row_dual) / self.scale, np.array(solution.col_value)
        mu = np.maximum(0.0, -dual[self.devices : self.devices + self.subcarriers])
        nu, paid = np.zeros(len(self.pools.weight)), dual[self.devices + self.subcarriers :]
        for e in range(len(nu)):
            mine = np.array([i for i, (pool, _) in enumerate(self.tangents) if pool == e], dtype=np.intp)
            falls = [self.pools.slope(self.tangents[i][1], e) for i in mine]
            nu[e] = max(0.0, float(paid[mine] @ np.array(falls)))
        slack = bool(primal[self.gaps : self.first][self.costly].sum() < 1e-9)
        value = self.lp.getInfo().objective_function_value / self.scale
        return MasterPoint(value, mu, nu, primal[self.first :], slack)
