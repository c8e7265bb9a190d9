"""Constraints of the user's own, through cvxpy, Pyomo and HiGHS."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.data.constraints import (
    Constraint,
    EnergyCap,
    KeepFloor,
    ParticipationCap,
    PowerCap,
    SpectrumCap,
    SubcarrierCap,
)
from edgealloc.data.outcome import Status
from edgealloc.errors import InputError, RefusedError
from edgealloc.files.constraints import load_constraints, save_constraints
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS, choose
from edgealloc.solvers.backends.cvxpy_fdma import to_cvxpy
from edgealloc.solvers.backends.highs.solve import solve_highs
from edgealloc.solvers.backends.pyomo_model import to_pyomo
from edgealloc.solvers.backends.pyomo_run import solve_model
from edgealloc.solvers.base import Options
from edgealloc.verify.solution import verify
from tests.solvers.backends.problems import (
    exact,
    needs_cvxpy,
    needs_pyomo,
    needs_scip,
    problem_of,
)


@needs_cvxpy
def test_a_cap_on_a_slice_by_two_routes_that_share_no_model() -> None:
    import cvxpy as cp

    problem = problem_of()
    cap = 0.3
    model = to_cvxpy(problem)
    conic = model.solve([cp.sum(cp.exp(model.bandwidth[:2])) <= cap])
    row = SpectrumCap(cap * problem.instance.bandwidth_hz, [0, 1])
    linear = solve_highs(problem.constrained([row]), Options(rel_gap=1e-6))
    assert conic.status is Status.LOCALLY_SOLVED, conic.message  # nothing proves it, and it does not say so
    assert linear.objective == pytest.approx(conic.objective, rel=1e-5)
    assert linear.status is Status.OPTIMAL
    assert linear.objective > 1.01 * exact(problem).objective  # the cap must cost something
    for result in (conic, linear):
        assert result.allocation is not None
        assert result.allocation.bandwidth_hz is not None
        held = result.allocation.bandwidth_hz[:2].sum() / problem.instance.bandwidth_hz
        assert held <= cap * (1 + 1e-8)


@needs_cvxpy
def test_a_keep_rate_bounded_by_a_function_of_bandwidth_in_cvxpy() -> None:
    """A concave bound in logarithms: s <= c b^(1/2); at the answer it binds, and without it the rate is higher."""
    problem = problem_of()
    model, inst = to_cvxpy(problem), problem.instance
    free = exact(problem).allocation
    assert free is not None
    assert free.bandwidth_hz is not None
    level = math.log(0.8 * free.keep[0] / math.sqrt(free.bandwidth_hz[0] / inst.bandwidth_hz))
    result = model.solve([model.keep[0] <= level + 0.5 * model.bandwidth[0]])
    assert result.allocation is not None, result.message
    assert result.allocation.bandwidth_hz is not None
    cap = math.exp(level) * math.sqrt(result.allocation.bandwidth_hz[0] / inst.bandwidth_hz)
    assert result.allocation.keep[0] == pytest.approx(cap, rel=1e-5)
    assert result.objective > exact(problem).objective * (1 + 1e-4)


@needs_cvxpy
def test_a_cap_on_the_power_and_upload_energy_of_a_group_in_cvxpy() -> None:
    import cvxpy as cp

    problem = problem_of()
    model, inst = to_cvxpy(problem), problem.instance
    free = exact(problem)
    assert free.allocation is not None
    budget = inst.energy_j - inst.energy_static_j
    spent = free.allocation.power_w[:2].sum()
    watt = cp.multiply(budget / inst.latency_s, cp.exp(model.upload_energy - model.upload_time))
    result = model.solve([cp.sum(watt[:2]) <= 0.7 * spent])
    assert result.allocation is not None, result.message
    assert result.allocation.power_w[:2].sum() <= 0.7 * spent * (1 + 1e-6)
    assert result.objective > free.objective * (1 + 1e-4)
    joule = cp.multiply(budget, cp.exp(model.upload_energy))
    use = problem.evaluate(free.allocation)
    bits = inst.payload_lora_bits * free.allocation.keep
    energy = float((free.allocation.power_w * bits / use.rate_bps)[:2].sum())
    result = model.solve([cp.sum(joule[:2]) <= 0.7 * energy])
    assert result.allocation is not None, result.message
    used = result.allocation.power_w * inst.payload_lora_bits * result.allocation.keep
    used = used / problem.evaluate(result.allocation).rate_bps
    assert used[:2].sum() == pytest.approx(0.7 * energy, rel=1e-5)


@needs_cvxpy
def test_users_impossible_constraints_are_not_the_instances_infeasibility() -> None:
    import cvxpy as cp

    model = to_cvxpy(problem_of())
    result = model.solve([cp.sum(cp.exp(model.bandwidth)) <= 1e-4])
    assert result.status is Status.NO_SOLUTION
    assert not result.diagnosis


@needs_cvxpy
def test_a_repair_that_breaks_a_users_constraint_is_no_solution() -> None:
    model = to_cvxpy(problem_of())
    solved = model.solve()
    broken = model._with_users_rows(solved, [model.keep[0] >= 0.0])  # keep rate 1, which no repair reaches
    assert broken.status is Status.NO_SOLUTION
    assert broken.allocation is None


@needs_cvxpy
def test_new_channels_need_no_compilation() -> None:
    problem = problem_of()
    model = to_cvxpy(problem)
    assert model.problem.is_dcp(dpp=True)
    model.solve()
    compiled = model.problem._cache.param_prog
    moved = model.with_gain(problem.instance.gain * np.array([0.5, 2.0, 1.3]))
    result = moved.solve()
    assert model.problem._cache.param_prog is compiled
    assert result.objective == pytest.approx(exact(moved.source).objective, rel=1e-6)
    assert result.objective != pytest.approx(exact(problem).objective, rel=1e-3)


@needs_pyomo
def test_a_constraint_in_a_pyomo_model() -> None:
    import pyomo.environ as pyo

    problem = problem_of()
    free = edgealloc.solve(problem, "pyomo:ipopt")
    assert free.allocation is not None
    wanted = 1.2 * free.allocation.keep[0]
    model = to_pyomo(problem)
    model.mine = pyo.Constraint(expr=model.x["dev-0000"] >= math.log(wanted))
    result = solve_model(problem, model, "ipopt")
    assert result.allocation is not None
    assert result.allocation.keep[0] == pytest.approx(wanted, rel=1e-6)
    assert result.objective > free.objective * (1 + 1e-4)
    assert result.status is Status.LOCALLY_SOLVED


@needs_pyomo
def test_a_cap_on_a_slice_and_a_bound_on_a_keep_rate_in_a_pyomo_model() -> None:
    import pyomo.environ as pyo

    problem = problem_of()
    inst, cap = problem.instance, 0.3
    model = to_pyomo(problem)
    pair = ("dev-0000", "dev-0001")
    model.mine = pyo.Constraint(expr=sum(pyo.exp(model.beta[name]) for name in pair) <= cap)
    result = solve_model(problem, model, "ipopt")
    row = SpectrumCap(cap * inst.bandwidth_hz, ["dev-0000", "dev-0001"])
    linear = solve_highs(problem.constrained([row]), Options(rel_gap=1e-6))
    assert result.objective == pytest.approx(linear.objective, rel=1e-5)
    model = to_pyomo(problem)
    free = exact(problem).allocation
    assert free is not None
    assert free.bandwidth_hz is not None
    factor = 0.8 * free.keep[2] / math.sqrt(free.bandwidth_hz[2] / inst.bandwidth_hz)
    model.mine = pyo.Constraint(expr=model.x["dev-0002"] <= math.log(factor) + 0.5 * model.beta["dev-0002"])
    result = solve_model(problem, model, "ipopt")
    assert result.allocation is not None
    assert result.allocation.bandwidth_hz is not None
    share = result.allocation.bandwidth_hz[2] / inst.bandwidth_hz
    assert result.allocation.keep[2] == pytest.approx(factor * math.sqrt(share), rel=1e-5)
    assert result.objective > exact(problem).objective * (1 + 1e-4)


@needs_pyomo
@needs_scip
@pytest.mark.slow
def test_a_quota_in_a_pyomo_model() -> None:
    import pyomo.environ as pyo

    problem = problem_of(exclusion_penalty=3.0)
    model = to_pyomo(problem, "direct")
    model.mine = pyo.Constraint(expr=sum(model.selected[name] for name in model.K) <= 2)
    result = solve_model(problem, model, "scip_direct", Options(rel_gap=1e-3, time_limit=300))
    linear = solve_highs(problem.constrained([ParticipationCap(2)]), Options(rel_gap=1e-5))
    assert result.allocation is not None, result.message
    assert result.allocation.selected.sum() <= 2
    assert result.objective == pytest.approx(linear.objective, rel=2e-3)


def test_side_constraints_with_levels_and_a_quota() -> None:
    levels = (np.array([0.02, 0.1, 0.3, 0.6]),) * 3
    problem = problem_of(keep_levels=levels, exclusion_penalty=3.0)
    result = solve_highs(problem.constrained([ParticipationCap(2)]), Options(rel_gap=1e-6))
    assert result.status is Status.OPTIMAL, result.message
    assert result.allocation is not None
    assert result.allocation.selected.sum() <= 2
    mute = [np.where(np.arange(3) == k, 0.0, problem.instance.gain) for k in range(3)]
    one_out = [exact(problem_of(keep_levels=levels, exclusion_penalty=3.0, gain=gain)) for gain in mute]
    assert result.objective == pytest.approx(min(r.objective for r in one_out), rel=1e-6)


def _group_caps(share: float) -> list[Constraint]:
    """Caps at a share of what the first two devices take of their own accord."""
    free = exact(problem_of())
    assert free.allocation is not None
    assert free.allocation.bandwidth_hz is not None
    use, pair = problem_of().evaluate(free.allocation), [0, 1]
    return [
        SpectrumCap(share * float(free.allocation.bandwidth_hz[pair].sum()), pair, "slice"),
        PowerCap(share * float(use.power_w[pair].sum()), pair),
        EnergyCap(share * float(use.energy_j[pair].sum()), ["dev-0000", "dev-0001"]),
    ]


@needs_cvxpy
@needs_scip
@pytest.mark.parametrize("index", range(3))
def test_caps_on_a_group_by_routes_that_share_no_model(index: int) -> None:
    row = _group_caps(0.8)[index]
    found = {
        name: edgealloc.solve(problem_of(), name, constraints=[row], rel_gap=1e-5) for name in ("cvxpy", "scip")
    }
    found["auto"] = edgealloc.solve(problem_of(), constraints=[row], rel_gap=1e-5)
    assert found["auto"].method == ("convex" if index == 0 else "scip")
    assert index == 0 or type(row).__name__ in found["auto"].message
    assert found["scip"].status is Status.OPTIMAL, found["scip"].message
    assert found["cvxpy"].status is Status.LOCALLY_SOLVED, found["cvxpy"].message
    for result in found.values():
        assert result.objective == pytest.approx(found["scip"].objective, rel=2e-5)
        assert result.objective > exact(problem_of()).objective * (1 + 1e-4)
        report = verify(result.problem.instance, result.solution(), constraints=[row])
        assert report.ok, str(report)


@needs_scip
def test_caps_with_subcarriers_in_scip_agree_with_bnb() -> None:
    instance = conformance.ofdma()
    free = edgealloc.solve(instance, rel_gap=1e-5)
    assert free.allocation is not None
    use = free.problem.evaluate(free.allocation)
    power = PowerCap(0.5 * float(use.power_w.sum()))
    capped = edgealloc.solve(instance, "scip", constraints=[power], rel_gap=1e-3)
    assert capped.allocation is not None, capped.message
    assert capped.lower_bound > free.objective
    row = SubcarrierCap(3)
    ours, theirs = (edgealloc.solve(instance, name, constraints=[row], rel_gap=1e-4) for name in ("bnb", "scip"))
    assert theirs.objective == pytest.approx(ours.objective, rel=2e-4)


def test_floors_of_keep_rates_are_exact_in_every_method() -> None:
    free = exact(problem_of())
    assert free.allocation is not None
    floor = KeepFloor(1.1 * float(free.allocation.keep[0]), ["dev-0000"])
    low = np.array(problem_of().instance.keep_min)
    low[0] = floor.keep_min
    want = exact(problem_of(keep_min=low))
    for method in ("convex", "bnb", "highs", "psca", "baseline:common"):
        got = edgealloc.solve(problem_of(), method, constraints=[floor], rel_gap=1e-6)
        assert got.allocation is not None, got.message
        assert got.allocation.keep[0] >= floor.keep_min
        assert got.lower_bound <= want.objective * (1 + 1e-9)
        assert got.free_objective == free.free_objective
        if method in ("convex", "bnb", "highs"):
            assert got.objective == pytest.approx(want.objective, rel=2e-6)
        assert verify(problem_of().instance, got.solution(), rel_gap=1e-5).ok


def test_a_method_that_cannot_take_a_constraint_says_so_and_who_can() -> None:
    instance = problem_of().instance
    row = SpectrumCap(1e4, [0], "lab")
    for method in ("psca", "psca+", "baseline:equal"):
        with pytest.raises(RefusedError, match=r"SpectrumCap 'lab'.*convex.*highs"):
            edgealloc.solve(instance, method, constraints=[row])
    with pytest.raises(RefusedError, match="PowerCap"):
        edgealloc.solve(instance.with_changes(exclusion_penalty=3.0), constraints=[PowerCap(0.1)])
    with pytest.raises(RefusedError, match="PowerCap"):
        METHODS["convex"].run(Problem(instance, constraints=[PowerCap(0.1)]), Options())


def test_a_method_of_ones_own_that_ignores_a_constraint_is_found_out() -> None:
    def ignorant(problem: Problem, options: Options) -> Result:
        return edgealloc.solve(Problem(problem.instance))

    result = edgealloc.solve(problem_of(), ignorant, constraints=[PowerCap(1e-6)])
    assert result.status is Status.ERROR
    assert "PowerCap" in result.message
    kept = edgealloc.solve(problem_of(), ignorant, constraints=[KeepFloor(0.021)])
    assert kept.status is Status.OPTIMAL, kept.message


def test_what_only_constraints_forbid_is_said_to_be_so() -> None:
    result = edgealloc.solve(problem_of(), constraints=[KeepFloor(1.0)])
    assert result.status is Status.INFEASIBLE
    (finding,) = result.diagnosis
    assert (finding.device, finding.budget) == (None, "constraints")
    assert "KeepFloor" in result.message
    report = verify(problem_of().instance, result.solution())
    assert report.ok
    assert any("NOT proved" in note for note in report.notes)
    alone = edgealloc.solve(problem_of(latency_s=5.5), constraints=[KeepFloor(0.5)])
    assert alone.status is Status.INFEASIBLE
    assert alone.diagnosis[0].device is not None
    assert verify(problem_of(latency_s=5.5).instance, alone.solution()).ok


class _Labelled(list[int]):
    """As a pandas Series: whether the devices are its values or its labels nobody can know."""

    def keys(self) -> list[str]:
        return ["dev-0000", "dev-0001"]


def test_constraints_that_do_not_fit_are_refused_with_every_fault() -> None:
    rows = [
        SpectrumCap(math.nan, ["dev-0000"], "a"),
        SpectrumCap(-1.0, {0: -1.0}, "b"),
        KeepFloor(2.0, ["dev-0001"], "c"),
        PowerCap(1.0, ["dev-001"], "d"),
        EnergyCap(1.0, [0, "dev-0000"], "e"),
        SubcarrierCap(2, name="f"),
        KeepFloor(0.5, {0: 2.0}, "g"),
        ParticipationCap(1, [], "h"),
        SpectrumCap(1.0, _Labelled([1, 2]), "i"),
    ]
    with pytest.raises(InputError) as caught:
        edgealloc.solve(problem_of(), constraints=rows)
    assert sorted({fault.where for fault in caught.value.faults}) == list("abcdefghi")
    assert "did you mean" in str(caught.value)
    for wrong in ("text", 3, [3], [SpectrumCap]):
        with pytest.raises(InputError):
            edgealloc.solve(problem_of(), constraints=wrong)  # type: ignore[arg-type]


def test_least_and_front_keep_the_constraints() -> None:
    row = KeepFloor(0.2, [0])
    (point,) = edgealloc.front(Problem(problem_of().instance, constraints=[row]), "energy_j", [1.0])
    assert point.problem.constraints == (KeepFloor(0.2, ("dev-0000",)),)
    assert point.allocation is not None
    assert point.allocation.keep[0] >= 0.2


def test_auto_is_no_method_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "mine", replace(METHODS["baseline"], name="mine", chosen=True, foreign=True))
    assert choose("auto", problem_of().constrained([PowerCap(0.1, [0, 1])])).name in ("scip", "cvxpy")


def test_weights_of_participation_may_be_large() -> None:
    """A sum of bytes, say, that the limit meets exactly: HiGHS' tolerance is absolute."""
    weights = {0: 5.09457300e14, 1: 8.60370957e14, 2: 2.15327690e14}
    row = ParticipationCap(weights[0] + weights[1], weights)
    problem = problem_of(exclusion_penalty=3.0)
    result = solve_highs(problem.constrained([row]), Options(rel_gap=1e-4))
    assert result.status is Status.OPTIMAL, result.message
    assert result.objective == pytest.approx(exact(problem).objective, rel=1e-4)  # which leaves out the first


