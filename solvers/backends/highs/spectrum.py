"""FDMA and resource blocks for HiGHS: every piece has a proven line below its bandwidth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.solvers.backends.highs.program import SUPPORT, Answer, Picks, Rows
from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.solvers.separable.plans import Plan, plan_allocation
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Spectrum", "cut_pieces"]


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Columns: shares of the band [K]; blocks [K] where it comes in blocks."""

    choices: Choices

    def columns(self) -> tuple[FloatArray, BoolArray]:
        """Shares of the band, then numbers of blocks if any, and which are integral. Shapes [K] or [2 K]."""
        k = self.choices.problem.instance.num_devices
        if not self.choices.block_hz:
            return np.ones(k), np.zeros(k, dtype=bool)
        count = np.rint(self.choices.budget_hz / self.choices.block_hz)
        return np.repeat([1.0, count], k), np.repeat([False, True], k)

    def add_rows(self, rows: Rows, first: int, ends: IntArray, pieces: Pieces) -> None:
        """Bandwidth of each device, and of all. ``ends``: shape [N, 2]."""
        choices = self.choices
        inst, k = choices.problem.instance, choices.problem.instance.num_devices
        share, blocks, whole = first + np.arange(k), first + k + np.arange(k), inst.bandwidth_hz
        for d in range(k):
            own = np.flatnonzero(pieces.device == d)
            rows.add(-math.inf, 0.0, (ends[own].ravel(), pieces.band[own].ravel() / whole), (share[d], -1.0))
            if choices.block_hz:
                rows.add(-math.inf, 0.0, (share[d], 1.0), (blocks[d], -choices.block_hz / whole))
        if choices.block_hz:
            rows.add(-math.inf, float(np.rint(choices.budget_hz / choices.block_hz)), (blocks, 1.0))
        rows.add(-math.inf, choices.budget_hz / whole, (share, 1.0))

    def bandwidth(self) -> tuple[IntArray, IntArray, FloatArray]:
        """A share times the band, in Hz. Shapes [K]."""
        inst = self.choices.problem.instance
        everyone = np.arange(inst.num_devices)
        return everyone, everyone, np.full(inst.num_devices, inst.bandwidth_hz)

    def refined(self, pieces: Pieces, answer: Answer, picks: Picks) -> tuple[Spectrum, Pieces]:
        """Pieces cut where the point lies."""
        return self, cut_pieces(self.choices, pieces, answer, np.full(len(picks.mode), np.nan))

    def plan(self, picks: Picks, radio: FloatArray) -> Allocation | None:
        """An allocation from the picks: their keep rates, or what the shares in ``radio`` [R] carry of them."""
        choices, inst = self.choices, self.choices.problem.instance
        mode, on = picks.mode, picks.mode != OUT
        one = np.maximum(mode, 0)
        keep = np.where(on, np.clip(np.sqrt(picks.square), choices.low[one], choices.high[one]), 0.0)
        if inst.common_keep and on.any():
            keep = np.where(on, keep[on].min(), 0.0)

        def offer(rates: FloatArray) -> Allocation | None:
            band = choices.safe_bandwidth(mode, rates)
            if not choices.holds(band):
                return None
            return plan_allocation(choices, Plan(mode, rates, band, "H"))

        whole = offer(keep)
        if whole is not None or not on.any():
            return whole
        free = on & np.array([levels is None for levels in inst.keep_levels or (None,) * len(keep)])
        low = np.where(free, choices.low[one], keep)
        if inst.common_keep:
            low = np.where(on, low.max(initial=0.0, where=on), 0.0)
        found = [offer(low)]
        few, many = 0.0, 1.0  # how far the rates are cut back, all by one share: what fits, and what does not
        for _ in range(30 if found[0] is not None else 0):
            share = 0.5 * (few + many)
            trial = offer(low + share * (keep - low))
            few, many = (share, many) if trial is not None else (few, share)
            found.append(trial)
        if not inst.common_keep:
            found.append(_carried(choices, mode, keep, radio[: len(mode)] * inst.bandwidth_hz, offer))
        value = choices.problem.evaluate
        return min((a for a in found if a is not None), key=lambda a: value(a).objective, default=None)


def _carried(
    choices: Choices,
    mode: IntArray,
    keep: FloatArray,
    band_hz: FloatArray,
    offer: Callable[[FloatArray], Allocation | None],
) -> Allocation | None:
    """The keep rates that the program's own bandwidths carry."""
    on = mode != OUT
    low = choices.low[np.maximum(mode, 0)]
    target = np.maximum(band_hz * (1.0 - 1e-9), 1e-9)
    fits, _beyond = choices.reach(mode[on], low[on], np.maximum(keep[on], low[on]), target[on])
    carried = keep.copy()
    carried[on] = fits
    for k, levels in enumerate(choices.problem.instance.keep_levels or ()):
        if levels is not None and on[k]:
            below = levels[levels <= carried[k]]
            carried[k] = below[-1] if len(below) else math.nan
    return None if np.isnan(carried).any() else offer(carried)


def cut_pieces(choices: Choices, pieces: Pieces, answer: Answer, wish: FloatArray) -> Pieces:
    """Pieces that a program's point uses, cut where it uses them (in the middle where that is an end).

    ``wish`` [K] are keep rates to cut at instead, nan for none.
    """
    assert answer.weight is not None
    total = answer.weight.sum(axis=1)
    which = (total > SUPPORT) & pieces.divisible
    if choices.block_hz or not which.any():
        return pieces.halved(choices, which) if which.any() else pieces
    at = np.sqrt(pieces.left * pieces.right)
    square = np.sum(answer.weight * np.stack((pieces.left, pieces.right), axis=1) ** 2, axis=1)
    for i in np.flatnonzero(which):
        reach = 0.1 * (pieces.right[i] - pieces.left[i])
        for s in (math.sqrt(square[i] / total[i]), wish[pieces.device[i]]):
            if pieces.left[i] + reach < s < pieces.right[i] - reach:
                at[i] = s
    cut = np.sort(at[which])
    pieces = pieces.halved(choices, which, at[which])
    # lines are best inside: have ends near the pick
    beside = np.isin(pieces.left, cut) | np.isin(pieces.right, cut)
    return pieces.halved(choices, beside, 0.5 * (pieces.left + pieces.right)[beside])
