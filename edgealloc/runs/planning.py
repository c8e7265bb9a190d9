"""Plan a whole training run: rounds, deadline and allocation at once (docs/runs.md)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from edgealloc.api import as_problem
from edgealloc.data.constraints import Constraint
from edgealloc.data.forms import number
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, learning_faults
from edgealloc.data.outcome import Snapshot
from edgealloc.data.run import Goal
from edgealloc.errors import Fault, InputError, PlausibilityWarning, RefusedError, did_you_mean, shown
from edgealloc.formulation.problem import Problem
from edgealloc.methods import find_method
from edgealloc.runs.least import Weights, least_run, least_weighted
from edgealloc.runs.local import descend
from edgealloc.runs.loss import least_loss
from edgealloc.runs.needed import NeededRounds, NeededRun
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.search import Interval
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.base import Options
from edgealloc.units import FloatArray

__all__ = ["LOCAL", "MOST_ROUNDS", "energy_totals", "plan_run", "positive", "rounds_span"]

MOST_ROUNDS = 1_000_000
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
    time = None if time_s is None else positive("time_s", time_s, faults)
    energy = None if energy_j is None else energy_totals(energy_j, instance, faults)
    if curve is None and instance.learning is None:
        warnings.warn(TYPICAL, PlausibilityWarning, stacklevel=2)
    needed = curve if isinstance(curve, NeededRounds) else None
    learning: Any = (curve if needed is None else None) or instance.learning or LearningSpec()
    if needed is None:
        faults += [replace(fault, where="curve") for fault in learning_faults(learning)]
    else:
        faults += needed.faults()
        learning, target = LearningSpec(floor=0.0), _whole(target, minimise, faults)
    if minimise not in get_args(Goal):
        allowed = f"{', '.join(get_args(Goal))}; {did_you_mean(str(minimise), get_args(Goal), ' ')}".rstrip("; ")
        faults.append(Fault("options", "minimise", shown(minimise), allowed))
    elif (target is None) is not (minimise == "loss"):
        allowed = (
            "none: the loss is minimised" if minimise == "loss" else f"a loss to reach, for minimise={minimise!r}"
        )
        faults.append(Fault("options", "target", shown(target), allowed))
    elif target is not None and ((goal := number(target)) is None or not math.isfinite(goal)):
        faults.append(Fault("options", "target", shown(target), "a finite number"))
    cost = _weights(weights, minimise, time_s is None and not caps, faults)
    if minimise in ("energy", "weighted") and energy_j is None:
        allowed = "energy for all rounds together, of which the least share is sought"
        faults.append(Fault("options", "energy_j", "None", allowed))
    if caps not in (True, False):
        faults.append(Fault("options", "caps", shown(caps), "True or False"))
    if faults:
        raise InputError("options", faults)
    run = TrainingRun(instance, learning, time, energy, caps, given.constraints)
    if needed is not None:
        run = NeededRun(instance, learning, time, energy, caps, given.constraints, needed)
    family = find_method(method).name.partition(":")[0] if method != "auto" else method
    if family in LOCAL:
        if minimise != "loss":
            raise RefusedError(f"method {method!r} proves nothing, and plans for the least loss only; use 'auto'")
        return descend(run, span, method, options)
    if minimise == "loss":
        return least_loss(run, span, method, options)
    assert target is not None
    if minimise == "weighted":
        return least_weighted(run, span, method, options, cost, float(target))
    return least_run(run, span, method, options, minimise, float(target))


def _weights(given: Any, minimise: Goal, endless: bool, faults: list[Fault]) -> Weights:
    """Two weights for a weighted sum, none for anything else; and a time that it cannot be longer than."""
    if minimise != "weighted":
        if given is not None:
            faults.append(Fault("options", "weights", shown(given), "none, but for minimise='weighted'"))
        return Weights(1.0, 1.0)
    try:
        found = Weights(*(number(weight) or 0.0 for weight in given))
    except TypeError:
        found = Weights(0.0, 0.0)
    if not all(0.0 < weight < math.inf for weight in found):
        allowed = "two finite numbers > 0: what a second costs, and what all of energy_j does"
        faults.append(Fault("options", "weights", shown(given), allowed))
    if endless:
        allowed = "time for all rounds together, or caps=True: the search needs an end"
        faults.append(Fault("options", "time_s", "None", allowed))
    return found


def _whole(target: float | None, minimise: Goal, faults: list[Fault]) -> float | None:
    """The target of a run of needed rounds: all of them. What else is asked for goes to the faults."""
    if target is not None:
        faults.append(Fault("options", "target", shown(target), "none: the rounds that are needed are the target"))
    if minimise == "loss":
        faults.append(Fault("options", "minimise", "'loss'", "'time', 'energy' or 'weighted'"))
        return None
    return 1.0


def rounds_span(rounds: Any, faults: list[Fault]) -> Interval:
    """Least and greatest number of rounds; whether they are, goes to the faults."""
    allowed = f"(least, greatest) whole numbers from 1 to {MOST_ROUNDS}"
    try:
        first, last = (int(r) if r == int(r) and not isinstance(r, bool) else 0 for r in rounds)
    except (TypeError, ValueError, OverflowError):
        first = last = 0
    if not 1 <= first <= last <= MOST_ROUNDS:
        faults.append(Fault("options", "rounds", shown(rounds), allowed))
    return Interval(first, last)


def positive(
    key: str, value: object, faults: list[Fault], where: str = "options", *, spent: bool = False
) -> float:
    """A budget as a number above 0, where it may not be ``spent``; whether it is one, goes to the faults."""
    found = number(value)
    if found is None or not (0.0 < found < math.inf or (spent and math.isfinite(found))):
        faults.append(Fault(where, key, shown(value), "a finite number > 0, or None for no such budget"))
        return 1.0
    return found


def energy_totals(given: Any, instance: Instance, faults: list[Fault], *, spent: bool = False) -> FloatArray:
    """Energy of all rounds together, in J, in the order of the instance; maybe ``spent``. Shape [K]."""
    names = instance.device_names
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                allowed = f"the name of a device; {did_you_mean(str(name), names)}"
                faults.append(Fault("options", "energy_j", shown(name), allowed))
        missing = [name for name in names if name not in given]
        faults += [Fault(name, "energy_j", "(missing)", "a total for every device") for name in missing]
        values = [given.get(name, 1.0) for name in names]
    elif np.ndim(given) == 0:
        return np.full(len(names), positive("energy_j", given, faults, spent=spent))
    else:
        values = list(given)
        if len(values) != len(names):
            allowed = f"one number, one by name, or one per device ({len(names)})"
            faults.append(Fault("options", "energy_j", f"{len(values)} numbers", allowed))
            return np.ones(len(names))
    return np.array(
        [positive("energy_j", v, faults, name, spent=spent) for name, v in zip(names, values, strict=True)]
    )
