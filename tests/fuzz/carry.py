"""What one device can carry: the largest keep rate on given channels, the least bandwidth of a keep rate.

By search over the water level: at each, rate and power are sums, and the largest keep rate within deadline and
energy is found from above. Whether a keep rate can be carried is a convex question in the upload time, so the
answer rises and then falls with the level, and a golden section finds its top. Compiled, for it is asked often.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from edgealloc.units import FloatArray

# Columns of a device as these functions read it. LESS is 1 / downlink rate in s/bit, E is without the static part.
D0, D1, W0, W1, T, E, P_MAX, F_MIN, F_MAX, KAPPA, LESS, LOW, HIGH = range(13)
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
SPAN = 70.0  # natural logarithm of the range of water levels searched
NEVER = -math.inf


@njit(cache=True)
def least_frequency(row: FloatArray, s: float, rate: float) -> float:
    """Frequency in Hz that is just fast enough, at least the slowest there is."""
    left = row[T] - (row[D0] + row[D1] * s) * (row[LESS] + 1.0 / rate)
    work = row[W0] + row[W1] * s
    if work <= 0.0:
        return float(row[F_MIN])
    return float(max(row[F_MIN], work / left)) if left > 0.0 else math.inf


@njit(cache=True)
def keep_at(row: FloatArray, rate: float, power: float) -> float:
    """Largest keep rate at a rate in bit/s and a power in W; below 0 it says how far off, -inf hopeless."""
    if not rate > 0.0:
        return NEVER
    slow = row[LESS] + 1.0 / rate
    none = row[D0] / row[D1]
    s = min(row[HIGH], (row[T] - row[D0] * slow - row[W0] / row[F_MAX]) / (row[D1] * slow + row[W1] / row[F_MAX]))
    for _ in range(400):
        if not s >= -none:
            return NEVER
        bits, work = row[D0] + row[D1] * s, max(row[W0] + row[W1] * s, 0.0)  # below 0 only to say how far off
        f = min(least_frequency(row, s, rate), row[F_MAX])
        pull = 3.0 * f * f * row[W1] + 2.0 * f * f * f * row[D1] * slow if f > row[F_MIN] else f * f * row[W1]
        over = row[KAPPA] * f * f * work + power * bits / rate - row[E]
        if not over > 0.0:
            break
        step = over / (row[KAPPA] * pull + power * row[D1] / rate)
        if not step > 1e-17 * abs(s):
            break
        s -= step
    return float(s)


@njit(cache=True)
def flow(noise: FloatArray, wide: float, level: float) -> tuple[float, float]:
    """Rate in bit/s and power in W where the water stands ``level`` times the lowest noise above that.

    ``noise`` in W/Hz, increasing. Shape [N].
    """
    rate, power = 0.0, 0.0
    for n in noise:
        depth = noise[0] * level + (noise[0] - n)
        if depth <= 0.0:
            break
        rate += wide * math.log1p(depth / n)
        power += wide * depth
    return rate / math.log(2.0), power


@njit(cache=True)
def carried(row: FloatArray, noise: FloatArray, wide: float) -> tuple[float, float]:
    """Largest keep rate on channels of ``wide`` Hz with these noises in W/Hz, increasing, and the water level."""
    if len(noise) == 0 or not wide > 0.0 or not row[E] > 0.0 or not math.isfinite(noise[0]):
        return NEVER, 0.0
    rise, top = 0.0, math.inf
    for j in range(len(noise)):
        rise += noise[j] - noise[0]
        top = min(top, (row[P_MAX] / wide + rise) / ((j + 1) * noise[0]))
    top *= 1.0 - 1e-14
    if not (top > 0.0 and math.isfinite(top)):
        return NEVER, 0.0
    best, at = keep_at(row, *flow(noise, wide, top)), top
    if best >= row[HIGH]:
        return best, at
    x = high = math.log(top)
    for _ in range(60):  # so much power that no energy pays for it, at next to no keep rate: by steps of ten
        if best > 1e-9:
            break
        x -= 0.1 * SPAN
        there = keep_at(row, *flow(noise, wide, math.exp(x)))
        if there > best:
            best, at, high = there, math.exp(x), x
    high = min(high + 0.1 * SPAN, math.log(top))
    low = high - SPAN
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    left, right = keep_at(row, *flow(noise, wide, math.exp(a))), keep_at(row, *flow(noise, wide, math.exp(b)))
    for _ in range(75):
        if max(left, right) > best:
            best, at = max(left, right), math.exp(a if left >= right else b)
            if best >= row[HIGH]:
                break
        if left > right:
            high, b, right = b, a, left
            a = high - GOLDEN * (high - low)
            left = keep_at(row, *flow(noise, wide, math.exp(a)))
        else:
            low, a, left = a, b, right
            b = low + GOLDEN * (high - low)
            right = keep_at(row, *flow(noise, wide, math.exp(b)))
    return best, at


@njit(cache=True)
def least_band(row: FloatArray, noise: float, keep: float, band: float) -> float:
    """Least bandwidth in Hz, from above, that carries a keep rate; inf where ``band`` does not."""
    one, capped = np.full(1, noise), row.copy()
    capped[HIGH] = keep
    if not carried(capped, one, band)[0] >= keep:
        return math.inf
    low, high = math.log(band) - SPAN, math.log(band)
    if carried(capped, one, math.exp(low))[0] >= keep:
        return math.exp(low)
    for _ in range(60):
        middle = 0.5 * (low + high)
        if carried(capped, one, math.exp(middle))[0] >= keep:
            high = middle
        else:
            low = middle
    return min(band, math.exp(high))


@njit(cache=True)
def caps_of_sets(row: FloatArray, noise: FloatArray, wide: float) -> FloatArray:
    """Largest keep rate on every set of channels, by the set's bits. ``noise`` [M], inf for none; result [2^M]."""
    caps, mine = np.full(1 << len(noise), NEVER), np.zeros(len(noise))
    for code in range(1, len(caps)):
        count = 0
        for m in range(len(noise)):
            if code >> m & 1 and math.isfinite(noise[m]):
                at = count  # kept in order
                while at > 0 and mine[at - 1] > noise[m]:
                    mine[at] = mine[at - 1]
                    at -= 1
                mine[at] = noise[m]
                count += 1
        caps[code] = carried(row, mine[:count], wide)[0]
    return caps


@njit(cache=True)
def caps_of_bands(row: FloatArray, noise: float, bands: FloatArray) -> FloatArray:
    """Largest keep rate on each bandwidth in Hz. Shape as ``bands``."""
    caps, one = np.zeros(len(bands)), np.full(1, noise)
    for i in range(len(bands)):
        caps[i] = carried(row, one, bands[i])[0]
    return caps
