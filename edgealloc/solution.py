"""A solution as its file states it: claims, column by column, that nobody has checked yet.

:class:`~edgealloc.result.Result` is what a solver returns; a :class:`Solution` is what is written down and
read back. The checker judges a solution; :meth:`Solution.for_instance` turns it into an allocation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgealloc.errors import Fault, InputError
from edgealloc.instance import Instance
from edgealloc.result import Allocation, Diagnosis, Result, Status
from edgealloc.units import FloatArray, rebuilt

if TYPE_CHECKING:
    from edgealloc.schema import SolutionDeviceFile, SolutionFile

__all__ = ["Solution"]


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
    device_names: tuple[str, ...]
    keep: FloatArray
    dropout: FloatArray
    freq_hz: FloatArray
    rate_bps: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    selected: NDArray[np.bool_]
    adapter_option: tuple[str | None, ...]
    bandwidth_hz: FloatArray
    subcarriers: tuple[tuple[int, ...] | None, ...]
    power_w: tuple[float | tuple[float, ...], ...]

    def __post_init__(self) -> None:
        for value in (getattr(self, f.name) for f in fields(self)):
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    __reduce__ = rebuilt

    @classmethod
    def of(cls, result: Result) -> Solution:
        """What a result claims, with the use of every budget as its problem evaluates it."""
        inst, allocation = result.problem.instance, result.allocation
        finite = _finite_or_none
        claims: dict[str, Any] = dict(
            instance_name=inst.name,
            method=result.method,
            status=result.status,
            objective=finite(result.objective),
            lower_bound=finite(result.lower_bound),
            rel_gap=finite(result.rel_gap),
            excess_gap=finite(result.excess_gap),
            free_objective=finite(result.free_objective),
            seconds=float(result.seconds),
            message=result.message,
            diagnosis=result.diagnosis,
        )
        if allocation is None or not result.status.has_allocation:
            return cls(**claims, **_columns(()))
        use, on = result.problem.evaluate(allocation), allocation.selected
        keep = np.where(on, allocation.keep, 0.0)
        menus = inst.adapter_options or (None,) * inst.num_devices
        labels = tuple(
            menu[row].label if menu is not None and chosen and row >= 0 else None
            for menu, row, chosen in zip(menus, allocation.option.tolist(), on.tolist(), strict=True)
        )
        carriers: tuple[tuple[int, ...] | None, ...] = (None,) * inst.num_devices
        power: tuple[float | tuple[float, ...], ...]
        if allocation.owner is not None:
            mine = _carriers_by_device(allocation.owner, inst.num_devices)
            watts = allocation.power_w.tolist()
            power = tuple(tuple(watts[m] for m in own) for own in mine)
            carriers, bandwidth = mine, np.full(inst.num_devices, np.nan)
        else:
            assert allocation.bandwidth_hz is not None
            bandwidth = np.where(on, allocation.bandwidth_hz, 0.0)
            power = tuple(np.where(on, allocation.power_w, 0.0).tolist())
        return cls(
            **claims,
            device_names=inst.device_names,
            keep=keep,
            dropout=1.0 - keep,
            freq_hz=np.where(on, allocation.freq_hz, 0.0),
            rate_bps=use.rate_bps,
            latency_s=use.latency_s,
            energy_j=use.energy_j,
            selected=on,
            adapter_option=labels,
            bandwidth_hz=bandwidth,
            subcarriers=carriers,
            power_w=power,
        )

    @classmethod
    def from_file(cls, data: SolutionFile) -> Solution:
        """The solution in a file whose structure was checked."""
        claims: dict[str, Any] = {key: data[key] for key in ("objective", "lower_bound", "rel_gap", "excess_gap")}
        diagnosis = tuple(
            Diagnosis(d["device"], d["budget"], d["available"], _none_to_inf(d["required"]), d["message"])
            for d in data.get("diagnosis", ())
        )
        return cls(
            instance_name=data["instance"],
            method=data["method"],
            status=Status(data["status"]),
            free_objective=data["free_objective"],
            seconds=float(data["seconds"]),
            message=data.get("message", ""),
            diagnosis=diagnosis,
            **claims,
            **_columns(tuple(data["devices"])),
        )

    def to_file(self) -> SolutionFile:
        """The solution as the JSON object of its file."""
        columns: dict[str, Any] = {
            "name": self.device_names,
            "keep": self.keep.tolist(),
            "dropout": self.dropout.tolist(),
            "bandwidth_hz": [_finite_or_none(b) for b in self.bandwidth_hz.tolist()],
            "subcarriers": [None if c is None else list(c) for c in self.subcarriers],
            "power_w": [list(p) if isinstance(p, tuple) else p for p in self.power_w],
            "selected": self.selected.tolist(),
            "adapter_option": self.adapter_option,
            "freq_hz": self.freq_hz.tolist(),
            "rate_bps": self.rate_bps.tolist(),
            "latency_s": self.latency_s.tolist(),
            "energy_j": self.energy_j.tolist(),
        }
        devices: Any = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        data: SolutionFile = {
            "format": "edgealloc-solution/1",
            "instance": self.instance_name,
            "method": self.method,
            "status": self.status.value,
            "objective": self.objective,
            "lower_bound": self.lower_bound,
            "rel_gap": self.rel_gap,
            "excess_gap": self.excess_gap,
            "free_objective": self.free_objective,
            "seconds": self.seconds,
            "devices": devices,
        }
        if self.diagnosis:
            data["diagnosis"] = [
                {
                    "device": d.device,
                    "budget": d.budget,
                    "available": d.available,
                    "required": _finite_or_none(d.required),
                    "message": d.message,
                }
                for d in self.diagnosis
            ]
        if self.message:
            data["message"] = self.message
        return data

    def for_instance(self, instance: Instance) -> Allocation:
        """The allocation as arrays in the order of an instance; devices are matched by name.

        Raises
        ------
        InputError
            When there is no allocation, or devices, access scheme, sub-carriers or menu labels do not fit.
            Budgets are not looked at: that is the business of :func:`edgealloc.verify.verify`.
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

    def _option_rows(self, instance: Instance, rows: NDArray[np.intp], faults: list[Fault]) -> NDArray[np.intp]:
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
        self, instance: Instance, rows: NDArray[np.intp], m: int, faults: list[Fault]
    ) -> tuple[NDArray[np.intp], FloatArray]:
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