@needs_scip
def test_what_scip_calls_infeasible_is_no_bound() -> None:
    result = edgealloc.solve(problem_of(), "scip", constraints=[PowerCap(1e-9)])
    assert result.status is Status.NO_SOLUTION
    assert result.lower_bound <= exact(problem_of()).objective


def test_what_is_infeasible_without_constraints_too_is_said_to_be_so() -> None:
    for small in (problem_of(bandwidth_hz=2000.0), problem_of(access="rb", block_hz=1500.0, bandwidth_hz=3000.0)):
        result = edgealloc.solve(small, constraints=[KeepFloor(0.0201)])
        assert result.status is Status.INFEASIBLE
        assert [(f.device, f.budget) for f in result.diagnosis] == [(None, "bandwidth_hz")], result.message


def test_least_refuses_a_cap_in_hz_on_sub_carriers_that_widen() -> None:
    instance = conformance.ofdma()
    one = SpectrumCap(0.9 * subcarrier_hz(instance), [0])
    problem = Problem(instance, constraints=[one])
    assert edgealloc.solve(problem).status is Status.INFEASIBLE
    narrow = Problem(instance.with_changes(bandwidth_hz=0.8 * instance.bandwidth_hz), constraints=[one])
    assert edgealloc.solve(narrow).status is Status.OPTIMAL  # less is more
    with pytest.raises(RefusedError, match="SubcarrierCap"):
        edgealloc.least(problem, "bandwidth_hz", 1.0)


def test_a_file_has_devices_by_name(tmp_path: Path) -> None:
    rows = [SpectrumCap(1e4, [0, 1]), PowerCap(1.0, {2: 2.0})]
    with pytest.raises(InputError, match="by name"):
        save_constraints(rows, tmp_path / "rows.json")
    named = problem_of().constrained(rows).constraints
    assert load_constraints(save_constraints(named, tmp_path / "rows.json")) == named
