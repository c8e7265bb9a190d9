r"""The Newton step of P-SCA's sub-problem (solvers/psca/subproblem/step.py), by its structure.

Devices meet in column sums only. Per column the matrix diag(D) + s 1 1^T is inverted in closed form, without
cancellation; what is left is a system in two numbers per device, the multiplier of its payload and the bend of
its rate, and one number for the pooled gap (or the common keep rate): of size 2 K + 1 for any number of columns.

All that a sub-problem keeps from step to step lies in a few arrays (:func:`workspace`): a compiled function costs
as much to compile as it has arrays to pass, and numbers in one array cost the same as in ten.

Derived: docs/psca.md, section 3.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.psca.device import (
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
from edgealloc.units import FloatArray

__all__ = ["Workspace", "direction", "linearise", "workspace"]

# Rows of ``con`` [5, K, 11]: values h of the constraints, their slacks and duals, and the steps of both.
VALUE, SLACK, DUAL, D_SLACK, D_DUAL = range(5)
# Rows of ``box`` [9, K, M]: duals of the bounds of the shares and their steps; dR/dc and fill q_m of the columns;
# the diagonal of the Newton matrix and the right-hand side in c; the step of the shares.
Z_LO, Z_HI, DZ_LO, DZ_HI, PROFIT, FILL, DIAG, RIGHT, STEP = range(9)
# Rows of ``col`` [6, M]: slack and dual of the column sums and their steps; two numbers of the Newton matrix.
ROOM, PRICE, D_ROOM, D_PRICE, FREE, WHOLE = range(6)
# Rows of ``one`` [4, K]: water level, share under water, how x enters what couples, step of H_SEND's dual.
LEVEL, UNDER, SIDE, D_SEND = range(4)
# Rows of ``way`` [3, K, 5]: right-hand side in y, the step, and the scale of the Newton matrix.
RIGHT_Y, STEP_Y, ROOT = range(3)
# Rows of ``turned`` [3, M, K]: what a column's closed form takes and gives.
LOOSE, ASKED, ANSWER = range(3)
_LINKS = 3  # what links a device to the others: its payload's multiplier, its rate's bend, the pooled gap


class Workspace(NamedTuple):
    """Arrays of a sub-problem with K devices and M columns; rows as named above.

    Parameters
    ----------
    con
        Constraints: VALUE, SLACK, ... Shape [5, K, 11].
    box
        Shares: Z_LO, Z_HI, ... Shape [9, K, M].
    col
        Column sums: ROOM, PRICE, ... Shape [6, M].
    one
        Devices: LEVEL, UNDER, ... Shape [4, K].
    way
        Right-hand side, step and scale in y. Shape [3, K, 5].
    grad, hess
        Gradients of the constraints and Hessian of the Lagrangian, in y. Shapes [K, 11, 5], [K, 5, 5].
    turned
        Columns in closed form: LOOSE, ASKED, ANSWER. Shape [3, M, K].
    moved
        Scratch. Shape [2 K].
    system, block
        Matrices of all devices and of one, each followed by its right-hand sides. Shapes [2 K + 1, 2 K + 2],
        [5, 9].
    solved
        Answers of ``block``. Shape [K, 5, 4].
    """

    con: FloatArray
    box: FloatArray
    col: FloatArray
    one: FloatArray
    way: FloatArray
    grad: FloatArray
    hess: FloatArray
    turned: FloatArray
    moved: FloatArray
    system: FloatArray
    block: FloatArray
    solved: FloatArray


def workspace(devices: int, columns: int) -> Workspace:
    """Fresh arrays, zero but for the slacks, which are 1."""
    con = np.zeros((5, devices, NUM_H))
    con[SLACK] = 1.0
    return Workspace(
        con,
        np.zeros((9, devices, columns)),
        np.zeros((6, columns)),
        np.zeros((4, devices)),
        np.zeros((3, devices, NUM_Y)),
        np.zeros((devices, NUM_H, NUM_Y)),
        np.zeros((devices, NUM_Y, NUM_Y)),
        np.zeros((3, columns, devices)),
        np.zeros(2 * devices),
        np.zeros((2 * devices + 1, 2 * devices + 2)),
        np.zeros((NUM_Y, NUM_Y + _LINKS + 1)),
        np.zeros((devices, NUM_Y, _LINKS + 1)),
    )


@kernel(inner=True)
def linearise(  # type: ignore[no-untyped-def]
    table, pool, inverse, lin_c, elastic, joint, target, common, y, share, c_lo, c_hi,
    con, box, col, one, way, grad, hess,
):  # fmt: skip
    """Derivatives and right-hand sides at an iterate; returns the dual residual, f1, f2 and g2.

    Filled: gradients and Hessians of :func:`~edgealloc.solvers.psca.device.curvature`; SIDE; PROFIT, FILL, DIAG
    and RIGHT; RIGHT_Y. f1 and f2 belong to a common rate, g2 bends the pooled gap. Dimensionless, as in
    :mod:`edgealloc.solvers.psca.device`.

    Parameters
    ----------
    table, pool
        Device table and stability term. Shapes [K, 19], [5].
    inverse, lin_c, share, c_lo, c_hi
        1/a in units of power_max; linear cost of the shares, the shares, and their box. Shapes [K, M].
    y
        Points of the devices. Shape [K, 5].
    elastic, joint, target, common : numbers
        Cost of a unit of v, whether all share one keep rate, the complementarity aimed at, and the
        logarithm of the common rate.
    con, box, col, one, way, grad, hess
        Of :class:`Workspace`. Shapes [5, K, 11], [9, K, M], [6, M], [4, K], [3, K, 5], [K, 11, 5], [K, 5, 5].
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
            stationary += con[DUAL, k, H_COMMON]
            f1 += target / con[SLACK, k, H_COMMON]
            f2 += con[DUAL, k, H_COMMON] / con[SLACK, k, H_COMMON]
        residual = abs(stationary)
    for k in range(n_dev):
        row, s, z, level = table[k], con[SLACK, k], con[DUAL, k], one[LEVEL, k]
        curvature(row, y[k], s, z, level, joint, grad[k], hess[k])
        square = row[WEIGHT] * math.exp(2.0 * y[k, X])
        first = 0.0
        if joint:
            one[SIDE, k] = z[H_COMMON] / s[H_COMMON]
        else:
            one[SIDE, k] = 2.0 * square
            _v, first, second = share_of(row, pool, y[k, X])
            first += 2.0 * g1 * square
            hess[k, X, X] += second + 4.0 * g1 * square
        for p in range(NUM_Y):
            total = first if p == X else (elastic if p == ELASTIC else 0.0)
            centred = total - z[H_SEND] * grad[k, H_SEND, p]
            for j in range(n_h):
                total -= z[j] * grad[k, j, p]
                if j != H_SEND:
                    centred -= (target - z[j] * (con[VALUE, k, j] - s[j])) / s[j] * grad[k, j, p]
            residual = max(residual, abs(total))
            way[RIGHT_Y, k, p] = -centred
        for m in range(n_col):
            profit, fill = 0.0, 0.0
            if inverse[k, m] < level:
                ratio = inverse[k, m] / level
                profit = row[BAND] * (ratio - 1.0 - math.log(ratio))
                fill = level - inverse[k, m]
            low, z_lo = share[k, m] - c_lo[k, m], box[Z_LO, k, m]
            diag = z_lo / low
            total = lin_c[k, m] - z[H_SEND] * profit
            centred = total - target / low + target / col[ROOM, m]
            total += col[PRICE, m] - z_lo
            if c_hi[k, m] < math.inf:
                high = c_hi[k, m] - share[k, m]
                diag += box[Z_HI, k, m] / high
                total += box[Z_HI, k, m]
                centred += target / high
            residual = max(residual, abs(total))
            box[PROFIT, k, m], box[FILL, k, m], box[DIAG, k, m], box[RIGHT, k, m] = profit, fill, diag, -centred
    return residual, f1, f2, g2


