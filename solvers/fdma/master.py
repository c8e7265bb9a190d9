r"""The best mix of columns under several caps, by HiGHS: prices of all rows at once.

A column is a device with a cost, what it takes of each row, and its kept share q. With weights x_j >= 0 that add
up to 1 for each device,

.. math::
    \min \sum_j c_j x_j + y \quad\text{s.t.}\quad \sum_j u_{ij} x_j \le L_i,\;
    y \ge \mathrm{gap}(Q_t) + \mathrm{gap}'(Q_t) \Big(\sum_j q_j x_j - Q_t\Big)

The duals of the rows are prices; what they prove is for the caller to evaluate, so that no tolerance of HiGHS
enters a bound. Derived: docs/constraints.md, *Slices*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgealloc.solvers.quiet import quiet_highs
from edgealloc.units import FloatArray, IntArray

__all__ = ["Mix", "mix_columns", "sides"]

_SCALE = 1e4  # of the objective over its size: the tolerances of HiGHS are absolute
_SETTINGS = {
    "threads": 1,
    "presolve": "off",  # the programs are small, and duals wanted
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}
# What is tried in turn where HiGHS is not sure, for columns are much alike near the end: its primal simplex
# method, and to be content with less.
_OTHERWISE: tuple[dict[str, int | float], ...] = (
    {"simplex_strategy": 4},
    {"primal_feasibility_tolerance": 1e-7, "dual_feasibility_tolerance": 1e-7},
)
_NONE = 1e-9  # weights below it count as zero


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """What HiGHS says.

    Parameters
    ----------
    prices
        Price of a unit of each row, >= 0. Shape [R].
    nu
        Price of a unit of the kept share of each pool. Shape [E].
    weight
        Weights of the columns, those of each device add up to 1. Shape [N].
    """

    prices: FloatArray
    nu: FloatArray
    weight: FloatArray


def mix_columns(
    device: IntArray,
    cost: FloatArray,
    usage: FloatArray,
    kept: FloatArray,
    limit: FloatArray,
    tangents: Sequence[Sequence[tuple[float, float, float]]],
    size: float,
    pool: IntArray | None = None,
    share: FloatArray | None = None,
) -> Mix | None:
    """Solve the linear program.

    Parameters
    ----------
    device, cost, kept
        Of the columns; every device from 0 on has one. Shapes [N].
    usage, limit
        What columns take of each row, and what there is. Shapes [R, N], [R].
    tangents
        (Q, gap(Q), gap'(Q)) of each pool's stability term; none where devices have their own. Of length E.
    size
        Size of the objective.
    pool, share
        The pool of each column and the weights w_e of the pools, whose Q is the kept share over w_e; None: one of
        weight 1. Shapes [N], [E].

    Returns
    -------
    Mix or None
        None when HiGHS finds no optimum.
    """
    import highspy
    from scipy.sparse import coo_array

    count, rows, scale = len(cost), len(limit), _SCALE / size
    devices = int(device.max()) + 1
    unit = np.where(limit > 0.0, limit, 1.0)
    i, j = np.nonzero(usage)
    places = [(device, np.arange(count), np.ones(count)), (devices + i, j, usage[i, j] / unit[i])]
    each = np.ones(len(tangents)) if share is None else share
    flat = [(e, *tangent) for e, own in enumerate(tangents) for tangent in own]
    for t, (e, _q, _value, slope) in enumerate(flat):
        mine = np.arange(count) if pool is None else np.flatnonzero(pool == e)
        row = np.full(len(mine) + 1, devices + rows + t)
        places.append((row[1:], mine, -slope * scale * kept[mine] / each[e]))
        places.append((row[:1], np.array([count + e]), np.ones(1)))
    row, column, value = (np.concatenate(part) for part in zip(*places, strict=True))
    total, pools = devices + rows + len(flat), max(len(tangents), 1)
    matrix = coo_array((value, (row, column)), shape=(total, count + pools)).tocsc()
    low, high = np.full(total, -highspy.kHighsInf), np.full(total, highspy.kHighsInf)
    low[:devices] = high[:devices] = 1.0
    high[devices : devices + rows] = limit / unit
    low[devices + rows :] = [scale * (value - slope * q) for _e, q, value, slope in flat]
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count + pools, total
    lp.col_cost_ = np.append(scale * cost, each if len(each) else 1.0)
    lp.col_lower_ = np.append(np.zeros(count), np.full(pools, -highspy.kHighsInf if flat else 0.0))
    lp.col_upper_ = np.full(count + pools, highspy.kHighsInf)
    lp.row_lower_, lp.row_upper_ = low, high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    engine = quiet_highs()
    for name, setting in _SETTINGS.items():
        engine.setOptionValue(name, setting)
    engine.passModel(lp)
    engine.run()
    for other in _OTHERWISE:
        if engine.getModelStatus().name != "kUnknown":
            break
        engine.clearSolver()
        for name, setting in other.items():
            engine.setOptionValue(name, setting)
        engine.run()
    if engine.getModelStatus().name != "kOptimal":
        return None
    solution = engine.getSolution()
    dual, weight = np.array(solution.row_dual), np.maximum(np.array(solution.col_value)[:count], 0.0)
    weight[weight < _NONE] = 0.0
    weight /= np.bincount(device, weight, devices)[device]
    duals, nu = np.maximum(dual[devices + rows :], 0.0), np.zeros(pools)
    which, slopes = np.array([e for e, *_ in flat], np.intp), np.array([slope for *_, slope in flat])
    for e in range(len(tangents)):
        own = which == e
        if duals[own].sum() > 0.0:
            nu[e] = float(duals[own] @ slopes[own] / duals[own].sum())
    prices = np.maximum(-dual[devices : devices + rows], 0.0) / (scale * unit)
    return Mix(prices, nu, weight)


def sides(device: IntArray, weight: FloatArray) -> tuple[IntArray, FloatArray]:
    """Weights of columns as a mix of whole choices: one column a device on each side.

    Parameters
    ----------
    device, weight
        Of the columns, sorted by device; the weights of each device add up to 1. Shapes [N].

    Returns
    -------
    picks, share
        Columns on S sides and how much each counts. Shapes [S, K], [S].
    """
    used = np.flatnonzero(weight > 0.0)
    owner, devices = device[used], int(device.max()) + 1
    total = np.cumsum(weight[used])
    first = np.searchsorted(owner, np.arange(devices))
    before = np.append(0.0, total)[first]
    reached = total - before[owner]
    reached[np.append(first[1:], len(used)) - 1] = 1.0
    ends = np.unique(np.clip(np.round(reached, 12), 0.0, 1.0))
    ends = ends[ends > 0.0]
    picks = np.empty((len(ends), devices), dtype=np.intp)
    middle = ends - 0.5 * np.diff(ends, prepend=0.0)
    for k in range(devices):
        mine = slice(first[k], first[k + 1] if k + 1 < devices else len(used))
        at = np.searchsorted(reached[mine], middle)
        picks[:, k] = used[mine][np.minimum(at, mine.stop - mine.start - 1)]
    return picks, np.diff(ends, prepend=0.0)
