"""The allocator inside a running system: ``OnlineAllocator(system, time_budget_s=0.1)``, one call per round.

allocator = OnlineAllocator(system, time_budget_s=0.1)   # compiles here, not in a round
while training:
    plan = allocator.plan(states)                        # states by device id; who is there may change
    ...
    allocator.report({"dev-00": 12.1, "dev-01": None})   # seconds, None: never answered
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import number_of
from edgealloc.errors import Fault, InputError, shown
from edgealloc.formulation.result import Result
from edgealloc.rounds.energy import EnergyHorizon
from edgealloc.rounds.ranges import RANGES, id_text, kind_faults
from edgealloc.rounds.round import TIME_LIMIT_S, round_instance, settle
from edgealloc.rounds.solver import RoundSolver
from edgealloc.rounds.stragglers import StragglerPolicy, Stragglers
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
            settled = settle(instance, solved, limit, clock, least)
            if self.energy is not None:
                self.energy.book(settled.result)
            plan = settled.plan(present, self.system.latency_s, self.seed, number)
        settings = dict(plan.devices)
        for reason, keys in (("resting", resting), ("horizon budget spent", spent)):
            settings |= {key: {**settings[key], "reason": reason} for key in keys if key in settings}
        plan = replace(plan, devices=settings, seconds=clock.seconds)
        self._planned, self._reported = plan, False
        return plan

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
        faults = _report_faults(latency_s, plan)
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


def _report_faults(latency_s: object, plan: Plan | None) -> list[Fault]:
    """What in a report is no latency, or of a device that the round does not know."""
    if not isinstance(latency_s, Mapping):
        return [Fault("report", "latency_s", f"<{type(latency_s).__name__}>", "seconds by device id")]
    faults = []
    for device, took in latency_s.items():
        if plan is not None and device not in plan.devices:
            faults.append(
                Fault(id_text(device), "id", shown(device), f"one that round {plan.round_number} was planned with")
            )
        if took is not None and not 0.0 <= number_of(took) < math.inf:
            allowed = "a finite number of seconds >= 0, or None for a device that never answered"
            faults.append(Fault(id_text(device), "latency_s", shown(took), allowed))
    return faults


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
