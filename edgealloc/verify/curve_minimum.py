r"""Brackets of the least value of a curve or logistic term plus a stability term: the checker's free minimum.

On each piece of the curve the sum is bounded below by the least Bernstein coefficient of the cubic plus a tangent,
in S = s^2, of the convex stability term, and above by its values at both ends. Intervals that may hold less than
the best end found are halved by de Casteljau's rule. Both bounds meet with the square of the width, so that only
the intervals beside a minimum go on; no valley is passed over, however narrow. A logistic term has a line below it
in place of a cubic, found anew on every half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgealloc.data.spec import UnderfitCurve, UnderfitLogistic
from edgealloc.units import FloatArray, IntArray
from edgealloc.verify.proof.curve import Curve
from edgealloc.verify.proof.enclosures import Intervals, Number
from edgealloc.verify.proof.logistic import Logistic

__all__ = ["curve_minimum"]

_HALVINGS = 60
_INTERVALS = 200_000  # beyond, the lower end is that of the intervals still open
_MARGIN = 2.0**-46  # of the size of the terms: rounding of coefficients, halvings and the stability term

Convex = Callable[[Any, FloatArray], tuple[FloatArray, FloatArray]]


@np.errstate(all="ignore")  # what overflows is an infinite end of an enclosure
def curve_minimum(
    points: UnderfitCurve | UnderfitLogistic,
    weight: FloatArray,
    low: FloatArray,
    high: FloatArray,
    convex: Convex,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bracket of the least ``weight u(s) + h(s^2)`` over each [low, high], and s^2 where it is attained.

    Parameters
    ----------
    points
        The curve, known on all of [low, high], or the logistic term.
    weight, low, high
        Factor >= 0 and range of each row. Shape [R].
    convex
        Value and slope of h, convex and increasing: ``convex(row, S)``, shapes [N].

    Returns
    -------
    below, above, square
        Shape [R].
    """
    term = Curve.of(points, Intervals) if isinstance(points, UnderfitCurve) else Logistic.of(points, Intervals)
    knots, most = (term.knots, points.value[0]) if isinstance(points, UnderfitCurve) else (_apart(term), 1.0)
    row, left, right = _parts(knots, low, high)
    bern = _coefficients(term, left, right, weight[row])
    above, square, below = np.full(len(low), np.inf), low * low, np.full(len(low), np.inf)
    size = weight * most + convex(np.arange(len(low)), high * high)[0]
    for _ in range(_HALVINGS):
        lows, ends = _bounds(term, row, left, right, weight[row], bern, convex)
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
        halves = _halves(bern[:, goes_on])
        row = np.concatenate((row, row))
        left, right = np.concatenate((left, middle)), np.concatenate((middle, right))
        cubic = isinstance(term, Curve)
        bern = np.concatenate(halves, axis=1) if cubic else _coefficients(term, left, right, weight[row])
    else:
        np.minimum.at(below, row, _bounds(term, row, left, right, weight[row], bern, convex)[0])
    return np.minimum(below, above) - 2.0 * _MARGIN * size, above, square


def _parts(knots: FloatArray, low: FloatArray, high: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """What the pieces between neighbouring points have of each range: row, left and right end. Shapes [N]."""
    left = np.clip(knots[:-1], low[:, None], high[:, None])
    right = np.clip(knots[1:], low[:, None], high[:, None])
    row, piece = np.nonzero((knots[:-1] <= high[:, None]) & (knots[1:] >= low[:, None]))
    return row, left[row, piece], right[row, piece]


def _apart(term: Curve | Logistic) -> FloatArray:
    """All keep rates, concave and convex parts of a logistic term apart."""
    return np.unique(np.clip(np.concatenate(([0.0], term.knots, [2.0])), 0.0, 2.0))


def _coefficients(term: Curve | Logistic, left: FloatArray, right: FloatArray, weight: FloatArray) -> FloatArray:
    """Bernstein coefficients of what lies below a term, or of the curve itself. Shape [4, N]."""
    with np.errstate(all="ignore"):
        return np.stack([weight * _middle(part) for part in term.below(left, right, np.sqrt(left * right))])


def _middle(known: Number) -> FloatArray:
    return 0.5 * (known.lower() + known.upper())


def _bounds(
    term: Curve | Logistic, row: IntArray, left: FloatArray, right: FloatArray, weight: FloatArray,
    bern: FloatArray, convex: Convex,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Lower bounds on intervals [N], and values at both ends [2, N]. ``bern``: shape [4, N]."""
    a, b = left * left, right * right
    touch = left * right
    value, slope = convex(row, touch)
    squares = np.stack((a, (a + 2.0 * touch) / 3.0, (2.0 * touch + b) / 3.0, b))  # of s^2, as a cubic
    lows = (bern + value + slope * (squares - touch)).min(axis=0)
    first, last = bern[0], bern[3]
    if isinstance(term, Logistic):  # the line need not meet it
        with np.errstate(all="ignore"):
            first, last = (weight * _middle(term.value(end)) for end in (left, right))
    return lows, np.stack((first + convex(row, a)[0], last + convex(row, b)[0]))


def _halves(bern: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Bernstein coefficients of both halves of intervals, shapes [4, N]."""
    one = 0.5 * (bern[:-1] + bern[1:])
    two = 0.5 * (one[:-1] + one[1:])
    three = 0.5 * (two[0] + two[1])
    return np.stack((bern[0], one[0], two[0], three)), np.stack((three, two[1], one[2], bern[3]))
