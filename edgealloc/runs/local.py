"""Runs planned by a method that proves nothing: descent on the number of rounds, each solved as it does."""

from __future__ import annotations

import math
from itertools import pairwise

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.methods import choose
from edgealloc.runs.loss import round_result
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.search import Interval, RunPoint
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.base import Control, Options

__all__ = ["descend"]

_FIRST = 8  # numbers of rounds that are tried before the best of them is looked around


def descend(run: TrainingRun, span: Interval, method: str, options: Options) -> RunPlan:
    """The best plan over numbers of rounds, a few first and then ever nearer to the best of them.

    Parameters
    ----------
    run
        What is to be planned.
    span
        Numbers of rounds that may be chosen.
    method
        What solves single rounds.
    options
        Limits, seed, callback.
    """
    tried: dict[int, tuple[float, RunPoint | None]] = {}
    start: Allocation | None = None
    with Control(options) as control:

        def attempt(rounds: int) -> None:
            nonlocal start
            if rounds in tried or control.stopped():
                return
            problem = run.single(rounds)
            limit = options.time_limit
            left = None if limit is None else max(1e-3, limit - control.seconds)
            stop = Options(options.rel_gap, left, options.seed, start, lambda _: control.stopped())
            result = choose(method, problem).run(problem, stop)
            tried[rounds] = math.inf, None
            if result.allocation is not None:
                start = result.allocation
                point = RunPoint(rounds, start, result)
                tried[rounds] = float(run.loss(rounds, start)), point
            least = min(value for value, _ in tried.values())
            control.report(Snapshot(method, control.seconds, 0, -math.inf, least, math.inf, len(tried)))

        ratio = (span.last / span.first) ** (1.0 / _FIRST)
        for i in range(_FIRST + 1):
            attempt(min(max(round(span.first * ratio**i), span.first), span.last))
        while tried and not control.stopped():
            done = sorted(tried)
            best = done.index(min(done, key=lambda rounds: tried[rounds][0]))
            around = done[max(best - 1, 0) : best + 2]
            middles = [(a + b) // 2 for a, b in pairwise(around) if b - a > 1]
            if not middles:
                break
            for rounds in middles:
                attempt(rounds)
    rounds, (loss, best_point) = min(tried.items(), key=lambda item: item[1][0], default=(0, (math.inf, None)))
    found = best_point is not None
    return RunPlan(
        run=run,
        span=span,
        method=method,
        status=Status.LOCALLY_SOLVED if found else Status.NO_SOLUTION,
        minimise="loss",
        target=None,
        rounds=rounds if found else 0,
        result=None if best_point is None else round_result(best_point, run.learning.floor, -math.inf),
        loss=loss,
        objective=loss,
        lower_bound=-math.inf,
        seconds=control.seconds,
        solves=len(tried),
        message=control.reason
        if found
        else control.reason or "the method found no allocation for any number of rounds",
    )
