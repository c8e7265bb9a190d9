"""What an OFDMA search leaves behind for its certificate: the boxes visited, with their best prices."""

from __future__ import annotations

from dataclasses import dataclass

from edgealloc.solvers.bnb import Outcome
from edgealloc.solvers.ofdma_cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma_relax import Ofdma
from edgealloc.solvers.record import Record

__all__ = ["OfdmaProof", "RecordedOfdma"]


class RecordedOfdma(Record, Ofdma):
    """:class:`~edgealloc.solvers.ofdma_relax.Ofdma` that keeps a record."""


@dataclass(frozen=True, slots=True, eq=False)
class OfdmaProof:
    """What a certificate is made of: the cell that was searched (of the objective, or counting) and the record.

    ``relaxation`` is None when a diagnosis made a search needless.
    """

    cell: OfdmaCell
    relaxation: RecordedOfdma | None = None
    outcome: Outcome[Assignment] | None = None
