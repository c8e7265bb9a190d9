"""One device alone with the whole band, at its least keep rate: which budgets it lacks, and what would do.

What is called enough is computed within budgets shrunk by 1e-12, and what is called too little within budgets
enlarged by as much, so that a number is named only where both sides of it are sure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.radio import block_count
from edgealloc.solvers.fdma.bandwidth import least_bandwidth
from edgealloc.solvers.fdma.cell import SHRINK
from edgealloc.solvers.row import DEADLINE, ENERGY, FMAX, PER_BIT, PMAX, device_rows
from edgealloc.units import FloatArray

__all__ = ["BUDGETS", "NEAR", "NO_CHANNEL", "UNITS", "Alone", "lacking", "least_value", "remedied", "round_up"]

# In the order in which remedies are offered.
UNITS = {"freq_max_hz": "Hz", "latency_s": "s", "energy_j": "J", "power_max_w": "W", "bandwidth_hz": "Hz"}
BUDGETS = tuple(UNITS)
NEAR = 1e-6  # a budget less than the least one by this share must be proved too small
NO_CHANNEL = "has no channel (gain 0) and cannot upload at any keep rate"
_AMPLE = 1e9  # factor of a budget that counts as without limit

Test = Callable[[Mapping[str, float]], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """A device with all of its menu rows.

    Parameters
    ----------
    rows
        Kernel rows with the true budgets, one per menu row. Shape [O, C].
    keep
        Its least keep rate.
    static_j
        Energy that does not depend on the allocation, in J.
    block_hz
        Width of a resource block, 0 where bandwidth is continuous.
    available
        Its budgets by name, in SI units.
    """

    rows: FloatArray
    keep: float
    static_j: float
    block_hz: float
    available: dict[str, float]

    @classmethod
    def of(cls, inst: Instance, k: int, keep: float) -> Alone:
        """Device k of an instance with FDMA or resource blocks, at keep rate ``keep``."""
        one = inst.take([k]).with_changes(common_keep=False)
        menu = one.adapter_options[0] if one.adapter_options else None
        options = range(len(menu)) if menu else range(1)
        rows = [device_rows(one, chosen_adapter(one, np.array([o])))[0] for o in options]
        available = {name: float(np.ravel(getattr(one, name))[0]) for name in BUDGETS}
        return cls(np.stack(rows), keep, float(one.energy_static_j[0]), one.block_hz or 0.0, available)

    @property
    def silent(self) -> bool:
        """Whether no row has a channel."""
        return bool(np.all(np.isinf(self.rows[:, PER_BIT])))

    def needs_hz(self, changes: Mapping[str, float], shrink: float) -> float:
        """Least bandwidth in Hz of any menu row with some budgets changed, all of them shrunk by a share."""
        value = self.available | dict(changes)
        best = math.inf
        for row in self.rows.copy():
            row[FMAX] = value["freq_max_hz"]
            beside = max(self.available["latency_s"] - row[DEADLINE], 0.0)
            row[DEADLINE] = value["latency_s"] * (1.0 - shrink) - beside
            row[ENERGY] = value["energy_j"] * (1.0 - shrink) - self.static_j
            row[PMAX] = value["power_max_w"] * (1.0 - shrink)
            best = min(best, float(least_bandwidth(row, self.keep, 0.0)[0]))
        return best

    def there_hz(self, changes: Mapping[str, float]) -> float:
        """The band in Hz, whole blocks of it."""
        band = changes.get("bandwidth_hz", self.available["bandwidth_hz"])
        return block_count(band, self.block_hz) * self.block_hz if self.block_hz else band

    def fits(self, changes: Mapping[str, float]) -> bool:
        """Whether the band surely suffices once some budgets have other values."""
        return self.needs_hz(changes, SHRINK) <= self.there_hz(changes) * (1.0 - SHRINK)

    def blocked(self, changes: Mapping[str, float]) -> bool:
        """Whether the band surely does not suffice once some budgets have other values."""
        return self.needs_hz(changes, -SHRINK) > self.there_hz(changes) * (1.0 + SHRINK)

    def required(self) -> dict[str, float]:
        """Least value of every budget that rescues the device with the others as they are; inf where none does."""
        return {
            name: self._whole(name, least_value(self.fits, self.blocked, name, self.available[name]))
            for name in BUDGETS
        }

    def _whole(self, name: str, value: float) -> float:
        """A bandwidth as a whole number of blocks: the bisection finds it up to the tolerance of the rule."""
        if name != "bandwidth_hz" or not self.block_hz or not math.isfinite(value):
            return value
        return float(np.rint(value / self.block_hz) * self.block_hz)


def least_value(fits: Test, blocked: Test, name: str, available: float) -> float:
    """Least value of one budget that does; inf where none does, or where a value just below is not proved short.

    Parameters
    ----------
    fits, blocked
        What surely does and what surely does not, of budgets that have other values.
    name, available
        The budget and its value, in SI units.
    """
    low, high = available, 2.0 * max(available, 1e-300)
    while not fits({name: high}):
        if high > _AMPLE * available or not math.isfinite(high):
            return math.inf
        low, high = high, 2.0 * high
    for _ in range(100):
        middle = 0.5 * (low + high)
        if not low < middle < high or high - low <= 1e-14 * high:
            break
        low, high = (low, middle) if fits({name: middle}) else (middle, high)
    return high if blocked({name: max(available, high * (1.0 - NEAR))}) else math.inf


def lacking(fits: Test, available: Mapping[str, float]) -> tuple[str, ...]:
    """The fewest budgets that rescue a device when all of them are raised without limit; empty if none do."""
    for count in range(1, len(available) + 1):
        for names in combinations(available, count):
            if fits({name: _AMPLE * available[name] for name in names}):
                return names
    return ()


def remedied(
    name: str, what: str, available: Mapping[str, float], required: Mapping[str, float], first: str,
    names: tuple[str, ...],
) -> list[Diagnosis]:  # fmt: skip
    """The finding for a device that is infeasible alone; one per budget where it takes several to rescue it.

    Parameters
    ----------
    name, what
        The device, and what it cannot do.
    available, required
        Budgets, and the least value of each that rescues it alone, in the order in which they are offered.
    first
        The budget that is named where one is.
    names
        Without ``required``: the budgets that rescue it when raised together; fewer than two are no remedy.
    """
    budgets: tuple[str, ...] = (first,)
    ways = [f"raise {key} to {round_up(value)} {UNITS[key]}" for key, value in required.items()]
    if not required and len(names) > 1:
        budgets = names
        ways = [f"raise {', '.join(names[:-1])} and {names[-1]} together (one alone does not help)"]
    message = f"{name} {what}; {', or '.join([*ways, 'select it out (selection)'])}"
    return [Diagnosis(name, key, available[key], required.get(key, math.inf), message) for key in budgets]


def round_up(value: float) -> str:
    """Four significant digits, never below the value, so that the remedy works as printed."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit) * unit:.4g}"
