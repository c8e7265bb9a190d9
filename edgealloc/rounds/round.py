"""One round from device states: the instance, its solution, the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.rounds.plan import Plan, plan_of
from edgealloc.rounds.system import DeviceState, System, number_faults

__all__ = ["plan_round", "round_instance"]


def plan_round(
    system: System,
    devices: Mapping[str, DeviceState],
    method: str = "auto",
    *,
    seed: int = 0,
    round_number: int = 0,
    rel_gap: float = 1e-4,
    time_limit_s: float | None = None,
) -> Plan:
    """Allocate one round.

    Parameters
    ----------
    system
        What does not change from round to round.
    devices
        State of every device by id.
    method
        As for :func:`edgealloc.solve`.
    seed, round_number
        Masks follow from these two and the device's id alone; a method that draws at random uses ``seed`` too.
    rel_gap, time_limit_s
        When to stop, as for :func:`edgealloc.solve`.

    Returns
    -------
    Plan
        Limits and infeasibility do not raise; then nobody is selected, and ``message`` says why.

    Raises
    ------
    InputError
        Lists every fault of system and states, with device id and field.
    EdgeallocError
        When the method does not take the problem.
    """
    instance = round_instance(system, devices)
    result = None
    if instance is not None:
        result = solve(instance, method, rel_gap=rel_gap, time_limit=time_limit_s, seed=seed)
    return plan_of(result, devices, system.latency_s, seed=seed, round_number=round_number)


def round_instance(system: System, devices: Mapping[str, DeviceState]) -> Instance | None:
    """The instance of the available devices, in the order of the mapping; None where nobody is available.

    Raises
    ------
    InputError
        As :func:`plan_round`.
    """
    on = {key: state for key, state in devices.items() if state.available is not False}
    if not on:
        return None
    count = len(on)
    columns: dict[str, Any] = {
        f.name: [getattr(state, f.name) for state in on.values()] for f in fields(DeviceState)
    }
    for key in ("cycles_fixed", "cycles_lora"):
        columns[key] = [getattr(system, key) if value is None else value for value in columns[key]]
    columns["downlink_bps"] = [math.inf if rate is None else rate for rate in columns["downlink_bps"]]
    available = columns.pop("available")
    shared = {f.name: getattr(system, f.name) for f in fields(system)}
    del shared["cycles_fixed"], shared["cycles_lora"]
    faults = [
        Fault(name, "available", repr(value), "true or false")
        for name, value in zip(on, available, strict=True)
        if value is not True
    ]
    faults += number_faults(system, on, columns)
    if faults:
        raise InputError(f"round {system.name!r}", faults)
    for key in ("keep_levels", "adapter_options"):
        shared[key] = None if shared[key] is None else (shared[key],) * count
    return Instance(**shared, **columns, device_names=tuple(on))
