"""What a price search found, and what pieces cost at its prices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.solvers.separable.choices import OUT
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Priced", "at_prices", "true_at_prices"]


@dataclass(frozen=True, slots=True, eq=False)
class Priced:
    """What a price search found.

    Parameters
    ----------
    bound
        Proven lower bound, rounding included; ``inf`` when the least bandwidths exceed the budget.
    mu, q
        The prices: mu per Hz and Q0, with nu = gap'(Q0); Q0 of each pool, shape [E], where there are several.
    nu
        gap'(Q0); 0 for device pooling; that of each device, shape [K], where there are several pools.
    least
        Least priced cost of each device. Shape [K].
    picks, share
        Columns that devices pick on the sides of the optimum, shape [S, K], and how much each side counts in the
        mixed (convexified) solution, shape [S]. There are four sides; under caps there may be others.
    rows
        Prices of all rows of :class:`~edgealloc.solvers.fdma.caps.Caps` where there are caps; mu is the first.
    rate, fee
        What a Hz costs each device then, and taking part. Shapes [K].
    """

    bound: float
    mu: float
    q: Any
    nu: Any
    least: FloatArray
    picks: IntArray
    share: FloatArray
    rows: tuple[float, ...] = ()
    rate: FloatArray | None = None
    fee: FloatArray | None = None

    @property
    def prices(self) -> tuple[Any, Any]:
        """(mu, Q0), or (prices of the rows, Q0) under caps: what a search starts from."""
        return (self.rows or self.mu, self.q)

    def reduced(
        self, device: IntArray, inside: BoolArray, cost: FloatArray, band: FloatArray, kept: FloatArray
    ) -> FloatArray:
        """Costs at these prices, of choices of devices; all of one shape, bandwidths in Hz."""
        if self.rate is None or self.fee is None:
            return np.asarray(cost + self.mu * band + self.nu * kept)
        nu = self.nu[device] if isinstance(self.nu, np.ndarray) else self.nu
        return np.asarray(cost + self.rate[device] * band + nu * kept + self.fee[device] * inside)


def at_prices(pieces: Pieces, priced: Priced) -> FloatArray:
    """Priced lower bounds of pieces at their two ends. Shape [N, 2]."""
    inside = (pieces.mode != OUT)[:, None]
    return priced.reduced(pieces.device[:, None], inside, pieces.cost, pieces.band, pieces.kept)


def true_at_prices(pieces: Pieces, kept: FloatArray, priced: Priced) -> FloatArray:
    """Priced costs of what is safe, ``inf`` where no bandwidth suffices, at a price of 0 too. Shapes [N, 2]."""
    band = pieces.safe_band
    finite = np.where(np.isfinite(band), band, 0.0)
    told = priced.reduced(pieces.device[:, None], (pieces.mode != OUT)[:, None], pieces.safe_cost, finite, kept)
    return np.where(np.isfinite(band), told, math.inf)
