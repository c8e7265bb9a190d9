"""What a search leaves behind for its certificate: the boxes visited, the pieces dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgealloc.solvers.base import Control
from edgealloc.solvers.bnb import Found, Relaxed
from edgealloc.solvers.common_rate import CommonRate
from edgealloc.solvers.pieces import Pieces
from edgealloc.solvers.prices import Priced
from edgealloc.solvers.separable import Separable

__all__ = ["Dropped", "Record", "RecordedCommonRate", "RecordedSeparable"]


@dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """Pieces dropped by reduced cost, and the prices (mu, Q0) that justify it."""

    prices: tuple[float, float]
    pieces: Pieces


class Record:
    """Mixed into a relaxation: keeps each box with its children and prices, and what was dropped at the root."""

    pieces: Pieces
    visits: dict[Any, tuple[tuple[Any, ...], Any]]
    dropped: list[Dropped]

    def relax(
        self, box: Any, guess: Any, best: Found[Any] | None, cutoff: float, control: Control
    ) -> Relaxed[Any, Any]:
        """As the relaxation does; the prices kept are its own, or those that it started from."""
        relaxed: Relaxed[Any, Any] = super().relax(box, guess, best, cutoff, control)  # type: ignore[misc]
        self.__dict__.setdefault("visits", {})[box] = (relaxed.children, relaxed.guess or guess)
        return relaxed

    def _fix(self, priced: Priced, cutoff: float) -> None:
        before: Pieces = self.pieces
        super()._fix(priced, cutoff)  # type: ignore[misc]
        if len(self.pieces) < len(before):
            rows = zip(before.device, before.mode, before.left, strict=True)
            kept = set(zip(self.pieces.device, self.pieces.mode, self.pieces.left, strict=True))
            lost = [i for i, row in enumerate(rows) if row not in kept]
            entry = Dropped((priced.mu, priced.q), before.take(lost))  # type: ignore[arg-type]
            self.__dict__.setdefault("dropped", []).append(entry)


class RecordedSeparable(Record, Separable):
    """:class:`~edgealloc.solvers.separable.Separable` that keeps a record."""


class RecordedCommonRate(Record, CommonRate):
    """:class:`~edgealloc.solvers.common_rate.CommonRate` that keeps a record."""
