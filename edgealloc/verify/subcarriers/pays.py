"""From which keep rate on would a set of sub-carriers pay? It must not be able to carry that rate.

Derived in docs/certificates.md, section *OFDMA*.
"""

from __future__ import annotations

import numpy as np

from edgealloc.units import BoolArray, FloatArray
from edgealloc.verify.subcarriers.claim import (
    SUM,
    Claim,
    Model,
    row_of,
    share_ends,
    share_slopes,
    share_values,
)

__all__ = ["pays_from"]

# How well the keep rate is found decides nothing.
_GRID, _NEWTON = 48, 5
_STEPS, _WIDER, _CLOSER = 200, 4.0, 0.125  # under a curve


def pays_from(model: Model, claim: Claim, sets: BoolArray) -> FloatArray:
    """Keep rates up to which the priced share of each set is at least what is claimed, [N]; ``inf``: all of them.

    A set that cannot carry it cannot carry a larger one.
    """
    paid = np.nextafter((sets @ claim.prices) * (1.0 - len(claim.prices) * SUM), -np.inf)
    target = np.nextafter(claim.least - paid, np.inf)
    if claim.points is not None:
        value = share_values(model, claim, claim.points)
        bad = value[None, :] < target[:, None]
        least = np.array(claim.points)[np.argmax(bad, axis=1)] if len(value) else np.zeros(len(sets))
        return np.where(bad.any(axis=1), least, np.inf)
    if model.shares.curve is not None:
        return _under_curve(model, claim, target)
    return _convex(model, claim, target)


def _convex(model: Model, claim: Claim, target: FloatArray) -> FloatArray:
    """Convex and falling in s^2 up to the free optimum: Newton steps from the left of it do not overshoot. [N]."""
    grid = np.geomspace(claim.edges[0], claim.edges[-1], _GRID)
    grid[0], grid[-1] = claim.edges[0], claim.edges[-1]
    value, slope = share_slopes(model, claim, grid)
    fine = (value[None, :] >= target[:, None]) & (slope <= 0.0)
    count = np.argmin(np.append(fine, np.zeros((len(target), 1), bool), axis=1), axis=1)
    start = grid[np.maximum(count - 1, 0)]
    keep, aim = (
        start,
        target + 1e-14 * (abs(claim.least) + np.abs(claim.least - target)),
    )  # a hair above, for rounding
    for _ in range(_NEWTON):
        value, slope = share_slopes(model, claim, keep)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = 1.0 - 2.0 * (value - aim) / slope
        keep = np.where(step > 1.0, np.minimum(keep * np.sqrt(np.maximum(step, 1.0)), grid[-1]), keep)
    value, slope = share_slopes(model, claim, keep)
    keep = np.where((value >= target) & (slope <= 0.0), keep, start)
    return np.where(count == 0, grid[0], np.where(count == _GRID, np.inf, keep))


def _under_curve(model: Model, claim: Claim, target: FloatArray) -> FloatArray:
    """Cell by cell, on each the concave function below the share: up to where it is the target. [N].

    Cells that all sets have in common first. From the first that falls below, steps of each set's own: a cell that
    holds is passed and the next is wider; in one that does not, the line between its ends says how far, and the
    next is narrower. So the loss, of second order in the width, dies out where the share crosses the target.
    """
    assert model.shares.curve is not None
    first, last = float(claim.edges[0]), float(claim.edges[-1])
    knots = model.shares.curve.knots
    grid = np.concatenate((claim.edges, np.geomspace(first, last, _GRID), knots))
    grid = np.unique(grid[(grid >= first) & (grid <= last)])
    least = share_ends(model, claim, grid)[2]
    low = least[None, :] < target[:, None]
    at = np.argmax(np.append(low, np.ones((len(target), 1), bool), axis=1), axis=1)
    keep, step = grid[at], np.append(np.diff(grid), 0.0)[at]
    shares, number = model.shares, row_of(model, claim)
    for _ in range(_STEPS):
        live = np.flatnonzero((keep < last) & (step > 2.0**-52 * keep))
        if not len(live):
            break
        x = keep[live]
        ahead = np.append(knots, np.inf)[np.searchsorted(knots, x, side="right")]
        y = np.minimum(np.minimum(x + step[live], ahead), last)
        left, right = shares.take(np.full(len(x), number)).concave_ends(x, y, claim.nu)
        over, fall = left - target[live], left - right
        holds = np.minimum(over, right - target[live]) >= 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where((over > 0.0) & (fall > 0.0), over / fall * (1.0 - 2.0**-30), 0.0)  # for rounding
        keep[live] = np.where(holds, y, np.maximum(np.nextafter(x + part * (y - x), 0.0), x))
        step[live] = np.where(holds, _WIDER * step[live], _CLOSER * (y - x))
    bare = share_values(model, claim, np.array([first]))[0] < target
    return np.where(bare, first, np.where(keep >= last, np.inf, keep))
