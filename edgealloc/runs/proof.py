"""Writes the certificate of a plan: the intervals that prove its bound, each with the proof of its one round."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgealloc.certificate.file import AnyCertificate
from edgealloc.certificate.run import RunCertificate, RunPiece
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError
from edgealloc.runs.search import Interval, Solved
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.certify.write import certified
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["run_certificate"]


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
        result, certificate = certified(piece.result, math.inf, left)
        pieces.append(_piece(piece, certificate))
        if result.status is not Status.INFEASIBLE:
            bound = min(bound, _sum_below(run.learning.floor, certificate.lower_bound))
    return RunCertificate(run.instance.name, bound, tuple(pieces))


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
    assert logistic is not None
    return RunPiece(
        solved.interval.first,
        solved.interval.last,
        float(instance.latency_s),
        instance.energy_j,
        logistic.half,
        logistic.steepness,
        spec.loss_range,
        spec.lipschitz,
        certificate,
    )


def _sum_below(floor: float, bound: float) -> float:
    """A double at most the exact sum."""
    total = floor + bound
    return math.nextafter(total, -math.inf) if math.isfinite(total) else total
