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
_HALVINGS = 100  # of what is dropped, by orders of magnitude first: near 1 that may be next to nothing
_CLOSE = 2.0**-45  # relative: how near a price is found


def bound_value(instance: Instance, keep: FloatArray, selected: BoolArray, factor: FloatArray) -> float:
    """G of keep rates (shape [K]); sums are correctly rounded."""
    penalty = 0.0 if instance.exclusion_penalty is None else instance.exclusion_penalty
    loss = np.full(instance.num_devices, float(penalty))
    if instance.device_underfit is None:
        loss[selected] = factor[selected] * _underfit(instance.bound)(keep[selected])
    else:
        for k in np.flatnonzero(selected):
            loss[k] = factor[k] * float(_underfit(instance.bound_of(int(k)))(keep[k]))
    share, dropped = _weights(instance), np.where(selected, _dropped(keep), 1.0)
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
        return lambda s: np.exp(-np.logaddexp(0.0, steepness * _log_ratio(s, half)))  # 1 / (1 + (s / half)^m)
    from scipy.interpolate import PchipInterpolator

    assert spec.underfit_curve is not None
    with np.errstate(over="ignore"):  # slopes next to nothing, whose inverses are beyond doubles, count as 0
        curve = PchipInterpolator(spec.underfit_curve.keep, spec.underfit_curve.value, extrapolate=False)
    return lambda s: np.asarray(curve(s))


def _log_ratio(s: FloatArray, half: float) -> FloatArray:
    """log(s / half), s > 0, with small relative error where s is near half too. Same shape."""
    near = np.abs(s - half) < 0.5 * half
    return np.asarray(np.where(near, np.log1p(np.where(near, (s - half) / half, 0.0)), np.log(s) - np.log(half)))


def _dropped(keep: FloatArray) -> FloatArray:
    """1 - s^2, which cancels where next to nothing is dropped. Same shape."""
    return np.asarray((1.0 - keep) * (1.0 + keep))


def _of_dropped(instance: Instance, dropped: FloatArray, samples: FloatArray) -> FloatArray:
    """sqrt((C^2 + 24 C eta^2 / (Lam + 2 lam (1 - S))) / (2 n delta)) of 1 - S, known better where S is near 1."""
    b = instance.bound
    spread = 24.0 * b.loss_range * b.lipschitz**2 / (b.curvature + 2.0 * b.sparsity_weight * dropped)
    return np.asarray(np.sqrt((b.loss_range**2 + spread) / (2.0 * samples * b.confidence_delta)))


def _overfit_slope(instance: Instance, dropped: FloatArray, samples: FloatArray) -> FloatArray:
    """Derivative of the overfitting term in S, at 1 - S."""
    b = instance.bound
    y = b.curvature + 2.0 * b.sparsity_weight * dropped
    rise = 48.0 * b.loss_range * b.lipschitz**2 * b.sparsity_weight / (y * y)
    value = _of_dropped(instance, dropped, samples)
    return np.asarray(
        np.where(value > 0, rise / (4.0 * samples * b.confidence_delta * np.maximum(value, 1e-300)), 0)
    )


