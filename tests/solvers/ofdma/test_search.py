"""Exact OFDMA: references, brute force over every variant, limits, infeasibility, and the parts one by one."""

from __future__ import annotations

import itertools
import json
import logging
import math
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from edgealloc.api import load
from edgealloc.data.instance import AdapterOption, BoundSpec, Instance
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.scenario.cell import CellOptions, make_cell
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import search, solve_bnb
from edgealloc.solvers.ofdma import relaxation as ofdma_relax
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.device import (
    SMIN,
    keep_cap,
    profits,
    proven_keep,
    psi,
)
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share, share_below
from edgealloc.solvers.ofdma.pricing import mode as ofdma_pricing
from edgealloc.solvers.ofdma.pricing.counts import count_cuts
from edgealloc.solvers.ofdma.pricing.cover import Cover
from edgealloc.solvers.ofdma.pricing.cuts import make_cuts
from edgealloc.verify.solution import verify
from tests.solvers.ofdma.oracle import brute_force, random_curve, random_ofdma

REL_GAP = 1e-6
EXACT = 1e-11  # relative accuracy of the oracles


def solve(instance: Instance, **options: Any) -> Result:
    return solve_bnb(Problem(instance), Options(**({"rel_gap": REL_GAP} | options)))


def accepted(result: Result) -> None:
    """The independent checker accepts the solution as it would be written."""
    report = verify(result.problem.instance, result.solution(), rel_gap=REL_GAP)
    assert report.ok, str(report)


def compare(instance: Instance, **options: Any) -> Result:
    """Solve and compare with the enumerated optimum."""
    best, result = brute_force(instance), solve(instance, time_limit=300.0, **options)
    if math.isinf(best):
        assert result.status is Status.INFEASIBLE, str(result)
        assert result.diagnosis
    else:
        assert result.status is Status.OPTIMAL, str(result)
        assert result.lower_bound <= best * (1.0 + EXACT)
        assert best * (1.0 - EXACT) <= result.objective <= best * (1.0 + 1.0001 * REL_GAP)
    accepted(result)
    return result


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """Compile before any clock runs: half a minute the first time, nothing later."""
    with pytest.MonkeyPatch.context() as patch:
        for work in (1, ofdma_pricing._FIRST_WORK):
            patch.setattr(ofdma_pricing, "_FIRST_WORK", work)
            for seed in range(8):
                solve(random_ofdma(np.random.default_rng([7, seed])))


# Brute force


@pytest.mark.parametrize("block", range(10))
def test_against_brute_force(block: int) -> None:
    """Hundreds of small instances: any mix of pooling, underfit, levels, menus, selection and missing channels."""
    for seed in range(25 * block, 25 * (block + 1)):
        compare(random_ofdma(np.random.default_rng([7, seed])), seed=seed)


