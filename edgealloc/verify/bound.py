r"""The bound G and its free minimum, recomputed for the checker from docs/model.md, *What is minimised*.

No code is shared with the problem model, and the free minimum is found another way: by bisection on
derivatives in ``S = s^2``, on measured curves by halving intervals, and under global pooling by its dual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.curve_minimum import curve_minimum
from edgealloc.verify.form import total

__all__ = ["bound_value", "free_bracket"]

CURVE_DEVICES = 500  # free minima of curves are recomputed for at most so many devices
ACCURACY = 1e-9  # relative, of the free minimum


def bound_value(instance: Instance, keep: FloatArray, selected: BoolArray, factor: FloatArray) -> float:
    """G of keep rates (shape [K]); sums are correctly rounded."""
    penalty = 0.0 if instance.exclusion_penalty is None else instance.exclusion_penalty
    loss = np.full(instance.num_devices, float(penalty))
    if instance.device_underfit is None:
        loss[selected] = factor[selected] * _underfit(instance.bound)(keep[selected])
    else:
        for k in np.flatnonzero(selected):
            loss[k] = factor[k] * float(_underfit(instance.bound_of(int(k)))(keep[k]))
    share, dropped = _weights(instance), np.where(selected, (1.0 - keep) * (1.0 + keep), 1.0)
    underfit = instance.bound.underfit_weight * total((share * loss).tolist())
    if instance.bound.pooling == "global":
        pooled = np.asarray(total((share * dropped).tolist()))
        return underfit + float(_of_dropped(instance, pooled, np.asarray(total(instance.samples.tolist()))))
    if instance.bound.pooling == "cluster":
        return underfit + total([_of_cluster(instance, share, dropped, mine) for mine in _clusters(instance)])
    return underfit + total((share * _of_dropped(instance, dropped, instance.samples)).tolist())


def _clusters(instance: Instance) -> list[IntArray]:
    """The devices of each cluster."""
    names = np.array(instance.clusters)
    return [np.flatnonzero(names == name) for name in sorted(set(names.tolist()))]


def _of_cluster(instance: Instance, share: FloatArray, dropped: FloatArray, mine: IntArray) -> float:
    """(n_e / n) gap_e of the devices of a cluster."""
    weight, samples = total(share[mine].tolist()), total(instance.samples[mine].tolist())
    mean = np.asarray(total((share[mine] * dropped[mine]).tolist()) / weight)
    return weight * float(_of_dropped(instance, mean, np.asarray(samples)))


def _weights(instance: Instance) -> FloatArray:
    return np.asarray(instance.samples / total(instance.samples.tolist()))


def _underfit(spec: BoundSpec) -> Callable[[FloatArray], FloatArray]:
    """u(s) of a bound."""
    if spec.underfit == "inverse-keep":
        return lambda s: np.asarray((1.0 - s) / s)
    if spec.underfit == "perturbation":
        return lambda s: np.asarray((1.0 - s) * (1.0 + s))
    if spec.underfit_logistic is not None:
        half, steepness = spec.underfit_logistic.half, spec.underfit_logistic.steepness
        return lambda s: np.asarray(0.5 - 0.5 * np.tanh(0.5 * steepness * _log_ratio(s, half)))
    from scipy.interpolate import PchipInterpolator

    assert spec.underfit_curve is not None
    with np.errstate(over="ignore"):  # slopes next to nothing, whose inverses are beyond doubles, count as 0
        curve = PchipInterpolator(spec.underfit_curve.keep, spec.underfit_curve.value, extrapolate=False)
    return lambda s: np.asarray(curve(s))


def _log_ratio(s: FloatArray, half: float) -> FloatArray:
    """log(s / half), s > 0, with small relative error where s is near half too. Same shape."""
    near = np.abs(s - half) < 0.5 * half
    return np.asarray(np.where(near, np.log1p(np.where(near, (s - half) / half, 0.0)), np.log(s) - np.log(half)))


def _overfit(instance: Instance, square: FloatArray, samples: FloatArray) -> FloatArray:
    """sqrt((C^2 + 24 C eta^2 / (Lam + 2 lam (1 - S))) / (2 n delta))."""
    return _of_dropped(instance, 1.0 - square, samples)


def _of_dropped(instance: Instance, dropped: FloatArray, samples: FloatArray) -> FloatArray:
    """The same of 1 - S, which is known better where S is near 1."""
    b = instance.bound
    spread = 24.0 * b.loss_range * b.lipschitz**2 / (b.curvature + 2.0 * b.sparsity_weight * dropped)
    return np.asarray(np.sqrt((b.loss_range**2 + spread) / (2.0 * samples * b.confidence_delta)))


def _overfit_slope(instance: Instance, square: FloatArray, samples: FloatArray) -> FloatArray:
    """Derivative of the overfitting term in S."""
    b = instance.bound
    y = b.curvature + 2.0 * b.sparsity_weight * (1.0 - square)
    rise = 48.0 * b.loss_range * b.lipschitz**2 * b.sparsity_weight / (y * y)
    value = _overfit(instance, square, samples)
    return np.asarray(
        np.where(value > 0, rise / (4.0 * samples * b.confidence_delta * np.maximum(value, 1e-300)), 0)
    )


def free_bracket(instance: Instance) -> tuple[float, float, float] | None:
    """Interval that holds G_free, and its relative accuracy; None where it is not recomputed.

    The upper end is ``inf`` where only a lower bound is known: non-convex cases under global pooling.
    """
    if instance.bound.pooling == "cluster":  # without resources nothing couples clusters
        return _brackets_of_clusters(instance)
    curve = _measured(instance) is not None
    if instance.device_underfit is not None or (curve and instance.num_devices > CURVE_DEVICES):
        return None
    if instance.common_keep and instance.exclusion_penalty is not None:
        return None
    ends: tuple[float, float] | None
    if instance.common_keep:
        ends = _common_valley(instance) if curve else _common_minimum(instance)
    elif instance.bound.pooling == "device":
        below, above, _ = _least_shares(instance, None)
        share = _weights(instance)
        ends = total((share * below).tolist()), total((share * above).tolist())
    else:
        lower = _dual_maximum(instance)
        ends = lower, lower if not curve and instance.exclusion_penalty is None else math.inf
    if ends is None:
        return None
    spare = _curve_rounding(instance) if curve else 0.0
    return ends[0] - spare, ends[1] + spare, _accuracy(instance)


def _brackets_of_clusters(instance: Instance) -> tuple[float, float, float] | None:
    share, low, high, accuracy = _weights(instance), [], [], 0.0
    for mine in _clusters(instance):
        part = instance.take(mine)
        found = free_bracket(part.with_changes(bound=replace(part.bound, pooling="global")))
        if found is None:
            return None
        weight = total(share[mine].tolist())
        low.append(weight * found[0])
        high.append(weight * found[1])
        accuracy = max(accuracy, found[2])
    return total(low), total(high), accuracy


def _curve_rounding(instance: Instance) -> float:
    """What a measured curve or a logistic term may be off by, in units of G: they round at their largest."""
    curve = instance.bound.underfit_curve
    largest = 1.0 if curve is None else max(map(abs, curve.value))
    return float(2.0**-50 * instance.bound.underfit_weight * largest * _factors(instance)[1].max())


def _accuracy(instance: Instance) -> float:
    """Relative accuracy of a free minimum: 1 - S cancels where the curvature is next to nothing beside it."""
    b, top = instance.bound, float(instance.keep_max.max())
    rise = 2.0 * b.sparsity_weight
    least = b.curvature + rise * (1.0 - top) * (1.0 + top)
    lost = 2.0**-49 * rise / least if least > 0.0 else math.inf
    return max(ACCURACY, min(lost, 1e-6))


def _measured(instance: Instance) -> UnderfitCurve | UnderfitLogistic | None:
    """The underfitting term where its valleys are found by halving intervals."""
    return instance.bound.underfit_curve or instance.bound.underfit_logistic


def _factors(instance: Instance) -> tuple[FloatArray, FloatArray]:
    """Least and greatest underfitting factor on each device's menu. Shape [K]."""
    low, high = np.ones(instance.num_devices), np.ones(instance.num_devices)
    for k, menu in enumerate(instance.adapter_options or ()):
        if menu is not None:
            low[k] = min(row.underfit_factor for row in menu)
            high[k] = max(row.underfit_factor for row in menu)
    return low, high