@np.errstate(all="ignore")  # slopes where nothing is kept are infinite
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
    """Relative accuracy of a free minimum: on a curve 1 - S cancels where the curvature is next to nothing."""
    if _measured(instance) is None:
        return ACCURACY
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
    """Bracket of the least ``A f u(s) - price (1 - S)`` of each device, and its 1 - S.

    ``price`` None: plus its own overfitting term instead. The upper end is that of a keep rate in doubles, which
    near 1 are far apart beside what is dropped.
    """
    spec, weight = instance.bound, instance.bound.underfit_weight * _factors(instance)[0]
    least, most = _dropped(instance.keep_max), _dropped(instance.keep_min)

    def spread(dropped: FloatArray) -> FloatArray:
        return _of_dropped(instance, dropped, instance.samples) if price is None else -price * dropped

    if spec.underfit_logistic is not None and price is not None:
        below, square = _least_of_logistic(instance, price, weight)
        above, dropped = below, 1.0 - square
    elif _measured(instance) is not None:
        below, above, square = _least_on_curve(instance, price, weight)
        dropped = 1.0 - square
    else:
        if price is None:
            dropped = _stationary(
                least, most, lambda d: _overfit_slope(instance, d, instance.samples) > weight * _fall(spec, d)
            )
        elif spec.underfit == "perturbation":
            dropped = np.where(price > weight, most, least)
        else:
            size = np.log(weight / (2.0 * price)) if price > 0.0 else np.where(weight > 0.0, np.inf, -np.inf)
            dropped = np.clip(-np.expm1(size * 2.0 / 3.0), least, most)
        keep = np.clip(np.sqrt(1.0 - dropped), instance.keep_min, instance.keep_max)
        near = _beside(keep, instance.keep_min, instance.keep_max)
        below = weight * _underfit_of_dropped(spec, dropped, keep) + spread(dropped)
        above = np.min(weight * _underfit(spec)(near) + spread(_dropped(near)), axis=0)
    if instance.exclusion_penalty is not None:
        out = spec.underfit_weight * instance.exclusion_penalty + spread(np.ones(instance.num_devices))
        dropped = np.where(out < above, 1.0, dropped)
        below, above = np.minimum(below, out), np.minimum(above, out)
    return below, above, dropped


def _underfit_of_dropped(spec: BoundSpec, dropped: FloatArray, keep: FloatArray) -> FloatArray:
    """u(s) of a closed form where 1 - s^2 is given, and s about. Shapes [N]."""
    if spec.underfit == "perturbation":
        return dropped
    near = np.expm1(-0.5 * np.log1p(-np.minimum(dropped, 0.5)))
    return np.asarray(np.where(dropped <= 0.5, near, (1.0 - keep) / keep))


def _fall(spec: BoundSpec, dropped: FloatArray) -> FloatArray:
    """-du/dS of a closed form where 1 - S is given. Same shape."""
    return 0.5 * (1.0 - dropped) ** -1.5 if spec.underfit == "inverse-keep" else np.ones_like(dropped)


