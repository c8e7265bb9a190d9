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
from edgealloc.units import IntArray

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
    ranks, option = np.zeros(k, dtype=np.int64), np.full(k, -1)
    for device in range(k):
        cell = _equal_share(instance, device)
        if cell is not None and (result := solve(cell)).status.has_allocation:
            own = plan_from_result(result)
            latency[device], energy[device] = own.latency_s[0], own.energy_j[0]
            if own.ranks is not None and result.allocation is not None:
                ranks[device], option[device] = own.ranks[0], result.allocation.option[0]
    limits = (instance.latency_s, instance.energy_j)
    whole = Plan("no dropout, stragglers", np.ones(k), latency, energy, *limits, np.ones(k, dtype=bool))
    chosen = whole if instance.adapter_options is None else replace(whole, ranks=ranks)
    return _with_bound(chosen, instance, option)


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
    plan = plan_from_result(result, "no dropout, admission")
    assert result.allocation is not None
    return _with_bound(plan, instance, result.allocation.option)


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


def _with_bound(plan: Plan, instance: Instance, option: IntArray) -> Plan:
    """Fill in the bound over those who report, at their menu rows [K]: the training set of the round is theirs."""
    heard = np.flatnonzero(plan.reports)
    if not heard.size:
        return replace(plan, bound=float("nan"), stability=float("nan"))
    problem = Problem(instance.take(heard).with_changes(exclusion_penalty=None))
    keep = plan.keep[heard]
    underfit, stability = problem.objective.terms(keep, option=option[heard])
    return replace(plan, bound=underfit + stability, stability=stability)
