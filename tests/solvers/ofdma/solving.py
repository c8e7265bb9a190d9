"""Solve an OFDMA cell and compare with the enumerated optimum and the checker."""

from __future__ import annotations

import math
from typing import Any

from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import solve_bnb
from edgealloc.verify.solution import verify
from tests.solvers.ofdma.oracle import brute_force

REL_GAP = 1e-6


EXACT = 1e-11  # relative accuracy of the oracles


def solve(instance: Instance, **options: Any) -> Result:
    return solve_bnb(Problem(instance), Options(**({"rel_gap": REL_GAP} | options)))


def accepted(result: Result) -> None:
    """The independent checker accepts the solution as it would be written."""
    report = verify(result.problem.instance, result.solution(), rel_gap=REL_GAP)
    assert report.ok, str(report)


def compare(instance: Instance, **options: Any) -> Result:
    """Solve and compare with the enumerated optimum."""
    best, result = brute_force(instance), solve(instance, time_limit=300.0, **options)
    if math.isinf(best):
        assert result.status is Status.INFEASIBLE, str(result)
        assert result.diagnosis
    else:
        assert result.status is Status.OPTIMAL, str(result)
        assert result.lower_bound <= best * (1.0 + EXACT)
        assert best * (1.0 - EXACT) <= result.objective <= best * (1.0 + 1.0001 * REL_GAP)
    accepted(result)
    return result
