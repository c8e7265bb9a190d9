"""Method ``bnb`` for OFDMA: start, feasibility, search over sub-carrier assignments, and the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import infeasible, nothing_found, proven, unsolved
from edgealloc.solvers.fdma.diagnose import no_level_in_common
from edgealloc.solvers.ofdma.allocation import allocation_of, assignment_of
from edgealloc.solvers.ofdma.box import OfdmaBox, Region, root_box
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.common_rate import common_starts
from edgealloc.solvers.ofdma.diagnose import blocked_devices, too_little_spectrum
from edgealloc.solvers.ofdma.free import free_bound
from edgealloc.solvers.ofdma.record import Columns, OfdmaProof, left_by
from edgealloc.solvers.ofdma.relaxation import Ofdma
from edgealloc.solvers.ofdma.start import improved, starts
from edgealloc.solvers.row import SMIN
from edgealloc.solvers.search.engine import Found, Outcome, branch_and_bound
from edgealloc.solvers.search.log import SearchLog
from edgealloc.solvers.search.record import Record

__all__ = ["search_ofdma"]

_STARTS = 3
SHAVES = (1e-12, 1e-10, 1e-8, 1e-6)  # of keep rates, should rounding break a budget


def search_ofdma(problem: Problem, options: Options) -> tuple[Result, Outcome[Assignment] | None]:
    """Prove the optimum of an OFDMA problem; the tree is None when none was needed or begun.

    Parameters
    ----------
    problem
        Any OFDMA problem.
    options
        Gap, limits, warm start, callback.

    Returns
    -------
    tuple of Result and Outcome or None
        As :func:`~edgealloc.solvers.exact.solve_bnb`, and the search.
    """
    cell = OfdmaCell.of(problem)
    log = SearchLog("bnb", problem.instance.name, options.log)
    with Control(replace(options, log=False)) as control:
        findings = no_level_in_common(problem.instance) or blocked_devices(cell)
        if findings:
            result = infeasible(problem, "bnb", control, findings)
            return replace(result, proof=OfdmaProof(cell.feasibility())), None
        found = _first_plans(cell, control)
        if not found:
            point, findings, proof = _feasible_plan(cell, control)
            if findings:
                return replace(infeasible(problem, "bnb", control, findings), proof=proof), None
            if point is not None:
                found.append(Found(cell.value(point), point, "X"))
        if not found:
            root = root_box(cell)
            bound = free_bound(cell, Region.of(cell, root))
            return replace(nothing_found(problem, "bnb", control, bound), proof=OfdmaProof(cell, root)), None
        best = min(found, key=lambda point: point.value)
        relaxation = Ofdma(cell, control.options.rel_gap, best.point, log.row, left_by(control.options.like, cell))
        record = Record[OfdmaBox]()
        enough = control.options.cutoff
        outcome = branch_and_bound(relaxation, control, starts=found, enough=enough, watch=log.row, record=record)
        proof = OfdmaProof(cell, relaxation.root(), record, Columns.of(relaxation.master, record))
        result = replace(_finish(cell, control, outcome, relaxation.rounds), proof=proof)
        log.report(result, outcome.tree)
        return result, outcome


def _first_plans(cell: OfdmaCell, control: Control) -> list[Found[Assignment]]:
    """The warm start and descents from rules of thumb, as far as they are feasible."""
    found = []
    if control.options.warm_start is not None:
        plan = assignment_of(cell, control.options.warm_start)
        if plan is not None:
            found.append(Found(cell.value(plan), plan, "W"))
    if found and left_by(control.options.like, cell) is not None:  # a start as good as any
        plan = improved(cell, found[0].point.owner, cell.pools.slopes_at(0.1), control)
        if plan is not None and cell.takes(plan):
            found.append(Found(cell.value(plan), plan, "X"))
        return found
    rng = np.random.default_rng(control.options.seed)
    found += [
        Found(cell.value(plan), plan, "X") for plan in starts(cell, rng, _STARTS, control) if cell.takes(plan)
    ]
    if cell.common and found:
        first = min(found, key=lambda point: point.value).point
        found += [Found(cell.value(plan), plan, "X") for plan in common_starts(cell, first, control)]
    if found and np.isfinite(cell.out).any():
        found += _heaviest_first(cell, min(found, key=lambda point: point.value).point, control)
    if not found and np.all(np.isfinite(cell.out)):
        found.append(Found(cell.value(_nobody(cell)), _nobody(cell), "X"))
    return found


def _heaviest_first(cell: OfdmaCell, plan: Assignment, control: Control) -> list[Found[Assignment]]:
    """Descents from all spectrum with one device that a plan leaves out, those first that are dear to leave out.

    A device that needs several sub-carriers at once is not found by moving them one by one.
    """
    found: list[Found[Assignment]] = []
    left_out = np.flatnonzero(plan.mode < 0)
    for k in left_out[np.argsort(-cell.out[left_out], kind="stable")][:_STARTS]:
        if control.stopped():
            break
        nu = cell.prices(plan.keep)
        trial = improved(cell, np.full(cell.subcarriers, k), nu, control)
        if trial is not None and cell.takes(trial):
            found.append(Found(cell.value(trial), trial, "X"))
    return found


def _feasible_plan(
    cell: OfdmaCell, control: Control
) -> tuple[Assignment | None, tuple[Diagnosis, ...], OfdmaProof | None]:
    """An assignment in which every device has a set, or the proof that there is none; neither when time is up.

    The count of devices left out is minimised by the same search, with shares of 0 and keep rates at their least.
    """
    count = cell.feasibility()
    first = _nobody(cell)
    starts = [Found(float(cell.devices), first, "X")]
    relaxation, record = Ofdma(count, 1e-9, first), Record[OfdmaBox]()
    outcome = branch_and_bound(relaxation, control, starts=starts, record=record)
    if outcome.best is not None and outcome.best.value == 0.0:
        return cell.keeps(outcome.best.point.owner, outcome.best.point.mode), (), None
    if outcome.lower_bound > 0.0:
        return None, too_little_spectrum(cell, 1), OfdmaProof(count, relaxation.root(), record)
    return None, (), None


def _finish(cell: OfdmaCell, control: Control, outcome: Outcome[Assignment], rounds: int) -> Result:
    """The result, with the objective of the allocation as it is returned."""
    problem = cell.problem
    assert outcome.best is not None  # the search began with one
    bound = outcome.lower_bound
    allocation, broken = _within(cell, outcome.best.point)
    if allocation is None:
        message = f"the allocation found breaks a budget by rounding ({broken}); please report the instance"
        result = unsolved(problem, "bnb", control, bound, message)
        return replace(result, nodes=outcome.nodes, iterations=rounds)
    option = np.maximum(allocation.option, 0)
    value = problem.objective(allocation.keep, allocation.selected, option)
    result = proven(problem, "bnb", control, allocation, value, min(bound, value))
    return replace(result, nodes=outcome.nodes, iterations=rounds)


def _within(cell: OfdmaCell, plan: Assignment) -> tuple[Allocation | None, str]:
    """The allocation of a plan, shaved should rounding break a budget; or None and what stays broken."""
    broken = ""
    for trial in _shaved(cell, plan):
        allocation = allocation_of(cell, trial)
        found = cell.problem.violations(allocation)
        if not found:
            return allocation, ""
        broken = broken or str(found[0])
    return None, broken


def _shaved(cell: OfdmaCell, plan: Assignment) -> Iterator[Assignment]:
    """A plan, then with ever lower keep rates where any are allowed, then with nobody where that is allowed."""
    yield plan
    on = plan.mode >= 0
    rows = cell.safe_rows[plan.mode]
    free = on & np.isnan(cell.levels[plan.mode]).all(axis=1)
    if not cell.common or np.array_equal(free, on):
        for shave in SHAVES:
            least = rows[:, SMIN].max(initial=0.0, where=on) if cell.common else rows[:, SMIN]
            yield replace(plan, keep=np.where(free, np.maximum(plan.keep * (1.0 - shave), least), plan.keep))
    if np.all(np.isfinite(cell.out)):
        yield _nobody(cell)


def _nobody(cell: OfdmaCell) -> Assignment:
    """Everybody left out."""
    return Assignment(np.full(cell.subcarriers, -1), np.full(cell.devices, -1), np.zeros(cell.devices))
