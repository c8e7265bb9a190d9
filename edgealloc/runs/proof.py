"""Writes the certificate of a plan: the intervals that prove its bound, each with the proof of its one round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from edgealloc.certificate.file import AnyCertificate
from edgealloc.certificate.run import CurveTerms, NeededTerms, RunCertificate, RunPiece, RunWall
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.result import Result
from edgealloc.runs.asked import Weights
from edgealloc.runs.search import Excluded, Interval, Solved
from edgealloc.runs.training import TrainingRun, both_budgeted, longest
from edgealloc.solvers.certify.write import certified
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["run_certificate", "weighted_certificate"]


def run_certificate(
    run: TrainingRun, span: Interval, solved: Sequence[Solved], wanted: float, time_limit: float | None
) -> RunCertificate:
    """The certificate that no run has a predicted loss below ``wanted``, or a hair less, or that none is feasible.

    Parameters
    ----------
    run, span
        What was planned, and the numbers of rounds that could be chosen.
    solved
        Intervals of rounds with their solves.
    wanted
        The bound in nats.
    time_limit
        Wall-clock limit in s; None for none.

    Raises
    ------
    EdgeallocError
        When the solves do not prove it, or not in time.
    """
    clock, pieces, bound = Clock(), list[RunPiece](), math.inf
    for piece in _cover(solved, span, wanted):
        left = None if time_limit is None else max(1e-3, time_limit - clock.seconds)
        result, certificate = certified(_no_closer(piece.result, wanted - run.learning.floor), math.inf, left)
        pieces.append(_piece(piece, certificate))
        if result.status is not Status.INFEASIBLE:
            bound = min(bound, _sum_below(run.learning.floor, certificate.lower_bound))
    return RunCertificate(run.instance.name, bound, tuple(pieces))


def weighted_certificate(
    run: TrainingRun,
    span: Interval,
    excluded: Sequence[Excluded],
    least: tuple[Weights, float, float],
    time_limit: float | None,
) -> RunCertificate:
    """The certificate that no run which reaches the target has a smaller weighted sum, or that none reaches it.

    Parameters
    ----------
    run, span
        What was planned, and the numbers of rounds that could be chosen.
    excluded
        Budgets that are not enough, with their solves.
    least
        The weights, the target, and the bound that is wanted; ``inf`` where no run reaches the target.
    time_limit
        Wall-clock limit in s; None for none.

    Raises
    ------
    EdgeallocError
        When the solves do not prove it, or not in time.
    """
    weights, target, wanted = least
    most = longest(run, span.last)
    clock, walls = Clock(), list[RunWall]()
    for wall in _needed_walls(excluded, weights, most, wanted):
        left = None if time_limit is None else max(1e-3, time_limit - clock.seconds)
        part, above = both_budgeted(run, wall.time_s, wall.share), math.nextafter(target, math.inf)
        proof = run_certificate(part, span, wall.pieces, above, left)
        if not proof.lower_bound >= above:
            raise EdgeallocError("the proof misses the target by rounding; ask for a slightly larger rel_gap")
        walls.append(RunWall(wall.time_s, wall.share, proof.lower_bound, proof.pieces))
    bound = staircase([(wall.time_s, wall.share) for wall in walls], weights, most)
    if wanted == math.inf > bound:
        raise EdgeallocError("the solves do not prove that no run reaches the target")
    return RunCertificate(run.instance.name, min(bound, wanted), (), tuple(walls))


def _needed_walls(excluded: Sequence[Excluded], weights: Weights, most: float, wanted: float) -> list[Excluded]:
    """As few of the walls as prove as much of the bound as all of them do."""
    kept = list(excluded)
    proved = min(wanted, staircase([(wall.time_s, wall.share) for wall in kept], weights, most))
    for wall in excluded:
        fewer = [other for other in kept if other is not wall]
        if staircase([(other.time_s, other.share) for other in fewer], weights, most) >= proved:
            kept = fewer
    return kept


def staircase(walls: Sequence[tuple[float, float]], weights: Weights, most: float) -> float:
    """The least weighted sum, rounded down, of a time and a share that lie beyond all walls; ``inf`` for none."""
    least = math.inf
    for time_s in (0.0, *(time for time, _ in walls)):  # a run takes more than that, and no more than the next
        beyond = max((share for time, share in walls if time > time_s), default=0.0)
        if time_s < most and beyond < 1.0:
            exact = Fraction(weights.per_s) * Fraction(time_s) + Fraction(weights.per_share) * Fraction(beyond)
            least = min(least, _below(exact))
    return least


def _below(exact: Fraction) -> float:
    """A double at most a fraction."""
    found = float(exact)
    return found if found <= exact else math.nextafter(found, -math.inf)


def _no_closer(result: Result, needed: float) -> Result:
    """A result that claims a bound little above what is needed of it: proofs grow the closer they come."""
    if result.status is Status.INFEASIBLE or not needed < result.lower_bound:
        return result
    return replace(result, lower_bound=0.9 * needed + 0.1 * result.lower_bound)


def _cover(solved: Sequence[Solved], span: Interval, wanted: float) -> list[Solved]:
    """The widest intervals whose bounds are at least ``wanted``, of those that were solved, covering the span.

    Raises
    ------
    EdgeallocError
        When a search that was stopped left numbers of rounds open.
    """
    good = sorted((s for s in solved if s.bound >= wanted), key=lambda s: (s.interval.first, -s.interval.last))
    chosen, reached = list[Solved](), span.first - 1
    while reached < span.last:
        nexts = [s for s in good if s.interval.first <= reached + 1]
        best = max(nexts, key=lambda s: s.interval.last, default=None)
        if best is None or best.interval.last <= reached:
            raise EdgeallocError(
                f"the search left runs of {reached + 1} rounds open; there is no bound to certify"
            )
        chosen.append(best)
        reached = best.interval.last
    return chosen


def _piece(solved: Solved, certificate: AnyCertificate) -> RunPiece:
    instance = solved.result.problem.instance
    spec = instance.bound
    logistic = spec.underfit_logistic
    terms: CurveTerms | NeededTerms = NeededTerms(spec.underfit_weight, spec.loss_range)
    if logistic is not None:
        terms = CurveTerms(logistic.half, logistic.steepness, spec.loss_range, spec.lipschitz)
    return RunPiece(
        solved.interval.first,
        solved.interval.last,
        float(instance.latency_s),
        instance.energy_j,
        terms,
        certificate,
    )


def _sum_below(floor: float, bound: float) -> float:
    """A double at most the exact sum."""
    total = floor + bound
    return math.nextafter(total, -math.inf) if math.isfinite(total) else total
