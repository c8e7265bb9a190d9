r"""Prices and plans under several rows or pools: caps on groups of devices beside the band, clusters.

With a price lam_i >= 0 for each row ``sum_k a_ik b_k + c_ik <= L_i`` the devices are decoupled as by one price: a
Hz costs device k ``sum_i lam_i a_ik``, taking part ``sum_i lam_i c_ik``, and any prices give the bound

.. math::
    G \ge \mathrm{gap}(Q_0) - \nu Q_0 - \sum_i \lambda_i L_i
    + \sum_k \min_j (c_j + u_j \cdot \lambda + \nu q_j).

With clusters nu is that of the device's own (:mod:`edgealloc.solvers.separable.pools`). The best prices are the
duals of a linear program over the columns; the bound is evaluated at them anew.

Derived: docs/constraints.md, *Slices*.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.fdma.caps import Caps
from edgealloc.solvers.fdma.master import mix_columns, sides
from edgealloc.solvers.separable.choices import OUT
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.solvers.separable.pools import Pools
from edgealloc.solvers.separable.priced import Priced
from edgealloc.solvers.separable.prices import search_prices
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["exchange_rows", "lost_by_mixing", "search_rows", "understated"]

_ROUNDING = 128.0 * 2.0**-53
_PROGRAMS = 60  # at most, until the prices are good
_FEW = 3000  # columns that are all looked at at once
_TANGENTS = 12  # kept from one search to the next
_APART = 1e-7  # of two kept shares where the stability term is touched
_SHORT = 1e-9  # relative; what rows may be exceeded by before lines are cut
_PAIRS = 250_000  # pairs of moves that are looked at


def search_rows(
    start: IntArray,
    columns: tuple[FloatArray, FloatArray, FloatArray],
    inside: BoolArray,
    most: tuple[Caps, FloatArray],
    pools: Pools,
    tangents: list[FloatArray],
    guess: tuple[tuple[float, ...] | float, Any],
    tolerance: float,
    size: float,
) -> Priced:
    """Maximise the dual value over the prices of all rows.

    Parameters
    ----------
    start, columns
        As for :func:`~edgealloc.solvers.separable.prices.search_prices`. Shapes [K + 1], [N] each.
    inside
        Which columns take part. Shape [N].
    most
        The rows, and what there is of each, shape [R].
    pools
        The stability terms that couple devices.
    tangents
        Q of the pools, shape [E], at which the stability terms are touched; grows.
    guess
        Prices of the rows (or of the band alone), and Q0.
    tolerance
        Absolute error of the maximum at which to stop.
    size
        Size of the objective.

    Returns
    -------
    Priced
        Its bound is ``inf`` where the least needs exceed a row.
    """
    (cost, band, kept), (caps, limit) = columns, most
    count = len(start) - 1
    owner = np.repeat(np.arange(count), np.diff(start))
    usage = caps.of_columns(owner, band, inside)
    least = np.minimum.reduceat(usage, start[:-1], axis=1).sum(axis=1)
    rows = np.zeros(len(limit))
    rows[: np.size(guess[0])] = guess[0]
    dual, q = _Dual(start, owner, columns, inside, caps, limit, pools), np.zeros(len(pools.weight)) + guess[1]
    if np.any(least > limit * (1.0 + 1e-12)):
        return dual.priced(rows, q, math.inf)
    if not (pools.several or rows[1:].any()):  # do the caps bind at all?
        begin = (float(rows[0]), float(q[0]))
        one = search_prices(start, columns, float(limit[0]), pools.terms[0], begin, tolerance, math.inf)
        used = one.share @ usage[:, one.picks].sum(axis=2).T
        rows[0] = one.mu
        if np.all(used[1:] <= limit[1:]):
            return dual.priced(rows, np.array([one.q]), one.picks, one.share)
    pooled = pools.coupled
    best = dual.priced(rows, q)
    working = dual.first(best)
    weight = np.zeros(len(cost))
    for _ in range(_PROGRAMS):
        at = np.flatnonzero(working)
        touched = pools.tangents(tangents, np.atleast_1d(best.q)) if pooled else []
        own = pools.device[owner[at]]
        mix = mix_columns(owner[at], cost[at], usage[:, at], kept[at], limit, touched, size, own, pools.weight)
        if mix is None:
            break
        weight[:] = 0.0
        weight[at] = mix.weight
        square = pools.kept(owner, weight * kept)
        q = pools.touched_at(mix.nu) if pooled else np.zeros_like(square)
        trial = dual.priced(mix.prices, q)
        best = trial if trial.bound > best.bound else best
        reached = float(weight @ cost) + pools.value(square)
        if reached - best.bound <= tolerance:
            break
        fresh = dual.missing(trial, working)
        working[fresh] = True
        new = [x for x in (square, q) if pooled and all(np.max(np.abs(x - old)) > _APART for old in tangents)]
        tangents += new
        if not len(fresh) and not new:
            break
    del tangents[:-_TANGENTS]
    picks, share = sides(owner, weight) if weight.any() else (best.picks, best.share)
    return dual.priced(np.array(best.rows), np.atleast_1d(best.q), picks, share)


class _Dual:
    """Columns, rows and what prices of the rows prove."""

    def __init__(
        self,
        start: IntArray,
        owner: IntArray,
        columns: tuple[FloatArray, FloatArray, FloatArray],
        inside: BoolArray,
        caps: Caps,
        limit: FloatArray,
        pools: Pools,
    ) -> None:
        self.start, self.owner, self.inside, self.caps, self.limit = start, owner, inside, caps, limit
        self.cost, self.band, self.kept = columns
        self.pools = pools
        self.largest = float(np.sum(np.maximum.reduceat(np.abs(self.cost), start[:-1])))

    def priced(
        self,
        rows: FloatArray,
        q: FloatArray,
        picks: IntArray | float = 0.0,
        share: FloatArray | None = None,
    ) -> Priced:
        """The dual value at prices of rows [R] and Q0 [E]; ``picks`` [S, K], shares [S], or a known bound."""
        slopes, gap, w = self.pools.slopes(q), self.pools.value(q), self.pools.weight
        nu = self.pools.each(slopes)
        price = nu[self.owner] if isinstance(nu, np.ndarray) else nu
        rate, fee = rows @ self.caps.spectrum, rows @ self.caps.devices
        own = self.cost + rate[self.owner] * self.band + price * self.kept + fee[self.owner] * self.inside
        least = np.minimum.reduceat(own, self.start[:-1])
        paid = rows * self.limit
        size = gap + 2.0 * float(w @ slopes) + 2.0 * float(paid.sum())
        size += float(np.sum(np.abs(least))) + 2.0 * self.largest
        bound = math.fsum((gap, -math.fsum(w * slopes * q), -math.fsum(paid), math.fsum(least)))
        bound -= (_ROUNDING + len(rows) * 2.0**-50) * size
        if isinstance(picks, float):
            bound = picks or bound
            at = np.flatnonzero(own == least[self.owner])
            picks, share = at[np.searchsorted(self.owner[at], np.arange(len(least)))][None, :], np.ones(1)
        assert share is not None
        at_q = q if self.pools.several else float(q[0])
        return Priced(bound, float(rows[0]), at_q, nu, least, picks, share, tuple(rows.tolist()), rate, fee)

    def first(self, priced: Priced) -> BoolArray:
        """The columns to begin with: all of few, else those that prices choose, and the narrowest. Shape [N]."""
        if len(self.cost) <= _FEW:
            return np.ones(len(self.cost), dtype=bool)
        working = np.zeros(len(self.cost), dtype=bool)
        working[priced.picks.ravel()] = True
        narrow = np.repeat(np.minimum.reduceat(self.band, self.start[:-1]), np.diff(self.start))
        working |= self.band == narrow
        return working

    def missing(self, priced: Priced, working: BoolArray) -> IntArray:
        """A column of each device that is better at the prices than all in ``working`` [N]."""
        own = priced.reduced(self.owner, self.inside, self.cost, self.band, self.kept)
        known = np.minimum.reduceat(np.where(working, own, np.inf), self.start[:-1])
        better = priced.least < known - 1e-14 * np.abs(known)
        at = np.flatnonzero((own == priced.least[self.owner]) & better[self.owner] & ~working)
        return at


def lost_by_mixing(pieces: Pieces, priced: Priced, reduced: FloatArray) -> FloatArray:
    """How much dearer each device is at the mean of its picks than at these; ``inf`` where it cannot be there.

    A mix over an interval on which everything is linear in s^2 is no mix at all: branching there gains nothing.

    Parameters
    ----------
    pieces, priced
        Pieces, and what a price search picked of their ends.
    reduced
        Priced costs of the two ends. Shape [N, 2].

    Returns
    -------
    array
        In units of the objective. Shape [K].
    """
    lost = np.full(priced.picks.shape[1], np.inf)
    square = np.square(np.stack((pieces.left, pieces.right), axis=1))
    mode = pieces.mode[priced.picks // 2]
    mean = priced.share @ square.ravel()[priced.picks]
    for k in np.flatnonzero(np.all(mode == mode[0], axis=0)):
        mine = np.flatnonzero((pieces.mode == mode[0, k]) & (pieces.device == k))
        at = mine[(square[mine, 0] <= mean[k]) & (mean[k] <= square[mine, 1])]
        if len(at):
            low, high = square[at[0]]
            part = (mean[k] - low) / (high - low) if high > low else 0.0
            lost[k] = (1.0 - part) * reduced[at[0], 0] + part * reduced[at[0], 1] - priced.least[k]
    return lost


def understated(pieces: Pieces, priced: Priced, caps: Caps) -> BoolArray:
    """Pieces that are picked, on rows that the picks meet by lines below their bandwidths alone. Shape [N].

    At a price of 0 no line is missed in the bound, and a row that binds would go unnoticed.

    Parameters
    ----------
    pieces, priced
        Pieces, and what a price search picked of their ends.
    caps
        The rows.
    """
    picks, inside = priced.picks, pieces.mode[priced.picks // 2] != OUT
    low, true = pieces.band.ravel()[picks], pieces.safe_band.ravel()[picks]
    used = np.zeros(len(caps.most))
    for share, band, on in zip(priced.share, true, inside, strict=True):
        used += share * caps.usage(np.where(on, np.minimum(band, 1e300), 0.0), on).sum(axis=1)
    short = np.any(caps.spectrum[used > caps.most * (1.0 + _SHORT)] > 0.0, axis=0)
    rough = (priced.share[:, None] > 0.0) & short & inside & (true > low * (1.0 + 0.1 * _SHORT))
    found = np.zeros(len(pieces), dtype=bool)
    found[picks[rough] // 2] = True
    return found


def exchange_rows(
    start: IntArray,
    columns: tuple[FloatArray, FloatArray, FloatArray],
    caps: Caps,
    pools: Pools,
    nu: FloatArray | float,
    pick: IntArray,
    control: Control,
) -> IntArray:
    """As :func:`~edgealloc.solvers.separable.rounding.exchange` under several rows, until none helps.

    Parameters
    ----------
    start, columns, nu, pick
        As there; the price of the kept share is that of each device where pools are several. Shapes [K + 1], [N]
        each, [K], [K].
    pools
        The stability terms that couple devices.
    caps
        The rows; a column without bandwidth leaves its device out.
    control
        Asked to stop now and then.

    Returns
    -------
    array
        A column per device; it may not fit where nothing that fits was found. Shape [K].
    """
    cost, band, kept = columns
    owner = np.repeat(np.arange(len(start) - 1), np.diff(start))
    usage = caps.of_columns(owner, band, band > 0.0)
    limit, pick, everyone = caps.safe, pick.copy(), np.arange(len(start) - 1)
    price = nu[owner] if isinstance(nu, np.ndarray) else nu
    unit = np.where(limit > 0.0, limit, 1.0)
    while True:  # narrower columns where they cost least for what they free
        over = usage[:, pick].sum(axis=1) - limit
        if np.all(over <= 0.0):
            break
        freed = usage[:, pick[owner]] - usage
        gain = np.sum(np.clip(freed, 0.0, np.maximum(over, 0.0)[:, None]) / unit[:, None], axis=0)
        gain[np.any(freed < 0.0, axis=0)] = 0.0
        dearer = cost - cost[pick[owner]] + price * (kept - kept[pick[owner]])
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(gain > 0.0, dearer / gain, np.inf)
        best = int(np.argmin(rate))
        if not math.isfinite(rate[best]):
            return pick
        pick[owner[best]] = best

    def value(chosen: IntArray) -> float:
        return float(cost[chosen].sum()) + pools.value(pools.kept(everyone, kept[chosen]))

    now = value(pick)
    while not control.stopped():
        slope = pools.each(pools.slopes(pools.kept(everyone, kept[pick])))
        slope = slope[owner] if isinstance(slope, np.ndarray) else slope
        gain = cost - cost[pick[owner]] + slope * (kept - kept[pick[owner]])
        more = usage - usage[:, pick[owner]]
        slack = limit - usage[:, pick].sum(axis=1)
        single = np.where(np.all(more <= slack[:, None], axis=0), gain, np.inf)
        moves: tuple[int, ...] = (int(np.argmin(single)),)
        least = min(float(single[moves[0]]), 0.0)
        wish = np.flatnonzero((gain < 0.0) & (single == np.inf))
        wish = wish[np.argsort(gain[wish], kind="stable")][: max(1, _PAIRS // len(cost))]
        if len(wish):  # a move that does not fit, with one that makes room for it
            room = np.all(more[:, wish, None] + more[:, None, :] <= slack[:, None, None], axis=0)
            room &= owner[wish][:, None] != owner[None, :]
            both = np.where(room, gain[wish][:, None] + gain[None, :], np.inf)
            at = np.unravel_index(int(np.argmin(both)), both.shape)
            if both[at] < least:
                least, moves = float(both[at]), (int(wish[at[0]]), int(at[1]))
        if not least < -1e-15 * abs(now):
            break
        trial = pick.copy()
        for move in moves:
            trial[owner[move]] = move
        if not (value(trial) < now and np.all(usage[:, trial].sum(axis=1) <= limit)):
            break  # the linear stability term promised too much
        pick, now = trial, value(trial)
    return pick
