"""Branch and bound over intervals of the number of rounds; every box is one usual problem, solved as usual.

The engine knows no problem; this is what it is told about runs. An interval is bounded by
:meth:`~edgealloc.runs.training.TrainingRun.relaxed`; its allocation keeps the budgets of a run of ``first``
rounds, and so is a feasible run of that many and, where something is left, of more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import choose
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.search.engine import Found, Relaxation, Relaxed, cutoff_at

__all__ = ["Excluded", "Interval", "Rounds", "RunPoint", "Solved"]

_INNER = 0.9  # of the gap of the whole goes to a single round's solve
_SPARE = (
    1e-12  # relative: a certificate may prove a few digits less than the solve did, and still more than a target
)
_KNOWN = 4  # runs of which the loss is known, from which on that of others is guessed between them
_TRUSTED = 0.8  # of such a guess
_SHAVED = 1e-14  # relative, for the rounding of sums of bounds


class Interval(NamedTuple):
    """Numbers of rounds from ``first`` to ``last``."""

    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class RunPoint:
    """A run that breaks no budget: so many rounds of an allocation."""

    rounds: int
    allocation: Allocation
    result: Result


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """An interval with the result of its one round, and the bound of the loss that follows."""

    interval: Interval
    result: Result
    bound: float


@dataclass(frozen=True, slots=True, eq=False)
class Excluded:
    """So much time in s, and so large a share of the energy, with the solves that prove them not to be enough."""

    time_s: float
    share: float
    pieces: tuple[Solved, ...]


@dataclass(slots=True, eq=False)
class Rounds(Relaxation[Interval, RunPoint]):
    """Runs as branch and bound sees them.

    Parameters
    ----------
    run
        The run.
    span
        Which numbers of rounds may be chosen.
    method
        Name of the method that solves single rounds.
    rel_gap
        Of the predicted loss, to be closed.
    target
        A loss to be reached: runs above it are no use, and intervals are closed once their bound is. ``inf`` for
        none.
    seed
        For the method.
    known
        Predicted losses of the best known runs, by their rounds.
    solved
        Every interval with what came of it, in order.
    begun
        Single numbers of rounds of which the first node was solved: the rest waits until none has a lower bound.
    """

    run: TrainingRun
    span: Interval
    method: str
    rel_gap: float
    target: float = math.inf
    seed: int = 0
    known: dict[int, float] = field(default_factory=dict)
    solved: list[Solved] = field(default_factory=list)
    begun: set[Interval] = field(default_factory=set)

    def root(self) -> Interval:
        """All numbers of rounds that may be chosen."""
        return self.span

    def relax(
        self,
        box: Interval,
        guess: Allocation | None,
        best: Found[RunPoint] | None,
        cutoff: float,
        control: Control,
    ) -> Relaxed[Interval, RunPoint]:
        """Solve the one round of an interval."""
        problem = self.run.relaxed(*box)
        result = self._solve(problem, box, guess, cutoff, control)
        bound = math.inf
        if result.status is not Status.INFEASIBLE:
            bound = self.run.learning.floor + result.lower_bound
            bound -= _SHAVED * abs(bound) if math.isfinite(bound) else 0.0
        self.solved.append(Solved(box, result, bound))
        found = () if result.allocation is None else self._points(result, box, control)
        if bound > self.target + _SPARE * abs(self.target):  # nothing here reaches it
            return Relaxed(math.inf)
        here = min((point.value for point in found), default=math.inf)
        for point in found:
            rounds = point.point.rounds
            self.known[rounds] = min(point.value, self.known.get(rounds, math.inf))
        cutoff = min(cutoff, cutoff_at(here, self.rel_gap), self.target)
        reached = bound if result.allocation is None else self.run.learning.floor + result.objective
        parts: tuple[Interval, ...] = ()
        if box.first < box.last:
            parts = self._likely_first(box, _parts(box, here - reached, cutoff, self.known))
        else:
            parts = (box,) if box not in self.begun and bound < cutoff else ()
            self.begun.add(box)
        if here > self.target:
            found = ()
        return Relaxed(bound, found, parts, result.allocation or guess, "rounds")

    def _solve(
        self, problem: Problem, box: Interval, guess: Allocation | None, cutoff: float, control: Control
    ) -> Result:
        """One round, as well as it needs to be known."""
        floor, own = self.run.learning.floor, box.first == box.last
        first_look = own and box not in self.begun
        enough = inner = _INNER * self.rel_gap
        useful = min(cutoff, self.target + 2.0 * _SPARE * abs(self.target)) - floor
        if math.isfinite(useful):
            useful += 4.0 * _SHAVED * (abs(useful) + abs(floor))
            if useful > 0.0:  # the same gap in nats, of a smaller number; nothing above it is asked for
                inner *= max(1.0, 1.0 + floor / useful)

        def known(snapshot: Snapshot) -> bool:
            upper, lower = floor + snapshot.objective, floor + snapshot.lower_bound
            if not math.isfinite(upper):
                return control.stopped()
            if own:
                done = upper - lower <= enough * abs(upper) or (first_look and snapshot.nodes > 0)
                done |= upper <= self.target < math.inf
            else:  # it must be parted once it holds less than the cutoff, so there is no use in knowing it better
                done = upper <= min(cutoff, self.target)
            return done or lower - floor >= useful or control.stopped()

        like = self._nearest(box)
        if like is not None and like.allocation is not None:
            guess = like.allocation
        options = Options(inner, _left(control), self.seed, guess, known, cutoff=useful, like=like)
        return choose(self.method, problem).run(problem, options)

    def _nearest(self, box: Interval) -> Result | None:
        """What came of the interval whose budgets are the nearest; of several such the last."""
        far = [abs(math.log(solved.interval.first / box.first)) for solved in self.solved]
        return self.solved[max(range(len(far)), key=lambda i: (-far[i], i))].result if far else None

    def _likely_first(self, box: Interval, parts: tuple[Interval, ...]) -> tuple[Interval, ...]:
        """Parts, that with the best known run of their interval in front: where it is, better ones may be."""
        inside = [rounds for rounds in self.known if box.first <= rounds <= box.last]
        best = min(inside, key=self.known.__getitem__, default=box.first)
        return tuple(sorted(parts, key=lambda part: not part.first <= best <= part.last))

    def _points(self, result: Result, box: Interval, control: Control) -> tuple[Found[RunPoint], ...]:
        """The best number of rounds of an interval's allocation, as far as its budgets reach."""
        assert result.allocation is not None
        allocation = result.allocation
        most = self.most_rounds(result, box)
        counts = np.arange(box.first, most + 1)
        values = self.run.loss(counts, allocation)
        for i in np.argsort(values, kind="stable"):
            rounds = int(counts[i])
            single = self.run.single(rounds)
            if not single.violations(allocation):
                point = RunPoint(rounds, allocation, replace(result, problem=single))
                return (Found(float(values[i]), point, "R"),)
        # Only rounding can have broken the budgets of the first.
        single = self.run.single(box.first)
        again = choose(self.method, single).run(
            single, Options(self.rel_gap, _left(control), self.seed, allocation)
        )
        if again.allocation is None:
            return ()
        value = float(self.run.loss(box.first, again.allocation))
        return (Found(value, RunPoint(box.first, again.allocation, again), "R"),)

    def most_rounds(self, result: Result, box: Interval) -> int:
        """How many rounds of its allocation the budgets allow, at most the last of all that may be chosen."""
        assert result.allocation is not None
        run, use = self.run, result.problem.evaluate(result.allocation)
        most = float(self.span.last)
        if run.time_s is not None:
            most = min(most, run.time_s / max(float(use.latency_s.max()), 1e-300))
        if run.energy_j is not None:
            most = min(most, float((run.energy_j / np.maximum(use.energy_j, 1e-300)).min()))
        return max(box.first, int(most * (1.0 + 1e-12)))


