r"""Stability terms that couple devices on sub-carriers: one of all data, or one per cluster, with a price each.

The objective has ``sum_e w_e gap_e(Q_e)`` with ``w_e Q_e = sum_{k in e} w_k s_k^2``; a price nu_e is one on
w_k s_k^2 of the devices of e. With one pool of all data w_e is 1.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgealloc.formulation.problem import Problem
from edgealloc.solvers.ofdma.kernels.device import EPS, UNDER, WEIGHT
from edgealloc.solvers.ofdma.kernels.local import best_keeps, polished_keeps
from edgealloc.solvers.ofdma.kernels.share import POOLED, stability, stability_slope
from edgealloc.units import FloatArray, IntArray

__all__ = ["Pools"]


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """E pools of K devices; one, without a term, where each device has its own.

    Parameters
    ----------
    device
        The pool of each device. Shape [K].
    weight, scale
        w_e, and 1 / (2 n_e delta). Shapes [E].
    objective
        See :mod:`edgealloc.solvers.ofdma.kernels.share`. Shape [8 + 5 P].
    """

    device: IntArray
    weight: FloatArray
    scale: FloatArray
    objective: FloatArray

    @classmethod
    def of(cls, problem: Problem, objective: FloatArray) -> Pools:
        """The pools of a problem with its objective vector, shape [8 + 5 P]."""
        inst, term = problem.instance, problem.stability
        one = np.zeros(inst.num_devices, dtype=np.intp)
        if problem.pools is None:
            return cls(
                one, np.ones(1), np.zeros(1) if problem.objective.own else np.reshape(term.scale, 1), objective
            )
        each = [inst.weights[problem.pools == e].tolist() for e in range(int(problem.pools.max()) + 1)]
        return cls(problem.pools, np.array([math.fsum(weights) for weights in each]), term.scale, objective)

    def without_terms(self, objective: FloatArray) -> Pools:
        """One pool of the same devices for an objective [8 + 5 P] in which nothing is pooled."""
        return Pools(np.zeros_like(self.device), np.ones(1), np.zeros(1), objective)

    @property
    def several(self) -> bool:
        """Whether there is more than one price of what is kept."""
        return len(self.weight) > 1

    @property
    def coupled(self) -> bool:
        """Whether any term depends on what several devices keep."""
        return bool(self.objective[POOLED] == 0.0 and (self.objective[2] > 0.0 or self.objective[3] > 0.0))

    def gap(self, kept: float, pool: int = 0) -> float:
        """gap_e at a mean Q_e of what a pool keeps."""
        return float(stability(kept, self.objective, self.scale[pool]))

    def slope(self, kept: float, pool: int = 0) -> float:
        """gap_e', a price on w s^2; 0 where nothing is pooled."""
        return float(stability_slope(kept, self.objective, self.scale[pool])) if self.coupled else 0.0

    def slopes(self, kept: FloatArray) -> FloatArray:
        """The prices gap_e'(Q_e) at Q_e; shapes [E]."""
        return np.array([self.slope(q, e) for e, q in enumerate(kept.tolist())])

    def slopes_at(self, kept: float) -> FloatArray:
        """The prices where every pool keeps the same mean. Shape [E]."""
        return self.slopes(np.full_like(self.weight, kept))

    def kept(self, device: IntArray, share: FloatArray, square: FloatArray) -> FloatArray:
        """Q_e of so much of each of some devices' squares, shapes [N], one of the two with their weights. [E]."""
        if not self.several:
            return np.array([float(share @ square)])
        return np.asarray(np.bincount(self.device[device], share * square, len(self.weight)) / self.weight)

    def touched_at(self, nu: float, pool: int) -> float:
        """Q_e in [0, 1] at which gap_e has the slope nu."""
        return 0.5 * math.fsum(self._around(nu, pool))

    def _around(self, nu: float, pool: int) -> tuple[float, float]:
        """Ends of next to nothing around the Q_e in [0, 1] at which gap_e has the slope nu, by bisection."""
        low, high = 0.0, 1.0
        for _ in range(60):
            q = 0.5 * (low + high)
            low, high = (low, q) if self.slope(q, pool) > nu else (q, high)
        return low, high

    def priced(self, rows: FloatArray, device: IntArray, nu: FloatArray) -> tuple[FloatArray, float]:
        """Rows [I, C] of modes of devices [I], and one price for them that stands for those of the pools [E]."""
        if not self.several:
            return rows, float(nu[0])
        rows = rows.copy()
        rows[:, WEIGHT] *= nu[self.device[device]]  # nothing else of a share has the weight where data are pooled
        return rows, 1.0

    def best_keeps(
        self,
        device: IntArray,
        rows: FloatArray,
        levels: FloatArray,
        caps: FloatArray,
        first: FloatArray | None = None,
    ) -> FloatArray:
        """Good keep rates of devices under caps, pool by pool: nothing else couples them.

        Parameters
        ----------
        device, rows, levels, caps
            Some devices, and as for :func:`~edgealloc.solvers.ofdma.kernels.local.best_keeps`. Shapes [N], [N, C],
            [N, J], [N].
        first
            Where to start a descent from instead. Shape [N].

        Returns
        -------
        array
            Shape [N].
        """
        found, pool = np.empty(len(device)), self.device[device]
        for e in np.unique(pool):
            mine = np.flatnonzero(pool == e)
            own = rows[mine]
            if self.several:  # the objective of the pool alone, over its weight
                own[:, [WEIGHT, UNDER]] /= self.weight[e]
            args = own, self.objective, levels[mine], caps[mine], float(self.scale[e])
            found[mine] = best_keeps(*args) if first is None else polished_keeps(*args, first[mine])
        return found

    def conjugate(self, nu: float, pool: int = 0) -> float:
        """Lower bound of w_e (gap_e(Q) - nu Q) over Q in [0, 1], by a tangent near the best Q."""
        if not self.coupled:
            return 0.0
        low, high = self._around(nu, pool)
        q = low if low == 0.0 else high
        lean = self.slope(q, pool) - nu
        value = self.gap(q, pool) - nu * q + min(-lean * q, lean * (1.0 - q))
        return float(self.weight[pool]) * (value - 64.0 * EPS * (self.gap(q, pool) + nu + abs(lean)))
