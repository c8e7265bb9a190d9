"""Constraints of the user's own in a proof: what an instance can say of them itself, and rows that have prices.

A bound that holds without a constraint holds with it too, so nothing is lost but sharpness where one is not
looked at. What is looked at is rounded outwards: every allocation that meets the constraints is one of the folded
instance, and within the rows (docs/constraints.md, *Checked, and on file*).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from edgealloc.data.constraints import (
    HAIR,
    Constraint,
    EnergyCap,
    KeepFloor,
    ParticipationCap,
    PowerCap,
    SpectrumCap,
)
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray

__all__ = ["Rows", "priced_rows", "with_constraints"]


def with_constraints(instance: Instance, constraints: Iterable[Constraint]) -> Instance:
    """An instance that allows whatever another allows under constraints that fit it, and as little else as it can.

    Parameters
    ----------
    instance, constraints
        Floors of keep rates, and caps on the power or energy of a single device, are looked at.

    Returns
    -------
    Instance
        The same object where nothing changes.
    """
    least = np.array(instance.keep_min)
    most: dict[type[Constraint], FloatArray] = {
        PowerCap: np.array(instance.power_max_w),
        EnergyCap: np.array(instance.energy_j),
    }
    for row in constraints:
        members = [(k, c) for k, c in row.members(instance).items() if c > 0.0]
        if isinstance(row, KeepFloor):
            for k, _ in members:
                least[k] = max(least[k], row.keep_min)
        for kind, limits in most.items():
            if isinstance(row, kind) and len(members) == 1 and row.limit > 0.0:
                ((k, c),) = members
                limits[k] = min(limits[k], _above(Fraction(row.limit) * (1 + HAIR) / Fraction(c)))
    changes: dict[str, Any] = {"keep_min": least, "power_max_w": most[PowerCap], "energy_j": most[EnergyCap]}
    changes = {key: value for key, value in changes.items() if np.any(value != getattr(instance, key))}
    if "keep_min" in changes and instance.keep_levels is not None:
        pairs = zip(instance.keep_levels, least.tolist(), strict=True)
        changes["keep_levels"] = tuple(None if steps is None else steps[steps >= low] for steps, low in pairs)
    return instance.with_changes(**changes) if changes else instance


def _above(value: Fraction) -> float:
    """A double that is not below a number, ``inf`` where none is."""
    try:
        near = float(value)
    except OverflowError:
        return math.inf
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


def priced_rows(constraints: Iterable[Constraint]) -> tuple[Constraint, ...]:
    """Those of some constraints that a certificate has prices for, in their order."""
    return tuple(row for row in constraints if isinstance(row, SpectrumCap | ParticipationCap))


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows ``sum_k a_k b_k + c_k [k takes part] <= limit`` that every allocation meets.

    Parameters
    ----------
    spectrum, devices
        The a_k and c_k. Shapes [R, K].
    limit
        Rounded up; a number of whole blocks where that is what it comes to. Shape [R].
    """

    spectrum: FloatArray
    devices: FloatArray
    limit: FloatArray

    @classmethod
    def of(cls, instance: Instance, constraints: Iterable[Constraint]) -> Rows:
        """The rows of constraints that fit an instance."""
        rows = priced_rows(constraints)
        spectrum, devices = np.zeros((2, len(rows), instance.num_devices))
        limit = np.zeros(len(rows))
        for i, row in enumerate(rows):
            weight = row.weights(instance)
            allowed = Fraction(row.limit) * (1 + HAIR)
            if isinstance(row, ParticipationCap):
                devices[i] = weight
            else:
                spectrum[i] = weight
                one = set(weight[weight > 0.0].tolist())
                if instance.block_hz is not None and len(one) == 1:
                    # a double nearest to n blocks may lack 2^-53 of them, and a sum of such no more
                    block = Fraction(float(instance.block_hz)) * Fraction(one.pop())
                    count = allowed // (block * (1 - Fraction(1, 2**53)))
                    allowed = min(allowed, count * block * (1 + Fraction(1, 2**53)))
            limit[i] = _above(allowed)
        return cls(spectrum, devices, limit)

    def __len__(self) -> int:
        return len(self.limit)

    def most_hz(self) -> FloatArray:
        """Bandwidth in Hz that no device has more of; -1 where it cannot take part at all. Shape [K]."""
        with np.errstate(all="ignore"):
            each = np.where(self.spectrum > 0.0, self.limit[:, None] / self.spectrum, np.inf)
        each = np.nextafter(each, np.inf)
        barred = np.any(self.devices > self.limit[:, None], axis=0)
        return np.where(barred, -1.0, each.min(axis=0, initial=np.inf))
