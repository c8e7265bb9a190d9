"""Cuts: lower bounds of a device's share that are linear in its sub-carriers.

A cut (omega, b, a) says share(cap(S)) >= a - b sum_{m in S} pi_m(omega) for *every* set S, with

    a = min over keep rates s of share(s) + b psi_omega(s),

because the keep rate s that S carries meets psi_omega(s) <= sum pi_m (module ofdma_device). With sub-carrier
prices mu the priced share is at least a + sum_{m in S} (mu_m - b pi_m): separable. Restricted to an interval of s,
the same with the minimum over the interval.

Derived: docs/ofdma.md, section 2.
"""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.compiling.order import sort_by
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, EPS, profit_needed, profits, psi
from edgealloc.solvers.ofdma.kernels.share import SHARE_ROUNDING, share, share_below, share_size, split_keep
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN
from edgealloc.units import LN2

__all__ = ["cut_constant", "keep_window", "make_cuts", "next_level", "relaxed_level"]

LEVEL_STEPS = np.array([1.0, 0.96, 1.04, 0.9, 1.1])  # water levels around the relaxed one
B_STEPS = np.array([0.75, 0.88, 1.15, 1.35])  # slopes b around that of the marginal sub-carrier, for deeper nodes
_MAX_CELLS = 4000
WINDOW_STEPS = 40  # keep rates at which a guide for splitting looks


@kernel
def cut_constant(row, obj, nu, low, high, levels, om, b, tol):  # type: ignore[no-untyped-def]
    """Lower bound, tight to ``tol``, of min share(s) + b psi_omega(s) over s in [low, high], or over levels there.

    On a cell [x, y] cycles and downlink time are frozen at x, which can only lower psi; psi then is a minimum of
    affine functions of s, hence concave and above its chord. The share lies above a concave function too, and the
    sum of both is least at an end of the cell.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    levels
        Allowed keep rates; empty for any in [low, high]. Shape [J].
    nu, low, high, om, b, tol : numbers
        Price of w s^2, interval of keep rates, water level in W, slope per bit/s, accuracy.
    """
    if levels.size:
        best = np.inf
        for i in range(levels.size):
            if low <= levels[i] <= high:
                need = psi(row, om, levels[i])
                if need < np.inf:
                    value = share(row, obj, nu, levels[i]) + b * need
                    best = min(
                        best,
                        value - SHARE_ROUNDING * (abs(value) + share_size(row, obj, levels[i]) + b * abs(need)),
                    )
        return best
    n0 = 1 + int(6.0 * np.log(high / low))
    stack = np.empty((400 + n0, 2))
    ratio = (high / low) ** (1.0 / n0)
    upper = np.inf
    s = low
    for i in range(n0):
        y = high if i == n0 - 1 else s * ratio
        stack[i, 0], stack[i, 1] = s, y
        need = psi(row, om, y)
        if need < np.inf:
            upper = min(upper, share(row, obj, nu, y) + b * need)
        s = y
    top = n0
    lower = np.inf
    count = 0
    while top > 0:
        top -= 1
        x, y = stack[top, 0], stack[top, 1]
        count += 1
        bits_x, bits_y = row[BIT0] + row[BIT1] * x, row[BIT0] + row[BIT1] * y
        cycles, window = row[CYC0] + row[CYC1] * x, row[DEADLINE] - bits_x * row[DOWN]
        px = profit_needed(row, om, bits_x, cycles, window)
        if px == np.inf:
            continue  # nothing is feasible from x upwards
        py = profit_needed(row, om, bits_y, cycles, window)
        left, right = share_below(row, obj, nu, x, y)
        size = abs(left) + abs(right) + share_size(row, obj, x) + b * (abs(px) + abs(py))
        v = min(left + b * px, right + b * py) - SHARE_ROUNDING * size
        upper = min(upper, share(row, obj, nu, x) + b * px)
        if v >= upper - tol or count > _MAX_CELLS or top > stack.shape[0] - 3 or y - x <= 1e-12 * y:
            lower = min(lower, v)
        else:
            m = split_keep(row, obj, x, y)
            stack[top, 0], stack[top, 1] = x, m
            stack[top + 1, 0], stack[top + 1, 1] = m, y
            top += 2
    return lower


