"""One round from device states: the instance, its solution without whom nothing can help, the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Protocol

from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.rounds.plan import Plan, plan_of
from edgealloc.rounds.ranges import id_text, kind_faults, state_faults, system_faults
from edgealloc.rounds.system import DeviceState, System
from edgealloc.solvers.base import Options
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["TIME_LIMIT_S", "Planner", "plan_round", "plan_valid", "round_instance", "solve_able", "with_limit"]

TIME_LIMIT_S = (
    30.0  # of a round, for whoever states none: twice a usual deadline, so that no state holds up a round
)
_LEAST_LIMIT_S = 1e-3  # a method must be told some time


class Planner(Protocol):
    """Makes a round's plan of states: ``partial(plan_round, system)``, an allocator's ``plan``, or your own."""

    def __call__(self, devices: Mapping[str, DeviceState], /, *, round_number: int) -> Plan:
        """Return the plan; raise InputError that names the devices whose state is not valid."""
        ...


def plan_round(
    system: System,
    devices: Mapping[str, DeviceState],
    method: str = "auto",
    *,
    seed: int = 0,
    round_number: int = 0,
    rel_gap: float = 1e-4,
    time_limit_s: float | None = TIME_LIMIT_S,
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
    rel_gap
        When to stop, as for :func:`edgealloc.solve`.
    time_limit_s
        Wall-clock limit in s, compiling not counted; None for none. ``message`` says if it cut the plan.

    Returns
    -------
    Plan
        Limits and infeasibility do not raise; then nobody is selected, and ``message`` says why. A device that no
        allocation can carry, not even alone, is planned without: ``drop`` and its ``reason`` say so.

    Raises
    ------
    InputError
        Lists every fault of system and states, with device id and field.
    EdgeallocError
        When the method does not take the problem.
    """
    clock = Clock()
    Options(rel_gap, time_limit_s)  # checks them
    instance = round_instance(system, devices)
    if instance is None:
        return plan_of(None, devices, system.latency_s, seed=seed, round_number=round_number)

    def solved(part: Instance) -> Result:
        left = None if time_limit_s is None else max(time_limit_s - clock.seconds, _LEAST_LIMIT_S)
        return solve(part, method, rel_gap=rel_gap, time_limit=left, seed=seed)

    result, without = solve_able(instance, solved)
    said = with_limit(result, time_limit_s, clock.seconds)
    own = {"seed": seed, "round_number": round_number}
    return plan_of(result, devices, system.latency_s, **own, message=said, without=without)


def with_limit(result: Result, limit_s: float | None, seconds: float) -> str:
    """The message of a result, and that the limit cut the round where it did.

    Parameters
    ----------
    result
        The round's.
    limit_s, seconds
        The limit of the round, or None, and what it took, in s.
    """
    unfinished = result.status in (Status.FEASIBLE, Status.LOCALLY_SOLVED, Status.NO_SOLUTION)
    if limit_s is None or not unfinished or not ("time limit" in result.message or seconds >= limit_s):
        return result.message
    return f"{result.message}\nthe time limit of {limit_s:g} s cut the plan".strip()


def plan_valid(
    planner: Planner, states: Mapping[str, DeviceState | Mapping[str, Any]], *, round_number: int
) -> tuple[Plan | None, dict[str, str]]:
    """Plan for those whose state is valid: what one device says of itself never stops the others' round.

    Parameters
    ----------
    planner
        Makes the plan.
    states
        What devices said by id, as states or as what :meth:`~edgealloc.rounds.system.DeviceState.to_dict` gives.
    round_number
        Number of the round.

    Returns
    -------
    tuple of Plan or None, and dict
        The plan, None where nobody is left; and whose state is not valid, by id with every reason.

    Raises
    ------
    InputError
        For a fault of the system itself, or of devices that are none of these.
    """
    refused: dict[str, str] = {}
    sound: dict[str, DeviceState] = {}
    for name, state in states.items():
        try:
            sound[name] = state if isinstance(state, DeviceState) else DeviceState.from_dict(state, id_text(name))
        except InputError as error:
            refused[name] = "; ".join(map(str, error.faults))
    while sound:
        try:
            return planner(sound, round_number=round_number), refused
        except InputError as error:
            bad: dict[str, list[str]] = {}
            for fault in error.faults:
                bad.setdefault(fault.where, []).append(str(fault))
            guilty = {name: "; ".join(bad[id_text(name)]) for name in sound if id_text(name) in bad}
            if not guilty:
                raise
            refused |= guilty
            sound = {name: state for name, state in sound.items() if name not in guilty}
    return None, refused


