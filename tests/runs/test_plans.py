"""Plans of whole runs: exact against every number of rounds, within all budgets, honest at limits."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import InputError, Instance, LearningSpec, PlausibilityWarning, RunPlan, Status, plan_run
from edgealloc.data.spec import AdapterOption
from edgealloc.files.instance import dict_from_instance, instance_from_dict
from edgealloc.files.run import dict_from_run, load_run
from edgealloc.runs.search import Interval, Rounds
from edgealloc.runs.training import TrainingRun, share_of
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from tests.conftest import MakeInstance, small_instance

CURVE = LearningSpec(pace=0.6, exponent=1.5, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)
LAST = 6


def random_cell(seed: int) -> tuple[Instance, LearningSpec, dict[str, Any]]:
    """A small cell of any access scheme and variant, a learning curve, and budgets of all rounds together."""
    rng = np.random.default_rng([16, seed])
    access = ("fdma", "rb", "ofdma")[seed % 3]
    changes: dict[str, Any] = {}
    kind = seed // 3 % 5
    if kind == 1:
        changes["keep_levels"] = ([0.2, 0.5, 0.9], None)
    elif kind == 2:
        menu = (AdapterOption("r=4", 5e5, 1e8, 1.4), AdapterOption("r=8", 1e6, 2e8, 1.0))
        changes["adapter_options"] = (menu, None)
    elif kind == 3:
        changes["exclusion_penalty"] = float(rng.uniform(0.3, 2.0))
    elif kind == 4 and access != "ofdma":
        changes["common_keep"] = True
    cell = small_instance(access, 2, 4, samples=rng.integers(50, 500, 2), **changes)
    curve = LearningSpec(
        floor=float(rng.uniform(0.0, 0.5)),
        drop=float(rng.uniform(0.1, 2.0)),
        pace=float(rng.uniform(0.2, 1.0)),
        exponent=float(rng.uniform(0.3, 2.7)),
        order=float(rng.uniform(1.0, 3.0)),
        overfit=float(10.0 ** rng.uniform(-3.0, -1.0)),
        growth=float(rng.uniform(0.8, 2.2)),
        protection=float(10.0 ** rng.uniform(-1.0, 2.0)),
    )
    budgets = {"time_s": float(rng.uniform(12.0, 90.0)), "energy_j": float(rng.uniform(1.5, 12.0))}
    return cell, curve, budgets


def enumerated(run: TrainingRun, last: int) -> float:
    """The least predicted loss over all numbers of rounds, each solved on its own."""
    best = math.inf
    for rounds in range(1, last + 1):
        result = edgealloc.solve(run.single(rounds), rel_gap=1e-6)
        assert result.status in (Status.OPTIMAL, Status.INFEASIBLE)
        if result.allocation is not None:
            best = min(best, float(run.loss(rounds, result.allocation)))
    return best


def agrees(seed: int) -> None:
    cell, curve, budgets = random_cell(seed)
    plan = plan_run(cell, curve=curve, rounds=(1, LAST), **budgets)
    best = enumerated(plan.run, LAST)
    if plan.result is None:
        assert plan.status is Status.INFEASIBLE
        assert best == math.inf
        return
    assert plan.status is Status.OPTIMAL, plan.message
    assert plan.lower_bound <= best * (1.0 + 1e-6)
    assert best * (1.0 - 1e-6) <= plan.objective <= best * (1.0 + 1e-4)
    within(plan)


def within(plan: RunPlan) -> None:
    """No budget of all rounds together is broken, decided exactly where it is linear."""
    assert plan.result is not None
    assert plan.result.allocation is not None
    assert not plan.run.single(plan.rounds).violations(plan.result.allocation)
    if plan.run.time_s is not None:
        assert Fraction(plan.latency_s) * plan.rounds <= Fraction(plan.run.time_s)
    if plan.run.energy_j is not None:
        assert (plan.energy_j <= plan.run.energy_j).all()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_plan_is_the_best_of_all_numbers_of_rounds(seed: int) -> None:
    agrees(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 200))
def test_plans_are_the_best_of_all_numbers_of_rounds(seed: int) -> None:
    agrees(seed)


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_an_interval_is_easier_than_each_of_its_runs(make_instance: MakeInstance, access: str) -> None:
    run = TrainingRun(make_instance(access, 2, 4), CURVE, 60.0, np.full(2, 8.0))  # type: ignore[arg-type]
    keep = np.array([0.3, 0.9])
    for first, last in ((1, 9), (3, 5), (4, 4)):
        easy = run.relaxed(first, last)
        for rounds in range(first, last + 1):
            hard = run.single(rounds)
            assert hard.instance.latency_s <= easy.instance.latency_s
            assert (hard.instance.energy_j <= easy.instance.energy_j).all()
            assert easy.objective(keep) <= hard.objective(keep) * (1.0 + 1e-12)
    # A single number of rounds is the problem itself: its bound plus the floor is the predicted loss.
    result = edgealloc.solve(run.single(4))
    assert result.allocation is not None
    loss = float(run.loss(4, result.allocation))
    assert result.objective + CURVE.floor == pytest.approx(loss, rel=1e-11)


def test_equal_keep_rates_give_the_curve_of_the_pilots(make_instance: MakeInstance) -> None:
    run, s, c = TrainingRun(make_instance("fdma", 3), CURVE), 0.7, CURVE
    allocation = edgealloc.Allocation(np.full(3, s), np.full(3, 1e9), np.full(3, 0.05), np.full(3, 3e5))
    for rounds in (1, 5, 40):
        learning = c.drop / (1.0 + (c.pace * rounds * s**c.exponent) ** c.order)
        overfit = c.overfit * rounds**c.growth / math.sqrt(1.0 + c.protection * (1.0 - s * s))
        assert run.loss(rounds, allocation) == pytest.approx(c.floor + learning + overfit, rel=1e-13)


def test_shares_are_rounded_to_the_right_side() -> None:
    for total in (0.1, 1.0, 600.0, 7e-5):
        for rounds in (1, 3, 7, 49, 199):
            assert Fraction(share_of(total, rounds, up=False)) * rounds <= Fraction(total)
            assert Fraction(share_of(total, rounds, up=True)) * rounds >= Fraction(total)


def test_totals_stand_beside_or_in_place_of_the_caps(make_instance: MakeInstance) -> None:
    cell = make_instance("fdma", 2, energy_j=1.0, payload_lora_bits=1e8)
    budgets: dict[str, Any] = {"time_s": 200.0, "energy_j": 40.0, "curve": CURVE, "rounds": (1, LAST)}
    capped, free = plan_run(cell, **budgets), plan_run(cell, caps=False, **budgets)
    assert capped.result is not None
    assert (capped.result.problem.instance.energy_j <= cell.energy_j).all()
    assert free.objective < capped.objective
    within(capped)
    within(free)
    named = plan_run(cell, **budgets | {"energy_j": dict.fromkeys(cell.device_names, 40.0)})
    assert named.objective == capped.objective


def test_rounds_can_be_fixed(make_instance: MakeInstance) -> None:
    plan = plan_run(make_instance("fdma", 2), rounds=(7, 7), curve=CURVE)
    assert (plan.rounds, plan.solves, plan.span) == (7, 1, Interval(7, 7))


def test_few_rounds_are_solved(make_instance: MakeInstance) -> None:
    plan = plan_run(make_instance("fdma", 4), time_s=300.0, energy_j=60.0, rounds=(1, 200), curve=CURVE)
    assert plan.status is Status.OPTIMAL
    assert plan.solves <= 40


@pytest.mark.slow
def test_intervals_begin_where_their_nearest_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same caps in every round most of the work is done once."""
    options = CellOptions(devices=3, access="ofdma", subcarriers=12)
    cell = make_cell(options, np.random.default_rng(2)).instance
    curve = LearningSpec()
    warm = plan_run(cell, rounds=(1, 60), curve=curve, rel_gap=1e-3)
    monkeypatch.setattr(Rounds, "_nearest", lambda *_: None)
    cold = plan_run(cell, rounds=(1, 60), curve=curve, rel_gap=1e-3)
    assert warm.status is cold.status is Status.OPTIMAL
    assert max(warm.lower_bound, cold.lower_bound) <= min(warm.objective, cold.objective)
    taken, anew = (sum(piece.result.iterations for piece in plan.pieces) for plan in (warm, cold))
    assert taken < 0.7 * anew


