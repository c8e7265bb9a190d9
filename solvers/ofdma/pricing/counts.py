"""Cuts for sets with a given number of sub-carriers.

Sub-carriers of one device are often nearly alike, and at a keep rate that needs 8.4 of them no set is tight, while
the cuts of :mod:`edgealloc.solvers.ofdma.pricing.cuts` see eight and a fraction. For sets of n_low to n_high
sub-carriers a price lambda on their number sharpens a cut: with any lambda,

    share(cap(S)) + mu(S) >= a + lambda n + sum_{m in S} (mu_m - b pi_m - lambda),

where n is n_low if lambda > 0 and n_high if lambda < 0. For one slope b the best lambda is the price, less what it
earns, of the last sub-carrier that belongs to the set; the best b follows from a one-dimensional concave search.

Derived: docs/ofdma.md, section 2.
"""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.compiling.order import sort_by
from edgealloc.solvers.ofdma.kernels.device import BAND, EPS, profits, psi
from edgealloc.solvers.ofdma.kernels.share import share
from edgealloc.solvers.ofdma.pricing.cuts import LEVEL_STEPS, WINDOW_STEPS, cut_constant, next_level
from edgealloc.units import LN2

__all__ = ["count_cuts", "count_level", "count_window"]

_STEPS = 48  # keep rates of the tables that guide the choice of slopes
_SLOPES = np.array([1.0, 0.94, 1.06, 0.85, 1.18, 0.6, 1.7])  # around the best slope
_SPARE = 40  # sub-carriers beyond n_high that the guides look at
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


@kernel(inner=True)
def _table(row, obj, nu, low, high, levels, om):  # type: ignore[no-untyped-def]
    """Shares and profit rates needed in bit/s, for keep rates of an interval where there are any. Shape [2, N].

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    levels
        Allowed keep rates; empty for any. Shape [J].
    nu, low, high, om : numbers
        Price of w s^2, the interval, the water level in W.
    """
    size = max(_STEPS + 1, levels.size)
    shares, needs = np.empty(size), np.empty(size)
    n = 0
    ratio = (high / low) ** (1.0 / _STEPS)
    s = low
    for i in range(levels.size if levels.size else _STEPS + 1):
        if levels.size:
            s = levels[i]
        if low <= s <= high or levels.size == 0:
            need = psi(row, om, s)
            if need < np.inf:
                shares[n], needs[n] = share(row, obj, nu, s), need
                n += 1
        s *= ratio
    out = np.empty((2, n))
    for i in range(n):
        out[0, i], out[1, i] = shares[i], needs[i]
    return out


@kernel(inner=True)
def _likely(mu, pi, fixed, n_high):  # type: ignore[no-untyped-def]
    """The sub-carriers that may matter for sets of up to n_high: those of the least price per profit. Shape [L].

    mu, pi, fixed [M]: prices, profit rates in bit/s, and 0 for those that are out.
    """
    n = 0
    key = np.empty(mu.size)
    index, spare = np.empty(mu.size, np.int64), np.empty(mu.size, np.int64)
    for m in range(mu.size):
        if pi[m] > 0.0 and fixed[m] != 0:
            key[m] = mu[m] / pi[m]
            index[n] = m
            n += 1
    sort_by(key, index[:n], spare)
    return index[: min(n, n_high + _SPARE)]


@kernel(inner=True)
def _paid(mu, pi, likely, b, n_low, n_high):  # type: ignore[no-untyped-def]
    """(Least sum of mu - b pi over n_low to n_high likely sub-carriers, its best lambda).

    mu, pi [M]: prices and profit rates in bit/s; likely [L] as from :func:`_likely`.
    """
    size = likely.size
    key, values = np.empty(size), np.empty(size)
    index, spare = np.empty(size, np.int64), np.empty(size, np.int64)
    for i in range(size):
        key[i], index[i] = mu[likely[i]] - b * pi[likely[i]], i
    sort_by(key, index, spare)
    for i in range(size):
        values[i] = key[index[i]]
    total, lam = 0.0, 0.0
    for i in range(min(n_high, values.size)):
        if i >= n_low and values[i] >= 0.0:
            break
        total += values[i]
    if n_low > 0 and n_low <= values.size and values[n_low - 1] > 0.0:
        after = values[n_low] if n_low < values.size else values[n_low - 1]
        lam = 0.5 * (values[n_low - 1] + after)
    elif n_high < values.size and values[n_high] < 0.0:
        before = values[n_high - 1] if n_high > 0 else values[n_high]
        lam = 0.5 * (before + values[n_high])
    return total, lam


