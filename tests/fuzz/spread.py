"""Two searches over all devices at once, compiled: a band split for the least G, and a bound below all G.

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
from tests.fuzz.weigh import Worth, bound, least_in_box

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
    worth: Worth,
) -> tuple[float, FloatArray]:
    """Least G and keep rates where each device has its bandwidth in Hz, enough for its least keep rate."""
    caps, one = high.copy(), np.zeros(1)
    for k in range(len(low)):
        if low[k] < high[k]:
            one[0] = noise[k]
            caps[k] = max(low[k], min(high[k], carried(rows[k], one, bands[k])[0]))
    return least_in_box(low, caps, worth)


@njit(cache=True)
def between(
    i: int,
    j: int,
    shares: FloatArray,
    left: float,
    best: float,
    needs: FloatArray,
    rows: FloatArray,
    noise: FloatArray,
    low: FloatArray,
    high: FloatArray,
    worth: Worth,
) -> tuple[float, FloatArray]:
    """Splits what devices i and j have of ``left`` Hz anew, for the least G, by a grid and a golden section.

    Changes ``shares`` where that is better than ``best``; the least G, and keep rates if it is.
    """
    both, at, keep = shares[i] + shares[j], shares[i], low
    bands, near, index = needs.copy(), math.inf, 0
    for k in range(len(needs)):
        bands[k] += left * shares[k]
    count, first = len(FRACTIONS), math.inf
    a, b, c, d = 0.0, 0.0, 0.0, 1.0
    for n in range(count + 30):
        if n < count:
            x = FRACTIONS[n]
        else:
            if n == count:
                a, d = FRACTIONS[max(index - 1, 0)], FRACTIONS[min(index + 1, count - 1)]
            b, c = d - GOLDEN * (d - a), a + GOLDEN * (d - a)
            x = c if math.isfinite(first) else b
        bands[i], bands[j] = needs[i] + left * (both * x), needs[j] + left * (both * (1.0 - x))
        value, s = at_split(bands, rows, noise, low, high, worth)
        if value < best:
            best, keep, at = value, s, both * x
        if n < count:
            if value < near:
                near, index = value, n
        elif math.isfinite(first):
            if first < value:
                d = c
            else:
                a = b
            first = math.inf
        else:
            first = value
    shares[i], shares[j] = at, both - at
    return best, keep


@njit(cache=True)
def fits(s: FloatArray, caps: FloatArray, bands: FloatArray, total: float) -> bool:
    """Whether keep rates may fit together: under a row of ``caps`` [A, K], or, in a band, by tables.

    ``bands`` [K, G] in Hz, increasing; ``caps`` [K, G] then holds what each carries. A device that carries more
    than a table entry needs more than its bandwidth.
    """
    if bands.size == 0:
        for i in range(len(caps)):
            enough = True
            for k in range(len(s)):
                enough = enough and caps[i, k] >= s[k]
            if enough:
                return True
        return False
    need = 0.0
    for k in range(len(s)):
        if s[k] > 0.0:
            if caps[k, -1] < s[k]:
                return False
            below, above = -1, caps.shape[1] - 1  # the last entry that carries less
            while above - below > 1:
                middle = (below + above) // 2
                if caps[k, middle] < s[k]:
                    below = middle
                else:
                    above = middle
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
    worth: Worth,
) -> tuple[bool, bool]:
    """Whether all of a box of keep rates is shown to be at ``target`` or above, and whether nothing in it may fit.

    Boxes are halved: G is at least the underfitting of the upper corner and the stability of the lower one, and
    nothing in a box fits if its lower corner does not. Gives up after ``most`` boxes.
    """
    nothing = True
    lows, highs = np.zeros((200, len(low))), np.zeros((200, len(low)))
    for k in range(len(low)):
        lows[0, k], highs[0, k] = low[k], high[k]
    waiting = 1
    for _ in range(most):
        if waiting == 0:
            return True, nothing
        waiting -= 1
        a, b = lows[waiting].copy(), highs[waiting].copy()
        if not fits(a, caps, bands, total):
            continue
        nothing = False
        if bound(a, b, worth) >= target:
            continue
        widest, ratio = 0, 1.0
        for k in range(len(a)):
            if a[k] > 0.0 and b[k] / a[k] > ratio:
                widest, ratio = k, b[k] / a[k]
        if ratio <= 1.0 + 1e-12 or waiting + 2 > len(lows):
            return False, False
        middle = math.sqrt(a[widest] * b[widest])
        for k in range(len(a)):
            lows[waiting, k], highs[waiting, k] = a[k], b[k]
            lows[waiting + 1, k], highs[waiting + 1, k] = a[k], b[k]
        highs[waiting + 1, widest], lows[waiting, widest] = middle, middle
        waiting += 2
    return False, False
