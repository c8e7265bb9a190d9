"""Shares of devices, and the bounds on them, against their formulas in plain floats: every term of every form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from edgealloc.certificate.form import OUT
from edgealloc.data.instance import Instance
from edgealloc.data.spec import UnderfitCurve, UnderfitLogistic
from edgealloc.units import FloatArray
from edgealloc.verify.proof.device import Line
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.proof.pools import Pools
from edgealloc.verify.proof.share import Shares, gap_slope, gap_value, stability
from tests.verify.proof.plain import bound, gap, row_of, uneven

POINTS = UnderfitCurve(np.array([0.01, 0.13, 0.29, 0.47, 0.71, 1.0]), np.array([2.9, 2.3, 1.1, 0.83, 0.31, 0.17]))
TERMS: dict[str, dict[str, Any]] = {
    "inverse-keep": {}, "perturbation": {}, "curve": {"underfit_curve": POINTS},
    "logistic": {"underfit_logistic": UnderfitLogistic(0.23, 2.7)},
}  # fmt: skip
COUNT = 60
PIECES = [((0, 0), (0, 1), (1, 0), (2, 0))[i % 4] for i in range(COUNT)]
DEVICE, OPTION = np.array([k for k, _ in PIECES]), np.array([row for _, row in PIECES])
RNG = np.random.default_rng(5)
LEFT = RNG.uniform(0.06, 0.6, COUNT)
RIGHT = np.minimum(LEFT + 10.0 ** RNG.uniform(-3, -0.5, COUNT), 1.0)
NU, MU = RNG.uniform(0.1, 1.9, COUNT), 10.0 ** RNG.uniform(-7, -5, COUNT)
BASE, SLOPE, AT = RNG.uniform(1e4, 9e4, COUNT), RNG.uniform(1e4, 9e4, COUNT), RNG.uniform(0.1, 0.9, COUNT)


def instance_of(make_instance: Any, underfit: str, pooling: str) -> Instance:
    return uneven(make_instance, bound=bound(underfit, pooling, **TERMS[underfit]))


def term(underfit: str, keep: FloatArray) -> FloatArray:
    """u(s)."""
    if underfit == "inverse-keep":
        return 1.0 / keep - 1.0
    if underfit == "perturbation":
        return 1.0 - keep * keep
    if underfit == "curve":
        return np.asarray(PchipInterpolator(POINTS.keep, POINTS.value)(keep))
    return np.asarray(1.0 / (1.0 + (keep / 0.23) ** 2.7))


def under(instance: Instance) -> FloatArray:
    """A w f of each piece."""
    factor = np.array([getattr(row_of(instance, k, row), "underfit_factor", 1.0) for k, row in PIECES])
    return np.asarray(0.37 * weight(instance) * factor)


def weight(instance: Instance) -> FloatArray:
    return np.asarray((instance.samples / instance.samples.sum())[DEVICE])


def rest(instance: Instance, keep: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What is not underfitting, and its derivative in log s."""
    if instance.bound.pooling == "global":
        cost = weight(instance) * NU * keep**2
        return cost, 2.0 * cost
    own = [gap(instance.bound, instance.samples[k], s * s) for k, s in zip(DEVICE, keep, strict=True)]
    value, slope = np.array(own).T
    return weight(instance) * value, 2.0 * weight(instance) * slope * keep**2


@pytest.mark.parametrize("kind", [Intervals, Balls])
@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("underfit", list(TERMS))
def test_values_and_slopes(make_instance: Any, underfit: str, pooling: str, kind: type[Number]) -> None:
    instance = instance_of(make_instance, underfit, pooling)
    shares = Shares.of(instance, DEVICE, OPTION, kind)
    known = under(instance) * term(underfit, LEFT) + rest(instance, LEFT)[0]
    found = shares.value(LEFT, kind.of(NU))
    assert found.lower() == pytest.approx(known, rel=1e-11)
    assert found.upper() == pytest.approx(known, rel=1e-11)
    if underfit in ("inverse-keep", "perturbation"):
        value, slope = shares.value_and_slope(LEFT, kind.of(NU))
        falls = 1.0 / LEFT if underfit == "inverse-keep" else 2.0 * LEFT**2
        assert value.lower() == pytest.approx(known, rel=1e-11)
        assert slope.lower() == pytest.approx(rest(instance, LEFT)[1] - under(instance) * falls, rel=1e-11)
    some = np.array([7, 3, 44])
    assert np.all(shares.take(some).value(LEFT[some], kind.of(NU[some])).lower() == found.lower()[some])
    out = Shares.of(instance, DEVICE, np.full(COUNT, OUT), kind)
    own = [0.0 if pooling == "global" else gap(instance.bound, instance.samples[k], 0.0)[0] for k in DEVICE]
    cost = weight(instance) * (0.37 * 4.3 + np.array(own))
    line = Line(kind.of(BASE), kind.of(SLOPE), AT)
    floor = out.floor(LEFT, RIGHT, kind.of(NU), kind.of(MU), line)
    assert floor == pytest.approx(cost, rel=1e-12)
    assert np.all(floor <= cost * (1.0 + 1e-15))
    free = Shares.of(instance.with_changes(exclusion_penalty=None), DEVICE, OPTION, kind)
    assert free.out_cost.lower() == pytest.approx(weight(instance) * np.array(own), rel=1e-12, abs=1e-300)


