r"""A device's part of the objective as a function of its keep rate s, and lower bounds of it.

.. math:: \mathrm{share}_\nu(s) = A w \phi\, u(s) + w \nu s^2 \;(+\; w\, \mathrm{gap}_k(s^2) \text{ when each
          device has its own stability term})

Two underfitting terms u are convex in s^2, and so is their share: it falls up to one keep rate and rises after it.
So does that of a logistic term beyond its inflection. One with its inflection inside, and a curve, cubic between
its knots, may have several local minima; :func:`free_keeps` finds them all.

Throughout, row [C] is a device row (:mod:`edgealloc.solvers.ofdma.kernels.device`) and obj [8 + 5 P] the objective
vector below; nu, s and the like are numbers. Where devices have different terms there is one vector after another,
and the row says where its own begins; the stability term is read from the first.

Derived: docs/ofdma.md, section 2.
"""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.ofdma.kernels.device import EPS, SCALE, TERM, UNDER, WEIGHT
from edgealloc.solvers.row import SMAX, SMIN

__all__ = ["best_share", "free_keeps", "keep_at_share", "share", "share_below", "share_size", "share_slope"]

SHARE_ROUNDING = 64.0 * EPS
_FLAT = 16.0 * EPS  # slopes that change a share by no more than this over the whole range count as zero

# Entries of the objective vector [8 + 5 P]: KIND 0 inverse-keep, 1 perturbation, 2 curve, -1 and 3 logistic;
# POOLED 1: each device has its own stability term sqrt((BASE + SPREAD / (CURVATURE + SLOPE (1 - Q))) scale); a
# curve has P = PIECES cubic pieces c0 + c1 y + c2 y^2 + c3 y^3 in y = s - knot: P + 1 knots from KNOTS on, then
# the c0, c1, c2, c3 of all pieces. A logistic term has two pieces, concave and convex in s, HALF and STEEPNESS.
# From CURVE on, a share need not be convex in s^2.
KIND, POOLED, BASE, SPREAD, CURVATURE, SLOPE, PIECES, KNOTS = range(8)
HALF, STEEPNESS = KNOTS + 3, KNOTS + 4
LOGISTIC, CURVE, BENT = -1.0, 2.0, 3.0


@kernel
def stability(q, obj, scale):  # type: ignore[no-untyped-def]
    """Stability term at the kept share q; convex and increasing in q."""
    y = obj[CURVATURE] + obj[SLOPE] * max(1.0 - q, 0.0)  # a tiny curvature is lost in CURVATURE + SLOPE
    return np.sqrt((obj[BASE] + obj[SPREAD] / y) * scale)


@kernel
def stability_slope(q, obj, scale):  # type: ignore[no-untyped-def]
    """Derivative of the stability term in q."""
    value = stability(q, obj, scale)
    if value == 0.0:
        return 0.0
    y = obj[CURVATURE] + obj[SLOPE] * max(1.0 - q, 0.0)
    return 0.5 * obj[SPREAD] * obj[SLOPE] * scale / (y * y * value)


@kernel(inner=True)
def _piece(obj, o, s):  # type: ignore[no-untyped-def]
    """The piece of the curve that holds s; the first or the last for what lies outside."""
    first, last = 0, int(obj[o + PIECES])
    while last - first > 1:
        middle = (first + last) // 2
        if obj[o + KNOTS + middle] <= s:
            first = middle
        else:
            last = middle
    return first


@kernel(inner=True)
def _cubic(obj, o, piece, s):  # type: ignore[no-untyped-def]
    """(Value, first, half the second, sixth of the third derivative) of one piece of the curve."""
    pieces = int(obj[o + PIECES])
    at = o + KNOTS + pieces + 1 + piece
    c0, c1, c2, c3 = obj[at], obj[at + pieces], obj[at + 2 * pieces], obj[at + 3 * pieces]
    y = s - obj[o + KNOTS + piece]
    return c0 + y * (c1 + y * (c2 + y * c3)), c1 + y * (2.0 * c2 + 3.0 * y * c3), c2 + 3.0 * y * c3, c3


