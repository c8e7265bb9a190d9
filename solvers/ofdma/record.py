"""What an OFDMA search leaves behind for its certificate: the cell, the boxes and their best prices."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgealloc.solvers.ofdma.box import OfdmaBox
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.search.record import Record

__all__ = ["OfdmaProof"]


@dataclass(frozen=True, slots=True, eq=False)
class OfdmaProof:
    """What a certificate is made of: the cell that was searched (of the objective, or counting) and the boxes.

    ``root`` is the box of everything; no box was visited when a diagnosis made a search needless.
    """

    cell: OfdmaCell
    root: OfdmaBox = field(default_factory=OfdmaBox)
    record: Record[OfdmaBox] = field(default_factory=Record)