def test_no_run_at_all(make_instance: MakeInstance) -> None:
    plan = plan_run(make_instance("fdma", 2), time_s=1e-3, rounds=(1, LAST), curve=CURVE)
    assert plan.status is Status.INFEASIBLE
    assert plan.diagnosis
    assert "not even 1 round" in plan.message
    with pytest.raises(edgealloc.StatusError, match="infeasible"):
        plan.raise_for_status()


def test_a_limit_leaves_the_best_run_and_its_bound(make_instance: MakeInstance) -> None:
    seen: list[float] = []

    def third(snapshot: edgealloc.Snapshot) -> bool:
        seen.append(snapshot.objective)
        return len(seen) == 3

    cell = make_instance("fdma", 3)
    plan = plan_run(cell, time_s=150.0, energy_j=30.0, curve=CURVE, rel_gap=1e-6, callback=third)
    assert (plan.status, plan.message) == (Status.FEASIBLE, "stopped by the callback")
    assert plan.lower_bound < plan.objective == seen[-1]
    within(plan)


def test_a_local_method_descends_on_the_rounds(make_instance: MakeInstance) -> None:
    cell, budgets = make_instance("fdma", 2), {"time_s": 90.0, "energy_j": 20.0, "curve": CURVE, "rounds": (1, 8)}
    exact, local = plan_run(cell, **budgets), plan_run(cell, method="psca", **budgets)  # type: ignore[arg-type]
    assert local.status is Status.LOCALLY_SOLVED
    assert local.lower_bound == -math.inf
    assert exact.lower_bound <= local.objective <= 1.05 * exact.objective
    within(local)
    with pytest.raises(edgealloc.EdgeallocError, match="least loss only"):
        plan_run(cell, method="psca", minimise="time", target=0.6, curve=CURVE)


