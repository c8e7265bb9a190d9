"""The settings of P-SCA.

Their meaning: docs/psca.md, section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgealloc.errors import Fault, InputError

__all__ = ["PscaSettings"]


@dataclass(frozen=True, slots=True)
class PscaSettings:
    """What is particular to P-SCA.

    Parameters
    ----------
    penalty_start, penalty_factor
        First penalty, relative to the mean relaxed price of a column, and its growth.
    penalty_steps
        Sub-problems per penalty.
    relax_steps, relax_tol
        Sub-problems without penalty at most, and the relative decrease below which they end (1e-9 for FDMA,
        where the relaxation is the problem).
    max_penalties
        Number of penalties at most.
    gap
        Duality gap at which a sub-problem is solved, relative to the objective.
    search
        Exact knapsack and exchanges of points in a shared band, kicks for sub-carriers (``psca+``).
    starts
        Starting points; those after the first are random (``psca+``: 3).
    bound
        Attach a root dual bound, so that the gap is guaranteed.

    Raises
    ------
    InputError
        For a value out of range; all faults at once.
    """

    penalty_start: float = 0.05
    penalty_factor: float = 2.0
    penalty_steps: int = 2
    relax_steps: int = 30
    relax_tol: float = 1e-5
    max_penalties: int = 24
    gap: float = 1e-7
    search: bool = False
    starts: int = 1
    bound: bool = False

    def __post_init__(self) -> None:
        rules = (
            (self.penalty_start > 0, "penalty_start", "> 0"),
            (self.penalty_factor > 1, "penalty_factor", "> 1"),
            (self.penalty_steps >= 1, "penalty_steps", ">= 1"),
            (self.relax_steps >= 1, "relax_steps", ">= 1"),
            (self.max_penalties >= 0, "max_penalties", ">= 0"),
            (0 < self.gap <= 1e-3, "gap", "in (0, 1e-3]"),
            (self.starts >= 1, "starts", ">= 1"),
        )
        faults = [
            Fault("options", name, repr(getattr(self, name)), allowed) for ok, name, allowed in rules if not ok
        ]
        if faults:
            raise InputError("options", faults)
