"""States and reports of devices that are wrong or lie: refused by name, planned without, in nobody's way."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from edgealloc.data.outcome import Status
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.method import Method
from edgealloc.rounds.allocator import OnlineAllocator
from edgealloc.rounds.plan import Plan
from edgealloc.rounds.ranges import RANGES
from edgealloc.rounds.round import plan_round, plan_valid, round_instance
from edgealloc.rounds.stragglers import StragglerPolicy
from edgealloc.rounds.system import DeviceState
from edgealloc.solvers.base import Options
from tests.rounds.cells import a_state, a_system, some_states


class Rude:
    """Whatever is asked of it, it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    __float__ = __len__ = __iter__ = __bool__ = __repr__ = lambda self: self.nothing


NO_NUMBERS = [float("nan"), -1.0, -5e-324, 1e100, 10**400, 10**5000, "3", b"3", None, True, 1j, [1.0], {}, Rude()]
NUMBERS = [f.name for f in fields(DeviceState) if f.name != "available"]
MAY_BE_NONE = ("cycles_fixed", "cycles_lora", "downlink_bps")  # the system's, or no download


def faults_of(states: Mapping[Any, Any], **changes: Any) -> set[tuple[str, str]]:
    """Device and field of everything that a round finds wrong."""
    with pytest.raises(InputError) as caught:
        plan_round(a_system(**changes), states)
    assert all(len(str(fault)) < 600 for fault in caught.value.faults)
    return {(fault.where, fault.field) for fault in caught.value.faults}


@pytest.mark.parametrize("field", NUMBERS)
def test_every_field_has_a_range_and_a_liar_is_named(field: str) -> None:
    """Too large, negative, nan, text, a truth value, an integer beyond all doubles: one device alone is named."""
    allowed = RANGES[field]
    lies = [*NO_NUMBERS, np.nextafter(allowed.most, np.inf)]
    lies += [np.nextafter(allowed.least, -1.0)] * (allowed.least > 0.0)
    for lie in lies:
        if lie is None and field in MAY_BE_NONE:
            continue
        for changes in ({}, {"exclusion_penalty": 4.0}):
            found = faults_of(some_states() | {"liar": a_state(**{field: lie})}, **changes)
            assert {where for where, _ in found} == {"liar"}, lie
            assert field in {name for _, name in found}, lie
    assert allowed.holds(allowed.most)
    assert allowed.holds(allowed.least)


def test_gains_of_sub_carriers_are_looked_at_one_by_one() -> None:
    honest = some_states(np.random.default_rng(0), 4, 8)
    gains = list(honest["d0"].gain)  # type: ignore[arg-type]
    for lie in (*NO_NUMBERS[:12], 1.0000001):
        found = faults_of({"a-liar": a_state(gain=[*gains[:3], lie, *gains[4:]])} | honest, access="ofdma")
        assert found == {("a-liar", "gain[3]")}
    for gain in ([], gains[:3], [*gains, 1e-11], [gains, gains], np.ones((8, 8)), 1e-11, [1e-11] * 100_000):
        found = faults_of({"a-liar": a_state(gain=gain)} | honest, access="ofdma")
        assert {where for where, _ in found} == {"a-liar"}  # not those who differ from it
    assert faults_of({"a-liar": a_state(gain=[])}, access="ofdma") == {("a-liar", "gain")}


def test_what_is_no_state_or_no_name_is_named() -> None:
    for lie in (None, {}, 7, "state", DeviceState, [a_state()], Rude()):
        assert faults_of(some_states() | {"liar": lie}) == {("liar", "state")}
        with pytest.raises(InputError, match="liar: state"):
            OnlineAllocator(a_system()).plan(some_states() | {"liar": lie})
    for name, shown in ((3, "3"), ("", ""), (None, "None"), ("\x1b[2J", r"'\x1b[2J'"), ("x" * 300, "x" * 300)):
        assert faults_of(some_states() | {name: a_state()}) == {(shown, "id")}
    for lie in ("yes", 0, 1, None, np.ones(2)):
        assert faults_of(some_states() | {"liar": a_state(available=lie)}) == {("liar", "available")}
    assert plan_round(a_system(), some_states() | {"away": a_state(available=np.False_, gain=-1.0)}).selected


