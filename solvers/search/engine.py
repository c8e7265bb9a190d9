"""Branch and bound over boxes: best bound first, with diving. The loop, and what a problem brings to it.

A problem subclasses :class:`Relaxation`: a root box, a valid lower bound of every box, and a way to split a
box. Nothing here knows what a box is. See ``examples/toy_bnb.py`` for a complete one.

Whatever stops the search, ``lower_bound`` of the outcome is proven: it is the least of the bounds of all open
nodes, of all closed leaves and of what the relaxation discarded on its own account.

Derived: docs/branch_and_bound.md, section 1.
"""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from edgealloc.data.outcome import Snapshot, relative_gap
from edgealloc.solvers.base import Control
from edgealloc.solvers.search.record import Record
from edgealloc.solvers.search.tree import Fate, Node, Tree

__all__ = ["MOST_NODES", "Found", "Outcome", "Relaxation", "Relaxed", "branch_and_bound", "cutoff_at"]

Box = TypeVar("Box")
Point = TypeVar("Point")

# Nodes that a search keeps, open or closed, before it stops for want of memory: each takes one or two kB.
MOST_NODES = 500_000
# A child is dived into while its parent's bound is within this share of the gap above the best bound.
_DIVE_WITHIN = 0.25
_ROUNDING = 1e-14  # of a value, so that a node closed at the cutoff is within the gap when it is computed again
_SPARE = 1e-3  # of a gap: a certificate may prove a few digits less than the search did, and still the gap


@dataclass(frozen=True, slots=True)
class Found(Generic[Point]):
    """A feasible point: its objective value, the point, and a letter for who found it."""

    value: float
    point: Point
    source: str = "H"


@dataclass(frozen=True, slots=True)
class Relaxed(Generic[Box, Point]):
    """What a relaxation says about a box.

    Parameters
    ----------
    bound
        Valid lower bound of the objective over the box; ``inf`` when the box is infeasible.
    found
        Feasible points met on the way, anywhere in the root box.
    children
        Boxes that cover the box, the most promising first; empty when it cannot be split further.
    guess
        Handed to the relaxation of the children, for example dual prices.
    branched_on
        What the children differ in, for the record.
    """

    bound: float
    found: tuple[Found[Point], ...] = ()
    children: tuple[Box, ...] = ()
    guess: Any = None
    branched_on: str = ""


class Relaxation(ABC, Generic[Box, Point]):
    """A problem as branch and bound sees it."""

    @abstractmethod
    def root(self) -> Box:
        """The box that holds every feasible point."""

    @abstractmethod
    def relax(
        self, box: Box, guess: Any, best: Found[Point] | None, cutoff: float, control: Control
    ) -> Relaxed[Box, Point]:
        """Bound a box from below.

        Parameters
        ----------
        box
            The box.
        guess
            ``guess`` of the parent's :class:`Relaxed`; None at the root.
        best
            The incumbent, or None.
        cutoff
            A bound that is enough: the box is closed at it, so it pays to stop there.
        control
            Ask ``control.stopped()`` in long loops and return the best bound so far.
        """

    def discarded_bound(self) -> float:
        """Least bound of anything discarded for good inside :meth:`relax` (reduced-cost fixing)."""
        return math.inf


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Point]):
    """Where a search ended.

    Parameters
    ----------
    best
        The incumbent, or None.
    lower_bound
        Proven lower bound of the optimum; ``inf`` when the root box is proved infeasible.
    nodes
        Nodes whose relaxation was solved.
    tree
        The record of the search.
    exhausted
        Whether every box was closed.
    """

    best: Found[Point] | None
    lower_bound: float
    nodes: int
    tree: Tree
    exhausted: bool

    @property
    def upper(self) -> float:
        """Value of the incumbent, ``inf`` without one."""
        return math.inf if self.best is None else self.best.value


@dataclass(slots=True)
class _Frontier(Generic[Box]):
    """Open nodes by bound; the least node number decides ties, so the order is always the same."""

    heap: list[tuple[float, int, Node, Box, Any]] = field(default_factory=list)

    def push(self, node: Node, box: Box, guess: Any) -> None:
        heapq.heappush(self.heap, (node.bound, node.number, node, box, guess))

    def pop(self) -> tuple[Node, Box, Any]:
        return heapq.heappop(self.heap)[2:]

    def bound(self) -> float:
        return self.heap[0][0] if self.heap else math.inf


