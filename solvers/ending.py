"""How a solve ends: the result of a method, in the same words for every method."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Diagnosis, Status, relative_gap
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control

__all__ = ["THIN", "infeasible", "nobody", "nothing_found", "proven", "unsolved"]

THIN = "thinner than the rounding margin"  # why an exact method that was not stopped found nothing


def unsolved(
    problem: Problem, method: str, control: Control, lower_bound: float = -math.inf, message: str = ""
) -> Result:
    """A result without an allocation, with the time and the trace up to now.

    Parameters
    ----------
    problem, method
        What was solved, and the name of the method.
    control
        Clock and trace of the solve.
    lower_bound
        What is proved all the same.
    message
        The remedy.

    Returns
    -------
    Result
        ``no_solution``; :func:`dataclasses.replace` fills in what the method has beyond that.
    """
    return Result(
        problem=problem,
        method=method,
        status=Status.NO_SOLUTION,
        objective=math.inf,
        lower_bound=lower_bound,
        free_objective=problem.free_objective,
        allocation=None,
        seconds=control.seconds,
        message=message,
        trace=tuple(control.trace),
    )


def infeasible(problem: Problem, method: str, control: Control, findings: tuple[Diagnosis, ...]) -> Result:
    """The result of a problem that is proved to have no feasible allocation, for the reasons found."""
    message = "\n".join(finding.message for finding in findings)
    blank = unsolved(problem, method, control, math.inf, message)
    return replace(blank, status=Status.INFEASIBLE, diagnosis=findings)


def nothing_found(problem: Problem, method: str, control: Control, lower_bound: float) -> Result:
    """The result of an exact method that ends with a bound alone: stopped, or hardly anything is feasible."""
    why = control.reason or f"the feasible set is {THIN} of 1e-12"
    message = f"no allocation found: {why}; allow more time or relax a budget"
    return unsolved(problem, method, control, lower_bound, message)


def proven(
    problem: Problem,
    method: str,
    control: Control,
    allocation: Allocation,
    objective: float,
    lower_bound: float,
    resting: str = "",
) -> Result:
    """The result of an exact method with an allocation and a bound.

    Parameters
    ----------
    problem, method, control
        As in :func:`unsolved`.
    allocation
        What was found; within all budgets.
    objective
        G of the allocation as it is returned.
    lower_bound
        Proven bound of the optimum.
    resting
        Why the method rests with a gap that nobody asked it to leave, if there is more to say than rounding.

    Returns
    -------
    Result
        ``optimal`` where the gap is within the option ``rel_gap``; else ``feasible``, with the reason.
    """
    closed = relative_gap(objective, lower_bound) <= control.options.rel_gap
    why = control.reason or f"{resting}rounding limits the gap, ask for a larger rel_gap"
    if lower_bound >= control.options.cutoff and not control.reason:
        why = "the bound is at the cutoff"
    return replace(
        unsolved(problem, method, control, lower_bound, "" if closed else f"stopped with a gap: {why}"),
        status=Status.OPTIMAL if closed else Status.FEASIBLE,
        objective=objective,
        allocation=allocation,
    )


def nobody(problem: Problem) -> Allocation:
    """The allocation that leaves everybody out, where a problem allows that."""
    inst = problem.instance
    k, m = inst.num_devices, inst.num_subcarriers
    zero = np.zeros(k)
    none, option = np.zeros(k, dtype=bool), np.full(k, -1)
    if m is None:
        return Allocation(keep=zero, freq_hz=zero, power_w=zero, bandwidth_hz=zero, selected=none, option=option)
    return Allocation(
        keep=zero, freq_hz=zero, power_w=np.zeros(m), owner=np.full(m, -1), selected=none, option=option
    )
