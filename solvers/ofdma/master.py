r"""The set-partitioning master by HiGHS: a column is a device with a set of sub-carriers, a mode and a keep rate.

.. math::
    \min \sum_c \mathrm{cost}_c x_c + y + \sum_m (u_m z^+_m - l_m z^-_m) \quad\text{s.t.}\quad
    \sum_{c \in k} x_c = 1,\; \sum_{c \ni m} x_c - z^+_m + z^-_m \le 1,\;
    y \ge \mathrm{gap}(Q_i) + \mathrm{gap}'(Q_i) (\sum_c q_c x_c - Q_i)

z keeps the prices within [l, u], a box around the best so far. It only steers them: bounds come from pricing.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgealloc.solvers.quiet import quiet_highs
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Master", "MasterPoint"]

Values = list[float] | FloatArray
Pooled = tuple[Callable[[float], float], Callable[[float], float]]

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
        Prices of the sub-carriers, shape [M], and of w s^2.
    x
        Weights of the columns. Shape [N].
    slack
        Whether the price box is slack.
    """

    value: float
    mu: FloatArray
    nu: float
    x: FloatArray
    slack: bool


class Master:
    """Columns only grow; a node of the tree switches some off.

    Parameters
    ----------
    devices, subcarriers
        K and M.
    pooled
        The stability term of the pooled data and its derivative, or None where each device has its own.
    no_set_cost
        Cost of the fallback column of each device, above any objective.
    scale
        Size of the objective.
    """

    def __init__(
        self, devices: int, subcarriers: int, pooled: Pooled | None, no_set_cost: float, scale: float
    ) -> None:
        import highspy  # 0.2 s, and only needed here

        self.devices, self.subcarriers, self.pooled = devices, subcarriers, pooled
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
        self.tangents: list[float] = []
        for _ in range(devices):
            self._row(1.0, 1.0, [], [])
        for _ in range(subcarriers):
            self._row(-self.inf, 1.0, [], [])
        for k in range(devices):
            self._column(no_set_cost, 0.0, [k], [1.0])
        self._column(1.0, -self.inf if pooled else 0.0, [], [])
        for sign in (-1.0, 1.0):
            for m in range(subcarriers):
                self._column(1.0 if sign < 0 else 0.0, 0.0, [devices + m], [sign])
        self.first = devices + 1 + 2 * subcarriers
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
        rows = np.r_[device, self.devices + np.flatnonzero(mask), base + np.arange(len(self.tangents))]
        falls = [-self.pooled[1](t) * kept for t in self.tangents] if self.pooled else []
        self._column(cost, 0.0, rows, np.r_[np.ones(1 + int(mask.sum())), falls])
        at = self.count
        self.mask[at], self.cost[at], self.kept[at] = mask, cost, kept
        self.device[at], self.mode[at], self.keep[at] = device, mode, keep
        self.count += 1
        return True

    def add_tangent(self, kept: float, tolerance: float = 0.0) -> bool:
        """Tangent of the stability term at a kept share; False if those there are come within the tolerance."""
        if self.pooled is None or any(abs(kept - t) < _TANGENT for t in self.tangents):
            return False
        below = max((self.pooled[0](t) + self.pooled[1](t) * (kept - t) for t in self.tangents), default=-np.inf)
        if self.pooled[0](kept) - below <= tolerance:
            return False
        value, slope = self.pooled[0](kept), self.pooled[1](kept)
        columns = np.r_[self.devices, self.first + np.arange(self.count)]
        self._row(value - slope * kept, self.inf, columns, np.r_[1.0, -slope * self.kept[: self.count]])
        self.tangents.append(kept)
        return True

    def set_box(self, lower: FloatArray, upper: FloatArray) -> None:
        """Keep prices within [lower, upper]. Shapes [M]."""
        # giving capacity away for nothing is no binding box
        self.costly = np.r_[np.ones(self.subcarriers, bool), lower > 0.0]
        start = self.devices + 1
        columns = np.arange(start, start + 2 * self.subcarriers, dtype=np.int32)
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
        nu = 0.0
        if self.pooled:
            falls = [self.pooled[1](t) for t in self.tangents]
            nu = max(0.0, float(dual[self.devices + self.subcarriers :] @ np.array(falls)))
        slack = bool(primal[self.devices + 1 : self.first][self.costly].sum() < 1e-9)
        value = self.lp.getInfo().objective_function_value / self.scale
        return MasterPoint(value, mu, nu, primal[self.first :], slack)