@pytest.mark.parametrize("aim", ["time", pytest.param("energy", marks=pytest.mark.slow)])
def test_the_least_budget_just_reaches_the_target(make_instance: MakeInstance, aim: Any) -> None:
    cell, budgets = make_instance("fdma", 2), {"time_s": 120.0, "energy_j": 20.0}
    common: dict[str, Any] = {"curve": CURVE, "rounds": (1, LAST)}
    target = 0.52
    plan = plan_run(cell, **budgets, **common, minimise=aim, target=target, rel_gap=0.05)
    assert plan.status is Status.OPTIMAL, plan.message
    assert plan.loss <= target
    assert 0.0 < plan.lower_bound < plan.objective < (120.0 if aim == "time" else 1.0)
    within(plan)
    less = {"time_s": plan.lower_bound} if aim == "time" else {"energy_j": 20.0 * plan.lower_bound}
    assert plan_run(cell, **budgets | less, **common, rel_gap=1e-3).objective > target
    out_of_reach = plan_run(cell, **budgets, **common, minimise=aim, target=CURVE.floor * 0.5)
    assert out_of_reach.status is Status.INFEASIBLE


def weighted(last: int, gap: float, **more: Any) -> RunPlan:
    cell = small_instance("fdma", 2)
    common: dict[str, Any] = {"time_s": 120.0, "energy_j": 20.0, "curve": CURVE, "rounds": (1, last)}
    return plan_run(cell, **common, target=0.6, rel_gap=gap, **more)


WEIGHTS = (1.0, 100.0)


def test_a_weighted_sum_is_what_it_says() -> None:
    both = weighted(2, 0.5, minimise="weighted", weights=WEIGHTS)
    assert both.status is Status.OPTIMAL, both.message
    assert both.loss <= 0.6
    within(both)
    assert both.run.energy_j is not None
    share = float((both.energy_j / both.run.energy_j).max())
    assert both.objective == pytest.approx(both.time_s + 100.0 * share)
    assert 0.5 * both.objective <= both.lower_bound <= both.objective
    assert both.latency_s * both.rounds == pytest.approx(both.time_s)  # on the budgets that it needs
    none = weighted(2, 0.3, minimise="weighted", weights=WEIGHTS, time_limit=1e-9)
    assert none.status in (Status.NO_SOLUTION, Status.FEASIBLE)
    assert none.lower_bound <= both.objective
    for wrong in ((1.0,), (0.0, 1.0), None, 3.0):
        with pytest.raises(InputError, match="two finite numbers > 0"):
            weighted(2, 0.1, minimise="weighted", weights=wrong)
    huge = weighted(2, 0.3, minimise="weighted", weights=(1e308, 1e308))  # a sum without an end ends
    assert huge.status is Status.NO_SOLUTION
    assert "weights of usual size" in huge.message
    with pytest.raises(InputError, match="but for minimise='weighted'"):
        weighted(2, 0.1, minimise="time", weights=WEIGHTS)
    with pytest.raises(InputError, match="the search needs an end"):
        plan_run(
            small_instance("fdma", 2), minimise="weighted", weights=WEIGHTS, target=0.6, energy_j=1, caps=False
        )


def test_a_target_out_of_reach_is_infeasible_for_a_weighted_sum_too() -> None:
    cell = small_instance("fdma", 2)
    plan = plan_run(
        cell, curve=CURVE, minimise="weighted", weights=WEIGHTS, target=0.1, energy_j=20.0, rounds=(1, 3)
    )
    assert plan.status is Status.INFEASIBLE
    assert "is not reached" in plan.message


@pytest.mark.slow
def test_a_weighted_sum_lies_between_its_parts() -> None:
    both = weighted(3, 0.1, minimise="weighted", weights=WEIGHTS)
    time, energy = weighted(3, 0.1, minimise="time"), weighted(3, 0.1, minimise="energy")
    assert both.objective >= time.lower_bound + 100.0 * energy.lower_bound
    for other in (time, energy):  # what they take is no less than the bound
        taken = other.time_s + 100.0 * float((other.energy_j / 20.0).max())
        assert both.lower_bound <= taken