@kernel(inner=True)
def _logistic(obj, o, s):  # type: ignore[no-untyped-def]
    """(Value, derivative in s, z) of 1 / (1 + e^z), z = STEEPNESS log(s / HALF), to a few units of rounding."""
    half, steepness = obj[o + HALF], obj[o + STEEPNESS]
    z = np.log1p((s - half) / half) if s >= 0.5 * half else np.log(s) - np.log(half)
    z *= steepness
    small = np.exp(-abs(z))
    value = (small if z > 0.0 else 1.0) / (1.0 + small)
    return value, -steepness * small / ((1.0 + small) * (1.0 + small) * s), z


@kernel(inner=True)
def _underfit(obj, o, s):  # type: ignore[no-untyped-def]
    """Underfitting u(s)."""
    kind = obj[o + KIND]
    if kind == 0.0:
        return (1.0 - s) / s
    if kind == 1.0:
        return (1.0 - s) * (1.0 + s)
    if kind == CURVE:
        return _cubic(obj, o, _piece(obj, o, s), s)[0]
    return _logistic(obj, o, s)[0]


@kernel(inner=True)
def _rest(row, obj, nu, s):  # type: ignore[no-untyped-def]
    """(What a share holds beside underfitting, its derivative in s); convex in s^2 and increasing, hence in s."""
    value, slope = row[WEIGHT] * nu * s * s, row[WEIGHT] * nu
    if obj[POOLED] == 1.0:
        value += row[WEIGHT] * stability(s * s, obj, row[SCALE])
        slope += row[WEIGHT] * stability_slope(s * s, obj, row[SCALE])
    return value, 2.0 * s * slope


@kernel
def share(row, obj, nu, s):  # type: ignore[no-untyped-def]
    """A device's part of the objective at keep rate s, with price nu on sum_k w_k s_k^2."""
    return row[UNDER] * _underfit(obj, int(row[TERM]), s) + _rest(row, obj, nu, s)[0]


@kernel(inner=True)
def share_size(row, obj, s):  # type: ignore[no-untyped-def]
    """Size of the underfitting term at keep rates from s on, for its rounding errors."""
    o = int(row[TERM])
    if obj[o + KIND] == CURVE:
        return row[UNDER] * (1.0 + abs(obj[o + KNOTS + int(obj[o + PIECES]) + 1]))  # largest at the first knot
    if obj[o + KIND] == LOGISTIC or obj[o + KIND] == BENT:
        return 2.0 * row[UNDER]
    return row[UNDER] / s


@kernel
def share_slope(row, obj, nu, s):  # type: ignore[no-untyped-def]
    """Derivative of the share in s^2."""
    o = int(row[TERM])
    kind = obj[o + KIND]
    if kind == 0.0:
        under = -0.5 / (s * s * s)
    elif kind == 1.0:
        under = -1.0
    elif kind == CURVE:
        under = 0.5 * _cubic(obj, o, _piece(obj, o, s), s)[1] / s
    else:
        under = 0.5 * _logistic(obj, o, s)[1] / s
    return row[UNDER] * under + 0.5 * _rest(row, obj, nu, s)[1] / s


