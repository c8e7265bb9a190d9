r"""One device of a convex sub-problem of P-SCA: constraints, derivatives, and its part of the objective.

Everything is dimensionless: T, E, power_max, freq_max and the largest payload are the units. A device chooses

    y = (x = log s, theta = log(t/T), phi = log(f/f_max), P = p/power_max, v >= 0)

and shares c_m of the columns of spectrum, under constraints h >= 0 that are concave in (y, c):

    H_SEND    R(c, P) - D(e^x) e^-theta + v          the payload is sent; v is an elastic with a price
    H_TIME    1 - D/R_dl - W(e^x) e^-phi - e^theta   deadline
    H_ENERGY  1 - e^theta pe(P) - heat e^2phi W(e^x) energy; pe(P) = P_i exp(P/P_i - 1) >= P touches at P_i

and boxes. R is the water-filling rate on shares: with level omega, power P = sum c_m (omega - 1/a_m)^+ and
dR/dc_m = band (log(omega a_m) - 1 + 1/(omega a_m)), dR/dP = band / omega, and a Hessian of rank one,

    d2R = -band / (omega^2 N) (dP - sum_m q_m dc_m)^2,   q_m = (omega - 1/a_m)^+,  N = the share under water.

Derived: docs/psca.md, sections 1 and 2.
"""

from __future__ import annotations

import math

from edgealloc.solvers.compiling.kernel import kernel

__all__ = [
    "GLOBAL_GAP",
    "NO_GAP",
    "NUM_H",
    "NUM_Y",
    "OWN_GAP",
    "TABLE_COLUMNS",
    "constraints",
    "curvature",
    "gap_of",
    "share_of",
]

# Columns of the device table.
D0, D1, W0, W1, DOWN, HEAT, SEND, BAND, PHI_LO, X_LO, X_HI = range(11)
UNDER, SLOPE, CURVE, X_REF, WEIGHT, SCALE, LIN_X, P_REF = range(11, 19)
TABLE_COLUMNS = 19
# How the stability term enters, ``pool[0]``.
NO_GAP, GLOBAL_GAP, OWN_GAP = 0, 1, 2

NUM_Y = 5
X, THETA, PHI, POWER, ELASTIC = range(NUM_Y)
NUM_H = 11
H_SEND, H_TIME, H_ENERGY, H_XLO, H_XHI, H_FLO, H_FHI, H_PHI, H_PLO, H_V, H_COMMON = range(NUM_H)


@kernel(inner=True)
def water_level(inverse, order, share, power):  # type: ignore[no-untyped-def]
    """Level omega with sum_m share_m (omega - inverse_m)^+ = power, and the share that is under water.

    ``order`` sorts ``inverse`` (1/a_m) upwards; both in units of power. Shapes [M].
    """
    total, below = 0.0, 0.0
    level = math.inf
    for j in range(order.size):
        m = order[j]
        if inverse[m] >= level:
            break
        if share[m] > 0.0:
            total += share[m]
            below += share[m] * inverse[m]
            level = (power + below) / total
    return level, total


@kernel(inner=True)
def gap_of(pool, scale, kept):  # type: ignore[no-untyped-def]
    """Stability term at the kept share with two derivatives.

    pool [5] is (kind, base, spread, curvature, sparsity); the term is sqrt((base + spread / y) scale) at
    y = curvature + 2 sparsity (1 - kept).
    """
    y = pool[3] + 2.0 * pool[4] * max(1.0 - kept, 0.0)
    inner = (pool[1] + pool[2] / y) * scale
    if inner <= 0.0:
        return 0.0, 0.0, 0.0
    d1 = 2.0 * pool[4] * pool[2] / (y * y) * scale
    d2 = 8.0 * pool[4] * pool[4] * pool[2] / (y * y * y) * scale
    value = math.sqrt(inner)
    return value, 0.5 * d1 / value, 0.5 * d2 / value - 0.25 * d1 * d1 / (value * inner)


@kernel(inner=True)
def share_of(row, pool, x):  # type: ignore[no-untyped-def]
    """A device's own part of the objective model at x, with two derivatives; row [19], pool [5].

    UNDER e^-x is exact (inverse-keep, less a constant); SLOPE and CURVE are a model of any other term about X_REF.
    """
    inverse = row[UNDER] * math.exp(-x)
    step = x - row[X_REF]
    value = inverse + row[SLOPE] * step + 0.5 * row[CURVE] * step * step + row[LIN_X] * x
    first = -inverse + row[SLOPE] + row[CURVE] * step + row[LIN_X]
    second = inverse + row[CURVE]
    if pool[0] == OWN_GAP:
        square = math.exp(2.0 * x)
        g0, g1, g2 = gap_of(pool, row[SCALE], square)
        value += row[WEIGHT] * g0
        first += row[WEIGHT] * g1 * 2.0 * square
        second += row[WEIGHT] * (4.0 * g1 * square + 4.0 * g2 * square * square)
    return value, first, second


