"""Compiled kernels: the one place that says how numba compiles and where it keeps what it compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, TypeVar, cast, overload

from numba import njit, types
from numba.extending import typeof_impl

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def kernel(function: F, *, parallel: bool = False, inner: bool = False) -> F: ...


@overload
def kernel(*, parallel: bool = False, inner: bool = False) -> Callable[[F], F]: ...


def kernel(function: F | None = None, *, parallel: bool = False, inner: bool = False) -> F | Callable[[F], F]:
    """Compile a function of numbers and arrays when it is first called, and keep the code on disk.

    Division follows numpy: by zero gives inf or nan, never an exception. ``inner`` is for kernels that only other
    kernels call: without the wrappers for calls from Python they compile faster. Called from Python they run as
    Python does.
    """
    if function is None:
        return partial(kernel, parallel=parallel, inner=inner)
    compiled: F = njit(
        cache=True, error_model="numpy", parallel=parallel, no_cpython_wrapper=inner, no_cfunc_wrapper=inner
    )(function)
    return cast(F, _Inner(compiled)) if inner else compiled


class _Inner:
    """A kernel for kernels. Numba would let Python call one without a wrapper, and crash."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        update_wrapper(self, compiled.py_func)

    def __call__(self, *args: Any) -> Any:
        return self.compiled.py_func(*args)


@typeof_impl.register(_Inner)
def _typeof_inner(value: _Inner, _context: object) -> types.Type:
    return types.Dispatcher(value.compiled)
