"""The parts of a leaf's proof: no set of sub-carriers gives a device a priced share below what is claimed.

Three steps for each part, an interval of keep rates cut into cells (docs/certificates.md, section OFDMA):

1. :func:`cell_values`: constants of its cuts, by chords of the profit rate needed over the cells;
2. :func:`~edgealloc.verify_certificate_ofdma_sets.open_sets`: the sets that the cuts do not close;
3. :func:`excluded`: these cannot carry the least keep rate at which they would pay.

The points of many parts are evaluated at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgealloc.certificate_ofdma import Part
from edgealloc.instance import Instance
from edgealloc.units import FloatArray
from edgealloc.verify_certificate_device import Device, Shares
from edgealloc.verify_certificate_numbers import Number
from edgealloc.verify_certificate_ofdma_device import Needs, Radio, needs
from edgealloc.verify_certificate_ofdma_sets import open_sets

__all__ = ["Claim", "Model", "cell_values", "excluded", "left_open", "may_carry", "pays_from", "share_values"]

_SUM = 2.0**-51  # relative error of adding up one more term, generously
_GRID, _NEWTON = 48, 5  # for the keep rate at which a set pays; how well it is found decides nothing


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An instance in one number type: a row per device and row of its menu.

    Parameters
    ----------
    rows, shares
        Constants and parts of the objective; shares of 0 where devices left out are counted. Shapes [R].
    number
        Row of (device, option).
    """

    instance: Instance
    kind: type[Number]
    rows: Device
    shares: Shares
    radio: Radio
    number: dict[tuple[int, int], int]

    @classmethod
    def of(cls, instance: Instance, kind: type[Number], counting: bool) -> Model:
        """All rows of an instance; ``counting``: the objective is the number of devices left out."""
        menus = instance.adapter_options
        pairs = [
            (k, j) for k in range(instance.num_devices) for j in range(len((menus[k] if menus else None) or (0,)))
        ]
        device, option = (np.array(column, dtype=np.intp) for column in zip(*pairs, strict=True))
        shares = Shares.of(instance, device, option, kind)
        if counting:
            zero = kind.of(np.zeros(len(pairs)))
            out = np.zeros(len(pairs), bool)
            shares = Shares("inverse-keep", zero, zero, None, out, kind.of(np.ones(len(pairs))))
        rows = Device.of(instance, device, option, kind)
        return cls(instance, kind, rows, shares, Radio.of(instance, kind), {p: i for i, p in enumerate(pairs)})


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What one part has to show.

    Parameters
    ----------
    part
        The part.
    least
        What the priced share of the device is to reach.
    prices, nu
        Prices of the sub-carriers [M] and of the kept share.
    fixed
        1 owned, 0 not owned, -1 open. Shape [M].
    points
        Keep rates at which it is to be shown where only some are allowed, None: on the whole interval. Shape [J].
    """

    part: Part
    least: float
    prices: FloatArray
    nu: Number
    fixed: NDArray[np.int8]
    points: FloatArray | None

    @property
    def edges(self) -> FloatArray:
        """Keep rates at which the profit rate needed is asked for. Shape [E]."""
        return self.part.keep if self.points is None else self.points


def left_open(model: Model, claims: list[Claim]) -> list[NDArray[np.bool_] | None]:
    """The sets that the cuts of each claim leave open, [N, M] each; None where there are too many."""
    found = []
    for claim, (cells, plain, _) in zip(claims, cell_values(model, claims), strict=True):
        base = np.append(np.min(cells, axis=1, initial=np.inf), np.min(plain, initial=np.inf))
        base = (model.kind.of(base) - claim.least).lower()
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
        number.append(np.full(len(some) * len(edges), _row(model, claim)))
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


def _row(model: Model, claim: Claim) -> int:
    return model.number[claim.part.device, claim.part.option]


def _plane(
    model: Model, number: NDArray[np.intp], level: FloatArray, keep: FloatArray, first: FloatArray
) -> tuple[Needs, FloatArray]:
    """Planes, and the 1 / t from which on the least payload alone, at full power, needs more than they say."""
    rows, watt = model.rows.take(number), model.radio.watt(level)
    plane = needs(rows, watt, keep)
    least = rows.d0 + rows.d1 * model.kind.of(first)
    return plane, ((plane.value + watt * rows.power) / least).upper()


def _cells(
    model: Model, claim: Claim, which: NDArray[np.intp], values: FloatArray, pulls: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """See :func:`cell_values`; ``values`` [U, E] and ``pulls`` [2, U, E] are planes at the edges for U levels.

    Cut l has the level number ``which[l]``.
    """
    kind, edges = model.kind, claim.edges
    if claim.points is not None or len(edges) == 1:
        share = share_values(model, claim, edges)[0]
        left, right, need_left, need_right, loss = share, share, values, values, np.zeros_like(values)
        plain = share
    else:
        left, right, plain = _share_ends(model, claim, edges)
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


def share_values(model: Model, claim: Claim, keep: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share at keep rates from below, and its slope in log s from above. Shapes [N]."""
    value, slope = _share_numbers(model, claim, keep)
    return value.lower(), slope.upper()


