"""Constraints of your own beside the budgets of an instance: caps on groups of devices, floors of keep rates.

Each is data: what is limited, by how much, for whom. ``devices`` are names or indices, or a mapping from these to
coefficients >= 0 where a sum is limited; None stands for all devices. A cap of a sum holds where the sum, exactly,
exceeds the limit by no more than 2^-50 of it (:data:`HAIR`): limits are often a quotient of two doubles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError, did_you_mean, printable, shown, steers
from edgealloc.units import FloatArray

__all__ = [
    "HAIR",
    "KINDS",
    "Cap",
    "Constraint",
    "EnergyCap",
    "KeepFloor",
    "ParticipationCap",
    "PowerCap",
    "SpectrumCap",
    "SubcarrierCap",
    "fitted",
]

Devices = Iterable[str | int] | Mapping[str | int, float] | None

HAIR = Fraction(1, 2**50)  # relative, see the module


class Constraint:
    """What constraints have in common: each kind is a dataclass of a limit, ``devices`` and a ``name``."""

    __slots__ = ()
    kind: ClassVar[str] = ""  # in files
    key: ClassVar[str] = ""  # its limit's field
    weighted: ClassVar[bool] = False  # whether devices may have coefficients
    devices: Devices
    name: str

    def __post_init__(self) -> None:
        given: Any = self.devices
        if isinstance(given, np.ndarray) and given.ndim == 0:  # numpy's iterable that cannot be iterated
            given = given[()]
        if isinstance(given, str | int | np.integer) and not isinstance(given, bool):
            given = (given,)
        if isinstance(given, Mapping):
            given = dict(given)
        elif isinstance(given, Iterable) and not hasattr(given, "keys"):  # a pandas Series may be meant as either
            given = tuple(given)
        object.__setattr__(self, "devices", given)

    @property
    def limit(self) -> float:
        """What is allowed, in the unit that the field's name says."""
        return float(getattr(self, self.key))

    @property
    def label(self) -> str:
        """Its name, or its kind where it has none."""
        return str(self.name) or type(self).__name__

    def __str__(self) -> str:
        who = "all devices" if self.devices is None else ", ".join(map(str, list(self.devices)[:4]))
        more = "" if self.devices is None or len(list(self.devices)) <= 4 else ", ..."
        named = f" {self.name!r}" if self.name else ""
        text = f"{type(self).__name__}{named} ({self.key} {self.limit:.6g}: {who}{more})"
        return printable(text)

    def members(self, instance: Instance) -> dict[int, float]:
        """Index and coefficient of every device that it is about; it must fit the instance."""
        names = {name: k for k, name in enumerate(instance.device_names)}
        if self.devices is None:
            return dict.fromkeys(range(instance.num_devices), 1.0)
        pairs = self.devices.items() if isinstance(self.devices, Mapping) else ((d, 1.0) for d in self.devices)
        return {names[d] if isinstance(d, str) else int(d): float(c) for d, c in pairs}

    def weights(self, instance: Instance) -> FloatArray:
        """Coefficients of all devices, 0 for those that it is not about. Shape [K]."""
        weight = np.zeros(instance.num_devices)
        for k, coefficient in self.members(instance).items():
            weight[k] = coefficient
        return weight

    def faults(self, instance: Instance) -> list[Fault]:
        """What does not fit an instance.

        Parameters
        ----------
        instance
            The instance.

        Returns
        -------
        list of Fault
            Every fault of limit, devices and name; empty where it fits.
        """
        return [*self._limit_faults(instance), *self._device_faults(instance)]

    def _limit_faults(self, instance: Instance) -> list[Fault]:
        limit: Any = getattr(self, self.key)
        faults = []
        if not _is_amount(limit):
            faults.append(Fault(self.label, self.key, shown(limit), "a finite number >= 0"))
        if not isinstance(self.name, str) or steers(self.name):
            faults.append(Fault("constraints", "name", shown(self.name), "text of one line"))
        return faults

    def _device_faults(self, instance: Instance) -> list[Fault]:
        given: Any = self.devices
        if given is None:
            return []
        if not isinstance(given, dict | tuple):
            allowed = "a list of names or indices of devices, a dict of coefficients, or None for all"
            return [Fault(self.label, "devices", shown(given), allowed)]
        faults, seen, known = [], set[int](), {name: k for k, name in enumerate(instance.device_names)}
        if not given:
            faults.append(Fault(self.label, "devices", "none", "at least one device, or None for all"))
        for device in given:
            whole = isinstance(device, int | np.integer) and not isinstance(device, bool)
            k = known.get(device, -1) if isinstance(device, str) else int(device) if whole else -1
            if not 0 <= k < instance.num_devices:
                near = did_you_mean(device, known, "") if isinstance(device, str) else ""
                allowed = f"a device's name or its index, 0 to {instance.num_devices - 1}; {near}".rstrip("; ")
                faults.append(Fault(self.label, "devices", shown(device), allowed))
            elif k in seen:
                faults.append(Fault(self.label, "devices", shown(device), "each device once"))
            seen.add(k)
        if isinstance(given, dict):
            for device, c in given.items():
                if not self.weighted:
                    faults.append(Fault(self.label, "devices", shown(given), "names alone: it sums nothing"))
                    break
                if not _is_amount(c):
                    faults.append(Fault(self.label, shown(device), shown(c), "a finite coefficient >= 0"))
        return faults


