"""A round that is planned once more: its number and the masks of those who have started stay, no budget breaks."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc.data.spec import AdapterOption
from edgealloc.errors import InputError
from edgealloc.rounds import (
    EnergyHorizon,
    EqualSplit,
    OnlineAllocator,
    Plan,
    Rollover,
    RoundView,
    System,
    VirtualQueue,
)
from edgealloc.units import FloatArray
from tests.rounds.cells import a_state, a_system, some_states

MASKS = ("keep", "mask_seed", "freq_hz", "adapter_option")


def masks(plan: Plan, names: Any) -> dict[str, Any]:
    return {name: tuple(plan.devices[name].get(key) for key in MASKS) for name in names}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"access": "rb", "block_hz": 1e4},
        {"keep_levels": (0.1, 0.2, 0.4, 0.8)},
        {"adapter_options": (AdapterOption("r=4", 5e6, 1e8, 1.4), AdapterOption("r=8", 1e7, 2e8))},
    ],
)
def test_a_late_device_joins_beside_those_who_have_started(changes: dict[str, Any]) -> None:
    system = a_system(**changes)
    allocator = OnlineAllocator(system)
    first = allocator.plan(some_states(count=4))
    started = first.selected[:2]
    again = allocator.replan({"late": a_state(samples=250)}, elapsed_s=1.0, started=started)
    assert again.round_number == first.round_number == 0
    assert allocator.round_number == 1
    assert masks(again, started) == masks(first, started)
    assert set(again.selected) == {*first.selected, "late"}
    assert sum(own["bandwidth_hz"] for own in again.devices.values()) <= system.bandwidth_hz
    for name, own in again.devices.items():
        deadline = 15.0 if name in started else 14.0
        assert own["latency_s"] <= own["deadline_s"] * (1 + 1e-12)
        assert own["deadline_s"] == pytest.approx(deadline)
        assert own["energy_j"] <= 3.0
    assert Plan.from_json(again.to_json()) == again
    allocator.report({"late": 14.0}, round_number=0)
    assert allocator.plan(some_states(count=4)).round_number == 1


def test_seeds_are_those_of_the_round_for_everybody() -> None:
    allocator = OnlineAllocator(a_system())
    first = allocator.plan(some_states(count=3))
    again = allocator.replan({"late": a_state()}, started=())
    seeds = {name: own["mask_seed"] for name, own in first.devices.items()}
    assert {name: again.devices[name]["mask_seed"] for name in seeds} == seeds


def test_where_there_is_no_room_the_standing_plan_stays() -> None:
    """At an optimum all spectrum is in use: with everybody on the way, nobody can join."""
    allocator = OnlineAllocator(a_system(bandwidth_hz=5e4))
    first = allocator.plan(some_states(count=4))
    again = allocator.replan({"late": a_state()})
    assert again.selected == first.selected
    assert {name: again.devices[name] for name in first.devices} == dict(first.devices)
    assert again.devices["late"] == {"selected": False, "reason": "late: those who have started leave no room"}
    assert again.objective == first.objective


def test_ofdma_too(make_instance: Any) -> None:
    allocator = OnlineAllocator(a_system(access="ofdma"))
    states = {name: replace(s, gain=(s.gain,) * 8) for name, s in some_states(count=3).items()}  # type: ignore[arg-type]
    first = allocator.plan(states)
    again = allocator.replan({"late": a_state(gain=(3e-11,) * 8)}, elapsed_s=0.5, started=("d1",))
    assert masks(again, ("d1",)) == masks(first, ("d1",))
    carriers = [m for own in again.devices.values() for m in own.get("subcarriers", ())]
    assert len(carriers) == len(set(carriers))


def test_a_device_that_has_gone_gives_its_spectrum_back() -> None:
    allocator = OnlineAllocator(a_system())
    states = some_states(count=3)
    first = allocator.plan(states)
    again = allocator.replan({"d2": replace(states["d2"], available=False)}, started=("d0",))
    assert again.selected == ("d0", "d1")
    assert masks(again, ("d0",)) == masks(first, ("d0",))
    assert again.devices["d2"] == {"selected": False, "reason": "not available"}
    assert again.devices["d0"]["bandwidth_hz"] + again.devices["d1"]["bandwidth_hz"] <= 2e5
    assert again.status == "optimal"


def test_gone_while_nothing_can_be_dealt_anew_is_gone_all_the_same() -> None:
    allocator = OnlineAllocator(a_system(bandwidth_hz=5e4))
    states = some_states(count=4)
    first = allocator.plan(states)
    gone = replace(states["d3"], available=False)
    again = allocator.replan({"d3": gone, "late": a_state(gain=1e-14)}, elapsed_s=14.9, started=("d0", "d1"))
    assert not again.devices["d3"]["selected"]
    assert masks(again, ("d0", "d1")) == masks(first, ("d0", "d1"))


def test_energy_is_booked_once_a_round() -> None:
    budget = {"d0": 30.0, "d1": 30.0, "late": 30.0}

    def spent(late: bool) -> dict[str, float]:
        horizon = EnergyHorizon(budget, rounds=10)
        allocator = OnlineAllocator(a_system(), energy=horizon)
        plan = allocator.plan(some_states(count=2))
        if late:
            plan = allocator.replan({"late": a_state()}, elapsed_s=1.0, started=("d0",))
            assert "late" in plan.selected
        left = horizon.ledger.booked()
        for name, own in plan.devices.items():
            assert budget[name] - left[name] == pytest.approx(own["energy_j"])
        return left

    assert spent(late=False)["late"] == 30.0
    assert spent(late=True)["late"] < 30.0


def test_a_plan_that_stays_books_what_it_booked() -> None:
    horizon = EnergyHorizon({"d0": 30.0}, rounds=10)
    allocator = OnlineAllocator(a_system(bandwidth_hz=5e4), energy=horizon)
    allocator.plan(some_states(count=4))
    before = horizon.ledger.booked()
    allocator.replan({"late": a_state()})
    assert horizon.ledger.booked() == before


def test_one_keep_rate_for_all_holds_once_somebody_has_started() -> None:
    system: System = a_system(common_keep=True)
    allocator = OnlineAllocator(system)
    first = allocator.plan(some_states(count=3))
    rate = first.devices["d0"]["keep"]
    again = allocator.replan({"late": a_state(keep_max=0.5 * rate)}, started=("d0",))
    assert again.selected == first.selected


def through_json(memory: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(memory, allow_nan=False)))


def test_another_process_goes_on_with_what_was_learned() -> None:
    first, states = OnlineAllocator(a_system()), some_states(count=3)
    for number in range(3):
        first.plan(states)
        first.report({"d0": 22.0, "d1": None if number else 9.0}, round_number=number)
    second = OnlineAllocator(a_system())
    second.resume(through_json(first.memory()))
    assert second.memory() == first.memory()
    with pytest.raises(InputError, match="second time"):
        second.report({"d0": 1.0})
    expected, found = (one.plan(states) for one in (first, second))
    assert found.round_number == expected.round_number == 3
    assert found.devices["d1"] == expected.devices["d1"] == {"selected": False, "reason": "resting"}
    assert found.objective == pytest.approx(expected.objective, rel=2e-4)


def test_another_process_replans_the_round_that_was_begun() -> None:
    first, second = OnlineAllocator(a_system()), OnlineAllocator(a_system())
    first.plan(some_states(count=3))
    second.resume(through_json(first.memory()))
    again = [one.replan({"late": a_state()}, elapsed_s=1.0, started=["d1"]) for one in (first, second)]
    assert again[0].devices["d1"]["keep"] == again[1].devices["d1"]["keep"]
    assert again[0].devices.keys() == again[1].devices.keys()


@pytest.mark.parametrize("policy", [EqualSplit, Rollover, VirtualQueue])
def test_energy_over_a_horizon_goes_on_in_another_process(policy: Any) -> None:
    """What is left, what the policy learned, and the caps of a round that is planned once more there."""

    def horizon() -> OnlineAllocator:
        return OnlineAllocator(a_system(), energy=EnergyHorizon({"d0": 9.0, "d1": 6.0}, 4, policy()))

    first, states = horizon(), some_states(count=3)
    for number in range(2):
        first.plan(states, round_number=number)
    second = horizon()
    second.resume(through_json(first.memory()))
    for one in (first, second):
        one.replan({"late": a_state()}, started=["d0"])
        one.plan(states)
    assert first.energy is not None
    assert second.energy is not None
    left = [one.energy.ledger.left_j(("d0", "d1")) for one in (first, second)]  # type: ignore[union-attr]
    np.testing.assert_allclose(left[0], left[1], rtol=1e-3)
    assert np.all(left[0] < [9.0, 6.0])


def test_the_memory_of_somebody_else_is_refused() -> None:
    budget = EnergyHorizon({"d0": 1.0}, 2)
    first = OnlineAllocator(a_system(), energy=budget)
    first.plan(some_states(count=2))
    memory = first.memory()
    with pytest.raises(InputError, match=r"energy = .*same options"):
        OnlineAllocator(a_system()).resume(memory)
    with pytest.raises(InputError, match="seed = 0"):
        OnlineAllocator(a_system(), seed=1, energy=EnergyHorizon({"d0": 1.0}, 2)).resume(memory)
    with pytest.raises(InputError, match="left_j = d0, d1"):
        OnlineAllocator(a_system(), energy=EnergyHorizon({"d1": 1.0}, 2)).resume(memory)
    for damaged in ({}, memory | {"states": 1}, memory | {"plan": {}}, memory | {"stragglers": {"d0": 1}}):
        with pytest.raises(InputError):
            OnlineAllocator(a_system(), energy=EnergyHorizon({"d0": 1.0}, 2)).resume(damaged)

    class Mine:
        def caps_j(self, view: RoundView) -> FloatArray:
            return view.left_j

    with pytest.raises(InputError, match=r"Mine.*memory\(\) and recall"):
        OnlineAllocator(a_system(), energy=EnergyHorizon({"d0": 1.0}, 2, Mine())).memory()


def test_what_cannot_be_replanned_is_refused() -> None:
    allocator = OnlineAllocator(a_system())
    with pytest.raises(InputError, match="between plan and report"):
        allocator.replan({"late": a_state()})
    allocator.plan(some_states(count=2))
    with pytest.raises(InputError) as caught:
        allocator.replan({"late": a_state()}, elapsed_s=15.0, started=("nobody",))
    assert len(caught.value.faults) == 2
    with pytest.raises(InputError, match="the device has started"):
        allocator.replan({"d0": a_state()})
    with pytest.raises(InputError, match="gain"):
        allocator.replan({"late": a_state(gain=-1.0)})
    allocator.report({"d0": 10.0})
    with pytest.raises(InputError, match="between plan and report"):
        allocator.replan({"late": a_state()})
