r"""The programs over pieces that HiGHS solves; see :mod:`edgealloc.solvers.backends.highs.solve`.

What is common to every access scheme is here: a device picks one piece, its cost and kept share are linear on it,
the stability term lies above its tangents. What a keep rate needs of the radio is for an :class:`Access` to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import HAIR, ParticipationCap, SpectrumCap, SubcarrierCap
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.base import Control
from edgealloc.solvers.quiet import quiet_highs
from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Access", "Answer", "Picks", "Rows", "pools_of", "solve_program"]

FEASIBILITY = 1e-9  # tolerance on rows, which only relaxes them
DUAL = 1e-10  # HiGHS' least tolerance on reduced costs: a bound may be too high by that per unit of a column
SUMS = 1e-9  # and by this for rounding in its sums, relatively
_SPREAD = 1e-6  # of the largest cost: HiGHS gives up on costs of 1e11, as where all that is free costs nothing
_LARGEST, _INFINITE = 1e15, 1e20  # HiGHS takes no program with such a coefficient, or such a side of a row
SUPPORT = 1e-6  # weights below it count as zero; a guide for refinement only


@dataclass(slots=True, eq=False)
class Rows:
    """Rows of a sparse matrix as they come: ``low <= sum value x[column] <= high``.

    Parameters
    ----------
    low, high
        Sides of the rows.
    row, column, value
        Places and values of the entries, an array per part of a row. Shapes [P].
    """

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    row: list[FloatArray] = field(default_factory=list)
    column: list[FloatArray] = field(default_factory=list)
    value: list[FloatArray] = field(default_factory=list)

    def add(self, low: float, high: float, *parts: tuple[Any, Any]) -> None:
        """One row; parts are (columns, values)."""
        for column, value in parts:
            column = np.atleast_1d(column)
            self.row.append(np.full(len(column), len(self.low)))
            self.column.append(column)
            self.value.append(np.broadcast_to(np.asarray(value, dtype=np.float64), column.shape))
        self.low.append(low)
        self.high.append(high)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What HiGHS says of one program.

    Parameters
    ----------
    native
        Its status in its own words.
    bound
        Lower bound of the program, less its tolerances; ``inf`` when infeasible, ``-inf`` for none.
    objective, nodes
        As reported.
    weight
        Weights of both ends of the pieces, shape [N, 2]; None without a point.
    radio, whole
        The columns of the access scheme, shape [R], and whether those that should be are integral.
    kept
        Q = sum_k w_k s_k^2; of each cluster that of its devices, where they have a stability term. Shape [E].
    excess
        Linear programs: picking a piece costs at least this much more than the bound. Shape [N].
    """

    native: str
    bound: float
    objective: float = math.nan
    nodes: int = 0
    weight: FloatArray | None = None
    radio: FloatArray = field(default_factory=lambda: np.zeros(0))
    whole: bool = False
    kept: FloatArray = field(default_factory=lambda: np.zeros(1))
    excess: FloatArray = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """What a program's point picks for each device.

    Parameters
    ----------
    mode
        The mode of each device. Shape [K].
    square
        S = s^2. Shape [K].
    single
        Whether no device mixes modes, levels, or intervals that are apart: integers would change little.
    """

    mode: IntArray
    square: FloatArray
    single: bool

    @classmethod
    def of(cls, pieces: Pieces, weight: FloatArray) -> Picks:
        """The heaviest piece of each device; S is the mean over the intervals of its mode, or its level's.

        ``weight`` are those of both ends of the pieces, shape [N, 2].
        """
        total, square = weight.sum(axis=1), np.stack((pieces.left, pieces.right), axis=1) ** 2
        mode, mean, single = [], [], True
        for own in np.split(np.arange(len(pieces)), np.flatnonzero(np.diff(pieces.device)) + 1):
            best = own[np.argmax(total[own])]
            some = own[(pieces.mode[own] == pieces.mode[best]) & pieces.divisible[own]]
            some = some if pieces.divisible[best] else np.array([best])
            mode.append(pieces.mode[best])
            mean.append(float(np.sum(weight[some] * square[some]) / max(float(weight[some].sum()), 1e-300)))
            used = own[total[own] > SUPPORT]
            joined = (pieces.right[used[:-1]] == pieces.left[used[1:]]) & (np.diff(pieces.mode[used]) == 0)
            single &= bool(joined.all() and (len(used) == 1 or pieces.divisible[used].all()))
        return cls(np.array(mode, dtype=np.intp), np.array(mean), single)


