"""Every registered method goes through the shipped suite, and the suite notices what it is there to notice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edgealloc import conformance
from edgealloc.data.outcome import Status
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS, find_method
from edgealloc.solvers.base import Options
from edgealloc.solvers.fdma.convex import solve_convex

# How each method goes through: options of the suite, and the package that it needs.
QUICK: dict[str, tuple[dict[str, Any], str]] = {
    "convex": ({"exact": True}, "numpy"),
    "bnb": ({"exact": True}, "numpy"),
    "cvxpy": ({}, "cvxpy"),
    "highs": ({"exact": True}, "highspy"),
    "scip": ({"exact": True}, "pyscipopt"),
    "pyomo:ipopt": ({"proves_infeasible": False}, "casadi"),
    "baseline:equal": ({"proves_infeasible": False}, "numpy"),
    "psca": ({"proves_infeasible": False}, "numpy"),
    "psca+": ({"proves_infeasible": False}, "numpy"),
}
# Outside solvers that need minutes for all cases: a few by default, all under the slow marker.
LONG: dict[str, tuple[dict[str, Any], str]] = {
    "cvxpy:SCS": ({}, "scs"),
    "pyomo:scip_direct": ({}, "pyscipopt"),
}
# Cases of a method that take as long as all its others together: under the slow marker.
LAST: dict[str, tuple[str, ...]] = {
    "highs": ("logistic on sub-carriers", "clusters on sub-carriers", "logistic, device pooling"),
    "scip": ("experts to fetch on sub-carriers", "sub-carriers, device pooling", "perturbation"),
    "psca+": ("logistic on sub-carriers",),
}
FEW = ("plain", "deadline too short", "keep levels", "sub-carriers without gain", "a limit of no time")


def conforms(name: str, options: dict[str, Any], package: str, cases: tuple[conformance.Case, ...]) -> None:
    pytest.importorskip(package, reason=f"method {name} needs {package}")
    report = conformance.run(name, cases=cases, **options)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", QUICK)
def test_method_conforms(name: str) -> None:
    if name not in METHODS and ":" not in name:
        pytest.skip(f"{name} is not registered")
    cases = tuple(case for case in conformance.CASES if case.name not in LAST.get(name, ()))
    assert len(cases) == len(conformance.CASES) - len(LAST.get(name, ()))
    conforms(name, *QUICK[name], cases)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_method_conforms_on_its_longest_cases(name: str) -> None:
    conforms(name, *QUICK[name], tuple(case for case in conformance.CASES if case.name in LAST[name]))


@pytest.mark.parametrize("name", LONG)
def test_outside_solver_conforms_on_a_few_cases(name: str) -> None:
    cases = tuple(case for case in conformance.CASES if case.name in FEW)
    assert len(cases) == len(FEW)
    conforms(name, *LONG[name], cases)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_outside_solver_conforms(name: str) -> None:
    conforms(name, *LONG[name], conformance.CASES)


def test_every_registered_method_is_in_the_suite() -> None:
    covered = {name.partition(":")[0] for name in (*QUICK, *LONG)}
    assert covered >= set(METHODS), "a method is registered but does not go through the conformance suite"


def test_every_case_is_taken_by_some_exact_method_or_has_no_reference() -> None:
    for case in conformance.CASES:
        problem = Problem(case.make())
        assert any(find_method(name).takes(problem) for name in METHODS), case.name


def spoiled(spoil: Callable[[Result], Result]) -> conformance.Solver:
    """The exact method with something wrong in its answer."""

    def solver(problem: Problem, options: Options) -> Result:
        return spoil(solve_convex(problem, options))

    return solver


def _greedy(result: Result) -> Result:
    if result.allocation is None:
        return result
    allocation = replace(result.allocation, keep=result.allocation.keep * (1 + 1e-9))
    return replace(result, allocation=allocation, objective=result.problem.evaluate(allocation).objective)


def _slow(result: Result) -> Result:
    time.sleep(conformance.LATE_S + 0.1)
    return result


FAULTS: dict[str, tuple[Callable[[Result], Result], str, str]] = {
    "budget broken by 1e-9": (_greedy, "plain", "breaks no budget"),
    "objective that is not the allocation's": (
        lambda r: replace(r, objective=r.objective * (1 - 1e-9)),
        "plain",
        "the objective is that of the allocation",
    ),
    "bound above the optimum": (
        lambda r: replace(r, lower_bound=r.objective * (1 + 1e-6)),
        "plain",
        "the bound is below the optimum",
    ),
    "optimal with an open gap": (
        lambda r: replace(r, lower_bound=r.objective * 0.9),
        "plain",
        "optimal means a closed gap",
    ),
    "feasible called infeasible": (
        lambda r: replace(r, status=Status.INFEASIBLE, allocation=None, objective=math.inf),
        "plain",
        "does not call it infeasible",
    ),
    "infeasible without a diagnosis": (
        lambda r: replace(r, diagnosis=()),
        "deadline too short",
        "infeasible comes with a diagnosis",
    ),
    "no word on infeasibility": (
        lambda r: replace(r, status=Status.NO_SOLUTION),
        "spectrum too small",
        "says that there is no solution",
    ),
    "allocation withheld": (
        lambda r: replace(r, allocation=None),
        "ample",
        "an allocation stands where the status says so",
    ),
    "not a number": (lambda r: replace(r, lower_bound=math.nan), "plain", "numbers are numbers"),
    "another free objective": (
        lambda r: replace(r, free_objective=r.free_objective * (1 + 1e-9)),
        "plain",
        "states G_free",
    ),
    "late": (_slow, "a limit of no time", "keeps the time limit"),
    "not exact": (lambda r: replace(r, status=Status.FEASIBLE), "one device", "proves the optimum"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_suite_notices(fault: str) -> None:
    spoil, case, check = FAULTS[fault]
    cases = tuple(c for c in conformance.CASES if c.name == case)
    assert conformance.run("convex", cases=cases, exact=True).ok
    report = conformance.run(spoiled(spoil), cases=cases, exact=True)
    assert check in {finding.check for finding in report.failures}, str(report)


def test_the_suite_notices_an_exception() -> None:
    def broken(problem: Problem, options: Options) -> Result:
        raise ZeroDivisionError("oops")

    report = conformance.run(broken, cases=conformance.CASES[:1])
    assert not report.ok
    assert "ZeroDivisionError" in str(report)


def test_a_method_that_takes_nothing_does_not_pass() -> None:
    assert not conformance.run(solve_convex, takes=lambda problem: False).ok
