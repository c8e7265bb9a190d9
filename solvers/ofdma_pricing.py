"""Pricing of one device: sets of sub-carriers with a small priced share, and a proof that none is smaller.

The share of a set is non-convex in one scalar only, the keep rate. So the keep range is branched on: intervals
wait by their cut bound, the lowest first; a search over sets that does not end soon is given up and its interval
split.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgealloc.solvers.base import Control
from edgealloc.solvers.ofdma_cuts import LEVEL_STEPS, keep_window, make_cuts, relaxed_level
from edgealloc.solvers.ofdma_device import SMAX, SMIN
from edgealloc.solvers.ofdma_search import DEPTH, FOUND, LEAVES, NODES, open_search, run_search
from edgealloc.solvers.ofdma_share import free_keeps
from edgealloc.units import FloatArray

__all__ = ["Ask", "Mode", "Priced", "price_mode"]

BoolArray = NDArray[np.bool_]

SETS = 10  # the last so many finds are kept
# Work of a search, in nodes, before its interval is split: enough for most, and about what the cuts cost.
_FIRST_WORK, _LAST_WORK = 8_000, 1_000_000
_SIDE = 0.3  # each part keeps so much of an interval in logarithms, at least
_NARROW = 1.004  # intervals are not split below this ratio
_CHUNK = 1_000_000  # work between two looks at the clock, well below a second


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """A device with one row of its menu, sub-carriers in the order of increasing 1/a.

    Parameters
    ----------
    row, objective
        See :mod:`edgealloc.solvers.ofdma_device` and :mod:`edgealloc.solvers.ofdma_share`. Shapes [17], [8 + 5 P].
    levels
        Allowed keep rates; empty for any. Shape [J].
    inv_a, log2_a
        1/a in W, inf without a channel, and its negative binary logarithm. Shape [M].
    """

    row: FloatArray
    objective: FloatArray
    levels: FloatArray
    inv_a: FloatArray
    log2_a: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """What to price: prices, fixings and how hard to try.

    Parameters
    ----------
    mu, fixed
        Prices of the sub-carriers; 1 in, 0 out, -1 open; both in the order of the mode. Shape [M].
    nu
        Price of w s^2.
    threshold
        Only sets below it are of interest.
    step
        A set is worth reporting if it is lower than the last by this much; the bound may lose as much.
    tolerance
        Accuracy of the cuts.
    max_work
        Nodes of one search in a narrow interval; beyond, its root bound stands.
    """

    mu: FloatArray
    fixed: NDArray[np.int64]
    nu: float
    threshold: float
    step: float
    tolerance: float
    max_work: int


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """The answer: a proven bound of every priced share, the sets found (rank order of the mode), the water level.

    ``exact`` says that no search was given up; ``nodes`` and ``leaves`` count the searches.
    """

    bound: float
    sets: tuple[BoolArray, ...]
    level: float
    exact: bool
    nodes: int
    leaves: int


def price_mode(
    mode: Mode, ask: Ask, level: float, control: Control, trace: list[tuple[float, float, int]] | None = None
) -> Priced:
    """Price one mode, starting from a water level; ``trace`` gets the final intervals and their depth."""
    row, objective, levels = mode.row, mode.objective, mode.levels
    free = free_keeps(row, objective, ask.nu)
    high = float(row[SMAX] if levels.size else free[-1])
    sets, values = np.zeros((SETS, len(ask.mu)), bool), np.zeros(SETS)
    counts = np.zeros(5, np.int64)
    state = np.array([ask.threshold, math.inf])
    heap = [(-math.inf, 0, float(row[SMIN]), high, 0)]
    serial, exact, first_level = 1, True, level
    while heap:
        inherited, _serial, low, high, depth = heapq.heappop(heap)
        if inherited > state[0]:
            heapq.heappush(heap, (inherited, _serial, low, high, depth))
            break  # the others are no lower
        if control.stopped():
            state[1], exact = min(state[1], inherited), False
            break
        om, keep = relaxed_level(row, objective, ask.nu, low, high, mode.inv_a, mode.log2_a, ask.mu, level)
        if depth == 0:
            first_level = om
        narrow = high <= low * _NARROW
        n_level = (1, 3, LEVEL_STEPS.size)[min(depth, 2)]
        ratios = (1, 2, 3)[min(depth, 2)]
        a, bp = make_cuts(
            row, objective, ask.nu, low, high, levels, mode.inv_a, ask.mu, om, n_level, ratios, ask.tolerance
        )
        base, worth, order, taken, floor, root, closed = open_search(a, bp, ask.mu, ask.fixed, state[0])
        state[1] = min(state[1], floor)
        if trace is not None:
            trace.append((low, high, depth))
        if closed:
            continue
        root = max(root, inherited)
        bound = np.empty((len(order) + 1, len(base)))
        bound[0] = base
        tried, whole = np.zeros(len(order) + 1, np.int64), np.empty((3, len(ask.mu)))
        counts[DEPTH] = 0
        limit = ask.max_work if narrow else min(_FIRST_WORK * 4**depth, _LAST_WORK)
        spent, done, saved = 0, False, state[1]
        while not done and spent < limit and not control.stopped():
            done = run_search(
                row, objective, ask.nu, free, levels, mode.inv_a, mode.log2_a, ask.mu, om, low,
                worth, order, taken, bound, tried, whole, counts, state,
                ask.step, min(limit, _CHUNK), sets, values,
            )  # fmt: skip
            spent += _CHUNK
        if done:
            continue
        state[1] = saved
        if narrow or control.stopped():
            state[1], exact = min(saved, root), False
            continue
        if trace is not None:
            trace.pop()
        for x, y in _parts(mode, ask, low, high, om, keep, float(state[0])):
            heapq.heappush(heap, (root, serial, x, y, depth + 1))
            serial += 1
    for entry in heap:  # left over after a break
        state[1] = min(state[1], entry[0])
        if trace is not None:
            trace.append((*entry[2:4], entry[4] - 1))
    count = min(int(counts[FOUND]), SETS)
    return Priced(
        float(state[1]), tuple(sets[:count]), first_level, exact, int(counts[NODES]), int(counts[LEAVES])
    )  # fmt: skip


def _parts(
    mode: Mode, ask: Ask, low: float, high: float, level: float, keep: float, threshold: float
) -> list[tuple[float, float]]:
    """Split an interval: off goes what is likely to close at once, else it is halved near its best keep rate."""
    window = keep_window(mode.row, mode.objective, ask.nu, low, high, mode.inv_a, ask.mu, level, threshold)
    left, right = (float(x) for x in window)
    edges = [low]
    if left < right and math.log(right / left) < 0.7 * math.log(high / low):
        edges += [x for x in (left, right) if low < x < high]
    else:
        third = (high / low) ** _SIDE
        edges.append(min(max(keep, low * third), high / third))
    return list(itertools.pairwise([*edges, high]))
