"""Depth-first search over the sub-carrier sets of one device, resumable.

Each node adds one vector of cut bounds (:mod:`edgealloc.solvers.ofdma.pricing.cuts`). A leaf is a whole set: first
one water level is asked whether the set can carry the keep rate that would beat the threshold, then its exact cap
decides. Whatever is cut off lowers ``floor``, so that the floor bounds every set when the search is complete.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.compiling.order import sort_by
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import EPS, cannot_carry, proven_keep
from edgealloc.solvers.ofdma.kernels.share import best_share, keep_at_share, share
from edgealloc.solvers.ofdma.pricing.cover import cover_rest
from edgealloc.solvers.row import SMIN

__all__ = ["open_search", "run_search"]

DEPTH, FOUND, NODES, LEAVES, CAPS = range(5)  # integer state
THRESHOLD, FLOOR = range(2)  # float state
LEAF_WORK = 50  # a leaf costs about as much as so many nodes


@kernel
def open_search(a, bp, mu, fixed, threshold):  # type: ignore[no-untyped-def]
    """Settle the sub-carriers that one cut alone decides, and order the others.

    Parameters
    ----------
    a, bp
        Cuts, shapes [L] and [L, M].
    mu, fixed
        Prices; 1 in, 0 out, -1 open. Shapes [M].
    threshold
        Sets above it are of no interest.

    Returns
    -------
    base [L], worth [M, L], order [N], taken [M], floor, root, closed
        Cut bounds before branching and mu_m - b pi_m, the cut with the highest root bound first; the open
        sub-carriers, those in, the least bound cut off, the bound of all sets, and whether nothing is left.
    """
    n_cut, m_all = bp.shape
    base, worth = np.empty(n_cut), np.empty((m_all, n_cut))
    for i in range(n_cut):
        base[i] = a[i]
    for m in range(m_all):
        for i in range(n_cut):
            worth[m, i] = mu[m] - bp[i, m]
            if fixed[m] == 1:
                base[i] += worth[m, i]
            elif fixed[m] == -1:
                base[i] += min(0.0, worth[m, i])
    lead = 0
    for i in range(n_cut):
        if base[i] > base[lead]:
            lead = i
    root = base[lead]
    base[lead], base[0] = base[0], root
    for m in range(m_all):
        worth[m, lead], worth[m, 0] = worth[m, 0], worth[m, lead]
    index, spare, key = np.empty(m_all, np.int64), np.empty(m_all, np.int64), np.empty(m_all)
    n_open = 0
    taken = np.empty(m_all, np.bool_)
    for m in range(m_all):
        taken[m] = False
    closed = root > threshold
    floor = root if closed else np.inf
    for m in range(0 if closed else m_all):
        if fixed[m] == 1:
            taken[m] = True
        elif fixed[m] == -1:
            inside, outside = -np.inf, -np.inf
            for i in range(n_cut):
                inside = max(inside, base[i] + max(0.0, worth[m, i]))
                outside = max(outside, base[i] + max(0.0, -worth[m, i]))
            if inside > threshold:
                floor = min(floor, inside)
                for i in range(n_cut):
                    base[i] += max(0.0, -worth[m, i])
                if outside > threshold:
                    floor = min(floor, outside)
                    closed = True
                    break
            elif outside > threshold:
                floor = min(floor, outside)
                taken[m] = True
                for i in range(n_cut):
                    base[i] += max(0.0, worth[m, i])
            else:
                index[n_open] = m
                n_open += 1
    order = index[:n_open]
    for i in range(n_open):
        key[order[i]] = -abs(worth[order[i], 0])
    sort_by(key, order, spare)
    return base, worth, order, taken, floor, root, closed


@kernel(inner=True)
def _leaf(  # type: ignore[no-untyped-def]
    row, obj, nu, free, levels, inv_a, log2_a, mu, level, low, taken, threshold, whole, counts
):  # fmt: skip
    """(Priced share, proven lower bound of it) of a set; (inf, bound) once it is known to exceed the threshold.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    free, levels
        As from :func:`~edgealloc.solvers.ofdma.kernels.share.free_keeps`; allowed keep rates, empty for any.
        Shapes [F], [J].
    inv_a, log2_a, mu, taken
        1/a in W, upwards; its negative binary logarithm; prices; the set. Shapes [M].
    nu, level, low, threshold : numbers
        Price of w s^2, water level in W to test at, least keep rate of the part, the value to beat.
    whole, counts
        Scratch, and the integer state, of which CAPS is counted up. Shapes [3, M], [5].
    """
    n = 0
    paid = 0.0
    for m in range(taken.size):
        if taken[m]:
            whole[0, n], whole[1, n], whole[2, n] = inv_a[m], log2_a[m], 1.0
            n += 1
            paid += mu[m]
    units = (n + 64.0) * EPS
    best = best_share(row, obj, nu, free, levels, np.inf)[0] + paid
    best -= units * (abs(best) + paid)
    if best > threshold:
        return np.inf, best
    target = threshold - paid + units * paid
    if levels.size:
        s = np.inf  # the least level of this part that would do; if it is too much, so are the others
        for i in range(levels.size):
            if levels[i] >= low and levels[i] < s and share(row, obj, nu, levels[i]) <= target * (1.0 + 1e-14):
                s = levels[i]
        if s == np.inf or cannot_carry(row, whole[0, :n], s, level):
            return np.inf, threshold
    else:
        start = low if share(row, obj, nu, low) > target else row[SMIN]
        s = keep_at_share(row, obj, nu, free, start, target)
        if cannot_carry(row, whole[0, :n], s, level):
            return np.inf, threshold if s > row[SMIN] else np.inf
    counts[CAPS] += 1
    cap, at = keep_cap(row, whole[0, :n], whole[1, :n], whole[2, :n])
    value = best_share(row, obj, nu, free, levels, cap)[0] + paid
    least = best_share(row, obj, nu, free, levels, proven_keep(row, whole[0, :n], cap, at))[0] + paid
    return value, least - units * (abs(least) + paid) if least < np.inf else np.inf


@kernel
def run_search(  # type: ignore[no-untyped-def]
    row, obj, nu, free, levels, inv_a, log2_a, mu, level, low,
    worth, order, taken, n_low, n_high, bound, tried, whole, counts, state, step, work, sets, values,
    table, gain, left, paid,
):  # fmt: skip
    """Search on for about ``work`` nodes among sets of n_low to n_high sub-carriers; True when it is complete.

    A set below the threshold lowers the threshold to its value less ``step``.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    free, levels
        As from :func:`~edgealloc.solvers.ofdma.kernels.share.free_keeps`; allowed keep rates, empty for any.
        Shapes [F], [J].
    inv_a, log2_a, mu
        1/a in W, upwards; its negative binary logarithm; prices. Shapes [M].
    worth, order, taken
        As from :func:`open_search`; ``taken`` is the set of the present node. Shapes [M, L], [N], [M].
    bound, tried, counts, state
        They carry the search from call to call: cut bounds by depth (row 0: the base), branches tried by depth,
        and the integer and the float state (DEPTH, ... and THRESHOLD, ... of this module). Shapes [N + 1, L],
        [N + 1], [5], [2].
    whole
        Scratch. Shape [3, M].
    sets, values
        Ring of the last sets below the threshold, and their priced shares. Shapes [R, M], [R].
    table, gain, left, paid
        A second bound, see :class:`~edgealloc.solvers.ofdma.pricing.cover.Cover`. Shapes [N + 1, T + 1], [N],
        [N + 1], [N + 1]; [1, 1] and [0] for the first two without one.
    nu, level, low, n_low, n_high, step, work : numbers
        Price of w s^2, water level in W at which sets are tested, least keep rate, how many sub-carriers
        a set has, what a set must be better by, and the nodes of this call.
    """
    n_open, n_cut = order.size, bound.shape[1]
    depth = counts[DEPTH]
    spent = 0
    inside = np.int64(0)
    for m in range(taken.size):
        inside += np.int64(taken[m])
    while depth >= 0:
        if depth == n_open:
            if inside < n_low or inside > n_high:
                depth -= 1
                continue
            counts[LEAVES] += 1
            spent += LEAF_WORK
            value, least = _leaf(
                row, obj, nu, free, levels, inv_a, log2_a, mu, level, low, taken, state[THRESHOLD], whole, counts
            )  # fmt: skip
            state[FLOOR] = min(state[FLOOR], least)
            if value <= state[THRESHOLD]:
                ring = counts[FOUND] % values.size
                for m in range(taken.size):
                    sets[ring, m] = taken[m]
                values[ring] = value
                counts[FOUND] += 1
                state[THRESHOLD] = value - step
            depth -= 1
            continue
        if tried[depth] == 2:
            tried[depth] = 0
            inside -= taken[order[depth]]
            taken[order[depth]] = False
            depth -= 1
            continue
        if spent >= work:
            counts[DEPTH] = depth
            return False
        m = order[depth]
        take = worth[m, 0] < 0.0
        if tried[depth] == 1:
            take = not take
        tried[depth] += 1
        counts[NODES] += 1
        spent += 1
        inside += take - np.int64(taken[m])
        taken[m] = take
        if inside > n_high or inside + n_open - depth - 1 < n_low:
            continue
        top = -np.inf
        if take:
            for i in range(n_cut):
                x = bound[depth, i] + max(0.0, worth[m, i])
                bound[depth + 1, i] = x
                top = max(top, x)
        else:
            for i in range(n_cut):
                x = bound[depth, i] + max(0.0, -worth[m, i])
                bound[depth + 1, i] = x
                top = max(top, x)
        if gain.size:
            top = max(top, cover_rest(table, gain, left, paid, depth, take, mu[m]))
        if top <= state[THRESHOLD]:
            depth += 1
            if depth < n_open:
                tried[depth] = 0
        else:
            state[FLOOR] = min(state[FLOOR], top)
    counts[DEPTH] = -1
    return True
