"""Plan the rest of a run that has begun: with what is left of time and energy, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.api import as_problem
from edgealloc.data.allocation import Allocation
from edgealloc.data.forms import number
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Snapshot, Status, relative_gap
from edgealloc.errors import Fault, InputError, shown
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.runs.asked import LEAST, LOSS, budget, energy_totals, is_loss, rounds_span
from edgealloc.runs.begun.continued import ContinuedRun
from edgealloc.runs.begun.past import Past, corrected
from edgealloc.runs.least import least_run, least_weighted
from edgealloc.runs.local import descend
from edgealloc.runs.loss import least_loss
from edgealloc.runs.needed import NeededRun
from edgealloc.runs.plan import RunPlan
from edgealloc.runs.planning import LOCAL
from edgealloc.runs.search import Interval, RunPoint
from edgealloc.runs.training import LITTLE_J, TrainingRun
from edgealloc.solvers.base import Options
from edgealloc.solvers.search.engine import Found
from edgealloc.units import FloatArray

__all__ = ["replan"]

_TRIED = 4  # numbers of rounds that the standing allocation is tried for


def replan(
    plan: RunPlan,
    *,
    done: int = 1,
    time_s: float | None = None,
    energy_j: float | Mapping[str, float] | FloatArray | None = None,
    loss: float | None = None,
    problem: Problem | Instance | str | Path | None = None,
    rounds: tuple[int, int] | None = None,
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
    callback: Callable[[Snapshot], bool | None] | None = None,
) -> RunPlan:
    """Plan the rounds that are left, after some of a plan have been trained.

    Call it after each round: ``while not plan.stop: train(plan); plan = edgealloc.replan(plan, ...)``.

    Parameters
    ----------
    plan
        What was planned last: by :func:`edgealloc.plan_run`, or by this function.
    done
        How many rounds of it have been trained.
    time_s
        Time in s that is left for all rounds to come; None: what the plan leaves. Nothing or less says stop.
    energy_j
        Energy in J that each device has left for all of them: one number, one by name, or an array of shape [K];
        None: what the plan leaves.
    loss
        The test loss in nats that was measured now. The pilots' curve is made to agree with it: see docs/runs.md.
        None for a run of needed rounds, which knows no loss.
    problem
        One round as it is now, where channels or devices have changed: an instance, a problem, or the path of an
        instance file. Devices are known by their names.
    rounds
        Least and greatest number of rounds to come; None: what is left of the plan's.
    rel_gap, time_limit, seed, callback
        As for :func:`edgealloc.plan_run`. The standing plan goes on unless something is better by more than the
        gap.

    Returns
    -------
    RunPlan
        For the rounds to come, by the standing plan's method, aim, target and constraints. Times are of the
        rounds to come, shares of a device's energy in the whole run. ``plan.stop`` where another round would not
        help, or none is possible: limits, spent budgets and infeasibility do not raise. Of a run of needed rounds
        ``loss`` then is how many more it takes without dropout, 0 when it is done.

    Raises
    ------
    InputError
        Lists every bad option.
    StatusError
        When there is no plan to go on from.
    """
    asked_of: Any = plan
    if not isinstance(asked_of, RunPlan):
        allowed = "a RunPlan, from edgealloc.plan_run or edgealloc.replan"
        raise InputError("arguments", [Fault("arguments", "plan", shown(plan), allowed)])
    if plan.stop:
        return plan
    standing = plan.raise_for_status().result
    assert standing is not None
    assert standing.allocation is not None
    before, options = plan.run, Options(rel_gap, time_limit, seed, None, callback)
    given = Problem(before.instance) if problem is None else as_problem(problem)
    rows = given.constraints if isinstance(problem, Problem) else before.constraints
    instance, faults = given.instance, list[Fault]()
    asked = number(done)
    count = -1 if asked is None or asked not in range(plan.rounds + 1) else int(asked)
    if count < 0:
        allowed = f"a whole number from 0 to {plan.rounds}, the rounds of the plan"
        faults.append(Fault("options", "done", shown(done), allowed))
    measured = number(loss)
    if loss is not None and not is_loss(loss):
        faults.append(Fault("options", "loss", shown(loss), f"{LOSS}, or None"))
    use = standing.problem.evaluate(standing.allocation)
    if loss is not None and isinstance(before, NeededRun):
        faults.append(Fault("options", "loss", shown(loss), "none: needed rounds know no loss"))
    time = _time_left(before, time_s, float(use.latency_s.max()), count, faults)
    energy = _energy_left(before, energy_j, use.energy_j, count, instance, faults)
    span = Interval(max(plan.span.first - count, 1), plan.span.last - count)
    if rounds is not None:
        span = rounds_span(rounds, faults)
    if faults:
        raise InputError("options", faults)
    parts: dict[str, Any] = {"time_s": time, "energy_j": energy, "caps": before.caps, "constraints": rows}
    if energy is not None and plan.minimise in ("energy", "weighted"):
        parts["spent_j"] = _spent_before(before, instance, energy)
    run: TrainingRun
    if isinstance(before, NeededRun):
        needed = before.after(standing.allocation, count)
        run = NeededRun(instance, before.learning, **parts, needed=needed or before.needed)
        now = 0.0 if needed is None else needed.fixed + needed.per_keep
        reached = "as many rounds are trained as are needed" if needed is None else ""
    else:
        run, now = _begun(before, instance, standing.allocation, count, measured, parts)
        reached = "the target is reached" if now <= (plan.target or -math.inf) else ""
    why = _spent(run, span) or reached
    if why:
        return _stopped(plan, run, now, why, Status.OPTIMAL, reached=bool(reached))
    if energy is not None:
        run = replace(run, energy_j=np.where(energy >= LEAST, energy, LITTLE_J))
    found = _searched(plan, run, span, standing, options)
    if found.result is None:
        why = found.message or "no round was found"
        stopped = _stopped(plan, run, now, why, found.status)
        least = min(stopped.objective, found.lower_bound)  # a limit proves no more
        return replace(stopped, status=found.status, lower_bound=least, diagnosis=found.diagnosis)
    if plan.minimise == "loss" and now <= found.loss:
        proved = relative_gap(now, min(now, found.lower_bound)) <= rel_gap
        status = Status.OPTIMAL if proved else Status.FEASIBLE
        status = found.status if found.status is Status.LOCALLY_SOLVED else status
        stopped = _stopped(plan, run, now, "another round would not lower the predicted loss", status)
        return replace(stopped, lower_bound=min(now, found.lower_bound), solves=found.solves, pieces=found.pieces)
    return found


def _begun(
    before: TrainingRun,
    instance: Instance,
    trained: Allocation,
    rounds: int,
    measured: float | None,
    parts: Mapping[str, Any],
) -> tuple[ContinuedRun, float]:
    """The rest of a run with a learning curve, made to agree with a measured loss, and its loss now in nats."""
    pilots, past = before.learning, Past()
    if isinstance(before, ContinuedRun):
        pilots, past = before.pilots or before.learning, before.past
    past = past.after(before.instance, trained, pilots.exponent, rounds)
    run = ContinuedRun(instance, before.learning, **parts, past=past, pilots=pilots)
    held = _held(trained, before.instance, instance)
    if measured is not None:
        learning = corrected(pilots, measured, lambda spec: float(replace(run, learning=spec).loss(0, held)))
        run = replace(run, learning=learning)
    return run, float(run.loss(0, held))


def _spent_before(before: TrainingRun, instance: Instance, left: FloatArray) -> FloatArray:
    """What each device has spent of the whole run's energy in J, where that is known. Shape [K].

    Who has nothing left can only be left out, and counts for no share.
    """
    assert before.energy_j is not None
    whole = before.energy_j if before.spent_j is None else before.energy_j + before.spent_j
    known = dict(zip(before.instance.device_names, whole.tolist(), strict=True))
    had = np.array([known.get(name, 0.0) for name in instance.device_names])
    return np.where(left >= LEAST, np.maximum(had - left, 0.0), 0.0)


def _less(total: float, used: float, rounds: int) -> float:
    """What so many rounds leave of a budget, rounded down: ``rounds * used`` in doubles may be too little."""
    left = Fraction(total) - rounds * Fraction(used)
    found = float(left)
    return found if found <= left else math.nextafter(found, -math.inf)


def _time_left(before: TrainingRun, given: Any, used: float, rounds: int, faults: list[Fault]) -> float | None:
    """Time that is left in s, after so many rounds of ``used`` each."""
    if given is not None:
        return budget("time_s", given, faults, spent=True)
    return None if before.time_s is None else _less(before.time_s, used, rounds)


def _energy_left(
    before: TrainingRun, given: Any, used: FloatArray, rounds: int, instance: Instance, faults: list[Fault]
) -> FloatArray | None:
    """Energy that is left of each device of the instance in J, after so many rounds of ``used``. Shape [K]."""
    if given is not None:
        return energy_totals(given, instance, faults, spent=True)
    if before.energy_j is None:
        return None
    rows = zip(before.instance.device_names, before.energy_j.tolist(), used.tolist(), strict=True)
    known = {name: _less(total, joules, rounds) for name, total, joules in rows}
    new = [name for name in instance.device_names if name not in known]
    faults += [Fault(name, "energy_j", "(missing)", "what it may spend, for it is new") for name in new]
    return np.array([known.get(name, 1.0) for name in instance.device_names])


def _held(allocation: Allocation, old: Instance, new: Instance) -> Allocation:
    """Who takes part, and rows of menus, of the devices that are there now. Its keep rates say nothing."""
    if old.device_names == new.device_names:
        return allocation
    place = {name: k for k, name in enumerate(old.device_names)}
    at = [place.get(name, -1) for name in new.device_names]
    menus = new.adapter_options or (None,) * new.num_devices
    option = [-1 if menu is None else max(int(allocation.option[k]), 0) for k, menu in zip(at, menus, strict=True)]
    selected = [k < 0 or bool(allocation.selected[k]) for k in at]
    return Allocation(
        new.keep_max, new.freq_max_hz, new.power_max_w, selected=np.array(selected), option=np.array(option)
    )


def _spent(run: TrainingRun, span: Interval) -> str:
    """Why no round more can be trained, as far as that shows without a solve; empty otherwise."""
    if span.last < 1:
        return "as many rounds are trained as there may be"
    if run.time_s is not None and run.time_s < LEAST:
        return "the time is spent"
    if run.energy_j is not None:
        names = run.instance.device_names
        empty = [name for name, left in zip(names, run.energy_j.tolist(), strict=True) if left < LEAST]
        if len(empty) == len(names) or (empty and run.instance.exclusion_penalty is None):
            return f"the energy of {', '.join(empty[:5])}{', ...' * (len(empty) > 5)} is spent"
    return ""


def _stopped(
    plan: RunPlan, run: TrainingRun, now: float, why: str, status: Status, *, reached: bool = False
) -> RunPlan:
    """No round more: the loss is what it is, and a target that is not reached is out of reach."""
    value = now
    if plan.minimise != "loss":
        share = 0.0 if run.spent_j is None else run.share(np.zeros(len(run.spent_j)))
        value = share if plan.weights is None else plan.weights.per_share * share
        value, status = (value, status) if reached else (math.inf, Status.INFEASIBLE)
    return replace(
        plan,
        run=run,
        status=status,
        rounds=0,
        result=None,
        loss=now,
        objective=value,
        lower_bound=value,
        seconds=0.0,
        solves=0,
        message=f"stop: {why}",
        diagnosis=(),
        pieces=(),
        excluded=(),
    )


def _searched(plan: RunPlan, run: TrainingRun, span: Interval, standing: Result, options: Options) -> RunPlan:
    """The best run of at least one round more, as the plan's method and aim find it."""
    if plan.method.partition(":")[0] in LOCAL:
        return descend(run, span, plan.method, options)
    if plan.minimise == "loss":
        return least_loss(run, span, plan.method, options, _start(run, span, plan.run, standing))
    assert plan.target is not None
    if plan.minimise == "weighted":
        assert plan.weights is not None
        return least_weighted(run, span, plan.method, options, plan.weights, plan.target)
    return least_run(run, span, plan.method, options, plan.minimise, plan.target)


def _start(run: TrainingRun, span: Interval, before: TrainingRun, standing: Result) -> Found[RunPoint] | None:
    """The standing allocation for as many rounds as are best, where the budgets and channels still allow it."""
    old, new, allocation = before.instance, run.instance, standing.allocation
    assert allocation is not None
    same = (old.device_names, old.access, old.num_subcarriers)
    if same != (new.device_names, new.access, new.num_subcarriers):
        return None
    use = run.single(span.first).evaluate(allocation)
    most = float(span.last)
    if run.time_s is not None:
        most = min(most, run.time_s / max(float(use.latency_s.max()), 1e-300))
    if run.energy_j is not None:
        most = min(most, float((run.energy_j / np.maximum(use.energy_j, 1e-300)).min()))
    counts = np.arange(span.first, int(most * (1.0 + 1e-12)) + 1)
    values = run.loss(counts, allocation)
    for i in np.argsort(values, kind="stable")[:_TRIED]:
        single = run.single(int(counts[i]))
        if not single.violations(allocation):
            point = RunPoint(int(counts[i]), allocation, replace(standing, problem=single))
            return Found(float(values[i]), point, "P")
    return None
