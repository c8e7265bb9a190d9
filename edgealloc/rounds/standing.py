"""The round that was planned last: what a late word on it needs, and a server that is started anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.rounds.energy import EnergyHorizon
from edgealloc.rounds.plan import Plan
from edgealloc.rounds.round import round_instance
from edgealloc.rounds.system import DeviceState, System
from edgealloc.runs.begun.budget import Account, RunBudget
from edgealloc.units import FloatArray

__all__ = ["Standing", "latencies"]


@dataclass(slots=True)
class Standing:
    """A round as it stands.

    Parameters
    ----------
    plan
        Its plan; None before the first.
    states
        Of all devices, with who rests marked as not available.
    instance
        The round that was solved, with its margins, caps and parts; None where nobody was there.
    deadline_s
        How long the round may last, in s.
    booked
        What was left of the energies of the horizon before it, in J by device.
    account
        What was left of the run before it; None without a run.
    reported
        Whether it has been spoken of.
    began
        When devices began that came late, in s after the round did; their latencies and deadlines count from then.
    """

    plan: Plan | None = None
    states: dict[str, DeviceState] = field(default_factory=dict)
    instance: Instance | None = None
    deadline_s: float = 0.0
    booked: dict[str, float] = field(default_factory=dict)
    account: Account | None = None
    reported: bool = False
    began: dict[str, float] = field(default_factory=dict)

    def starts(self, names: Iterable[str], begun: frozenset[str], elapsed_s: float) -> dict[str, float]:
        """When devices begin or began, in s after the round did.

        Parameters
        ----------
        names
            Devices.
        begun
            Those that have started.
        elapsed_s
            When the others do.
        """
        return {name: self.began.get(name, 0.0) if name in begun else elapsed_s for name in names}

    def shorter(self, began: Iterable[float]) -> FloatArray:
        """How many times as fast a device has to be that begins so many s after the round. Shape [K]."""
        return self.deadline_s / (self.deadline_s - np.array(list(began)))

    def in_own_time(self, plan: Plan, began: Mapping[str, float]) -> Plan:
        """A plan as if all had begun with the round, with latency and deadline of each from when it does.

        Parameters
        ----------
        plan
            In it who begins later is slower by :meth:`shorter`.
        began
            When devices begin, in s after the round did; kept for those that take part.
        """
        self.began = {name: began[name] for name in plan.selected if began[name] > 0.0}
        settings = dict(plan.devices)
        for name, factor in zip(self.began, self.shorter(self.began.values()).tolist(), strict=True):
            own = settings[name]
            latency_s, deadline_s = own["latency_s"] / factor, own["deadline_s"] / factor
            settings[name] = {**own, "latency_s": latency_s, "deadline_s": deadline_s}
        return replace(plan, devices=settings)

    def without(self, devices: Mapping[str, DeviceState]) -> dict[str, Mapping[str, Any]]:
        """Settings by device as they are, but for some that come too late or have gone.

        Parameters
        ----------
        devices
            Their states. Who takes part and is available goes on.
        """
        assert self.plan is not None
        reasons = {False: "not available", True: "late: those who have started leave no room"}
        out = [key for key, state in devices.items() if not state.available or key not in self.plan.selected]
        left = {key: {"selected": False, "reason": reasons[devices[key].available]} for key in out}
        return {**self.plan.devices, **left}

    def lasted(self, planned: Mapping[str, float], took: Mapping[str, float | None]) -> float:
        """How long the round lasted, in s: to its deadline where somebody never answered.

        Parameters
        ----------
        planned
            Latencies in s of the devices that took part; they count for who is not spoken of.
        took
            Latencies in s that were reported, None for one that never answered.
        """
        ends = {key: took.get(key, seconds) for key, seconds in planned.items()}
        return max(self.deadline_s if end is None else self.began.get(key, 0.0) + end for key, end in ends.items())

    def memory(self, energy: EnergyHorizon | None, run: RunBudget | None) -> dict[str, Any]:
        """The round with the budgets that it is part of, in JSON's own types.

        Parameters
        ----------
        energy, run
            The allocator's.

        Raises
        ------
        InputError
            For an energy policy of somebody else's that cannot say what it remembers.
        """
        last, horizon, whole = self.instance, None, None
        if energy is not None:
            caps = {} if last is None else dict(zip(last.device_names, last.energy_j.tolist(), strict=True))
            horizon = {**energy.memory(), "booked": self.booked, "caps_j": caps}
        if run is not None:
            before = None if self.account is None else self.account.to_dict()
            whole = {**run.memory(), "before": before, "deadline_s": self.deadline_s}
        return {
            "reported": self.reported,
            "began": dict(self.began),
            "plan": None if self.plan is None else json.loads(self.plan.to_json()),
            "states": {key: state.to_dict() for key, state in self.states.items()},
            "energy": horizon,
            "run": whole,
        }

    @classmethod
    def recalled(
        cls, memory: Mapping[str, Any], system: System, energy: EnergyHorizon | None, run: RunBudget | None
    ) -> Standing:
        """The round that :meth:`memory` told of; horizon and run are as they were.

        Parameters
        ----------
        memory
            What it gave, or its like from JSON.
        system, energy, run
            The allocator's.

        Raises
        ------
        InputError
            For budgets of other devices, and a plan or states that are none.
        """
        found = cls(reported=bool(memory["reported"]), deadline_s=system.latency_s, began=dict(memory["began"]))
        found.plan = None if memory["plan"] is None else Plan.from_json(json.dumps(memory["plan"]))
        found.states = {key: DeviceState.from_dict(state, key) for key, state in memory["states"].items()}
        found.instance = round_instance(system, found.states) if found.states else None
        if run is not None:
            told = memory["run"]
            before = None if told["before"] is None else Account.from_dict(told["before"])
            found.account, found.deadline_s = before, float(told["deadline_s"])
            run.recall(told)
        if energy is not None:
            told = memory["energy"]
            found.booked = dict(told["booked"])
            if found.instance is not None:
                limits = np.array([float(told["caps_j"][name]) for name in found.instance.device_names])
                found.instance = found.instance.with_changes(energy_j=limits)
            energy.recall(told)
        return found


def latencies(plan: Plan) -> dict[str, float]:
    """How long the devices that take part are planned to take, in s."""
    return {key: float(own["latency_s"]) for key, own in plan.devices.items() if own["selected"]}
