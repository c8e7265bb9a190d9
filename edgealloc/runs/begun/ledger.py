"""What each device has spent of its energy so far, to the last digit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray

__all__ = ["EnergyLedger"]


@dataclass(slots=True)
class EnergyLedger:
    """What every device has left of its horizon budget.

    Parameters
    ----------
    budget_j
        Horizon budgets in J by device name.
    rounds
        Rounds in the horizon.
    """

    budget_j: Mapping[str, float]
    rounds: int
    _left_j: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        faults = [
            Fault(name, "budget_j", repr(value), "a finite number > 0")
            for name, value in self.budget_j.items()
            if not (math.isfinite(value) and value > 0.0)
        ]
        if self.rounds < 1:
            faults.append(Fault("horizon", "rounds", repr(self.rounds), "an integer >= 1"))
        if faults:
            raise InputError("horizon", faults)
        self._left_j = dict(self.budget_j)

    def left_j(self, names: tuple[str, ...]) -> FloatArray:
        """What is left of the horizon budgets.

        Parameters
        ----------
        names
            Devices that have a budget.

        Returns
        -------
        numpy.ndarray
            What is left in J, never negative. Shape [len(names)].
        """
        return np.array([max(self._left_j[name], 0.0) for name in names])

    def booked(self) -> dict[str, float]:
        """What is left in J by device name, as it is booked; :meth:`restore` takes it back."""
        return dict(self._left_j)

    def restore(self, booked: Mapping[str, float]) -> None:
        """Go back to an earlier state.

        Parameters
        ----------
        booked
            What :meth:`booked` gave then.
        """
        self._left_j = dict(booked)

    def spend(self, names: tuple[str, ...], energy_j: FloatArray) -> None:
        """Book what a round took; rounded against the device, so that the sum never exceeds the budget.

        Parameters
        ----------
        names
            Devices that have a budget.
        energy_j
            What each spent in J. Shape [len(names)].
        """
        for name, joules in zip(names, energy_j.tolist(), strict=True):
            if joules > 0.0:
                self._left_j[name] = math.nextafter(self._left_j[name] - joules, -math.inf)