def branch_and_bound(
    relaxation: Relaxation[Box, Point],
    control: Control,
    *,
    starts: Sequence[Found[Point]] = (),
    enough: float = math.inf,
    method: str = "bnb",
    watch: Callable[[Snapshot], None] | None = None,
    record: Record[Box] | None = None,
) -> Outcome[Point]:
    """Search until the relative gap of ``control.options`` is proved, a limit is reached or no box is left.

    Limits are those of the options and, for the memory, ``MOST_NODES``.

    Parameters
    ----------
    relaxation
        The problem.
    control
        Options, clock and interrupt; one snapshot per node goes to it.
    starts
        Feasible points to start from.
    enough
        A lower bound that is enough, whatever the gap.
    method
        Name for the snapshots.
    watch
        Also given every snapshot (the log); it must not change anything.
    record
        Given every box with its children and guess; it must not change anything either.
    """
    rel_gap = control.options.rel_gap
    best = min(starts, key=lambda point: point.value, default=None)
    tree, frontier = Tree(), _Frontier[Box]()
    closed = math.inf  # least bound of the leaves closed so far
    current: tuple[Node, Box, Any] | None = (tree.add(None, -math.inf, ""), relaxation.root(), None)
    nodes = 0

    def upper() -> float:
        return math.inf if best is None else best.value

    def cutoff() -> float:
        return min(cutoff_at(upper(), rel_gap), enough)

    def lower() -> float:
        open_bound = min(frontier.bound(), current[0].bound if current else math.inf)
        return min(open_bound, closed, relaxation.discarded_bound(), upper())

    while current and (nodes == 0 or not control.stopped()):
        node, box, guess = current
        if node.bound >= cutoff():
            closed = min(closed, node.bound)
            tree.close(node, Fate.BOUND)
            current = frontier.pop() if frontier.heap else None
            continue
        relaxed = relaxation.relax(box, guess, best, cutoff(), control)
        nodes += 1
        if record is not None:  # a box that inherits its guess keeps that one
            record.visit(box, relaxed.children, guess if relaxed.guess is None else relaxed.guess)
        node = tree.solved(node, max(node.bound, relaxed.bound), relaxed.branched_on)
        current = (node, box, guess)
        letter = ""
        for point in relaxed.found:
            if point.value < upper():
                best, letter = point, point.source
                tree.improved(node, point.value)
        if control.stopped() and node.bound < cutoff():
            pass  # the node stays open with the bound that it has
        elif node.bound >= cutoff() or not relaxed.children:
            closed = min(closed, node.bound)
            infeasible = math.isinf(node.bound)
            tree.close(
                node, Fate.INFEASIBLE if infeasible else Fate.BOUND if node.bound >= cutoff() else Fate.LEAF
            )
            current = None
        else:
            tree.close(node, Fate.BRANCHED)
            current = None
            for child_box in relaxed.children:
                child = tree.add(node, node.bound, "")
                if current is None and _dive(node.bound, min(frontier.bound(), closed), upper()):
                    current = (child, child_box, relaxed.guess)
                else:
                    frontier.push(child, child_box, relaxed.guess)
        if current is None and frontier.heap:
            current = frontier.pop()
        if current is not None and len(tree.nodes) >= MOST_NODES:
            control.stop(f"memory for {MOST_NODES} nodes is used up; ask for a larger rel_gap")
        waiting = len(frontier.heap) + (current is not None)
        bound = lower()
        snapshot = Snapshot(
            method, control.seconds, nodes, bound, upper(), relative_gap(upper(), bound), nodes, waiting, letter
        )
        control.report(snapshot)
        if watch is not None:
            watch(snapshot)
    return Outcome(best, lower(), nodes, tree, current is None)


def cutoff_at(upper: float, rel_gap: float) -> float:
    """The bound at which a box need not be searched further when the incumbent is worth ``upper``.

    Parameters
    ----------
    upper
        Value of the incumbent; ``inf`` without one.
    rel_gap
        The relative gap asked for; it is closed with a little to spare.

    Returns
    -------
    float
        A bound whose gap to ``upper`` is below ``rel_gap``; ``inf`` without an incumbent.
    """
    if math.isinf(upper):
        return math.inf
    return upper - max(min((1.0 - _SPARE) * rel_gap, rel_gap - _ROUNDING), 0.0) * abs(upper)


def _dive(bound: float, best_bound: float, upper: float) -> bool:
    """Whether to go on below a node: always before there is an incumbent, else while its bound is good."""
    return math.isinf(upper) or bound <= min(best_bound, upper) + _DIVE_WITHIN * (upper - min(best_bound, upper))
