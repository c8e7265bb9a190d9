r"""How devices answer prices, and what their answers prove.

At a price mu per Hz (and, under global pooling, nu per unit of the kept share Q) device k minimises

.. math:: F(x, v) = A_k (e^{-x} - 1) + \mathrm{spread}_k(e^{2x}) + \mu\, b(x, v), \qquad x = \log s,

over its keep range and spectral efficiency. ``spread`` is nu w S under global pooling and the device's own
stability term under device pooling. F is jointly convex where b is (:mod:`edgealloc.solvers.fdma.bandwidth`), so
a tangent plane of its Lagrangian at *any* point bounds it from below. :func:`floor_of_answers` evaluates
that bound: it is valid wherever the point came from and however far the iteration was from converging.

Derived: docs/mathematics.md, sections 4 and 5.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.fdma.bandwidth import (
    BLOCKED,
    FREQ_FIXED,
    FREQ_MIN,
    KINK,
    POWER,
    POWER_FREQ_MAX,
    best_efficiency,
    energy_shape,
    energy_shape_inverse,
    least_bandwidth,
)
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, ENERGY, FMAX, FMIN, KAPPA, PER_BIT, PMAX
from edgealloc.units import LN2, FloatArray

__all__ = ["answers", "bandwidths", "floor_of_answers", "share", "tangent"]

# Rows of the answer table.
X, V, BANDWIDTH, SLOPE, CURVE, REGIME, X_MU, X_NU, UPLOAD, COMPUTE = range(10)
ANSWER_ROWS = 10

_EPS = 2.0**-53
_ROUNDING = 64.0 * _EPS  # each term below is a short chain of operations; 64 units cover it with room


prange = range  # numba's own where numba compiles: a range that threads share
_PARALLEL_FROM = 20_000  # devices; below, threads that wait for a busy core cost more than they save


def _serial_and_parallel(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop over devices twice, and choose by the number of devices (rows of the first argument)."""
    serial, parallel = kernel(loop), kernel(loop, parallel=True)

    @functools.wraps(loop)
    def choose(rows: FloatArray, *rest: object) -> None:
        (parallel if len(rows) >= _PARALLEL_FROM else serial)(rows, *rest)

    return choose


@kernel
def share(x, under, weight, nu, pool, scale):  # type: ignore[no-untyped-def]
    """A device's part of the objective at x = log s, with two derivatives.

    Parameters
    ----------
    x, under, weight, nu, scale : numbers
        x = log s; A w_k factor_k; w_k; price of the kept share; 1 / (2 n_k delta).
    pool
        (0, ...) for global pooling (the price nu stands in for the stability term) or (1, base, spread, curvature,
        sparsity) for device pooling. Shape [5].
    """
    square = math.exp(2.0 * x)
    inverse = under * math.exp(-x)
    value, first, second = inverse - under, -inverse, inverse
    if pool[0] == 0.0:
        cost = nu * weight * square
        return value + cost, first + 2.0 * cost, second + 4.0 * cost
    y = pool[3] + 2.0 * pool[4] * max(1.0 - square, 0.0)
    y1, y2 = -4.0 * pool[4] * square, -8.0 * pool[4] * square
    inner = pool[1] + pool[2] / y
    inner1 = -pool[2] * y1 / (y * y)
    inner2 = -pool[2] * y2 / (y * y) + 2.0 * pool[2] * y1 * y1 / (y * (y * y))
    gap = weight * math.sqrt(inner * scale)
    if gap == 0.0:
        return value, first, second
    r = inner1 / (2.0 * inner)
    return value + gap, first + gap * r, second + gap * (inner2 / (2.0 * inner) - r * r)


