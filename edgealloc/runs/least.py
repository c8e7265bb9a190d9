"""The least total time, share of the energy budgets, or weighted sum of both, with which some run reaches a loss.

More of either never hurts, so a bisection brackets the least; of both together, a staircase does. Whether a
budget is enough is the question that the search over intervals answers: a run that reaches the target, or a bound
above it for every number of rounds.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgealloc.data.outcome import Snapshot, Status, relative_gap
from edgealloc.data.run import Aim
from edgealloc.runs.asked import Weights
from edgealloc.runs.loss import NAME, round_result
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.search import Excluded, Interval, Rounds, RunPoint, Solved
from edgealloc.runs.training import TrainingRun, both_budgeted, budgeted, longest
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.search.engine import branch_and_bound

__all__ = ["least_run", "least_weighted"]

_GAP = 1e-8  # of the loss, for a target that is very near to what a budget reaches
_ROUNDS_OFF = "rounding limits the gap: ask for a larger rel_gap, or for weights of usual size"
_MOST = 2.0**30  # times the time that is tried first, and its inverse


@dataclass(slots=True, eq=False)
class _Answer:
    """What one budget reaches: a run, a proof that there is none (``solved``), or neither."""

    point: RunPoint | None
    solved: tuple[Solved, ...]
    proved: bool
    reason: str


def least_run(run: TrainingRun, span: Interval, method: str, options: Options, aim: Aim, target: float) -> RunPlan:
    """The plan of least time or energy that reaches a loss.

    Parameters
    ----------
    run
        What is to be planned.
    span
        Numbers of rounds that may be chosen.
    method
        What solves single rounds.
    options
        Gap of what is minimised, limits, callback.
    aim
        ``time`` or ``energy``.
    target
        The loss to be reached.
    """
    low, high, solves = _spent(run) if aim == "energy" else 0.0, math.inf, 0
    best: RunPoint | None = None
    proof: tuple[Solved, ...] = ()
    budget = 1.0 if aim == "energy" else longest(run, span.last)
    endless = aim == "time" and run.time_s is None and not run.caps  # no time is too long
    most = budget * (_MOST if endless else 1.0)
    least = budget / _MOST
    message = ""
    with Control(options) as control:
        while not message and relative_gap(high, low) > options.rel_gap:
            answer = _reach(budgeted(run, aim, budget), span, method, target, control)
            solves += len(answer.solved)
            if answer.point is not None:
                best = _shortest(run, span, answer.point, target)
                high = min(budget, _used(run, aim, best))
            elif answer.proved:
                low, proof = budget, answer.solved
            else:
                message = control.reason or f"it stays open whether {budget:.9g} is enough ({answer.reason})"
            control.report(Snapshot(NAME, control.seconds, 0, low, high, relative_gap(high, low), solves))
            if control.stopped():
                message = message or control.reason
            if high < math.inf:
                budget = math.sqrt(low * high) if low else 0.5 * high
                if not low < budget < high:
                    break
                if budget < least:
                    message = message or "next to nothing is enough"
            elif budget >= most:
                break
            else:
                budget = min(2.0 * budget, most)
    if best is not None:
        best = _narrowed(budgeted(run, aim, high), best)
        status = Status.OPTIMAL if relative_gap(high, low) <= options.rel_gap else Status.FEASIBLE
    elif low >= most:
        message = f"the loss {target:.9g} is not reached with {most:.6g}"
        status, low = (Status.NO_SOLUTION, low) if endless else (Status.INFEASIBLE, math.inf)
    else:
        status = Status.NO_SOLUTION
    told: dict[str, Any] = {"objective": high, "lower_bound": low, "seconds": control.seconds, "solves": solves}
    told |= {"minimise": aim, "target": target, "pieces": proof}
    return _plan(run, span, method, best, status, message, **told)


def least_weighted(
    run: TrainingRun, span: Interval, method: str, options: Options, weights: Weights, target: float
) -> RunPlan:
    """The plan of least weighted sum of time and energy share that reaches a loss.

    What is not excluded lies beyond the corners of a staircase. Of the cheapest corner a pair of budgets is tried
    that lies beyond it in both, half-way to the best known sum: a run lowers that sum, a proof that there is none
    parts the corner in two dearer ones.

    Parameters
    ----------
    run
        What is to be planned; with energy budgets, and a time or caps.
    span
        Numbers of rounds that may be chosen.
    method
        What solves single rounds.
    options
        Gap of the sum, limits, callback.
    weights
        Both above 0.
    target
        The loss to be reached.
    """
    most = longest(run, span.last), 1.0
    best: RunPoint | None = None
    spent = _spent(run)
    corners, excluded = [(_cost(weights, 0.0, spent), 0.0, spent)], list[Excluded]()
    high, low, solves, message = math.inf, 0.0, 0, ""
    with Control(options) as control:
        while corners:
            low = min(corners[0][0], high)
            if control.stopped() or relative_gap(high, low) <= options.rel_gap:
                message = control.reason
                break
            _, time, share = heapq.heappop(corners)
            known = (w for w in excluded if w.time_s > time and w.share > share)
            wall = next(((w.time_s, w.share) for w in known), None)
            if wall is None:
                step = 0.25 * (high - low)
                wall = min(time + step / weights.per_s, most[0]), min(share + step / weights.per_share, most[1])
                if not (wall[0] > time and wall[1] > share):
                    heapq.heappush(corners, (_cost(weights, time, share), time, share))
                    message = _ROUNDS_OFF
                    break
                part = both_budgeted(run, *wall)
                answer = _reach(part, span, method, target, control)
                solves += len(answer.solved)
                if answer.point is not None or not answer.proved:
                    heapq.heappush(corners, (_cost(weights, time, share), time, share))
                if answer.point is not None:
                    point = _shortest(run, span, answer.point, target)
                    cost = _cost(weights, _used(run, "time", point), _used(run, "energy", point))
                    if not cost < high:
                        message = _ROUNDS_OFF
                        break
                    best, high = point, cost
                elif not answer.proved:
                    message = control.reason or f"it stays open whether {wall} is enough ({answer.reason})"
                    break
                control.report(Snapshot(NAME, control.seconds, 0, low, high, relative_gap(high, low), solves))
                if answer.point is not None:
                    continue
                excluded.append(Excluded(*wall, answer.solved))
            for i, corner in enumerate(((wall[0], share), (time, wall[1]))):
                if corner[i] < most[i]:
                    heapq.heappush(corners, (_cost(weights, *corner), *corner))
        else:
            low = high
    if best is not None:
        used = _used(run, "time", best), min(_used(run, "energy", best), 1.0)
        best = _narrowed(both_budgeted(run, *used), best)
        status = Status.OPTIMAL if relative_gap(high, low) <= options.rel_gap else Status.FEASIBLE
    elif not corners:
        status, low = Status.INFEASIBLE, math.inf
        message = f"the loss {target:.9g} is not reached with {most[0]:.6g} s and all of the energy"
    else:
        status = Status.NO_SOLUTION
    told: dict[str, Any] = {"objective": high, "lower_bound": low, "seconds": control.seconds, "solves": solves}
    told |= {"minimise": "weighted", "target": target, "weights": weights, "excluded": tuple(excluded)}
    return _plan(run, span, method, best, status, message, **told)


def _plan(
    run: TrainingRun, span: Interval, method: str, best: RunPoint | None, status: Status, message: str, **told: Any
) -> RunPlan:
    """How a search for the least ends: with a run that reaches the loss, or without one; ``told`` is the rest."""
    return RunPlan(
        run=run,
        span=span,
        method=method,
        status=status,
        rounds=0 if best is None else best.rounds,
        result=None if best is None else round_result(best, run.learning.floor, -math.inf),
        loss=math.inf if best is None else float(run.loss(best.rounds, best.allocation)),
        message="" if status is Status.OPTIMAL else message or "the search ended early",
        **told,
    )


def _cost(weights: Weights, time_s: float, share: float) -> float:
    return weights.per_s * time_s + weights.per_share * share


def _shortest(run: TrainingRun, span: Interval, point: RunPoint, target: float) -> RunPoint:
    """As few rounds of a run's allocation as reach the target: they take less, and each may take more."""
    counts = np.arange(span.first, point.rounds + 1)
    rounds = int(counts[np.argmax(run.loss(counts, point.allocation) <= target)])
    return replace(point, rounds=rounds) if rounds < point.rounds else point


