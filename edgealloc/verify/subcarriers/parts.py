"""The parts of a leaf's proof: no set of sub-carriers gives a device a priced share below what is claimed.

Three steps for each part, an interval of keep rates cut into cells (docs/certificates.md, section OFDMA):

1. :func:`cell_values`: constants of its cuts, by chords of the profit rate needed over the cells;
2. :func:`~edgealloc.verify.subcarriers.sets.open_sets`: the sets that the cuts do not close;
3. :func:`excluded`: these cannot carry the least keep rate at which they would pay.

The points of many parts, of many leaves, are evaluated at once: arrays hold those of one claim after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.proof.enclosures import Balls, Number
from edgealloc.verify.proof.verdict import Budget
from edgealloc.verify.subcarriers.claim import SUM, Claim, Model, Places, row_of, share_ends, share_values
from edgealloc.verify.subcarriers.device import Needs, needs
from edgealloc.verify.subcarriers.pays import pays_from
from edgealloc.verify.subcarriers.sets import open_sets

__all__ = ["cell_values", "excluded", "left_open", "may_carry"]

FREE = Budget.of(0)


def left_open(model: Model, claims: Sequence[Claim], budget: Budget = FREE) -> list[BoolArray | None]:
    """The sets that the cuts of each claim leave open, [N, M] each; None where there are too many.

    What the search and the sets cost is taken from the budget.
    """
    if not claims:
        return []
    least = [
        np.append(np.min(cells, axis=1, initial=np.inf), np.min(plain, initial=np.inf))
        for cells, plain, _ in cell_values(model, claims)
    ]
    sizes = [len(some) for some in least]
    low, wanted = np.concatenate(least), np.repeat([claim.least for claim in claims], sizes)
    never = np.isposinf(low)  # no keep rate of the part can be served at all
    base = np.where(never, np.inf, (model.kind.of(np.where(never, 0.0, low)) - wanted).lower())
    ends, found = np.cumsum(sizes)[:-1], []
    for claim, own, worth in zip(claims, np.split(base, ends), _worths(model, claims), strict=True):
        sets = open_sets(own, worth, claim.fixed, budget.search)
        budget.sets(0 if sets is None else len(sets), False, model.kind is Balls)
        found.append(sets)
    return found


@dataclass(slots=True, eq=False)
class _Layout:
    """Of one claim: its U different levels, the level ``which`` of each cut, and how many cells it has."""

    claim: Claim
    levels: FloatArray
    which: IntArray
    cells: int

    @classmethod
    def of(cls, claim: Claim) -> _Layout:
        """A claim about single keep rates has a cell for each."""
        levels, which = np.unique(claim.part.level_w, return_inverse=True)
        edges = len(claim.edges)
        return cls(claim, levels, which, edges if claim.points is not None or edges == 1 else edges - 1)

    @property
    def wide(self) -> bool:
        return self.cells < len(self.claim.edges)


def cell_values(model: Model, claims: Sequence[Claim]) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Of each claim, from below: worth of its cuts on each cell [L, C], share alone [C], needs at edges [L, E].

    Where only some keep rates are allowed, each of them is a cell.
    """
    layouts = [_Layout.of(claim) for claim in claims]
    floor, pulls = np.zeros(0), np.zeros((2, 0))
    if any(len(each.levels) for each in layouts):
        planes, floor = _floors(model, layouts)
        pulls = np.stack((planes.pull.lower(), planes.pull.upper()))
    left, right, plain = _shares(model, layouts)
    # cells one after another: of each level [U, C], and of each cut [L, C]
    first, second, flat, here, slope = [], [], [], [], []
    edge, cell, at = 0, 0, 0
    for each in layouts:
        count, edges, step = len(each.levels), len(each.claim.edges), int(each.wide)
        corner = edge + edges * np.arange(count)[:, None] + np.arange(each.cells)
        first.append(corner.ravel())
        second.append(corner.ravel() + step)
        flat.append((at + each.cells * each.which[:, None] + np.arange(each.cells)).ravel())
        here.append(np.tile(cell + np.arange(each.cells), len(each.which)))
        slope.append(np.repeat(each.claim.part.slope, each.cells))
        edge, cell, at = edge + edges * count, cell + each.cells, at + each.cells * count
    begin, end, loss = _chords(model.kind, floor, pulls, np.concatenate(first), np.concatenate(second))
    flat_, here_, b = np.concatenate(flat), np.concatenate(here), model.kind.of(np.concatenate(slope))
    ends = [
        (model.kind.of(share[here_]) + b * (model.kind.of(need[flat_]) - model.kind.of(loss[flat_]))).lower()
        for share, need in ((left, begin), (right, end))
    ]
    values = np.where(np.isposinf(begin[flat_]), np.inf, np.minimum(ends[0], ends[1]))
    found, cut, cell, edge = [], 0, 0, 0
    for each in layouts:
        cuts, edges = len(each.which), len(each.claim.edges)
        mine = values[cut : cut + cuts * each.cells].reshape(cuts, each.cells)
        need = floor[edge : edge + edges * len(each.levels)].reshape(len(each.levels), edges)[each.which]
        found.append((mine, plain[cell : cell + each.cells], need))
        cut, cell, edge = cut + mine.size, cell + each.cells, edge + edges * len(each.levels)
    return found


