r"""One convex sub-problem of P-SCA, solved by a primal-dual interior-point method that knows its structure.

    minimise    sum_k [share_k(x_k) + elastic v_k + lin_c_k . c_k]  +  gap(sum_k w_k e^2x_k)
    subject to  every device's constraints (solvers/psca_device.py),  sum_k c_km <= 1,  c in a box.

A Newton step couples devices through column sums only. Per column the matrix diag(D) + s 1 1^T is inverted in
closed form without cancellation; what is left is a system in two numbers per device, the multiplier of its
payload and the bend of its rate, and one number for the pooled gap (or the common keep rate): its size is
2 K + 1, whatever the number of columns. Steps go down the barrier function (Armijo), duals stay near the
central path, and the barrier parameter falls when its own problem is solved; so the method cannot cycle.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from edgealloc.solvers.psca_device import (
    BAND,
    ELASTIC,
    GLOBAL_GAP,
    H_COMMON,
    H_SEND,
    NUM_H,
    NUM_Y,
    POWER,
    SCALE,
    WEIGHT,
    X,
    constraints,
    curvature,
    gap_of,
    share_of,
)

__all__ = ["sub_problem"]

_STATIONARY = 1e-5  # dual residual that counts as none: the iterates' accuracy, not the bound's, depends on it
_NEAR = 1e3  # duals stay within this factor of target / h


@njit(cache=True, error_model="numpy")
def _merit(table, pool, lin_c, elastic, joint, target, common, y, share, c_lo, c_hi, h, slack):  # type: ignore[no-untyped-def]
    """Objective and barrier function objective - target sum log h of a strictly feasible point."""
    value, logs, kept = 0.0, 0.0, 0.0
    n_dev, n_col = share.shape
    for k in range(n_dev):
        at = common if joint else y[k, X]
        kept += table[k, WEIGHT] * math.exp(2.0 * at)
        value += share_of(table[k], pool, at)[0] + elastic * y[k, ELASTIC]
        for j in range(NUM_H if joint else NUM_H - 1):
            logs += math.log(h[k, j])
        for m in range(n_col):
            value += lin_c[k, m] * share[k, m]
            logs += math.log(share[k, m] - c_lo[k, m])
            if c_hi[k, m] < math.inf:
                logs += math.log(c_hi[k, m] - share[k, m])
    for m in range(n_col):
        logs += math.log(slack[m])
    if pool[0] == GLOBAL_GAP:
        value += gap_of(pool, table[0, SCALE], kept)[0]
    return value, value - target * logs


@njit(cache=True, error_model="numpy")
def _follow(z, room, target, change, step):  # type: ignore[no-untyped-def]
    """A dual after its step, held near target / room."""
    return min(max(z + step * change, target / (_NEAR * room)), _NEAR * target / room)


@njit(cache=True, error_model="numpy")
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
        ``prices`` [M] are the multipliers of the column sums.
    """
    n_dev, n_col = inverse.shape
    n_h = NUM_H if joint else NUM_H - 1
    n_low = 2 * n_dev + 1
    h, z = np.empty((n_dev, NUM_H)), np.zeros((n_dev, NUM_H))
    boxed = c_hi < math.inf
    z_lo, z_hi = np.zeros((n_dev, n_col)), np.zeros((n_dev, n_col))
    slack, z_col = np.empty(n_col), np.empty(n_col)
    level, under = np.empty(n_dev), np.empty(n_dev)
    grad, hess = np.empty((n_dev, NUM_H, NUM_Y)), np.empty((n_dev, NUM_Y, NUM_Y))
    profit, fill, diag = np.empty((n_dev, n_col)), np.empty((n_dev, n_col)), np.empty((n_dev, n_col))
    by, bc = np.empty((n_dev, NUM_Y)), np.empty((n_dev, n_col))
    dy, dc, dz = np.empty((n_dev, NUM_Y)), np.empty((n_dev, n_col)), np.empty((n_dev, NUM_H))
    side = np.empty(n_dev)
    links = np.zeros((n_dev, NUM_Y, 3))
    solved = np.empty((n_dev, NUM_Y, 4))
    y_new, c_new, h_new = np.empty((n_dev, NUM_Y)), np.empty((n_dev, n_col)), np.empty((n_dev, NUM_H))
    slack_new, level_new, under_new = np.empty(n_col), np.empty(n_dev), np.empty(n_dev)
    common_new = common.copy()
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
            z[k, j] = mu / h[k, j]
        for m in range(n_col):
            z_lo[k, m] = mu / (share[k, m] - c_lo[k, m])
            z_hi[k, m] = mu / (c_hi[k, m] - share[k, m]) if boxed[k, m] else 0.0
    target, steps = mu, 0
    value, merit = _merit(table, pool, lin_c, elastic, joint, target, common[0], y, share, c_lo, c_hi, h, slack)
    gap, residual = math.inf, math.inf
    prices, best_residual = z_col.copy(), math.inf  # of the most stationary point that is nearly optimal
    while True:
        # Where we stand: duality gap, distance from the central path, dual residual.
        kept, gap, residual, apart = 0.0, 0.0, 0.0, 0.0
        for k in range(n_dev):
            kept += table[k, WEIGHT] * math.exp(2.0 * (common[0] if joint else y[k, X]))
            for j in range(n_h):
                gap += z[k, j] * h[k, j]
                apart = max(apart, abs(z[k, j] * h[k, j] - target))
            for m in range(n_col):
                product = z_lo[k, m] * (share[k, m] - c_lo[k, m])
                gap += product
                apart = max(apart, abs(product - target))
                if boxed[k, m]:
                    product = z_hi[k, m] * (c_hi[k, m] - share[k, m])
                    gap += product
                    apart = max(apart, abs(product - target))
        for m in range(n_col):
            gap += z_col[m] * slack[m]
            apart = max(apart, abs(z_col[m] * slack[m] - target))
        g1, g2 = 0.0, 0.0
        if pool[0] == GLOBAL_GAP:
            _g0, g1, g2 = gap_of(pool, table[0, SCALE], kept)
        f1, f2 = 0.0, 0.0  # derivatives of the objective in a common rate, then of the Lagrangian
        if joint:
            for k in range(n_dev):
                _v, first, second = share_of(table[k], pool, common[0])
                f1 += first
                f2 += second
            f1 += 2.0 * g1 * kept
            f2 += 4.0 * g1 * kept + 4.0 * g2 * kept * kept
            stationary, centred_common = f1, f1
            for k in range(n_dev):
                stationary += z[k, H_COMMON]
                centred_common += target / h[k, H_COMMON]
                f2 += z[k, H_COMMON] / h[k, H_COMMON]
            residual = abs(stationary)
            f1 = centred_common
        for k in range(n_dev):
            row = table[k]
            curvature(row, y[k], h[k], z[k], level[k], joint, grad[k], hess[k])
            square = row[WEIGHT] * math.exp(2.0 * y[k, X])
            first = 0.0
            if joint:
                side[k] = z[k, H_COMMON] / h[k, H_COMMON]
            else:
                side[k] = 2.0 * square
                _v, first, second = share_of(row, pool, y[k, X])
                first += 2.0 * g1 * square
                hess[k, X, X] += second + 4.0 * g1 * square
            for p in range(NUM_Y):
                total = first if p == X else (elastic if p == ELASTIC else 0.0)
                centred = total - z[k, H_SEND] * grad[k, H_SEND, p]
                for j in range(n_h):
                    total -= z[k, j] * grad[k, j, p]
                    if j != H_SEND:
                        centred -= target / h[k, j] * grad[k, j, p]
                residual = max(residual, abs(total))
                by[k, p] = -centred
            for m in range(n_col):
                profit[k, m], fill[k, m] = 0.0, 0.0
                if inverse[k, m] < level[k]:
                    ratio = inverse[k, m] / level[k]
                    profit[k, m] = row[BAND] * (ratio - 1.0 - math.log(ratio))
                    fill[k, m] = level[k] - inverse[k, m]
                low = share[k, m] - c_lo[k, m]
                diag[k, m] = z_lo[k, m] / low
                total = lin_c[k, m] - z[k, H_SEND] * profit[k, m]
                centred = total - target / low + target / slack[m]
                total += z_col[m] - z_lo[k, m]
                if boxed[k, m]:
                    high = c_hi[k, m] - share[k, m]
                    diag[k, m] += z_hi[k, m] / high
                    total += z_hi[k, m]
                    centred += target / high
                residual = max(residual, abs(total))
                bc[k, m] = -centred
        if gap <= 100.0 * tol and residual < best_residual:
            prices[:], best_residual = z_col, residual
        if (gap <= tol and residual <= _STATIONARY) or steps >= max_steps:
            break
        if max(residual, apart) <= 10.0 * target and target > 0.05 * tol / count:
            target = max(0.05 * tol / count, min(0.2 * target, target**1.3))
            continue
        steps += 1
        # The reduced system in (a_k, b_k) = (-dz_send, bend) and one number for what couples all x.
        low_matrix, low_right = np.zeros((n_low, n_low)), np.zeros(n_low)
        coupling = -1.0 / f2 if joint else g2
        for k in range(n_dev):
            if joint:
                by[k, X] -= side[k] * f1 / f2
            links[k, :, 0] = grad[k, H_SEND]
            links[k, POWER, 1] = -1.0
            links[k, X, 2] = side[k]
            # rank-one parts of hess can be large: its own diagonal as a scale keeps the digits
            root = np.empty(NUM_Y)
            for p in range(NUM_Y):
                root[p] = 1.0 / math.sqrt(hess[k, p, p])
            scaled, right = np.empty((NUM_Y, NUM_Y)), np.empty((NUM_Y, 4))
            for p in range(NUM_Y):
                for q in range(NUM_Y):
                    scaled[p, q] = hess[k, p, q] * root[p] * root[q]
                for i in range(3):
                    right[p, i] = links[k, p, i] * root[p]
                right[p, 3] = by[k, p] * root[p]
            answer = np.linalg.solve(scaled, right)
            for p in range(NUM_Y):
                for i in range(4):
                    solved[k, p, i] = answer[p, i] * root[p]
            at = np.array([2 * k, 2 * k + 1, n_low - 1])
            for i in range(3):
                for p in range(NUM_Y):
                    low_right[at[i]] += links[k, p, i] * solved[k, p, 3]
                    for j in range(3):
                        low_matrix[at[i], at[j]] += links[k, p, i] * solved[k, p, j]
            bend = z[k, H_SEND] * table[k, BAND] / (level[k] * level[k] * under[k])
            low_matrix[2 * k, 2 * k] += h[k, H_SEND] / z[k, H_SEND]
            low_matrix[2 * k + 1, 2 * k + 1] += 1.0 / bend
            low_right[2 * k] -= target / z[k, H_SEND] - h[k, H_SEND]
        if coupling != 0.0:
            low_matrix[n_low - 1, n_low - 1] += 1.0 / coupling
        else:
            low_matrix[n_low - 1, :], low_matrix[:, n_low - 1] = 0.0, 0.0
            low_matrix[n_low - 1, n_low - 1], low_right[n_low - 1] = 1.0, 0.0
        for m in range(n_col):
            whole = slack[m] / z_col[m]
            push = 0.0
            for k in range(n_dev):
                whole += 1.0 / diag[k, m]
                push += bc[k, m] / diag[k, m]
            for k in range(n_dev):
                u0, u1 = profit[k, m], fill[k, m]
                if u1 == 0.0:
                    continue
                mine = 1.0 / diag[k, m]
                rest = whole - mine
                if mine > 0.5 * whole:  # without cancellation
                    rest = slack[m] / z_col[m]
                    for i in range(n_dev):
                        if i != k:
                            rest += 1.0 / diag[i, m]
                answer_c = mine * (bc[k, m] - push / whole)
                low_right[2 * k] += u0 * answer_c
                low_right[2 * k + 1] += u1 * answer_c
                weight = mine * (rest / whole)
                low_matrix[2 * k, 2 * k] += weight * u0 * u0
                low_matrix[2 * k, 2 * k + 1] += weight * u0 * u1
                low_matrix[2 * k + 1, 2 * k] += weight * u0 * u1
                low_matrix[2 * k + 1, 2 * k + 1] += weight * u1 * u1
                for i in range(k):
                    w0, w1 = profit[i, m], fill[i, m]
                    if w1 == 0.0:
                        continue
                    weight = -mine / diag[i, m] / whole
                    low_matrix[2 * k, 2 * i] += weight * u0 * w0
                    low_matrix[2 * k, 2 * i + 1] += weight * u0 * w1
                    low_matrix[2 * k + 1, 2 * i] += weight * u1 * w0
                    low_matrix[2 * k + 1, 2 * i + 1] += weight * u1 * w1
        for p in range(n_low - 1):
            for q in range(p):
                if p // 2 != q // 2:
                    low_matrix[q, p] = low_matrix[p, q]
        low = np.linalg.solve(low_matrix, low_right)
        d_common = -f1 / f2 if joint else 0.0
        for k in range(n_dev):
            for p in range(NUM_Y):
                dy[k, p] = solved[k, p, 3] - solved[k, p, 0] * low[2 * k] - solved[k, p, 1] * low[2 * k + 1]
                if coupling != 0.0:
                    dy[k, p] -= solved[k, p, 2] * low[n_low - 1]
            if joint:
                d_common += side[k] / f2 * dy[k, X]
        for m in range(n_col):
            whole, push = slack[m] / z_col[m], 0.0
            for k in range(n_dev):
                dc[k, m] = bc[k, m] - profit[k, m] * low[2 * k] - fill[k, m] * low[2 * k + 1]
                whole += 1.0 / diag[k, m]
                push += dc[k, m] / diag[k, m]
            for k in range(n_dev):
                dc[k, m] = (dc[k, m] - push / whole) / diag[k, m]
        # Dual directions and the longest steps that keep everything positive.
        step_z, step, descent = 1.0, 1.0, f1 * d_common
        for k in range(n_dev):
            flow = 0.0
            for m in range(n_col):
                flow += profit[k, m] * dc[k, m]
            # `by` and `bc` hold -z grad h of the payload where the barrier's gradient has -target/h grad h
            extra = z[k, H_SEND] - target / h[k, H_SEND]
            for j in range(n_h):
                dh = 0.0
                for p in range(NUM_Y):
                    dh += grad[k, j, p] * dy[k, p]
                if j == H_SEND:
                    dh += flow
                    descent += extra * dh
                    dz[k, j] = -low[2 * k]
                else:
                    if j == H_COMMON:
                        dh -= d_common
                    dz[k, j] = target / h[k, j] - z[k, j] - z[k, j] / h[k, j] * dh
                if dz[k, j] < 0.0:
                    step_z = min(step_z, -0.99 * z[k, j] / dz[k, j])
            for p in range(NUM_Y):
                descent -= (by[k, p] + (side[k] * f1 / f2 if joint and p == X else 0.0)) * dy[k, p]
            for m in range(n_col):
                descent -= bc[k, m] * dc[k, m]
                low_c = share[k, m] - c_lo[k, m]
                change = target / low_c - z_lo[k, m] - z_lo[k, m] / low_c * dc[k, m]
                if change < 0.0:
                    step_z = min(step_z, -0.99 * z_lo[k, m] / change)
                if dc[k, m] < 0.0:
                    step = min(step, -0.99 * low_c / dc[k, m])
                if boxed[k, m]:
                    high = c_hi[k, m] - share[k, m]
                    change = target / high - z_hi[k, m] + z_hi[k, m] / high * dc[k, m]
                    if change < 0.0:
                        step_z = min(step_z, -0.99 * z_hi[k, m] / change)
                    if dc[k, m] > 0.0:
                        step = min(step, 0.99 * high / dc[k, m])
        for m in range(n_col):
            total = dc[:, m].sum()
            change = target / slack[m] - z_col[m] + z_col[m] / slack[m] * total
            if change < 0.0:
                step_z = min(step_z, -0.99 * z_col[m] / change)
            if total > 0.0:
                step = min(step, 0.99 * slack[m] / total)
        _v, merit = _merit(table, pool, lin_c, elastic, joint, target, common[0], y, share, c_lo, c_hi, h, slack)
        good = False
        for _ in range(50):
            good = True
            common_new[0] = common[0] + step * d_common
            y_new[:], c_new[:] = y + step * dy, share + step * dc
            for k in range(n_dev):
                if not y_new[k, POWER] > 0.0:
                    good = False
                    break
                level_new[k], under_new[k] = constraints(
                    table[k], inverse[k], order[k], y_new[k], c_new[k], common_new[0], h_new[k]
                )
                if not h_new[k, :n_h].min() > 0.0:
                    good = False
                    break
            if good:
                for m in range(n_col):
                    slack_new[m] = slack[m] - step * dc[:, m].sum()
                value, trial = _merit(
                    table,
                    pool,
                    lin_c,
                    elastic,
                    joint,
                    target,
                    common_new[0],
                    y_new,
                    c_new,
                    c_lo,
                    c_hi,
                    h_new,
                    slack_new,
                )
                good = trial <= merit + 1e-4 * step * descent + 1e-14 * (1.0 + abs(merit))
            if good:
                break
            step *= 0.5
        if not good or (step < 1e-2 and gap <= 30.0 * tol):
            break  # rounding ends the search; gap and residual say how far it came
        for k in range(n_dev):
            for m in range(n_col):
                low_c, room = share[k, m] - c_lo[k, m], c_new[k, m] - c_lo[k, m]
                change = target / low_c - z_lo[k, m] - z_lo[k, m] / low_c * dc[k, m]
                z_lo[k, m] = _follow(z_lo[k, m], room, target, change, step_z)
                if boxed[k, m]:
                    high, room = c_hi[k, m] - share[k, m], c_hi[k, m] - c_new[k, m]
                    change = target / high - z_hi[k, m] + z_hi[k, m] / high * dc[k, m]
                    z_hi[k, m] = _follow(z_hi[k, m], room, target, change, step_z)
            for j in range(n_h):
                z[k, j] = _follow(z[k, j], h_new[k, j], target, dz[k, j], step_z)
        for m in range(n_col):
            change = target / slack[m] - z_col[m] + z_col[m] / slack[m] * dc[:, m].sum()
            z_col[m] = _follow(z_col[m], slack_new[m], target, change, step_z)
        y[:], share[:], h[:], slack[:] = y_new, c_new, h_new, slack_new
        level[:], under[:], common[0] = level_new, under_new, common_new[0]
    if best_residual == math.inf:
        prices[:], best_residual = z_col, residual
    return value, gap, best_residual, steps, prices