def test_against_brute_force_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches given up at once, so that numbers of sub-carriers and keep ranges are parted all the way."""
    monkeypatch.setattr(ofdma_pricing, "_FIRST_WORK", 1)
    monkeypatch.setattr(ofdma_pricing, "_CHUNK", 1)
    monkeypatch.setattr(ofdma_pricing, "_LAST_WORK", 64)
    for seed in range(16):
        compare(random_ofdma(np.random.default_rng([7, seed])), seed=seed)


def test_the_last_master_follows_the_stability_term() -> None:
    """With few tangents the master met the bound before it met the objective: gaps of 5e-6 stood."""
    for seed in (2085, 2458):
        compare(random_ofdma(np.random.default_rng([7, seed])), seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_against_brute_force_at_length(block: int) -> None:
    for seed in range(1000 + 100 * block, 1000 + 100 * (block + 1)):
        compare(random_ofdma(np.random.default_rng([7, seed])), seed=seed)


# Curves and functions


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


@pytest.mark.parametrize("block", range(4))
def test_curves_against_brute_force(block: int) -> None:
    for seed in range(15 * block, 15 * (block + 1)):
        rng = np.random.default_rng([13, seed])
        compare_curve(Problem(random_ofdma(rng, bound=random_curve(rng))), REL_GAP)


def test_a_start_between_levels_becomes_a_level_that_the_cap_allows() -> None:
    """A device whose cap lies between two levels was given the nearest level, which was the one above."""
    rng = np.random.default_rng([13, 1030])
    compare_curve(Problem(random_ofdma(rng, bound=random_curve(rng))), REL_GAP)


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


def test_own_function_in_disguise() -> None:
    """1/s - 1 given as a function: bounds of the model stay below the optimum of the built-in term."""
    for seed in range(4):
        instance = random_ofdma(np.random.default_rng([15, seed]), bound=BoundSpec(underfit_weight=0.1))
        known, ours = solve(instance), solve_bnb(Problem(instance, lambda s: 1.0 / s - 1.0), Options(rel_gap=1e-5))
        assert ours.status is known.status
        if known.status is Status.OPTIMAL:
            assert known.objective * (1.0 - 1e-5) <= ours.lower_bound <= known.objective
            assert ours.objective <= known.objective * (1.0 + 1.001e-5)


def test_shares_of_curves_are_bounded() -> None:
    """Local minima and cell bounds of non-convex shares against dense grids."""
    for seed in range(30):
        rng = np.random.default_rng([16, seed])
        cell = OfdmaCell.of(Problem(random_ofdma(rng, bound=random_curve(rng), keep_levels=None)))
        row, objective, nu = cell.rows[0], cell.objective, float(rng.choice([0.0, cell.gap_slope(0.5)]))
        free = free_keeps(row, objective, nu)
        grid = np.linspace(row[SMIN], row[12], 801)
        values = np.array([share(row, objective, nu, s) for s in grid])
        for cap in rng.uniform(row[SMIN], row[12], 20):
            least = best_share(row, objective, nu, free, np.empty(0), cap)[0]
            assert least <= values[grid <= cap].min() * (1.0 + 1e-14)
            assert share(row, objective, nu, best_share(row, objective, nu, free, np.empty(0), cap)[1]) == least
        for _ in range(20):
            x, y = np.sort(rng.choice(grid, 2, replace=False))
            left, right = share_below(row, objective, nu, x, y)
            inside = (grid >= x) & (grid <= y)
            line = left + (right - left) * (grid[inside] - x) / (y - x)
            assert np.all(line <= values[inside] + 1e-13 * np.abs(values[0]))


# One common rate


def common_instance(seed: int) -> Instance:
    """Any mix of variants with one rate; levels, where there are any, are partly shared."""
    rng = np.random.default_rng([17, seed])
    changes: dict[str, Any] = {"common_keep": True}
    if rng.random() < 0.3:
        changes["bound"] = random_curve(rng)
    instance = random_ofdma(rng, **changes)
    if instance.keep_levels is not None:
        lists = [np.unique(np.r_[rng.uniform(0.1, 0.5, 2), 0.1, 0.25, 0.5]) for _ in instance.keep_levels]
        instance = instance.with_changes(keep_levels=tuple(lists), keep_min=0.1, keep_max=0.5)
    return instance


@pytest.mark.parametrize("block", range(4))
def test_common_rate_against_brute_force(block: int) -> None:
    for seed in range(12 * block, 12 * (block + 1)):
        compare_curve(Problem(common_instance(seed)), REL_GAP)


@pytest.mark.parametrize("seed", [1013, 1119, 1345, 1651, 1902])
def test_common_rates_that_once_failed(seed: int) -> None:
    """Gaps of 10 % that stood for minutes, a free objective above the objective, a gap of 1e-6 and an error."""
    compare_curve(Problem(common_instance(seed)), REL_GAP)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_common_rate_at_length(block: int) -> None:
    for seed in range(1000 + 100 * block, 1000 + 100 * (block + 1)):
        compare_curve(Problem(common_instance(seed)), REL_GAP)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1), (2, 1), (5, 3)])
@pytest.mark.parametrize("penalty", [None, 2.0])
def test_degenerate_shapes(shape: tuple[int, int], penalty: float | None) -> None:
    for seed in range(6):
        rng = np.random.default_rng([8, seed, *shape])
        compare(random_ofdma(rng, shape, bandwidth_hz=3e5, exclusion_penalty=penalty, energy_j=6.0))


def test_device_without_channel(make_instance: Any) -> None:
    gain = np.array([[0.0, 0.0, 0.0], [1e-10, 2e-10, 0.0]])
    alone = make_instance("ofdma", 2, 3, gain=gain)
    result = compare(alone)
    assert result.diagnosis[0].device == "dev-0000"
    assert "gain 0" in result.message
    selected = compare(alone.with_changes(exclusion_penalty=20.0))
    assert selected.allocation is not None
    assert selected.allocation.selected.tolist() == [False, True]


# References


@pytest.mark.parametrize(
    "name",
    ["2x8-s1", "2x8-s2", "3x12-s1", "3x12-s2", "4x16-device-s1", "4x16-device-s2"],
)
def test_public_references(cases: Path, name: str) -> None:
    reference = json.loads((cases / "references.json").read_text())[f"ofdma-{name}"]
    assert reference["kind"] == "optimum"
    value, accuracy = reference["value"], reference["accuracy"]
    result = solve(load(cases / f"ofdma-{name}.json"))
    assert result.status is Status.OPTIMAL
    assert result.objective == pytest.approx(value, rel=1e-6)
    assert result.lower_bound <= value * (1.0 + accuracy)
    accepted(result)


@pytest.mark.parametrize("name", ["4x16-s1", "4x16-s2", "6x32-s1", "6x32-device-s2"])
def test_larger_cases_are_proved(cases: Path, name: str) -> None:
    result = solve(load(cases / f"ofdma-{name}.json"), time_limit=60.0)
    assert result.status is Status.OPTIMAL, str(result)
    assert result.excess_gap < 1e-4
    accepted(result)


# Variants that generic cuts leave open


def test_increasing_returns_are_parted_at_keep_rates() -> None:
    """``perturbation`` makes the master mix few sub-carriers with many; owners alone left gaps of 5 %."""
    cell = make_cell(CellOptions(devices=6, access="ofdma", subcarriers=32), np.random.default_rng(2)).instance
    bound = replace(cell.bound, underfit="perturbation", underfit_weight=5.0 * cell.bound.underfit_weight)
    result, outcome = search(Problem(cell.with_changes(bound=bound)), Options(rel_gap=REL_GAP, time_limit=120.0))
    assert result.status is Status.OPTIMAL, str(result)
    assert outcome is not None
    assert any(node.branched_on.startswith("keep rate of") for node in outcome.tree.nodes)
    accepted(result)


def test_many_levels_are_proved() -> None:
    """At a single level pricing is a covering knapsack: without a table gaps of 5e-3 stood for 20 s."""
    cell = make_cell(CellOptions(devices=8, access="ofdma", subcarriers=64), np.random.default_rng(3)).instance
    levels = (np.arange(1, 21) / 20.0,) * cell.num_devices
    instance = cell.with_changes(keep_levels=levels, bound=replace(cell.bound, pooling="device"))
    result = solve(instance, time_limit=120.0)
    assert result.status is Status.OPTIMAL, str(result)
    accepted(result)


def test_covers_bound_every_set_of_a_part() -> None:
    """The table of a part is no higher than any set that carries a keep rate of it, and often above all cuts."""
    rng = np.random.default_rng(5)
    tighter = compared = 0
    for _ in range(40):
        cell = OfdmaCell.of(Problem(random_ofdma(rng)))
        for i, k in enumerate(cell.device):
            m = cell.subcarriers
            mu = rng.uniform(0.5, 1.0, m) * cell.size / (4.0 * m)
            everything = cell.cap(i, np.ones(m, bool))[0]
            low = float(cell.rows[i, SMIN])
            if not everything > low:
                continue
            row, inv_a, log2_a = cell.rows[i], cell.inv_a[k], cell.log2_a[k]
            low = low + rng.uniform(0.0, 0.9) * (min(everything, 1.0) - low)
            high, none = low * 1.003, np.empty(0)
            order, nothing = np.arange(m), np.zeros(m, bool)
            cover = Cover.of(
                row, cell.objective, none, inv_a, log2_a, 0.0, mu, low, high, float(inv_a[0]), 1e-9, order,
                nothing, bool(rng.integers(2)),
            )  # fmt: skip
            a, bp = make_cuts(
                row, cell.objective, 0.0, low, high, none, inv_a, mu, float(inv_a[0]) * 2, 5, 3, 1e-9
            )
            cuts = float(np.max(a + np.minimum(mu - bp, 0.0).sum(axis=1)))
            for sets in itertools.product((0.0, 1.0), repeat=m):
                used = np.array(sets)
                cap = keep_cap(row, inv_a, log2_a, used)[0]
                if cap >= low:
                    least = float(share(row, cell.objective, 0.0, min(cap, high))) + float(mu @ used)
                    assert cover.bound <= least * (1.0 + 1e-12)
                    compared += 1
            tighter += cover.bound > cuts + 1e-3 * cell.size
    assert compared > 500
    assert tighter > 10


# Infeasibility


def test_infeasible_device_of_the_public_case(cases: Path) -> None:
    result = solve(load(cases / "ofdma-4x16-infeasible-spectrum-s1.json"))
    assert result.status is Status.INFEASIBLE
    accepted(result)
    for finding in result.diagnosis:
        assert finding.device is not None
        assert finding.required > finding.available


def test_too_few_subcarriers(make_instance: Any) -> None:
    """Three devices, two sub-carriers: each fits alone, whatever the assignment one goes without."""
    result = solve(make_instance("ofdma", 3, 2))
    assert result.status is Status.INFEASIBLE
    assert result.diagnosis[0].budget == "bandwidth_hz"
    assert "at least 1 of 3 devices" in result.message
    accepted(result)


# Limits and determinism


def test_time_limit_is_kept(cases: Path) -> None:
    problem = Problem(load(cases / "ofdma-16x128-s1.json"))
    solve_bnb(problem, Options(time_limit=0.05))  # compile outside the clock
    begin = time.perf_counter()
    result = solve_bnb(problem, Options(rel_gap=1e-9, time_limit=1.5))
    assert time.perf_counter() - begin < 2.5
    assert result.status is Status.FEASIBLE
    assert problem.free_objective * (1 - 1e-8) <= result.lower_bound <= result.objective
    assert "time limit" in result.message
    accepted(result)


def test_time_limit_is_kept_by_large_cells() -> None:
    """32 devices, 256 sub-carriers: within the descents of the start, and in the first rounds after them."""
    options = CellOptions(devices=32, access="ofdma", subcarriers=256)
    instance = make_cell(options, np.random.default_rng(1)).instance
    for changes, limit in (({}, 0.3), ({}, 2.0), ({"common_keep": True}, 2.0)):
        problem = Problem(instance.with_changes(**changes))
        begin = time.perf_counter()
        result = solve_bnb(problem, Options(rel_gap=1e-9, time_limit=limit))
        assert time.perf_counter() - begin < limit + 1.0
        assert result.status is Status.FEASIBLE
        assert problem.free_objective * (1 - 1e-8) <= result.lower_bound <= result.objective


def test_interrupt_returns_incumbent_and_bound(cases: Path) -> None:
    problem = Problem(load(cases / "ofdma-16x128-s2.json"))
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.perf_counter()
    result = solve_bnb(problem, Options(rel_gap=1e-9, time_limit=60.0))
    assert time.perf_counter() - begin < 1.5 + 1.0
    assert result.status is Status.FEASIBLE
    assert "interrupted" in result.message


def test_same_bits_with_the_log_on(cases: Path, caplog: pytest.LogCaptureFixture) -> None:
    instance = load(cases / "ofdma-4x16-s2.json")
    silent = solve(instance)
    with caplog.at_level(logging.INFO, logger="edgealloc"):
        shown = solve(instance, log=True)
    assert "dual bound" in caplog.text
    for key in ("objective", "lower_bound", "nodes", "iterations"):
        assert getattr(silent, key) == getattr(shown, key)
    assert silent.allocation is not None
    assert shown.allocation is not None
    assert np.array_equal(silent.allocation.power_w, shown.allocation.power_w)


def test_callback_stops_and_bounds_rise(cases: Path) -> None:
    seen: list[Snapshot] = []

    def stop(snapshot: Snapshot) -> bool:
        seen.append(snapshot)
        return len(seen) == 5

    result = solve(load(cases / "ofdma-6x32-s1.json"), callback=stop)
    assert result.status is Status.FEASIBLE
    assert "callback" in result.message
    assert len(seen) <= 6  # the engine reports the node once more
    bounds = [snapshot.lower_bound for snapshot in seen]
    assert bounds == sorted(bounds)


def test_warm_start_is_kept(cases: Path) -> None:
    instance = load(cases / "ofdma-4x16-s1.json")
    best = solve(instance)
    again = solve_bnb(Problem(instance), Options(rel_gap=REL_GAP, warm_start=best.allocation, time_limit=1e-9))
    assert again.objective == pytest.approx(best.objective, rel=1e-9)


# Branching


def test_levels_under_global_pooling_branch_until_closed() -> None:
    """The master may mix two keep levels on one set: weights integral, value below every assignment."""
    nodes = []
    for seed in range(40):
        rng = np.random.default_rng([11, seed])
        levels = tuple(np.array([0.1, 0.35, 0.8]) for _ in range(2))
        bound = BoundSpec(underfit_weight=10.0 ** rng.uniform(-2, -0.5), sparsity_weight=2.0)
        changes: dict[str, Any] = {"bound": bound, "keep_levels": levels, "keep_min": 0.1, "keep_max": 0.8}
        result = compare(random_ofdma(rng, (2, 4), exclusion_penalty=None, adapter_options=None, **changes))
        nodes.append(result.nodes)
    assert max(nodes) > 1


def test_levels_beside_continuous_rates() -> None:
    """Found by brute force: levels were chosen by a descent that left the continuous rates where they were."""
    compare(random_ofdma(np.random.default_rng([7, 1168])))


def test_leaves_of_large_shares() -> None:
    """Found by brute force: after its first leaf a search took that leaf's bound for the least keep rate."""
    compare(random_ofdma(np.random.default_rng([7, 1795])), seed=1795)


