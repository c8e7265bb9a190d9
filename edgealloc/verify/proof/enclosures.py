"""Numbers with proven error bounds, as arrays: intervals in doubles, and balls (Arb, through python-flint).

The checker's formulas are written once and run in both. Intervals first: whole arrays at a time, every
operation rounded outwards. Sums, products, quotients and square roots of doubles are correctly rounded
(IEEE 754), so one step of ``nextafter`` encloses them; ``exp``, ``expm1`` and ``log`` of numpy are taken to be
accurate to 8 units in the last place. Balls where intervals come out too wide to decide.

How the two are used is in docs/certificates.md, section *Arithmetic*.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from flint import arb
from numpy.typing import NDArray

from edgealloc.units import BoolArray, FloatArray

__all__ = ["Balls", "Intervals", "Number", "sum_below"]

_ULPS = 2.0**-49  # 8 units in the last place, relatively
_TINY = 1e-320  # covers the absolute error of subnormal results


class Number(ABC):
    """An array of enclosures of real numbers; nan and infinite ends mean that nothing is known.

    Any shape; operations work elementwise and broadcast as numpy's do.
    """

    __slots__ = ()

    @classmethod
    @abstractmethod
    def of(cls, values: Any) -> Self:
        """Doubles (a scalar or an array), taken as exact."""

    @abstractmethod
    def lower(self) -> FloatArray:
        """Doubles that are surely not above; ``-inf`` where nothing is known. Same shape."""

    @abstractmethod
    def upper(self) -> FloatArray:
        """Doubles that are surely not below; ``inf`` where nothing is known. Same shape."""

    @abstractmethod
    def is_zero(self) -> bool:
        """Whether every element is exactly 0."""

    @abstractmethod
    def __add__(self, other: Any) -> Self: ...

    @abstractmethod
    def __mul__(self, other: Any) -> Self: ...

    @abstractmethod
    def __truediv__(self, other: Any) -> Self: ...

    @abstractmethod
    def __neg__(self) -> Self: ...

    @classmethod
    @abstractmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The elements of at least one array of at most one dimension, one after another."""

    @abstractmethod
    def exp(self) -> Self:
        """e^x."""

    @abstractmethod
    def expm1(self) -> Self:
        """e^x - 1."""

    @abstractmethod
    def log(self) -> Self:
        """Natural logarithm; nothing is known where the argument may be <= 0."""

    @abstractmethod
    def sqrt(self) -> Self:
        """Square root; nothing is known where the argument may be negative."""

    @abstractmethod
    def hull(self, other: Self) -> Self:
        """All numbers between those of the one and those of the other. Same shape."""

    @abstractmethod
    def where(self, mask: BoolArray, other: Self) -> Self:
        """Self where ``mask`` (same shape), the other elsewhere."""

    @abstractmethod
    def take(self, index: Any) -> Self:
        """A selection of the elements."""

    @abstractmethod
    def total(self) -> Self:
        """The sum of all elements."""

    def __radd__(self, other: Any) -> Self:
        return self.__add__(other)

    def __sub__(self, other: Any) -> Self:
        return self.__add__(-self.of(other))

    def __rsub__(self, other: Any) -> Self:
        return self.of(other).__add__(-self)

    def __rmul__(self, other: Any) -> Self:
        return self.__mul__(other)

    def __rtruediv__(self, other: Any) -> Self:
        return self.of(other).__truediv__(self)

    __array_ufunc__ = None  # numpy arrays leave operators with a Number to it

    def abs_upper(self) -> FloatArray:
        """Doubles that are surely not below the absolute value. Same shape."""
        return np.maximum(np.abs(self.lower()), np.abs(self.upper()))


def _down(x: Any) -> Any:
    return np.nextafter(x, -np.inf)


def _up(x: Any) -> Any:
    return np.nextafter(x, np.inf)


