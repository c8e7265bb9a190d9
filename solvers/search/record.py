"""What a search leaves behind for its certificate: the boxes visited, each with its children and its guess."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

__all__ = ["Record"]

Box = TypeVar("Box")


@dataclass(slots=True, eq=False)
class Record(Generic[Box]):
    """Written by :func:`~edgealloc.solvers.search.engine.branch_and_bound`, box by box.

    Parameters
    ----------
    visits
        Children and guess (for example dual prices) of each box whose relaxation was solved.
    """

    visits: dict[Box, tuple[tuple[Box, ...], Any]] = field(default_factory=dict)

    def visit(self, box: Box, children: tuple[Box, ...], guess: Any) -> None:
        """Keep what the relaxation said of a box."""
        self.visits[box] = (children, guess)

    def visited(self, box: Box) -> tuple[tuple[Box, ...], Any]:
        """Children and guess of a box; no children and None for one that the search never came to."""
        return self.visits.get(box, ((), None))
