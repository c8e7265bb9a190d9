r"""Mixed-integer linear programs with proven one-sided lines, method ``highs``; takes linear side constraints.

Every device picks one piece of :mod:`edgealloc.solvers.pieces`: a mode and an interval of the keep rate, over
which cost and bandwidth lie above proven lines in s^2. The stability term lies above its tangents. So the
program is a relaxation, and its bound a bound of the problem, whatever the pieces are. Pieces that the program
picks are cut where it picks them and it is solved again: on a piece of width h the lines are O(h^2) away, so
bound and plan meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from edgealloc.problem import Problem
from edgealloc.result import Allocation, Result, Snapshot, relative_gap
from edgealloc.sideconstraints import SideConstraint, check_constraints
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.choices import OUT, Choices, IntArray
from edgealloc.solvers.highs_program import Answer, solve_program
from edgealloc.solvers.judge import Claim, Stop, conclude, stop_of
from edgealloc.solvers.pieces import Pieces
from edgealloc.solvers.plans import Plan, plan_allocation
from edgealloc.units import FloatArray

__all__ = ["STATUSES", "solve_highs"]

# Every HighsModelStatus (highs/lp_data/HConst.h); any other is a failure.
STATUSES = {
    "kOptimal": Stop.SOLVED,
    "kInfeasible": Stop.INFEASIBLE,
    "kObjectiveBound": Stop.LIMIT,
    "kObjectiveTarget": Stop.LIMIT,
    "kTimeLimit": Stop.LIMIT,
    "kIterationLimit": Stop.LIMIT,
    "kSolutionLimit": Stop.LIMIT,
    "kInterrupt": Stop.LIMIT,
    "kHighsInterrupt": Stop.LIMIT,
    "kMemoryLimit": Stop.LIMIT,
} | dict.fromkeys(
    (
        *("kNotset", "kLoadError", "kModelError", "kPresolveError", "kSolveError", "kPostsolveError"),
        *("kModelEmpty", "kUnboundedOrInfeasible", "kUnbounded", "kUnknown"),
    ),
    Stop.FAILED,
)

ROUNDS = 60
MARGIN = (
    1e-8  # taken off the program's bound, relatively: its rows hold to 1e-9, which only relaxes, its sums to 1e-12
)


def solve_highs(
    problem: Problem, options: Options | None = None, constraints: Sequence[SideConstraint] = ()
) -> Result:
    """Solve FDMA or resource blocks, with every variant, by refined mixed-integer linear programs.

    Parameters
    ----------
    problem
        Access ``fdma`` or ``rb``.
    options
        Gap and limits.
    constraints
        Linear rows of your own on bandwidths and selection; the bound then holds for the problem with them.

    Raises
    ------
    InputError
        For rows that do not fit the instance.
    """
    options = options or Options()
    rows = tuple(constraints)
    check_constraints(problem.instance, rows)
    with Control(options) as control:
        choices = Choices.of(problem)
        pieces = Pieces.root(choices)
        best: Allocation | None = None
        upper, lower, claimed, nodes, native, rounds = math.inf, -math.inf, math.nan, 0, "kNotset", 0
        touches = [float(problem.instance.weights @ np.square(problem.free[1]))]
        for rounds in range(1, ROUNDS + 1):
            answer = solve_program(choices, pieces, rows, touches, control)
            native, nodes = answer.native, nodes + answer.nodes
            if math.isfinite(answer.bound):
                lower = max(lower, answer.bound - MARGIN * abs(answer.bound))
            if answer.piece is None:
                break
            claimed = answer.objective
            plan = _plan(choices, pieces, answer, rows)
            if plan is not None:
                value = problem.evaluate(plan).objective
                if value < upper:
                    upper, best = value, plan
            gap = relative_gap(upper, lower)
            control.report(Snapshot("highs", control.seconds, rounds, lower, upper, gap, nodes, len(pieces)))
            which = np.zeros(len(pieces), dtype=bool)
            which[answer.piece] = pieces.divisible[answer.piece]
            if gap <= options.rel_gap or control.stopped():
                break
            if not which.any() and min(abs(answer.kept - q) for q in touches) < 1e-9:
                break
            touches.append(answer.kept)
            pieces = _refined(choices, pieces, which, answer)
        stop = stop_of(STATUSES, native)
        if best is not None and stop is Stop.INFEASIBLE:
            stop = Stop.FAILED
        claim = Claim(
            method="highs",
            solver=f"HiGHS {version('highspy')}",
            native=native,
            stop=stop,
            point=best,
            objective=claimed,
            lower_bound=lower,
            reason="HiGHS' own, on a program of proven lines from below, less 1e-8 for its sums",
            detail=f"{len(pieces)} pieces after {rounds} programs",
            nodes=nodes,
            iterations=rounds,
            redeal=False,
        )
        return conclude(problem, claim, control)


def _refined(choices: Choices, pieces: Pieces, which: NDArray[np.bool_], answer: Answer) -> Pieces:
    """Picked pieces cut at the picked keep rates (in the middle where those are at an end)."""
    assert answer.piece is not None
    if choices.block_hz:
        return pieces.halved(choices, which)
    at = np.sqrt(pieces.left * pieces.right)
    wish = np.sqrt(answer.square)
    for i, s in zip(answer.piece, wish, strict=True):
        reach = 0.1 * (pieces.right[i] - pieces.left[i])
        if pieces.left[i] + reach < s < pieces.right[i] - reach:
            at[i] = s
    cut = np.sort(at[which])
    pieces = pieces.halved(choices, which, at[which])
    beside = np.isin(pieces.left, cut) | np.isin(
        pieces.right, cut
    )  # lines are best inside: have ends near the pick
    return pieces.halved(choices, beside)


def _plan(choices: Choices, pieces: Pieces, answer: Answer, rows: tuple[SideConstraint, ...]) -> Allocation | None:
    """An allocation from the program's picks: their keep rates, or what their bandwidths carry of them."""
    assert answer.piece is not None
    inst = choices.problem.instance
    mode, left, right = pieces.mode[answer.piece], pieces.left[answer.piece], pieces.right[answer.piece]
    on = mode != OUT
    keep = np.where(on, np.clip(np.sqrt(answer.square), left, right), 0.0)
    if inst.common_keep and on.any():
        keep = np.where(on, keep[on].min(), 0.0)

    def offer(rates: FloatArray) -> Allocation | None:
        band = choices.safe_bandwidth(mode, rates)
        if not band.sum() <= choices.limit_hz:
            return None
        found = plan_allocation(choices, Plan(mode, rates, band, "H"))
        return found if found is not None and all(row.holds(found) for row in rows) else None

    whole = offer(keep)
    if whole is not None or not on.any():
        return whole
    free = on & np.array([levels is None for levels in inst.keep_levels or (None,) * len(keep)])
    low = np.where(free, choices.low[np.maximum(mode, 0)], keep)
    if inst.common_keep:
        low = np.where(on, low.max(initial=0.0, where=on), 0.0)
    found = [offer(low)]
    few, many = 0.0, 1.0  # how far the rates are cut back, all by one share: what fits, and what does not
    for _ in range(30 if found[0] is not None else 0):
        share = 0.5 * (few + many)
        trial = offer(low + share * (keep - low))
        few, many = (share, many) if trial is not None else (few, share)
        found.append(trial)
    if not inst.common_keep:
        found.append(_carried(choices, mode, keep, answer.band_hz, offer))
    value = choices.problem.evaluate
    return min((a for a in found if a is not None), key=lambda a: value(a).objective, default=None)


def _carried(
    choices: Choices,
    mode: IntArray,
    keep: FloatArray,
    band_hz: FloatArray,
    offer: Callable[..., Allocation | None],
) -> Allocation | None:
    """The keep rates that the program's own bandwidths carry."""
    on = mode != OUT
    low = choices.low[np.maximum(mode, 0)]
    target = np.maximum(band_hz * (1.0 - 1e-9), 1e-9)
    fits, _beyond = choices.reach(mode[on], low[on], np.maximum(keep[on], low[on]), target[on])
    carried = keep.copy()
    carried[on] = fits
    for k, levels in enumerate(choices.problem.instance.keep_levels or ()):
        if levels is not None and on[k]:
            below = levels[levels <= carried[k]]
            carried[k] = below[-1] if len(below) else math.nan
    return None if np.isnan(carried).any() else offer(carried)