class Cap(Constraint):
    """At most so much of a sum over devices."""

    __slots__ = ()
    weighted: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class SpectrumCap(Cap):
    """At most so much spectrum for a group of devices together: a slice, a tenant, a sector.

    Parameters
    ----------
    limit_hz
        Limit in Hz; with OFDMA a device's bandwidth is that of the sub-carriers it owns.
    devices
        Whom it is about, or their coefficients in the sum; None for all.
    name
        Shown where the constraint is reported.
    """

    limit_hz: float
    devices: Devices = None
    name: str = ""
    kind: ClassVar[str] = "spectrum"
    key: ClassVar[str] = "limit_hz"


@dataclass(frozen=True, slots=True)
class PowerCap(Cap):
    """At most so much transmit power for a group of devices together.

    Parameters
    ----------
    limit_w
        Limit in W.
    devices
        Whom it is about, or their coefficients in the sum; None for all.
    name
        Shown where the constraint is reported.
    """

    limit_w: float
    devices: Devices = None
    name: str = ""
    kind: ClassVar[str] = "power"
    key: ClassVar[str] = "limit_w"


@dataclass(frozen=True, slots=True)
class EnergyCap(Cap):
    """At most so much energy a round for a group of devices together.

    Parameters
    ----------
    limit_j
        Limit in J, static energy included.
    devices
        Whom it is about, or their coefficients in the sum; None for all.
    name
        Shown where the constraint is reported.
    """

    limit_j: float
    devices: Devices = None
    name: str = ""
    kind: ClassVar[str] = "energy"
    key: ClassVar[str] = "limit_j"


@dataclass(frozen=True, slots=True)
class ParticipationCap(Cap):
    """At most so many devices of a group take part, where devices may be left out.

    Parameters
    ----------
    limit_devices
        Limit of the number of devices.
    devices
        Whom it is about, or their coefficients in the sum; None for all.
    name
        Shown where the constraint is reported.
    """

    limit_devices: float
    devices: Devices = None
    name: str = ""
    kind: ClassVar[str] = "participation"
    key: ClassVar[str] = "limit_devices"


@dataclass(frozen=True, slots=True)
class SubcarrierCap(Constraint):
    """At most so many sub-carriers for each of the devices; OFDMA only.

    Parameters
    ----------
    limit_subcarriers
        Limit of the number of sub-carriers of a device.
    devices
        Whom it is about; None for all.
    name
        Shown where the constraint is reported.
    """

    limit_subcarriers: int
    devices: Devices = None
    name: str = ""
    kind: ClassVar[str] = "subcarriers"
    key: ClassVar[str] = "limit_subcarriers"

    def _limit_faults(self, instance: Instance) -> list[Fault]:
        faults = Constraint._limit_faults(self, instance)
        if not faults and self.limit != int(self.limit):
            faults.append(Fault(self.label, self.key, shown(self.limit), "a whole number"))
        if instance.access != "ofdma":
            allowed = "access ofdma; elsewhere a SpectrumCap limits the spectrum of a device"
            faults.append(Fault(self.label, "access", repr(instance.access), allowed))
        return faults