@kernel(inner=True)
def split_keep(row, obj, x, y):  # type: ignore[no-untyped-def]
    """Where to cut a cell in two: at the middle one of the knots inside, else in the middle."""
    o = int(row[TERM])
    if obj[o + KIND] >= CURVE:
        first, last = _piece(obj, o, x), _piece(obj, o, y)
        if first < last:
            knot = obj[o + KNOTS + (first + last + 1) // 2]
            if x < knot < y:
                return knot
    return 0.5 * (x + y)


@kernel(inner=True)
def _piece_below(obj, o, piece, x, y):  # type: ignore[no-untyped-def]
    """Ends of a line below one piece of the curve on [x, y].

    Of a cubic the chord, lowered by the least Bernstein coefficient of the cubic less the chord, zero at both
    ends; of a logistic term the chord where it is concave, the tangent in the middle where it is convex.
    """
    if obj[o + KIND] == BENT:
        if piece == 0:
            return _logistic(obj, o, x)[0], _logistic(obj, o, y)[0]
        m = 0.5 * (x + y)
        value, slope, z = _logistic(obj, o, m)
        before, after = slope * (x - m), slope * (y - m)
        blur = 8.0 * EPS * (2.0 + abs(z)) * (abs(before) + abs(after))
        return value + before - blur, value + after - blur
    left, d1, d2, d3 = _cubic(obj, o, piece, x)
    right = _cubic(obj, o, piece, y)[0]
    h = y - x
    if h <= 0.0:
        return left, right
    b1 = (d1 * h - (right - left)) / 3.0
    b2 = 2.0 * b1 + d2 * h * h / 3.0
    drop = min(0.0, b1, b2) - SHARE_ROUNDING * (abs(d1 * h) + abs(d2 * h * h) + abs(d3 * h * h * h))
    return left + drop, right + drop


@kernel(inner=True)
def share_below(row, obj, nu, x, y):  # type: ignore[no-untyped-def]
    """Ends, at x and y, of a function of s that is concave and lies below the share on [x, y].

    What is convex in s^2 lies above its tangent c + d s^2, concave where d <= 0. Under a curve the rest lies above
    its tangent in s and the curve above a line; a cell that spans a knot gets the curve's value at its right end,
    for curves fall.
    """
    m = 0.5 * (x + y)
    o = int(row[TERM])
    if obj[o + KIND] >= CURVE:
        first, last = _piece(obj, o, x), _piece(obj, o, y)
        if last == first + 1 and obj[o + KNOTS + last] == y:
            last = first
        if first == last:
            left, right = _piece_below(obj, o, first, x, y)
        else:
            left = right = _underfit(obj, o, y)
        value, slope = _rest(row, obj, nu, m)
        return row[UNDER] * left + value + slope * (x - m), row[UNDER] * right + value + slope * (y - m)
    c, d = share(row, obj, nu, m), share_slope(row, obj, nu, m)
    if d > 0.0:  # past the free optimum by rounding: a flat tangent at the end is below as well
        c, d = share(row, obj, nu, y) - abs(share_slope(row, obj, nu, y)) * (y * y - x * x), 0.0
    return c + d * (x * x - m * m), c + d * (y * y - m * m)


@kernel(inner=True)
def _free_keep(row, obj, nu):  # type: ignore[no-untyped-def]
    """Keep rate in [keep_min, keep_max] with the least share, when that is convex in s^2."""
    lo, hi = row[SMIN], row[SMAX]
    if share_slope(row, obj, nu, hi) <= 0.0:
        return hi
    if share_slope(row, obj, nu, lo) >= 0.0:
        return lo
    for _ in range(60):
        s = 0.5 * (lo + hi)
        if share_slope(row, obj, nu, s) > 0.0:
            hi = s
        else:
            lo = s
    return lo if share(row, obj, nu, lo) <= share(row, obj, nu, hi) else hi  # they may differ near 1, digits apart


@kernel(inner=True)
def _slope_range(row, obj, nu, piece, x, y):  # type: ignore[no-untyped-def]
    """(Least, greatest) derivative in s of a share on a cell of one piece, by Bernstein coefficients."""
    o = int(row[TERM])
    if obj[o + KIND] == BENT:  # on either side of the inflection it is monotone
        left, right = _logistic(obj, o, x)[1], _logistic(obj, o, y)[1]
        middle = left
    else:
        _u, left, half, _c3 = _cubic(obj, o, piece, x)
        right = _cubic(obj, o, piece, y)[1]
        middle = left + half * (y - x)
    least = min(left, middle, right) * row[UNDER] + _rest(row, obj, nu, x)[1]
    return least, max(left, middle, right) * row[UNDER] + _rest(row, obj, nu, y)[1]


@kernel(inner=True)
def _local_minima(row, obj, nu):  # type: ignore[no-untyped-def]
    """Ascending keep rates that hold every local minimum of a share with a curve, up to its least one.

    Cells are halved until the share rises or falls on them, or they are too narrow to matter.
    """
    low, high, o = row[SMIN], row[SMAX], int(row[TERM])
    size = share_size(row, obj, low) + abs(_rest(row, obj, nu, low)[0])  # the rest may be far more at keep rate 1
    flat = _FLAT * size / max(high - low, 1e-300)
    found = np.empty(2 * int(obj[o + PIECES]) + 8)
    n, falling = 0, True
    stack = np.empty((80, 2))
    for piece in range(_piece(obj, o, low), _piece(obj, o, high) + 1):
        x = low if piece == _piece(obj, o, low) else obj[o + KNOTS + piece]
        y = min(high, obj[o + KNOTS + piece + 1]) if piece < int(obj[o + PIECES]) - 1 else high
        stack[0, 0], stack[0, 1] = x, y
        top = 1
        while top > 0:
            top -= 1
            x, y = stack[top, 0], stack[top, 1]
            least, most = _slope_range(row, obj, nu, piece, x, y)
            if most <= flat:
                falling = True
                continue
            narrow = y - x <= 1e-13 * y
            if least < -flat and not narrow:
                m = 0.5 * (x + y)
                stack[top, 0], stack[top, 1] = m, y
                stack[top + 1, 0], stack[top + 1, 1] = x, m
                top += 2
                continue
            if falling:
                if n == found.size:
                    more = np.empty(2 * n)
                    for i in range(n):
                        more[i] = found[i]
                    found = more
                found[n] = x
                n += 1
            falling = least < -flat  # not known on a narrow cell: the next rise counts as a minimum again
    best, last = np.inf, 0
    for i in range(n):
        value = share(row, obj, nu, found[i])
        if value < best:
            best, last = value, i
    if falling and share(row, obj, nu, high) < best:
        last = n
    some = np.empty(last + 1)
    for i in range(last + 1):
        some[i] = found[i] if i < n else high
    return some


@kernel
def free_keeps(row, obj, nu):  # type: ignore[no-untyped-def]
    """Keep rates [F], ascending, that may be best when resources suffice; the last has the least share of all."""
    if obj[int(row[TERM]) + KIND] >= CURVE:
        return _local_minima(row, obj, nu)
    only = np.empty(1)
    only[0] = _free_keep(row, obj, nu)
    return only


@kernel
def best_share(row, obj, nu, free, levels, cap):  # type: ignore[no-untyped-def]
    """(Least share under a cap, its keep rate); (inf, 0) when none is allowed.

    ``free`` [F] as from :func:`free_keeps`, padded with its last entry; ``levels`` [J], J = 0: any rate.
    """
    best, keep = np.inf, 0.0
    if levels.size == 0:
        if cap < row[SMIN]:
            return best, keep
        keep = min(cap, free[-1])
        best = share(row, obj, nu, keep)
        for i in range(free.size - 1):
            if free[i] > cap:
                break
            value = share(row, obj, nu, free[i])
            if value < best:
                best, keep = value, free[i]
        return best, keep
    for i in range(levels.size):
        if levels[i] <= cap:
            value = share(row, obj, nu, levels[i])
            if value < best:
                best, keep = value, levels[i]
    return best, keep


@kernel(inner=True)
def keep_at_share(row, obj, nu, free, low, target):  # type: ignore[no-untyped-def]
    """A keep rate >= low up to which, from low on, shares are at least ``target``; hardly less than the last such.

    Newton in s^2 where the share is convex in it: from the left its steps never pass the root. Otherwise bisection
    before the first local minimum below the target; free [F] as from :func:`free_keeps`.
    """
    target += SHARE_ROUNDING * (abs(target) + share_size(row, obj, low))
    s = low
    if obj[int(row[TERM]) + KIND] >= CURVE:
        right = free[-1]
        for i in range(free.size):
            if free[i] > low and share(row, obj, nu, free[i]) < target:
                right = free[i]
                break
        if share(row, obj, nu, low) < target or right <= low:
            return low
        if share(row, obj, nu, right) >= target:
            return right
        while right - s > 1e-13 * right:
            m = 0.5 * (s + right)
            if share(row, obj, nu, m) < target:
                right = m
            else:
                s = m
        return s
    for _ in range(60):
        over = share(row, obj, nu, s) - target
        slope = share_slope(row, obj, nu, s)
        if over <= 0.0 or slope >= 0.0:
            break
        q = s * s - over / slope
        new = np.sqrt(q)
        if new - s <= 1e-13 * s:
            break
        s = new
    return max(low, s * (1.0 - 1e-13))
