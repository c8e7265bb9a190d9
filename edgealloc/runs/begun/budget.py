"""What a run may take in all while its rounds are planned one by one, each with an equal part of what is left."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.forms import number
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, learning_faults
from edgealloc.errors import Fault, InputError, shown
from edgealloc.formulation.result import Result
from edgealloc.runs.asked import LOSS, MOST_ROUNDS, TOTAL, is_loss, is_total
from edgealloc.runs.begun.continued import ContinuedRun
from edgealloc.runs.begun.ledger import EnergyLedger
from edgealloc.runs.begun.past import Past, corrected
from edgealloc.runs.needed import NeededRun
from edgealloc.runs.training import TrainingRun, share_of

__all__ = ["Account", "RunBudget"]


@dataclass(frozen=True, slots=True)
class Account:
    """What is left of a run's budgets, and what is trained.

    Parameters
    ----------
    left_s
        Time in s for the rounds to come; None without such a budget.
    left_j
        Energy in J by device.
    past
        Rounds that were planned so far, as they count for the others.
    """

    left_s: float | None
    left_j: Mapping[str, float]
    past: Past

    def to_dict(self) -> dict[str, Any]:
        """The account in JSON's own types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Account:
        """Read what :meth:`to_dict` gave, or its like from JSON.

        Raises
        ------
        InputError
            For anything else.
        """
        try:
            past = data["past"]
            progress = {str(name): float(value) for name, value in past["progress"].items()}
            left_s = None if data["left_s"] is None else float(data["left_s"])
            left_j = {str(name): float(value) for name, value in data["left_j"].items()}
            found = cls(left_s, left_j, Past(int(past["rounds"]), progress, float(past["kept"])))
        except (AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
            raise InputError("memory", [Fault("memory", "run", said, "what memory() gave")]) from None
        trained = (found.past.rounds, found.past.kept, *progress.values())
        left = (0.0 if left_s is None else left_s, *left_j.values())
        if not all(0.0 <= value < math.inf for value in trained) or not all(map(math.isfinite, left)):
            allowed = "what memory() gave: finite numbers, and none below 0 of what is trained"
            raise InputError("memory", [Fault("memory", "run", shown(data), allowed)])
        return found


@dataclass(slots=True, eq=False)
class RunBudget:
    """Time, energy and rounds of a whole run, for an allocator that plans round after round.

    Every round gets an equal part of what is left: at most ``left / rounds left`` of time and of each device's
    energy, so what a short round leaves goes to the others, and no total is ever overspent. With a learning curve
    a round is planned for the loss after all rounds left, if they were like it, given what is trained.

    Parameters
    ----------
    rounds
        How many rounds there are. A round in which nobody can be planned takes nothing and does not count.
    time_s
        Time in s for all rounds together; None without such a budget.
    energy_j
        Energy in J for all rounds together, by device; a device without one is limited by its state alone.
    curve
        The learning curve; None: rounds are planned by the system's bound.

    Attributes
    ----------
    account
        What is left, as it is booked: what rounds were planned to take, margins for stragglers included, until
        :meth:`lasted` says how long one was.

    Raises
    ------
    InputError
        Names every budget that is none.
    """

    rounds: int
    time_s: float | None = None
    energy_j: Mapping[str, float] = field(default_factory=dict)
    curve: LearningSpec | None = None
    account: Account = field(init=False)
    _ledger: EnergyLedger = field(init=False, repr=False)
    _pilots: LearningSpec | None = field(init=False, repr=False)
    _last: tuple[Instance, Allocation] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        faults = list[Fault]()
        energy: Any = self.energy_j
        rounds = number(self.rounds)
        if rounds is None or not (1.0 <= rounds <= MOST_ROUNDS and rounds.is_integer()):
            faults.append(Fault("run", "rounds", shown(self.rounds), f"a whole number from 1 to {MOST_ROUNDS}"))
        if not isinstance(energy, Mapping):
            faults.append(Fault("run", "energy_j", shown(energy), "joules by the name of a device"))
            energy = {}
        if self.time_s is not None and not is_total(self.time_s):
            faults.append(Fault("run", "time_s", shown(self.time_s), f"{TOTAL}, or None for no such budget"))
        for name, value in energy.items():
            if not isinstance(name, str):  # it would be nobody's budget
                faults.append(Fault("run", "energy_j", shown(name), "the name of a device, as text"))
            elif not is_total(value):
                faults.append(Fault(name, "energy_j", shown(value), TOTAL))
        if self.curve is not None:
            faults += [replace(fault, where="curve") for fault in learning_faults(self.curve)]
        if faults:
            raise InputError("run", faults)
        self.rounds = int(self.rounds)
        self.time_s = None if self.time_s is None else float(self.time_s)
        self.energy_j = {name: float(value) for name, value in energy.items()}
        self._ledger = EnergyLedger(dict(self.energy_j), self.rounds)
        self._pilots = self.curve
        self.account = Account(self.time_s, dict(self.energy_j), Past())

    @classmethod
    def of(cls, rounds: int, run: TrainingRun) -> RunBudget:
        """The budget of so many rounds of a plan: ``RunBudget.of(plan.rounds, plan.run)``.

        Parameters
        ----------
        rounds
            How many.
        run
            What was planned; of the rest of a run, what is trained counts.

        Raises
        ------
        InputError
            For anything else, also for a run of needed rounds, which has no learning curve.
        """
        if not isinstance(run, TrainingRun) or isinstance(run, NeededRun):
            allowed = "the run of a plan with a learning curve, plan.run"
            raise InputError("run", [Fault("run", "run", type(run).__name__, allowed)])
        energy = {}
        if run.energy_j is not None:
            energy = dict(zip(run.instance.device_names, run.energy_j.tolist(), strict=True))
        found = cls(rounds, run.time_s, energy, run.learning)
        if isinstance(run, ContinuedRun):
            found._pilots = run.pilots or run.learning
            found.rounds += run.past.rounds
            found.account = replace(found.account, past=run.past)
        return found

    def untold(self) -> RunBudget:
        """As many rounds with the same curve, at least three, without totals, before the first: for trials."""
        return RunBudget(max(self.rounds, 3), curve=self.curve)

    @property
    def over(self) -> str:
        """Why no round more may be planned; empty while one may."""
        if self.account.past.rounds >= self.rounds:
            return f"all {self.rounds} rounds of the run are planned"
        if self.account.left_s is not None and self.account.left_s <= 0.0:
            return "the time of the run is spent"
        return ""

    def spent(self, names: Iterable[str]) -> frozenset[str]:
        """Who has no energy left.

        Parameters
        ----------
        names
            Devices to ask for.

        Returns
        -------
        frozenset of str
            Those of them whose budget is used up; never one without a budget.
        """
        return frozenset(name for name in names if self.account.left_j.get(name, 1.0) <= 0.0)

    def part(self, instance: Instance) -> Instance:
        """The round with its part of what is left.

        Parameters
        ----------
        instance
            The round; its own deadline and ``energy_j`` hold too. Nobody in it has spent all energy.

        Returns
        -------
        Instance
            With the deadline in s, the energies in J and, with a curve, the bound of the run.
        """
        left = self.rounds - self.account.past.rounds
        latency, joules = instance.latency_s, instance.energy_j.tolist()
        if self.account.left_s is not None:
            latency = min(latency, share_of(self.account.left_s, left, up=False))
        for k, name in enumerate(instance.device_names):
            if name in self.account.left_j:
                joules[k] = min(joules[k], share_of(self.account.left_j[name], left, up=False))
        changes = {} if self.curve is None else self._begun(instance, self.curve).terms(left, left, up=False)
        return instance.with_changes(latency_s=latency, energy_j=np.array(joules), **changes)

    def book(self, result: Result) -> None:
        """Book what the planned round takes.

        Parameters
        ----------
        result
            The planned round; without an allocation nothing is booked, and it does not count.
        """
        if result.allocation is None:
            return
        instance, account = result.problem.instance, self.account
        use = result.problem.evaluate(result.allocation)
        self._ledger.restore(account.left_j)
        mine = [k for k, name in enumerate(instance.device_names) if name in account.left_j]
        self._ledger.spend(tuple(instance.device_names[k] for k in mine), use.energy_j[mine])
        exponent = 1.0 if self._pilots is None else self._pilots.exponent
        past = account.past.after(instance, result.allocation, exponent)
        self.account = replace(account, left_j=self._ledger.booked(), past=past)
        self._take(float(use.latency_s.max(initial=0.0, where=result.allocation.selected)))
        self._last = instance, result.allocation

    def lasted(self, planned_s: float, seconds: float) -> None:
        """Correct what was booked of the last round's time.

        Parameters
        ----------
        planned_s
            How long it was planned to last, in s.
        seconds
            How long it lasted, in s.
        """
        self._take(seconds - planned_s)

    def measured(self, loss: float) -> None:
        """Make the curve agree with a measured test loss, as :func:`edgealloc.replan` does.

        Parameters
        ----------
        loss
            In nats, after the last round that was planned.

        Raises
        ------
        InputError
            Without a curve or a round, or for no number above 0.
        """
        faults = []
        if not is_loss(loss):
            faults.append(Fault("run", "loss", shown(loss), LOSS))
        if self._pilots is None or self._last is None:
            faults.append(Fault("run", "loss", shown(loss), "a run with a curve, after a round"))
        if faults or self._pilots is None or self._last is None:
            raise InputError("run", faults)
        instance, held = self._last
        value = self._begun(instance, self._pilots)
        self.curve = corrected(self._pilots, loss, lambda spec: float(replace(value, learning=spec).loss(0, held)))

    def memory(self) -> dict[str, Any]:
        """What is left and what is trained, for JSON."""
        return self.account.to_dict()

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Know what :meth:`memory` told; a measured loss has to be told again.

        Parameters
        ----------
        memory
            What it gave, or its like from JSON.

        Raises
        ------
        InputError
            Where it speaks of other budgets.
        """
        account = Account.from_dict(memory)
        timed = (account.left_s is None) is (self.time_s is None)
        if set(account.left_j) != set(self.energy_j) or not timed:
            raise InputError(
                "memory", [Fault("memory", "run", "other budgets", "the time and devices of this run")]
            )
        self.account = account

    def _begun(self, instance: Instance, curve: LearningSpec) -> ContinuedRun:
        return ContinuedRun(instance, curve, past=self.account.past)

    def _take(self, seconds: float) -> None:
        left = self.account.left_s
        if left is not None and seconds != 0.0:
            self.account = replace(self.account, left_s=math.nextafter(left - seconds, -math.inf))
