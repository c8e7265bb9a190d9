"""Whole sub-carriers: rounding of shares, then repair and polish by cyclic exchanges.

Costs are looked up: per device and menu row a table gives the best cost of a device whose keep rate is capped, at
the price nu of kept shares. So levels, menus, selection and any underfitting term cost the search nothing extra.

Derived: docs/psca.md, section 5.
"""

from __future__ import annotations

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.psca.model import Model
from edgealloc.solvers.psca.plan import Plan, best_plan, factors, out_cost, own_cost
from edgealloc.solvers.psca.rounding.exchange import exchange, nodes
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["caps_of_owner", "deal", "whole_columns"]

_TICKS = 1024  # entries of a cost table; linear between them, so costs err by (log range / ticks)^2 / 8
_LONGEST = 5  # devices in an exchange; a sixth gained nothing on the suite `gap`
_CALL, _CALL_WORK = 8, 2e8  # exchanges, and steps along paths of an exchange, between two looks at the clock
_LEAST = 1e-12  # gains below this share of the objective are rounding
_PRICES = 4  # times that the price of kept shares is set anew


def whole_columns(share: FloatArray) -> IntArray:
    """Owner of each column: the device with more than half of it, -1 where there is none. Shape [M]."""
    owner = np.argmax(share, axis=0)
    return np.where(np.max(share, axis=0) > 0.5, owner, -1)


def caps_of_owner(model: Model, owner: IntArray) -> FloatArray:
    """Largest keep rate per menu row, with rate, power and level, of whole columns. Shape [O, K, 4]."""
    k = len(model.inverse_w)
    return model.caps((owner[None, :] == np.arange(k)[:, None]).astype(np.float64))


def deal(model: Model, owner: IntArray, control: Control) -> tuple[IntArray, Plan | None]:
    """Exchange columns until no exchange lowers the cost, first that of devices below their least keep rate.

    When time is up, columns that nobody owns are dealt out where that is needed for a plan.

    Parameters
    ----------
    model
        The problem as arrays.
    owner
        Owner of each column, -1 for nobody. Shape [M].
    control
        Stops between exchanges.

    Returns
    -------
    owner, plan
        The owners, shape [M], and the best plan on them; None where repair failed.
    """
    problem = model.problem
    depth, devices = model.has_row.shape
    best_owner, best = owner, best_plan(problem, caps_of_owner(model, owner)[:, :, 0], model.has_row)
    q = 0.1 if best is None else float(problem.instance.weights @ np.square(best.keep))
    at = nodes(owner, devices)
    call = max(1, min(_CALL, int(_CALL_WORK / (_LONGEST * len(at) ** 3))))
    stale, caps = np.ones(devices + 1, dtype=bool), np.empty((depth, len(at), len(at)))
    size = abs(problem.free_objective)
    large = 1e6 * (size + problem.instance.bound.underfit_weight)
    out = out_cost(problem)
    for _ in range(_PRICES):
        if control.stopped():
            break
        nu = problem.stability.pooled_slope(q) if problem.pooled else 0.0
        costs = _costs(model, nu)

        def changed(limit: int, costs: tuple[FloatArray, FloatArray, BoolArray] = costs) -> int:
            """What :func:`exchange` did up to a limit."""
            return exchange(  # type: ignore[no-any-return]
                model.rows, model.has_row, model.band, model.inverse_w, model.order, *costs, out, large,
                _LEAST * size, _LONGEST, limit, at, stale, caps,
            )  # fmt: skip

        while not control.stopped() and changed(0):  # caps first, for each device anew
            pass
        while not control.stopped() and changed(call) == call:
            pass
        trial = np.where(at[: len(owner)] < devices, at[: len(owner)], -1)
        plan = best_plan(problem, caps_of_owner(model, trial)[:, :, 0], model.has_row)
        if plan is None or (best is not None and not plan.value < best.value * (1.0 - _LEAST)):
            break
        best_owner, best = trial, plan
        kept = float(problem.instance.weights @ np.square(plan.keep))
        if abs(kept - q) < 1e-3 * q:
            break
        q = kept
    if best is None and control.stopped():
        best_owner = _dealt_out(model, owner)
        best = best_plan(problem, caps_of_owner(model, best_owner)[:, :, 0], model.has_row)
    return best_owner, best


def _dealt_out(model: Model, owner: IntArray) -> IntArray:
    """Columns without an owner, one by one to a device below its least keep rate, else to who keeps least. [M].

    Each takes its best one. Of those below their least the one with the fewest columns comes first.
    """
    owner, low = owner.copy(), model.keep_range()[0]
    caps = caps_of_owner(model, owner)[:, :, 0].max(axis=0)
    count = np.bincount(owner[owner >= 0], minlength=len(low))
    for _ in range(int(np.sum(owner < 0))):
        short = caps < low
        k = int(np.argmin(np.where(short, count, np.inf) if short.any() else caps))
        m = int(np.argmin(np.where(owner < 0, model.inverse_w[k], np.inf)))
        if owner[m] >= 0:  # no gain on any column that is left
            m = int(np.argmin(owner))
        owner[m], count[k] = k, count[k] + 1
        caps[k] = model.caps_of(k, (owner == k).astype(np.float64)).max()
    return owner


def _costs(model: Model, nu: float) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Keep rates [K, T], least cost of a device capped there [O, K, T], and who is allowed only these rates [K].

    Under a common rate a steep soft minimum stands for the cost.
    """
    problem, inst = model.problem, model.problem.instance
    low, high = model.keep_range()
    ticks = np.ascontiguousarray(np.geomspace(low, np.maximum(high, low * (1.0 + 1e-9)), _TICKS, axis=1))
    levels = inst.keep_levels or (None,) * len(low)
    for k, allowed in enumerate(levels):
        if allowed is not None:
            ticks[k] = np.append(allowed, np.full(_TICKS - len(allowed), np.inf))
    rate = np.where(np.isfinite(ticks), ticks, high[:, None])
    if inst.common_keep:
        cost = np.broadcast_to(rate**-8.0, (len(model.has_row), *rate.shape))
    else:
        cost = own_cost(problem, factors(problem, len(model.has_row))[:, None, :], rate.T, nu).swapaxes(1, 2)
    least = np.ascontiguousarray(np.minimum.accumulate(cost, axis=2))
    return ticks, least, np.array([allowed is not None for allowed in levels])
