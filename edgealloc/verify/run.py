r"""The checker of plans of whole training runs: budgets, predicted loss, and the bound from its certificate.

From the instance, the plan and the certificate alone, by formulas of its own (docs/runs.md). A bound is proved if

1. the intervals of rounds cover all that may be chosen;
2. every interval's problem is no harder than any round of its runs: budgets at least those of its first number of
   rounds, an underfitting term nowhere above what is left to learn after its last, an overfitting term nowhere
   above that after its first. Decided by exact fractions and in balls;
3. that problem's bound is proved by its own certificate, under the plan's constraints and no other, and with the
   floor L is at least what is claimed.

The budgets and the loss of the plan are checked here, its certificate in :mod:`edgealloc.verify.training`.

The curve of step 2 needs two points only: the logarithm of ``(s / half)^steepness`` is linear in log s, and so is
that of ``(a R s^q)^\alpha``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from edgealloc.certificate.run import NeededTerms, RunCertificate, run_certificate_from_dict
from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, NeededRounds, learning_faults
from edgealloc.data.outcome import Status
from edgealloc.data.run import RunClaims
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import InputError
from edgealloc.files.run import run_from_dict
from edgealloc.units import FloatArray
from edgealloc.verify.form import REL_TOL, Findings, total
from edgealloc.verify.report import Report
from edgealloc.verify.solution import NO_PROOF, OPTIMAL_GAP, verify
from edgealloc.verify.training.ease import round_of, round_spec
from edgealloc.verify.training.intervals import check_run_certificate

__all__ = ["verify_run", "verify_run_data"]

UNPROVED_RUN = (
    "lower_bound, and with it optimality, is not proved by this check: there is no certificate of the plan"
)


def verify_run_data(
    instance: Instance, plan: dict[str, Any], certificate: dict[str, Any] | None, rel_gap: float = OPTIMAL_GAP
) -> Report:
    """As :func:`verify_run`, for the JSON objects of the two files; faults of their form are findings."""
    try:
        claims = run_from_dict(plan)
        proof = None if certificate is None else run_certificate_from_dict(certificate)
    except InputError as error:
        name, method, status = (str(plan.get(key, "?")) for key in ("instance", "method", "status"))
        return Report(name, method, status, error.faults)
    return verify_run(instance, claims, proof, rel_gap=rel_gap)


def verify_run(
    instance: Instance,
    claims: RunClaims,
    certificate: RunCertificate | None = None,
    *,
    rel_gap: float = OPTIMAL_GAP,
) -> Report:
    """Check a plan of a whole run against the instance of a round.

    Parameters
    ----------
    instance
        The instance that was planned for.
    claims
        The plan, from :func:`edgealloc.files.run.load_run` or :meth:`RunPlan.claims`.
    certificate
        The claimed proof of its lower bound, or None.
    rel_gap
        The gap within which ``optimal`` is accepted.

    Returns
    -------
    Report
        The verdict: ``ok`` where nothing is wrong, else the faults.
    """
    found, notes = Findings(), list[str]()
    if claims.instance_name != instance.name:
        found.add("plan", "instance", claims.instance_name, f"{instance.name!r}, the name of the instance")
    if instance.learning is not None and instance.learning != claims.learning:
        notes.append("the learning curve is the plan's own, not that of the instance")
    found.faults += (
        claims.learning.faults() if isinstance(claims.learning, NeededRounds) else learning_faults(claims.learning)
    )
    if not 1 <= claims.span[0] <= claims.span[1]:
        found.add("plan", "rounds_range", str(list(claims.span)), "the least number of rounds first, 1 or more")
    energy = _totals(instance, claims, found)
    report = Report(claims.instance_name, claims.method, claims.status.value, ())
    if not found.faults and claims.status.has_allocation:
        report = _check_plan(instance, claims, energy, found, notes)
    elif not claims.status.has_allocation and (claims.round is not None or claims.rounds is not None):
        found.add("plan", "round", "given", f"null for status {claims.status.value}")
    if not found.faults:
        _check_claims(claims, found, rel_gap)
    if certificate is None:
        notes.append(UNPROVED_RUN)
    elif not found.faults:
        check_run_certificate(instance, claims, energy, certificate, found, notes)
    return replace(report, faults=(*report.faults, *found.faults), notes=tuple(notes))


def _totals(instance: Instance, claims: RunClaims, found: Findings) -> FloatArray | None:
    """Energy for all rounds together in J, in the order of the instance. Shape [K]."""
    given, names = claims.energy_j, instance.device_names
    if given is None:
        return None
    for name in sorted(set(names) ^ set(given)):
        value = "(missing)" if name in names else given[name]
        found.add(name, "energy_j", value, "a total for every device of the instance and no other")
    return None if found.faults else np.array([given[name] for name in names])


def _check_plan(
    instance: Instance, claims: RunClaims, energy: FloatArray | None, found: Findings, notes: list[str]
) -> Report:
    """The allocation within the budgets of one round, R rounds within those of all, and the predicted loss."""
    rounds, latency, solution = claims.rounds, claims.latency_s, claims.round
    report = Report(claims.instance_name, claims.method, claims.status.value, ())
    if rounds is None or latency is None or solution is None:
        found.add("plan", "rounds, latency_s, round", "null", f"given for status {claims.status.value}")
        return report
    if not solution.status.has_allocation:
        found.add(
            "plan", "round.status", solution.status.value, f"one with an allocation for {claims.status.value}"
        )
        return report
    first, last = claims.span
    if not first <= rounds <= last:
        found.add("plan", "rounds", rounds, f"from {first} to {last}")
    if claims.time_s is not None and not Fraction(latency) * rounds <= Fraction(claims.time_s):
        found.add("plan", "latency_s", latency, f"at most {claims.time_s!r} s in all {rounds} rounds")
    capped = claims.caps or (claims.time_s is None and claims.minimise != "time")
    if capped and not latency <= instance.latency_s:
        found.add("plan", "latency_s", latency, f"at most {instance.latency_s!r}, the deadline of the instance")
    most = instance.energy_j
    if energy is not None:
        share = np.array([_at_most(joules, rounds) for joules in energy.tolist()])
        most = np.minimum(most, share) if claims.caps else share
    bound = _bound(instance, claims.learning, rounds)
    try:
        one = instance.with_changes(
            latency_s=latency, energy_j=most, learning=None, device_underfit=None, bound=bound
        )
    except InputError as error:
        found.faults += error.faults
        return report
    report = verify(one, solution, rel_gap=math.inf, free=False)
    notes += [note for note in report.notes if note != NO_PROOF]
    if not report.faults:
        _check_loss(instance, claims, found)
        used, name = math.nan, ""
        if claims.minimise == "energy" and energy is not None:
            used, name = float((rounds * solution.energy_j / energy).max()), "the largest share that is used"
        elif claims.minimise == "time":
            used, name = rounds * latency, "rounds times latency_s"
        elif claims.weights is not None and energy is not None:
            largest = float((rounds * solution.energy_j / energy).max())
            used = claims.weights[0] * rounds * float(solution.latency_s.max()) + claims.weights[1] * largest
            name = "the weighted sum of what is used"
        if claims.objective is not None and used > claims.objective * (1.0 + REL_TOL):
            found.add("plan", "objective", claims.objective, f"at least {used!r}, {name}")
    return replace(report, method=claims.method, status=claims.status.value, objective=claims.loss)


def _bound(instance: Instance, spec: LearningSpec | NeededRounds, rounds: int) -> BoundSpec:
    """The bound of one round: what is left to learn, and overfitting with next to no constant part."""
    samples = total(instance.samples.tolist())
    if isinstance(spec, NeededRounds):
        c = math.sqrt(samples) * (spec.fixed + spec.per_keep) / rounds
        return round_of(spec, NeededTerms(spec.per_keep / rounds, c))
    half = math.exp(-math.log(spec.pace * rounds) / spec.exponent)
    overfit = spec.overfit * rounds**spec.growth
    small = 2.0**-60 * overfit
    eta = math.sqrt(samples * overfit * overfit / (24.0 * small)) if small else 0.0
    return round_spec(spec, half, spec.exponent * spec.order, small, eta)


def _at_most(joules: float, rounds: int) -> float:
    """The greatest double of which so many are at most ``joules``."""
    share = joules / rounds
    while Fraction(share) * rounds > Fraction(joules):
        share = math.nextafter(share, 0.0)
    return share


def _check_loss(instance: Instance, claims: RunClaims, found: Findings) -> None:
    """The predicted loss of the allocation, recomputed."""
    assert claims.round is not None
    assert claims.rounds is not None
    loss = _loss(instance, claims.learning, claims.rounds, claims.round.for_instance(instance))
    if claims.loss is None or not math.isclose(claims.loss, loss, rel_tol=REL_TOL):
        found.add("plan", "loss", claims.loss, f"{loss!r}, as recomputed")
    if claims.minimise != "loss" and not loss <= (claims.target or 0.0) * (1.0 + REL_TOL):
        found.add("plan", "target", claims.target, f"at least the predicted loss {loss!r}")


def _loss(instance: Instance, spec: LearningSpec | NeededRounds, rounds: int, allocation: Allocation) -> float:
    """The predicted loss of so many rounds of an allocation in nats, or the share of them that is needed."""
    share = instance.samples / total(instance.samples.tolist())
    menus = instance.adapter_options or (None,) * instance.num_devices
    left, kept = [], []
    for k, weight in enumerate(share.tolist()):
        if not allocation.selected[k]:
            left.append(weight * (instance.exclusion_penalty or 0.0))
            continue
        menu, s = menus[k], float(allocation.keep[k])
        factor = 1.0 if menu is None else menu[int(allocation.option[k])].underfit_factor
        if isinstance(spec, NeededRounds):
            left.append(weight * factor * (1.0 - s) / s)
            continue
        exponent = spec.order * (math.log(spec.pace) + math.log(rounds) + spec.exponent * math.log(s))
        left.append(weight * factor / (1.0 + math.exp(min(exponent, 700.0))))
        kept.append(weight * s * s)
    if isinstance(spec, NeededRounds):
        return (spec.fixed + spec.per_keep * (1.0 + total(left))) / rounds
    damped = math.sqrt(1.0 + spec.protection * (1.0 - min(total(kept), 1.0)))
    return float(spec.floor + spec.drop * total(left) + spec.overfit * rounds**spec.growth / damped)


def _check_claims(claims: RunClaims, found: Findings, rel_gap: float) -> None:
    """Objective, bound, gap and status against each other."""
    value, lower, there = claims.objective, claims.lower_bound, claims.status.has_allocation
    if (value is None) is there:
        found.add("plan", "objective", value, "a number where there is a plan, else null")
    if (claims.target is None) is not (claims.minimise == "loss"):
        found.add("plan", "target", claims.target, "null where the loss is minimised, else a number")
    if isinstance(claims.learning, NeededRounds) and claims.target != 1.0:
        found.add("plan", "target", claims.target, "1.0: all of the rounds that are needed")
    weighed = claims.weights is not None and all(0.0 < weight < math.inf for weight in claims.weights)
    if (claims.minimise == "weighted") is not weighed:
        found.add("plan", "weights", claims.weights, "two numbers > 0 for a weighted sum, none for anything else")
    if claims.minimise == "weighted" and claims.time_s is None and not claims.caps:
        found.add("plan", "time_s", None, "a time, or the deadline of the instance in every round (caps)")
    if claims.minimise in ("energy", "weighted") and claims.energy_j is None:
        found.add("plan", "energy_j", None, "totals, of which the least share is sought")
    if not there:
        for key in ("latency_s", "loss", "rel_gap"):
            if getattr(claims, key) is not None:
                found.add("plan", key, getattr(claims, key), f"null for status {claims.status.value}")
    if claims.status is Status.INFEASIBLE and lower is not None:
        found.add("plan", "lower_bound", lower, "null for status infeasible")
    if found.faults or not there or value is None:
        return
    if claims.minimise == "loss" and value != claims.loss:
        found.add("plan", "objective", value, f"{claims.loss!r}, the loss")
    if lower is not None and not lower <= value:
        found.add("plan", "lower_bound", lower, f"at most the objective {value!r}")
    gap = None if lower is None else max(0.0, value - lower) / (abs(value) or 1.0)
    stated = claims.rel_gap
    if (stated is None) is not (gap is None) or (
        gap is not None and stated is not None and not math.isclose(stated, gap, rel_tol=REL_TOL, abs_tol=1e-15)
    ):
        found.add("plan", "rel_gap", stated, f"{gap!r}, from objective and lower_bound")
    if claims.status is Status.OPTIMAL and not (gap is not None and gap <= rel_gap * (1.0 + REL_TOL)):
        found.add("plan", "status", f"optimal with rel_gap {gap!r}", f"a gap of at most {rel_gap!r}")
