"""Whole sub-carriers: rounding of shares, repair, and local search by moves and swaps.

Costs are looked up: per device and menu row a table gives the best cost of a device whose keep rate is capped, at
the price nu of kept shares. So levels, menus, selection and any underfitting term cost the search nothing extra.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from edgealloc.solvers.psca_cap import set_cap
from edgealloc.solvers.psca_model import IntArray, Model
from edgealloc.solvers.psca_plan import Plan, answer_costs, best_plan, out_cost
from edgealloc.units import FloatArray

__all__ = ["caps_of_owner", "deal", "whole_columns"]

_TICKS = 160  # entries of a cost table over log s


def whole_columns(share: FloatArray) -> IntArray:
    """Owner of each column: the device with more than half of it, -1 where there is none. Shape [M]."""
    owner = np.argmax(share, axis=0)
    return np.where(np.max(share, axis=0) > 0.5, owner, -1)


def caps_of_owner(model: Model, owner: IntArray) -> FloatArray:
    """Largest keep rate per menu row, with rate, power and level, of whole columns. Shape [O, K, 4]."""
    k = len(model.inverse_w)
    return model.caps((owner[None, :] == np.arange(k)[:, None]).astype(np.float64))


def deal(model: Model, owner: IntArray, search: bool, passes: int = 20) -> tuple[IntArray, Plan | None]:
    """Hand out free columns, repair devices below their least keep rate, and (``search``) improve.

    Returns the owners and the best plan on them; None where repair failed.
    """
    problem = model.problem
    best_owner, best = owner, best_plan(problem, caps_of_owner(model, owner)[:, :, 0], model.has_row)
    q = 0.1 if best is None else float(problem.instance.weights @ np.square(best.keep))
    for turn in range(4):
        trial = best_owner.copy()
        nu = problem.stability.pooled_slope(q) if problem.pooled else 0.0
        grid, table = _cost_tables(model, nu)
        order, inverse = np.ascontiguousarray(model.order), np.ascontiguousarray(model.inverse_w)
        _improve(
            model.rows, model.has_row, model.band, inverse, order, trial, grid, table,
            np.where(np.isfinite(out := out_cost(problem)), out, 1e300), passes, search,
        )  # fmt: skip
        plan = best_plan(problem, caps_of_owner(model, trial)[:, :, 0], model.has_row)
        if plan is None or (best is not None and not plan.value < best.value * (1.0 - 1e-12)):
            break
        best_owner, best = trial, plan
        q_new = float(problem.instance.weights @ np.square(plan.keep))
        if abs(q_new - q) < 1e-3 * q:
            break
        q = q_new
        if not search and turn > 0:
            break
    return best_owner, best


def _cost_tables(model: Model, nu: float) -> tuple[FloatArray, FloatArray]:
    """(log of the first tick, step) and costs [O, K, ticks] of caps; under a common rate a steep soft minimum."""
    problem, inst = model.problem, model.problem.instance
    depth, k = model.has_row.shape
    low, high = float(np.log(inst.keep_min.min())), float(np.log(inst.keep_max.max()))
    ticks = np.linspace(low, max(high, low + 1e-9), _TICKS)
    table = np.empty((depth, k, _TICKS))
    for j, tick in enumerate(ticks):
        cap = math.exp(tick)
        if inst.common_keep:
            table[:, :, j] = np.where(cap >= inst.keep_min, cap**-8.0, math.inf)
        else:
            table[:, :, j] = answer_costs(problem, np.full((depth, k), cap * (1.0 + 1e-12)), nu)[1]
    return np.array([ticks[0], ticks[1] - ticks[0]]), table


@njit(cache=True, error_model="numpy")
def _cost(rows, has_row, band, inverse, order, owner, k, grid, table, out, work):  # type: ignore[no-untyped-def]
    """Cost of device k on its columns: the best menu row, or out; a large one that still falls if neither."""
    best, most = out[k], -2.0
    for o in range(len(rows)):
        if not has_row[o, k]:
            continue
        cap = set_cap(rows[o, k], band, inverse[k], order[k], owner, k, work)[0]
        most = max(most, cap)
        if cap > 0.0:
            at = (math.log(cap) - grid[0]) / grid[1]
            if at >= 0.0:
                i = min(int(at), table.shape[2] - 1)
                value = table[o, k, i]
                if i + 1 < table.shape[2] and value < math.inf:
                    value += (at - i) * (table[o, k, i + 1] - value)
                best = min(best, value)
    return best if best < 1e200 else 1e6 * (3.0 - most)


@njit(cache=True, error_model="numpy")
def _improve(rows, has_row, band, inverse, order, owner, grid, table, out, passes, search):  # type: ignore[no-untyped-def]
    """Give each column to its best device, then swap pairs, while costs fall; ``owner`` [M] is changed.

    Without ``search`` only columns without an owner move, or any while some device has no feasible cost (repair).
    """
    n_dev, n_col = inverse.shape
    work = np.empty((2, n_col))
    cost = np.empty(n_dev)
    for k in range(n_dev):
        cost[k] = _cost(rows, has_row, band, inverse, order, owner, k, grid, table, out, work)
    for _ in range(passes):
        improved = False
        broken = cost.max() > 1e5
        for m in range(n_col):
            k1 = owner[m]
            if k1 >= 0 and not (search or broken):
                continue
            owner[m] = -1
            without = (
                _cost(rows, has_row, band, inverse, order, owner, k1, grid, table, out, work) if k1 >= 0 else 0.0
            )
            lost = without - cost[k1] if k1 >= 0 else 0.0
            best, best_k, best_cost = -1e-13, -1, 0.0
            for k2 in range(n_dev):
                if k2 != k1:
                    owner[m] = k2
                    trial = _cost(rows, has_row, band, inverse, order, owner, k2, grid, table, out, work)
                    if lost + trial - cost[k2] < best:
                        best, best_k, best_cost = lost + trial - cost[k2], k2, trial
            owner[m] = k1
            if best_k >= 0:
                owner[m] = best_k
                cost[best_k] = best_cost
                if k1 >= 0:
                    cost[k1] = without
                improved = True
        if search or cost.max() > 1e5:
            for m in range(n_col):
                for m2 in range(m + 1, n_col):
                    k1, k2 = owner[m], owner[m2]
                    if k1 == k2 or k1 < 0 or k2 < 0:
                        continue
                    owner[m], owner[m2] = k2, k1
                    c1 = _cost(rows, has_row, band, inverse, order, owner, k1, grid, table, out, work)
                    if c1 < cost[k1] + cost[k2]:
                        c2 = _cost(rows, has_row, band, inverse, order, owner, k2, grid, table, out, work)
                        if c1 + c2 < cost[k1] + cost[k2] - 1e-13:
                            cost[k1], cost[k2] = c1, c2
                            improved = True
                            continue
                    owner[m], owner[m2] = k1, k2
        if not improved:
            break
