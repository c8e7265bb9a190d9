"""What constraints (:mod:`edgealloc.data.constraints`) mean for an instance and for an allocation.

Sums over devices are compared exactly; energy and power are those that the evaluation has in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import (
    HAIR,
    Constraint,
    EnergyCap,
    KeepFloor,
    ParticipationCap,
    PowerCap,
    SpectrumCap,
    SubcarrierCap,
)
from edgealloc.data.instance import Instance
from edgealloc.formulation.evaluation import Evaluation, Violation
from edgealloc.units import IntArray

__all__ = ["broken", "most_subcarriers", "raised"]


def raised(instance: Instance, constraints: Iterable[Constraint]) -> Instance:
    """The instance with the floors of its keep rates built in; other constraints are not looked at."""
    floors = [row for row in constraints if isinstance(row, KeepFloor)]
    if not floors:
        return instance
    low = np.array(instance.keep_min)
    for floor in floors:
        for k in floor.members(instance):
            low[k] = max(low[k], floor.keep_min)
    changes: dict[str, Any] = {"keep_min": low}
    if instance.keep_levels is not None:
        changes["keep_levels"] = tuple(
            None if levels is None else levels[levels >= least]
            for levels, least in zip(instance.keep_levels, low, strict=True)
        )
    return instance.with_changes(**changes)


def most_subcarriers(instance: Instance, constraints: Iterable[Constraint]) -> IntArray:
    """How many sub-carriers each device may own, M where nothing limits it. Shape [K].

    A :class:`~edgealloc.data.constraints.SpectrumCap` of one device is such a limit too.
    """
    assert instance.num_subcarriers is not None
    most = np.full(instance.num_devices, instance.num_subcarriers)
    width = Fraction(float(instance.bandwidth_hz)) / instance.num_subcarriers
    for row in constraints:
        members = row.members(instance)
        for k, coefficient in members.items():
            if isinstance(row, SubcarrierCap):
                most[k] = min(most[k], int(row.limit))
            elif isinstance(row, SpectrumCap) and len(members) == 1 and coefficient > 0.0:
                most[k] = min(
                    most[k], math.floor(Fraction(row.limit) * (1 + HAIR) / (Fraction(coefficient) * width))
                )
    return most


def broken(
    instance: Instance, constraints: Iterable[Constraint], allocation: Allocation, use: Evaluation
) -> Iterator[Violation]:
    """The constraints that an allocation breaks.

    Parameters
    ----------
    instance, constraints
        The instance, and constraints that fit it.
    allocation, use
        An allocation, and what it uses.

    Yields
    ------
    Violation
        One per cap of a sum, one per device of the others.
    """
    on = allocation.selected
    owned = np.zeros(instance.num_devices, dtype=np.intp)
    if allocation.owner is not None:
        held = allocation.owner[(allocation.owner >= 0) & (allocation.owner < instance.num_devices)]
        owned = np.bincount(held, minlength=instance.num_devices)
    for row in constraints:
        members = row.members(instance)
        if isinstance(row, KeepFloor | SubcarrierCap):
            for k in members:
                value = float(allocation.keep[k] if isinstance(row, KeepFloor) else owned[k])
                fine = not on[k] or value >= row.limit if isinstance(row, KeepFloor) else value <= row.limit
                if not fine:
                    yield Violation(instance.device_names[k], f"{row.label} ({row.key})", value, row.limit)
            continue
        amounts = {k: _amount(row, instance, allocation, use, owned, k) for k in members}
        if not all(isinstance(a, Fraction) or math.isfinite(a) for a in amounts.values()):
            yield Violation(None, f"{row.label} ({row.key})", math.nan, row.limit)
            continue
        total = sum((Fraction(members[k]) * Fraction(a) for k, a in amounts.items()), start=Fraction(0))
        if not total <= Fraction(row.limit) * (1 + HAIR):
            yield Violation(None, f"{row.label} ({row.key})", float(total), row.limit)


def _amount(
    row: Constraint, instance: Instance, allocation: Allocation, use: Evaluation, owned: IntArray, k: int
) -> float | Fraction:
    """How much of what a cap limits a device takes; ``owned`` [K] counts its sub-carriers."""
    if not allocation.selected[k]:
        return 0.0
    if isinstance(row, ParticipationCap):
        return 1.0
    if isinstance(row, PowerCap):
        return float(use.power_w[k])
    if isinstance(row, EnergyCap):
        return float(use.energy_j[k])
    if allocation.bandwidth_hz is not None:
        return float(allocation.bandwidth_hz[k])
    assert isinstance(row, SpectrumCap)
    return Fraction(int(owned[k])) * Fraction(float(instance.bandwidth_hz)) / (instance.num_subcarriers or 1)
