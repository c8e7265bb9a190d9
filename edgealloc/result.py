"""What a solver returns: status, allocation, gaps and how it got there.

``Status`` says why it stopped *and* what the allocation is. FEASIBLE (a limit, an allocation with its
gap) is not NO_SOLUTION (a limit, nothing found), and neither is INFEASIBLE (proved, with a diagnosis).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.errors import StatusError
from edgealloc.units import FloatArray

if TYPE_CHECKING:
    import pandas as pd

    from edgealloc.problem import Problem

__all__ = ["Allocation", "Diagnosis", "Result", "Snapshot", "Status", "excess_gap", "relative_gap"]


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


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """Dropout, spectrum, power and processor frequency of every device, as read-only arrays.

    Parameters
    ----------
    keep
        Keep rates s_k; the dropout rate is 1 - s_k. Shape [K].
    freq_hz
        Processor frequencies in Hz. Shape [K].
    power_w
        Transmit power in W: of each device, shape [K]; for OFDMA on each sub-carrier, shape [M].
    bandwidth_hz
        Bandwidth of each device in Hz, shape [K]; None for OFDMA.
    owner
        Device of each sub-carrier, -1 for none, shape [M]; None unless OFDMA.
    selected
        Which devices take part. Shape [K].
    option
        Row of the adapter menu, -1 for a device without a menu. Shape [K].
    """

    keep: FloatArray
    freq_hz: FloatArray
    power_w: FloatArray
    bandwidth_hz: FloatArray | None = None
    owner: NDArray[np.intp] | None = None
    selected: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    option: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, dtype=np.intp))

    def __post_init__(self) -> None:
        k = len(self.keep)
        if not len(self.selected):
            object.__setattr__(self, "selected", np.ones(k, dtype=bool))
        if not len(self.option):
            object.__setattr__(self, "option", np.full(k, -1, dtype=np.intp))
        for name, dtype in (
            ("keep", np.float64),
            ("freq_hz", np.float64),
            ("power_w", np.float64),
            ("bandwidth_hz", np.float64),
            ("owner", np.intp),
            ("selected", np.bool_),
            ("option", np.intp),
        ):
            value = getattr(self, name)
            if value is not None:
                array = np.array(value, dtype=dtype)
                array.setflags(write=False)
                object.__setattr__(self, name, array)

    @property
    def dropout(self) -> FloatArray:
        """Dropout rates ``1 - keep``. Shape [K]."""
        return np.asarray(1.0 - self.keep)

    def subcarriers_of(self, device: int) -> NDArray[np.intp]:
        """Indices of the sub-carriers that a device owns (OFDMA)."""
        assert self.owner is not None
        return np.flatnonzero(self.owner == device)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an instance has no feasible allocation: a device, a budget, and what would rescue it.

    Parameters
    ----------
    device
        Name of the device, or None when the shared spectrum is what lacks.
    budget
        Field of the instance that is too small, for example ``latency_s``.
    available, required
        The budget, and the least value of it that makes this device feasible with the other budgets as
        they are; ``required`` is ``inf`` where no value does.
    message
        The whole finding as one sentence with a remedy.
    """

    device: str | None
    budget: str
    available: float
    required: float
    message: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable view of a solve in progress, given to callbacks and the log."""

    method: str
    seconds: float
    iteration: int
    lower_bound: float
    objective: float
    rel_gap: float
    nodes: int = 0
    open_nodes: int = 0
    note: str = ""


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


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Outcome of one solve.

    Parameters
    ----------
    problem
        The problem that was solved.
    method
        Name of the method.
    status
        Why it stopped and what the allocation is.
    objective
        Generalisation bound G of the allocation, ``inf`` without one.
    lower_bound
        Proven lower bound of the optimum, ``-inf`` when the method gives none.
    free_objective
        G_free, the minimum of G without resource constraints.
    allocation
        The allocation, or None.
    seconds, nodes, iterations
        Wall-clock time in s without compiling; branch-and-bound nodes; outer iterations.
    diagnosis
        Why the instance is infeasible; empty otherwise.
    message
        The remedy, or a remark on how the method ended.
    prices
        Dual prices that prove ``lower_bound`` (spectrum, per Hz; sparsity), where the method has them.
    trace
        One snapshot per outer iteration.
    compile_seconds
        Wall-clock time in s that went into compiling for this machine: 0 but for the first solves after
        installing. Not in the solution file.
    proof
        What a certificate is made of where the prices do not say it all; for the method's own use.
    """

    problem: Problem
    method: str
    status: Status
    objective: float
    lower_bound: float
    free_objective: float
    allocation: Allocation | None
    seconds: float
    nodes: int = 0
    iterations: int = 0
    diagnosis: tuple[Diagnosis, ...] = ()
    message: str = ""
    prices: Mapping[str, float] = field(default_factory=dict)
    trace: tuple[Snapshot, ...] = ()
    compile_seconds: float = 0.0
    proof: Any = None

    @property
    def rel_gap(self) -> float:
        """``(UB - LB) / |UB|``."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def excess_gap(self) -> float:
        """``(UB - LB) / (UB - G_free)``."""
        return excess_gap(self.objective, self.lower_bound, self.free_objective)

    def raise_for_status(self) -> Result:
        """Return self when there is an allocation; otherwise raise :class:`StatusError` with the remedy."""
        if self.status.has_allocation:
            return self
        raise StatusError(f"{self.status.value}: {self.message}")

    def to_frame(self) -> pd.DataFrame:
        """One row per device, columns named as in the solution file (needs pandas)."""
        from edgealloc.io import solution_frame

        return solution_frame(self)

    def save(self, path: str | Path) -> Path:
        """Write the solution as an ``edgealloc-solution/1`` JSON file; the file appears whole or not at all."""
        from edgealloc.io import save_solution

        return save_solution(self, path)

    def __repr__(self) -> str:
        instance: Any = self.problem.instance
        head = f"Result: {self.status.value} by {self.method} on {instance.name!r} ({instance.num_devices} devices"
        carriers = instance.num_subcarriers
        head += f", {carriers} sub-carriers)" if carriers else ")"
        if self.status.has_allocation:
            keep = self.allocation.keep[self.allocation.selected] if self.allocation else np.zeros(0)
            span = f"{keep.min():.3f} to {keep.max():.3f}" if keep.size else "none selected"
            proof = f"  bound {self.lower_bound:.9g}, rel_gap {self.rel_gap:.2g}, excess_gap {self.excess_gap:.2g}"
            value = f"  objective {self.objective:.9g} (free {self.free_objective:.6g}), keep rates {span}"
        else:
            value = f"  no allocation; free objective {self.free_objective:.6g}, bound {self.lower_bound:.6g}"
            proof = f"  {self.message.splitlines()[0] if self.message else ''}"
        effort = f"  {self.seconds:.3g} s, {self.iterations} iterations, {self.nodes} nodes"
        return "\n".join([head, value, proof, effort])