def test_tree_records_every_node() -> None:
    for seed in range(400):
        instance = random_ofdma(np.random.default_rng([7, seed]))
        result, outcome = search(Problem(instance), Options(rel_gap=REL_GAP))
        if outcome is not None and outcome.nodes > 1:
            assert outcome.exhausted
            assert any(
                what in node.branched_on for what in ("sub-carrier", "mode", "keep") for node in outcome.tree.nodes
            )
            assert outcome.lower_bound <= result.objective
            return
    pytest.fail("no instance needed branching")


# The parts


def draws(count: int) -> list[tuple[OfdmaCell, int, np.ndarray, np.random.Generator]]:
    """(Cell, mode, set, generator) with a cap between nothing and plenty."""
    found = []
    seed = 0
    while len(found) < count:
        seed += 1
        rng = np.random.default_rng([9, seed])
        cell = OfdmaCell.of(Problem(random_ofdma(rng, exclusion_penalty=None)))
        mode = int(rng.integers(len(cell.device)))
        mask = rng.random(cell.subcarriers) < 0.7
        if 1e-3 < cell.cap(mode, mask)[0] < 30.0:
            found.append((cell, mode, mask, rng))
    return found


def slow_bits(row: np.ndarray, inv_a: np.ndarray, time_s: float, energy_j: float) -> float:
    """Bits that energy can carry in a time over channels, by water-filling one channel at a time."""
    power, n, total = energy_j / time_s, 0, 0.0
    for x in inv_a:
        if n and n * x - total >= power:
            break
        n, total = n + 1, total + float(x)
    level = (power + total) / n
    return time_s * float(row[16]) * float(np.sum(np.log2(level / inv_a[:n])))