class Access(Protocol):
    """What keep rates need of the radio, as columns and rows; frozen, refined by replacement."""

    @property
    def choices(self) -> Choices:
        """Modes and their costs."""

    def columns(self) -> tuple[FloatArray, BoolArray]:
        """Upper bounds of the own columns (lower bounds are 0), and which are integral. Shapes [R]."""

    def add_rows(self, rows: Rows, first: int, ends: IntArray, pieces: Pieces) -> None:
        """The own rows; ``first`` is the own first column, ``ends`` [N, 2] those of the weights."""

    def bandwidth(self) -> tuple[IntArray, IntArray, FloatArray]:
        """Bandwidths in Hz as sums over own columns: (column, device, Hz per unit), of one shape [P]."""

    def plan(self, picks: Picks, radio: FloatArray) -> Allocation | None:
        """An allocation that breaks no budget and no constraint, from a point; ``radio`` [R]: its own columns."""

    def refined(self, pieces: Pieces, answer: Answer, picks: Picks) -> tuple[Access, Pieces]:
        """Sharper where a program's point lies; the same objects where nothing can be sharper."""


def solve_program(
    access: Access,
    pieces: Pieces,
    touches: list[FloatArray],
    control: Control,
    relaxed: bool,
    written: str = "",
) -> Answer:
    """Build and solve one program.

    Columns: weights of both ends of the pieces, Q and gap (of each cluster), a common S, those of the access
    scheme, then a binary for each piece with two ends.

    Parameters
    ----------
    access, pieces
        What keep rates need of the radio, and N pieces.
    touches
        Values of Q at which tangents of the stability term stand. Shapes [E].
    control
        Options and clock.
    relaxed
        Drops integrality.
    written
        A file to write the program to, by its ending ``.mps`` or ``.lp``.

    Returns
    -------
    Answer
        The bound is less HiGHS' tolerances.
    """
    import highspy

    choices = access.choices
    problem, inst = choices.problem, choices.problem.instance
    n, k = len(pieces), inst.num_devices
    ends = np.arange(2 * n).reshape(n, 2)
    pool, weight = pools_of(problem)
    kept = 2 * n + np.arange(len(weight))
    gap, common = kept + len(weight), 2 * n + 2 * len(weight)
    first = common + 1
    most, integral = access.columns()
    finite = np.abs(pieces.cost[np.isfinite(pieces.cost)])
    scale = 1.0 / max(problem.size, _SPREAD * float(finite.max(initial=0.0)))
    wide = np.zeros(0, dtype=np.intp) if relaxed else np.flatnonzero(pieces.divisible)
    pick = first + len(most) + np.arange(len(wide))
    cost = np.zeros(first + len(most) + len(wide))
    cost[ends] = scale * pieces.cost
    cost[gap] = 0.0 if problem.objective.own else weight  # in units of 1 / scale
    upper = np.concatenate((np.ones(first), most, np.ones(len(wide))))
    upper[gap] = highspy.kHighsInf
    upper[ends[~pieces.divisible, 1]] = 0.0  # a point needs one end only
    rows = Rows()
    square = np.stack((pieces.left, pieces.right), axis=1) ** 2
    for i, column in zip(wide, pick, strict=True):
        rows.add(0.0, 0.0, (ends[i], 1.0), (column, -1.0))
    for d in range(k):
        own = np.flatnonzero(pieces.device == d)
        rows.add(1.0, 1.0, (ends[own].ravel(), 1.0))
        if inst.common_keep:
            inside, outside = own[pieces.mode[own] != OUT], own[pieces.mode[own] == OUT]
            same = (ends[inside].ravel(), square[inside].ravel()), (common, -1.0)
            rows.add(-math.inf, 0.0, *same)
            rows.add(0.0, math.inf, *same, (ends[outside, 0], 1.0))
    for e, share in enumerate(weight):
        own = np.flatnonzero(pool[pieces.device] == e)
        rows.add(0.0, 0.0, (ends[own].ravel(), pieces.kept[own].ravel() / share), (kept[e], -1.0))
    for q in [] if problem.objective.own else touches:
        value, slope = problem.stability.value(q), problem.stability.slope(q)
        for e in range(len(weight)):
            least, rise = scale * (value[e] - slope[e] * q[e]), scale * slope[e]
            rows.add(least, math.inf, (gap[e], 1.0), (kept[e], -rise))
    access.add_rows(rows, first, ends, pieces)
    _add_constraints(rows, access, first, pieces, ends)
    engine = _engine(control)
    whole = np.r_[pick, ends[~pieces.divisible, 0], first + np.flatnonzero(integral)]
    _pass(highspy, engine, rows, cost, upper, None if relaxed else whole)
    if written:
        engine.writeModel(written)
    engine.run()
    native, info = engine.getModelStatus().name, engine.getInfo()
    if native == "kInfeasible":
        return Answer(native, math.inf)
    objective, found = float(info.objective_function_value), bool(info.primal_solution_status == 2)
    if relaxed:
        bound = objective if native == "kOptimal" else -math.inf
    else:
        bound = float(info.mip_dual_bound)
        if found:  # nodes within the limit of the gap are dropped; that they are counted is not relied on
            bound = min(bound, objective - _gap_limit(control) * abs(objective))
    units = 3 * k + 1 + 2 * len(weight) + float(most.sum())
    hidden = SUMS * abs(objective if found else 1.0) + DUAL * units
    bound = (bound - hidden) / scale
    nodes = max(int(info.mip_node_count), 0)
    if not found or (relaxed and native != "kOptimal"):
        return Answer(native, bound, nodes=nodes)
    solution = engine.getSolution()
    point, reduced = np.array(solution.col_value), np.zeros(len(cost))
    if relaxed:
        reduced = np.maximum(np.array(solution.col_dual), 0.0) / scale
    return Answer(
        native=native,
        bound=bound,
        objective=objective / scale,
        nodes=nodes,
        weight=np.maximum(point[ends], 0.0),
        radio=point[first : first + len(most)],
        whole=not np.any(np.abs(point - np.rint(point))[first + np.flatnonzero(integral)] > SUPPORT),
        kept=np.clip(point[kept], 0.0, 1.0),
        excess=reduced[ends].min(axis=1, where=upper[ends] > 0.0, initial=math.inf),
    )


