"""Inverse problems: the least of a budget that reaches a given bound; trade-off curves.

More of any of the five never hurts (what was feasible stays so), hence the least bound falls as a budget grows,
and a bisection of the budget's factor brackets the answer. Every end of the bracket is *proven* by a solve: the
upper one by an allocation that reaches the target, the lower one by a lower bound above it (or by infeasibility).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from edgealloc.api import as_problem
from edgealloc.data.constraints import SpectrumCap
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.errors import Fault, InputError, RefusedError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import choose
from edgealloc.solvers.base import Control, Options, one_after_another
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["Least", "Resource", "front", "least", "scaled"]

Resource = Literal["bandwidth_hz", "latency_s", "energy_j", "power_max_w", "freq_max_hz"]

# Gaps to which a budget is solved, one after the other, until its bound or its allocation decides on the target.
# A target closer to the optimum than the last stays undecided.
_GAPS = (1e-4, 1e-6, 1e-8)
LARGEST_FACTOR = 2.0**30  # of the instance's own budget; beyond, "enough" is not searched for


@dataclass(frozen=True, slots=True)
class Least:
    """The least budget that reaches a target, between two proven ends.

    Parameters
    ----------
    resource
        Which budget was scaled.
    target
        The bound G that is to be reached.
    factor
        Least known factor of the instance's budget that reaches it; ``inf`` where none was found.
    factor_low
        A factor that is proven not to reach it; 0 where none was found.
    result
        The solve at ``factor``, with the allocation; None without one.
    solves
        How many budgets were tried.
    message
        Why the bracket is wider than asked for; empty otherwise.
    """

    resource: Resource
    target: float
    factor: float
    factor_low: float
    result: Result | None
    solves: int
    message: str = ""

    @property
    def rel_gap(self) -> float:
        """``(factor - factor_low) / factor``."""
        return (self.factor - self.factor_low) / self.factor if math.isfinite(self.factor) else math.inf


def scaled(instance: Instance, resource: Resource, factor: float) -> Instance:
    """The instance with one budget multiplied, those of devices for every device alike.

    The fastest clock never falls below ``freq_min_hz``: a device that is slowed down to that stays there.

    Raises
    ------
    InputError
        For an unknown resource.
    """
    if resource not in get_args(Resource):
        allowed = ", ".join(get_args(Resource))
        raise InputError("options", [Fault("options", "resource", repr(resource), allowed)])
    budget = getattr(instance, resource) * factor
    if resource == "freq_max_hz":
        budget = np.maximum(budget, instance.freq_min_hz)
    return instance.with_changes(**{resource: budget})


def front(
    source: Problem | Instance | str | Path,
    resource: Resource,
    factors: Iterable[float],
    method: str = "auto",
    *,
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
) -> list[Result]:
    """The least bound at several budgets: points of the Pareto front of bound against one resource.

    Parameters
    ----------
    source
        A problem, an instance, or the path of an instance file.
    resource
        The budget, as for :func:`least`.
    factors
        What the instance's own budget is multiplied with, one point each.
    method, rel_gap, time_limit
        As for :func:`edgealloc.solve`; the limit in s holds for each point.

    Returns
    -------
    list of Result
        One per factor. Infeasible budgets are results like any other. Ctrl-C ends the point that is solved, with
        what has been found; those after it are not started.

    Raises
    ------
    InputError, EdgeallocError
        As :func:`edgealloc.solve`.
    """
    problem, options = as_problem(source), Options(rel_gap, time_limit)
    scaled_by = [_scaled(problem, resource, factor) for factor in factors]
    return list(one_after_another(lambda point: choose(method, point).run(point, options), scaled_by))


def least(
    source: Problem | Instance | str | Path,
    resource: Resource,
    target: float,
    method: str = "auto",
    *,
    rel_tol: float = 1e-4,
    time_limit: float | None = None,
    callback: Callable[[float, float], bool | None] | None = None,
) -> Least:
    """Find the least factor of a budget with which some allocation has a bound of at most ``target``.

    Parameters
    ----------
    source
        A problem, an instance, or the path of an instance file.
    resource
        ``bandwidth_hz``, ``latency_s``, or ``energy_j``, ``power_max_w``, ``freq_max_hz`` (one factor for all
        devices; the least *sum* of energies is another problem).
    target
        The bound G to be reached.
    method
        As for :func:`edgealloc.solve`. Local methods prove no lower end.
    rel_tol
        Stop when the bracket's relative width is at most this.
    time_limit
        Wall-clock limit in s for the whole search; after it, and after Ctrl-C, the bracket so far is returned.
    callback
        Called with (factor_low, factor) after each solve; a true answer stops the search.

    Returns
    -------
    Least
        The least known factor that reaches the target, and one that is proven not to.

    Raises
    ------
    InputError
        When the target is below what unlimited resources reach, or an option is not valid.
    RefusedError
        When the method does not take the problem; for the bandwidth of sub-carriers under a cap in Hz, where more
        of it can hurt.
    """
    problem = as_problem(source)
    scaled(problem.instance, resource, 1.0)
    caps = [row for row in problem.constraints if isinstance(row, SpectrumCap)]
    if caps and resource == "bandwidth_hz" and problem.instance.access == "ofdma":
        listed = "; ".join(map(str, caps))
        why = "under it more bandwidth can hurt, for sub-carriers get wider and fewer are allowed"
        raise RefusedError(f"least does not take {listed}: {why}; limit their number (SubcarrierCap)")
    faults = []
    if not target > problem.free_objective:
        allowed = f"above {problem.free_objective:.9g}, the least bound with unlimited resources"
        faults.append(Fault("options", "target", repr(target), allowed))
    if not rel_tol > 0:
        faults.append(Fault("options", "rel_tol", repr(rel_tol), "a number > 0"))
    if faults:
        raise InputError("options", faults)

    clock, smallest = Clock(), _one_block(problem.instance, resource)
    low, high, best, solves, message = 0.0, math.inf, None, 0, ""
    factor = 1.0
    with Control(Options()) as control:  # a solve alone would take Ctrl-C for itself
        while not message and (high - low > rel_tol * high or math.isinf(high)):
            left = None if time_limit is None else time_limit - clock.seconds
            if left is not None and left <= 0:
                message = "time limit"
                break
            result = _reach(problem, resource, factor, target, method, left)
            solves += 1
            if result.objective <= target:
                high, best = factor, result
            elif result.status is Status.INFEASIBLE or result.lower_bound > target:
                low = factor
            else:
                message = (
                    f"at {factor:.9g} of the budget it stays open whether the target can be reached: "
                    f"best {result.objective:.9g}, bound {result.lower_bound:.9g} ({result.status.value})"
                )
            if callback is not None and callback(low, high):
                message = message or "stopped by the callback"
            if control.stopped():
                message = control.reason
            if math.isinf(high):
                factor = 2.0 * max(factor, low)
                if factor > LARGEST_FACTOR:
                    message = (
                        message or f"not reached with {LARGEST_FACTOR:.3g} times the budget: other budgets bind"
                    )
            else:
                factor = math.sqrt(low * high) if low else 0.5 * high
                if factor < smallest < high:
                    factor = smallest
                elif factor < smallest and problem.instance.exclusion_penalty is None:
                    low = math.nextafter(high, 0.0)  # with less than a block nobody can send
                elif factor < smallest:
                    message = message or "reached with one resource block, and there is no smaller spectrum"
                elif factor < 1.0 / LARGEST_FACTOR:
                    message = message or f"reached with less than {1.0 / LARGEST_FACTOR:.3g} of the budget"
    return Least(resource, target, high, low, best, solves, message)


def _one_block(instance: Instance, resource: Resource) -> float:
    """The factor of the bandwidth that leaves one resource block, less than which no instance has; otherwise 0."""
    if resource != "bandwidth_hz" or instance.block_hz is None:
        return 0.0
    factor = instance.block_hz / instance.bandwidth_hz
    return factor if instance.bandwidth_hz * factor >= instance.block_hz else math.nextafter(factor, math.inf)


def _scaled(problem: Problem, resource: Resource, factor: float) -> Problem:
    return Problem(scaled(problem.instance, resource, factor), problem.underfit, problem.constraints)


def _reach(
    problem: Problem, resource: Resource, factor: float, target: float, method: str, time_limit: float | None
) -> Result:
    """Solve until it is decided whether the target is reached, or can not be."""

    def decided(snapshot: Snapshot) -> bool:
        return snapshot.objective <= target or snapshot.lower_bound > target

    found, clock = _scaled(problem, resource, factor), Clock()
    for gap in _GAPS:
        left = None if time_limit is None else max(1e-3, time_limit - clock.seconds)
        result = choose(method, found).run(found, Options(gap, left, callback=decided))
        if result.status is not Status.OPTIMAL or result.objective <= target or result.lower_bound > target:
            break
    return result
