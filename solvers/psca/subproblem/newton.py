r"""The Newton step of P-SCA's sub-problem (solvers/psca/subproblem/step.py), by its structure.

Devices meet in column sums only. Each device's block in y is solved apart; what is left couples its shares and
two numbers of it, the multiplier of its payload and the bend of its rate, with those of all others, and with one
number for the pooled gap (or the common keep rate): solvers/psca/subproblem/coupling.py.

Derived: docs/psca.md, section 3.
"""

from __future__ import annotations

import math

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
from edgealloc.solvers.psca.subproblem.coupling import column, eliminate, many_columns, one_column
from edgealloc.solvers.psca.subproblem.workspace import (
    ANSWER,
    ASKED,
    D_ROOM,
    D_SEND,
    DIAG,
    DUAL,
    FILL,
    FLOW,
    FREE,
    LEVEL,
    LINKS,
    LOOSE,
    MISS,
    PRICE,
    PROFIT,
    RIGHT,
    RIGHT_Y,
    ROOM,
    ROOT,
    SIDE,
    SLACK,
    SOFT,
    STEP,
    STEP_Y,
    STRAIGHT,
    UNDER,
    VALUE,
    WHOLE,
    Z_HI,
    Z_LO,
)

__all__ = ["direction", "linearise"]


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
        Of :class:`~edgealloc.solvers.psca.subproblem.workspace.Workspace`. Shapes [5, K, 11], [9, K, M], [6, M],
        [11, K], [3, K, 5], [K, 11, 5], [K, 5, 5].
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
        Of :class:`~edgealloc.solvers.psca.subproblem.workspace.Workspace`. Shapes [5, K, 11], [9, K, M], [6, M],
        [11, K], [3, K, 5], [K, 11, 5], [K, 5, 5].
    turned, moved, system, block, solved
        Its scratch. Shapes [4, M, K], [2 K + 1], [2 K + 1, 2 K + 2] (unless M = 1), [5, 9],
        [K, 5, 4].
    """
    n_dev, n_col = box.shape[1], box.shape[2]
    coupling = -1.0 / f2 if joint else g2
    for m in range(n_col):
        total = 0.0
        for k in range(n_dev):
            turned[LOOSE, m, k], turned[ASKED, m, k] = 1.0 / box[DIAG, k, m], box[RIGHT, k, m]
            total += turned[LOOSE, m, k]
        col[FREE, m] = col[ROOM, m] / col[PRICE, m]
        col[WHOLE, m] = col[FREE, m] + total
    for k in range(n_dev):
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
            for i in range(LINKS + 1):
                solved[k, p, i] = block[p, NUM_Y + i] * way[ROOT, k, p]
        for i in range(LINKS + 1):
            flow = 0.0
            for p in range(NUM_Y):
                flow += grad[k, H_SEND, p] * solved[k, p, i]
            one[FLOW + i, k] = flow
        bend = con[DUAL, k, H_SEND] * table[k, BAND] / (one[LEVEL, k] * one[LEVEL, k] * one[UNDER, k])
        one[SOFT, k], one[STRAIGHT, k] = con[SLACK, k, H_SEND] / con[DUAL, k, H_SEND], 1.0 / bend
        one[MISS, k] = target / con[DUAL, k, H_SEND] - con[VALUE, k, H_SEND]
    if n_col == 1:
        one_column(coupling, box, col, one, turned, moved, solved)
    elif not many_columns(coupling, box, col, one, turned, moved, system, solved):
        return math.nan
    d_common = -f1 / f2 if joint else 0.0
    total = 0.0
    for k in range(n_dev):
        low_a, low_b = moved[2 * k], moved[2 * k + 1]
        for p in range(NUM_Y):
            change = solved[k, p, 3] - solved[k, p, 0] * low_a - solved[k, p, 1] * low_b
            if coupling != 0.0:
                change -= solved[k, p, 2] * moved[2 * n_dev]
            way[STEP_Y, k, p] = change
            total += change
        if joint:
            d_common += one[SIDE, k] / f2 * way[STEP_Y, k, X]
        one[D_SEND, k] = -low_a
    for m in range(n_col):
        if n_col > 1:  # one column has its step already
            for k in range(n_dev):
                turned[ASKED, m, k] -= box[PROFIT, k, m] * moved[2 * k] + box[FILL, k, m] * moved[2 * k + 1]
            col[D_ROOM, m] = -column(
                turned[LOOSE, m], col[FREE, m], col[WHOLE, m], turned[ASKED, m], turned[ANSWER, m]
            )
        total += col[D_ROOM, m]
        for k in range(n_dev):
            box[STEP, k, m] = turned[ANSWER, m, k]
            total += turned[ANSWER, m, k]
    return d_common if math.isfinite(total) else math.nan
