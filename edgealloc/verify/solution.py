"""The independent checker: recomputes everything that a solution claims from two files alone.

It imports no solver and not the problem model: the formulas are written again, from docs/model.md. An
agreement of the two is evidence, where a shared line of code would be none.

What it decides: form, names, ranges, levels, menus, selection, spectrum (exactly), latency and energy
budgets (with certainty, :mod:`edgealloc.verify.budgets`), the objective and every number derived from it,
and that the status fits. That ``lower_bound`` is a lower bound takes a third file, a certificate
(:mod:`edgealloc.verify.certificate`); without one the report says that the bound is not proved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.certificate.file import AnyCertificate, certificate_from_dict
from edgealloc.data.constraints import Constraint, fitted
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.solution import Solution
from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import MAX_MB, read_json
from edgealloc.files.instance import load_instance
from edgealloc.files.solution import solution_from_dict
from edgealloc.verify.bound import bound_value, free_bracket
from edgealloc.verify.budgets import check_budgets, demand_of
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.constraints import check_constraints
from edgealloc.verify.diagnosis import UNPROVED, check_infeasible
from edgealloc.verify.form import (
    REL_TOL,
    Findings,
    check_form,
    check_numbers,
    check_ranges,
    check_spectrum,
    check_stated_use,
)
from edgealloc.verify.report import Report

__all__ = [
    "DOUBT",
    "OPTIMAL_GAP",
    "exceeds",
    "gap_of_excess",
    "verify",
    "verify_data",
    "verify_files",
    "with_certificate",
]

OPTIMAL_GAP = 1e-4  # the solvers' default: what `optimal` claims unless a tighter or looser gap is passed
ATTAINED = 1e-12  # so close to G_free in relative terms an objective counts as attaining it
DOUBT = "the checker or the proof is wrong, please report"
NO_PROOF = (
    "lower_bound, and with it optimality, is not proved by this check: there is no certificate; "
    "it is only compared with the objective"
)


def verify_files(
    case: str | Path,
    solution: str | Path,
    certificate: str | Path | None = None,
    *,
    constraints: Iterable[Constraint] = (),
    rel_gap: float = OPTIMAL_GAP,
    max_mb: float = MAX_MB,
) -> Report:
    """Check a solution file against an instance file.

    Parameters
    ----------
    case, solution
        Paths of the two files.
    certificate
        Path of the certificate of the solution's lower bound, if there is one.
    constraints
        Constraints that the allocation is to meet, beside those that the solution states itself.
    rel_gap
        The gap within which ``optimal`` is accepted.
    max_mb
        Size in megabytes up to which each file is read.

    Returns
    -------
    Report
        The verdict: ``ok`` where nothing is wrong, else the faults.

    Raises
    ------
    InputError
        When the instance or a constraint is not valid, or a file cannot be read. Faults in the other two files are
        findings.
    """
    instance, data = load_instance(case, max_mb=max_mb), read_json(solution, max_mb)
    content = None if certificate is None else read_json(certificate, max_mb)
    return verify_data(instance, data, content, constraints=constraints, rel_gap=rel_gap)


def verify_data(
    instance: Instance,
    data: Mapping[str, Any],
    certificate: Mapping[str, Any] | None = None,
    *,
    constraints: Iterable[Constraint] = (),
    rel_gap: float = OPTIMAL_GAP,
) -> Report:
    """As :func:`verify_files`, for the JSON objects of a solution and of its certificate."""
    try:
        claimed = solution_from_dict(data)
    except InputError as error:
        name, method, status = (str(data.get(key, "?")) for key in ("instance", "method", "status"))
        return Report(name, method, status, error.faults)
    report = verify(instance, claimed, constraints=constraints, rel_gap=rel_gap)
    if certificate is None:
        return report
    try:
        return with_certificate(report, instance, claimed, certificate_from_dict(certificate))
    except InputError as error:
        return replace(report, faults=report.faults + error.faults)


def with_certificate(
    report: Report, instance: Instance, solution: Solution, certificate: AnyCertificate
) -> Report:
    """A report with what a certificate adds: the lower bound, or infeasibility, is proved, or why it is not.

    Parameters
    ----------
    report
        What :func:`verify` said of the solution.
    instance, solution
        What it was about.
    certificate
        The claimed proof, from :func:`edgealloc.certificate.file.load_certificate`.

    Returns
    -------
    Report
        The report with the faults of the certificate, or with a note of what it proves.
    """
    try:
        stated = fitted(solution.constraints, instance)
    except InputError:  # found by `verify`
        stated = ()
    proof = check_certificate(instance, certificate, constraints=stated)
    faults, claimed = list(proof.faults), solution.lower_bound
    infeasible = solution.status is Status.INFEASIBLE
    if infeasible and certificate.lower_bound != math.inf:
        allowed = "null, which claims that nothing is feasible"
        faults.append(Fault("certificate", "lower_bound", repr(certificate.lower_bound), allowed))
    if not infeasible and (claimed is None or not claimed <= certificate.lower_bound):
        allowed = f"at most {certificate.lower_bound!r}, which the certificate is about"
        faults.append(Fault("solution", "lower_bound", repr(claimed), allowed))
    if not proof.faults and exceeds(proof.lower_bound, report, instance):
        what = "nothing is feasible" if math.isinf(proof.lower_bound) else repr(proof.lower_bound)
        allowed = f"at most {report.objective!r}, which this feasible allocation reaches: {DOUBT}"
        faults.append(Fault("certificate", "lower_bound", f"{what}, proved", allowed))
    notes = tuple(note for note in report.notes if note not in (NO_PROOF, UNPROVED))
    if not faults:
        balls = f", {proof.in_balls} of them in ball arithmetic" if proof.in_balls else ""
        what = "infeasibility proved:" if infeasible else f"lower_bound proved: at least {proof.lower_bound!r} by"
        notes += (f"{what} {proof.leaves} boxes{balls}",)
    return replace(report, faults=report.faults + tuple(faults), notes=notes)


def exceeds(bound: float, report: Report, instance: Instance) -> bool:
    """Whether a proved bound is above what a feasible allocation reaches, by more than that is rounded."""
    if not report.feasible or report.objective is None:
        return False
    rounded = instance.device_underfit is not None or instance.bound.underfit in ("curve", "logistic")
    slack = REL_TOL if rounded else 1e-12
    return bound > report.objective + slack * abs(report.objective)


def verify(
    instance: Instance,
    solution: Solution,
    *,
    constraints: Iterable[Constraint] = (),
    rel_gap: float = OPTIMAL_GAP,
    free: bool = True,
) -> Report:
    """Check a solution against an instance; see :func:`verify_files`.

    Parameters
    ----------
    instance
        The instance; it has been checked when it was built.
    solution
        The claims.
    constraints
        Constraints that the allocation is to meet, beside those that the solution states itself.
    rel_gap
        The gap within which ``optimal`` is accepted.
    free
        Whether the free minimum is recomputed, seconds for some terms; else it is compared with the objective.

    Returns
    -------
    Report
        The verdict, without the proof of the lower bound (:func:`with_certificate`).

    Raises
    ------
    InputError
        For ``constraints`` that do not fit the instance; those of the solution are findings.
    """
    found = Findings()
    notes: list[str] = []
    rows = fitted(constraints, instance)
    try:
        stated_rows = fitted(solution.constraints, instance)
    except InputError as error:
        found.faults += error.faults
        stated_rows = ()
    if stated_rows:
        listed = "; ".join(map(str, stated_rows))
        notes.append(f"lower_bound, gaps and status are those of the instance with constraints: {listed}")
    stated = (solution.instance_name, solution.method, solution.status.value)
    if solution.instance_name != instance.name:
        found.add("solution", "instance", solution.instance_name, f"{instance.name!r}, the name of the instance")
    numbers = Findings()
    check_numbers(solution, numbers)
    found.faults += numbers.faults
    if not solution.status.has_allocation:
        _check_no_allocation(instance, solution, found, notes)
        return Report(*stated, tuple(found.faults), tuple(notes))
    if not numbers.faults:
        check_form(instance, solution, found)
    if found.faults:  # without sound names and shapes there is nothing to compute
        return Report(*stated, tuple(found.faults), ("numbers were not recomputed: the form is broken",))
    demand = demand_of(instance, solution)
    check_ranges(instance, solution, found)
    check_spectrum(instance, solution, found)
    check_constraints(
        instance, solution, [*stated_rows, *(r for r in rows if r not in stated_rows)], demand, found
    )
    budgets = check_budgets(instance, solution, demand)
    found.faults += budgets.faults
    feasible = not found.faults
    check_stated_use(instance, solution, budgets.rate_bps, budgets.latency_s, budgets.energy_j, found)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        objective = bound_value(instance, solution.keep, solution.selected, demand.underfit_factor)
    _check_claims(instance, solution, objective, rel_gap, found, notes, free)
    notes.append(NO_PROOF)
    devices, balls, bits = len(solution.keep), budgets.in_balls, budgets.bits
    return Report(*stated, tuple(found.faults), tuple(notes), objective, devices, balls, bits, feasible)


def _check_no_allocation(instance: Instance, solution: Solution, found: Findings, notes: list[str]) -> None:
    """Status no_solution, infeasible or error: nothing is allocated, and a reason is given."""
    status = solution.status.value
    if solution.device_names:
        found.add("solution", "devices", f"{len(solution.device_names)} devices", f"none for status {status}")
    for key in ("objective", "rel_gap", "excess_gap"):
        if getattr(solution, key) is not None:
            found.add("solution", key, getattr(solution, key), f"null for status {status}")
    if solution.status is Status.INFEASIBLE:
        if solution.lower_bound is not None:
            found.add("solution", "lower_bound", solution.lower_bound, "null for status infeasible")
        faults, more = check_infeasible(instance, solution.diagnosis)
        found.faults += faults
        notes += more
    else:
        notes.append(f"status {status} claims nothing about the instance that could be checked")


def _check_claims(
    instance: Instance,
    solution: Solution,
    objective: float,
    allowed_gap: float,
    found: Findings,
    notes: list[str],
    recomputed: bool,
) -> None:
    """Objective, free objective, bound, gaps and status against each other and the recomputed values."""
    upper, lower, free = solution.objective, solution.lower_bound, solution.free_objective
    if upper is None or not math.isclose(upper, objective, rel_tol=REL_TOL):
        found.add("solution", "objective", upper, f"{objective!r}, as recomputed")
    if free is None:
        found.add("solution", "free_objective", None, "a number where there is an allocation")
    else:
        if not free <= objective + REL_TOL * abs(objective):
            found.add("solution", "free_objective", free, f"at most the objective {objective!r}")
        bracket = free_bracket(instance) if recomputed else None
        if bracket is None:
            notes.append("free_objective was only compared with the objective")
        else:
            low, high, accuracy = bracket
            slack = accuracy * max(abs(low), abs(free))
            if not low - slack <= free <= high + slack:
                upto = f" to {high!r}" if math.isfinite(high) else " or more"
                found.add("solution", "free_objective", free, f"{low!r}{upto}, as recomputed")
            if not math.isfinite(high):
                notes.append("free_objective was bounded from below only (the free problem is not convex)")
    if upper is None:
        return
    if lower is not None and lower > upper:
        found.add("solution", "lower_bound", lower, f"at most the objective {upper!r}")
    gap = None if lower is None else max(0.0, upper - lower)
    relative = None if gap is None else gap / (abs(upper) or 1.0)
    excess = None if free is None else gap_of_excess(gap, upper, free)
    for key, actual in (("rel_gap", relative), ("excess_gap", excess)):
        stated = getattr(solution, key)
        if not _same(stated, actual):
            found.add("solution", key, stated, f"{actual!r}, from objective, lower_bound and free_objective")
    if solution.status is Status.OPTIMAL and not (
        relative is not None and relative <= allowed_gap * (1 + REL_TOL)
    ):
        found.add("solution", "status", f"optimal with rel_gap {relative!r}", f"a gap of at most {allowed_gap!r}")
    if solution.diagnosis:
        found.add("solution", "diagnosis", "given", "none where there is an allocation")


def gap_of_excess(gap: float | None, upper: float, free: float) -> float | None:
    """``gap / (UB - G_free)``; 0 where the free minimum is attained to 1e-12, None without a lower bound."""
    if upper - free <= ATTAINED * abs(upper):
        return 0.0
    return None if gap is None else gap / (upper - free)


def _same(stated: float | None, actual: float | None) -> bool:
    if stated is None or actual is None:
        return stated is actual
    return math.isclose(stated, actual, rel_tol=REL_TOL, abs_tol=1e-15)