@pytest.mark.slow
def test_a_weighted_sum_is_the_least_of_all_times() -> None:
    """Against the least energy at each of many times, and at each number of rounds."""
    both = weighted(3, 0.02, minimise="weighted", weights=WEIGHTS)
    run, best, lowest = both.run, math.inf, math.inf
    times = np.linspace(2.0, 45.0, 44)
    step = float(times[1] - times[0])

    def reached(rounds: int, time: float, share: float) -> bool:
        single = TrainingRun(run.instance, CURVE, time, np.full(2, 20.0 * share)).single(rounds)
        result = edgealloc.solve(single, rel_gap=1e-4)
        return result.allocation is not None and bool(run.loss(rounds, result.allocation) <= 0.6)

    nearest = times[np.argsort(np.abs(times - both.time_s), kind="stable")].tolist()
    for rounds, time in sorted(itertools.product((1, 2, 3), nearest), key=lambda pair: pair[0] != both.rounds):
        low, high = 0.0, min(1.0, 0.01 * (best - time))
        if high <= 0.0 or not reached(rounds, time, high):  # nothing below the best
            lowest = min(lowest, best - step) if high < 1.0 else lowest
            continue
        while high - low > 2e-3:
            share = 0.5 * (low + high)
            low, high = (low, share) if reached(rounds, time, share) else (share, high)
        best = min(best, time + 100.0 * high)
        lowest = min(lowest, time - step + 100.0 * low)
    assert both.lower_bound <= best * (1.0 + 1e-3)
    assert both.objective >= lowest
    assert both.objective <= best * 1.025


def test_the_curve_is_the_instance_s_or_a_typical_one(make_instance: MakeInstance) -> None:
    cell = make_instance("fdma", 2).with_changes(learning=CURVE)
    assert instance_from_dict(dict_from_instance(cell)) == cell  # type: ignore[arg-type]
    assert plan_run(cell, rounds=(2, 2)).run.learning == CURVE
    with pytest.warns(PlausibilityWarning, match="no learning curve"):
        plan = plan_run(make_instance("fdma", 2), rounds=(2, 2))
    assert plan.run.learning == LearningSpec()


def test_every_bad_option_is_named(make_instance: MakeInstance) -> None:
    cell = make_instance("fdma", 2)
    wrong = LearningSpec(order=-1.0)
    with pytest.raises(InputError) as caught:
        plan_run(
            cell, time_s=-1.0, energy_j={"dev-0000": 0.0, "dev-9": 1.0}, rounds=(3, 2), curve=wrong, target=1.0
        )
    told = str(caught.value)
    for words in ("time_s", "dev-0000: energy_j", "dev-9", "dev-0001: energy_j", "rounds", "order", "target"):
        assert words in told
    with pytest.raises(InputError, match="energy_j"):
        plan_run(cell, minimise="energy", target=0.5, curve=CURVE)
    with pytest.raises(InputError, match="did you mean 'loss'"):
        plan_run(cell, minimise="los", curve=CURVE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"learning: pace"):
        cell.with_changes(learning=LearningSpec(pace=0.0))


def test_a_plan_reads_back_as_it_was_written(make_instance: MakeInstance, tmp_path: Any) -> None:
    plan = plan_run(make_instance("fdma", 2), time_s=90.0, energy_j=9.0, rounds=(1, LAST), curve=CURVE)
    path = plan.save(tmp_path / "plan.json")
    assert dict_from_run(load_run(path)) == dict_from_run(plan.claims())
    frame = plan.to_frame()
    assert frame["total_energy_j"].to_numpy() == pytest.approx(plan.rounds * frame["energy_j"].to_numpy())
    assert f"{plan.rounds} rounds" in repr(plan)


def test_pictures_show_the_plan_and_what_is_proven(make_instance: MakeInstance) -> None:
    from edgealloc.runs import plot_rounds, plot_run_front

    cell = make_instance("fdma", 2)
    plans = [plan_run(cell, time_s=t, rounds=(1, 8), curve=CURVE, rel_gap=0.05) for t in (15.0, 45.0)]
    (axes,) = plot_rounds(plans[1]).axes
    told = {line.get_label(): line for line in axes.get_lines()}
    assert told["the plan"].get_xydata().tolist() == [[plans[1].rounds, plans[1].loss]]
    held = told["under this allocation"].get_ydata()
    assert (told["proven for every run"].get_ydata()[: len(held)] <= held).all()
    assert "beyond the budgets" in told
    (axes,) = plot_run_front(plans).axes
    assert axes.get_lines()[0].get_xdata().tolist() == [15.0, 45.0]
    assert {text.get_text() for text in axes.texts} == {f"R = {plan.rounds}" for plan in plans}
    with pytest.raises(InputError, match="for the least loss"):
        plot_run_front([])
