r"""One convex sub-problem of P-SCA, solved by a primal-dual interior-point method that knows its structure.

    minimise    sum_k [share_k(x_k) + elastic v_k + lin_c_k . c_k]  +  gap(sum_k w_k e^2x_k)
    subject to  every device's constraints (solvers/psca_device.py),  sum_k c_km <= 1,  c in a box.

The curved constraints h >= 0 have slacks s: h = s is met in the limit only, so that long steps need not stay
inside them. Each step aims at complementarity products target, chosen by how uneven they are (Vanderbei and
Shanno, Computational Optimization and Applications 13, 1999), and is cut short of the boundary only.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.jit import kernel
from edgealloc.solvers.psca_device import (
    ELASTIC,
    GLOBAL_GAP,
    H_COMMON,
    H_ENERGY,
    H_SEND,
    NUM_H,
    NUM_Y,
    POWER,
    SCALE,
    WEIGHT,
    X,
    constraints,
    gap_of,
    share_of,
)
from edgealloc.solvers.psca_newton import direction, linearise

__all__ = ["sub_problem"]

_STATIONARY = 1e-5  # dual residual that counts as none: the iterates' accuracy, not the bound's, depends on it
_EXACT = 1e-9  # largest difference of a constraint and its slack
_FAR = 2.0  # longest step in a logarithm
_SHORT = 0.99  # of the way to the boundary


@kernel
def _objective(table, pool, lin_c, elastic, joint, common, y, share):  # type: ignore[no-untyped-def]
    value, kept = 0.0, 0.0
    n_dev, n_col = share.shape
    for k in range(n_dev):
        at = common if joint else y[k, X]
        kept += table[k, WEIGHT] * math.exp(2.0 * at)
        value += share_of(table[k], pool, at)[0] + elastic * y[k, ELASTIC]
        for m in range(n_col):
            value += lin_c[k, m] * share[k, m]
    if pool[0] == GLOBAL_GAP:
        value += gap_of(pool, table[0, SCALE], kept)[0]
    return value


@kernel
def _cut(value, change, step):  # type: ignore[no-untyped-def]
    """The step, or less if the value would come too near to 0."""
    return min(step, -_SHORT * value / change) if change < 0.0 else step


@kernel
def sub_problem(table, pool, inverse, order, lin_c, c_lo, c_hi, elastic, joint, tol, max_steps, y, share, common):  # type: ignore[no-untyped-def]
    """Solve the sub-problem from a strictly feasible start, in place.

    Parameters
    ----------
    table, pool
        Device table [K, 19] and stability term [5] (solvers/psca_device.py).
    inverse, order
        1/a in units of power_max, and its order upwards. Shape [K, M].
    lin_c, c_lo, c_hi
        Linear cost of shares and their box, shape [K, M]; ``inf`` in c_hi where the column sums suffice.
    elastic
        Cost of a unit of v; exact when larger than the multiplier of the payload.
    joint
        One keep rate for all: ``common`` [1] is its logarithm, and the objective counts there.
    tol, max_steps
        Absolute duality gap asked for, and the limit of Newton steps.
    y, share
        Start and result, shapes [K, 5] and [K, M].

    Returns
    -------
    objective, gap, residual, steps, prices
        ``residual`` is the larger of the dual one and of h - s; ``prices`` [M] are those of the column sums.
    """
    n_dev, n_col = inverse.shape
    n_h = NUM_H if joint else NUM_H - 1
    h, s, z = np.empty((n_dev, NUM_H)), np.ones((n_dev, NUM_H)), np.zeros((n_dev, NUM_H))
    ds, dz = np.zeros((n_dev, NUM_H)), np.zeros((n_dev, NUM_H))
    boxed = c_hi < math.inf
    z_lo, z_hi = np.zeros((n_dev, n_col)), np.zeros((n_dev, n_col))
    dz_lo, dz_hi = np.zeros((n_dev, n_col)), np.zeros((n_dev, n_col))
    slack, z_col, d_col, dz_col = np.empty(n_col), np.empty(n_col), np.empty(n_col), np.empty(n_col)
    level, under, side = np.empty(n_dev), np.empty(n_dev), np.empty(n_dev)
    grad, hess = np.empty((n_dev, NUM_H, NUM_Y)), np.empty((n_dev, NUM_Y, NUM_Y))
    profit, fill, diag = np.empty((n_dev, n_col)), np.empty((n_dev, n_col)), np.empty((n_dev, n_col))
    by, bc = np.empty((n_dev, NUM_Y)), np.empty((n_dev, n_col))
    dy, dc, dz_send = np.empty((n_dev, NUM_Y)), np.empty((n_dev, n_col)), np.empty(n_dev)
    count = n_dev * n_h + n_dev * n_col + n_col + boxed.sum()
    mu = 0.0
    for k in range(n_dev):
        level[k], under[k] = constraints(table[k], inverse[k], order[k], y[k], share[k], common[0], h[k])
        mu += abs(share_of(table[k], pool, y[k, X])[1]) / n_dev
    mu *= 0.02  # about a fiftieth of the objective's slopes
    for m in range(n_col):
        slack[m] = 1.0 - share[:, m].sum()
        z_col[m] = mu / slack[m]
    for k in range(n_dev):
        for j in range(n_h):
            s[k, j] = h[k, j]
            z[k, j] = mu / s[k, j]
        for m in range(n_col):
            z_lo[k, m] = mu / (share[k, m] - c_lo[k, m])
            z_hi[k, m] = mu / (c_hi[k, m] - share[k, m]) if boxed[k, m] else 0.0
    steps, step = 0, 1.0
    while True:
        # Where we stand: duality gap, the least product, what the slacks are off.
        gap, least, off = 0.0, math.inf, 0.0
        for k in range(n_dev):
            for j in range(n_h):
                gap += z[k, j] * s[k, j]
                least = min(least, z[k, j] * s[k, j])
                off = max(off, abs(h[k, j] - s[k, j]))
            for m in range(n_col):
                product = z_lo[k, m] * (share[k, m] - c_lo[k, m])
                gap += product
                least = min(least, product)
                if boxed[k, m]:
                    product = z_hi[k, m] * (c_hi[k, m] - share[k, m])
                    gap += product
                    least = min(least, product)
        for m in range(n_col):
            gap += z_col[m] * slack[m]
            least = min(least, z_col[m] * slack[m])
        uneven = least * count / gap
        target = max(0.1 * min(0.05 * (1.0 - uneven) / uneven, 2.0) ** 3 * gap, 0.3 * tol) / count
        residual, f1, f2, g2 = linearise(
            table, pool, inverse, lin_c, elastic, joint, target, common[0], y, share, c_lo, c_hi, slack, z_col,
            z_lo, z_hi, h, s, z, level, grad, hess, side, profit, fill, diag, by, bc,
        )  # fmt: skip
        done = gap <= tol and residual <= _STATIONARY and off <= _EXACT
        if done or steps >= max_steps or step < 1e-9:
            break
        steps += 1
        d_common = direction(
            table, joint, target, slack, z_col, h, s, z, level, under, grad, hess, side, profit, fill, diag, by,
            bc, f1, f2, g2, dy, dc, dz_send, d_col,
        )  # fmt: skip
        if not math.isfinite(dy.sum() + dc.sum() + dz_send.sum()):
            break  # rounding ends the search; gap and residual say how far it came
        # Slack and dual directions, and the longest step that keeps everything positive.
        step, far = 1.0, 0.0
        for k in range(n_dev):
            flow = 0.0
            for m in range(n_col):
                flow += profit[k, m] * dc[k, m]
            for j in range(n_h):
                change = h[k, j] - s[k, j]
                for p in range(NUM_Y):
                    change += grad[k, j, p] * dy[k, p]
                if j == H_SEND:
                    change += flow
                elif j == H_COMMON:
                    change -= d_common
                ds[k, j] = change
                dz[k, j] = dz_send[k] if j == H_SEND else (target - z[k, j] * change) / s[k, j] - z[k, j]
                step = _cut(z[k, j], dz[k, j], _cut(s[k, j], change, step))
            for p in range(POWER):
                far = max(far, abs(dy[k, p]))
            for m in range(n_col):
                low = share[k, m] - c_lo[k, m]
                dz_lo[k, m] = (target - z_lo[k, m] * dc[k, m]) / low - z_lo[k, m]
                step = _cut(z_lo[k, m], dz_lo[k, m], _cut(low, dc[k, m], step))
                if boxed[k, m]:
                    high = c_hi[k, m] - share[k, m]
                    dz_hi[k, m] = (target + z_hi[k, m] * dc[k, m]) / high - z_hi[k, m]
                    step = _cut(z_hi[k, m], dz_hi[k, m], _cut(high, -dc[k, m], step))
        for m in range(n_col):
            dz_col[m] = (target - z_col[m] * d_col[m]) / slack[m] - z_col[m]
            step = _cut(z_col[m], dz_col[m], _cut(slack[m], d_col[m], step))
        step = min(step, _FAR / max(far, 1e-300))
        common[0] += step * d_common
        for k in range(n_dev):
            for p in range(NUM_Y):
                y[k, p] += step * dy[k, p]
            for m in range(n_col):
                share[k, m] += step * dc[k, m]
                z_lo[k, m] += step * dz_lo[k, m]
                z_hi[k, m] += step * dz_hi[k, m]
            level[k], under[k] = constraints(table[k], inverse[k], order[k], y[k], share[k], common[0], h[k])
            for j in range(n_h):
                # of linear constraints the slack is the constraint
                s[k, j] = s[k, j] + step * ds[k, j] if j <= H_ENERGY else h[k, j]
                z[k, j] += step * dz[k, j]
        for m in range(n_col):
            slack[m] += step * d_col[m]
            z_col[m] += step * dz_col[m]
    value = _objective(table, pool, lin_c, elastic, joint, common[0], y, share)
    return value, gap, max(residual, off), steps, z_col
