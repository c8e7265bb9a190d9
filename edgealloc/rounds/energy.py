r"""Energy over a horizon of rounds: how much of its battery a device may spend in each.

A device has H_k joules for R rounds. Each round a *policy* names a cap per device; the round is then the usual
problem with ``energy_j`` at the cap, so no round spends more than its cap, and the ledger never grants more than
what is left: **no policy can exceed a horizon budget**, whatever it does.

Policies
--------
``EqualSplit``
    H/R in every round; what is not spent is lost. The per-round policy that the others are compared with.
``Rollover``
    What is left, shared equally among the rounds left.
``VirtualQueue``
    Drift-plus-penalty with an exponential queue price. Lagrangian duality says that the best caps over a horizon
    make a joule worth the same in every round. Each device carries a price per joule,

    .. math:: \lambda = \bar w e^{q}, \qquad q \leftarrow q + \eta (e_t / \bar e_t - 1), \qquad
              \eta = \min(1, 5/\sqrt R),

    the geometric mean of what a joule was worth at the fair share :math:`\bar e_t`, what is left over the rounds
    left, times the exponential of a virtual queue of the energy e spent beyond it. A round's caps are moved, by a
    few solves of the round, until a joule is worth its price: good channels get more, bad ones less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.rounds.policies import EnergyPolicy, EqualSplit, Rollover, RoundView, VirtualQueue
from edgealloc.runs.begun.ledger import EnergyLedger as EnergyLedger
from edgealloc.units import FloatArray

__all__ = ["EnergyHorizon"]

_FORGETFUL = (EqualSplit, Rollover)  # what they name follows from the round and the ledger


@dataclass(slots=True)
class EnergyHorizon:
    """Horizon budgets, a policy and the ledger, for an allocator that plans round after round.

    Parameters
    ----------
    budget_j
        Horizon budgets in J by device id; a device without one is limited by its state alone.
    rounds
        Rounds in the horizon, counted from round number 0.
    policy
        Names the caps.
    """

    budget_j: Mapping[str, float]
    rounds: int
    policy: EnergyPolicy = field(default_factory=VirtualQueue)
    ledger: EnergyLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = EnergyLedger(self.budget_j, self.rounds)

    def memory(self) -> dict[str, Any]:
        """What is left in J by device id, and what the policy remembers, for JSON.

        Raises
        ------
        InputError
            For a policy that has no ``memory`` to ask and no ``recall``.
        """
        if isinstance(self.policy, _FORGETFUL):
            return {"left_j": self.ledger.booked(), "policy": None}
        if not (hasattr(self.policy, "memory") and hasattr(self.policy, "recall")):
            allowed = "one with memory() and recall(what memory gave), which may be None"
            raise InputError("horizon", [Fault("horizon", "policy", f"<{type(self.policy).__name__}>", allowed)])
        return {"left_j": self.ledger.booked(), "policy": self.policy.memory()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Know what :meth:`memory` told.

        Parameters
        ----------
        memory
            What it gave, or its like from JSON.

        Raises
        ------
        InputError
            Where it speaks of other devices.
        """
        left = {name: float(joules) for name, joules in memory["left_j"].items()}
        if set(left) != set(self.budget_j):
            other = ", ".join(sorted(set(left) ^ set(self.budget_j)))
            raise InputError("memory", [Fault("memory", "left_j", other, "the devices of this horizon")])
        if not isinstance(self.policy, _FORGETFUL):
            self.policy.recall(memory["policy"])  # type: ignore[attr-defined]
        self.ledger.restore(left)

    def spent(self, names: Iterable[str]) -> frozenset[str]:
        """Who has nothing left.

        Parameters
        ----------
        names
            Devices to ask for.

        Returns
        -------
        frozenset of str
            Those of them whose horizon budget is used up; never one without a budget.
        """
        return frozenset(n for n in names if n in self.budget_j and self.ledger.left_j((n,))[0] <= 0.0)

    def capped(self, instance: Instance, number: int, solve: Callable[[Instance], Result]) -> Instance:
        """The round with this round's caps.

        Parameters
        ----------
        instance
            The round; its ``energy_j`` in J still limits each device.
        number
            Number of the round, from 0.
        solve
            Solves a round, for policies that try caps.

        Returns
        -------
        Instance
            With ``energy_j`` at the caps, never above what is left nor above the round's own.
        """
        limit = instance.energy_j
        left, budget = limit * max(self.rounds - number, 1), limit * self.rounds
        for k, name in enumerate(instance.device_names):
            if name in self.budget_j:
                left[k], budget[k] = self.ledger.left_j((name,))[0], self.budget_j[name]

        def cut(caps: FloatArray) -> Instance:
            return instance.with_changes(energy_j=np.minimum(np.minimum(caps, left), limit))

        view = RoundView(instance, left, budget, number, self.rounds, lambda caps: solve(cut(caps)))
        return cut(self.policy.caps_j(view))

    def capped_again(self, instance: Instance, number: int, standing: Instance) -> Instance:
        """A round that is planned once more, with the caps that it had: the policy is asked once a round.

        Parameters
        ----------
        instance
            The round.
        number
            Its number.
        standing
            The round as it was planned before, with its caps. Who is new gets an equal share of what is left.

        Returns
        -------
        Instance
            With ``energy_j`` at the caps, never above the round's own.
        """
        caps = dict(zip(standing.device_names, standing.energy_j.tolist(), strict=True))
        for name in set(instance.device_names) & set(self.budget_j) - set(caps):
            caps[name] = float(self.ledger.left_j((name,))[0]) / max(self.rounds - number, 1)
        limit = instance.energy_j
        own = [caps.get(name, joules) for name, joules in zip(instance.device_names, limit.tolist(), strict=True)]
        return instance.with_changes(energy_j=np.minimum(own, limit))

    def book(self, result: Result) -> None:
        """Book what the planned round takes.

        Parameters
        ----------
        result
            The planned round; without an allocation nothing is booked.
        """
        if result.allocation is None:
            return
        energy = result.problem.evaluate(result.allocation).energy_j
        names = result.problem.instance.device_names
        own = np.array([name in self.budget_j for name in names])
        self.ledger.spend(tuple(n for n, on in zip(names, own.tolist(), strict=True) if on), energy[own])
