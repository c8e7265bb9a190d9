"""The proof of one leaf of an OFDMA search: cuts, levels and what they cost.

What it holds and why it proves a bound: docs/certificates.md, OFDMA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from edgealloc.certificate.form import Kept
from edgealloc.certificate.subcarriers import Branch, Part
from edgealloc.solvers.base import Control
from edgealloc.solvers.certify.late import in_time
from edgealloc.solvers.certify.sets import OpenSets, slopes_at
from edgealloc.solvers.ofdma.box import Region as Boxed
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.device import WEIGHT
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps
from edgealloc.solvers.ofdma.node import Prices
from edgealloc.solvers.ofdma.pricing.cuts import LEVEL_STEPS, relaxed_level
from edgealloc.solvers.ofdma.pricing.mode import Ask, free_price, price_mode, reach
from edgealloc.solvers.row import SMAX
from edgealloc.units import FloatArray
from edgealloc.verify.subcarriers.claim import Claim, Model, Places, share_values
from edgealloc.verify.subcarriers.cover import Region
from edgealloc.verify.subcarriers.leaf import claims_of, leaf_value
from edgealloc.verify.subcarriers.parts import cell_values, left_open, may_carry
from edgealloc.verify.subcarriers.pays import pays_from

_SLACK = 1e-10  # of the objective: what a proof may lose to rounding


# What prices may be found too low by, of the objective: sets that cost about the same are many.
_STEPS = (1e-2, 1e-3, 1e-4, 1e-6, _SLACK)


_ROUNDING = 1e-14  # of a cost: what it may lose to rounding


_MANY = 1e3  # times the objective or what is dearer, above any priced share of interest


_WORK = 10**9  # nodes of a search of the last pricing


_STEP = 1.2  # ratio of the first edges


_CELLS = 1e-7  # of the objective: what cells may cost a cut


_NARROW = 1.0 + 1e-9  # cells are not halved below this ratio


_REFINE = 14  # times that cells are halved


_EDGES = 400  # of a part at most


_OPEN = 20_000  # sets left open, before an interval is cut in two


_AT_ONCE = 64  # parts between two looks at the clock


_SPLITS = 12  # times that intervals are cut


_NUMBERS = (1, 3, len(LEVEL_STEPS))  # water levels of the cuts, by depth


_Span = tuple[int, float, float, int]  # mode, least and greatest keep rate, depth


@dataclass(slots=True)
class _Draft:
    """A part while it is made: its mode in the cell, how many cuts it gets, whether it is proved."""

    mode: int
    depth: int
    part: Part
    done: bool = False


@dataclass(slots=True)
class Leaf:
    """A leaf while its proof is made, in doubles first (``guess``), then as the checker does it (``exact``)."""

    cell: OfdmaCell
    guess: Model
    exact: Model
    region: Region
    boxed: Boxed
    prices: Prices
    node: Branch
    control: Control
    drafts: list[_Draft] = field(default_factory=list)

    @property
    def _least(self) -> FloatArray:
        assert self.node.least is not None
        return self.node.least

    def proved(self, claim: float) -> Branch:
        """The leaf with the proof of a bound, or of a little less."""
        pools = self.cell.pools
        own = replace(self.prices, nu=pools.slopes(self._touched()))  # slopes that there are
        enough = claim - _SLACK * self.cell.size
        nu = own.nu if self.cell.counting else self._free_prices()
        self.prices = Prices(np.zeros(self.cell.subcarriers), nu, own.levels)
        least, intervals = self._unpriced()
        nobody = np.isposinf(least).any()  # a device that all sub-carriers are too few for
        if not nobody and self._worth(least) < enough:  # sub-carriers are worth something
            free, self.prices = self.prices, own
            for step in _STEPS:
                least, intervals = self._priced(step)
                worth = self._worth(least)
                if worth >= enough:
                    break
            if worth < enough:  # no more than without the price of any sub-carrier, but with their number, say
                self.prices = free
                unpaid, others = self._priced(_SLACK)
                if self._worth(unpaid) > worth:
                    least, intervals = unpaid, others
                else:
                    self.prices = own
        self.drafts = [self._draft(*some) for some in intervals]
        self.node = replace(self.node, prices=self.prices.mu, kept_share=self._kept_share())
        self._set_least(least, claim)
        for _ in range(_SPLITS):
            in_time(self.control)
            self._refine()
            again = self._close()
            if all(draft.done for draft in self.drafts):
                break
            self._split(again)
        return replace(self.node, parts=tuple(draft.part for draft in self.drafts))

    def _worth(self, least: FloatArray) -> float:
        """Bound that the prices prove with least costs of the devices."""
        node = replace(self.node, prices=self.prices.mu, kept_share=self._kept_share(), least=least)
        return leaf_value(self.guess, node, self.cell.counting)[0]

    def _free_prices(self) -> FloatArray:
        """The prices nu [E] that prove the most when sub-carriers cost nothing: then nothing couples the pools."""
        return np.array([self._free_price(e) for e in range(len(self.cell.pools.weight))])

    def _free_price(self, pool: int) -> float:
        cell, low, high = self.cell, 0.0, 1.0
        for _ in range(40 if cell.pooled else 0):
            q = 0.5 * (low + high)
            nu, kept = cell.pools.slope(q, pool), 0.0
            for k in np.flatnonzero(cell.pools.device == pool).tolist():
                best, share = (float(cell.out[k]), 0.0) if self.boxed.out[k] else (math.inf, 0.0)
                for mode in self.boxed.modes[cell.start[k] : cell.start[k + 1]]:
                    if mode is not None:
                        free = free_keeps(mode.row, mode.objective, nu)
                        value, keep = best_share(mode.row, mode.objective, nu, free, mode.levels, np.inf)
                        if value < best:
                            best, share = float(value), float(mode.row[WEIGHT]) * keep * keep
                kept += share
            low, high = (q, high) if kept > q * float(cell.pools.weight[pool]) else (low, q)
        return cell.pools.slope(high, pool)

    def _touched(self) -> FloatArray:
        """Where the stability terms have the slopes nu. Shape [E]."""
        pools, nu = self.cell.pools, self.prices.nu
        if not self.cell.pooled or self.cell.counting:
            return np.zeros(len(nu))
        return np.array([pools.touched_at(price, e) for e, price in enumerate(nu.tolist())])

    def _kept_share(self) -> Kept:
        """The same as certificates have it."""
        at = self._touched()
        clusters = self.cell.problem.pools is not None and not self.cell.counting
        return tuple(at.tolist()) if clusters else float(at[0])

    def _price_of(self, mode: int) -> float:
        """The price of w s^2 of the device of a mode."""
        return float(self.prices.nu[self.cell.pools.device[self.cell.device[mode]]])

    def _unpriced(self) -> tuple[FloatArray, list[_Span]]:
        """Least costs of the devices where sub-carriers cost nothing [K], and whole intervals of keep rates."""
        cell, spans = self.cell, list[_Span]()
        least = np.where(self.boxed.out, cell.out, np.inf)
        for i, mode in enumerate(self.boxed.modes):
            if mode is not None:
                k = int(cell.device[i])
                bound, intervals = free_price(mode, self.boxed.fixed[k][cell.order[k]], self._price_of(i))
                least[k] = min(least[k], bound)
                spans += self._spans(i, intervals)
        return least, spans

    def _spans(self, i: int, intervals: list[tuple[float, float, int]]) -> list[_Span]:
        """Intervals of keep rates of a mode, with depths; the last ends where its keep rates do."""
        mode = self.boxed.modes[i]
        assert mode is not None
        ends = (*(high for _, high, _ in intervals[:-1]), float(mode.row[SMAX]))
        return [(i, low, end, depth) for (low, _, depth), end in zip(intervals, ends, strict=False)]

    def _priced(self, step: float) -> tuple[FloatArray, list[_Span]]:
        """Least costs of the devices at the prices [K], and the intervals that pricing ended with.

        ``step`` times the objective is what a cost may be too low by.
        """
        cell, prices, spans = self.cell, self.prices, list[_Span]()
        least, small = np.where(self.boxed.out, cell.out, np.inf), step * cell.size
        for i, mode in enumerate(self.boxed.modes):
            if mode is None:
                continue
            in_time(self.control)
            k = int(cell.device[i])
            mu, fixed = prices.mu[cell.order[k]], self.boxed.fixed[k][cell.order[k]]
            trace: list[tuple[float, float, int]] = []
            limit = min(_MANY * max(cell.size, cell.dear), float(least[k]) + small)
            ask = Ask(mu, fixed, self._price_of(i), limit, small, _CELLS * cell.size, _WORK)
            answer = price_mode(mode, ask, float(prices.levels[i]), self.control, trace)
            in_time(self.control)
            least[k] = min(least[k], answer.bound)
            spans += self._spans(i, sorted(trace))
        return least, spans

    def _set_least(self, least: FloatArray, claim: float) -> None:
        """Costs to be proved, lower so that the leaf proves just what is claimed, or by what rounding may take."""
        size, never = self.cell.size, np.isposinf(least)
        self.node = replace(self.node, least=np.where(never, 0.0, least))
        spare = leaf_value(self.guess, self.node, self.cell.counting)[0] - claim
        if never.any():  # no set at all: any cost can be proved
            least = np.where(never, max(-spare, 0.0) / never.sum() + size, least - self._hair(least))
        else:
            least = least - np.maximum(0.999 * spare, self._hair(least)) / len(least)
        self.node = replace(self.node, least=least)

    def _hair(self, least: FloatArray | float) -> FloatArray:
        """By how much less than priced costs are claimed: they may be far above the size of the objective."""
        return np.asarray(np.maximum(_SLACK * self.cell.size, _ROUNDING * np.abs(least)))

    def _draft(self, i: int, low: float, high: float, depth: int) -> _Draft:
        """A part with the cuts that pricing takes at this depth, on coarse cells."""
        cell, mode, nu = self.cell, self.boxed.modes[i], self._price_of(i)
        assert mode is not None
        k, row, objective = int(cell.device[i]), mode.row, mode.objective
        mu, fixed = self.prices.mu[cell.order[k]], self.boxed.fixed[k][cell.order[k]]
        first = float(self.prices.levels[i])
        level = relaxed_level(row, objective, nu, low, high, mode.inv_a, mode.log2_a, mu, first)[0]
        levels: list[float] = []
        slopes: list[float] = []
        about = (level * LEVEL_STEPS[: _NUMBERS[min(depth, 2)]]).tolist()
        beyond, proving = reach(mode, fixed)
        if low >= beyond and 0.0 < proving < math.inf:  # where all sub-carriers together are seen to be too few
            about.append(proving)
        for w in about:
            some = slopes_at(mode, nu, mu, fixed, w, low, high, 1 + min(depth, 2))
            levels += [w] * len(some)
            slopes += some
        edges = np.array([low, high] if high > low else [low])
        if not len(mode.levels) and high > low:
            inner = np.geomspace(low, high, 2 + int(math.log(high / low) / math.log(_STEP)))[1:-1]
            curve = self.guess.shares.curve
            kept = np.concatenate((free_keeps(row, objective, nu), [] if curve is None else curve.knots))
            edges = np.unique(np.concatenate((edges, inner, kept[(kept > low) & (kept < high)])))
        option = max(int(cell.option[i]), 0)
        return _Draft(i, depth, Part(k, option, edges, np.array(levels), np.array(slopes), np.zeros(0)))

    def _claims(self, model: Model, drafts: list[_Draft]) -> list[tuple[_Draft, Claim]]:
        """Drafts with what they have to show; those without an allowed keep rate have nothing to show."""
        by_part = {id(draft.part): draft for draft in drafts}
        trial = replace(self.node, parts=tuple(draft.part for draft in drafts))
        claims = claims_of(model, trial, self.region, self.cell.counting)
        return [(by_part[id(claim.part)], claim) for claim in claims]

    def _refine(self) -> None:
        """Halve cells until they cost the cuts of their part no more than a little."""
        tolerance = _CELLS * self.cell.size
        active = [draft for draft in self.drafts if not draft.done and len(draft.part.keep) > 1]
        for _ in range(_REFINE):
            in_time(self.control)
            claims = [(d, c) for d, c in self._claims(self.guess, active) if c.points is None]
            if not claims:
                return
            active = []
            values = cell_values(self.guess, [claim for _, claim in claims])
            for (draft, claim), (cells, _plain, needs) in zip(claims, values, strict=True):
                edges = claim.part.keep
                share = share_values(Places.of(self.guess, [claim], [len(edges)]), edges)
                upper = np.min(share + claim.part.slope[:, None] * needs, axis=1, initial=np.inf)
                weak = np.any(cells < upper[:, None] - tolerance, axis=0) & (edges[1:] > edges[:-1] * _NARROW)
                if weak.any() and len(edges) < _EDGES:
                    middle = np.sqrt(edges[:-1] * edges[1:])[weak]
                    draft.part = replace(draft.part, keep=np.unique(np.concatenate((edges, middle))))
                    active.append(draft)

    def _close(self) -> list[_Draft]:
        """Find levels that exclude what cuts leave open; the drafts that are to be cut in two."""
        drafts = [draft for draft in self.drafts if not draft.done]
        for draft in drafts:
            draft.done = True
        claims = self._claims(self.exact, drafts)
        work: list[tuple[_Draft, OpenSets]] = []
        again = []
        opened = []
        for first in range(0, len(claims), _AT_ONCE):
            in_time(self.control)
            opened += left_open(self.exact, [claim for _, claim in claims[first : first + _AT_ONCE]])
        for (draft, claim), sets in zip(claims, opened, strict=True):
            if sets is None or len(sets) > _OPEN:
                again.append(draft)
            elif len(sets):
                mode, order = self.boxed.modes[draft.mode], self.cell.order[claim.part.device]
                assert mode is not None
                rates = pays_from(self.exact, [claim], [sets])[0]
                work.append((draft, OpenSets(mode, self._price_of(draft.mode), order, claim, sets, rates)))
        while live := [some for _, some in work if len(some.sets)]:
            in_time(self.control)
            levels = [some.next_level() for some in live]
            about = (
                [some.claim for some in live],
                levels,
                [some.rates for some in live],
                [some.sets for some in live],
            )
            stays = may_carry(self.exact, *about)
            for some, stay in zip(live, stays, strict=True):
                some.keep_only(stay)
        for draft, some in work:
            if some.paying < math.inf:  # a set that costs less than pricing said
                k, least = draft.part.device, self._least.copy()
                less = max(some.paying - least[k], 0.0)  # not enough for what the checker rounds by
                least[k] = min(least[k], some.paying - self._hair(some.paying) - 4.0 * less)
                self.node = replace(self.node, least=least)
                draft.done = False
            elif some.stuck:
                again.append(draft)
            else:
                draft.part = replace(draft.part, exclude_w=np.array(some.levels))
        for draft in again:
            draft.done = False
        return again

    def _split(self, drafts: list[_Draft]) -> None:
        """Cut intervals in two, each with more cuts; what is a single keep rate stays as it is."""
        for draft in drafts:
            low, high = float(draft.part.keep[0]), float(draft.part.keep[-1])
            middle = math.sqrt(low * high)
            if not low < middle < high:
                continue
            self.drafts.remove(draft)
            for ends in ((low, middle), (middle, high)):
                self.drafts.append(self._draft(draft.mode, *ends, draft.depth + 1))
