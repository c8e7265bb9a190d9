"""Cyclic exchanges of sub-carriers between devices: the neighbourhood of P-SCA's polish.

Every device may give up one sub-carrier and take one, all at once, round a cycle of devices. An *empty* column per
device makes moves and open chains cycles too, so moves, swaps and chains are one neighbourhood. A device sees only
what enters and what leaves it: with

    delta[i, j] = cost of j's device with i in and j out, less its cost now

an exchange improves if the deltas round its cycle sum to less than 0, exactly. The cycle is looked for in the
graph of these arcs (Thompson and Psaraftis, Operations Research 41, 1993; Ahuja, Orlin and Sharma, Mathematical
Programming 91, 2001): every negative cycle has a start from which all partial sums are negative, so no others are
followed.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.jit import kernel
from edgealloc.solvers.psca_cap import set_cap

__all__ = ["exchange", "nodes"]


@kernel
def nodes(owner, n_dev):  # type: ignore[no-untyped-def]
    """Owners of the columns, nobody being device K, then of one empty column each. Shape [M + K + 1]."""
    at = np.empty(owner.size + n_dev + 1, np.int64)
    for m in range(owner.size):
        at[m] = owner[m] if owner[m] >= 0 else n_dev
    for k in range(n_dev + 1):
        at[owner.size + k] = k
    return at


@kernel
def _cost(caps, k, has_row, ticks, table, steps, out, large):  # type: ignore[no-untyped-def]
    """Cost of device k at its largest keep rates ``caps`` [O]: its best menu row, or out.

    ticks [K, T] increasing keep rates, table [O, K, T] costs there, between which costs are linear or (``steps``)
    constant. Where nothing is feasible, a large cost that falls as the largest rate rises.
    """
    best, most = out[k], -2.0
    last = ticks.shape[1] - 1
    for o in range(len(caps)):
        if not has_row[o, k]:
            continue
        most = max(most, caps[o])
        if caps[o] < ticks[k, 0]:
            continue
        i = np.searchsorted(ticks[k], caps[o], side="right") - 1
        value = table[o, k, i]
        if i < last and not steps[k]:
            part = (caps[o] - ticks[k, i]) / (ticks[k, i + 1] - ticks[k, i])
            value += part * (table[o, k, i + 1] - value)
        best = min(best, value)
    return best if best < math.inf else large * (3.0 - most)


@kernel
def _refresh(rows, has_row, band, inverse, order, at, k, caps):  # type: ignore[no-untyped-def]
    """caps[:, i, j] for every j of device k: its largest keep rates with i in and j out; at i = j as it is."""
    n_col, n = order.shape[1], at.size
    owner, work = at[:n_col].copy(), np.empty((2, n_col))
    for j in range(n):
        if at[j] != k:
            continue
        if j < n_col:
            owner[j] = -1
        for o in range(len(rows)):
            if not has_row[o, k]:
                caps[o, :, j] = -2.0
                continue
            # whichever empty column enters, only j leaves
            caps[o, n_col:, j] = set_cap(rows[o, k], band, inverse[k], order[k], owner, k, work)[0]
            for i in range(n_col):
                before = owner[i]
                if i == j or at[i] != k:
                    owner[i] = k
                    caps[o, i, j] = set_cap(rows[o, k], band, inverse[k], order[k], owner, k, work)[0]
                    owner[i] = before
        if j < n_col:
            owner[j] = k


@kernel
def _cycle(delta, at, longest, least, path):  # type: ignore[no-untyped-def]
    """Best cycle found through distinct devices with a sum below -least: its length, in ``path``; 0 if none.

    Of the paths with equal length and ends only the best is followed, so a cycle can be missed.
    """
    n = at.size
    value, longer = np.empty(n), np.empty(n)
    trail, fresh = np.empty((n, longest), np.int64), np.empty((n, longest), np.int64)
    best, length = -least, 0
    for i in range(n):
        value[:] = math.inf
        value[i], trail[i, 0] = 0.0, i
        for step in range(1, longest + 1):
            longer[:] = math.inf
            for j in range(n):
                if value[j] == math.inf:
                    continue
                if step > 1 and value[j] + delta[j, i] < best:
                    best, length = value[j] + delta[j, i], step
                    path[:step] = trail[j, :step]
                if step == longest:
                    continue
                for m in range(n):
                    total = value[j] + delta[j, m]
                    if not total < min(longer[m], -least):
                        continue
                    seen = False
                    for p in range(step):
                        seen |= at[trail[j, p]] == at[m]
                    if not seen:
                        longer[m] = total
                        fresh[m, :step], fresh[m, step] = trail[j, :step], m
            value, longer = longer, value
            trail, fresh = fresh, trail
    return length


@kernel
def exchange(  # type: ignore[no-untyped-def]
    rows, has_row, band, inverse, order, ticks, table, steps, out, large, least, longest, limit, at, stale, caps
):  # fmt: skip
    """Apply the best exchange while costs fall by more than ``least``; the number of exchanges.

    Parameters
    ----------
    rows, has_row, band, inverse, order
        Of :class:`~edgealloc.solvers.psca_model.Model`.
    ticks, table, steps, out, large
        Cost of a device by its largest keep rate, see :func:`_cost`; ``out`` [K] is ``inf`` where it must stay.
    longest, limit
        Devices in a cycle, and exchanges, at most.
    at, stale, caps
        Owners [N] (:func:`nodes`), devices whose caps are out of date [K + 1], caps [O, N, N]; changed in place.
    """
    n_dev, n_col, n = order.shape[0], order.shape[1], at.size
    delta, path = np.full((n, n), math.inf), np.empty(longest, np.int64)
    first = True
    for done in range(limit):
        for k in range(n_dev + 1):
            if not (first or stale[k]):
                continue
            if k < n_dev:
                if stale[k]:
                    _refresh(rows, has_row, band, inverse, order, at, k, caps)
                # an empty column may well be replaced by itself: that is the device as it is
                empty = n_col + k
                now = _cost(caps[:, empty, empty], k, has_row, ticks, table, steps, out, large)
            for j in range(n):
                if at[j] == k:
                    for i in range(n):
                        if at[i] == k:
                            delta[i, j] = math.inf
                        elif k == n_dev:
                            delta[i, j] = 0.0
                        else:
                            delta[i, j] = _cost(caps[:, i, j], k, has_row, ticks, table, steps, out, large) - now
            stale[k] = False
        first = False
        length = _cycle(delta, at, longest, least, path)
        if length == 0:
            return done
        to = at[path[:length]]
        for p in range(length):
            stale[to[p]] = True
            if path[p] < n_col:
                at[path[p]] = to[(p + 1) % length]
    return limit