def _left(control: Control) -> float | None:
    limit = control.options.time_limit
    return None if limit is None else max(1e-3, limit - control.seconds)


def _parts(box: Interval, lack: float, cutoff: float, known: Mapping[int, float]) -> tuple[Interval, ...]:
    """An interval in parts, each as wide as its bound may be expected to close it; in two where little is known.

    Parameters
    ----------
    box
        What is to be parted.
    lack
        How far its relaxation is below its best known run. It goes down with the logarithm of the width.
    cutoff
        A bound at which a part is closed.
    known
        Predicted losses of the best known runs, by their rounds.
    """
    first, last = box
    if first == last:
        return ()
    middle = min(math.isqrt(first * (last + 1)), last - 1)
    halves = (Interval(first, middle), Interval(middle + 1, last))
    if len(known) < _KNOWN or not 0.0 < lack < math.inf:
        return halves
    counts = np.arange(first, last + 1)
    at = np.array(sorted(known))
    if first < at[0] or last > at[-1]:  # nothing is known of some of them
        return halves
    spare = _TRUSTED * (np.interp(np.log(counts), np.log(at), [known[int(r)] for r in at]) - cutoff)
    slope = lack / math.log(last / first)
    parts, start = list[Interval](), first
    while start <= last:
        end, least = start, float(spare[start - first])
        while end < last:
            least = min(least, float(spare[end + 1 - first]))
            if slope * math.log((end + 1) / start) > least:
                break
            end += 1
        parts.append(Interval(start, end))
        start = end + 1
    return tuple(parts) if len(parts) > 1 else halves
