"""The rest of a run: exact against every number of rounds, consistent, within what is left, told when to stop."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import InputError, LearningSpec, Status, plan_run, replan
from edgealloc.runs.begun.continued import ContinuedRun
from edgealloc.runs.begun.past import Past, corrected
from edgealloc.runs.training import TrainingRun
from edgealloc.scenario.cell import make_cell, next_round
from edgealloc.scenario.options import CellOptions
from tests.conftest import small_instance
from tests.runs.test_plans import CURVE, enumerated, random_cell, within

LAST = 5


def begun(seed: int) -> ContinuedRun:
    """A small cell of any access scheme and variant in which devices have progress of their own."""
    cell, curve, budgets = random_cell(seed)
    rng = np.random.default_rng([17, seed])
    names = cell.device_names
    rates = rng.uniform(0.1, 1.0, (int(rng.integers(1, 5)), len(names)))
    rates[:, 1] = rates[:, 0] if seed % 2 else rates[:, 1]
    progress = dict(zip(names, (rates**curve.exponent).sum(axis=0).tolist(), strict=True))
    past = Past(len(rates), progress, float((rates**2 @ cell.weights).sum()))
    energy = np.full(len(names), budgets["energy_j"])
    return ContinuedRun(cell, curve, budgets["time_s"], energy, past=past)


@pytest.mark.parametrize("seed", range(30))
def test_one_round_is_below_every_run_of_an_interval(seed: int) -> None:
    run = begun(seed)
    k, rng = run.instance.num_devices, np.random.default_rng(seed)
    low, high = run.instance.keep_min, run.instance.keep_max
    for first, last in ((1, 1), (2, 3), (1, 40)):
        easy, near = run.relaxed(first, last), run.single(first)
        for _ in range(40):
            keep = rng.uniform(low, high) if rng.random() < 0.7 else np.where(rng.random(k) < 0.5, low, high)
            if run.instance.common_keep:
                keep[:] = keep[0]
            option = np.full(k, -1) if run.instance.adapter_options is None else np.array([0, -1])
            allocation = edgealloc.Allocation(keep, keep, keep, option=option)
            losses = run.loss(range(first, last + 1), allocation) - run.learning.floor
            value = easy.objective(keep, allocation.selected, option)
            assert value <= losses.min() * (1.0 + 1e-14)
            if first == last:  # and no more below than the curve needs to be
                assert value >= losses[0] * (1.0 - 5e-5)
                assert near.objective(keep, allocation.selected, option) == pytest.approx(losses[0], rel=5e-5)


def test_a_logistic_of_what_is_left_would_be_no_bound() -> None:
    """Rounds at the new rate that equal the progress are more, the lower that rate: no number is right for all."""
    run = begun(0)
    c, past = run.learning, run.past.of(run.instance.device_names)[0]
    rates, more = np.array([0.05, 0.3, 1.0]), 4
    true = 1.0 / (1.0 + (c.pace * (past + more * rates**c.exponent)) ** c.order)
    for at in rates:
        rounds = past / at**c.exponent + more
        guess = 1.0 / (1.0 + (c.pace * rounds * rates**c.exponent) ** c.order)
        assert guess[rates == at] == pytest.approx(true[rates == at])
        assert (guess[rates < at] > true[rates < at]).all()  # where less is kept it sees more left than there is
        assert (guess[rates > at] < true[rates > at]).all()


def agrees(seed: int) -> None:
    run = begun(seed)
    first = plan_run(run.instance, curve=run.learning, rounds=(1, LAST), time_s=1e6, energy_j=1e6, caps=True)
    if first.result is None:
        return
    plan = replace(first, run=replace(run, time_s=1e6))
    assert run.time_s is not None
    assert run.energy_j is not None
    after = replan(plan, done=0, time_s=run.time_s, energy_j=run.energy_j)
    assert isinstance(after.run, ContinuedRun)
    assert after.run.past.rounds == run.past.rounds
    now = float(run.loss(0, first.result.allocation))  # type: ignore[arg-type]
    best = min(enumerated(run, LAST), now)
    if after.stop:
        assert now <= best * (1.0 + 1e-4)
        return
    assert after.status is Status.OPTIMAL, after.message
    assert after.lower_bound <= best * (1.0 + 1e-6)
    assert best * (1.0 - 1e-5) <= after.objective <= best * (1.0 + 1e-4)
    within(after)


@pytest.mark.parametrize("seed", range(2))
def test_the_rest_is_the_best_of_all_numbers_of_rounds(seed: int) -> None:
    agrees(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 90))
def test_rests_are_the_best_of_all_numbers_of_rounds(seed: int) -> None:
    agrees(seed)


@pytest.mark.parametrize("access", ["fdma", pytest.param("ofdma", marks=pytest.mark.slow)])
def test_a_plan_that_comes_true_goes_on(access: Any) -> None:
    """Same number of rounds in all and same deadline after every round, and the same loss to the gap."""
    cell = small_instance(access, 2, 4)
    curve, gap = replace(CURVE, exponent=0.6), 1e-3
    plan = first = plan_run(cell, time_s=90.0, energy_j=20.0, rounds=(1, 12), curve=curve, rel_gap=gap)
    assert first.rounds > 3
    for done in range(1, 3):
        left = 90.0 * (first.rounds - done) / first.rounds
        energy = 20.0 * (first.rounds - done) / first.rounds
        loss = float(plan.run.loss(1, plan.result.allocation))  # type: ignore[union-attr, arg-type]
        plan = replan(plan, time_s=left, energy_j=energy, loss=loss, rel_gap=gap)
        assert plan.rounds == first.rounds - done
        assert plan.latency_s == pytest.approx(first.latency_s, rel=1e-12)
        assert plan.objective == pytest.approx(first.objective, rel=gap)
        assert plan.run.learning.pace == pytest.approx(curve.pace, rel=1e-9)
        assert plan.rel_gap <= gap


@pytest.mark.parametrize("loss", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_no_budget_is_overspent_when_channels_change(loss: bool) -> None:
    rng = np.random.default_rng(5)
    cell = make_cell(CellOptions(devices=2), rng)
    names = cell.instance.device_names
    curve = replace(CURVE, exponent=0.7, pace=0.3, overfit=1e-3)
    time_s, energy_j = 150.0, dict.fromkeys(names, 16.0)
    left, spent = Fraction(time_s), {name: Fraction(0) for name in names}
    plan = plan_run(cell.instance, time_s=time_s, energy_j=energy_j, rounds=(1, 8), curve=curve, rel_gap=2e-2)
    trained, predicted = 0, [plan.loss]
    while not plan.stop:
        assert plan.result is not None
        assert plan.result.allocation is not None
        use = plan.result.problem.evaluate(plan.result.allocation)  # what this channel asks, and no other
        left -= Fraction(float(use.latency_s.max()))
        for name, joules in zip(names, use.energy_j.tolist(), strict=True):
            spent[name] += Fraction(joules)
        trained += 1
        assert trained <= 8
        cell = next_round(cell, 0.5, rng)
        rest = {name: float(16 - spent[name]) for name in names}
        seen = float(plan.run.loss(1, plan.result.allocation)) * (1.0 + 0.03 * rng.normal()) if loss else None
        plan = replan(plan, time_s=float(left), energy_j=rest, problem=cell.instance, loss=seen, rel_gap=2e-2)
        predicted.append(plan.loss)
    assert trained >= 3
    assert left >= 0
    assert max(spent.values()) <= 16
    if not loss:
        assert predicted[-1] < curve.floor + curve.drop


def test_what_is_spent_says_stop() -> None:
    plan = plan_run(
        small_instance("fdma", 2), time_s=90.0, energy_j=20.0, rounds=(1, 30), curve=CURVE, rel_gap=0.05
    )
    names = plan.run.instance.device_names
    for options, why in (
        ({"time_s": 0.0}, "the time is spent"),
        ({"time_s": -3.0}, "the time is spent"),
        ({"energy_j": {names[0]: 5.0, names[1]: -1e-9}}, f"the energy of {names[1]} is spent"),
        ({"energy_j": 0.0}, "the energy of"),
        ({"time_s": 1e-6}, "not even 1 round can be trained"),
        ({"energy_j": 1e-9}, "not even 1 round can be trained"),
        ({"done": plan.rounds, "time_s": 1e9, "energy_j": 1e9, "rounds": (1, 1)}, ""),
    ):
        after = replan(plan, **options)  # type: ignore[arg-type]
        if why:
            assert after.stop, options
            assert after.message.startswith(f"stop: {why}"), after.message
            assert after.objective == after.lower_bound == after.loss
            assert "stop" in repr(after)
            assert replan(after) is after
            with pytest.raises(edgealloc.StatusError, match="stop"):
                after.raise_for_status()
    assert not plan.stop
    ended = replan(replace(plan, span=plan.span._replace(last=plan.rounds)), done=plan.rounds)
    assert ended.message == "stop: as many rounds are trained as there may be"
    # who may be left out is, when its energy is spent
    cell = plan.run.instance.with_changes(exclusion_penalty=0.9)
    plan = plan_run(cell, time_s=90.0, energy_j=20.0, rounds=(1, 8), curve=CURVE, rel_gap=0.05)
    after = replan(plan, energy_j={names[0]: 5.0, names[1]: 0.0}, rel_gap=0.05)
    assert after.result is not None
    assert after.result.allocation is not None
    assert after.result.allocation.selected.tolist() == [True, False]
    assert after.energy_j[1] == 0.0


def test_a_limit_and_a_missed_target_prove_nothing_of_the_rest() -> None:
    cell = small_instance("fdma", 2)
    options: dict[str, Any] = {"energy_j": 10.0, "rounds": (1, 4), "curve": CURVE, "rel_gap": 1e-2}
    plan = plan_run(cell, time_s=60.0, minimise="time", target=0.6, **options)
    assert plan.rounds > 1
    limited = replan(plan, time_limit=1e-9)
    assert limited.status is Status.NO_SOLUTION
    assert (limited.objective, limited.lower_bound) == (math.inf, 0.0)
    late = replan(plan, time_s=0.0)  # status and objective are not those of a target that is reached
    assert late.stop
    assert (late.status, late.objective, late.lower_bound) == (Status.INFEASIBLE, math.inf, math.inf)
    first = plan_run(cell, time_s=60.0, **options)
    weak = cell.with_changes(gain=1e-3 * cell.gain)
    stopped = replan(first, problem=weak, time_limit=1e-9, done=0)
    assert stopped.stop
    assert stopped.status is not Status.OPTIMAL
    assert stopped.lower_bound < stopped.loss


def test_what_some_rounds_leave_is_exact() -> None:
    """Products in doubles may lie below what is used, by more than the last digit of the little that is left."""
    cell = small_instance("fdma", 2)
    plan = plan_run(cell, time_s=140.0, energy_j=27.0, rounds=(9, 9), curve=CURVE, rel_gap=1e-2)
    assert plan.result is not None
    assert plan.result.allocation is not None
    latency = float(plan.result.problem.evaluate(plan.result.allocation).latency_s.max())
    below = 0
    for done in range(1, 9):
        total = done * latency
        rest = replan(replace(plan, run=replace(plan.run, time_s=total)), done=done).run
        assert rest.time_s is not None
        assert Fraction(rest.time_s) <= Fraction(total) - done * Fraction(latency)
        below += Fraction(total) < done * Fraction(latency) - Fraction(math.ulp(0.0))
    assert below  # some are


def test_it_stops_where_another_round_would_only_overfit() -> None:
    curve = replace(CURVE, overfit=0.03, growth=2.0, protection=1.0)
    plan = plan_run(small_instance("fdma", 2), time_s=900.0, rounds=(1, 12), curve=curve, rel_gap=1e-3)
    free = {"time_s": 1e4}
    assert not replan(plan, done=max(plan.rounds - 2, 0), **free).stop  # type: ignore[arg-type]
    ended = replan(plan, done=plan.rounds, **free)  # type: ignore[arg-type]
    assert ended.stop
    assert ended.message == "stop: another round would not lower the predicted loss"
    assert ended.status is Status.OPTIMAL
    assert ended.loss == pytest.approx(plan.loss, rel=1e-9)


def test_a_target_is_reached_sooner_or_later() -> None:
    cell = small_instance("fdma", 2)
    common: dict[str, Any] = {"time_s": 120.0, "energy_j": 20.0, "curve": CURVE, "rounds": (1, 4)}
    plan = plan_run(cell, **common, minimise="time", target=0.6, rel_gap=0.1)
    after = replan(plan, rel_gap=0.1)
    assert after.minimise == "time"
    assert after.target == 0.6
    assert after.loss <= 0.6
    assert after.objective <= plan.objective - plan.time_s / plan.rounds + 0.06 * plan.objective
    reached = replan(plan, done=plan.rounds, rel_gap=0.1)
    assert reached.stop
    assert reached.message == "stop: the target is reached"
    assert reached.objective == 0.0


def test_a_measured_loss_moves_one_constant_and_then_the_floor() -> None:
    plan = plan_run(small_instance("fdma", 2), time_s=200.0, rounds=(2, 5), curve=CURVE, rel_gap=0.05)
    assert plan.result is not None
    assert plan.result.allocation is not None
    expected = float(plan.run.loss(2, plan.result.allocation))
    behind = replan(plan, done=2, loss=expected + 0.03, rel_gap=0.05)
    ahead = replan(plan, done=2, loss=expected - 0.03, rel_gap=0.05)
    assert behind.run.learning.pace < CURVE.pace < ahead.run.learning.pace
    assert replace(behind.run.learning, pace=1.0).overfit == CURVE.overfit
    for rest, loss in ((behind, expected + 0.03), (ahead, expected - 0.03)):
        assert float(rest.run.loss(0, plan.result.allocation)) == pytest.approx(loss, rel=1e-9)
    assert ahead.loss < behind.loss
    # it is corrected from the pilots' curve, not from the last correction: noise does not pile up
    again = replan(behind, done=0, loss=expected, rel_gap=0.05)
    assert again.run.learning.pace == pytest.approx(CURVE.pace, rel=1e-9)
    kept = replan(behind, done=0, rel_gap=0.05)
    assert kept.run.learning == behind.run.learning

    def value(spec: LearningSpec) -> float:
        return spec.floor + 0.1 / spec.pace + spec.overfit

    late = replace(CURVE, pace=1.0, overfit=0.5, floor=0.2)  # overfitting is what moves it now
    assert corrected(late, 0.9, value).overfit == pytest.approx(0.6)
    assert corrected(late, 0.9, value).pace == 1.0
    far = corrected(late, 3.0, value)
    assert far.overfit == pytest.approx(1.0)
    assert value(far) == pytest.approx(3.0)
    assert corrected(late, 1e-3, value).floor == 0.0


def test_progress_adds_up_over_rounds_at_different_rates() -> None:
    cell = small_instance("fdma", 2)
    run = TrainingRun(cell, CURVE)
    some = edgealloc.Allocation(np.array([0.4, 0.9]), np.ones(2), np.ones(2), np.ones(2))
    past = Past().after(cell, some, CURVE.exponent, 3)
    rest = ContinuedRun(cell, CURVE, past=past)
    for more in (0, 1, 5):  # the same rates all along are the run itself
        assert rest.loss(more, some) == pytest.approx(float(run.loss(3 + more, some)), rel=1e-12)
    gone = edgealloc.Allocation(some.keep, some.keep, some.keep, some.keep, selected=np.array([True, False]))
    assert past.after(cell, gone, CURVE.exponent).progress[cell.device_names[1]] == pytest.approx(3 * 0.9**1.5)


def test_devices_come_and_go_by_name() -> None:
    cell = small_instance("fdma", 3)
    plan = plan_run(cell, time_s=90.0, energy_j=9.0, rounds=(1, 4), curve=CURVE, rel_gap=0.05)
    fewer = cell.take([2, 0])
    after = replan(plan, problem=fewer, rel_gap=0.05)
    assert after.run.instance.device_names == (cell.device_names[2], cell.device_names[0])
    assert after.run.energy_j is not None
    assert after.run.energy_j.tolist() == [pytest.approx(9.0 - plan.energy_j[k] / plan.rounds) for k in (2, 0)]
    within(after)
    other = fewer.with_changes(device_names=(cell.device_names[0], "new"))
    with pytest.raises(InputError, match="new: energy_j"):
        replan(plan, problem=other)
    assert not replan(plan, problem=other, energy_j=9.0, rel_gap=0.05).stop


def test_bad_options_are_named_together_and_a_rest_has_no_file_yet(tmp_path: Path) -> None:
    plan = plan_run(small_instance("fdma", 2), rounds=(2, 2), curve=CURVE)
    with pytest.raises(InputError) as caught:
        replan(plan, done=3, time_s=math.nan, energy_j=[1.0], loss=-1.0, rounds=(0, 1))
    for words in ("done", "time_s", "energy_j", "loss", "rounds"):
        assert words in str(caught.value)
    after = replan(plan)
    for claim in (after.claims, after.certified, lambda: after.save(tmp_path / "rest.json")):
        with pytest.raises(edgealloc.EdgeallocError, match="rest of a run"):
            claim()
    none = plan_run(small_instance("fdma", 2), time_s=1e-3, rounds=(1, 2), curve=CURVE)
    with pytest.raises(edgealloc.StatusError, match="infeasible"):
        replan(none)
