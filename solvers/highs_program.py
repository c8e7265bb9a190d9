r"""The mixed-integer linear program over pieces that HiGHS solves; see :mod:`edgealloc.solvers.highs_backend`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.sideconstraints import SideConstraint
from edgealloc.solvers.base import Control
from edgealloc.solvers.choices import OUT, Choices, IntArray
from edgealloc.solvers.pieces import Pieces
from edgealloc.units import FloatArray

__all__ = ["Answer", "solve_program"]


@dataclass(slots=True, eq=False)
class _Rows:
    """Rows of a sparse matrix as they come: ``low <= sum value x[column] <= high``."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    row: list[FloatArray] = field(default_factory=list)
    column: list[FloatArray] = field(default_factory=list)
    value: list[FloatArray] = field(default_factory=list)

    def add(self, low: float, high: float, *parts: tuple[Any, Any]) -> None:
        for column, value in parts:
            column = np.atleast_1d(column)
            self.row.append(np.full(len(column), len(self.low)))
            self.column.append(column)
            self.value.append(np.broadcast_to(np.asarray(value, dtype=np.float64), column.shape))
        self.low.append(low)
        self.high.append(high)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What HiGHS says of one program: its word, bound, and the piece, S = s^2 and bandwidth of each device."""

    native: str
    bound: float
    objective: float
    nodes: int
    piece: IntArray | None
    square: FloatArray
    band_hz: FloatArray
    kept: float


def solve_program(
    choices: Choices, pieces: Pieces, user: tuple[SideConstraint, ...], touches: list[float], control: Control
) -> Answer:
    """Build and solve one program; ``touches`` are the values of Q at which tangents of the stability term stand.

    Columns: weights of both ends of the pieces, picks, shares of the band, Q, gap, a common S, blocks.
    """
    import highspy
    from scipy.sparse import coo_array

    problem, inst = choices.problem, choices.problem.instance
    n, k = len(pieces), inst.num_devices
    whole = inst.bandwidth_hz
    ends = np.arange(2 * n).reshape(n, 2)
    pick, share = 2 * n + np.arange(n), 3 * n + np.arange(k)
    kept, gap, common = 3 * n + k, 3 * n + k + 1, 3 * n + k + 2
    blocks = 3 * n + k + 3 + np.arange(k if choices.block_hz else 0)
    total = 3 * n + k + 3 + len(blocks)
    scale = 1.0 / problem.free_objective
    cost = np.zeros(total)
    cost[ends] = scale * pieces.cost
    cost[gap] = scale if problem.pooled else 0.0
    upper = np.ones(total)
    upper[gap] = highspy.kHighsInf
    upper[ends[~pieces.divisible, 1]] = 0.0  # a point needs one end only
    rows = _Rows()
    square = np.stack((pieces.left, pieces.right), axis=1) ** 2
    for i in range(n):
        rows.add(0.0, 0.0, (ends[i], 1.0), (pick[i], -1.0))
    for d in range(k):
        own = np.flatnonzero(pieces.device == d)
        rows.add(1.0, 1.0, (pick[own], 1.0))
        rows.add(-math.inf, 0.0, (ends[own].ravel(), pieces.band[own].ravel() / whole), (share[d], -1.0))
        if choices.block_hz:
            rows.add(-math.inf, 0.0, (share[d], 1.0), (blocks[d], -choices.block_hz / whole))
        if inst.common_keep:
            inside, outside = own[pieces.mode[own] != OUT], own[pieces.mode[own] == OUT]
            rows.add(-math.inf, 0.0, (ends[inside].ravel(), square[inside].ravel()), (common, -1.0))
            rows.add(
                0.0, math.inf, (ends[inside].ravel(), square[inside].ravel()), (common, -1.0), (pick[outside], 1.0)
            )
    if choices.block_hz:
        upper[blocks] = np.rint(choices.budget_hz / choices.block_hz)
        rows.add(-math.inf, float(upper[blocks[0]]), (blocks, 1.0))
    rows.add(-math.inf, choices.budget_hz / whole, (share, 1.0))
    rows.add(0.0, 0.0, (ends.ravel(), pieces.kept.ravel()), (kept, -1.0))
    for q in touches if problem.pooled else ():
        value, slope = float(problem.stability.value(np.asarray(q))), problem.stability.pooled_slope(q)
        rows.add(value - slope * q, math.inf, (gap, 1.0), (kept, -slope))
    out = np.flatnonzero(pieces.mode == OUT)
    for row in user:
        size = max(float(np.max(np.abs(row.bandwidth), initial=0.0)) * whole, 1.0)
        parts: list[tuple[Any, Any]] = []
        limit = row.limit / size
        if len(row.bandwidth):
            parts.append((share, row.bandwidth * whole / size))
        if len(row.selected):
            parts.append((pick[out], -row.selected[pieces.device[out]] / size))
            limit -= float(row.selected.sum()) / size
        rows.add(-math.inf, limit, *parts)
    matrix = coo_array(
        (np.concatenate(rows.value), (np.concatenate(rows.row), np.concatenate(rows.column))),
        shape=(len(rows.low), total),
    ).tocsr()
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = total, len(rows.low)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(total), upper
    lp.row_lower_, lp.row_upper_ = np.array(rows.low), np.array(rows.high)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    kind = [highspy.HighsVarType.kContinuous] * total
    for column in (*pick, *blocks):
        kind[column] = highspy.HighsVarType.kInteger
    lp.integrality_ = kind
    engine: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    engine.setOptionValue("output_flag", False)
    engine.setOptionValue("threads", 1)
    engine.setOptionValue("random_seed", control.options.seed)
    engine.setOptionValue("mip_rel_gap", 0.2 * control.options.rel_gap)
    engine.setOptionValue("primal_feasibility_tolerance", 1e-9)
    engine.setOptionValue("mip_feasibility_tolerance", 1e-9)
    if control.options.time_limit is not None:
        engine.setOptionValue("time_limit", max(control.options.time_limit - control.seconds, 0.01))
    engine.passModel(lp)
    engine.run()
    native, info = engine.getModelStatus().name, engine.getInfo()
    usable = bool(info.primal_solution_status == 2)  # a feasible point
    bound = float(info.mip_dual_bound) / scale if native != "kInfeasible" else math.inf
    if not usable:
        nothing = np.zeros(k)
        return Answer(native, bound, math.nan, max(int(info.mip_node_count), 0), None, nothing, nothing, 0.0)
    point = np.array(engine.getSolution().col_value)
    chosen = np.array(
        [own[np.argmax(point[pick[own]])] for own in (np.flatnonzero(pieces.device == d) for d in range(k))]
    )
    weight = point[ends[chosen]] / np.maximum(point[ends[chosen]].sum(axis=1, keepdims=True), 1e-12)
    return Answer(
        native=native,
        bound=bound,
        objective=float(info.objective_function_value) / scale,
        nodes=max(int(info.mip_node_count), 0),
        piece=chosen,
        square=np.sum(weight * square[chosen], axis=1),
        band_hz=point[share] * whole,
        kept=float(np.clip(point[kept], 0.0, 1.0)),
    )
