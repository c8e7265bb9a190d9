"""OFDMA with measured curves, logistic terms and functions of the user, against brute force."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import solve_bnb
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share, share_below
from edgealloc.solvers.row import SMAX, SMIN
from tests.solvers.ofdma.oracle import brute_force, random_curve, random_logistic, random_ofdma
from tests.solvers.ofdma.solving import EXACT, REL_GAP, accepted, solve


def compare_curve(problem: Problem, rel_gap: float) -> Result:
    """Solve and compare with the best point of zooming grids; the checker sees to it that ours is feasible."""
    best = brute_force(problem)
    result = solve_bnb(problem, Options(rel_gap=rel_gap, time_limit=300.0))
    if math.isinf(best):
        assert result.status is Status.INFEASIBLE, str(result)
        accepted(result)
        return result
    assert result.status is Status.OPTIMAL, f"{result} {result.message}"
    assert result.lower_bound <= best * (1.0 + EXACT)
    assert result.objective <= best * (1.0 + 1.0001 * rel_gap)
    if problem.underfit.name != "custom":
        accepted(result)
    return result


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 30), marks=pytest.mark.slow)], ids=str)
def test_curves_against_brute_force(seeds: range) -> None:
    for seed in seeds:
        rng = np.random.default_rng([13, seed])
        compare_curve(Problem(random_ofdma(rng, bound=random_curve(rng))), REL_GAP)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_logistic_terms_against_brute_force(common: bool, long: bool) -> None:
    for seed in range(2 if common else 5) if not long else range(2 if common else 5, 4 if common else 15):
        rng = np.random.default_rng([17, seed])
        bound = random_logistic(rng)
        instance = random_ofdma(rng, bound=bound)
        if not common:
            compare_curve(Problem(instance), REL_GAP)
            continue
        same = instance.with_changes(common_keep=True, keep_levels=None, keep_min=0.05, keep_max=0.9)
        free, result = Problem(same.with_changes(common_keep=False)), solve(same)
        if result.status is Status.OPTIMAL:  # one rate for all is never better than a rate for each
            assert result.objective >= solve_bnb(free, Options(rel_gap=REL_GAP)).lower_bound


def mixed(rng: np.random.Generator) -> Problem:
    """Devices with a logistic term each, a curve, or the bound's."""
    instance = random_ofdma(rng)
    own = [random_logistic(rng).underfit_logistic for _ in range(instance.num_devices)]
    own[-1] = rng.choice([None, own[-1], random_curve(rng).underfit_curve])
    return Problem(instance.with_changes(device_underfit=tuple(own)))


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 16), marks=pytest.mark.slow)], ids=str)
def test_terms_of_single_devices_against_brute_force(seeds: range) -> None:
    for seed in seeds:
        compare_curve(mixed(np.random.default_rng([18, seed])), REL_GAP)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_terms_of_single_devices_at_length(block: int) -> None:
    for seed in range(1000 + 60 * block, 1000 + 60 * (block + 1)):
        compare_curve(mixed(np.random.default_rng([18, seed])), REL_GAP)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(5))
def test_logistic_terms_at_length(block: int) -> None:
    for seed in range(1000 + 60 * block, 1000 + 60 * (block + 1)):
        rng = np.random.default_rng([17, seed])
        compare_curve(Problem(random_ofdma(rng, bound=random_logistic(rng))), REL_GAP)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_curves_at_length(block: int) -> None:
    for seed in range(1000 + 100 * block, 1000 + 100 * (block + 1)):
        rng = np.random.default_rng([13, seed])
        compare_curve(Problem(random_ofdma(rng, bound=random_curve(rng))), REL_GAP)


@pytest.mark.parametrize("seed", range(6))
def test_own_functions_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng([14, seed])
    wave = float(rng.uniform(0.0, 0.1))
    instance = random_ofdma(rng)
    compare_curve(Problem(instance, lambda s: 1.5 - s + wave * np.sin(9.0 * s)), 1e-5)


@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 4), marks=pytest.mark.slow)], ids=str)
def test_own_function_in_disguise(seeds: range) -> None:
    """1/s - 1 given as a function: bounds of the model stay below the optimum of the built-in term."""
    for seed in seeds:
        instance = random_ofdma(np.random.default_rng([15, seed]), bound=BoundSpec(underfit_weight=0.1))
        known, ours = solve(instance), solve_bnb(Problem(instance, lambda s: 1.0 / s - 1.0), Options(rel_gap=1e-5))
        assert ours.status is known.status
        if known.status is Status.OPTIMAL:
            assert known.objective * (1.0 - 1e-5) <= ours.lower_bound <= known.objective
            assert ours.objective <= known.objective * (1.0 + 1.001e-5)


@pytest.mark.parametrize("draw", [random_curve, random_logistic])
def test_shares_of_curves_are_bounded(draw: Callable[[np.random.Generator], BoundSpec]) -> None:
    """Local minima and cell bounds of non-convex shares against dense grids."""
    for seed in range(30):
        rng = np.random.default_rng([16, seed])
        cell = OfdmaCell.of(Problem(random_ofdma(rng, bound=draw(rng), keep_levels=None)))
        row, objective, nu = cell.rows[0], cell.objective, float(rng.choice([0.0, cell.pools.slope(0.5)]))
        free = free_keeps(row, objective, nu)
        grid = np.linspace(row[SMIN], row[SMAX], 801)
        values = np.array([share(row, objective, nu, s) for s in grid])
        for cap in rng.uniform(row[SMIN], row[SMAX], 20):
            least = best_share(row, objective, nu, free, np.empty(0), cap)[0]
            assert least <= values[grid <= cap].min() * (1.0 + 1e-14)
            assert share(row, objective, nu, best_share(row, objective, nu, free, np.empty(0), cap)[1]) == least
        for _ in range(20):
            x, y = np.sort(rng.choice(grid, 2, replace=False))
            left, right = share_below(row, objective, nu, x, y)
            inside = (grid >= x) & (grid <= y)
            line = left + (right - left) * (grid[inside] - x) / (y - x)
            assert np.all(line <= values[inside] + 1e-13 * np.abs(values[0]))
