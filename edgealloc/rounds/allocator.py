"""The allocator inside a running system: ``OnlineAllocator(system, time_budget_s=0.1)``, one call per round.

allocator = OnlineAllocator(system, time_budget_s=0.1)   # compiles here, not in a round
while training:
    plan = allocator.plan(states)                        # states by device id; who is there may change
    ...
    plan = allocator.replan({"dev-07": state}, elapsed_s=2.0)   # late: the same round, nobody's masks move
    allocator.report({"dev-00": 12.1, "dev-01": None})   # seconds, None: never answered
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import number_of
from edgealloc.errors import Fault, InputError, shown
from edgealloc.formulation.result import Result
from edgealloc.rounds.carried import held
from edgealloc.rounds.energy import EnergyHorizon
from edgealloc.rounds.ranges import id_text, kind_faults, report_faults
from edgealloc.rounds.round import TIME_LIMIT_S, round_instance, settle
from edgealloc.rounds.solver import RoundSolver, made_up_states
from edgealloc.rounds.standing import Standing, latencies
from edgealloc.rounds.stragglers import StragglerPolicy, Stragglers, slowed
from edgealloc.rounds.system import DeviceState, Plan, System, plan_of
from edgealloc.runs.begun.budget import Account, RunBudget
from edgealloc.solvers.compiling.clock import Clock
from edgealloc.solvers.compiling.warmup import load

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
    run
        The whole run that the rounds are of: each gets its part of what is left of time and energy, and is planned
        for the loss after the last one. When it is over, nobody is selected, and ``message`` says why.

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
        run: RunBudget | None = None,
    ) -> None:
        self.system, self.seed, self.energy, self.run = system, seed, energy, run
        if time_budget_s is not None and energy is not None:  # a policy solves a round several times
            time_budget_s = time_budget_s / (1 + getattr(energy.policy, "solves", 0))
        self.rounds = RoundSolver(method, time_budget_s=time_budget_s, rel_gap=rel_gap, seed=seed)
        self.stragglers = None if stragglers is None else Stragglers(stragglers)
        self.round_number = 0
        self._standing = Standing()
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
        why_not: dict[str, frozenset[str]] = {}
        if self.stragglers is not None:
            why_not["resting"] = self.stragglers.resting(number, devices)
        if self.energy is not None:
            why_not["horizon budget spent"] = self.energy.spent(devices)
        if self.run is not None:
            why_not["energy of the run spent"] = self.run.spent(devices)
        away = frozenset[str]().union(*why_not.values())
        present = {key: replace(s, available=False) if key in away else s for key, s in devices.items()}
        instance = round_instance(self.system, present)
        self.round_number = number + 1
        standing = self._standing = Standing(states=present, deadline_s=self.system.latency_s)
        if self.energy is not None:
            standing.booked = self.energy.ledger.booked()
        over = ""
        if self.run is not None:
            standing.account, over = self.run.account, self.run.over
        limit, least, solved = self._within(clock)
        if instance is None or over:
            said = f"stop: {over}" if over else None
            plan = plan_of(None, present, standing.deadline_s, seed=self.seed, round_number=number, message=said)
            if over:
                why_not = {over: frozenset(devices)}
        else:
            instance = self._parted(instance)
            standing.deadline_s = instance.latency_s
            if self.stragglers is not None:
                instance = self.stragglers.padded(instance)
            if self.energy is not None:
                instance = self.energy.capped(instance, number, self.rounds.solve)
            standing.instance = instance
            settled = settle(instance, solved, limit, clock, least)
            self._book(settled.result)
            plan = settled.plan(present, standing.deadline_s, self.seed, number)
        settings = dict(plan.devices)
        for reason, keys in why_not.items():
            settings |= {key: {**settings[key], "reason": reason} for key in keys if key in settings}
        standing.plan = replace(plan, devices=settings, seconds=clock.seconds)
        return standing.plan

    def _parted(self, instance: Instance) -> Instance:
        """The round with its part of the run."""
        return instance if self.run is None else self.run.part(instance)

    def _book(self, result: Result) -> None:
        """Book a planned round wherever there is a book."""
        for books in (self.energy, self.run):
            if books is not None:
                books.book(result)

    def _within(self, clock: Clock) -> tuple[float, float, Callable[[Instance], Result]]:
        """The round's limit in s, the least that any part gets, and what solves a part in what is left."""
        limit = TIME_LIMIT_S if self.rounds.time_budget_s is None else self.rounds.time_budget_s
        least = _LEAST_SHARE * limit
        return limit, least, lambda part: self.rounds.solve(part, max(limit - clock.seconds, least))

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
        clock, standing, limit_s = Clock(), self._standing.plan, self._standing.deadline_s
        if standing is None or self._standing.reported:
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
        number, states = standing.round_number, {**self._standing.states, **devices}
        instance = round_instance(self.system, states)
        booked = None if self.energy is None else self.energy.ledger.booked()
        account = None if self.run is None else self.run.account
        found = None
        if instance is not None:
            self._restore(self._standing.booked, self._standing.account)
            found = self._again(self._parted(instance), standing, begun, float(elapsed_s), states, clock)
        if found is None:
            self._restore(booked, account)
            plan = replace(standing, devices=self._standing.without(devices), seconds=clock.seconds)
        else:
            plan = replace(found, round_number=number, seconds=clock.seconds)
            self._standing.states = states
        self._standing.plan = plan
        return plan

    def _restore(self, booked: Mapping[str, float] | None, account: Account | None) -> None:
        """Horizon and run as they were."""
        if self.energy is not None and booked is not None:
            self.energy.ledger.restore(booked)
        if self.run is not None and account is not None:
            self.run.account = account

    def _again(
        self,
        instance: Instance,
        standing: Plan,
        begun: frozenset[str],
        elapsed_s: float,
        states: Mapping[str, DeviceState],
        clock: Clock,
    ) -> Plan | None:
        """The round planned anew around those who have started; None where they would not go on as they are."""
        names = instance.device_names
        margin = np.array([1.0 if self.stragglers is None else self.stragglers.slowdown(name) for name in names])
        began = self._standing.starts(names, begun, elapsed_s)
        instance = slowed(instance, margin * self._standing.shorter(began.values()))
        if self.energy is not None and self._standing.instance is not None:
            instance = self.energy.capped_again(instance, standing.round_number, self._standing.instance)
        fixed = held(instance, standing.devices, begun)
        if fixed is None:
            return None
        limit, _, solved = self._within(clock)
        settled = settle(fixed, solved, limit, clock, advise=False)
        plan = settled.plan(states, self._standing.deadline_s, self.seed, standing.round_number)
        masks = ("keep", "mask_seed", "freq_hz", "adapter_option")
        for name in begun:
            own, before = plan.devices[name], standing.devices[name]
            if not own["selected"] or any(own.get(key) != before.get(key) for key in masks):
                return None
        if not plan.selected:
            return None
        self._book(settled.result)
        self._standing.instance = fixed
        end, again = max(latencies(plan).values()), self._standing.in_own_time(plan, began)
        if self.run is not None:
            self.run.lasted(end, self._standing.lasted(latencies(again), {}))
        return again

    def memory(self) -> dict[str, Any]:
        """All that later rounds depend on, in JSON's own types and exact: the round, what was learned, the ledger.

        Returns
        -------
        dict
            For :meth:`resume`, when a server is started anew. As long as a plan and the states it was made of.

        Raises
        ------
        InputError
            For an energy policy of somebody else's that cannot say what it remembers.
        """
        return {
            "seed": self.seed,
            "round_number": self.round_number,
            "stragglers": None if self.stragglers is None else self.stragglers.memory(),
            **self._standing.memory(self.energy, self.run),
        }

    def resume(self, memory: Mapping[str, Any]) -> None:
        """Go on where another allocator of the same system and options was. Nothing is solved.

        Parameters
        ----------
        memory
            What its :meth:`memory` gave, or its like from JSON.

        Raises
        ------
        InputError
            For the memory of an allocator with another seed, with or without stragglers, a horizon or a run where
            this one is not, or with another horizon or run; and for what is no memory.
        """
        try:
            parts = {"stragglers": self.stragglers, "energy": self.energy, "run": self.run}
            own = {"seed": self.seed} | {key: part is None for key, part in parts.items()}
            told = {"seed": memory["seed"]} | {key: memory.get(key) is None for key in parts}
            allowed = "that of an allocator with the same options"
            if faults := [Fault("memory", k, shown(memory.get(k)), allowed) for k in own if own[k] != told[k]]:
                raise InputError("memory", faults)
            number = int(memory["round_number"])
            standing = Standing.recalled(memory, self.system, self.energy, self.run)
            if self.stragglers is not None:
                self.stragglers.recall(memory["stragglers"])
        except (KeyError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise InputError("memory", [Fault("memory", "content", said, "what memory() gave")]) from None
        self.round_number, self._standing = number, standing

    def report(self, latency_s: Mapping[str, float | None], *, round_number: int | None = None) -> None:
        """Say how long the devices of the last round took; once a round.

        Parameters
        ----------
        latency_s
            Latency in s by device id, from when it began; None for one that never answered; who is missing counts
            as in time.
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
        plan = self._standing.plan
        faults = report_faults(latency_s, plan)
        spoken = plan.round_number if round_number is None and plan is not None else round_number
        if plan is None:
            faults += [
                Fault(id_text(device), "id", shown(device), "no round is planned yet") for device in latency_s
            ]
        elif spoken != plan.round_number or self._standing.reported:
            said = f"round {shown(spoken)}" + " for the second time" * (spoken == plan.round_number)
            allowed = f"once of the last round, which is {plan.round_number}"
            faults += [Fault(id_text(device), "report", said, allowed) for device in latency_s]
        if faults:
            raise InputError("report", faults)
        if plan is None or spoken != plan.round_number or self._standing.reported:
            return  # it says nothing, and of no round that counts
        self._standing.reported = True
        took = {key: None if value is None else float(value) for key, value in latency_s.items()}
        planned = latencies(plan)
        if self.run is not None and planned:
            self.run.lasted(self._standing.lasted(planned, {}), self._standing.lasted(planned, took))
        if self.stragglers is not None:
            planned = {key: seconds / self.stragglers.slowdown(key) for key, seconds in planned.items()}
            self.stragglers.observe(plan.round_number, planned, took)

    def warm_up(self) -> float:
        """Compile and load everything a round needs, on a made-up cell.

        Returns
        -------
        float
            Wall-clock time in s that it took.
        """
        started, budget = time.perf_counter(), self.rounds.time_budget_s
        if self.system.access == "ofdma":
            load("ofdma")  # its kernels are many, and no few cells take every path
        for stage in (None, _WARM_UP_S):  # with a budget other methods run; without, the last goes to its end
            run = None if self.run is None else self.run.untold()
            scout = OnlineAllocator(self.system, method=self.rounds.method, rel_gap=_TIGHT, run=run)
            scout.rounds.time_budget_s = stage if budget is not None else None
            for seed in range(_CELLS):  # warm starts take their own path
                scout.plan(states := made_up_states(self.system, np.random.default_rng(seed), 4.0**seed))
            first = next(iter(states))
            far = replace(states[first], gain=1e-12 * np.asarray(states[first].gain))
            scout.plan(states | {first: far})  # and so does a round that cannot carry everybody
        return time.perf_counter() - started
