"""Search over the sets of sub-carriers of one device, in exact whole numbers: what the cuts do not close.

A cut says that the priced share of a set is at least ``base + sum of worth over the set``. Bases and worths are
rounded down to multiples of a power of two of the cut's own, so that their sums are exact 64-bit integers.

What it decides is in docs/certificates.md, section *OFDMA*.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["MAX_OPEN", "open_sets"]

MAX_OPEN = 300_000  # sets half decided at any time; a proof that needs more is no proof
MAX_CELLS = 3_000_000  # the same times cuts, 8 bytes each
_ROOM = 60  # bits of the sum of one cut's numbers, so that no sum of them leaves 64


def open_sets(
    base: FloatArray, worth: FloatArray, fixed: NDArray[np.int8], spend: Callable[[int], None] = lambda _: None
) -> BoolArray | None:
    """The sets that no cut puts at 0 or above.

    Parameters
    ----------
    base, worth
        Cuts; not above the true numbers, less what is to be reached. Shapes [L], [L, M].
    fixed
        1 in, 0 out, -1 open. Shape [M].
    spend
        Told how many numbers a step is about to look at.

    Returns
    -------
    Rows of sub-carriers owned, shape [N, M]; None when there are too many to look at.
    """
    count = len(fixed)
    if np.any(np.isposinf(base)):
        return np.zeros((0, count), bool)
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.abs(base) + np.abs(worth).sum(axis=1)
    known = np.isfinite(size)  # what is not known, or too large to be added up, closes nothing
    base, worth, size = base[known], worth[known], size[known]
    if not len(base):
        return None
    # each cut has a scale of its own: a cut of huge numbers must not wipe out the digits of another
    power = _ROOM - np.frexp(size)[1]
    whole, units = _units(base, power), _units(worth, power[:, None])
    free = np.flatnonzero(fixed < 0)
    bound = whole + units[:, fixed == 1].sum(axis=1) + np.minimum(units[:, free], 0).sum(axis=1)
    lead = int(np.argmax(bound))
    order = free[np.argsort(-np.abs(units[lead, free]), kind="stable")]
    bounds = bound[None, :]
    taken: BoolArray = (fixed == 1)[None, :]
    if bound.max() >= 0:
        return np.zeros((0, count), bool)
    for m in order.tolist():
        spend(bounds.size)
        inside, outside = bounds + np.maximum(units[:, m], 0), bounds + np.maximum(-units[:, m], 0)
        stay, go = inside.max(axis=1) < 0, outside.max(axis=1) < 0
        with_m = taken[stay]
        with_m[:, m] = True
        bounds, taken = np.concatenate((inside[stay], outside[go])), np.concatenate((with_m, taken[go]))
        if len(taken) > MAX_OPEN or bounds.size > MAX_CELLS:
            return None
    return taken


def _units(values: FloatArray, power: NDArray[np.intc]) -> IntArray:
    """Greatest whole numbers that are not above ``values 2^power``; what is negative stays so, however small."""
    scaled = np.ldexp(values, power)
    down = np.floor(scaled)
    return np.asarray(np.where((values < 0.0) & (down == 0.0), -1.0, down).astype(np.int64))