@kernel(inner=True)
def _scan(row, obj, nu, om, lo, hi, steps, mu, pi, order):  # type: ignore[no-untyped-def]
    """Best of a geometric scan of keep rates for one water level, sub-carriers bought fractionally by mu / pi.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    mu, pi
        Prices and profit rates (bit/s) of the sub-carriers. Shapes [M].
    order
        Those with a profit, as from :func:`_by_price`. Shape [N].
    nu, om, lo, hi, steps : numbers
        Price of w s^2, water level in W, interval of keep rates, and how many steps: a float, for numba
        compiles a function once more for each whole number written in a call.

    Returns
    -------
    value, keep, need, rank
        Priced share, its keep rate, the profit rate needed there in bit/s, and the rank of the marginal
        sub-carrier in ``order``.
    """
    best, s_best, need_best, rank = np.inf, lo, 0.0, 0
    ratio = (hi / lo) ** (1.0 / steps)
    s = lo
    i, got, paid = 0, 0.0, 0.0
    for _ in range(int(steps) + 1):
        need = psi(row, om, s)
        if need == np.inf:
            break
        while i < order.size and got + pi[order[i]] < need:
            got += pi[order[i]]
            paid += mu[order[i]]
            i += 1
        if i == order.size and got < need:
            break
        m = order[min(i, order.size - 1)]
        extra = (need - got) * mu[m] / pi[m] if got < need else 0.0
        v = share(row, obj, nu, s) + paid + extra
        if v < best:
            best, s_best, need_best, rank = v, s, need, i
        s *= ratio
    return best, s_best, need_best, rank


@kernel(inner=True)
def _by_price(mu, pi):  # type: ignore[no-untyped-def]
    """Sub-carriers with a positive profit rate, by price per profit, shape [N]; mu, pi [M]."""
    n = 0
    key = np.empty(mu.size)
    index, spare = np.empty(mu.size, np.int64), np.empty(mu.size, np.int64)
    for m in range(mu.size):
        if pi[m] > 0.0:
            key[m] = mu[m] / pi[m]
            index[n] = m
            n += 1
    order = index[:n]
    sort_by(key, order, spare)
    return order


@kernel(inner=True)
def _fine_scan(row, obj, nu, om, low, high, mu, pi, order):  # type: ignore[no-untyped-def]
    """The scan, coarse and then fine around its best; answers as :func:`_scan`.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    mu, pi
        Prices and profit rates (bit/s) of the sub-carriers. Shapes [M].
    order
        Those with a profit, by price. Shape [N].
    nu, om, low, high : numbers
        Price of w s^2, water level in W, interval of keep rates.
    """
    s = _scan(row, obj, nu, om, low, high, 40.0, mu, pi, order)[1]
    return _scan(row, obj, nu, om, max(low, s * 0.92), min(high, s * 1.09), 30.0, mu, pi, order)


@kernel(inner=True)
def next_level(row, inv_a, log2_a, used, om):  # type: ignore[no-untyped-def]
    """(The water level in W that a fractional set asks for, or ``om`` if none; whether the search rests there).

    row [C]; inv_a, log2_a, used [M], sub-carriers in the order of increasing 1/a; om the level it comes from.
    """
    new = keep_cap(row, inv_a, log2_a, used)[1]
    if new <= 0.0:
        return om, True
    return new, abs(new / om - 1.0) < 0.005


@kernel
def relaxed_level(row, obj, nu, low, high, inv_a, log2_a, mu, om):  # type: ignore[no-untyped-def]
    """(Water level, keep rate, number of sub-carriers) near the fractional optimum of a device's priced problem.

    A guide only, by fixed-point iteration: cuts are valid at any level.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    inv_a, log2_a, mu
        1/a in W, upwards; its negative binary logarithm; prices. Shapes [M].
    nu, low, high, om : numbers
        Price of w s^2, interval of keep rates, the water level in W to start from.
    """
    pi = np.empty(inv_a.size)
    used = np.zeros(inv_a.size)
    s, total = low, 0.0
    for _ in range(8):
        profits(row[BAND], om, inv_a, pi)
        order = _by_price(mu, pi)
        if order.size == 0:
            om *= 2.0
            continue
        _v, s, need, _r = _fine_scan(row, obj, nu, om, low, high, mu, pi, order)
        for m in range(used.size):
            used[m] = 0.0
        got = 0.0
        for i in range(order.size):
            m = order[i]
            if got < need or mu[m] <= 0.0:
                used[m] = 1.0 if mu[m] <= 0.0 else min(1.0, (need - got) / pi[m])
                got += used[m] * pi[m]
        if got == 0.0:  # so low a level asks for no profit at all: no cut there could bind
            om *= 2.0
            continue
        om, rests = next_level(row, inv_a, log2_a, used, om)
        if rests:
            break
    for m in range(used.size):
        total += used[m]
    return om, s, total


