"""G_free: the least bound when nothing is scarce, the reference of the excess gap.

Only the ranges keep_min..keep_max remain (docs/model.md, *What is minimised*); discrete levels are ignored. Of a
menu the row with the least underfitting counts, and a device may be left out where selection allows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.formulation.bound import UnderfitTerm, dropped_of
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.logistic import Logistic, deepest_rate
from edgealloc.formulation.objective import Objective
from edgealloc.formulation.valleys import Spread, deepest_keep
from edgealloc.units import FloatArray, IntArray

__all__ = ["free_minimum"]

_GRID = 513  # samples of a keep range before the best interval is refined
_ROOT = 200  # steps of a root search at most
_REACHED = 1e-12  # relative: a value so close to its lower bound is the minimum
_REFINE = 10  # times a common rate's interval is cut to a 32nd of itself: to neighbouring doubles, if need be


def free_minimum(objective: Objective) -> tuple[float, FloatArray]:
    """Least G without resource constraints and the keep rates that attain it (0 for a device left out).

    Exact, measured curves of any shape too, but for curves or selection under global pooling and for selection
    with one common rate: there the value is that of the convex relaxation, below the minimum but for rounding. So
    it is where no keep rates in doubles reach the minimum, which near 1 are far apart beside what is dropped.

    Returns
    -------
    objective, keep
        Scalar and shape [K].
    """
    if objective.pools is not None:
        return _by_cluster(objective, objective.pools)
    option = _best_option(objective)
    if objective.instance.common_keep:
        return _common_rate(objective, option)
    if objective.pooled:
        return _global_pooling(objective, option)
    keep = _Minimiser.of(objective)(0.0)
    return objective(keep, keep > 0, option), keep


def _by_cluster(objective: Objective, pools: IntArray) -> tuple[float, FloatArray]:
    """Without resources nothing couples clusters: each alone, under global pooling among its devices."""
    samples, keep, total = objective.instance.samples, np.empty(len(pools)), 0.0
    for cluster in range(int(pools.max()) + 1):
        mine, part = objective.of_cluster(cluster)
        value, keep[mine] = free_minimum(part)
        total += float(samples[mine].sum() / samples.sum()) * value
    return total, keep


def _best_option(objective: Objective) -> IntArray:
    """Menu row with the least underfitting factor (the term is never negative), 0 without a menu. Shape [K]."""
    inst = objective.instance
    rows = np.zeros(inst.num_devices, dtype=np.intp)
    for k, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            rows[k] = int(np.argmin([row.underfit_factor for row in menu]))
    return rows


@dataclass(frozen=True, slots=True, eq=False)
class _Minimiser:
    """Minimises ``A f u(s)`` plus the stability share over the keep range of every device.

    Under global pooling the share is ``price s^2`` and devices differ in factor and range only, so equal
    devices (the usual case) are solved once.
    """

    objective: Objective
    weight: FloatArray
    low: FloatArray
    high: FloatArray

    @classmethod
    def of(cls, objective: Objective) -> _Minimiser:
        inst = objective.instance
        factor = chosen_adapter(inst, _best_option(objective)).underfit_factor
        table = np.stack([inst.bound.underfit_weight * factor, inst.keep_min, inst.keep_max])
        alike = len(objective.underfit.parts(np.arange(inst.num_devices))) == 1
        if objective.pooled and alike and np.all(table == table[:, :1]):
            table = table[:, :1]
        return cls(objective, *table)

    def __call__(self, price: float) -> FloatArray:
        """Best keep rates, 0 for a device better left out. Shape [K]. ``price`` is for global pooling only."""
        keep = np.empty_like(self.low)
        for term, mine in self.objective.underfit.parts(np.arange(len(self.low))):
            keep[mine] = self._best(term, np.flatnonzero(mine), price)
        return np.broadcast_to(keep, self.objective.instance.samples.shape)

    def _best(self, term: UnderfitTerm, which: IntArray, price: float) -> FloatArray:
        """Best keep rates of devices under their term. Shapes [N]."""
        objective, inst = self.objective, self.objective.instance
        weight, low, high = self.weight[which], self.low[which], self.high[which]
        gap = (
            objective.stability
            if objective.pooled
            else replace(objective.stability, scale=objective.stability.scale[which])
        )

        def share(keep: FloatArray) -> FloatArray:
            spread = price * np.square(keep) if objective.pooled else gap.of_dropped(dropped_of(keep))
            return np.asarray(weight * term.value(keep) + spread)

        if term.name == "inverse-keep" and objective.pooled:
            ratio = np.divide(weight, 2.0 * price) if price > 0.0 else np.full_like(low, np.inf)
            keep = np.clip(np.cbrt(ratio), low, high)
        elif term.name == "perturbation" and objective.pooled:  # a line in s^2
            keep = np.where(price > weight, low, high)
        elif term.name == "curve":
            keep = deepest_keep(term.value, weight, low, high, self._spread(price, which))
        elif isinstance(term.value, Logistic):
            keep = deepest_rate(term.value, weight, low, high, self._spread(price, which))
        else:
            left, right = low, high
            if not term.log_convex:  # several minima: start from the best grid cell
                ticks = np.linspace(0.0, 1.0, _GRID)
                cell = np.argmin(np.stack([share(low + tick * (high - low)) for tick in ticks]), axis=0)
                left = low + ticks[np.maximum(cell - 1, 0)] * (high - low)
                right = low + ticks[np.minimum(cell + 1, _GRID - 1)] * (high - low)
            keep = _golden(share, left, right)
            for end in (low, high):  # golden section never returns an end itself
                keep = np.where(share(end) <= share(keep), end, keep)
        if inst.exclusion_penalty is not None:
            out = np.full_like(keep, inst.bound.underfit_weight * inst.exclusion_penalty)
            if not objective.pooled:
                out += gap.value(np.zeros_like(keep))
            keep = np.where(share(keep) <= out, keep, 0.0)
        return np.asarray(keep)

    def _spread(self, price: float, which: IntArray) -> Spread:
        """Value and slope of the stability share in S = s^2 of devices, by their place in ``which`` [N]."""
        term = self.objective.stability

        def spread(k: IntArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
            if self.objective.pooled:
                return price * square, np.full_like(square, price)
            own = replace(term, scale=term.scale[which[k]])
            return own.value(square), own.slope(square)

        return spread


def _golden(share: Callable[[FloatArray], FloatArray], left: FloatArray, right: FloatArray) -> FloatArray:
    """Golden-section minimum of unimodal functions, all devices at once."""
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    a, b = left.copy(), right.copy()
    x, y = b - ratio * (b - a), a + ratio * (b - a)
    fx, fy = share(x), share(y)
    for _ in range(78):  # 0.618^78 = 5e-17 of the range: beside an end a minimum may be that sharp
        left_half = fx <= fy
        a, b = np.where(left_half, a, x), np.where(left_half, y, b)
        fresh = np.where(left_half, b - ratio * (b - a), a + ratio * (b - a))
        value = share(fresh)
        x, y = np.where(left_half, fresh, y), np.where(left_half, x, fresh)
        fx, fy = np.where(left_half, value, fy), np.where(left_half, fx, value)
    return np.asarray(np.where(fx <= fy, x, y))


def _common_rate(objective: Objective, option: IntArray) -> tuple[float, FloatArray]:
    """One rate for all: a grid over the rates, refined around its best point; a term's valleys are all seen."""
    inst = objective.instance
    everybody = np.ones(inst.num_devices)
    if objective.underfit.name in ("curve", "logistic") and inst.exclusion_penalty is None:
        return _common_valley(objective, option)
    if inst.exclusion_penalty is None:
        low, high = float(inst.keep_min.max()), float(inst.keep_max.min())
    else:
        low, high = float(inst.keep_min.min()), float(inst.keep_max.max())

    def values(keep: FloatArray) -> FloatArray:
        if inst.exclusion_penalty is None:
            return _all_at_once(objective, option, keep)
        return _relaxed_selection(objective, option, keep)

    # selection makes the value jump where a device's range begins or ends, a curve may where it was measured
    kinks = np.r_[inst.keep_min, inst.keep_max]
    if objective.underfit.name == "curve":
        knots = np.asarray(objective.underfit.value.x)  # type: ignore[attr-defined]
        kinks = np.r_[kinks, (knots[:-1, None] + np.linspace(0.0, 1.0, 9) * np.diff(knots)[:, None]).ravel()]
    elif isinstance(objective.underfit.value, Logistic):
        kinks = np.r_[kinks, objective.underfit.value.fall()]
    grid = np.union1d(np.linspace(low, high, _GRID), np.clip(kinks, low, high))
    for _ in range(1 + _REFINE):
        found = values(grid)
        best = int(np.argmin(found))
        least, keep = float(found[best]), grid[best]
        left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.union1d(np.linspace(left, keep, 33), np.linspace(keep, right, 33))  # the best once, to the bit
    return least, keep * everybody


