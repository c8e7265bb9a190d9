"""First assignments and first prices of an OFDMA problem.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.kernels.device import BAND, profits, psi
from edgealloc.solvers.ofdma.kernels.local import descend, set_cost
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share_slope
from edgealloc.solvers.row import SMAX, SMIN
from edgealloc.units import FloatArray, IntArray

__all__ = ["improved", "price_guess", "starts"]

_CALL = 20_000  # evaluations of a set between two looks at the clock
_LEAST = 1e-12  # gains below this share of the objective are rounding


def starts(cell: OfdmaCell, rng: np.random.Generator, count: int, control: Control) -> Iterator[Assignment]:
    """Descents from the relatively strongest device of each sub-carrier, then from perturbed results."""
    strength = np.zeros((cell.devices, cell.subcarriers))
    with np.errstate(divide="ignore"):
        np.put_along_axis(strength, cell.order, 1.0 / cell.inv_a, axis=1)
    strength /= np.maximum(np.mean(strength, axis=1, keepdims=True), 1e-300)
    owner = np.argmax(strength, axis=0)
    nu = cell.pools.slopes_at(0.1)
    for i in range(count):
        if i:
            owner = owner.copy()
            some = rng.choice(
                cell.subcarriers, min(cell.subcarriers, max(2, cell.subcarriers // 6)), replace=False
            )
            owner[some] = rng.integers(cell.devices, size=some.size)
        plan = improved(cell, owner, nu, control)
        if plan is not None:
            owner = np.where(plan.owner >= 0, plan.owner, owner)
            yield plan
        if control.stopped():
            return


def improved(
    cell: OfdmaCell, owner: IntArray, nu: FloatArray, control: Control, passes: int = 20, aim: float | None = None
) -> Assignment | None:
    """Descend from owners of the sub-carriers.

    Parameters
    ----------
    cell
        The problem as arrays.
    owner
        Owner of each sub-carrier, -1 for none. Shape [M].
    nu
        Prices of w s^2 of the pools. Shape [E].
    control
        Stops between blocks of work.
    passes
        Passes over all sub-carriers at most.
    aim
        A keep rate: what counts is then that devices can keep it.

    Returns
    -------
    Assignment or None
        None when the end is not feasible.
    """
    owner = _within_caps(cell, np.array(owner, dtype=np.int64))
    rows, levels, objective = cell.safe_rows, cell.levels, cell.objective
    if aim is not None:
        rows, levels = rows.copy(), np.full((len(rows), 0), np.nan)
        rows[:, SMIN] = rows[:, SMAX] = np.clip(aim, rows[:, SMIN], rows[:, SMAX])
    rows, price = cell.pools.priced(rows, cell.device, nu)
    free = all_free_keeps(rows, objective, price)
    penalty = 1e3 * cell.dear
    # devices that count as left out would feel no slope, so the count descends on the penalties instead
    out = np.full(cell.devices, np.inf) if cell.counting else cell.out
    fixed = (rows, objective, price, free, levels, cell.start, out, cell.inv_a, cell.log2_a, cell.order)
    work = np.empty((3, cell.subcarriers))
    cost = np.array([set_cost(*fixed, owner, k, penalty, work)[0] for k in range(cell.devices)])
    for _ in range(passes):
        moved = False
        for swap, each in ((False, cell.devices), (True, cell.subcarriers)):
            block = max(1, _CALL // each)
            for first in range(0, cell.subcarriers, block):
                last = min(first + block, cell.subcarriers)
                moved |= descend(*fixed, cell.most, owner, cost, penalty, _LEAST * cell.size, first, last, swap)
                if control.stopped():
                    break
        if not moved or control.stopped():
            break
    ends = [set_cost(*fixed, owner, k, penalty, work) for k in range(cell.devices)]
    mode = np.array([end[1] if end[2] > 0.0 or not cell.counting else -1 for end in ends])
    return cell.keeps(owner, mode)


def _within_caps(cell: OfdmaCell, owner: IntArray) -> IntArray:
    """Owners [M] in which nobody owns more sub-carriers than it may: its weakest have no owner."""
    for k in np.flatnonzero(np.bincount(owner[owner >= 0], minlength=cell.devices) > cell.most):
        mine = cell.order[k][owner[cell.order[k]] == k]
        owner[mine[cell.most[k] :]] = -1
    return owner


def all_free_keeps(rows: FloatArray, objective: FloatArray, nu: float) -> FloatArray:
    """Local minima of the shares of all modes, padded with the last. Shape [I, F]."""
    each = [free_keeps(row, objective, nu) for row in rows]
    width = max(len(free) for free in each)
    return np.stack([np.r_[free, np.full(width - len(free), free[-1])] for free in each])


def price_guess(cell: OfdmaCell, plan: Assignment, nu: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(Prices [M], water levels of the modes [I]) from the worth of the sub-carriers at an assignment, at nu [E].

    A price between the highest and the second highest worth makes the present owner buy it and nobody else.
    """
    worth = np.zeros((cell.devices, cell.subcarriers))
    levels = np.empty(len(cell.device))
    pi = np.empty(cell.subcarriers)
    for i, k in enumerate(cell.device):
        mask = plan.owner == k
        cap, level = cell.cap(i, mask if mask.any() else np.ones(cell.subcarriers, bool))
        row = cell.rows[i]
        price = float(nu[cell.pools.device[k]])
        free = free_keeps(row, cell.objective, price)
        s = best_share(row, cell.objective, price, free, np.empty(0), max(cap, row[SMIN]))[1]
        if level == 0.0:
            level = 2.0 * cell.inv_a[k, 0] if np.isfinite(cell.inv_a[k, 0]) else 1.0
        levels[i] = level
        if plan.mode[k] not in (i, -1):
            continue
        profits(row[BAND], level, cell.inv_a[k], pi)
        step = 1e-4 * s
        rise = (psi(row, level, s + step) - psi(row, level, s - step)) / (2.0 * step)
        b = -2.0 * s * share_slope(row, cell.objective, price, s) / rise if 0.0 < rise < np.inf else 0.0
        worth[k, cell.order[k]] = max(b, 0.0) * pi
    top = np.sort(worth, axis=0)
    prices = 0.5 * (top[-1] + top[-2]) if cell.devices > 1 else np.zeros(cell.subcarriers)
    return prices, levels
