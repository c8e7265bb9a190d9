"""Whether the certificate of a plan proves its bound: a cover of all numbers of rounds, each interval proved.

Every interval's problem is easier than its rounds, and its own certificate proves the bound under the plan's
constraints, and under no other. The checks of all intervals together take no more work than the size of the whole
allows. Derived in docs/runs.md, section *What is checked*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from fractions import Fraction

from edgealloc.certificate.run import RunCertificate, RunPiece
from edgealloc.data.constraints import Constraint, fitted
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec
from edgealloc.data.outcome import Status
from edgealloc.data.run import RunClaims
from edgealloc.errors import InputError
from edgealloc.units import FloatArray
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.form import Findings
from edgealloc.verify.proof.verdict import Budget, Proof
from edgealloc.verify.training.ease import enough, is_below, round_of
from edgealloc.verify.training.staircase import beyond_walls

__all__ = ["check_run_certificate"]


def check_run_certificate(
    instance: Instance,
    claims: RunClaims,
    energy: FloatArray | None,
    certificate: RunCertificate,
    found: Findings,
    notes: list[str],
) -> None:
    """Note what keeps a certificate from proving the bound of a plan, or that no run is feasible.

    Parameters
    ----------
    instance, claims, energy
        The instance of a round, the plan, and its energy totals in J in the order of the instance, shape [K], or
        None.
    certificate
        The claimed proof.
    found, notes
        Collect the faults, and what was proved.
    """
    if certificate.instance_name != instance.name:
        found.add("certificate", "instance", certificate.instance_name, f"{instance.name!r}")
    try:  # those of the plan, and no other, may be leant on
        rows = () if claims.round is None else tuple(fitted(claims.round.constraints, instance))
    except InputError as error:
        found.faults += error.faults
        return
    sizes = certificate.sizes
    work = Budget.of(sum(sizes) if all(sizes) else 0)  # of all pieces together
    if claims.minimise == "weighted":
        _check_walls(instance, claims, energy, certificate, rows, work, found)
        count = sum(len(wall.pieces) for wall in certificate.walls)
    else:
        budgets = _budgets(claims, energy, found)
        if certificate.walls:
            found.add("certificate", "walls", "given", f"none where the {claims.minimise} is minimised")
        if not found.faults:
            _check_stated(claims, certificate, found)
            part = _Part(budgets, certificate.pieces, certificate.lower_bound, "")
            _check_part(instance, claims, part, rows, work, found)
        count = len(certificate.pieces)
    if not found.faults:
        kind = "weighted sum" if claims.minimise == "weighted" else claims.minimise
        proved = f"lower_bound of the {kind}"
        if claims.status is Status.INFEASIBLE:
            proved = "that no run is feasible" + " and reaches the target" * (claims.minimise != "loss")
        notes.append(
            f"proved {proved}: {count} intervals cover runs of {claims.span[0]} to {claims.span[1]} rounds"
            + (f", in {len(certificate.walls)} pairs of budgets" if certificate.walls else "")
            + (f", all under the plan's {len(rows)} constraints" if rows else "")
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """Budgets within which no run has a loss below ``bound``, as intervals of rounds are to show."""

    budgets: tuple[Fraction | None, list[Fraction] | None]
    pieces: tuple[RunPiece, ...]
    bound: float
    key: str


def _check_part(
    instance: Instance,
    claims: RunClaims,
    part: _Part,
    rows: tuple[Constraint, ...],
    work: Budget,
    found: Findings,
) -> None:
    """The intervals of a part cover all numbers of rounds, and each proves the bound."""
    reached = claims.span[0] - 1
    for piece in sorted(part.pieces, key=lambda p: p.first):
        if piece.first > reached + 1:
            break
        reached = max(reached, piece.last)
    if reached < claims.span[1]:
        key, allowed = f"{part.key}pieces", "intervals that cover the whole range"
        found.add("certificate", key, f"none for {reached + 1} rounds", allowed)
    for i, piece in enumerate(part.pieces):
        if found.faults:
            return
        key = f"{part.key}pieces[{i}]"
        one = _easier(instance, claims, part.budgets, piece, key, found)
        if one is not None:
            proof = check_certificate(one, piece.certificate, constraints=rows, budget=work)
            _check_bound(claims, piece, proof, part.bound, key, found)


def _check_walls(
    instance: Instance,
    claims: RunClaims,
    energy: FloatArray | None,
    certificate: RunCertificate,
    rows: tuple[Constraint, ...],
    work: Budget,
    found: Findings,
) -> None:
    """No pair of budgets of a certificate reaches the target, and what lies beyond all of them costs enough."""
    assert claims.weights is not None
    assert claims.target is not None
    assert energy is not None  # a weighted sum without these was refused before
    if certificate.pieces:
        found.add("certificate", "pieces", "given", "walls, for a weighted sum")
    for i, wall in enumerate(certificate.walls):
        if not (0.0 < wall.time_s < math.inf and 0.0 < wall.share < math.inf):
            found.add("certificate", f"walls[{i}]", f"{wall.time_s}, {wall.share}", "a time and a share above 0")
            return
    most = None if claims.time_s is None else Fraction(claims.time_s)
    if claims.caps:
        own = Fraction(instance.latency_s) * claims.span[1]
        most = own if most is None else min(most, own)
    least = beyond_walls([(wall.time_s, wall.share) for wall in certificate.walls], claims.weights, most)
    bound = certificate.lower_bound
    if least is not None and not (math.isfinite(bound) and Fraction(bound) <= least):
        allowed = f"at most {float(least)!r}, the least that walls leave"
        found.add("certificate", "lower_bound", str(bound), allowed)
    _check_whole(claims, bound, found)
    joules = [Fraction(value) for value in energy.tolist()]
    for i, wall in enumerate(certificate.walls):
        if not wall.lower_bound > claims.target:
            allowed = f"above the target {claims.target!r}"
            found.add("certificate", f"walls[{i}].lower_bound", wall.lower_bound, allowed)
        if found.faults:
            return
        budgets = Fraction(wall.time_s), [value * Fraction(wall.share) for value in joules]
        part = _Part(budgets, wall.pieces, wall.lower_bound, f"walls[{i}].")
        _check_part(instance, claims, part, rows, work, found)


def _budgets(
    claims: RunClaims, energy: FloatArray | None, found: Findings
) -> tuple[Fraction | None, list[Fraction] | None]:
    """Time and energy for all rounds together, within which no run may be better than the certificate says.

    Where time or energy is minimised, they are what the lower bound leaves: nothing there reaches the target.
    """
    time = None if claims.time_s is None else Fraction(claims.time_s)
    joules = None if energy is None else [Fraction(value) for value in energy.tolist()]
    bound = claims.lower_bound
    if claims.minimise == "loss":
        return time, joules
    if bound is None:
        if claims.status is not Status.INFEASIBLE:
            found.add("plan", "lower_bound", None, "a number: the certificate is about it")
        elif claims.minimise == "time" and time is None and not claims.caps:
            allowed = "time_s, or the deadline of the instance in every round (caps): no time is too long else"
            found.add("plan", "status", claims.status.value, allowed)
        return time, joules
    if claims.minimise == "time":
        return Fraction(bound), joules
    return time, None if joules is None else [value * Fraction(bound) for value in joules]


def _check_stated(claims: RunClaims, certificate: RunCertificate, found: Findings) -> None:
    """The bound of a certificate is what the plan claims, or above its target."""
    bound = certificate.lower_bound
    if claims.minimise == "loss":
        _check_whole(claims, bound, found)
    elif not bound > (claims.target or 0.0):
        found.add("certificate", "lower_bound", bound, f"above the target {claims.target!r}")


def _check_whole(claims: RunClaims, bound: float, found: Findings) -> None:
    """A certificate is about the bound of the plan, or says that no run will do."""
    stated = claims.lower_bound
    if claims.status is Status.INFEASIBLE:
        if bound != math.inf:
            found.add("certificate", "lower_bound", bound, "null, which claims that no run is feasible")
    elif stated is None or not stated <= bound:
        found.add("plan", "lower_bound", stated, f"at most {bound!r}, which the certificate is about")


def _easier(
    instance: Instance,
    claims: RunClaims,
    budgets: tuple[Fraction | None, list[Fraction] | None],
    piece: RunPiece,
    key: str,
    found: Findings,
) -> Instance | None:
    """The problem of one interval, if it is easier than its rounds; else None, and why it is not."""
    spec, (time, joules), before = claims.learning, budgets, len(found.faults)

    def wrong(name: str, value: object, allowed: str) -> None:
        found.add("certificate", f"{key}.{name}", str(value), allowed)

    if not 1 <= piece.first <= piece.last:
        wrong("last", piece.last, f"at least first, {piece.first}")
        return None
    if len(piece.energy_j) != instance.num_devices:
        wrong("energy_j", f"{len(piece.energy_j)} numbers", f"one per device ({instance.num_devices})")
        return None
    if not enough(piece.latency_s, piece.first, instance.latency_s, time, claims.caps):
        wrong("latency_s", piece.latency_s, f"what {piece.first} rounds may take each, or more")
    for k, joule in enumerate(piece.energy_j.tolist()):
        own = None if joules is None else joules[k]
        if not enough(joule, piece.first, float(instance.energy_j[k]), own, claims.caps):
            allowed = f"what {instance.device_names[k]} may spend in each of {piece.first} rounds, or more"
            wrong(f"energy_j[{k}]", joule, allowed)
    if not is_below(instance, spec, piece):
        wrong(", ".join(f.name for f in fields(piece.terms)), "too large", "terms below those of every run of it")
    if len(found.faults) > before:
        return None
    try:
        return instance.with_changes(
            latency_s=piece.latency_s,
            energy_j=piece.energy_j,
            learning=None,
            device_underfit=None,
            bound=round_of(spec, piece.terms),
        )
    except InputError as error:
        found.faults += error.faults
        return None


def _check_bound(
    claims: RunClaims, piece: RunPiece, proof: Proof, bound: float, key: str, found: Findings
) -> None:
    """The faults of a piece's proof; and its bound, with the floor, is at least that of the whole."""
    found.faults += [replace(fault, where=f"certificate, {key}") for fault in proof.faults]
    proved = piece.certificate.lower_bound
    floor = claims.learning.floor if isinstance(claims.learning, LearningSpec) else 0.0
    if proved == math.inf:
        return
    if not (math.isfinite(bound) and Fraction(floor) + Fraction(proved) >= Fraction(bound)):
        allowed = f"at least {bound!r} less the floor {floor!r}"
        found.add("certificate", f"{key}.certificate.lower_bound", str(proved), allowed)
