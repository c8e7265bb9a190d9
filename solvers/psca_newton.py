r"""The Newton step of P-SCA's sub-problem (solvers/psca_step.py), by its structure.

Devices meet in column sums only. Per column the matrix diag(D) + s 1 1^T is inverted in closed form, without
cancellation; what is left is a system in two numbers per device, the multiplier of its payload and the bend of
its rate, and one number for the pooled gap (or the common keep rate): of size 2 K + 1 for any number of columns.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.jit import kernel
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
    curvature,
    gap_of,
    share_of,
)

__all__ = ["direction", "linearise"]


@kernel
def linearise(  # type: ignore[no-untyped-def]
    table, pool, inverse, lin_c, elastic, joint, target, common, y, share, c_lo, c_hi, slack, z_col, z_lo, z_hi,
    h, s, z, level, grad, hess, side, profit, fill, diag, by, bc,
):  # fmt: skip
    """Derivatives and right-hand sides at an iterate; returns the dual residual, f1, f2 and g2.

    Filled: gradients [K, 11, 5] and Hessians [K, 5, 5] of :func:`~edgealloc.solvers.psca_device.curvature`; how
    each x enters what couples all (``side`` [K]); dR/dc and fill q_m of the columns (``profit``, ``fill``), the
    diagonal of the Newton matrix and the right-hand side in c (``diag``, ``bc``) [K, M]; and that in y (``by``
    [K, 5]). f1 and f2 belong to a common rate, g2 bends the pooled gap.
    """
    n_dev, n_col = share.shape
    n_h = NUM_H if joint else NUM_H - 1
    kept = 0.0
    for k in range(n_dev):
        kept += table[k, WEIGHT] * math.exp(2.0 * (common if joint else y[k, X]))
    g1, g2 = 0.0, 0.0
    if pool[0] == GLOBAL_GAP:
        _g0, g1, g2 = gap_of(pool, table[0, SCALE], kept)
    f1, f2, residual = 0.0, 0.0, 0.0
    if joint:
        for k in range(n_dev):
            _v, first, second = share_of(table[k], pool, common)
            f1 += first
            f2 += second
        f1 += 2.0 * g1 * kept
        f2 += 4.0 * g1 * kept + 4.0 * g2 * kept * kept
        stationary = f1
        for k in range(n_dev):
            stationary += z[k, H_COMMON]
            f1 += target / s[k, H_COMMON]
            f2 += z[k, H_COMMON] / s[k, H_COMMON]
        residual = abs(stationary)
    for k in range(n_dev):
        row = table[k]
        curvature(row, y[k], s[k], z[k], level[k], joint, grad[k], hess[k])
        square = row[WEIGHT] * math.exp(2.0 * y[k, X])
        first = 0.0
        if joint:
            side[k] = z[k, H_COMMON] / s[k, H_COMMON]
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
                    centred -= (target - z[k, j] * (h[k, j] - s[k, j])) / s[k, j] * grad[k, j, p]
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
            if c_hi[k, m] < math.inf:
                high = c_hi[k, m] - share[k, m]
                diag[k, m] += z_hi[k, m] / high
                total += z_hi[k, m]
                centred += target / high
            residual = max(residual, abs(total))
            bc[k, m] = -centred
    return residual, f1, f2, g2


@kernel
def _rest(loose, free, k):  # type: ignore[no-untyped-def]
    """free + sum of loose but for k's: a difference that would cancel where k dominates."""
    total = free
    for i in range(loose.size):
        if i != k:
            total += loose[i]
    return total


@kernel
def _column(loose, free, whole, right, answer):  # type: ignore[no-untyped-def]
    """Solve (diag(1/loose) + 1 1^T / free) answer = right for one column; returns the sum of the answer."""
    push = 0.0
    for k in range(loose.size):
        push += right[k] * loose[k]
    for k in range(loose.size):
        if loose[k] > 0.5 * whole:
            others = 0.0
            for i in range(loose.size):
                if i != k:
                    others += right[i] * loose[i]
            answer[k] = loose[k] / whole * (right[k] * _rest(loose, free, k) - others)
        else:
            answer[k] = loose[k] * (right[k] - push / whole)
    return push * free / whole


@kernel
def _solve(matrix, right):  # type: ignore[no-untyped-def]
    """Solve for right [N, R] in place by L D L^T, stable without pivots for quasi-definite matrices [N, N].

    Written out, for at this size the threads of LAPACK take longer to wake than to work; the lower half is lost.
    """
    n, count = right.shape
    rest = np.empty(n)
    for i in range(n):
        for j in range(i):
            rest[j] = matrix[i, j]
            for p in range(j):
                rest[j] -= rest[p] * matrix[j, p]
        for j in range(i):
            matrix[i, j] = rest[j] / matrix[j, j]
            matrix[i, i] -= rest[j] * matrix[i, j]
    for c in range(count):
        for i in range(n):
            for j in range(i):
                right[i, c] -= matrix[i, j] * right[j, c]
        for i in range(n):
            right[i, c] /= matrix[i, i]
        for i in range(n - 1, -1, -1):
            for j in range(i + 1, n):
                right[i, c] -= matrix[j, i] * right[j, c]


