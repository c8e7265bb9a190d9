"""An independent answer for tiny cells: the best point that enumeration and searches find, and a bound below.

Written from docs/model.md and nothing else of this project but its data classes. Menu rows, levels, who takes
part, owners of sub-carriers and numbers of blocks are enumerated; keep rates and bandwidths are searched. The
point is feasible by exact arithmetic (``exact.py``), so the optimum is no larger whatever the searches miss.
The bound below is that of a search over boxes with all budgets eased by ``EASE``, more than doubles get wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from tests.fuzz.carry import F_MAX, HIGH, NEVER, caps_of_bands, carried, flow, least_band, least_frequency
from tests.fuzz.cell import OUT, Cell, Choice
from tests.fuzz.exact import faults_of, value_of
from tests.fuzz.spread import at_split, between, bound_below
from tests.fuzz.weigh import Worth, bound, least_in_box

EASE = 1e-11
MARGINS = (
    0.0,
    1e-15,
    1e-14,
    1e-13,
    1e-12,
    1e-11,
    1e-10,
    1e-9,
)  # a point is drawn in by these until it is feasible
LOOSE = (1e-4, 1e-3, 1e-2, 1e-1)  # how far below the point's value the bound is tried
BOXES, TABLE = 8000, 200


@dataclass(frozen=True)
class Answer:
    """A feasible point or None; its G, inf without; what G is not below, inf where nothing can be feasible."""

    point: Allocation | None
    value: float
    lower: float


@dataclass(frozen=True)
class Candidate:
    """What may be a good point; ``grant`` [K] is in Hz, or a number of blocks, or the bits of a set."""

    value: float
    combination: tuple[Choice, ...]
    keep: FloatArray
    grant: FloatArray


def ask(instance: Instance, bracket: bool = True) -> Answer:
    """The best point found of a tiny cell, and with ``bracket`` what G is not below."""
    cell = Cell(instance)
    tried = _common(cell) if instance.common_keep else _searched(cell)
    found = sorted((c for c in tried if math.isfinite(c.value)), key=lambda candidate: candidate.value)
    point, value = None, math.inf
    for candidate in found[:4]:
        trial = _drawn_in(cell, candidate)
        if trial is not None and value_of(instance, trial) < value:
            point, value = trial, value_of(instance, trial)
    if not bracket:
        return Answer(point, value, -math.inf)
    eased = Cell(instance, EASE)
    below = _below_common if instance.common_keep else _below
    return Answer(point, value, min(value, below(eased, value)))


def _ends(combination: tuple[Choice, ...]) -> tuple[FloatArray, FloatArray]:
    return np.array([c.low for c in combination]), np.array([c.high for c in combination])


def _searched(cell: Cell) -> Iterator[Candidate]:
    """Candidates, a better one each time: combinations in the order of what they cannot be below."""
    best = math.inf
    for least, combination in _ranked(cell):
        if least >= best:
            return
        low, high = _ends(combination)
        worth, absent = cell.costs(combination)
        if not high.any():
            value, keep, grant = bound(low, high, worth), low, np.zeros(len(low))
        elif cell.instance.access == "fdma":
            needs = _needs(cell, combination, low)
            if not math.fsum(needs) <= cell.instance.bandwidth_hz:
                continue
            value, keep, grant = _best_split(cell, combination, needs)
        else:
            value, keep, grant = _best_deal(cell, combination, best - absent)
        if value + absent < best:
            best = value + absent
            yield Candidate(best, combination, keep, grant)


def _ranked(cell: Cell) -> list[tuple[float, tuple[Choice, ...]]]:
    ranked = []
    for combination in itertools.product(*(cell.choices(k) for k in range(cell.instance.num_devices))):
        low, high = _ends(combination)
        worth, absent = cell.costs(combination)
        ranked.append((bound(low, high, worth) + absent, combination))
    return sorted(ranked, key=lambda pair: pair[0])


def _rows(cell: Cell, combination: tuple[Choice, ...], high: FloatArray) -> FloatArray:
    rows = np.stack([cell.row(k, max(c.option, 0)) for k, c in enumerate(combination)])
    rows[:, HIGH] = high
    return rows


def _needs(cell: Cell, combination: tuple[Choice, ...], keep: FloatArray) -> FloatArray:
    """Least bandwidths in Hz for keep rates, inf where the whole band does not do. Shape [K]."""
    band = cell.instance.bandwidth_hz
    return np.array([
        least_band(cell.row(k, c.option), float(cell.noise_of(k, c.option)[0]), float(keep[k]), band)
        if c.option != OUT else 0.0
        for k, c in enumerate(combination)
    ])  # fmt: skip


def _best_split(
    cell: Cell, combination: tuple[Choice, ...], needs: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Least G found, keep rates and bandwidths in Hz: what is left of the band moves between pairs of devices."""
    low, high = _ends(combination)
    free = np.flatnonzero(low < high).tolist()
    left = cell.instance.bandwidth_hz * (1.0 - 1e-15) - math.fsum(needs)
    rows, (worth, _absent) = _rows(cell, combination, high), cell.costs(combination)
    more = (rows, cell.noises(combination), low, high, worth)
    shares = np.zeros(len(low))
    shares[free] = 1.0 / max(len(free), 1)
    best, keep = at_split(needs + left * shares, *more)
    for _ in range(6 if len(free) > 2 else 1):
        before = best
        for i, j in itertools.combinations(free, 2):
            value, s = between(i, j, shares, left, best, needs, *more)
            best, keep = (value, s) if value < best else (best, keep)
        if not best < before * (1.0 - 1e-13):
            break
    return best, keep, needs + left * shares


