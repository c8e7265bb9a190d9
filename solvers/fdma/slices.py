r"""Continuous FDMA under caps on groups of devices: a price per Hz for each row, by column generation.

The problem stays convex in x = log s and the bandwidths, so a mix of answers to prices, taken in x, needs no more
bandwidth than the mix of their bandwidths and costs no more. A linear program over the answers so far
(:mod:`edgealloc.solvers.fdma.master`) gives such a mix, an allocation, and prices of all rows; the devices answer
these, which gives a bound, and new columns. Both sides meet.

Derived: docs/constraints.md, *Slices*.
"""

from __future__ import annotations

import numpy as np

from edgealloc.data.outcome import Snapshot
from edgealloc.solvers.base import Control
from edgealloc.solvers.fdma.cell import Cell, Incumbent
from edgealloc.solvers.fdma.master import mix_columns
from edgealloc.solvers.fdma.response import BANDWIDTH, V, X
from edgealloc.units import FloatArray, IntArray

__all__ = ["solve_slices"]

_ROUNDS = 300
_IDLE = 12  # rounds that bring nothing, after which the prices rest
_GUESSES = (0.02, 0.2, 2.0)  # of the objective's size, for all of the band
_LEAST = 1e-12  # of the same: no price is 0, for a device to which spectrum is free may take all there is


def solve_slices(cell: Cell, control: Control, table: FloatArray) -> tuple[Incumbent, int]:
    """Best allocation and bound under the caps of a problem.

    Parameters
    ----------
    cell
        A feasible instance, with caps.
    control
        Clock, limits and snapshots.
    table
        Answers to start from. Shape [10, K].

    Returns
    -------
    tuple of Incumbent and int
        The best answers, the bound with its prices; the number of iterations.
    """
    problem, caps, best = cell.problem, cell.caps, Incumbent()
    count, unit = len(cell.low), problem.size / cell.bandwidth_hz
    columns = _Columns(cell)
    columns.add(cell.bandwidth_at(cell.low, np.zeros(count)))
    columns.add(cell.bandwidth_at(table[X], np.zeros(count)))
    q = 0.5 * float(cell.weight @ np.square(problem.free[1]))
    for guess in _GUESSES:
        cell.answer(guess * unit, q, table)
        columns.add(table)
    touched = [0.0, q, 1.0]
    spare = min(1e-9, 1e-3 * control.options.rel_gap)
    iteration, idle = 0, 0
    while iteration < _ROUNDS and idle < _IDLE:
        iteration += 1
        before = (best.lower, best.upper)
        tangents = [(at, cell.gap_at(at), cell.price_of_kept(at)) for at in sorted(touched)]
        device, x, cost, band, kept = columns.all()
        usage = caps.spectrum[:, device] * band
        limit = caps.safe * (1.0 - spare)
        mix = mix_columns(device, cost, usage, kept, limit, (tangents,) if problem.pooled else (), problem.size)
        if mix is None:
            break
        mean = np.bincount(device, mix.weight * x, count)
        mixed = cell.bandwidth_at(np.clip(mean, cell.low, cell.high), table[V])
        best.offer(cell, cell.fit(mixed))
        columns.add(mixed)
        square = float(mix.weight @ kept)
        q = cell.kept_at(float(mix.nu[0])) if problem.pooled else 0.0
        rows = mix.prices.copy()
        rows[0] += _LEAST * unit
        cell.answer_each(rows @ caps.spectrum, q, table)
        bound = cell.lower_bound_each(rows, q, table)
        if bound > best.lower:
            best.lower, best.mu, best.q, best.rows = bound, float(rows[0]), q, tuple(rows.tolist())
        columns.add(table)
        touched += [at for at in (square, q) if all(abs(at - old) > 1e-9 for old in touched)]
        used = float(np.max(caps.spectrum @ table[BANDWIDTH] / caps.safe))
        note = f"{len(rows)} rows, the fullest {used:.6g} of what there is"
        control.report(Snapshot("convex", control.seconds, iteration, best.lower, best.upper, best.gap, note=note))
        idle = idle + 1 if (best.lower, best.upper) == before else 0
        if best.gap <= control.options.rel_gap or control.stopped():
            break
    return best, iteration


class _Columns:
    """Answers of devices so far: x = log s, own cost, bandwidth in Hz, kept share."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.parts: list[tuple[FloatArray, ...]] = []

    def add(self, table: FloatArray) -> None:
        """Take the answers of a table [10, K] that some bandwidth serves."""
        cell, problem = self.cell, self.cell.problem
        band, x = table[BANDWIDTH], table[X]
        some = np.flatnonzero(np.isfinite(band) & (band < cell.caps.alone_hz() * 1e3))
        if not len(some):
            return
        keep = np.exp(x)
        cost = cell.under * np.expm1(-x)
        if not problem.pooled:
            cost = cost + cell.weight * problem.stability.value(keep * keep)
        kept = cell.weight * keep * keep
        self.parts.append((some.astype(np.float64), x[some], cost[some], band[some], kept[some]))

    def all(self) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Device, x, cost, bandwidth and kept share of all columns. Shapes [N]."""
        device, x, cost, band, kept = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        return device.astype(np.intp), x, cost, band, kept
