"""Underfitting terms of devices that differ in a certificate: each piece has its own, with the lines below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec
from edgealloc.units import FloatArray, IntArray
from edgealloc.verify.proof.curve import Curve
from edgealloc.verify.proof.enclosures import Number
from edgealloc.verify.proof.logistic import Logistic

__all__ = ["Several", "term_of"]


@dataclass(frozen=True, slots=True, eq=False)
class _Closed:
    """The terms 1/s - 1 (``inverse``) and 1 - s^2."""

    kind: type[Number]
    inverse: bool

    @property
    def knots(self) -> FloatArray:
        return np.zeros(0)

    def value(self, keep: FloatArray) -> Number:
        s = self.kind.of(keep)
        return (1.0 - s) / s if self.inverse else (1.0 - s) * (1.0 + s)

    def ends(self, left: FloatArray, right: FloatArray, squared: bool) -> tuple[Number, Number]:
        """1 - s^2 is its own chord in s^2 and concave in s; 1/s - 1 is convex in both, and has its tangent."""
        if not self.inverse:
            return self.value(left), self.value(right)
        touch = np.clip(np.sqrt(0.5 * (left * left + right * right)), left, right)
        return self._tangent(left, right, touch, squared)

    def below(self, left: FloatArray, right: FloatArray, touch: FloatArray) -> tuple[Number, ...]:
        ends = self._tangent(left, right, touch, False) if self.inverse else self.ends(left, right, False)
        a, b = ends
        return a, (a * 2.0 + b) / 3.0, (a + b * 2.0) / 3.0, b

    def _tangent(
        self, left: FloatArray, right: FloatArray, touch: FloatArray, squared: bool
    ) -> tuple[Number, Number]:
        t, (a, b) = self.kind.of(touch), (self.kind.of(left), self.kind.of(right))
        value, fall = self.value(touch), 1.0 / (t * t)
        first, last = (
            value - fall / (t * 2.0) * ((end - t) * (end + t)) if squared else value - fall * (end - t)
            for end in (a, b)
        )
        return first, last


Term = Curve | Logistic | _Closed


def term_of(spec: BoundSpec, kind: type[Number]) -> Term:
    """The underfitting term of a bound."""
    if spec.underfit_curve is not None:
        return Curve.of(spec.underfit_curve, kind)
    if spec.underfit_logistic is not None:
        return Logistic.of(spec.underfit_logistic, kind)
    return _Closed(kind, spec.underfit == "inverse-keep")


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """Terms, and the one of each piece; asked for all pieces at once.

    Parameters
    ----------
    terms
        The different terms.
    which
        The one of each piece. Shape [N].
    """

    terms: tuple[Term, ...]
    which: IntArray

    @classmethod
    def of(cls, instance: Instance, device: IntArray, kind: type[Number]) -> Several:
        """The terms of the devices of pieces [N]."""
        own = instance.device_underfit or ()
        first = {id(term): k for k, term in reversed(list(enumerate(own)))}
        place = {k: i for i, k in enumerate(sorted(first.values()))}
        terms = tuple(term_of(instance.bound_of(k), kind) for k in place)
        which = np.array([place[first[id(term)]] for term in own], dtype=np.intp)
        return cls(terms, which[device])

    @property
    def knots(self) -> FloatArray:
        """Keep rates at which cells had better end. Shape [P]."""
        return np.unique(np.concatenate([term.knots for term in self.terms]))

    def take(self, index: Any) -> Several:
        """A selection of the pieces."""
        return Several(self.terms, self.which[index])

    def value(self, keep: FloatArray) -> Number:
        """Values at keep rates. Shape [N]."""
        return self._each(lambda term, mine: (term.value(keep[mine]),))[0]

    def ends(self, left: FloatArray, right: FloatArray, squared: bool) -> tuple[Number, Number]:
        """Values at both ends of lines below, in s or, ``squared``, in s^2. Shapes [N]."""
        first, last = self._each(lambda term, mine: term.ends(left[mine], right[mine], squared))
        return first, last

    def below(self, left: FloatArray, right: FloatArray, touch: FloatArray) -> tuple[Number, ...]:
        """Bernstein coefficients, as cubics in s, of what lies below. Shapes [N]."""
        return self._each(lambda term, mine: term.below(left[mine], right[mine], touch[mine]))

    def _each(self, ask: Callable[[Term, IntArray], tuple[Number, ...]]) -> tuple[Number, ...]:
        """What every term says of its own pieces, put back in order."""
        places = [np.flatnonzero(self.which == i) for i in range(len(self.terms))]
        asked = [(mine, ask(term, mine)) for term, mine in zip(self.terms, places, strict=True) if len(mine)]
        if not asked:  # no piece at all
            return ask(self.terms[0], places[0])
        back = np.argsort(np.concatenate([mine for mine, _ in asked]), kind="stable")
        kind = type(asked[0][1][0])
        columns = zip(*(said for _, said in asked), strict=True)
        return tuple(kind.joined(list(column)).take(back) for column in columns)