def test_one_common_rate_is_not_refused_to_all_because_of_one() -> None:
    for lie in ({"keep_max": 0.02, "keep_min": 0.01}, {"keep_min": 0.99, "keep_max": 1.0}):
        others = {name: replace(s, keep_max=0.9) for name, s in some_states().items()}
        found = faults_of({"liar": a_state(**lie)} | others, common_keep=True)
        assert {where for where, _ in found} == {"liar"}


def test_every_fault_comes_at_once_whoever_finds_it() -> None:
    curve = {"keep_levels": (0.1, 0.3)}
    states = some_states() | {"d1": a_state(energy_j=1e10), "d2": a_state(keep_min=0.2), "d3": None}
    assert faults_of(states, **curve) == {("d1", "energy_j"), ("d2", "keep_levels"), ("d3", "state")}


# In range, and yet nobody could carry it; with the budget that lacks.
HOPELESS = {
    "energy_j": {"energy_j": 1e-12},
    "energy_j, static": {"energy_static_j": 1e9},
    "latency_s": {"cycles_fixed": 1e24},
    "latency_s, download": {"downlink_bps": 1e-3},
    "latency_s, slow": {"freq_min_hz": 1.0, "freq_max_hz": 1.0},
    "energy_j, capacitance": {"capacitance": 1e-12},
    "energy_j, fast": {"freq_min_hz": 1e18, "freq_max_hz": 1e18},
    "power_max_w": {"power_max_w": 1e-12},
    "energy_j, deaf": {"gain": 0.0},
    "lacks, faint": {"gain": 5e-324, "samples": 1e9},
}
ROUNDS = {
    "fdma": {},
    "fdma, selection": {"exclusion_penalty": 4.0},
    "blocks": {"access": "rb", "block_hz": 1e4},
    "blocks, selection": {"access": "rb", "block_hz": 1e4, "exclusion_penalty": 4.0},
    "common rate": {"common_keep": True},
    "ofdma": {"access": "ofdma"},
    "ofdma, selection": {"access": "ofdma", "exclusion_penalty": 4.0},
}


@pytest.mark.parametrize("kind", ROUNDS)
def test_a_round_is_planned_without_whom_nothing_can_carry(kind: str) -> None:
    """The plan is that of the others alone, to the bit, and says who lacks which budget."""
    system = a_system(**ROUNDS[kind])
    carriers = 8 if system.access == "ofdma" else None
    honest = some_states(np.random.default_rng(1), 3, carriers)
    alone = plan_round(system, honest, rel_gap=1e-3)
    assert alone.drop == ()
    for lacks, lie in HOPELESS.items():
        own = dict(lie)
        if carriers and "gain" in own:
            own["gain"] = [own["gain"]] * carriers  # type: ignore[list-item]
        plan = plan_round(system, {"liar": replace(honest["d0"], **own)} | honest, rel_gap=1e-3)
        assert plan.drop == ("liar",), lacks
        assert set(plan.selected) == set(honest)
        for name in honest:
            assert plan.for_device(name) == alone.for_device(name)
        reason = plan.for_device("liar")["reason"]
        assert reason.startswith("infeasible even alone, lacks ")
        if not carriers:
            assert lacks.partition(",")[0] in reason
        assert f"planned without liar: {reason}" in plan.message
        assert Plan.from_json(plan.to_json()) == plan


def test_many_and_all_of_them() -> None:
    """More than a diagnosis names at once; and when nobody is left, the round says why for each."""
    liars = {f"liar-{k:02d}": a_state(energy_j=1e-6) for k in range(45)}
    for system in (a_system(), a_system(exclusion_penalty=4.0)):
        plan = plan_round(system, liars | some_states())
        assert set(plan.drop) == set(liars)
        assert set(plan.selected) == set(some_states())
        nobody = plan_round(system, {name: liars[name] for name in list(liars)[:3]})
        assert (nobody.selected, nobody.drop) == ((), ())
        assert all("lacks energy_j" in own["reason"] for own in nobody.devices.values())


