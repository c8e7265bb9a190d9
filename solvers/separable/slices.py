r"""Prices and plans under caps on groups of devices, beside the band (:class:`~edgealloc.solvers.fdma.caps.Caps`).

With a price lam_i >= 0 for each row ``sum_k a_ik b_k + c_ik <= L_i`` the devices are decoupled as by one price: a
Hz costs device k ``sum_i lam_i a_ik``, taking part ``sum_i lam_i c_ik``, and any prices give the bound

.. math::
    G \ge \mathrm{gap}(Q_0) - \nu Q_0 - \sum_i \lambda_i L_i
    + \sum_k \min_j (c_j + u_j \cdot \lambda + \nu q_j).

The best prices are the duals of a linear program over the columns; the bound is evaluated at them anew.

Derived: docs/constraints.md, *Slices*.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.fdma.caps import Caps
from edgealloc.solvers.fdma.master import mix_columns, sides
from edgealloc.solvers.separable.choices import OUT
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.solvers.separable.priced import Priced
from edgealloc.solvers.separable.prices import gap_slope, gap_value, search_prices
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
    term: FloatArray,
    tangents: list[float],
    guess: tuple[tuple[float, ...] | float, float],
    tolerance: float,
    size: float,
) -> Priced:
    """Maximise the dual value over the prices of all rows.

    Parameters
    ----------
    start, columns, term
        As for :func:`~edgealloc.solvers.separable.prices.search_prices`. Shapes [K + 1], [N] each, [5].
    inside
        Which columns take part. Shape [N].
    most
        The rows, and what there is of each, shape [R].
    tangents
        Kept shares at which the stability term is touched; grows.
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
    dual = _Dual(start, owner, columns, inside, caps, limit, term)
    if np.any(least > limit * (1.0 + 1e-12)):
        return dual.priced(rows, guess[1], math.inf)
    if not rows[1:].any():  # do the caps bind at all?
        one = search_prices(start, columns, float(limit[0]), term, (rows[0], guess[1]), tolerance, math.inf)
        used = one.share @ usage[:, one.picks].sum(axis=2).T
        rows[0] = one.mu
        if np.all(used[1:] <= limit[1:]):
            return dual.priced(rows, one.q, one.picks, one.share)
    pooled = gap_slope(term, 1.0) > 0.0
    best = dual.priced(rows, guess[1])
    working = dual.first(best)
    weight = np.zeros(len(cost))
    for _ in range(_PROGRAMS):
        at = np.flatnonzero(working)
        touched = _tangents(term, tangents, best.q) if pooled else []
        mix = mix_columns(owner[at], cost[at], usage[:, at], kept[at], limit, touched, size)
        if mix is None:
            break
        weight[:] = 0.0
        weight[at] = mix.weight
        square = float(weight @ kept)
        q = _touched_at(term, mix.nu) if pooled else 0.0
        trial = dual.priced(mix.prices, q)
        best = trial if trial.bound > best.bound else best
        reached = float(weight @ cost) + gap_value(term, square)
        if reached - best.bound <= tolerance:
            break
        fresh = dual.missing(trial, working)
        working[fresh] = True
        new = [q for q in (square, q) if pooled and all(abs(q - old) > _APART for old in tangents)]
        tangents += new
        if not len(fresh) and not new:
            break
    del tangents[:-_TANGENTS]
    picks, share = sides(owner, weight) if weight.any() else (best.picks, best.share)
    return dual.priced(np.array(best.rows), best.q, picks, share)


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
        term: FloatArray,
    ) -> None:
        self.start, self.owner, self.inside, self.caps, self.limit = start, owner, inside, caps, limit
        self.cost, self.band, self.kept = columns
        self.term = term
        self.largest = float(np.sum(np.maximum.reduceat(np.abs(self.cost), start[:-1])))

    def priced(
        self,
        rows: FloatArray,
        q: float,
        picks: IntArray | float = 0.0,
        share: FloatArray | None = None,
    ) -> Priced:
        """The dual value at prices of the rows [R] and Q0; ``picks`` [S, K] with shares [S], or a known bound."""
        nu, gap = gap_slope(self.term, q), gap_value(self.term, q)
        rate, fee = rows @ self.caps.spectrum, rows @ self.caps.devices
        own = self.cost + rate[self.owner] * self.band + nu * self.kept + fee[self.owner] * self.inside
        least = np.minimum.reduceat(own, self.start[:-1])
        paid = rows * self.limit
        size = gap + 2.0 * nu + 2.0 * float(paid.sum()) + float(np.sum(np.abs(least))) + 2.0 * self.largest
        bound = math.fsum((gap, -nu * q, -math.fsum(paid), math.fsum(least)))
        bound -= (_ROUNDING + len(rows) * 2.0**-50) * size
        if isinstance(picks, float):
            bound = picks or bound
            at = np.flatnonzero(own == least[self.owner])
            picks, share = at[np.searchsorted(self.owner[at], np.arange(len(least)))][None, :], np.ones(1)
        assert share is not None
        return Priced(bound, float(rows[0]), q, nu, least, picks, share, tuple(rows.tolist()), rate, fee)

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


def _touched_at(term: FloatArray, nu: float) -> float:
    """Q0 in [0, 1] with gap'(Q0) = nu, by bisection; gap' does not fall."""
    low, high = 0.0, 1.0
    for _ in range(54):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if gap_slope(term, middle) < nu else (low, middle)
    return 0.5 * (low + high)


def _tangents(term: FloatArray, tangents: list[float], q: float) -> list[tuple[float, float, float]]:
    """(Q, gap, slope) of all tangents, at least of those at both ends and at q."""
    places = sorted({0.0, 1.0, min(max(q, 0.0), 1.0), *tangents})
    return [(at, float(gap_value(term, at)), float(gap_slope(term, at))) for at in places]


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
    term: FloatArray,
    nu: float,
    pick: IntArray,
    control: Control,
) -> IntArray:
    """As :func:`~edgealloc.solvers.separable.rounding.exchange` under several rows, until none helps.

    Parameters
    ----------
    start, columns, term, nu, pick
        As there. Shapes [K + 1], [N] each, [5], a number, [K].
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
    limit, pick = caps.safe, pick.copy()
    unit = np.where(limit > 0.0, limit, 1.0)
    while True:  # narrower columns where they cost least for what they free
        over = usage[:, pick].sum(axis=1) - limit
        if np.all(over <= 0.0):
            break
        freed = usage[:, pick[owner]] - usage
        gain = np.sum(np.clip(freed, 0.0, np.maximum(over, 0.0)[:, None]) / unit[:, None], axis=0)
        gain[np.any(freed < 0.0, axis=0)] = 0.0
        dearer = cost - cost[pick[owner]] + nu * (kept - kept[pick[owner]])
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(gain > 0.0, dearer / gain, np.inf)
        best = int(np.argmin(rate))
        if not math.isfinite(rate[best]):
            return pick
        pick[owner[best]] = best

    def value(chosen: IntArray) -> float:
        return float(cost[chosen].sum()) + float(gap_value(term, float(kept[chosen].sum())))

    now = value(pick)
    while not control.stopped():
        slope = gap_slope(term, float(kept[pick].sum()))
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