def _least_shares(instance: Instance, price: float | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Bracket of the least ``A f u(s) + price S`` of each device, and its S.

    ``price`` None: plus its own overfitting term instead.
    """
    spec, weight = instance.bound, instance.bound.underfit_weight * _factors(instance)[0]
    least, most = instance.keep_min**2, instance.keep_max**2

    def spread(square: FloatArray) -> FloatArray:
        return _overfit(instance, square, instance.samples) if price is None else price * square

    if spec.underfit_logistic is not None and price is not None:
        below, square = _least_of_logistic(instance, price, weight)
        above = below
    elif _measured(instance) is not None:
        below, above, square = _least_on_curve(instance, price, weight)
    else:
        if spec.underfit == "perturbation" and price is not None:
            square = np.where(price > weight, least, most)
        elif price is not None and price > 0:
            square = np.clip((weight / (2.0 * price)) ** (2.0 / 3.0), least, most)
        elif price is not None:
            square = np.where(weight > 0, most, least)
        else:
            square = _stationary(instance, weight, least, most)
        keep = np.clip(np.sqrt(square), instance.keep_min, instance.keep_max)
        below = above = weight * _underfit(instance.bound)(keep) + spread(keep * keep)
    if instance.exclusion_penalty is not None:
        out = spec.underfit_weight * instance.exclusion_penalty + spread(np.zeros(instance.num_devices))
        square = np.where(out < above, 0.0, square)
        below, above = np.minimum(below, out), np.minimum(above, out)
    return below, above, square


def _least_on_curve(
    instance: Instance, price: float | None, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """:func:`_least_shares` on a curve or logistic term, once for devices that do not differ in it."""
    points = _measured(instance)
    assert points is not None
    samples = instance.samples if price is None else np.ones(instance.num_devices)
    table = np.stack((weight, instance.keep_min, instance.keep_max, samples))
    kinds, which = np.unique(table, axis=1, return_inverse=True)

    def convex(row: IntArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
        if price is not None:
            return price * square, np.full_like(square, price)
        return _overfit(instance, square, kinds[3, row]), _overfit_slope(instance, square, kinds[3, row])

    found = curve_minimum(points, kinds[0], kinds[1], kinds[2], convex)
    below, above, square = (column[which.ravel()] for column in found)
    return below, above, square


def _least_of_logistic(instance: Instance, price: float, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least ``A f u(s) + price S`` of each device and its S: concave in S up to the inflection, convex beyond."""
    term = instance.bound.underfit_logistic
    assert term is not None
    least, most = instance.keep_min**2, instance.keep_max**2
    power = 0.5 * term.steepness  # u = 1 / (1 + (S / half^2)^power)
    bend = 0.0
    if power > 1.0:
        bend = term.half**2 * math.exp((math.log(power - 1.0) - math.log(power + 1.0)) / power)
    ends = np.stack((least, np.clip(bend, least, most), most))
    low, high = ends[1].copy(), most.copy()
    for _ in range(64):
        middle = 0.5 * (low + high)
        half = np.tanh(0.5 * power * _log_ratio(middle, term.half**2))
        rising = price * middle > weight * power * 0.25 * (1.0 - half) * (1.0 + half)  # - S u' = power u (1 - u)
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    squares = np.concatenate((ends, (0.5 * (low + high))[None]))
    keeps = np.clip(np.sqrt(squares), instance.keep_min, instance.keep_max)
    values = weight * _underfit(instance.bound)(keeps) + price * keeps * keeps
    at, everyone = np.argmin(values, axis=0), np.arange(instance.num_devices)
    return values[at, everyone], squares[at, everyone]


def _stationary(instance: Instance, weight: FloatArray, least: FloatArray, most: FloatArray) -> FloatArray:
    """Minimiser in S under device pooling: the derivative increases, for both terms are convex in S."""
    low, high = least.copy(), most.copy()
    for _ in range(64):
        middle = 0.5 * (low + high)
        inverse = instance.bound.underfit == "inverse-keep"
        fall = 0.5 * weight * middle**-1.5 if inverse else weight
        rising = _overfit_slope(instance, middle, instance.samples) > fall
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return np.asarray(0.5 * (low + high))


def _dual_maximum(instance: Instance) -> float:
    """Greatest lower bound of G_free under global pooling over prices gap'(Q), by bisection on Q.

    For every Q in [0, 1] and every s, ``gap(sum w S) >= gap(Q) + gap'(Q) (sum w S - Q)``, gap being convex.
    """
    share, pooled = _weights(instance), np.asarray(total(instance.samples.tolist()))
    low, high, best = 0.0, 1.0, -math.inf
    for step in range(60):
        q = np.asarray(0.5 * (low + high) if step else 1.0)
        price = float(_overfit_slope(instance, q, pooled))
        value, _, square = _least_shares(instance, price)
        tangent = float(_overfit(instance, q, pooled)) - price * float(q)
        best = max(best, total((share * value).tolist()) + tangent)
        if float(share @ square) >= q:
            if step == 0:
                break
            low = float(q)
        else:
            high = float(q)
    return best


def _common_valley(instance: Instance) -> tuple[float, float] | None:
    """Bracket of the least G of one keep rate for all on a measured curve or a logistic term."""
    low, high = instance.keep_min.max(keepdims=True), instance.keep_max.min(keepdims=True)
    if low[0] > high[0]:
        return None
    share, everything = _weights(instance), np.asarray(total(instance.samples.tolist()))
    pooled, points = instance.bound.pooling == "global", _measured(instance)
    assert points is not None

    def convex(_row: IntArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
        parts = []
        for part in (_overfit, _overfit_slope):
            own = square[:, None]
            parts.append(
                part(instance, square, everything) if pooled else part(instance, own, instance.samples) @ share
            )
        return parts[0], parts[1]

    weight = instance.bound.underfit_weight * total((share * _factors(instance)[0]).tolist())
    below, above, _ = curve_minimum(points, np.array([weight]), low, high, convex)
    return float(below[0]), float(above[0])


def _common_minimum(instance: Instance) -> tuple[float, float] | None:
    """Least G of one keep rate for all, on a grid that is refined around its best point."""
    low, high = float(instance.keep_min.max()), float(instance.keep_max.min())
    if low > high:
        return None
    everyone, (least, most) = np.ones(instance.num_devices, dtype=bool), _factors(instance)

    def value(keep: float) -> float:
        keeps = np.full(instance.num_devices, keep)
        return min(bound_value(instance, keeps, everyone, factor) for factor in (least, most))

    points, best = 65, math.inf
    for _ in range(6):
        grid = np.linspace(low, high, points)
        values = [value(float(s)) for s in grid]
        i = int(np.argmin(values))
        best = min(best, values[i])
        low, high = float(grid[max(i - 1, 0)]), float(grid[min(i + 1, len(grid) - 1)])
    return best, best