@dataclass(frozen=True, slots=True, eq=False)
class Intervals(Number):
    """Intervals [lo, hi] of doubles, elementwise.

    Ends beyond doubles are infinite, and an end that is no number (0 times such a one) says that nothing is known:
    numpy need not warn of either.
    """

    lo: FloatArray
    hi: FloatArray

    @classmethod
    def of(cls, values: Any) -> Intervals:
        if isinstance(values, Intervals):
            return values
        exact = np.asarray(values, dtype=np.float64)
        return cls(exact, exact)

    @classmethod
    def joined(cls, parts: Sequence[Intervals]) -> Intervals:
        return cls(*(np.concatenate([np.atleast_1d(end) for end in ends]) for ends in (
            [part.lo for part in parts], [part.hi for part in parts]
        )))  # fmt: skip

    def lower(self) -> FloatArray:
        return np.where(np.isnan(self.lo) | np.isnan(self.hi), -np.inf, self.lo)

    def upper(self) -> FloatArray:
        return np.where(np.isnan(self.lo) | np.isnan(self.hi), np.inf, self.hi)

    def is_zero(self) -> bool:
        return not (np.any(self.lo) or np.any(self.hi))

    @np.errstate(over="ignore", invalid="ignore")
    def __add__(self, other: Any) -> Intervals:
        o = Intervals.of(other)
        return Intervals(_down(self.lo + o.lo), _up(self.hi + o.hi))

    def __neg__(self) -> Intervals:
        return Intervals(-self.hi, -self.lo)

    @np.errstate(over="ignore", invalid="ignore")
    def __mul__(self, other: Any) -> Intervals:
        o = Intervals.of(other)
        ends = (self.lo * o.lo, self.lo * o.hi, self.hi * o.lo, self.hi * o.hi)
        low = np.minimum(np.minimum(ends[0], ends[1]), np.minimum(ends[2], ends[3]))
        high = np.maximum(np.maximum(ends[0], ends[1]), np.maximum(ends[2], ends[3]))
        return Intervals(_down(low), _up(high))

    def __truediv__(self, other: Any) -> Intervals:
        o = Intervals.of(other)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            known = (o.lo > 0.0) | (o.hi < 0.0)
            inverse = Intervals(
                np.where(known, _down(1.0 / o.hi), np.nan), np.where(known, _up(1.0 / o.lo), np.nan)
            )
            return self * inverse

    def _rising(self, function: Callable[[Any], Any], low: float = -np.inf, defined: float = -np.inf) -> Intervals:
        """A rising function that numpy evaluates to 8 units in the last place, with values above ``low``."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            a, b = function(self.lo), function(self.hi)
            under, over = a - (np.abs(a) * _ULPS + _TINY), b + (np.abs(b) * _ULPS + _TINY)
            ends = np.maximum(_down(under), low), _up(over)
        unknown = ~(self.lo > defined)
        return Intervals(*(np.where(unknown, np.nan, end) for end in ends))

    def exp(self) -> Intervals:
        return self._rising(np.exp, 0.0)

    def expm1(self) -> Intervals:
        return self._rising(np.expm1, -1.0)

    def log(self) -> Intervals:
        return self._rising(np.log, defined=0.0)

    def sqrt(self) -> Intervals:
        with np.errstate(over="ignore", invalid="ignore"):
            return Intervals(np.maximum(_down(np.sqrt(self.lo)), 0.0), _up(np.sqrt(self.hi)))

    def hull(self, other: Intervals) -> Intervals:
        return Intervals(np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi))

    def where(self, mask: BoolArray, other: Intervals) -> Intervals:
        return Intervals(np.where(mask, self.lo, other.lo), np.where(mask, self.hi, other.hi))

    def take(self, index: Any) -> Intervals:
        return Intervals(self.lo[index], self.hi[index])

    @np.errstate(over="ignore", invalid="ignore")
    def total(self) -> Intervals:
        low, high = _fsum(self.lo), _fsum(self.hi)
        return Intervals(_down(np.asarray(low)), _up(np.asarray(high)))


_ball: Callable[[Any], Any] = np.vectorize(arb, otypes=[object])
_below: Callable[[Any], Any] = np.vectorize(lambda x: _end(x, False), otypes=[np.float64])
_above: Callable[[Any], Any] = np.vectorize(lambda x: _end(x, True), otypes=[np.float64])


def _end(x: Any, above: bool) -> float:
    """A double beyond one end of a ball."""
    far = math.inf if above else -math.inf
    return math.nextafter(float((x.upper() if above else x.lower()).mid()), far) if x.is_finite() else far


@dataclass(frozen=True, slots=True, eq=False)
class Balls(Number):
    """Arb balls at the working precision of python-flint, as an array of objects."""

    values: NDArray[np.object_]

    @classmethod
    def of(cls, values: Any) -> Balls:
        if isinstance(values, Balls):
            return values
        return cls(np.asarray(_ball(np.asarray(values, dtype=np.float64)), dtype=object))

    @classmethod
    def joined(cls, parts: Sequence[Balls]) -> Balls:
        return cls(np.concatenate([np.atleast_1d(part.values) for part in parts]))

    def lower(self) -> FloatArray:
        return np.asarray(_below(self.values))

    def upper(self) -> FloatArray:
        return np.asarray(_above(self.values))

    def is_zero(self) -> bool:
        return all(
            ball.is_zero() for ball in self.values.ravel().tolist()
        )  # ends are rounded outwards, even these

    def __add__(self, other: Any) -> Balls:
        return Balls(np.asarray(self.values + Balls.of(other).values, dtype=object))

    def __neg__(self) -> Balls:
        return Balls(np.asarray(-self.values, dtype=object))

    def __mul__(self, other: Any) -> Balls:
        return Balls(np.asarray(self.values * Balls.of(other).values, dtype=object))

    def __truediv__(self, other: Any) -> Balls:
        return Balls(np.asarray(self.values / Balls.of(other).values, dtype=object))

    def _each(self, name: str) -> Balls:
        return Balls(np.asarray(np.vectorize(lambda x: getattr(x, name)(), otypes=[object])(self.values)))

    def exp(self) -> Balls:
        return self._each("exp")

    def expm1(self) -> Balls:
        return self._each("expm1")

    def log(self) -> Balls:
        return self._each("log")

    def sqrt(self) -> Balls:
        return self._each("sqrt")

    def hull(self, other: Balls) -> Balls:
        return Balls(np.asarray(np.vectorize(arb.union, otypes=[object])(self.values, other.values)))

    def where(self, mask: BoolArray, other: Balls) -> Balls:
        return Balls(np.asarray(np.where(mask, self.values, other.values), dtype=object))

    def take(self, index: Any) -> Balls:
        return Balls(np.asarray(self.values[index], dtype=object))

    def total(self) -> Balls:
        return Balls(np.asarray(sum(self.values.ravel().tolist(), arb(0)), dtype=object))


def sum_below(values: FloatArray) -> float:
    """A double not above the exact sum, any shape: :func:`math.fsum` is correctly rounded."""
    if np.any(np.isneginf(values)) or np.any(np.isnan(values)):
        return -math.inf
    if np.any(np.isposinf(values)):
        return math.inf
    total = _fsum(values)
    return -math.inf if math.isnan(total) else math.nextafter(total, -math.inf)


def _fsum(values: FloatArray) -> float:
    """The correctly rounded sum; nan where it leaves the range of doubles on the way, or ends cancel."""
    try:
        return math.fsum(np.ravel(values).tolist())
    except (OverflowError, ValueError):
        return math.nan
