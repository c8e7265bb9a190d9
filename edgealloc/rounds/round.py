"""One round from device states: the instance, its solution without whom nothing can help, the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.plausible import warn
from edgealloc.errors import EdgeallocError, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import choose
from edgealloc.rounds.plan import Plan, plan_of
from edgealloc.rounds.ranges import id_text, kind_faults, state_faults, system_faults
from edgealloc.rounds.system import DeviceState, System
from edgealloc.solvers.base import Options
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["TIME_LIMIT_S", "Planner", "plan_round", "plan_valid", "round_instance", "settle", "who_to_drop"]

TIME_LIMIT_S = 30.0  # of a round for which nobody states a limit, so that no state of a device holds it up
_ADVICE_S = 10.0  # for the search for whom to drop, without a time budget
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
        Limits and infeasibility do not raise; then nobody is selected, and ``message`` says why. The round is
        planned without a device that no allocation can carry even alone: ``drop``, ``message`` and its ``reason``
        say so.

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
    warn(instance)  # of the round as it is, not of every part that is solved

    def solved(part: Instance) -> Result:
        left = None if time_limit_s is None else max(time_limit_s - clock.seconds, _LEAST_LIMIT_S)
        problem = Problem(part)
        return choose(method, problem).run(problem, Options(rel_gap, left, seed))

    settled = settle(instance, solved, time_limit_s, clock)
    return settled.plan(devices, system.latency_s, seed, round_number)


@dataclass(frozen=True, slots=True)
class Settled:
    """A round that is solved as far as it can be.

    Parameters
    ----------
    result
        For the devices that can be carried alone; if there are none, that of an infeasible round.
    without
        Those that are infeasible even alone, by name, each with the budget that it lacks.
    drop
        Where the others cannot all be carried: devices without which there is an allocation.
    message
        The result's, with the limit that cut it and with whom to drop.
    """

    result: Result
    without: Mapping[str, str]
    drop: tuple[str, ...]
    message: str

    def plan(self, devices: Iterable[str], deadline_s: float, seed: int, round_number: int) -> Plan:
        """The plan, for everybody who was asked.

        Parameters
        ----------
        devices
            Their ids.
        deadline_s
            The round's deadline in s.
        seed, round_number
            Make the masks' seeds.
        """
        plan = plan_of(
            self.result,
            devices,
            deadline_s,
            seed=seed,
            round_number=round_number,
            message=self.message,
            without=self.without,
        )
        return replace(plan, drop=plan.drop + self.drop)


def settle(
    instance: Instance,
    solved: Callable[[Instance], Result],
    limit_s: float | None,
    clock: Clock,
    least_s: float = _LEAST_LIMIT_S,
    advise: bool = True,
) -> Settled:
    """Solve a round without whom no allocation can carry, and say whom else to drop where that is not enough.

    Parameters
    ----------
    instance
        The round.
    solved
        Solves it or a part of it.
    limit_s, clock
        The time limit of the round in s, or None, and what has run since it began.
    least_s
        What the search for whom to drop gets in any case, in s.
    advise
        Whether to search for that.

    Returns
    -------
    Settled
        The result and whom it is without.
    """
    result, without = _solve_able(instance, solved)
    said, drop = result.message, tuple[str, ...]()
    unfinished = result.status in (Status.FEASIBLE, Status.LOCALLY_SOLVED, Status.NO_SOLUTION)
    if limit_s is not None and unfinished and ("time limit" in said or clock.seconds >= limit_s):
        said = f"{said}\nthe time limit of {limit_s:g} s cut the plan".strip()
    able = set(result.problem.instance.device_names) - set(without)
    if advise and able and not result.status.has_allocation and instance.exclusion_penalty is None:
        left = _ADVICE_S if limit_s is None else min(max(limit_s - clock.seconds, least_s), _ADVICE_S)
        drop = who_to_drop(result.problem.instance, left)
        if drop:
            said += f"\nnot everybody can be carried: drop {', '.join(drop)}, or state an exclusion_penalty"
        else:
            said += "\nno part of the devices was found that can be carried"
    return Settled(result, without, drop, said)


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


def _solve_able(instance: Instance, solved: Callable[[Instance], Result]) -> tuple[Result, dict[str, str]]:
    """Solve a round without the devices that are infeasible even alone; and these, each with the budget it lacks.

    With selection too, where the others would be planned for a sum that such a device's samples may dominate.
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


def who_to_drop(instance: Instance, time_limit_s: float | None = None) -> tuple[str, ...]:
    """Devices without which the others have an allocation.

    The instance is solved with selection, at a penalty that outweighs any keep rate: as few samples as possible
    are dropped.

    Parameters
    ----------
    instance
        A round that cannot carry everybody.
    time_limit_s
        Wall-clock limit of the search in s; None for 10 s.

    Returns
    -------
    tuple of str
        Names of the devices to drop; empty where no part of the devices was found that can be carried.
    """
    worst = float(np.max(Problem(instance).underfit.value(instance.keep_min)))
    selecting = Problem(instance.with_changes(exclusion_penalty=10.0 * (1.0 + worst)))
    options = Options(1e-3, _ADVICE_S if time_limit_s is None else time_limit_s)
    try:
        result = choose("auto", selecting).run(selecting, options)
    except EdgeallocError:  # no exact method takes it
        result = choose("psca", selecting).run(selecting, options)
    if result.allocation is None or not result.allocation.selected.any():
        return ()
    chosen = result.allocation.selected.tolist()
    return tuple(name for name, on in zip(instance.device_names, chosen, strict=True) if not on)


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
