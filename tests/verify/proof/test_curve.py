"""Certificates under measured curves: the checker's own cubics, and proofs of every kind with them."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flint import ctx
from scipy.interpolate import PchipInterpolator

from edgealloc import Problem, solve
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.subcarriers import Part
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec, UnderfitCurve
from edgealloc.errors import EdgeallocError
from edgealloc.files.instance import load_instance
from edgealloc.solvers.certify.write import certified
from edgealloc.units import FloatArray
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.curve import Curve
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.subcarriers.claim import Claim, Model
from edgealloc.verify.subcarriers.pays import pays_from
from tests.solvers.ofdma.oracle import random_curve, random_ofdma
from tests.verify.spoiling import mutate, refused

STEPS = UnderfitCurve(
    np.array([0.01, 0.1, 0.2, 0.3, 0.5, 0.55, 1.0]), np.array([3.0, 2.5, 1.2, 1.1, 1.0, 0.3, 0.1])
)
FLAT = UnderfitCurve(np.array([0.01, 0.2, 0.4, 0.6, 0.8, 1.0]), np.array([1.5, 1.5, 0.6, 0.6, 0.2, 0.2]))


def random_points(rng: np.random.Generator) -> UnderfitCurve:
    """Two to eight falling points of any size, level in places."""
    count = int(rng.integers(2, 9))
    value = np.sort(rng.exponential(size=count) * 10.0 ** rng.uniform(-3, 2))[::-1].copy()
    if rng.random() < 0.4:
        value[int(rng.integers(1, count)) :] = value[-1]
    elif count > 4:
        first = int(rng.integers(1, count - 3))
        value[first : first + 2] = value[first]  # level in the middle
    return UnderfitCurve(np.sort(rng.uniform(0.01, 1.0, count)), value)


def exact_value(points: UnderfitCurve, at: float) -> Fraction:
    """The curve at a keep rate in exact fractions: Hermite's form, and scipy's rules for the derivatives."""
    x, y = ([Fraction(v) for v in row.tolist()] for row in (points.keep, points.value))
    h = [b - a for a, b in pairwise(x)]
    m = [(b - a) / w for (a, b), w in zip(pairwise(y), h, strict=True)]

    def end(h0: Fraction, h1: Fraction, m0: Fraction, m1: Fraction) -> Fraction:
        return min(((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1), Fraction(0))

    d = [m[0], m[0]]
    if len(x) > 2:
        d = [end(h[0], h[1], m[0], m[1])]
        for i in range(1, len(x) - 1):
            w = 2 * h[i] + h[i - 1], h[i] + 2 * h[i - 1]
            d.append(Fraction(0) if m[i] * m[i - 1] == 0 else sum(w) / (w[0] / m[i - 1] + w[1] / m[i]))
        d.append(end(h[-1], h[-2], m[-1], m[-2]))
    i = min(int(np.searchsorted(points.keep, at, side="right")) - 1, len(h) - 1)
    t = (Fraction(at) - x[i]) / h[i]
    ends = (1 + 2 * t) * (1 - t) ** 2 * y[i] + t * t * (3 - 2 * t) * y[i + 1]
    return ends + h[i] * (t * (1 - t) ** 2 * d[i] - t * t * (1 - t) * d[i + 1])


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_values_enclose_the_exact_curve(kind: type[Number]) -> None:
    """Exact fractions lie inside, scipy next to it, and the enclosures are as narrow as doubles allow."""
    rng = np.random.default_rng(0)
    for _ in range(60 if kind is Intervals else 15):
        points = random_points(rng)
        keep = np.concatenate((points.keep, rng.uniform(points.keep[0], points.keep[-1], 8)))
        with ctx.workprec(128), np.errstate(all="ignore"):
            value = Curve.of(points, kind).value(keep)
            low, high = value.lower(), value.upper()
        exact = [exact_value(points, s) for s in keep.tolist()]
        assert all(
            Fraction(a) <= u <= Fraction(b) for a, u, b in zip(low.tolist(), exact, high.tolist(), strict=True)
        )
        scale = points.value[0]
        assert np.all(high - low <= 1e-14 * scale)
        known = PchipInterpolator(points.keep, points.value)(keep)
        assert np.all(np.abs(known - low) <= 1e-14 * scale)


@pytest.mark.parametrize("squared", [False, True])
def test_lines_lie_below_the_curve(squared: bool) -> None:
    """At every place of every interval, over points too; the loss is of second order in the width."""
    rng = np.random.default_rng(1)
    for _ in range(80):
        points = random_points(rng)
        left = rng.uniform(points.keep[0], points.keep[-1], 30)
        right = np.minimum(left + 10.0 ** rng.uniform(-6, 0, 30), points.keep[-1])
        with np.errstate(all="ignore"):
            ends = [end.lower() for end in Curve.of(points, Intervals).ends(left, right, squared)]
        true = PchipInterpolator(points.keep, points.value)
        slack = 1e-14 * points.value[0]
        for part in np.linspace(0, 1, 17):
            keep = left + part * (right - left)
            share = (keep**2 - left**2) / (right**2 - left**2) if squared else part
            assert np.all(ends[0] + share * (ends[1] - ends[0]) <= true(keep) + slack)
        piece = np.searchsorted(points.keep, left, side="right")
        inside = right <= points.keep[np.minimum(piece, len(points.keep) - 1)]
        bend = 1e3 * points.value[0] / np.diff(points.keep).min() ** 2
        assert np.all((true(left) - ends[0] <= bend * (right - left) ** 2 + slack)[inside])


def test_nothing_is_known_outside_of_the_points() -> None:
    with np.errstate(all="ignore"):
        curve = Curve.of(STEPS, Intervals)
        assert np.isneginf(curve.value(np.array([0.005])).lower()[0])
        assert np.isneginf(curve.ends(np.array([0.005]), np.array([0.5]), True)[1].lower()[0])


@pytest.mark.parametrize("seeds", [range(4, 8), pytest.param(range(12), marks=pytest.mark.slow)], ids=str)
def test_the_rate_that_pays_is_the_first(seeds: range) -> None:
    """The share stays above the target up to the rate, and falls below it hardly beyond: against a fine grid."""
    crossed = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        instance = random_ofdma(rng, bound=random_curve(rng), keep_levels=None, adapter_options=None)
        low, high = float(instance.keep_min[0]), float(instance.keep_max[0])
        part = Part(0, 0, np.array([low, high]), np.zeros(0), np.zeros(0), np.zeros(0))
        with np.errstate(all="ignore"):
            model = Model.of(instance, Intervals, False)
            nu = Intervals.of(float(rng.exponential()))
            grid = np.linspace(low, high, 40_001)
            share = model.shares.take(np.zeros(len(grid), np.intp)).value(grid, nu).upper()
            dips = share.min() + (share.max() - share.min()) * 10.0 ** rng.uniform(-6, -2, 6)
            for least in (*rng.uniform(share.min(), share.max(), 6), *dips):
                fixed = np.full(instance.gain.shape[1], -1, np.int8)
                claim = Claim(part, float(least), np.zeros(len(fixed)), nu, fixed, None)
                rate = float(pays_from(model, [claim], [np.zeros((1, len(fixed)), bool)])[0][0])
                assert np.all(share[grid < rate] >= least)
                if low < rate < math.inf:  # not even by a hair beyond the crossing
                    at = model.shares.take(np.zeros(1, np.intp)).value(np.array([rate]), nu)
                    assert at.upper()[0] >= least
                first = grid[share < least].min(initial=math.inf)
                assert first == math.inf if rate == math.inf else rate >= first - 1.001 * (grid[1] - grid[0])
                crossed += low < rate < math.inf
    assert crossed > 20 * len(seeds) // 12


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_straight_curve_is_not_passed_by_a_hair(make_instance: Any, scale: float) -> None:
    """Where the share is its own chord, nothing but the margin for rounding keeps the steps from crossing it."""
    straight = UnderfitCurve(np.array([0.01, 0.5, 1.0]), np.array([0.99, 0.5, 0.0]))
    bound = BoundSpec("curve", underfit_curve=straight, underfit_weight=0.3 * scale)
    instance = make_instance("ofdma", devices=2, subcarriers=4, bound=bound)
    part, none = Part(0, 0, np.array([0.05, 1.0]), np.zeros(0), np.zeros(0), np.zeros(0)), np.zeros((1, 4), bool)
    with np.errstate(all="ignore"):
        model, nu = Model.of(instance, Intervals, False), Intervals.of(0.0)
        share = model.shares.take(np.zeros(1, np.intp))
        for least in (scale * np.linspace(0.01, 0.12, 12)).tolist():
            claim = Claim(part, least, np.zeros(4), nu, np.full(4, -1, np.int8), None)
            rate = pays_from(model, [claim], [none])[0]
            assert 0.05 < rate[0] < 1.0
            assert least <= share.value(rate, nu).upper()[0] <= least + 1e-8 * scale


def proved(instance: Instance, rel_gap: float = 1e-6) -> tuple[float, dict[str, Any]]:
    """Objective and certificate, as a file has it, which is accepted and claims what the solver did."""
    result = solve(instance, "bnb", rel_gap=rel_gap, time_limit=20.0)
    lowered, certificate = certified(result, rel_gap)
    assert lowered.lower_bound >= result.lower_bound - 1e-8 * abs(result.lower_bound)
    data = json.loads(json.dumps(certificate.to_file()))
    proof = check_certificate(instance, certificate_from_dict(data))
    assert not proof.faults
    assert lowered.lower_bound <= proof.lower_bound <= result.objective * (1 + 1e-12)
    return result.objective, data


def curved(instance: Instance, points: UnderfitCurve) -> Instance:
    """The instance with its underfitting measured."""
    return replace(instance, bound=replace(instance.bound, underfit="curve", underfit_curve=points))


@pytest.mark.parametrize("name", ["fdma-20-s1", "fdma-20-device-s1", "fdma-20-levels-s1", "rb-10-s1", "rb-10-s2"])
@pytest.mark.parametrize("points", [STEPS, FLAT], ids=["steps", "flat"])
def test_cells_with_steps_are_proved(cases: Path, name: str, points: UnderfitCurve) -> None:
    proved(curved(load_instance(cases / f"{name}.json"), points), 1e-4)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_random_subcarrier_cells_are_proved(common: bool, part: int) -> None:
    """Levels, menus, selection, both poolings, level and steep curves."""
    count = 0
    for seed in range((3 if common else 12) // part):
        rng = np.random.default_rng(seed)
        bound = random_curve(rng)
        instance = random_ofdma(rng, bound=bound, **({"common_keep": True} if common else {}))
        if solve(instance, "bnb", rel_gap=1e-6).status.has_allocation:
            proved(instance)
            count += 1
    assert count >= (2 if common else 9) // part


@pytest.mark.slow
def test_many_random_subcarrier_cells_are_proved() -> None:
    for seed in range(24, 600):
        rng = np.random.default_rng(seed)
        instance = random_ofdma(rng, bound=random_curve(rng))
        if solve(instance, "bnb", rel_gap=1e-6, time_limit=5.0).status.has_allocation:
            proved(instance)


def test_a_free_minimum_inside_is_proved() -> None:
    """Where resources are ample and the share has its minimum between points, no set may be left open there."""
    rng = np.random.default_rng(34)
    bound = random_curve(rng)
    instance = random_ofdma(rng, bound=bound)
    _objective, data = proved(instance)
    allocation = solve(instance, "bnb", rel_gap=1e-6).allocation
    assert allocation is not None
    assert bound.underfit_curve is not None
    ends = np.concatenate((bound.underfit_curve.keep, instance.keep_min, instance.keep_max))
    assert allocation.keep[0] not in ends
    assert not any(part["exclude_w"] for node in data["nodes"] for part in node["parts"])


@pytest.fixture(scope="module")
def honest(make_instance: Any) -> list[tuple[Instance, float, dict[str, Any]]]:
    """Accepted certificates under a curve with steps: continuous spectrum, blocks, sub-carriers."""
    bound = BoundSpec(underfit="curve", underfit_curve=STEPS, underfit_weight=0.3)
    scarce = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0, "bound": bound}
    carriers = random_ofdma(np.random.default_rng(3), bound=random_curve(np.random.default_rng(3)))
    instances = [
        make_instance(devices=4, **scarce), make_instance(devices=4, access="rb", block_hz=500.0, **scarce),
        carriers,
    ]  # fmt: skip
    return [(instance, *proved(instance, 1e-7)) for instance in instances]


def lowered_at(instance: Instance, i: int, factor: float) -> Instance:
    """The instance with one value of its curve lowered, and those beyond that were above it."""
    points = instance.bound.underfit_curve
    assert points is not None
    value = points.value.copy()
    value[i] *= factor
    return curved(instance, UnderfitCurve(points.keep, np.minimum.accumulate(value)))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_lower_curve_is_not_covered(honest: Any, which: int) -> None:
    """Nothing wrong is proved of an instance with other points, and nothing at all of half the curve."""
    instance, _objective, data = honest[which]
    points = instance.bound.underfit_curve
    found = 0
    for i in range(len(points.keep)):
        for factor in (0.9, 0.999):
            other = lowered_at(instance, i, factor)
            if refused(other, data):
                found += 1
            else:
                assert solve(other, "bnb", rel_gap=1e-7, time_limit=20.0).objective >= data["lower_bound"]
    assert found >= 2
    assert refused(curved(instance, UnderfitCurve(points.keep, 0.5 * points.value)), data)


def test_points_moved_aside_are_not_covered(honest: Any) -> None:
    """A point moved to the left makes the curve fall earlier: where that matters, the bound is too high."""
    for instance, _objective, data in honest:
        points = instance.bound.underfit_curve
        keep = points.keep.copy()
        keep[1:-1] = 0.5 * (keep[1:-1] + keep[:-2])
        other = curved(instance, UnderfitCurve(keep, points.value))
        assert refused(other, data) or solve(other, "bnb", rel_gap=1e-7).objective >= data["lower_bound"]


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_no_mutant_proves_more_than_the_optimum(honest: Any, which: int, count: int) -> None:
    """Numbers changed at random, the claim above a feasible objective, sealed anew: none may be accepted."""
    rng = np.random.default_rng(which)
    instance, objective, data = honest[which]
    untouched = copy.deepcopy(data)
    untouched["lower_bound"] = objective * (1 + 1e-9)
    assert refused(instance, untouched)  # the seal
    for _ in range(count):
        bad = copy.deepcopy(untouched)
        mutate(bad, rng)
        assert refused(instance, bad)


def test_balls_prove_what_intervals_do(honest: Any) -> None:
    """A claim that intervals miss by a hair goes to balls; they prove as much, and no more than is true."""
    for instance, objective, data in honest:
        certificate = certificate_from_dict(data)
        proof = check_certificate(instance, certificate)
        above = check_certificate(instance, replace(certificate, lower_bound=proof.lower_bound * (1 + 4e-16)))
        assert above.in_balls > 0
        assert proof.lower_bound <= above.lower_bound <= objective * (1 + 1e-12)


def test_functions_have_no_certificate(make_instance: Any) -> None:
    """A function from Python is in no file; its certificate would be one for another instance."""

    def harder(keep: FloatArray) -> FloatArray:
        return np.asarray(2.0 / np.asarray(keep) - 2.0)

    result = solve(Problem(make_instance(devices=2), underfit=harder), "bnb", rel_gap=1e-2)
    assert result.status.has_allocation
    with pytest.raises(EdgeallocError, match="function from Python"):
        certified(result, 1e-2)
