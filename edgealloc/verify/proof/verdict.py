"""The verdict on a certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgealloc.errors import Fault

__all__ = ["BITS", "Found", "Proof"]

BITS = 128  # of the balls that decide what intervals leave open


@dataclass(frozen=True, slots=True)
class Proof:
    """What a certificate proves.

    Parameters
    ----------
    faults
        Why it proves nothing, or not what it claims; empty: it holds.
    lower_bound
        The bound that was proved, ``-inf`` where the form is broken. At least the claimed one if it holds.
    leaves, in_balls
        Leaves of the tree, and how many of them needed balls.
    """

    faults: tuple[Fault, ...]
    lower_bound: float = -math.inf
    leaves: int = 0
    in_balls: int = 0


@dataclass(slots=True, eq=False)
class Found:
    """Collects faults."""

    faults: list[Fault] = field(default_factory=list)

    def add(self, key: str, value: object, allowed: str) -> None:
        """Note a fault of the certificate: which field, the value found, what is allowed."""
        self.faults.append(Fault("certificate", key, str(value), allowed))
