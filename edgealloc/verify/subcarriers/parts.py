"""The parts of a leaf's proof: no set of sub-carriers gives a device a priced share below what is claimed.

Three steps for each part, an interval of keep rates cut into cells (docs/certificates.md, section OFDMA):

1. :func:`cell_values`: constants of its cuts, by chords of the profit rate needed over the cells;
2. :func:`~edgealloc.verify.subcarriers.sets.open_sets`: the sets that the cuts do not close;
3. :func:`excluded`: these cannot carry the least keep rate at which they would pay.

The points of many parts are evaluated at once.
"""

from __future__ import annotations

import numpy as np

from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.proof.enclosures import Balls
from edgealloc.verify.proof.verdict import Budget
from edgealloc.verify.subcarriers.claim import SUM, Claim, Model, row_of, share_ends, share_values
from edgealloc.verify.subcarriers.device import Needs, needs
from edgealloc.verify.subcarriers.pays import pays_from
from edgealloc.verify.subcarriers.sets import open_sets

__all__ = ["cell_values", "excluded", "left_open", "may_carry"]


def left_open(model: Model, claims: list[Claim]) -> list[BoolArray | None]:
    """The sets that the cuts of each claim leave open, [N, M] each; None where there are too many."""
    found = []
    for claim, (cells, plain, _) in zip(claims, cell_values(model, claims), strict=True):
        base = np.append(np.min(cells, axis=1, initial=np.inf), np.min(plain, initial=np.inf))
        never = np.isposinf(base)  # no keep rate of the part can be served at all
        base = np.where(never, np.inf, (model.kind.of(np.where(never, 0.0, base)) - claim.least).lower())
        found.append(open_sets(base, _worths(model, claim), claim.fixed))
    return found


def cell_values(model: Model, claims: list[Claim]) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Of each claim, from below: worth of its cuts on each cell [L, C], share alone [C], needs at edges [L, E].

    Where only some keep rates are allowed, each of them is a cell.
    """
    groups = [np.unique(claim.part.level_w, return_inverse=True) for claim in claims]
    sizes = [len(level) * len(claim.edges) for claim, (level, _) in zip(claims, groups, strict=True)]
    if sum(sizes):
        planes, floor = _floors(model, claims, [level for level, _ in groups])
        pulls = np.stack((planes.pull.lower(), planes.pull.upper()))
    else:
        floor, pulls = np.zeros(0), np.zeros((2, 0))
    found, start = [], 0
    for claim, (unique, which), size in zip(claims, groups, sizes, strict=True):
        mine, shape = slice(start, start + size), (len(unique), len(claim.edges))
        start += size
        found.append(_cells(model, claim, which, floor[mine].reshape(shape), pulls[:, mine].reshape(2, *shape)))
    return found


def _floors(model: Model, claims: list[Claim], levels: list[FloatArray]) -> tuple[Needs, FloatArray]:
    """Planes at all edges of all claims for each of their levels, and the profit rate needed there, from below."""
    number, level, keep, first, group = [], [], [], [], 0
    groups = []
    for claim, some in zip(claims, levels, strict=True):
        edges = claim.edges
        number.append(np.full(len(some) * len(edges), row_of(model, claim)))
        level.append(np.repeat(some, len(edges)))
        keep.append(np.tile(edges, len(some)))
        first.append(np.full(len(some) * len(edges), edges[0]))
        groups.append(np.repeat(np.arange(group, group + len(some)), len(edges)))
        group += len(some)
    plane, tops = _plane(model, *(np.concatenate(column) for column in (number, level, keep, first)))
    # planes of two edges are mixed: both have to hold up to the same 1 / t
    which, top = np.concatenate(groups), np.zeros(group)
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


def _cells(
    model: Model, claim: Claim, which: IntArray, values: FloatArray, pulls: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """See :func:`cell_values`; ``values`` [U, E] and ``pulls`` [2, U, E] are planes at the edges for U levels.

    Cut l has the level number ``which[l]``.
    """
    kind, edges = model.kind, claim.edges
    if claim.points is not None or len(edges) == 1:
        share = share_values(model, claim, edges)
        left, right, need_left, need_right, loss = share, share, values, values, np.zeros_like(values)
        plain = share
    else:
        left, right, plain = share_ends(model, claim, edges)
        # planes of both ends, mixed so that 1 / t drops out, leave a chord, bent where their pulls differ
        need_left, need_right = values[:, :-1], np.maximum(values[:, 1:], values[:, :-1])
        bent = np.isfinite(need_right) & (need_right > need_left)
        ratio = (kind.of(pulls[1, :, 1:]) / kind.of(pulls[0, :, :-1])).upper()
        more = kind.of(np.where(bent, need_right, 0.0)) - kind.of(np.where(bent, need_left, 0.0))
        loss = (more * kind.of(np.maximum(ratio - 1.0, 0.0)) * 0.25).upper()
        unknown = ~((pulls[0, :, :-1] > 0.0) & ((pulls[0, :, 1:] > 0.0) | ~bent))
        loss = np.where(unknown, np.inf, np.where(bent, loss, 0.0))
        need_right = np.where(np.isposinf(need_right), need_left, need_right)  # right end surely not served
    b = kind.of(claim.part.slope[:, None])
    ends = [
        (kind.of(share) + b * (kind.of(need[which]) - kind.of(loss[which]))).lower()
        for share, need in ((left, need_left), (right, need_right))
    ]
    cells = np.where(np.isposinf(need_left[which]), np.inf, np.minimum(ends[0], ends[1]))
    return cells, plain, values[which]


def _worths(model: Model, claim: Claim) -> FloatArray:
    """What a sub-carrier adds to each cut, ``mu_m - b pi_m``, from below; last the cut of slope 0. [L + 1, M]."""
    kind = model.kind
    unique, which = np.unique(claim.part.level_w, return_inverse=True)
    profit = kind.of(model.radio.profits(claim.part.device, unique)[which])
    worth = (kind.of(claim.prices) - kind.of(claim.part.slope[:, None]) * profit).lower()
    return np.concatenate((worth, claim.prices[None, :]))


def excluded(model: Model, claims: list[Claim], sets: list[BoolArray], budget: Budget) -> list[BoolArray]:
    """What of the sets that cuts leave open stays open after the water levels of ``exclude_w``, [N, M] each."""
    balls = model.kind is Balls
    budget.sets(sum(map(len, sets)), False, balls)
    rates = [pays_from(model, c, s) for c, s in zip(claims, sets, strict=True)]
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
    model: Model, claims: list[Claim], levels: list[float], rates: list[FloatArray], sets: list[BoolArray]
) -> list[BoolArray]:
    """Which sets one water level per claim does not exclude from carrying the keep rates ``rates``, [N] each."""
    sizes = [len(rate) for rate in rates]
    number = np.repeat([row_of(model, claim) for claim in claims], sizes)
    keep = np.concatenate(rates)
    plane, top = _plane(model, number, np.repeat(levels, sizes), keep, keep)
    needed = np.split(plane.floor(top), np.cumsum(sizes)[:-1])
    found = []
    for claim, level, some, need in zip(claims, levels, sets, needed, strict=True):
        profit = model.radio.profits(claim.part.device, np.array([level]))[0]
        found.append(~(need > (some @ profit) * (1.0 + len(profit) * SUM)))
    return found
