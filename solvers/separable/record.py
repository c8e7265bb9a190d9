"""What a search over devices leaves behind for its certificate."""

from __future__ import annotations

from dataclasses import dataclass

from edgealloc.solvers.search.record import Record
from edgealloc.solvers.separable.box import DeviceBox
from edgealloc.solvers.separable.relaxation import Separable

__all__ = ["SeparableProof"]


@dataclass(frozen=True, slots=True, eq=False)
class SeparableProof:
    """What a certificate is made of: the relaxation with the pieces that it kept and dropped, and the boxes."""

    relaxation: Separable
    record: Record[DeviceBox]
