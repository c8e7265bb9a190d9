r"""A measured underfitting curve in a certificate: monotone cubics through points, and lines below them.

The curve is what ``scipy.interpolate.PchipInterpolator`` computes, here with proven error bounds. With steps h_k
and slopes m_k of the polygon, its derivative at an inner point is the harmonic mean (Fritsch and Butland 1984)

.. math:: d_k = (w_1 + w_2) / (w_1 / m_{k-1} + w_2 / m_k), \quad w_1 = 2 h_k + h_{k-1}, w_2 = h_k + 2 h_{k-1},

or 0 where one of the slopes is 0; at an end it is ((2 h_0 + h_1) m_0 - h_0 m_1) / (h_0 + h_1), or 0 where that is
of the other sign (Moler 2004). Every derivative lies between 0 and 3 times the slopes beside it, so that the curve
falls (Fritsch and Carlson 1980).

On an interval [x, y] inside one piece a cubic lies within its Bernstein coefficients, the values of its polar form
at (x, x, x), (x, x, y), (x, y, y), (y, y, y). Between points they come by de Casteljau's rule: sums of positive
terms, that lose no digits.

Why the lines lie below is in docs/certificates.md, section *Prices*.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from edgealloc.data.spec import UnderfitCurve
from edgealloc.units import FloatArray
from edgealloc.verify.proof.enclosures import Number

__all__ = ["Curve"]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The curve through P + 1 points.

    Parameters
    ----------
    knots
        Keep rates of the points. Shape [P + 1].
    parts
        The four Bernstein coefficients of each cubic piece. Shapes [P].
    """

    knots: FloatArray
    parts: tuple[Number, Number, Number, Number]

    @classmethod
    def of(cls, points: UnderfitCurve, kind: type[Number]) -> Curve:
        """The curve through falling points."""
        x, y = points.keep, points.value
        h = kind.of(x[1:]) - kind.of(x[:-1])
        first, second = np.s_[:-1], np.s_[1:]
        begins, ends = kind.of(y[:-1]), kind.of(y[1:])
        m = (ends - begins) / h
        if len(x) == 2:
            slope, last = m, m
        else:
            flat = y[1:] == y[:-1]
            h0, h1, m0, m1 = h.take(first), h.take(second), m.take(first), m.take(second)
            w0, w1 = h1 * 2.0 + h0, h1 + h0 * 2.0
            zero = kind.of(np.zeros(len(x) - 2))
            inner = (w0 + w1) / (w0 / m0 + w1 / m1)
            inner = zero.where(flat[1:] | flat[:-1], inner)
            ahead = ((h0 * 2.0 + h1) * m0 - h0 * m1) / (h0 + h1)
            back = ((h1 * 2.0 + h0) * m1 - h1 * m0) / (h0 + h1)
            rows = np.arange(len(x) - 1)
            # derivatives at both ends of each piece; the first and the last point have their own rule
            slope = inner.take(np.maximum(rows - 1, 0))
            slope = slope.where(rows > 0, (zero if _rises(x[:3], y[:3]) else ahead).take(np.zeros_like(rows)))
            last = inner.take(np.minimum(rows, len(x) - 3))
            end = zero if _rises(x[:-4:-1], y[:-4:-1]) else back
            last = last.where(rows < len(x) - 2, end.take(np.full_like(rows, len(x) - 3)))
        return cls(x, (begins, begins + h * slope / 3.0, ends - h * last / 3.0, ends))

    def value(self, keep: FloatArray) -> Number:
        """Value of u at keep rates; nothing is known outside of the points. Shape [N]."""
        return self.bernstein(keep, keep)[0]

    def ends(self, left: FloatArray, right: FloatArray, squared: bool) -> tuple[Number, Number]:
        """Values at both ends of a line below the curve on [left, right], a line in s or, ``squared``, in s^2.

        The chord, lowered by the least Bernstein coefficient of the cubic less the chord. An interval over a point
        gets the value at its right end, for the curve falls. Nothing is known outside of the points. Shapes [N].
        """
        kind = type(self.parts[0])
        bern = self.bernstein(left, right)
        rise = bern[3] - bern[0]
        # Bernstein coefficients of (s - left) / (right - left), or of the same with squares: 0, one, two, 1
        one, two = kind.of(1.0) / 3.0, kind.of(2.0) / 3.0
        if squared:
            a, b = kind.of(left), kind.of(right)
            one, two = a * 2.0 / (a + b) / 3.0, (a * 3.0 + b) / (a + b) / 3.0
        below = [(bern[1] - bern[0] - rise * one).lower(), (bern[2] - bern[0] - rise * two).lower()]
        drop = kind.of(np.minimum(np.minimum(*below), 0.0))
        return bern[0] + drop, bern[3] + drop

    def below(self, left: FloatArray, right: FloatArray, _touch: FloatArray) -> tuple[Number, ...]:
        """Bernstein coefficients of the curve, as :meth:`bernstein`; it is its own best bound. Shapes [N]."""
        return self.bernstein(left, right)

    def bernstein(self, left: FloatArray, right: FloatArray) -> tuple[Number, Number, Number, Number]:
        """Bernstein coefficients on intervals; those over a point are replaced by their right ends. Shapes [N].

        The curve is not below the least of them. Nothing is known outside of the points.
        """
        kind, knots = type(self.parts[0]), self.knots
        most = len(knots) - 2
        piece = np.clip(np.searchsorted(knots, left, side="right") - 1, 0, most)
        over = right > knots[piece + 1]
        piece = np.where(over, np.clip(np.searchsorted(knots, right, side="left") - 1, 0, most), piece)
        x, y = np.where(over, right, left), right
        a, b = kind.of(knots[piece]), kind.of(knots[piece + 1])
        width = b - a
        known = (left >= knots[0]) & (right <= knots[-1])
        shares = [((b - kind.of(s)) / width, (kind.of(s) - a) / width) for s in (x, y)]

        def at(end: int, values: list[Number]) -> list[Number]:
            """One step of de Casteljau's rule."""
            rest, part = shares[end]
            return [rest * p + part * q for p, q in pairwise(values)]

        given = [part.take(piece) for part in self.parts]
        begun, ended = at(0, given), at(1, given)
        twice, both = at(0, begun), at(1, ended)
        found = (*at(0, twice), *at(1, twice), *at(0, both), *at(1, both))
        nothing = kind.of(np.full(len(x), np.nan))
        first, second, third, fourth = (v.where(known, nothing) for v in found)
        return first, second, third, fourth


def _rises(x: FloatArray, y: FloatArray) -> bool:
    """Whether the end rule says that a falling curve does not fall at its end; decided in exact fractions.

    Points from the end inwards, three of them; in either direction the test is of the same sign as the slope.
    """
    (x0, x1, x2), (y0, y1, y2) = ([Fraction(v) for v in row.tolist()] for row in (x, y))
    h0, h1 = x1 - x0, x2 - x1
    slope = ((2 * h0 + h1) * (y1 - y0) / h0 - h0 * (y2 - y1) / h1) / (h0 + h1)
    return slope >= 0
