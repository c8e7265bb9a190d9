"""Best keep rates, menu rows and selection when the spectrum is dealt: what polish and repair decide.

Given each device's largest keep rate per menu row, only the stability term couples devices. Under global pooling
its slope is a price nu on w s^2: devices answer nu one by one, and nu is found by bisection on Q = sum w s^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Plan", "answer_costs", "best_plan", "own_cost"]

_GRID = 65  # first grid of a search in log s, then refined twice around its best point


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What every device keeps and trains.

    Parameters
    ----------
    keep
        Keep rates, 0 when left out. Shape [K].
    option
        Menu rows, -1 without a menu. Shape [K].
    selected
        Who takes part. Shape [K].
    value
        The bound G.
    """

    keep: FloatArray
    option: IntArray
    selected: BoolArray
    value: float


def factors(problem: Problem, depth: int) -> FloatArray:
    """Underfit factor of each menu row. Shape [O, K]."""
    inst = problem.instance
    if inst.adapter_options is None:
        return np.ones((depth, inst.num_devices))
    sizes = np.array([len(m) if m is not None else 0 for m in inst.adapter_options or (None,) * inst.num_devices])
    rows = [np.where(sizes > 0, np.minimum(o, sizes - 1), -1) for o in range(depth)]
    return np.stack([chosen_adapter(inst, row).underfit_factor for row in rows])


def own_cost(problem: Problem, factor: FloatArray, keep: FloatArray, nu: float) -> FloatArray:
    """A device's own part of the objective: A w f u(s) + nu w s^2, or with its own gap under device pooling.

    Parameters
    ----------
    problem
        Its weights and terms.
    factor
        Factor f of the menu row. Any shape that broadcasts with [K] last.
    keep
        Keep rates. Any shape that broadcasts with [K] last.
    nu
        Price of w s^2; not used under device pooling.

    Returns
    -------
    array
        Of the shape of both.
    """
    inst = problem.instance
    square = np.square(keep)
    cost = inst.bound.underfit_weight * inst.weights * factor * problem.underfit.value(keep)
    spread = nu * square if problem.pooled else problem.stability.value(square)
    return np.asarray(cost + inst.weights * spread)


def out_cost(problem: Problem) -> FloatArray:
    """Cost of leaving a device out, ``inf`` without selection. Shape [K]."""
    inst = problem.instance
    if inst.exclusion_penalty is None:
        return np.full(inst.num_devices, math.inf)
    cost = inst.bound.underfit_weight * inst.weights * inst.exclusion_penalty
    return cost if problem.pooled else cost + inst.weights * problem.stability.value(np.zeros(inst.num_devices))


def answer_costs(problem: Problem, caps: FloatArray, nu: float) -> tuple[FloatArray, FloatArray]:
    """Best allowed keep rate up to each cap, and its cost at a price.

    Parameters
    ----------
    problem
        Its ranges, levels and terms.
    caps
        Largest keep rate per menu row. Shape [O, K].
    nu
        Price of w s^2.

    Returns
    -------
    keep, cost
        Shapes [O, K]; the cost is ``inf`` where no rate is allowed.
    """
    inst = problem.instance
    factor = factors(problem, len(caps))
    low, fits = inst.keep_min, caps >= inst.keep_min
    top = np.where(fits, np.minimum(caps, inst.keep_max), low)
    if problem.underfit.name == "inverse-keep" and problem.pooled:
        with np.errstate(divide="ignore"):
            wanted = (
                np.cbrt(inst.bound.underfit_weight * factor / (2.0 * nu)) if nu > 0.0 else np.full_like(top, 1.0)
            )
        keep = np.clip(wanted, low, top)
    else:
        left, right = np.log(low) + 0.0 * top, np.log(top)
        keep = top
        for _ in range(3):
            ticks = left + np.linspace(0.0, 1.0, _GRID)[:, None, None] * (right - left)
            trial = np.clip(np.exp(ticks), low, top)
            trial[-1] = np.where(right >= np.log(top), top, trial[-1])
            cost = own_cost(problem, factor, trial, nu)
            best = np.argmin(cost, axis=0)
            keep = np.take_along_axis(trial, best[None], axis=0)[0]
            step = (right - left) / (_GRID - 1)
            left, right = left + np.maximum(best - 1, 0) * step, left + np.minimum(best + 1, _GRID - 1) * step
    given = inst.keep_levels or (None,) * inst.num_devices
    discrete = np.array([levels is not None for levels in given])
    best = np.full(caps.shape, math.inf)
    fits[:, discrete] = False
    for j in range(max((len(levels) for levels in given if levels is not None), default=0)):
        level = np.array([0.5 if row is None or j >= len(row) else row[j] for row in given])
        real = np.array([row is not None and j < len(row) for row in given])
        allowed = real & (level <= caps)
        cost = np.where(allowed, own_cost(problem, factor, level, nu), math.inf)
        better = allowed & ((cost < best) | ~(fits | ~discrete))
        keep, best = np.where(better, level, keep), np.where(better, cost, best)
        fits |= allowed
    return keep, np.where(fits, own_cost(problem, factor, keep, nu), math.inf)


