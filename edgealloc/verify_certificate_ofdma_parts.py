"""The parts of a leaf's proof: no set of sub-carriers gives a device a priced share below what is claimed.

Three steps for each part, an interval of keep rates cut into cells (docs/certificates.md, section OFDMA):

1. :func:`cut_bases`: constants of its cuts, by chords of the profit rate needed over the cells;
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

__all__ = ["Claim", "Model", "excluded", "left_open"]

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
    groups = [np.unique(claim.part.level_w, return_inverse=True) for claim in claims]
    sizes = [len(level) * len(claim.edges) for claim, (level, _) in zip(claims, groups, strict=True)]
    if sum(sizes):
        planes, floor = _floors(model, claims, [level for level, _ in groups])
        pulls = np.stack((planes.pull.lower(), planes.pull.upper()))
    else:
        floor, pulls = np.zeros(0), np.zeros((2, 0))
    found: list[NDArray[np.bool_] | None] = []
    start = 0
    for claim, (unique, which), size in zip(claims, groups, sizes, strict=True):
        mine, shape = slice(start, start + size), (len(unique), len(claim.edges))
        start += size
        base, worth = _cuts(
            model, claim, unique, which, floor[mine].reshape(shape), pulls[:, mine].reshape(2, *shape)
        )
        base = (model.kind.of(base) - claim.least).lower()
        found.append(open_sets(base, worth, claim.fixed))
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


def _cuts(
    model: Model, claim: Claim, unique: FloatArray, which: NDArray[np.intp], values: FloatArray, pulls: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Bases [L + 1] and worths [L + 1, M] of all cuts, from below; the last has the slope 0.

    ``values`` [U, E] and ``pulls`` [2, U, E] are planes at the edges for each of the levels ``unique`` [U]; cut l
    has the level number ``which[l]``.
    """
    kind, slope = model.kind, claim.part.slope
    edges = claim.edges
    if claim.points is not None or len(edges) == 1:
        share = _shares(model, claim, edges)[0]
        left, right, need_left, need_right, loss = share, share, values, values, np.zeros_like(values)
    else:
        left, right = _share_ends(model, claim, edges)
        # planes of both ends, mixed so that 1 / t drops out, leave a chord, bent where their pulls differ
        need_left, need_right = values[:, :-1], np.maximum(values[:, 1:], values[:, :-1])
        bent = np.isfinite(need_right) & (need_right > need_left)
        ratio = (kind.of(pulls[1, :, 1:]) / kind.of(pulls[0, :, :-1])).upper()
        more = kind.of(np.where(bent, need_right, 0.0)) - kind.of(np.where(bent, need_left, 0.0))
        loss = (more * kind.of(np.maximum(ratio - 1.0, 0.0)) * 0.25).upper()
        unknown = ~((pulls[0, :, :-1] > 0.0) & (pulls[0, :, 1:] > 0.0))
        loss = np.where(unknown, np.inf, np.where(bent, loss, 0.0))
        need_right = np.where(np.isposinf(need_right), need_left, need_right)  # right end surely not served
    b = kind.of(slope[:, None])
    ends = [
        (kind.of(share) + b * (kind.of(need[which]) - kind.of(loss[which]))).lower()
        for share, need in ((left, need_left), (right, need_right))
    ]
    never = np.isposinf(need_left[which])
    base = np.min(np.where(never, np.inf, np.minimum(ends[0], ends[1])), axis=1, initial=np.inf)
    base = np.append(base, np.min(np.minimum(left, right), initial=np.inf))
    profit = model.radio.profits(claim.part.device, unique)[which]
    worth = (kind.of(claim.prices) - b * kind.of(profit)).lower()
    return base, np.concatenate((worth, claim.prices[None, :]))


