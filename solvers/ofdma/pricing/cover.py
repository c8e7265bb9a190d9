"""Lower bounds of a part of a pricing problem by dynamic programming: the least price that covers a profit rate.

Sets of a part carry at least its least keep rate s, so at any water level their profit rates sum to psi(s) or more
(condition (*) of docs/ofdma.md): a covering knapsack. Linear cuts see its fractional optimum; where sub-carriers
are nearly alike hundreds of thousands of sets lie between that and the best whole set. A table of the least price
of what is still to be covered closes them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, EPS, profit_of, psi
from edgealloc.solvers.ofdma.pricing.cuts import cut_constant, relaxed_level
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Cover", "cover_rest"]

_COARSE, _FINE = 4_000, 64_000  # parts of the profit rate needed; sub-carriers are rounded up to whole ones
_ENTRIES = 4_000_000  # of a table, at most
_OUTWARD = 1e-12  # relative rounding of sums and quotients of profit rates, which themselves are upper bounds


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """The table of one part, as the search over sets takes it.

    Parameters
    ----------
    table
        ``table[d, t]``: what the part costs at least if t units are still to be covered by the sub-carriers of
        rank d and more, without those taken before. Shape [N + 1, T + 1]; [1, 1] if there is none.
    gain
        Units of each open sub-carrier, in the order of the search. Shape [N]; [0] if there is none.
    left, paid
        Units to be covered, and what has been paid, at each depth of the search; it fills them. Shape [N + 1].
    """

    table: FloatArray
    gain: IntArray
    left: IntArray
    paid: FloatArray

    @property
    def bound(self) -> float:
        """Lower bound of the whole part; -inf without a table."""
        return float(self.table[0, -1])

    @classmethod
    def none(cls, depths: int) -> Cover:
        """No table."""
        return cls(np.full((1, 1), -np.inf), np.empty(0, np.int64), np.zeros(depths, np.int64), np.zeros(depths))

    @classmethod
    def of(  # type: ignore[no-untyped-def]
        cls, row, objective, levels, inv_a, log2_a, nu, mu, low: float, high: float, level: float,
        tolerance: float, order: IntArray, taken: BoolArray, fine: bool,
    ) -> Cover:  # fmt: skip
        """The table for keep rates in [low, high], starting from a water level in W.

        ``order`` [N] are the open sub-carriers in the order of the search, ``taken`` [M] those in every set.
        """
        depths = len(order) + 1
        inside = levels[(levels >= low) & (levels <= high)]
        least = float(inside.min()) if len(inside) else low
        om = float(relaxed_level(row, objective, nu, least, least, inv_a, log2_a, mu, level)[0])
        need = float(psi(row, om, least))
        floor = float(cut_constant(row, objective, nu, low, high, levels, om, 0.0, tolerance))
        if not 0.0 < need < np.inf or floor == np.inf:
            return cls.none(depths)
        table, gain = _table(row, inv_a, om, need, floor, mu, order, taken, min(_COARSE, _ENTRIES // depths))
        if fine:  # at the water level of the set that the coarse table finds, where such sets are tested hardest
            used = _cheapest(table, gain, order, taken)
            own = float(keep_cap(row, inv_a, log2_a, used)[1])
            need = float(psi(row, own, least)) if own > 0.0 else 0.0
            if 0.0 < need < np.inf:
                table, gain = _table(
                    row, inv_a, own, need, floor, mu, order, taken, min(_FINE, _ENTRIES // depths)
                )
        left = np.zeros(depths, np.int64)
        left[0] = table.shape[1] - 1
        return cls(table, gain, left, np.zeros(depths))


@kernel
def _table(row, inv_a, om, need, floor, mu, order, taken, units):  # type: ignore[no-untyped-def]
    """``table`` [N + 1, T + 1] and ``gain`` [N] of :class:`Cover`.

    Gains are rounded up, prices down: all are lower bounds.

    Parameters
    ----------
    row
        Device row of C columns. Shape [C].
    inv_a, mu, taken
        1/a in W, upwards; prices; who is in every set. Shapes [M].
    order
        The open sub-carriers in the order of the search. Shape [N].
    om, need, floor, units : numbers
        Water level in W, profit rate to be covered in bit/s, least share of the part, units of the rate.
    """
    n_open = order.size
    shrink = 1.0 - (inv_a.size + 64.0) * EPS
    unit = need / units
    earned, paid = 0.0, 0.0
    for m in range(inv_a.size):
        if taken[m]:
            earned += profit_of(row[BAND], om, inv_a[m : m + 1]) * (1.0 + _OUTWARD)
            paid += mu[m] * shrink
    top = max(0, int(np.ceil((need - earned) / unit * (1.0 - _OUTWARD))))
    gain = np.empty(n_open, np.int64)
    for d in range(n_open):
        m = order[d]
        gain[d] = int(np.ceil(profit_of(row[BAND], om, inv_a[m : m + 1]) * (1.0 + _OUTWARD) / unit))
    table = np.empty((n_open + 1, top + 1))
    for t in range(top + 1):
        table[n_open, t] = np.inf
    table[n_open, 0] = floor + paid - (abs(floor) + paid) * (inv_a.size + 64.0) * EPS
    for d in range(n_open - 1, -1, -1):
        price = mu[order[d]] * shrink
        for t in range(top + 1):
            table[d, t] = min(table[d + 1, t], price + table[d + 1, max(0, t - gain[d])])
    return table, gain


@kernel
def _cheapest(table, gain, order, taken):  # type: ignore[no-untyped-def]
    """A set that attains the least entry for all that is to be covered, 1 for its sub-carriers. Shape [M]."""
    used = np.empty(taken.size)
    for m in range(taken.size):
        used[m] = 1.0 if taken[m] else 0.0
    left = table.shape[1] - 1
    for d in range(order.size):
        if table[d, left] < table[d + 1, left]:
            used[order[d]] = 1.0
            left = max(0, left - gain[d])
    return used


@kernel(inner=True)
def cover_rest(table, gain, left, paid, depth, take, price):  # type: ignore[no-untyped-def]
    """Lower bound of a part once the search has decided about rank ``depth``; fills depth + 1.

    Parameters
    ----------
    table, gain
        Of :class:`Cover`. Shapes [N + 1, T + 1], [N].
    left, paid
        Units to be covered and prices paid at each depth. Shapes [N + 1].
    depth, take, price : numbers
        The rank, whether its sub-carrier is taken, and its price.
    """
    left[depth + 1], paid[depth + 1] = left[depth], paid[depth]
    if take:
        left[depth + 1] = max(0, left[depth] - gain[depth])
        paid[depth + 1] += price
    return paid[depth + 1] * (1.0 - (gain.size + 64.0) * EPS) + table[depth + 1, left[depth + 1]]
