"""The bound as a number, and its least value over a box of keep rates: coordinates in turn, by grid and section.

Compiled. A device left out has keep 0 and pay 0; what leaving out costs is added by the caller.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from numba import njit

from edgealloc.units import FloatArray, IntArray

TERM, A, C2, CROSS, LAM, LAM2, DELTA2, POOLED = range(8)
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


class Worth(NamedTuple):
    """What keep rates are worth.

    ``pay`` [K] is A w_k times the menu's factor, ``weight`` [K] is w_k, ``samples`` [K] n_k. ``spec`` holds the
    term (0 inverse-keep, 1 perturbation, 2 curve, 3 logistic), A, C^2, 24 C eta^2, Lam, 2 lam, 2 delta and who has
    a stability term: 0 each device, 1 all together, 2 each pool of ``pool`` [K]; ``knots`` [P] and ``cubics``
    [4, P - 1] are the curve, highest power first; the two numbers of a logistic term stand in ``knots``.
    """

    pay: FloatArray
    weight: FloatArray
    samples: FloatArray
    spec: FloatArray
    knots: FloatArray
    cubics: FloatArray
    pool: IntArray


@njit(cache=True)
def underfit(s: float, spec: FloatArray, knots: FloatArray, cubics: FloatArray) -> float:
    """u(s)."""
    if spec[TERM] == 0:
        return 1.0 / s - 1.0
    if spec[TERM] == 1:
        return (1.0 - s) * (1.0 + s)
    if spec[TERM] == 3:
        z = knots[1] * (math.log1p((s - knots[0]) / knots[0]) if 2.0 * s > knots[0] else math.log(s / knots[0]))
        return 0.5 - 0.5 * math.tanh(0.5 * z)
    i = 0
    while i < len(knots) - 2 and knots[i + 1] <= s:
        i += 1
    x = s - knots[i]
    return float(((cubics[0, i] * x + cubics[1, i]) * x + cubics[2, i]) * x + cubics[3, i])


@njit(cache=True)
def gap(square: float, samples: float, spec: FloatArray) -> float:
    """The stability term of a mean square keep rate and a number of samples."""
    return math.sqrt(
        (spec[C2] + spec[CROSS] / (spec[LAM] + spec[LAM2] * (1.0 - square))) / (samples * spec[DELTA2])
    )


@njit(cache=True)
def bound(
    keep: FloatArray,
    high: FloatArray,
    worth: Worth,
) -> float:
    """G with the stability of ``keep`` and the underfitting of ``high``: the two of a box give a lower bound."""
    pay, weight, samples, spec, knots, cubics, pool = worth
    total, square, everybody = 0.0, 0.0, 0.0
    for k in range(len(keep)):
        everybody += samples[k]
        if keep[k] > 0.0:
            total += pay[k] * underfit(high[k], spec, knots, cubics)
        square += weight[k] * keep[k] * keep[k]
    if spec[POOLED] == 1:
        return total + gap(square, everybody, spec)
    if spec[POOLED] == 2:
        for e in range(len(keep)):
            share, held, square = 0.0, 0.0, 0.0
            for k in range(len(keep)):
                if pool[k] == e:
                    share += weight[k]
                    held += samples[k]
                    square += weight[k] * keep[k] * keep[k]
            if held > 0.0:
                total += share * gap(square / share, held, spec)
        return total
    for k in range(len(keep)):
        total += weight[k] * gap(keep[k] * keep[k], samples[k], spec)
    return total


@njit(cache=True)
def least_in_box(
    low: FloatArray,
    high: FloatArray,
    worth: Worth,
) -> tuple[float, FloatArray]:
    """The least G found with keep rates in a box, and where."""
    best_s = high.copy()
    best = bound(best_s, best_s, worth)
    starts = 3 if worth.spec[TERM] >= 2 else 1
    for start in range(starts):
        s = high.copy()
        for k in range(len(s)):
            if high[k] > 0.0:
                s[k] *= (low[k] / high[k]) ** (start / 2.0)
        value = math.inf
        for sweep in range(12):
            before = value
            for k in range(len(s)):
                if low[k] == high[k]:
                    continue
                points = 65 if sweep == 0 and worth.spec[TERM] >= 2 else 13
                value = coordinate(s, k, low[k], high[k], points, worth)
            if not value < before * (1.0 - 1e-15):
                break
        value = bound(s, s, worth)
        if value < best:
            best, best_s = value, s
    return best, best_s


@njit(cache=True)
def coordinate(
    s: FloatArray,
    k: int,
    low: float,
    high: float,
    points: int,
    worth: Worth,
) -> float:
    """Puts s[k] where G is least with the others as they are: a geometric grid, then a golden section."""
    ratio = math.log(high / low) / (points - 1)
    best, at = math.inf, s[k]
    index = 0
    for i in range(points):
        s[k] = high if i == points - 1 else min(high, low * math.exp(i * ratio))
        value = bound(s, s, worth)
        if value <= best:
            best, at, index = value, s[k], i
    left, right = low * math.exp(max(index - 1, 0) * ratio), min(high, low * math.exp((index + 1) * ratio))
    for _ in range(38):
        one, two = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
        s[k] = one
        first = bound(s, s, worth)
        s[k] = two
        second = bound(s, s, worth)
        if first < second:
            right = two
        else:
            left = one
        if min(first, second) < best:
            best, at = min(first, second), one if first < second else two
    s[k] = at
    return best
