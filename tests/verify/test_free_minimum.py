"""The least bound when nothing is scarce: of the model and of the checker, against each other and dense grids."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from edgealloc import conformance
from edgealloc.api import solve
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.files.instance import load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.verify.bound import bound_value, free_bracket
from edgealloc.verify.solution import verify


def _steep_curve(rng) -> UnderfitCurve:
    """Falls in steps: plateaus, and drops within 1e-1 to 1e-8 of a keep rate, some of them side by side."""
    keep, value = [0.01, 1.0], list(rng.uniform(0, 1, 2))
    for middle in rng.uniform(0.05, 0.95, rng.integers(1, 4)):
        near = middle + np.cumsum(10.0 ** rng.uniform(-8, -1, rng.integers(2, 5)))
        keep += [middle, *near[near < 0.999]]
    keep = np.unique(keep)
    value = np.sort(rng.uniform(0, 1, len(keep)) * (rng.uniform(size=len(keep)) < 0.8))[::-1]
    if rng.uniform() < 0.5:
        value = np.round(value, 1)  # plateaus
    return UnderfitCurve(keep, np.maximum(value, 0.0))


def _random(make_instance, rng, pooling: str, common: bool, devices: int = 2):
    bound = BoundSpec(
        "curve", 10.0 ** rng.uniform(-3, 1), pooling, 1.0, 1.0, 10.0 ** rng.uniform(-4, 0), 0.5, 0.1,
        underfit_curve=_steep_curve(rng),
    )  # fmt: skip
    low = rng.uniform(0.01, 0.3, devices)
    return make_instance(
        devices=devices, bound=bound, samples=10.0 ** rng.uniform(1, 5, devices), common_keep=common,
        keep_min=low, keep_max=rng.uniform(0.6, 1.0, devices),
    )  # fmt: skip


def _grid(instance, low: float, high: float):
    """Many rates between any two points of the curve."""
    knots = instance.bound.underfit_curve.keep
    parts = [np.linspace(a, b, 400) for a, b in itertools.pairwise(knots)]
    return np.unique(np.clip(np.concatenate(parts), low, high))


def _grid_minimum(instance) -> float:
    """Least G on a grid, of devices that do not touch each other or of one common rate."""
    problem, k = Problem(instance), instance.num_devices
    if instance.common_keep:
        grid = _grid(instance, float(instance.keep_min.max()), float(instance.keep_max.min()))
        square = np.square(grid)
        gap = (
            problem.stability.value(square)
            if problem.pooled
            else problem.stability.value(square[:, None]) @ instance.weights
        )
        value = instance.bound.underfit_weight * problem.underfit.value(grid) + gap
        at = int(np.argmin(value))
        assert problem.objective(np.full(k, grid[at])) == pytest.approx(value[at], rel=1e-12)
        return float(value[at])
    least = 0.0
    for i in range(k):
        grid = _grid(instance, float(instance.keep_min[i]), float(instance.keep_max[i]))
        own = problem.stability.value(np.square(grid)[:, None])[:, i]
        least += instance.weights[i] * float(
            np.min(instance.bound.underfit_weight * problem.underfit.value(grid) + own)
        )
    return least


@pytest.mark.parametrize(("pooling", "common"), [("device", False), ("device", True), ("global", True)])
def test_the_deepest_valley_is_found_by_both(make_instance, pooling, common):
    rng = np.random.default_rng(2 * len(pooling) + common)
    for _ in range(25):
        instance = _random(make_instance, rng, pooling, common)
        free, reached = Problem(instance).free_objective, _grid_minimum(instance)
        low, high, accuracy = free_bracket(instance)
        assert low <= high
        assert high - low <= 1e-10 * high  # exact on the checker's side
        assert high <= reached * (1.0 + 1e-12)
        assert reached <= high * (1.0 + 1e-3)  # the grid sees the same valley
        assert low * (1.0 - accuracy) <= free <= high * (1.0 + 1e-12)


@pytest.mark.parametrize("select", [False, True])
@pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_pooled_curves_are_bounded_alike(make_instance, select, count):
    """Dual values: the model's attains the greatest one, which the checker finds on its own."""
    rng = np.random.default_rng(7 + select)
    for _ in range(count):
        instance = _random(make_instance, rng, "global", False, 3)
        instance = instance.with_changes(exclusion_penalty=float(rng.uniform(0.2, 2)) if select else None)
        problem = Problem(instance)
        low, _, accuracy = free_bracket(instance)
        assert problem.free_objective >= low * (1.0 - accuracy)
        for _ in range(200):
            keep = rng.uniform(instance.keep_min, instance.keep_max)
            assert problem.free_objective <= problem.objective(keep) * (1.0 + 1e-12)


