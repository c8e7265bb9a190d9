"""From P-SCA's binary answer to an allocation that breaks no budget."""

from __future__ import annotations

import math

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import blocks_of
from edgealloc.solvers.base import Control
from edgealloc.solvers.psca.model import Iterate, Model
from edgealloc.solvers.psca.plan import Plan, best_plan, factors, out_cost, own_cost
from edgealloc.solvers.psca.rounding.points import needs_hz, share_out
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, FMAX, FMIN
from edgealloc.units import BoolArray, FloatArray

__all__ = ["allocation_of", "band_plan"]

_RATES, _FEW_RATES = 129, 17  # common rates tried; when time is up
_TURNS = 12  # times that the best two intervals between them are looked into


def band_plan(model: Model, at: Iterate, search: bool, control: Control) -> tuple[FloatArray, Plan] | None:
    """Shares [K, 1] of the one column and the plan on them, for FDMA and resource blocks."""
    problem, inst = model.problem, model.problem.instance
    if inst.common_keep:
        return _common(model, control)
    if model.blocks or inst.keep_levels is not None:
        found = share_out(model, at, search, control)
        return None if found is None else ((found[0] / model.column_hz)[:, None], found[1])
    share = np.where(at.active[:, None], at.share, 0.0)
    share = share * ((1.0 - 1e-13) / share.sum())
    plan = best_plan(problem, np.where(at.active, model.caps(share)[:, :, 0], -2.0), model.has_row)
    if plan is None:
        found = share_out(model, at, search, control)
        return None if found is None else ((found[0] / model.column_hz)[:, None], found[1])
    return share, plan


def _common(model: Model, control: Control) -> tuple[FloatArray, Plan] | None:
    """One keep rate: the bandwidths it needs are known, so it is found in one dimension, and who is left out.

    When time is up a few rates are tried.
    """
    problem, inst = model.problem, model.problem.instance
    low, high = float(inst.keep_min.max()), float(inst.keep_max.min())
    limit = model.column_hz * (1.0 + 1e-12 if model.blocks else 1.0 - 1e-13)
    lists = [set(levels.tolist()) for levels in inst.keep_levels or () if levels is not None]
    menu = np.array([m is not None for m in inst.adapter_options or (None,) * inst.num_devices])
    factor = factors(problem, len(model.has_row))
    best: tuple[FloatArray, Plan] | None = None

    def at_rate(s: float) -> tuple[FloatArray, Plan] | None:
        """Shares [K, 1] and plan of the best group at the keep rate s; None if no group fits."""
        need = needs_hz(model, np.full(inst.num_devices, s))
        option = np.argmin(need, axis=0)
        hz = np.where(_may_take(inst, s), need.min(axis=0), math.inf)
        groups: list[BoolArray] = []
        if inst.exclusion_penalty is None:
            groups = [np.ones(len(hz), dtype=bool)] if math.fsum(hz) <= limit else []
        else:  # who comes first: the least demanding, or those whose samples weigh most per Hz
            own, out = (
                own_cost(problem, factor[option, np.arange(len(hz))], np.full(len(hz), s), 0.0),
                out_cost(problem),
            )
            for order in (np.argsort(hz, kind="stable"), np.argsort(hz / inst.weights, kind="stable")):
                taken, left = [], limit
                for k in order:
                    if hz[k] <= left:
                        taken.append(k)
                        left -= hz[k]
                value = np.append(0.0, np.cumsum((own - out)[taken]))  # of the first so many that fit
                if problem.pooled:
                    kept = s * s * np.append(0.0, np.cumsum(inst.weights[taken]))
                    value += problem.stability.value(kept)
                groups.append(np.isin(np.arange(len(hz)), taken[: int(np.argmin(value))]))
        found = None
        for selected in groups:
            keep = np.where(selected, s, 0.0)
            rows = np.where(menu, np.where(selected, option, 0), -1)
            worth = problem.objective(keep, selected, np.maximum(rows, 0))
            if found is None or worth < found[1].value:
                share = np.where(selected, hz, 0.0) / model.column_hz
                found = share[:, None], Plan(keep, rows, selected, worth)
        return found

    if lists:
        rates = sorted(set.union(*lists) if inst.exclusion_penalty is not None else set.intersection(*lists))
        rates = [s for s in rates if inst.keep_min.min() <= s <= inst.keep_max.max()]
    else:
        rates = list(np.geomspace(low, high, _FEW_RATES if control.stopped() else _RATES))
    if not rates:
        return None
    for turn in range(1 if lists else _TURNS):
        if turn and control.stopped():
            break
        found = [at_rate(float(s)) for s in rates]
        worth = [math.inf if f is None else f[1].value for f in found]
        i = int(np.argmin(worth))
        if found[i] is None:
            return best
        if best is None or worth[i] < best[1].value:
            best = found[i]
        if turn < _TURNS - 1:
            rates = list(np.linspace(rates[max(i - 1, 0)], rates[min(i + 1, len(rates) - 1)], 17))
    return best