def _share_numbers(model: Model, claim: Claim, keep: FloatArray) -> tuple[Number, Number]:
    shares = model.shares.take(np.full(len(keep), _row(model, claim)))
    return shares.value_and_slope(keep, claim.nu)


def _share_ends(model: Model, claim: Claim, edges: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values at the ends of the cells of a concave function below the share, and the least share. Shapes [E - 1].

    The share is convex in s^2: the tangent in the middle, its square term kept where it bends down; the least
    share also by the tangents at both ends.
    """
    kind = model.kind
    left, right = edges[:-1], edges[1:]
    middle = 0.5 * (left + right)
    value, slope = _share_numbers(model, claim, middle)
    m, down = kind.of(middle), kind.of(np.minimum(slope.lower(), 0.0))
    ends = []
    for end in (left, right):
        step = (kind.of(end) - m) / m
        ends.append((value + slope * step + down * step * step * 0.5).lower())
    least = np.minimum(ends[0], ends[1])
    value, slope = _share_numbers(model, claim, edges)
    square = kind.of(edges) * kind.of(edges)
    wide = square.take(np.s_[1:]) - square.take(np.s_[:-1])
    for part, sign in ((np.s_[:-1], 1.0), (np.s_[1:], -1.0)):  # slope in log s is 2 s^2 times that in s^2
        change = slope.take(part) * sign / square.take(part) * wide * 0.5
        tangent = value.take(part).lower() + np.minimum(change.lower(), 0.0)
        least = np.maximum(least, np.nextafter(tangent, -np.inf))
    return ends[0], ends[1], least


def excluded(model: Model, claims: list[Claim], sets: list[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """What of the sets that cuts leave open stays open after the water levels of ``exclude_w``, [N, M] each."""
    rates = [pays_from(model, c, s) for c, s in zip(claims, sets, strict=True)]
    left = [s[np.isfinite(r)] for s, r in zip(sets, rates, strict=True)]
    rates = [r[np.isfinite(r)] for r in rates]
    tried = 0
    while live := [i for i, c in enumerate(claims) if len(left[i]) and tried < len(c.part.exclude_w)]:
        levels = [float(claims[i].part.exclude_w[tried]) for i in live]
        stays = may_carry(
            model, [claims[i] for i in live], levels, [rates[i] for i in live], [left[i] for i in live]
        )
        for i, stay in zip(live, stays, strict=True):
            left[i], rates[i] = left[i][stay], rates[i][stay]
        tried += 1
    return left


def may_carry(
    model: Model, claims: list[Claim], levels: list[float], rates: list[FloatArray], sets: list[NDArray[np.bool_]]
) -> list[NDArray[np.bool_]]:
    """Which sets one water level per claim does not exclude from carrying the keep rates ``rates``, [N] each."""
    sizes = [len(rate) for rate in rates]
    number = np.repeat([_row(model, claim) for claim in claims], sizes)
    keep = np.concatenate(rates)
    plane, top = _plane(model, number, np.repeat(levels, sizes), keep, keep)
    needed = np.split(plane.floor(top), np.cumsum(sizes)[:-1])
    found = []
    for claim, level, some, need in zip(claims, levels, sets, needed, strict=True):
        profit = model.radio.profits(claim.part.device, np.array([level]))[0]
        found.append(~(need > (some @ profit) * (1.0 + len(profit) * _SUM)))
    return found


def pays_from(model: Model, claim: Claim, sets: NDArray[np.bool_]) -> FloatArray:
    """Keep rates up to which the priced share of each set is at least what is claimed, [N]; ``inf``: all of them.

    A set that cannot carry it cannot carry a larger one.
    """
    paid = (sets @ claim.prices) * (1.0 - len(claim.prices) * _SUM)
    target = np.nextafter(claim.least - paid, np.inf)
    if claim.points is not None:
        value = share_values(model, claim, claim.points)[0]
        bad = value[None, :] < target[:, None]
        least = np.array(claim.points)[np.argmax(bad, axis=1)] if len(value) else np.zeros(len(sets))
        return np.where(bad.any(axis=1), least, np.inf)
    # convex and falling in s^2 up to the free optimum: Newton steps from the left of it do not overshoot
    grid = np.geomspace(claim.edges[0], claim.edges[-1], _GRID)
    grid[0], grid[-1] = claim.edges[0], claim.edges[-1]
    value, slope = share_values(model, claim, grid)
    fine = (value[None, :] >= target[:, None]) & (slope <= 0.0)
    count = np.argmin(np.append(fine, np.zeros((len(sets), 1), bool), axis=1), axis=1)
    start = grid[np.maximum(count - 1, 0)]
    keep, aim = start, target + 1e-14 * (abs(claim.least) + paid)  # a hair above, for rounding
    for _ in range(_NEWTON):
        value, slope = share_values(model, claim, keep)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = 1.0 - 2.0 * (value - aim) / slope
        keep = np.where(step > 1.0, np.minimum(keep * np.sqrt(np.maximum(step, 1.0)), grid[-1]), keep)
    value, slope = share_values(model, claim, keep)
    keep = np.where((value >= target) & (slope <= 0.0), keep, start)
    return np.where(count == 0, grid[0], np.where(count == _GRID, np.inf, keep))
