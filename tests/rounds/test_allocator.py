"""Round after round: warm starts, budgets, devices that come, go and fail."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import InputError, PlausibilityWarning
from edgealloc.formulation.problem import Problem
from edgealloc.rounds.allocator import OnlineAllocator
from edgealloc.rounds.carried import carried
from edgealloc.rounds.energy import EnergyHorizon
from edgealloc.rounds.policies import EnergyPolicy, EqualSplit, Rollover, VirtualQueue
from edgealloc.rounds.round import who_to_drop
from edgealloc.rounds.solver import RoundSolver
from edgealloc.rounds.stragglers import StragglerPolicy
from edgealloc.rounds.system import Plan
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.psca.online import bound_at_prices, solve_online_psca
from edgealloc.solvers.psca.rounds import on_spectrum
from tests.conftest import MakeInstance
from tests.places import ROOT
from tests.rounds.cells import a_system, some_states


def _sound(plan: Plan) -> None:
    """The allocation breaks no budget and the bound is one."""
    assert plan.result is not None
    assert plan.result.allocation is not None
    assert plan.result.problem.violations(plan.result.allocation) == ()
    assert -np.inf < plan.lower_bound <= plan.objective


ACCESS = [
    ({}, None),
    ({"exclusion_penalty": 4.0}, None),
    ({"keep_levels": (0.05, 0.1, 0.2, 0.4, 0.8)}, None),
    ({"access": "rb", "block_hz": 1e4}, None),
    ({"access": "ofdma"}, 16),
    ({"access": "ofdma", "exclusion_penalty": 4.0}, 16),
]


@pytest.mark.parametrize(("changes", "subcarriers"), ACCESS)
@pytest.mark.parametrize("method", ["auto", "psca"])
def test_every_round_has_an_allocation_and_a_bound(
    changes: dict[str, Any], subcarriers: int | None, method: str
) -> None:
    """Also when the first round is cold, the channel jumps, and devices come and go."""
    rng = np.random.default_rng(3)
    allocator = OnlineAllocator(a_system(**changes), method=method, rel_gap=1e-3)
    for number in range(4):
        states = some_states(rng, subcarriers=subcarriers)
        if number == 1:
            del states["d2"]
        if number == 2:
            states["new"] = replace(states["d0"], samples=900)
        plan = allocator.plan(states)
        _sound(plan)
        assert plan.round_number == number
        assert set(plan.devices) == set(states)
        if method == "auto":
            assert plan.rel_gap <= 1e-3


def test_a_warm_round_equals_a_cold_one() -> None:
    rng = np.random.default_rng(1)
    allocator = OnlineAllocator(a_system(), rel_gap=1e-8)
    for _ in range(3):
        states = some_states(rng)
        warm, cold = allocator.plan(states), OnlineAllocator(a_system(), rel_gap=1e-8).plan(states)
        assert warm.objective == pytest.approx(cold.objective, rel=2e-8)


def test_carried_allocations_follow_the_names(make_instance: MakeInstance) -> None:
    old = make_instance("fdma", 4)
    last = Allocation(
        keep=np.array([0.1, 0.2, 0.3, 0.4]),
        freq_hz=np.arange(4.0) * 1e8 + 5e8,
        power_w=np.full(4, 0.05),
        bandwidth_hz=np.array([1.0, 2.0, 3.0, 4.0]) * 1e5,
    )
    new = make_instance("fdma", 4).take([2, 0, 3]).with_changes(device_names=("dev-0002", "dev-0000", "fresh"))
    moved = carried(old, last, new)
    assert moved is not None
    assert moved.bandwidth_hz is not None
    np.testing.assert_array_equal(moved.keep, [0.3, 0.1, 0.25])
    assert moved.bandwidth_hz.sum() <= new.bandwidth_hz
    assert moved.bandwidth_hz[0] == pytest.approx(3 * moved.bandwidth_hz[1])
    assert carried(old, last, make_instance("ofdma", 4)) is None
    wide = make_instance("ofdma", 3, 6)
    owners = Allocation(np.full(3, 0.2), np.full(3, 1e9), np.full(6, 0.01), owner=np.array([0, 1, 2, 2, -1, 0]))
    fewer = carried(wide, owners, wide.take([2, 0]))
    assert fewer is not None
    np.testing.assert_array_equal(fewer.owner, [1, -1, 0, 0, -1, 1])
    np.testing.assert_array_equal(fewer.power_w, [0.01, 0.0, 0.01, 0.01, 0.0, 0.01])


@pytest.mark.parametrize(("access", "subcarriers"), [("fdma", 8), ("rb", 8), ("ofdma", 16)])
def test_the_spectrum_of_the_last_round_still_carries_something(
    make_instance: MakeInstance, access: Any, subcarriers: int
) -> None:
    """What stands in when time runs out before a method has anything."""
    instance = make_instance(access, 4, subcarriers)
    solver = RoundSolver("psca")
    first = solver.solve(instance)
    assert first.allocation is not None
    faded = Problem(instance.with_changes(gain=0.7 * instance.gain))
    stand_in = on_spectrum(faded, first.allocation)
    assert stand_in is not None
    assert faded.violations(stand_in) == ()
    spectrum = ("owner" if access == "ofdma" else "bandwidth_hz",)
    for name in spectrum:
        np.testing.assert_allclose(getattr(stand_in, name), getattr(first.allocation, name), rtol=1e-9)


def test_out_of_time_falls_back_to_the_last_spectrum(
    make_instance: MakeInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    import edgealloc.rounds.solver as rounds

    instance = make_instance("fdma", 4)
    solver = RoundSolver(time_budget_s=5.0)
    before = solver.solve(instance)
    real = rounds._run

    def nothing(name: str, problem: Problem, options: Options) -> Any:
        found = real(name, problem, options)
        return replace(
            found,
            status=Status.NO_SOLUTION,
            allocation=None,
            objective=np.inf,
            lower_bound=-np.inf,
            message="time",
        )

    monkeypatch.setattr(rounds, "_run", nothing)
    after = solver.solve(instance.with_changes(gain=0.9 * instance.gain))
    assert after.status is Status.FEASIBLE
    assert after.allocation is not None
    assert after.problem.violations(after.allocation) == ()
    assert before.objective <= after.objective < np.inf
    assert -np.inf < after.lower_bound <= after.objective


def test_bounds_at_any_prices_are_bounds(make_instance: MakeInstance) -> None:
    """Weak duality, against the exact optimum: whatever the prices, the allocation near by and the variant."""
    rng = np.random.default_rng(0)
    good = 0
    for changes in ({}, {"exclusion_penalty": 3.0}, {"bound": BoundSpec(pooling="device")}):
        instance = make_instance("ofdma", 3, 6, payload_lora_bits=3e6, bandwidth_hz=3e5, **changes)
        problem = Problem(instance)
        exact = RoundSolver("bnb", rel_gap=1e-9).solve(instance)
        local = solve_online_psca(problem, Options())
        assert local.allocation is not None
        assert local.lower_bound <= exact.objective * (1 + 1e-12)
        good += local.excess_gap < 0.2
        scale = exact.objective / 6
        for _ in range(20):
            prices = scale * rng.exponential(size=6) * rng.integers(0, 2, 6)
            bound = bound_at_prices(problem, local.allocation, prices)
            assert bound <= exact.objective * (1 + 1e-12)
    assert good >= 2  # and they are worth something


def test_a_budget_is_kept() -> None:
    """Measured against the budget with room for a busy machine; benchmarks/online_latency.py measures it well."""
    rng = np.random.default_rng(5)
    allocator = OnlineAllocator(a_system(access="ofdma"), time_budget_s=0.5, rel_gap=1e-9)
    for _ in range(3):
        started = time.perf_counter()
        plan = allocator.plan(some_states(rng, 8, 48))
        assert time.perf_counter() - started < 2 * 0.5
        _sound(plan)


_COUNT_KERNELS = """
import gc, numpy as np
from numba.core.dispatcher import Dispatcher
from edgealloc.data.instance import BoundSpec
from tests.rounds.cells import a_system, some_states
from edgealloc.rounds.allocator import OnlineAllocator
def kernels():
    return sum(len(o.signatures) for o in gc.get_objects() if isinstance(o, Dispatcher))
