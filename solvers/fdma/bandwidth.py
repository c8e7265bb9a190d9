r"""Least bandwidth of one FDMA device as a function of its keep rate, in closed, jointly convex form.

Write x = log s for the keep rate and v = log(1 + SNR) for the spectral efficiency in nats. A device that
uploads D(s) bits at efficiency v spends the upload energy

.. math:: e(x, v) = c\,D(s)\,\varepsilon(v), \qquad \varepsilon(v) = (e^v - 1)/v, \qquad c = N_0 \ln 2 / g,

whatever its bandwidth is. What is left of the energy budget sets the fastest processor frequency it can
afford, hence the compute time tau, hence the upload time t = T - D/R - tau and the bandwidth

.. math:: b = D \ln 2 / (v\,t) .

So log b is explicit in (x, v), and *jointly convex* (docs/mathematics.md, section 4): it is the larger of
two convex pieces, tau limited by energy and tau limited by ``freq_max``. The remaining limits (``freq_min``,
transmit power) are convex constraints that bound v from above. The least bandwidth over v is therefore a
log-convex function of x; :func:`least_bandwidth` returns it with two derivatives.

Everything here is compiled and works on one device; parameters come as one row of :mod:`edgealloc.solvers.row`.
Powers are written as products, which have the same bits where the kernels run as Python.
"""

from __future__ import annotations

import math

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, ENERGY, FMAX, FMIN, KAPPA, PER_BIT, PMAX
from edgealloc.units import LN2

__all__ = ["BLOCKED", "least_bandwidth"]

# A Newton step this small, relatively, is the last: convergence is quadratic, so the error left is its square.
_CLOSE = 3e-8

# Which limit sets the spectral efficiency v at the least bandwidth.
STATIONARY = 0  # none: energy is split between computing and sending so that bandwidth is least
KINK = 1  # the processor is at freq_max with just the energy that is left
FREQ_MIN = 2  # the processor is at freq_min
POWER = 3  # transmit power and energy
POWER_FREQ_MAX = 4  # transmit power and freq_max; energy is left over
FREQ_FIXED = 5  # computing costs the same energy at every frequency; the rest is sent
# No bandwidth suffices, and why.
BLOCKED = 10
BLOCKED_DEADLINE = 10  # computing (and downloading) alone takes the whole deadline at freq_max
BLOCKED_ENERGY = 11  # the energy budget is below computing at freq_min plus the least upload energy
BLOCKED_BOTH = 12  # each budget suffices alone, but not together
BLOCKED_POWER = 13  # the transmit power limit, even with unlimited bandwidth


@kernel(inner=True)
def energy_shape(v):  # type: ignore[no-untyped-def]
    """``eps(v) = (exp(v) - 1) / v`` with two derivatives; increasing, convex and log-convex, eps(0) = 1."""
    if v < 0.05:  # series, for the closed forms cancel
        eps = 1 + v * (1 / 2 + v * (1 / 6 + v * (1 / 24 + v * (1 / 120 + v * (1 / 720 + v * (1 / 5040))))))
        d1 = 1 / 2 + v * (1 / 3 + v * (1 / 8 + v * (1 / 30 + v * (1 / 144 + v * (1 / 840 + v * (1 / 5760))))))
        d2 = 1 / 3 + v * (1 / 4 + v * (1 / 10 + v * (1 / 36 + v * (1 / 168 + v * (1 / 960 + v * (1 / 6480))))))
        return eps, d1, d2
    grown = math.exp(v)
    eps = (grown - 1.0) / v
    d1 = (grown - eps) / v
    d2 = (grown - 2.0 * d1) / v
    return eps, d1, d2


@kernel(inner=True)
def energy_shape_inverse(ratio):  # type: ignore[no-untyped-def]
    """The v >= 0 with eps(v) = ratio >= 1.

    Newton on the convex log eps from an upper bound of the root, so every step stays above it.
    """
    if not ratio > 1.0:
        return 0.0
    target = math.log(ratio)
    v = min(2.0 * target, 2.0 * (ratio - 1.0))  # eps(v) >= exp(v/2) and eps(v) >= 1 + v/2
    if v > 700.0:  # exp(v) leaves the range of doubles; eps(target + 2 log target) > ratio as well
        v = min(target + 2.0 * math.log(target), 709.0)
    for _ in range(60):
        eps, d1, _d2 = energy_shape(v)
        step = (math.log(eps) - target) * eps / d1
        v -= step
        if step <= _CLOSE * v:
            break
    return max(v, 0.0)