@kernel(inner=True)
def _rest(loose, free, k):  # type: ignore[no-untyped-def]
    """Sum of ``free`` and ``loose`` [K] without k's: a difference that would cancel where k dominates."""
    total = free
    for i in range(loose.size):
        if i != k:
            total += loose[i]
    return total


@kernel(inner=True)
def _column(loose, free, whole, right, answer):  # type: ignore[no-untyped-def]
    """Solve (diag(1/loose) + 1 1^T / free) answer = right for one column, arrays [K]; returns its sum."""
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


@kernel(inner=True)
def eliminate(system):  # type: ignore[no-untyped-def]
    """Solve for the last R columns of [matrix, right], shape [N, N + R], in place; False if that is singular.

    Gaussian elimination with pivots. Written out: LAPACK in a kernel takes seconds to compile, and at this size
    its threads take longer to wake than to work.
    """
    n, width = system.shape
    for c in range(n):
        top = c
        for i in range(c + 1, n):
            if abs(system[i, c]) > abs(system[top, c]):
                top = i
        if not 0.0 < abs(system[top, c]) < math.inf:
            return False
        if top != c:
            for j in range(c, width):
                system[c, j], system[top, j] = system[top, j], system[c, j]
        for i in range(c + 1, n):
            part = system[i, c] / system[c, c]
            if part != 0.0:
                for j in range(c + 1, width):
                    system[i, j] -= part * system[c, j]
    for c in range(n - 1, -1, -1):
        for j in range(n, width):
            for i in range(c + 1, n):
                system[c, j] -= system[c, i] * system[i, j]
            system[c, j] /= system[c, c]
    return True


