"""Method ``bnb``: chooses the relaxation by access scheme and variant, searches, and makes the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edgealloc.data.outcome import Status, relative_gap
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.fdma.diagnose import diagnose_problem
from edgealloc.solvers.search.engine import Found, Outcome, branch_and_bound
from edgealloc.solvers.search.log import SearchLog
from edgealloc.solvers.search.record import Record
from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.solvers.separable.common_rate import CommonRate
from edgealloc.solvers.separable.plans import Plan, plan_allocation, plan_of, plan_value
from edgealloc.solvers.separable.record import SeparableProof
from edgealloc.solvers.separable.relaxation import DeviceBox, Separable

__all__ = ["search", "solve_bnb"]


def solve_bnb(problem: Problem, options: Options | None = None) -> Result:
    """Prove the optimum of a problem by branch and bound.

    Parameters
    ----------
    problem
        Any access scheme, with any variant.
    options
        Gap, limits, warm start, callback.

    Returns
    -------
    Result
        ``optimal``; ``infeasible`` with its diagnosis; ``feasible`` or ``no_solution`` when a limit came first.
    """
    return search(problem, options)[0]


def search(problem: Problem, options: Options | None = None) -> tuple[Result, Outcome[Any] | None]:
    """As :func:`solve_bnb`, with the search tree.

    Parameters
    ----------
    problem
        Any access scheme, with any variant.
    options
        Gap, limits, warm start, callback.

    Returns
    -------
    tuple of Result and Outcome or None
        No tree when a diagnosis made the search needless.
    """
    options = options or Options()
    if problem.instance.access == "ofdma":
        from edgealloc.solvers.ofdma.solve import search_ofdma  # its kernels load only when they are needed

        return search_ofdma(problem, options)
    return _search_separable(problem, options)


def _search_separable(problem: Problem, options: Options) -> tuple[Result, Outcome[Plan] | None]:
    """Branch and bound over the devices' modes and keep rates, for FDMA and resource blocks."""
    log = SearchLog("bnb", problem.instance.name, options.log)
    with Control(replace(options, log=False)) as control:
        choices = Choices.of(problem)
        kind = CommonRate if problem.instance.common_keep else Separable
        relaxation, record = kind(choices, options.rel_gap), Record[DeviceBox]()
        starts = []
        plan = plan_of(choices, options.warm_start) if options.warm_start is not None else None
        if plan is not None:
            starts.append(Found(plan_value(problem, plan), plan, "W"))
        outcome = branch_and_bound(relaxation, control, starts=starts, watch=log.row, record=record)
        proof = SeparableProof(relaxation, record)
        result = replace(_finish(problem, choices, control, outcome), proof=proof)
        log.report(result, outcome.tree)
        return result, outcome


def _finish(problem: Problem, choices: Choices, control: Control, outcome: Outcome[Plan]) -> Result:
    """The result of a search: its plan as an allocation, or the diagnosis."""
    result = Result(
        problem=problem,
        method="bnb",
        status=Status.NO_SOLUTION,
        objective=math.inf,
        lower_bound=outcome.lower_bound,
        free_objective=problem.free_objective,
        allocation=None,
        seconds=control.seconds,
        nodes=outcome.nodes,
        iterations=outcome.nodes,
        trace=tuple(control.trace),
    )
    if outcome.best is None:
        if math.isinf(outcome.lower_bound) and outcome.lower_bound > 0:
            findings = diagnose_problem(problem)
            message = "\n".join(finding.message for finding in findings)
            return replace(result, status=Status.INFEASIBLE, diagnosis=findings, message=message)
        why = control.reason or "the feasible set is thinner than the rounding margin of 1e-12"
        return replace(result, message=f"no allocation found: {why}; allow more time or relax a budget")
    for plan in _shaved(choices, outcome.best.point):
        allocation = plan_allocation(choices, plan)
        if allocation is not None:
            break
    else:
        message = "the allocation found breaks a budget by rounding; please report the instance"
        return replace(result, message=message)
    value = plan_value(problem, plan)
    closed = relative_gap(value, outcome.lower_bound) <= control.options.rel_gap
    why = control.reason or "rounding limits the gap, ask for a larger rel_gap"
    return replace(
        result,
        status=Status.OPTIMAL if closed else Status.FEASIBLE,
        objective=value,
        lower_bound=min(outcome.lower_bound, value),
        allocation=allocation,
        message="" if closed else f"stopped with a gap: {why}",
        seconds=control.seconds,
    )


def _shaved(choices: Choices, plan: Plan) -> Iterator[Plan]:
    """A plan, then with ever lower keep rates where any are allowed, then with nobody where that is allowed."""
    yield plan
    inst, on = choices.problem.instance, plan.mode != OUT
    free = on & np.array([row is None for row in inst.keep_levels or (None,) * len(on)])
    if not inst.common_keep or np.array_equal(free, on):
        least = inst.keep_min.max(initial=0.0, where=on) if inst.common_keep else inst.keep_min
        for shave in (1e-12, 1e-10, 1e-8, 1e-6):
            yield replace(plan, keep=np.where(free, np.maximum(plan.keep * (1.0 - shave), least), plan.keep))
    if inst.exclusion_penalty is not None:
        yield Plan(np.full_like(plan.mode, OUT), np.zeros_like(plan.keep), np.zeros_like(plan.band))