@kernel
def keep_window(row, obj, nu, low, high, inv_a, mu, om, threshold):  # type: ignore[no-untyped-def]
    """(First, last) keep rate around which the relaxed priced share at one water level reaches the threshold.

    A guide for splitting intervals, on a grid: what lies outside is likely to be closed by its own cuts.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    inv_a, mu
        1/a in W, upwards; prices. Shapes [M].
    nu, low, high, om, threshold : numbers
        Price of w s^2, interval of keep rates, water level in W, the priced share to reach.
    """
    pi = np.empty(inv_a.size)
    profits(row[BAND], om, inv_a, pi)
    order = _by_price(mu, pi)
    ratio = (high / low) ** (1.0 / WINDOW_STEPS)
    first, last = high, low
    s = low
    for _ in range(WINDOW_STEPS + 1):
        if _scan(row, obj, nu, om, s, s, 1.0, mu, pi, order)[0] <= threshold:
            first, last = min(first, s / ratio), max(last, s * ratio)
        s *= ratio
    return max(first, low), min(last, high)


@kernel
def make_cuts(row, obj, nu, low, high, levels, inv_a, mu, om_ref, n_level, ratios, tol):  # type: ignore[no-untyped-def]
    """Cuts for prices mu around a water level: constants [L] and b pi_m [L, M]; at least one.

    For one level the bound is piecewise smooth in b with kinks at the ratios mu_m / pi_m, so the ratios around the
    marginal sub-carrier are the natural slopes; a few wider steps serve the deeper nodes. Each constant is lowered
    by the rounding of the profits and of a sum over all sub-carriers.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    levels
        Allowed keep rates; empty for any in [low, high]. Shape [J].
    inv_a, mu
        1/a in W, upwards; prices. Shapes [M].
    nu, low, high, om_ref, n_level, ratios, tol : numbers
        Price of w s^2, interval of keep rates, water level in W, how many levels around it, how many
        ratios on either side of the marginal one, accuracy of a constant.
    """
    n_b = 2 * ratios + 1 + B_STEPS.size
    a = np.empty(n_level * n_b)
    bp = np.empty((a.size, inv_a.size))
    pi = np.empty(inv_a.size)
    paid = 0.0
    for m in range(mu.size):
        paid += abs(mu[m])
    units = (inv_a.size + 64.0) * EPS
    cut = 0
    for i in range(n_level):
        om = om_ref * LEVEL_STEPS[i]
        profits(row[BAND], om, inv_a, pi)
        order = _by_price(mu, pi)
        if order.size == 0:
            continue
        earned = 0.0
        for m in range(inv_a.size):
            if om > inv_a[m]:
                earned += row[BAND] / LN2 * (2.0 + np.log(om / inv_a[m]))
        rank = _fine_scan(row, obj, nu, om, low, high, mu, pi, order)[3]
        centre = order[min(rank, order.size - 1)]
        for j in range(n_b):
            if j < 2 * ratios + 1:
                m = order[min(max(rank + j - ratios, 0), order.size - 1)]
                b = mu[m] / pi[m]
            else:
                b = mu[centre] / pi[centre] * B_STEPS[j - 2 * ratios - 1]
            a[cut] = cut_constant(row, obj, nu, low, high, levels, om, b, tol) - units * (paid + b * earned)
            for m in range(inv_a.size):
                bp[cut, m] = b * pi[m]
            cut += 1
    if cut == 0:  # no sub-carrier reaches any level: only the trivial cut
        a[0] = cut_constant(row, obj, nu, low, high, levels, om_ref, 0.0, tol) - units * paid
        for m in range(inv_a.size):
            bp[0, m] = 0.0
        cut = 1
    return a[:cut], bp[:cut]
