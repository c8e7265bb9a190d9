"""The allocator inside a running system: ``OnlineAllocator(system, time_budget_s=0.1)``, one call per round.

allocator = OnlineAllocator(system, time_budget_s=0.1)   # compiles here, not in a round
while training:
    plan = allocator.plan(states)                        # states by device id; who is there may change
    ...
    plan = allocator.replan({"dev-07": state}, elapsed_s=2.0)   # late: the same round, nobody's masks move
    allocator.report({"dev-00": 12.1, "dev-01": None})   # seconds, None: never answered
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import number_of
from edgealloc.errors import Fault, InputError, shown
from edgealloc.formulation.result import Result
from edgealloc.rounds.carried import held
from edgealloc.rounds.energy import EnergyHorizon
from edgealloc.rounds.ranges import RANGES, id_text, kind_faults, report_faults
from edgealloc.rounds.round import TIME_LIMIT_S, round_instance, settle
from edgealloc.rounds.solver import RoundSolver
from edgealloc.rounds.stragglers import StragglerPolicy, Stragglers, slowed
from edgealloc.rounds.system import DeviceState, Plan, System, plan_of
from edgealloc.solvers.compiling.clock import Clock
from edgealloc.units import LN2, dbm_to_w

__all__ = ["OnlineAllocator"]

_TIGHT = 1e-7  # gap that the made-up cell is solved to, so that every part of a method is used
_CELLS = 6  # made-up cells, from weak to strong channels: which parts of a method are used depends on that
_WARM_UP_S = 60.0  # time limit of a solve of it
_LEAST_SHARE = 0.2  # of the time budget, for the search for whom to drop


class OnlineAllocator:
    """Plans round after round, each from where the last one ended.

    Parameters
    ----------
    system
        What does not change from round to round.
    method
        ``auto`` or a name from :data:`edgealloc.METHODS`; see :class:`~edgealloc.rounds.solver.RoundSolver`.
    time_budget_s
        Wall-clock time of :meth:`plan` in s; None for no budget: a round then stops after 30 s. With a budget the
        kernels are compiled when the allocator is made, so that the budget holds in the first round too.
    rel_gap
        Stop a round at this proven gap.
    seed
        Masks follow from this, the round and the device's id.
    stragglers
        What to do about devices that :meth:`report` says were late; None: nothing.
    energy
        What devices may spend over a horizon of rounds; ``energy_j`` of their states still limits each round.

    Raises
    ------
    InputError
        For a bad option.
    """

    def __init__(
        self,
        system: System,
        *,
        method: str = "auto",
        time_budget_s: float | None = None,
        rel_gap: float = 1e-4,
        seed: int = 0,
        stragglers: StragglerPolicy | None = StragglerPolicy(),  # noqa: B008  (immutable)
        energy: EnergyHorizon | None = None,
    ) -> None:
        self.system, self.seed, self.energy = system, seed, energy
        if time_budget_s is not None and energy is not None:  # a policy solves a round several times
            time_budget_s = time_budget_s / (1 + getattr(energy.policy, "solves", 0))
        self.rounds = RoundSolver(method, time_budget_s=time_budget_s, rel_gap=rel_gap, seed=seed)
        self.stragglers = None if stragglers is None else Stragglers(stragglers)
        self.round_number = 0
        self._planned: Plan | None = None
        self._states: dict[str, DeviceState] = {}  # of the last round, with who rests marked as not available
        self._instance: Instance | None = None  # of the last round, with its margins and caps
        self._booked: dict[str, float] = {}  # the ledger before the last round
        self._reported = False  # whether the last round has been spoken of
        if time_budget_s is not None:
            self.warm_up()

    def plan(self, devices: Mapping[str, DeviceState], *, round_number: int | None = None) -> Plan:
        """Plan the next round.

        Parameters
        ----------
        devices
            State of every device that there is now, by id.
        round_number
            Number of the round; one more than that of the last when not given.

        Returns
        -------
        Plan
            As of :func:`~edgealloc.rounds.round.plan_round`: without whom nothing can carry, and where the others
            cannot all be carried and the system has no exclusion penalty, with nobody selected and ``plan.drop``
            naming devices without which there is an allocation.

        Raises
        ------
        InputError
            Lists every fault of the states.
        """
        clock = Clock()
        if faults := kind_faults(devices, DeviceState):
            raise InputError(f"round {self.system.name!r}", faults)
        number = self.round_number if round_number is None else round_number
        resting: frozenset[str] = frozenset()
        if self.stragglers is not None:
            resting = self.stragglers.resting(number, devices)
        spent = frozenset() if self.energy is None else self.energy.spent(devices)
        present = {
            key: replace(s, available=False) if key in resting or key in spent else s for key, s in devices.items()
        }
        instance = round_instance(self.system, present)
        self.round_number = number + 1
        self._states = present
        if self.energy is not None:
            self._booked = self.energy.ledger.booked()
        limit = TIME_LIMIT_S if self.rounds.time_budget_s is None else self.rounds.time_budget_s
        least = _LEAST_SHARE * limit

        def solved(part: Instance) -> Result:
            return self.rounds.solve(part, max(limit - clock.seconds, least))

        if instance is None:
            plan = plan_of(None, present, self.system.latency_s, seed=self.seed, round_number=number)
        else:
            if self.stragglers is not None:
                instance = self.stragglers.padded(instance)
            if self.energy is not None:
                instance = self.energy.capped(instance, number, self.rounds.solve)
            self._instance = instance
            settled = settle(instance, solved, limit, clock, least)
            if self.energy is not None:
                self.energy.book(settled.result)
            plan = settled.plan(present, self.system.latency_s, self.seed, number)
        settings = dict(plan.devices)
        for reason, keys in (("resting", resting), ("horizon budget spent", spent)):
            settings |= {key: {**settings[key], "reason": reason} for key in keys if key in settings}
        plan = replace(plan, devices=settings, seconds=clock.seconds)
        self._planned, self._reported = plan, False
        if instance is None:
            self._instance = None
        return plan

    def replan(
        self,
        devices: Mapping[str, DeviceState],
        *,
        elapsed_s: float = 0.0,
        started: Iterable[str] | None = None,
    ) -> Plan:
        """Plan the present round once more, for a device that reports late or one that has gone.

        The round keeps its number. Who has started keeps its masks (keep rate, seed, row of the menu) and its
        clock; spectrum and power, which only the upload needs, are dealt anew among all. The others have what is
        left of the deadline. Where that cannot be, the standing plan stays, and whoever is late is left out.

        Parameters
        ----------
        devices
            States of those that are new or have changed, by id; ``available=False`` for one that has gone.
        elapsed_s
            Time in s since the round began.
        started
            Who has begun to train; everybody who takes part in the standing plan when not given. What it names
            fewer, more can give way to a late device.

        Returns
        -------
        Plan
            Of the same round. :meth:`report` speaks of this one.

        Raises
        ------
        InputError
            Without a round that was planned and not reported yet; for devices that have started and are stated
            anew, ids in ``started`` that do not take part, a time outside the round, every fault of the states.
        """
        clock, standing = Clock(), self._planned
        limit_s = self.system.latency_s
        if standing is None or self._reported:
            raise InputError("round", [Fault("round", "replan", "called", "between plan and report of a round")])
        begun = frozenset(standing.selected if started is None else started)
        faults = kind_faults(devices, DeviceState)
        if not 0.0 <= number_of(elapsed_s) < limit_s:
            faults.append(Fault("round", "elapsed_s", shown(elapsed_s), f"seconds in [0, {limit_s:g})"))
        strange = begun - set(standing.selected)
        faults += [Fault(id_text(key), "started", shown(key), "one that takes part") for key in sorted(strange)]
        if not faults:
            again = sorted(begun & set(devices))
            faults += [Fault(id_text(key), "state", "given", "none: the device has started") for key in again]
        if faults:
            raise InputError(f"round {self.system.name!r}", faults)
        number, states = standing.round_number, {**self._states, **devices}
        instance = round_instance(self.system, states)
        booked = None if self.energy is None else self.energy.ledger.booked()
        found = None
        if instance is not None:
            if self.energy is not None:
                self.energy.ledger.restore(self._booked)
            shorter = limit_s / (limit_s - float(elapsed_s))
            found = self._again(instance, standing, begun, shorter, states, clock)
        if found is None:
            if self.energy is not None and booked is not None:
                self.energy.ledger.restore(booked)
            reasons = {False: "not available", True: "late: those who have started leave no room"}
            out = {
                key: state for key, state in devices.items() if not state.available or key not in standing.selected
            }
            left = {key: {"selected": False, "reason": reasons[state.available]} for key, state in out.items()}
            plan = replace(standing, devices={**standing.devices, **left}, seconds=clock.seconds)
        else:
            plan = replace(found, round_number=number, seconds=clock.seconds)
            self._states = states
        self._planned = plan
        return plan

    def _again(
        self,
        instance: Instance,
        standing: Plan,
        begun: frozenset[str],
        shorter: float,
        states: Mapping[str, DeviceState],
        clock: Clock,
    ) -> Plan | None:
        """The round planned anew around those who have started; None where they would not go on as they are."""
        names = instance.device_names
        margin = np.array([1.0 if self.stragglers is None else self.stragglers.slowdown(name) for name in names])
        instance = slowed(instance, margin * np.where([name in begun for name in names], 1.0, shorter))
        if self.energy is not None and self._instance is not None:
            instance = self.energy.capped_again(instance, standing.round_number, self._instance)
        fixed = held(instance, standing.devices, begun)
        if fixed is None:
            return None
        limit = TIME_LIMIT_S if self.rounds.time_budget_s is None else self.rounds.time_budget_s
        least = _LEAST_SHARE * limit

        def solved(part: Instance) -> Result:
            return self.rounds.solve(part, max(limit - clock.seconds, least))

        settled = settle(fixed, solved, limit, clock, advise=False)
        plan = settled.plan(states, self.system.latency_s, self.seed, standing.round_number)
        masks = ("keep", "mask_seed", "freq_hz", "adapter_option")
        for name in begun:
            own, before = plan.devices[name], standing.devices[name]
            if not own["selected"] or any(own.get(key) != before.get(key) for key in masks):
                return None
        if not plan.selected:
            return None
        if self.energy is not None:
            self.energy.book(settled.result)
        self._instance = fixed
        settings = dict(plan.devices)
        for name in set(plan.selected) - begun:  # in their own time, which began later
            own = settings[name]
            latency_s, deadline_s = own["latency_s"] / shorter, own["deadline_s"] / shorter
            settings[name] = {**own, "latency_s": latency_s, "deadline_s": deadline_s}
        return replace(plan, devices=settings)

    def resume(self, plan: Plan, devices: Mapping[str, DeviceState]) -> None:
        """Take a plan of another process as that of the last round, as if it had been made here.

        A server that is started anew resumes each plan that it kept, in order, with the reports between them; what
        was learned of late devices is then known again. Nothing is solved.

        Parameters
        ----------
        plan
            From :meth:`~edgealloc.rounds.plan.Plan.from_json`.
        devices
            The states that it was made of.

        Raises
        ------
        InputError
            With energy budgets over a horizon, whose policies remember more than plans tell.
        """
        if self.energy is not None:
            raise InputError("round", [Fault("round", "energy", "a horizon", "none, to resume plans")])
        self.round_number = plan.round_number + 1
        self._states, self._instance = dict(devices), None
        self._planned, self._reported = plan, False

    def report(self, latency_s: Mapping[str, float | None], *, round_number: int | None = None) -> None:
        """Say how long the devices of the last round took; once a round.

        Parameters
        ----------
        latency_s
            Latency in s by device id, None for one that never answered; who is missing counts as in time.
        round_number
            The round that is spoken of; the last planned one when not given. What comes late should name its
            round, for it is no word on another.

        Raises
        ------
        InputError
            Names every device with a latency that is none (nan, negative, text), every id that the round was not
            planned for, and every device spoken of in a report of another round, or in a second one. Then nothing
            is learned.
        """
        plan = self._planned
        faults = report_faults(latency_s, plan)
        spoken = plan.round_number if round_number is None and plan is not None else round_number
        if plan is None:
            faults += [
                Fault(id_text(device), "id", shown(device), "no round is planned yet") for device in latency_s
            ]
        elif spoken != plan.round_number or self._reported:
            said = f"round {shown(spoken)}" + " for the second time" * (spoken == plan.round_number)
            allowed = f"once of the last round, which is {plan.round_number}"
            faults += [Fault(id_text(device), "report", said, allowed) for device in latency_s]
        if faults:
            raise InputError("report", faults)
        if plan is None or spoken != plan.round_number or self._reported:
            return  # it says nothing, and of no round that counts
        self._reported = True
        if self.stragglers is None:
            return
        planned = {
            key: float(own["latency_s"]) / self.stragglers.slowdown(key)
            for key, own in plan.devices.items()
            if own["selected"]
        }
        took = {key: None if value is None else float(value) for key, value in latency_s.items()}
        self.stragglers.observe(plan.round_number, planned, took)

    def warm_up(self) -> float:
        """Compile and load everything a round needs, on a made-up cell.

        Returns
        -------
        float
            Wall-clock time in s that it took.
        """
        started = time.perf_counter()
        budget = self.rounds.time_budget_s
        for stage in (None, _WARM_UP_S):  # with a budget other methods run; without, the last goes to its end
            scout = OnlineAllocator(self.system, method=self.rounds.method, rel_gap=_TIGHT)
            scout.rounds.time_budget_s = stage if budget is not None else None
            for seed in range(_CELLS):  # warm starts take their own path
                states = _made_up(self.system, np.random.default_rng(seed), 4.0**seed)
                scout.plan(states)
            first = next(iter(states))
            far = replace(states[first], gain=1e-12 * np.asarray(states[first].gain))
            scout.plan(states | {first: far})  # and so does a round that cannot carry everybody
        return time.perf_counter() - started


def _made_up(
    system: System, rng: np.random.Generator, strength: float, devices: int = 5, subcarriers: int = 16
) -> dict[str, DeviceState]:
    """States that make the spectrum scarce at ``strength`` 1, the channels stronger with it."""
    cycles = system.cycles_fixed or 1e9
    power, band = 0.1, system.bandwidth_hz / devices
    noise = float(dbm_to_w(system.noise_psd_dbm_per_hz))
    low, high = 0.05, 1.0
    curve = system.bound.underfit_curve
    if curve is not None:
        low, high = max(low, float(curve.keep[0])), min(high, float(curve.keep[-1]))
    if system.keep_levels:
        low, high = min(low, *system.keep_levels), max(system.keep_levels)
    scarce = math.sqrt(low * max(low, min(high, 0.3)))  # keep rate that the channel is made to carry
    rate = (system.payload_fixed_bits + system.payload_lora_bits * scarce) / (0.5 * system.latency_s)
    gain = math.expm1(LN2 * min(rate / band, 15.0)) * noise * band / power * strength
    freq_hz = max(cycles, 1.0) / (0.5 * system.latency_s)
    energy_j = 1.7 * 1e-28 * freq_hz**2 * cycles + 0.5 * power * system.latency_s  # binds now and then
    spread = np.minimum(rng.exponential(gain, (devices, subcarriers)) + 0.1 * gain, RANGES["gain"].most)
    return {
        f"made-up-{k}": DeviceState(
            gain=spread[k] if system.access == "ofdma" else float(spread[k, 0]),
            samples=100.0 * (k + 1),
            energy_j=min(energy_j, RANGES["energy_j"].most),
            power_max_w=power,
            freq_min_hz=0.1 * freq_hz,
            freq_max_hz=min(max(2e9, 4.0 * freq_hz), RANGES["freq_max_hz"].most),
            capacitance=1e-28,
            cycles_fixed=cycles,
            cycles_lora=system.cycles_lora or 0.0,
            keep_min=low,
            keep_max=high,
        )
        for k in range(devices)
    }