@kernel(inner=True)
def _answer(row, under, weight, scale, pool, mu, nu, lo, hi, close, table, k):  # type: ignore[no-untyped-def]
    """One device's keep rate at prices: Newton on the derivative of its convex F, inside a bracket.

    Parameters
    ----------
    row, pool
        Device row of C columns and stability term, see :func:`share`. Shapes [C],
        [5].
    under, weight, scale, mu, nu, lo, hi : numbers
        A w_k factor_k, w_k, 1 / (2 n_k delta); prices per Hz and of the kept share; range of log s.
    close : number
        A Newton step below it is the last; the error left is about its square.
    table
        Answer table; its column k has the start and gets the answer. Shape [10, K].
    k : number
        The device.
    """
    low, high = lo, hi
    x, v = min(max(table[X, k], lo), hi), table[V, k]
    band, slope, curve, v_slope, up, down, regime = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0
    f2 = 1.0
    at_bound = True
    for _ in range(80):
        band, slope, curve, v_new, v_slope, up, down, regime = least_bandwidth(row, math.exp(x), v)
        if regime >= BLOCKED:
            high = x
            x = 0.5 * (low + high)
            if x <= low:  # only the lower end is feasible
                x = low
                band, slope, curve, v, v_slope, up, down, regime = least_bandwidth(row, math.exp(x), v)
                break
            continue
        v = v_new
        _f0, f1, f2 = share(x, under, weight, nu, pool, scale)
        pay = mu * band * slope
        total = f1 + pay
        if f1 < 0.0 and pay > 0.0:  # both sides are nearly linear in logarithms
            new = x - math.log(pay / -f1) / (slope + curve / slope - f2 / f1)
            f2 += mu * band * (curve + slope * slope)
        else:
            f2 += mu * band * (curve + slope * slope)
            new = x - total / f2
        if total > 0.0:
            if x <= lo:
                break
            high = x
        else:
            if x >= hi:
                break
            low = x
        dx = new - x
        if lo <= new <= hi and abs(dx) * (1.0 + abs(slope) + abs(curve)) <= close:
            # The last step: convergence is quadratic, and a Taylor step carries the answer along.
            x = new
            band *= math.exp(dx * (slope + 0.5 * dx * curve))
            slope += dx * curve
            v += dx * v_slope
            at_bound = False
            break
        if not low < new < high:
            if new >= hi and high == hi and x < hi:
                new = hi
            elif new <= lo and low == lo and x > lo:
                new = lo
            else:
                new = 0.5 * (low + high)
                if high - low <= 1e-15 * (1.0 + abs(x)):
                    at_bound = False
                    break
        v += v_slope * (new - x)
        x = new
    x_mu = 0.0 if at_bound else -mu * band * slope / f2  # with respect to log mu
    x_nu = 0.0 if at_bound else -2.0 * weight * math.exp(2.0 * x) / f2
    table[X, k], table[V, k], table[BANDWIDTH, k], table[SLOPE, k], table[CURVE, k] = x, v, band, slope, curve
    table[REGIME, k], table[X_MU, k], table[X_NU, k] = regime, x_mu, x_nu
    table[UPLOAD, k], table[COMPUTE, k] = up, down


@_serial_and_parallel
def answers(rows, under, weight, scale, pool, mu, nu, lo, hi, close, table):  # type: ignore[no-untyped-def]
    """Fill the answer table of all devices at prices (mu, nu), starting from what stands in it.

    Parameters
    ----------
    rows
        Device rows of C columns. Shape [K, C].
    under, weight, scale, lo, hi
        A w_k factor_k; w_k; 1 / (2 n_k delta); range of log s. Shapes [K].
    pool
        Stability term, see :func:`share`. Shape [5].
    mu, nu, close : numbers
        Prices per Hz and of the kept share; the step below which Newton ends.
    table
        Rows X, V, ... of this module; changed in place. Shape [10, K].
    """
    for k in prange(rows.shape[0]):
        _answer(rows[k], under[k], weight[k], scale[k], pool, mu, nu, lo[k], hi[k], close, table, k)


