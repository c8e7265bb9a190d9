"""Writes certificates: the proof of a result's lower bound, for the checker that shares no code with us.

The planes are those of :func:`edgealloc.solvers.fdma.response.tangent`, given by the point where they touch and by
their multipliers; a worse plane proves less, never something wrong. The proof is checked before it is handed
out, by :mod:`edgealloc.verify.certificate`, and where it proves a few units in the last place less than the
result claims, the result is lowered, not the standard.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgealloc.certificate.file import AnyCertificate
from edgealloc.certificate.form import canonical
from edgealloc.certificate.prices import Certificate, Node, Pieces, Planes
from edgealloc.certificate.subcarriers import SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.certify.infeasible import infeasible_certificate
from edgealloc.solvers.certify.planes import planes_at
from edgealloc.solvers.certify.rows import certified_rows
from edgealloc.solvers.certify.search import search_certificate
from edgealloc.solvers.exact import solve_bnb
from edgealloc.solvers.fdma.cell import Cell
from edgealloc.solvers.fdma.convex import solve_convex
from edgealloc.solvers.fdma.response import X, new_table
from edgealloc.units import FloatArray
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.solution import DOUBT

__all__ = ["certified"]


WRITE_S = 60.0  # that writing a certificate may take unless the caller says otherwise


def certified(
    result: Result, rel_gap: float = 1e-4, time_limit: float | None = WRITE_S
) -> tuple[Result, AnyCertificate]:
    """A result with the certificate of its lower bound, or of its infeasibility.

    Parameters
    ----------
    result
        A result of method ``convex`` or ``bnb`` that has an allocation, or is infeasible.
    rel_gap
        What the status ``optimal`` stands for.
    time_limit
        Wall-clock limit in s of writing, compiling not counted; None for none.

    Returns
    -------
    result, certificate
        The result's bound is the one proved: a hair lower than given where rounding costs the proof a few digits.
        Where that costs it ``optimal``, it is nine tenths of the gap below the objective, or the result of a
        second solve, to a tenth of the gap.

    Raises
    ------
    EdgeallocError
        When there is no bound to prove, the method leaves no proof, a cap on sub-carriers may bind, the proof
        takes longer to check than a file of its size may, or time is up. The result stands as it is.
    """
    proved, certificate = _certified(result, rel_gap, time_limit)
    if result.status is not Status.OPTIMAL or proved.status is Status.OPTIMAL:
        return proved, certificate
    less = result.objective - 0.9 * rel_gap * abs(result.objective)
    if less < result.lower_bound:  # a bound close to the optimum may leave no room for what a proof rounds by
        again = _certified(replace(result, lower_bound=less), rel_gap, time_limit)
        if again[0].status is Status.OPTIMAL:
            return again
    closer = _solved_closer(result, 0.1 * rel_gap, time_limit)
    if closer.status is Status.OPTIMAL:
        again = _certified(closer, rel_gap, time_limit)
        if again[0].status is Status.OPTIMAL:
            return again
    return proved, certificate


def _solved_closer(result: Result, rel_gap: float, time_limit: float | None) -> Result:
    """The problem solved once more by the same method, to a smaller gap: proofs may lose some of what it found."""
    solve = solve_convex if result.method == "convex" else solve_bnb
    closer = solve(result.problem.tightened, Options(rel_gap, time_limit, warm_start=result.allocation))
    return replace(closer, problem=result.problem, seconds=result.seconds + closer.seconds)


def _certified(result: Result, rel_gap: float, time_limit: float | None) -> tuple[Result, AnyCertificate]:
    """See :func:`certified`: without a second solve.

    Raises
    ------
    EdgeallocError
        As :func:`certified`.
    """
    infeasible = result.status is Status.INFEASIBLE
    if not infeasible and not (result.status.has_allocation and math.isfinite(result.lower_bound)):
        raise EdgeallocError(
            f"a result with status {result.status.value} has no lower bound that could be certified"
        )
    tight = replace(result, problem=result.problem.tightened)  # what the method has solved
    certificate = _made(tight, infeasible, Control(Options(time_limit=time_limit)))
    used = certified_rows(tight.problem, result.problem.constraints)
    if used:
        certificate = replace(certificate, constraints=used)
    certificate = replace(certificate, size=len(canonical(certificate.to_file())))  # readers go by it
    stated = result.problem.constraints
    proof = check_certificate(result.problem.instance, certificate, constraints=stated, every=True)
    if any(fault.field == "work" for fault in proof.faults):
        raise EdgeallocError(f"the proof cannot be checked in reasonable time ({proof.faults[0]})")
    if proof.faults and infeasible:
        raise EdgeallocError(f"the infeasibility is too close to be certified ({proof.faults[0]})")
    if proof.faults:
        lower = proof.lower_bound - 1e-15 * abs(proof.lower_bound)
        if lower < 0.0 and result.problem.underfit.name != "custom":  # squares below the range of doubles, say
            certificate = _of_nothing(result.problem.instance)
        elif math.isfinite(lower):
            certificate = replace(certificate, lower_bound=lower)
        else:
            raise EdgeallocError(f"the certificate does not hold ({proof.faults[0]}); please report the instance")
    elif result.status.has_allocation and proof.lower_bound > result.objective + 1e-9 * abs(result.objective):
        raise EdgeallocError(f"a proof above the objective of a feasible allocation: {DOUBT} the instance")
    if not infeasible and certificate.lower_bound < result.lower_bound:
        result = replace(result, lower_bound=certificate.lower_bound)
        if result.status is Status.OPTIMAL and not result.rel_gap <= rel_gap:
            message = f"the certificate proves a gap of {result.rel_gap:.3g} only"
            result = replace(result, status=Status.FEASIBLE, message=message)
    return result, certificate


def _made(result: Result, infeasible: bool, control: Control) -> AnyCertificate:
    """The certificate that goes with a method, unchecked.

    Raises
    ------
    EdgeallocError
        When the method leaves no proof, or time is up.
    """
    instance, known = result.problem.instance, result.problem.underfit.name != "custom"
    if known and result.lower_bound <= 0.0:
        return _of_nothing(instance)
    if result.method in ("convex", "bnb") and infeasible and instance.access != "ofdma":
        return infeasible_certificate(result.problem)
    if result.method == "convex" and not infeasible:
        return _common(result) if instance.common_keep else _of_prices(result)
    if result.method == "bnb" and result.proof is not None and (known or infeasible):
        if instance.access == "ofdma":
            if result.proof.cell.capped:
                raise EdgeallocError(
                    "there is no certificate where a cap on sub-carriers may bind: the bound is that of the search"
                )
            from edgealloc.solvers.certify.subcarriers import ofdma_certificate  # its kernels load when needed

            return ofdma_certificate(result, control)
        return search_certificate(result, control)
    if not known:
        raise EdgeallocError(
            "there is no certificate under an underfitting function from Python: no file holds it"
        )
    raise EdgeallocError(
        f"method {result.method!r} leaves no certificate here: there are some for 'convex' and 'bnb'"
    )


def _of_nothing(instance: Instance) -> AnyCertificate:
    """The certificate of a bound of 0: G is nowhere negative, so there is nothing to show."""
    if instance.access == "ofdma":
        return SubcarrierCertificate(instance.name, 0.0, ())
    return Certificate(instance.name, "prices", 0.0, _one_each(none := np.zeros(0), none, _no_planes(none)))


def _of_prices(result: Result) -> Certificate:
    """One box, one piece per device: the whole keep range, touched where the device answers the prices."""
    problem, cell = result.problem, Cell.of(result.problem)
    inst = problem.instance
    mu, q = result.prices["spectrum_per_hz"], result.prices["kept_share"]
    keep, rows = np.asarray(problem.free[1]), tuple(result.proof or ())
    if mu > 0.0:
        table = new_table(inst.num_devices)
        table[X] = np.log(result.allocation.keep) if result.allocation is not None else table[X]
        if rows:
            cell.answer_each(np.array(rows) @ cell.caps.spectrum, q, table)
        else:
            cell.answer(mu, q, table)
        keep = np.clip(np.exp(table[X]), inst.keep_min, inst.keep_max)
    planes = planes_at(cell.rows, keep) if mu > 0.0 else _no_planes(keep)
    pieces = _one_each(inst.keep_min, inst.keep_max, planes)
    node = Node(-1, None, mu, q, rows[1:])
    used = certified_rows(problem)
    return Certificate(inst.name, "prices", result.lower_bound, pieces, (node,), constraints=used)


def _common(result: Result) -> Certificate:
    """The least rate above the one found at which the planes prove that the spectrum is too small."""
    problem, cell = result.problem, Cell.of(result.problem)
    inst = problem.instance
    low, high, count = float(inst.keep_min.max()), float(inst.keep_max.min()), inst.num_devices
    assert result.allocation is not None
    found, free = float(result.allocation.keep[0]), _common_free(problem, low, high)
    nothing = _one_each(np.zeros(0), np.zeros(0), _no_planes(np.zeros(0)))
    used = certified_rows(problem)
    best = Certificate(
        inst.name, "common-rate", result.lower_bound, nothing, cap=None, touch=free, constraints=used
    )
    if not check_certificate(inst, best, constraints=used).faults:
        return best  # the spectrum does not bind

    def capped(cap: float) -> Certificate | None:
        at = np.full(count, cap)
        pieces = _one_each(at, at, planes_at(cell.rows, at))
        trial = replace(best, pieces=pieces, cap=cap, touch=min(free, cap))
        faults = check_certificate(inst, trial, constraints=used).faults
        return None if any(fault.field == "cap" for fault in faults) else trial

    steps = [0.0, *(1e-15 * 4.0**i for i in range(20))]
    for short, enough in zip([0.0, *steps], steps, strict=False):
        trial = capped(min(found * (1.0 + enough), high))
        if trial is None:
            continue
        for _ in range(8):  # the bound falls with the cap: the least that can be proved
            middle = 0.5 * (short + enough)
            nearer = capped(min(found * (1.0 + middle), high))
            short, enough = (middle, enough) if nearer is None else (short, middle)
            trial = nearer or trial
        return trial
    return best


def _common_free(problem: Problem, low: float, high: float) -> float:
    """The common rate of least G, polished: the derivative at it is what the bound loses."""
    lo, hi = math.log(low), math.log(high)
    inst = problem.instance
    under = inst.bound.underfit_weight

    def slope(x: float) -> float:
        s = math.exp(x)
        square = s * s
        if problem.pooled:
            rise = problem.stability.pooled_slope(square)
        else:
            rise = math.fsum((inst.weights * problem.stability.slope(np.full(inst.num_devices, square))).tolist())
        return 2.0 * square * rise - under / s

    for _ in range(80):
        middle = 0.5 * (lo + hi)
        lo, hi = (lo, middle) if slope(middle) > 0.0 else (middle, hi)
    return min(max(math.exp(0.5 * (lo + hi)), low), high)


def _one_each(left: FloatArray, right: FloatArray, line: Planes) -> Pieces:
    """One piece per device."""
    count = len(left)
    return Pieces(np.arange(count), np.zeros(count, dtype=np.intp), left, right, line)


def _no_planes(keep: FloatArray) -> Planes:
    """Planes that say nothing, touching at keep rates [N]."""
    zero = np.zeros_like(keep)
    return Planes(keep, zero, zero, np.zeros(len(keep), dtype=np.intp), zero)