@kernel
def constraints(row, inverse, order, y, share, common, h):  # type: ignore[no-untyped-def]
    """Fill the values of a device's constraints; returns the water level and the share under water.

    Everything is dimensionless, see the module.

    Parameters
    ----------
    row
        Row of the device table. Shape [19].
    inverse, order, share
        1/a in units of power_max, its order upwards, and the shares of the columns. Shapes [M].
    y
        The point (X, THETA, PHI, POWER, ELASTIC). Shape [5].
    common : number
        Log of the common keep rate, very low where there is none.
    h
        Filled, in the order H_SEND, ..., H_COMMON. Shape [11].
    """
    level, under = water_level(inverse, order, share, y[POWER])
    rate = 0.0
    for m in range(inverse.size):
        if inverse[m] < level and share[m] > 0.0:
            rate += share[m] * math.log(level / inverse[m])
    grown = math.exp(y[X])
    bits, work = row[D0] + row[D1] * grown, row[W0] + row[W1] * grown
    h[H_SEND] = row[BAND] * rate - bits * math.exp(-y[THETA]) + y[ELASTIC]
    h[H_TIME] = 1.0 - bits * row[DOWN] - work * math.exp(-y[PHI]) - math.exp(y[THETA])
    sent = row[SEND] * math.exp(y[THETA]) * row[P_REF] * math.exp(y[POWER] / row[P_REF] - 1.0)
    h[H_ENERGY] = 1.0 - sent - row[HEAT] * work * math.exp(2.0 * y[PHI])
    h[H_XLO], h[H_XHI] = y[X] - row[X_LO], row[X_HI] - y[X]
    h[H_FLO], h[H_FHI] = y[PHI] - row[PHI_LO], -y[PHI]
    h[H_PHI], h[H_PLO], h[H_V] = 1.0 - y[POWER], y[POWER], y[ELASTIC]
    h[H_COMMON] = y[X] - common
    return level, under


@kernel(inner=True)
def curvature(row, y, h, z, level, joint, grad, hess):  # type: ignore[no-untyped-def]
    """y-gradients of the constraints and the Hessian of the Lagrangian in y.

    In ``hess`` all duals are eliminated (z/h grad grad^T) but that of H_SEND, which couples y and c, and the
    rank-one Hessian of R, which does so too.

    Parameters
    ----------
    row, y
        Row of the device table and the point. Shapes [19], [5].
    h, z
        Slacks of the constraints and their duals. Shapes [11].
    level, joint : numbers
        Water level in units of power_max, and whether H_COMMON counts.
    grad, hess
        Filled. Shapes [11, 5], [5, 5].
    """
    for p in range(NUM_Y):
        for j in range(NUM_H):
            grad[j, p] = 0.0
        for q in range(NUM_Y):
            hess[p, q] = 0.0
    grown, a = math.exp(y[X]), 1.0 / row[P_REF]
    d_x, w_x = row[D1] * grown, row[W1] * grown
    bits, work = row[D0] + d_x, row[W0] + w_x
    slow, t, per_t = math.exp(-y[PHI]), math.exp(y[THETA]), math.exp(-y[THETA])
    grad[H_SEND, X], grad[H_SEND, THETA] = -d_x * per_t, bits * per_t
    grad[H_SEND, POWER], grad[H_SEND, ELASTIC] = row[BAND] / level, 1.0
    hess[X, X] += z[H_SEND] * d_x * per_t
    hess[X, THETA] -= z[H_SEND] * d_x * per_t
    hess[THETA, THETA] += z[H_SEND] * bits * per_t
    grad[H_TIME, X], grad[H_TIME, THETA], grad[H_TIME, PHI] = -(d_x * row[DOWN] + w_x * slow), -t, work * slow
    hess[X, X] += z[H_TIME] * (d_x * row[DOWN] + w_x * slow)
    hess[X, PHI] -= z[H_TIME] * w_x * slow
    hess[PHI, PHI] += z[H_TIME] * work * slow
    hess[THETA, THETA] += z[H_TIME] * t
    fast = row[HEAT] * math.exp(2.0 * y[PHI])
    sent = row[SEND] * t * row[P_REF] * math.exp(y[POWER] * a - 1.0)
    grad[H_ENERGY, X], grad[H_ENERGY, THETA] = -fast * w_x, -sent
    grad[H_ENERGY, PHI], grad[H_ENERGY, POWER] = -2.0 * fast * work, -sent * a
    hess[X, X] += z[H_ENERGY] * fast * w_x
    hess[X, PHI] += 2.0 * z[H_ENERGY] * fast * w_x
    hess[PHI, PHI] += 4.0 * z[H_ENERGY] * fast * work
    hess[THETA, THETA] += z[H_ENERGY] * sent
    hess[THETA, POWER] += z[H_ENERGY] * sent * a
    hess[POWER, POWER] += z[H_ENERGY] * sent * a * a
    for p in range(NUM_Y):
        for q in range(p):
            hess[p, q] = hess[q, p]
    grad[H_XLO, X], grad[H_XHI, X], grad[H_FLO, PHI], grad[H_FHI, PHI] = 1.0, -1.0, 1.0, -1.0
    grad[H_PHI, POWER], grad[H_PLO, POWER], grad[H_V, ELASTIC], grad[H_COMMON, X] = -1.0, 1.0, 1.0, 1.0
    for j in range(1, NUM_H if joint else NUM_H - 1):
        weight = z[j] / h[j]
        for p in range(NUM_Y):
            if grad[j, p] != 0.0:
                for q in range(NUM_Y):
                    hess[p, q] += weight * grad[j, p] * grad[j, q]