def _shares(model: Model, claim: Claim, keep: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share at keep rates from below, and its slope in log s from above. Shapes [N]."""
    shares = model.shares.take(np.full(len(keep), _row(model, claim)))
    value, slope = shares.value_and_slope(keep, claim.nu)
    return value.lower(), slope.upper()


def _share_ends(model: Model, claim: Claim, edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values at the ends of the cells of a concave function below the share. Shapes [E - 1].

    The share is convex in s^2: the tangent in the middle, its square term kept where it bends down.
    """
    kind = model.kind
    middle = 0.5 * (edges[:-1] + edges[1:])
    shares = model.shares.take(np.full(len(middle), _row(model, claim)))
    value, slope = shares.value_and_slope(middle, claim.nu)
    m, down = kind.of(middle), kind.of(np.minimum(slope.lower(), 0.0))
    ends = []
    for end in (edges[:-1], edges[1:]):
        step = (kind.of(end) - m) / m
        ends.append((value + slope * step + down * step * step * 0.5).lower())
    return ends[0], ends[1]


def excluded(model: Model, claims: list[Claim], sets: list[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """What of the sets that cuts leave open stays open after the water levels of ``exclude_w``, [N, M] each."""
    tried = 0
    left, rates = list(sets), [_pays_from(model, c, s) for c, s in zip(claims, sets, strict=True)]
    left = [s[np.isfinite(r)] for s, r in zip(left, rates, strict=True)]
    rates = [r[np.isfinite(r)] for r in rates]
    while True:
        live = [i for i, c in enumerate(claims) if len(left[i]) and tried < len(c.part.exclude_w)]
        if not live:
            return left
        sizes = [len(left[i]) for i in live]
        level = np.repeat([claims[i].part.exclude_w[tried] for i in live], sizes)
        number = np.repeat([_row(model, claims[i]) for i in live], sizes)
        keep = np.concatenate([rates[i] for i in live])
        plane, top = _plane(model, number, level, keep, keep)
        need = plane.floor(top)
        start = 0
        for i, size in zip(live, sizes, strict=True):
            claim = claims[i]
            profit = model.radio.profits(claim.part.device, claim.part.exclude_w[tried : tried + 1])[0]
            earned = (left[i] @ profit) * (1.0 + len(profit) * _SUM)
            stays = ~(need[start : start + size] > earned)
            left[i], rates[i] = left[i][stays], rates[i][stays]
            start += size
        tried += 1


def _pays_from(model: Model, claim: Claim, sets: NDArray[np.bool_]) -> FloatArray:
    """Keep rates up to which the priced share of each set is at least what is claimed, [N]; ``inf``: all of them.

    A set that cannot carry it cannot carry a larger one.
    """
    paid = (sets @ claim.prices) * (1.0 - len(claim.prices) * _SUM)
    target = np.nextafter(claim.least - paid, np.inf)
    if claim.points is not None:
        value = _shares(model, claim, claim.points)[0]
        bad = value[None, :] < target[:, None]
        least = np.array(claim.points)[np.argmax(bad, axis=1)] if len(value) else np.zeros(len(sets))
        return np.where(bad.any(axis=1), least, np.inf)
    # convex and falling in s^2 up to the free optimum: Newton steps from the left of it do not overshoot
    grid = np.geomspace(claim.edges[0], claim.edges[-1], _GRID)
    grid[0], grid[-1] = claim.edges[0], claim.edges[-1]
    value, slope = _shares(model, claim, grid)
    fine = (value[None, :] >= target[:, None]) & (slope <= 0.0)
    count = np.argmin(np.append(fine, np.zeros((len(sets), 1), bool), axis=1), axis=1)
    start = grid[np.maximum(count - 1, 0)]
    keep, aim = start, target + 1e-15 * np.abs(target)
    for _ in range(_NEWTON):
        value, slope = _shares(model, claim, keep)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = 1.0 - 2.0 * (value - aim) / slope
        keep = np.where(step > 1.0, np.minimum(keep * np.sqrt(np.maximum(step, 1.0)), grid[-1]), keep)
    value, slope = _shares(model, claim, keep)
    keep = np.where((value >= target) & (slope <= 0.0), keep, start)
    return np.where(count == 0, grid[0], np.where(count == _GRID, np.inf, keep))
