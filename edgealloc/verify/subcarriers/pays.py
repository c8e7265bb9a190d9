"""From which keep rate on would a set of sub-carriers pay? It must not be able to carry that rate.

The sets of many claims are looked at together. Derived in docs/certificates.md, section *OFDMA*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.subcarriers.claim import (
    SUM,
    Claim,
    Model,
    Places,
    share_ends,
    share_slopes,
    share_values,
)

__all__ = ["pays_from"]

# How well the keep rate is found decides nothing.
_GRID, _NEWTON = 48, 5
_BACK = (0.0, 1e-15, 1e-14, 1e-13, 1e-12, 1e-10, 1e-8, 1e-6)  # relative
_STEPS, _WIDER, _CLOSER = 200, 4.0, 0.125  # under a curve


def pays_from(model: Model, claims: Sequence[Claim], sets: Sequence[BoolArray]) -> list[FloatArray]:
    """Keep rates up to which the priced share of each set is at least what its claim says; ``inf``: all of them.

    A set that cannot carry it cannot carry a larger one.

    Parameters
    ----------
    model
        The instance.
    claims, sets
        What is to be shown, and sets of each claim. Shapes [N, M].

    Returns
    -------
    list of arrays
        Keep rates of the sets of each claim. Shapes [N].
    """
    found: list[FloatArray] = [np.zeros(0) for _ in claims]
    targets = [_target(claim, some) for claim, some in zip(claims, sets, strict=True)]
    for stepped in (False, True):
        some = [i for i, c in enumerate(claims) if (c.points is not None) is stepped and len(targets[i])]
        if not some:
            continue
        chosen, wanted = [claims[i] for i in some], [targets[i] for i in some]
        if stepped:
            rates = _at_points(model, chosen, wanted)
        else:
            of = _convex if model.shares.curve is None else _under_curve
            which = np.repeat(np.arange(len(some)), [len(target) for target in wanted])
            flat = of(model, chosen, which, np.concatenate(wanted))
            rates = np.split(flat, np.cumsum([len(target) for target in wanted])[:-1])
        for i, rate in zip(some, rates, strict=True):
            found[i] = rate
    return found


def _target(claim: Claim, sets: BoolArray) -> FloatArray:
    """What the share of each set is to reach, from above. Shape [N]."""
    paid = np.nextafter((sets @ claim.prices) * (1.0 - len(claim.prices) * SUM), -np.inf)
    return np.asarray(np.nextafter(claim.least - paid, np.inf))


def _at_points(model: Model, claims: list[Claim], targets: list[FloatArray]) -> list[FloatArray]:
    """Where only some keep rates are allowed: the first that pays. Shapes [N]."""
    points = [np.zeros(0) if claim.points is None else claim.points for claim in claims]
    counts = [len(some) for some in points]
    values = share_values(Places.of(model, claims, counts), np.concatenate(points))
    found = []
    for keep, value, target in zip(points, np.split(values, np.cumsum(counts)[:-1]), targets, strict=True):
        # how many of the first values, or all before them, are at the target or above
        held = np.searchsorted(-np.minimum.accumulate(value), -target, side="right")
        found.append(np.append(keep, np.inf)[held])
    return found


def _convex(model: Model, claims: list[Claim], which: IntArray, target: FloatArray) -> FloatArray:
    """Convex and falling in s^2 up to the free optimum: Newton steps from the left of it do not overshoot. [N].

    Set n is one of claim ``which[n]``.
    """
    first, last = (np.array([claim.edges[end] for claim in claims]) for end in (0, -1))
    grid = np.geomspace(first, last, _GRID, axis=1)
    grid[:, 0], grid[:, -1] = first, last
    flat = share_slopes(Places.of(model, claims, [_GRID] * len(claims)), grid.ravel())
    value, slope = (part.reshape(grid.shape) for part in flat)
    fine = (value[which] >= target[:, None]) & (slope <= 0.0)[which]
    count = np.argmin(np.append(fine, np.zeros((len(target), 1), bool), axis=1), axis=1)
    start, last = grid[which, np.maximum(count - 1, 0)], last[which]
    least = np.array([claim.least for claim in claims])[which]
    keep, aim = start, target + 1e-14 * (np.abs(least) + np.abs(least - target))  # a hair above, for rounding
    places = Places.of(model, claims, np.bincount(which, minlength=len(claims)).tolist())
    for _ in range(_NEWTON):
        now, fall = share_slopes(places, keep)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = 1.0 - 2.0 * (now - aim) / fall
        keep = np.where(step > 1.0, np.minimum(keep * np.sqrt(np.maximum(step, 1.0)), last), keep)
    reached, good = keep, np.zeros(len(keep), bool)
    for back in _BACK:  # where the share is a line, the first step ends on the target, and rounding beyond it
        keep = np.where(good, keep, np.maximum(reached * (1.0 - back), start))
        now, fall = share_slopes(places, keep)
        good = (now >= target) & (fall <= 0.0)
        if good.all():
            break
    keep = np.where(good, keep, start)
    return np.where(count == 0, grid[which, 0], np.where(count == _GRID, np.inf, keep))


def _under_curve(model: Model, claims: list[Claim], which: IntArray, target: FloatArray) -> FloatArray:
    """Cell by cell, on each the concave function below the share: up to where it is the target. [N].

    Cells that all sets of a claim have in common first. From the first that falls below, steps of each set's own:
    a cell that holds is passed and the next is wider; in one that does not, the line between its ends says how
    far, and the next is narrower. So the loss, of second order in the width, dies out where the share crosses the
    target. Set n is one of claim ``which[n]``, in order.
    """
    assert model.shares.curve is not None
    knots = model.shares.curve.knots
    grids = []
    for claim in claims:
        ends = claim.edges[[0, -1]]
        grid = np.concatenate((claim.edges, np.geomspace(float(ends[0]), float(ends[1]), _GRID), knots))
        grids.append(np.unique(grid[(grid >= ends[0]) & (grid <= ends[1])]))
    counts = np.bincount(which, minlength=len(claims)).tolist()
    cells = Places.of(model, claims, [len(grid) - 1 for grid in grids])
    lows, highs = (np.concatenate([grid[part] for grid in grids]) for part in (np.s_[:-1], np.s_[1:]))
    leasts = np.split(share_ends(cells, lows, highs)[2], np.cumsum([len(grid) - 1 for grid in grids])[:-1])
    wanted = np.split(target, np.cumsum(counts)[:-1])
    starts = [_start(grid, least, aim) for grid, least, aim in zip(grids, leasts, wanted, strict=True)]
    keep, step = (np.concatenate(column) for column in zip(*starts, strict=True))
    first, last = (np.array([claim.edges[end] for claim in claims]) for end in (0, -1))
    bare = share_values(Places.of(model, claims, [1] * len(claims)), first)[which] < target
    first, last, places = first[which], last[which], Places.of(model, claims, counts)
    for _ in range(_STEPS):
        live = np.flatnonzero((keep < last) & (step > 2.0**-52 * keep))
        if not len(live):
            break
        x, some = keep[live], places.take(live)
        ahead = np.append(knots, np.inf)[np.searchsorted(knots, x, side="right")]
        y = np.minimum(np.minimum(x + step[live], ahead), last[live])
        left, right = some.shares.concave_ends(x, y, some.nu)
        over, fall = left - target[live], left - right
        holds = np.minimum(over, right - target[live]) >= 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.maximum(over, 0.0) / fall * (1.0 - 2.0**-30)  # for rounding; no number, or none: no step
        keep[live] = np.where(holds, y, np.fmax(np.nextafter(x + part * (y - x), 0.0), x))
        step[live] = np.where(holds, _WIDER * step[live], _CLOSER * (y - x))
    return np.where(bare, first, np.where(keep >= last, np.inf, keep))


def _start(grid: FloatArray, least: FloatArray, target: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Left end and width of the first cell on which the share may be below the target of each set. Shapes [N]."""
    low = least[None, :] < target[:, None]
    at = np.argmax(np.append(low, np.ones((len(target), 1), bool), axis=1), axis=1)
    return grid[at], np.append(np.diff(grid), 0.0)[at]
