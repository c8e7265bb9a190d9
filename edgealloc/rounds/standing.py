"""The round that was planned last: what a late word on it needs, and a server that is started anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.rounds.energy import EnergyHorizon
from edgealloc.rounds.plan import Plan
from edgealloc.rounds.round import round_instance
from edgealloc.rounds.system import DeviceState, System
from edgealloc.runs.begun.budget import Account, RunBudget

__all__ = ["Standing"]


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
    """

    plan: Plan | None = None
    states: dict[str, DeviceState] = field(default_factory=dict)
    instance: Instance | None = None
    deadline_s: float = 0.0
    booked: dict[str, float] = field(default_factory=dict)
    account: Account | None = None
    reported: bool = False

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
        ends = [took.get(key, seconds) for key, seconds in planned.items()]
        return max(self.deadline_s if end is None else end for end in ends)

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
        found = cls(reported=bool(memory["reported"]), deadline_s=system.latency_s)
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
