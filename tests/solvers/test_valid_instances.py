"""No method raises for a valid instance: extreme but valid ones get an answer, or a status with what was found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import conformance
from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.data.spec import BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.errors import EdgeallocError, InputError, RefusedError
from edgealloc.files.instance import load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.method import Method
from edgealloc.methods import METHODS
from edgealloc.solvers.base import Options
from edgealloc.verify.solution import verify

SECONDS = 60.0  # a safeguard on a slow machine; the cases take a second each


def fault(folder: Path, name: str) -> tuple[Instance, float | None]:
    """An instance that failed once, and the best value known of it."""
    best = json.loads((folder / "references.json").read_text(encoding="utf-8"))[name].get("best_known")
    return load_instance(folder / f"{name}.json"), best


def honest(result: Result, best: float | None) -> None:
    """The allocation breaks no budget, is worth what is said, and the bound is below the best value known."""
    assert result.status is not Status.ERROR, result.message
    if result.allocation is not None:
        use = result.problem.evaluate(result.allocation)
        assert use.feasible, use.violations
        assert use.objective == pytest.approx(result.objective, rel=1e-12)
    if best is not None:
        assert result.lower_bound <= best * (1.0 + 1e-12)


def weak_cell(make_instance: Any, **changes: Any) -> Instance:
    """Full power gives a signal-to-noise ratio of about 1e-5 on each sub-carrier, enough for a few bits."""
    base = make_instance("ofdma", 2, 6)
    fields = {"payload_fixed_bits": 0.0, "payload_lora_bits": 40.0, "gain": base.gain * 1e-9}
    return base.with_changes(**(fields | changes))  # type: ignore[no-any-return]


@pytest.mark.parametrize("scale", [1e-7, 1e-9, 1e-12, 1e-15])
def test_low_signal_to_noise_ratios_keep_their_digits(make_instance: Any, scale: float) -> None:
    strong = make_instance("ofdma", 2, 6)
    inst = weak_cell(make_instance, gain=strong.gain * scale, payload_lora_bits=4e10 * scale)
    result = solve(inst, "bnb", time_limit=SECONDS)
    assert result.status is Status.OPTIMAL, result
    honest(result, None)
    assert result.allocation is not None
    assert result.allocation.keep.max() < 1.0, "the case must be one in which power is scarce"
    report = verify(inst, result.solution())
    assert report.ok, str(report)


@pytest.mark.parametrize("pooling", ["device", "global"])
def test_a_device_that_must_take_part_does_however_dear_that_is(make_instance: Any, pooling: Any) -> None:
    """The free minimum is 1e4 times below the optimum: it says nothing about what leaving out may cost."""
    bound = BoundSpec(loss_range=1e-6, lipschitz=0.0, pooling=pooling)
    inst = make_instance("ofdma", 2, 6, bound=bound, payload_lora_bits=2e8)
    result = solve(inst, "bnb", time_limit=SECONDS)
    assert result.objective > 1e4 * result.free_objective
    assert result.status is Status.OPTIMAL, result
    honest(result, None)


@pytest.mark.parametrize("name", ["seed22", "seed1048", "seed522", "seed386"])
def test_cells_that_broke_a_budget_are_solved(faults: Path, name: str) -> None:
    inst, best = fault(faults, name)
    result = solve(inst, "bnb", time_limit=SECONDS)
    assert result.status is Status.OPTIMAL, result
    honest(result, best)
    assert best is not None
    assert result.objective <= best * (1.0 + 1e-4)


def test_the_local_method_finds_its_own_way_at_a_low_signal_to_noise_ratio(faults: Path) -> None:
    """At 1e-12 its allocation broke a budget, for power and rate were differences without digits."""
    inst, best = fault(faults, "seed1048")
    result = solve(inst, "psca", time_limit=SECONDS)
    assert result.message.startswith("local solution"), result
    honest(result, best)


def test_what_needs_several_subcarriers_at_once_is_found(faults: Path) -> None:
    inst, best = fault(faults, "seed367")
    result = solve(inst, "bnb", time_limit=SECONDS)
    assert result.status is Status.OPTIMAL, result
    honest(result, best)
    assert best is not None
    assert result.objective <= best * (1.0 + 1e-9)


@pytest.mark.parametrize("method", [*METHODS])
def test_little_power_far_away(make_instance: Any, method: str) -> None:
    """One device, two sub-carriers, a signal-to-noise ratio of 5e-5."""
    if method in ("cvxpy", "scip", "pyomo", "baseline"):
        pytest.skip("not of ours, or not meant to be good")
    inst = make_instance(
        "ofdma",
        1,
        2,
        gain=np.full((1, 2), 1e-13),
        power_max_w=1e-6,
        payload_lora_bits=300.0,
        payload_fixed_bits=3.0,
    )
    if not METHODS[method].takes(Problem(inst)):
        pytest.skip("not log-convex")
    best = solve(inst, "bnb").objective
    result = solve(inst, method, time_limit=SECONDS)
    honest(result, best * (1.0 + 1e-4))
    assert result.objective == pytest.approx(best, rel=2e-4)


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("penalty", [1e6, 1e9])
def test_leaving_out_may_cost_far_more_than_all_else(make_instance: Any, penalty: float, common: bool) -> None:
    """Prices then are as large as the penalty: a set is of interest at a priced share of that size."""
    inst = make_instance(
        "ofdma", 3, 4, payload_fixed_bits=4e7, downlink_bps=np.inf, exclusion_penalty=penalty, common_keep=common
    )
    result = solve(inst, "bnb", time_limit=SECONDS)
    assert result.status is Status.OPTIMAL, result
    honest(result, None)
    assert result.allocation is not None
    assert result.allocation.selected.tolist() == [False, True, True]


@pytest.mark.parametrize("method", ["psca", "psca+"])
def test_nobody_is_an_answer_where_leaving_out_is_allowed(make_instance: Any, method: str) -> None:
    for access, subcarriers in (("fdma", 0), ("rb", 0), ("ofdma", 4)):
        base = make_instance(access, 2, subcarriers)
        inst = base.with_changes(latency_s=1.0, exclusion_penalty=3.0)  # no device can compute in time
        result = solve(inst, method)
        assert result.status is Status.LOCALLY_SOLVED, result
        honest(result, None)
        assert result.allocation is not None
        assert not result.allocation.selected.any()


@pytest.mark.parametrize(("devices", "subcarriers", "penalty"), [(1, 1, None), (2, 4, 1e-6)])
def test_kicks_of_one_subcarrier_or_of_nobodys(
    make_instance: Any, devices: int, subcarriers: int, penalty: float | None
) -> None:
    """A single sub-carrier cannot change hands twice, and where everybody is out there is nobody to take one."""
    inst = make_instance("ofdma", devices, subcarriers, exclusion_penalty=penalty)
    result = solve(inst, "psca+")
    assert result.status is Status.LOCALLY_SOLVED, result
    honest(result, None)


@pytest.mark.parametrize("method", ["psca", "psca+"])
@pytest.mark.parametrize(
    "name", ["seed25", "seed3", "seed111", "psca_plus_all_left_out", "psca_plus_one_subcarrier"]
)
def test_psca_finds_something_where_there_is_something(faults: Path, name: str, method: str) -> None:
    inst, best = fault(faults, name)
    result = solve(inst, method)
    assert result.status is Status.LOCALLY_SOLVED, result
    honest(result, best)


def test_a_free_minimum_of_zero_is_no_divisor(make_instance: Any) -> None:
    inst = make_instance("fdma", 2, bound=BoundSpec(loss_range=0.0), latency_s=100.0, energy_j=1e3)
    problem = Problem(inst)
    assert problem.free_objective == 0.0
    assert problem.size > 0.0
    for method in ("bnb", "highs"):
        result = solve(problem, method, time_limit=SECONDS)
        honest(result, 0.0)
        assert result.objective == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["highs_zero_free", "seed774", "seed237"])
def test_backends_end_with_a_status(faults: Path, name: str) -> None:
    inst, best = fault(faults, name)
    honest(solve(inst, "highs", time_limit=5.0), best)


def test_prices_out_of_range_end_the_search(faults: Path) -> None:
    inst, best = fault(faults, "seed237")
    for method in ("convex", "bnb"):
        result = solve(inst, method, time_limit=3.0)
        assert "broke down" not in result.message
        honest(result, best)


def test_a_proof_of_ours_keeps_the_time_limit_of_a_backend(faults: Path, monkeypatch: Any) -> None:
    from edgealloc.solvers.backends import judge

    asked: list[float] = []
    own = judge.proven_infeasible

    def noted(problem: Problem, left: float) -> Any:
        asked.append(left)
        return own(problem, left)

    monkeypatch.setattr(judge, "proven_infeasible", noted)
    inst, best = fault(faults, "seed837")
    honest(solve(inst, "highs", time_limit=2.0), best)
    assert asked
    assert asked[0] <= 2.0


def broken(problem: Problem, options: Options) -> Result:
    """A method that divides by zero."""
    raise ZeroDivisionError("float division by zero")


def refusing(problem: Problem, options: Options) -> Result:
    """A method that does not take the problem."""
    raise RefusedError("not this one")


def raising(snapshot: Snapshot) -> None:
    """A callback that fails."""
    raise LookupError("mine")


def method_of(entry: str) -> Method:
    """A method named ``bnb`` of a function of this module."""
    return Method("bnb", "", lambda problem: True, "any problem", f"{__name__}:{entry}")


def test_a_method_that_breaks_down_says_so_and_keeps_the_warm_start(
    make_instance: Any, monkeypatch: Any, caplog: Any
) -> None:
    inst = make_instance("fdma", 3)
    start = solve(inst).allocation
    monkeypatch.setitem(METHODS, "bnb", method_of("broken"))
    with pytest.raises(ZeroDivisionError):  # in every test, but for those that ask for what users see
        solve(inst, "bnb")
    monkeypatch.delenv("EDGEALLOC_RAISE")
    caplog.set_level("DEBUG", "edgealloc")
    result = solve(inst, "bnb")
    assert "ZeroDivisionError" in str(caplog.records[-1].exc_text or caplog.text)
    assert (result.status, result.allocation, result.lower_bound) == (Status.ERROR, None, -math.inf)
    assert "please report" in result.message
    assert "ZeroDivisionError" in result.message
    kept = solve(inst, "bnb", warm_start=start)
    assert (kept.status, kept.allocation) == (Status.FEASIBLE, start)
    assert "please report" in kept.message
    honest(kept, None)


def test_what_the_caller_can_mend_still_raises(make_instance: Any, monkeypatch: Any) -> None:
    inst = make_instance("ofdma", 2, 4)
    with pytest.raises(EdgeallocError, match="takes a log-convex problem"):
        solve(inst, "convex")
    with pytest.raises(InputError):
        solve(inst, "psca:nonsense")
    with pytest.raises(LookupError, match="mine"):
        solve(inst, "bnb", callback=raising)
    monkeypatch.setitem(METHODS, "bnb", method_of("refusing"))
    with pytest.raises(RefusedError, match="not this one"):
        solve(inst, "bnb")


def test_levels_are_answered_as_one_by_one(make_instance: Any) -> None:
    """P-SCA's best keep levels under caps are those that a plain search over each list finds."""
    from edgealloc.solvers.psca.plan import answer_costs, factors, own_cost

    lists = (np.array([0.1, 0.3, 0.7]), None, np.array([0.2, 0.9]))
    problem = Problem(make_instance("fdma", 3, keep_levels=lists))
    caps = np.array([[0.5, 0.6, 0.1]])
    keep, cost = answer_costs(problem, caps, 0.3)
    assert math.isinf(cost[0, 2])
    trial = [own_cost(problem, factors(problem, 1)[0], np.array([s, 0.5, 0.5]), 0.3)[0] for s in (0.1, 0.3)]
    assert keep[0, 0] == (0.1, 0.3)[int(np.argmin(trial))]
    assert cost[0, 0] == min(trial)


