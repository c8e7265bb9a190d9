"""The loop of P-SCA: relax, narrow, penalise.

Derived: docs/psca.md, sections 2 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.outcome import LocalStep, Snapshot
from edgealloc.solvers.base import Control
from edgealloc.solvers.psca import device as dev
from edgealloc.solvers.psca.model import Iterate, Model
from edgealloc.solvers.psca.plan import best_plan, factors, out_cost, own_cost
from edgealloc.solvers.psca.settings import PscaSettings
from edgealloc.solvers.psca.subproblem.route import Route, SubProblem
from edgealloc.units import FloatArray, IntArray

__all__ = ["Search"]

_BINARY = 1e-3  # mean of 4 c (1 - c) over the binaries that counts as binary
_STRONG = 4.0  # a penalty, in prices, above which a binary that rests between 0 and 1 rests at one half
_NUDGES = 4  # times that columns resting near one half are moved


@dataclass(slots=True, eq=False)
class Search:
    """The loop of one start: where it stands, and the penalised objective along the way.

    Parameters
    ----------
    model, settings, control, route
        The problem as arrays, the settings, the clock, and what solves the sub-problems.
    at
        The present iterate.
    method, start
        Name of the method and number of the start, for snapshots.
    elastic, elastic_limit
        Cost of what is not sent, and how far it is raised.
    penalty, scale
        Penalty on c (1 - c), in units of ``scale``, which is in those of the objective.
    cells
        Log of the two neighbouring levels of each device; equal where there is no choice. Shapes [K].
    blocks
        Lower neighbour of each device's number of blocks. Shape [K].
    prices, residual
        Prices of the columns, shape [M], and dual residual, of the last sub-problem.
    steps, nudges
        Sub-problems solved, and times that columns were moved off one half.
    """

    model: Model
    settings: PscaSettings
    control: Control
    route: Route
    at: Iterate
    method: str
    elastic: float
    elastic_limit: float
    start: int
    penalty: float = 0.0
    cells: tuple[FloatArray, FloatArray] | None = None  # log of the two neighbouring levels
    blocks: FloatArray | None = None  # lower neighbour of the number of blocks
    prices: FloatArray | None = None
    residual: float = math.inf
    scale: float = 1.0
    steps: int = 0
    nudges: int = 0

    def penalised(self, at: Iterate) -> float:
        """Objective + penalty sum c (1 - c) + elastic; what the method lowers."""
        lack = self.elastic * float(np.sum(at.y[at.active, dev.ELASTIC]))
        problem = self.model.problem
        value = problem.objective(at.keep, at.active, np.maximum(at.option, 0))
        return value + lack + self.penalty * self.scale * self.unbinary(at)

    def unbinary(self, at: Iterate) -> float:
        """Sum of c (1 - c) over the binaries in play; 0 for continuous problems and while relaxing."""
        total = 0.0
        if self.model.binary:
            total += float(np.sum(at.share * (1.0 - at.share)))
        if self.cells is not None:
            part = self._level_part(at)
            total += float(np.sum(part * (1.0 - part)))
        if self.blocks is not None:
            part = np.clip(at.share[:, 0] * self.model.blocks - self.blocks, 0.0, 1.0)[at.active]
            total += float(np.sum(part * (1.0 - part)))
        return total

    def _nudge(self) -> bool:
        """Move columns that rest near one half, where the penalty is flat, towards their larger share.

        This is a step away from a stationary point, so the trace begins a new run; whether there was any.
        """
        if not self.model.binary or self.nudges >= _NUDGES:
            return False
        share = self.at.share.copy()
        columns = np.flatnonzero(np.sum(share * (1.0 - share), axis=0) > 0.05)
        if not len(columns):
            return False
        top = np.argmax(share[:, columns], axis=0)
        share[:, columns] *= 0.5
        share[top, columns] += 0.5
        share /= np.maximum(share.sum(axis=0), 1.0)
        self.nudges += 1
        self.at = self._settle(replace(self.at, share=share))
        return True

    def _level_part(self, at: Iterate) -> FloatArray:
        """Where each keep rate stands between its two levels, from 0 to 1; 0 without a choice. Shape [K]."""
        assert self.cells is not None
        low, high = self.cells
        width = high - low
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.clip((at.y[:, dev.X] - low) / width, 0.0, 1.0)
        return np.where((width > 0.0) & at.active, part, 0.0)

    def count(self) -> int:
        """Number of binaries."""
        count = self.at.share.shape[1] if self.model.binary else 0
        count += len(self.at.share) if self.cells is not None or self.blocks is not None else 0
        return max(count, 1)

    def step(self, gap: float) -> float:
        """Solve the sub-problem about the iterate, settle, and return the penalised objective."""
        model, at = self.model, self.at
        table = model.table(at.option, at.y)
        k, m = at.share.shape
        lower, upper = np.zeros((k, m)), np.full((k, m), math.inf)
        weight = self.penalty * self.scale
        linear = weight * (1.0 - 2.0 * at.share) if model.binary else np.zeros((k, m))
        if self.cells is not None:
            low, high = self.cells
            cell = high > low
            table[:, dev.X_LO] = np.where(cell, low, table[:, dev.X_LO])
            table[:, dev.X_HI] = np.where(cell, high, table[:, dev.X_HI])
            width = np.where(cell, high - low, 1.0)
            table[:, dev.LIN_X] = np.where(cell, weight * (1.0 - 2.0 * self._level_part(at)) / width, 0.0)
        if self.blocks is not None:
            count = model.blocks
            lower[:, 0], upper[:, 0] = self.blocks / count, (self.blocks + 1.0) / count
            part = np.clip(at.share[:, 0] * count - self.blocks, 0.0, 1.0)
            linear[:, 0] = np.where(self.blocks > 0, weight * (1.0 - 2.0 * part) * count, 0.0)
        before = self.penalised(at)
        for curve in (0.0, 1.0, 16.0, 256.0):
            # a curve's tangent need not lie above it: bend the model until the step does go down
            if curve > 0.0:
                table[:, dev.CURVE] = curve * np.abs(table[:, dev.SLOPE])
            found = self.route(SubProblem(model, at, table, linear, lower, upper, self.elastic, gap, self.control))
            after = self._settle(found.next)
            value = self.penalised(after)
            if value <= before + gap * 10.0 or model.problem.underfit.name in ("inverse-keep", "perturbation"):
                break
            if self.control.stopped():
                break
        self.steps += 1
        self.prices, self.residual = found.prices, found.residual
        if value > before:  # solved to a gap only: keep the better iterate, the trace must not rise
            value = before
        else:
            self.at = after
        known = LocalStep(
            start=self.start,
            devices=int(self.at.active.sum()),
            penalty=float(self.penalty),
            nudges=self.nudges,
            binary_residual=4.0 * self.unbinary(self.at) / self.count(),
            unsent=float(self.at.lack),
            unsent_weight=float(self.elastic),
            dual_residual=float(self.residual),
        )
        note = f"start {known.start}, {known.devices} devices, penalty {known.penalty:.4g}"
        note += f" (nudged {known.nudges})" if known.nudges else ""
        note += f", binary residual {known.binary_residual:.2e}, unsent {known.unsent:.1e}"
        note += f" at {known.unsent_weight:.3g}, dual residual {known.dual_residual:.1e}"
        self.control.report(
            Snapshot(
                self.method,
                self.control.seconds,
                len(self.control.trace) + 1,
                -math.inf,
                value,
                math.inf,
                note=note,
                step=known,
            )
        )
        return value

    def _settle(self, at: Iterate) -> Iterate:
        """The same shares with exact keep rates, power, time and clock; while relaxing also the best menu rows."""
        model = self.model
        caps = model.caps(np.where(at.active[:, None], at.share, 0.0))
        inst = model.problem.instance
        limits = caps[:, :, 0]
        option = at.option
        if inst.adapter_options is not None and self.penalty == 0.0 and at.lack < 1e-9:
            option = self._best_rows(at, limits)
        rows = np.maximum(option, 0), np.arange(len(option))
        limit = limits[rows]
        low, high = model.keep_range()
        ready = at.active & (limit >= low)
        if not np.all(ready | ~at.active) or inst.common_keep:
            # what the sub-problem chose, raised to nothing: it is feasible as it is
            keep = np.where(ready & (np.exp(at.y[:, dev.X]) <= limit), np.exp(at.y[:, dev.X]), 0.0)
        else:
            keep = self._relaxed_keeps(np.where(at.active, np.minimum(limit, high), 0.0), option, at)
            if self.cells is not None:
                lo, hi = np.exp(self.cells[0]), np.exp(self.cells[1])
                cell = self.cells[1] > self.cells[0]
                keep = np.where(
                    cell,
                    np.where(limit >= lo, np.clip(np.exp(at.y[:, dev.X]), lo, np.minimum(hi, limit)), 0.0),
                    keep,
                )
        return model.settled(replace(at, option=option), keep, caps[rows])

    def _relaxed_keeps(self, top: FloatArray, option: IntArray, at: Iterate) -> FloatArray:
        """Keep rates up to ``top`` that lower the objective: the caps, or less where more does not pay. [K]."""
        problem = self.model.problem
        low, _high = self.model.keep_range()
        start = np.clip(np.exp(at.y[:, dev.X]), low, np.maximum(top, low))
        rows = np.maximum(option, 0)
        best, value = np.where(at.active, start, 0.0), math.inf
        for part in (0.0, 0.5, 1.0):
            keep = np.where(at.active, start * (np.maximum(top, low) / start) ** part, 0.0)
            trial = problem.objective(keep, at.active, rows)
            if trial < value:
                best, value = keep, trial
        if problem.underfit.name == "inverse-keep":
            q = float(problem.instance.weights @ np.square(best))
            for _ in range(3 if problem.pooled else 1):
                wanted = _wanted(self.model, option, q)
                keep = np.where(at.active, np.clip(wanted, low, np.maximum(top, low)), 0.0)
                trial = problem.objective(keep, at.active, rows)
                if trial < value:
                    best, value = keep, trial
                q = 0.5 * (q + float(problem.instance.weights @ np.square(keep)))
        return best

    def _best_rows(self, at: Iterate, limits: FloatArray) -> IntArray:
        """Menu rows of the best plan under caps [O, K]; the present ones where it leaves out others. Shape [K]."""
        plan = best_plan(self.model.problem, np.where(at.active, limits, -2.0), self.model.has_row)
        if plan is None or not np.array_equal(plan.selected, at.active):
            return at.option
        return plan.option

    def drop(self) -> bool:
        """Selection: leave out the devices whose spectrum is worth more than what they add; whether any was."""
        problem, at = self.model.problem, self.at
        if problem.instance.exclusion_penalty is None or self.prices is None or at.active.sum() <= 1:
            return False
        factor = factors(problem, len(self.model.has_row))[np.maximum(at.option, 0), np.arange(len(at.option))]
        q = float(problem.instance.weights @ np.square(at.keep))
        nu = problem.stability.pooled_slope(q) if problem.pooled else 0.0
        stay = own_cost(problem, factor, np.where(at.active, at.keep, 0.5), nu) + at.share @ self.prices
        stay += self.elastic * at.y[:, dev.ELASTIC]
        saved = np.where(at.active, stay - out_cost(problem), -math.inf)
        worst = np.argsort(-saved)[: max(1, int(at.active.sum()) // 10)]
        leave = worst[saved[worst] > 0.0]
        if not len(leave):
            return False
        active = at.active.copy()
        active[leave] = False
        if not active.any():
            active[worst[-1]] = True
        freed = np.where(active[:, None], at.share, 0.0)
        self.at = replace(at, active=active, share=freed)
        return True

    def relax(self) -> None:
        """Without penalty until the objective rests; selection drops devices in between."""
        model, settings = self.model, self.settings
        exact = not model.binary and not model.problem.structure.discrete
        tol = min(settings.relax_tol, 1e-9) if exact else settings.relax_tol
        gap = min(settings.gap, 1e-8) if exact else settings.gap
        last, before_drop = math.inf, None
        for _ in range(
            settings.relax_steps
            * (1 + len(self.at.share) * (model.problem.instance.exclusion_penalty is not None))
        ):
            value = self.step(gap * max(abs(self.penalised(self.at)), 1e-3))
            if self.control.stopped():
                return
            if last - value <= tol * abs(value):
                if before_drop is not None and not value < before_drop[0]:
                    self.at = before_drop[1]  # leaving out did not pay
                    return
                rested = value, self.at
                if self.drop():
                    before_drop, value = rested, math.inf
                elif self.at.lack > 1e-7 and self.elastic < self.elastic_limit:
                    self.elastic *= 10.0  # what is not sent was too cheap
                    value = math.inf
                else:
                    return
            last = value

    def narrow(self) -> None:
        """Levels and blocks: the two neighbours of the relaxed answer become a binary choice."""
        inst, at = self.model.problem.instance, self.at
        if inst.keep_levels is not None and not inst.common_keep:
            low, high = np.zeros(len(at.share)), np.zeros(len(at.share))
            for k, levels in enumerate(inst.keep_levels):
                if levels is not None and len(levels) > 1 and at.active[k]:
                    i = int(np.clip(np.searchsorted(levels, math.exp(at.y[k, dev.X])) - 1, 0, len(levels) - 2))
                    low[k], high[k] = math.log(levels[i]), math.log(levels[i + 1])
            self.cells = (low, high)
        if self.model.blocks:
            self.blocks = np.floor(at.share[:, 0] * self.model.blocks + 1e-9)

    def penalise(self) -> None:
        """Raise the penalty until all is binary."""
        settings = self.settings
        if self.prices is not None and self.model.binary:
            # where spectrum is not scarce prices vanish, and any penalty decides
            self.scale = max(float(np.mean(self.prices)), 1e-3 * abs(self.penalised(self.at)) / len(self.prices))
        else:
            inst = self.model.problem.instance
            self.scale = inst.bound.underfit_weight / inst.num_devices
        if not (self.model.binary or self.cells is not None or self.blocks is not None):
            return
        self.penalty = settings.penalty_start
        residuals: list[float] = []
        for _ in range(settings.max_penalties):
            for _ in range(settings.penalty_steps):
                self.step(settings.gap * max(abs(self.penalised(self.at)), 1e-3))
                if self.control.stopped():
                    return
            residuals.append(4.0 * self.unbinary(self.at) / self.count())
            if residuals[-1] <= _BINARY:
                return
            rests = len(residuals) > 3 and residuals[-1] > 0.99 * residuals[-3] and self.penalty > _STRONG
            if rests and not self._nudge():
                return  # the polish decides what is left
            self.penalty *= settings.penalty_factor


def _wanted(model: Model, option: IntArray, q: float) -> FloatArray:
    """Inverse-keep: the keep rates that devices want for free when the pooled share is q. Shape [K]."""
    problem = model.problem
    if not problem.pooled:
        return problem.free[1]
    factor = factors(problem, len(model.has_row))[np.maximum(option, 0), np.arange(len(option))]
    nu = problem.stability.pooled_slope(q)
    return (
        np.cbrt(problem.instance.bound.underfit_weight * factor / (2.0 * nu)) if nu > 0.0 else np.ones(len(factor))
    )
