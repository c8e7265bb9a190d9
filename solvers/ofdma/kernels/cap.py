"""The largest keep rate of a device on a set of sub-carriers, and the water level there."""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.ofdma.kernels.device import BAND, WEAK
from edgealloc.solvers.row import (
    BIT0,
    BIT1,
    CYC0,
    CYC1,
    DEADLINE,
    DOWN,
    ENERGY,
    FMAX,
    FMIN,
    KAPPA,
    PMAX,
)
from edgealloc.units import LN2

__all__ = ["keep_at_rate", "keep_cap", "water", "weak_water"]

_HAIR = 2.0**-40  # of the deadline
_HALVINGS = 2200  # are enough from the largest double to the least
_SPENT = 2.0**-42  # of the energy: less than incumbents are drawn in by


@kernel(inner=True)
def keep_at_rate(row, r, p, least, most, unit):  # type: ignore[no-untyped-def]
    """Largest keep rate in [least, most] when sending at r bit/s while drawing p watt.

    Returns (s, the clock f or 0 where it is at its minimum, whether the deadline or ``most`` rather than energy
    binds). Where not even ``least`` is feasible, s falls short of it by the share of the deadline that lacks,
    or by a lower bound of the share of energy. Newton ends with a step of 1e-15 (unit + abs(s)), and takes no
    shorter one while energy lacks: where computing is short beside the deadline, its slope hides what does. Where
    60 steps do not get there, for the clock is many orders from what energy pays for, rates are halved.
    """
    q = row[DOWN] + 1.0 / r
    fast, cycles = row[FMAX], row[CYC0] + row[CYC1] * least
    if row[KAPPA] * fast * fast * cycles > row[ENERGY]:  # start where energy could pay for the clock: far beyond
        fast = np.sqrt(max(row[ENERGY], 0.0) / (row[KAPPA] * cycles))  # it Newton takes too many steps
        if fast < max(row[FMIN], 1e-300):
            lack = row[KAPPA] * row[FMIN] * row[FMIN] * cycles - row[ENERGY]
            return least - max(1e-12, lack / max(abs(row[ENERGY]), 1e-300)), 0.0, False
    room = row[DEADLINE] - row[BIT0] * q - row[CYC0] / fast
    need = row[BIT1] * q + row[CYC1] / fast
    s = most
    if need > 0.0:
        s = min(room / need, most)
    elif room < 0.0:
        s = -np.inf
    if not s >= least:
        return least + min(-1e-12, (room - need * least) / row[DEADLINE]), 0.0, True
    clock, forced, high = 0.0, False, s
    for it in range(60):  # energy is convex and increasing in s: Newton from the right is monotone
        bits = row[BIT0] + row[BIT1] * s
        cycles = row[CYC0] + row[CYC1] * s
        time = row[DEADLINE] - bits * q
        if it == 0 and cycles > 0.0 and row[BIT1] > 0.0 and not time * fast * (1.0 + 1e-6) >= cycles:
            # computing takes less of the deadline than is rounded away: it is left a hair, or energy looks steep
            s = max(min(s, (row[DEADLINE] * (1.0 - _HAIR) - row[BIT0] * q) / (row[BIT1] * q)), least)
            bits = row[BIT0] + row[BIT1] * s
            cycles = row[CYC0] + row[CYC1] * s
            time = row[DEADLINE] - bits * q
        f = cycles / time if time > 0.0 else 0.0
        if f > row[FMIN]:
            slope = row[KAPPA] * f * f * (3.0 * row[CYC1] + 2.0 * f * row[BIT1] * q)
            clock = f
        else:  # also for no cycles in no time
            f = row[FMIN]
            slope = row[KAPPA] * f * f * row[CYC1]
            clock = 0.0
        excess = p * bits / r + row[KAPPA] * f * f * cycles - row[ENERGY]
        if it == 0 and excess <= 0.0:
            return s, clock, True
        if forced and excess <= 0.0:
            return s, clock, False
        slope += p * row[BIT1] / r
        step = excess / slope
        shortest = 1e-15 * (unit + abs(s))
        if excess > 0.0:
            high = s
        elif step < -shortest and s - step >= high:  # rounding led beyond, where slopes say nothing
            return _halved(row, r, p, s, high)
        forced = step < shortest and excess > _SPENT * abs(row[ENERGY])
        if forced:
            step = shortest
        if not s - step >= least:
            lack = excess - (s - least) * slope
            if not lack > 1e-9 * excess:  # rounding alone: from afar a tangent says little about the least rate
                return _halved(row, r, p, least, s)
            return least - max(1e-12, lack / max(abs(row[ENERGY]), 1e-300)), clock, False
        s -= step
        if step <= 1e-15 * (unit + abs(s)) and not forced:
            return s, clock, False
    return _halved(row, r, p, least, s)