def test_an_allocator_plans_without_them_too() -> None:
    """Within its budget, with selection and without, round after round."""
    rng = np.random.default_rng(2)
    for changes in ({}, {"exclusion_penalty": 4.0}):
        allocator = OnlineAllocator(a_system(**changes))
        for _ in range(3):
            honest = some_states(rng)
            plan = allocator.plan(honest | {"liar": a_state(energy_j=1e-6)})
            assert (plan.drop, set(plan.selected)) == (("liar",), set(honest))
            assert "lacks energy_j" in plan.for_device("liar")["reason"]
    assert plan_round(a_system(bandwidth_hz=1.5e4), some_states()).drop  # infeasible together: whom else to drop
    assert "or state an exclusion_penalty" in plan_round(a_system(bandwidth_hz=1.5e4), some_states()).message


def test_what_one_says_never_stops_the_others() -> None:
    """Plain data as it came: whose state is not valid is refused by name, the others are planned."""
    sound = {name: state.to_dict() for name, state in some_states().items()}
    bad: dict[str, Any] = {
        "none": None,
        "text": "state",
        "list": [1.0],
        "empty": {},
        "unknown": {**a_state().to_dict(), "gian": 1.0},
        "keys": {**a_state().to_dict(), 3: 1.0, None: 2.0},
        "nan": {**a_state().to_dict(), "gain": float("nan")},
        "large": {**a_state().to_dict(), "samples": 1e100},
        "nested": {**a_state().to_dict(), "gain": [[1e-11], [1e-11, 2e-11]]},
        "text in it": {**a_state().to_dict(), "energy_j": "3.0"},
        "system": {**a_state().to_dict(), "energy_j": -3.0},  # called as what is not a device
        "\x1b[2J": a_state().to_dict(),
    }
    plan, refused = plan_valid(partial(plan_round, a_system()), {**bad, **sound}, round_number=2)
    assert plan is not None
    assert set(refused) == set(bad)
    assert set(plan.selected) == set(sound)
    assert plan == replace(plan_round(a_system(), some_states(), round_number=2), seconds=plan.seconds)
    assert plan_valid(partial(plan_round, a_system()), bad, round_number=0)[0] is None
    with pytest.raises(InputError, match="bandwidth_hz"):
        plan_valid(partial(plan_round, a_system(bandwidth_hz=-1.0)), sound, round_number=0)


def test_the_plan_has_the_counts() -> None:
    plan = plan_round(a_system(), some_states() | {"away": a_state(available=False)})
    assert plan.samples == {f"d{k}": 300.0 + 50 * k for k in range(5)}
    assert Plan.from_json(plan.to_json()).samples == plan.samples
    assert json.loads(plan.to_json())["devices"]["d0"]["samples"] == 300.0


