"""Lines below the logistic term against their formulas in plain floats: which of three, and every number of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgealloc.data.spec import UnderfitLogistic
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.proof.logistic import Logistic

CASES = [(0.37, 2.7), (0.43, 7.9), (0.29, 41.0), (0.23, 1.3), (0.53, 0.7), (0.31, 1.0), (0.31, 2.0)]
KINDS = pytest.mark.parametrize("kind", [Intervals, Balls])


def value(half: float, steepness: float, s: float) -> float:
    return 1.0 / (1.0 + (s / half) ** steepness)


def slope(half: float, steepness: float, s: float) -> float:
    """du / ds."""
    z = (s / half) ** steepness
    return -steepness * z / (s * (1.0 + z) ** 2)


def bend(half: float, steepness: float, power: int) -> float:
    return half * max((steepness - power) / (steepness + power), 0.0) ** (1.0 / steepness)


def tangent(term: tuple[float, float], power: int, touch: float, at: float) -> float:
    """In s to a power."""
    tilt = slope(*term, touch) / (power * touch ** (power - 1))
    return value(*term, touch) + tilt * (at**power - touch**power)


def lines(term: tuple[float, float], power: int, left: float, right: float) -> dict[str, tuple[float, float]]:
    """Those that are possible, by name."""
    first, last, c = value(*term, left), value(*term, right), bend(*term, power)
    found = {"level": (last, last)}
    stop = min(right, c)
    if right <= c:
        found["chord"] = (first, last)
    elif left < stop:
        held = value(*term, stop)
        share = (right**power - left**power) / (stop**power - left**power)
        found["chord, lowered"] = (first - held + last, first + (held - first) * share - held + last)
    begin = max(left, c)
    if begin <= right:
        touch = (0.5 * (begin**power + right**power)) ** (1.0 / power)
        a, b = (tangent(term, power, touch, end) for end in (left, right))
        above = max(a - first, 0.0) if left < c else 0.0
        found["tangent, lowered" if above else "tangent"] = (a - above, b - above)
    return found


@KINDS
def test_the_best_of_three_lines(kind: type[Number]) -> None:
    rng, seen = np.random.default_rng(3), set()
    for half, steepness in CASES:
        count = 400 if kind is Intervals else 40
        left = np.exp(rng.uniform(math.log(0.02), 0.0, count))
        right = np.minimum(left * np.exp(10.0 ** rng.uniform(-3, 0.5, count)), 1.0)
        right[::11] = left[::11]
        exact = Logistic.of(UnderfitLogistic(half, steepness), kind)
        for power in (1, 2):
            with np.errstate(all="ignore"):
                ends = exact.ends(left, right, power == 2)
            for i, (a, b) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
                each = lines((half, steepness), power, a, b)
                wanted = max(each, key=lambda name: sum(each[name]))
                for end, known in zip(ends, each[wanted], strict=True):
                    near: Any = pytest.approx(known, rel=1e-9, abs=1e-11)
                    assert end.lower()[i] == near, (half, steepness, power, a, b, wanted)
                    assert end.upper()[i] == near
                seen.add(wanted)
    assert seen >= {"level", "chord", "chord, lowered", "tangent", "tangent, lowered"}


@KINDS
def test_lines_that_touch_where_it_is_asked(kind: type[Number]) -> None:
    """Where the term is convex, the tangent there; elsewhere the best line."""
    rng = np.random.default_rng(5)
    for half, steepness in CASES:
        left = rng.uniform(0.05, 0.9, 40)
        right = np.minimum(left + rng.uniform(0.01, 0.3, 40), 1.0)
        touch = left + rng.uniform(0.1, 0.9, 40) * (right - left)
        exact = Logistic.of(UnderfitLogistic(half, steepness), kind)
        with np.errstate(all="ignore"):
            found = [part.lower() for part in exact.below(left, right, touch)]
            ends = [part.lower() for part in exact.ends(left, right, False)]
        for i, (a, b, t) in enumerate(zip(left.tolist(), right.tolist(), touch.tolist(), strict=True)):
            convex = a >= bend(half, steepness, 1)
            first, last = (tangent((half, steepness), 1, t, e) for e in (a, b)) if convex else (e[i] for e in ends)
            known = [first, (2.0 * first + last) / 3.0, (first + 2.0 * last) / 3.0, last]
            assert [part[i] for part in found] == pytest.approx(known, rel=1e-9, abs=1e-12)


@KINDS
def test_bends_and_knots(kind: type[Number]) -> None:
    """Between two doubles; none up to the steepness that is convex throughout."""
    for half, steepness in CASES:
        exact = Logistic.of(UnderfitLogistic(half, steepness), kind)
        for power, (under, over) in zip((1, 2), exact.bends, strict=True):
            c = bend(half, steepness, power)
            assert under == pytest.approx(c, rel=1e-12)
            assert over == pytest.approx(c, rel=1e-12)
            assert under < over if c else under == over == 0.0
        assert exact.knots.tolist() == [exact.bends[1][1], exact.bends[0][1]]
        keep = np.array([0.05, half, math.nextafter(half, 1.0), 0.77])
        known = [value(half, steepness, s) for s in keep.tolist()]
        assert exact.value(keep).lower() == pytest.approx(known, rel=1e-12)
        assert exact.value(keep).upper() == pytest.approx(known, rel=1e-12)
