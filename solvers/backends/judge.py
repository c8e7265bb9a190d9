r"""What a back end claims, and what of it is true.

A claim is never passed on. Its point is evaluated by the problem, repaired until it breaks no budget
(:mod:`edgealloc.solvers.backends.repair`) and evaluated again. Its bound counts with a stated reason only; for
log-convex problems :func:`certified_floor` gives one of our own, weak duality at the prices that the point
implies. Its word "infeasible" counts when we can prove it too. Its word "optimal" counts for nothing: gaps decide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import ParticipationCap, SpectrumCap, SubcarrierCap
from edgealloc.data.outcome import Diagnosis, Snapshot, Status, relative_gap
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.evaluation import Violation
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.backends.repair import repair
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import nobody, unsolved
from edgealloc.solvers.fdma.cell import Cell
from edgealloc.solvers.fdma.diagnose import diagnose
from edgealloc.solvers.fdma.response import BANDWIDTH, SLOPE, share

__all__ = [
    "UNASKED",
    "Claim",
    "Judgement",
    "Stop",
    "certified_floor",
    "conclude",
    "judge",
    "proven_infeasible",
    "stop_of",
]

LEAST_S = 0.2  # time for that proof where a limit leaves none: single devices and the sum take less
_ABOVE = 1e-9  # relative; our bounds and objectives round by less
PROOF_S = 10.0  # time for a proof of our own that a problem is infeasible
UNASKED = "a device without gain or energy has no logarithm, and the solver was not asked"


class Stop(Enum):
    """Why a back end stopped, in our words."""

    SOLVED = "solved"
    LIMIT = "stopped at a limit"
    INFEASIBLE = "infeasible"
    FAILED = "failed"


def stop_of(table: Mapping[str, Stop], native: str) -> Stop:
    """Look up a native status.

    Parameters
    ----------
    table
        Every status that the solver's documentation lists.
    native
        The status in the solver's own words.

    Returns
    -------
    Stop
        One that the table does not list is a failure, never a success.
    """
    return table.get(native, Stop.FAILED)


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a back end says, before anybody judged it.

    Parameters
    ----------
    method, solver
        Our name of the method; name and version of the program that answered.
    native, stop
        Its status in its own words, and in ours.
    point
        Its point, or None.
    objective
        The objective it reports, NaN without a point.
    lower_bound, reason
        The bound it reports, and why it may be believed; without a reason the bound is dropped.
    detail
        How exact the model was, in words.
    nodes, iterations
        Effort.
    redeal
        Whether a repair may deal the spectrum anew (not where a user's own rows hold the shares).
    """

    method: str
    solver: str
    native: str
    stop: Stop
    point: Allocation | None = None
    objective: float = math.nan
    lower_bound: float = -math.inf
    reason: str = ""
    detail: str = ""
    nodes: int = 0
    iterations: int = 0
    redeal: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """A point as we see it.

    Parameters
    ----------
    violation
        Largest relative excess over a budget or range at the point as given, 0 when feasible, NaN where a
        value is.
    raw_objective
        G at the point as given, feasible or not.
    objective
        G at the repaired point, ``inf`` when it cannot be repaired.
    allocation
        The repaired point, feasible in double precision, or None.
    """

    violation: float
    raw_objective: float
    objective: float
    allocation: Allocation | None


def judge(problem: Problem, point: Allocation, redeal: bool = True) -> Judgement:
    """Evaluate a point with the problem model alone, and repair it.

    OFDMA points are judged by their owners: power on a sub-carrier that another device owns carries nothing.

    Parameters
    ----------
    problem
        What the point is for.
    point
        An allocation that may break budgets.
    redeal
        Whether a repair may deal the spectrum anew.

    Returns
    -------
    Judgement
        How far the point breaks budgets, relatively, G there, and the repaired point.
    """
    seen = problem.evaluate(point)
    excess = [_excess(problem, v) for v in seen.violations]
    repaired = repair(problem, point, redeal)
    return Judgement(
        violation=float(np.max(excess)) if excess else 0.0,
        raw_objective=seen.objective,
        objective=problem.evaluate(repaired).objective if repaired is not None else math.inf,
        allocation=repaired,
    )


