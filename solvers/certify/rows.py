"""The constraints that a certificate is about: those folded into the instance, and those with prices."""

from __future__ import annotations

from edgealloc.data.constraints import Constraint, EnergyCap, KeepFloor, PowerCap
from edgealloc.formulation.problem import Problem

__all__ = ["certified_rows"]


def certified_rows(problem: Problem, given: tuple[Constraint, ...] = ()) -> tuple[Constraint, ...]:
    """Constraints for a certificate, in an order in which those with prices are as the methods have them.

    Parameters
    ----------
    problem
        What was solved: with nothing left that its instance can say itself.
    given
        All constraints of the result, of which floors and caps on power and energy are folded.

    Returns
    -------
    tuple of Constraint
        What is not among them is not needed: a bound without a constraint is one with it.
    """
    folded = (row for row in given if isinstance(row, KeepFloor | PowerCap | EnergyCap))
    priced = (row for row in problem.constraints if row.kind in ("spectrum", "participation"))
    return (*folded, *priced)
