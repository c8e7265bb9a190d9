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

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError, StatusError
from edgealloc.formulation.result import Result
from edgealloc.models.exchange.ranks import rank_of_label
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.task import Setup
from edgealloc.models.trials.cell import plans_for
from edgealloc.models.trials.plans import Plan, plan_from_result
from edgealloc.models.trials.store import Record
from edgealloc.models.trials.validate import Validation, validate
from edgealloc.report.tables import markdown_cell
from edgealloc.units import FloatArray

__all__ = [
    "PlannedRun",
    "longest",
    "one_round",
    "plan_from_run",
    "predicted_losses",
    "rivals_for",
    "run_records",
    "run_table",
    "validate_runs",
]

_HAIR = 1e-9  # relative: a run may not lose a round to the rounding of its budgets


class PlannedRun(Protocol):
    """What a planner says of a run: how many rounds, and the allocation of one of them."""

    @property
    def rounds(self) -> int:
        """Rounds to train."""

    @property
    def result(self) -> Result | None:
        """One round, solved; None without a plan."""


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
        If there is no plan, or its result carries no allocation.
    """
    if planned.result is None:
        raise StatusError("there is no plan of a run to train")
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


def predicted_losses(
    plans: Sequence[Plan], instance: Instance, loss: Callable[[int, Allocation], ArrayLike]
) -> dict[str, float]:
    """Return what a learning curve expects of each run at its planned stop, by the plan's name.

    Parameters
    ----------
    plans
        With ``rounds``.
    instance
        The cell.
    loss
        The predicted loss in nats after so many rounds of an allocation, of which it reads keep rates, who takes
        part and the rows of menus: :meth:`edgealloc.runs.TrainingRun.loss`. For one number of rounds; shape [].

    Returns
    -------
    dict
        Not of plans in which devices are missing, unless the cell has a penalty for that: a curve that was fitted
        with everybody says nothing of them.
    """
    told = {}
    for plan in plans:
        heard = plan.reports
        if plan.rounds is None or not (heard.all() or instance.exclusion_penalty is not None):
            continue
        option = np.full(len(plan.keep), -1)
        for k, menu in enumerate(instance.adapter_options or ()):
            if menu is not None and plan.ranks is not None and heard[k]:
                option[k] = [rank_of_label(row.label) for row in menu].index(int(plan.ranks[k]))
        none = np.zeros(len(plan.keep))
        allocation = Allocation(plan.keep, none, none, selected=heard, option=option)
        told[plan.name] = float(np.asarray(loss(plan.rounds, allocation)))
    return told


def run_records(seen: Validation, reference: str, predicted: Mapping[str, float] | None = None) -> list[Record]:
    """Return what each run came to as one row a plan: means, and paired differences to a reference.

    Parameters
    ----------
    seen, reference, predicted
        As for :func:`run_table`.

    Returns
    -------
    list of dict
        The rows of :meth:`~edgealloc.models.trials.validate.Validation.table` with ``predicted_loss`` and, for
        ``test_loss`` and ``best_test_loss``, ``..._against`` the reference and ``..._against_ci95``; None where
        there is none.

    Raises
    ------
    InputError
        If there is no such plan.
    """
    rows = [{**row, "predicted_loss": (predicted or {}).get(row["plan"])} for row in seen.table()]
    for measure in ("test_loss", "best_test_loss"):
        pair = {r["plan"]: r for r in seen.against(reference, measure)}
        for row in rows:
            other = pair.get(row["plan"], {"difference": None, "ci95": None})
            row[f"{measure}_against"], row[f"{measure}_against_ci95"] = other["difference"], other["ci95"]
    return rows


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
    lines = [
        "| run | rounds | s | J | predicted | test loss as planned | against it | at its best round | round "
        "| against it |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in run_records(seen, reference, predicted):
        cells = []
        for measure in ("test_loss", "best_test_loss"):
            other, half = row[f"{measure}_against"], row[f"{measure}_against_ci95"]
            cells.append(f"{row[measure]:.3f}{_interval(row[f'{measure}_ci95'])}")
            cells.append("" if other is None else f"{other:+.3f}{_interval(half)}")
        best = ", ".join(f"{number:g}" for number in row["best_rounds"])
        guess = "" if row["predicted_loss"] is None else f"{row['predicted_loss']:.3f}"
        lines.append(
            f"| {markdown_cell(row['plan'])} | {row['rounds']} | {row['run_s']:.0f} | {row['run_j']:.1f} "
            f"| {guess} | {cells[0]} | {cells[1]} | {cells[2]} | {best} | {cells[3]} |"
        )
    return "\n".join(lines) + "\n"


def _interval(half: float) -> str:
    """Half the width of an interval; nothing where one seed knows of none."""
    return "" if math.isnan(half) else f" +- {half:.3f}"
