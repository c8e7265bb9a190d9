r"""One device on a set of sub-carriers: the keep rate its resources allow.

Water-filling is written through the level ``omega`` [W]: a used sub-carrier m carries the power omega - 1/a_m,
where a_m = g_m / (N0 B_m) [1/W]. A watt is then worth alpha = B_m / (omega ln 2) bit/s, and the profit rate of
sub-carrier m is pi_m(omega) = max_p B_m log2(1 + a_m p) - alpha p. A keep rate s is feasible on a set S exactly if

.. math:: \sum_{m \in S} \pi_m(\omega) \ge \psi_\omega(s) = \min_t \frac{D(s) - \alpha\, \bar e(s, t)}{t}
          \quad \text{for all } \omega

(docs/ofdma.md, section 1), with e(s, t) the energy left for an upload that takes t seconds. The left side is
linear in the assignment. What enters a lower bound is rounded outwards: :func:`profit_needed` never exceeds psi.
"""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel

__all__ = ["cannot_carry", "keep_cap", "profit_needed", "profit_of", "profits", "proven_keep", "psi", "water"]

LN2 = float(np.log(2.0))
EPS = 2.0**-53
# Relative rounding of psi: Newton stops at 1e-14, sums of a dozen terms follow; 2^-43 is a thousand units.
PSI_ROUNDING = 2.0**-43
WEAK = 0.02  # signal-to-noise ratio below which a level is counted from the least 1/a, or its digits cancel

# Columns of a device row [17]; SI units. UNDER is A w_k factor_k, SCALE is 1 / (2 n_k delta).
DEADLINE, ENERGY, KAPPA, CYC0, CYC1, FMIN, FMAX, BIT0, BIT1, DOWN, PMAX, SMIN, SMAX, WEIGHT, UNDER, SCALE, BAND = (
    range(17)
)
ROW = 17


@kernel(inner=True)
def keep_at_rate(row, r, p):  # type: ignore[no-untyped-def]
    """Largest keep rate when sending at r bit/s while drawing p watt.

    Returns (s, 2 kappa f^3 or 0 where the clock is at its minimum, whether the deadline rather than energy binds).
    Below keep_min the scale goes on down to an empty payload, so that caps stay comparable.
    """
    q = row[DOWN] + 1.0 / r
    floor = -row[BIT0] / row[BIT1]
    s = (row[DEADLINE] - row[BIT0] * q - row[CYC0] / row[FMAX]) / (row[BIT1] * q + row[CYC1] / row[FMAX])
    if s < floor:
        return floor, 0.0, True
    marginal = 0.0
    for it in range(60):  # energy is convex and increasing in s: Newton from the right is monotone
        bits = row[BIT0] + row[BIT1] * s
        cycles = row[CYC0] + row[CYC1] * s
        f = cycles / (row[DEADLINE] - bits * q)
        if f > row[FMIN]:
            slope = row[KAPPA] * f * f * (3.0 * row[CYC1] + 2.0 * f * row[BIT1] * q)
            marginal = 2.0 * row[KAPPA] * f * f * f
        else:
            f = row[FMIN]
            slope = row[KAPPA] * f * f * row[CYC1]
            marginal = 0.0
        excess = p * bits / r + row[KAPPA] * f * f * cycles - row[ENERGY]
        if it == 0 and excess <= 0.0:
            return s, marginal, True
        step = excess / (p * row[BIT1] / r + slope)
        s -= step
        if s < floor:
            return floor, marginal, False
        if step <= 1e-15 * (1.0 + abs(s)):
            break
    return s, marginal, False


@kernel
def keep_cap(row, inv_a, log2_a, used):  # type: ignore[no-untyped-def]
    """(Largest keep rate on (fractions of) sub-carriers, water level in W; 0 if none); [M] by increasing 1/a."""
    return water(row, inv_a, log2_a, used)[:2]


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
    cap, excess = _weak_water(row, inv_a[first:], used[first:])
    return cap, inv_a[first] + excess, excess


@kernel(inner=True)
def _weak_water(row, inv_a, used):  # type: ignore[no-untyped-def]
    """(Largest keep rate, water level above inv_a[0] in W) at a low signal-to-noise ratio; used[0] > 0.

    All is relative to inv_a[0], so that nothing cancels: z of the level (searched by log z), d of sub-carriers.
    """
    base = inv_a[0]
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
    best, excess = -np.inf, 0.0
    for it in range(120):
        z = np.exp(x)
        nats, p = 0.0, 0.0
        for i in range(inv_a.size):
            d = (inv_a[i] - base) / base
            if d >= z:
                break
            nats += used[i] * np.log1p((z - d) / (1.0 + d))
            p += used[i] * (z - d)
        r = row[BAND] / LN2 * nats
        if r <= 0.0:
            lo = x
            x = 0.5 * (lo + hi)
            continue
        s, marginal, by_deadline = keep_at_rate(row, r, base * p)
        if s > best:
            best, excess = s, base * z
        # a rate that pays for itself: p / nats - 1 is about z / 2, and exact enough from the quotient
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
        return -row[BIT0] / row[BIT1], 0.0
    return best, excess


