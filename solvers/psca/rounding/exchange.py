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

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.psca.cap import set_cap
from edgealloc.units import IntArray

__all__ = ["exchange", "nodes"]


def nodes(owner: IntArray, n_dev: int) -> IntArray:
    """Owners of the columns, nobody being device K, then of one empty column each. Shape [M + K + 1]."""
    return np.concatenate((np.where(owner >= 0, owner, n_dev), np.arange(n_dev + 1))).astype(np.int64)


@kernel(inner=True)
def _cost(caps, i, j, k, has_row, ticks, table, steps, out, large):  # type: ignore[no-untyped-def]
    """Cost of device k at its largest keep rates ``caps[:, i, j]``: its best menu row, or out.

    Where nothing is feasible, a large cost that falls as the largest rate rises.

    Parameters
    ----------
    caps
        Largest keep rate per menu row with node i in and node j out. Shape [O, N, N].
    has_row
        Which menu rows a device has. Shape [O, K].
    ticks, table
        Increasing keep rates and the least costs there, between which costs are linear or (``steps``) constant.
        Shapes [K, T], [O, K, T].
    steps, out
        Whether only the ticks are allowed; cost of leaving out, ``inf`` where a device must stay. Shapes [K].
    i, j, k, large : numbers
        The nodes in and out, the device, and the cost of what is infeasible.
    """
    best, most = out[k], -2.0
    last = ticks.shape[1] - 1
    for o in range(caps.shape[0]):
        if not has_row[o, k]:
            continue
        cap = caps[o, i, j]
        most = max(most, cap)
        if cap < ticks[k, 0]:
            continue
        t = 0
        while t < last and ticks[k, t + 1] <= cap:
            t += 1
        value = table[o, k, t]
        if t < last and not steps[k]:
            part = (cap - ticks[k, t]) / (ticks[k, t + 1] - ticks[k, t])
            value += part * (table[o, k, t + 1] - value)
        best = min(best, value)
    return best if best < math.inf else large * (3.0 - most)


@kernel(inner=True)
def _refresh(rows, has_row, band, inverse, order, at, k, caps, owner, work):  # type: ignore[no-untyped-def]
    """caps[:, i, j] for every j of device k: its largest keep rates with i in and j out; at i = j as it is.

    Parameters
    ----------
    rows, has_row
        Device rows of C columns per menu row, and which exist. Shapes [O, K, C], [O, K].
    inverse, order
        1/a in W of each device and sub-carrier, and its order upwards. Shapes [K, M].
    at, caps
        Owners of the nodes (:func:`nodes`) and what is filled. Shapes [N], [O, N, N].
    owner, work
        Scratch. Shapes [M], [2, M].
    band, k : numbers
        Bit/s of a sub-carrier per unit of log(1 + SNR), and the device.
    """
    n_col, n = order.shape[1], at.size
    for m in range(n_col):
        owner[m] = at[m]
    for j in range(n):
        if at[j] != k:
            continue
        if j < n_col:
            owner[j] = -1
        for o in range(has_row.shape[0]):
            # whichever empty column enters, only j leaves
            for i in range(n_col + 1):
                cap = -2.0
                if has_row[o, k]:
                    if i < n_col and not (i == j or at[i] != k):
                        continue
                    before = 0
                    if i < n_col:
                        before = owner[i]
                        owner[i] = k
                    cap = set_cap(rows[o, k], band, inverse[k], order[k], owner, k, work)
                    if i < n_col:
                        owner[i] = before
                if i < n_col:
                    caps[o, i, j] = cap
                else:
                    for e in range(n_col, n):
                        caps[o, e, j] = cap
        if j < n_col:
            owner[j] = k


