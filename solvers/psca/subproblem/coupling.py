r"""What couples the devices in the Newton step of P-SCA's sub-problem: the columns, and the pooled gap.

A device's own part is solved already (``solved``): with the multiplier a of its payload, the bend b of its rate
and the last number L its step is s_3 - a s_0 - b s_1 - L s_2. Per column the matrix diag(D) + s 1 1^T is inverted
in closed form, without cancellation.

Derived: docs/psca.md, section 3.
"""

from __future__ import annotations

import math

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.psca.device import POWER, X
from edgealloc.solvers.psca.subproblem.workspace import (
    ANSWER,
    ASKED,
    D_ROOM,
    FILL,
    FLOW,
    FREE,
    LINKS,
    LOOSE,
    MISS,
    PROFIT,
    PULL,
    SIDE,
    SOFT,
    STEP,
    STRAIGHT,
    WHOLE,
)

__all__ = ["column", "eliminate", "many_columns", "one_column"]


@kernel(inner=True)
def _rest(loose, free, k):  # type: ignore[no-untyped-def]
    """Sum of ``free`` and ``loose`` [K] without k's: a difference that would cancel where k dominates."""
    total = free
    for i in range(loose.size):
        if i != k:
            total += loose[i]
    return total


@kernel(inner=True)
def column(loose, free, whole, right, answer):  # type: ignore[no-untyped-def]
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
def many_columns(coupling, box, col, one, turned, moved, system, solved):  # type: ignore[no-untyped-def]
    """Columns first: fills ``moved`` with what couples, from a system of size 2 K + 1; False if that is singular.

    Eliminating devices first loses ten digits where shares are near 0 and 1; here the shares and slacks of which
    one device has most are sums, not differences.

    Parameters
    ----------
    coupling : number
        Bend of the pooled gap, or minus one over that of the common keep rate; 0 where neither couples.
    box, col, one
        Of :class:`~edgealloc.solvers.psca.subproblem.workspace.Workspace`. Shapes [9, K, M], [6, M], [11, K].
    turned, moved, system, solved
        Its scratch. Shapes [4, M, K], [2 K + 1], [2 K + 1, 2 K + 2], [K, 5, 4].
    """
    n_dev, n_col = box.shape[1], box.shape[2]
    last = 2 * n_dev
    right = last + 1
    for p in range(right):
        for q in range(right + 1):
            system[p, q] = 0.0
    # Between devices: minus the outer product of what each device's two numbers move in the column sums.
    for m in range(n_col):
        for k in range(n_dev):
            moved[2 * k] = box[PROFIT, k, m] * turned[LOOSE, m, k]
            moved[2 * k + 1] = box[FILL, k, m] * turned[LOOSE, m, k]
        whole = col[WHOLE, m]
        column(turned[LOOSE, m], col[FREE, m], whole, turned[ASKED, m], turned[ANSWER, m])
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
        for i in range(LINKS + 1):
            at = 2 * k + i if i < 2 else last + i - 2
            if at <= a or at == right:  # the lower half will do
                system[a, at] += one[FLOW + i, k]
            if at <= b or at == right:
                system[b, at] -= solved[k, POWER, i]
            system[last, at] += one[SIDE, k] * solved[k, X, i]
        system[a, a] += one[SOFT, k]
        system[b, b] += one[STRAIGHT, k]
        system[a, right] -= one[MISS, k]
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
        return False
    for p in range(right):
        moved[p] = system[p, right]
    return True


@kernel(inner=True)
def _pair(one, solved, k):  # type: ignore[no-untyped-def]
    """Factors (d0, l, d1) of a device's matrix in its two numbers, apart from its share: L diag(d0, d1) L^T."""
    d0 = one[FLOW, k] + one[SOFT, k]
    low = -solved[k, POWER, 0] / d0
    # what is left is at least the bend's part, however much the rest cancels
    return d0, low, max(one[STRAIGHT, k] - solved[k, POWER, 1] + low * solved[k, POWER, 0], one[STRAIGHT, k])


@kernel(inner=True)
def one_column(coupling, box, col, one, turned, moved, solved):  # type: ignore[no-untyped-def]
    """Devices first, in time O(K): fills ``moved`` with what couples, the step of the shares, and D_ROOM.

    With S a device's matrix in its two numbers and u what its share adds to them, S (a, b) + v L = u c + t, where
    c is the step of the share. So the share is less loose, 1/loose + u^T S^-1 u in place of 1/loose, a sum of
    positive numbers, and the column is what it was. L follows from the last row.

    Parameters
    ----------
    coupling : number
        As for :func:`many_columns`.
    box, col, one, turned, moved, solved
        As there. Shapes [9, K, 1], [6, 1], [11, K], [4, 1, K], [2 K + 1], [K, 5, 4].
    """
    n_dev = box.shape[1]
    loose, asked, answer, pull = turned[LOOSE, 0], turned[ASKED, 0], turned[ANSWER, 0], turned[PULL, 0]
    whole, above, below = col[FREE, 0], 0.0, 0.0
    for k in range(n_dev):
        d0, low, d1 = _pair(one, solved, k)
        u0, t0, v0 = box[PROFIT, k, 0], one[FLOW + LINKS, k] - one[MISS, k], one[FLOW + 2, k]
        u1 = box[FILL, k, 0] - low * u0
        t1 = -solved[k, POWER, LINKS] - low * t0
        v1 = -solved[k, POWER, 2] - low * v0
        loose[k] /= 1.0 + loose[k] * (u0 * u0 / d0 + u1 * u1 / d1)
        asked[k] -= u0 * t0 / d0 + u1 * t1 / d1
        pull[k] = u0 * v0 / d0 + u1 * v1 / d1
        above += one[SIDE, k] * solved[k, X, LINKS] - (v0 * t0 / d0 + v1 * t1 / d1)
        below += one[SIDE, k] * solved[k, X, 2] - (v0 * v0 / d0 + v1 * v1 / d1)
        whole += loose[k]
    last = 0.0
    if coupling != 0.0:
        column(loose, col[FREE, 0], whole, pull, answer)
        below += 1.0 / coupling
        for k in range(n_dev):
            above -= answer[k] * asked[k]
            below += answer[k] * pull[k]
        last = above / below
        for k in range(n_dev):
            asked[k] += pull[k] * last
    col[D_ROOM, 0] = -column(loose, col[FREE, 0], whole, asked, answer)
    moved[2 * n_dev] = last
    for k in range(n_dev):
        d0, low, d1 = _pair(one, solved, k)
        first = box[PROFIT, k, 0] * answer[k] + one[FLOW + LINKS, k] - one[MISS, k] - one[FLOW + 2, k] * last
        second = box[FILL, k, 0] * answer[k] - solved[k, POWER, LINKS] + solved[k, POWER, 2] * last
        bend = (second - low * first) / d1
        moved[2 * k], moved[2 * k + 1] = first / d0 - low * bend, bend
        box[STEP, k, 0] = answer[k]