@kernel(inner=True)
def _halved(row, r, p, low, high):  # type: ignore[no-untyped-def]
    """As :func:`keep_at_rate`, by halving [low, high]; at ``high`` energy lacks."""
    excess, clock = _excess(row, r, p, low)
    if excess > 0.0:
        return low - max(1e-12, excess / max(abs(row[ENERGY]), 1e-300)), clock, False
    for _ in range(_HALVINGS):
        s = 0.5 * (low + high)
        if not low < s < high:
            break
        excess, f = _excess(row, r, p, s)
        if excess > 0.0:
            high = s
        else:
            low, clock = s, f
    return low, clock, False


@kernel(inner=True)
def _excess(row, r, p, s):  # type: ignore[no-untyped-def]
    """(Energy in J beyond the budget at keep rate s, ``inf`` where no time to compute is left; the clock or 0)."""
    bits = row[BIT0] + row[BIT1] * s
    cycles = row[CYC0] + row[CYC1] * s
    time = row[DEADLINE] - bits * (row[DOWN] + 1.0 / r)
    if time <= 0.0 and cycles > 0.0:
        return np.inf, 0.0
    f = cycles / time if cycles > 0.0 else 0.0
    clock = f if f > row[FMIN] else 0.0
    f = max(f, row[FMIN])
    return p * bits / r + row[KAPPA] * f * f * cycles - row[ENERGY], clock


@kernel
def keep_cap(row, inv_a, log2_a, used):  # type: ignore[no-untyped-def]
    """(Largest keep rate on (fractions of) sub-carriers, water level in W; 0 if none).

    inv_a, log2_a, used: [M], sub-carriers in the order of increasing 1/a.
    """
    cap, level, _excess = water(row, inv_a, log2_a, used)
    return cap, level


@kernel
def water(row, inv_a, log2_a, used):  # type: ignore[no-untyped-def]
    """As :func:`keep_cap`, and by how much the level lies above the least 1/a in W.

    At a low signal-to-noise ratio level and 1/a agree in most digits, so that the excess is not their difference.
    """
    cap, level = _strong_water(row, inv_a, log2_a, used)
    first = 0
    while first < inv_a.size and used[first] <= 0.0:
        first += 1
    if first == inv_a.size or inv_a[first] == np.inf:
        return cap, level, 0.0
    if level > inv_a[first] * (1.0 + WEAK):
        return cap, level, level - inv_a[first]
    cap, excess, _rate, _power = weak_water(row, row[BAND] / LN2, inv_a[first:], used[first:], np.inf)
    return cap, inv_a[first] + excess, excess


