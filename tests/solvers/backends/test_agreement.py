"""Outside solvers agree with the exact methods, and what they claim is judged, repaired and bounded by us."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import AdapterOption, BoundSpec, Instance
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError, InputError, MissingPackageError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.formulation.spectrum_rows import SideConstraint, slice_cap
from edgealloc.scenario.cell import CellOptions, make_cell
from edgealloc.solvers.backends import cvxpy_fdma as cvxpy_backend
from edgealloc.solvers.backends import pyomo_run as pyomo_backend
from edgealloc.solvers.backends import scip_model
from edgealloc.solvers.backends import scip_run as scip_backend
from edgealloc.solvers.backends.cvxpy_fdma import to_cvxpy
from edgealloc.solvers.backends.cvxpy_ofdma import MARGIN, ofdma_relaxation
from edgealloc.solvers.backends.highs import solve as highs_backend
from edgealloc.solvers.backends.highs.solve import solve_highs
from edgealloc.solvers.backends.judge import Claim, Stop, certified_floor, conclude, judge, stop_of
from edgealloc.solvers.backends.logform import LogForm, mean_exponential, quadrature_error
from edgealloc.solvers.backends.pyomo_model import to_pyomo
from edgealloc.solvers.backends.pyomo_run import solve_model
from edgealloc.solvers.backends.repair import repair
from edgealloc.solvers.backends.scip_run import solve_scip
from edgealloc.solvers.base import Control, Options

needs_cvxpy = pytest.mark.skipif(find_spec("cvxpy") is None, reason="needs edgealloc[cvxpy]")
needs_pyomo = pytest.mark.skipif(find_spec("pyomo") is None, reason="needs edgealloc[pyomo]")
needs_scip = pytest.mark.skipif(find_spec("pyscipopt") is None, reason="needs edgealloc[scip]")

CONVEX = {
    "pooled": {},
    "per device": {"bound": BoundSpec(pooling="device")},
    "head and downlink": {"payload_fixed_bits": 2e5, "downlink_bps": 5e6},
    "common rate": {"common_keep": True},
}


def problem_of(**changes: Any) -> Problem:
    return Problem(conformance.cell(**changes))


def exact(problem: Problem, rel_gap: float = 1e-9) -> Result:
    return edgealloc.solve(problem, rel_gap=rel_gap)


# --- the form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [2, 5, 10, 14])
def test_quadrature_errs_downwards_and_by_what_it_says(terms: int) -> None:
    nodes, logs = mean_exponential(terms)
    v = np.linspace(0.01, 20.0, 400)
    exact_mean = np.expm1(v) / v
    rule = np.exp(np.multiply.outer(v, nodes) + logs).sum(axis=1)
    assert np.all(rule <= exact_mean * (1 + 1e-13))
    assert quadrature_error(v, terms) == pytest.approx(float(np.max(1 - rule / exact_mean)), abs=1e-14)
    assert quadrature_error(v, 14) < 1e-12 < quadrature_error(v, 5)


def test_logarithmic_form_states_the_budgets_of_the_problem() -> None:
    problem = problem_of(payload_fixed_bits=2e5, downlink_bps=5e6)
    inst, form = problem.instance, LogForm.of(problem)
    rng = np.random.default_rng(2)
    for _ in range(20):
        keep, freq = rng.uniform(0.02, 1.0, 3), rng.uniform(3e8, 2e9, 3)
        band, power = rng.uniform(1e3, 3e4, 3), rng.uniform(0.001, 0.05, 3)
        use = problem.evaluate(Allocation(keep=keep, freq_hz=freq, power_w=power, bandwidth_hz=band))
        phi, x = np.log(freq / inst.freq_max_hz), np.log(keep)
        bits = inst.payload_fixed_bits + inst.payload_lora_bits * keep
        tau = np.log(bits / use.rate_bps / inst.latency_s)
        eps = np.log(power * bits / use.rate_bps / (inst.energy_j - inst.energy_static_j))
        latency = form.download_fixed + form.download_lora * keep + np.exp(tau)
        latency += form.compute_fixed * np.exp(-phi) + form.compute_lora * np.exp(x - phi)
        np.testing.assert_allclose(latency, use.latency_s / inst.latency_s, rtol=1e-12)
        energy = np.exp(eps) + form.energy_fixed * np.exp(2 * phi) + form.energy_lora * np.exp(x + 2 * phi)
        expected = (use.energy_j - inst.energy_static_j) / (inst.energy_j - inst.energy_static_j)
        np.testing.assert_allclose(energy, expected, rtol=1e-12)
        v = np.log1p(np.exp(eps - tau - np.log(band / inst.bandwidth_hz) + form.snr))
        payload = np.log(form.head + keep)
        np.testing.assert_allclose(np.exp(payload + form.nats - tau) * inst.bandwidth_hz / band, v, rtol=1e-11)
        cost = payload + form.nats - form.snr + np.log(np.expm1(v) / v)
        np.testing.assert_allclose(cost, eps, rtol=0, atol=1e-11)


# --- agreement ----------------------------------------------------------------------------------------------


@needs_cvxpy
@pytest.mark.parametrize("variant", CONVEX)
@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_cvxpy_agrees_with_the_proven_optimum(variant: str, solver: str) -> None:
    problem = problem_of(**CONVEX[variant])
    result, ours = edgealloc.solve(problem, f"cvxpy:{solver}", rel_gap=1e-5), exact(problem)
    assert result.status is Status.OPTIMAL, result.message
    assert ours.lower_bound <= result.objective <= ours.objective * (1 + 1e-5)
    assert result.lower_bound <= ours.objective
    assert ours.objective > 1.01 * ours.free_objective  # a cell that the resources shape


@needs_cvxpy
def test_clarabel_solves_a_thousand_devices(cases: Path) -> None:
    """At its default equilibration it stops with InsufficientProgress here."""
    problem = Problem(edgealloc.load(cases / "fdma-1000-s1.json"))
    result = edgealloc.solve(problem, "cvxpy:CLARABEL", rel_gap=1e-6)
    assert result.status is Status.OPTIMAL, result.message


@needs_cvxpy
def test_a_conic_solver_that_fails_gets_a_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    import cvxpy as cp

    solve, tries = cp.Problem.solve, []

    def failing(self: Any, **settings: Any) -> Any:
        tries.append(settings.get("equilibrate_enable", True))
        if len(tries) == 1:
            raise cp.error.SolverError("no progress")
        return solve(self, **settings)

    monkeypatch.setattr(cp.Problem, "solve", failing)
    result = edgealloc.solve(problem_of(), "cvxpy:CLARABEL", rel_gap=1e-5)
    assert tries == [True, False]
    assert result.status is Status.OPTIMAL, result.message


@needs_pyomo
@pytest.mark.parametrize("variant", CONVEX)
def test_ipopt_through_pyomo_agrees_with_the_proven_optimum(variant: str) -> None:
    problem = problem_of(**CONVEX[variant])
    result, ours = edgealloc.solve(problem, "pyomo:ipopt", rel_gap=1e-6), exact(problem)
    assert result.status is Status.OPTIMAL, result.message
    assert ours.lower_bound <= result.objective <= ours.objective * (1 + 1e-6)


@needs_pyomo
def test_both_pyomo_forms_are_the_same_problem() -> None:
    problem = problem_of(payload_fixed_bits=2e5, downlink_bps=5e6)
    results = [solve_model(problem, to_pyomo(problem, form), "ipopt") for form in ("log", "direct")]
    assert results[0].objective == pytest.approx(results[1].objective, rel=1e-6)


@needs_scip
@pytest.mark.parametrize("variant", CONVEX)
def test_scip_agrees_with_the_proven_optimum(variant: str) -> None:
    problem = problem_of(**CONVEX[variant])
    result, ours = solve_scip(problem, Options(rel_gap=1e-5)), exact(problem)
    assert result.status is Status.OPTIMAL, result.message
    assert ours.lower_bound <= result.objective <= ours.objective * (1 + 1e-5)


def random_problem(rng: np.random.Generator) -> Problem:
    """A random small cell with a random mixture of variants (no OFDMA)."""
    access = rng.choice(["fdma", "rb"])
    k = int(rng.integers(2, 5))
    options = CellOptions(devices=k, access=access, pooling=str(rng.choice(["global", "device"])))  # type: ignore[arg-type]
    inst = make_cell(options, rng).instance
    changes: dict[str, Any] = {"bandwidth_hz": inst.bandwidth_hz * rng.uniform(0.5, 1.2)}
    if rng.random() < 0.4:
        levels = np.unique(np.append(rng.uniform(0.02, 1.0, 4), 0.02))
        changes["keep_levels"] = tuple(levels if rng.random() < 0.7 else None for _ in range(k))
    if rng.random() < 0.4:
        d1, w1 = float(inst.payload_lora_bits[0]), float(inst.cycles_lora[0])
        menu = (AdapterOption("half", 0.5 * d1, 0.5 * w1, 1.4), AdapterOption("full", d1, w1, 1.0))
        changes["adapter_options"] = tuple(menu if rng.random() < 0.7 else None for _ in range(k))
    if rng.random() < 0.4:
        changes["exclusion_penalty"] = float(rng.uniform(0.5, 6.0))
    if rng.random() < 0.2 and "keep_levels" not in changes:
        changes["common_keep"] = True
    if rng.random() < 0.3:
        changes["bound"] = replace(
            inst.bound, underfit="perturbation", underfit_weight=5 * inst.bound.underfit_weight
        )
    return Problem(inst.with_changes(**changes))


def routes_agree(problem: Problem, solve: Any, label: str) -> None:
    """Two routes that share no model: both prove, intervals overlap, objectives within 1e-5; or no solution.

    A solver stopped at its limit has no optimum to compare: its interval is checked, and the test skipped.
    """
    ours = edgealloc.solve(problem, rel_gap=1e-7, time_limit=60)
    theirs = solve(problem, Options(rel_gap=2e-6, time_limit=120))
    if ours.status is Status.INFEASIBLE:
        assert theirs.status is Status.INFEASIBLE, f"{label}: {theirs.message}"
        return
    assert ours.status is Status.OPTIMAL, label
    assert theirs.status.has_allocation, f"{label}: {theirs.message}"
    assert theirs.lower_bound <= ours.objective * (1 + 1e-12), f"{label}: {theirs.message}"
    assert ours.lower_bound <= theirs.objective * (1 + 1e-12), f"{label}: {theirs.message}"
    if theirs.rel_gap > 1e-5 and theirs.seconds >= 110:
        pytest.skip(f"{label}: stopped at its limit with a gap of {theirs.rel_gap:.1e}")
    assert theirs.rel_gap <= 1e-5, f"{label}: {theirs.message}"
    assert theirs.objective == pytest.approx(ours.objective, rel=1e-5), f"{label}: {theirs.message}"


# 211 and 219: levels for some devices only, where a repair once gave up on a hair's violation. 231 and 254: so
# few Hz at the device without levels that its keep rate has to give 2e-6 for the hairs of the others.
# 247: not even the narrowest safe columns fit at a node, where bnb once took picks that were none.
@needs_scip
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 211, 219, 231, 247, 254])
def test_branch_and_bound_and_scip_agree(seed: int) -> None:
    routes_agree(random_problem(np.random.default_rng(seed)), solve_scip, f"seed {seed}")


@needs_scip
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 320))
def test_branch_and_bound_and_scip_agree_on_many(seed: int) -> None:
    routes_agree(random_problem(np.random.default_rng(seed)), solve_scip, f"seed {seed}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 320))
def test_branch_and_bound_and_highs_agree_on_many(seed: int) -> None:
    routes_agree(random_problem(np.random.default_rng(seed)), solve_highs, f"seed {seed}")


@needs_scip
@pytest.mark.slow
def test_scip_is_right_whatever_its_seed() -> None:
    """With artificial variable bounds and large constants SCIP was wrong by 0.5 % for one seed in six here."""
    rng = np.random.default_rng(11)
    inst = make_cell(CellOptions(devices=3, access="ofdma", subcarriers=5), rng).instance
    problem = Problem(inst.with_changes(exclusion_penalty=2.0))
    results = [solve_scip(problem, Options(rel_gap=1e-5, seed=seed, time_limit=60)) for seed in range(6)]
    best = min(result.objective for result in results)
    assert all(result.lower_bound <= best for result in results)
    assert [result.objective for result in results] == pytest.approx([best] * 6, rel=2e-5)


@needs_cvxpy
def test_ofdma_by_enumeration_with_a_conic_solver() -> None:
    """An oracle that shares nothing with branch and bound: all 64 assignments, one convex program each."""
    problem = Problem(conformance.ofdma())
    ours = exact(problem, 1e-7)
    relaxed = ofdma_relaxation(problem)
    root = relaxed.value()
    assert root * (1 - MARGIN) <= ours.objective
    assert root > problem.free_objective * 1.001  # it says more than that nothing is free
    values = {owner: relaxed.value_of(np.array(owner)) for owner in itertools.product(range(2), repeat=6)}
    assert min(values.values()) == pytest.approx(ours.objective, rel=1e-6)
    assert ours.allocation is not None
    assert ours.allocation.owner is not None
    assert min(values, key=lambda owner: values[owner]) == tuple(ours.allocation.owner)
    assert math.isinf(relaxed.value_of(np.zeros(6, dtype=np.intp)))  # one device has nothing


@needs_scip
@pytest.mark.slow
def test_scip_does_not_abort_on_many_devices() -> None:
    """Its local NLP searches corrupted memory at 400 devices, and took the process with them."""
    program = (
        "import numpy as np\n"
        "from edgealloc.formulation.problem import Problem\n"
        "from edgealloc.scenario.cell import CellOptions, make_cell\n"
        "from edgealloc.solvers.base import Options\n"
        "from edgealloc.solvers.backends.scip_run import solve_scip\n"
        "cell = make_cell(CellOptions(devices=400), np.random.default_rng(1)).instance\n"
        "print(solve_scip(Problem(cell), Options(time_limit=45.0)).status.value)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() in ("optimal", "feasible", "no_solution")


@needs_cvxpy
@needs_scip
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_ofdma_branch_and_bound_scip_and_enumeration_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pooling = str(rng.choice(["global", "device"]))
    options = CellOptions(devices=2, access="ofdma", subcarriers=6, pooling=pooling)  # type: ignore[arg-type]
    inst = make_cell(options, rng).instance
    problem = Problem(inst.with_changes(bandwidth_hz=inst.bandwidth_hz * rng.uniform(0.6, 1.5)))
    routes_agree(problem, solve_scip, f"seed {seed}")
    ours = exact(problem, 1e-7)
    if ours.status is Status.OPTIMAL:
        relaxed, values, unsolved = ofdma_relaxation(problem), [], 0
        for owner in itertools.product(range(2), repeat=6):
            try:
                values.append(relaxed.value_of(np.array(owner)))
            except EdgeallocError:  # barely feasible assignments, at which Clarabel gives up
                unsolved += 1
        assert unsolved <= 12
        assert min(values) >= ours.lower_bound * (1 - MARGIN)
        assert ours.allocation is not None
        assert ours.allocation.owner is not None
        assert relaxed.value_of(ours.allocation.owner) == pytest.approx(ours.objective, rel=1e-5)


# --- user's own constraints ---------------------------------------------------------------------------------


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


def test_highs_bound_holds_at_every_round() -> None:
    problem = problem_of(bound=BoundSpec(underfit="perturbation", underfit_weight=0.3))
    optimum = exact(problem, 1e-7)
    result = solve_highs(problem, Options(rel_gap=1e-6))
    bounds = [snapshot.lower_bound for snapshot in result.trace]
    assert len(bounds) > 3
    assert all(bound <= optimum.objective for bound in bounds)
    assert bounds[0] < optimum.lower_bound  # a relaxation that shows, and is refined
    assert result.rel_gap <= 1e-6


# --- judgement ----------------------------------------------------------------------------------------------


def claim_of(point: Allocation | None, **changes: Any) -> Claim:
    return replace(Claim("peer", "peer 1.0", "optimal", Stop.SOLVED, point, 0.0), **changes)


def test_a_bound_without_a_reason_is_dropped_and_one_above_a_point_refused() -> None:
    problem = Problem(conformance.ofdma())
    plan = edgealloc.solve(problem, rel_gap=1e-6)
    with Control(Options()) as control:
        high, low = 2.0 * plan.objective, 0.999 * plan.objective
        for reason, told in (("", False), ("its own", True)):
            result = conclude(problem, claim_of(plan.allocation, lower_bound=high, reason=reason), control)
            assert result.lower_bound < plan.objective
            assert ("refused" in result.message) is told
        honest = conclude(problem, claim_of(plan.allocation, lower_bound=low, reason="r"), control)
        assert honest.lower_bound == pytest.approx(low)
        assert honest.status is Status.FEASIBLE


def test_claims_without_a_point() -> None:
    problem = problem_of()
    with Control(Options()) as control:
        none = Status.NO_SOLUTION
        for stop, status in ((Stop.INFEASIBLE, none), (Stop.FAILED, Status.ERROR), (Stop.LIMIT, none)):
            result = conclude(problem, claim_of(None, stop=stop, native="x"), control)
            assert result.status is status
            assert result.allocation is None
            assert result.objective == math.inf


def test_bits_on_other_devices_subcarriers_do_not_count() -> None:
    """A point of a big-M model may put power where it owns nothing: its honest worth is less."""
    problem = Problem(conformance.ofdma())
    inst = problem.instance
    owner = np.array([0, 0, 1, 1, 1, -1])
    power = np.array([0.04, 0.04, 0.05, 0.05, 0.05, 0.09])  # nobody owns the last one
    leaking = Allocation(keep=np.array([0.5, 0.5]), freq_hz=np.array([1e9, 1.5e9]), power_w=power, owner=owner)
    judged = judge(problem, leaking)
    assert judged.violation > 0
    assert judged.allocation is not None
    assert judged.allocation.power_w[5] == 0.0
    assert problem.evaluate(judged.allocation).feasible
    assert np.all(judged.allocation.keep <= 0.5)
    assert judged.objective > judged.raw_objective * 1.01
    assert inst.access == "ofdma"


def test_repair_keeps_less_never_more_and_gives_up_honestly() -> None:
    problem = problem_of()
    inst = problem.instance
    best = exact(problem).allocation
    assert best is not None
    assert best.bandwidth_hz is not None
    rng = np.random.default_rng(4)
    repaired = 0
    for _ in range(50):
        wobble = np.exp(rng.normal(scale=0.2, size=(4, 3)))
        point = Allocation(
            keep=best.keep * wobble[0],
            freq_hz=best.freq_hz * wobble[1],
            power_w=best.power_w * wobble[2],
            bandwidth_hz=best.bandwidth_hz * wobble[3],
        )
        found = repair(problem, point, redeal=False)
        if found is None:
            continue
        repaired += 1
        assert problem.evaluate(found).feasible
        assert np.all(found.keep <= np.clip(point.keep, inst.keep_min, inst.keep_max))
    assert repaired > 30
    nothing = replace(best, bandwidth_hz=np.array([inst.bandwidth_hz, 1e-3, 1e-3]))
    assert repair(problem, nothing, redeal=False) is None
    assert repair(problem, replace(best, keep=np.array([np.nan, 0.5, 0.5]))) is None


def test_a_hair_costs_no_level() -> None:
    levels = np.array([0.02, 0.1, 0.2, 0.4, 0.7, 1.0])
    problem = problem_of(keep_levels=(levels,) * 3)
    best = exact(problem).allocation
    assert best is not None
    assert best.bandwidth_hz is not None
    hair = replace(best, keep=best.keep * (1 - 1e-9), bandwidth_hz=best.bandwidth_hz * (1 - 1e-8))
    assert problem.violations(hair)
    found = repair(problem, hair)
    assert found is not None
    np.testing.assert_array_equal(found.keep, best.keep)


@pytest.mark.parametrize("variant", CONVEX)
def test_certified_floor_is_a_bound_anywhere_and_tight_at_the_optimum(variant: str) -> None:
    problem = problem_of(**CONVEX[variant])
    best = exact(problem)
    assert best.allocation is not None
    rng = np.random.default_rng(6)
    for _ in range(30):
        keep = np.exp(rng.uniform(np.log(0.02), 0.0, 3))
        assert certified_floor(problem, replace(best.allocation, keep=keep)) <= best.objective * (1 + 1e-12)
    assert certified_floor(problem, best.allocation) >= best.objective * (1 - 1e-7)


# --- statuses, packages, names ------------------------------------------------------------------------------


def native_statuses() -> dict[str, tuple[dict[str, Stop], set[str]]]:
    """Per back end its table and every status that the installed package knows."""
    found: dict[str, tuple[dict[str, Stop], set[str]]] = {}
    if find_spec("cvxpy"):
        import cvxpy.settings as s

        known = {*s.SOLUTION_PRESENT, *s.INF_OR_UNB, *s.ERROR}
        found["cvxpy"] = (cvxpy_backend.STATUSES, known)
    if find_spec("pyomo"):
        from pyomo.opt import TerminationCondition

        found["pyomo"] = (pyomo_backend.STATUSES, {t.value for t in TerminationCondition})
    if find_spec("pyscipopt"):
        from pyscipopt import SCIP_STATUS

        known = {name.lower() for name in dir(SCIP_STATUS) if name.isupper()}
        found["scip"] = (scip_backend.STATUSES, known)
    import highspy

    found["highs"] = (highs_backend.STATUSES, {m for m in dir(highspy.HighsModelStatus) if m.startswith("k")})
    return found


@pytest.mark.parametrize("name", native_statuses())
def test_status_tables_are_total(name: str) -> None:
    table, known = native_statuses()[name]
    assert known
    assert known <= set(table), sorted(known - set(table))
    assert stop_of(table, "a status of next year's version") is Stop.FAILED


@pytest.mark.parametrize(
    ("module", "call", "extra"),
    [
        (cvxpy_backend, lambda p: edgealloc.solve(p, "cvxpy"), "cvxpy"),
        (pyomo_backend, lambda p: edgealloc.solve(p, "pyomo:ipopt"), "pyomo"),
        (scip_model, lambda p: edgealloc.solve(p, "scip"), "scip"),
    ],
)
def test_a_missing_package_names_its_extra(
    module: Any, call: Any, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgealloc.solvers.backends import pyomo_model

    for place in (module, pyomo_model):
        monkeypatch.setattr(place, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=rf"edgealloc\[{extra}\]"):
        call(problem_of())


def test_unknown_solver_names_are_refused() -> None:
    for name in ("cvxpy:NOPE", "pyomo:nope", "convex:CLARABEL", "nope"):
        with pytest.raises(InputError, match=r"nope|NOPE|convex"):
            edgealloc.solve(problem_of(), name)


@needs_cvxpy
def test_a_solver_that_cannot_be_stopped_is_not_given_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvxpy_backend, "_TIME_LIMITS", {})
    with pytest.raises(InputError, match="time_limit"):
        edgealloc.solve(problem_of(), "cvxpy:CLARABEL", time_limit=5)


def test_auto_and_compare_choose_none_of_the_back_ends() -> None:
    problem = problem_of()
    assert edgealloc.solve(problem).method == "convex"
    assert {r.method for r in edgealloc.compare(problem)} <= {
        m.name for m in edgealloc.METHODS.values() if m.chosen
    }
    assert not any(edgealloc.METHODS[name].chosen for name in ("cvxpy", "pyomo", "scip", "highs"))


@needs_pyomo
def test_ipopt_makes_no_point_of_a_model_with_integers() -> None:
    problem = problem_of(exclusion_penalty=3.0)
    result = edgealloc.solve(problem, "pyomo:ipopt")
    assert result.status is Status.NO_SOLUTION
    assert "integer" in result.message


def test_curves_have_no_closed_form_and_are_refused() -> None:
    inst: Instance = conformance.cell()
    problem = Problem(inst, underfit=lambda s: 1.0 - np.asarray(s))
    for call in (lambda: scip_model.build(problem), lambda: to_pyomo(problem), lambda: to_cvxpy(problem)):
        with pytest.raises(EdgeallocError):
            call()
    assert solve_highs(problem, Options(rel_gap=0.02)).status is Status.OPTIMAL
