"""Compiled kernels: the one place that says how numba compiles, and that tells of it and times it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from numba import njit, types
from numba.core import event
from numba.extending import typeof_impl

from edgealloc.solvers.compiling.cache import KernelCache, folder_for_writing
from edgealloc.solvers.compiling.clock import compiling_begins, compiling_ends

__all__ = ["KERNELS", "kernel", "tell"]

logger = logging.getLogger("edgealloc.solvers.compiling")

# Every kernel of the modules imported so far: (module, name, parallel) -> dispatcher.
KERNELS: dict[tuple[str, str, bool], Any] = {}


def kernel(function: Callable[..., Any] | None = None, *, parallel: bool = False, inner: bool = False) -> Any:
    """Compile a function of numbers and arrays when it is first called, and keep the code on disk.

    Division follows numpy: by zero gives inf or nan, never an exception.

    Parameters
    ----------
    function
        The function; left out where the decorator has options.
    parallel
        Whether ``prange`` runs in threads.
    inner
        For kernels that only other kernels call: without the wrappers for calls from Python they compile faster.
        Called from Python they run as Python does.

    Returns
    -------
    callable
        The kernel, or a decorator where no function is given.
    """
    if function is None:
        return partial(kernel, parallel=parallel, inner=inner)
    options = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": inner}
    compile_it: Any = njit  # numba has types for a part of its options
    compiled: Any = compile_it(error_model="numpy", parallel=parallel, **options)(function)
    compiled._cache = KernelCache(compiled)
    KERNELS[function.__module__, function.__qualname__, parallel] = compiled
    return _Inner(compiled) if inner else compiled


class _Inner:
    """A kernel for kernels. Numba would let Python call one without a wrapper, and crash."""

    def __init__(self, dispatcher: Any) -> None:
        self.dispatcher = dispatcher
        update_wrapper(self, dispatcher.py_func)

    def __call__(self, *args: Any) -> Any:
        return self.dispatcher.py_func(*args)


@typeof_impl.register(_Inner)
def _typeof_inner(value: _Inner, _context: object) -> types.Type:
    return types.Dispatcher(value.dispatcher)


_told = False


def tell(more: str = "") -> None:
    """Say, once in a process, that kernels are being compiled; on standard error unless logging is set up."""
    global _told
    if _told:
        return
    _told = True
    if folder_for_writing() is None:
        logger.warning(
            "edgealloc: compiling, and no folder for the compiled code can be written, so every process compiles "
            "again; set NUMBA_CACHE_DIR to a folder that can be written"
        )
    else:
        logger.warning("edgealloc: compiling for this machine, once%s", more)


class _Stopwatch(event.Listener):
    """Takes compiling out of the clocks; events come on the thread that compiles, and nest."""

    def on_start(self, event: Any) -> None:
        compiling_begins()
        if isinstance(event.data["dispatcher"]._cache, KernelCache):
            tell()

    def on_end(self, event: Any) -> None:
        compiling_ends()


_register: Any = event.register  # numba has types for a part of what it offers
_register("numba:compile", _Stopwatch())
