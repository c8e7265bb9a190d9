"""A device's choices cut into pieces, each with a line below its cost and a line below its bandwidth.

A piece is a mode and an interval of the keep rate s (a single rate for a keep level, or for a device left
out). On a piece, cost and bandwidth lie above their chords in S = s^2 between the stored end values, and the
kept share w S is exactly linear. For any prices the least of cost + mu bandwidth + nu kept over the piece is
therefore no less than at the better of its two ends: a price search sees finitely many columns, two per piece.

Halving a piece of width h lowers its error from O(h^2) to a quarter (a half, where a user's function is known
to be monotone only), so pieces are halved where the answers of the price search lie and nowhere else.

Derived: docs/branch_and_bound.md, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Pieces"]

_INITIAL = 8  # pieces per mode before the first price search
_NARROW = 1e-13  # relative width below which a piece is not cut again


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """N pieces sorted by device, mode and keep rate.

    Parameters
    ----------
    device, mode
        Owner of each piece; mode :data:`~edgealloc.solvers.separable.choices.OUT` when left out. Shape [N].
    left, right
        Interval of the keep rate (0 when left out). Shape [N].
    cost, band, kept
        Lower bounds of cost and bandwidth (Hz) at the two ends, and w s^2. Shape [N, 2].
    safe_keep, safe_cost, safe_band
        A keep rate at or next to each end, its true cost, and a bandwidth that surely suffices. Shape [N, 2].
    """

    device: IntArray
    mode: IntArray
    left: FloatArray
    right: FloatArray
    cost: FloatArray
    band: FloatArray
    kept: FloatArray
    safe_keep: FloatArray
    safe_cost: FloatArray
    safe_band: FloatArray

    def __len__(self) -> int:
        return len(self.device)

    @classmethod
    def root(cls, choices: Choices) -> Pieces:
        """The pieces that a search starts from: every level, or a few intervals per mode."""
        low, high = choices.low, choices.high
        levels = choices.problem.instance.keep_levels
        continuous = low < high
        mode, left, right = [np.zeros(0, dtype=np.intp)], [np.zeros(0)], [np.zeros(0)]
        if levels is not None:
            continuous &= np.array([level is None for level in levels])[choices.device]
            for one in np.flatnonzero(~continuous & (low <= high)):
                own = levels[choices.device[one]]
                ends = low[one : one + 1] if own is None else own[(own >= low[one]) & (own <= high[one])]
                mode.append(np.full(len(ends), one))
                left.append(ends)
                right.append(ends)
        else:
            single = np.flatnonzero(low == high)
            mode, left, right = [single], [low[single]], [low[single]]
        wide = np.flatnonzero(continuous)
        ends = np.geomspace(low[wide], high[wide], _INITIAL + 1, axis=1).reshape(len(wide), _INITIAL + 1)
        ends[:, 0], ends[:, -1] = low[wide], high[wide]
        mode.append(np.repeat(wide, _INITIAL))
        left.append(ends[:, :-1].ravel())
        right.append(ends[:, 1:].ravel())
        inside = cls._build(choices, np.concatenate(mode), np.concatenate(left), np.concatenate(right))
        outside = np.flatnonzero(np.isfinite(choices.out_cost()))
        return cls._merge(inside, cls._left_out(choices, outside))

    @classmethod
    def at(cls, choices: Choices, keep: float) -> Pieces:
        """All modes at one keep rate, and the devices left out."""
        levels = choices.problem.instance.keep_levels
        can = (choices.low <= keep) & (keep <= choices.high)
        if levels is not None:
            allowed = np.array([level is None or bool(np.any(level == keep)) for level in levels])
            can &= allowed[choices.device]
        mode = np.flatnonzero(can)
        rate = np.full(len(mode), keep)
        outside = np.flatnonzero(np.isfinite(choices.out_cost()))
        return cls._merge(cls._build(choices, mode, rate, rate), cls._left_out(choices, outside))

    @classmethod
    def _left_out(cls, choices: Choices, device: IntArray) -> Pieces:
        n = len(device)
        cost = np.repeat(choices.out_cost()[device][:, None], 2, axis=1)
        zero, pair = np.zeros(n), np.zeros((n, 2))
        mode = np.full(n, OUT, dtype=np.intp)
        return cls(device, mode, zero, zero, cost * (1.0 - 1e-15), pair, pair, pair, cost, pair)

    @classmethod
    def _build(
        cls, choices: Choices, mode: IntArray, left: FloatArray, right: FloatArray, fits: FloatArray | None = None
    ) -> Pieces:
        """Lines and safe points of intervals; ``fits`` replaces the right ends as safe keep rates."""
        band = np.stack(choices.bandwidth_line(mode, left, right), axis=1)
        cost = np.stack(choices.cost_line(mode, left, right), axis=1)
        ends = np.stack((left, right), axis=1)
        safe = np.stack((left, right if fits is None else np.fmax(fits, left)), axis=1)
        twice = np.stack((mode, mode), axis=1)
        return cls(
            device=choices.device[mode],
            mode=mode,
            left=left,
            right=right,
            cost=cost,
            band=band,
            kept=choices.weight[mode][:, None] * np.square(ends),
            safe_keep=safe,
            safe_cost=choices.true_cost(twice.ravel(), safe.ravel()).reshape(-1, 2),
            safe_band=choices.safe_bandwidth(twice.ravel(), safe.ravel()).reshape(-1, 2),
        )

    @classmethod
    def _merge(cls, *parts: Pieces) -> Pieces:
        columns = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        whole = cls(**columns)
        return whole.take(np.lexsort((whole.left, whole.mode, whole.device)))

    def take(self, index: IntArray | BoolArray) -> Pieces:
        """A selection of pieces, in the order of ``index`` [n], or those of a mask [N]."""
        return Pieces(*(getattr(self, f.name)[index] for f in fields(self)))

    def safe_kept(self, choices: Choices) -> FloatArray:
        """What the safe keep rates add to the kept share, w s^2. Shape [N, 2]."""
        weights = choices.problem.instance.weights
        return np.asarray(weights[self.device][:, None] * np.square(self.safe_keep))

    @property
    def dearest(self) -> float:
        """The largest cost of an end that there is."""
        return float(np.max(np.abs(self.cost), where=np.isfinite(self.cost), initial=0.0))

    @property
    def divisible(self) -> BoolArray:
        """Which pieces can be cut. Shape [N]."""
        return np.asarray(self.right - self.left > _NARROW * self.right)

    def halved(self, choices: Choices, which: BoolArray, at: FloatArray | None = None) -> Pieces:
        """Pieces with ``which`` (shape [N]) cut in two, at ``at`` (one per cut piece) where given.

        Resource blocks: a piece whose ends need different numbers of blocks is cut where one number of blocks
        ends, just to the right of the last keep rate that it carries.
        """
        old = self.take(which & self.divisible)
        if not len(old):
            return self
        cut = choices.splits(old.mode, old.left, old.right)
        if at is not None:
            cut = at[self.divisible[which]]
        fits = cut
        if choices.block_hz and at is None:
            fewest = np.rint(old.band[:, 0] / choices.block_hz)
            most = np.minimum(old.safe_band[:, 1], choices.budget_hz) / choices.block_hz
            steps = (old.band[:, 0] == old.band[:, 1]) & (fewest < np.rint(most)) | (
                old.band[:, 0] < old.band[:, 1]
            )
            middle = np.maximum(
                np.floor(0.5 * (np.ceil(old.band[:, 0] / choices.block_hz * (1 - 1e-12)) + most)), 1.0
            )
            carry, beyond = choices.reach(old.mode, old.left, old.right, middle * choices.block_hz)
            use = steps & (carry > old.left) & (beyond < old.right)
            cut, fits = np.where(use, beyond, cut), np.where(use, carry, fits)
        cut = np.clip(cut, old.left, old.right)
        ok = (cut > old.left) & (cut < old.right)
        cut, fits = (
            np.where(ok, cut, np.sqrt(old.left * old.right)),
            np.where(ok, fits, np.sqrt(old.left * old.right)),
        )
        first = Pieces._build(choices, old.mode, old.left, cut, fits)
        second = Pieces._build(choices, old.mode, cut, old.right, old.safe_keep[:, 1])
        return Pieces._merge(self.take(~(which & self.divisible)), first, second)