def _narrowed(run: TrainingRun, point: RunPoint) -> RunPoint:
    """A run on the budgets that it needs, where rounding leaves it within them."""
    single = run.single(point.rounds)
    if single.violations(point.allocation):  # by rounding alone
        return point
    return replace(point, result=replace(point.result, problem=single))


def _reach(run: TrainingRun, span: Interval, method: str, target: float, control: Control) -> _Answer:
    """Whether some run within these budgets has a predicted loss of at most the target."""

    def reached(snapshot: Snapshot) -> bool:
        return snapshot.objective <= target or control.stopped()

    limit = control.options.time_limit
    left = None if limit is None else max(1e-3, limit - control.seconds)
    with Control(Options(_GAP, left, control.options.seed, None, reached)) as own:
        search = Rounds(run, span, method, _GAP, target, control.options.seed)
        outcome = branch_and_bound(search, own, method=NAME)
    point = None if outcome.best is None else outcome.best.point
    return _Answer(point, tuple(search.solved), outcome.lower_bound > target, own.reason or "within rounding")


def _used(run: TrainingRun, aim: Aim, point: RunPoint) -> float:
    """The least budget in which a run fits, a hair more for rounding."""
    use = point.result.problem.evaluate(point.allocation)
    if aim == "time":
        return point.rounds * float(use.latency_s.max()) * (1.0 + 1e-12)
    return run.share(point.rounds * use.energy_j) * (1.0 + 1e-12)


def _spent(run: TrainingRun) -> float:
    """The share of the energy budgets that is spent already."""
    return 0.0 if run.spent_j is None else run.share(np.zeros(len(run.spent_j)))