@kernel(inner=True)
def _guess(table, mu, pi, likely, b, n_low, n_high):  # type: ignore[no-untyped-def]
    """The bound that a slope b would give, from the table.

    Parameters
    ----------
    table
        As from :func:`_table`. Shape [2, N].
    mu, pi
        Prices and profit rates (bit/s) of the sub-carriers. Shapes [M].
    likely
        Sub-carriers that may matter, as from :func:`_likely`. Shape [L].
    b, n_low, n_high : numbers
        The slope per bit/s, and how many sub-carriers a set has.
    """
    least = np.inf
    for i in range(table.shape[1]):
        least = min(least, table[0, i] + b * table[1, i])
    return least + _paid(mu, pi, likely, b, n_low, n_high)[0]


@kernel(inner=True)
def _best_slope(table, mu, pi, likely, n_low, n_high):  # type: ignore[no-untyped-def]
    """The slope b with the greatest guessed bound, by golden section in its logarithm.

    table [2, N] as from :func:`_table`; mu, pi [M]: prices and profit rates in bit/s; likely [L].
    """
    if likely.size == 0 or table.shape[1] == 0:
        return 0.0
    middle = likely[min(n_low, likely.size - 1)]
    most = mu[0]
    for m in range(mu.size):
        most = max(most, mu[m])
    ratio = max(mu[middle] / pi[middle], 1e-12 * most / pi[middle])
    if ratio <= 0.0:
        return 0.0
    lo, hi = np.log(ratio) - 2.5, np.log(ratio) + 2.5
    x, y = hi - _GOLDEN * (hi - lo), lo + _GOLDEN * (hi - lo)
    fx, fy = -np.inf, -np.inf
    fresh = 0
    for _ in range(16):
        if fresh <= 0:
            fx = _guess(table, mu, pi, likely, np.exp(x), n_low, n_high)
        if fresh >= 0:
            fy = _guess(table, mu, pi, likely, np.exp(y), n_low, n_high)
        if fx >= fy:
            hi, y, fy = y, x, fx
            x = hi - _GOLDEN * (hi - lo)
            fresh = -1
        else:
            lo, x, fx = x, y, fy
            y = lo + _GOLDEN * (hi - lo)
            fresh = 1
    return np.exp(x if fx >= fy else y)


@kernel
def count_level(row, obj, nu, low, high, levels, inv_a, log2_a, mu, fixed, n_low, n_high, om):  # type: ignore[no-untyped-def]
    """Water level in W of a set with n_low to n_high sub-carriers near the relaxed optimum. A guide only.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    levels
        Allowed keep rates; empty for any. Shape [J].
    inv_a, log2_a
        1/a in W, upwards, and its negative binary logarithm. Shapes [M].
    mu, fixed
        Prices of the sub-carriers; 1 in, 0 out, -1 open. Shapes [M].
    nu, low, high, n_low, n_high, om : numbers
        Price of w s^2, interval of keep rates, how many sub-carriers, the water level to start from.
    """
    pi = np.empty(inv_a.size)
    used = np.empty(inv_a.size)
    for _ in range(4):
        profits(row[BAND], om, inv_a, pi)
        likely = _likely(mu, pi, fixed, n_high)
        b = _best_slope(_table(row, obj, nu, low, high, levels, om), mu, pi, likely, n_low, n_high)
        lam = _paid(mu, pi, likely, b, n_low, n_high)[1]
        for m in range(used.size):
            used[m] = 0.0
        n = 0
        for i in range(likely.size):
            m = likely[i]
            if mu[m] - b * pi[m] <= lam and n < n_high:
                used[m] = 1.0
                n += 1
        om, rests = next_level(row, inv_a, log2_a, used, om)
        if rests:
            break
    return om


