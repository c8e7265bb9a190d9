"""Two searches over all devices at once, compiled: a band shared out for the least G, and a bound below all G.

``rows`` [K, 13] are those of ``tests/fuzz/carry.py``, with the upper end of the keep range as the search wants it;
``low``, ``high`` [K] the keep ranges, (0, 0) for a device left out. The other arguments are those of
``tests/fuzz/weigh.py``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from edgealloc.units import FloatArray
from tests.fuzz.carry import carried
from tests.fuzz.weigh import bound, least_in_box

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
STEPS = np.array([0.0, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5])
FRACTIONS = np.concatenate((STEPS, 1.0 - STEPS[-2::-1]))


@njit(cache=True)
def at_split(
    bands: FloatArray,
    rows: FloatArray,
    noise: FloatArray,
    low: FloatArray,
    high: FloatArray,
    pay: FloatArray,
    weight: FloatArray,
    samples: FloatArray,
    spec: FloatArray,
    knots: FloatArray,
    cubics: FloatArray,
) -> tuple[float, FloatArray]:
    """Least G and keep rates where each device has its bandwidth in Hz, enough for its least keep rate."""
    caps = high.copy()
    for k in range(len(low)):
        if low[k] < high[k]:
            caps[k] = max(low[k], min(high[k], carried(rows[k], noise[k : k + 1], bands[k])[0]))
    return least_in_box(low, caps, pay, weight, samples, spec, knots, cubics)


@njit(cache=True)
def best_split(
    band: float,
    needs: FloatArray,
    rows: FloatArray,
    noise: FloatArray,
    low: FloatArray,
    high: FloatArray,
    pay: FloatArray,
    weight: FloatArray,
    samples: FloatArray,
    spec: FloatArray,
    knots: FloatArray,
    cubics: FloatArray,
) -> tuple[float, FloatArray, FloatArray]:
    """Least G found, keep rates, bandwidths: what is left beyond ``needs`` [K] moves between pairs of devices."""
    free = np.flatnonzero(low < high)
    left = band * (1.0 - 1e-15) - needs.sum()
    shares = np.zeros(len(low))
    shares[free] = 1.0 / max(len(free), 1)
    best, keep = at_split(needs + left * shares, rows, noise, low, high, pay, weight, samples, spec, knots, cubics)
    for _ in range(6 if len(free) > 2 else 1):
        before = best
        for i in free:
            for j in free:
                if j <= i:
                    continue
                both, value_at, index = shares[i] + shares[j], shares[i], 0
                values = np.full(len(FRACTIONS), math.inf)
                trial = shares.copy()
                for n in range(len(FRACTIONS) + 30):
                    if n < len(FRACTIONS):
                        x = FRACTIONS[n]
                    else:
                        if n == len(FRACTIONS):
                            index = int(np.argmin(values))
                            a, d = FRACTIONS[max(index - 1, 0)], FRACTIONS[min(index + 1, len(FRACTIONS) - 1)]
                            first = math.inf
                        # a golden section, one new value a step
                        b, c = d - GOLDEN * (d - a), a + GOLDEN * (d - a)
                        x = c if math.isfinite(first) else b
                    trial[i], trial[j] = both * x, both * (1.0 - x)
                    value, s = at_split(
                        needs + left * trial, rows, noise, low, high, pay, weight, samples, spec, knots, cubics
                    )
                    if value < best:
                        best, keep, value_at = value, s, both * x
                    if n < len(FRACTIONS):
                        values[n] = value
                    elif math.isfinite(first):
                        if first < value:
                            d = c
                        else:
                            a = b
                        first = math.inf
                    else:
                        first = value
                shares[j] = both - value_at
                shares[i] = value_at
        if not best < before * (1.0 - 1e-13):
            break
    return best, keep, needs + left * shares


@njit(cache=True)
def fits(s: FloatArray, caps: FloatArray, bands: FloatArray, total: float) -> bool:
    """Whether keep rates may fit together: under a row of ``caps`` [A, K], or, in a band, by tables.

    ``bands`` [K, G] in Hz, increasing; ``caps`` [K, G] then holds what each carries. A device that carries more
    than a table entry needs more than its bandwidth.
    """
    if bands.size == 0:
        for row in caps:  # noqa: SIM110 (generators do not compile)
            if np.all(row >= s):
                return True
        return False
    need = 0.0
    for k in range(len(s)):
        if s[k] > 0.0:
            if caps[k, -1] < s[k]:
                return False
            below = np.searchsorted(caps[k], s[k]) - 1
            need += bands[k, below] if below >= 0 else 0.0
    return need <= total


@njit(cache=True)
def bound_below(
    target: float,
    most: int,
    low: FloatArray,
    high: FloatArray,
    caps: FloatArray,
    bands: FloatArray,
    total: float,
    pay: FloatArray,
    weight: FloatArray,
    samples: FloatArray,
    spec: FloatArray,
    knots: FloatArray,
    cubics: FloatArray,
) -> tuple[bool, bool]:
    """Whether all of a box of keep rates is shown to be at ``target`` or above, and whether nothing in it may fit.

    Boxes are halved: G is at least the underfitting of the upper corner and the stability of the lower one, and
    nothing in a box fits if its lower corner does not. Gives up after ``most`` boxes.
    """
    nothing = True
    lows, highs = np.zeros((200, len(low))), np.zeros((200, len(low)))
    lows[0], highs[0] = low, high
    waiting = 1
    for _ in range(most):
        if waiting == 0:
            return True, nothing
        waiting -= 1
        a, b = lows[waiting].copy(), highs[waiting].copy()
        if not fits(a, caps, bands, total):
            continue
        nothing = False
        if bound(a, b, pay, weight, samples, spec, knots, cubics) >= target:
            continue
        widest, ratio = 0, 1.0
        for k in range(len(a)):
            if a[k] > 0.0 and b[k] / a[k] > ratio:
                widest, ratio = k, b[k] / a[k]
        if ratio <= 1.0 + 1e-12 or waiting + 2 > len(lows):
            return False, False
        middle = math.sqrt(a[widest] * b[widest])
        lows[waiting], highs[waiting] = a, b
        lows[waiting + 1], highs[waiting + 1] = a, b
        highs[waiting + 1, widest], lows[waiting, widest] = middle, middle
        waiting += 2
    return False, False