@kernel(inner=True)
def _cycle(delta, at, longest, least, path, value, trail):  # type: ignore[no-untyped-def]
    """Best cycle found through distinct devices with a sum below -least: its length, in ``path``; 0 if none.

    Of the paths with equal length and ends only the best is followed, so a cycle can be missed.

    Parameters
    ----------
    delta, at
        Cost of each arc and the owners of the nodes. Shapes [N, N], [N].
    longest, least : numbers
        Devices in a cycle at most, and the least gain.
    path
        Filled with the nodes of the cycle. Shape [longest].
    value, trail
        Scratch: the paths of this length and of the next. Shapes [2, N], [2, N, longest].
    """
    n = at.size
    best, length = -least, 0
    for i in range(n):
        for m in range(n):
            value[1, m] = math.inf
        value[1, i], trail[1, i, 0] = 0.0, i
        for step in range(1, longest + 1):
            now = step % 2
            new = 1 - now
            for m in range(n):
                value[new, m] = math.inf
            for j in range(n):
                here = value[now, j]
                if here == math.inf:
                    continue
                if step > 1 and here + delta[j, i] < best:
                    best, length = here + delta[j, i], step
                    for p in range(step):
                        path[p] = trail[now, j, p]
                if step == longest:
                    continue
                for m in range(n):
                    total = here + delta[j, m]
                    if not total < min(value[new, m], -least):
                        continue
                    seen = False
                    for p in range(step):
                        seen |= at[trail[now, j, p]] == at[m]
                    if not seen:
                        value[new, m] = total
                        for p in range(step):
                            trail[new, m, p] = trail[now, j, p]
                        trail[new, m, step] = m
    return length


@kernel
def exchange(  # type: ignore[no-untyped-def]
    rows, has_row, band, inverse, order, ticks, table, steps, out, large, least, longest, limit, at, stale, caps
):  # fmt: skip
    """Apply the best exchange while costs fall by more than ``least``; the number of exchanges.

    With a ``limit`` of 0 only the caps of one device are brought up to date: 1, or 0 where all are.

    Parameters
    ----------
    rows, has_row, inverse, order
        Of :class:`~edgealloc.solvers.psca.model.Model` (C columns of a device row; ``inverse_w`` in W).
        Shapes [O, K, C], [O, K], [K, M], [K, M].
    ticks, table, steps, out
        Cost of a device by its largest keep rate, see :func:`_cost`. Shapes [K, T], [O, K, T], [K], [K].
    band, large, least : numbers
        Bit/s of a sub-carrier per unit of log(1 + SNR), cost of what is infeasible, least gain.
    longest, limit : numbers
        Devices in a cycle, and exchanges, at most.
    at, stale, caps
        Owners (:func:`nodes`), devices whose caps are out of date, and the caps; changed in place. Shapes [N],
        [K + 1], [O, N, N].
    """
    n_dev, n_col, n = order.shape[0], order.shape[1], at.size
    delta, path, to = np.empty((n, n)), np.empty(longest, np.int64), np.empty(longest, np.int64)
    owner, work = np.empty(n_col, np.int64), np.empty((2, n_col))
    value, trail = np.empty((2, n)), np.empty((2, n, longest), np.int64)
    fresh = limit > 0
    for k in range(n_dev):
        if not fresh and stale[k]:
            _refresh(rows, has_row, band, inverse, order, at, k, caps, owner, work)
            stale[k], fresh = False, True
    if limit == 0:
        return np.int64(fresh)
    first = True
    for done in range(limit):
        for k in range(n_dev + 1):
            if not (first or stale[k]):
                continue
            now = 0.0
            if k < n_dev:
                if stale[k]:
                    _refresh(rows, has_row, band, inverse, order, at, k, caps, owner, work)
                # an empty column may well be replaced by itself: that is the device as it is
                empty = n_col + k
                now = _cost(caps, empty, empty, k, has_row, ticks, table, steps, out, large)
            for j in range(n):
                if at[j] == k:
                    for i in range(n):
                        delta[i, j] = math.inf if at[i] == k else 0.0
                        if at[i] != k and k < n_dev:
                            delta[i, j] = _cost(caps, i, j, k, has_row, ticks, table, steps, out, large) - now
            stale[k] = False
        first = False
        length = _cycle(delta, at, longest, least, path, value, trail)
        if length == 0:
            return done
        for p in range(length):
            to[p] = at[path[p]]
            stale[to[p]] = True
        for p in range(length):
            if path[p] < n_col:
                at[path[p]] = to[(p + 1) % length]
    return limit
