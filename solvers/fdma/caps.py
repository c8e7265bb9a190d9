"""The band and the caps on groups of devices as rows of sums: what bounds may count on, what allocations may use.

Every row is ``sum_k a_k b_k + c_k [k takes part] <= limit``. The band is the first; a
:class:`~edgealloc.data.constraints.SpectrumCap` has the a_k, a
:class:`~edgealloc.data.constraints.ParticipationCap` the c_k. A device that needs less bandwidth needs less of
every row, so that the least needs of all devices decide together whether anything fits.

Derived: docs/constraints.md, *Slices*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from edgealloc.data.constraints import HAIR, Constraint, ParticipationCap, SpectrumCap
from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.problem import Problem
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Caps"]

_EPS = 2.0**-52
_FULL = 1e-10  # relative; less than that is no room
_NEAR = 1e-12  # relative; nearer to a limit than that, sums are compared exactly


@dataclass(frozen=True, slots=True, eq=False)
class Caps:
    """R rows over K devices.

    Parameters
    ----------
    rows
        The constraints of the rows but the first, which is the band.
    spectrum, devices
        Coefficients of bandwidths, and of taking part. Shapes [R, K].
    most, safe
        What a row may come to: above what any allocation has, and with room for rounding. In Hz, or devices. [R].
    """

    rows: tuple[Constraint, ...]
    spectrum: FloatArray
    devices: FloatArray
    most: FloatArray
    safe: FloatArray

    @classmethod
    def of(cls, problem: Problem, most_hz: float, safe_hz: float, block_hz: float = 0.0) -> Caps:
        """The rows of a problem; ``most_hz`` and ``safe_hz`` are those of the band."""
        inst = problem.instance
        rows = tuple(row for row in problem.constraints if isinstance(row, SpectrumCap | ParticipationCap))
        spectrum, devices = np.zeros((2, len(rows) + 1, inst.num_devices))
        spectrum[0] = 1.0
        most, safe = np.full(len(rows) + 1, most_hz), np.full(len(rows) + 1, safe_hz)
        shave = 4e-16 * (8.0 + math.sqrt(inst.num_devices))
        for i, row in enumerate(rows, start=1):
            weight = row.weights(inst)
            allowed = Fraction(row.limit) * (1 + HAIR)
            if isinstance(row, ParticipationCap):
                devices[i], safe[i] = weight, row.limit
            else:
                spectrum[i], safe[i] = weight, row.limit * (1.0 if block_hz else 1.0 - shave)
                one = np.unique(weight[weight > 0.0])
                if block_hz and len(one) == 1:  # whole blocks of it
                    width = Fraction(block_hz) * Fraction(one[0]) * (1 - Fraction(1, 2**52))
                    allowed = Fraction(math.floor(allowed / width)) * Fraction(block_hz) * Fraction(one[0])
            most[i] = float(allowed) * (1.0 + 2.0 * _EPS)
        return cls(rows, spectrum, devices, most, safe)

    def __bool__(self) -> bool:
        """Whether there are more rows than the band."""
        return bool(self.rows)

    def usage(self, bandwidth_hz: FloatArray, inside: BoolArray) -> FloatArray:
        """What devices take of each row, for bandwidths in Hz and who takes part, shapes [K]. Shape [R, K]."""
        with np.errstate(invalid="ignore"):  # infinite bandwidth is none of the rows' that a device is not in
            return np.where(self.spectrum > 0.0, self.spectrum * bandwidth_hz, 0.0) + self.devices * inside

    def of_columns(self, device: IntArray, bandwidth_hz: FloatArray, inside: BoolArray) -> FloatArray:
        """As :meth:`usage` for choices of ``device`` [N], with bandwidths in Hz [N]. Shape [R, N]."""
        with np.errstate(invalid="ignore"):
            own = np.where(self.spectrum[:, device] > 0.0, self.spectrum[:, device] * bandwidth_hz, 0.0)
        return own + self.devices[:, device] * inside

    def alone_hz(self) -> FloatArray:
        """Bandwidth in Hz that a device surely does not exceed, 0 where it cannot take part. Shape [K]."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            each = np.where(self.spectrum > 0.0, self.most[:, None] / self.spectrum, np.inf) * (1.0 + 4.0 * _EPS)
        each[0] = self.most[0]  # as it is without caps
        barred = np.any(self.devices > self.most[:, None], axis=0)
        return np.asarray(np.where(barred, 0.0, np.min(each, axis=0)))

    def hold(self, bandwidth_hz: FloatArray) -> bool:
        """Whether bandwidths [K] in Hz, 0 for a device left out, meet the caps; that of the band is not asked."""
        use = self.usage(bandwidth_hz, bandwidth_hz > 0.0).sum(axis=1)
        if not np.all(np.isfinite(use)):
            return False
        for i, row in enumerate(self.rows, start=1):
            if use[i] <= row.limit * (1.0 - _NEAR):
                continue
            if use[i] > row.limit * (1.0 + _NEAR):
                return False
            each = zip(self.spectrum[i].tolist(), self.devices[i].tolist(), bandwidth_hz.tolist(), strict=True)
            total = sum((Fraction(a) * Fraction(b) + Fraction(c) * (b > 0.0) for a, c, b in each), Fraction(0))
            if total > Fraction(row.limit) * (1 + HAIR):
                return False
        return True

    def fits(self, bandwidth_hz: FloatArray) -> bool:
        """Whether bandwidths [K] in Hz, 0 for a device left out, leave every row room for rounding."""
        return bool(np.all(self.usage(bandwidth_hz, bandwidth_hz > 0.0).sum(axis=1) <= self.safe))

    def filled(self, bandwidth_hz: FloatArray) -> BoolArray:
        """Rows of which bandwidths [K] in Hz leave next to nothing. Shape [R]."""
        use = np.sum(self.spectrum * bandwidth_hz, axis=1)
        return np.asarray((use >= self.safe * (1.0 - _FULL)) & np.any(self.spectrum > 0.0, axis=1))

    def full(self, bandwidth_hz: FloatArray) -> BoolArray:
        """Devices in a row that bandwidths [K] in Hz fill. Shape [K]."""
        return np.asarray(np.any(self.spectrum[self.filled(bandwidth_hz)] > 0.0, axis=0))

    def lacking(self, problem: Problem, least_hz: FloatArray, inside: BoolArray) -> tuple[Diagnosis, ...]:
        """The caps that proven least bandwidths [K] in Hz exceed, of the devices that take part anyway [K]."""
        found = []
        for i, row in enumerate(self.rows, start=1):
            each = self.usage(np.where(inside, least_hz, 0.0), inside)[i]
            need = float(np.sum(np.where(np.isnan(each), 0.0, each)))
            if need > self.most[i] * (1.0 + _NEAR):
                worst = [k for k in np.argsort(-each, kind="stable")[:3] if each[k]]
                names = ", ".join(problem.instance.device_names[k] for k in worst)
                message = f"{row} is too small even at keep_min: its devices need {need:.6g}, most of it {names}"
                found.append(Diagnosis(None, "constraints", row.limit, need, message))
        return tuple(found)
