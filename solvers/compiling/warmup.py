"""Kernels compiled ahead on all cores at once: before a first solve what it needs, or everything there is.

numba compiles one function at a time in a process. So each further core gets a process of its own
(:mod:`edgealloc.solvers.compiling.worker`), which leaves what it compiled in the common cache. A kernel waits for
those that it calls: their code is read, not compiled again. Where no worker starts, or one dies, this process
compiles alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edgealloc.solvers.compiling.cache import calls, config, folder_for_writing
from edgealloc.solvers.compiling.clock import compiling_begins, compiling_ends
from edgealloc.solvers.compiling.dispatch import tell
from edgealloc.solvers.compiling.listing import Entry, every_entry, use_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["load", "prepare", "warm_up"]

_MOST_WORKERS = 7
_PATIENCE_S = 60.0  # after which a kernel that a worker has not finished is compiled here as well
_LOCK_WAIT_S = 300.0
_KERNEL_S = 0.6  # of one core, for the estimate that is told

_prepared: set[str] = set()


def prepare(use: str) -> None:
    """Before a first solve: compile what it needs and the cache lacks, ``use`` being ``method access``."""
    if use in _prepared:
        return
    _prepared.add(use)
    called, inner = use_of(use).called, use_of(use).inner
    if folder_for_writing() is None or not _missing(called):
        return
    compiling_begins()
    try:
        _compile((*called, *inner))
    finally:
        compiling_ends()


def warm_up(progress: Callable[[int, int], None] | None = None) -> tuple[int, int]:
    """Compile all kernels of the list that the cache lacks.

    Parameters
    ----------
    progress
        Called with (done, to do).

    Returns
    -------
    tuple of two int
        How many were compiled, and how many there are.
    """
    numbers = range(len(every_entry()))
    return _compile(numbers, progress), len(numbers)


def load(room: str) -> None:
    """Read what the cache has of a room's kernels (``ofdma``, say), those too that the next solve may not need."""
    if config.DISABLE_JIT:
        return
    for entry in every_entry():
        if entry.module.startswith(f"{room}."):
            dispatcher = entry.dispatcher()
            if dispatcher is not None and dispatcher._cache.holds(entry.signature):
                dispatcher.compile(entry.signature)


def _missing(numbers: Iterable[int]) -> dict[int, tuple[Entry, Any]]:
    """Those whose code is not in the cache, with their dispatchers; none where compiling is switched off."""
    if config.DISABLE_JIT:
        return {}
    entries = every_entry()
    pairs = {i: (entries[i], entries[i].dispatcher()) for i in numbers}
    return {i: (e, d) for i, (e, d) in pairs.items() if d is not None and not d._cache.holds(e.signature)}


def _compile(numbers: Iterable[int], progress: Callable[[int, int], None] | None = None) -> int:
    """Compile what is missing, one process at a time, and return how many that were."""
    todo = _missing(numbers)
    if not todo:
        return 0
    cores = min(_cores(), 1 + _MOST_WORKERS, len(todo))
    tell(f": {len(todo)} kernels, about {math.ceil(_KERNEL_S * len(todo) / cores)} s")
    with _alone():
        todo = _missing(todo)  # another process may have been here
        work = _Work(todo, progress)
        with _workers(work, cores - 1):
            while (number := work.take(_PATIENCE_S)) is not None:
                entry, dispatcher = todo[number]
                with contextlib.suppress(Exception):  # the list is out of date; a solve would tell
                    dispatcher.compile(entry.signature)
                work.done(number)
    return len(todo)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Work:
    """Kernels to compile, given out when all that they call are done, those first on which most waits."""

    def __init__(
        self, todo: dict[int, tuple[Entry, Any]], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._progress = progress
        self._change = threading.Condition()
        self._total, self._left, self._out = len(todo), set(todo), set[int]()
        numbers: dict[Any, set[int]] = {}
        for i, (_, dispatcher) in todo.items():
            numbers.setdefault(dispatcher, set()).add(i)
        callees = {d: calls(d) & (numbers.keys() - {d}) for d in numbers}
        callers = {d: [e for e in numbers if d in callees[e]] for d in numbers}
        length: dict[Any, int] = {}

        def path(dispatcher: Any) -> int:
            """Bytes of code from a kernel up to the last of its callers, for want of seconds."""
            if dispatcher not in length:
                length[dispatcher] = 0  # kernels may call each other in a ring
                size = len(dispatcher.py_func.__code__.co_code)
                length[dispatcher] = size + max(map(path, callers[dispatcher]), default=0)
            return length[dispatcher]

        self._rank = {i: -path(d) for i, (_, d) in todo.items()}
        self._waits = {i: {j for callee in callees[d] for j in numbers[callee]} for i, (_, d) in todo.items()}

    def take(self, patience_s: float | None = None) -> int | None:
        """The next kernel to compile, waiting until there is one; None when all are done."""
        with self._change:
            while self._left:
                idle = self._left - self._out
                ready = [i for i in idle if not self._waits[i] & self._left]
                if ready or (idle and not self._out):  # none is ready and none is out: a ring, anyone may begin
                    number = min(ready or idle, key=lambda i: (self._rank[i], i))
                    self._out.add(number)
                    return number
                if not self._change.wait(patience_s) and self._out:
                    return min(self._out)  # no worker should take so long
            return None

    def done(self, number: int) -> None:
        """A kernel is in the cache, or cannot be compiled."""
        with self._change:
            self._left.discard(number)
            self._out.discard(number)
            self._change.notify_all()
            if self._progress is not None:
                self._progress(self._total - len(self._left), self._total)

    def give_back(self, number: int) -> None:
        """A worker died over a kernel."""
        with self._change:
            self._out.discard(number)
            self._change.notify_all()


@contextlib.contextmanager
def _workers(work: _Work, count: int) -> Iterator[None]:
    """Worker processes that take part in the work; they end with this block, and when this process dies."""
    processes, threads = [], []
    run = "from edgealloc.solvers.compiling.worker import main; main()"
    folders = [place for place in sys.path if isinstance(place, str)]  # Python passes over all others as well
    code = f"import sys; sys.path[:] = {json.dumps(folders)}; {run}"
    if not sys.executable or getattr(sys, "frozen", False):  # inside another program, which is no Python to start
        count = 0
    try:
        for _ in range(count):
            with contextlib.suppress(OSError, ValueError):  # no such interpreter, or no processes left
                process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                processes.append(process)
                threads.append(threading.Thread(target=_serve, args=(work, process), daemon=True))
                threads[-1].start()
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for process in processes:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was not sent any more
                    pipe and pipe.close()


def _serve(work: _Work, process: subprocess.Popen[str]) -> None:
    """Hand kernels to a worker until all are done or it dies."""  # noqa: DOC501 (its own error, caught at once)
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        return
    while (number := work.take()) is not None:
        try:
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            if process.stdout.readline() != f"{number}\n":
                raise OSError("the worker has died")
        except (OSError, ValueError):
            work.give_back(number)
            return
        work.done(number)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait while another process fills the same cache; compiling the same twice would help nobody."""
    folder = folder_for_writing()
    if folder is None or fcntl is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            file = stack.enter_context((folder / "lock").open("a"))
            until = time.monotonic() + _LOCK_WAIT_S
            while time.monotonic() < until:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # said, for a process forked meanwhile holds the file, and with it the lock
                    stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
                    break
                except BlockingIOError:
                    time.sleep(0.05)
        yield  # dying gives the lock up as well
