"""The plans that an optimal allocation has to beat: one common rate, equal shares, no dropout at all.

Every plan is solved to the optimum within its restriction, so that it differs in the restriction only. The solver
is passed in (``edgealloc.solve`` or anything like it).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgealloc.errors import EdgeallocError
from edgealloc.instance import Instance
from edgealloc.models.validate import Plan, plan_from_result
from edgealloc.problem import Problem
from edgealloc.result import Result

log = logging.getLogger(__name__)

Solve = Callable[[Instance], Result]


def equal_shares(instance: Instance, solve: Solve, *, dropout: bool = True) -> Plan:
    """Give every device an equal share of the spectrum, and let it do its best within it.

    FDMA: B/K each. OFDMA: every K-th sub-carrier. With ``dropout`` a device keeps what its share can carry, at
    most the free minimiser of the bound; without, it must send the whole adapter, and a device that cannot is
    a straggler: it spends its energy budget and misses the deadline.
    """
    k = instance.num_devices
    latency, energy = np.full(k, np.inf), np.array(instance.energy_j)
    keep = np.array(instance.keep_min) if dropout else np.ones(k)
    for device in range(k):
        cell = _own_cell(instance, device)
        if not dropout:
            cell = cell.with_changes(keep_min=np.ones(1), keep_max=np.ones(1))
        result = solve(cell)
        if result.status.has_allocation:
            own = plan_from_result(result)
            keep[device], latency[device], energy[device] = own.keep[0], own.latency_s[0], own.energy_j[0]
    plan = Plan(
        "equal shares" if dropout else "no dropout",
        keep,
        latency,
        energy,
        instance.latency_s,
        instance.energy_j,
        np.ones(k, dtype=bool),
    )
    return _with_bound(plan, instance, plan.reports)


def most_devices(instance: Instance, solve: Solve) -> Plan:
    """Without dropout, admit as many devices as the spectrum can carry (FDMA), cheapest first; the others rest.

    The need of a device is found by bisection to 1e-4 of the spectrum, from above, so that it is enough.
    """
    k = instance.num_devices
    need = np.full(k, np.inf)
    plans: list[Plan | None] = [None] * k

    def alone(device: int, bandwidth_hz: float) -> Plan | None:
        own = _own_cell(instance, device, bandwidth_hz)
        result = solve(own.with_changes(keep_min=np.ones(1), keep_max=np.ones(1)))
        return plan_from_result(result) if result.status.has_allocation else None

    for device in range(k):
        low, high = 0.0, instance.bandwidth_hz
        plans[device] = alone(device, high)
        if plans[device] is None:
            continue  # the whole spectrum is not enough
        while high - low > 1e-4 * instance.bandwidth_hz:
            middle = 0.5 * (low + high)
            found = alone(device, middle)
            if found is None:
                low = middle
            else:
                high, plans[device] = middle, found
        need[device] = high
    order = np.argsort(need, kind="stable")
    selected = np.zeros(k, dtype=bool)
    selected[order[np.cumsum(need[order]) <= instance.bandwidth_hz]] = True
    latency, energy = np.zeros(k), np.zeros(k)
    for device in np.flatnonzero(selected).tolist():
        own_plan = plans[device]
        assert own_plan is not None
        latency[device], energy[device] = own_plan.latency_s[0], own_plan.energy_j[0]
    limits = (instance.latency_s, instance.energy_j)
    plan = Plan("no dropout, most devices", np.ones(k), latency, energy, *limits, selected)
    return _with_bound(plan, instance, plan.reports)


def _own_cell(instance: Instance, device: int, bandwidth_hz: float | None = None) -> Instance:
    """Return the cell of one device with its equal share, or with this bandwidth.

    Its bound sees all samples, so that its best rate is that of the cell.
    """
    k = instance.num_devices
    own = instance.take([device])
    changes: dict[str, object] = {"samples": np.array([instance.total_samples]), "common_keep": False}
    if bandwidth_hz is not None:
        changes["bandwidth_hz"] = bandwidth_hz
    elif instance.access == "ofdma":
        assert instance.num_subcarriers is not None
        columns = np.arange(device, instance.num_subcarriers, k)
        changes["gain"] = own.gain[:, columns]
        changes["bandwidth_hz"] = instance.bandwidth_hz * len(columns) / instance.num_subcarriers
    elif instance.access == "rb":
        assert instance.block_hz is not None
        blocks = int(instance.bandwidth_hz / instance.block_hz / k)
        changes["bandwidth_hz"] = blocks * instance.block_hz
    else:
        changes["bandwidth_hz"] = instance.bandwidth_hz / k
    return own.with_changes(name=f"{instance.name}, {own.device_names[0]}", **changes)


def _with_bound(plan: Plan, instance: Instance, reports: NDArray[np.bool_]) -> Plan:
    """Fill in the bound over those who report: the training set of the round is theirs."""
    if not reports.any():
        return plan
    heard = Problem(instance.take(np.flatnonzero(reports)))
    keep = plan.keep[reports]
    bound = heard.objective(keep)
    loss = float(heard.instance.weights @ heard.underfit.value(keep))
    return replace(plan, bound=bound, stability=bound - instance.bound.underfit_weight * loss)


def validation_plans(instance: Instance, solvers: dict[str, Solve], baseline: Solve) -> Sequence[Plan]:
    """Return the plans to compare: each solver's, and those that an optimum has to beat.

    Parameters
    ----------
    instance
        The cell, with calibrated constants.
    solvers
        Solvers to be judged, by the name that the plan gets.
    baseline
        Solves the restricted problems: one device in its share, one common rate.

    Where the baseline solver does not take a common rate, the solvers are tried in turn, then it is left out.
    """
    plans = [plan_from_result(solve(instance), name) for name, solve in solvers.items()]
    common = instance.with_changes(common_keep=True)
    for solve in (baseline, *solvers.values()):
        try:
            plans.append(plan_from_result(solve(common), "one common rate"))
            break
        except EdgeallocError as error:
            log.warning("no plan 'one common rate' by this solver: %s", error)
    plans += [equal_shares(instance, baseline), equal_shares(instance, baseline, dropout=False)]
    if instance.access == "fdma":
        plans.append(most_devices(instance, baseline))
    return plans
