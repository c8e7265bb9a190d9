"""Operations of intervals and balls: they enclose what is exact, narrowly, and say when nothing is known."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, ctx

from edgealloc.verify.proof.enclosures import Balls, Intervals, Number, sum_below
from tests.verify.proof.plain import down, up

KINDS = pytest.mark.parametrize("kind", [Intervals, Balls])
ENDS = [(-3.7, -1.3), (-0.37, 1.9), (0.29, 2.3), (1.7, 1.7), (-2.9, -2.9), (0.0, 0.43), (0.0, 0.0), (-0.71, 0.0)]


@pytest.fixture(autouse=True)
def _digits() -> Iterator[None]:
    """As the checker has them."""
    with ctx.workprec(128):
        yield


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_intervals_are_the_hull_of_the_ends(op: Callable[[Any, Any], Any]) -> None:
    """One double further out; a quotient has one more for the inverse, and nothing where 0 may be divided by."""
    for a in ENDS:
        for b in ENDS:
            found = op(Intervals(*map(np.array, a)), Intervals(*map(np.array, b)))
            if op is operator.truediv and b[0] <= 0.0 <= b[1]:
                assert (found.lower(), found.upper()) == (-math.inf, math.inf)
                continue
            exact = [op(Fraction(x), Fraction(y)) for x in a for y in b]
            low, high = float(found.lower()), float(found.upper())
            assert Fraction(low) <= min(exact)
            assert max(exact) <= Fraction(high)
            steps = 4 if op is operator.truediv else 2
            for end, true, way in ((low, float(min(exact)), up), (high, float(max(exact)), down)):
                for _ in range(steps):
                    end = way(end) if (end < true if way is up else end > true) else end
                assert end == true or abs(end - true) <= 1e-300


@KINDS
def test_operators_take_doubles_and_arrays_on_either_side(kind: type[Number]) -> None:
    a, x = np.array([0.37, -1.9, 2.3]), np.array([1.7, 0.29, -0.71])
    for op in (operator.add, operator.sub, operator.mul, operator.truediv):
        for found, known in (
            (op(kind.of(a), x), op(a, x)), (op(a, kind.of(x)), op(a, x)), (op(kind.of(a), 0.43), op(a, 0.43)),
            (op(0.43, kind.of(x)), op(0.43, x)), (op(kind.of(a), kind.of(0.43)), op(a, 0.43)),
        ):  # fmt: skip
            assert isinstance(found, kind)
            assert np.all(found.lower() < known)
            assert np.all(known < found.upper())
            assert found.lower() == pytest.approx(known, rel=1e-15)
            assert found.upper() == pytest.approx(known, rel=1e-15)
    assert (-kind.of(a)).lower() == pytest.approx(-a, rel=1e-15)
    assert kind.of(kind.of(a)).lower().tolist() == kind.of(a).lower().tolist()


@KINDS
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "sqrt"])
def test_functions_enclose_what_is_exact(kind: type[Number], name: str) -> None:
    """Eight units in the last place on either side for intervals, but of a square root, which is rounded right."""
    x = np.array([0.37, 1.9, 1e-9, 41.0, 0.999999, 1.0000001, 700.0, 1e-300])
    if name in ("exp", "expm1"):
        x = np.append(x, [-0.37, -41.0, -1e-9, -700.0, 0.0])
    known = getattr(kind.of(x), name)()
    low, high = known.lower(), known.upper()
    with ctx.workprec(300):
        for i, at in enumerate(x.tolist()):
            exact = getattr(arb(at), name)()
            assert not arb(float(low[i])) > exact
            assert not exact > arb(float(high[i]))
    middle = 0.5 * (low + high)
    width = (high - low) / np.maximum(np.abs(middle), 1e-300)
    ulps = 2.0**-52 if name == "sqrt" or kind is Balls else 2.0**-49
    assert np.all(width <= 2.6 * ulps)
    if kind is Intervals and name != "sqrt":
        assert np.all(width[(np.abs(middle) > 1e-290) & (middle > -0.99)] >= 1.9 * ulps)


@KINDS
def test_functions_know_where_they_begin(kind: type[Number]) -> None:
    x = kind.of(np.array([-0.37, 0.0, -1e-300, 5e-324, 0.43]))
    assert np.isneginf(x.log().lower()).tolist() == [True] * 3 + [False] * 2
    assert np.isposinf(x.log().upper()).tolist() == [True] * 3 + [False] * 2
    assert np.isneginf(x.sqrt().lower()).tolist() == [True, False, True, False, False]
    assert np.isposinf(x.sqrt().upper()).tolist() == [True, False, True, False, False]
    if kind is Intervals:
        assert x.sqrt().lower()[1] == 0.0
        tiny = Intervals.of(np.array([-746.0, -1e6, -744.0]))
        assert tiny.exp().lower().tolist() == [0.0, 0.0, 0.0]
        assert np.all((tiny.exp().upper() >= 1e-320) & (tiny.exp().upper() <= 2e-320))
        assert tiny.expm1().lower().tolist() == [-1.0] * 3
        huge = Intervals.of(np.array([710.0])).exp()
        assert (huge.lower()[0], huge.upper()[0]) == (-math.inf, math.inf) or huge.lower()[0] > 1e308


@KINDS
def test_what_is_not_known_stays_so(kind: type[Number]) -> None:
    nothing = kind.of(np.array([0.37, -0.37])) / kind.of(np.array([0.0, 0.0]))
    for found in (nothing, nothing + 1.0, -nothing, nothing * 0.0, nothing / 3.0, nothing.exp(), nothing.total()):
        assert np.all(np.isneginf(found.lower()))
        assert np.all(np.isposinf(found.upper()))
        assert not found.is_zero()
    half = Intervals(np.array([np.nan, 0.3]), np.array([0.7, np.nan]))
    assert np.all(np.isneginf(half.lower()))
    assert np.all(np.isposinf(half.upper()))


@KINDS
def test_parts_are_chosen_and_joined(kind: type[Number]) -> None:
    a, b = kind.of(np.array([0.37, -1.9, 2.3])), kind.of(np.array([1.7, 0.29, -0.71]))
    chosen = a.where(np.array([True, False, True]), b)
    assert chosen.lower() == pytest.approx([0.37, 0.29, 2.3], abs=1e-300, rel=1e-15)
    assert chosen.upper() == pytest.approx([0.37, 0.29, 2.3], abs=1e-300, rel=1e-15)
    hull = a.hull(b)
    assert hull.lower() == pytest.approx([0.37, -1.9, -0.71], rel=1e-8)
    assert hull.upper() == pytest.approx([1.7, 0.29, 2.3], rel=1e-8)
    assert np.all(hull.lower() <= [0.37, -1.9, -0.71])
    assert np.all(hull.upper() >= [1.7, 0.29, 2.3])
    assert hull.abs_upper() == pytest.approx([1.7, 1.9, 2.3], rel=1e-8)
    joined = kind.joined([a, kind.of(0.43), b.take(slice(1, None))])
    assert joined.lower() == pytest.approx([0.37, -1.9, 2.3, 0.43, 0.29, -0.71], rel=1e-15)
    assert joined.upper() == pytest.approx([0.37, -1.9, 2.3, 0.43, 0.29, -0.71], rel=1e-15)
    wide = kind.joined([hull, a])
    assert wide.lower()[:3].tolist() == hull.lower().tolist()
    assert wide.upper()[:3].tolist() == hull.upper().tolist()
    assert a.take(np.array([2, 0])).upper() == pytest.approx([2.3, 0.37], rel=1e-15)


@KINDS
def test_zeros_are_told_from_what_is_small(kind: type[Number]) -> None:
    assert kind.of(0.0).is_zero()
    assert kind.of(np.zeros(3)).is_zero()
    assert kind.of(np.zeros(0)).is_zero()
    for some in ([0.0, 5e-324], [0.0, -0.37], [1.9, 0.0]):
        assert not kind.of(np.array(some)).is_zero()
    assert not Intervals(np.array([0.0]), np.array([0.1])).is_zero()
    assert not Intervals(np.array([-0.1]), np.array([0.0])).is_zero()


@KINDS
def test_sums_are_exact_but_for_one_rounding(kind: type[Number]) -> None:
    values = np.array([1e16, 0.37, -1e16, 0.29, 1e-3])
    exact = sum(map(Fraction, values.tolist()))
    total = kind.of(values).total()
    low, high = float(total.lower()), float(total.upper())
    assert Fraction(low) < exact < Fraction(high)
    assert high - low <= 4.0 * math.ulp(float(exact))
    parts = Intervals(np.array([0.37, -1.9]), np.array([0.43, -1.7])).total()
    assert (parts.lower(), parts.upper()) == (down(0.37 - 1.9), up(0.43 - 1.7))
    assert kind.of(np.zeros(0)).total().abs_upper() <= 1e-300


def test_balls_end_where_the_next_double_is() -> None:
    third = Balls.of(1.0) / 3.0
    assert float(third.lower()) < 1.0 / 3.0 < float(third.upper())
    assert float(third.upper() - third.lower()) <= 3.0 * math.ulp(1.0 / 3.0)
    for x in (0.37, -1.9, 0.0):
        assert (float(Balls.of(x).lower()), float(Balls.of(x).upper())) == (down(x), up(x))


def test_sums_rounded_down() -> None:
    assert sum_below(np.array([[0.37, 0.29], [-1.9, 1e16]])) == down(math.fsum([0.37, 0.29, -1.9, 1e16]))
    assert sum_below(np.array([0.37, math.inf])) == math.inf
    for values in (
        [0.37, -math.inf],
        [math.inf, -math.inf],
        [math.inf, math.nan],
        [0.37, math.nan],
        [1.7e308] * 2,
    ):
        assert sum_below(np.array(values)) == -math.inf
    with np.errstate(all="ignore"):
        assert np.isneginf(Intervals.of(np.full(2, 1.7e308)).total().lower())
        assert np.isposinf(Intervals.of(np.full(2, 1.7e308)).total().upper())