@_serial_and_parallel
def bandwidths(rows, x, v, out):  # type: ignore[no-untyped-def]
    """Least bandwidths at given x = log keep, written with v, upload and compute time and regime to ``out``.

    Parameters
    ----------
    rows
        Device rows of C columns. Shape [K, C].
    x, v
        log s, and guesses of the spectral efficiency (0 without one). Shapes [K].
    out
        Filled answer table, in Hz and s; its X_MU and X_NU are 0. Shape [10, K].
    """
    for k in prange(rows.shape[0]):
        band, slope, curve, v_new, _v_slope, up, down, regime = least_bandwidth(rows[k], math.exp(x[k]), v[k])
        out[X, k], out[V, k], out[BANDWIDTH, k], out[SLOPE, k], out[CURVE, k] = x[k], v_new, band, slope, curve
        out[REGIME, k], out[X_MU, k], out[X_NU, k], out[UPLOAD, k], out[COMPUTE, k] = regime, 0.0, 0.0, up, down


@kernel(inner=True)
def tangent(row, under, weight, scale, pool, mu, nu, lo, hi, x, v):  # type: ignore[no-untyped-def]
    """A line below F: ``F(y) >= value + slope (y - x) - slack`` for all y in [lo, hi] and every feasible v.

    The plane touches at the best efficiency v for x.

    Lagrangian: share + mu exp(theta B1 + (1 - theta) B2) + lam h, where B1 and B2 are the energy- and the
    freq_max-limited piece of log b and h <= 0 is the limit that holds v. theta in [0, 1] and lam >= 0 are
    chosen to make it flat in v; whatever they are, the plane lies below. The rounding margin is subtracted.

    Parameters
    ----------
    row, pool
        Device row of C columns and stability term, see :func:`share`. Shapes [C], [5].
    under, weight, scale, mu, nu, lo, hi, x, v : numbers
        A w_k factor_k, w_k, 1 / (2 n_k delta); prices per Hz and of the kept share; range of log s, the
        point in it, and a guess of the efficiency there.

    Returns
    -------
    value, slope, slack
        value is -inf where no bandwidth suffices at x.
    """
    value, g_x, _second = share(x, under, weight, nu, pool, scale)
    reach = max(hi - x, x - lo)
    size = (1.0 + reach) * (abs(under) * (1.0 + math.exp(-lo)) + abs(value) + abs(g_x))
    if mu == 0.0:
        return value, g_x, _ROUNDING * size
    keep = math.exp(x)
    regime, v = best_efficiency(row, keep, v)
    if regime >= BLOCKED:
        return -math.inf, 0.0, 0.0
    d_x, w_x = row[BIT1] * keep, row[CYC1] * keep
    bits, work = row[BIT0] + d_x, row[CYC0] + w_x
    window = row[DEADLINE] - bits * row[DOWN]
    window_x = -d_x * row[DOWN]
    eps, eps1, _eps2 = energy_shape(v)
    e, e_x, e_v = row[PER_BIT] * bits * eps, row[PER_BIT] * d_x * eps, row[PER_BIT] * bits * eps1
    left = row[ENERGY] - e
    # piece 2: freq_max
    tau2, tau2_x = work / row[FMAX], w_x / row[FMAX]
    t2, t2_x = window - tau2, window_x - tau2_x
    b2, b2_x, b2_v = math.log(bits * LN2 / (v * t2)), d_x / bits - t2_x / t2, -1.0 / v
    theta, loss1, loss2 = 0.0, 0.0, 1.0 + row[DEADLINE] / t2  # digits lost to cancellation, as a factor
    b1, b1_x, b1_v, t1, t1_x, t1_v = b2, b2_x, b2_v, t2, t2_x, 0.0
    if regime not in (POWER_FREQ_MAX, FREQ_FIXED):
        tau1 = math.sqrt(row[KAPPA] * work / left) * work
        tau1_x = tau1 * (1.5 * w_x / work + 0.5 * e_x / left)
        tau1_v = tau1 * 0.5 * e_v / left
        t1, t1_x, t1_v = window - tau1, window_x - tau1_x, -tau1_v
        b1, b1_x = math.log(bits * LN2 / (v * t1)), d_x / bits - t1_x / t1
        b1_v = -1.0 / v - t1_v / t1
        theta = 1.0
        loss1 = 1.0 + row[DEADLINE] / t1 + (1.0 + tau1 / t1) * row[ENERGY] / left
        if regime == KINK:
            theta = min(max(-b2_v / (b1_v - b2_v), 0.0), 1.0)
    if not (t1 > 0.0 and t2 > 0.0):
        return -math.inf, 0.0, 0.0
    log_b = theta * b1 + (1.0 - theta) * b2
    pay = mu * math.exp(log_b)
    value += pay
    g_x += pay * (theta * b1_x + (1.0 - theta) * b2_x)
    g_v = pay * (theta * b1_v + (1.0 - theta) * b2_v)
    loss = theta * loss1 + (1.0 - theta) * loss2
    steep = theta * loss1 * abs(b1_x) + (1.0 - theta) * loss2 * abs(b2_x)
    size += pay * (2.0 + abs(log_b) + loss + reach * (loss + steep))
    if regime in (FREQ_MIN, FREQ_FIXED, POWER, POWER_FREQ_MAX):
        if regime in (FREQ_MIN, FREQ_FIXED):
            heat = row[KAPPA] * (row[FMIN] * row[FMIN])
            h, h_x, h_v = e + heat * work - row[ENERGY], e_x + heat * w_x, e_v
            terms = e + heat * work + row[ENERGY]
        else:
            h, h_x, h_v = e - row[PMAX] * t1, e_x - row[PMAX] * t1_x, e_v - row[PMAX] * t1_v
            terms = e + row[PMAX] * (row[DEADLINE] + max(loss1, loss2) * (row[DEADLINE] - min(t1, t2)))
        lam = max(-g_v / h_v, 0.0)
        value += lam * h
        g_x += lam * h_x
        g_v += lam * h_v
        size += (1.0 + reach) * lam * (terms + abs(h_x))
    bits_lo = row[BIT0] + row[BIT1] * math.exp(lo)
    work_lo = row[CYC0] + row[CYC1] * math.exp(lo)
    spare = row[ENERGY] - row[KAPPA] * (row[FMIN] * row[FMIN]) * work_lo
    v_max = 1.0001 * energy_shape_inverse(max(spare / (row[PER_BIT] * bits_lo), 1.0)) + 1e-9
    size += (v_max + v) * (abs(g_v) + pay * (theta * loss1 * abs(b1_v) + (1.0 - theta) * loss2 * abs(b2_v)))
    fall_v = min(-g_v * v, g_v * (v_max - v))
    return value, g_x, _ROUNDING * size - fall_v


