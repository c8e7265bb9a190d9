r"""The logistic underfitting term in a certificate: 1 / (1 + (s / h)^m), and lines below it.

In ``S = s^p`` it is concave up to ``c = h ((m - p) / (m + p))^(1 / m)``, for m > p, and convex beyond. A line
below it on [x, y] is one of three:

- its chord over [x, min(y, c)], prolonged to y and lowered by what u falls beyond c, for u falls;
- its tangent at a rate t >= c, lowered by what that is above u at x: up to c their difference is concave, not
  negative at c, and beyond it is not negative anywhere;
- its value at y.

c is known between two doubles; each bound uses the end that it holds for. Written from docs/model.md, *What is
minimised*; derived in docs/certificates.md, section *Prices*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.data.spec import UnderfitLogistic
from edgealloc.units import FloatArray
from edgealloc.verify.proof.enclosures import Number

__all__ = ["Logistic"]


@dataclass(frozen=True, slots=True, eq=False)
class Logistic:
    """The term.

    Parameters
    ----------
    half, steepness
        h and m.
    bends
        Doubles not above and not below the inflection c in s, and in s^2.
    """

    half: Number
    steepness: Number
    bends: tuple[tuple[float, float], tuple[float, float]]

    @classmethod
    def of(cls, term: UnderfitLogistic, kind: type[Number]) -> Logistic:
        """The term of an instance."""
        h, m = kind.of(term.half), kind.of(term.steepness)
        bends = []
        for power in (1.0, 2.0):
            if term.steepness <= power:  # convex throughout
                bends.append((0.0, 0.0))
                continue
            c = h * (((m - power) / (m + power)).log() / m).exp()
            bends.append((max(float(c.lower()), 0.0), float(c.upper())))
        return cls(h, m, (bends[0], bends[1]))

    @property
    def knots(self) -> FloatArray:
        """Keep rates at which cells had better end. Shape [2]."""
        return np.array([self.bends[1][1], self.bends[0][1]])

    def value(self, keep: FloatArray) -> Number:
        """Value of u at keep rates. Shape [N]."""
        small = self._small(keep)
        return small.where(keep > _double(self.half), small.of(np.ones(keep.shape))) / (1.0 + small)

    def ends(self, left: FloatArray, right: FloatArray, squared: bool) -> tuple[Number, Number]:
        """Values at both ends of a line below u on [left, right], in s or, ``squared``, in s^2. Shapes [N]."""
        kind, (under, over) = type(self.half), self.bends[squared]
        first, last = self.value(left), self.value(right)
        stop = np.minimum(right, under)
        held = self.value(np.maximum(stop, left))
        rise = self._between(left, stop, squared)
        whole = stop == right
        with np.errstate(all="ignore"):
            share = self._between(left, right, squared) / rise
        lost = held - last
        chord = (first - lost).where(~whole, first), (first + (held - first) * share - lost).where(~whole, last)
        begin = np.maximum(left, over)
        touch = np.sqrt(0.5 * (begin * begin + right * right)) if squared else 0.5 * (begin + right)
        tangent = self._tangent(left, right, np.clip(touch, begin, np.maximum(begin, right)), squared)
        above = np.where(left < over, np.maximum((tangent[0] - first).upper(), 0.0), 0.0)
        tangent = tangent[0] - kind.of(above), tangent[1] - kind.of(above)
        lines = ((last, last), chord, tangent)
        possible = (np.ones(left.shape, dtype=bool), left < stop, begin <= right)
        worth = [
            np.where(ok, line[0].lower() + line[1].lower(), -np.inf)
            for ok, line in zip(possible, lines, strict=True)
        ]
        best = np.argmax(np.where(np.isnan(worth), -np.inf, worth), axis=0)
        a, b = (lines[0][end].where(best == 0, lines[1][end].where(best == 1, lines[2][end])) for end in (0, 1))
        return a, b

    def below(self, left: FloatArray, right: FloatArray, touch: FloatArray) -> tuple[Number, ...]:
        """Bernstein coefficients of a line in s below u, as a cubic; it touches u there where u is convex. [N]."""
        convex = left >= self.bends[0][1]
        line, other = self._tangent(left, right, touch, squared=False), self.ends(left, right, squared=False)
        a, b = (one.where(convex, two) for one, two in zip(line, other, strict=True))
        return a, (a * 2.0 + b) / 3.0, (a + b * 2.0) / 3.0, b

    def _tangent(
        self, left: FloatArray, right: FloatArray, touch: FloatArray, squared: bool
    ) -> tuple[Number, Number]:
        """Values at both ends of the tangent at rates, in s or in s^2. Shapes [N]."""
        small, t = self._small(touch), self.half.of(touch)
        fall = -(self.steepness * small / ((1.0 + small) * (1.0 + small)))  # du / d log s
        slope = fall / (t * t * 2.0) if squared else fall / t
        value = self.value(touch)
        first, last = (value + slope * self._between(touch, end, squared) for end in (left, right))
        return first, last

    def _small(self, keep: FloatArray) -> Number:
        """e^-|z|, z = m log(s / h); at most 1. Shape [N]."""
        z = self.steepness * (self.half.of(keep) / self.half).log()
        return (-z).where(keep > _double(self.half), z).exp()

    def _between(self, start: FloatArray, end: FloatArray, squared: bool) -> Number:
        """``end - start``, or the difference of their squares. Shape [N]."""
        a, b = self.half.of(start), self.half.of(end)
        return (b - a) * (b + a) if squared else b - a


def _double(exact: Number) -> float:
    """The double that a number was made of."""
    return float(0.5 * (exact.lower() + exact.upper()))