def solve_able(instance: Instance, solved: Callable[[Instance], Result]) -> tuple[Result, dict[str, str]]:
    """Solve a round without the devices that are infeasible even alone, with all of the spectrum.

    With selection too, where the others would be planned for a sum that such a device's samples may dominate.

    Parameters
    ----------
    instance
        The round.
    solved
        Solves the round or a part of it.

    Returns
    -------
    tuple of Result and dict
        The result, for the devices that are left; and the others by name, each with the budget that it lacks. If
        all are, the result is that of an infeasible round.
    """
    without: dict[str, str] = {}
    # The continuous problem's own method looks at each device alone before anything else; asking twice takes time.
    said_by_method = Problem(instance).structure.log_convex and not instance.common_keep
    findings = () if said_by_method else _infeasible_alone(instance)
    while True:
        named = _by_device(findings)
        left = [k for k, name in enumerate(instance.device_names) if name not in named]
        without |= named
        if named and left:
            instance = instance.take(left)
            findings = _infeasible_alone(instance)  # a method names a part of many
            continue
        result = solved(instance)
        if named or result.status is not Status.INFEASIBLE or instance.common_keep:
            return result, without
        findings = result.diagnosis
        if not _by_device(findings):
            return result, without


def _infeasible_alone(instance: Instance) -> tuple[Diagnosis, ...]:
    from edgealloc.solvers.compiling.warmup import prepare  # imports numba
    from edgealloc.solvers.exact import infeasible_alone

    prepare(f"bnb {instance.access}")
    return infeasible_alone(Problem(instance))


def _by_device(findings: tuple[Diagnosis, ...]) -> dict[str, str]:
    """What each device lacks, in a sentence without the remedy."""
    budgets: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    for finding in findings:
        if finding.device is not None:
            budgets.setdefault(finding.device, []).append(finding.budget)
            said.setdefault(finding.device, finding.message.partition(";")[0])
    return {name: f"infeasible even alone, lacks {', '.join(budgets[name])}: {said[name]}" for name in said}


def round_instance(system: System, devices: Mapping[str, DeviceState]) -> Instance | None:
    """The instance of the available devices, in the order of the mapping; None where nobody is available.

    Raises
    ------
    InputError
        As :func:`plan_round`.
    """
    faults = kind_faults(devices, DeviceState)
    bad = {fault.where for fault in faults}
    on = {name: state for name, state in devices.items() if id_text(name) not in bad and state.available}
    if not on and not faults:
        return None
    own = system_faults(system)
    faults += own + state_faults(system, on)
    if not faults:
        return _instance(system, on)
    bad = {fault.where for fault in faults}
    sound = {name: state for name, state in on.items() if id_text(name) not in bad}
    if sound and not own:
        try:
            _instance(system, sound)
        except InputError as error:
            faults += error.faults  # all at once
    raise InputError(f"round {system.name!r}", faults)


def _instance(system: System, on: Mapping[str, DeviceState]) -> Instance:
    columns: dict[str, Any] = {
        f.name: [getattr(state, f.name) for state in on.values()] for f in fields(DeviceState)
    }
    for key in ("cycles_fixed", "cycles_lora"):
        columns[key] = [getattr(system, key) if value is None else value for value in columns[key]]
    columns["downlink_bps"] = [math.inf if rate is None else rate for rate in columns["downlink_bps"]]
    del columns["available"]
    shared = {f.name: getattr(system, f.name) for f in fields(system)}
    del shared["cycles_fixed"], shared["cycles_lora"]
    for key in ("keep_levels", "adapter_options"):
        shared[key] = None if shared[key] is None else (shared[key],) * len(on)
    return Instance(**shared, **columns, device_names=tuple(on))
