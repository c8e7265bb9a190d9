"""How numba compiles kernels, and that it tells of it and times it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
from numba import njit
from numba.core import event

from edgealloc.solvers.compiling.cache import KernelCache, folder_for_writing
from edgealloc.solvers.compiling.clock import compiling_begins, compiling_ends
from edgealloc.solvers.compiling.pipeline import Compiler

__all__ = ["dispatcher_of", "tell"]

logger = logging.getLogger("edgealloc.solvers.compiling")


def dispatcher_of(function: Callable[..., Any], parallel: bool, inner: bool) -> Any:
    """Numba's object for a kernel, with our cache and our compiler."""
    options: dict[str, Any] = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": inner}
    if not parallel:
        options["pipeline_class"] = Compiler
    compile_it: Any = njit  # numba has types for a part of its options
    compiled: Any = compile_it(error_model="numpy", parallel=parallel, **options)(_for_numba(function))
    compiled._cache = KernelCache(compiled)
    return compiled


def _for_numba(function: Any) -> Any:
    """The function with numba's ``prange`` for the plain one, which numba does not know."""
    if "prange" not in function.__code__.co_names:
        return function
    names = {**function.__globals__, "prange": numba.prange}
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    made.__module__, made.__qualname__, made.__doc__ = function.__module__, function.__qualname__, function.__doc__
    return made


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
