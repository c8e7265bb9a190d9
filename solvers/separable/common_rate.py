"""One keep rate for all devices that take part, with levels, menus, selection and any underfitting term.

The relaxation lets every device choose its own rate within a shared interval; the interval is what is branched
on, until what is left of the gap comes from the devices' modes. With the interval at one rate the devices'
pieces are exact points, so the bound is exact in the limit of small intervals as it is for free rates.

Derived: docs/branch_and_bound.md, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.search.engine import Found
from edgealloc.solvers.separable.box import DeviceBox
from edgealloc.solvers.separable.choices import OUT
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.solvers.separable.plans import Plan, plan_value
from edgealloc.solvers.separable.priced import Priced, at_prices
from edgealloc.solvers.separable.relaxation import Separable
from edgealloc.units import FloatArray, IntArray

__all__ = ["CommonRate"]

_NARROW = 1e-13


@dataclass(slots=True, eq=False)
class CommonRate(Separable):
    """A problem whose devices share one keep rate."""

    def __post_init__(self) -> None:
        Separable.__post_init__(self)
        box = self.root()
        self._edge(box.low)
        self._edge(box.high)

    def root(self) -> DeviceBox:
        """Every rate that all devices, or with selection any device, may take."""
        inst = self.choices.problem.instance
        if inst.exclusion_penalty is None:
            return DeviceBox((), float(inst.keep_min.max()), float(inst.keep_max.min()))
        return DeviceBox((), float(inst.keep_min.min()), float(inst.keep_max.max()))

    def active(self, box: DeviceBox) -> Pieces:
        """The pieces of a box; of a box of one rate, that rate of each device and mode."""
        if box.low == box.high:
            points = Pieces.at(self.choices, box.low)
            return points.take(box.holds(points))
        return Separable.active(self, box)

    def _plans(
        self, box: DeviceBox, active: Pieces, start: IntArray, priced: Priced, gap: float, control: Control
    ) -> list[Plan]:
        """The best modes found at a few rates of the interval."""
        plans = []
        rates = [box.low, math.sqrt(box.low * box.high), box.high]
        levels = self._levels_inside(box)
        if len(levels):
            rates += [float(levels[0]), float(levels[len(levels) // 2]), float(levels[-1])]
        for rate in sorted(set(rates)):
            points = Pieces.at(self.choices, rate)
            inside = np.searchsorted(points.device, np.arange(len(start))) * 2
            if np.any(np.diff(inside) == 0) or control.stopped():
                continue
            columns = (points.cost.ravel(), points.band.ravel(), points.kept.ravel())
            tolerance = 0.02 * self.rel_gap * abs(priced.bound)
            local = self.search(inside, points, columns, priced.prices, tolerance)
            if math.isfinite(local.bound):
                plans += self._rounded(points, inside, local, math.inf, control)
        fit = [plan for plan in plans if self.choices.holds(plan.band)]
        return sorted(fit, key=lambda plan: plan_value(self.choices.problem, plan))[:1]

    def _cheapest(self, active: Pieces, start: IntArray) -> list[Found[Plan]]:
        return []  # least bandwidths need not have one rate

    def _filled(self, plan: Plan, priced: Priced) -> Plan:
        return plan

    def _levels_inside(self, box: DeviceBox) -> FloatArray:
        """Levels of any device strictly inside the interval, ascending."""
        levels = self.choices.problem.instance.keep_levels or ()
        every = np.unique(np.concatenate([np.zeros(0), *(level for level in levels if level is not None)]))
        return np.asarray(every[(every > box.low) & (every < box.high)])

    def _branch(
        self, box: DeviceBox, active: Pieces, start: IntArray, priced: Priced, errors: FloatArray
    ) -> tuple[tuple[DeviceBox, ...], str]:
        """Children: parts of the shared interval, or of a device's modes where those matter more."""
        if box.low < box.high and self._rate_error(active, start, priced) >= self._mode_error(active, priced):
            return self._parts(box)
        for k in np.argsort(-self._mode_spread(active, priced), kind="stable"):
            if len(set(active.mode[priced.picks[:, k] // 2].tolist())) < 2:
                break
            children = self._split(box, active, priced, int(k))
            if children:
                return children
        return self._parts(box)

    def _rate_error(self, active: Pieces, start: IntArray, priced: Priced) -> float:
        """What it would cost, at the prices, if all moved to the smaller or all to the larger end."""
        first, last = (
            self._least_at(active.take(which), len(start) - 1, priced)
            for which in (self._outermost(active, -1), self._outermost(active, 1))
        )
        return float(min(np.sum(first - priced.least), np.sum(last - priced.least)))

    def _outermost(self, active: Pieces, side: int) -> IntArray:
        """Pieces at one end of each mode, and the devices left out."""
        key = np.stack((active.device, active.mode))
        change = np.flatnonzero(np.any(np.diff(key, axis=1) != 0, axis=0))
        return np.concatenate(([0], change + 1)) if side < 0 else np.concatenate((change, [len(active) - 1]))

    def _least_at(self, ends: Pieces, count: int, priced: Priced) -> FloatArray:
        low = np.min(at_prices(ends, priced), axis=1)
        return np.asarray(np.minimum.reduceat(low, np.searchsorted(ends.device, np.arange(count))))

    def _mode_spread(self, active: Pieces, priced: Priced) -> FloatArray:
        """How far the picks of devices with several modes lie apart, in objective. Shape [K]."""
        modes = active.mode[priced.picks // 2]
        differ = np.any(modes != modes[0], axis=0)
        share = priced.share[:, None]
        values = active.cost.ravel()[priced.picks]
        spread = np.sum(share * np.abs(values - np.sum(share * values, axis=0)), axis=0)
        return np.asarray(np.where(differ, np.maximum(spread, 1e-300), 0.0))

    def _mode_error(self, active: Pieces, priced: Priced) -> float:
        return float(np.sum(self._mode_spread(active, priced)))

    def _parts(self, box: DeviceBox) -> tuple[tuple[DeviceBox, ...], str]:
        """The interval in two, or around a level in three: below it, at it, above it."""
        low, high = box.low, box.high
        levels = self._levels_inside(box)
        if len(levels):
            at = float(levels[len(levels) // 2])
            below, above = float(np.nextafter(at, 0.0)), float(np.nextafter(at, 1.0))
            self._edge(at)
            parts = [replace(box, low=at, high=at), replace(box, high=below), replace(box, low=above)]
            return tuple(part for part in parts if part.low <= part.high), f"common keep rate at {at:.6g}"
        at = math.sqrt(low * high)
        if not low < at < high or high - low <= _NARROW * high:
            return (), ""
        self._edge(at)
        return (replace(box, low=at), replace(box, high=at)), f"common keep rate at {at:.6g}"

    def _edge(self, at: float) -> None:
        """Make a rate an edge of all pieces."""
        p = self.pieces
        which = (p.mode != OUT) & (p.left < at) & (p.right > at)
        if which.any():
            self.pieces = p.halved(self.choices, which, np.full(int(which.sum()), at))
