"""The least predicted loss within the budgets: the search over intervals of rounds, and the plan it ends with."""

from __future__ import annotations

import math
from dataclasses import replace

from edgealloc.data.outcome import Diagnosis, Status, relative_gap
from edgealloc.formulation.result import Result
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.search import Interval, Rounds, RunPoint
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.search.engine import Found, Outcome, branch_and_bound

__all__ = ["NAME", "least_loss", "round_result"]

NAME = "rounds"  # of the search in snapshots


def least_loss(
    run: TrainingRun, span: Interval, method: str, options: Options, start: Found[RunPoint] | None = None
) -> RunPlan:
    """The plan of least predicted loss, by branch and bound over intervals of rounds.

    Parameters
    ----------
    run
        What is to be planned.
    span
        Numbers of rounds that may be chosen.
    method
        What solves single rounds.
    options
        Gap of the loss, limits, callback.
    start
        A run that is known. It is kept unless one is found that is better by more than the gap.
    """
    starts = () if start is None else (start,)
    with Control(options) as control:
        search = Rounds(run, span, method, options.rel_gap, seed=options.seed)
        outcome = branch_and_bound(search, control, starts=starts, method=NAME)
    if start is not None and relative_gap(start.value, outcome.lower_bound) <= options.rel_gap:
        outcome = replace(outcome, best=start)
    status, message, diagnosis = _ending(search, outcome, control)
    best = outcome.best
    bound = outcome.lower_bound if best is None else min(outcome.lower_bound, best.value)
    return RunPlan(
        run=run,
        span=span,
        method=method,
        status=status,
        minimise="loss",
        target=None,
        rounds=0 if best is None else best.point.rounds,
        result=None if best is None else round_result(best.point, run.learning.floor, bound),
        loss=outcome.upper,
        objective=outcome.upper,
        lower_bound=bound,
        seconds=control.seconds,
        solves=len(search.solved),
        message=message,
        diagnosis=diagnosis,
        pieces=tuple(search.solved),
    )


def _ending(
    search: Rounds, outcome: Outcome[RunPoint], control: Control
) -> tuple[Status, str, tuple[Diagnosis, ...]]:
    """Status, message and diagnosis of a search."""
    root = search.solved[0].result
    if outcome.best is None:
        if outcome.lower_bound == math.inf:
            shortest = f"not even {search.span.first} round{'s' * (search.span.first > 1)} can be trained: "
            return Status.INFEASIBLE, shortest + root.message, root.diagnosis
        why = control.reason or next((s.result.message for s in search.solved if s.result.message), "")
        return Status.NO_SOLUTION, why or "no run was found", ()
    if relative_gap(outcome.upper, outcome.lower_bound) <= search.rel_gap:
        return Status.OPTIMAL, "", ()
    told = [s.result.message for s in search.solved if s.result.status is Status.ERROR]
    return (
        Status.FEASIBLE,
        control.reason or (told[0] if told else "single rounds were not solved to their gap"),
        (),
    )


def round_result(point: RunPoint, floor: float, bound: float) -> Result:
    """One round of a run as a result of its own: budgets of one round, and what is proven of the run's loss."""
    problem = point.result.problem
    value = problem.evaluate(point.allocation).objective
    return replace(
        point.result,
        status=Status.FEASIBLE if math.isfinite(bound) else Status.LOCALLY_SOLVED,
        objective=value,
        lower_bound=min(bound - floor, value),
        free_objective=problem.free_objective,
        allocation=point.allocation,
        message="a round of a plan: the plan says how good it is",
        prices={},
        trace=(),
        proof=None,
    )
