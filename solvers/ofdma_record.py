"""What an OFDMA search leaves behind for its certificate: the boxes visited, with their best prices."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgealloc.solvers.ofdma_box import OfdmaBox
from edgealloc.solvers.ofdma_cell import OfdmaCell
from edgealloc.solvers.ofdma_relax import Ofdma, Prices
from edgealloc.solvers.record import Record

__all__ = ["OfdmaProof", "RecordedOfdma"]


class RecordedOfdma(Record, Ofdma):
    """:class:`~edgealloc.solvers.ofdma_relax.Ofdma` that keeps a record."""


@dataclass(frozen=True, slots=True, eq=False)
class OfdmaProof:
    """What a certificate is made of: the cell that was searched (of the objective, or counting) and the record.

    It is data alone, no solver, so that a result can be copied and sent to another process.

    Parameters
    ----------
    cell
        The cell.
    root
        The box of every assignment.
    visits
        Children and best prices of the boxes visited; empty when a diagnosis made a search needless.
    """

    cell: OfdmaCell
    root: OfdmaBox = field(default_factory=OfdmaBox)
    visits: dict[OfdmaBox, tuple[tuple[OfdmaBox, ...], Prices | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, relaxation: RecordedOfdma) -> OfdmaProof:
        """What a search has recorded."""
        return cls(relaxation.cell, relaxation.root(), relaxation.__dict__.get("visits", {}))