def slow_slack(row: np.ndarray, inv_a: np.ndarray, s: float) -> float:
    """Bits to spare at keep rate s, at the best upload time: dense grid, then a bounded search."""
    deadline, energy, kappa, cyc0, cyc1, fmin, fmax, bit0, bit1, down, pmax = row[:11]
    bits, cycles = bit0 + bit1 * s, cyc0 + cyc1 * s
    window = deadline - bits * down
    longest = window - cycles / fmax
    if longest <= 0.0:
        return -math.inf

    def short(t: float) -> float:
        freq = max(fmin, cycles / (window - t)) if cycles else fmin
        e = min(energy - kappa * freq**2 * cycles, pmax * t)
        return float(bits - slow_bits(row, inv_a, t, e)) if e > 0.0 else float(bits * (2.0 - e))

    ticks = longest * np.r_[np.geomspace(1e-5, 0.05, 100), np.linspace(0.05, 1.0, 300)]
    best = min(ticks, key=short)
    ends = (max(0.9 * best - longest / 200, 1e-9), min(1.1 * best + longest / 200, longest))
    fine = minimize_scalar(short, bounds=ends, method="bounded", options={"xatol": 1e-13 * longest})
    return -min(short(best), float(fine.fun))


def test_cap_against_slow_search() -> None:
    """Just below the cap the set carries its bits at some upload time, just above at none."""
    for cell, mode, mask, _rng in draws(60):
        cap, level = cell.cap(mode, mask)
        k, row = cell.device[mode], cell.rows[mode]
        inv_a = cell.inv_a[k][mask[cell.order[k]]]
        assert slow_slack(row, inv_a, cap * (1 - 1e-6)) > -1e-6 * row[8]
        assert slow_slack(row, inv_a, cap * (1 + 1e-6)) < 1e-9 * row[8]
        assert cap < proven_keep(row, inv_a, cap, level) <= cap * (1 + 1e-7) + 1e-9


