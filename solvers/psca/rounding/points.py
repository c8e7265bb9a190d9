"""A shared band in steps: blocks, keep levels, menus and selection as points (bandwidth, cost) per device.

At the price nu each device has a list of points, fewer Hz for more cost. Which point each takes is a knapsack with
one choice per device; P-SCA's relaxed answer is rounded into it, made to fit, filled up and improved by exchanges.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from edgealloc.formulation.device import chosen_adapter
from edgealloc.solvers.base import Control
from edgealloc.solvers.fdma.bandwidth import least_bandwidth
from edgealloc.solvers.fdma.cell import SHRINK
from edgealloc.solvers.psca.model import Iterate, Model
from edgealloc.solvers.psca.plan import Plan, best_plan, factors, out_cost, own_cost
from edgealloc.solvers.row import device_rows
from edgealloc.units import FloatArray, IntArray

__all__ = ["Points", "needs_hz", "share_out"]

_RATES, _FEW_RATES = 96, 12  # keep rates tried for a device without levels; when time is up
_BINS = 4000  # of the band, in the dynamic programme where there are no blocks


def needs_hz(model: Model, keep: FloatArray) -> FloatArray:
    """Least bandwidth in Hz per menu row at keep rates [K], whole blocks if any; ``inf`` if none does. [O, K]."""
    inst = model.problem.instance
    depth, k = model.has_row.shape
    need = np.full((depth, k), math.inf)
    sizes = np.array([len(m) if m is not None else 0 for m in inst.adapter_options or (None,) * k])
    for o in range(depth):
        adapter = chosen_adapter(inst, np.where(sizes > 0, np.minimum(o, sizes - 1), -1))
        rows = device_rows(inst, adapter, SHRINK)
        for i in np.flatnonzero(model.has_row[o]):
            need[o, i] = least_bandwidth(rows[i], keep[i], 0.0)[0]
    if model.blocks:
        block = model.column_hz / model.blocks
        need = np.where(
            np.isfinite(need), np.maximum(np.ceil(need / block * (1.0 - 4e-16)), 1.0) * block, math.inf
        )
    return need


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Points of one device, bandwidth increasing and cost decreasing; all shapes [P].

    ``keep`` 0 is the point of staying out.
    """

    hz: FloatArray
    cost: FloatArray
    keep: FloatArray
    option: IntArray


def _points(model: Model, nu: float, tried: int) -> list[Points]:
    """The undominated points of every device at the price nu, of so many tried rates where there are no levels."""
    problem, inst = model.problem, model.problem.instance
    depth, k = model.has_row.shape
    factor, out = factors(problem, depth), out_cost(problem)
    levels = inst.keep_levels or (None,) * k
    rates = [
        np.geomspace(inst.keep_min[i], inst.keep_max[i], tried) if levels[i] is None else np.asarray(levels[i])
        for i in range(k)
    ]
    count = max(len(r) for r in rates)
    raw: list[list[tuple[float, float, float, int]]] = [
        [(0.0, out[i], 0.0, 0)] if np.isfinite(out[i]) else [] for i in range(k)
    ]
    for j in range(count):
        keep = np.array([r[min(j, len(r) - 1)] for r in rates])
        need = needs_hz(model, keep)
        cost = own_cost(problem, factor, keep, nu)
        for o in range(depth):
            for i in np.flatnonzero(np.isfinite(need[o]) & model.has_row[o]):
                if j < len(rates[i]):
                    raw[i].append((float(need[o, i]), float(cost[o, i]), float(keep[i]), o))
    lists = []
    for entries in raw:
        front: list[tuple[float, float, float, int]] = []
        for entry in sorted(entries):
            if entry[0] <= model.column_hz and (not front or entry[1] < front[-1][1]):
                front.append(entry)
        columns = list(zip(*front, strict=True)) or [(), (), (), ()]
        hz, cost, kept = (np.array(c, dtype=np.float64) for c in columns[:3])
        lists.append(Points(hz, cost, kept, np.array(columns[3], dtype=np.intp)))
    return lists


def share_out(model: Model, at: Iterate, search: bool, control: Control) -> tuple[FloatArray, Plan] | None:
    """Round the iterate to points that fit the band; bandwidths in Hz [K] and the plan, None if nothing fits.

    ``search`` replaces the rounding by dynamic programming and adds exchanges of any two devices, while there is
    time: what is left undone when time is up costs the answer its quality only.
    """
    problem, inst = model.problem, model.problem.instance
    # sums of whole blocks are exact to rounding; the allocation is checked against the true band in any case
    limit = model.column_hz * (1.0 + 1e-12 if model.blocks else 1.0 - 1e-14)
    wanted = at.share[:, 0] * model.column_hz * (1.0 + (1e-3 if model.blocks else 1e-6))
    best: tuple[FloatArray, Plan] | None = None
    q = float(inst.weights @ np.square(at.keep))
    for turn in range(3):
        late = control.stopped()
        if turn and late:
            break
        nu = problem.stability.pooled_slope(q) if problem.pooled else 0.0
        lists = _points(model, nu, _FEW_RATES if late else _RATES)
        if any(len(p.hz) == 0 for p in lists):
            return best
        pick = np.array([
            max(int(np.searchsorted(p.hz, w, side="right")) - 1, 0) for p, w in zip(lists, wanted, strict=True)
        ])  # fmt: skip
        picks = [pick]
        if search and not control.stopped():
            knapsack = _knapsack(lists, limit, model.blocks, control)
            picks += [] if knapsack is None else [knapsack]
        found: list[tuple[FloatArray, Plan]] = []
        for pick in picks:
            if not _fit(lists, pick, limit):
                continue
            _fill(lists, pick, limit)
            if search:
                _exchange(lists, pick, limit, control)
            hz = np.array([p.hz[i] for p, i in zip(lists, pick, strict=True)])
            plan = _plan_on(model, lists, pick, hz)
            if plan is not None:
                found.append((hz, plan))
        if not found:
            break
        hz, plan = min(found, key=lambda pair: pair[1].value)
        if best is not None and not plan.value < best[1].value:
            break
        best = hz, plan
        q = float(inst.weights @ np.square(plan.keep))
    return best


