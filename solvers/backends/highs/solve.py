r"""Mixed-integer linear programs with proven one-sided lines, method ``highs``; takes caps on the spectrum.

Every device picks one piece of :mod:`edgealloc.solvers.separable.pieces`: a mode and an interval of the keep rate,
over which its cost lies above a proven line in s^2, and so does what it needs of the radio: bandwidth, or profit
rates of sub-carriers. The stability term lies above its tangents. So every program is a relaxation, and its bound
a bound of the problem, whatever the pieces are. Pieces are cut where a program's point lies and it is solved
again: on a piece of width h the lines are O(h^2) away, so bound and plan meet. Linear programs come first; pieces
whose reduced cost closes the gap are dropped.
"""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Snapshot, relative_gap
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.backends.highs.carriers import carriers
from edgealloc.solvers.backends.highs.program import Access, Answer, Picks, pools_of, solve_program
from edgealloc.solvers.backends.highs.spectrum import Spectrum
from edgealloc.solvers.backends.judge import Claim, Stop, conclude, stop_of
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.separable.choices import Choices
from edgealloc.solvers.separable.pieces import Pieces

__all__ = ["STATUSES", "solve_highs", "write_program"]

# Every HighsModelStatus (highs/lp_data/HConst.h); any other is a failure.
STATUSES = {
    "kOptimal": Stop.SOLVED,
    "kInfeasible": Stop.INFEASIBLE,
    "kObjectiveBound": Stop.LIMIT,
    "kObjectiveTarget": Stop.LIMIT,
    "kTimeLimit": Stop.LIMIT,
    "kIterationLimit": Stop.LIMIT,
    "kSolutionLimit": Stop.LIMIT,
    "kInterrupt": Stop.LIMIT,
    "kHighsInterrupt": Stop.LIMIT,
    "kMemoryLimit": Stop.LIMIT,
    "kUnknown": Stop.LIMIT,  # HiGHS is not sure of what it found: no breakdown, and no answer
} | dict.fromkeys(
    (
        *("kNotset", "kLoadError", "kModelError", "kPresolveError", "kSolveError", "kPostsolveError"),
        *("kModelEmpty", "kUnboundedOrInfeasible", "kUnbounded"),
    ),
    Stop.FAILED,
)

ROUNDS = 100
# Integers wait while linear programs still rise: by this share of the last rise, and of the gap.
SLOWER, SMALL = 0.1, 0.02


def solve_highs(problem: Problem, options: Options | None = None) -> Result:
    """Solve a problem of any access scheme, with every variant, by refined mixed-integer linear programs.

    Parameters
    ----------
    problem
        Any problem, with caps on spectrum, sub-carriers and participation.
    options
        Gap and limits.

    Returns
    -------
    Result
        ``optimal`` where the gap is closed, ``infeasible`` with our proof, else what was found and its bound.
    """
    options = options or Options()
    with Control(options) as control:
        search = _Search(access_of(problem), control)
        search.run()
        stop = stop_of(STATUSES, search.native)
        if search.best is not None and stop is Stop.INFEASIBLE:  # nothing better is left, if anything was dropped
            stop = Stop.SOLVED if math.isfinite(search.discarded) else Stop.FAILED
        claim = Claim(
            method="highs",
            solver=f"HiGHS {version('highspy')}",
            native=search.native,
            stop=stop,
            point=search.best,
            objective=search.claimed,
            lower_bound=search.lower,
            reason="HiGHS' own, on a program of proven lines from below, less its tolerances",
            detail=f"{len(search.pieces)} pieces after {search.rounds} programs",
            nodes=search.nodes,
            iterations=search.rounds,
            redeal=False,
        )
        return conclude(problem, claim, control)


def write_program(problem: Problem, options: Options, path: str) -> None:
    """Write the mixed-integer program whose optimum is that of the problem within the gap asked for.

    Parameters
    ----------
    problem
        Any problem, with caps on spectrum, sub-carriers and participation.
    options
        Gap and limits of the search that refines the program's lines.
    path
        Where to; the ending ``.mps`` or ``.lp`` says in which form.
    """
    with Control(options) as control:
        search = _Search(access_of(problem), control)
        search.run()
    with Control(options) as control:
        solve_program(search.access, search.pieces, search.touches, control, False, path)


def access_of(problem: Problem) -> Access:
    """The access scheme of a problem."""
    return carriers(problem) if problem.instance.access == "ofdma" else Spectrum(Choices.of(problem))


