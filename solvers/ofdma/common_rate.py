"""One keep rate for all devices that take part: which rate suits an assignment, first assignments, and branching.

With one shared rate, devices are coupled beyond sub-carriers. The relaxation lets each choose its own rate within
a shared interval, and the interval is branched on. At a single rate the devices' problems are exact again, so
bounds are exact in the limit of small intervals.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.ofdma.box import OfdmaBox, Region
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.free import free_bound
from edgealloc.solvers.ofdma.kernels.share import share
from edgealloc.solvers.ofdma.master import Master
from edgealloc.solvers.ofdma.start import improved
from edgealloc.solvers.row import SMIN
from edgealloc.units import FloatArray

__all__ = ["common_starts", "is_rate_ripe", "split_rate"]

_FIRST_FACTOR, _LAST_FACTOR = 1.5, 1.0005  # steps between trial rates
_NARROW = 1e-12  # relative width below which a rate counts as one
_LITTLE = 0.25  # of the gap
_TOP = 0.9  # the part of the interval that all devices must reach on average, for it to be ripe


def common_starts(cell: OfdmaCell, plan: Assignment, control: Control) -> Iterator[Assignment]:
    """Better and better assignments: descents that aim at one rate for everybody, around the best rate so far."""
    best = cell.value(plan)
    rate = float(plan.keep.max(initial=0.0)) or float(cell.rows[:, SMIN].min())
    factor = _FIRST_FACTOR
    while factor > _LAST_FACTOR and not control.stopped():
        moved = False
        for trial in (rate * factor, rate / factor):
            new = aimed(cell, plan, trial, control)
            if new is None or cell.value(new) >= best:
                continue
            best, plan, moved = cell.value(new), new, True
            rate = float(plan.keep.max(initial=0.0)) or rate
            yield plan
            break
        factor = factor if moved else math.sqrt(factor)


def aimed(cell: OfdmaCell, plan: Assignment, rate: float, control: Control) -> Assignment | None:
    """A descent from an assignment's owners towards one in which everybody can keep a rate."""
    return improved(cell, np.where(plan.owner >= 0, plan.owner, 0), np.zeros(1), control, 5, rate)


def is_rate_ripe(cell: OfdmaCell, box: OfdmaBox, master: Master, x: FloatArray, gap: float) -> bool:
    """Whether who takes part and who owns what matters more than the rate of a box.

    So it does where the master's point keeps nearly the largest rate everywhere, and where shares differ by little
    over the whole box, measured by the ``gap`` that is to be closed.

    ``x`` are the weights of the columns, shape [N].
    """
    low, high = box.rates
    if high - low <= _NARROW * high or _variation(cell, low, high) <= _LITTLE * gap:
        return True
    used = np.flatnonzero(x > 1e-6)
    used = used[master.mode[used] >= 0]
    if len(used) == 0:
        return True
    mass, kept = np.zeros(cell.devices), np.zeros(cell.devices)
    np.add.at(mass, master.device[used], x[used])
    np.add.at(kept, master.device[used], x[used] * master.keep[used])
    mean = kept[mass > 0.0] / mass[mass > 0.0]
    return bool(mean.min() >= low + _TOP * (high - low))


def _variation(cell: OfdmaCell, low: float, high: float) -> float:
    """How much the objective can differ between two common rates, at most."""
    total = np.zeros(cell.devices)
    for i, k in enumerate(cell.device):
        ends = [share(cell.rows[i], cell.objective, 0.0, s) for s in (low, high)]
        total[k] = max(total[k], abs(ends[0] - ends[1]))
    pooled = abs(cell.pools.gap(high * high) - cell.pools.gap(low * low)) if cell.pooled else 0.0
    return float(total.sum()) + pooled


def split_rate(cell: OfdmaCell, box: OfdmaBox, cutoff: float) -> tuple[tuple[OfdmaBox, ...], str]:
    """Children of a box that part its shared rate, the larger rates first; none where it is a single rate.

    First the rates at which even ample resources are no better than the incumbent are parted from the others, then
    the rate is halved; a level inside gets a part of its own.
    """
    low, high = box.rates
    levels = np.unique(cell.levels[(cell.levels > low) & (cell.levels < high)])
    if len(levels):
        at = float(levels[len(levels) // 2])
        ends = [(at, at), (float(np.nextafter(at, 2.0)), high), (low, float(np.nextafter(at, 0.0)))]
        return tuple(replace(box, rates=end) for end in ends if end[0] <= end[1]), f"common rate at {at:.6g}"
    if high - low <= _NARROW * high:
        return (), ""

    def useless(at: float) -> bool:
        return free_bound(cell, Region.of(cell, replace(box, rates=(low, at)))) >= cutoff

    at = low
    if useless(low * (1.0 + 1e-9)):
        at = _last(useless, low, high)
    if at <= low * (1.0 + 1e-9):
        at = math.sqrt(low * high)
    if not low < at < high:
        return (), ""
    return (replace(box, rates=(at, high)), replace(box, rates=(low, at))), f"common rate at {at:.6g}"


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """About the last value at which a condition holds that holds at ``low``."""
    for _ in range(40):
        middle = 0.5 * (low + high)
        if holds(middle):
            low = middle
        else:
            high = middle
        if high - low <= _NARROW * high:
            break
    return low