def _excess(problem: Problem, violation: Violation) -> float:
    """Relative distance of a value from what is allowed, of a keep rate from its nearest level."""
    inst, limit = problem.instance, violation.limit
    if violation.constraint == "keep_levels" and violation.device is not None and inst.keep_levels is not None:
        levels = inst.keep_levels[inst.device_names.index(violation.device)]
        assert levels is not None
        limit = float(levels[np.argmin(np.abs(levels - violation.value))])
    return abs(violation.value - limit) / abs(limit) if limit else math.inf


def certified_floor(problem: Problem, point: Allocation) -> float:
    """Lower bound of a log-convex problem at the prices that a point implies, whatever the point is.

    Per device that is inside its keep range, the price per Hz at which its keep rate would be stationary is
    ``-share'(x) / (d b / d x)``; the median weighted by bandwidth is taken. At an optimal point all are equal and
    the bound is tight; elsewhere weak duality still holds (see
    :meth:`edgealloc.solvers.fdma.cell.Cell.lower_bound`). A common keep rate has no such prices: the largest rate
    that is proved not to fit bounds it, where it lies below the free one; beyond that G rises.
    """
    inst, cell = problem.instance, Cell.of(problem)
    keep = np.clip(point.keep, inst.keep_min, inst.keep_max)
    x = np.log(keep)
    if inst.common_keep:
        free = float(problem.free[1][0])
        for step in (0.0, *(1e-12 * 8.0**i for i in range(13))):
            if cell.least_total_hz(x.min() + step + np.zeros_like(x)) > inst.bandwidth_hz:
                least = min(math.exp(x.min() + step), free)
                return problem.objective(np.full_like(x, least)) * (1.0 - 1e-13)
        return -math.inf
    table = cell.bandwidth_at(x, np.zeros_like(x))
    q0 = float(np.clip(inst.weights @ np.square(keep), 0.0, 1.0))
    nu = cell.price_of_kept(q0)
    wish = -np.array(
        [share(x[k], cell.under[k], cell.weight[k], nu, cell.pool, cell.scale[k])[1] for k in range(len(x))]
    )
    inside = (x > cell.low + 1e-9) & (x < cell.high - 1e-9) & np.isfinite(table[BANDWIDTH])
    mu = 0.0
    if inside.any():
        price = wish[inside] / (table[BANDWIDTH] * table[SLOPE])[inside]
        order = np.argsort(price)
        mass = np.cumsum(table[BANDWIDTH][inside][order])
        mu = max(0.0, float(price[order][np.searchsorted(mass, 0.5 * mass[-1])]))
    if mu > 0.0:
        cell.answer(mu, q0, table)
        priced = cell.lower_bound(mu, q0, table)
    else:
        priced = -math.inf
    return max(priced, proven_free(problem))


def proven_free(problem: Problem) -> float:
    """G_free as a lower bound, ``-inf`` where :func:`edgealloc.formulation.free.free_minimum` proves none."""
    inst = problem.instance
    exact = problem.underfit.name in ("inverse-keep", "perturbation") and not inst.common_keep
    if inst.exclusion_penalty is not None and not problem.objective.own:
        exact = False
    return problem.free_objective * (1.0 - 1e-9) if exact else -math.inf


def proven_infeasible(problem: Problem, seconds: float = PROOF_S) -> tuple[Diagnosis, ...]:
    """Our own proof within some seconds that a problem has no feasible point, with its diagnosis; or nothing."""
    problem = problem.of_resources
    if problem.instance.access == "fdma" and not problem.structure.discrete:
        return diagnose(Cell.of(problem))
    if problem.instance.exclusion_penalty is not None:
        return ()  # leaving everybody out is feasible
    from edgealloc.solvers.exact import solve_bnb

    try:
        known = (SubcarrierCap,) if problem.instance.access == "ofdma" else (SpectrumCap, ParticipationCap)
        caps = [row for row in problem.constraints if isinstance(row, known)]  # the others are left out
        ours = solve_bnb(problem.constrained(caps), Options(time_limit=seconds))
    except EdgeallocError:  # a problem that the exact methods do not take
        return ()
    return ours.diagnosis if ours.status is Status.INFEASIBLE else ()


