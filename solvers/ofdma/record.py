"""What an OFDMA search leaves behind: boxes and prices for its certificate, columns for a like search."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgealloc.formulation.result import Result
from edgealloc.solvers.ofdma.box import OfdmaBox
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.master import Master
from edgealloc.solvers.ofdma.node import Prices, add_column
from edgealloc.solvers.row import SMAX, SMIN
from edgealloc.solvers.search.record import Record
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Columns", "OfdmaProof", "left_by", "take_up"]

_CHEAPEST = 8  # columns of a device at the prices of a box


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Sets of sub-carriers that a search met, each with its mode and keep rate.

    Parameters
    ----------
    mode, mask, keep
        Mode of the device, its set, its keep rate. Shapes [N], [N, M], [N].
    """

    mode: IntArray
    mask: BoolArray
    keep: FloatArray

    @classmethod
    def of(cls, master: Master, boxes: Record[OfdmaBox]) -> Columns:
        """The cheapest few of each device in a master, at the best prices of every box."""
        n = master.count
        chosen = np.zeros(n, bool)
        for _, prices in boxes.visits.values():
            if not isinstance(prices, Prices) or not prices.mu.size:
                continue
            nu = prices.nu[master.pools.device[master.device[:n]]]
            priced = master.cost[:n] + nu * master.kept[:n] + master.mask[:n] @ prices.mu
            for k in range(master.devices):
                mine = np.flatnonzero((master.device[:n] == k) & (master.mode[:n] >= 0))
                chosen[mine[np.argsort(priced[mine], kind="stable")[:_CHEAPEST]]] = True
        return cls(master.mode[:n][chosen], master.mask[:n][chosen], master.keep[:n][chosen])


@dataclass(frozen=True, slots=True, eq=False)
class OfdmaProof:
    """What a certificate is made of: the cell that was searched (of the objective, or counting) and the boxes.

    ``root`` is the box of everything; no box was visited when a diagnosis made a search needless. ``columns`` are
    of no use to a certificate: a search of a like problem begins with them.
    """

    cell: OfdmaCell
    root: OfdmaBox = field(default_factory=OfdmaBox)
    record: Record[OfdmaBox] = field(default_factory=Record)
    columns: Columns | None = None


def left_by(like: Result | None, cell: OfdmaCell) -> OfdmaProof | None:
    """What the search of a like problem left; None where its devices, modes, pools or sub-carriers are others."""
    proof = None if like is None else like.proof
    if not isinstance(proof, OfdmaProof) or proof.columns is None:
        return None
    other = proof.cell
    same = other.inv_a.shape == cell.inv_a.shape and np.array_equal(other.device, cell.device)
    same = same and np.array_equal(other.pools.device, cell.pools.device)
    return proof if same else None


def take_up(cell: OfdmaCell, master: Master, left: OfdmaProof) -> Prices | None:
    """Give a master the columns of another search, at rates that sets can carry here; the prices it ended with.

    Neither proves anything: a bound comes from pricing, whatever the columns and prices were.
    """
    columns = left.columns
    assert columns is not None
    for mode, mask, keep in zip(columns.mode.tolist(), columns.mask, columns.keep.tolist(), strict=True):
        row, levels = cell.rows[mode], cell.levels[mode]
        cap = min(cell.cap(mode, mask)[0], float(row[SMAX]))
        fits = cap >= row[SMIN] and mask.sum() <= cell.most[cell.device[mode]]
        if fits and np.isnan(levels).all():
            add_column(cell, master, mode, mask, float(np.clip(keep, row[SMIN], cap)))
        elif fits and keep <= cap and keep in levels:
            add_column(cell, master, mode, mask, keep)
    prices = left.record.visited(left.root)[1]
    return prices if isinstance(prices, Prices) else None
