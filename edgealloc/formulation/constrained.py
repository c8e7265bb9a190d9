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
from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.evaluation import Evaluation, Violation
from edgealloc.units import IntArray

__all__ = ["broken", "folded", "impossible", "most_subcarriers"]


def folded(instance: Instance, constraints: Iterable[Constraint]) -> tuple[Instance, tuple[Constraint, ...]]:
    """The instance with all built in that its own fields can say, and the constraints that are left.

    Floors of keep rates are ``keep_min``; a cap on the power or energy of one device is ``power_max_w`` or
    ``energy_j``, the greatest double that the cap allows. A cap that no allocation can break is left out.

    Parameters
    ----------
    instance, constraints
        The instance, and constraints that fit it.

    Returns
    -------
    tuple of Instance and tuple of Constraint
        The same object where nothing is built in.
    """
    low, rest = np.array(instance.keep_min), list[Constraint]()
    most = {"power_max_w": np.array(instance.power_max_w), "energy_j": np.array(instance.energy_j)}
    for row in constraints:
        weight = {k: Fraction(c) for k, c in row.members(instance).items() if c > 0.0}
        if isinstance(row, KeepFloor):
            low[list(weight)] = np.maximum(low[list(weight)], row.keep_min)
        elif (field := _FIELDS.get(type(row).kind)) is not None and len(weight) == 1 and row.limit > 0.0:
            ((k, coefficient),) = weight.items()
            most[field][k] = min(most[field][k], _greatest(_allowed(row) / coefficient))
        elif _greatest_sum(instance, row, weight) > _allowed(row):
            rest.append(row)
    changes: dict[str, Any] = {
        key: value for key, value in most.items() if not np.array_equal(value, getattr(instance, key))
    }
    if not np.array_equal(low, instance.keep_min):
        changes["keep_min"] = low
        if instance.keep_levels is not None:
            changes["keep_levels"] = tuple(
                None if levels is None else levels[levels >= least]
                for levels, least in zip(instance.keep_levels, low, strict=True)
            )
    return instance.with_changes(**changes) if changes else instance, tuple(rest)


_ROUNDED = 1 + Fraction(1, 10**12)  # whole blocks may come to more than the band by what counting them rounds
_FIELDS = {PowerCap.kind: "power_max_w", EnergyCap.kind: "energy_j"}


def _allowed(row: Constraint) -> Fraction:
    """What a sum may come to, exactly."""
    return Fraction(row.limit) * (1 + HAIR)


def _greatest(value: Fraction) -> float:
    """The greatest double that is not above a number >= 0."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) <= value else math.nextafter(nearest, 0.0)


def _greatest_sum(instance: Instance, row: Constraint, weight: dict[int, Fraction]) -> Fraction:
    """What the sum of a cap can come to at most, where it is for the instance's own budgets to say so."""
    if isinstance(row, SubcarrierCap):
        return Fraction(instance.num_subcarriers or 0)
    if isinstance(row, SpectrumCap):
        whole = Fraction(float(instance.bandwidth_hz)) * (1 if instance.block_hz is None else _ROUNDED)
        return max(weight.values(), default=Fraction(0)) * whole
    each = np.ones(instance.num_devices)
    if isinstance(row, PowerCap | EnergyCap):
        each = getattr(instance, _FIELDS[row.kind])
    return sum((c * Fraction(float(each[k])) for k, c in weight.items()), start=Fraction(0))


def impossible(instance: Instance, constraints: Iterable[Constraint]) -> tuple[Diagnosis, ...]:
    """Constraints that no allocation meets, whatever the budgets, for nobody may be left out."""
    if instance.exclusion_penalty is not None:
        return ()
    found = []
    for row in constraints:
        weight = {k: Fraction(c) for k, c in row.members(instance).items() if c > 0.0}
        if isinstance(row, KeepFloor) or not weight:
            continue
        least = sum(weight.values()) if isinstance(row, ParticipationCap) else Fraction(0)
        if least > _allowed(row):
            what = f"its devices all take part and come to {float(least):.6g}; raise the limit"
        elif row.limit == 0.0:
            what = f"{instance.device_names[min(weight)]} has something to send and needs more than nothing"
        else:
            continue
        message = f"{row} cannot be met, for no device may be left out: {what}, or give exclusion_penalty"
        found.append(Diagnosis(None, "constraints", row.limit, float(least) if least else math.inf, message))
    return tuple(found)


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
