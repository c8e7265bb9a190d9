r"""One convex sub-problem of P-SCA, solved by a primal-dual interior-point method that knows its structure.

    minimise    sum_k [share_k(x_k) + elastic v_k + lin_c_k . c_k]  +  gap(sum_k w_k e^2x_k)
    subject to  every device's constraints (solvers/psca/device.py),  sum_k c_km <= 1,  c in a box.

The curved constraints h >= 0 have slacks s: h = s is met in the limit only, so that long steps need not stay
inside them. Each step aims at complementarity products target, chosen by how uneven they are (Vanderbei and
Shanno, Computational Optimization and Applications 13, 1999), and is cut short of the boundary only.

Derived: docs/psca.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.psca.device import (
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
from edgealloc.solvers.psca.subproblem.newton import direction, linearise
from edgealloc.solvers.psca.subproblem.workspace import (
    D_DUAL,
    D_PRICE,
    D_ROOM,
    D_SEND,
    D_SLACK,
    DUAL,
    DZ_HI,
    DZ_LO,
    LEVEL,
    PRICE,
    PROFIT,
    ROOM,
    SLACK,
    STEP,
    STEP_Y,
    UNDER,
    VALUE,
    Z_HI,
    Z_LO,
    workspace,
)
from edgealloc.units import FloatArray, IntArray

__all__ = ["sub_problem"]

_STATIONARY = 1e-5  # dual residual that counts as none: the iterates' accuracy, not the bound's, depends on it
_EXACT = 1e-9  # largest difference of a constraint and its slack
_FAR = 2.0  # longest step in a logarithm
_SHORT = 0.99  # of the way to the boundary
_CALL = 5e7  # multiplications between two looks at the clock, well below 0.1 s; systems of many columns are dense
_DEVICE = 5000  # multiplications, or what takes as long, of one device in one Newton step


@kernel(inner=True)
def _objective(table, pool, lin_c, elastic, joint, common, y, share):  # type: ignore[no-untyped-def]
    """Objective of the sub-problem.

    Parameters
    ----------
    table, pool
        Device table and stability term. Shapes [K, 19], [5].
    lin_c, share
        Linear cost of the shares, and the shares. Shapes [K, M].
    y
        Points of the devices. Shape [K, 5].
    elastic, joint, common : numbers
        Cost of a unit of v, whether all share one keep rate, and its logarithm.
    """
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


@kernel(inner=True)
def _cut(value, change, step):  # type: ignore[no-untyped-def]
    """The step, or less if the value would come too near to 0."""
    return min(step, -_SHORT * value / change) if change < 0.0 else step


def sub_problem(
    table: FloatArray, pool: FloatArray, inverse: FloatArray, order: IntArray, lin_c: FloatArray,
    c_lo: FloatArray, c_hi: FloatArray, elastic: float, joint: bool, tol: float, max_steps: int,
    y: FloatArray, share: FloatArray, common: FloatArray, stopped: Callable[[], bool] = lambda: False,
) -> tuple[float, float, float, int, FloatArray]:  # fmt: skip
    """Solve the sub-problem from a strictly feasible start, in place.

    Parameters
    ----------
    table, pool
        Device table [K, 19] and stability term [5] (solvers/psca/device.py).
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
    stopped
        Whether to end as far as it came; asked now and then.

    Returns
    -------
    objective, gap, residual, steps, prices
        ``residual`` is the larger of the dual one and of h - s; ``prices`` [M] are those of the column sums. The
        objective is ``nan`` if a device without a channel leaves its step without a unique answer.
    """
    work = workspace(*inverse.shape)
    devices, columns = inverse.shape
    dense = (2 * devices + 1) ** 3 + columns * (2 * devices) ** 2 if columns > 1 else 0
    some = max(1, int(_CALL / (_DEVICE * devices + dense)))
    steps, step, ended = 0, 1.0, False
    while not ended and steps < max_steps and (steps == 0 or not stopped()):
        until = min(steps + some, max_steps)
        value, gap, residual, steps, step, ended = _iterate(
            table, pool, inverse, order, lin_c, c_lo, c_hi, elastic, joint, tol, until, steps, step,
            y, share, common, *work,
        )  # fmt: skip
    return value, gap, residual, steps, work.col[PRICE]


@kernel
def _iterate(  # type: ignore[no-untyped-def]
    table, pool, inverse, order, lin_c, c_lo, c_hi, elastic, joint, tol, until, steps, step, y, share, common,
    con, box, col, one, way, grad, hess, turned, moved, system, block, solved,
):  # fmt: skip
    """Kernel of :func:`sub_problem`, whose arrays it takes, then those of a workspace: fresh, or to go on with.

    Parameters
    ----------
    table, pool
        Shapes [K, 19], [5].
    inverse, order, lin_c, c_lo, c_hi
        Shapes [K, M].
    elastic, joint, tol, until, steps, step : numbers
        As for :func:`sub_problem`, where ``until`` steps in all are enough for this call; the steps made so far
        and the length of the last one, 0 and 1 to begin with.
    y, share, common
        Start and result. Shapes [K, 5], [K, M], [1].
    con, box, col, one, way, grad, hess
        Of :class:`~edgealloc.solvers.psca.subproblem.workspace.Workspace`. Shapes [5, K, 11], [9, K, M], [6, M],
        [11, K], [3, K, 5], [K, 11, 5], [K, 5, 5].
    turned, moved, system, block, solved
        Its scratch. Shapes [4, M, K], [2 K + 1], [2 K + 1, 2 K + 2] (unless M = 1), [5, 9], [K, 5, 4].

    Returns
    -------
    objective, gap, residual, steps, step, ended
        As :func:`sub_problem`; the prices are in ``col``. ``ended`` is false where only ``until`` stopped it.
    """
    n_dev, n_col = inverse.shape
    n_h = NUM_H if joint else NUM_H - 1
    count = n_dev * n_h + n_dev * n_col + n_col
    for k in range(n_dev):
        for m in range(n_col):
            if c_hi[k, m] < math.inf:
                count += 1
    if steps == 0:
        mu = 0.0
        for k in range(n_dev):
            one[LEVEL, k], one[UNDER, k] = constraints(
                table[k], inverse[k], order[k], y[k], share[k], common[0], con[VALUE, k]
            )
            mu += abs(share_of(table[k], pool, y[k, X])[1]) / n_dev
        mu *= 0.02  # about a fiftieth of the objective's slopes
        for m in range(n_col):
            total = 0.0
            for k in range(n_dev):
                total += share[k, m]
            col[ROOM, m] = 1.0 - total
            col[PRICE, m] = mu / col[ROOM, m]
        for k in range(n_dev):
            for j in range(n_h):
                con[SLACK, k, j] = con[VALUE, k, j]
                con[DUAL, k, j] = mu / con[SLACK, k, j]
            for m in range(n_col):
                box[Z_LO, k, m] = mu / (share[k, m] - c_lo[k, m])
                if c_hi[k, m] < math.inf:
                    box[Z_HI, k, m] = mu / (c_hi[k, m] - share[k, m])
    while True:
        # Where we stand: duality gap, the least product, what the slacks are off.
        gap, least, off = 0.0, math.inf, 0.0
        for k in range(n_dev):
            for j in range(n_h):
                product = con[DUAL, k, j] * con[SLACK, k, j]
                gap += product
                least = min(least, product)
                off = max(off, abs(con[VALUE, k, j] - con[SLACK, k, j]))
            for m in range(n_col):
                product = box[Z_LO, k, m] * (share[k, m] - c_lo[k, m])
                gap += product
                least = min(least, product)
                if c_hi[k, m] < math.inf:
                    product = box[Z_HI, k, m] * (c_hi[k, m] - share[k, m])
                    gap += product
                    least = min(least, product)
        for m in range(n_col):
            product = col[PRICE, m] * col[ROOM, m]
            gap += product
            least = min(least, product)
        uneven = least * count / gap
        target = max(0.1 * min(0.05 * (1.0 - uneven) / uneven, 2.0) ** 3 * gap, 0.3 * tol) / count
        residual, f1, f2, g2 = linearise(
            table, pool, inverse, lin_c, elastic, joint, target, common[0], y, share, c_lo, c_hi,
            con, box, col, one, way, grad, hess,
        )  # fmt: skip
        ended = step < 1e-9 or (gap <= tol and residual <= _STATIONARY and off <= _EXACT)
        if ended or steps >= until:
            break
        steps += 1
        d_common = direction(
            table, joint, target, f1, f2, g2, con, box, col, one, way, grad, hess, turned, moved, system, block,
            solved,
        )  # fmt: skip
        if d_common == math.inf:
            return math.nan, math.inf, math.inf, steps, step, True
        if not math.isfinite(d_common):
            ended = True  # by rounding; gap and residual say how far it came
            break
        # Slack and dual directions, and the longest step that keeps everything positive.
        step, far = 1.0, 0.0
        for k in range(n_dev):
            flow = 0.0
            for m in range(n_col):
                flow += box[PROFIT, k, m] * box[STEP, k, m]
            for j in range(n_h):
                slack, dual = con[SLACK, k, j], con[DUAL, k, j]
                change = con[VALUE, k, j] - slack
                for p in range(NUM_Y):
                    change += grad[k, j, p] * way[STEP_Y, k, p]
                if j == H_SEND:
                    change += flow
                elif j == H_COMMON:
                    change -= d_common
                con[D_SLACK, k, j] = change
                con[D_DUAL, k, j] = one[D_SEND, k] if j == H_SEND else (target - dual * change) / slack - dual
                step = _cut(dual, con[D_DUAL, k, j], _cut(slack, change, step))
            for p in range(POWER):
                far = max(far, abs(way[STEP_Y, k, p]))
            for m in range(n_col):
                low, dual, change = share[k, m] - c_lo[k, m], box[Z_LO, k, m], box[STEP, k, m]
                box[DZ_LO, k, m] = (target - dual * change) / low - dual
                step = _cut(dual, box[DZ_LO, k, m], _cut(low, change, step))
                if c_hi[k, m] < math.inf:
                    high, dual = c_hi[k, m] - share[k, m], box[Z_HI, k, m]
                    box[DZ_HI, k, m] = (target + dual * change) / high - dual
                    step = _cut(dual, box[DZ_HI, k, m], _cut(high, -change, step))
        for m in range(n_col):
            dual = col[PRICE, m]
            col[D_PRICE, m] = (target - dual * col[D_ROOM, m]) / col[ROOM, m] - dual
            step = _cut(dual, col[D_PRICE, m], _cut(col[ROOM, m], col[D_ROOM, m], step))
        step = min(step, _FAR / max(far, 1e-300))
        common[0] += step * d_common
        for k in range(n_dev):
            for p in range(NUM_Y):
                y[k, p] += step * way[STEP_Y, k, p]
            for m in range(n_col):
                share[k, m] += step * box[STEP, k, m]
                box[Z_LO, k, m] += step * box[DZ_LO, k, m]
                box[Z_HI, k, m] += step * box[DZ_HI, k, m]
            one[LEVEL, k], one[UNDER, k] = constraints(
                table[k], inverse[k], order[k], y[k], share[k], common[0], con[VALUE, k]
            )
            for j in range(n_h):
                # of linear constraints the slack is the constraint
                slack = con[VALUE, k, j]
                if j <= H_ENERGY:
                    slack = con[SLACK, k, j] + step * con[D_SLACK, k, j]
                con[SLACK, k, j] = slack
                con[DUAL, k, j] += step * con[D_DUAL, k, j]
        for m in range(n_col):
            col[ROOM, m] += step * col[D_ROOM, m]
            col[PRICE, m] += step * col[D_PRICE, m]
    value = _objective(table, pool, lin_c, elastic, joint, common[0], y, share)
    return value, gap, max(residual, off), steps, step, ended
