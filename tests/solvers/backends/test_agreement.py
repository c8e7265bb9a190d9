"""Outside solvers agree with the exact methods, and what they claim is judged, repaired and bounded by us."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.backends.cvxpy_ofdma import MARGIN, ofdma_relaxation
from edgealloc.solvers.backends.highs.solve import solve_highs
from edgealloc.solvers.backends.logform import LogForm, mean_exponential, quadrature_error
from edgealloc.solvers.backends.pyomo_model import to_pyomo
from edgealloc.solvers.backends.pyomo_run import solve_model
from edgealloc.solvers.backends.scip_run import solve_scip
from edgealloc.solvers.base import Options
from tests.solvers.backends.problems import (
    CONVEX,
    exact,
    needs_cvxpy,
    needs_pyomo,
    needs_scip,
    problem_of,
    random_problem,
)

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
@pytest.mark.slow
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
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 211, 219, 231, pytest.param(247, marks=pytest.mark.slow), 254])
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


# --- statuses, packages, names ------------------------------------------------------------------------------


@needs_scip
@pytest.mark.parametrize("dear", [{"cycles_fixed": 9e9}, {"download_bits": 1e8}])
@pytest.mark.parametrize("first", [True, False])
def test_scip_counts_what_a_menu_row_computes_and_downloads_beside_for_that_row_alone(
    dear: dict[str, float], first: bool
) -> None:
    rows = AdapterOption("dear", 1e7, 2e8, 1.0, **dear), AdapterOption("plain", 1e7, 2e8, 1.001)
    menu = rows if first else rows[::-1]
    problem = problem_of(adapter_options=(menu,) * 3, downlink_bps=1e7, bandwidth_hz=6e5)
    ours, theirs = exact(problem, rel_gap=1e-5), solve_scip(problem, Options(time_limit=60.0))
    assert theirs.status is Status.OPTIMAL
    assert theirs.objective == pytest.approx(ours.objective, rel=2e-4)
    assert theirs.lower_bound <= ours.objective