@kernel(inner=True)
def energy_limited(row, bits, work, v):  # type: ignore[no-untyped-def]
    """Upload energy and energy-limited compute time with their v-derivatives, at fixed keep rate.

    Returns e, e_v, e_vv, tau, tau_v, tau_vv; tau = work / f with kappa f^2 work = E - e.
    """
    eps, d1, d2 = energy_shape(v)
    scale = row[PER_BIT] * bits
    e, e_v, e_vv = scale * eps, scale * d1, scale * d2
    left = row[ENERGY] - e
    if not left > 0.0:
        return e, e_v, e_vv, math.inf, math.inf, math.inf
    tau = math.sqrt(row[KAPPA] * work / left) * work
    a = 0.5 * e_v / left
    tau_v = tau * a
    tau_vv = tau * (0.5 * (e_vv / left + (e_v / left) * (e_v / left)) + a * a)
    return e, e_v, e_vv, tau, tau_v, tau_vv


@kernel(inner=True)
def _root(power, row, bits, work, window, lo, hi, start):  # type: ignore[no-untyped-def]
    """Root in (lo, hi) of left(v) = right(v), left falling and right rising, by Newton on log(left / right).

    power t = e, the limit of that power, or if it is inf: t = v tau_v, stationarity of the bandwidth. In
    logarithms both are nearly linear in v, and a shrinking bracket catches every step that is not.

    Parameters
    ----------
    row
        Device row of C columns. Shape [C].
    power, bits, work, window, lo, hi, start : numbers
        Power limit in W or inf, payload in bit, cycles, what the downlink leaves of the deadline in s, the bracket
        of the efficiency in nats, and a guess in it.
    """
    v = start if lo < start < hi else 0.5 * (lo + hi)
    for _ in range(100):
        e, e_v, _e_vv, tau, tau_v, tau_vv = energy_limited(row, bits, work, v)
        t = window - tau
        new = math.inf
        if t > 0.0:
            if power == math.inf:
                value = math.log(t / (v * tau_v))
                slope = -tau_v / t - 1.0 / v - tau_vv / tau_v
            else:
                value = math.log(power * t / e)
                slope = -tau_v / t - e_v / e
            if value > 0.0:
                lo = v
            else:
                hi = v
            new = v - value / slope
        else:
            hi = v
        if lo <= new <= hi:
            if abs(new - v) <= _CLOSE * v:
                return new
        else:
            new = 0.5 * (lo + hi)
            if hi - lo <= 1e-15 * hi:
                return new
        v = new
    return v


@kernel(inner=True)
def _in_time(row, bits, work, window, v):  # type: ignore[no-untyped-def]
    """A root v, or what lies so far below it that computing ends in time; row [C].

    Where computing takes less energy than the budget is rounded to, sending may seem to leave none of it.
    """
    for step in range(50):
        _e, _e_v, _e_vv, tau, _tau_v, _tau_vv = energy_limited(row, bits, work, v)
        if window - tau > 0.0:
            return v
        v *= 1.0 - 2.0 ** (step - 50)
    return v


@kernel(inner=True)
def best_efficiency(row, keep, v_start):  # type: ignore[no-untyped-def]
    """Efficiency v of least bandwidth at a keep rate, and the limit that sets it.

    Returns (regime, v); a regime of BLOCKED or more means that no bandwidth suffices.
    """
    bits = row[BIT0] + row[BIT1] * keep
    work = row[CYC0] + row[CYC1] * keep
    window = row[DEADLINE] - bits * row[DOWN]
    time_fast = window - work / row[FMAX]
    if not time_fast > 0.0:
        return BLOCKED_DEADLINE, 0.0
    floor = row[PER_BIT] * bits
    spare_fast = row[ENERGY] - row[KAPPA] * (row[FMAX] * row[FMAX]) * work
    spare_slow = row[ENERGY] - row[KAPPA] * (row[FMIN] * row[FMIN]) * work
    if not spare_slow > floor:
        return BLOCKED_ENERGY, 0.0
    power = row[PMAX]
    if spare_fast > floor:
        if spare_fast >= power * time_fast:  # at freq_max the power limit comes before the energy
            v = energy_shape_inverse(power * time_fast / floor)
            return (POWER_FREQ_MAX, v) if v > 0.0 else (BLOCKED_POWER, 0.0)
        if spare_fast == spare_slow:
            return FREQ_FIXED, energy_shape_inverse(spare_fast / floor)
    else:  # freq_max is out of reach even with unlimited bandwidth
        _e, _e_v, _e_vv, tau, _tau_v, _tau_vv = energy_limited(row, bits, work, 0.0)
        if not window - tau > 0.0:
            return BLOCKED_BOTH, 0.0
        if not power * (window - tau) > floor:
            return BLOCKED_POWER, 0.0
    ratio = row[ENERGY] / floor
    if v_start <= 0.0:  # the efficiency that takes about a third of the energy
        v_start = math.log1p(0.3 * ratio)
        v_start += math.log1p(v_start)
    v = _root(math.inf, row, bits, work, window, 0.0, min(2.0 * math.log(ratio), 2.0 * (ratio - 1.0)), v_start)
    v = _in_time(row, bits, work, window, v)
    e, _e_v, _e_vv, tau, _tau_v, _tau_vv = energy_limited(row, bits, work, v)
    regime = STATIONARY
    if e < spare_fast:  # more than freq_max would be best
        regime, v = KINK, energy_shape_inverse(spare_fast / floor)
        e, tau = spare_fast, work / row[FMAX]
    elif e > spare_slow:  # less than freq_min would be best
        regime, v = FREQ_MIN, energy_shape_inverse(spare_slow / floor)
        e, tau = spare_slow, work / row[FMIN]
    if e > power * (window - tau):
        v = _root(power, row, bits, work, window, 0.0, v, v_start)
        return POWER, _in_time(row, bits, work, window, v)
    return regime, v


