r"""What each device may do: train one row of its adapter menu at some keep rate, or stay out.

A *mode* is a device with one menu row; its keep rate needs the bandwidth ``b(s)`` of
:mod:`edgealloc.solvers.fdma.bandwidth`, rounded up to whole blocks where the spectrum comes in blocks. Everything
that a price search needs of a mode is here, from both sides: proven lower bounds for the dual bound, and safe
values, computed within shrunk budgets, for allocations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgealloc.formulation.bound import UnderfitTerm
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.logistic import Logistic
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count, blocks_of, spare_hz
from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.fdma.bandwidth import BLOCKED, least_bandwidth
from edgealloc.solvers.fdma.caps import Caps
from edgealloc.solvers.fdma.cell import SHRINK
from edgealloc.solvers.fdma.response import tangent
from edgealloc.solvers.row import device_rows
from edgealloc.units import FloatArray, IntArray

__all__ = ["OUT", "Choices"]


OUT = -1  # the mode of a device that is left out
_EPS = 2.0**-52
_NOTHING_HZ = 1e-300  # less than any device needs, and with a logarithm


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """All modes of a problem as arrays; R modes, K devices.

    Parameters
    ----------
    problem
        The problem; access ``fdma`` or ``rb``.
    device, option
        Device and menu row (-1 without a menu) of each mode. Shape [R].
    rows, safe_rows, wide_rows
        Kernel rows with the true, the shrunk and the enlarged budgets. Shape [R, WIDTH].
    under
        A w_k times the underfit factor of the menu row. Shape [R].
    low, high
        Range of the keep rate; empty (low > high) where the mode is impossible. Shape [R].
    budget_hz
        Bandwidth that can be handed out: B, or the whole blocks in it.
    block_hz
        Width of a block, 0 where bandwidth is continuous.
    caps
        The band and the caps of the problem.
    """

    problem: Problem
    device: IntArray
    option: IntArray
    rows: FloatArray
    safe_rows: FloatArray
    wide_rows: FloatArray
    under: FloatArray
    low: FloatArray
    high: FloatArray
    budget_hz: float
    block_hz: float
    caps: Caps

    @classmethod
    def of(cls, problem: Problem) -> Choices:
        """The modes of a problem; their keep ranges are cut where the whole spectrum ends."""
        inst = problem.instance
        k = inst.num_devices
        menus = inst.adapter_options or (None,) * k
        depth = max((len(menu) for menu in menus if menu), default=1)
        parts = []
        for row in range(depth):
            has = np.array([row < len(menu) if menu else row == 0 for menu in menus])
            option = np.array([row if menu and row < len(menu) else 0 for menu in menus], dtype=np.intp)
            adapter = chosen_adapter(inst, option)
            kernel = [device_rows(inst, adapter, shrink)[has] for shrink in (0.0, SHRINK, -SHRINK)]
            label = np.array([row if menu else -1 for menu in menus], dtype=np.intp)[has]
            under = (inst.bound.underfit_weight * inst.weights * adapter.underfit_factor)[has]
            parts.append((np.flatnonzero(has), label, *kernel, under))
        device, option, rows, safe, wide, under = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((option, device))
        block = inst.block_hz if inst.access == "rb" and inst.block_hz is not None else 0.0
        budget = inst.bandwidth_hz
        if block:
            budget = block * block_count(budget, block) * (1.0 + 2.0 * _EPS)
        low, high = inst.keep_min[device], inst.keep_max[device]
        caps = Caps.of(problem, budget, _limit_hz(budget, block, inst.num_devices), block)
        choices = cls(
            problem, device[order], option[order], rows[order], safe[order], wide[order], under[order],
            low[order], high[order], budget, block, caps,
        )  # fmt: skip
        everyone, most = np.arange(len(order)), caps.alone_hz()[choices.device]
        fits, beyond = choices.reach(everyone, choices.low, choices.high, np.maximum(most, _NOTHING_HZ))
        impossible = np.isnan(fits) & (beyond <= choices.low) | (most == 0.0)
        return replace(choices, high=np.where(impossible, -1.0, beyond))

    @property
    def weight(self) -> FloatArray:
        """w_k of each mode's device. Shape [R]."""
        return self.problem.instance.weights[self.device]

    @property
    def limit_hz(self) -> float:
        """What summed bandwidths of a plan may come to, rounding included: blocks are counted, Hz are shaved."""
        return _limit_hz(self.budget_hz, self.block_hz, self.problem.instance.num_devices)

    def holds(self, bandwidth_hz: FloatArray) -> bool:
        """Whether band and caps hold bandwidths in Hz, shape [K]: blocks are counted, else Hz added up exactly."""
        if self.caps and not self.caps.hold(bandwidth_hz):
            return False
        if self.block_hz:
            return bool(np.sum(blocks_of(bandwidth_hz, self.block_hz)) * self.block_hz <= self.limit_hz)
        return spare_hz(bandwidth_hz, self.budget_hz) >= 0.0

    def weight_of(self, mode: IntArray) -> FloatArray:
        """w_k of the devices of modes, 0 for :data:`OUT`. Shape [N]."""
        return np.where(mode != OUT, self.weight[mode], 0.0)

    def reach(
        self, mode: IntArray, low: FloatArray, high: FloatArray, target_hz: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """The keep rates up to which bandwidths suffice, from both sides. All shapes [N].

        Returns
        -------
        fits, beyond
            ``fits``: the target suffices for it (nan: not even for ``low``). ``beyond``: for no larger rate
            in [low, high] does the target suffice, by proof.
        """
        out = np.empty((2, len(mode)))
        _reach(self.safe_rows, self.rows, self.wide_rows, mode, low, high, target_hz, out)
        return out[0], out[1]

    def safe_bandwidth(self, mode: IntArray, keep: FloatArray) -> FloatArray:
        """Bandwidth in Hz that surely suffices, ``inf`` where none does; 0 for :data:`OUT`. Shape [N]."""
        out = np.zeros((4, len(mode)))
        safe_bands(self.safe_rows, mode, keep, out)
        return self.whole_blocks(out[0])

    def whole_blocks(self, bandwidth_hz: FloatArray) -> FloatArray:
        """Bandwidths in Hz, rounded up to whole blocks where the spectrum comes in blocks. Of the same shape."""
        if not self.block_hz:
            return bandwidth_hz
        count = np.ceil(bandwidth_hz / self.block_hz * (1.0 - 4.0 * _EPS))
        return np.asarray(np.where(np.isfinite(count), count * self.block_hz, np.inf))

    def bandwidth_line(self, mode: IntArray, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lower bounds of b(s) at both ends; in between b lies above their chord in s^2. Shapes [N].

        A tangent of the convex b(log s) is linear in log s, which is concave in s^2 and so above the chord.
        """
        out = np.zeros((2, len(mode)))
        _line(self.rows, mode, left, right, out)
        low, high = out
        if self.block_hz:  # blocks needed at the left end: a constant, better where the line is flatter
            exact = np.zeros((2, len(mode)))
            _line(self.rows, mode, left, left, exact)
            count = np.ceil(np.maximum(exact[0], 0.0) / self.block_hz * (1.0 - 4.0 * _EPS))
            flat = np.maximum(count, 1.0) * self.block_hz * (1.0 - 2.0 * _EPS)
            use = (mode >= 0) & (2.0 * flat >= low + high)
            low, high = np.where(use, flat, low), np.where(use, flat, high)
        return low, high

    def true_cost(self, mode: IntArray, keep: FloatArray) -> FloatArray:
        """A device's own part of G: underfitting, and stability under device pooling. Shape [N]."""
        return np.where(mode >= 0, self._under(mode, keep), 0.0) + self._own_gap(mode, keep * keep)

    def out_cost(self) -> FloatArray:
        """Cost of leaving each device out, ``inf`` without selection. Shape [K]."""
        inst = self.problem.instance
        if inst.exclusion_penalty is None:
            return np.full(inst.num_devices, math.inf)
        cost = inst.bound.underfit_weight * inst.weights * inst.exclusion_penalty
        if self.problem.objective.own:
            cost = cost + inst.weights * self.problem.stability.value(np.zeros(inst.num_devices))
        return np.asarray(cost)

    def cost_line(self, mode: IntArray, left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lower bounds of :meth:`true_cost` at both ends; in between it lies above their chord in s^2.

        Convex parts give a tangent, concave ones their chord, a cubic its chord less what its Bernstein
        coefficients allow below it, and a function that is only known to fall its value at the right end.

        Shapes [N].
        """
        first, last = left * left, right * right
        middle = 0.5 * (first + last)
        a, b, size = np.empty((3, len(mode)))
        for part, mine in self.problem.underfit.parts(self.device[mode]):
            a[mine], b[mine], size[mine] = self._term_line(part, mode[mine], left[mine], right[mine])
        if self.problem.objective.own:
            term, w = self.problem.stability, self.weight[mode]
            scale = np.broadcast_to(term.scale, (self.problem.instance.num_devices,))[self.device[mode]]
            local = type(term)(term.base, term.spread, term.curvature, term.sparsity, scale)
            value, slope = w * local.value(middle), w * local.slope(middle)
            a, b = a + value + slope * (first - middle), b + value + slope * (last - middle)
        margin = 32.0 * _EPS * (self.under[mode] * size + np.abs(a) + np.abs(b))
        return a - margin, b - margin

    def _term_line(
        self, term: UnderfitTerm, mode: IntArray, left: FloatArray, right: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Lower bounds of underfitting at both ends, and its size for rounding. Shapes [N]."""
        first, last = left * left, right * right
        middle = 0.5 * (first + last)
        size = 2.0 + 1.0 / left**3 * (last - first) + 1.0 / left
        if term.name == "perturbation":
            a, b = self._under(mode, left), self._under(mode, right)
        elif term.name == "inverse-keep":
            at = np.sqrt(middle)
            value, slope = self._under(mode, at), -0.5 * self.under[mode] / (middle * at)
            a, b = value + slope * (first - middle), value + slope * (last - middle)
        elif term.name == "curve":
            a, b = self._cubic_line(term.value, mode, left, right)
        elif isinstance(term.value, Logistic):
            a, b = (self.under[mode] * end for end in term.value.square_line(left, right))
            size = np.full(len(mode), 2.0)
        else:
            a = b = self._under(mode, right)
        return a, b, size

    def splits(self, mode: IntArray, left: FloatArray, right: FloatArray) -> FloatArray:
        """Where to cut pieces in two: at a knot of the curve or the inflection inside, else in the middle. [N]."""
        middle = np.sqrt(left * right)
        for term, mine in self.problem.underfit.parts(self.device[mode]):
            if term.name == "curve":
                knots = np.asarray(term.value.x)  # type: ignore[attr-defined]
                at = np.searchsorted(knots, left, side="right")
                knot = np.append(knots, np.inf)[at]
                middle = np.where(mine & (knot < right), knot, middle)
            elif isinstance(term.value, Logistic):
                bend = term.value.inflection(2.0)
                middle = np.where(mine & (left < bend) & (bend < right), bend, middle)
        return middle

    def _under(self, mode: IntArray, keep: FloatArray) -> FloatArray:
        rate = np.where(mode >= 0, keep, 1.0)
        return np.asarray(self.under[mode] * self.problem.underfit.at(self.device[mode], rate))

    def _own_gap(self, mode: IntArray, square: FloatArray) -> FloatArray:
        if not self.problem.objective.own:
            return np.zeros_like(square)
        term = self.problem.stability
        scale = np.broadcast_to(term.scale, (self.problem.instance.num_devices,))[self.device[mode]]
        local = type(term)(term.base, term.spread, term.curvature, term.sparsity, scale)
        return np.asarray(self.weight[mode] * local.value(square))

    def _cubic_line(
        self, curve: Any, mode: IntArray, left: FloatArray, right: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Chord in s^2 of a piecewise cubic, lowered so that it stays below. Shapes [N]."""
        knots, coefficients = np.asarray(curve.x), np.asarray(curve.c)
        piece = np.clip(np.searchsorted(knots, left, side="right") - 1, 0, len(knots) - 2)
        ua, ub = np.asarray(curve(left)), np.asarray(curve(right))
        inside = right <= knots[piece + 1]
        h, start = right - left, left - knots[piece]
        c3, c2, c1, _c0 = (row[piece] for row in coefficients)
        d1 = c1 + start * (2.0 * c2 + 3.0 * c3 * start)  # the cubic about `left`: ua + d1 y + d2 y^2 + c3 y^3
        d2 = c2 + 3.0 * c3 * start
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = np.where(h > 0, (ub - ua) / (right * right - left * left), 0.0)
        # cubic minus chord = y e1 + y^2 e2 + y^3 c3 with zeros at both ends; Bernstein coefficients on [0, h]
        e1, e2 = d1 - 2.0 * beta * left, d2 - beta
        b1 = e1 * h / 3.0
        b2 = 2.0 * b1 + e2 * h * h / 3.0
        drop = np.minimum(np.minimum(b1, b2), 0.0) - 64.0 * _EPS * (
            np.abs(ua) + np.abs(d1 * h) + np.abs(d2 * h * h)
        )
        # a piece that spans a knot gets no more than monotony: its value at the right end
        a, b = np.where(inside, ua + drop, ub), np.where(inside, ub + drop, ub)
        return self.under[mode] * a, self.under[mode] * b


def _limit_hz(budget_hz: float, block_hz: float, devices: int) -> float:
    """See :attr:`Choices.limit_hz`."""
    if block_hz:
        return budget_hz + 0.5 * block_hz
    return budget_hz * (1.0 - 4e-16 * (8.0 + math.sqrt(devices)))


@kernel
def safe_bands(rows, mode, keep, out):  # type: ignore[no-untyped-def]
    """Bandwidth, efficiency, upload and compute time of keep rates, written to ``out`` [4, N]."""
    for i in range(len(mode)):
        if mode[i] >= 0:
            band, _slope, _curve, v, _vx, up, down, _regime = least_bandwidth(rows[mode[i]], keep[i], 0.0)
            out[0, i], out[1, i], out[2, i], out[3, i] = band, v, up, down


@kernel(inner=True)
def _below(x):  # type: ignore[no-untyped-def]
    """A little less than x: exp of it is surely not above exp(x)."""
    return x - 1e-15 * (1.0 + abs(x))


@kernel
def _line(rows, mode, left, right, out):  # type: ignore[no-untyped-def]
    """Ends of a proven line below b over [left, right], written to ``out`` [2, N]."""
    none = np.zeros(5)
    for i in range(len(mode)):
        if mode[i] < 0:
            continue
        row = rows[mode[i]]
        lo, hi = _below(math.log(left[i])), math.log(right[i])
        best = 0.0
        for part in (0.5, 0.0):  # touching in the middle is better on the whole, at the left end safer
            x = lo + part * (hi - lo)
            value, slope, slack = tangent(row, 0.0, 0.0, 0.0, none, 1.0, 0.0, lo, hi + 1e-15, x, 0.0)
            if value == -math.inf:
                continue
            a = value + slope * (lo - x) - slack
            b = value + slope * (_below(hi) - x) - slack
            shave = 1e-15 * (abs(value) + abs(slope) * (hi - lo))
            if a - shave >= 0.0 and a + b - 2.0 * shave > best:
                best = a + b - 2.0 * shave
                out[0, i], out[1, i] = a - shave, b - shave


@kernel(inner=True)
def _proved_short(row, wide_row, keep, target):  # type: ignore[no-untyped-def]
    """Whether a bandwidth in Hz provably does not suffice for a keep rate; row, wide_row [C]."""
    x = _below(math.log(keep))
    value, _slope, slack = tangent(row, 0.0, 0.0, 0.0, np.zeros(5), 1.0, 0.0, x, x, x, 0.0)
    if value == -math.inf:
        return least_bandwidth(wide_row, math.exp(x), 0.0)[7] >= BLOCKED
    return value - slack > target * (1.0 + 1e-14)


@kernel
def _reach(safe_rows, rows, wide_rows, mode, low, high, target, out):  # type: ignore[no-untyped-def]
    """Kernel of :meth:`Choices.reach`: log b is convex in log s, so Newton falls to its root from the right.

    Parameters
    ----------
    safe_rows, rows, wide_rows
        Rows of all modes, C columns, with shrunk, true and enlarged budgets. Shapes [R, C].
    mode, low, high, target
        The modes asked about, their intervals of keep rates, and bandwidths in Hz. Shapes [N].
    out
        Filled with ``fits`` and ``beyond``. Shape [2, N].
    """
    for i in range(len(mode)):
        row = safe_rows[mode[i]]
        goal = math.log(target[i])
        left, right = math.log(low[i]), math.log(high[i])
        band, slope, _curve, v, _vx, _up, _down, regime = least_bandwidth(row, high[i], 0.0)
        over = math.log(band) - goal if regime < BLOCKED else math.inf
        if over <= 0.0:
            out[0, i] = out[1, i] = high[i]
            continue
        for _ in range(200):
            x = right - over / slope if over < math.inf else 0.5 * (left + right)
            if not left < x < right:
                x = 0.5 * (left + right)
            if right - x <= 1e-15 * (1.0 + abs(right)) or not left < x < right:
                break
            band, rise, _curve, v, _vx, _up, _down, regime = least_bandwidth(row, math.exp(x), v)
            value = math.log(band) - goal if regime < BLOCKED else math.inf
            if value <= 0.0:
                left = x
            else:
                right, over, slope = x, value, rise
        fits = math.nan  # the nearest rate on the left that fits, and on the right that provably does not
        step = 0.0
        for n in range(60):
            keep = max(math.exp(right - step), low[i])
            band, _slope, _curve, v, _vx, _up, _down, regime = least_bandwidth(row, keep, v)
            if regime < BLOCKED and band <= target[i]:
                fits = keep
                break
            if keep == low[i]:
                break
            step = 1e-15 * 2.0**n
        beyond = high[i]
        step = 0.0
        for n in range(60):
            keep = math.exp(right + step) if n > 0 or fits == fits else low[i]
            if keep >= high[i]:
                break
            if _proved_short(rows[mode[i]], wide_rows[mode[i]], keep, target[i]):
                beyond = max(keep, low[i])
                break
            step = 1e-15 * 2.0**n
        out[0, i], out[1, i] = fits, beyond