def test_profit_needed_is_below_every_upload_time() -> None:
    """psi against a grid of upload times: never above any of them, and no further below than rounding."""
    for cell, mode, mask, rng in draws(100):
        row, level = cell.rows[mode], cell.cap(mode, mask)[1] * float(rng.uniform(0.5, 2.0))
        s = float(rng.uniform(row[SMIN], 1.0))
        deadline, energy, kappa, cyc0, cyc1, fmin, fmax, bit0, bit1, down, pmax = row[:11]
        bits, cycles = bit0 + bit1 * s, cyc0 + cyc1 * s
        window = deadline - bits * down
        longest = window - cycles / fmax
        need = psi(row, level, s)
        if longest <= 0.0:
            assert need == math.inf
            continue
        t = longest * np.r_[np.geomspace(1e-6, 1e-2, 2000), np.linspace(1e-2, 1.0, 20000)]
        with np.errstate(divide="ignore"):
            freq = np.maximum(fmin, cycles / (window - t)) if cycles else fmin
        e = np.minimum(energy - kappa * freq**2 * cycles, pmax * t)
        values = np.where(e > 0.0, (bits - row[16] / (level * math.log(2.0)) * e) / t, math.inf)
        least = float(values.min())
        if need == math.inf:
            assert least == math.inf
            continue
        size = float((bits + row[16] / (level * math.log(2.0)) * energy) / t[np.argmin(values)])
        assert need <= least
        assert need >= least - 1e-4 * size


