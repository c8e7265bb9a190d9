"""A plan of a whole training run as its file states it: claims that nobody has checked yet.

:class:`~edgealloc.runs.plan.RunPlan` is what planning returns; :class:`RunClaims` is what is written down and read
back, and what the checker judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgealloc.data.learning import LearningSpec, NeededRounds
from edgealloc.data.outcome import Status
from edgealloc.data.solution import Solution

__all__ = ["Aim", "Goal", "RunClaims"]

Aim = Literal["loss", "time", "energy"]
Goal = Literal["loss", "time", "energy", "weighted"]


@dataclass(frozen=True, slots=True, eq=False)
class RunClaims:
    """What a plan of a run claims, and the limits under which.

    Parameters
    ----------
    instance_name, method, status, seconds, message
        Name of the instance; how and how fast it was planned, and how that ended.
    minimise
        ``loss``, ``time``, ``energy`` or ``weighted``.
    learning
        The learning curve, or how many rounds are needed.
    time_s
        Time in s for all rounds together; None without such a budget.
    energy_j
        Energy in J for all rounds together by the device's name; None without such a budget.
    caps
        Whether the instance's own deadline and energy budgets hold in every round beside the totals.
    span
        Least and greatest number of rounds that may be chosen.
    target
        The loss to be reached, where that is not what is minimised; 1 of rounds that are needed: all of them.
    rounds, latency_s
        The number of rounds and the deadline of each in s; None without a plan.
    loss
        Predicted loss in nats, or the share of the rounds that is needed; None without a plan.
    objective, lower_bound, rel_gap
        What is minimised: nats, s, a share of the energy budgets, or the weighted sum of these two; its proven
        bound and the gap.
    solves
        How many single rounds were solved.
    round
        The allocation of each round; None without a plan.
    weights
        What a second costs and what all of ``energy_j`` does, in a weighted sum; None for anything else.
    """

    instance_name: str
    method: str
    status: Status
    minimise: Goal
    learning: LearningSpec | NeededRounds
    time_s: float | None
    energy_j: Mapping[str, float] | None
    caps: bool
    span: tuple[int, int]
    target: float | None
    rounds: int | None
    latency_s: float | None
    loss: float | None
    objective: float | None
    lower_bound: float | None
    rel_gap: float | None
    seconds: float
    solves: int
    message: str
    round: Solution | None
    weights: tuple[float, float] | None = None