def _all_at_once(objective: Objective, option: IntArray, keep: FloatArray) -> FloatArray:
    """G at common rates, inf where it is clearly more than the least of them. Shapes [R].

    All in one go first, in which sums are rounded in another order; G itself where that may matter.
    """
    inst, everybody = objective.instance, np.ones(objective.instance.num_devices)
    weight = inst.bound.underfit_weight * float(inst.weights @ chosen_adapter(inst, option).underfit_factor)
    dropped = dropped_of(keep)
    gap = (
        objective.stability.of_dropped(dropped)
        if objective.pooled
        else objective.stability.of_dropped(dropped[:, None]) @ inst.weights
    )
    rough = weight * np.asarray(objective.underfit.value(keep)) + gap
    close = np.flatnonzero(~(rough > rough.min() * (1.0 + 1e-12)))
    found = np.full(len(keep), np.inf)
    found[close] = [objective(s * everybody, None, option) for s in keep[close]]
    return found


def _common_valley(objective: Objective, option: IntArray) -> tuple[float, FloatArray]:
    """One rate for all on a curve or a logistic term: G is a multiple of it plus a convex function of s^2."""
    inst, gap = objective.instance, objective.stability
    weight = inst.bound.underfit_weight * float(inst.weights @ chosen_adapter(inst, option).underfit_factor)

    def spread(_k: IntArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
        if objective.pooled:
            return gap.value(square), gap.slope(square)
        own = square[:, None]
        return np.asarray(gap.value(own) @ inst.weights), np.asarray(gap.slope(own) @ inst.weights)

    low, high = np.array([inst.keep_min.max()]), np.array([inst.keep_max.min()])
    if isinstance(objective.underfit.value, Logistic):
        keep = deepest_rate(objective.underfit.value, np.array([weight]), low, high, spread)
    else:
        keep = deepest_keep(objective.underfit.value, np.array([weight]), low, high, spread)
    everybody = np.full(inst.num_devices, keep[0])
    return objective(everybody, None, option), everybody


def _relaxed_selection(objective: Objective, option: IntArray, keep: FloatArray) -> FloatArray:
    """Least G at common rates over who takes part, the last device in part: devices by their factor. Shapes [R].

    G is then a convex function of the weight that takes part, least next to the best number of whole devices.
    """
    inst = objective.instance
    loss, out = inst.bound.underfit_weight, inst.exclusion_penalty or 0.0
    spread, nobody = objective.stability.value, np.zeros(inst.num_devices)
    factor = chosen_adapter(inst, option).underfit_factor
    gain = loss * (factor * np.asarray(objective.underfit.value(keep))[:, None] - out)
    if not objective.pooled:
        gain = gain + spread(np.square(keep)[:, None]) - spread(nobody)
    allowed = (inst.keep_min <= keep[:, None]) & (keep[:, None] <= inst.keep_max)
    order = np.argsort(np.where(allowed, gain, np.inf), axis=1)
    weights = np.where(allowed, inst.weights, 0.0)  # [R, K]; who may not take part comes last and adds nothing
    weight, saved = np.zeros((2, len(keep), inst.num_devices + 1))
    np.cumsum(np.take_along_axis(weights, order, axis=1), axis=1, out=weight[:, 1:])
    np.cumsum(np.take_along_axis(weights * gain, order, axis=1), axis=1, out=saved[:, 1:])
    if not objective.pooled:  # separable: take whoever gains
        return np.asarray(loss * out + float(inst.weights @ spread(nobody)) + saved.min(axis=1))
    square = np.square(keep)
    whole = saved + spread(weight * square[:, None])
    at = np.argmin(whole, axis=1)
    row = np.arange(len(keep))
    corner, base = weight[row, at], saved[row, at]
    ends, slopes = [], []
    for beside in (np.maximum(at - 1, 0), np.minimum(at + 1, inst.num_devices)):
        ends.append(weight[row, beside])
        width = ends[-1] - corner
        slopes.append(np.divide(saved[row, beside] - base, width, out=np.zeros_like(width), where=width != 0.0))

    def value(taken: FloatArray) -> FloatArray:
        more = taken - corner
        return np.asarray(base + np.where(more < 0.0, slopes[0], slopes[1]) * more + spread(taken * square))

    a, b = ends
    for _ in range(100):
        third = (b - a) / 3.0
        falls = value(a + third) > value(b - third)
        a, b = np.where(falls, a + third, a), np.where(falls, b, b - third)
    return np.asarray(loss * out + np.minimum(value(a), whole[row, at]))


def _global_pooling(objective: Objective, option: IntArray) -> tuple[float, FloatArray]:
    """Root in D = 1 - Q: the price gap'(Q) makes devices answer with sum w (1 - s^2), which falls as D grows.

    D may be next to nothing, and the price then changes with digits that Q does not have.
    """
    weights, stability = objective.instance.weights, objective.stability
    minimise = _Minimiser.of(objective)

    def answer(dropped: float) -> tuple[FloatArray, float]:
        keep = minimise(stability.pooled_slope_of_dropped(dropped))
        return keep, dropped - float(weights @ dropped_of(keep))

    low, high = 0.0, 1.0
    keep_low, excess_low = answer(low)
    if excess_low >= 0.0:  # nobody drops anything
        return objective(keep_low, keep_low > 0, option), keep_low
    keep_high, excess_high = answer(high)
    side, widths = 0, [1.0] * 3
    for _ in range(_ROOT):  # Illinois: regula falsi that halves the weight of an end that stays
        d = low + (high - low) * excess_low / (excess_low - excess_high)
        widths.append(high - low)
        # at a jump an end is as good as reached, and the other one stays far
        if not low < d < high or widths[-1] > 0.5 * widths[-4]:
            d = _between(low, high)
        if not low < d < high or high - low <= 1e-15 * high:
            break
        keep, excess = answer(d)
        if excess <= 0.0:
            low, keep_low, excess_low = d, keep, excess
            excess_high *= 0.5 if side == -1 else 1.0
            side = -1
        else:
            high, keep_high, excess_high = d, keep, excess
            excess_low *= 0.5 if side == 1 else 1.0
            side = 1
        if abs(excess) <= 1e-15 * d:
            break
    # the dual value: tangent of the stability term at Q plus what the devices make of its slope
    best = -np.inf
    for d, keep in ((low, keep_low), (high, keep_high)):
        price, lost = stability.pooled_slope_of_dropped(d), float(weights @ dropped_of(keep))
        under = objective.terms(keep, keep > 0, option)[0]
        best = max(best, float(stability.of_dropped(np.asarray(d))) + under + price * (d - lost))
    answers = [keep_low, keep_high]
    if objective.underfit.square_convex and objective.instance.exclusion_penalty is None:
        # where answers jump, D lies between two of them, and every mixture of their squares is as good
        lost_low, lost_high = dropped_of(keep_low), dropped_of(keep_high)
        d_low, d_high = float(weights @ lost_low), float(weights @ lost_high)
        share = np.clip((low - d_low) / (d_high - d_low), 0.0, 1.0) if d_low != d_high else 0.0
        mixed = np.sqrt(1.0 - (lost_low + share * (lost_high - lost_low)))
        answers.append(np.clip(mixed, objective.instance.keep_min, objective.instance.keep_max))
    values = [objective(keep, keep > 0, option) for keep in answers]
    value, keep = min(values), answers[int(np.argmin(values))]
    # they may not reach it where they jump, and near 1, where doubles are far apart beside what is dropped
    return (value if value <= best + _REACHED * abs(best) else best), keep


def _between(low: float, high: float) -> float:
    """The middle, by magnitude where the ends are orders apart: what is dropped may be next to nothing."""
    return 0.5 * (low + high) if low > 0.25 * high else math.sqrt(max(low, 2.0**-100 * high)) * math.sqrt(high)