def truth(instance: Instance, underfit: str, keep: FloatArray) -> FloatArray:
    """Share and what the bandwidth costs."""
    line = BASE + SLOPE * np.log(keep / AT)
    return np.asarray(under(instance) * term(underfit, keep) + rest(instance, keep)[0] + MU * line)


@pytest.mark.parametrize("kind", [Intervals, Balls])
@pytest.mark.parametrize("pooling", ["global", "device"])
def test_convex_floors_are_sharp(make_instance: Any, pooling: str, kind: type[Number]) -> None:
    """They are the minimum on the interval, at an end or inside."""
    instance = instance_of(make_instance, "inverse-keep", pooling)
    shares, line = Shares.of(instance, DEVICE, OPTION, kind), Line(kind.of(BASE), kind.of(SLOPE), AT)
    right = np.where(np.arange(COUNT) % 7, RIGHT, LEFT)
    floor = shares.floor(LEFT, right, kind.of(NU), kind.of(MU), line)
    grid = np.stack([
        truth(instance, "inverse-keep", LEFT + p * (right - LEFT)) for p in np.linspace(0.0, 1.0, 2001)
    ])  # fmt: skip
    least = grid.min(axis=0)
    assert {0, 2000} < set(grid.argmin(axis=0).tolist())
    assert np.all(floor <= least * (1.0 + 1e-14))
    assert floor == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("pooling", ["global", "device"])
def test_other_floors_are_the_lesser_end_of_a_line(make_instance: Any, pooling: str) -> None:
    """Of a chord in s^2 where the line rises; with the tangent of the own gap in the middle."""
    instance, kind = instance_of(make_instance, "perturbation", pooling), Intervals
    slope = np.where(np.arange(COUNT) % 5, SLOPE, -SLOPE)
    shares, line = Shares.of(instance, DEVICE, OPTION, kind), Line(kind.of(BASE), kind.of(slope), AT)
    floor = shares.floor(LEFT, RIGHT, kind.of(NU), kind.of(MU), line)
    pays = [BASE + slope * np.log(end / AT) for end in (LEFT, RIGHT)]
    pays = [np.where(slope < 0.0, np.minimum(*pays), pay) for pay in pays]
    middle = np.sqrt(0.5 * (LEFT**2 + RIGHT**2))
    value, tilt = rest(instance, middle)
    ends = [
        under(instance) * (1.0 - end**2) + value + 0.5 * tilt * (end**2 / middle**2 - 1.0) + MU * pay
        for end, pay in zip((LEFT, RIGHT), pays, strict=True)
    ]
    assert 0 < np.sum(ends[0] < ends[1]) < COUNT
    assert floor == pytest.approx(np.minimum(*ends), rel=1e-11)


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("underfit", ["curve", "logistic"])
def test_floors_of_curves(make_instance: Any, underfit: str, pooling: str) -> None:
    instance, kind = instance_of(make_instance, underfit, pooling), Intervals
    shares, line = Shares.of(instance, DEVICE, OPTION, kind), Line(kind.of(BASE), kind.of(SLOPE), AT)
    with np.errstate(all="ignore"):
        floor = shares.floor(LEFT, RIGHT, kind.of(NU), kind.of(MU), line)
        assert shares.curve is not None
        lines = [end.lower() for end in shares.curve.ends(LEFT, RIGHT, True)]
    middle = np.sqrt(0.5 * (LEFT**2 + RIGHT**2))
    value, tilt = rest(instance, middle)
    ends = [
        under(instance) * u
        + (value + 0.5 * tilt * (end**2 / middle**2 - 1.0))
        + MU * (BASE + SLOPE * np.log(end / AT))
        for end, u in zip((LEFT, RIGHT), lines, strict=True)
    ]  # fmt: skip
    assert 0 < np.sum(ends[0] < ends[1]) < COUNT
    assert floor == pytest.approx(np.minimum(*ends), rel=1e-11)


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("underfit", list(TERMS))
def test_ends_of_what_is_concave_and_below(make_instance: Any, underfit: str, pooling: str) -> None:
    instance, kind = instance_of(make_instance, underfit, pooling), Intervals
    shares, middle = Shares.of(instance, DEVICE, OPTION, kind), 0.5 * (LEFT + RIGHT)
    with np.errstate(all="ignore"):
        found = shares.concave_ends(LEFT, RIGHT, kind.of(NU))
        curve = None if shares.curve is None else [e.lower() for e in shares.curve.ends(LEFT, RIGHT, False)]
    value, slope = rest(instance, middle)
    down = np.zeros(COUNT)
    if curve is None:
        falls = 1.0 / middle if underfit == "inverse-keep" else 2.0 * middle**2
        value, slope = value + under(instance) * term(underfit, middle), slope - under(instance) * falls
        down = np.minimum(slope, 0.0)
    for i, end in enumerate((LEFT, RIGHT)):
        step = (end - middle) / middle
        known = (
            value + slope * step + 0.5 * down * step**2 + (0.0 if curve is None else under(instance) * curve[i])
        )
        assert found[i] == pytest.approx(known, rel=1e-11)
        assert np.all(found[i] <= under(instance) * term(underfit, end) + rest(instance, end)[0] + 1e-12)


