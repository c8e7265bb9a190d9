"""The record of a search tree: nodes, how each ended, export to networkx and a drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edgealloc.report.canvas import new_figure, save_figure

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["Fate", "Node", "Tree", "draw"]


class Fate(StrEnum):
    """How a node ended."""

    OPEN = "open"
    BRANCHED = "branched"
    BOUND = "closed by bound"
    INFEASIBLE = "infeasible"
    LEAF = "leaf that cannot be split"


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the search tree.

    Parameters
    ----------
    number, parent, depth
        Numbered in order of creation; -1 is the parent of the root.
    bound
        Lower bound of its box, inherited until its relaxation is solved.
    fate
        How it ended.
    branched_on
        What its children differ in.
    found
        Value of the incumbent found here, ``inf`` without one.
    """

    number: int
    parent: int
    depth: int
    bound: float
    fate: Fate = Fate.OPEN
    branched_on: str = ""
    found: float = math.inf


@dataclass(slots=True)
class Tree:
    """All nodes of a search, by number."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, parent: Node | None, bound: float, branched_on: str) -> Node:
        """A new open node."""
        above, depth = (-1, 0) if parent is None else (parent.number, parent.depth + 1)
        node = Node(len(self.nodes), above, depth, bound, branched_on=branched_on)
        self.nodes.append(node)
        return node

    def solved(self, node: Node, bound: float, branched_on: str) -> Node:
        """Note the bound that the relaxation of a node gave."""
        return self._store(replace(self.nodes[node.number], bound=bound, branched_on=branched_on))

    def improved(self, node: Node, value: float) -> Node:
        """Note an incumbent found at a node."""
        return self._store(replace(self.nodes[node.number], found=value))

    def close(self, node: Node, fate: Fate) -> Node:
        """Note how a node ended."""
        return self._store(replace(self.nodes[node.number], fate=fate))

    def _store(self, node: Node) -> Node:
        self.nodes[node.number] = node
        return node

    @property
    def depth(self) -> int:
        """Depth of the deepest node."""
        return max((node.depth for node in self.nodes), default=0)

    def count(self, fate: Fate) -> int:
        """How many nodes ended in this way."""
        return sum(node.fate is fate for node in self.nodes)

    def to_networkx(self) -> nx.DiGraph:
        """The tree with edges from parent to child; nodes carry the fields of :class:`Node`."""
        import networkx as nx

        graph = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(
                node.number,
                depth=node.depth,
                bound=node.bound,
                fate=node.fate.value,
                branched_on=node.branched_on,
                found=node.found,
            )
            if node.parent >= 0:
                graph.add_edge(node.parent, node.number)
        return graph


_COLOURS = {
    Fate.OPEN: "tab:orange",
    Fate.BRANCHED: "tab:gray",
    Fate.BOUND: "tab:blue",
    Fate.INFEASIBLE: "tab:red",
    Fate.LEAF: "tab:purple",
}


def draw(tree: Tree, path: str | Path) -> Path:
    """Draw a tree to a picture file: the bound of each node, children below parents.

    The height of a node is its bound, so that one sees where the bound moved; incumbents are stars. Needs
    matplotlib.

    Parameters
    ----------
    tree
        A search tree.
    path
        The picture; its ending says the format.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError, MissingPackageError
        When it cannot be written; without matplotlib.
    """
    place = _places(tree)
    bounds = [node.bound for node in tree.nodes if math.isfinite(node.bound)]
    top = max([*bounds, *(n.found for n in tree.nodes if math.isfinite(n.found))], default=1.0)
    bottom = min(bounds, default=0.0)

    def height(value: float) -> float:
        return min(max(value, bottom), top)

    figure = new_figure(9, 6)
    axes = figure.subplots()
    for node in tree.nodes:
        if node.parent >= 0:
            above = tree.nodes[node.parent]
            ends = [height(above.bound), height(node.bound)]
            axes.plot([place[above.number], place[node.number]], ends, color="lightgray", linewidth=0.8, zorder=1)
    for fate, colour in _COLOURS.items():
        chosen = [node for node in tree.nodes if node.fate is fate]
        if chosen:
            x, y = [place[n.number] for n in chosen], [height(n.bound) for n in chosen]
            axes.scatter(x, y, s=14, color=colour, label=f"{fate.value} ({len(chosen)})", zorder=2)
    winners = [node for node in tree.nodes if math.isfinite(node.found)]
    if winners:
        x, y = [place[n.number] for n in winners], [n.found for n in winners]
        axes.scatter(x, y, s=60, marker="*", color="tab:green", label="incumbent", zorder=3)
    axes.set_xticks([])
    axes.set_ylabel("lower bound")
    axes.set_title(f"search tree: {len(tree.nodes)} nodes, depth {tree.depth}")
    axes.legend(fontsize=8)
    return save_figure(figure, path, dpi=150)


def _places(tree: Tree) -> dict[int, float]:
    """Horizontal places: leaves side by side, parents above the middle of their children."""
    children: dict[int, list[int]] = {node.number: [] for node in tree.nodes}
    for node in tree.nodes:
        if node.parent >= 0:
            children[node.parent].append(node.number)
    place: dict[int, float] = {}
    stack, column = ([0] if tree.nodes else []), 0.0
    while stack:
        number = stack[-1]
        waiting = [child for child in children[number] if child not in place]
        if waiting:
            stack.append(waiting[0])
            continue
        below = [place[child] for child in children[number]]
        place[number] = sum(below) / len(below) if below else column
        column += not below
        stack.pop()
    return place
