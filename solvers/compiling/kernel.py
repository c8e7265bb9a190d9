"""Kernels: functions of numbers and arrays that run compiled, or as Python where that is sooner done.

Nothing here imports numba. A small first solve that runs as Python never does (:func:`as_python`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial, update_wrapper
from typing import Any

import numpy as np

from edgealloc.solvers.compiling.clock import loading

__all__ = ["KERNELS", "Kernel", "as_python", "kernel"]

_PATIENCE_S = 1.0  # of a first solve as Python: loading compiled code takes about as long

# Every kernel of the modules imported so far: (module, name, parallel) -> kernel.
KERNELS: dict[tuple[str, str, bool], Kernel] = {}


def kernel(function: Callable[..., Any] | None = None, *, parallel: bool = False, inner: bool = False) -> Any:
    """Compile a function of numbers and arrays when it is first called, and keep the code on disk.

    Division follows numpy: by zero gives inf or nan, never an exception. ``inner`` is for kernels that only other
    kernels call: without the wrappers for calls from Python they compile faster. Called from Python they run as
    Python does.
    """
    if function is None:
        return partial(kernel, parallel=parallel, inner=inner)
    made = KERNELS[function.__module__, function.__qualname__, parallel] = Kernel(function, parallel, inner)
    return made


class Kernel:
    """A function that numba compiles when it is needed."""

    def __init__(self, function: Callable[..., Any], parallel: bool, inner: bool) -> None:
        self.function, self.parallel, self.inner = function, parallel, inner
        update_wrapper(self, function)

    @cached_property
    def dispatcher(self) -> Any:
        """Numba's object for the function."""
        with loading():
            from edgealloc.solvers.compiling.dispatch import dispatcher_of

            return dispatcher_of(self.function, self.parallel, self.inner)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes it for, in kernels that call it."""
        return self.dispatcher._numba_type_

    def __call__(self, *args: Any) -> Any:
        """Call it: compiled, unless :func:`as_python` is on and the code is not loaded yet."""
        if self.inner:  # numba would let Python call one without a wrapper, and crash
            return self.function(*args)
        if _turn.until and _turn.is_pythons() and not self._loaded:
            return self._as_python(args)
        return self.dispatcher(*args)

    @property
    def _loaded(self) -> bool:
        # where numba is switched off (NUMBA_DISABLE_JIT) its object is the function itself
        return "dispatcher" in self.__dict__ and bool(getattr(self.dispatcher, "overloads", ()))

    def _as_python(self, args: tuple[Any, ...]) -> Any:
        """What the compiled code gives, bit for bit; that code itself where Python raises instead."""
        before = [(arg, arg.copy()) for arg in args if isinstance(arg, np.ndarray) and arg.flags.writeable]
        try:
            with np.errstate(all="ignore"):
                return self.function(*args)
        except (ArithmeticError, ValueError):  # where compiled code goes on with inf or nan
            for array, copy in before:
                array[...] = copy
            return self.dispatcher(*args)


class _Turn(threading.local):
    """Whether kernels run as Python on this thread, until when, and what comes then."""

    until: float = 0.0
    then: Callable[[], None] | None = None

    def is_pythons(self) -> bool:
        if time.perf_counter() < self.until:
            return True
        self.until, then = 0.0, self.then
        if then is not None:
            then()
        return False


_turn = _Turn()


@contextmanager
def as_python(then: Callable[[], None]) -> Iterator[None]:
    """Run kernels as Python for a second at most; when that does not do, call ``then`` and go on compiled.

    For kernels whose arithmetic is the same either way: sums in loops, ``math`` rather than ``numpy``, products
    rather than powers. tests/solvers/compiling/test_as_python.py compares the bits.
    """
    _turn.until, _turn.then = time.perf_counter() + _PATIENCE_S, then
    try:
        yield
    finally:
        _turn.until, _turn.then = 0.0, None
