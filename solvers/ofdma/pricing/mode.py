"""Pricing of one device: sets of sub-carriers with a small priced share, and a proof that none is smaller.

A search over sets that does not end soon is given up and its part split: by the number of sub-carriers in a set,
or by the keep rate, the one scalar in which a share is not convex. Parts wait by their bound, lowest first. Where
hardly a keep rate is left to split, a covering knapsack bounds what cuts do not
(:mod:`edgealloc.solvers.ofdma.pricing.cover`).

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import proven_keep
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share
from edgealloc.solvers.ofdma.pricing.counts import count_cuts, count_level, count_window
from edgealloc.solvers.ofdma.pricing.cover import Cover
from edgealloc.solvers.ofdma.pricing.cuts import LEVEL_STEPS, keep_window, make_cuts, relaxed_level
from edgealloc.solvers.ofdma.pricing.sets import DEPTH, FOUND, LEAVES, NODES, open_search, run_search
from edgealloc.solvers.row import SMAX, SMIN
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Ask", "Mode", "Priced", "free_price", "price_mode", "reach"]


SETS = 10  # the last so many finds are kept
# Work of a search, in nodes, before its interval is split: enough for most, and about what the cuts cost.
_FIRST_WORK, _LAST_WORK = 8_000, 1_000_000
_COARSE_WORK = 64_000  # and with a coarse table of covers; a fine one takes about as long to make
# Fewer nodes per leaf than this say that cuts are loose at whole sets: the interval of keep rates is too wide.
_LEAF_SHARE = 5
_SIDE = 0.3  # each part keeps so much of an interval in logarithms, at least
_NARROW = 1.004  # intervals are not split below this ratio, unless shares differ too much in them:
_FALL = 0.25  # more than this part of what separates the bound from the threshold
_POINT = 1.0 + 1e-9  # a ratio of keep rates that count as one
_CHUNK = 1_000_000  # work between two looks at the clock, well below a second


@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """A device with one row of its menu, sub-carriers in the order of increasing 1/a.

    Parameters
    ----------
    row, objective
        See :mod:`edgealloc.solvers.ofdma.kernels.device` and :mod:`edgealloc.solvers.ofdma.kernels.share`. Shapes
        [MODE_WIDTH], [8 + 5 P].
    levels
        Allowed keep rates; empty for any. Shape [J].
    inv_a, log2_a
        1/a in W, inf without a channel, and its negative binary logarithm. Shape [M].
    most
        How many sub-carriers a set may have.
    """

    row: FloatArray
    objective: FloatArray
    levels: FloatArray
    inv_a: FloatArray
    log2_a: FloatArray
    most: int


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
    fixed: IntArray
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


class _Part(NamedTuple):
    """Keep rates and numbers of sub-carriers that wait for a search, the least bound first."""

    bound: float
    serial: int
    low: float
    high: float
    depth: int
    n_low: int
    n_high: int
    fine: bool = False  # a coarse table of covers did not do


@dataclass(frozen=True, slots=True, eq=False)
class _Cuts:
    """Cuts for a part: constants [L], b pi_m [L, M], slopes [L, 3] (none without counts), and the guides."""

    a: FloatArray
    bp: FloatArray
    slopes: FloatArray
    level: float
    keep: float
    count: float


def free_price(mode: Mode, fixed: IntArray, nu: float) -> tuple[float, list[tuple[float, float, int]]]:
    """The least share where sub-carriers cost nothing, and the intervals of keep rates that show it.

    Nothing is searched: no set does better than the most that all allowed sub-carriers carry. ``fixed`` [M] and
    ``nu`` as in :class:`Ask`, intervals as the ``trace`` of :func:`price_mode`.
    """
    free = free_keeps(mode.row, mode.objective, nu)
    low, high = float(mode.row[SMIN]), float(mode.row[SMAX] if mode.levels.size else free[-1])
    beyond = max(reach(mode, fixed)[0], low)
    if beyond == low:
        return math.inf, [(beyond, high, 0)]
    most = min(high, beyond)
    intervals = [(low, most, 0)] if most == high else [(low, most, 0), (most, high, 0)]
    return float(best_share(mode.row, mode.objective, nu, free, mode.levels, beyond)[0]), intervals


def price_mode(
    mode: Mode, ask: Ask, level: float, control: Control, trace: list[tuple[float, float, int]] | None = None
) -> Priced:
    """Price one mode, starting from a water level.

    ``trace`` gets the final intervals of keep rates and their depth; numbers of sub-carriers are not parted then.
    """
    row, objective, levels = mode.row, mode.objective, mode.levels
    free = free_keeps(row, objective, ask.nu)
    low, high = float(row[SMIN]), float(row[SMAX] if levels.size else free[-1])
    beyond = max(reach(mode, ask.fixed)[0], low)  # no set carries this keep rate
    if trace is not None and (beyond < high or beyond == low):
        trace.append((beyond, high, 0))
    if beyond == low:
        return Priced(math.inf, (), level, True, 0, 0)
    high = min(high, beyond)
    sets, values = np.zeros((SETS, len(ask.mu)), bool), np.zeros(SETS)
    counts = np.zeros(5, np.int64)
    state = np.array([ask.threshold, math.inf])
    heap = [_Part(-math.inf, 0, low, high, 0, 0, mode.most)]
    serial, exact, first_level = 1, True, level
    while heap:
        part = heapq.heappop(heap)
        if part.bound > state[0]:
            heapq.heappush(heap, part)
            break  # the others are no lower
        if control.stopped():
            state[1], exact = min(state[1], part.bound), False
            break
        cuts = _cuts(mode, ask, part, level)
        if part.depth == 0:
            first_level = cuts.level
        base, worth, order, taken, floor, root, closed = open_search(cuts.a, cuts.bp, ask.mu, ask.fixed, state[0])
        state[1] = min(state[1], floor)
        if trace is not None:
            trace.append((part.low, part.high, part.depth))
        if closed:
            continue
        root = max(float(root), part.bound)
        thin = _is_thin(mode, part)
        narrow = thin and (trace is not None or part.depth > 0)
        cover = Cover.none(len(order) + 1)
        if narrow and trace is None:
            cover = Cover.of(
                row, objective, levels, mode.inv_a, mode.log2_a, ask.nu, ask.mu, part.low, part.high, cuts.level,
                ask.tolerance, order, taken, part.fine,
            )  # fmt: skip
            root = max(root, cover.bound)
            narrow = not _falls(mode, ask, part, _FALL * (float(state[0]) - root))
        bound = np.empty((len(order) + 1, len(base)))
        bound[0] = base
        tried, whole = np.zeros(len(order) + 1, np.int64), np.empty((3, len(ask.mu)))
        counts[DEPTH] = 0
        limit = ask.max_work if narrow else min(_FIRST_WORK * 4**part.depth, _LAST_WORK)
        if trace is None and not narrow and part.n_low < part.n_high:
            limit = min(limit, 4 * _FIRST_WORK)  # it can be split in two ways
        coarse = narrow and trace is None and not part.fine
        if coarse:
            limit = min(limit, _COARSE_WORK)
        spent, done, saved, before = 0, False, state[1], counts.copy()
        while not done and spent < limit and not control.stopped():
            done = run_search(
                row, objective, ask.nu, free, levels, mode.inv_a, mode.log2_a, ask.mu, cuts.level, part.low,
                worth, order, taken, part.n_low, part.n_high, bound, tried, whole, counts, state,
                ask.step, min(limit, _CHUNK), sets, values, cover.table, cover.gain, cover.left, cover.paid,
            )  # fmt: skip
            spent += _CHUNK
        if done:
            continue
        state[1] = saved
        if coarse and not control.stopped():
            heapq.heappush(heap, part._replace(bound=root, serial=serial, fine=True))
            serial += 1
            continue
        if narrow or control.stopped():
            state[1], exact = min(saved, root), False
            continue
        if trace is not None:
            trace.pop()
        loose = (counts[LEAVES] - before[LEAVES]) * _LEAF_SHARE > counts[NODES] - before[NODES]
        if thin and part.depth == 0:
            pieces = [(part.low, part.high, part.n_low, part.n_high)]  # once more, with all means
        elif trace is None and not (levels.size or thin or loose) and part.n_low < part.n_high:
            pieces = [(part.low, part.high, *some) for some in _numbers(part, cuts.count)]
        else:
            ends = _intervals(mode, ask, part, cuts, float(state[0]))
            pieces = [(*end, part.n_low, part.n_high) for end in ends]
        for x, y, n_low, n_high in pieces:
            heapq.heappush(heap, _Part(root, serial, x, y, part.depth + 1, n_low, n_high))
            serial += 1
    for part in heap:  # left over after a break
        state[1] = min(state[1], part.bound)
        if trace is not None:
            trace.append((part.low, part.high, part.depth - 1))
    count = min(int(counts[FOUND]), SETS)
    return Priced(
        float(state[1]), tuple(sets[:count]), first_level, exact, int(counts[NODES]), int(counts[LEAVES])
    )  # fmt: skip


def reach(mode: Mode, fixed: IntArray) -> tuple[float, float]:
    """A keep rate proved too much for all sub-carriers that a device may own, inf without a proof; water level.

    Profit rates fall with 1/a: no set of a number of sub-carriers carries more than the first so many. ``fixed``
    as in :class:`Ask`, shape [M].
    """
    allowed = fixed != 0
    if mode.most < len(fixed):
        allowed &= np.cumsum(allowed) <= mode.most
    cap, level = keep_cap(mode.row, mode.inv_a, mode.log2_a, allowed.astype(float))
    return float(proven_keep(mode.row, mode.inv_a[allowed], cap, level)), float(level)


def _falls(mode: Mode, ask: Ask, part: _Part, most: float) -> bool:
    """Whether the share falls by more than ``most`` over an interval of keep rates that can still be split."""
    if len(mode.levels) or part.high <= part.low * _POINT:
        return False
    ends = [share(mode.row, mode.objective, ask.nu, s) for s in (part.low, part.high)]
    return bool(ends[0] - ends[1] > most)


def _cuts(mode: Mode, ask: Ask, part: _Part, level: float) -> _Cuts:
    """Cuts for a part, more of them the deeper it lies; with counts unless it holds sets of any number."""
    row, objective, levels = mode.row, mode.objective, mode.levels
    low, high, n_low, n_high = part.low, part.high, part.n_low, part.n_high
    grade = min(part.depth, 2)
    n_level = (1, 3, LEVEL_STEPS.size)[grade]
    whole = n_low == 0 and n_high == mode.most
    om, keep, count = level, 0.0, 0.0
    if whole:
        om, keep, count = relaxed_level(row, objective, ask.nu, low, high, mode.inv_a, mode.log2_a, ask.mu, level)
    if not whole or (n_high < len(ask.mu) and count > n_high):  # the cuts of any number know nothing of a limit
        om = count_level(
            row, objective, ask.nu, low, high, levels, mode.inv_a, mode.log2_a, ask.mu, ask.fixed,
            n_low, n_high, om,
        )  # fmt: skip
        a, bp, slopes = count_cuts(
            row, objective, ask.nu, low, high, levels, mode.inv_a, ask.mu, ask.fixed, n_low, n_high, om,
            n_level, (3, 5, 7)[grade], ask.tolerance,
        )  # fmt: skip
        return _Cuts(a, bp, slopes, om, math.sqrt(low * high), 0.0)
    a, bp = make_cuts(
        row, objective, ask.nu, low, high, levels, mode.inv_a, ask.mu, om, n_level, 1 + grade, ask.tolerance
    )
    return _Cuts(a, bp, np.empty((0, 3)), om, keep, count)


def _numbers(part: _Part, count: float) -> list[tuple[int, int]]:
    """Split a range of numbers of sub-carriers: off go the two around a relaxed one; a tail is halved."""
    low, high = part.n_low, part.n_high
    if count == 0.0:
        return [(low, (low + high) // 2), ((low + high) // 2 + 1, high)]
    first = min(max(math.floor(count), low), high - 1)
    parts = [(low, first - 1), (first, first), (first + 1, first + 1), (first + 2, high)]
    return [(a, b) for a, b in parts if a <= b]


def _is_thin(mode: Mode, part: _Part) -> bool:
    """Whether the keep rates of a part are not worth splitting: hardly different, or a single level."""
    if len(mode.levels):
        return int(np.sum((mode.levels >= part.low) & (mode.levels <= part.high))) <= 1
    return part.high <= part.low * _NARROW


def _intervals(mode: Mode, ask: Ask, part: _Part, cuts: _Cuts, threshold: float) -> list[tuple[float, float]]:
    """Split an interval: off goes what is likely to close at once, else it is halved near its best keep rate."""
    low, high = part.low, part.high
    if len(mode.levels):
        inside = np.sort(mode.levels[(mode.levels >= low) & (mode.levels <= high)])
        between = 0.5 * float(inside[len(inside) // 2 - 1] + inside[len(inside) // 2])
        return [(low, between), (between, high)]
    if len(cuts.slopes):
        window = count_window(
            mode.row, mode.objective, ask.nu, low, high, ask.mu, ask.fixed, cuts.bp, cuts.slopes, threshold
        )
    else:
        window = keep_window(
            mode.row, mode.objective, ask.nu, low, high, mode.inv_a, ask.mu, cuts.level, threshold
        )
    left, right = (float(x) for x in window)
    edges = [low]
    if left < right and math.log(right / left) < 0.7 * math.log(high / low):
        edges += [x for x in (left, right) if low < x < high]
    else:
        third = (high / low) ** _SIDE
        edges.append(min(max(cuts.keep, low * third), high / third))
    return list(itertools.pairwise([*edges, high]))