def test_prices_at_which_all_devices_leave_together(make_instance):
    """The dual value was taken a third of the way to the price of the jump, 3.6e-6 too low."""
    bound = BoundSpec("perturbation", 1e6, "global", 1.0, 1.0, 1e-6, 0.5, 0.1)
    instance = make_instance(
        devices=3, bound=bound, samples=np.array([11038799.0, 3.0, 2.0]), keep_min=np.array([0.1, 0.3, 0.01]),
        keep_max=np.array([1.0, 0.9, 1.0]), exclusion_penalty=1.0,
    )  # fmt: skip
    problem = Problem(instance)
    low, _, _ = free_bracket(instance)
    grid = [np.linspace(a, b, 41) for a, b in zip(instance.keep_min, instance.keep_max, strict=True)]
    reached = min(
        problem.objective(np.where(on, keep, 0.0), np.array(on))
        for on in itertools.product([False, True], repeat=3)
        for keep in itertools.product(grid[0][-2:], grid[1][-9:], grid[2][-9:])
    )
    assert problem.free_objective == pytest.approx(low, rel=1e-9)
    assert problem.free_objective <= reached


@pytest.mark.parametrize("name", ["seed344", "seed1022"])
def test_true_optima_of_the_known_faults_are_accepted(faults, name):
    instance = load_instance(faults / f"{name}.json")
    result = solve(instance, method="bnb", time_limit=60.0)
    assert result.status is Status.OPTIMAL
    report = verify(instance, result.solution())
    assert report.ok, str(report)


def test_a_curve_that_falls_by_next_to_nothing_is_bracketed_without_a_warning() -> None:
    """Slopes below the least normal double: a quotient beyond doubles is an infinite end of an enclosure."""
    points = UnderfitCurve(np.array([0.01, 0.3, 0.6, 1.0]), np.array([3e-318, 2e-318, 1e-318, 0.0]))
    instance = conformance.cell(bound=BoundSpec("curve", underfit_curve=points))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bracket = free_bracket(instance)
    assert bracket is not None
    assert bracket[0] <= Problem(instance).free_objective * (1.0 + 1e-9)


