"""Plain doubles behind the interface of the checker's numbers: what a certificate might prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.units import FloatArray
from edgealloc.verify.proof.enclosures import Number

__all__ = ["Guesses"]


@dataclass(frozen=True, slots=True, eq=False)
class Guesses(Number):
    """Doubles, rounded to nearest; for drafting certificates, a tenth of the cost of intervals."""

    values: FloatArray

    @classmethod
    def of(cls, values: Any) -> Guesses:
        return values if isinstance(values, Guesses) else cls(np.asarray(values, dtype=np.float64))

    def lower(self) -> FloatArray:
        return np.where(np.isnan(self.values), -np.inf, self.values)

    def upper(self) -> FloatArray:
        return np.where(np.isnan(self.values), np.inf, self.values)

    def __add__(self, other: Any) -> Guesses:
        return Guesses(self.values + Guesses.of(other).values)

    def __mul__(self, other: Any) -> Guesses:
        return Guesses(self.values * Guesses.of(other).values)

    def __truediv__(self, other: Any) -> Guesses:
        return Guesses(self.values / Guesses.of(other).values)

    def __neg__(self) -> Guesses:
        return Guesses(-self.values)

    def exp(self) -> Guesses:
        return Guesses(np.exp(self.values))

    def expm1(self) -> Guesses:
        return Guesses(np.expm1(self.values))

    def log(self) -> Guesses:
        return Guesses(np.log(self.values))

    def sqrt(self) -> Guesses:
        return Guesses(np.sqrt(self.values))

    def where(self, mask: NDArray[np.bool_], other: Guesses) -> Guesses:
        return Guesses(np.where(mask, self.values, other.values))

    def take(self, index: Any) -> Guesses:
        return Guesses(self.values[index])

    def total(self) -> Guesses:
        return Guesses(np.asarray(np.sum(self.values)))
