"""Compiled kernels: the one place that says how numba compiles and where it keeps what it compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

__all__ = ["kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F, *, parallel: bool = False) -> F:
    """Compile a function of numbers and arrays when it is first called, and keep the code on disk.

    Division follows numpy: by zero gives inf or nan, never an exception.
    """
    compiled: F = njit(cache=True, error_model="numpy", parallel=parallel)(function)
    return compiled
