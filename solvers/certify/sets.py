"""For certificates of OFDMA searches: slopes of cuts, and water levels that exclude what cuts leave open.

Why they prove a bound: docs/certificates.md, OFDMA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, profits, psi
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share
from edgealloc.solvers.ofdma.pricing.cuts import B_STEPS
from edgealloc.solvers.ofdma.pricing.mode import Mode
from edgealloc.solvers.row import BIT0, BIT1, ENERGY
from edgealloc.units import LN2, BoolArray, FloatArray, IntArray
from edgealloc.verify.subcarriers.claim import Claim

__all__ = ["OpenSets", "slopes_at"]


_GRID = 40  # keep rates at which the relaxed problem is looked at
_LEVELS = 400  # water levels that exclude, per part
_CLOSE = 1e-13  # relative distance of a cap and a keep rate that count as the same


def slopes_at(
    mode: Mode, nu: float, mu: FloatArray, fixed: IntArray, level: float, low: float, high: float, ratios: int
) -> list[float]:
    """Slopes b of cuts at a water level: prices per profit of the sub-carriers around the marginal one, and wider.

    Where no keep rate can be carried, the slope is steep.

    Parameters
    ----------
    mode
        The device with a row of its menu.
    nu
        Price of w s^2.
    mu, fixed
        Prices of the sub-carriers; 1 in, 0 out, -1 open; both in the order of the mode. Shapes [M].
    level
        Water level in W.
    low, high
        Interval of keep rates.
    ratios
        How many ratios on either side of the marginal one.

    Returns
    -------
    list of float
        Slopes per bit/s, ascending, at least one.
    """
    profit = np.empty(len(mu))
    profits(mode.row[BAND], level, mode.inv_a, profit)
    usable = (profit > 0.0) & (fixed != 0)
    price = np.where(fixed == 1, 0.0, mu)[usable]
    order = np.argsort(price / profit[usable], kind="stable")
    earned, ratio = np.cumsum(profit[usable][order]), (price / profit[usable])[order]
    paid = np.cumsum(price[order])
    keep = np.geomspace(low, high, _GRID) if high > low else np.array([low])
    need = np.array([psi(mode.row, level, s) for s in keep])
    cost = np.array([share(mode.row, mode.objective, nu, s) for s in keep])
    total = float(earned[-1]) if len(earned) else 0.0
    fits = need <= total
    if not fits.any():
        short = float(need[0]) - total
        dear = 100.0 * (abs(float(cost[0])) + float(mu.sum()) + 1.0)  # the checker may see less of what lacks
        return [dear / short] if 0.0 < short < math.inf else [0.0]
    if not len(earned):
        return [0.0]
    cost[fits] += np.interp(need[fits], np.concatenate(([0.0], earned)), np.concatenate(([0.0], paid)))
    best = int(np.argmin(np.where(fits, cost, np.inf)))
    rank = min(int(np.searchsorted(earned, need[best])), len(ratio) - 1)
    near = ratio[np.clip(np.arange(rank - ratios, rank + ratios + 1), 0, len(ratio) - 1)]
    return [float(b) for b in np.unique(np.concatenate((near, ratio[rank] * B_STEPS)))]


@dataclass(slots=True)
class OpenSets:
    """Sets that the cuts of a part leave open, with the keep rates that they must not carry; levels are sought.

    Parameters
    ----------
    mode, nu
        Mode, and price of w s^2.
    order
        Which sub-carriers the mode's order lists. Shape [M].
    claim, sets, rates
        What is to be shown; sets [N, M] and keep rates [N], ``inf`` where there is nothing to show.
    levels
        Water levels in W chosen so far.
    paying
        Least priced share of a set that turned out to cost less than claimed, else ``inf``.
    stuck
        Whether there were too many levels.
    """

    mode: Mode
    nu: float
    order: IntArray
    claim: Claim
    sets: BoolArray
    rates: FloatArray
    levels: list[float] = field(default_factory=list)
    paying: float = math.inf
    stuck: bool = False
    own: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.own = np.zeros(len(self.sets))
        keeping = np.isfinite(self.rates)
        row, free = self.mode.row, free_keeps(self.mode.row, self.mode.objective, self.nu)
        margin = np.full(len(self.sets), math.inf)
        for n in np.flatnonzero(keeping).tolist():
            used = self.sets[n][self.order].astype(float)
            cap, level = keep_cap(row, self.mode.inv_a, self.mode.log2_a, used)
            self.own[n] = level if level > 0.0 else self._high(float(self.rates[n]))
            margin[n] = self.rates[n] / cap - 1.0 if cap > 0.0 else math.inf
            if margin[n] <= _CLOSE:
                value = best_share(row, self.mode.objective, self.nu, free, self.mode.levels, cap)[0]
                self.paying = min(self.paying, value + float(self.claim.prices @ self.sets[n]))
        if self.paying < math.inf:
            keeping[:] = False
        tightest = np.argsort(margin[keeping], kind="stable")
        for name in ("sets", "rates", "own"):
            setattr(self, name, getattr(self, name)[keeping][tightest])

    def _high(self, keep: float) -> float:
        """A water level at which all energy is worth half the payload."""
        row = self.mode.row
        return float(2.0 * row[BAND] * max(row[ENERGY], 1e-300) / (LN2 * (row[BIT0] + row[BIT1] * keep)))

    def _dry(self, some: BoolArray) -> float:
        """A water level below all noise of a set, where none earns: at a low SNR others drown in rounding."""
        return float(np.min(self.mode.inv_a[some[self.order]], initial=math.inf)) * (1.0 - 1e-12)

    def next_level(self) -> float:
        """The water level that suits the tightest set left."""
        self.levels.append(float(self.own[0]))
        return self.levels[-1]

    def keep_only(self, stay: BoolArray) -> None:
        """Keep the sets of ``stay`` [N], those that the last level leaves open; its own set gets two tries."""
        if stay[0] and self.own[0] != (dry := self._dry(self.sets[0])):
            self.own[0] = dry
        elif stay[0] or len(self.levels) >= _LEVELS:
            self.stuck = True
            stay = np.zeros(len(stay), bool)
        self.sets, self.rates, self.own = self.sets[stay], self.rates[stay], self.own[stay]