@kernel(inner=True)
def weak_water(row, band, inv_a, used, most):  # type: ignore[no-untyped-def]
    """Largest keep rate up to ``most``, water level above inv_a[0] in W, rate in bit/s, power in W; at a low SNR.

    ``band`` is in bit/s per nat, and used[0] > 0. All is said relative to inv_a[0]: z of the level, d of the other
    sub-carriers, so that nothing cancels. The search is over log z.
    """
    base, floor = inv_a[0], -row[BIT0] / row[BIT1]
    n, sunk = 0.0, 0.0  # sub-carriers under water, and the sum of their d
    z = 0.0
    for i in range(inv_a.size):
        if used[i] <= 0.0:
            continue
        d = (inv_a[i] - base) / base
        if n > 0.0 and base * (n * d - sunk) >= row[PMAX]:
            break
        n += used[i]
        sunk += used[i] * d
        z = (row[PMAX] / base + sunk) / n
    hi = np.log(min(z, 4.0 * WEAK))
    lo = hi - 90.0
    x = hi
    best, excess, rate, power = -np.inf, 0.0, 0.0, 0.0
    for it in range(120):
        z = np.exp(x)
        nats, p = 0.0, 0.0
        for i in range(inv_a.size):
            d = (inv_a[i] - base) / base
            if d >= z:
                break
            nats += used[i] * np.log1p((z - d) / (1.0 + d))
            p += used[i] * (z - d)
        r = band * nats
        if r <= 0.0:
            lo = x
            x = 0.5 * (lo + hi)
            continue
        s, f, by_deadline = keep_at_rate(row, r, base * p, floor, most, 1.0)
        s = max(s, floor)
        if s > best:
            best, excess, rate, power = s, base * z, r, min(base * p, row[PMAX])
        if s >= most:
            break
        # a rate that pays for itself: p / nats - 1 is about z / 2, and exact enough from the quotient
        marginal = 2.0 * row[KAPPA] * f * f * f  # watts that a higher rate is worth to the clock
        rises = by_deadline or (p + marginal / base) / nats >= 1.0 + z
        if it == 0 and rises:
            break
        if rises:
            lo = x
        else:
            hi = x
        if hi - lo < 1e-12:
            break
        x = 0.5 * (lo + hi)
    if excess == 0.0:
        return floor, 0.0, 0.0, 0.0
    return best, excess, rate, power


@kernel(inner=True)
def _strong_water(row, inv_a, log2_a, used):  # type: ignore[no-untyped-def]
    """(Largest keep rate, water level) by a root search over the water level, at ordinary signal-to-noise ratios.

    Along the water level the keep rate is quasi-concave (docs/ofdma.md): the sign of its slope brackets the top.
    Below keep_min the scale goes on down to an empty payload, so that caps stay comparable.
    """
    floor = -row[BIT0] / row[BIT1]
    m_all = inv_a.size
    first = 0
    while first < m_all and used[first] <= 0.0:
        first += 1
    if first == m_all or inv_a[first] == np.inf:
        return floor, 0.0
    n, inv = 0.0, 0.0
    level_max = 0.0
    for i in range(first, m_all):
        if used[i] <= 0.0:
            continue
        if inv_a[i] == np.inf or (n > 0.0 and n * inv_a[i] - inv >= row[PMAX]):
            break
        n += used[i]
        inv += used[i] * inv_a[i]
        level_max = (row[PMAX] + inv) / n
    lo, hi = np.log(inv_a[first]), np.log(level_max)
    v_lo, v_hi = 1e3, 0.0
    x = hi
    best, level = -np.inf, 0.0
    for it in range(100):
        om = np.exp(x)
        n, inv, logs = 0.0, 0.0, 0.0
        for i in range(first, m_all):
            if inv_a[i] >= om:
                break
            n += used[i]
            inv += used[i] * inv_a[i]
            logs += used[i] * log2_a[i]
        r = row[BAND] * (n * x / LN2 + logs)
        p = n * om - inv
        if r <= 0.0 or p <= 0.0:
            lo = x
            x = 0.5 * (lo + hi)
            continue
        s, f, by_deadline = keep_at_rate(row, r, p, floor, np.inf, 1.0)
        s = max(s, floor)
        if s > best:
            best, level = s, om
        v = 1.0 if by_deadline else row[BAND] / (om * LN2) * (p + 2.0 * row[KAPPA] * f * f * f) / r - 1.0
        if it == 0:
            if v >= 0.0:
                return s, om
            v_hi = v
            x = 0.5 * (lo + hi)
            continue
        if v > 0.0:
            lo, v_lo = x, v
        else:
            hi, v_hi = x, v
        if hi - lo < 1e-7 or abs(v) < 1e-9:
            break
        if it < 4 or it % 3 == 0 or v_lo > 5.0:
            x = 0.5 * (lo + hi)
        else:
            x = (lo * v_hi - hi * v_lo) / (v_hi - v_lo)
            d = 0.02 * (hi - lo)
            x = min(max(x, lo + d), hi - d)
    if level == 0.0:
        return floor, 0.0
    return best, level