@kernel(inner=True)
def _strong_water(row, inv_a, log2_a, used):  # type: ignore[no-untyped-def]
    """(Largest keep rate, water level) by a root search over the water level, at ordinary signal-to-noise ratios.

    Along the water level the keep rate is quasi-concave (docs/ofdma.md): the sign of its slope brackets the top.
    """
    m_all = inv_a.size
    first = 0
    while first < m_all and used[first] <= 0.0:
        first += 1
    if first == m_all or inv_a[first] == np.inf:
        return -row[BIT0] / row[BIT1], 0.0
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
        s, marginal, by_deadline = keep_at_rate(row, r, p)
        if s > best:
            best, level = s, om
        v = 1.0 if by_deadline else row[BAND] / (om * LN2) * (p + marginal) / r - 1.0
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
        return -row[BIT0] / row[BIT1], 0.0
    return best, level


@kernel
def profits(band, om, inv_a, out):  # type: ignore[no-untyped-def]
    """out[m] = pi_m(omega) in bit/s, to within 8 EPS band (2 + log y) / ln 2."""
    for m in range(inv_a.size):
        y = om / inv_a[m]
        if y <= 1.0:
            out[m] = 0.0
        elif om <= inv_a[0] * (1.0 + WEAK):
            d = (om - inv_a[m]) / inv_a[m]
            out[m] = band / LN2 * max(np.log1p(d) - d / (1.0 + d), 0.0)
        else:
            out[m] = band / LN2 * (np.log(y) - 1.0 + 1.0 / y)


@kernel(inner=True)
def _upload_time(row, target, cycles, window, t_max, t_flat, k3, e_flat):  # type: ignore[no-untyped-def]
    """(t, t_cross): where e - t e' reaches ``target`` = bits / alpha, and where p_max t meets the energy left.

    Parameters
    ----------
    row
        Device row of C columns. Shape [C].
    target, cycles, window, t_max, t_flat, k3, e_flat : numbers
        Energy in J; cycles; what the downlink leaves of the deadline; the longest upload, and the longest with the
        clock at its minimum, in s; kappa cycles^3; the energy left at that clock in J.
    """
    # p_max t - e(t) is convex and increasing: Newton from the right is monotone
    t = t_max
    if t <= t_flat:
        t_cross = min(e_flat / row[PMAX], t_max)
    else:
        tau = window - t
        z = row[PMAX] * t - row[ENERGY] + k3 / (tau * tau)
        if z <= 0.0:
            t_cross = t_max
        elif row[PMAX] * t_flat >= e_flat:
            t_cross = e_flat / row[PMAX]
        else:
            for _ in range(60):
                step = z / (row[PMAX] + 2.0 * k3 / (tau * tau * tau))
                t -= step
                tau = window - t
                z = row[PMAX] * t - row[ENERGY] + k3 / (tau * tau)
                if step <= 1e-14 * t_max:
                    break
            t_cross = max(t, 0.0)
    if t_cross <= 0.0:
        return 0.0, 0.0
    t = t_max  # so is e - t e'
    if t > t_flat:
        for _ in range(60):
            tau = window - t
            z = row[ENERGY] + k3 * (2.0 * t / (tau * tau * tau) - 1.0 / (tau * tau)) - target
            if z <= 0.0 or t <= t_flat or t <= t_cross:
                break
            step = z * tau * tau * tau * tau / (6.0 * k3 * t)
            t -= step
            if step <= 1e-14 * t_max:
                break
        if t <= t_flat:
            t = t_flat if e_flat < target else t_cross
    elif e_flat >= target:
        t = t_cross
    return max(t, t_cross), t_cross


