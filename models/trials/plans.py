"""Plans for training from results, and two that are no allocation: whole adapters with stragglers, or with few.

Who solves is passed in (``edgealloc.solve`` or anything like it): the trainer knows no solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count
from edgealloc.formulation.result import Result
from edgealloc.models.trials.validate import Plan, plan_from_result

Solve = Callable[[Instance], Result]

_PENALTY = 1e3  # underfitting of a device that is left out, far above what any constants give to one that is not


def stragglers(instance: Instance, solve: Solve) -> Plan:
    """Whole adapters from everybody in equal shares of the spectrum, late or not.

    FDMA: B/K each; resource blocks: as many whole ones as everybody can have; OFDMA: every K-th sub-carrier. A
    device that its share does not carry in time is a straggler: it spends its energy and is not heard.

    Parameters
    ----------
    instance
        The cell.
    solve
        Solves the cell of one device.
    """
    k = instance.num_devices
    latency, energy = np.full(k, np.inf), np.array(instance.energy_j)
    for device in range(k):
        cell = _equal_share(instance, device)
        if cell is not None and (result := solve(cell)).status.has_allocation:
            own = plan_from_result(result)
            latency[device], energy[device] = own.latency_s[0], own.energy_j[0]
    limits = (instance.latency_s, instance.energy_j)
    return _with_bound(
        Plan("no dropout, stragglers", np.ones(k), latency, energy, *limits, np.ones(k, dtype=bool)), instance
    )


def admission(instance: Instance, solve: Solve) -> Plan:
    """Whole adapters from as many samples as the cell carries in time; the other devices rest.

    The problem with selection, at keep rate 1 and a penalty that outweighs all else.

    Parameters
    ----------
    instance
        The cell.
    solve
        Solves problems with selection.

    Raises
    ------
    StatusError
        If the solver finds nothing within its limits.
    """
    ones = np.ones(instance.num_devices)
    whole = {"keep_min": ones, "keep_max": ones, "keep_levels": None, "common_keep": False}
    result = solve(instance.with_changes(exclusion_penalty=_PENALTY, **whole))
    return _with_bound(plan_from_result(result, "no dropout, admission"), instance)


def _equal_share(instance: Instance, device: int) -> Instance | None:
    """Return the cell of one device that keeps everything, with its equal share; None if it gets nothing."""
    k, own, one = instance.num_devices, instance.take([device]), np.ones(1)
    changes: dict[str, object] = {"common_keep": False, "keep_min": one, "keep_max": one, "keep_levels": None}
    share = 1.0 / k
    if instance.access == "ofdma":
        assert instance.num_subcarriers is not None
        columns = np.arange(device, instance.num_subcarriers, k)
        if not columns.size:
            return None
        changes["gain"] = own.gain[:, columns]
        share = len(columns) / instance.num_subcarriers
    elif instance.access == "rb":
        assert instance.block_hz is not None
        blocks = block_count(instance.bandwidth_hz, instance.block_hz) // k
        if not blocks:
            return None
        share = blocks * instance.block_hz / instance.bandwidth_hz
    changes["bandwidth_hz"] = instance.bandwidth_hz * share
    return own.with_changes(name=f"{instance.name}, {own.device_names[0]}", **changes)


def _with_bound(plan: Plan, instance: Instance) -> Plan:
    """Fill in the bound over those who report: the training set of the round is theirs."""
    heard = np.flatnonzero(plan.reports)
    if not heard.size:
        return replace(plan, bound=float("nan"), stability=float("nan"))
    problem = Problem(instance.take(heard).with_changes(exclusion_penalty=None))
    keep = plan.keep[heard]
    bound = problem.objective(keep)
    loss = float(problem.instance.weights @ problem.underfit.value(keep))
    return replace(plan, bound=bound, stability=bound - instance.bound.underfit_weight * loss)