@kernel
def least_bandwidth(row, keep, v_start):  # type: ignore[no-untyped-def]
    """Least bandwidth in Hz at a keep rate, with the derivatives of its logarithm in x = log keep.

    Parameters
    ----------
    row
        One row of :func:`~edgealloc.solvers.row.device_rows`.
    keep
        Keep rate s.
    v_start
        Guess of the spectral efficiency, any number; 0 without one.

    Returns
    -------
    bandwidth_hz, slope, curve, v, v_slope, upload_s, compute_s, regime
        ``inf`` bandwidth when no bandwidth suffices; ``slope`` and ``curve`` are d log b / dx and its
        derivative, ``v_slope`` is dv / dx.
    """
    regime, v = best_efficiency(row, keep, v_start)
    if regime >= BLOCKED:
        return math.inf, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, regime
    d_x = row[BIT1] * keep
    bits = row[BIT0] + d_x
    w_x = row[CYC1] * keep
    work = row[CYC0] + w_x
    window = row[DEADLINE] - bits * row[DOWN]
    fast = regime in (KINK, POWER_FREQ_MAX, FREQ_FIXED)
    eps, eps1, eps2 = energy_shape(v)
    scale = row[PER_BIT] * bits
    e, e_v, e_vv = scale * eps, scale * eps1, scale * eps2
    e_x, e_xv = row[PER_BIT] * d_x * eps, row[PER_BIT] * d_x * eps1
    e_xx = e_x
    if fast:
        tau, tau_x, tau_v = work / row[FMAX], w_x / row[FMAX], 0.0
        tau_xx, tau_xv, tau_vv = tau_x, 0.0, 0.0
    else:
        left = row[ENERGY] - e
        tau = math.sqrt(row[KAPPA] * work / left) * work
        wr = w_x / work
        l_x, l_v = 1.5 * wr + 0.5 * e_x / left, 0.5 * e_v / left
        l_xx = 1.5 * (wr - wr * wr) + 0.5 * (e_xx / left + (e_x / left) * (e_x / left))
        l_xv = 0.5 * (e_xv / left + e_x * e_v / (left * left))
        l_vv = 0.5 * (e_vv / left + (e_v / left) * (e_v / left))
        tau_x, tau_v = tau * l_x, tau * l_v
        tau_xx, tau_xv, tau_vv = tau * (l_xx + l_x * l_x), tau * (l_xv + l_x * l_v), tau * (l_vv + l_v * l_v)
    t = window - tau
    dl_x = -d_x * row[DOWN]
    t_x, t_v = dl_x - tau_x, -tau_v
    t_xx, t_xv, t_vv = dl_x - tau_xx, -tau_xv, -tau_vv
    # B = log b = log(D ln2) - log v - log t
    dr = d_x / bits
    b_x = dr - t_x / t
    b_v = -1.0 / v - t_v / t
    b_xx = dr - dr * dr - t_xx / t + (t_x / t) * (t_x / t)
    b_xv = -t_xv / t + t_x * t_v / (t * t)
    b_vv = 1.0 / (v * v) - t_vv / t + (t_v / t) * (t_v / t)
    # How v moves with x: along stationarity, or along the limit h(x, v) = 0 that holds v.
    if regime == STATIONARY:
        v1 = -b_xv / b_vv
        slope, curve = b_x + b_v * v1, b_xx + b_xv * v1
    else:
        if regime not in (POWER, POWER_FREQ_MAX):
            freq = row[FMIN] if regime == FREQ_MIN else row[FMAX]
            heat = row[KAPPA] * (freq * freq) * w_x
            h_x, h_v, h_xx, h_xv, h_vv = e_x + heat, e_v, e_xx + heat, e_xv, e_vv
        else:
            power = row[PMAX]
            h_x, h_v = e_x - power * t_x, e_v - power * t_v
            h_xx, h_xv, h_vv = e_xx - power * t_xx, e_xv - power * t_xv, e_vv - power * t_vv
        v1 = -h_x / h_v
        v2 = -(h_xx + 2.0 * h_xv * v1 + h_vv * v1 * v1) / h_v
        slope = b_x + b_v * v1
        curve = b_xx + 2.0 * b_xv * v1 + b_vv * v1 * v1 + b_v * v2
    return bits * LN2 / (v * t), slope, curve, v, v1, t, tau, regime