def _columns(devices: tuple[SolutionDeviceFile, ...]) -> dict[str, Any]:
    """The per-device columns of a file, as arrays where they are numbers."""
    columns: dict[str, Any] = {"device_names": tuple(d["name"] for d in devices)}
    for key in ("keep", "dropout", "bandwidth_hz", "freq_hz", "rate_bps", "latency_s", "energy_j"):
        # null becomes NaN, which no comparison accepts by mistake
        columns[key] = np.array([d[key] for d in devices], dtype=np.float64)
    columns["selected"] = np.array([d["selected"] for d in devices], dtype=np.bool_)
    columns["adapter_option"] = tuple(d["adapter_option"] for d in devices)
    powers = (d["power_w"] for d in devices)
    columns["power_w"] = tuple(tuple(p) if isinstance(p, list) else float(p) for p in powers)
    carriers = (d["subcarriers"] for d in devices)
    columns["subcarriers"] = tuple(None if c is None else tuple(c) for c in carriers)
    return columns


def _carriers_by_device(owner: NDArray[np.intp], num_devices: int) -> tuple[tuple[int, ...], ...]:
    mine: list[list[int]] = [[] for _ in range(num_devices)]
    for carrier, device in enumerate(owner.tolist()):
        if device >= 0:
            mine[device].append(carrier)
    return tuple(tuple(carriers) for carriers in mine)


def _finite_or_none(value: float) -> float | None:
    """JSON has no infinity: an infinite gap or bound is written as null."""
    return float(value) if np.isfinite(value) else None


def _none_to_inf(value: float | None) -> float:
    return float("inf") if value is None else float(value)