def conclude(problem: Problem, claim: Claim, control: Control) -> Result:
    """The result that a claim deserves.

    ``optimal`` needs a gap within the limit; ``locally_solved`` a solver that says so and gives no believed
    bound; ``infeasible`` our own proof; a point that cannot be repaired is no solution.

    Parameters
    ----------
    problem
        What was to be solved.
    claim
        What the solver says.
    control
        Gap and clock.

    Returns
    -------
    Result
        Its bound is the best of what is believed and what we prove.
    """
    judged = judge(problem, claim.point, claim.redeal) if claim.point is not None else None
    words = [f"{claim.solver} says {claim.native!r}"] + ([claim.detail] if claim.detail else [])
    bound, reason = claim.lower_bound, claim.reason
    if not reason or math.isnan(bound) or claim.stop is Stop.INFEASIBLE:  # SCIP's bound is 1e20 then
        bound, reason = -math.inf, ""
    elif judged is not None and bound > judged.objective:
        words.append(f"its bound {bound:.12g} lies above a feasible point and is refused")
        bound, reason = -math.inf, ""
    one_price = problem.structure.log_convex and problem.pools is None
    if judged is not None and one_price and problem.instance.access == "fdma":
        assert claim.point is not None
        floor = certified_floor(problem, judged.allocation or claim.point)
        if floor >= bound:
            bound, reason = floor, "recomputed by weak duality at the prices that the point implies"
    if proven_free(problem) > bound:
        bound, reason = proven_free(problem), "the minimum without resource limits"
    if judged is not None and bound > judged.objective * (1.0 + _ABOVE):
        words.append(f"our own bound {bound:.12g} lies above a feasible point; please report the instance")
        bound, reason = -math.inf, ""
    findings: tuple[Diagnosis, ...] = ()
    objective, allocation = math.inf, None
    if judged is not None and judged.allocation is not None:
        objective, allocation = judged.objective, judged.allocation
        gap = relative_gap(objective, bound)
        status = Status.OPTIMAL if gap <= control.options.rel_gap else Status.FEASIBLE
        if status is Status.FEASIBLE and claim.stop is Stop.SOLVED and not claim.reason:
            status = Status.LOCALLY_SOLVED
        words += [_difference(claim, judged), f"bound {bound:.9g}: {reason}" if reason else "no bound"]
    else:
        limit = control.options.time_limit
        left = PROOF_S if limit is None else min(max(limit - control.seconds, LEAST_S), PROOF_S)
        findings = proven_infeasible(problem, left)
        status = Status.INFEASIBLE if findings else Status.NO_SOLUTION
        if findings:
            bound = math.inf
            words = [finding.message for finding in findings] + words
        elif claim.stop is Stop.FAILED:
            status = Status.ERROR
        elif claim.stop is Stop.INFEASIBLE:
            rest = (
                "relax a constraint or a budget"
                if problem.constraints
                else "solve with an exact method to be sure"
            )
            words.append(f"that is not proved here: {rest}")
        elif judged is not None:
            words.append(f"its point breaks a budget by {judged.violation:.2g} and cannot be repaired")
        if not findings and problem.instance.exclusion_penalty is not None:
            empty = nobody(problem)
            if not problem.violations(empty):
                allocation, objective = empty, problem.evaluate(empty).objective
                closed = relative_gap(objective, bound) <= control.options.rel_gap
                status = Status.OPTIMAL if closed else Status.FEASIBLE
                words.append("everybody is left out")
    if claim.native and control.reason:
        words.append(control.reason)
    gap = relative_gap(objective, bound)
    control.report(Snapshot(claim.method, control.seconds, claim.iterations, bound, objective, gap, claim.nodes))
    return replace(
        unsolved(problem, claim.method, control, bound, "; ".join(words)),
        status=status,
        objective=objective,
        allocation=allocation,
        nodes=claim.nodes,
        iterations=claim.iterations,
        diagnosis=findings,
    )


def _difference(claim: Claim, judged: Judgement) -> str:
    """By how much the claim and our judgement differ, and why."""
    told = f"claims {claim.objective:.9g}" if math.isfinite(claim.objective) else "claims no objective"
    honest = f"its point is worth {judged.objective:.9g} after repair"
    if judged.violation == 0.0:
        return f"{told}; {honest} (it breaks no budget)"
    return f"{told}; {honest} (it breaks a budget by {judged.violation:.2g} of it)"
