r"""Largest keep rate of a device on given spectrum: the exact one-dimensional problem behind polish and repair.

On shares c_m of columns with noise-to-gain 1/a_m the water level omega sets power p = sum c_m (omega - 1/a_m)^+
and rate r = band sum c_m log(omega a_m)^+. At (r, p) the largest feasible s solves the energy budget with the
lowest clock that meets the deadline. Along omega that s rises while

    alpha (p + 2 kappa f^3) / r > 1,    alpha = dr/dp = band / omega,

(the next watt saves more than it costs, upload and computing energy together) or while only the deadline binds,
and falls afterwards (formulation 5.4: for fixed s feasibility is convex in the upload time). A sign search
finds the top. One column with a fractional share is FDMA, whole columns are sub-carriers.

OFDMA's tree has the same problem and shares the Newton at (r, p), and the search where the signal-to-noise ratio
is low. Elsewhere it is content with a level within 1e-7, for it proves every cap, where P-SCA goes on to 1e-14 or
to the largest rate that is allowed. A test compares the two.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.ofdma.kernels.cap import keep_at_rate, weak_water
from edgealloc.solvers.ofdma.kernels.device import WEAK
from edgealloc.solvers.row import KAPPA, PMAX, SMAX

__all__ = ["keep_cap", "set_cap"]


@kernel
def keep_cap(row, band, inverse, share, count):  # type: ignore[no-untyped-def]
    """Largest keep rate on the first ``count`` columns, sorted by 1/a in W; ``band`` in bit/s per column and nat.

    Returns (s, rate in bit/s, power in W, level above the least 1/a in W); s <= 0 where nothing can be kept.
    """
    if count == 0 or not inverse[0] < math.inf:
        return -2.0, 0.0, 0.0, 0.0
    total, below, top = 0.0, 0.0, math.inf
    for i in range(count):
        if inverse[i] >= top:
            break
        total += share[i]
        below += share[i] * inverse[i]
        top = (row[PMAX] + below) / total
    lo, hi = math.log(inverse[0]), math.log(top)
    best, best_rate, best_power, best_level = -2.0, 0.0, 0.0, 0.0
    v_lo, v_hi = math.inf, -math.inf
    x = hi
    for turn in range(90):
        level = math.exp(x) if turn > 0 else top
        power, rate = 0.0, 0.0
        for i in range(count):
            if inverse[i] >= level:
                break
            power += share[i] * (level - inverse[i])
            rate += share[i] * math.log(level / inverse[i])
        rate *= band
        power = min(power, row[PMAX])
        if rate > 0.0:
            s, clock, by_time = keep_at_rate(row, rate, power, 0.0, row[SMAX], 0.0)
            heat = 2.0 * row[KAPPA] * clock**3
            v = math.inf if by_time else math.log(band / level * (power + heat) / rate)
        else:
            s, v = -2.0, math.inf
        if s > best:
            best, best_rate, best_power, best_level = s, rate, power, level
        if s >= row[SMAX] or (turn == 0 and v >= 0.0):
            break
        if v > 0.0:
            lo, v_lo = x, v
        else:
            hi, v_hi = x, v
        if hi - lo <= 1e-14 * (1.0 + abs(hi)) or abs(v) < 1e-13:
            break
        x = 0.5 * (lo + hi)
        if turn % 3 != 2 and v_lo < math.inf and v_hi > -math.inf:
            x = min(max(lo + (hi - lo) * v_lo / (v_lo - v_hi), lo + 0.01 * (hi - lo)), hi - 0.01 * (hi - lo))
    excess = best_level - inverse[0]
    if excess <= WEAK * inverse[0]:  # the digits of what is sent have cancelled
        best, excess, best_rate, best_power = weak_water(row, band, inverse[:count], share[:count], row[SMAX])
    return best, best_rate, best_power, excess


@kernel(inner=True)
def set_cap(row, band, inverse, order, owner, k, work):  # type: ignore[no-untyped-def]
    """Largest keep rate of device k on the sub-carriers with ``owner == k``.

    Parameters
    ----------
    row
        Device row of C columns. Shape [C].
    band, k : numbers
        Bit/s of a sub-carrier per nat, and the device.
    inverse, order, owner
        1/a in W, its order upwards, and the owners. Shapes [M].
    work
        Scratch. Shape [2, M].
    """
    count = np.int64(0)  # a plain 0 is a type of its own, for which numba would compile keep_cap once more
    for j in range(order.size):
        m = order[j]
        if owner[m] == k:
            work[0, count] = inverse[m]
            work[1, count] = 1.0
            count += 1
    return keep_cap(row, band, work[0], work[1], count)[0]
