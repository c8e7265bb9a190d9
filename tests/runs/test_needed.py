"""Runs that need a number of rounds: least time and energy against every number, and bounds that are bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import InputError, Instance, LearningSpec, Status, plan_run
from edgealloc.data.spec import AdapterOption
from edgealloc.runs import NeededRounds
from edgealloc.runs.needed import NeededRun
from tests.conftest import small_instance

LAST = 9
GAP = 0.02


def random_cell(seed: int) -> tuple[Instance, NeededRounds]:
    """A small cell of any access scheme and variant, and rounds that it takes."""
    rng = np.random.default_rng([18, seed])
    access = ("fdma", "rb", "ofdma")[seed % 3]
    changes: dict[str, Any] = {}
    kind = seed // 3 % 4
    if kind == 1:
        changes["keep_levels"] = ([0.2, 0.5, 0.9], None)
    elif kind == 2:
        menu = (AdapterOption("r=4", 5e5, 1e8, 1.4), AdapterOption("r=8", 1e6, 2e8, 1.0))
        changes["adapter_options"] = (menu, None)
    needed = NeededRounds(float(rng.uniform(0.0, 2.0)), float(rng.uniform(0.5, 2.0)))
    if kind == 3:  # so high that a run without anybody is not enough
        changes["exclusion_penalty"] = float(rng.uniform(1.05, 1.5) * (LAST - needed.fixed) / needed.per_keep)
    return small_instance(access, 2, 4, samples=rng.integers(50, 500, 2), **changes), needed


def enumerated(
    cell: Instance, needed: NeededRounds, aim: str, time_s: float, energy_j: float
) -> tuple[float, float]:
    """Bounds of the least time, or share of the energy, over all numbers of rounds, each bisected on its own."""
    least = math.inf, math.inf
    for rounds in range(1, LAST + 1):
        low, high = 0.0, 1.0
        if not enough(cell, needed, rounds, time_s, energy_j):
            continue
        while high - low > 0.2 * GAP * high:
            middle = 0.5 * (low + high)
            part = (time_s * middle, energy_j) if aim == "time" else (time_s, energy_j * middle)
            if enough(cell, needed, rounds, *part):
                high = middle
            else:
                low = middle
        size = time_s if aim == "time" else 1.0
        least = min(least[0], low * size), min(least[1], high * size)
    return least


def enough(cell: Instance, needed: NeededRounds, rounds: int, time_s: float, energy_j: float) -> bool:
    """Whether so many rounds within these totals are as many as they need to be, by the least of sum w / s."""
    one = cell.with_changes(
        latency_s=min(cell.latency_s, time_s / rounds),
        energy_j=np.minimum(cell.energy_j, energy_j / rounds),
        bound=edgealloc.BoundSpec(underfit_weight=1.0, loss_range=0.0, lipschitz=0.0),
    )
    result = edgealloc.solve(one, rel_gap=1e-5)
    assert result.status in (Status.OPTIMAL, Status.INFEASIBLE)
    return needed.fixed + needed.per_keep * (1.0 + result.objective) <= rounds


def agrees(seed: int, aim: Any) -> None:
    cell, needed = random_cell(seed)
    plan = plan_run(cell, curve=needed, minimise=aim, time_s=120.0, energy_j=30.0, rounds=(1, LAST), rel_gap=GAP)
    low, high = enumerated(cell, needed, aim, 120.0, 30.0)
    if plan.result is None:
        assert plan.status is Status.INFEASIBLE
        assert high == math.inf
        return
    assert plan.status is Status.OPTIMAL, plan.message
    assert plan.lower_bound <= high * (1.0 + 1e-4)
    assert low * (1.0 - 1e-4) <= plan.objective <= high * (1.0 + 1.5 * GAP)
    allocation = plan.result.allocation
    assert allocation is not None
    assert plan.loss == pytest.approx(float(plan.run.loss(plan.rounds, allocation)))
    assert plan.loss <= 1.0
    assert plan.run.loss(plan.rounds - 1, allocation) > 1.0 if plan.rounds > 1 else True  # no round too many
    assert plan.time_s <= 120.0
    assert (plan.energy_j <= 30.0).all()


@pytest.mark.parametrize("aim", ["time", "energy"])
def test_the_least_of_needed_rounds_is_that_of_all_numbers(aim: Any) -> None:
    agrees(0, aim)


@pytest.mark.slow
@pytest.mark.parametrize("aim", ["time", "energy"])
@pytest.mark.parametrize("seed", range(1, 24))
def test_leasts_of_needed_rounds_are_those_of_all_numbers(seed: int, aim: Any) -> None:
    agrees(seed, aim)


@pytest.mark.parametrize("seed", range(12))
def test_one_problem_is_below_every_run_of_an_interval(seed: int) -> None:
    cell, needed = random_cell(seed)
    run = NeededRun(cell, LearningSpec(floor=0.0), 60.0, np.full(2, 8.0), needed=needed)
    rng = np.random.default_rng(seed)
    option = np.full(2, -1) if cell.adapter_options is None else np.array([0, -1])
    selected = np.array([True, cell.exclusion_penalty is None])
    for first, last in ((4, 4), (2, 7)):
        easy = run.relaxed(first, last)
        for _ in range(10):
            keep = rng.uniform(cell.keep_min, cell.keep_max)
            allocation = edgealloc.Allocation(keep, keep, keep, selected=selected, option=option)
            losses = run.loss(range(first, last + 1), allocation)
            value = easy.objective(keep, selected, option)
            assert value <= losses.min()
            assert value == pytest.approx(losses.min(), rel=1e-12)


def test_without_dropout_it_is_the_rounds_that_are_named() -> None:
    cell = small_instance("fdma", 2)
    run = NeededRun(cell, LearningSpec(floor=0.0), needed=NeededRounds(3.0, 5.0))
    for keep, rounds in ((1.0, 8.0), (0.5, 13.0)):
        allocation = edgealloc.Allocation(np.full(2, keep), np.ones(2), np.ones(2), np.ones(2))
        assert run.loss(1, allocation) == pytest.approx(rounds)


def test_what_it_cannot_do_is_refused_by_name() -> None:
    cell, needed = small_instance("fdma", 2), NeededRounds(1.0, 2.0)
    with pytest.raises(InputError, match="minimise = 'loss'"):
        plan_run(cell, curve=needed)
    with pytest.raises(InputError) as caught:
        plan_run(cell, curve=NeededRounds(-1.0, 0.0), minimise="time", target=0.5)
    for words in ("fixed", "per_keep", "target"):
        assert words in str(caught.value)
    plan = plan_run(cell, curve=needed, minimise="time", rounds=(1, 20), rel_gap=0.2)
    assert "rounds needed, of these: " in repr(plan)
    with pytest.raises(edgealloc.EdgeallocError, match="least loss only"):
        plan_run(cell, curve=needed, minimise="time", method="psca")
    none = plan_run(cell, curve=NeededRounds(1e6, 1.0), minimise="time", rounds=(1, 20))
    assert none.status is Status.INFEASIBLE
