"""Linear side constraints on the spectrum, for solvers that take them: a cap per slice, a quota of devices.

``sum_k bandwidth_k b_k + sum_k selected_k x_k <= limit`` with the bandwidths b in Hz (with OFDMA: of all
sub-carriers that a device owns) and x = 1 for a device that takes part. Coefficients of bandwidths must not be
negative: then taking less never breaks a row, on which repairs rely.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.units import FloatArray

__all__ = ["SideConstraint", "check_constraints", "slice_cap"]


@dataclass(frozen=True, slots=True, eq=False)
class SideConstraint:
    """One row; see the module.

    Parameters
    ----------
    name
        Shown where the row is reported.
    limit
        Right-hand side.
    bandwidth
        Coefficients of the bandwidths, per Hz, >= 0. Shape [K], or empty for none.
    selected
        Coefficients of taking part. Shape [K], or empty for none.
    """

    name: str
    limit: float
    bandwidth: FloatArray = field(default_factory=lambda: np.zeros(0))
    selected: FloatArray = field(default_factory=lambda: np.zeros(0))

    def value(self, instance: Instance, allocation: Allocation) -> float:
        """Left-hand side at an allocation; with OFDMA a device's bandwidth is that of its sub-carriers."""
        total = 0.0
        if len(self.bandwidth):
            if allocation.owner is not None:
                owned = np.bincount(allocation.owner[allocation.owner >= 0], minlength=instance.num_devices)
                total += float(self.bandwidth @ owned) * subcarrier_hz(instance)
            else:
                assert allocation.bandwidth_hz is not None
                total += float(self.bandwidth @ allocation.bandwidth_hz)
        if len(self.selected):
            total += float(self.selected @ allocation.selected)
        return total

    def holds(self, instance: Instance, allocation: Allocation) -> bool:
        """Whether the row holds, exactly."""
        return self.value(instance, allocation) <= self.limit


def slice_cap(instance: Instance, devices: list[int], limit_hz: float, name: str = "slice") -> SideConstraint:
    """No more than ``limit_hz`` Hz for a group of devices (a slice, a tenant, a sector)."""
    weight = np.zeros(instance.num_devices)
    weight[devices] = 1.0
    return SideConstraint(name, limit_hz, bandwidth=weight)


def check_constraints(instance: Instance, rows: tuple[SideConstraint, ...]) -> None:
    """Refuse rows that do not fit an instance.

    Raises
    ------
    InputError
        Lists every fault: wrong shapes, values that are not finite, negative bandwidth coefficients.
    """
    faults, k = [], instance.num_devices
    for row in rows:
        for key in ("bandwidth", "selected"):
            value = np.asarray(getattr(row, key))
            if len(value) and (value.shape != (k,) or not np.all(np.isfinite(value))):
                faults.append(Fault(row.name, key, f"shape {value.shape}", f"{k} finite numbers, or none"))
        if np.any(np.asarray(row.bandwidth) < 0):
            faults.append(Fault(row.name, "bandwidth", "a negative coefficient", "numbers >= 0"))
        if not np.isfinite(row.limit):
            faults.append(Fault(row.name, "limit", repr(row.limit), "a finite number"))
    if faults:
        raise InputError("side constraints", faults)
