"""How a solve ends and how far it has got: status, diagnosis, snapshots and the two gaps.

``Status`` says why it stopped *and* what the allocation is. FEASIBLE (a limit, an allocation with its
gap) is not NO_SOLUTION (a limit, nothing found), and neither is INFEASIBLE (proved, with a diagnosis).

What they mean to a reader is in docs/reading.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

__all__ = ["Diagnosis", "LocalStep", "Snapshot", "Status", "excess_gap", "relative_gap"]


class Status(StrEnum):
    """Why the solver stopped and what its allocation is."""

    OPTIMAL = "optimal"
    LOCALLY_SOLVED = "locally_solved"
    FEASIBLE = "feasible"
    NO_SOLUTION = "no_solution"
    INFEASIBLE = "infeasible"
    ERROR = "error"

    @property
    def has_allocation(self) -> bool:
        """Whether a result of this status carries an allocation."""
        return self in (Status.OPTIMAL, Status.LOCALLY_SOLVED, Status.FEASIBLE)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an instance has no feasible allocation: a device, a budget, and what would rescue it.

    Parameters
    ----------
    device
        Name of the device, or None when the shared spectrum is what lacks, or sub-carriers for all devices.
    budget
        Field of the instance that is too small, for example ``latency_s``.
    available, required
        The budget, and the least value of it that makes this device, with all of the spectrum, feasible with
        the other budgets as they are (without a device: that makes all of them feasible together). ``required``
        is ``inf`` where no value does, or where enough and too little are not both proved.
    message
        The whole finding as one sentence with a remedy.
    """

    device: str | None
    budget: str
    available: float
    required: float
    message: str


@dataclass(frozen=True, slots=True)
class LocalStep:
    """One step of P-SCA, in numbers: what its objective is made of, and how far it is from what it is to become.

    Parameters
    ----------
    start
        Number of the start, from 1.
    devices
        Devices that take part.
    penalty
        Weight of the penalty on binaries that are none, relative to the objective; 0 while relaxing.
    nudges
        How often binaries that rested at one half have been nudged; the objective may rise there.
    binary_residual
        ``4 sum c (1 - c)`` over the number of binaries: 0 when all are binary, 1 when all are one half.
    unsent, unsent_weight
        What the spectrum does not carry yet of the payloads, summed over devices, dimensionless; and its weight.
    dual_residual
        Largest dual residual of the convex step as it was solved.
    """

    start: int
    devices: int
    penalty: float
    nudges: int
    binary_residual: float
    unsent: float
    unsent_weight: float
    dual_residual: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable view of a solve in progress, given to callbacks and the log.

    Parameters
    ----------
    method
        Name of the method.
    seconds
        Wall-clock time so far in s, compiling not counted.
    iteration
        Number of the outer iteration from 1, one more each time; what counts as one is the method's affair.
    lower_bound, objective
        Proven lower bound of the optimum, ``-inf`` without one, and G of the incumbent, ``inf`` without one
        (``psca``: the penalised G of its iterate).
    rel_gap
        ``(UB - LB) / |UB|`` of the two.
    nodes, open_nodes
        Nodes of the search tree so far, and those that still wait; 0 for methods without a tree.
    note
        The method's own remark for the log; mostly empty.
    step
        What P-SCA knows of its step; None for other methods.
    """

    method: str
    seconds: float
    iteration: int
    lower_bound: float
    objective: float
    rel_gap: float
    nodes: int = 0
    open_nodes: int = 0
    note: str = ""
    step: LocalStep | None = None


def relative_gap(objective: float, lower_bound: float) -> float:
    """``(UB - LB) / |UB|``, never negative; ``inf`` without an allocation."""
    if not np.isfinite(objective):
        return float("inf")
    return max(0.0, objective - lower_bound) / abs(objective) if objective else max(0.0, -lower_bound)


def excess_gap(objective: float, lower_bound: float, free_objective: float) -> float:
    """``(UB - LB) / (UB - G_free)``: the gap measured against what resources cost, not against the bound.

    The bound has a large constant part, so a gap relative to G flatters every method. 0 where the allocation
    attains the free minimum to 1e-12, for that proves it optimal; ``inf`` without an allocation.
    """
    if not np.isfinite(objective):
        return float("inf")
    excess = objective - free_objective
    if excess <= 1e-12 * abs(objective):
        return 0.0
    return max(0.0, objective - lower_bound) / excess