@pytest.mark.parametrize("pooling", ["global", "device"])
def test_the_least_of_a_cubic_and_a_tangent(make_instance: Any, pooling: str) -> None:
    """The better of the tangents at both ends; each of the four coefficients is the least somewhere."""
    instance, kind = instance_of(make_instance, "curve", pooling), Intervals
    shares = Shares.of(instance, DEVICE, OPTION, kind)
    spline = PchipInterpolator(POINTS.keep, POINTS.value)
    right = np.minimum(RIGHT, POINTS.keep[np.searchsorted(POINTS.keep, LEFT, side="right")])
    seen, best = set(), []
    for nu in (0.05, 0.5, 1.0, 2.0, 4.0):
        scaled = nu * NU
        with np.errstate(all="ignore"):
            found = shares.curve_least(LEFT, right, kind.of(scaled))
        width, known = right - LEFT, []
        for touch in (LEFT, right):
            value, slope = rest(instance, touch)
            if pooling == "global":
                value, slope = nu * value, nu * slope
            first, last = (value + slope * (end - touch) / touch for end in (LEFT, right))
            begin, end = spline(LEFT), spline(right)
            cubic = (begin, begin + width * spline(LEFT, 1) / 3.0, end - width * spline(right, 1) / 3.0, end)
            parts = (first, first + (last - first) / 3.0, last - (last - first) / 3.0, last)
            sums = np.stack([under(instance) * u + p for u, p in zip(cubic, parts, strict=True)])
            known.append(sums.min(axis=0))
            seen |= set(sums.argmin(axis=0).tolist())
        best.append(known[0] > known[1] + 1e-9)
        assert found == pytest.approx(np.maximum(*known), rel=1e-9)
    assert pooling == "device" or seen == {0, 1, 2, 3}
    assert pooling == "device" or 0 < np.sum(best) < np.size(best)


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_the_stability_term(make_instance: Any, kind: type[Number]) -> None:
    """Its value and slope, and where parts of it are none: exact zeros, in the shape that is asked for."""
    q = np.array([0.0, 0.29, 0.83, 1.0])
    for changes in (
        {}, {"sparsity_weight": 0.0}, {"lipschitz": 0.0}, {"loss_range": 0.0},
        {"lipschitz": 0.0, "sparsity_weight": 0.0},
    ):  # fmt: skip
        instance = uneven(make_instance, bound=bound(**changes))
        term_ = stability(instance, kind.of(470.0), kind)
        value, slope = gap_value(term_, kind.of(q)), gap_slope(term_, kind.of(q))
        if changes.get("loss_range") == 0.0:
            assert value.is_zero()
            assert slope.is_zero()
        else:
            known = np.array([gap(instance.bound, 470.0, share) for share in q])
            assert value.lower() == pytest.approx(known[:, 0], rel=1e-12)
            assert slope.lower() == pytest.approx(known[:, 1], rel=1e-12, abs=1e-300)
            assert slope.is_zero() is bool(changes)
        assert value.lower().shape == slope.lower().shape == q.shape


@pytest.mark.parametrize("kind", [Intervals, Balls])
@pytest.mark.parametrize("pooling", ["global", "cluster"])
def test_tangents_of_pools(make_instance: Any, pooling: str, kind: type[Number]) -> None:
    """Constant and price of each device, of many leaves at once; clusters in the order of their names."""
    names = (7, 2, 7) if pooling == "cluster" else None
    instance = uneven(make_instance, bound=bound(pooling=pooling), clusters=names)
    pools = Pools.of(instance, kind)
    assert pools is not None
    groups = [[1], [0, 2]] if names else [[0, 1, 2]]
    assert pools.count == len(groups)
    at = np.array([[0.13, 0.71], [0.43, 0.29], [0.91, 0.37]])[:, : len(groups)]
    rest_, price = pools.priced(at)
    for j, row in enumerate(at):
        constant = 0.0
        for group, q in zip(groups, row.tolist(), strict=True):
            held = instance.samples[group].sum()
            value, slope = gap(instance.bound, held, q)
            constant += held / instance.samples.sum() * (value - slope * q)
            for k in group:
                assert price.lower()[3 * j + k] == pytest.approx(slope, rel=1e-12)
        assert rest_.lower()[j] == pytest.approx(constant, rel=1e-12)
        assert math.isfinite(rest_.upper()[j])
    assert Pools.of(instance_of(make_instance, "curve", "device"), kind) is None