@kernel
def direction(  # type: ignore[no-untyped-def]
    table, joint, target, slack, z_col, h, s, z, level, under, grad, hess, side, profit, fill, diag, by, bc,
    f1, f2, g2, dy, dc, dz_send, d_col,
):  # fmt: skip
    """Newton step in y [K, 5], c [K, M], payload multiplier [K] and slack [M]; returns that of a common rate."""
    n_dev, n_col = bc.shape
    size = 2 * n_dev + 1
    last = size - 1
    coupling = -1.0 / f2 if joint else g2
    loose, rhs = np.ascontiguousarray((1.0 / diag).T), np.ascontiguousarray(bc.T)
    free, answer, whole = slack / z_col, np.empty((n_col, n_dev)), np.empty(n_col)
    for m in range(n_col):
        whole[m] = free[m] + loose[m].sum()
        _column(loose[m], free[m], whole[m], rhs[m], answer[m])
    # Columns between devices: minus the outer product of what each device's two numbers move in the column sums.
    matrix, right, moved = np.zeros((size, size)), np.zeros((size, 1)), np.empty(last)
    for m in range(n_col):
        for k in range(n_dev):
            moved[2 * k], moved[2 * k + 1] = profit[k, m] * loose[m, k], fill[k, m] * loose[m, k]
        for p in range(last):
            part = moved[p] / whole[m]
            if part != 0.0:
                for q in range(p):
                    matrix[p, q] -= part * moved[q]
    solved, links = np.empty((n_dev, NUM_Y, 4)), np.zeros((NUM_Y, 3))
    root, square, sides = np.empty(NUM_Y), np.empty((NUM_Y, NUM_Y)), np.empty((NUM_Y, 4))
    for k in range(n_dev):
        a, b = 2 * k, 2 * k + 1
        m_aa, m_ab, m_bb = 0.0, 0.0, 0.0
        for m in range(n_col):
            u0, u1 = profit[k, m], fill[k, m]
            if u1 == 0.0:
                continue
            dominates = loose[m, k] > 0.5 * whole[m]
            rest = _rest(loose[m], free[m], k) if dominates else whole[m] - loose[m, k]
            weight = loose[m, k] * (rest / whole[m])
            m_aa += weight * u0 * u0
            m_ab += weight * u0 * u1
            m_bb += weight * u1 * u1
            right[a, 0] += u0 * answer[m, k]
            right[b, 0] += u1 * answer[m, k]
        matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = m_aa, m_ab, m_ab, m_bb
        # The device's own block in y; rank-one parts of it can be large: its diagonal as a scale keeps the digits.
        if joint:
            by[k, X] -= side[k] * f1 / f2
        links[:, 0] = grad[k, H_SEND]
        links[POWER, 1] = -1.0
        links[X, 2] = side[k]
        for p in range(NUM_Y):
            root[p] = 1.0 / math.sqrt(hess[k, p, p])
        for p in range(NUM_Y):
            for q in range(NUM_Y):
                square[p, q] = hess[k, p, q] * root[p] * root[q]
            for i in range(3):
                sides[p, i] = links[p, i] * root[p]
            sides[p, 3] = by[k, p] * root[p]
        found = np.linalg.solve(square, sides)  # with pivots, for rounding can leave it indefinite
        at = (a, b, last)
        for p in range(NUM_Y):
            for i in range(4):
                solved[k, p, i] = found[p, i] * root[p]
        for i in range(3):
            for p in range(NUM_Y):
                right[at[i], 0] += links[p, i] * solved[k, p, 3]
                for j in range(3):
                    matrix[at[i], at[j]] += links[p, i] * solved[k, p, j]
        bend = z[k, H_SEND] * table[k, BAND] / (level[k] * level[k] * under[k])
        matrix[a, a] += s[k, H_SEND] / z[k, H_SEND]
        matrix[b, b] += 1.0 / bend
        right[a, 0] -= target / z[k, H_SEND] - h[k, H_SEND]
    if coupling != 0.0:
        matrix[last, last] += 1.0 / coupling
    else:
        matrix[last, :], matrix[:, last] = 0.0, 0.0
        matrix[last, last], right[last, 0] = 1.0, 0.0
    _solve(matrix, right)
    low = right[:, 0]
    d_common = -f1 / f2 if joint else 0.0
    for k in range(n_dev):
        for p in range(NUM_Y):
            dy[k, p] = solved[k, p, 3] - solved[k, p, 0] * low[2 * k] - solved[k, p, 1] * low[2 * k + 1]
            if coupling != 0.0:
                dy[k, p] -= solved[k, p, 2] * low[last]
        if joint:
            d_common += side[k] / f2 * dy[k, X]
        dz_send[k] = -low[2 * k]
    for m in range(n_col):
        for k in range(n_dev):
            rhs[m, k] -= profit[k, m] * low[2 * k] + fill[k, m] * low[2 * k + 1]
        d_col[m] = -_column(loose[m], free[m], whole[m], rhs[m], answer[m])
        dc[:, m] = answer[m]
    return d_common
