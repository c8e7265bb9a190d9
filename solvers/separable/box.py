"""Boxes of a search over devices: what each of them may still do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgealloc.solvers.separable.choices import OUT
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.units import BoolArray, FloatArray

__all__ = ["DeviceBox", "DeviceCut"]


@dataclass(frozen=True, slots=True)
class DeviceCut:
    """Restricts one device: to some modes (None: any) and to keep rates in [low, high] (0 when left out)."""

    device: int
    modes: tuple[int, ...] | None = None
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class DeviceBox:
    """All choices that meet the cuts, with the keep rates of all devices that take part in [low, high]."""

    cuts: tuple[DeviceCut, ...] = ()
    low: float = 0.0
    high: float = 1.0

    def and_also(self, cut: DeviceCut) -> DeviceBox:
        """The part of the box that meets one more cut."""
        return replace(self, cuts=(*self.cuts, cut))

    def holds(self, pieces: Pieces) -> BoolArray:
        """Which pieces meet the box, at least in part. Shape [N]."""
        keep = np.ones(len(pieces), dtype=bool)
        if self.low > 0.0 or self.high < 1.0:
            keep = (pieces.mode == OUT) | _meets(pieces.left, pieces.right, self.low, self.high)
        for cut in self.cuts:
            low, high = np.searchsorted(pieces.device, (cut.device, cut.device + 1))
            mine = slice(int(low), int(high))
            inside = _meets(pieces.left[mine], pieces.right[mine], cut.low, cut.high)
            if cut.modes is not None:
                inside &= np.isin(pieces.mode[mine], cut.modes)
            keep[mine] &= inside
        return keep


def _meets(left: FloatArray, right: FloatArray, low: float, high: float) -> BoolArray:
    """Which intervals meet [low, high] in more than an end that a neighbour has too."""
    touching = (left <= high) & (right >= low)
    if low == high:
        return touching
    return np.asarray(touching & ((left == right) | ((left < high) & (right > low))))