@kernel(inner=True)
def direction(  # type: ignore[no-untyped-def]
    table, joint, target, f1, f2, g2, con, box, col, one, way, grad, hess, turned, moved, system, block, solved
):  # fmt: skip
    """Newton step: STEP_Y, STEP, D_SEND and D_ROOM are filled, and that of a common rate is returned.

    It is ``inf`` if a device leaves its step without a unique answer, ``nan`` if rounding spoils the rest.

    Parameters
    ----------
    table
        Device table. Shape [K, 19].
    joint, target, f1, f2, g2 : numbers
        Whether all share one keep rate, the complementarity aimed at, and what :func:`linearise`
        returned.
    con, box, col, one, way, grad, hess
        Of :class:`Workspace`. Shapes [5, K, 11], [9, K, M], [6, M], [4, K], [3, K, 5], [K, 11, 5], [K, 5, 5].
    turned, moved, system, block, solved
        Scratch of :class:`Workspace`. Shapes [3, M, K], [2 K], [2 K + 1, 2 K + 2], [5, 9], [K, 5, 4].
    """
    n_dev, n_col = box.shape[1], box.shape[2]
    last = 2 * n_dev
    right = last + 1
    coupling = -1.0 / f2 if joint else g2
    for p in range(right):
        for q in range(right + 1):
            system[p, q] = 0.0
    # Columns between devices: minus the outer product of what each device's two numbers move in the column sums.
    for m in range(n_col):
        total = 0.0
        for k in range(n_dev):
            turned[LOOSE, m, k], turned[ASKED, m, k] = 1.0 / box[DIAG, k, m], box[RIGHT, k, m]
            total += turned[LOOSE, m, k]
            moved[2 * k] = box[PROFIT, k, m] * turned[LOOSE, m, k]
            moved[2 * k + 1] = box[FILL, k, m] * turned[LOOSE, m, k]
        col[FREE, m] = col[ROOM, m] / col[PRICE, m]
        whole = col[FREE, m] + total
        col[WHOLE, m] = whole
        _column(turned[LOOSE, m], col[FREE, m], whole, turned[ASKED, m], turned[ANSWER, m])
        for p in range(last):
            part = moved[p] / whole
            if part != 0.0:
                for q in range(p):
                    system[p, q] -= part * moved[q]
    for k in range(n_dev):
        a, b = 2 * k, 2 * k + 1
        m_aa, m_ab, m_bb = 0.0, 0.0, 0.0
        for m in range(n_col):
            u0, u1 = box[PROFIT, k, m], box[FILL, k, m]
            if u1 == 0.0:
                continue
            loose, whole = turned[LOOSE, m, k], col[WHOLE, m]
            rest = _rest(turned[LOOSE, m], col[FREE, m], k) if loose > 0.5 * whole else whole - loose
            weight = loose * (rest / whole)
            m_aa += weight * u0 * u0
            m_ab += weight * u0 * u1
            m_bb += weight * u1 * u1
            system[a, right] += u0 * turned[ANSWER, m, k]
            system[b, right] += u1 * turned[ANSWER, m, k]
        system[a, a], system[b, a], system[b, b] = m_aa, m_ab, m_bb
        # The device's own block in y; rank-one parts of it can be large: its diagonal as a scale keeps the digits.
        side = one[SIDE, k]
        if joint:
            way[RIGHT_Y, k, X] -= side * f1 / f2
        for p in range(NUM_Y):
            way[ROOT, k, p] = 1.0 / math.sqrt(hess[k, p, p])
        for p in range(NUM_Y):
            root = way[ROOT, k, p]
            for q in range(NUM_Y):
                block[p, q] = hess[k, p, q] * root * way[ROOT, k, q]
            block[p, NUM_Y] = grad[k, H_SEND, p] * root
            block[p, NUM_Y + 1] = -root if p == POWER else 0.0
            block[p, NUM_Y + 2] = side * root if p == X else 0.0
            block[p, NUM_Y + 3] = way[RIGHT_Y, k, p] * root
        if not eliminate(block):  # with pivots, for rounding can leave it indefinite
            return math.inf
        for p in range(NUM_Y):
            for i in range(_LINKS + 1):
                solved[k, p, i] = block[p, NUM_Y + i] * way[ROOT, k, p]
        for i in range(_LINKS + 1):
            at = 2 * k + i if i < 2 else last + i - 2
            flow = 0.0
            for p in range(NUM_Y):
                flow += grad[k, H_SEND, p] * solved[k, p, i]
            if at <= a or at == right:  # the lower half will do
                system[a, at] += flow
            if at <= b or at == right:
                system[b, at] -= solved[k, POWER, i]
            system[last, at] += side * solved[k, X, i]
        bend = con[DUAL, k, H_SEND] * table[k, BAND] / (one[LEVEL, k] * one[LEVEL, k] * one[UNDER, k])
        system[a, a] += con[SLACK, k, H_SEND] / con[DUAL, k, H_SEND]
        system[b, b] += 1.0 / bend
        system[a, right] -= target / con[DUAL, k, H_SEND] - con[VALUE, k, H_SEND]
    if coupling != 0.0:
        system[last, last] += 1.0 / coupling
    else:
        for p in range(last):
            system[last, p] = 0.0
        system[last, last], system[last, right] = 1.0, 0.0
    for p in range(right):
        for q in range(p):
            system[q, p] = system[p, q]
    if not eliminate(system):
        return math.nan
    d_common = -f1 / f2 if joint else 0.0
    total = 0.0
    for k in range(n_dev):
        low_a, low_b = system[2 * k, right], system[2 * k + 1, right]
        for p in range(NUM_Y):
            change = solved[k, p, 3] - solved[k, p, 0] * low_a - solved[k, p, 1] * low_b
            if coupling != 0.0:
                change -= solved[k, p, 2] * system[last, right]
            way[STEP_Y, k, p] = change
            total += change
        if joint:
            d_common += one[SIDE, k] / f2 * way[STEP_Y, k, X]
        one[D_SEND, k] = -low_a
        for m in range(n_col):
            turned[ASKED, m, k] -= box[PROFIT, k, m] * low_a + box[FILL, k, m] * low_b
    for m in range(n_col):
        change = -_column(turned[LOOSE, m], col[FREE, m], col[WHOLE, m], turned[ASKED, m], turned[ANSWER, m])
        col[D_ROOM, m] = change
        total += change
        for k in range(n_dev):
            box[STEP, k, m] = turned[ANSWER, m, k]
            total += turned[ANSWER, m, k]
    return d_common if math.isfinite(total) else math.nan
