"""Whether the certificate of a plan proves its bound: a cover of all numbers of rounds, each interval proved.

Every interval's problem is easier than its rounds, and its own certificate proves the bound under the plan's
constraints, and under no other. The checks of all intervals together take no more work than the size of the whole
allows. Derived in docs/runs.md, section *What is checked*.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from edgealloc.certificate.run import RunCertificate, RunPiece
from edgealloc.data.constraints import fitted
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.run import RunClaims
from edgealloc.errors import InputError
from edgealloc.units import FloatArray
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.form import Findings
from edgealloc.verify.proof.verdict import Budget, Proof
from edgealloc.verify.training.ease import enough, is_below, round_spec

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
    time, joules = _budgets(claims, energy, found)
    if found.faults:
        return
    _check_cover(claims, certificate, found)
    sizes = [piece.certificate.size for piece in certificate.pieces]
    budget = Budget.of(sum(sizes) if all(sizes) else 0)  # of all pieces together
    for i, piece in enumerate(certificate.pieces):
        if found.faults:
            return
        one = _easier(instance, claims, (time, joules), piece, f"pieces[{i}]", found)
        if one is not None:
            proof = check_certificate(one, piece.certificate, constraints=rows, budget=budget)
            _check_bound(claims, piece, proof, certificate.lower_bound, f"pieces[{i}]", found)
    if not found.faults:
        proved = (
            "that no run is feasible"
            if certificate.lower_bound == math.inf
            else f"lower_bound of the {claims.minimise}"
        )
        count = len(certificate.pieces)
        notes.append(
            f"proved {proved}: {count} intervals cover runs of {claims.span[0]} to {claims.span[1]} rounds"
            + (f", all under the plan's {len(rows)} constraints" if rows else "")
        )


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


def _check_cover(claims: RunClaims, certificate: RunCertificate, found: Findings) -> None:
    """All numbers of rounds lie in an interval, and the bound is what the plan claims."""
    reached = claims.span[0] - 1
    for piece in sorted(certificate.pieces, key=lambda p: p.first):
        if piece.first > reached + 1:
            break
        reached = max(reached, piece.last)
    if reached < claims.span[1]:
        found.add(
            "certificate", "pieces", f"none for {reached + 1} rounds", "intervals that cover the whole range"
        )
    bound, stated = certificate.lower_bound, claims.lower_bound
    if claims.minimise != "loss":
        if not bound > (claims.target or 0.0):
            found.add("certificate", "lower_bound", bound, f"above the target {claims.target!r}")
    elif claims.status is Status.INFEASIBLE:
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
        wrong(
            "half, steepness, loss_range, lipschitz", "too large", "terms below those of every run of the interval"
        )
    if len(found.faults) > before:
        return None
    try:
        return instance.with_changes(
            latency_s=piece.latency_s,
            energy_j=piece.energy_j,
            learning=None,
            device_underfit=None,
            bound=round_spec(spec, piece.half, piece.steepness, piece.loss_range, piece.lipschitz),
        )
    except InputError as error:
        found.faults += error.faults
        return None


def _check_bound(
    claims: RunClaims, piece: RunPiece, proof: Proof, bound: float, key: str, found: Findings
) -> None:
    """The faults of a piece's proof; and its bound, with the floor, is at least that of the whole."""
    found.faults += [replace(fault, where=f"certificate, {key}") for fault in proof.faults]
    proved, floor = piece.certificate.lower_bound, claims.learning.floor
    if proved == math.inf:
        return
    if not (math.isfinite(bound) and Fraction(floor) + Fraction(proved) >= Fraction(bound)):
        allowed = f"at least {bound!r} less the floor {floor!r}"
        found.add("certificate", f"{key}.certificate.lower_bound", str(proved), allowed)
