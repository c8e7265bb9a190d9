"""What outside solvers claim is judged, repaired and bounded by us."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError, InputError, MissingPackageError
from edgealloc.files.instance import load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.backends import cvxpy_fdma as cvxpy_backend
from edgealloc.solvers.backends import pyomo_run as pyomo_backend
from edgealloc.solvers.backends import scip_model
from edgealloc.solvers.backends import scip_run as scip_backend
from edgealloc.solvers.backends.cvxpy_fdma import to_cvxpy
from edgealloc.solvers.backends.highs import solve as highs_backend
from edgealloc.solvers.backends.highs.solve import solve_highs
from edgealloc.solvers.backends.judge import Claim, Stop, certified_floor, conclude, judge, stop_of
from edgealloc.solvers.backends.pyomo_model import to_pyomo
from edgealloc.solvers.backends.repair import repair
from edgealloc.solvers.base import Control, Options
from tests.places import ROOT
from tests.solvers.backends.problems import (
    CONVEX,
    exact,
    needs_cvxpy,
    needs_pyomo,
    problem_of,
)


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


def test_one_rate_above_the_free_one_bounds_nothing_by_its_own_value() -> None:
    """Beyond the free minimum the objective rises: that a rate does not fit says nothing of those below it."""
    problem = Problem(load_instance(ROOT / "tests/fuzz/kept/one_rate_that_nobody_wants.json"))
    best = exact(problem)
    assert best.allocation is not None
    floors = [
        certified_floor(problem, replace(best.allocation, keep=np.full(2, keep)))
        for keep in np.linspace(0.2, 1.0, 41)
    ]
    assert max(floors) <= best.objective * (1 + 1e-12)
    assert max(floors) > best.objective * (1 - 1e-9)


def test_a_bound_of_ours_above_a_feasible_point_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge distrusts itself too: such a bound would make anything optimal."""
    problem = problem_of()
    best = exact(problem)
    monkeypatch.setattr("edgealloc.solvers.backends.judge.certified_floor", lambda *_: best.objective * 1.1)
    with Control(Options()) as control:
        result = conclude(problem, claim_of(best.allocation), control)
    assert result.status is not Status.OPTIMAL
    assert result.lower_bound <= best.objective
    assert "please report" in result.message


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


@pytest.mark.parametrize(("method", "extra"), [("cvxpy", "cvxpy"), ("pyomo:ipopt", "pyomo"), ("scip", "scip")])
def test_a_missing_package_names_its_extra(method: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgealloc.errors.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=rf"edgealloc\[{extra}\]"):
        edgealloc.solve(problem_of(), method)


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
    assert result.status is Status.FEASIBLE
    assert result.allocation is not None
    assert not result.allocation.selected.any()  # not its point: what is left to say is that all may stay out
    assert result.lower_bound == -math.inf
    assert "integer" in result.message


def test_curves_have_no_closed_form_and_are_refused() -> None:
    inst: Instance = conformance.cell()
    problem = Problem(inst, underfit=lambda s: 1.0 - np.asarray(s))
    for call in (lambda: scip_model.build(problem), lambda: to_pyomo(problem), lambda: to_cvxpy(problem)):
        with pytest.raises(EdgeallocError):
            call()
    assert solve_highs(problem, Options(rel_gap=0.02)).status is Status.OPTIMAL
