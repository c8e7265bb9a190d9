"""What budgets that are not enough leave of a weighted sum: the cheapest corner beyond all of them, exactly.

A run of time t and share e lies within a wall (T, S) when t <= T and e <= S. A run that lies within none has a
share above every S of the walls with T >= t. That changes with t at the walls' times alone, so the least lies just
above one of these, or at 0. Derived in docs/runs.md, section *What is checked*.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

__all__ = ["beyond_walls"]


def beyond_walls(
    walls: Sequence[tuple[float, float]], weights: tuple[float, float], most: Fraction | None
) -> Fraction | None:
    """The least weighted sum of a time and a share that lie within none of the walls.

    Parameters
    ----------
    walls
        Pairs of a time in s and a share of the energy, finite and above 0.
    weights
        What a second costs, and what all of the energy does.
    most
        Time in s that no run exceeds; None where there is no such time. No share is above 1.

    Returns
    -------
    Fraction or None
        A lower bound of what any run costs that is in no wall; None where there can be none.
    """
    found: Fraction | None = None
    high = Fraction(0)  # the largest share of the walls whose time is longer
    steps = sorted(((Fraction(time), Fraction(share)) for time, share in walls), reverse=True)
    for time, share in (*steps, (Fraction(0), Fraction(0))):
        if high < 1 and (most is None or time < most):
            cost = Fraction(weights[0]) * time + Fraction(weights[1]) * high
            found = cost if found is None else min(found, cost)
        high = max(high, share)
    return found