def _knapsack(lists: list[Points], limit: float, blocks: int, control: Control) -> IntArray | None:
    """Cheapest points that fit, by dynamic programming over the band: exact in blocks, else in bins rounded up.

    None where nothing fits, or time is up.
    """
    bins = blocks or _BINS
    width = limit / bins
    infinite = np.full(bins + 1, math.inf)
    best = np.zeros(bins + 1)  # cost of the devices so far when at most so many bins are used
    choices = np.zeros((len(lists), bins + 1), dtype=np.intp)
    sizes = [np.ceil(p.hz / width * (1.0 - 1e-9)).astype(np.intp) for p in lists]
    for k, p in enumerate(lists):
        if control.stopped():
            return None
        total = infinite.copy()
        for i, size in enumerate(sizes[k]):
            if size <= bins:
                trial = infinite.copy()
                trial[size:] = best[: bins + 1 - size] + p.cost[i]
                better = trial < total
                total[better], choices[k][better] = trial[better], i
        best = total
    if not math.isfinite(best[bins]):
        return None
    pick, left = np.zeros(len(lists), dtype=np.intp), bins
    for k in range(len(lists) - 1, -1, -1):
        pick[k] = choices[k][left]
        left -= int(sizes[k][pick[k]])
    return pick


def _plan_on(model: Model, lists: list[Points], pick: IntArray, hz: FloatArray) -> Plan | None:
    """The best plan on the picked bandwidths: where rates are continuous, the largest that they carry."""
    problem, inst = model.problem, model.problem.instance
    caps = model.caps((hz / model.column_hz)[:, None])[:, :, 0]
    for k, (points, i) in enumerate(zip(lists, pick, strict=True)):  # rounding must not cost a level
        if points.keep[i] > 0.0:
            caps[points.option[i], k] = max(caps[points.option[i], k], points.keep[i])
    for k, i in enumerate(pick):
        if lists[k].keep[i] == 0.0 and inst.exclusion_penalty is not None:
            caps[:, k] = -2.0
    return best_plan(problem, caps, model.has_row)


def _fit(lists: list[Points], pick: IntArray, limit: float) -> bool:
    """Step down where a Hz costs least until all fit."""

    def down(k: int) -> tuple[float, int]:
        """(Cost per Hz of the next step down of device k, k)."""
        p, i = lists[k], pick[k]
        return float((p.cost[i - 1] - p.cost[i]) / (p.hz[i] - p.hz[i - 1])), k

    used = [float(p.hz[i]) for p, i in zip(lists, pick, strict=True)]
    steps = [down(k) for k in range(len(lists)) if pick[k] > 0]
    heapq.heapify(steps)
    while math.fsum(used) > limit:
        if not steps:
            return False
        _rate, k = heapq.heappop(steps)
        pick[k] -= 1
        used[k] = float(lists[k].hz[pick[k]])
        if pick[k] > 0:
            heapq.heappush(steps, down(k))
    return True


def _fill(lists: list[Points], pick: IntArray, limit: float) -> None:
    """Step up where a Hz brings most while any step fits."""

    def up(k: int) -> tuple[float, int, int] | None:
        """(Less what a Hz brings in the best step up of device k that fits, k, where to); None if none pays."""
        p, i = lists[k], pick[k]
        more = p.hz[i + 1 :] - p.hz[i]
        fits = int(np.searchsorted(more, left, side="right"))
        if not fits:
            return None
        rates = (p.cost[i] - p.cost[i + 1 : i + 1 + fits]) / more[:fits]
        j = int(np.argmax(rates))
        return (-float(rates[j]), k, i + 1 + j) if rates[j] > 0.0 else None

    used = [float(p.hz[i]) for p, i in zip(lists, pick, strict=True)]
    left = limit - math.fsum(used)
    steps = [step for step in map(up, range(len(lists))) if step is not None]
    heapq.heapify(steps)
    while steps:
        known = heapq.heappop(steps)
        _rate, k, to = known
        step = up(k)  # room has only shrunk since, and what fits brings no more than it did
        if step == known:
            pick[k], used[k] = to, float(lists[k].hz[to])
            left = limit - math.fsum(used)
            step = up(k)
        if step is not None:
            heapq.heappush(steps, step)


def _exchange(lists: list[Points], pick: IntArray, limit: float, control: Control) -> None:
    """Change any two devices' points at once while that lowers the cost; every change is followed by a fill."""
    for _ in range(200):
        left = limit - math.fsum(p.hz[i] for p, i in zip(lists, pick, strict=True))
        gain, change = 1e-13, None
        for a, p in enumerate(lists):
            if control.stopped():
                return
            for b in range(a):
                r = lists[b]
                room = left + p.hz[pick[a]] + r.hz[pick[b]]
                j = np.searchsorted(r.hz, room - p.hz, side="right") - 1  # b's best point beside each of a's
                cost = np.where(j >= 0, p.cost + r.cost[np.maximum(j, 0)], math.inf)
                i = int(np.argmin(cost))
                saved = p.cost[pick[a]] + r.cost[pick[b]] - cost[i]
                if saved > gain:
                    gain, change = float(saved), (a, b, i, int(j[i]))
        if change is None:
            return
        a, b, i, jj = change
        pick[a], pick[b] = i, jj
        _fill(lists, pick, limit)
