"""How much of its energy a device may spend in a round: three policies and their protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.solution import finite_or_none
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.result import Result
from edgealloc.solvers.psca.rounds import energy_worth
from edgealloc.units import FloatArray

__all__ = ["POLICIES", "EnergyPolicy", "EqualSplit", "Rollover", "RoundView", "VirtualQueue", "make_policy"]


_DAMPING, _LONGEST = 0.5, 0.7  # of a step of log(cap) per difference in log(worth); its largest length


_MEMORY = 50  # rounds over which the worth of a joule is averaged


_CLOSE = 0.02  # steps of log(cap) below this end the search


@dataclass(frozen=True, slots=True)
class RoundView:
    """What a policy sees of a round.

    Parameters
    ----------
    instance
        The round, with its channel; its ``energy_j`` is not meant.
    left_j
        What each device has left, in J. Shape [K].
    budget_j
        Horizon budgets in J. Shape [K].
    number, rounds
        This round, from 0, and the rounds in the horizon.
    probe
        Solves the round with caps, shape [K] in J.
    """

    instance: Instance
    left_j: FloatArray
    budget_j: FloatArray
    number: int
    rounds: int
    probe: Callable[[FloatArray], Result]

    @property
    def rounds_left(self) -> int:
        """Rounds left, this one included; 1 beyond the horizon."""
        return max(self.rounds - self.number, 1)


class EnergyPolicy(Protocol):
    """Names the caps of a round. May keep state; a new horizon takes a new policy.

    One that is to survive a restart has ``memory()``, which gives JSON's types, and ``recall(memory)``.
    """

    def caps_j(self, view: RoundView) -> FloatArray:
        """Say how much the devices may spend in a round.

        Parameters
        ----------
        view
            What is known of the round.

        Returns
        -------
        numpy.ndarray
            Caps in J, shape [K]; the ledger cuts them to what is left.
        """
        ...


@dataclass(frozen=True, slots=True)
class EqualSplit:
    """H/R in every round."""

    def caps_j(self, view: RoundView) -> FloatArray:
        """See :class:`EnergyPolicy`.

        Parameters
        ----------
        view
            What is known of the round.

        Returns
        -------
        numpy.ndarray
            The budget over the rounds of the horizon, in J. Shape [K].
        """
        return view.budget_j / view.rounds


@dataclass(frozen=True, slots=True)
class Rollover:
    """What is left over the rounds left."""

    def caps_j(self, view: RoundView) -> FloatArray:
        """See :class:`EnergyPolicy`.

        Parameters
        ----------
        view
            What is known of the round.

        Returns
        -------
        numpy.ndarray
            What is left over the rounds left, in J. Shape [K].
        """
        return view.left_j / view.rounds_left


@dataclass(slots=True)
class VirtualQueue:
    """Caps at which a joule is worth its price; prices follow what was spent.

    Parameters
    ----------
    least, most
        Limits of a cap, in units of what ``Rollover`` would give. Later rounds are left ``least`` each, too.
    solves
        Solves of a round with trial caps, at most.
    trust_after
        Rounds after which caps may differ half as far, in logarithms, as ``least`` and ``most`` say: a price is
        learned first. Near the end of the horizon they come back to the fair share.
    """

    least: float = 0.3
    most: float = 4.0
    solves: int = 4
    trust_after: float = 5.0
    _seen: dict[str, _Seen] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        rules = (
            (0.0 < self.least <= 1.0, "least", "in (0, 1]"),
            (self.most >= 1.0, "most", ">= 1"),
            (self.solves >= 1, "solves", ">= 1"),
            (self.trust_after > 0.0, "trust_after", "> 0"),
        )
        faults = [
            Fault("horizon", name, repr(getattr(self, name)), allowed) for ok, name, allowed in rules if not ok
        ]
        if faults:
            raise InputError("horizon", faults)

    def caps_j(self, view: RoundView) -> FloatArray:
        """See :class:`EnergyPolicy`.

        Parameters
        ----------
        view
            What is known of the round.

        Returns
        -------
        numpy.ndarray
            Caps in J, within ``least`` and ``most``. Shape [K].
        """
        fair = view.left_j / view.rounds_left
        seen = [self._seen.setdefault(name, _Seen()) for name in view.instance.device_names]
        rate = min(1.0, 5.0 / math.sqrt(view.rounds))
        for own, left in zip(seen, view.left_j.tolist(), strict=True):
            if own.fair_j > 0.0:
                own.queue += rate * ((own.left_j - left) / own.fair_j - 1.0)
        trust = np.array([own.rounds / (own.rounds + self.trust_after) for own in seen])
        trust *= 1.0 - 1.0 / view.rounds_left  # what is saved in the last round is lost
        low = fair * self.least**trust
        high = np.maximum(np.minimum(fair * self.most**trust, view.left_j - low * (view.rounds_left - 1)), low)
        caps = fair.copy()
        for turn in range(self.solves):
            result = view.probe(caps)
            if result.allocation is None:
                caps = fair.copy()
                break
            worth = energy_worth(result.problem, result.allocation)
            if turn == 0:
                for own, value in zip(seen, worth.tolist(), strict=True):
                    own.learn(value)
            price = np.array([own.log_price for own in seen])
            with np.errstate(divide="ignore"):
                step = np.clip(_DAMPING * (np.log(worth) - price), -_LONGEST, _LONGEST)
            still = np.isnan(price) | ~result.allocation.selected  # never worth anything so far, or left out
            step = np.where(still, 0.0, step)
            caps = np.clip(caps * np.exp(step), low, high)
            if float(np.max(np.abs(step))) < _CLOSE:
                break
        for own, left, share in zip(seen, view.left_j.tolist(), fair.tolist(), strict=True):
            own.left_j, own.fair_j = left, share
        return caps

    def memory(self) -> dict[str, dict[str, Any]]:
        """What was learned of each device, for JSON."""
        return {name: asdict(own) | {"mean": finite_or_none(own.mean)} for name, own in self._seen.items()}

    def recall(self, memory: Mapping[str, Mapping[str, Any]]) -> None:
        """Know what :meth:`memory` told, and nothing else.

        Parameters
        ----------
        memory
            What it gave, or its like from JSON.
        """
        self._seen = {
            name: _Seen(**{**own, "mean": math.nan if own["mean"] is None else own["mean"]})
            for name, own in memory.items()
        }


@dataclass(slots=True)
class _Seen:
    """What is known of a device: mean log of the worth at the fair share, queue, where the last round began."""

    rounds: int = 0
    mean: float = math.nan
    queue: float = 0.0
    left_j: float = 0.0
    fair_j: float = 0.0

    @property
    def log_price(self) -> float:
        """Logarithm of the price of a joule; nan before one was worth anything."""
        return self.mean + self.queue

    def learn(self, worth: float) -> None:
        """Take in what a joule is worth at the fair share, over the last ``_MEMORY`` rounds or so."""
        if worth > 0.0:
            self.rounds += 1
            old = 0.0 if math.isnan(self.mean) else self.mean
            self.mean = old + (math.log(worth) - old) / min(self.rounds, _MEMORY)


POLICIES: dict[str, Callable[[], EnergyPolicy]] = {
    "equal-split": EqualSplit,
    "rollover": Rollover,
    "virtual-queue": VirtualQueue,
}


def make_policy(name: str) -> EnergyPolicy:
    """A fresh policy of a name in :data:`POLICIES`.

    Raises
    ------
    InputError
        For an unknown name; the known ones are in the message.
    """
    if name not in POLICIES:
        raise InputError("horizon", [Fault("horizon", "policy", repr(name), ", ".join(POLICIES))])
    return POLICIES[name]()