def test_cuts_bound_every_set() -> None:
    """Cut constants and profits against the exact share of random sets."""
    for cell, mode, mask, rng in draws(60):
        k, row, objective = cell.device[mode], cell.rows[mode], cell.objective
        nu = float(rng.choice([0.0, cell.gap_slope(0.3)]))
        levels = cell.levels[mode][~np.isnan(cell.levels[mode])]
        free = free_keeps(row, objective, nu)
        high = float(row[12]) if len(levels) else free[-1]
        mu = rng.uniform(0, 2e-2, cell.subcarriers) * cell.size
        level = cell.cap(mode, mask)[1]
        a, bp = make_cuts(
            row, objective, nu, row[SMIN], high, levels, cell.inv_a[k], mu, level, 5, 3, 1e-7 * cell.size
        )
        pi = np.empty(cell.subcarriers)
        profits(row[16], level, cell.inv_a[k], pi)
        assert len(a) == 5 * 11
        for _ in range(20):
            some = rng.random(cell.subcarriers) < 0.6
            value = best_share(row, objective, nu, free, levels, cell.cap(mode, some)[0])[0]
            assert np.all(a - bp @ some[cell.order[k]] <= value)


def test_cuts_with_counts_bound_every_set() -> None:
    """As above for cuts that hold for sets of some numbers of sub-carriers only."""
    sharper = 0
    for cell, mode, mask, rng in draws(60):
        k, row, objective = cell.device[mode], cell.rows[mode], cell.objective
        nu = float(rng.choice([0.0, cell.gap_slope(0.3)]))
        levels = cell.levels[mode][~np.isnan(cell.levels[mode])]
        free = free_keeps(row, objective, nu)
        high = float(row[12]) if len(levels) else free[-1]
        mu = rng.uniform(0, 2e-2, cell.subcarriers) * cell.size
        level, m = cell.cap(mode, mask)[1], cell.subcarriers
        fixed = np.full(m, -1)
        n_low, n_high = np.sort(rng.integers(0, m + 1, 2))
        a, bp, slopes = count_cuts(
            row, objective, nu, row[SMIN], high, levels, cell.inv_a[k], mu, fixed, n_low, n_high, level, 5, 7, 1e-7
        )
        sharper += bool(np.any(slopes[:, 2] != 0.0))
        for _ in range(20):
            some = rng.permutation(m) < rng.integers(n_low, n_high + 1)
            value = best_share(row, objective, nu, free, levels, cell.cap(mode, some)[0])[0]
            assert np.all(a - bp @ some[cell.order[k]] <= value)
    assert sharper > 20


