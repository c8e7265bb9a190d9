r"""OFDMA for HiGHS: rows that are linear in the owners of the sub-carriers, one per device and water level.

A device carries the keep rate s on a set of sub-carriers exactly if their profit rates suffice at every water
level omega (docs/ofdma.md, section 1),

.. math:: \sum_m \pi_{km}(\omega)\, c_{km} \ge \psi_\omega(s) .

On a piece [x, y] of keep rates psi with cycles and downlink frozen at x is concave in s, and s is concave in
S = s^2, so psi lies above its chord in S: a row in the weights of the piece's ends that every feasible point
meets. Profits are rounded up and psi down. Any set of levels gives a relaxation. A level is added where a
program's point keeps more than its sub-carriers carry: the one that proves how much they carry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.solvers.backends.highs.program import Access, Answer, Picks, Rows
from edgealloc.solvers.backends.highs.spectrum import cut_pieces
from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.fdma.caps import Caps
from edgealloc.solvers.ofdma.allocation import allocation_of
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, EPS, profit_needed, profits, proven_keep
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, ENERGY, SMIN
from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.units import LN2, BoolArray, FloatArray, IntArray

__all__ = ["Carriers", "carriers"]

_FIRST = (1.0, 0.6, 0.35, 0.2)  # shares of every sub-carrier whose water levels are there from the start
_NEW = 1e-5  # relative distance of a water level from the others
_STEEP = 1e12  # a row's largest number over that of its sub-carriers
_OVER = 1e-9  # a keep rate this far above its cap, relatively, is none


@dataclass(frozen=True, slots=True, eq=False)
class _Modes(Choices):
    """Modes whose bandwidth is not a number: rows of :class:`Carriers` stand for it."""

    def bandwidth_line(self, mode: IntArray, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Zero."""
        return np.zeros(len(mode)), np.zeros(len(mode))

    def safe_bandwidth(self, mode: IntArray, keep: FloatArray) -> FloatArray:
        """Zero."""
        return np.zeros(len(mode))


@dataclass(frozen=True, slots=True, eq=False)
class Carriers:
    """Columns: who owns which sub-carrier, [K, M] row by row.

    Parameters
    ----------
    modes
        Modes and costs.
    cell
        The radio as arrays; its objective is not used.
    levels
        Water levels in W of the rows of each device. Shape [L], K times.
    """

    modes: _Modes
    cell: OfdmaCell
    levels: tuple[FloatArray, ...]

    @property
    def choices(self) -> Choices:
        """The modes."""
        return self.modes

    def columns(self) -> tuple[FloatArray, BoolArray]:
        """Binaries, shapes [K M]; none where there is no channel."""
        return (self._gain() > 0.0).astype(np.float64).ravel(), np.ones(self._gain().size, dtype=bool)

    def _gain(self) -> FloatArray:
        return self.modes.problem.instance.gain

    def add_rows(self, rows: Rows, first: int, ends: IntArray, pieces: Pieces) -> None:
        """One owner for each sub-carrier; enough profit per device and water level. ``ends``: shape [N, 2]."""
        cell = self.cell
        owns = first + np.arange(cell.devices * cell.subcarriers).reshape(cell.devices, cell.subcarriers)
        for m in range(cell.subcarriers):
            rows.add(-math.inf, 1.0, (owns[:, m], 1.0))
        profit = np.zeros(cell.subcarriers)
        for d, levels in enumerate(self.levels):
            own = np.flatnonzero((pieces.device == d) & (pieces.mode != OUT))
            wide = np.flatnonzero((pieces.device == d) & (pieces.mode != OUT) & pieces.divisible)
            for level in levels:
                profits_above(float(cell.rows[cell.start[d], BAND]), level, cell.inv_a[d], profit)
                size = float(profit.sum()) or 1.0
                need = np.zeros((len(pieces), 2))
                profits_needed(cell.rows, level, pieces.mode, pieces.left, pieces.right, own, 2.0 * size, need)
                if np.abs(need).max(initial=0.0) > _STEEP * size:
                    continue  # HiGHS takes no such row, and without it the program is a relaxation still
                columns = np.concatenate((ends[own, 0], ends[wide, 1]))
                needs = np.concatenate((need[own, 0], need[wide, 1])) / size
                rows.add(-math.inf, 0.0, (columns, needs), (owns[d][cell.order[d]], -profit / size))

    def bandwidth(self) -> tuple[IntArray, IntArray, FloatArray]:
        """The width of a sub-carrier each, in Hz. Shapes [K M]."""
        k, m = self.cell.devices, self.cell.subcarriers
        return (
            np.arange(k * m),
            np.repeat(np.arange(k), m),
            np.full(k * m, subcarrier_hz(self.modes.problem.instance)),
        )

    def refined(self, pieces: Pieces, answer: Answer, picks: Picks) -> tuple[Access, Pieces]:
        """Water levels where the point keeps more than it can carry, and pieces cut at what it can."""
        cell = self.cell
        owned = answer.radio.reshape(cell.devices, cell.subcarriers)
        wish, levels = np.full(cell.devices, np.nan), list(self.levels)
        for d in np.flatnonzero(picks.mode != OUT):
            cap, level = _cap(cell, int(picks.mode[d]), owned[d])
            if math.sqrt(picks.square[d]) > cap * (1.0 + _OVER):
                wish[d] = cap
                if np.all(np.abs(levels[d] / level - 1.0) > _NEW):
                    levels[d] = np.append(levels[d], level)
        finer = cut_pieces(self.modes, pieces, answer, wish)
        more = any(len(new) > len(old) for new, old in zip(levels, self.levels, strict=True))
        return replace(self, levels=tuple(levels)) if more else self, finer

    def plan(self, picks: Picks, radio: FloatArray) -> Allocation | None:
        """The program's owners, shape [K M], with its keep rates as far as these carry them."""
        cell, inst = self.cell, self.modes.problem.instance
        owned = radio.reshape(cell.devices, cell.subcarriers)
        owner = np.where(owned.max(axis=0) > 0.5 / cell.devices, np.argmax(owned, axis=0), -1)
        owner = np.where((owner >= 0) & (picks.mode[owner] != OUT), owner, -1)
        keep = np.zeros(cell.devices)
        on = np.flatnonzero(picks.mode != OUT)
        for d in on:
            mode = int(picks.mode[d])
            cap = cell.cap(mode, owner == d, safe=True)[0]
            keep[d] = min(cap, inst.keep_max[d], math.sqrt(picks.square[d]))
            levels = cell.levels[mode][~np.isnan(cell.levels[mode])]
            if len(levels):
                below = levels[levels <= min(cap, math.sqrt(picks.square[d]) * (1.0 + _OVER))]
                keep[d] = below[-1] if len(below) else -math.inf
            if keep[d] < inst.keep_min[d]:
                return None
        if inst.common_keep and len(on):
            keep[on] = keep[on].min()
            if keep[on[0]] < inst.keep_min[on].max():
                return None
        found = allocation_of(cell, Assignment(owner.astype(np.int64), picks.mode.astype(np.int64), keep))
        return None if self.modes.problem.violations(found) else found


