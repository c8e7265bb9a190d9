"""Wall-clock time without compiling and loading code: what ``seconds`` and ``time_limit`` mean by time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock", "compiling_begins", "compiling_ends", "loading"]


class _Compiling(threading.local):
    """How long this thread has been compiling and loading; one function asks for another, and time counts once."""

    done: float = 0.0
    loaded: float = 0.0
    depth: int = 0
    since: float = 0.0


_compiling = _Compiling()


def compiling_begins() -> None:
    """Note that this thread compiles, or waits for others to compile, until :func:`compiling_ends`."""
    if _compiling.depth == 0:
        _compiling.since = time.perf_counter()
    _compiling.depth += 1


def compiling_ends() -> None:
    """Note the end of what :func:`compiling_begins` began; the two nest."""
    _compiling.depth -= 1
    if _compiling.depth == 0:
        _compiling.done += time.perf_counter() - _compiling.since
        _compiling.since = 0.0


@contextmanager
def loading() -> Iterator[None]:
    """In which compiled code, or numba itself, is loaded; while compiling it counts as that."""
    _compiling.depth += 1
    began = time.perf_counter()
    try:
        yield
    finally:
        _compiling.depth -= 1
        if _compiling.depth == 0:
            _compiling.loaded += time.perf_counter() - began


def _compiled() -> float:
    running = time.perf_counter() - _compiling.since if _compiling.since else 0.0
    return _compiling.done + running


class Clock:
    """Time since it was made, on the thread that made it."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._compiled = _compiled()
        self._loaded = _compiling.loaded

    @property
    def compile_seconds(self) -> float:
        """How long this thread compiled, in s."""
        return _compiled() - self._compiled

    @property
    def seconds(self) -> float:
        """Wall-clock time without compiling and loading, in s."""
        away = self.compile_seconds + _compiling.loaded - self._loaded
        return time.perf_counter() - self._started - away
