"""Decibels at the edge, SI inside; arrays that nobody can change.

Every quantity inside edgealloc is in Hz, s, J, W, bit or cycles. dB and dBm appear only in files,
on the command line and in the path-loss models.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LN2",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "db_to_linear",
    "dbm_to_w",
    "linear_to_db",
    "rebuilt",
]

LN2 = math.log(2.0)  # nats of a bit

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]  # indices and whole numbers; int64 on every 64-bit machine
BoolArray = NDArray[np.bool_]


def db_to_linear(value_db: ArrayLike) -> FloatArray:
    """Power ratio of a value in dB, ``10^(dB/10)``; any shape."""
    return np.asarray(10.0 ** (np.asarray(value_db, dtype=np.float64) / 10.0))


def linear_to_db(ratio: ArrayLike) -> FloatArray:
    """Value in dB of a power ratio > 0; any shape."""
    return np.asarray(10.0 * np.log10(np.asarray(ratio, dtype=np.float64)))


def dbm_to_w(value_dbm: ArrayLike) -> FloatArray:
    """Power in W of a power in dBm, ``10^((dBm-30)/10)``; any shape."""
    return db_to_linear(np.asarray(value_dbm, dtype=np.float64) - 30.0)


def rebuilt(data: Any) -> tuple[type, tuple[Any, ...]]:
    """``__reduce__`` of a dataclass with read-only arrays: copies and pickles are built anew from its fields.

    Without it they would come back writeable, for neither NumPy's pickles nor its copies keep that flag.
    """
    return type(data), tuple(getattr(data, f.name) for f in fields(data) if f.init)