@pytest.mark.parametrize("over", [False, True])
def test_an_ulp_of_spectrum_is_judged_as_the_checker_does(make_instance: Any, by_hand: Any, over: bool) -> None:
    """Ten bandwidths whose rounded sum is the whole spectrum, and whose true sum is an ulp less or more."""
    share = np.full(10, 1e4)
    share[1:] = np.nextafter(1e4, np.inf if over else 0.0)
    inst = make_instance("fdma", 10, bandwidth_hz=1e5, downlink_bps=np.inf)
    assert np.sum(share) == inst.bandwidth_hz
    by = by_hand(inst.with_changes(bandwidth_hz=2e5), 0.1, bandwidth_hz=share).allocation
    problem = Problem(inst)
    assert [broken.constraint for broken in problem.violations(by)] == (["bandwidth_hz"] if over else [])
    use = problem.evaluate(by)
    result = replace(solve(inst, "bnb", time_limit=SECONDS), allocation=by, objective=use.objective)
    report = verify(inst, replace(result, lower_bound=-math.inf, status=Status.FEASIBLE).solution())
    assert report.ok != over, str(report)


@pytest.mark.parametrize("access", ["fdma", "rb"])
@pytest.mark.parametrize("term", ["curve", "logistic"])
def test_where_all_that_is_free_costs_nothing_it_is_found(access: str, term: str) -> None:
    """No range of losses, no stability term: to keep all is best, and a bound of that is what it rounds by."""
    points = UnderfitCurve(np.array([0.005, 0.1, 0.3, 0.6, 0.8, 1.0]), np.array([3.0, 1.0, 0.5, 0.45, 0.1, 0.0]))
    more = {"underfit_curve": points} if term == "curve" else {"underfit_logistic": UnderfitLogistic(0.05, 11.0)}
    bound = BoundSpec(term, loss_range=0.0, **more)
    blocks = {"access": "rb", "block_hz": 1e5} if access == "rb" else {}
    result = solve(conformance.cell(bound=bound, bandwidth_hz=6e5, **blocks), time_limit=20.0)
    assert result.status.has_allocation
    assert result.objective < 1e-9
    assert -1e-12 < result.lower_bound <= result.objective
    assert verify(result.problem.instance, result.solution()).ok
