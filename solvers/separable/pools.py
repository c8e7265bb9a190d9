r"""The stability terms that couple devices: one for all, or one per cluster, each with a price of its own.

With clusters e of weights w_e and Q_e the mean of s^2 in a cluster, the objective has ``sum_e w_e gap_e(Q_e)``.
Every gap_e is convex, so for any touching points q_e, with ``nu_e = gap_e'(q_e)``,

.. math:: \sum_e w_e\, \mathrm{gap}_e(Q_e) \ge \sum_e w_e (\mathrm{gap}_e(q_e) - \nu_e q_e)
          + \sum_k \nu_{e(k)} w_k s_k^2 .

Derived: docs/branch_and_bound.md, *Clusters*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgealloc.formulation.problem import Problem
from edgealloc.solvers.separable.prices import gap_slope, gap_value, stability_constants
from edgealloc.units import FloatArray, IntArray

__all__ = ["Pools"]


@dataclass(frozen=True, slots=True, eq=False)
class Pools:
    """E pools of K devices; one of weight 1 where there are no clusters.

    Parameters
    ----------
    device
        The pool of each device. Shape [K].
    weight
        w_e. Shape [E].
    terms
        Constants of the stability terms (:func:`~edgealloc.solvers.separable.prices.stability_constants`). [E, 5].
    """

    device: IntArray
    weight: FloatArray
    terms: FloatArray

    @classmethod
    def of(cls, problem: Problem) -> Pools:
        """The pools of a problem; of terms that are 0 where every device has its own."""
        inst = problem.instance
        if problem.pools is None:
            return cls(np.zeros(inst.num_devices, np.intp), np.ones(1), stability_constants(problem)[None, :])
        t, scale = problem.stability, problem.stability.scale
        terms = np.stack([np.array([t.base, t.spread, t.curvature, t.sparsity, each]) for each in scale])
        return cls(problem.pools, np.asarray(np.bincount(problem.pools, inst.weights), dtype=np.float64), terms)

    @property
    def several(self) -> bool:
        """Whether there is more than one price of what is kept."""
        return len(self.weight) > 1

    @property
    def coupled(self) -> bool:
        """Whether any term depends on what is kept."""
        return any(gap_slope(term, 1.0) > 0.0 for term in self.terms)

    def kept(self, device: IntArray, kept: FloatArray) -> FloatArray:
        """Q_e of kept shares w s^2 of devices; both shapes [N]. Shape [E]."""
        return np.asarray(np.bincount(self.device[device], kept, len(self.weight)) / self.weight)

    def value(self, q: FloatArray) -> float:
        """The sum of w_e gap_e(Q_e) at Q_e, shape [E]."""
        return math.fsum(w * gap_value(term, x) for w, term, x in zip(self.weight, self.terms, q, strict=True))

    def slopes(self, q: FloatArray) -> FloatArray:
        """gap_e'(Q_e), the prices of what is kept, at Q_e. Shapes [E]."""
        return np.array([float(gap_slope(term, x)) for term, x in zip(self.terms, q, strict=True)])

    def each(self, price: FloatArray) -> FloatArray | float:
        """Prices of pools [E] for the devices: shape [K], a number where there is one pool."""
        return price[self.device] if self.several else float(price[0])

    def tangents(self, places: list[FloatArray], q: FloatArray) -> list[list[tuple[float, float, float]]]:
        """(Q, gap, slope) of each pool at some Q [E], at both ends and at ``q`` [E]."""
        found = []
        for e, term in enumerate(self.terms):
            at = sorted({0.0, 1.0, *(min(max(float(x[e]), 0.0), 1.0) for x in (q, *places))})
            found.append([(x, float(gap_value(term, x)), float(gap_slope(term, x))) for x in at])
        return found

    def touched_at(self, nu: FloatArray) -> FloatArray:
        """Q_e in [0, 1] with gap_e'(Q_e) = nu_e, by bisection; gap' does not fall. Shapes [E]."""
        found = []
        for term, price in zip(self.terms, nu, strict=True):
            low, high = 0.0, 1.0
            for _ in range(54):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if gap_slope(term, middle) < price else (low, middle)
            found.append(0.5 * (low + high))
        return np.array(found)