def _beside(keep: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Keep rates [N] with the doubles on both sides, in their ranges. Shape [3, N]."""
    return np.asarray(np.clip(np.stack((np.nextafter(keep, 0.0), keep, np.nextafter(keep, 2.0))), low, high))


def _least_on_curve(
    instance: Instance, price: float | None, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """:func:`_least_shares` on a curve or logistic term, and S; once for devices that do not differ in it."""
    points = _measured(instance)
    assert points is not None
    samples = instance.samples if price is None else np.ones(instance.num_devices)
    table = np.stack((weight, instance.keep_min, instance.keep_max, samples))
    kinds, which = np.unique(table, axis=1, return_inverse=True)

    def convex(row: IntArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
        if price is not None:
            return price * square, np.full_like(square, price)
        dropped, samples = 1.0 - square, kinds[3, row]
        return _of_dropped(instance, dropped, samples), _overfit_slope(instance, dropped, samples)

    found = curve_minimum(points, kinds[0], kinds[1], kinds[2], convex)
    below, above, square = (column[which.ravel()] for column in found)
    return below - (price or 0.0), above - (price or 0.0), square


def _least_of_logistic(instance: Instance, price: float, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Least ``A f u(s) - price (1 - S)`` of each device and its S: concave in S up to its bend, convex beyond."""
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
    values = weight * _underfit(instance.bound)(keeps) - price * _dropped(keeps)
    at, everyone = np.argmin(values, axis=0), np.arange(instance.num_devices)
    return values[at, everyone], squares[at, everyone]


def _stationary(least: FloatArray, most: FloatArray, rises: Callable[[FloatArray], BoolArray]) -> FloatArray:
    """1 - S where a convex function of S is least, which ``rises`` with S where less is dropped. Shapes [N]."""
    low, high = least.copy(), most.copy()
    for _ in range(_HALVINGS):
        middle = _between(low, high)
        rising = rises(middle)
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    return np.where(rises(least), 0.5 * (low + high), least)


def _between(low: FloatArray, high: FloatArray) -> FloatArray:
    """A number between two, by their magnitudes where these are far apart. Of their shape."""
    apart = np.sqrt(np.maximum(low, 2.0**-100 * high)) * np.sqrt(high)
    return np.asarray(np.where(low < 0.25 * high, apart, 0.5 * (low + high)))


def _dual_maximum(instance: Instance) -> float:
    """Greatest lower bound of G_free under global pooling over prices gap'(Q), by bisection on D = 1 - Q.

    For every Q in [0, 1] and every s, ``gap(sum w S) >= gap(Q) + gap'(Q) (sum w S - Q)``, gap being convex.
    """
    share, pooled = _weights(instance), np.asarray(total(instance.samples.tolist()))
    low, high, best = 0.0, 1.0, -math.inf
    for step in range(_HALVINGS):
        d = _between(np.asarray(low), np.asarray(high)) if step else np.zeros(())
        price = float(_overfit_slope(instance, d, pooled))
        value, _, dropped = _least_shares(instance, price)
        tangent = float(_of_dropped(instance, d, pooled)) + price * float(d)
        best = max(best, total((share * value).tolist()) + tangent)
        if float(share @ dropped) <= d:
            if step == 0:
                break
            high = float(d)
        else:
            low = float(d)
        if high - low <= _CLOSE * high:
            break
    return best


def _common_overfit(instance: Instance, dropped: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The overfitting term of one keep rate for all, and its derivative in S, at 1 - S. Shapes [N]."""
    if instance.bound.pooling == "global":
        everything = np.asarray(total(instance.samples.tolist()))
        return _of_dropped(instance, dropped, everything), _overfit_slope(instance, dropped, everything)
    share, each = _weights(instance), dropped[:, None]
    value, slope = (part(instance, each, instance.samples) @ share for part in (_of_dropped, _overfit_slope))
    return np.asarray(value), np.asarray(slope)


def _common_weight(instance: Instance) -> float:
    """Of the underfitting term where all have one keep rate."""
    return float(instance.bound.underfit_weight * total((_weights(instance) * _factors(instance)[0]).tolist()))


def _common_valley(instance: Instance) -> tuple[float, float] | None:
    """Bracket of the least G of one keep rate for all on a measured curve or a logistic term."""
    low, high = instance.keep_min.max(keepdims=True), instance.keep_max.min(keepdims=True)
    if low[0] > high[0]:
        return None
    points = _measured(instance)
    assert points is not None

    def convex(_row: IntArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _common_overfit(instance, 1.0 - square)

    below, above, _ = curve_minimum(points, np.array([_common_weight(instance)]), low, high, convex)
    return float(below[0]), float(above[0])


def _common_minimum(instance: Instance) -> tuple[float, float] | None:
    """Bracket of the least G of one keep rate for all, convex in S: at its best, and at doubles beside it."""
    low, high = instance.keep_min.max(keepdims=True), instance.keep_max.min(keepdims=True)
    if low[0] > high[0]:
        return None
    spec, weight = instance.bound, _common_weight(instance)

    def rises(dropped: FloatArray) -> BoolArray:
        return np.asarray(_common_overfit(instance, dropped)[1] > weight * _fall(spec, dropped))

    dropped = _stationary(_dropped(high), _dropped(low), rises)
    keep = np.clip(np.sqrt(1.0 - dropped), low, high)
    near = _beside(keep, low, high).ravel()
    below = weight * _underfit_of_dropped(spec, dropped, keep) + _common_overfit(instance, dropped)[0]
    above = weight * _underfit(spec)(near) + _common_overfit(instance, _dropped(near))[0]
    return float(below[0]), float(above.min())
