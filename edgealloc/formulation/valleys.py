"""The deepest valley of a measured curve plus a stability term, in each device's keep range.

Between two measured points the curve is a cubic in s, and the stability term h is convex in S = s^2. With h
replaced by a tangent the sum is a cubic, whose least value has a closed form: a lower bound, and a point to try.
Intervals whose bound is not below the best point found are done, others are cut there; a linear h needs no cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgealloc.units import FloatArray

__all__ = ["deepest_keep"]

_ROUNDS = 60
_SURE = 2.0**-48  # of the size of the terms: what rounding may do to a bound
_MANY = 1_000_000  # intervals; never seen

Spread = Callable[[Any, FloatArray], tuple[FloatArray, FloatArray]]


def deepest_keep(curve: Any, weight: FloatArray, low: FloatArray, high: FloatArray, spread: Spread) -> FloatArray:
    """Keep rates that minimise ``weight u(s) + h(s^2)`` over [low, high], of all minima the deepest. Shapes [K].

    Parameters
    ----------
    curve
        u, a ``PPoly`` of cubics on all of [low, high].
    weight
        Factors of u, >= 0.
    low, high
        Keep ranges.
    spread
        Value and slope of each device's h: ``spread(k, S)`` with indices and squares of shape [N].

    Returns
    -------
    keep
        Shape [K].
    """
    k, left, right = _pieces(curve.x, low, high)
    keep, best = low.copy(), np.full(len(low), np.inf)
    for _ in range(_ROUNDS):
        touch = 0.5 * (left * left + right * right)
        value, slope = spread(k, touch)
        bound, where, size = _least_cubic(curve, weight[k], left, right, touch, value, slope)
        found = weight[k] * curve(where) + spread(k, where * where)[0]
        order = np.lexsort((found, k))
        first = order[np.searchsorted(k[order], np.arange(len(low)), side="left").clip(max=len(order) - 1)]
        better = (k[first] == np.arange(len(low))) & (found[first] < best)
        keep, best = np.where(better, where[first], keep), np.where(better, found[first], best)
        cut = np.where((where > left) & (where < right), where, 0.5 * (left + right))
        far = np.minimum(cut - left, right - cut) > 0.1 * (right - left)  # a cut at the edge leaves all to do
        cut = np.where(far, cut, 0.5 * (left + right))
        open_ = (bound < best[k] - _SURE * size) & (left < cut) & (cut < right)
        if not open_.any() or open_.sum() > _MANY:
            break
        k = np.repeat(k[open_], 2)
        left, right = (
            np.stack((left[open_], cut[open_]), axis=1).ravel(),
            np.stack((cut[open_], right[open_]), axis=1).ravel(),
        )
    return keep


def _pieces(knots: FloatArray, low: FloatArray, high: FloatArray) -> tuple[Any, FloatArray, FloatArray]:
    """The parts of each keep range between neighbouring knots: device, left and right end. Shapes [N]."""
    left = np.maximum(knots[:-1], low[:, None])
    right = np.minimum(knots[1:], high[:, None])
    point = (low == high)[:, None] & (left == right)
    device, piece = np.nonzero((left < right) | point)
    return device, left[device, piece], right[device, piece]


def _least_cubic(
    curve: Any, weight: FloatArray, left: FloatArray, right: FloatArray, touch: FloatArray, value: FloatArray,
    slope: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Least value of ``weight u(s) + value + slope (s^2 - touch)`` on intervals, where, and its size. All [N]."""
    piece = np.clip(np.searchsorted(curve.x, left, side="right") - 1, 0, len(curve.x) - 2)
    start = left - curve.x[piece]
    c3, c2, c1, c0 = (weight * row[piece] for row in curve.c)
    # about the left end, y = s - left
    base = c0 + start * (c1 + start * (c2 + start * c3)) + value + slope * (left * left - touch)
    first = c1 + start * (2.0 * c2 + 3.0 * start * c3) + 2.0 * slope * left
    second = c2 + 3.0 * start * c3 + slope
    width = right - left
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(second * second - 3.0 * first * c3, 0.0))
        dip = np.where(second > 0.0, -first / (second + root), (root - second) / (3.0 * c3))
    dip = np.where(np.isfinite(dip), np.clip(dip, 0.0, width), 0.0)
    tries = np.stack((np.zeros_like(dip), dip, width))
    values = base + tries * (first + tries * (second + tries * c3))
    at = np.argmin(values, axis=0)
    columns = np.arange(len(at))
    size = np.abs(base) + width * (np.abs(first) + width * (np.abs(second) + width * np.abs(c3)))
    size += np.abs(value) + np.abs(slope) * touch
    where = np.where(at == 2, right, np.minimum(left + tries[at, columns], right))
    return values[at, columns], where, size
