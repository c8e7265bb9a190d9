"""Exact OFDMA: references, brute force over every variant, limits, infeasibility, and the parts one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.api import load
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import search
from edgealloc.solvers.ofdma.pricing import mode as ofdma_pricing
from tests.solvers.ofdma.oracle import random_curve, random_ofdma
from tests.solvers.ofdma.solving import REL_GAP, accepted, compare, solve
from tests.solvers.ofdma.test_curves import compare_curve

# Brute force


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in range(1, 5))])
def test_against_brute_force(block: int) -> None:
    """25 small instances: any mix of pooling, underfit, levels, menus, selection and missing channels."""
    for seed in range(25 * block, 25 * (block + 1)):
        compare(random_ofdma(np.random.default_rng([7, seed])), seed=seed)


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 16), marks=pytest.mark.slow)], ids=str)
def test_against_brute_force_in_parts(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches given up at once, so that numbers of sub-carriers and keep ranges are parted all the way."""
    monkeypatch.setattr(ofdma_pricing, "_FIRST_WORK", 1)
    monkeypatch.setattr(ofdma_pricing, "_CHUNK", 1)
    monkeypatch.setattr(ofdma_pricing, "_LAST_WORK", 64)
    for seed in seeds:
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


def test_a_search_begins_from_a_like_one() -> None:
    """Sets, rates and prices of another deadline and other energies: sooner there, and the same optimum."""
    options = CellOptions(devices=4, access="ofdma", subcarriers=16)
    cells = [make_cell(options, np.random.default_rng(seed)) for seed in (1, 2)]
    first = cells[0].instance
    later = first.with_changes(latency_s=0.8 * first.latency_s, energy_j=0.7 * first.energy_j)
    for other, one in ((first, later), (later, first)):
        like, cold = solve(other), solve(one)
        warm = solve(one, like=like, warm_start=like.allocation)
        assert warm.status is Status.OPTIMAL
        assert warm.iterations < cold.iterations
        assert warm.objective == pytest.approx(cold.objective, rel=2 * REL_GAP)
        assert max(warm.lower_bound, cold.lower_bound) <= min(warm.objective, cold.objective)
        accepted(warm)
        unlike = cells[1].instance.take(range(3))  # of other devices nothing is taken up
        assert solve(unlike, like=like).objective == solve(unlike).objective


def test_a_bound_at_the_cutoff_is_enough() -> None:
    cell = make_cell(CellOptions(devices=4, access="ofdma", subcarriers=16), np.random.default_rng(3)).instance
    whole = solve(cell)
    enough = 0.97 * whole.objective
    short = solve(cell, cutoff=enough)
    assert enough <= short.lower_bound < whole.lower_bound
    assert short.iterations < whole.iterations
    assert (short.status, short.message) == (Status.FEASIBLE, "stopped with a gap: the bound is at the cutoff")
    with pytest.raises(InputError, match="cutoff"):
        Options(cutoff="1")  # type: ignore[arg-type]


# Curves and functions


def test_a_start_between_levels_becomes_a_level_that_the_cap_allows() -> None:
    """A device whose cap lies between two levels was given the nearest level, which was the one above."""
    rng = np.random.default_rng([13, 1030])
    compare_curve(Problem(random_ofdma(rng, bound=random_curve(rng))), REL_GAP)


# One common rate


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1), (2, 1), (5, 3)])
@pytest.mark.parametrize("penalty", [None, 2.0])
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 3), marks=pytest.mark.slow)], ids=str)
def test_degenerate_shapes(shape: tuple[int, int], penalty: float | None, seeds: range) -> None:
    for seed in seeds:
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


@pytest.mark.parametrize(("devices", "subcarriers"), [(4, 32), pytest.param(8, 64, marks=pytest.mark.slow)])
def test_many_levels_are_proved(devices: int, subcarriers: int) -> None:
    """At a single level pricing is a covering knapsack: without a table gaps of 5e-3 stood for 20 s."""
    options = CellOptions(devices=devices, access="ofdma", subcarriers=subcarriers)
    cell = make_cell(options, np.random.default_rng(3)).instance
    levels = (np.arange(1, 21) / 20.0,) * cell.num_devices
    instance = cell.with_changes(keep_levels=levels, bound=replace(cell.bound, pooling="device"))
    result = solve(instance, time_limit=120.0)
    assert result.status is Status.OPTIMAL, str(result)
    accepted(result)


# Infeasibility


# Limits and determinism


# Branching


@pytest.mark.parametrize("count", [12, pytest.param(40, marks=pytest.mark.slow)])
def test_levels_under_global_pooling_branch_until_closed(count: int) -> None:
    """The master may mix two keep levels on one set: weights integral, value below every assignment."""
    nodes = []
    for seed in range(count):
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
