"""A shared band in steps: blocks, keep levels, menus and selection as points (bandwidth, cost) per device.

At the price nu each device has a list of points, fewer Hz for more cost. Which point each takes is a knapsack with
one choice per device; P-SCA's relaxed answer is rounded into it, made to fit, filled up and improved by exchanges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgealloc.formulation.device import chosen_adapter
from edgealloc.solvers.fdma.bandwidth import least_bandwidth
from edgealloc.solvers.fdma.cell import SHRINK
from edgealloc.solvers.psca.model import Iterate, Model
from edgealloc.solvers.psca.plan import Plan, best_plan, factors, out_cost, own_cost
from edgealloc.solvers.row import device_rows
from edgealloc.units import FloatArray, IntArray

__all__ = ["Points", "needs_hz", "share_out"]

_RATES = 96  # keep rates tried for a device without levels
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


def _points(model: Model, nu: float) -> list[Points]:
    """The undominated points of every device at the price nu."""
    problem, inst = model.problem, model.problem.instance
    depth, k = model.has_row.shape
    factor, out = factors(problem, depth), out_cost(problem)
    levels = inst.keep_levels or (None,) * k
    rates = [
        np.geomspace(inst.keep_min[i], inst.keep_max[i], _RATES) if levels[i] is None else np.asarray(levels[i])
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


def share_out(model: Model, at: Iterate, search: bool) -> tuple[FloatArray, Plan] | None:
    """Round the iterate to points that fit the band; bandwidths in Hz [K] and the plan, None if nothing fits.

    ``search`` replaces the rounding by dynamic programming and adds exchanges of any two devices.
    """
    problem, inst = model.problem, model.problem.instance
    # sums of whole blocks are exact to rounding; the allocation is checked against the true band in any case
    limit = model.column_hz * (1.0 + 1e-12 if model.blocks else 1.0 - 1e-14)
    wanted = at.share[:, 0] * model.column_hz * (1.0 + (1e-3 if model.blocks else 1e-6))
    best: tuple[FloatArray, Plan] | None = None
    q = float(inst.weights @ np.square(at.keep))
    for _ in range(3):
        nu = problem.stability.pooled_slope(q) if problem.pooled else 0.0
        lists = _points(model, nu)
        if any(len(p.hz) == 0 for p in lists):
            return best
        pick = np.array([
            max(int(np.searchsorted(p.hz, w, side="right")) - 1, 0) for p, w in zip(lists, wanted, strict=True)
        ])  # fmt: skip
        picks = [pick]
        if search and (knapsack := _knapsack(lists, limit, model.blocks)) is not None:
            picks.append(knapsack)
        found: list[tuple[FloatArray, Plan]] = []
        for pick in picks:
            if not _fit(lists, pick, limit):
                continue
            _fill(lists, pick, limit)
            if search:
                _exchange(lists, pick, limit)
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


def _knapsack(lists: list[Points], limit: float, blocks: int) -> IntArray | None:
    """Cheapest points that fit, by dynamic programming over the band: exact in blocks, else in bins rounded up."""
    bins = blocks or _BINS
    width = limit / bins
    infinite = np.full(bins + 1, math.inf)
    best = np.zeros(bins + 1)  # cost of the devices so far when at most so many bins are used
    choices = np.zeros((len(lists), bins + 1), dtype=np.intp)
    sizes = [np.ceil(p.hz / width * (1.0 - 1e-9)).astype(np.intp) for p in lists]
    for k, p in enumerate(lists):
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
    total = math.fsum(p.hz[i] for p, i in zip(lists, pick, strict=True))
    while total > limit:
        best, rate = -1, math.inf
        for k, p in enumerate(lists):
            if pick[k] > 0:
                step = (p.cost[pick[k] - 1] - p.cost[pick[k]]) / (p.hz[pick[k]] - p.hz[pick[k] - 1])
                if step < rate:
                    best, rate = k, step
        if best < 0:
            return False
        pick[best] -= 1
        total = math.fsum(p.hz[i] for p, i in zip(lists, pick, strict=True))
    return True


def _fill(lists: list[Points], pick: IntArray, limit: float) -> None:
    """Step up where a Hz brings most while any step fits."""
    while True:
        left = limit - math.fsum(p.hz[i] for p, i in zip(lists, pick, strict=True))
        best, rate, to = -1, 0.0, 0
        for k, p in enumerate(lists):
            more = p.hz[pick[k] + 1 :] - p.hz[pick[k]]
            fits = int(np.searchsorted(more, left, side="right"))
            if fits:
                rates = (p.cost[pick[k]] - p.cost[pick[k] + 1 : pick[k] + 1 + fits]) / more[:fits]
                j = int(np.argmax(rates))
                if rates[j] > rate:
                    best, rate, to = k, float(rates[j]), pick[k] + 1 + j
        if best < 0:
            return
        pick[best] = to


def _exchange(lists: list[Points], pick: IntArray, limit: float) -> None:
    """Change any two devices' points at once while that lowers the cost; every change is followed by a fill."""
    for _ in range(200):
        left = limit - math.fsum(p.hz[i] for p, i in zip(lists, pick, strict=True))
        gain, change = 1e-13, None
        for a, p in enumerate(lists):
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