def _best_deal(cell: Cell, combination: tuple[Choice, ...], enough: float) -> tuple[float, FloatArray, FloatArray]:
    """Least G below ``enough`` over whole blocks or sub-carriers, keep rates, what each has; inf if none."""
    low, _high = _ends(combination)
    worth, _absent = cell.costs(combination)
    caps, deals = cell.caps(combination)
    least = np.array([bound(low, top, worth) for top in caps])
    best, keep, grant = math.inf, low, np.zeros(len(low))
    for i in np.argsort(least).tolist():
        if least[i] >= min(best, enough):
            break
        value, s = least_in_box(low, caps[i], worth)
        if value < best:
            best, keep, grant = value, s, deals[i].astype(float)
    return best, keep, grant


def _drawn_in(cell: Cell, candidate: Candidate) -> Allocation | None:
    """The candidate as an allocation that breaks no budget in exact arithmetic; None if no margin helps."""
    for margin, faster in itertools.product(MARGINS, (0.0, 2.3e-16, 1e-15)):
        point = _allocation(cell, candidate, margin, faster)
        if point is not None and not faults_of(cell.instance, point):
            return point
    return None


def _allocation(cell: Cell, candidate: Candidate, margin: float, faster: float) -> Allocation | None:
    inst = cell.instance
    k_all, ofdma = inst.num_devices, inst.access == "ofdma"
    on = np.array([c.option != OUT for c in candidate.combination])
    keep, freq = np.zeros(k_all), np.zeros(k_all)
    owner, power = (
        np.full(inst.gain.shape[1] if ofdma else 0, -1),
        np.zeros(inst.gain.shape[-1] if ofdma else k_all),
    )
    band = candidate.grant * (inst.block_hz or 1.0)
    if not np.isfinite(band).all():
        return None
    if inst.access == "fdma" and sum(map(Fraction, band.tolist())) > Fraction(inst.bandwidth_hz):
        band = band * (1.0 - 1e-15)
    shared = max(float(inst.keep_min[on].max(initial=0.0)), float(candidate.keep.max()) * (1.0 - margin))
    for k in np.flatnonzero(on).tolist():
        choice = candidate.combination[k]
        keep[k] = max(choice.low, float(candidate.keep[k]) * (1.0 - margin))
        if inst.common_keep:
            keep[k] = shared if inst.keep_levels is None else candidate.keep.max()
        row = cell.row(k, choice.option)
        row[HIGH] = keep[k]
        mine = [m for m in range(len(owner)) if int(candidate.grant[k]) >> m & 1] if ofdma else []
        wide = inst.bandwidth_hz / len(owner) if ofdma else float(band[k])
        noise = np.sort(cell.noise[k, mine]) if ofdma else cell.noise_of(k, choice.option)
        noise = noise[np.isfinite(noise)]
        _s, level = carried(row, noise, wide)
        if not level > 0.0:
            return None
        rate, total = flow(noise, wide, level)
        freq[k] = min(least_frequency(row, keep[k], rate) * (1.0 + faster), row[F_MAX])
        if not ofdma:
            power[k] = total
        for m in mine:
            depth = noise[0] * level + (noise[0] - cell.noise[k, m])
            if depth > 0.0:
                owner[m], power[m] = k, wide * depth
    menus = inst.adapter_options or (None,) * k_all
    option = [c.option if m is not None else -1 for c, m in zip(candidate.combination, menus, strict=True)]
    return Allocation(
        keep,
        freq,
        power,
        None if ofdma else np.where(on, band, 0.0),
        owner if ofdma else None,
        on,
        np.array(option),
    )