@kernel
def count_cuts(  # type: ignore[no-untyped-def]
    row, obj, nu, low, high, levels, inv_a, mu, fixed, n_low, n_high, om_ref, n_level, n_slope, tol
):  # fmt: skip
    """Cuts for sets of n_low to n_high sub-carriers (module docstring); n_level water levels times n_slope slopes.

    Constants are lowered by the rounding of the profits and of a sum over all sub-carriers, as without counts.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    levels
        Allowed keep rates; empty for any. Shape [J].
    inv_a, mu, fixed
        1/a in W, upwards; prices; 1 in, 0 out, -1 open. Shapes [M].
    nu, low, high, n_low, n_high, om_ref, n_level, n_slope, tol : numbers
        Price of w s^2, interval of keep rates, how many sub-carriers, the water level in W to cut around,
        how many levels and slopes, and the accuracy of a constant.

    Returns
    -------
    a [L], bp [L, M], slopes [L, 3]
        Constants, b pi_m + lambda, and (omega, b, lambda n).
    """
    size = n_level * n_slope
    a = np.empty(size)
    bp = np.empty((size, inv_a.size))
    slopes = np.empty((size, 3))
    pi = np.empty(inv_a.size)
    paid = 0.0
    for m in range(mu.size):
        paid += abs(mu[m])
    units = (inv_a.size + 64.0) * EPS
    cut = 0
    for i in range(n_level):
        om = om_ref * LEVEL_STEPS[i]
        profits(row[BAND], om, inv_a, pi)
        likely = _likely(mu, pi, fixed, n_high)
        earned = 0.0
        for m in range(inv_a.size):
            if om > inv_a[m]:
                earned += row[BAND] / LN2 * (2.0 + np.log(om / inv_a[m]))
        best = _best_slope(_table(row, obj, nu, low, high, levels, om), mu, pi, likely, n_low, n_high)
        for j in range(n_slope):
            b = best * _SLOPES[j]
            lam = _paid(mu, pi, likely, b, n_low, n_high)[1]
            n = n_low if lam > 0.0 else n_high
            constant = cut_constant(row, obj, nu, low, high, levels, om, b, tol) + lam * n
            a[cut] = constant - units * (paid + b * earned + abs(lam) * (n + inv_a.size))
            for m in range(inv_a.size):
                bp[cut, m] = b * pi[m] + lam
            slopes[cut, 0], slopes[cut, 1], slopes[cut, 2] = om, b, lam * n
            cut += 1
            if b == 0.0:
                break
    return a[:cut], bp[:cut], slopes[:cut]


@kernel
def count_window(row, obj, nu, low, high, mu, fixed, bp, slopes, threshold):  # type: ignore[no-untyped-def]
    """(First, last) keep rate around which the cuts allow a priced share of the threshold. A guide for splitting.

    At one keep rate a cut gives the share and b psi there, plus what it makes of the sub-carriers.

    Parameters
    ----------
    row, obj
        Device row of C columns and objective vector. Shapes [C], [8 + 5 P].
    mu, fixed
        Prices of the sub-carriers; 1 in, 0 out, -1 open. Shapes [M].
    bp, slopes
        Cuts of :func:`count_cuts`. Shapes [L, M], [L, 3].
    nu, low, high, threshold : numbers
        Price of w s^2, interval of keep rates, the priced share above which sets are of no interest.
    """
    rest = np.empty(len(slopes))
    for i in range(rest.size):
        rest[i] = slopes[i, 2]
        for m in range(mu.size):
            if fixed[m] == 1:
                rest[i] += mu[m] - bp[i, m]
            elif fixed[m] == -1:
                rest[i] += min(0.0, mu[m] - bp[i, m])
    ratio = (high / low) ** (1.0 / WINDOW_STEPS)
    first, last = high, low
    s = low
    for _ in range(WINDOW_STEPS + 1):
        most, om, need = -np.inf, 0.0, 0.0
        for i in range(rest.size):
            if slopes[i, 0] != om:
                om = slopes[i, 0]
                need = psi(row, om, s)
            most = max(most, rest[i] + slopes[i, 1] * need)
        if share(row, obj, nu, s) + most <= threshold:
            first, last = min(first, s / ratio), max(last, s * ratio)
        s *= ratio
    return max(first, low), min(last, high)
