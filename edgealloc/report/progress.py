"""A live line on standard error for work that takes longer than a second.

It reads immutable snapshots and changes nothing: the same result comes out with or without it.
"""

from __future__ import annotations

import math
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgealloc.data.outcome import Snapshot
from edgealloc.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress"]

DELAY_S = 1.0


class Progress:
    """Context manager whose :meth:`update` is a solver callback; shows nothing within the first second.

    Parameters
    ----------
    title
        What is going on, for example the name of the instance.
    console
        Where to show it; nothing is shown unless it is a terminal.
    shown
        False for callers that promise silence, as ``--json`` does.
    """

    def __init__(self, title: str, console: Console | None = None, *, shown: bool = True) -> None:
        from rich.console import Console as RichConsole

        self.console = console or RichConsole(stderr=True)
        self.title, self.shown = printable(title), shown
        self._latest = ""
        self._display: Any = None
        self._closed = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(DELAY_S, self._show)
        self._timer.daemon = True

    def __enter__(self) -> Progress:
        if self.shown and self.console.is_terminal:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._display is not None:
                self._display.stop()

    def _show(self) -> None:
        from rich.progress import Progress as RichProgress
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._closed:  # the work ended while the timer fired
                return
            # no markup: names of instances and methods are shown as they are
            columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
            self._display = RichProgress(*columns, console=self.console, transient=True)
            self._display.add_task(f"{self.title}  {self._latest}", total=None)
            self._display.start()

    def update(self, snapshot: Snapshot) -> None:
        """Show a snapshot; never asks the solver to stop."""
        self._latest = snapshot_text(snapshot)
        with self._lock:
            if self._display is not None and not self._closed:
                self._display.update(self._display.task_ids[0], description=f"{self.title}  {self._latest}")


def snapshot_text(snapshot: Snapshot) -> str:
    """One line: method, iteration, incumbent, bound, gap and, for a tree, its nodes."""
    parts = [f"{snapshot.method} {snapshot.iteration}"]
    if math.isfinite(snapshot.objective):
        parts.append(f"incumbent {snapshot.objective:.8g}")
    if math.isfinite(snapshot.lower_bound):
        parts.append(f"bound {snapshot.lower_bound:.8g}")
    if math.isfinite(snapshot.rel_gap):
        parts.append(f"gap {snapshot.rel_gap:.1e}")
    if snapshot.nodes:
        parts.append(f"nodes {snapshot.nodes} ({snapshot.open_nodes} open)")
    if snapshot.note:
        parts.append(snapshot.note)
    return printable("  ".join(parts))
