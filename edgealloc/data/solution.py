"""A solution as its file states it: claims, column by column, that nobody has checked yet.

:class:`~edgealloc.formulation.result.Result` is what a solver returns; a :class:`Solution` is what is written down
and read back. The checker judges a solution; :meth:`Solution.for_instance` turns it into an allocation.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import Constraint
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.errors import Fault, InputError
from edgealloc.units import BoolArray, FloatArray, IntArray, rebuilt

__all__ = ["Solution", "finite_or_none"]


def _no_numbers() -> FloatArray:
    return np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A solution file: what was claimed, and the allocation in the order of the file.

    Parameters
    ----------
    instance_name, method, status, seconds, message
        Name of the instance; how and how fast it was solved, and how that ended.
    objective, free_objective
        Claimed bound G and its minimum without resources; None where there is none.
    lower_bound, rel_gap, excess_gap
        Claimed lower bound of the optimum and the gaps to it; None for "none" and "infinite".
    diagnosis
        Why the instance is infeasible; empty otherwise.
    constraints
        The user's own, which the claims are about beside the instance.
    device_names
        Names in the order of the file; empty without an allocation, as are all columns below.
    keep, dropout, freq_hz, rate_bps, latency_s, energy_j
        Keep and dropout rate; frequency in Hz, uplink rate in bit/s, latency in s, energy in J. Shape [K].
    selected
        Which devices take part. Shape [K].
    adapter_option
        Label of the menu row of each device, or None.
    bandwidth_hz
        Bandwidth in Hz, NaN where the file says null (OFDMA). Shape [K].
    subcarriers
        Sub-carriers of each device, None where the file says null (FDMA, resource blocks).
    power_w
        Power in W of each device: one number, or one per sub-carrier listed.
    """

    instance_name: str
    method: str
    status: Status
    objective: float | None
    lower_bound: float | None
    rel_gap: float | None
    excess_gap: float | None
    free_objective: float | None
    seconds: float
    message: str
    diagnosis: tuple[Diagnosis, ...]
    constraints: tuple[Constraint, ...] = ()
    device_names: tuple[str, ...] = ()
    keep: FloatArray = field(default_factory=_no_numbers)
    dropout: FloatArray = field(default_factory=_no_numbers)
    freq_hz: FloatArray = field(default_factory=_no_numbers)
    rate_bps: FloatArray = field(default_factory=_no_numbers)
    latency_s: FloatArray = field(default_factory=_no_numbers)
    energy_j: FloatArray = field(default_factory=_no_numbers)
    selected: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    adapter_option: tuple[str | None, ...] = ()
    bandwidth_hz: FloatArray = field(default_factory=_no_numbers)
    subcarriers: tuple[tuple[int, ...] | None, ...] = ()
    power_w: tuple[float | tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        for value in (getattr(self, f.name) for f in fields(self)):
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    __reduce__ = rebuilt

    def for_instance(self, instance: Instance) -> Allocation:
        """The allocation as arrays in the order of an instance; devices are matched by name.

        Raises
        ------
        InputError
            When there is no allocation, or devices, access scheme, sub-carriers or menu labels do not fit.
            Budgets are not looked at: that is the business of :func:`edgealloc.verify.solution.verify`.
        """
        faults = self._name_faults(instance)
        if faults:
            raise InputError(f"solution for instance {instance.name!r}", faults)
        row_of = {name: row for row, name in enumerate(self.device_names)}
        rows = np.array([row_of[name] for name in instance.device_names], dtype=np.intp)
        option = self._option_rows(instance, rows, faults)
        m = instance.num_subcarriers
        if m is None:
            owner, bandwidth = None, self.bandwidth_hz[rows]
            for k in np.flatnonzero(np.isnan(bandwidth)):
                faults.append(Fault(instance.device_names[k], "bandwidth_hz", "null", "a number"))
            for name, watts in zip(self.device_names, self.power_w, strict=True):
                if isinstance(watts, tuple):
                    faults.append(Fault(name, "power_w", "a list", "one number per device"))
            power = np.array(self.power_w, dtype=np.float64)[rows] if not faults else np.zeros(0)
        else:
            bandwidth = None
            owner, power = self._by_subcarrier(instance, rows, m, faults)
        if faults:
            raise InputError(f"solution for instance {instance.name!r}", faults)
        selected = self.selected[rows]
        return Allocation(self.keep[rows], self.freq_hz[rows], power, bandwidth, owner, selected, option)

    def _name_faults(self, instance: Instance) -> list[Fault]:
        given, wanted = set(self.device_names), set(instance.device_names)
        faults = [Fault(n, "name", "(missing)", "every device of the instance") for n in sorted(wanted - given)]
        faults += [Fault(n, "name", repr(n), "a device of the instance") for n in sorted(given - wanted)]
        if len(given) < len(self.device_names):
            faults.append(Fault("devices", "name", "repeated names", "each device once"))
        return faults

    def _option_rows(self, instance: Instance, rows: IntArray, faults: list[Fault]) -> IntArray:
        """Menu row of each device of the instance from its label, -1 without one. Shape [K]."""
        option = np.full(instance.num_devices, -1, dtype=np.intp)
        menus = instance.adapter_options or (None,) * instance.num_devices
        for k, row in enumerate(rows.tolist()):
            label, labels = self.adapter_option[row], [choice.label for choice in menus[k] or ()]
            if label in labels:
                option[k] = labels.index(label)
            elif label is not None:
                name = instance.device_names[k]
                faults.append(Fault(name, "adapter_option", repr(label), f"one of {labels}"))
        return option

    def _by_subcarrier(
        self, instance: Instance, rows: IntArray, m: int, faults: list[Fault]
    ) -> tuple[IntArray, FloatArray]:
        """Owner and power of each sub-carrier. Shape [M] each."""
        owner, power = np.full(m, -1, dtype=np.intp), np.zeros(m)
        for k, row in enumerate(rows.tolist()):
            name, watts, mine = instance.device_names[k], self.power_w[row], self.subcarriers[row]
            if mine is None or not isinstance(watts, tuple) or len(watts) != len(mine):
                allowed = "two lists of one length for access ofdma"
                faults.append(Fault(name, "subcarriers, power_w", f"{mine!r}, {watts!r}", allowed))
                continue
            for carrier, watt in zip(mine, watts, strict=True):
                if carrier >= m or owner[carrier] >= 0:
                    allowed = f"0..{m - 1}, each given to one device"
                    faults.append(Fault(name, "subcarriers", str(carrier), allowed))
                else:
                    owner[carrier], power[carrier] = k, watt
        return owner, power


def finite_or_none(value: float) -> float | None:
    """JSON has no infinity: an infinite gap or bound is written as null."""
    return float(value) if np.isfinite(value) else None
