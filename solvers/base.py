"""What every method shares: options, and the control that stops long work with its incumbent."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType, TracebackType
from typing import Any, TypeVar

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.forms import number
from edgealloc.data.outcome import Snapshot
from edgealloc.errors import Fault, InputError, shown
from edgealloc.formulation.result import Result
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["Callback", "Control", "Options", "one_after_another"]

T = TypeVar("T")
R = TypeVar("R")

Callback = Callable[[Snapshot], bool | None]

logger = logging.getLogger("edgealloc")


@dataclass(frozen=True, slots=True)
class Options:
    """Options common to all methods.

    Parameters
    ----------
    rel_gap
        Stop when ``(UB - LB) / |UB|`` is at most this.
    time_limit
        Wall-clock limit in s without compiling, None for none. The incumbent and its bound are returned.
    seed
        Seed of whatever a method draws at random.
    warm_start
        An allocation to start from.
    callback
        Called with a :class:`~edgealloc.formulation.result.Snapshot` per iteration; a true answer stops the solve.
    log
        Log each snapshot at INFO on the logger ``edgealloc`` (at DEBUG otherwise).
    cutoff
        A lower bound that is enough: a search stops at it, whatever its gap. Other methods need not know it.
    like
        Result of the same method for a problem that differs in budgets or objective alone. A search may begin from
        what it left behind (OFDMA: sets of sub-carriers and prices); answers are proved as ever.

    Raises
    ------
    InputError
        For a gap or a limit that is not positive, and whatever is of a wrong type.
    """

    rel_gap: float = 1e-4
    time_limit: float | None = None
    seed: int = 0
    warm_start: Allocation | None = None
    callback: Callback | None = None
    log: bool = False
    cutoff: float = math.inf
    like: Result | None = None

    def __post_init__(self) -> None:
        gap, limit = number(self.rel_gap), number(self.time_limit)
        callback: Any = self.callback
        rules = {
            "rel_gap": (gap is not None and math.isfinite(gap) and gap > 0, "a finite number > 0"),
            "time_limit": (
                self.time_limit is None or (limit is not None and limit > 0),
                "seconds > 0, or None",
            ),
            "seed": (_is_seed(self.seed), "a whole number >= 0"),
            "warm_start": (isinstance(self.warm_start, Allocation | None), "an edgealloc.Allocation, or None"),
            "callback": (callback is None or callable(callback), "a function of a Snapshot, or None"),
            "log": (isinstance(self.log, bool), "True or False"),
            "cutoff": (not math.isnan(_or_nan(self.cutoff)), "a number, or inf"),
            "like": (isinstance(self.like, Result | None), "the edgealloc.Result of a problem like it, or None"),
        }
        faults = [
            Fault("options", key, shown(getattr(self, key)), allowed)
            for key, (ok, allowed) in rules.items()
            if not ok
        ]
        if faults:
            raise InputError("options", faults)


def _or_nan(value: object) -> float:
    found = number(value)
    return math.nan if found is None else found


def _is_seed(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= 0)


@dataclass(repr=False)  # restoring a signal handler prints the old one, and with it every array in the options
class Control:
    """Clock, interrupt and progress of one solve; the only mutable object that methods share.

    Used as a context manager it turns the first Ctrl-C into a request to stop, so that the incumbent is
    returned; a second Ctrl-C raises as usual. A method that runs another is asked to stop with it. Where Ctrl-C
    is ignored, as in a script's background, it stays so. Signals reach the main thread only; elsewhere use a
    callback.
    """

    options: Options
    clock: Clock = field(default_factory=Clock)
    reason: str = ""
    trace: list[Snapshot] = field(default_factory=list)
    _previous: Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> Control:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if handler not in (None, signal.SIG_IGN):  # None: not Python's, and could not be put back
                self._previous = handler
                signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            outer = getattr(self._previous, "__self__", None)
            if self.reason == "interrupted" and isinstance(outer, Control):
                outer.reason = outer.reason or self.reason
            self._previous = None

    @classmethod
    @contextmanager
    def of_a_series(cls) -> Iterator[None]:
        """Around one of many solves: Ctrl-C ends it and then the series, by KeyboardInterrupt.

        A solve alone takes the first Ctrl-C as the wish for its incumbent. In a series that would be a result like
        any other, worse than it should be, and the next would begin.

        Raises
        ------
        KeyboardInterrupt
            At the end of the block.
        """
        with cls(Options()) as control:
            yield
        if control.reason == "interrupted":
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.reason == "interrupted":
            raise KeyboardInterrupt
        self.reason = "interrupted"

    @property
    def seconds(self) -> float:
        """Wall-clock time since the start without compiling, in s."""
        return self.clock.seconds

    def stopped(self) -> bool:
        """Whether a limit, the user or a callback asks to stop; ``reason`` says which."""
        limit = self.options.time_limit
        if not self.reason and limit is not None and self.seconds >= limit:
            self.stop("time limit")
        return bool(self.reason)

    def stop(self, reason: str) -> None:
        """Ask to stop, for a reason that the result tells; the first one counts."""
        self.reason = self.reason or reason

    def report(self, snapshot: Snapshot) -> None:
        """Record a snapshot under the next number, log it and show it to the callback."""
        snapshot = replace(snapshot, iteration=len(self.trace) + 1)
        self.trace.append(snapshot)
        level = logging.INFO if self.options.log else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "%s %6d  bound %.10g  incumbent %.10g  gap %.3g  %.2f s  %s",
                snapshot.method,
                snapshot.iteration,
                snapshot.lower_bound,
                snapshot.objective,
                snapshot.rel_gap,
                snapshot.seconds,
                snapshot.note,
            )
        if self.options.callback is not None and self.options.callback(snapshot):
            self.stop("stopped by the callback")


def one_after_another(solve: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """What several solves give, up to the one that Ctrl-C ended: who presses it means the whole."""
    with Control(Options()) as control:
        for task in tasks:
            yield solve(task)
            if control.stopped():
                return