def test_a_curve_of_slopes_whose_inverses_are_beyond_doubles_is_read_without_a_warning() -> None:
    """scipy takes the harmonic mean of two slopes; next to nothing, it is 0."""
    points = UnderfitCurve(np.array([0.01, 0.3, 0.6, 1.0]), np.array([3e-309, 2e-309, 1e-309, 0.0]))
    instance = conformance.cell(bound=BoundSpec("curve", underfit_curve=points))
    keep, everyone = np.full(instance.num_devices, 0.5), np.ones(instance.num_devices, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = bound_value(instance, keep, everyone, np.ones(instance.num_devices))
        assert float(Problem(instance).underfit.value(keep)[0]) == pytest.approx(points.value[1], abs=3e-309)
    assert np.isfinite(value)


@pytest.mark.parametrize("selects", [False, True])
@pytest.mark.parametrize(
    ("loss_range", "steepness", "half"),
    [(0.3, 1.3, 0.37), (2.1, 3.7, 0.23), (17.0, 9.1, 0.61), (2.1, 9.1, 0.61), (0.3, 3.7, 0.23)],
)
def test_prices_bound_a_logistic_term_as_a_dense_search_of_them_does(
    make_instance, loss_range: float, steepness: float, half: float, selects: bool
) -> None:
    """Concave below its bend, convex above: the greatest bound over tangents, each device on a grid of its own."""
    bound = BoundSpec("logistic", 0.71, loss_range=loss_range, underfit_logistic=UnderfitLogistic(half, steepness))
    cell = make_instance(
        devices=3, bound=bound, samples=np.array([31.0, 120.0, 57.0]),
        keep_min=np.array([0.03, 0.11, 0.07]), keep_max=np.array([0.93, 0.81, 0.97]),
        exclusion_penalty=0.83 if selects else None,
    )  # fmt: skip
    problem = Problem(cell)

    def tangent(q: float) -> float:
        slope = float(problem.stability.pooled_slope(q))
        whole = float(problem.stability.value(np.array(q))) - slope * q
        for k in range(3):
            s = np.linspace(float(cell.keep_min[k]), float(cell.keep_max[k]), 3001)
            own = 0.71 / (1.0 + (s / half) ** steepness) + slope * s * s
            whole += cell.weights[k] * min(own.min(), 0.71 * 0.83 if selects else np.inf)
        return whole

    places = np.geomspace(1e-4, 1.0, 300)
    for _ in range(3):  # the bound is concave in the slope: around the best
        values = [tangent(q) for q in places.tolist()]
        at = int(np.argmax(values))
        places = np.linspace(places[max(at - 1, 0)], places[min(at + 1, len(places) - 1)], 60)
    found = free_bracket(cell)
    assert found is not None
    assert found[0] == pytest.approx(max(values), rel=2e-5)


@pytest.mark.parametrize(
    ("half", "steepness", "keep"),
    [
        (2.0**40, 0.01, 0.011),
        (2.0**40, 0.01, 0.93),
        (1e15, 0.01, 0.3),
        (0.3, 1e9, 0.3 * (1.0 - 1e-12)),
        (0.3, 1e5, 0.30001),
        (0.05, 11.0, 1.0),
        (0.05, 200.0, 0.9),
    ],
)
def test_a_logistic_term_keeps_its_digits_near_its_half_and_far_from_it(
    make_instance, half: float, steepness: float, keep: float
) -> None:
    """The bound is A u(s) where losses have no range: s / half by exact fractions, near 1 by a series."""
    bound = BoundSpec("logistic", 0.71, loss_range=0.0, underfit_logistic=UnderfitLogistic(half, steepness))
    cell = make_instance(devices=1, bound=bound)
    ratio = Fraction(keep) / Fraction(half)
    small = float(ratio - 1)
    log = small - small**2 / 2 + small**3 / 3 if abs(small) < 1e-3 else math.log(keep) - math.log(half)
    value = bound_value(cell, np.array([keep]), np.array([True]), np.ones(1))
    assert value == pytest.approx(0.71 / (1.0 + math.exp(steepness * log)), rel=1e-10, abs=0.0)


def _least(value: Callable[[Decimal], Decimal], low: Decimal, high: Decimal, steps: int = 220) -> Decimal:
    """The least value of a convex function."""
    for _ in range(steps):  # the least where it is read at two places leaves out what is beyond the other one
        left, right = low + (high - low) * Decimal("0.4"), low + (high - low) * Decimal("0.6")
        low, high = (low, right) if value(left) <= value(right) else (left, high)
    return value((low + high) / 2)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("underfit", ["inverse-keep", "perturbation"])
def test_the_free_minimum_of_one_device_is_that_of_decimals(underfit: str, pooling: str, common: bool) -> None:
    """In 60 decimals, over what is dropped: beside a keep rate of 1 it may be less than doubles are apart."""
    rng = np.random.default_rng([len(underfit), len(pooling), common])
    alone, beside = conformance.cell().take(np.array([0])), 0
    for _ in range(25):
        size = 10.0 ** rng.uniform((-9, -9, -9, -18, -9), (9, 3, 3, 0, 9))
        bound = BoundSpec(underfit, float(size[0]), pooling, *size[1:].tolist(), 0.1)
        low, high = float(rng.choice([0.01, 0.3])), float(rng.choice([1.0, 1.0, 0.9, 1.0 - 1e-9, 1.0 - 2.0**-50]))
        cell = alone.with_changes(
            bound=bound, samples=10.0 ** rng.uniform(0, 6, 1), common_keep=common,
            keep_min=np.array([low]), keep_max=np.array([high]),
        )  # fmt: skip
        with localcontext() as digits:
            digits.prec = 60
            weight, losses, lipschitz, curvature, sparsity = map(Decimal, size.tolist())
            scale = 1 / (2 * Decimal(float(cell.samples[0])) * Decimal(bound.confidence_delta))

            def bounded(
                dropped: Decimal,
                weight: Decimal = weight,
                base: Decimal = losses**2 * scale,
                spread: Decimal = 24 * losses * lipschitz**2 * scale,
                curvature: Decimal = curvature,
                sparsity: Decimal = sparsity,
            ) -> Decimal:
                lost = 1 / (1 - dropped).sqrt() - 1 if underfit == "inverse-keep" else dropped
                return weight * lost + (base + spread / (curvature + 2 * sparsity * dropped)).sqrt()

            least = float(_least(bounded, 1 - Decimal(high) ** 2, 1 - Decimal(low) ** 2))
        bracket = free_bracket(cell)
        assert bracket is not None
        assert bracket[0] == pytest.approx(least, rel=1e-9)
        assert bracket[0] <= bracket[1] * (1.0 + 1e-12)
        found, keep = Problem(cell).free
        assert least * (1.0 - 1e-9) <= found <= max(least, bracket[1]) * (1.0 + 1e-9)
        beside += 0.0 < 1.0 - keep[0] < 1e-9
    assert beside > 0


def test_no_allocation_beats_a_free_minimum_between_doubles() -> None:
    """Three devices of many sizes: keep rates a few doubles beside the best ones are no better."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        size = 10.0 ** rng.uniform((-2, -9, -9, -18, 0), (9, 0, 0, -9, 9))
        bound = BoundSpec("inverse-keep", float(size[0]), "global", *size[1:].tolist(), 0.1)
        cell = conformance.cell(bound=bound, samples=10.0 ** rng.uniform(0, 6, 3), keep_max=np.ones(3))
        free, keep = Problem(cell).free
        bracket = free_bracket(cell)
        assert bracket is not None
        assert bracket[0] == pytest.approx(free, rel=1e-9)
        for _ in range(40):
            beside = np.clip(keep + rng.integers(-4, 5, 3) * 2.0**-53, cell.keep_min, cell.keep_max)
            assert Problem(cell).objective(beside) >= free * (1.0 - 1e-11)


@pytest.mark.parametrize("pooling", ["global", "device"])
def test_next_to_nothing_dropped_is_found_by_orders_of_magnitude(pooling: str) -> None:
    """1e-60 dropped, between a keep rate of 1 and the double before it: a hundred halvings do not get there."""
    weight, losses, sparsity = 0.05, 3.19e-94, 8.6e85
    bound = BoundSpec("perturbation", weight, pooling, losses, 1.0, 0.05, sparsity, 0.1)
    cell = conformance.cell().take(np.array([0])).with_changes(bound=bound, keep_max=np.ones(1))
    with localcontext() as digits:
        digits.prec = 250
        scale = 1 / (2 * Decimal(float(cell.samples[0])) * Decimal(bound.confidence_delta))
        base, spread = Decimal(losses) ** 2 * scale, 24 * Decimal(losses) * scale

        def bounded(dropped: Decimal) -> Decimal:
            y = Decimal(bound.curvature) + 2 * Decimal(sparsity) * dropped
            return Decimal(weight) * dropped + (base + spread / y).sqrt()

        least = float(_least(bounded, Decimal(0), Decimal("0.9"), 700))
    bracket = free_bracket(cell)
    assert bracket is not None
    assert bracket[0] == pytest.approx(least, rel=1e-9, abs=0.0)
    if pooling == "global":
        assert Problem(cell).free_objective == pytest.approx(least, rel=1e-9, abs=0.0)