class _Search:
    """Rounds of programs and refinement; all of its state."""

    def __init__(self, access: Access, control: Control) -> None:
        self.access, self.control = access, control
        problem = access.choices.problem
        self.pieces = Pieces.root(access.choices)
        pool, weight = pools_of(problem)
        self.touches = [np.bincount(pool, problem.instance.weights * np.square(problem.free[1])) / weight]
        self.best: Allocation | None = None
        self.upper, self.lower, self.claimed = math.inf, -math.inf, math.nan
        self.rise = 0.0  # of the bound by the last linear program
        self.discarded = math.inf  # a bound of everything with a piece that was dropped
        self.rounds, self.nodes, self.native = 0, 0, "kNotset"

    @property
    def _gap(self) -> float:
        return relative_gap(self.upper, self.lower)

    def run(self) -> None:
        """Refine until the gap is closed, nothing can be refined, or a limit is met."""
        stuck = False
        if self.control.stopped():  # a large program takes seconds to state
            self.native = "kTimeLimit"
            return
        while self.rounds < ROUNDS:
            before = self.lower
            answer, linear = self._ask(relaxed=True), True
            if not self._done():
                answer = self._discard(answer)
            if answer.weight is not None and not self._done() and (stuck or self._fractional(answer, before)):
                answer, linear = self._ask(relaxed=False), False
            if answer.weight is None or self._done():
                return
            stuck = not self._refine(answer)
            if stuck and not linear:
                return

    def _ask(self, relaxed: bool) -> Answer:
        """Solve one program, take its bound, and an allocation from its point."""
        answer = solve_program(self.access, self.pieces, self.touches, self.control, relaxed)
        self.rounds += 1
        self.native, self.nodes = answer.native, self.nodes + answer.nodes
        proven = min(answer.bound, self.discarded)
        self.lower = max(self.lower, proven) if proven < math.inf else self.lower
        if answer.weight is not None:
            self.claimed = answer.objective
            plan = self.access.plan(Picks.of(self.pieces, answer.weight), answer.radio)
            if plan is not None:
                value = self.access.choices.problem.evaluate(plan).objective
                if value < self.upper:
                    self.upper, self.best = value, plan
        seconds, pieces = self.control.seconds, len(self.pieces)
        note = "linear" if relaxed else "integer"
        snapshot = Snapshot(
            "highs", seconds, self.rounds, self.lower, self.upper, self._gap, self.nodes, pieces, note
        )
        self.control.report(snapshot)
        return answer

    def _fractional(self, answer: Answer, before: float) -> bool:
        """Whether a linear program's point is fractional, and its bound hardly above the one before."""
        assert answer.weight is not None
        rise, last = self.lower - before, self.rise
        self.rise = rise
        if answer.whole and Picks.of(self.pieces, answer.weight).single:
            return False
        return rise < SLOWER * last or rise < SMALL * (self.upper - self.lower)

    def _done(self) -> bool:
        return self._gap <= self.control.options.rel_gap or self.control.stopped()

    def _discard(self, answer: Answer) -> Answer:
        """Drop pieces that can be in no better point, by reduced costs; what was dropped enters the bound."""
        if answer.weight is None or not math.isfinite(self.upper):
            return answer
        least = answer.bound + answer.excess
        drop = least > self.upper * (1.0 - 0.5 * self.control.options.rel_gap)
        if not drop.any():
            return answer
        self.discarded = min(self.discarded, float(least[drop].min()))
        self.pieces = self.pieces.take(~drop)
        if len(np.unique(self.pieces.device)) < self.access.choices.problem.instance.num_devices:
            self.lower = max(self.lower, self.discarded)  # a device has no piece left: nothing is
        return replace(answer, weight=answer.weight[~drop], excess=answer.excess[~drop])

    def _refine(self, answer: Answer) -> bool:
        """Sharpen lines and tangents where the point lies; False where all are sharp."""
        assert answer.weight is not None
        picks = Picks.of(self.pieces, answer.weight)
        access, pieces = self.access.refined(self.pieces, answer, picks)
        sharper = access is not self.access or len(pieces) > len(self.pieces)
        self.access, self.pieces = access, pieces
        if min(float(np.max(np.abs(answer.kept - q))) for q in self.touches) > 1e-9:
            self.touches.append(answer.kept)
            sharper |= not self.access.choices.problem.objective.own
        return sharper
