"""Plain doubles behind the interface of the checker's numbers: what a certificate might prove."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.units import BoolArray, FloatArray
from edgealloc.verify.proof.enclosures import Number

__all__ = ["Guesses"]


@dataclass(frozen=True, slots=True, eq=False)
class Guesses(Number):
    """Doubles, rounded to nearest; for drafting certificates, a tenth of the cost of intervals.

    Parameters
    ----------
    values
        The numbers; nan where nothing is known. Any shape.
    """

    values: FloatArray

    @classmethod
    def of(cls, values: Any) -> Guesses:
        """Doubles (a scalar or an array of any shape), taken as they are."""
        return values if isinstance(values, Guesses) else cls(np.asarray(values, dtype=np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Guesses]) -> Guesses:
        """The values of arrays, one after another."""
        return cls(np.concatenate([np.atleast_1d(part.values) for part in parts]))

    def lower(self) -> FloatArray:
        """The values; ``-inf`` where nothing is known. Of their shape."""
        return np.where(np.isnan(self.values), -np.inf, self.values)

    def upper(self) -> FloatArray:
        """The values; ``inf`` where nothing is known. Of their shape."""
        return np.where(np.isnan(self.values), np.inf, self.values)

    def is_zero(self) -> bool:
        """Whether all values are 0."""
        return not np.any(self.values)

    def __add__(self, other: Any) -> Guesses:
        return Guesses(self.values + Guesses.of(other).values)

    def __mul__(self, other: Any) -> Guesses:
        return Guesses(self.values * Guesses.of(other).values)

    def __truediv__(self, other: Any) -> Guesses:
        return Guesses(self.values / Guesses.of(other).values)

    def __neg__(self) -> Guesses:
        return Guesses(-self.values)

    def exp(self) -> Guesses:
        """e^x."""
        return Guesses(np.exp(self.values))

    def expm1(self) -> Guesses:
        """e^x - 1."""
        return Guesses(np.expm1(self.values))

    def log(self) -> Guesses:
        """Natural logarithm; nan for negative values."""
        return Guesses(np.log(self.values))

    def sqrt(self) -> Guesses:
        """Square root; nan for negative values."""
        return Guesses(np.sqrt(self.values))

    def hull(self, other: Guesses) -> Guesses:
        """The values: a guess encloses nothing."""
        return self

    def where(self, mask: BoolArray, other: Guesses) -> Guesses:
        """The values where ``mask`` is true, elsewhere those of ``other``; all of one shape."""
        return Guesses(np.where(mask, self.values, other.values))

    def take(self, index: Any) -> Guesses:
        """The values at an index of numpy."""
        return Guesses(self.values[index])

    def total(self) -> Guesses:
        """The sum of all values, a single number."""
        return Guesses(np.asarray(np.sum(self.values)))
