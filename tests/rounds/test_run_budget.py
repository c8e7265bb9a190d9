"""Rounds that are part of a whole run: its totals hold whatever happens, and each round counts what is trained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgealloc import LearningSpec, plan_run
from edgealloc.errors import InputError
from edgealloc.rounds import EnergyHorizon, OnlineAllocator, Plan, Rollover, System
from edgealloc.rounds.round import round_instance
from edgealloc.runs import RunBudget
from tests.rounds.cells import a_state, a_system, some_states

CURVE = LearningSpec(pace=0.6, exponent=0.7, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)
NAMES = ("d0", "d1", "d2")


def taken(plan: Plan) -> tuple[float, dict[str, float]]:
    """How long a round takes in s, and what each device in J."""
    on = {name: own for name, own in plan.devices.items() if own["selected"]}
    return max(own["latency_s"] for own in on.values()), {name: own["energy_j"] for name, own in on.items()}


@pytest.mark.parametrize("curve", [None, CURVE])
def test_no_total_is_overspent_and_the_run_ends(curve: LearningSpec | None) -> None:
    rng = np.random.default_rng(3)
    run = RunBudget(5, time_s=60.0, energy_j={"d0": 8.0, "d1": 12.0}, curve=curve)
    allocator = OnlineAllocator(a_system(), run=run, rel_gap=1e-3)
    time, spent, deadlines = Fraction(0), dict.fromkeys(NAMES, Fraction(0)), []
    for _ in range(5):
        plan = allocator.plan(some_states(rng, 3))
        assert set(plan.selected) == set(NAMES)
        seconds, joules = taken(plan)
        time += Fraction(seconds)
        for name, own in joules.items():
            spent[name] += Fraction(own)
        deadlines.append(plan.devices["d0"]["deadline_s"])
        assert seconds <= deadlines[-1] * (1.0 + 1e-9)
        assert run.account.left_s == pytest.approx(60.0 - float(time), abs=1e-9)
    assert deadlines[0] == 12.0
    assert time <= 60
    assert spent["d0"] <= 8
    assert spent["d1"] <= 12
    assert spent["d2"] > spent["d0"]
    for _ in range(2):  # and from now on it says so
        after = allocator.plan(some_states(rng, 3))
        assert after.selected == ()
        assert after.message == "stop: all 5 rounds of the run are planned"
        assert after.devices["d1"]["reason"] == "all 5 rounds of the run are planned"
    assert Plan.from_json(after.to_json()) == after


def test_the_rounds_of_a_plan_are_those_of_the_plan() -> None:
    """With channels as they were planned, each round is what plan_run planned, also when some are trained."""
    system, states = a_system(), some_states(None, 3)
    cell = round_instance(system, states)
    assert cell is not None
    planned = plan_run(cell, time_s=60.0, energy_j=12.0, rounds=(5, 5), curve=CURVE, rel_gap=1e-6)
    assert planned.result is not None
    assert planned.result.allocation is not None
    allocator = OnlineAllocator(system, run=RunBudget.of(planned.rounds, planned.run), rel_gap=1e-6)
    for _ in range(3):
        plan = allocator.plan(states)
        keep = np.array([plan.devices[name]["keep"] for name in NAMES])
        assert keep == pytest.approx(planned.result.allocation.keep, abs=3e-3)
        assert plan.devices["d0"]["deadline_s"] == pytest.approx(12.0, rel=1e-6)


def test_what_is_trained_changes_what_is_planned() -> None:
    """A device that was away has more to learn: where keep rates are free, it is given more than it had."""
    curve = replace(CURVE, overfit=0.05, protection=300.0)
    states = {name: a_state(samples=400, gain=3e-10) for name in NAMES}
    allocator = OnlineAllocator(a_system(), run=RunBudget(6, curve=curve), rel_gap=1e-6)
    gone = states | {"d2": replace(states["d2"], available=False)}
    for _ in range(3):
        allocator.plan(gone)
    keep = {name: own["keep"] for name, own in allocator.plan(states).devices.items()}
    assert keep["d0"] == pytest.approx(keep["d1"], abs=1e-3)
    assert abs(keep["d2"] - keep["d0"]) > 0.02
    assert allocator.run is not None
    progress = allocator.run.account.past.progress
    assert progress["d2"] == pytest.approx(keep["d2"] ** 0.7)
    assert progress["d0"] > 2.0 * progress["d2"]


def test_a_round_that_lasted_longer_leaves_less() -> None:
    allocator = OnlineAllocator(a_system(), run=RunBudget(4, time_s=40.0), rel_gap=1e-2, stragglers=None)
    assert allocator.run is not None
    plan = allocator.plan(some_states(None, 3))
    planned, _ = taken(plan)
    allocator.report({"d0": planned + 5.0})
    assert allocator.run.account.left_s == pytest.approx(35.0 - planned)
    second = allocator.plan(some_states(None, 3))
    assert second.devices["d0"]["deadline_s"] == pytest.approx((35.0 - planned) / 3)
    left = allocator.run.account.left_s
    seconds, _ = taken(second)
    allocator.report({"d1": None})  # the server waited until the deadline
    assert allocator.run.account.left_s == pytest.approx(left + seconds - second.devices["d0"]["deadline_s"])
    allocator.plan(some_states(None, 3))
    allocator.report({"d0": 300.0})
    assert allocator.plan(some_states(None, 3)).message == "stop: the time of the run is spent"


def test_who_has_spent_its_energy_is_left_out() -> None:
    run = RunBudget(3, energy_j={"d0": 2.0})
    allocator = OnlineAllocator(a_system(), run=run, rel_gap=1e-2)
    run.account = replace(run.account, left_j={"d0": 0.0})
    plan = allocator.plan(some_states(None, 3))
    assert plan.selected == ("d1", "d2")
    assert plan.devices["d0"]["reason"] == "energy of the run spent"


def through_json(memory: Any) -> Any:
    return json.loads(json.dumps(memory, allow_nan=False))


def test_a_late_device_is_booked_once_and_a_server_goes_on() -> None:
    def fresh() -> OnlineAllocator:
        run = RunBudget(4, time_s=44.0, energy_j={"d0": 8.0}, curve=CURVE)
        horizon = EnergyHorizon({"d1": 9.0}, 4, Rollover())
        return OnlineAllocator(a_system(), run=run, energy=horizon, rel_gap=1e-3)

    states = some_states(None, 3)
    first = fresh()
    first.plan(states)
    plan = first.plan({name: states[name] for name in NAMES[:2]})
    assert first.run is not None
    before = first.run.account
    again = first.replan({"d2": states["d2"]}, elapsed_s=1.0, started=["d0"])
    assert set(again.selected) == set(NAMES)
    assert again.devices["d0"]["keep"] == plan.devices["d0"]["keep"]
    account = first.run.account
    assert account.past.rounds == before.past.rounds == 2
    assert account.past.progress["d2"] > before.past.progress["d2"]
    seconds, joules = taken(again)
    assert seconds <= plan.devices["d0"]["deadline_s"]
    assert account.left_j["d0"] == pytest.approx(
        before.left_j["d0"] + plan.devices["d0"]["energy_j"] - joules["d0"]
    )
    second = fresh()
    second.resume(through_json(first.memory()))
    assert second.memory() == first.memory()
    for allocator in (first, second):
        allocator.report({})
    one, other = first.plan(states), second.plan(states)
    assert one.devices["d1"]["deadline_s"] == other.devices["d1"]["deadline_s"]
    assert one.objective == pytest.approx(other.objective, rel=1e-3)
    with pytest.raises(InputError, match="run"):
        OnlineAllocator(a_system(), energy=EnergyHorizon({"d1": 9.0}, 4, Rollover())).resume(first.memory())
    strange = OnlineAllocator(
        a_system(), run=RunBudget(4, energy_j={"d9": 1.0}), energy=EnergyHorizon({"d1": 9.0}, 4, Rollover())
    )
    with pytest.raises(InputError, match="devices of this run"):
        strange.resume(first.memory())


def test_who_begins_late_ends_within_the_round_and_the_run_pays_until_then() -> None:
    """In every further replan too, and whether it is reported or not; a server that goes on knows it as well."""

    def fresh() -> OnlineAllocator:
        return OnlineAllocator(a_system(), run=RunBudget(3, time_s=40.0), rel_gap=1e-3)

    def end(plan: Plan, began: dict[str, float]) -> float:
        return max(began.get(k, 0.0) + own["latency_s"] for k, own in plan.devices.items() if own["selected"])

    quick = a_state(samples=300, gain=3e-9, keep_max=0.1, cycles_fixed=2e9)
    states = {"d0": quick, "d2": quick, "d3": quick}
    allocator = fresh()
    assert allocator.run is not None
    deadline = allocator.plan({"d0": quick}).devices["d0"]["deadline_s"]
    began = dict[str, float]()
    for name, seconds in (("d2", 6.0), ("d3", 8.0)):
        began[name] = seconds
        plan = allocator.replan({name: states[name]}, elapsed_s=seconds)
        assert name in plan.selected
        assert plan.devices["d2"]["deadline_s"] == pytest.approx(deadline - 6.0)
        assert end(plan, began) <= deadline
        assert 40.0 - allocator.run.account.left_s == pytest.approx(end(plan, began), rel=1e-12)
    second = fresh()
    second.resume(through_json(allocator.memory()))
    for one in (allocator, second):
        assert one.run is not None
        one.report({"d0": 1.0, "d3": 5.5, "d2": 1.0})
        assert 40.0 - one.run.account.left_s == pytest.approx(13.5)


def test_a_measured_loss_corrects_the_curve_of_the_pilots() -> None:
    run = RunBudget(4, curve=CURVE)
    with pytest.raises(InputError, match="after a round"):
        run.measured(0.6)
    OnlineAllocator(a_system(), run=run, rel_gap=1e-2).plan(some_states(None, 3))
    run.measured(0.66)
    assert run.curve is not None
    assert run.curve.pace < CURVE.pace
    run.measured(0.63)
    assert run.curve.pace > CURVE.pace / 2.0
    with pytest.raises(InputError, match="loss"):
        run.measured(math.nan)


def test_bad_budgets_are_named_together() -> None:
    with pytest.raises(InputError) as caught:
        RunBudget(0, time_s=-1.0, energy_j={"d0": math.inf}, curve=replace(CURVE, pace=0.0))
    for words in ("rounds", "time_s", "d0: energy_j", "pace"):
        assert words in str(caught.value)
    rounds: Any
    for rounds in (math.nan, math.inf, "3", None):
        with pytest.raises(InputError, match="rounds"):
            RunBudget(rounds)
    energy: Any
    for energy in (5.0, None, "abc", [1.0]):
        with pytest.raises(InputError, match="joules by the name"):
            RunBudget(3, energy_j=energy)
    with pytest.raises(InputError, match="time_s"):  # also beside a device of that name
        RunBudget(3, time_s=-1.0, energy_j={"run": 1.0})


@pytest.mark.slow
def test_a_time_budget_holds_with_a_run_from_the_first_round() -> None:
    system: System = a_system()
    allocator = OnlineAllocator(system, time_budget_s=0.5, run=RunBudget(5, time_s=60.0, curve=CURVE))
    rng = np.random.default_rng(1)
    for _ in range(5):
        assert allocator.plan(some_states(rng, 4)).seconds < 0.6
