r"""Branch and bound for everything that separates by device: FDMA and resource blocks with every variant.

Devices are coupled by the total bandwidth and, under global pooling, by the kept share only. Two prices decouple
them (:mod:`edgealloc.solvers.separable.prices`), each then picks one of its pieces
(:mod:`edgealloc.solvers.separable.pieces`). What the bound lacks has two sources, and the larger is attended to:
the lines below the pieces (cut the pieces at the answers, for all nodes at once) and the convexification by prices
(branch on the device whose answers differ most between the sides of the optimal prices).

Derived: docs/branch_and_bound.md, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.solvers.base import Control
from edgealloc.solvers.search.engine import Found, Relaxation, Relaxed, cutoff_at
from edgealloc.solvers.separable.box import DeviceBox, DeviceCut
from edgealloc.solvers.separable.choices import OUT, Choices
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.solvers.separable.plans import Plan, fill_up, mixed_plan, plan_value
from edgealloc.solvers.separable.pools import Pools
from edgealloc.solvers.separable.priced import Priced, at_prices, true_at_prices
from edgealloc.solvers.separable.prices import search_prices
from edgealloc.solvers.separable.rounding import exchange
from edgealloc.solvers.separable.slices import exchange_rows, lost_by_mixing, search_rows, understated
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Dropped", "Separable"]

_LINES_SHARE = 0.3  # pieces are cut while their lines make up more than this share of a node's gap
_MANY = 200  # devices from which on exchanges are tried at few nodes only
_STALLED, _FINE = 4, 1e-10  # cuts in a row that bring nothing, and what lines then understate of the bound at most
_COSTS = 2.0**-46  # of the costs themselves: what is least may be nothing beside them
_LEAST_GAP = 1e-13  # relative; the sums of a bound over devices carry about as much rounding
_EXCHANGE_COLUMNS = 200_000  # columns looked at by exchanges between two looks at the clock
_CUT_PIECES = 10_000  # pieces cut between two looks at the clock
MOST_PIECES = 500_000  # kept before a search stops for want of memory: each takes half a kB


@dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """Pieces dropped by reduced cost, and the prices (:attr:`Priced.prices`) that justify it."""

    prices: tuple[Any, float]
    pieces: Pieces


@dataclass(slots=True, eq=False)
class Separable(Relaxation[DeviceBox, Plan]):
    """FDMA and resource blocks, with levels, menus, selection and any underfitting term; one rate per device.

    The pieces are shared by all nodes and only ever get finer, or fewer by reduced-cost fixing.
    """

    choices: Choices
    rel_gap: float
    pieces: Pieces = field(init=False)
    pools: Pools = field(init=False)
    by_rows: bool = field(init=False)  # whether there are more prices than those of one band and one pool
    discarded: float = math.inf
    dropped: list[Dropped] = field(default_factory=list)
    calls: int = 0
    rounding: float = field(init=False)  # what lines understate by rounding: finer ones understate as much
    tangents: list[FloatArray] = field(default_factory=list)  # Q [E] at which the stability terms are touched

    def __post_init__(self) -> None:
        self.pieces = Pieces.root(self.choices)
        self.rounding = _COSTS * self.choices.problem.instance.num_devices * self.pieces.dearest
        self.pools = Pools.of(self.choices.problem)
        self.by_rows = bool(self.choices.caps) or self.pools.several

    def search(
        self,
        start: IntArray,
        pieces: Pieces,
        columns: tuple[FloatArray, FloatArray, FloatArray],
        guess: tuple[Any, float],
        tolerance: float,
        enough: float = math.inf,
        safe: bool = False,
        index: IntArray | None = None,
    ) -> Priced:
        """Best prices for devices that pick columns; see :func:`search_prices`.

        Parameters
        ----------
        start, columns, guess, tolerance, enough
            As there, shapes [K + 1] and [N]; under caps ``guess`` has the prices of all rows.
        pieces
            Whose ends the columns are.
        safe
            Whether what is picked is to become a plan: rows then leave room for rounding.
        index
            Which ends of the pieces the columns are; None for all of them. Shape [N].
        """
        caps = self.choices.caps
        limit = caps.safe if safe else caps.most
        if not self.by_rows:
            return search_prices(start, columns, float(limit[0]), self.pools.terms[0], guess, tolerance, enough)
        mode = np.repeat(pieces.mode, 2)
        inside = (mode if index is None else mode[index]) != OUT
        size, most = self.choices.problem.size, (caps, limit)
        return search_rows(start, columns, inside, most, self.pools, self.tangents, guess, tolerance, size)

    def root(self) -> DeviceBox:
        """Every choice of every device."""
        return DeviceBox()

    def discarded_bound(self) -> float:
        """Least bound of the pieces that reduced-cost fixing removed."""
        return self.discarded

    def relax(
        self, box: DeviceBox, guess: Any, best: Found[Plan] | None, cutoff: float, control: Control
    ) -> Relaxed[DeviceBox, Plan]:
        """Price the devices of a box; see :class:`~edgealloc.solvers.search.engine.Relaxation`."""
        inst = self.choices.problem.instance
        self.calls += 1
        prices = guess or (0.2 * self.choices.problem.size / inst.bandwidth_hz, 0.1)
        bound, searched_at, finest, stalled = -math.inf, math.inf, math.inf, 0
        found: list[Found[Plan]] = []
        while True:
            active = self.active(box)
            start = np.searchsorted(active.device, np.arange(inst.num_devices + 1)) * 2
            if np.any(np.diff(start) == 0):  # nothing left for a device, but what was discarded
                return Relaxed(self.discarded, tuple(found))
            scale = abs(bound) if math.isfinite(bound) else self.choices.problem.size
            if best is None and math.isinf(bound) and not found:
                found += self._cheapest(active, start)
            columns = (active.cost.ravel(), active.band.ravel(), active.kept.ravel())
            tolerance = 0.02 * self.rel_gap * abs(scale) + 1e-300
            priced = self.search(start, active, columns, prices, tolerance, cutoff)
            bound = max(bound, priced.bound)
            prices = priced.prices
            if bound >= cutoff or control.stopped():
                return Relaxed(bound, tuple(found))
            errors, suspect = self._line_errors(active, start, priced)
            # rough lines first, then an incumbent, then lines as fine as the gap is worth
            allowed = (1e-3 if math.isinf(cutoff) and math.isinf(searched_at) else 0.1 * self.rel_gap) * abs(bound)
            if math.isfinite(cutoff):
                allowed = max(allowed, _LINES_SHARE * (cutoff - bound))
            total = float(np.sum(errors))
            if total < 0.9 * finest:
                finest, stalled = total, 0
            elif stalled >= _STALLED and total <= _FINE * abs(bound):
                self.rounding = max(self.rounding, total)
            allowed = max(allowed, self.rounding)
            suspect &= (errors > 0.2 * allowed / inst.num_devices)[active.device] & active.divisible
            if not (total > allowed and suspect.any()) and self.by_rows:
                suspect = understated(active, priced, self.choices.caps) & active.divisible
                total = math.inf if suspect.any() else total
            if total > allowed and suspect.any():
                stalled += self._cut(box, active, suspect, control)
                continue
            if total < searched_at and total <= 0.3 * searched_at:  # finer lines than at the last try
                searched_at = total
                upper = best.value if best else math.inf
                upper = min([upper, *(point.value for point in found)])
                for plan in self._plans(box, active, start, priced, upper - bound, control):
                    value = plan_value(self.choices.problem, plan)
                    if value < upper:
                        upper = value
                        found.append(Found(value, plan, plan.source))
                cutoff = min(cutoff, cutoff_at(upper, self.rel_gap))
                if box == self.root():
                    self._fix(priced, cutoff)
                continue
            break
        upper = min([math.inf if best is None else best.value, *(point.value for point in found)])
        if upper - bound <= max(2.0 * self.rounding, _LEAST_GAP * abs(bound)):  # no branching closes that
            return Relaxed(bound, tuple(found), (), prices)
        children, what = self._branch(box, active, start, priced, errors)
        return Relaxed(bound, tuple(found), children, prices, what)

    def active(self, box: DeviceBox) -> Pieces:
        """The pieces of a box."""
        holds = box.holds(self.pieces)
        return self.pieces if holds.all() else self.pieces.take(holds)

    def _cheapest(self, active: Pieces, start: IntArray) -> list[Found[Plan]]:
        """The plan of least bandwidth, so that a limit that comes early finds something."""
        at = _arg_least(active.safe_band.ravel(), start)
        plan = Plan(active.mode[at // 2], active.safe_keep.ravel()[at], active.safe_band.ravel()[at], "L")
        if not self.choices.holds(plan.band):
            return []
        return [Found(plan_value(self.choices.problem, plan), plan, plan.source)]

    def _line_errors(self, active: Pieces, start: IntArray, priced: Priced) -> tuple[FloatArray, BoolArray]:
        """By how much lines may understate each device's minimum, shape [K]; and the pieces that do, shape [N]."""
        low = np.min(at_prices(active, priced), axis=1)
        true = true_at_prices(active, active.safe_kept(self.choices), priced)
        reached = np.minimum.reduceat(np.min(true, axis=1), start[:-1] // 2)
        finite = np.where(np.isfinite(reached), reached, priced.least)
        errors = np.maximum(finite - priced.least, 0.0)
        allowed = 0.25 * errors[active.device]
        return errors, low < finite[active.device] - allowed

    def _cut(self, box: DeviceBox, active: Pieces, suspect: BoolArray, control: Control) -> bool:
        """Halve the suspect pieces of a box, for all nodes, up to so many; whether these were all."""
        if len(self.pieces) + _CUT_PIECES > MOST_PIECES:
            control.stop(f"memory for {MOST_PIECES} pieces is used up; ask for a larger rel_gap")
            return False
        which = np.zeros(len(self.pieces), dtype=bool)
        chosen = np.flatnonzero(box.holds(self.pieces))[suspect]
        which[chosen[:_CUT_PIECES]] = True
        self.pieces = self.pieces.halved(self.choices, which)
        return len(chosen) <= _CUT_PIECES

    def _fix(self, priced: Priced, cutoff: float) -> None:
        """Drop pieces whose reduced cost alone lifts the root bound to the cutoff."""
        if not math.isfinite(cutoff):
            return
        p = self.pieces
        low = np.min(at_prices(p, priced), axis=1)
        forced = priced.bound + (low - priced.least[p.device]) * (1.0 - 1e-12) - 1e-14 * abs(priced.bound)
        lost = forced >= cutoff
        if lost.any():
            self.discarded = min(self.discarded, float(np.min(forced[lost])))
            self.dropped.append(Dropped(priced.prices, p.take(lost)))
            self.pieces = p.take(~lost)

    def _plans(
        self, box: DeviceBox, active: Pieces, start: IntArray, priced: Priced, gap: float, control: Control
    ) -> list[Plan]:
        """Feasible plans from a priced box, best first."""
        k = len(start) - 1
        if k > _MANY and self.calls > 1 and self.calls % 4:
            return []
        plans = self._rounded(active, start, priced, gap, control)
        mixed = mixed_plan(self.choices, active, priced)
        if mixed is not None:
            plans.append(mixed)
        return [plan for plan in plans if self.choices.holds(plan.band)]

    def _rounded(
        self, active: Pieces, start: IntArray, priced: Priced, gap: float, control: Control
    ) -> list[Plan]:
        """Picks of the sides of the prices made safe, fitted and improved by exchanges."""
        k = len(start) - 1
        kept = active.safe_kept(self.choices)
        columns = (active.safe_cost.ravel(), active.safe_band.ravel(), kept.ravel())
        reduced = true_at_prices(active, kept, priced).ravel()
        # No better plan uses a column whose reduced cost exceeds the gap; the narrowest stay, so that one fits.
        slack = gap if math.isfinite(gap) or k <= _MANY else 20.0 * float(np.mean(priced.least))
        near = reduced - np.repeat(priced.least, np.diff(start)) <= slack
        if self._convex_modes:  # between a mode's rates the spectrum is filled up continuously
            near &= False
            group = np.flatnonzero(np.diff(active.mode * 1.0 + 0.5 * active.device, prepend=np.nan))
            near[_arg_least(reduced, np.append(2 * group, len(reduced)))] = True
        near[_arg_least(columns[1], start)] = True
        near[priced.picks.ravel()] = True
        index = np.flatnonzero(near & np.isfinite(columns[1]))
        starts = np.searchsorted(index, start)
        plans: list[Plan] = []
        if np.any(np.diff(starts) == 0):
            return plans
        few = (columns[0][index], columns[1][index], columns[2][index])
        # The same prices for safe columns: the picks on their dearer side fit as they are.
        tolerance = 0.02 * self.rel_gap * abs(priced.bound)
        safe = self.search(starts, active, few, priced.prices, tolerance, safe=True, index=index)
        if math.isinf(safe.bound):  # not even the narrowest safe columns fit: there are no picks
            return plans
        picks = [safe.picks[-1]] if k > _MANY else [safe.picks[-1], safe.picks[min(1, len(safe.picks) - 1)]]
        if k <= _MANY:
            for side in np.argsort(-priced.share, kind="stable")[:2]:
                where = np.minimum(np.searchsorted(index, priced.picks[side]), len(index) - 1)
                is_safe = index[where] == priced.picks[side]
                picks.append(np.where(is_safe, where, safe.picks[-1]))
        for pick in picks:
            at = index[self._exchanged(starts, few, priced, pick, control)]
            plan = Plan(active.mode[at // 2], active.safe_keep.ravel()[at], columns[1][at], "X")
            plans.append(self._filled(plan, priced))
        return plans

    @property
    def _convex_modes(self) -> bool:
        problem = self.choices.problem
        return problem.underfit.log_convex and not self.choices.block_hz and problem.instance.keep_levels is None

    def _filled(self, plan: Plan, priced: Priced) -> Plan:
        return fill_up(self.choices, plan, priced)

    def _exchanged(
        self,
        start: IntArray,
        columns: tuple[FloatArray, FloatArray, FloatArray],
        priced: Priced,
        pick: IntArray,
        control: Control,
    ) -> IntArray:
        """Exchanges between devices until none helps, looking at the clock now and then."""
        if self.by_rows:
            return exchange_rows(start, columns, self.choices.caps, self.pools, priced.nu, pick, control)
        limit = self.choices.limit_hz
        moves = max(1, _EXCHANGE_COLUMNS // len(columns[0]))
        value = math.inf
        while not control.stopped():
            pick, new = exchange(start, columns, limit, self.pools.terms[0], priced.nu, pick, moves)
            if not new < value:
                break
            value = new
        return pick

    def _branch(
        self, box: DeviceBox, active: Pieces, start: IntArray, priced: Priced, errors: FloatArray
    ) -> tuple[tuple[DeviceBox, ...], str]:
        """Children of a box: on the device whose picks differ most, by mode first, then by keep rate."""
        share = priced.share[:, None]
        spread = np.zeros(len(start) - 1)
        rate = priced.mu if priced.rate is None else priced.rate
        weighed = [(active.cost, 1.0), (active.band, rate), (active.kept, priced.nu)]
        if priced.fee is not None:
            weighed.append((np.stack((active.mode != OUT,) * 2, axis=1) * 1.0, priced.fee))
        for column, price in weighed:
            values = column.ravel()[priced.picks]
            spread += price * np.sum(share * np.abs(values - np.sum(share * values, axis=0)), axis=0)
        if self.by_rows:
            spread = np.minimum(spread, lost_by_mixing(active, priced, at_prices(active, priced)))
        for k in np.argsort(-spread, kind="stable"):
            if spread[k] <= 1e-16 * abs(priced.bound):
                break
            children = self._split(box, active, priced, int(k))
            if children:
                return children
        for k in np.argsort(-errors, kind="stable"):
            if errors[k] <= 0.0:
                break
            children = self._split(box, active, priced, int(k))
            if children:
                return children
        return (), ""

    def _split(
        self, box: DeviceBox, active: Pieces, priced: Priced, k: int
    ) -> tuple[tuple[DeviceBox, ...], str] | None:
        """Children that part the picks of device k; None when nothing parts them."""
        name = self.choices.problem.instance.device_names[k]
        columns, share = priced.picks[:, k], priced.share
        used = share > 0.0
        modes = active.mode[columns // 2]
        ends = np.stack((active.left, active.right), axis=1).ravel()[columns]
        mine = active.device == k
        if len(set(modes[used].tolist())) > 1:
            first = max(set(modes[used].tolist()), key=lambda m: (float(share[modes == m].sum()), -m))
            rest = tuple(int(m) for m in np.unique(active.mode[mine]) if m != first)
            cuts = (DeviceCut(k, (int(first),)), DeviceCut(k, rest))
            return tuple(box.and_also(cut) for cut in cuts), f"mode of {name}"
        low, high = float(ends[used].min()), float(ends[used].max())
        mode = int(modes[used][0])
        middle = math.sqrt(float(share @ np.square(ends)))
        same = mine & (active.mode == mode)
        if low == high:  # one pick: halve its piece
            piece = int(columns[used][0]) // 2
            low, high = float(active.left[piece]), float(active.right[piece])
            middle = math.sqrt(low * high)
            if mode == OUT or not active.divisible[piece]:
                return None
        points = np.unique(np.concatenate((active.left[same], active.right[same])))
        if np.all(active.left[same] == active.right[same]):  # levels
            below = points[(points <= middle) & (points < high)]
            under = float(below[-1]) if len(below) else low
            over = float(points[points > under][0])
            cut = 0.5 * (under + over)
        else:
            edges = points[(points > low) & (points < high)]
            if self.choices.block_hz and len(edges):
                cut = float(edges[np.argmin(np.abs(edges - middle))])
            else:
                cut = min(max(middle, low + 0.05 * (high - low)), high - 0.05 * (high - low))
                if not low < cut < high:
                    return None
                if not self._part_at(k, mode, cut):  # too narrow: a cut that is no edge would part nothing
                    if not len(edges):
                        return None
                    cut = float(edges[np.argmin(np.abs(edges - middle))])
        left, right = DeviceCut(k, None, 0.0, cut), DeviceCut(k, None, cut, 1.0)
        order = (left, right) if float(share[ends <= cut].sum()) >= 0.5 else (right, left)
        return tuple(box.and_also(c) for c in order), f"keep rate of {name} at {cut:.6g}"

    def _part_at(self, device: int, mode: int, cut: float) -> bool:
        """Make a cut an edge of the pieces of a mode; False where a piece is too narrow for that."""
        p = self.pieces
        which = (p.device == device) & (p.mode == mode) & (p.left < cut) & (p.right > cut)
        if not np.all(p.divisible[which]):
            return False
        if which.any():
            self.pieces = p.halved(self.choices, which, np.full(int(which.sum()), cut))
        return True


def _arg_least(values: FloatArray, start: IntArray) -> IntArray:
    """First index of the least value of each group; groups as in ``start``. Shape [K]."""
    least = np.repeat(np.minimum.reduceat(values, start[:-1]), np.diff(start))
    hits = np.flatnonzero(values == least)
    return hits[np.searchsorted(hits, start[:-1])]
