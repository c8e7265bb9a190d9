"""Primal side: descent by moving and swapping sub-carriers between devices, at a price on the kept share.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import TERM, WEIGHT
from edgealloc.solvers.ofdma.kernels.share import (
    CURVE,
    KIND,
    POOLED,
    best_share,
    free_keeps,
    share,
    stability,
    stability_slope,
)
from edgealloc.solvers.row import SMAX, SMIN
from edgealloc.units import FloatArray

__all__ = ["best_keeps", "descend", "polished_keeps", "set_cost"]


@kernel
def set_cost(rows, obj, nu, free, levels, start, out, inv_a, log2_a, order, owner, k, penalty, work):  # type: ignore[no-untyped-def]
    """(Least priced share of device k on the sub-carriers with owner[m] == k, its mode, its keep rate).

    A set that carries nothing costs ``penalty``, less for a higher cap.

    Parameters
    ----------
    rows, levels
        Rows of C columns (:mod:`edgealloc.solvers.ofdma.kernels.device`) and allowed keep rates, padded with nan,
        of the I modes. Shapes [I, C], [I, J].
    obj
        Objective vector (:mod:`edgealloc.solvers.ofdma.kernels.share`). Shape [8 + 5 P].
    nu : number
        Price of w s^2.
    free
        As from :func:`~edgealloc.solvers.ofdma.kernels.share.free_keeps`, padded with the last. Shape [I, F].
    start, out
        The modes of device k are start[k]:start[k + 1]; cost of leaving it out (mode -1). Shapes [K + 1], [K].
    inv_a, log2_a, order
        1/a in W, upwards, its negative binary logarithm, and which sub-carriers these are. Shapes [K, M].
    owner
        Owner of each sub-carrier, -1 for none. Shape [M].
    k, penalty : numbers
        The device, and the cost of a set that carries nothing.
    work
        Scratch. Shape [3, M].
    """
    n = 0
    for j in range(order.shape[1]):
        if owner[order[k, j]] == k:
            work[0, n], work[1, n], work[2, n] = inv_a[k, j], log2_a[k, j], 1.0
            n += 1
    best, mode, keep = out[k], -1, 0.0
    for i in range(start[k], start[k + 1]):
        cap = keep_cap(rows[i], work[0, :n], work[1, :n], work[2, :n])[0]
        count = 0
        while count < levels.shape[1] and not np.isnan(levels[i, count]):
            count += 1
        value, s = best_share(rows[i], obj, nu, free[i], levels[i, :count], cap)
        if value == np.inf:
            value = penalty * (1.0 + rows[i, SMIN] - cap)
        if value < best:
            best, mode, keep = value, i, s
    return best, mode, keep


@kernel
def descend(  # type: ignore[no-untyped-def]
    rows, obj, nu, free, levels, start, out, inv_a, log2_a, order, most, owner, cost, penalty, least, first, last,
    swap,
):  # fmt: skip
    """Improve an assignment through the sub-carriers first..last-1; True if something improved.

    Each is moved to the device that gains most (``swap`` false) or swapped with another (``swap`` true).

    Parameters
    ----------
    rows, levels, free
        Of the I modes, as for :func:`set_cost`. Shapes [I, C], [I, J], [I, F].
    obj
        Objective vector. Shape [8 + 5 P].
    nu, penalty, least, first, last, swap : numbers
        Price of w s^2, cost of a set that carries nothing, the gain below which nothing counts, the range
        of sub-carriers, and whether to swap.
    start, out
        First mode and cost of leaving out of each device. Shapes [K + 1], [K].
    inv_a, log2_a, order
        Sub-carriers of each device, as for :func:`set_cost`. Shapes [K, M].
    most
        How many sub-carriers a device may own. Shape [K].
    owner, cost
        Owners of the sub-carriers and costs of the devices; changed in place. Shapes [M], [K].
    """
    n_dev, m_all = order.shape
    work = np.empty((3, m_all))
    improved = False
    rank = np.empty((n_dev, m_all), np.int64)
    for k in range(n_dev):
        for j in range(m_all):
            rank[k, order[k, j]] = j
    held = np.zeros(n_dev, np.int64)
    for m in range(m_all):
        if owner[m] >= 0:
            held[owner[m]] += 1
    for m in range(first, last):
        k1 = owner[m]
        if not swap:
            owner[m] = -1
            c1, loss = 0.0, 0.0
            if k1 >= 0:
                c1 = set_cost(
                    rows, obj, nu, free, levels, start, out, inv_a, log2_a, order, owner, k1, penalty, work
                )[0]  # fmt: skip
                loss = c1 - cost[k1]
            best, best_k, best_c = -least, -1, 0.0
            for k2 in range(n_dev):
                if k2 == k1 or held[k2] >= most[k2]:
                    continue
                owner[m] = k2
                c2 = set_cost(
                    rows, obj, nu, free, levels, start, out, inv_a, log2_a, order, owner, k2, penalty, work
                )[0]  # fmt: skip
                if loss + c2 - cost[k2] < best:
                    best, best_k, best_c = loss + c2 - cost[k2], k2, c2
            if best_k >= 0:
                owner[m] = best_k
                if k1 >= 0:
                    cost[k1] = c1
                    held[k1] -= 1
                held[best_k] += 1
                cost[best_k] = best_c
                improved = True
            else:
                owner[m] = k1
            continue
        for other in range(m + 1, m_all):
            k1, k2 = owner[m], owner[other]
            if k1 == k2 or k1 < 0 or k2 < 0:
                continue
            if rank[k1, m] < rank[k1, other] and rank[k2, other] < rank[k2, m]:
                continue  # each would get a weaker sub-carrier
            owner[m], owner[other] = k2, k1
            c1 = set_cost(rows, obj, nu, free, levels, start, out, inv_a, log2_a, order, owner, k1, penalty, work)[
                0
            ]
            if c1 - cost[k1] < cost[k2]:
                c2 = set_cost(
                    rows, obj, nu, free, levels, start, out, inv_a, log2_a, order, owner, k2, penalty, work
                )[0]  # fmt: skip
                if c1 + c2 - cost[k1] - cost[k2] < -least:
                    cost[k1], cost[k2] = c1, c2
                    improved = True
                    continue
            owner[m], owner[other] = k1, k2
    return improved


@kernel
def _pooled_choice(rows, obj, nu, levels, caps, squares):  # type: ignore[no-untyped-def]
    """squares[k] = s_k^2 of the best keep rates under caps at price nu; returns sum_k w_k s_k^2."""
    pooled = 0.0
    for k in range(rows.shape[0]):
        count = 0
        while count < levels.shape[1] and not np.isnan(levels[k, count]):
            count += 1
        s = best_share(rows[k], obj, nu, free_keeps(rows[k], obj, nu), levels[k, :count], caps[k])[1]
        squares[k] = s * s
        pooled += rows[k, WEIGHT] * s * s
    return pooled


@kernel
def settled_keeps(rows, obj, levels, caps, scale, left, right):  # type: ignore[no-untyped-def]
    """Keep rates [K] at the price nu = gap'(sum w s^2), by bisection.

    By orders of magnitude first: the price where nothing is dropped may be 1e30.

    Optimal when no device has more than one level: the problem is convex in s_k^2 then, and where the answer jumps
    both sides are mixed until the price fits.

    Parameters
    ----------
    rows, levels, caps
        A row of C columns per device, its allowed rates, padded with nan, and the largest rate it can keep.
        Shapes [K, C], [K, J], [K].
    obj
        Objective vector. Shape [8 + 5 P].
    scale : number
        1 / (2 n delta) of the pooled data.
    left, right
        Filled with s^2 at both sides of the price. Shapes [K].
    """
    n_dev = rows.shape[0]
    lo, hi = 0.0, stability_slope(1.0, obj, scale)
    _pooled_choice(rows, obj, lo, levels, caps, left)
    _pooled_choice(rows, obj, hi, levels, caps, right)
    trial = np.empty(n_dev)
    for _ in range(60):
        nu = 0.5 * (lo + hi) if lo > 0.25 * hi else np.sqrt(max(lo, 2.0**-100 * hi)) * np.sqrt(hi)
        above = stability_slope(_pooled_choice(rows, obj, nu, levels, caps, trial), obj, scale) > nu
        if above:
            lo = nu
        else:
            hi = nu
        side = left if above else right
        for k in range(n_dev):
            side[k] = trial[k]
    mix_lo, mix_hi = 0.0, 1.0
    for _ in range(60):
        mix = 0.5 * (mix_lo + mix_hi)
        kept = 0.0
        for k in range(n_dev):
            kept += rows[k, WEIGHT] * ((1.0 - mix) * left[k] + mix * right[k])
        if stability_slope(kept, obj, scale) > hi:
            mix_lo = mix
        else:
            mix_hi = mix
    for k in range(n_dev):
        trial[k] = min(caps[k], np.sqrt((1.0 - mix_hi) * left[k] + mix_hi * right[k]))
    return trial


@kernel(inner=True)
def _kept(rows, keeps):  # type: ignore[no-untyped-def]
    """Kept share sum_k w_k s_k^2 of rows [K, C] at keep rates [K]."""
    kept = 0.0
    for k in range(rows.shape[0]):
        kept += rows[k, WEIGHT] * keeps[k] * keeps[k]
    return kept


@kernel
def _pooled_objective(rows, obj, scale, keeps):  # type: ignore[no-untyped-def]
    """Objective of keep rates [K] under global pooling."""
    value = stability(_kept(rows, keeps), obj, scale)
    for k in range(rows.shape[0]):
        value += share(rows[k], obj, 0.0, keeps[k])
    return value


@kernel
def polished_keeps(rows, obj, levels, caps, scale, keeps):  # type: ignore[no-untyped-def]
    """Improve keep rates [K] device by device under caps and global pooling: a local optimum, for any share.

    A device's best rate is its cap or a local minimum of its share at the price gap'(Q) of the whole; a device
    with levels starts at the highest of them that its start and its cap allow.
    """
    s = np.empty(rows.shape[0])
    for k in range(rows.shape[0]):
        s[k] = min(keeps[k], caps[k])
        if levels.shape[1] and not np.isnan(levels[k, 0]):
            best = levels[k, 0]
            for i in range(levels.shape[1]):
                if best < levels[k, i] <= s[k]:
                    best = levels[k, i]
            s[k] = best
    for _ in range(50):
        moved = False
        for k in range(rows.shape[0]):
            w, old = rows[k, WEIGHT], s[k]
            rest = _kept(rows, s) - w * old * old
            best = share(rows[k], obj, 0.0, old) + stability(rest + w * old * old, obj, scale)
            trial, last = levels[k], caps[k]
            if levels.shape[1] == 0 or np.isnan(levels[k, 0]):
                trial = free_keeps(rows[k], obj, stability_slope(rest + w * old * old, obj, scale))
            else:
                last = np.nan
            for i in range(trial.size + 1):
                x = trial[i] if i < trial.size else last
                if np.isnan(x) or x > caps[k] or x > rows[k, SMAX]:
                    continue
                value = share(rows[k], obj, 0.0, x) + stability(rest + w * x * x, obj, scale)
                if value < best:
                    best, s[k] = value, x
            moved |= abs(s[k] - old) > 1e-12
        if not moved:
            break
    return s


@kernel
def _best_levels(rows, obj, levels, caps, scale, keeps, one):  # type: ignore[no-untyped-def]
    """Set every device to its best level in turn; True if one moved.

    Parameters
    ----------
    rows, levels, caps
        As for :func:`settled_keeps`. Shapes [K, C], [K, J], [K].
    obj
        Objective vector. Shape [8 + 5 P].
    scale : number
        1 / (2 n delta) of the pooled data.
    keeps, one
        Keep rates, and the chosen level of each device (nan: none is allowed); changed in place. Shapes [K],
        [K, 1].
    """
    moved = False
    for k in range(rows.shape[0]):
        one[k, 0] = np.nan
        rest = _kept(rows, keeps) - rows[k, WEIGHT] * keeps[k] * keeps[k]
        now = np.inf
        for i in range(levels.shape[1]):
            if np.isnan(levels[k, i]) or levels[k, i] > caps[k]:
                continue
            kept = rest + rows[k, WEIGHT] * levels[k, i] * levels[k, i]
            new = share(rows[k], obj, 0.0, levels[k, i]) + stability(kept, obj, scale)
            if new < now:
                now = new
                one[k, 0] = levels[k, i]
        if now < np.inf:
            moved |= abs(one[k, 0] - keeps[k]) > 1e-12
            keeps[k] = one[k, 0]
    return moved


def best_keeps(
    rows: FloatArray, obj: FloatArray, levels: FloatArray, caps: FloatArray, scale: float
) -> FloatArray:
    """Keep rates with a small objective under caps that allow some rate.

    Optimal when each device has its own stability term, or shares are convex in s^2 and no device has more than
    one level. Otherwise levels are chosen by descent over single devices, and continuous rates are optimal for
    these; with curves all rates are chosen by descent.

    Parameters
    ----------
    rows, levels, caps
        As for :func:`settled_keeps`. Shapes [K, C], [K, J], [K].
    obj
        Objective vector. Shape [8 + 5 P].
    scale
        1 / (2 n delta) of the pooled data.

    Returns
    -------
    array
        Keep rates. Shape [K].
    """
    n_dev = len(rows)
    left, right = np.empty(n_dev), np.empty(n_dev)
    if obj[POOLED] == 1.0:
        _pooled_choice(rows, obj, 0.0, levels, caps, left)
        return np.sqrt(left)
    keeps: FloatArray = settled_keeps(rows, obj, levels, caps, scale, left, right)
    trials: list[FloatArray] = []
    if np.any(obj[rows[:, TERM].astype(np.intp) + KIND] >= CURVE):
        starts = (np.sqrt(left), np.sqrt(right), keeps)
        trials += [polished_keeps(rows, obj, levels, caps, scale, start) for start in starts]
    elif levels.shape[1] >= 2 and not np.all(np.isnan(levels[:, 1])):
        one, spare, other = np.empty((n_dev, 1)), np.empty(n_dev), np.empty(n_dev)
        for side in (left, right):
            s = np.sqrt(side)
            for _ in range(20):
                moved = _best_levels(rows, obj, levels, caps, scale, s, one)
                s = settled_keeps(rows, obj, one, caps, scale, spare, other)
                if not moved:
                    break
            trials.append(s)
    best = math.inf
    for trial in trials:
        value = _pooled_objective(rows, obj, scale, trial)
        if value < best:
            best, keeps = value, trial
    return keeps
