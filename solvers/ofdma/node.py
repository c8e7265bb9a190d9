"""One node of the OFDMA search: master and pricing in turn, until the bound stands.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgealloc.data.outcome import Snapshot, relative_gap
from edgealloc.solvers.base import Control
from edgealloc.solvers.ofdma.box import OfdmaBox, Region, wide_mixture
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.free import free_bound
from edgealloc.solvers.ofdma.kernels.device import EPS, WEIGHT
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share
from edgealloc.solvers.ofdma.master import Master, MasterPoint
from edgealloc.solvers.ofdma.pricing.mode import Ask, price_mode
from edgealloc.solvers.ofdma.start import improved
from edgealloc.solvers.search.engine import Found, cutoff_at
from edgealloc.units import BoolArray, FloatArray, IntArray

_SMOOTH = 0.3  # weight of the best prices so far in the next prices


_BOX, _SHRINK = 0.3, 0.9  # half width of the price box over the mean price; its shrinking after a step that failed


_NEAR = 0.1  # that half width where prices are those of a like problem


_FAR = 1e3  # of the size of the objective: what is dearer than that decides the prices


_LOCAL_EVERY = 8  # rounds between two descents from the master's weights


_LOCAL_PASSES = 3  # of such a descent; more is left to the next


_CUT_TOLERANCE = 1e-7


_MAX_WORK = 10_000_000  # nodes of one search in a narrow keep interval, before its root bound has to do


NO_SET = 1e3  # cost of the fallback column over what ``OfdmaCell.dear`` says


_SETTLED = 3  # rounds after which a master's mixtures mean something


_WIDE_SHARE = 0.1  # a mixture that gains this share of the gap is parted at once


_MOVED = 20  # columns of a mode that follow the common rate from box to box


_STEP_SHARE = 0.1  # what pricing may leave undecided, as a share of the gap


_IDLE = 4  # rounds in a row without a new column or a better bound, after which that share is a tenth of itself


_TANGENT = 0.02  # error of the stability term in the master, as a share of the gap that is asked for


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Prices that a box is solved at; children inherit them.

    Parameters
    ----------
    mu
        Prices of the sub-carriers. Shape [M].
    nu
        Prices of w s^2 of the devices of each pool. Shape [E].
    levels
        Water levels of the modes in W. Shape [I].
    """

    mu: FloatArray
    nu: FloatArray
    levels: FloatArray


def add_plan(cell: OfdmaCell, master: Master, plan: Assignment) -> None:
    """Give the master the columns of an assignment."""
    for k in np.flatnonzero(plan.mode >= 0):
        add_column(cell, master, int(plan.mode[k]), plan.owner == k, float(plan.keep[k]))


def add_column(cell: OfdmaCell, master: Master, mode: int, mask: BoolArray, keep: float) -> bool:
    """Give the master the column of a mode with a set of sub-carriers [M] and a keep rate; whether it is new."""
    row = cell.rows[mode]
    cost = float(share(row, cell.objective, 0.0, keep))
    return master.add(int(cell.device[mode]), mode, mask, cost, float(row[WEIGHT]) * keep * keep, keep)