def pools_of(problem: Problem) -> tuple[IntArray, FloatArray]:
    """The pool of each device, shape [K], and the weight of each pool's stability term, shape [E].

    Parameters
    ----------
    problem
        Pooled by cluster, or all devices are in one pool of weight 1.

    Returns
    -------
    tuple of array
        Pools are numbered from 0 on.
    """
    if problem.pools is None:
        return np.zeros(problem.instance.num_devices, dtype=np.intp), np.ones(1)
    return problem.pools, np.asarray(np.bincount(problem.pools, problem.instance.weights), dtype=np.float64)


def _add_constraints(rows: Rows, access: Access, first: int, pieces: Pieces, ends: IntArray) -> None:
    """Add the user's caps on bandwidths (Hz) and participation, each divided by its size.

    ``ends`` [N, 2] are the columns of the pieces' ends, ``first`` the first column of the access scheme.
    """
    column, device, hz = access.bandwidth()
    out = np.flatnonzero(pieces.mode == OUT)
    problem = access.choices.problem
    for row in problem.constraints:
        weight = row.weights(problem.instance)
        if isinstance(row, ParticipationCap):
            size = float(weight.max()) or 1.0
            room = Fraction(row.limit) * (1 + HAIR) - sum(map(Fraction, weight.tolist()))
            rows.add(-math.inf, float(room / Fraction(size)), (ends[out, 0], -weight[pieces.device[out]] / size))
        elif isinstance(row, SpectrumCap):
            size = max(float(weight.max()) * problem.instance.bandwidth_hz, 1e-300)
            limit = row.limit / size
            rows.add(-math.inf, limit + 1e-15 * limit, (first + column, weight[device] * hz / size))
        elif isinstance(row, SubcarrierCap):
            for k in row.members(problem.instance):
                rows.add(-math.inf, float(row.limit), (first + column[device == k], 1.0))


def _gap_limit(control: Control) -> float:
    return 0.2 * control.options.rel_gap


def _engine(control: Control) -> Any:
    """HiGHS with our tolerances and what is left of the time, and without output."""
    engine = quiet_highs()
    settings = {
        "threads": 1,
        "random_seed": control.options.seed,
        "mip_rel_gap": _gap_limit(control),
        "mip_abs_gap": 0.0,
        "primal_feasibility_tolerance": FEASIBILITY,
        "mip_feasibility_tolerance": FEASIBILITY,
        "dual_feasibility_tolerance": DUAL,
    }
    if control.options.time_limit is not None:
        settings["time_limit"] = max(control.options.time_limit - control.seconds, 0.01)
    for name, value in settings.items():
        engine.setOptionValue(name, value)
    return engine


def _pass(
    highspy: Any, engine: Any, rows: Rows, cost: FloatArray, upper: FloatArray, integral: IntArray | None
) -> None:
    """Give HiGHS the program: costs and upper bounds [C] of its columns, its rows, and which are integral.

    Rows with a number that it takes no program with are left out: bounds are lower without them, no more.
    """
    from scipy.sparse import coo_array

    value, row, column = (np.concatenate(part) for part in (rows.value, rows.row, rows.column))
    low, high = np.array(rows.low), np.array(rows.high)
    wild = ~((low < _INFINITE) & (high > -_INFINITE))
    wild[row[~(np.abs(value) < _LARGEST)]] = True
    value, low[wild], high[wild] = np.where(wild[row], 0.0, value), -math.inf, math.inf
    matrix = coo_array((value, (row, column)), shape=(len(low), len(cost))).tocsr()
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(cost), len(low)
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, np.zeros(len(cost)), upper
    lp.row_lower_, lp.row_upper_ = low, high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    if integral is not None:
        kind = [highspy.HighsVarType.kContinuous] * len(cost)
        for column in integral:
            kind[column] = highspy.HighsVarType.kInteger
        lp.integrality_ = kind
    engine.passModel(lp)
