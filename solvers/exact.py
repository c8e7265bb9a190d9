"""Method ``bnb``: chooses the relaxation by access scheme and variant, searches, and makes the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import infeasible, nothing_found, proven, unsolved
from edgealloc.solvers.fdma.diagnose import diagnose_problem
from edgealloc.solvers.search.engine import Found, Outcome, branch_and_bound
from edgealloc.solvers.search.log import SearchLog
from edgealloc.solvers.search.record import Record
from edgealloc.solvers.separable.box import DeviceBox
from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.solvers.separable.common_rate import CommonRate
from edgealloc.solvers.separable.plans import Plan, plan_allocation, plan_of, plan_value
from edgealloc.solvers.separable.record import SeparableProof
from edgealloc.solvers.separable.relaxation import Separable

__all__ = ["infeasible_alone", "search", "solve_bnb"]


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


def infeasible_alone(problem: Problem) -> tuple[Diagnosis, ...]:
    """Devices that no allocation can carry, not even with all of the spectrum to themselves, and what they lack.

    Parameters
    ----------
    problem
        Any access scheme, with any variant. Whether devices may be left out, or share one keep rate, does not
        matter here: each is judged by its own least keep rate.

    Returns
    -------
    tuple of Diagnosis
        Proven findings, each of a device; of many devices, those of the first.
    """
    inst = problem.instance.with_changes(common_keep=False, exclusion_penalty=None)
    each = Problem(inst, problem.underfit).of_resources
    with np.errstate(all="ignore"):  # what is hopeless may overflow
        if inst.access == "ofdma":
            from edgealloc.solvers.ofdma.cell import OfdmaCell  # its kernels load only when they are needed
            from edgealloc.solvers.ofdma.diagnose import blocked_devices

            findings = blocked_devices(OfdmaCell.of(each))
        else:
            findings = diagnose_problem(each)
    return tuple(finding for finding in findings if finding.device is not None)


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
        enough = control.options.cutoff
        outcome = branch_and_bound(relaxation, control, starts=starts, enough=enough, watch=log.row, record=record)
        proof = SeparableProof(relaxation, record)
        result = replace(_finish(problem, choices, control, outcome), proof=proof)
        log.report(result, outcome.tree)
        return result, outcome


def _finish(problem: Problem, choices: Choices, control: Control, outcome: Outcome[Plan]) -> Result:
    """The result of a search: its plan as an allocation, or the diagnosis."""
    if outcome.best is None:
        if math.isinf(outcome.lower_bound) and outcome.lower_bound > 0:
            result = infeasible(problem, "bnb", control, diagnose_problem(problem.of_resources))
        else:
            result = nothing_found(problem, "bnb", control, outcome.lower_bound)
    else:
        result = _within(problem, choices, control, outcome)
    return replace(result, nodes=outcome.nodes, iterations=outcome.nodes)


def _within(problem: Problem, choices: Choices, control: Control, outcome: Outcome[Plan]) -> Result:
    """The result of a search that found a plan, shaved should rounding break a budget."""
    assert outcome.best is not None
    for plan in _shaved(choices, outcome.best.point):
        allocation = plan_allocation(choices, plan)
        if allocation is not None:
            value = plan_value(problem, plan)
            return proven(problem, "bnb", control, allocation, value, min(outcome.lower_bound, value))
    message = "the allocation found breaks a budget by rounding; please report the instance"
    return unsolved(problem, "bnb", control, outcome.lower_bound, message)


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
