r"""The logistic underfitting term, its shape, lines below it, and the deepest valley of it plus a stability term.

.. math:: u(s) = \frac{1}{1 + (s / h)^m} = \frac{1}{1 + e^z}, \qquad z = m \log(s / h)

``z`` is computed with a relative error of a few units in the last place, next to ``s = h`` too, so that u has an
absolute error of a few units whatever the steepness m is. In any power ``s^p`` it is concave up to one inflection,
at ``h ((m - p) / (m + p))^(1 / m)`` where m > p, and convex beyond; where m <= p it is convex throughout.

Derived: docs/mathematics.md, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgealloc.formulation.valleys import Spread
from edgealloc.units import FloatArray, IntArray

__all__ = ["Logistic", "deepest_rate"]

_EPS = 2.0**-52
_BISECTIONS = 80
_ROUNDS = 60
_SURE = 2.0**-48  # of the size of the terms: what rounding may do to a bound
_MANY = 1_000_000  # intervals; never seen


@dataclass(frozen=True, slots=True)
class Logistic:
    """The term; call it for its value at keep rates of any shape.

    Parameters
    ----------
    half
        Keep rate h at which it is 1/2.
    steepness
        The exponent m.
    """

    half: float
    steepness: float

    def exponent(self, keep: FloatArray) -> FloatArray:
        """The exponent z at keep rates > 0. Same shape."""
        s = np.asarray(keep, dtype=np.float64)
        with np.errstate(over="ignore", divide="ignore"):
            far = np.log(s) - math.log(self.half)
            near = np.log1p(np.maximum(s - self.half, -0.5 * self.half) / self.half)
        return np.asarray(self.steepness * np.where(s < 0.5 * self.half, far, near))

    def __call__(self, keep: FloatArray) -> FloatArray:
        """The term at keep rates > 0. Same shape."""
        z = self.exponent(keep)
        small = np.exp(-np.abs(z))
        return np.asarray(np.where(z > 0.0, small, 1.0) / (1.0 + small))

    def slope(self, keep: FloatArray) -> FloatArray:
        """du/ds at keep rates. Same shape."""
        small = np.exp(-np.abs(self.exponent(keep)))
        return np.asarray(-self.steepness * small / (np.square(1.0 + small) * keep))

    def inflection(self, power: float) -> float:
        """Keep rate up to which u is concave, and beyond which it is convex, as a function of ``s^power``."""
        if self.steepness <= power:
            return 0.0
        return self.half * math.exp(math.log1p(-2.0 * power / (self.steepness + power)) / self.steepness)

    def fall(self) -> FloatArray:
        """Keep rates > 0 spread evenly over all of the fall, however steep it is. Shape [161]."""
        return np.asarray(
            self.half * np.exp(np.clip(np.linspace(-40.0, 40.0, 161) / self.steepness, -400.0, 400.0))
        )

    def square_line(self, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values at both ends of a line in S = s^2 that is nowhere above u between; rounding included. Shapes [N].

        Where u is concave, the chord. Else the tangent at a rate t where it is convex, lowered by what it is above
        u at the left end: their difference is concave up to the inflection and not negative there. Where that is
        little, the value at the right end.
        """
        bend = self.inflection(2.0)
        first, last = self(left), self(right)
        start = np.maximum(left, bend)
        touch = np.where(left < right, np.sqrt(0.5 * (start * start + right * right)), left)
        value, z = self(touch), np.abs(self.exponent(touch))
        per_square = 0.5 * self.slope(touch) / touch
        with np.errstate(invalid="ignore"):
            before = per_square * ((left - touch) * (left + touch))
            after = per_square * ((right - touch) * (right + touch))
        drop = np.maximum(value + before - first, 0.0)
        blur = 8.0 * _EPS * (2.0 + z) * (np.abs(before) + np.abs(after))
        a, b = value + before - drop - blur, value + after - drop - blur
        flat = ~(a + b > 2.0 * last)
        a, b = np.where(flat, last, a), np.where(flat, last, b)
        chord = right <= bend
        return np.where(chord, first, a) - 16.0 * _EPS, np.where(chord, last, b) - 16.0 * _EPS


def deepest_rate(
    term: Logistic, weight: FloatArray, low: FloatArray, high: FloatArray, spread: Spread
) -> FloatArray:
    """Keep rates that minimise ``weight u(s) + h(s^2)`` over [low, high], of all minima the deepest. Shapes [K].

    Beyond the inflection the sum is convex in s^2: bisection on its derivative. Before it u lies above its chords
    and h above its tangents: intervals that may hold less than the best rate found are halved.

    Parameters
    ----------
    term
        u.
    weight
        Factors of u, >= 0.
    low, high
        Keep ranges.
    spread
        Value and slope of each device's h, convex: ``spread(k, S)`` with indices and squares of shape [N].

    Returns
    -------
    keep
        Shape [K].
    """
    everyone = np.arange(len(low))
    bend = np.clip(term.inflection(2.0), low, high)
    a, b = bend.copy(), high.copy()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (a + b)
        rising = weight * 0.5 * term.slope(middle) / middle + spread(everyone, middle * middle)[1] > 0.0
        a, b = np.where(rising, a, middle), np.where(rising, middle, b)
    keep, best = low.copy(), np.full(len(low), np.inf)

    def offer(k: IntArray, rate: FloatArray) -> None:
        nonlocal keep, best
        found = weight[k] * term(rate) + spread(k, rate * rate)[0]
        np.minimum.at(best, k, found)
        hit = found == best[k]
        keep[k[hit]] = rate[hit]

    for rates in (low, bend, a, b, high):
        offer(everyone, rates)
    k = np.flatnonzero(low < bend)
    left, right = low[k], bend[k]
    for _ in range(_ROUNDS):
        touch = 0.5 * (left * left + right * right)
        value, slope = spread(k, touch)
        first = weight[k] * term(left) + value + slope * (left * left - touch)
        last = weight[k] * term(right) + value + slope * (right * right - touch)
        middle = 0.5 * (left + right)
        offer(k, middle)
        size = weight[k] + np.abs(value) + np.abs(slope) * touch
        open_ = np.minimum(first, last) < best[k] - _SURE * size
        open_ &= (left < middle) & (middle < right)
        if not open_.any() or open_.sum() > _MANY:
            break
        k = np.repeat(k[open_], 2)
        left, right = (
            np.stack((left[open_], middle[open_]), axis=1).ravel(),
            np.stack((middle[open_], right[open_]), axis=1).ravel(),
        )
    return keep