def _shared(cell: Cell) -> Iterator[tuple[tuple[Choice, ...], float, float, list[float] | None, FloatArray]]:
    """With one rate for all: menu rows, the range that all of those inside can have, levels, and a deal."""
    inst = cell.instance
    rows = [sorted({c.option for c in cell.choices(k)}) for k in range(inst.num_devices)]
    for options in itertools.product(*rows):
        on = [k for k, o in enumerate(options) if o != OUT]
        if not on:
            yield tuple(Choice(OUT, 0.0, 0.0) for _ in options), 0.0, 0.0, None, np.zeros(len(options))
            continue
        low, high = float(inst.keep_min[on].max()), float(inst.keep_max[on].min())
        if low > high:
            continue
        lists = [
            inst.keep_levels[k].tolist()
            for k in on
            if inst.keep_levels is not None and inst.keep_levels[k] is not None
        ]
        levels = sorted(set(lists[0]).intersection(*lists)) if lists else None
        if levels is not None:
            levels = [s for s in levels if low <= s <= high]
            if not levels:
                continue
            low, high = levels[0], levels[-1]
        combination = tuple(Choice(o, low, high) if o != OUT else Choice(OUT, 0.0, 0.0) for o in options)
        if inst.access == "fdma":
            top, grant = _common_band(cell, combination, low, high), np.zeros(len(options))
        else:
            caps, deals = cell.caps(combination)
            if not len(caps):
                continue
            together = caps[:, on].min(axis=1)
            top, grant = float(together.max()), deals[int(np.argmax(together))].astype(float)
        if top >= low:
            yield combination, low, top, levels, grant


def _common_band(cell: Cell, combination: tuple[Choice, ...], low: float, high: float) -> float:
    """Largest rate that all can have in the band."""
    band = cell.instance.bandwidth_hz

    def fits(s: float) -> bool:
        return math.fsum(_needs(cell, combination, np.full(len(combination), s))) <= band

    if not fits(low):
        return NEVER
    if fits(high):
        return high
    for _ in range(48):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _common(cell: Cell) -> Iterator[Candidate]:
    for combination, low, top, levels, grant in _shared(cell):
        on = np.array([c.option != OUT for c in combination])
        worth, absent = cell.costs(combination)

        def value(s: float, on: FloatArray = on, worth: Worth = worth, absent: float = absent) -> float:
            return float(bound(s * on, s * on, worth)) + absent

        rates = [s for s in levels if s <= top] if levels is not None else None
        at, step = (0.0, 0.0) if not on.any() else (math.sqrt(low * top), math.log(top / low) / 2.0)
        for _ in range(1 if rates is not None or not step else 7):
            grid = rates or [min(top, max(low, at * math.exp(step * x))) for x in np.linspace(-1.0, 1.0, 161)]
            at, step = min(grid, key=value), step / 40.0
        keep = at * on
        if cell.instance.access == "fdma" and on.any():
            grant = _needs(cell, combination, keep)
        yield Candidate(value(at), combination, keep, grant)


def _below(cell: Cell, value: float) -> float:
    """What G is not below, at most ``value``; inf where nothing can be feasible."""
    band, lower = cell.instance.bandwidth_hz * (1.0 + EASE), math.inf
    for least, combination in _ranked(cell):
        if least >= min(lower, value):
            break
        low, high = _ends(combination)
        worth, absent = cell.costs(combination)
        caps, bands = np.zeros((1, len(low))), np.zeros((0, 0))
        if not high.any():
            lower = min(lower, least)
            continue
        if cell.instance.access == "fdma":
            needs = _needs(cell, combination, low)
            if not math.fsum(needs) <= band:
                continue
            first = band * 1e-30 if not needs.any() else 0.999 * float(needs[needs > 0.0].min())
            bands = np.tile(np.geomspace(first, band, TABLE), (len(low), 1))
            rows = _rows(cell, combination, high)
            noises = cell.noises(combination)
            caps = np.stack([caps_of_bands(row, n, b) for row, n, b in zip(rows, noises, bands, strict=True)])
            caps = np.maximum.accumulate(caps, axis=1)
        else:
            caps, _deals = cell.caps(combination)
            if not len(caps):
                continue
        share = least
        for loose in LOOSE if math.isfinite(value) else ():
            target = value * (1.0 - loose)
            if target <= least:
                break
            closed, nothing = bound_below(target - absent, BOXES, low, high, caps, bands, band, worth)
            if closed:
                share = math.inf if nothing else target
                break
        lower = min(lower, share)
    return lower * (1.0 - 1e-12) if math.isfinite(lower) else lower


def _below_common(cell: Cell, value: float) -> float:
    lower = math.inf
    for combination, low, top, levels, _grant in _shared(cell):
        on = np.array([c.option != OUT for c in combination])
        worth, absent = cell.costs(combination)
        if not on.any():
            cells = [(0.0, 0.0)]
        elif levels is not None:
            cells = [(s, s) for s in levels if s <= top]
        else:
            edges = np.geomspace(low, min(top * (1.0 + 1e-9), 1.0), 2000)
            cells = list(itertools.pairwise(edges.tolist()))
        lower = min([lower, *(bound(a * on, b * on, worth) + absent for a, b in cells)])
    return lower * (1.0 - 1e-12) if math.isfinite(lower) else lower
