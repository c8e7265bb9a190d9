"""Plan a whole training run: rounds, deadline and allocation at once (docs/runs.md)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgealloc.api import as_problem
from edgealloc.data.constraints import Constraint
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, learning_faults
from edgealloc.data.outcome import Snapshot
from edgealloc.data.run import Goal
from edgealloc.errors import Fault, InputError, PlausibilityWarning, RefusedError, shown
from edgealloc.formulation.problem import Problem
from edgealloc.methods import find_method
from edgealloc.runs.asked import budget, energy_totals, goal_of, rounds_span, weights_of
from edgealloc.runs.least import least_run, least_weighted
from edgealloc.runs.local import descend
from edgealloc.runs.loss import least_loss
from edgealloc.runs.needed import NeededRounds, NeededRun
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.base import Options
from edgealloc.units import FloatArray

__all__ = ["LOCAL", "plan_run"]

LOCAL = ("psca", "psca+", "baseline")  # methods without a bound: the number of rounds is descended on
TYPICAL = (
    "no learning curve is given: typical constants of one small task stand in (edgealloc.LearningSpec()), so the "
    "plan shows the shape of an answer only; fit the curve to pilot runs, and give curve= or the block 'learning'"
)


def plan_run(
    problem: Problem | Instance | str | Path,
    *,
    time_s: float | None = None,
    energy_j: float | Mapping[str, float] | FloatArray | None = None,
    rounds: tuple[int, int] = (1, 200),
    curve: LearningSpec | NeededRounds | None = None,
    target: float | None = None,
    minimise: Goal = "loss",
    weights: tuple[float, float] | None = None,
    caps: bool = True,
    method: str = "auto",
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
    constraints: Iterable[Constraint] = (),
    seed: int = 0,
    callback: Callable[[Snapshot], bool | None] | None = None,
) -> RunPlan:
    """Choose the number of rounds, the deadline of a round and the allocation, for the least predicted loss.

    The least total time, or the least energy, that reaches a loss is found likewise.

    Parameters
    ----------
    problem
        One round: an instance, a problem, or the path of an instance file. Its bound is not used, for the learning
        curve stands in its place.
    time_s
        Time in s for all rounds together; None: no such budget.
    energy_j
        Energy in J that a device may spend in all rounds together: one number for each, one by name, or an array
        of shape [K]; None: no such budget.
    rounds
        Least and greatest number of rounds; ``(r, r)`` fixes it.
    curve
        The learning curve; None takes that of the instance, else typical constants, with a warning. Or how many
        rounds it takes, as a function of the keep rates: then the least time or energy of so many is planned.
    target
        Predicted loss in nats to be reached, for ``minimise`` other than ``loss``.
    minimise
        ``loss``; ``time``, that of all rounds together; ``energy``, the share of ``energy_j`` that each device may
        spend, the same for all; ``weighted``, a sum of both.
    weights
        For ``weighted``: what a second costs, and what it costs to use up ``energy_j``.
    caps
        Whether the instance's own deadline and energy budgets hold in every round too. Without, a total that is
        given takes their place.
    method
        What solves single rounds, as for :func:`edgealloc.solve`. Without a bound of its own (``psca``,
        ``baseline:NAME``) the number of rounds is found by descent, and nothing is proved.
    rel_gap
        Stop when ``(UB - LB) / |UB|`` of what is minimised is at most this.
    time_limit
        Wall-clock limit in s for all solves. The best plan and its bound are returned, as after Ctrl-C.
    constraints
        Constraints of your own on every round.
    seed
        Seed of whatever the method draws at random.
    callback
        Called with a :class:`~edgealloc.Snapshot` after each solve; a true answer stops.

    Returns
    -------
    RunPlan
        Its status says what the plan is. Limits and infeasibility do not raise.

    Raises
    ------
    InputError
        Lists every bad option.
    RefusedError
        When the method does not take the problem.
    """
    given = as_problem(problem, constraints)
    options = Options(rel_gap, time_limit, seed, None, callback)
    instance, faults = given.instance, list[Fault]()
    span = rounds_span(rounds, faults)
    time = None if time_s is None else budget("time_s", time_s, faults)
    energy = None if energy_j is None else energy_totals(energy_j, instance, faults)
    if curve is None and instance.learning is None:
        warnings.warn(TYPICAL, PlausibilityWarning, stacklevel=2)
    needed = curve if isinstance(curve, NeededRounds) else None
    learning: Any = instance.learning or LearningSpec() if curve is None else curve
    if needed is None:
        faults += [replace(fault, where="curve") for fault in learning_faults(learning)]
    else:
        faults += needed.faults()
        learning = LearningSpec(floor=0.0)
    goal = goal_of(minimise, target, needed is not None, faults)
    cost = weights_of(weights, minimise, faults)
    if cost is not None and time_s is None and caps is False:
        allowed = "time for all rounds together, or caps=True: the search needs an end"
        faults.append(Fault("options", "time_s", "None", allowed))
    if (cost is not None or (isinstance(minimise, str) and minimise == "energy")) and energy_j is None:
        allowed = "energy for all rounds together, of which the least share is sought"
        faults.append(Fault("options", "energy_j", "None", allowed))
    named: Any = method
    if not isinstance(named, str):
        faults.append(Fault("options", "method", shown(method), "a name, of those in edgealloc.METHODS"))
    held: Any = caps
    if not isinstance(held, bool):
        faults.append(Fault("options", "caps", shown(caps), "True or False"))
    if faults:
        raise InputError("options", faults)
    parts = instance, learning, time, energy, caps, given.constraints
    run = TrainingRun(*parts) if needed is None else NeededRun(*parts, needed=needed)
    family = method if method == "auto" else find_method(method).name.partition(":")[0]
    if family in LOCAL:
        if minimise != "loss":
            raise RefusedError(f"method {method!r} proves nothing, and plans for the least loss only; use 'auto'")
        return descend(run, span, method, options)
    if minimise == "loss":
        return least_loss(run, span, method, options)
    assert goal is not None
    if minimise == "weighted":
        assert cost is not None
        return least_weighted(run, span, method, options, cost, goal)
    return least_run(run, span, method, options, minimise, goal)