def _shares(model: Model, layouts: list[_Layout]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Share at both ends of each cell, and the least of it, from below. Shapes [sum of C]."""
    found = np.empty((3, sum(each.cells for each in layouts)))
    starts = np.cumsum([0, *(each.cells for each in layouts)])
    for wide in (False, True):
        some = [i for i, each in enumerate(layouts) if each.wide is wide]
        if not some:
            continue
        mine = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in some])
        places = Places.of(model, [layouts[i].claim for i in some], [layouts[i].cells for i in some])
        low = np.concatenate([layouts[i].claim.edges[: layouts[i].cells] for i in some])
        if wide:
            found[:, mine] = share_ends(places, low, np.concatenate([layouts[i].claim.edges[1:] for i in some]))
        else:
            found[:, mine] = share_values(places, low)
    return found[0], found[1], found[2]


def _chords(
    kind: type[Number], floor: FloatArray, pulls: FloatArray, first: IntArray, second: IntArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Profit rate needed at both ends of cells, and how far below the chord it may be between. Shapes [N].

    ``floor`` and ``pulls`` are those of the planes at the edges ``first`` and ``second`` of the cells. Planes of
    both ends, mixed so that 1 / t drops out, leave a chord, bent where their pulls differ.
    """
    begin, end = floor[first], np.maximum(floor[first], floor[second])
    bent = np.isfinite(end) & (end > begin)
    ratio = (kind.of(pulls[1, second]) / kind.of(pulls[0, first])).upper()
    more = kind.of(np.where(bent, end, 0.0)) - kind.of(np.where(bent, begin, 0.0))
    loss = (more * kind.of(np.maximum(ratio - 1.0, 0.0)) * 0.25).upper()
    unknown = ~((pulls[0, first] > 0.0) & ((pulls[0, second] > 0.0) | ~bent))
    loss = np.where(first == second, 0.0, np.where(unknown, np.inf, np.where(bent, loss, 0.0)))
    return begin, np.where(np.isposinf(end), begin, end), loss  # or the right end is surely not served


def _floors(model: Model, layouts: list[_Layout]) -> tuple[Needs, FloatArray]:
    """Planes at all edges of all claims for each of their levels, and the profit rate needed there, from below."""
    number, level, keep, first, sizes = [], [], [], [], []
    for each in layouts:
        edges, count = each.claim.edges, len(each.levels)
        number.append(np.full(count * len(edges), row_of(model, each.claim)))
        level.append(np.repeat(each.levels, len(edges)))
        keep.append(np.tile(edges, count))
        first.append(np.full(count * len(edges), edges[0]))
        sizes += [len(edges)] * count
    plane, tops = _plane(model, *(np.concatenate(column) for column in (number, level, keep, first)))
    # planes of two edges are mixed: both have to hold up to the same 1 / t
    which, top = np.repeat(np.arange(len(sizes)), sizes), np.zeros(len(sizes))
    np.maximum.at(top, which, np.where(plane.unserved | np.isneginf(plane.value.lower()), 0.0, tops))
    return plane, plane.floor(top[which])


def _plane(
    model: Model, number: IntArray, level: FloatArray, keep: FloatArray, first: FloatArray
) -> tuple[Needs, FloatArray]:
    """Planes, and the 1 / t from which on the least payload alone, at full power, needs more than they say."""
    rows, watt = model.rows.take(number), model.radio.watt(level)
    plane = needs(rows, watt, keep)
    least = rows.d0 + rows.d1 * model.kind.of(first)
    return plane, ((plane.value + watt * rows.power) / least).upper()


def _worths(model: Model, claims: Sequence[Claim]) -> list[FloatArray]:
    """What a sub-carrier adds to each cut, ``mu_m - b pi_m``, from below; last the cut of slope 0. [L + 1, M]."""
    kind, sizes = model.kind, [len(claim.part.level_w) for claim in claims]
    device = np.repeat([claim.part.device for claim in claims], sizes)
    level, slope = (
        np.concatenate([getattr(claim.part, name) for claim in claims]) for name in ("level_w", "slope")
    )
    pairs, which = np.unique(np.stack((device, level)), axis=1, return_inverse=True)
    profit = kind.of(model.radio.profits(pairs[0].astype(np.intp), pairs[1])[which.ravel()])
    prices = np.stack([claim.prices for claim in claims])
    worth = (kind.of(np.repeat(prices, sizes, axis=0)) - kind.of(slope[:, None]) * profit).lower()
    return [
        np.concatenate((own, claim.prices[None, :]))
        for own, claim in zip(np.split(worth, np.cumsum(sizes)[:-1]), claims, strict=True)
    ]


def excluded(model: Model, claims: Sequence[Claim], sets: Sequence[BoolArray], budget: Budget) -> list[BoolArray]:
    """What of the sets that cuts leave open stays open after the water levels of ``exclude_w``, [N, M] each."""
    balls = model.kind is Balls
    rates = pays_from(model, claims, sets)
    left = [s[np.isfinite(r)] for s, r in zip(sets, rates, strict=True)]
    rates = [r[np.isfinite(r)] for r in rates]
    tried = 0
    while live := [i for i, c in enumerate(claims) if len(left[i]) and tried < len(c.part.exclude_w)]:
        budget.sets(sum(len(left[i]) for i in live), True, balls)
        levels = [float(claims[i].part.exclude_w[tried]) for i in live]
        stays = may_carry(
            model, [claims[i] for i in live], levels, [rates[i] for i in live], [left[i] for i in live]
        )
        for i, stay in zip(live, stays, strict=True):
            left[i], rates[i] = left[i][stay], rates[i][stay]
        tried += 1
    return left


def may_carry(
    model: Model,
    claims: Sequence[Claim],
    levels: list[float],
    rates: Sequence[FloatArray],
    sets: Sequence[BoolArray],
) -> list[BoolArray]:
    """Which sets one water level per claim does not exclude from carrying the keep rates ``rates``, [N] each."""
    sizes = [len(rate) for rate in rates]
    number = np.repeat([row_of(model, claim) for claim in claims], sizes)
    keep = np.concatenate(rates)
    plane, top = _plane(model, number, np.repeat(levels, sizes), keep, keep)
    needed = np.split(plane.floor(top), np.cumsum(sizes)[:-1])
    profits = model.radio.profits(np.array([claim.part.device for claim in claims]), np.array(levels))
    return [
        ~(need > (some @ profit) * (1.0 + len(profit) * SUM))
        for profit, some, need in zip(profits, sets, needed, strict=True)
    ]