class OfdmaNode:
    """Column generation in one box; all of its state but the master's columns, which all boxes share.

    Parameters
    ----------
    cell, master
        The problem as arrays; the columns so far.
    rel_gap
        The gap that is asked for.
    box
        The box.
    best, cutoff
        The incumbent, or None; a bound that is enough.
    control
        Clock and interrupt.
    told
        Each is given a snapshot per round.

    Attributes
    ----------
    bound, cutoff, prices
        What has been proved, what would be enough, and the prices that prove it.
    found
        Assignments met on the way, each better than all before.
    rounds, searched
        Rounds of pricing and master; nodes of the searches inside pricing.
    """

    def __init__(
        self,
        cell: OfdmaCell,
        master: Master,
        rel_gap: float,
        box: OfdmaBox,
        best: Found[Assignment] | None,
        cutoff: float,
        control: Control,
        told: tuple[Callable[[Snapshot], None], ...] = (),
    ) -> None:
        self.cell, self.master, self.rel_gap, self.control = cell, master, rel_gap, control
        self.box, self.region = box, Region.of(cell, box)
        self.told = told
        self.rounds = self.searched = 0
        self.upper = math.inf if best is None else best.value
        self.cutoff = cutoff
        self.found: list[Found[Assignment]] = []
        self.bound = 0.0 if self.cell.counting else free_bound(self.cell, self.region)
        self.prices = Prices(np.zeros(0), np.zeros(len(cell.pools.weight)), np.zeros(0))
        self.exact = True
        self.tangent = False  # whether the master is to follow the stability term as closely as the end needs
        self.wide: tuple[int, float] | None = None  # what to part, where generation ended for that
        self._plans: dict[bytes, Assignment | None] = {}

    def generate(self, prices: Prices, whole: bool = False, near: bool = False) -> MasterPoint | None:
        """Rounds of pricing and master until the box is closed; the last point of the master if it is to split.

        With one common rate, a box that cannot be closed is left soon, unless it is to be solved as a ``whole``.
        Prices of a like problem are ``near`` already.
        """
        cell, control, rel_gap = self.cell, self.control, self.rel_gap
        self.prices = prices
        if cell.common:
            self._move_columns()
        delta = (_NEAR if near else _BOX) * max(float(prices.mu.mean()), 1e-9 * cell.size)
        if not cell.counting and cell.dear > _FAR * cell.size:  # prices of the assignment at hand say little
            delta = max(delta, _BOX * cell.dear / cell.subcarriers)
        slack, at_dual, max_work = False, False, _MAX_WORK
        best_value = -math.inf
        lp = math.inf
        point: MasterPoint | None = None
        rounds = idle = 0
        undecided = _STEP_SHARE
        levels = prices.levels.copy()
        while self.bound < self.cutoff and not control.stopped():
            gap = min(self.upper, lp) - max(self.bound, best_value)
            step = undecided * max(gap, 0.0) if gap < math.inf else 1e-3 * cell.size * undecided / _STEP_SHARE
            least = 0.02 * rel_gap * abs(self.upper if self.upper < math.inf else cell.size)
            finest = step <= least
            step = max(step, least) / cell.devices
            value, added = self._price(prices, levels, step, max_work)
            rounds += 1
            self.rounds += 1
            idle = 0 if added or value > best_value else idle + 1
            if idle == _IDLE:
                idle, undecided = 0, 0.1 * undecided
            if value > best_value:
                best_value = value
                self.bound = max(self.bound, value)
                self.prices = Prices(prices.mu, prices.nu, levels.copy())
                delta *= 1.0 if slack else 1.2
            else:
                delta = max(delta * _SHRINK, 1e-9 * cell.size)
            self._report()
            if self.bound >= self.cutoff or control.stopped():
                break
            self.master.allow(self.region.usable(self.master))
            self.master.set_box(np.maximum(self.prices.mu - delta, 0.0), self.prices.mu + delta)
            point = self._solve_master()
            if point is None:
                break
            slack = point.slack
            lp = point.value if slack else lp
            self._offer_plans(point, rounds)
            if self.bound >= self.cutoff:
                break
            if cell.common and slack and lp < self.cutoff and not whole:
                return point
            if rounds >= _SETTLED and point.value < self.cutoff and not cell.common:
                self.wide = wide_mixture(cell, self.master, point, _WIDE_SHARE * (self.upper - self.bound))
                if self.wide is not None:
                    return point
            met = slack and lp - self.bound <= 0.05 * rel_gap * abs(min(lp, self.upper))
            # no column prices out at the master's own prices: what is left is rounding and the step
            met |= at_dual and added == 0 and self.exact and finest
            if met and (self.tangent or not cell.pooled):
                return point
            self.tangent |= met
            if not self.exact and added == 0:
                max_work = min(4 * max_work, 10**12)
            pure = added == 0
            at_dual = pure and slack
            if pure and not slack:
                delta *= 2.0
            keep = 0.0 if pure else _SMOOTH
            mu = keep * self.prices.mu + (1.0 - keep) * point.mu
            prices = Prices(mu, keep * self.prices.nu + (1.0 - keep) * point.nu, levels)
        return None

    def _price(self, prices: Prices, levels: FloatArray, step: float, max_work: int) -> tuple[float, int]:
        """(Bound at the prices, columns added); water levels are updated."""
        cell, master, region = self.cell, self.master, self.region
        if not (np.all(np.isfinite(prices.nu)) and np.all(np.isfinite(prices.mu))):
            return -math.inf, 0  # what is priced at no number looks as if it had no choice
        n = master.count
        usable = region.usable(master)
        own = prices.nu[cell.pools.device]  # of each device
        priced = master.cost[:n] + own[master.device[:n]] * master.kept[:n] + master.mask[:n] @ prices.mu
        threshold = np.full(cell.devices, NO_SET * cell.dear)  # what the master pays a device without a set
        np.minimum.at(threshold, master.device[:n][usable], priced[usable])
        least = np.full(cell.devices, np.inf)
        tolerance = max(_CUT_TOLERANCE * cell.size, 0.1 * step)
        self.exact = True
        added = 0
        for k in range(cell.devices):
            limit = float(threshold[k])
            if region.out[k]:
                least[k] = cell.out[k]
                limit = min(limit, float(cell.out[k]))
            mu = prices.mu[cell.order[k]]
            for i in range(cell.start[k], cell.start[k + 1]):
                mode = region.modes[i]
                if mode is None:
                    continue
                fixed = region.fixed[k][cell.order[k]]
                ask = Ask(mu, fixed, float(own[k]), limit - step, step, tolerance, max_work)
                answer = price_mode(mode, ask, float(levels[i]), self.control)
                levels[i] = answer.level
                least[k] = min(least[k], answer.bound)
                self.exact &= answer.exact
                self.searched += answer.nodes
                for ranks in answer.sets:
                    mask = np.zeros(cell.subcarriers, bool)
                    mask[cell.order[k]] = ranks
                    added += self._add(i, mask, float(own[k]))
                if self.control.stopped():
                    return -math.inf, added
        terms = [*(cell.pools.conjugate(nu, e) for e, nu in enumerate(prices.nu.tolist())), *least, *(-prices.mu)]
        if math.inf in terms:
            return math.inf, added
        # The last sum is exact; each of its terms carries its own margin but for the rounding of the prices' sum.
        return math.fsum(terms) - 64.0 * EPS * math.fsum(abs(term) for term in terms), added

    def _move_columns(self) -> None:
        """Columns that keep more than the box allows, at the most that it allows: the cheapest few of each mode.

        All of them, box by box, would make the master grow without end.
        """
        master, high, n = self.master, self.box.rates[1], self.master.count
        mask, fits = master.mask[:n], self.region.fitting(master)
        paid = mask @ self.prices.mu
        for i, mode in enumerate(self.region.modes):
            if mode is None or len(mode.levels):
                continue
            mine = np.flatnonzero(fits & (master.mode[:n] == i) & (master.keep[:n] > high))
            for c in mine[np.argsort(paid[mine], kind="stable")[:_MOVED]].tolist():
                add_column(self.cell, master, i, mask[c].copy(), high)

    def _add(self, i: int, mask: BoolArray, nu: float) -> int:
        """Give the master a column with the best keep rate of a mode on a set [M]; 1 if it is new, else 0."""
        cell, mode = self.cell, self.region.modes[i]
        assert mode is not None
        free = free_keeps(mode.row, cell.objective, nu)
        value, keep = best_share(mode.row, cell.objective, nu, free, mode.levels, cell.cap(i, mask)[0])
        return int(value < math.inf and add_column(cell, self.master, i, mask, float(keep)))

    def _solve_master(self) -> MasterPoint | None:
        """The master's point with the stability term nearly tangent there; None when time is up or HiGHS fails."""
        limit = self.control.options.time_limit
        left = math.inf if limit is None else limit - self.control.seconds
        point = self.master.solve(left)
        least = _TANGENT * self.rel_gap * self.cell.size
        tolerance = least
        if not self.tangent and self.upper < math.inf:
            tolerance = max(least, _STEP_SHARE**2 * (self.upper - self.bound))
        for _ in range(30):  # until the stability term is nearly tangent where the master stands
            if point is None:
                break
            if not self.master.add_tangents(self.master.kept_by(point.x), tolerance):
                break
            if self.control.stopped():
                return None
            point = self.master.solve(left)
        return point

    def _offer_plans(self, point: MasterPoint, rounds: int) -> None:
        """Assignments near the master's point: its own if integral, now and then a descent from its weights."""
        cell, master = self.cell, self.master
        used = np.flatnonzero(point.x > 1e-6)
        weight = np.zeros((cell.devices, cell.subcarriers))
        np.add.at(weight, master.device[used], point.x[used, None] * master.mask[used])
        integral = bool(np.abs(weight - np.round(weight)).max() < 1e-6)
        if not (integral and point.slack) and rounds % _LOCAL_EVERY:
            return
        owner = np.where(weight.max(axis=0) > 1e-6, np.argmax(weight, axis=0), -1)
        if integral:
            mode, keep = np.full(cell.devices, -1), np.zeros(cell.devices)
            for c in used[np.argsort(point.x[used], kind="stable")]:  # the heaviest column of a device last
                mode[master.device[c]], keep[master.device[c]] = master.mode[c], master.keep[c]
            plan = self._best_keeps(owner, mode)
            self._offer(plan, "L")
            if cell.levels.shape[1] or cell.curved:  # the master may know better keep rates
                self._offer(cell.keeps(owner, mode, keep), "L")
        if not integral or plan is None:
            aim = self.box.rates[0] if cell.common else None
            plan = improved(cell, np.where(owner < 0, 0, owner), self.prices.nu, self.control, _LOCAL_PASSES, aim)
            self._offer(plan, "X")
            if plan is not None:
                add_plan(cell, master, plan)

    def _best_keeps(self, owner: IntArray, mode: IntArray) -> Assignment | None:
        """An assignment at its best keep rates; the master stands at the same one for many rounds."""
        key = owner.tobytes() + mode.tobytes()
        if key not in self._plans:
            self._plans[key] = self.cell.keeps(owner, mode)
        return self._plans[key]

    def _offer(self, plan: Assignment | None, source: str) -> None:
        """Take an assignment as the incumbent if it is better."""
        if plan is None or not self.cell.takes(plan):
            return
        value = self.cell.value(plan)
        if value < self.upper:
            self.upper = value
            self.found.append(Found(value, plan, source))
            self.cutoff = min(self.cutoff, cutoff_at(value, self.rel_gap))

    def _report(self) -> None:
        bound = min(self.bound, self.upper)
        gap = relative_gap(self.upper, bound)
        snapshot = Snapshot("bnb", self.control.seconds, self.rounds, bound, self.upper, gap, 0, 1)
        for tell in self.told:
            tell(snapshot)