@_serial_and_parallel
def floor_of_answers(rows, under, weight, scale, pool, mu, nu, lo, hi, table, out):  # type: ignore[no-untyped-def]
    """Proven lower bounds of all devices' minima at prices (mu, nu), from the answers in ``table``.

    Valid for any table; tight when the answers are accurate.

    Parameters
    ----------
    rows
        Device rows of C columns. Shape [K, C].
    under, weight, scale, lo, hi
        A w_k factor_k; w_k; 1 / (2 n_k delta); range of log s. Shapes [K].
    pool
        Stability term, see :func:`share`. Shape [5].
    mu, nu : numbers
        Prices per Hz and of the kept share.
    table
        Answers; only X and V are read. Shape [10, K].
    out
        Filled with the bounds. Shape [K].
    """
    for k in prange(rows.shape[0]):
        x = table[X, k]
        value, slope, slack = tangent(
            rows[k], under[k], weight[k], scale[k], pool, mu, nu, lo[k], hi[k], x, table[V, k]
        )
        out[k] = value + min(slope * (lo[k] - x), slope * (hi[k] - x)) - slack


def new_table(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """An empty answer table: keep rate 1/e, efficiency unknown. Shape [10, count]."""
    table = np.zeros((ANSWER_ROWS, count))
    table[X] = -1.0
    return table
