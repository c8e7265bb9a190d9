"""LoRA-FAIR's correction against its definition: stationary, below gradient descent, safe without an answer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate
from edgealloc.models.exchange.dropout import full_masks
from edgealloc.models.exchange.fair import fair_b, fair_objective
from edgealloc.models.exchange.wire import AdapterShape, a_name, b_name
from edgealloc.scenario.adapter import LoraLayer

SHAPE = AdapterShape((LoraLayer("l", 12, 9, 3),))
A, B = a_name("l"), b_name("l")


class Case(NamedTuple):
    target: np.ndarray
    a: np.ndarray
    b: np.ndarray
    weight: float


def case_of(seed: int) -> Case:
    """Means of a few clients that have something in common, of any size of B and any weight that matters."""
    rng = np.random.default_rng(seed)
    rank, n_in, n_out, clients = (int(rng.integers(low, high)) for low, high in ((1, 6), (8, 30), (8, 30), (2, 6)))
    size = 10.0 ** rng.uniform(-1.5, 1.0)
    alike = rng.uniform()
    a = (rng.normal(size=(clients, rank, n_in)) + alike * rng.normal(size=(rank, n_in))) / np.sqrt(n_in)
    b = (rng.normal(size=(clients, n_out, rank)) + alike * rng.normal(size=(n_out, rank))) * size
    return Case(np.mean(b @ a, axis=0), a.mean(0), b.mean(0), float(10.0 ** rng.uniform(-3.0, 1.0)))


def gradient(case: Case, change: np.ndarray) -> np.ndarray:
    product = (case.b + change) @ case.a
    size, length = np.linalg.norm(product), np.linalg.norm(case.target)
    inner = np.sum(case.target * product)
    slope = -case.target / (length * size) + inner * product / (length * size**3)
    return np.asarray(slope @ case.a.T + 2 * case.weight * change)


def descended(case: Case, steps: int = 1000) -> float:
    """The objective after so many steps of gradient descent with backtracking, from dB = 0."""
    change, step = np.zeros_like(case.b), 1.0
    value = fair_objective(*case[:3], change, case.weight)
    for _ in range(steps):
        slope = gradient(case, change)
        while True:
            ahead = change - step * slope
            reached = fair_objective(*case[:3], ahead, case.weight)
            if reached <= value - 1e-4 * step * float(np.sum(slope**2)) or step < 1e-14:
                break
            step /= 2
        change, value, step = ahead, reached, 2 * step
    return value


def turned(seed: int = 0, **changes: object) -> tuple[Case, np.ndarray]:
    case = case_of(seed)._replace(**changes)  # type: ignore[arg-type]
    return case, fair_b(*case)


@pytest.mark.parametrize("start", range(0, 50, 10))
def test_it_is_stationary_and_gradient_descent_finds_nothing_lower(start: int) -> None:
    moved = 0
    for seed in range(start, start + 10):
        case, found = turned(seed)
        change = found - case.b
        assert np.linalg.norm(gradient(case, change)) < 1e-10
        value = fair_objective(*case[:3], change, case.weight)
        assert value <= descended(case, 60) + 1e-12
        moved += value < fair_objective(*case[:3], 0 * change, case.weight) - 1e-6
    assert moved >= 9


@pytest.mark.slow
def test_a_thousand_steps_of_gradient_descent_find_nothing_lower_in_any_case() -> None:
    for seed in range(50):
        case, found = turned(seed)
        value = fair_objective(*case[:3], found - case.b, case.weight)
        assert value <= descended(case) + 1e-12, seed


def test_nothing_lower_is_near_or_far() -> None:
    """Beside gradient descent: random changes of every size, and random starts descended."""
    for seed in range(8):
        case, found = turned(seed)
        least = fair_objective(*case[:3], found - case.b, case.weight)
        rng = np.random.default_rng(seed)
        for size in 10.0 ** np.linspace(-8, 1, 60):
            tried = found - case.b + size * np.linalg.norm(case.b) * rng.normal(size=case.b.shape)
            assert fair_objective(*case[:3], tried, case.weight) >= least - 1e-12


def test_b_is_turned_and_shortened_never_lengthened() -> None:
    for seed in range(30):
        case, found = turned(seed)
        np.testing.assert_allclose(np.sum(found**2), np.sum(found * case.b), rtol=1e-8)


def test_a_large_weight_gives_the_mean_and_none_the_direction_of_the_projection() -> None:
    for seed in range(20):
        case, held = turned(seed, weight=1e9)
        np.testing.assert_allclose(held, case.b, rtol=1e-6, atol=1e-8 * np.abs(case.b).max())
        _, free = turned(seed, weight=0.0)
        projected = case.target @ np.linalg.pinv(case.a)
        share = np.sum(free * case.b) / np.sum(projected * case.b)
        np.testing.assert_allclose(free, share * projected, atol=1e-12 * np.abs(projected).max())
        _, nearly = turned(seed, weight=1e-9)
        np.testing.assert_allclose(nearly, free, atol=1e-5 * np.abs(case.b).max())


def test_identical_devices_are_a_fixed_point_and_one_device_comes_back_as_it_is() -> None:
    rng = np.random.default_rng(3)
    state = {A: rng.normal(size=(3, 12)), B: rng.normal(size=(9, 3))}
    for samples in ((4.0,), (3.0, 5.0, 1.0)):
        same = [Update(state, full_masks(SHAPE), n) for n in samples]
        previous = {name: np.zeros_like(value) for name, value in state.items()}
        merged = aggregate(previous, same, Aggregation(correction="fair")).state
        for name, value in state.items():
            np.testing.assert_allclose(merged[name], value, rtol=1e-12)


def test_it_stays_at_the_mean_where_there_is_no_angle_to_lessen() -> None:
    case = case_of(1)
    zero_b, zero_a, zero = np.zeros_like(case.b), np.zeros_like(case.a), np.zeros_like(case.target)
    inside = np.linalg.pinv(case.a) @ case.a
    aside = np.random.default_rng(0).normal(size=case.target.shape) @ (np.eye(len(inside)) - inside)
    np.testing.assert_array_equal(fair_b(zero, case.a, case.b, 0.01), case.b)
    np.testing.assert_array_equal(fair_b(case.target, zero_a, case.b, 0.01), case.b)
    np.testing.assert_array_equal(fair_b(case.target, case.a, zero_b, 0.01), zero_b)
    np.testing.assert_array_equal(fair_b(aside, case.a, case.b, 0.01), case.b)
    for wrong in ({"target": np.full_like(case.target, np.inf)}, {"weight": np.nan}, {"weight": np.inf}):
        assert np.all(np.isnan(fair_b(*case._replace(**wrong))))  # not to be overlooked
    with pytest.raises(ValueError, match="fair_lambda -1"):
        fair_b(*case[:3], -1.0)


def test_an_infimum_that_is_no_minimum_leaves_the_mean() -> None:
    """Turning B round is worth it only as it shrinks to nothing: of that no B is made."""
    case = case_of(1)
    for weight in (0.0, 1e-12, 1e-3, 1.0):
        np.testing.assert_array_equal(fair_b(-case.b @ case.a, case.a, case.b, weight), case.b)


def test_an_a_of_lower_rank_leaves_what_it_cannot_see() -> None:
    case = next(c for c in map(case_of, range(50)) if len(c.a) == 4)
    mixed = np.vstack([case.a[:2], case.a[0] + case.a[1], case.a[0]])
    found = fair_b(case.target, mixed, case.b, case.weight)
    assert np.linalg.norm(gradient(case._replace(a=mixed), found - case.b)) < 1e-10
    blind = np.eye(4) - mixed @ np.linalg.pinv(mixed)  # directions of B that the product does not have
    np.testing.assert_allclose((found - case.b) @ blind, 0.0, atol=1e-12 * np.abs(case.b).max())
    assert not np.array_equal(found, case.b)


@pytest.mark.parametrize("size", [1e-150, 1e-30, 1e-6, 1e6, 1e30, 1e150])
def test_scales_of_the_target_and_of_a_say_nothing_and_those_of_b_are_safe(size: float) -> None:
    case, found = turned(2)
    np.testing.assert_allclose(turned(2, target=case.target * size)[1], found, rtol=1e-9)
    np.testing.assert_allclose(turned(2, a=case.a * size)[1], found, rtol=1e-9)
    # lambda ||B||^2 is what counts
    _, scaled = turned(2, b=case.b * size, weight=case.weight / size**2 if size < 1e100 else 0.0)
    if 1e-100 < size < 1e100:
        np.testing.assert_allclose(scaled, found * size, rtol=1e-9)
    assert np.all(np.isfinite(scaled))


@pytest.mark.parametrize("weight", [0.0, 1e-320, 1e-300, 0.01, 1e300])
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_the_weight_counts_as_it_is_beside_a_b_whose_square_is_no_double(size: float, weight: float) -> None:
    case, free = turned(2, weight=0.0)
    found = fair_b(case.target, case.a, case.b * size, weight)
    strength = weight * size * size * np.sum(case.b**2)  # in this order none overflows that need not
    if strength < 1e-30:
        np.testing.assert_allclose(found / size, free, rtol=1e-9)
    elif strength > 1e30:
        np.testing.assert_array_equal(found, case.b * size)
    else:
        np.testing.assert_allclose(found / size, turned(2, weight=weight * size * size)[1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_coarse_numbers_are_solved_in_double_precision(dtype: type) -> None:
    case = case_of(5)
    coarse = case._replace(target=case.target.astype(dtype), a=case.a.astype(dtype), b=case.b.astype(dtype))
    fine = Case(*(part.astype(float) for part in coarse[:3]), case.weight)
    np.testing.assert_array_equal(fair_b(*coarse), fair_b(*fine))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused_by_name(weight: float) -> None:
    with pytest.raises(ValueError, match=f"fair_lambda = {weight}; allowed: a finite number, at least 0"):
        Aggregation(correction="fair", fair_lambda=weight)