def test_a_round_has_a_limit_and_says_when_it_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody states one; a hard round of 30 devices in blocks ends in time."""
    given: list[float | None] = []

    def run(method: Method, problem: Problem, options: Options) -> Result:
        given.append(options.time_limit)
        result = real(method, problem, replace(options, time_limit=1.0))
        return replace(result, status=Status.FEASIBLE, message="stopped with a gap: time limit")

    real = Method.run
    monkeypatch.setattr(Method, "run", run)
    plan = plan_round(a_system(), some_states())
    assert given[0] is not None
    assert 29.0 < given[0] <= 30.0
    assert plan.message.endswith("the time limit of 30 s cut the plan")
    assert "cut" not in plan_round(a_system(), some_states(), time_limit_s=None).message
    assert given[1] is None
    monkeypatch.undo()
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="time_limit"):
            plan_round(a_system(), some_states(), time_limit_s=bad)

    rng = np.random.default_rng(6)
    hard = a_system(access="rb", block_hz=5e3, exclusion_penalty=1.0, bandwidth_hz=1e5)
    hard_states = some_states(rng, 30)
    plan_round(hard, hard_states, time_limit_s=0.1)  # loads what is compiled
    started = time.perf_counter()
    plan = plan_round(hard, hard_states, rel_gap=1e-12, time_limit_s=0.2)
    assert time.perf_counter() - started < 1.5
    assert plan.status == "optimal" or plan.message.endswith("the time limit of 0.2 s cut the plan")


BAD_LATENCIES = [float("nan"), float("inf"), -1.0, -5e-324, 10**400, "12", b"1", True, 1j, [1.0], Rude()]


@pytest.mark.parametrize("lie", BAD_LATENCIES, ids=lambda lie: type(lie).__name__)
def test_a_report_that_is_none_teaches_nothing(lie: Any) -> None:
    allocator = OnlineAllocator(a_system())
    plan = allocator.plan(some_states())
    with pytest.raises(InputError) as caught:
        allocator.report({"d0": 30.0, "d1": lie})
    assert [(f.where, f.field) for f in caught.value.faults] == [("d1", "latency_s")]
    assert allocator.stragglers is not None
    assert allocator.stragglers.slowdown("d0") == 1.0  # nothing of a bad report was taken
    allocator.report({"d0": 1.5 * plan.for_device("d0")["latency_s"]})  # put right
    assert allocator.stragglers.slowdown("d0") == pytest.approx(1.5)


def test_reports_of_strangers_and_of_no_round_are_refused() -> None:
    for policy in (StragglerPolicy(), None):
        allocator = OnlineAllocator(a_system(), stragglers=policy)
        allocator.report({})
        with pytest.raises(InputError, match="d0: id = 'd0'; allowed: no round is planned yet"):
            allocator.report({"d0": 1.0})
        allocator.plan(some_states())
        for stranger in ("d9", "", 3, None, "D0", "\x1b[2J"):
            with pytest.raises(InputError, match="one that round 0 was planned with"):
                allocator.report({stranger: 1.0})  # type: ignore[dict-item]
        for nothing in (None, 3, "d0", ["d0"]):
            with pytest.raises(InputError, match="seconds by device id"):
                allocator.report(nothing)  # type: ignore[arg-type]


def test_a_late_report_names_its_round_and_is_not_taken_for_another() -> None:
    allocator = OnlineAllocator(a_system())
    first = allocator.plan(some_states(), round_number=4)
    allocator.report({"d1": None}, round_number=4)
    allocator.plan(some_states(), round_number=5)
    late = {"d1": 2.0 * first.for_device("d1")["latency_s"]}
    with pytest.raises(InputError, match="d1: report = round 4; allowed: once of the last round, which is 5"):
        allocator.report(late, round_number=4)
    for other in (6, "5", 5.5):
        with pytest.raises(InputError, match="d1: report = round"):
            allocator.report(late, round_number=other)  # type: ignore[arg-type]
    assert allocator.stragglers is not None
    assert allocator.stragglers.slowdown("d1") == 1.0
    allocator.report({}, round_number=3)  # it says nothing
    allocator.report({"d0": 1.0}, round_number=5)
    with pytest.raises(InputError, match="d1: report = round 5 for the second time"):
        allocator.report({"d1": None}, round_number=5)
    instance = round_instance(a_system(), some_states())
    assert instance is not None
    assert allocator.stragglers.padded(instance) is instance  # a miss in 4, none in 5, and nobody slow


def test_an_allocator_goes_on_after_a_bad_round() -> None:
    """A round that is refused is not counted and changes nothing."""
    allocator, other = OnlineAllocator(a_system()), OnlineAllocator(a_system())
    for _ in range(2):
        with pytest.raises(InputError, match="liar: gain"):
            allocator.plan(some_states() | {"liar": a_state(gain=2.0)})
        ours, theirs = allocator.plan(some_states()), other.plan(some_states())
        assert ours == replace(theirs, seconds=ours.seconds)
