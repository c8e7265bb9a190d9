"""Lower bounds of an OFDMA objective without sub-carriers: what weak duality says when nothing is scarce.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.ofdma.box import Region
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.device import EPS, WEIGHT
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps

__all__ = ["conjugate", "free_bound"]


def conjugate(cell: OfdmaCell, nu: float) -> float:
    """Lower bound of gap(Q) - nu Q over Q in [0, 1], by a tangent near the best Q."""
    if not cell.pooled:
        return 0.0
    lo, hi = 0.0, 1.0
    for _ in range(60):
        q = 0.5 * (lo + hi)
        if cell.gap_slope(q) > nu:
            hi = q
        else:
            lo = q
    q = lo if lo == 0.0 else hi
    lean = cell.gap_slope(q) - nu
    value = cell.gap(q) - nu * q + min(-lean * q, lean * (1.0 - q))
    return value - 64.0 * EPS * (cell.gap(q) + nu + abs(lean))


def free_bound(cell: OfdmaCell, region: Region) -> float:
    """Lower bound of the objective over a region, whatever the sub-carriers; inf where a device has no choice."""
    lo, hi = 0.0, 1.0
    bound, kept = _priced(cell, region, cell.gap_slope(hi))
    for _ in range(40 if cell.pooled else 0):
        q = 0.5 * (lo + hi)
        value, kept = _priced(cell, region, cell.gap_slope(q))
        bound = max(bound, value)
        if kept > q:
            lo = q
        else:
            hi = q
        if hi - lo <= 1e-9:
            break
    return bound


def _priced(cell: OfdmaCell, region: Region, nu: float) -> tuple[float, float]:
    """(Bound at a price of the kept share, sum w s^2 of its answer)."""
    if not math.isfinite(nu):
        return -math.inf, 0.0
    terms, kept = [conjugate(cell, nu)], 0.0
    for k in range(cell.devices):
        best, share = (float(cell.out[k]), 0.0) if region.out[k] else (math.inf, 0.0)
        for mode in region.modes[cell.start[k] : cell.start[k + 1]]:
            if mode is not None:
                free = free_keeps(mode.row, mode.objective, nu)
                value, keep = best_share(mode.row, mode.objective, nu, free, mode.levels, np.inf)
                if value < best:
                    best, share = float(value), float(mode.row[WEIGHT]) * keep * keep
        terms.append(best)
        kept += share
    if math.inf in terms:
        return math.inf, kept
    return math.fsum(terms) - 128.0 * EPS * math.fsum(abs(term) for term in terms), kept
