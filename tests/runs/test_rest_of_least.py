"""The rest of runs of needed rounds and of weighted sums: shares add up, those of energy are of the whole run."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import InputError, Instance, LearningSpec, RunPlan, Status, plan_run, replan
from edgealloc.files.run import load_run
from edgealloc.runs import NeededRounds
from edgealloc.runs.needed import NeededRun
from edgealloc.runs.training import LITTLE_J, TrainingRun, budgeted
from edgealloc.verify.run import verify_run
from tests.conftest import small_instance
from tests.runs.test_needed import enumerated

CURVE = LearningSpec(pace=0.6, exponent=1.5, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)
NEEDED = NeededRounds(1.0, 2.0)
WEIGHTS = (1.0, 100.0)
GAP = 0.05
TOTALS: dict[str, Any] = {"time_s": 120.0, "energy_j": 20.0}
NEEDS: dict[str, Any] = {**TOTALS, "curve": NEEDED, "rounds": (1, 9)}


def used(plan: RunPlan) -> tuple[float, np.ndarray]:
    """Time in s and energies in J of one round."""
    return plan.time_s / plan.rounds, plan.energy_j / plan.rounds


def needs(plan: RunPlan) -> float:
    """How many rounds it takes at the rates of a plan."""
    assert plan.result is not None
    assert plan.result.allocation is not None
    return float(plan.run.loss(1, plan.result.allocation))


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
def test_a_round_brings_its_share_of_the_rounds_that_are_needed(access: Any) -> None:
    cell = small_instance(access, 2, 4)
    plan = plan_run(cell, **NEEDS, minimise="time", rel_gap=GAP)
    assert plan.rounds > 2
    left = 1.0 - 1.0 / needs(plan)
    after = replan(plan, rel_gap=GAP)
    assert isinstance(after.run, NeededRun)
    assert after.run.needed.fixed == pytest.approx(left * NEEDED.fixed, rel=1e-12)
    assert after.run.needed.per_keep == pytest.approx(left * NEEDED.per_keep, rel=1e-12)
    seconds, _ = used(plan)
    assert after.run.time_s == pytest.approx(120.0 - seconds, rel=1e-12)
    assert after.status is Status.OPTIMAL
    # the standing plan is one of those that are left
    assert after.lower_bound <= (plan.rounds - 1) * seconds * (1.0 + 1e-9)
    assert after.objective <= (plan.rounds - 1) * seconds * (1.0 + 2.0 * GAP)
    # and a round more at other rates brings its own share of the whole
    again = replan(after, rel_gap=GAP)
    assert isinstance(again.run, NeededRun)
    share = again.run.needed.fixed / NEEDED.fixed
    assert share == pytest.approx(left - left / needs(after), rel=1e-9)


@pytest.mark.parametrize("aim", ["time", pytest.param("energy", marks=pytest.mark.slow)])
def test_the_rest_of_needed_rounds_is_the_least_of_all_numbers(aim: Any) -> None:
    cell = small_instance("fdma", 2)
    plan = plan_run(cell, **NEEDS, minimise=aim, rel_gap=GAP)
    after = replan(plan, time_s=70.0, energy_j=15.0, rounds=(1, 9), rel_gap=0.02)
    assert after.result is not None
    assert isinstance(after.run, NeededRun)
    if aim == "energy":  # the share of what is left, for the enumeration
        after = replace(after, objective=float((after.energy_j / 15.0).max()), lower_bound=0.0)
    low, high = enumerated(cell, after.run.needed, aim, 70.0, 15.0)
    assert low * (1.0 - 1e-4) <= after.objective <= high * 1.05
    assert after.lower_bound <= high * (1.0 + 1e-4)


@pytest.mark.parametrize("aim", ["time", "weighted"])
def test_a_run_of_needed_rounds_ends_when_it_is_done(aim: Any) -> None:
    cell = small_instance("fdma", 2)
    weights = WEIGHTS if aim == "weighted" else None
    plan = plan_run(cell, **NEEDS, minimise=aim, weights=weights, rel_gap=0.2)
    seconds, joules, rounds, done = 0.0, np.zeros(2), 0, 0.0
    whole = NEEDED.fixed + NEEDED.per_keep
    while not plan.stop:
        time, energy = used(plan)
        seconds, joules, rounds = seconds + time, joules + energy, rounds + 1
        assert plan.result is not None
        assert plan.result.allocation is not None
        keep = plan.result.allocation.keep
        done += 1.0 / (NEEDED.fixed + NEEDED.per_keep * float(cell.weights @ (1.0 / keep)))
        plan = replan(plan, rel_gap=0.2)
        assert rounds < 10
    assert plan.message == "stop: as many rounds are trained as are needed"
    assert plan.status is Status.OPTIMAL
    assert plan.loss == 0.0
    assert done >= 1.0 - 1e-9
    assert rounds >= whole
    assert seconds <= 120.0
    assert (joules <= 20.0).all()
    share = float((joules / 20.0).max())
    expected = 0.0 if aim == "time" else WEIGHTS[1] * share
    assert plan.objective == pytest.approx(expected, rel=1e-9)
    early = replan(plan_run(cell, **NEEDS, minimise=aim, weights=weights, rel_gap=0.5), time_s=0.0)
    assert early.stop
    assert (early.status, early.objective) == (Status.INFEASIBLE, math.inf)
    assert 0.0 < early.loss < whole
    assert "rounds without dropout are needed still" in repr(early)


def reached(cell: Instance, needed: NeededRounds, rounds: int, time_s: float, energy_j: np.ndarray) -> bool:
    """Whether a solve finds that so many rounds within these totals are enough."""
    one = cell.with_changes(
        latency_s=min(cell.latency_s, time_s / rounds),
        energy_j=np.minimum(cell.energy_j, np.maximum(energy_j, 1e-9) / rounds),
        bound=edgealloc.BoundSpec(underfit_weight=1.0, loss_range=0.0, lipschitz=0.0),
    )
    return needed.fixed + needed.per_keep * (1.0 + edgealloc.solve(one, rel_gap=1e-5).objective) <= rounds


def least_sums(cell: Instance, needed: NeededRounds, time_s: float, left: float, spent: np.ndarray) -> float:
    """The least of some weighted sums, by bisecting the share for numbers of rounds and times."""
    best = math.inf
    for rounds in range(1, 7):
        for time in np.linspace(0.25, 1.0, 7) * time_s:
            low, high = float((spent / (spent + left)).max()), 1.0
            for _ in range(8):
                middle = 0.5 * (low + high)
                if reached(cell, needed, rounds, time, middle * (spent + left) - spent):
                    high = middle
                else:
                    low = middle
            if high < 1.0:
                best = min(best, WEIGHTS[0] * time + WEIGHTS[1] * high)
    return best


@pytest.mark.slow
@pytest.mark.parametrize("left", [12.0, 17.0])
def test_the_rest_of_a_weighted_sum_is_below_all_others(left: float) -> None:
    """Of devices that have spent differently, within shares of what each had at first."""
    cell = small_instance("fdma", 2)
    first = plan_run(cell, **NEEDS, minimise="weighted", weights=WEIGHTS, rel_gap=0.2)
    run = replace(first.run, energy_j=np.array([25.0, 18.0]))
    after = replan(replace(first, run=run), time_s=100.0, energy_j=left, rel_gap=GAP, rounds=(1, 6))
    spent = np.array([25.0, 18.0]) - left
    assert after.run.spent_j is not None
    np.testing.assert_allclose(after.run.spent_j, np.maximum(spent, 0.0))
    assert after.status is Status.OPTIMAL
    assert isinstance(after.run, NeededRun)
    best = least_sums(cell, after.run.needed, 100.0, left, np.maximum(spent, 0.0))
    assert after.lower_bound <= best
    assert after.objective <= best * (1.0 + GAP)
    share = float(((spent + after.energy_j) / np.array([25.0, 18.0])).max())
    assert after.objective == pytest.approx(after.time_s + 100.0 * share, rel=1e-9)


def test_a_weighted_sum_goes_on_with_shares_of_the_whole_run() -> None:
    cell = small_instance("fdma", 2)
    common: dict[str, Any] = {**TOTALS, "curve": CURVE, "rounds": (1, 3), "minimise": "weighted"}
    plan = plan_run(cell, **common, weights=WEIGHTS, target=0.6, rel_gap=0.5)
    assert plan.rounds > 1
    seconds, joules = used(plan)
    after = replan(plan, rel_gap=0.5)
    assert after.result is not None
    assert after.run.spent_j is not None
    np.testing.assert_allclose(after.run.spent_j, joules, rtol=1e-12)
    share = float(((joules + after.energy_j) / 20.0).max())
    assert after.objective == pytest.approx(WEIGHTS[0] * after.time_s + WEIGHTS[1] * share, rel=1e-9)
    assert after.lower_bound <= plan.objective - WEIGHTS[0] * seconds
    assert after.lower_bound >= WEIGHTS[1] * float((joules / 20.0).max())
    with pytest.raises(edgealloc.EdgeallocError, match="rest of a run that has begun"):
        after.claims()
    # a device that has spent all of it counts for nothing where it may be left out
    out = cell.with_changes(exclusion_penalty=0.1)
    names = cell.device_names
    kept = replan(replace(plan, target=0.7), problem=out, energy_j={names[0]: 15.0, names[1]: 0.0}, rel_gap=0.8)
    assert kept.run.spent_j is not None
    assert kept.run.spent_j.tolist() == [5.0, 0.0]


def test_the_rest_of_a_least_energy_is_a_share_of_the_whole_run() -> None:
    cell = small_instance("fdma", 2)
    plan = plan_run(cell, **NEEDS, minimise="energy", rel_gap=GAP)
    _, joules = used(plan)
    after = replan(plan, rel_gap=GAP)
    share = float(((joules + after.energy_j) / 20.0).max())
    assert after.objective == pytest.approx(share, rel=1e-9)
    assert after.objective <= plan.objective * (1.0 + 2.0 * GAP)  # what was planned is still within reach
    assert after.lower_bound >= float((joules / 20.0).max()) * (1.0 - 1e-9)


def test_shares_of_energy_are_never_rounded_below_what_is_left_of_them() -> None:
    """However much was spent, the budget of a share lets everything in that uses no more of the whole."""
    rng = np.random.default_rng(3)
    cell = small_instance("fdma", 2)
    for _ in range(200):
        spent, left = 10.0 ** rng.uniform(-6.0, 6.0, 2), 10.0 ** rng.uniform(-6.0, 6.0, 2)
        run = TrainingRun(cell, CURVE, energy_j=left, spent_j=spent)
        use = left * rng.uniform(0.0, 1.0, 2)
        part = budgeted(run, "energy", run.share(use) * (1.0 + 1e-12)).energy_j
        assert part is not None
        assert (part >= use).all()
    none = budgeted(TrainingRun(cell, CURVE, energy_j=np.ones(2), spent_j=np.ones(2)), "energy", 0.1).energy_j
    assert none == pytest.approx(LITTLE_J)


def test_the_rest_of_needed_rounds_has_a_file_and_a_certificate(tmp_path: Path) -> None:
    cell = small_instance("fdma", 2)
    after = replan(plan_run(cell, **NEEDS, minimise="time", rel_gap=0.2), rel_gap=0.2)
    plan, certificate = after.certified()
    read = load_run(plan.save(tmp_path / "rest.json"))
    assert verify_run(cell, read, certificate, rel_gap=0.2).ok
    lie = replace(read, lower_bound=read.objective, rel_gap=0.0)
    assert not verify_run(cell, lie, certificate, rel_gap=0.2).ok


def test_a_loss_says_nothing_of_needed_rounds() -> None:
    plan = plan_run(small_instance("fdma", 2), **NEEDS, minimise="time", rel_gap=0.5)
    with pytest.raises(InputError, match=r"loss = 0\.4; allowed: none: needed rounds know no loss"):
        replan(plan, loss=0.4)
