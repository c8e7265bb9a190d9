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

__all__ = ["free_bound"]


def free_bound(cell: OfdmaCell, region: Region) -> float:
    """Lower bound of the objective over a region, whatever the sub-carriers; inf where a device has no choice.

    Without sub-carriers nothing couples the pools.
    """
    if not cell.pools.several:
        return _of_pool(cell, region, 0)
    each = [_of_pool(cell, region, e) for e in range(len(cell.pools.weight))]
    if math.inf in each or -math.inf in each:
        return math.inf if math.inf in each else -math.inf
    return math.fsum(each) - 4.0 * EPS * math.fsum(map(abs, each))


def _of_pool(cell: OfdmaCell, region: Region, pool: int) -> float:
    """What the devices of a pool cost at least, with their stability term."""
    lo, hi = 0.0, 1.0
    bound, kept = _priced(cell, region, pool, cell.pools.slope(hi, pool))
    for _ in range(40 if cell.pooled else 0):
        q = 0.5 * (lo + hi)
        value, kept = _priced(cell, region, pool, cell.pools.slope(q, pool))
        bound = max(bound, value)
        if kept > q:
            lo = q
        else:
            hi = q
        if hi - lo <= 1e-9:
            break
    return bound


def _priced(cell: OfdmaCell, region: Region, pool: int, nu: float) -> tuple[float, float]:
    """(Bound of a pool at a price of what it keeps, its mean of s^2 in the answer)."""
    if not math.isfinite(nu):
        return -math.inf, 0.0
    terms, kept = [cell.pools.conjugate(nu, pool)], 0.0
    for k in np.flatnonzero(cell.pools.device == pool).tolist():
        best, share = (float(cell.out[k]), 0.0) if region.out[k] else (math.inf, 0.0)
        for mode in region.modes[cell.start[k] : cell.start[k + 1]]:
            if mode is not None:
                free = free_keeps(mode.row, mode.objective, nu)
                value, keep = best_share(mode.row, mode.objective, nu, free, mode.levels, np.inf)
                if value < best:
                    best, share = float(value), float(mode.row[WEIGHT]) * keep * keep
        terms.append(best)
        kept += share
    kept /= float(cell.pools.weight[pool])
    if math.inf in terms:
        return math.inf, kept
    return math.fsum(terms) - 128.0 * EPS * math.fsum(abs(term) for term in terms), kept
