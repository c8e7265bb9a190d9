"""Whole runs on trial: so many rounds of an allocation, within what all rounds together may take.

A run that was planned is trained as long as it was planned, and so are its rivals: the same total time and
energy, divided over the same number of rounds, and more rounds where a rival's are shorter or cheaper. Each is
judged where the plan stops, and at its round of least validation loss, as if it had been stopped early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.task import Setup
from edgealloc.models.trials.cell import plans_for
from edgealloc.models.trials.plans import Plan, plan_from_result
from edgealloc.models.trials.validate import Validation, validate
from edgealloc.units import FloatArray

__all__ = ["PlannedRun", "longest", "one_round", "plan_from_run", "rivals_for", "run_table", "validate_runs"]

_HAIR = 1e-9  # relative: a run may not lose a round to the rounding of its budgets


class PlannedRun(Protocol):
    """What a planner says of a run: how many rounds, and the allocation of one of them."""

    @property
    def rounds(self) -> int:
        """Rounds to train."""

    @property
    def result(self) -> Result:
        """One round, solved."""


def plan_from_run(planned: PlannedRun, name: str = "planned") -> Plan:
    """Read a plan for training off a planned run.

    Parameters
    ----------
    planned
        With an allocation.
    name
        Name in tables.

    Returns
    -------
    Plan
        Keep rates, times in s and energies in J of a round, and the number of rounds.

    Raises
    ------
    StatusError
        If its result carries no allocation.
    """
    return replace(plan_from_result(planned.result, name), rounds=planned.rounds)


def one_round(
    instance: Instance, rounds: int, *, time_s: float | None = None, energy_j: ArrayLike | None = None
) -> Instance:
    """Return the cell with an equal part of what all rounds together may take as the budgets of a round.

    Parameters
    ----------
    instance
        The cell; its own budgets of a round hold as well.
    rounds
        How many rounds there are.
    time_s
        Time in s for all of them.
    energy_j
        Energy in J of each device for all of them: a number, or one per device. Shape [K].

    Returns
    -------
    Instance
        Whose rounds can be repeated so many times.

    Raises
    ------
    InputError
        For budgets that are no positive numbers, or no rounds.
    """
    k = instance.num_devices
    energy = np.full(k, math.inf) if energy_j is None else np.asarray(energy_j, dtype=float)
    time = math.inf if time_s is None else float(time_s)
    faults = []
    if rounds < 1:
        faults.append(Fault("run", "rounds", str(rounds), "at least 1"))
    if not time > 0.0:
        faults.append(Fault("run", "time_s", str(time_s), "a number above 0"))
    if energy.shape not in ((), (k,)) or not np.all(energy > 0.0):
        faults.append(Fault("run", "energy_j", str(energy_j), f"a number above 0, or {k} of them"))
    if faults:
        raise InputError("run", faults)
    return instance.with_changes(
        latency_s=min(instance.latency_s, time / rounds),
        energy_j=np.minimum(instance.energy_j, np.broadcast_to(energy, k) / rounds),
    )


def longest(plan: Plan, most: int, *, time_s: float | None = None, energy_j: ArrayLike | None = None) -> Plan:
    """Return the plan with as many rounds as all rounds together may take, at most ``most``.

    Parameters
    ----------
    plan
        Of a round.
    most
        Rounds at most.
    time_s, energy_j
        As for :func:`one_round`; energies have shape [K].

    Returns
    -------
    Plan
        With its number of rounds; at least one.
    """
    spent = np.minimum(plan.energy_j, plan.energy_limit_j)[plan.selected]
    limits = [float(most)]
    if time_s is not None:
        limits.append(time_s / max(plan.round_s, 1e-300))
    if energy_j is not None and spent.size:
        total = np.broadcast_to(np.asarray(energy_j, dtype=float), len(plan.keep))[plan.selected]
        limits.append(float(np.min(total / np.maximum(spent, 1e-300))))
    return replace(plan, rounds=max(1, int(min(limits) * (1.0 + _HAIR))))


def rivals_for(
    instance: Instance,
    names: Sequence[str],
    rounds: int,
    *,
    time_s: float | None = None,
    energy_j: ArrayLike | None = None,
    most: int | None = None,
    **options: Any,
) -> list[Plan]:
    """Plan the same total time and energy by methods that know one round only.

    Parameters
    ----------
    instance
        The cell, with a calibrated bound.
    names
        Methods, as for :func:`edgealloc.models.trials.cell.plans_for`.
    rounds
        Over how many rounds the budgets are divided.
    time_s, energy_j
        As for :func:`one_round`; energies have shape [K].
    most
        Rounds that a rival may train at most, where its own take less than their part (default: ``rounds``).
    **options
        As for :func:`edgealloc.models.trials.cell.plans_for`.

    Returns
    -------
    list of Plan
        With numbers of rounds.

    Raises
    ------
    InputError
        For budgets that are no positive numbers, an unknown method, or if no method finds an allocation.
    """
    cell = one_round(instance, rounds, time_s=time_s, energy_j=energy_j)
    limit = rounds if most is None else most
    return [longest(p, limit, time_s=time_s, energy_j=energy_j) for p in plans_for(cell, names, **options)]


def validate_runs(
    plans: Sequence[Plan],
    setup: Setup,
    options: FederatedOptions,
    *,
    samples: FloatArray,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    store: Path | None = None,
    device: str = "cpu",
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> Validation:
    """Train planned runs and their rivals, each for its own number of rounds, paired over seeds.

    Parameters
    ----------
    plans
        With ``rounds``; a plan without trains ``options.rounds``.
    setup, options, seeds, store, device, progress
        As for :func:`edgealloc.models.trials.validate.validate`.
    samples
        Samples of the instance's devices. Shape [K].

    Returns
    -------
    Validation
        Test losses of every round; ``test_loss`` is that of the planned stop, ``best_test_loss`` that of the round
        of least validation loss. ``against`` compares either, paired.

    Raises
    ------
    InputError
        As :func:`edgealloc.models.trials.validate.validate`, and for a patience, which would move the stop.
    """
    if options.patience:
        allowed = "0: a plan stops where it says, and the best round is judged beside it"
        raise InputError("validation", [Fault("options", "patience", str(options.patience), allowed)])
    return validate(
        plans,
        setup,
        options,
        samples=samples,
        seeds=seeds,
        store=store,
        device=device,
        progress=progress,
    )


def run_table(seen: Validation, reference: str, predicted: Mapping[str, float] | None = None) -> str:
    """Render what each run came to, stopped as planned and at its best round, against a reference, as Markdown.

    Parameters
    ----------
    seen
        Of :func:`validate_runs`.
    reference
        Name of the plan that the others are compared with.
    predicted
        Losses in nats that were predicted, by name of the plan.

    Returns
    -------
    str
        A row per plan, with paired differences and the half-widths of their 95 % intervals.

    Raises
    ------
    InputError
        If there is no such plan.
    """
    measures = ("test_loss", "best_test_loss")
    pairs = [{r["plan"]: r for r in seen.against(reference, measure)} for measure in measures]
    lines = [
        "| run | rounds | s | J | predicted | test loss as planned | against it | at its best round | round "
        "| against it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in seen.table():
        name = row["plan"]
        cells = []
        for measure, pair in zip(measures, pairs, strict=True):
            other = pair.get(name)
            cells.append(f"{row[measure]:.3f} +- {row[f'{measure}_ci95']:.3f}")
            cells.append("" if other is None else f"{other['difference']:+.3f} +- {other['ci95']:.3f}")
        best = ", ".join(f"{number:g}" for number in row["best_rounds"])
        guess = f"{predicted[name]:.3f}" if predicted and name in predicted else ""
        lines.append(
            f"| {name} | {row['rounds']} | {row['run_s']:.0f} | {row['run_j']:.1f} | {guess} | {cells[0]} "
            f"| {cells[1]} | {cells[2]} | {best} | {cells[3]} |"
        )
    return "\n".join(lines) + "\n"