def _cap(cell: OfdmaCell, mode: int, shares: FloatArray) -> tuple[float, float]:
    """(Largest keep rate, water level in W that proves it) of a mode on shares of sub-carriers, shape [M]."""
    d, row = cell.device[mode], cell.rows[mode]
    cap, level = keep_cap(row, cell.inv_a[d], cell.log2_a[d], shares[cell.order[d]])
    if level == 0.0:  # nothing can be sent: any level will do at which all the energy buys too few bits
        least = row[BIT0] + row[BIT1] * row[SMIN]
        level = 2.0 * row[BAND] * max(row[ENERGY], 0.0) / (least * LN2)
    return float(cap), float(level)


def carriers(problem: Problem) -> Carriers:
    """The radio of an OFDMA problem, with a few water levels for each device."""
    inst = problem.instance
    # Caps and powers know neither the underfitting term nor a common rate.
    plain = replace(inst.bound, underfit="inverse-keep", underfit_curve=None, underfit_logistic=None)
    simple = Problem(inst.with_changes(bound=plain, common_keep=False, device_underfit=None))
    cell = OfdmaCell.of(simple.of_resources)
    everyone = np.arange(len(cell.device))
    factor = np.ones(len(cell.device))
    high = inst.keep_max[cell.device].copy()
    levels = [np.zeros(0) for _ in range(cell.devices)]
    for i, d in enumerate(cell.device):
        cap, level = cell.cap(i, np.ones(cell.subcarriers, dtype=bool))
        beyond = proven_keep(cell.rows[i], cell.inv_a[d], cap, level)
        high[i] = min(high[i], beyond) if beyond >= inst.keep_min[d] else -1.0
        if cell.option[i] >= 0:
            factor[i] = (inst.adapter_options[d] or ())[cell.option[i]].underfit_factor  # type: ignore[index]
        some = [_cap(cell, i, np.full(cell.subcarriers, share))[1] for share in _FIRST]
        levels[d] = np.unique(np.append(levels[d], [x for x in some if x > 0.0]))
    modes = _Modes(
        problem=problem,
        device=cell.device,
        option=cell.option,
        rows=np.zeros((len(everyone), 0)),
        safe_rows=np.zeros((len(everyone), 0)),
        wide_rows=np.zeros((len(everyone), 0)),
        under=inst.bound.underfit_weight * inst.weights[cell.device] * factor,
        low=inst.keep_min[cell.device],
        high=high,
        budget_hz=inst.bandwidth_hz,
        block_hz=0.0,
        caps=Caps.of(problem.constrained(()), inst.bandwidth_hz, inst.bandwidth_hz),  # not asked
    )
    return Carriers(modes, cell, tuple(levels))


@kernel
def profits_above(band, om, inv_a, out):  # type: ignore[no-untyped-def]
    """Profit rates in bit/s, rounded up."""
    profits(band, om, inv_a, out)
    for m in range(inv_a.size):
        y = om / inv_a[m]
        if y > 1.0:
            out[m] += 16.0 * EPS * band / LN2 * (2.0 + np.log(y))


@kernel
def profits_needed(rows, om, mode, left, right, which, enough, out):  # type: ignore[no-untyped-def]
    """Ends of a line in s^2 below psi on pieces, written to ``out`` [N, 2]; no more than ``enough`` at an end.

    Where no upload time has energy left at the right end only, the left end's need stands for both, for psi grows
    with s.

    Parameters
    ----------
    rows
        Rows of all modes, C columns (:mod:`edgealloc.solvers.ofdma.kernels.device`). Shape [R, C].
    mode, left, right
        Mode and interval of keep rates of each piece. Shapes [N].
    which
        The pieces asked about. Shape [W].
    om, enough : numbers
        Water level in W, and more bit/s than all sub-carriers give.
    out
        Filled for ``which``, in bit/s. Shape [N, 2].
    """
    for i in which:
        row = rows[mode[i]]
        bits = row[BIT0] + row[BIT1] * left[i]
        cycles, window = row[CYC0] + row[CYC1] * left[i], row[DEADLINE] - bits * row[DOWN]
        a = profit_needed(row, om, bits, cycles, window)
        b = profit_needed(row, om, row[BIT0] + row[BIT1] * right[i], cycles, window)
        out[i, 0] = min(a, b, enough)
        out[i, 1] = min(b, enough) if b < np.inf or a == np.inf else a
