"""Method ``bnb``: chooses the relaxation by access scheme and variant, searches, and makes the result."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import infeasible, nothing_found, proven
from edgealloc.solvers.fdma.diagnose import diagnose_problem
from edgealloc.solvers.search.engine import Found, Outcome, branch_and_bound
from edgealloc.solvers.search.log import SearchLog
from edgealloc.solvers.search.record import Record
from edgealloc.solvers.separable.choices import Choices
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

    Raises
    ------
    EdgeallocError
        When the allocation found breaks a budget, which would be a defect of the kernels.
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

    Raises
    ------
    EdgeallocError
        When the allocation found breaks a budget, which would be a defect of the kernels.
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
    """The result of a search: its plan as an allocation, or the diagnosis.

    Raises
    ------
    EdgeallocError
        When the allocation breaks a budget.
    """
    if outcome.best is None:
        if math.isinf(outcome.lower_bound) and outcome.lower_bound > 0:
            result = infeasible(problem, "bnb", control, diagnose_problem(problem))
        else:
            result = nothing_found(problem, "bnb", control, outcome.lower_bound)
    else:
        allocation = plan_allocation(choices, outcome.best.point)
        if allocation is None:
            raise EdgeallocError("the computed allocation breaks a budget; please report the instance")
        value = plan_value(problem, outcome.best.point)
        result = proven(problem, "bnb", control, allocation, value, min(outcome.lower_bound, value))
    return replace(result, nodes=outcome.nodes, iterations=outcome.nodes)