@dataclass(frozen=True, slots=True)
class KeepFloor(Constraint):
    """Each of the devices keeps at least a rate, if it takes part.

    Parameters
    ----------
    keep_min
        The least keep rate; the dropout rate is at most 1 less that.
    devices
        Whom it is about; None for all.
    name
        Shown where the constraint is reported.
    """

    keep_min: float
    devices: Devices = None
    name: str = ""
    kind: ClassVar[str] = "keep"
    key: ClassVar[str] = "keep_min"

    def faults(self, instance: Instance) -> list[Fault]:
        """What does not fit an instance.

        Parameters
        ----------
        instance
            The instance.

        Returns
        -------
        list of Fault
            Every fault of limit, devices and name; empty where it fits.
        """
        faults = Constraint.faults(self, instance)
        if faults:
            return faults
        shared = instance.common_keep and instance.exclusion_penalty is None
        for k in range(instance.num_devices) if shared else self.members(instance):
            levels = instance.keep_levels[k] if instance.keep_levels else None
            most = float(instance.keep_max[k] if levels is None else levels[-1])
            if self.limit > most:
                why = f"the greatest keep rate of {instance.device_names[k]}"
                why += ", with whom all share theirs (common_keep)" if shared else ""
                faults.append(Fault(self.label, self.key, shown(self.limit), f"at most {most!r}, {why}"))
        return faults


KINDS: Mapping[str, type[Constraint]] = {
    row.kind: row for row in (SpectrumCap, SubcarrierCap, PowerCap, EnergyCap, ParticipationCap, KeepFloor)
}
"""The constraints there are, by their kind in files; what is limited by none of them nobody could judge."""


def _is_amount(value: Any) -> bool:
    """Whether something is a finite number >= 0 that a double holds."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(float(value)) and float(value) >= 0.0
    except OverflowError:
        return False


def fitted(constraints: Iterable[Constraint], instance: Instance) -> tuple[Constraint, ...]:
    """Constraints that fit an instance, with their devices by name.

    Parameters
    ----------
    constraints
        Objects of this module.
    instance
        What they are about.

    Returns
    -------
    tuple of Constraint
        The same constraints; names stand for indices, None stays.

    Raises
    ------
    InputError
        Lists every fault: which constraint, which field, what is allowed.
    """
    given: Any = constraints
    if isinstance(given, Constraint):
        given = (given,)
    try:
        rows, faults = None if isinstance(given, str) else tuple(given), list[Fault]()
    except Exception:  # no sequence, or whatever a stranger's object raises
        rows = None
    if rows is None:
        raise InputError("constraints", [Fault("constraints", "type", shown(given), "a list of constraints")])
    for row in rows:
        known = isinstance(row, Constraint) and isinstance(row, KINDS.get(row.kind, ()))
        if not known:
            allowed = f"one of {', '.join(kind.__name__ for kind in KINDS.values())}"
            name = type(row).__name__ if isinstance(row, Constraint) else shown(row)
            faults.append(Fault("constraints", "type", name, allowed))
        else:
            faults += row.faults(instance)
    if faults:
        raise InputError("constraints", faults)
    return tuple(_by_name(row, instance) for row in rows)


def _by_name(row: Constraint, instance: Instance) -> Constraint:
    if row.devices is None:
        return row
    named = {instance.device_names[k]: c for k, c in row.members(instance).items()}
    devices = named if isinstance(row.devices, Mapping) else tuple(named)
    changed: Any = row  # each kind is a dataclass
    return replace(changed, devices=devices)  # type: ignore[no-any-return]
