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
    SMIN,
    WIDTH,
)
from edgealloc.units import LN2

__all__ = ["cannot_carry", "profit_needed", "profit_of", "profits", "proven_keep", "psi"]

EPS = 2.0**-53
# Relative rounding of psi: Newton stops at 1e-14, sums of a dozen terms follow; 2^-43 is a thousand units.
PSI_ROUNDING = 2.0**-43
CANCELLED = 2.0**-20  # of the window: of a time to compute below it too few digits are left in the difference
_SHORT = 1e-9  # of the longest upload: Newton's steps lose the digits of a time in which power takes all energy
_HAIR = 2.0**-40  # of the window: so much sooner an upload ends where no time to compute is left by rounding
WEAK = 0.02  # signal-to-noise ratio below which a level is counted from the least 1/a, or its digits cancel
_TRIES = 4  # water levels at which a set is tested before its cap is computed

# The row of a mode is a device row (edgealloc.solvers.row) with these columns after it: w_k, A w_k factor_k,
# 1 / (2 n_k delta) or 0 where data are pooled, the width of a sub-carrier in Hz, and where in the objective vector
# its underfitting term begins.
WEIGHT, UNDER, SCALE, BAND, TERM = range(WIDTH, WIDTH + 5)
MODE_WIDTH = WIDTH + 5


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
        if not tau > 0.0:
            t -= _HAIR * window
            tau = window - t
        z = row[PMAX] * t - row[ENERGY] + k3 / (tau * tau)
        if z <= 0.0:
            t_cross = t
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
            if t < _SHORT * t_max:  # what computing takes is the same at any such time
                t_cross = max(row[ENERGY] - k3 / ((window - t_cross) * (window - t_cross)), 0.0) / row[PMAX]
    if t_cross <= 0.0:
        return 0.0, 0.0
    t = t_max  # so is e - t e'
    if not window - t > 0.0:
        t -= _HAIR * window
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
    if t > t_flat and tau < CANCELLED * window:  # the clock cannot be told by the time: its least bounds e as well
        if t_flat >= t_cross:
            t = t_flat
        else:  # nor by any later time: as if computing took no more than that at all of them
            t_flat, k3, t_cross = t_max, 0.0, min(e_flat / row[PMAX], t_max)
            t = t_cross if e_flat >= bits / alpha else t_max
    e, fuzzy, fall = e_flat, 0.0, 0.0  # fall = -t e'(t) on the side of larger t
    if t == t_flat and k3 > 0.0:
        tau = cycles / row[FMIN]
        fall = 2.0 * k3 * t / (tau * tau * tau)
    elif t > t_flat and k3 > 0.0:
        e = min(row[ENERGY] - k3 / (tau * tau), e_flat)
        fuzzy = k3 / (tau * tau) * (row[DEADLINE] / tau)  # digits that the subtraction tau cancels
        fall = 2.0 * k3 * t / (tau * tau * tau)
    later = bits - alpha * (e + fall)  # slope in y towards larger t; must not be positive
    sooner = bits - alpha * (e if t == t_flat else e + fall)  # and towards smaller t; must not be negative
    spent = row[ENERGY] + fuzzy
    # `t` may be a hair before energy stops it; power does up to where it takes what energy leaves, e does not grow
    until = min(t + max(e + 1e-13 * spent - row[PMAX] * t, 0.0) / row[PMAX], t_max)
    if row[PMAX] * t <= e * (1.0 + 1e-13):
        if t == t_max and row[PMAX] * t <= e:
            spent = row[PMAX] * t  # at no time is more sent than that, however large the energy that rounds
        e, sooner = min(e, row[PMAX] * t), bits
    value = (bits - alpha * e) / t
    loss = bits * (1.0 / t - 1.0 / until) + max(later, 0.0) * (1.0 / until - 1.0 / t_max)
    loss += max(-sooner, 0.0) * max(1.0 / t_cross - 1.0 / t, 0.0)
    size = (bits + alpha * spent) / t * (1.0 + row[DEADLINE] / t)
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
def cannot_carry(row, inv_a, s, level):  # type: ignore[no-untyped-def]
    """Whether a set is proved unable to carry keep rate s, by a few water levels from ``level`` on.

    ``inv_a`` increasing. The violation of condition (*) is concave in alpha, with slope t p(omega) - e; the next
    level is the one at which the water takes just the power that the best upload time leaves.
    """
    bits = row[BIT0] + row[BIT1] * s
    cycles, window = row[CYC0] + row[CYC1] * s, row[DEADLINE] - bits * row[DOWN]
    for _ in range(_TRIES):
        need, power = _profit_and_power(row, level, bits, cycles, window)
        if need > profit_of(row[BAND], level, inv_a):
            return True
        n, inv = 0, 0.0
        while n < inv_a.size and (n == 0 or n * inv_a[n] - inv < power) and inv_a[n] < np.inf:
            inv += inv_a[n]
            n += 1
        if n == 0 or not power > 0.0:  # next to nothing is left to send, or less by rounding: no level at all
            return False
        new = (power + inv) / n
        if abs(new - level) <= 1e-4 * level:
            return False
        level = new
    return False