allocator = OnlineAllocator(a_system(**{changes}), time_budget_s=1.0)
before = kernels()
plan = allocator.plan(some_states(np.random.default_rng(0), subcarriers={subcarriers}))
assert plan.result.allocation is not None
print(before, kernels())
"""


@pytest.mark.parametrize(("changes", "subcarriers"), [ACCESS[1], ACCESS[4]])
def test_warm_up_loads_all_kernels(changes: dict[str, Any], subcarriers: int | None) -> None:
    """In a process of its own, or other tests would have loaded them: the first round compiles nothing."""
    code = _COUNT_KERNELS.replace("{changes}", repr(changes)).replace("{subcarriers}", repr(subcarriers))
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    before, after = map(int, run.stdout.split())
    assert before == after > 0


def test_who_cannot_be_carried_is_named() -> None:
    rng = np.random.default_rng(2)
    states = some_states(rng) | {"far": replace(some_states(rng)["d0"], gain=1e-17)}
    for system in (a_system(), a_system(exclusion_penalty=4.0)):
        plan = OnlineAllocator(system).plan(states)
        _sound(plan)
        assert plan.drop == ("far",)
        assert "planned without far: infeasible even alone, lacks latency_s" in plan.message
        assert set(plan.selected) == set(states) - {"far"}
        assert Plan.from_json(plan.to_json()) == plan
        alone = OnlineAllocator(system).plan({key: states[key] for key in states if key != "far"})
        assert plan.objective == alone.objective


@pytest.mark.parametrize("method", ["auto", "psca"])
def test_too_little_spectrum_for_all_is_shared_by_some(method: str) -> None:
    """Nobody is at fault alone: as many as fit stay, and they do fit."""
    states = some_states(np.random.default_rng(4), 6)
    system = a_system(bandwidth_hz=1.5e4)
    plan = OnlineAllocator(system, method=method).plan(states)
    assert not plan.selected
    assert 0 < len(plan.drop) < 6
    rest = OnlineAllocator(system, method=method).plan({k: s for k, s in states.items() if k not in plan.drop})
    _sound(rest)
    assert len(rest.selected) == 6 - len(plan.drop)


def test_dropping_is_minimal_where_one_device_is_enough(make_instance: MakeInstance) -> None:
    instance: Instance = make_instance("fdma", 4)
    gain = instance.gain.copy()
    gain[1] = 1e-18
    assert who_to_drop(instance.with_changes(gain=gain)) == ("dev-0001",)


def test_a_late_device_gets_a_margin_and_loses_it_again() -> None:
    allocator = OnlineAllocator(a_system(), stragglers=StragglerPolicy(forget=0.5))
    rng = np.random.default_rng(0)
    states = some_states(rng)
    plan = allocator.plan(states)
    assert plan.for_device("d1")["latency_s"] > 14.9
    allocator.report({"d1": 1.3 * plan.for_device("d1")["latency_s"]})
    assert allocator.stragglers is not None
    assert allocator.stragglers.slowdown("d1") == pytest.approx(1.3)
    assert allocator.stragglers.slowdown("d0") == 1.0
    plan = allocator.plan(states)
    own = plan.for_device("d1")
    bits, work = 1e4 + 1e7 * own["keep"], 1e10 + 2e8 * own["keep"]
    snr = own["power_w"] * states["d1"].gain / (10**-20.4 * own["bandwidth_hz"])  # type: ignore[operator]
    true_latency = work / own["freq_hz"] + bits / (own["bandwidth_hz"] * np.log2(1 + snr))
    assert 1.3 * true_latency <= 15.0 * (1 + 1e-9)
    assert own["latency_s"] == pytest.approx(1.3 * true_latency, rel=1e-6)
    for _ in range(3):
        allocator.report({})  # in time
        allocator.plan(states)
    assert allocator.stragglers.slowdown("d1") == pytest.approx(1 + 0.3 / 8)


def test_a_device_that_never_answers_rests_longer_and_longer() -> None:
    policy = StragglerPolicy(patience=2, rest_rounds=2, longest_rest=4)
    allocator = OnlineAllocator(a_system(), stragglers=policy)
    states = some_states(np.random.default_rng(0))
    there = []
    for _ in range(20):
        plan = allocator.plan(states)
        there.append("d3" in plan.selected)
        if not there[-1]:
            assert plan.for_device("d3") == {"selected": False, "reason": "resting"}
        allocator.report({"d3": None})
    assert "".join("x" if t else "." for t in there) == "xx..xx....xx....xx.."


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"method": "convx"}, "method"),
        ({"time_budget_s": 0.0}, "time_budget_s"),
        ({"time_budget_s": float("nan")}, "time_budget_s"),
        ({"rel_gap": -1.0}, "rel_gap"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        OnlineAllocator(a_system(), **options)
    assert field in {fault.field for fault in caught.value.faults}
    with pytest.raises(InputError, match="patience"):
        StragglerPolicy(patience=0)


def test_nobody_there_is_a_round_too() -> None:
    allocator = OnlineAllocator(a_system())
    states = some_states(np.random.default_rng(0))
    asleep = {key: replace(state, available=False) for key, state in states.items()}
    _sound(allocator.plan(states))
    assert allocator.plan(asleep).status == "no_devices"
    assert allocator.plan({}).status == "no_devices"
    _sound(allocator.plan(states))
    assert allocator.round_number == 4


def test_a_control_does_not_print_its_arrays(make_instance: MakeInstance) -> None:
    """Restoring a signal handler prints the old one: with arrays in it, that took most of a warm round's time."""
    first = RoundSolver().solve(make_instance("fdma", 4))
    assert "array" not in repr(Control(Options(warm_start=first.allocation)))


