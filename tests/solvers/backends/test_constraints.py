"""Constraints of the user's own, through cvxpy, Pyomo and HiGHS."""

from __future__ import annotations

import math

import numpy as np
import pytest

import edgealloc
from edgealloc.data.outcome import Status
from edgealloc.errors import InputError
from edgealloc.formulation.spectrum_rows import SideConstraint, slice_cap
from edgealloc.solvers.backends.cvxpy_fdma import to_cvxpy
from edgealloc.solvers.backends.highs.solve import solve_highs
from edgealloc.solvers.backends.pyomo_model import to_pyomo
from edgealloc.solvers.backends.pyomo_run import solve_model
from edgealloc.solvers.base import Options
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
    linear = solve_highs(
        problem,
        Options(rel_gap=1e-6),
        [slice_cap(problem.instance, [0, 1], cap * problem.instance.bandwidth_hz)],
    )
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
    linear = solve_highs(problem, Options(rel_gap=1e-6), [slice_cap(inst, [0, 1], cap * inst.bandwidth_hz)])
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
    quota = SideConstraint("at most two", 2.0, selected=np.ones(3))
    linear = solve_highs(problem, Options(rel_gap=1e-5), [quota])
    assert result.allocation is not None, result.message
    assert result.allocation.selected.sum() <= 2
    assert result.objective == pytest.approx(linear.objective, rel=2e-3)


def test_side_constraints_with_levels_and_a_quota() -> None:
    levels = (np.array([0.02, 0.1, 0.3, 0.6]),) * 3
    problem = problem_of(keep_levels=levels, exclusion_penalty=3.0)
    quota = SideConstraint("at most two", 2.0, selected=np.ones(3))
    result = solve_highs(problem, Options(rel_gap=1e-6), [quota])
    assert result.status is Status.OPTIMAL, result.message
    assert result.allocation is not None
    assert result.allocation.selected.sum() <= 2
    mute = [np.where(np.arange(3) == k, 0.0, problem.instance.gain) for k in range(3)]
    one_out = [exact(problem_of(keep_levels=levels, exclusion_penalty=3.0, gain=gain)) for gain in mute]
    assert result.objective == pytest.approx(min(r.objective for r in one_out), rel=1e-6)


def test_side_constraints_that_do_not_fit_are_refused() -> None:
    rows = [
        SideConstraint("short", 1.0, bandwidth=np.ones(2)),
        SideConstraint("negative", 1.0, bandwidth=-np.ones(3)),
        SideConstraint("limit", math.inf, selected=np.ones(3)),
    ]
    with pytest.raises(InputError) as caught:
        solve_highs(problem_of(), constraints=rows)
    assert [fault.where for fault in caught.value.faults] == ["short", "negative", "limit"]
