r"""Brackets of the least value of a measured curve plus a stability term, for the free minimum of the checker.

On each piece of the curve the sum is bounded below by the least Bernstein coefficient of the cubic plus a tangent,
in S = s^2, of the convex stability term, and above by its values at both ends. Intervals that may hold less than
the best end found are halved by de Casteljau's rule. Both bounds meet with the square of the width, so that only
the intervals beside a minimum go on; no valley is passed over, however narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgealloc.data.spec import UnderfitCurve
from edgealloc.units import FloatArray, IntArray
from edgealloc.verify.proof.curve import Curve
from edgealloc.verify.proof.enclosures import Intervals

__all__ = ["curve_minimum"]

_HALVINGS = 60
_INTERVALS = 200_000  # beyond, the lower end is that of the intervals still open
_MARGIN = 2.0**-46  # of the size of the terms: rounding of coefficients, halvings and the stability term

Convex = Callable[[Any, FloatArray], tuple[FloatArray, FloatArray]]


def curve_minimum(
    points: UnderfitCurve, weight: FloatArray, low: FloatArray, high: FloatArray, convex: Convex
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bracket of the least ``weight u(s) + h(s^2)`` over each [low, high], and s^2 where it is attained.

    Parameters
    ----------
    points
        The curve; it is known on all of [low, high].
    weight, low, high
        Factor >= 0 and range of each row. Shape [R].
    convex
        Value and slope of h, convex and increasing: ``convex(row, S)``, shapes [N].

    Returns
    -------
    below, above, square
        Shape [R].
    """
    row, left, right = _parts(points.keep, low, high)
    with np.errstate(all="ignore"):
        found = Curve.of(points, Intervals).bernstein(left, right)
    bern = np.stack([weight[row] * 0.5 * (part.lower() + part.upper()) for part in found])
    above, square, below = np.full(len(low), np.inf), low * low, np.full(len(low), np.inf)
    size = weight * points.value[0] + convex(np.arange(len(low)), high * high)[0]
    for _ in range(_HALVINGS):
        lows, ends = _bounds(row, left, right, bern, convex)
        for value, keep in ((ends[0], left), (ends[1], right)):
            np.minimum.at(above, row, value)
            hit = value == above[row]
            square[row[hit]] = keep[hit] ** 2
        middle = 0.5 * (left + right)
        goes_on = (lows < above[row] - _MARGIN * size[row]) & (left < middle) & (middle < right)
        if goes_on.sum() > _INTERVALS:
            goes_on[:] = False
        np.minimum.at(below, row[~goes_on], lows[~goes_on])
        if not goes_on.any():
            break
        row, left, right, middle = row[goes_on], left[goes_on], right[goes_on], middle[goes_on]
        first, second = _halves(bern[:, goes_on])
        row, bern = np.concatenate((row, row)), np.concatenate((first, second), axis=1)
        left, right = np.concatenate((left, middle)), np.concatenate((middle, right))
    else:
        np.minimum.at(below, row, _bounds(row, left, right, bern, convex)[0])
    return np.minimum(below, above) - 2.0 * _MARGIN * size, above, square


def _parts(knots: FloatArray, low: FloatArray, high: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """What the pieces between neighbouring points have of each range: row, left and right end. Shapes [N]."""
    left = np.clip(knots[:-1], low[:, None], high[:, None])
    right = np.clip(knots[1:], low[:, None], high[:, None])
    row, piece = np.nonzero((knots[:-1] <= high[:, None]) & (knots[1:] >= low[:, None]))
    return row, left[row, piece], right[row, piece]


def _bounds(
    row: IntArray, left: FloatArray, right: FloatArray, bern: FloatArray, convex: Convex
) -> tuple[FloatArray, FloatArray]:
    """Lower bounds on intervals [N], and values at both ends [2, N]. ``bern``: shape [4, N]."""
    a, b = left * left, right * right
    touch = left * right
    value, slope = convex(row, touch)
    squares = np.stack((a, (a + 2.0 * touch) / 3.0, (2.0 * touch + b) / 3.0, b))  # of s^2, as a cubic
    lows = (bern + value + slope * (squares - touch)).min(axis=0)
    return lows, np.stack((bern[0] + convex(row, a)[0], bern[3] + convex(row, b)[0]))


def _halves(bern: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Bernstein coefficients of both halves of intervals, shapes [4, N]."""
    one = 0.5 * (bern[:-1] + bern[1:])
    two = 0.5 * (one[:-1] + one[1:])
    three = 0.5 * (two[0] + two[1])
    return np.stack((bern[0], one[0], two[0], three)), np.stack((three, two[1], one[2], bern[3]))