@pytest.mark.parametrize("policy", [EqualSplit(), Rollover(), VirtualQueue()])
def test_horizon_budgets_hold_in_an_allocator(policy: EnergyPolicy) -> None:
    """Also for a device that is away for a while; one without a budget is limited by its state alone."""
    rng = np.random.default_rng(0)
    budget = {"d0": 24.0, "d1": 24.0, "d2": 30.0}
    allocator = OnlineAllocator(a_system(bandwidth_hz=1e5), energy=EnergyHorizon(budget, 12, policy))
    spent = dict.fromkeys(("d0", "d1", "d2", "d3"), 0.0)
    for number in range(14):
        states = some_states(rng, 4)
        if number in (3, 4):
            del states["d2"]
        plan = allocator.plan(states)
        for device in plan.selected:
            energy = plan.for_device(device)["energy_j"]
            assert energy <= 3.0
            spent[device] += energy
    for device, total in budget.items():
        assert 0.5 * total < spent[device] <= total
    assert spent["d3"] > 30.0


def test_a_spent_device_is_left_out_and_says_so() -> None:
    allocator = OnlineAllocator(a_system(), energy=EnergyHorizon({"d1": 2.5}, 1, Rollover()))
    states = some_states(np.random.default_rng(0), 3)
    assert set(allocator.plan(states).selected) == set(states)
    assert allocator.energy is not None
    allocator.energy.ledger.spend(("d1",), np.array([1.0]))
    plan = allocator.plan(states)
    assert plan.for_device("d1") == {"selected": False, "reason": "horizon budget spent"}
    assert set(plan.selected) == {"d0", "d2"}


def test_what_looks_odd_is_said_once_and_not_in_every_round() -> None:
    allocator = OnlineAllocator(replace(a_system(), noise_psd_dbm_per_hz=-200.0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", PlausibilityWarning)
        for number in range(3):
            allocator.plan(some_states(np.random.default_rng(number)))
    assert ["noise_psd_dbm_per_hz" in str(w.message) for w in said] == [True]


def test_what_looks_odd_is_said_once_while_no_round_finds_anything() -> None:
    allocator = OnlineAllocator(replace(a_system(), noise_psd_dbm_per_hz=-40.0))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", PlausibilityWarning)
        found = [allocator.plan(some_states(np.random.default_rng(number))).selected for number in range(3)]
    assert found == [(), (), ()]
    assert len(said) == 1