def _may_take(inst: Instance, rate: float) -> BoolArray:
    """Who may keep exactly so much, by range and levels."""
    levels = inst.keep_levels or (None,) * inst.num_devices
    listed = [own is None or rate in own for own in levels]
    return np.asarray((inst.keep_min <= rate) & (rate <= inst.keep_max) & np.array(listed))


def allocation_of(model: Model, share: FloatArray, plan: Plan) -> Allocation | None:
    """The allocation of a plan on shares [K, M]; continuous rates are shaved should a budget still be broken."""
    problem, inst = model.problem, model.problem.instance
    on = plan.selected
    caps = model.caps(np.where(on[:, None], share, 0.0))[np.maximum(plan.option, 0), np.arange(len(on))]
    rate, power, excess = caps[:, 1], caps[:, 2], caps[:, 3]
    if inst.access == "ofdma":
        owner = np.where(share.max(axis=0) > 0.5, np.argmax(share, axis=0), -1)
        inverse = model.inverse_w[owner, np.arange(len(owner))]
        least = np.min(np.where(share > 0.5, model.inverse_w, math.inf), axis=1)
        with np.errstate(invalid="ignore"):  # of a device without a channel
            above = inverse - least[owner]  # at a low signal-to-noise ratio level and 1/a agree in most digits
        power_m = np.where((owner >= 0) & (above < excess[owner]), excess[owner] - above, 0.0)
        owner = np.where((owner >= 0) & on[owner], owner, -1)
        spectrum = {"owner": owner, "power_w": np.where(owner >= 0, power_m, 0.0)}
    else:
        hz = np.where(on, share[:, 0] * model.column_hz, 0.0)
        if model.blocks and inst.block_hz is not None:
            hz = blocks_of(hz, inst.block_hz) * inst.block_hz
        spectrum = {"bandwidth_hz": hz, "power_w": np.where(on, power, 0.0)}
    return _within(problem, model.row(plan.option), rate, plan, spectrum)


def _within(
    problem: Problem, row: FloatArray, rate: FloatArray, plan: Plan, spectrum: dict[str, FloatArray]
) -> Allocation | None:
    """The allocation at the lowest clocks, keep rates shaved by up to 1e-8 until no budget is broken; else None.

    ``row`` [K, C] are device rows of C columns, ``rate`` [K] the rates in bit/s, ``spectrum`` the fields of the
    allocation that say who has which spectrum and power.
    """
    inst, on = problem.instance, plan.selected
    d0, d1, w0, w1, down, f_min, f_max, deadline = row.T[[BIT0, BIT1, CYC0, CYC1, DOWN, FMIN, FMAX, DEADLINE]]
    fixed = np.array([levels is not None for levels in inst.keep_levels or (None,) * len(on)])
    for shave in (0.0, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8):
        keep = np.where(on & ~fixed, np.maximum(plan.keep * (1.0 - shave), inst.keep_min), plan.keep)
        if inst.common_keep and on.any() and not fixed.any():
            keep = np.where(on, keep[on].min(), 0.0)
        bits, work = d0 + d1 * keep, w0 + w1 * keep
        with np.errstate(divide="ignore", invalid="ignore"):
            upload = np.where(bits > 0.0, bits / np.where(rate > 0.0, rate, np.inf), 0.0)
            clock = work / (deadline - bits * down - upload)
        clock = np.where(np.isfinite(clock) & (clock > 0.0), clock, f_min)
        allocation = Allocation(
            keep=np.where(on, keep, 0.0),
            freq_hz=np.where(on, np.clip(clock, f_min, f_max), 0.0),
            selected=on,
            option=plan.option,
            **spectrum,  # type: ignore[arg-type]
        )
        if not problem.violations(allocation):
            return allocation
    return None