def test_every_pricing_bound_is_below_the_enumerated_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sets of a mode at each price that the search visits, not only what its final bound rests on."""
    asked = 0
    price = ofdma_relax.price_mode

    def checked(mode: Any, ask: Any, *rest: Any) -> Any:
        nonlocal asked
        answer = price(mode, ask, *rest)
        free = free_keeps(mode.row, mode.objective, ask.nu)
        for inside in itertools.product((0.0, 1.0), repeat=len(ask.mu)):
            if any(f >= 0 and f != x for f, x in zip(ask.fixed, inside, strict=True)):
                continue
            cap = keep_cap(mode.row, mode.inv_a, mode.log2_a, np.array(inside))[0]
            value = best_share(mode.row, mode.objective, ask.nu, free, mode.levels, cap)[0]
            assert answer.bound <= value + ask.mu @ np.array(inside) + 1e-14
        asked += 1
        return answer

    monkeypatch.setattr(ofdma_relax, "price_mode", checked)
    for seed in range(12):
        for work in (1, 8000):
            monkeypatch.setattr(ofdma_pricing, "_FIRST_WORK", work)
            monkeypatch.setattr(ofdma_pricing, "_CHUNK", min(work, 1_000_000))
            solve(random_ofdma(np.random.default_rng([18, seed])), rel_gap=1e-4)
    for seed in range(4):
        rng = np.random.default_rng([19, seed])
        solve(random_ofdma(rng, bound=random_curve(rng)), rel_gap=1e-4)
    assert asked > 300


def test_menu_rows_compete() -> None:
    """A small adapter wins where the spectrum is scarce, the large one where it is ample."""
    menu = (AdapterOption("small", 1e6, 1e7, 1.5), AdapterOption("large", 1.2e7, 2e8, 1.0))
    chosen = []
    for width in (2e4, 1e7):
        rng = np.random.default_rng(5)
        instance = random_ofdma(
            rng, (2, 4), bandwidth_hz=width, gain=np.full((2, 4), 1e-11), adapter_options=(menu, menu),
            keep_levels=None, energy_j=6.0, power_max_w=0.1, capacitance=1e-28, cycles_fixed=1e10, freq_min_hz=3e8,
            keep_min=0.02, keep_max=1.0, exclusion_penalty=None, bound=BoundSpec(underfit_weight=0.1),
            payload_fixed_bits=0.0,
        )  # fmt: skip
        result = compare(instance)
        assert result.allocation is not None
        chosen.append(result.allocation.option.tolist())
    assert chosen == [[0, 0], [1, 1]]
