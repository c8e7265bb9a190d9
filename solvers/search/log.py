"""The log of a branch-and-bound search: a table while it runs, a report at its end, and a JSONL trace.

Columns: a letter for who found the incumbent of this row (X exchanges between devices, M mixed price answers,
W warm start, L least bandwidths), nodes solved, nodes open, the dual bound, the incumbent, the relative
gap, seconds. A row is printed for each new incumbent and otherwise at most once a second: what is printed
depends on the clock, the search does not.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from edgealloc.data.outcome import Snapshot
from edgealloc.data.solution import finite_or_none
from edgealloc.files.disk import write_file
from edgealloc.formulation.result import Result
from edgealloc.solvers.search.tree import Fate, Tree

__all__ = ["SearchLog", "report", "write_trace"]

logger = logging.getLogger("edgealloc")

_HEADER = "      nodes    open        dual bound         incumbent       gap   seconds"
_EVERY_S = 1.0


@dataclass(slots=True)
class SearchLog:
    """Prints snapshots of one search on the logger ``edgealloc``, at INFO if asked for, otherwise at DEBUG."""

    method: str
    name: str
    shown: bool
    printed: int = 0
    last_s: float = -math.inf

    @property
    def _level(self) -> int:
        return logging.INFO if self.shown else logging.DEBUG

    def row(self, snapshot: Snapshot) -> None:
        """Print a snapshot if it is due."""
        if not logger.isEnabledFor(self._level):
            return
        if not snapshot.note and snapshot.seconds < self.last_s + _EVERY_S and snapshot.open_nodes:
            return
        if self.printed % 30 == 0:
            logger.log(self._level, "%s", _HEADER)
        self.printed += 1
        self.last_s = snapshot.seconds
        logger.log(self._level, "%s", row(snapshot))

    def report(self, result: Result, tree: Tree) -> None:
        """Print the report of the search."""
        if logger.isEnabledFor(self._level):
            for line in report(result, tree).splitlines():
                logger.log(self._level, "%s", line)


def row(snapshot: Snapshot) -> str:
    """One line of the table."""
    gap = f"{snapshot.rel_gap:9.2e}" if math.isfinite(snapshot.rel_gap) else "        -"
    best = f"{snapshot.objective:17.10g}" if math.isfinite(snapshot.objective) else "                -"
    return (
        f"{snapshot.note[:1]:1} {snapshot.nodes:9d} {snapshot.open_nodes:7d} {snapshot.lower_bound:17.10g} {best} "
        f"{gap} {snapshot.seconds:9.2f}"
    )


def report(result: Result, tree: Tree) -> str:
    """What a search did, in a few lines.

    Parameters
    ----------
    result, tree
        The result, and its search tree.

    Returns
    -------
    str
        Status, bounds, gaps, nodes by how they ended, and seconds.
    """
    ends = ", ".join(f"{tree.count(fate)} {fate.value}" for fate in Fate if tree.count(fate))
    lines = [
        f"{result.method} on {result.problem.instance.name}: {result.status.value}",
        f"  objective   {result.objective:.12g}",
        f"  dual bound  {result.lower_bound:.12g}",
        f"  gap         {result.rel_gap:.3g} relative, {result.excess_gap:.3g} of the excess over the free value",
        f"  nodes       {result.nodes} solved, depth {tree.depth}: {ends}",
        f"  seconds     {result.seconds:.3f}",
    ]
    return "\n".join([*lines, f"  {result.message}"] if result.message else lines)


def write_trace(trace: Iterable[Snapshot], path: str | Path) -> Path:
    """Write snapshots as JSON lines, one per node; infinite numbers become null.

    Parameters
    ----------
    trace
        Snapshots in order.
    path
        The file, which is written anew.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When it cannot be written.
    """
    lines = []
    for snapshot in trace:
        fields = asdict(snapshot)
        fields |= fields.pop("step") or {}
        lines.append(json.dumps({k: finite_or_none(v) if isinstance(v, float) else v for k, v in fields.items()}))
    return write_file("".join(line + "\n" for line in lines), path)
