"""Allocations from prices: devices pick columns that fit the spectrum, then single and paired exchanges.

Columns are safe ones here: the true cost of a keep rate and a bandwidth that surely suffices for it.

Derived: docs/branch_and_bound.md, section 3.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.compiling.order import sort_by
from edgealloc.solvers.separable.prices import gap_slope, gap_value
from edgealloc.units import FloatArray, IntArray

__all__ = ["exchange"]


def exchange(
    start: IntArray,
    columns: tuple[FloatArray, FloatArray, FloatArray],
    limit_hz: float,
    term: FloatArray,
    nu: float,
    pick: IntArray,
    rounds: int,
) -> tuple[IntArray, float]:
    """Improve a choice of columns until no move of one device, or of two, improves it.

    Parameters
    ----------
    start, columns, term
        As for :func:`~edgealloc.solvers.separable.prices.search_prices`, of safe columns; a bandwidth may be
        ``inf``. Shapes [K + 1], [N] each, [5].
    limit_hz
        Largest sum of bandwidths.
    nu
        Price of the kept share, by which devices are cut back when the picks do not fit.
    pick
        A column per device to start from. Shape [K].
    rounds
        Largest number of moves.

    Returns
    -------
    pick, objective
        The objective is ``inf`` when nothing that fits was found.
    """
    cost, band, kept = columns
    owner = np.repeat(np.arange(len(start) - 1), np.diff(start))
    chosen = pick.copy()
    value = _exchange(start, owner, cost, band, kept, limit_hz, term, nu, chosen, rounds)
    return chosen, float(value)


@kernel(inner=True)
def _totals(cost, band, kept, chosen):  # type: ignore[no-untyped-def]
    """Sums of cost, bandwidth (Hz) and kept share, columns [N] each, of the chosen columns [K]."""
    own, used, square = 0.0, 0.0, 0.0
    for k in range(chosen.size):
        j = chosen[k]
        own += cost[j]
        used += band[j]
        square += kept[j]
    return own, used, square


@kernel(inner=True)
def _cut_back(start, cost, band, kept, limit, nu, chosen):  # type: ignore[no-untyped-def]
    """Smaller columns where they cost least per Hz freed, until the choice fits; False if it cannot.

    Parameters
    ----------
    start
        First column of each device, and the end. Shape [K + 1].
    cost, band, kept
        Columns: cost, bandwidth in Hz, kept share. Shapes [N].
    limit, nu : numbers
        Bandwidth in Hz, and the price per unit of the kept share.
    chosen
        A column per device; changed in place. Shape [K].
    """
    for k in range(len(chosen)):
        if band[chosen[k]] == math.inf:
            for j in range(start[k], start[k + 1]):
                if band[j] < band[chosen[k]] or band[chosen[k]] == math.inf:
                    chosen[k] = j
    _own, used, _square = _totals(cost, band, kept, chosen)
    while used > limit:
        best, at, who = math.inf, -1, -1
        for k in range(len(chosen)):
            now = chosen[k]
            for j in range(start[k], start[k + 1]):
                freed = band[now] - band[j]
                if freed > 0.0:
                    rate = (cost[j] - cost[now] + nu * (kept[j] - kept[now])) / min(freed, used - limit)
                    if rate < best:
                        best, at, who = rate, j, k
        if at < 0:
            return False
        chosen[who] = at
        _own, used, _square = _totals(cost, band, kept, chosen)
    return used <= limit


@kernel
def _exchange(start, owner, cost, band, kept, limit, term, nu, chosen, rounds):  # type: ignore[no-untyped-def]
    """Kernel of :func:`exchange`; works on ``chosen`` in place and returns the objective.

    Parameters
    ----------
    start
        First column of each device, and the end. Shape [K + 1].
    owner, cost, band, kept
        Columns: their device, cost, bandwidth in Hz, kept share. Shapes [N].
    term
        Constants of the stability term. Shape [5].
    limit, nu, rounds : numbers
        Bandwidth in Hz, price of the kept share, and moves at most.
    chosen
        A column per device; changed in place. Shape [K].
    """
    if not _cut_back(start, cost, band, kept, limit, nu, chosen):
        return math.inf
    count = len(cost)
    own, used, square = _totals(cost, band, kept, chosen)
    value = own + gap_value(term, square)
    more, gain = np.empty(count), np.empty(count)
    order, spare = np.empty(count, np.int64), np.empty(count, np.int64)
    top = np.empty((count, 2), np.int64)
    for _ in range(rounds):
        slope = gap_slope(term, square)
        slack = limit - used
        least, first, second = -1e-15 * abs(value), -1, -1
        for j in range(count):
            now = chosen[owner[j]]
            order[j] = j
            more[j] = band[j] - band[now]
            gain[j] = cost[j] - cost[now] + slope * (kept[j] - kept[now])
            if j != now and more[j] <= slack and gain[j] < least:
                least, first = gain[j], j
        # Pairs: moves sorted by bandwidth; of those that leave room, the best two by different devices.
        sort_by(more, order, spare)
        a, b = -1, -1
        for i in range(count):
            j = order[i]
            if j != chosen[owner[j]] and more[j] < math.inf:
                if a < 0 or gain[j] < gain[a]:
                    if a >= 0 and owner[a] != owner[j]:
                        b = a
                    a = j
                elif owner[j] != owner[a] and (b < 0 or gain[j] < gain[b]):
                    b = j
            top[i, 0], top[i, 1] = a, b
        fits = count - 1
        for i in range(count):
            j = order[i]
            while fits >= 0 and not more[order[fits]] + more[j] <= slack:
                fits -= 1
            if fits < 0:
                break
            if j == chosen[owner[j]]:
                continue
            other = top[fits, 0]
            if other >= 0 and owner[other] == owner[j]:
                other = top[fits, 1]
            if other >= 0 and gain[j] + gain[other] < least:
                least, first, second = gain[j] + gain[other], j, other
        if first < 0:
            break
        old1 = chosen[owner[first]]
        chosen[owner[first]] = first
        old2 = -1
        if second >= 0:
            old2 = chosen[owner[second]]
            chosen[owner[second]] = second
        own, used_new, square_new = _totals(cost, band, kept, chosen)
        new = own + gap_value(term, square_new)
        if not (new < value and used_new <= limit):  # the linear stability term promised too much
            chosen[owner[first]] = old1
            if second >= 0:
                chosen[owner[second]] = old2
            break
        value, used, square = new, used_new, square_new
    return value
