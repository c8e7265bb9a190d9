"""The verdict on a certificate, and what may be spent on it.

The budget goes by the file's own size: what an honest proof of that size costs, many times over, is allowed, and
no proof below a megabyte may cost more than about ten seconds. Work is estimated before it is done.

How the work is counted is in docs/certificates.md, section *Work*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgealloc.certificate.prices import Certificate, Node
from edgealloc.certificate.subcarriers import Branch, OwnerCut, Part, SubcarrierCertificate
from edgealloc.errors import Fault

__all__ = ["BITS", "Budget", "Found", "Proof", "TooMuchWork"]

WORK = 6e6  # microseconds, about, that a certificate of up to a megabyte may take
_LEAF, _PART, _POINT, _ROW = 300.0, 500.0, 15.0, 50.0  # microseconds each, about
_ROUND, _PRICED, _PIECE, _PASSED, _BALL = 6e3, 200.0, 2.0, 0.2, 150.0  # of certificates by prices
_STEP, _NUMBER, _OPTION = 20.0, 0.02, 0.5
IN_BALLS = 25.0  # times as much
MAX_POINTS = 100_000  # planes evaluated at once, about 2 kB each
MAX_CAPS = 64
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


class TooMuchWork(Exception):
    """The budget is spent."""


@dataclass(slots=True, eq=False)
class Budget:
    """Microseconds, about, that checking may take: ``WORK``, times the square of the size in MB above 1.

    A certificate that was not read from text has no size, and no limit.
    """

    limit: float
    spent: float = 0.0

    @classmethod
    def of(cls, size: int) -> Budget:
        """Of a certificate of so many bytes; the work of honest trees grows as leaves times pieces."""
        return cls(WORK * max(1.0, size / 1e6) ** 2 if size else math.inf)

    def spend(self, work: float) -> None:
        """Count work before it is done.

        Raises
        ------
        TooMuchWork
            When the budget does not hold it.
        """
        self.spent += work
        if not self.spent <= self.limit:
            raise TooMuchWork(f"more than {self.limit:.3g} units of work")

    def tree(self, certificate: Certificate | SubcarrierCertificate, rows: int) -> None:
        """Spend what the nodes cost: every one holds the cuts of all those above it.

        Whether a cut has an option is asked for each of the ``rows`` of the longest menu.
        """
        load: list[int] = []  # cuts, and options of cuts, on the way from the root
        nodes: Sequence[Node | Branch] = certificate.nodes
        for i, node in enumerate(nodes):
            options = () if node.cut is None or isinstance(node.cut, OwnerCut) else node.cut.options or ()
            load.append(len(options) + (load[node.parent] + 1 if 0 <= node.parent < i else 0))
            self.spend(5.0 + load[-1] + _OPTION * rows)

    def constraints(self, count: int, devices: int) -> None:
        """Spend what so many constraints cost that may each be about all devices."""
        self.spend(count * (20.0 + devices))

    def caps(self, count: int) -> None:
        """Refuse more caps with prices than anybody has: each is a row of numbers of all devices.

        Raises
        ------
        TooMuchWork
            For more than 64.
        """
        if count > MAX_CAPS:
            raise TooMuchWork(f"{count} caps with prices, more than {MAX_CAPS}")

    def rounds(self, count: int, pieces: int) -> None:
        """Spend what so many rounds cost, and the evaluation of the pieces themselves."""
        self.spend(_ROUND * (count + 1) + _PIECE * pieces * (count + 2))

    def prices(self, pieces: int, left: int, cuts: int, options: int, pools: int = 0) -> None:
        """Spend what one leaf costs, of so many pieces, cut devices, devices with fewer options, and clusters.

        Only the ``left`` pieces that no round drops are priced, few of many where a search was long.
        """
        self.spend(
            _PRICED + _PASSED * pieces + _PIECE * left + cuts + _PIECE * pools + options * (15.0 + 0.02 * pieces)
        )

    def in_balls(self, pieces: int) -> None:
        """Spend what so many pieces of one leaf cost in balls."""
        self.spend(_ROUND * 2.0 + _BALL * pieces)

    def leaf(
        self, parts: Sequence[Part], points: int, owners: int, pools: int = 0, *, balls: bool = False
    ) -> None:
        """Spend what the parts of a leaf, of so many planes and clusters, cost before their sets are searched.

        Raises
        ------
        TooMuchWork
            When the budget does not hold it, or the planes are too many for the memory.
        """
        if points > MAX_POINTS:
            raise TooMuchWork(f"{points} planes at one leaf, more than {MAX_POINTS}")
        work = _LEAF + 20.0 * owners + _PART * len(parts) + _POINT * points + 2.0 * _PIECE * pools
        self.spend(work * (IN_BALLS if balls else 1.0))

    def search(self, numbers: int) -> None:
        """Spend what one step of a search over sets costs that looks at so many numbers."""
        self.spend(_STEP + _NUMBER * numbers)

    def sets(self, rows: int, tried: bool, balls: bool) -> None:
        """Spend what it costs to find from where on so many sets pay, or to have tried them at one level each."""
        self.spend(rows * (_POINT if tried else _ROW) * (IN_BALLS if balls else 1.0))