def best_plan(problem: Problem, caps: FloatArray, has_row: BoolArray) -> Plan | None:
    """The plan of least G under caps.

    Parameters
    ----------
    problem
        Its ranges, levels, menus and terms.
    caps
        Largest keep rate per menu row. Shape [O, K].
    has_row
        Which menu rows a device has. Shape [O, K].

    Returns
    -------
    Plan or None
        None where a device that must take part cannot.
    """
    inst = problem.instance
    caps = np.where(has_row, caps, -2.0)
    if inst.common_keep:
        return _common_plan(problem, caps)
    out, menu = (
        out_cost(problem),
        np.array([m is not None for m in inst.adapter_options or (None,) * inst.num_devices]),
    )

    def respond(nu: float) -> tuple[FloatArray, IntArray, BoolArray] | None:
        """Keep rates, menu rows and selection at a price, shapes [K]; None where a device has no answer."""
        keep, cost = answer_costs(problem, caps, nu)
        option = np.argmin(cost, axis=0)
        least = np.take_along_axis(cost, option[None], axis=0)[0]
        selected = least <= out if inst.exclusion_penalty is not None else np.isfinite(least)
        selected &= np.isfinite(least)
        if not np.all(selected | np.isfinite(out)):
            return None
        chosen = np.take_along_axis(keep, option[None], axis=0)[0]
        return np.where(selected, chosen, 0.0), np.where(menu, np.where(selected, option, 0), -1), selected

    def plan(answer: tuple[FloatArray, IntArray, BoolArray]) -> Plan:
        keep, option, selected = answer
        return Plan(keep, option, selected, problem.objective(keep, selected, np.maximum(option, 0)))

    if not problem.pooled:
        answer = respond(0.0)
        return None if answer is None else plan(answer)
    low, high = 0.0, 1.0
    below, above = respond(problem.stability.pooled_slope(high)), respond(problem.stability.pooled_slope(low))
    if below is None or above is None:
        return None
    f_low, f_high = (float(inst.weights @ np.square(a[0])) - q for a, q in ((above, low), (below, high)))
    for turn in range(100):  # what devices keep falls in q: secant and bisection in turn, for it may jump
        part = 0.5 if turn % 2 or not f_low > f_high else f_low / (f_low - f_high)
        q = low + part * (high - low)
        answer = respond(problem.stability.pooled_slope(q))
        assert answer is not None
        f = float(inst.weights @ np.square(answer[0])) - q
        if f >= 0.0:
            low, above, f_low = q, answer, f
        else:
            high, below, f_high = q, answer, f
        if high - low < 1e-13 or abs(f) < 1e-13:
            break
    plans = [plan(below), plan(above)]
    same = np.array_equal(below[1], above[1]) and np.array_equal(below[2], above[2])
    if same and inst.keep_levels is None:  # answers that jump at a price: mix their squares to meet Q
        lower, upper = np.square(below[0]), np.square(above[0])
        rise = float(inst.weights @ (upper - lower))
        if rise > 1e-13:
            part = min(max((low - float(inst.weights @ lower)) / rise, 0.0), 1.0)
            mixed = np.sqrt(lower + part * (upper - lower))
            mixed = np.where(
                below[2], np.clip(mixed, np.minimum(below[0], above[0]), np.maximum(below[0], above[0])), 0.0
            )
            plans.append(plan((mixed, below[1], below[2])))
    return min(plans, key=lambda p: p.value)


def _common_plan(problem: Problem, caps: FloatArray) -> Plan | None:
    """One rate for all that take part: those with the largest caps, any number of them, every good rate."""
    inst = problem.instance
    option = np.argmax(caps, axis=0)  # the row that carries most; a smaller factor may come at its cap
    top = np.take_along_axis(caps, option[None], axis=0)[0]
    menu = np.array([m is not None for m in inst.adapter_options or (None,) * inst.num_devices])
    low, high = float(inst.keep_min.max()), float(inst.keep_max.min())
    lists = [set(levels.tolist()) for levels in inst.keep_levels or () if levels is not None]
    order = np.argsort(-top, kind="stable")
    counts = range(len(order) + 1) if inst.exclusion_penalty is not None else (len(order),)
    best: Plan | None = None
    for count in counts:
        selected = np.zeros(len(order), dtype=bool)
        selected[order[:count]] = True
        cap = min(high, float(top[selected].min())) if count else high
        if cap < low:
            continue
        rates = np.geomspace(low, cap, 129) if cap > low else np.array([cap])
        rates[-1] = cap
        if lists:
            rates = np.array(sorted(s for s in set.intersection(*lists) if low <= s <= cap))
        for turn in range(1 if lists else 4):
            if not len(rates):
                break
            i = int(np.argmin(_group_values(problem, caps, rates, selected)))
            keep = np.where(selected, rates[i], 0.0)
            rows = np.where(menu & selected, _least_factor(problem, caps, rates[i]), -1)
            rows = np.where(menu, np.maximum(rows, 0), -1)
            value = problem.objective(keep, selected, np.maximum(rows, 0))
            if best is None or value < best.value:
                best = Plan(keep, rows, selected, value)
            if len(rates) == 1 or turn == 3:
                break
            rates = np.linspace(rates[max(i - 1, 0)], rates[min(i + 1, len(rates) - 1)], 33)
    return best


def _group_values(problem: Problem, caps: FloatArray, rates: FloatArray, selected: BoolArray) -> FloatArray:
    """The bound G of those who take part, each in its row of least underfitting, at common rates. Shapes [R]."""
    factor = np.where(caps >= rates[:, None, None], factors(problem, len(caps)), math.inf).min(axis=1)
    cost = np.where(selected, own_cost(problem, np.where(selected, factor, 1.0), rates[:, None], 0.0), 0.0)
    total = cost.sum(axis=1) + float(np.sum(out_cost(problem), where=~selected))
    if problem.pooled:
        total += problem.stability.value(np.square(rates) * float(problem.instance.weights @ selected))
    return np.asarray(total)


def _least_factor(problem: Problem, caps: FloatArray, keep: float) -> IntArray:
    """The menu row of least underfitting that carries a keep rate. Shape [K]."""
    factor = np.where(caps >= keep, factors(problem, len(caps)), math.inf)
    return np.asarray(np.argmin(factor, axis=0))