@kernel(inner=True)
def _profit_and_power(row, om, bits, cycles, window):  # type: ignore[no-untyped-def]
    """(Lower bound, tight to rounding, of min_t (bits - alpha e(t)) / t, power e / t there).

    The bound is inf if no upload time has energy left; e(t) = min(E - computing, p_max t). bits, cycles and window
    (the deadline less the downlink) are passed apart, so that a relaxation can mix two keep rates. As a function
    of y = 1/t the quotient is convex (the perspective of the concave e): a tangent at the time found bounds it,
    however exact that time is.
    """
    alpha = row[BAND] / (om * LN2)
    k3 = row[KAPPA] * cycles * cycles * cycles
    if row[ENERGY] <= 0.0:
        return np.inf, 0.0
    # the processor can be no faster, and beyond this time computing alone takes all the energy
    t_max = window - max(cycles / row[FMAX], np.sqrt(k3 / row[ENERGY]))
    if t_max <= 0.0:
        return np.inf, 0.0
    e_flat = row[ENERGY] - row[KAPPA] * row[FMIN] * row[FMIN] * cycles
    if e_flat <= 0.0:
        return np.inf, 0.0
    t_flat = window - cycles / row[FMIN] if k3 > 0.0 else t_max  # up to here the clock is at its minimum
    t, t_cross = _upload_time(row, bits / alpha, cycles, window, t_max, t_flat, k3, e_flat)
    if t_cross <= 0.0:
        return np.inf, 0.0
    tau = window - t
    e, fuzzy, fall = e_flat, 0.0, 0.0  # fall = -t e'(t) on the side of larger t
    if t >= t_flat and k3 > 0.0:
        e = min(row[ENERGY] - k3 / (tau * tau), e_flat)
        fuzzy = k3 / (tau * tau) * (row[DEADLINE] / tau)  # digits that the subtraction tau cancels
        fall = 2.0 * k3 * t / (tau * tau * tau)
    later = bits - alpha * (e + fall)  # slope in y towards larger t; must not be positive
    sooner = bits - alpha * (e if t == t_flat else e + fall)  # and towards smaller t; must not be negative
    if row[PMAX] * t <= e * (1.0 + 1e-13):
        e, sooner = min(e, row[PMAX] * t), bits
    value = (bits - alpha * e) / t
    loss = max(later, 0.0) * (1.0 / t - 1.0 / t_max) + max(-sooner, 0.0) * max(1.0 / t_cross - 1.0 / t, 0.0)
    size = (bits + alpha * (row[ENERGY] + fuzzy)) / t * (1.0 + row[DEADLINE] / t)
    return value - loss - PSI_ROUNDING * size, e / t


@kernel(inner=True)
def profit_needed(row, om, bits, cycles, window):  # type: ignore[no-untyped-def]
    """Lower bound, tight to rounding, of min_t (bits - alpha e(t)) / t; inf if no upload time has energy left."""
    return _profit_and_power(row, om, bits, cycles, window)[0]


@kernel
def psi(row, om, s):  # type: ignore[no-untyped-def]
    """Lower bound of the profit rate needed at keep rate s (see module)."""
    bits = row[BIT0] + row[BIT1] * s
    return profit_needed(row, om, bits, row[CYC0] + row[CYC1] * s, row[DEADLINE] - bits * row[DOWN])


@kernel(inner=True)
def profit_of(band, om, inv_a):  # type: ignore[no-untyped-def]
    """Upper bound of the profit rate of a set at a level; ``inv_a`` increasing."""
    total, size = 0.0, 0.0
    for m in range(inv_a.size):
        y = om / inv_a[m]
        if y <= 1.0:
            break
        if om <= inv_a[0] * (1.0 + WEAK):  # 2 + log is far above what is left of the terms
            d = (om - inv_a[m]) / inv_a[m]  # the difference is exact
            total += np.log1p(d) - d / (1.0 + d)
            size += 4.0 * d
            continue
        log = np.log(y)
        total += log - 1.0 + 1.0 / y
        size += 2.0 + log
    return band / LN2 * (total + (16.0 + inv_a.size) * EPS * size)


@kernel
def proven_keep(row, inv_a, cap, level):  # type: ignore[no-untyped-def]
    """A keep rate proved infeasible on a set, as little above its cap as the proof allows; inf without one.

    One level at which the profit rate does not suffice is a proof (condition (*) of the module).
    """
    if inv_a.size == 0 or inv_a[0] == np.inf:
        return cap  # nothing can be sent at all
    if level == 0.0:
        return np.inf
    profit = profit_of(row[BAND], level, inv_a)
    base = max(abs(cap) + row[BIT0] / row[BIT1], row[SMIN])
    for step in (1e-12, 1e-10, 1e-8, 1e-6, 1e-4):
        s = cap + step * base
        if psi(row, level, s) > profit:
            return s
    return np.inf


@kernel(inner=True)
def cannot_carry(row, inv_a, s, level, tries):  # type: ignore[no-untyped-def]
    """Whether a set is proved unable to carry keep rate s, by a few water levels from ``level`` on.

    ``inv_a`` increasing. The violation of condition (*) is concave in alpha, with slope t p(omega) - e; the next
    level is the one at which the water takes just the power that the best upload time leaves.
    """
    bits = row[BIT0] + row[BIT1] * s
    cycles, window = row[CYC0] + row[CYC1] * s, row[DEADLINE] - bits * row[DOWN]
    for _ in range(tries):
        need, power = _profit_and_power(row, level, bits, cycles, window)
        if need > profit_of(row[BAND], level, inv_a):
            return True
        n, inv = 0, 0.0
        while n < inv_a.size and (n == 0 or n * inv_a[n] - inv < power) and inv_a[n] < np.inf:
            inv += inv_a[n]
            n += 1
        if n == 0:
            return False
        new = (power + inv) / n
        if abs(new - level) <= 1e-4 * level:
            return False
        level = new
    return False
