"""The programs of HiGHS: lines from below, bounds that hold, sub-carriers by water levels, side constraints."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.data.constraints import ParticipationCap, SpectrumCap
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.backends.highs.carriers import carriers, profits_above, profits_needed
from edgealloc.solvers.backends.highs.program import solve_program
from edgealloc.solvers.backends.highs.solve import access_of, solve_highs
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ofdma.kernels.device import BAND, psi
from edgealloc.solvers.separable.pieces import Pieces
from tests.solvers.ofdma.oracle import brute_force, random_ofdma


def test_needs_are_lines_below_what_a_keep_rate_needs() -> None:
    rng = np.random.default_rng(1)
    radio = carriers(Problem(conformance.ofdma(payload_fixed_bits=2e5, downlink_bps=5e6, cycles_lora=3e9)))
    cell, checked = radio.cell, 0
    for _ in range(300):
        left = rng.uniform(0.02, 0.9)
        right = rng.uniform(left, min(1.0, 2.0 * left))
        level = float(cell.inv_a[1, 0] * 10.0 ** rng.uniform(0.0, 3.0))
        ends, profit = np.zeros((1, 2)), np.zeros(cell.subcarriers)
        one = (np.array([1]), np.array([left]), np.array([right]), np.array([0]))
        profits_needed(cell.rows, level, *one, math.inf, ends)
        profits_above(cell.rows[1, BAND], level, cell.inv_a[1], profit)
        assert np.all(profit >= 0.0)
        for s in np.linspace(left, right, 7):
            share = (s * s - left * left) / (right * right - left * left)
            line = (1.0 - share) * ends[0, 0] + share * ends[0, 1] if ends[0, 0] < math.inf else math.inf
            true = psi(cell.rows[1], level, s)
            assert line <= true + 1e-9 * abs(true)
            checked += line < math.inf
        assert ends[0, 0] == pytest.approx(psi(cell.rows[1], level, left), rel=1e-9)  # no loss at the left end
    assert checked > 1000


# 28: a device that owns nothing, for which no water level was known. 3, 11: levels.
@pytest.mark.parametrize("seed", [3, 5, 11, 28])
def test_subcarriers_agree_with_enumeration(seed: int) -> None:
    _agrees_with_enumeration(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 320))
def test_branch_and_bound_highs_and_enumeration_agree_on_many(seed: int) -> None:
    best = _agrees_with_enumeration(seed)
    ours = edgealloc.solve(random_ofdma(np.random.default_rng(seed)), rel_gap=1e-7, time_limit=600)
    if best == math.inf:
        assert ours.status is Status.INFEASIBLE
    else:
        assert ours.lower_bound <= best * (1 + 1e-9)
        assert ours.objective == pytest.approx(best, rel=1e-6)


def _agrees_with_enumeration(seed: int) -> float:
    instance = random_ofdma(np.random.default_rng(seed))
    best = brute_force(instance)
    result = solve_highs(Problem(instance), Options(rel_gap=1e-5, time_limit=600))
    if best == math.inf:
        assert result.status is Status.INFEASIBLE, result.message
    else:
        assert result.status is Status.OPTIMAL, result.message
        assert result.lower_bound <= best * (1 + 1e-9), result.message
        assert result.objective == pytest.approx(best, rel=1.1e-5), result.message
    return best


@pytest.mark.parametrize("name", ["ofdma-2x8-s1", "ofdma-2x8-s2", "ofdma-3x12-s2"])
def test_public_cases_with_subcarriers(name: str, cases: Path) -> None:
    problem = Problem(edgealloc.load(cases / f"{name}.json"))
    ours = edgealloc.solve(problem, rel_gap=1e-7)
    result = solve_highs(problem, Options(rel_gap=5e-6))
    assert result.status is Status.OPTIMAL, result.message
    assert result.lower_bound <= ours.objective
    assert ours.lower_bound <= result.objective <= ours.objective * (1 + 1e-5)


def test_one_common_rate_on_subcarriers_agrees_with_enumeration() -> None:
    instance = conformance.ofdma(common_keep=True)
    result = solve_highs(Problem(instance), Options(rel_gap=1e-6))
    assert result.status is Status.OPTIMAL, result.message
    assert result.objective == pytest.approx(brute_force(instance), rel=2e-6)


def test_a_function_of_the_users_on_subcarriers_agrees_with_the_term_it_disguises() -> None:
    instance = conformance.ofdma()
    result = solve_highs(Problem(instance, underfit=lambda s: 1.0 / np.asarray(s) - 1.0), Options(rel_gap=2e-2))
    assert result.status is Status.OPTIMAL, result.message
    assert result.lower_bound <= brute_force(instance) <= result.objective * (1 + 1e-9)


def test_a_cap_on_a_slice_of_subcarriers_agrees_with_enumeration() -> None:
    instance = conformance.ofdma()
    free = solve_highs(Problem(instance), Options(rel_gap=1e-6))
    assert free.allocation is not None
    assert free.allocation.owner is not None
    held = int(np.sum(free.allocation.owner == 0))
    row = SpectrumCap((held - 0.5) * subcarrier_hz(instance), [0])
    problem = Problem(instance, constraints=[row])
    assert [v.constraint for v in problem.violations(free.allocation)] == ["SpectrumCap (limit_hz)"]
    result = solve_highs(problem, Options(rel_gap=1e-6))
    assert result.status is Status.OPTIMAL, result.message
    assert result.allocation is not None
    assert problem.violations(result.allocation) == ()
    values = []
    for some in itertools.combinations(range(6), held - 1):  # device 0 hears these alone
        gain = instance.gain.copy()
        gain[0, [m for m in range(6) if m not in some]] = 0.0
        values.append(brute_force(instance.with_changes(gain=gain)))
    assert result.objective == pytest.approx(min(values), rel=2e-6)
    assert result.objective > free.objective * (1 + 1e-4)


def test_a_quota_on_devices_with_subcarriers() -> None:
    instance = conformance.ofdma(exclusion_penalty=3.0)
    problem = Problem(instance, constraints=[ParticipationCap(1)])
    result = solve_highs(problem, Options(rel_gap=1e-6))
    assert result.status is Status.OPTIMAL, result.message
    deaf = [np.where(np.arange(2)[:, None] == k, 0.0, instance.gain) for k in range(2)]
    best = min(brute_force(instance.with_changes(gain=gain)) for gain in deaf)
    assert result.objective == pytest.approx(best, rel=2e-6)
    assert best > 1.001 * brute_force(instance)


@pytest.mark.parametrize("pooling", ["global", "device"])
def test_twenty_devices_close_in_a_few_programs(pooling: str) -> None:
    """Whole programs every round once took 13 rounds and a hundred times as long; points stood at 3e-5."""
    options = CellOptions(devices=20, pooling=pooling)  # type: ignore[arg-type]
    problem = Problem(make_cell(options, np.random.default_rng(3)).instance)
    result = solve_highs(problem, Options(rel_gap=5e-6))
    own = result.trace[-2]  # before the bound is recomputed by duality
    assert own.rel_gap <= 5e-6
    assert result.iterations <= 25
    assert own.open_nodes <= 1500
    assert result.objective <= edgealloc.solve(problem, rel_gap=1e-8).objective * (1 + 5e-6)


@pytest.mark.parametrize("wide", [1e-1, 1e-3])
def test_bounds_hold_whatever_gap_a_program_may_leave(wide: float) -> None:
    """Neither bounds nor reduced costs exclude the optimum, at gaps at which HiGHS drops many nodes."""
    for make in (lambda: conformance.ofdma(exclusion_penalty=3.0), lambda: _levels()):
        problem = Problem(make())
        optimum = edgealloc.solve(problem, rel_gap=1e-8)
        with Control(Options(rel_gap=wide)) as control:
            access = access_of(problem)
            pieces = Pieces.root(access.choices)
            for _ in range(4):
                answer = solve_program(access, pieces, [np.array([0.1])], control, relaxed=False)
                assert answer.bound <= optimum.objective
                linear = solve_program(access, pieces, [np.array([0.1])], control, relaxed=True)
                assert linear.bound <= optimum.objective
                spared = pieces.take(linear.bound + linear.excess <= optimum.objective)
                assert len(np.unique(spared.device)) == problem.instance.num_devices  # the optimum's pieces stay
                pieces = pieces.halved(access.choices, pieces.divisible)


def _levels() -> Instance:
    levels = (np.array([0.02, 0.1, 0.3, 0.6]),) * 3
    return conformance.cell(keep_levels=levels, bound=BoundSpec(underfit="perturbation", underfit_weight=0.3))
