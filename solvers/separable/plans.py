"""Plans: a mode, a keep rate and a bandwidth for every device; fitted to the spectrum, made allocations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, PER_BIT, PMAX
from edgealloc.solvers.separable.choices import OUT, Choices, safe_bands
from edgealloc.solvers.separable.pieces import Pieces
from edgealloc.solvers.separable.priced import Priced
from edgealloc.units import FloatArray, IntArray

__all__ = ["Plan", "fill_up", "mixed_plan", "plan_allocation", "plan_of", "plan_value"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What every device does.

    Parameters
    ----------
    mode
        Mode of each device, :data:`~edgealloc.solvers.separable.choices.OUT` when left out. Shape [K].
    keep
        Keep rates, 0 when left out. Shape [K].
    band
        Bandwidth in Hz. Shape [K].
    source
        A letter for who found it: L least bandwidths, X exchanges, M mixed prices, W warm start.
    """

    mode: IntArray
    keep: FloatArray
    band: FloatArray
    source: str = "X"


def plan_value(problem: Problem, plan: Plan) -> float:
    """G of a plan; its modes name the menu rows."""
    inst = problem.instance
    on = plan.mode != OUT
    option = np.zeros(len(plan.mode), dtype=np.intp)
    if inst.adapter_options is not None:
        option = _options(problem, plan)
    return problem.objective(plan.keep, on, np.maximum(option, 0))


def _options(problem: Problem, plan: Plan) -> IntArray:
    """Menu row of each device: modes are sorted by device, then by row."""
    menus = problem.instance.adapter_options or (None,) * len(plan.mode)
    sizes = np.array([len(menu) if menu else 1 for menu in menus])
    first = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    has = np.array([menu is not None for menu in menus])
    return np.where((plan.mode != OUT) & has, plan.mode - first, np.where(has, 0, -1))


def plan_allocation(choices: Choices, plan: Plan) -> Allocation | None:
    """The allocation of a plan, None should it break a budget."""
    problem, inst = choices.problem, choices.problem.instance
    on = plan.mode != OUT
    out = np.zeros((4, len(plan.mode)))
    safe_bands(choices.safe_rows, plan.mode, plan.keep, out)
    band, v, up, down = out
    column = choices.safe_rows[np.maximum(plan.mode, 0)].T
    bits = column[BIT0] + column[BIT1] * plan.keep
    work = column[CYC0] + column[CYC1] * plan.keep
    with np.errstate(divide="ignore", invalid="ignore"):
        freq = np.where(work > 0.0, np.clip(work / down, inst.freq_min_hz, inst.freq_max_hz), inst.freq_min_hz)
        power = column[PER_BIT] * bits * (np.expm1(v) / v) / up
    power = np.minimum(power, column[PMAX])
    width = choices.whole_blocks(plan.band) if choices.block_hz else np.maximum(plan.band, band)
    allocation = Allocation(
        keep=np.where(on, plan.keep, 0.0),
        freq_hz=np.where(on, freq, 0.0),
        power_w=np.where(on, power, 0.0),
        bandwidth_hz=np.where(on, width, 0.0),
        selected=on,
        option=_options(problem, plan),
    )
    return None if problem.evaluate(allocation).violations else allocation


def plan_of(choices: Choices, allocation: Allocation) -> Plan | None:
    """The plan of an allocation with its bandwidths computed anew; None when it does not fit or is not allowed."""
    inst = choices.problem.instance
    if allocation.bandwidth_hz is None or len(allocation.keep) != inst.num_devices:
        return None
    menus = inst.adapter_options or (None,) * inst.num_devices
    sizes = np.array([len(menu) if menu else 1 for menu in menus])
    option = np.maximum(allocation.option, 0)
    if np.any(option >= sizes):
        return None
    mode = np.where(allocation.selected, np.concatenate(([0], np.cumsum(sizes)[:-1])) + option, OUT)
    keep = np.where(allocation.selected, allocation.keep, 0.0)
    plan = Plan(mode, keep, choices.safe_bandwidth(mode, keep), "W")
    if not choices.holds(plan.band):
        return None
    return plan if plan_allocation(choices, plan) is not None else None


def fill_up(choices: Choices, plan: Plan, priced: Priced) -> Plan:
    """Raise the keep rates of continuous devices towards what they would want for free, as far as it fits."""
    free = _continuous(choices, plan.mode)
    if choices.block_hz or not free.any():
        return plan
    want = np.where(free, _wanted(choices, plan.mode, plan.keep, priced.nu), plan.keep)
    filled = _fitted(choices, plan, want)
    return filled if plan_value(choices.problem, filled) < plan_value(choices.problem, plan) else plan


def mixed_plan(choices: Choices, active: Pieces, priced: Priced) -> Plan | None:
    """The convexified answers made real: mixed keep rates in the main mode, scaled to the spectrum."""
    if choices.block_hz or choices.problem.instance.keep_levels is not None:
        return None
    main = priced.picks[int(np.argmax(priced.share))]
    mode = active.mode[main // 2]
    keeps = active.safe_keep.ravel()[priced.picks]
    same = active.mode[priced.picks // 2] == mode
    weight = np.where(same, priced.share[:, None], 0.0)
    keep = np.sqrt(np.sum(weight * np.square(keeps), axis=0) / np.sum(weight, axis=0))
    own = np.maximum(mode, 0)
    keep = np.where(mode != OUT, np.clip(keep, choices.low[own], choices.high[own]), 0.0)
    plan = Plan(mode, keep, choices.safe_bandwidth(mode, keep), "M")
    if choices.caps.fits(plan.band):
        return fill_up(choices, plan, priced)
    least = np.where(mode != OUT, choices.low[np.maximum(mode, 0)], 0.0)
    small = Plan(mode, least, choices.safe_bandwidth(mode, least), "M")
    if not choices.caps.fits(small.band):
        return None
    return _fitted(choices, small, keep)


def _continuous(choices: Choices, mode: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    levels = choices.problem.instance.keep_levels
    free = np.array([True] * len(mode) if levels is None else [level is None for level in levels])
    return np.asarray(free & (mode != OUT))


def _wanted(choices: Choices, mode: IntArray, keep: FloatArray, nu: FloatArray | float) -> FloatArray:
    """The keep rate up to which more is better at the price nu, found on a grid above ``keep``. Shape [K]."""
    high = np.where(mode != OUT, choices.high[np.maximum(mode, 0)], 0.0)
    best, least = keep, np.full(len(keep), math.inf)
    for part in np.linspace(0.0, 1.0, 33):
        trial = keep + part * np.maximum(high - keep, 0.0)
        value = (
            choices.true_cost(mode, np.where(mode != OUT, trial, 0.5)) + nu * choices.weight_of(mode) * trial**2
        )
        better = (value < least) & (mode != OUT)
        best, least = np.where(better, trial, best), np.where(better, value, least)
    return best


def _fitted(choices: Choices, plan: Plan, want: FloatArray) -> Plan:
    """A plan that fits moved towards wanted keep rates; devices under a cap that is full stay where they are."""
    caps = choices.caps
    if not caps:
        return _moved(choices, plan, want)
    for _ in range(len(caps.rows) + 1):
        want = np.where(caps.full(plan.band), plan.keep, want)
        if np.array_equal(want, plan.keep):
            break
        plan = _moved(choices, plan, want)
    return plan


def _moved(choices: Choices, plan: Plan, want: FloatArray) -> Plan:
    """The largest common share of the way, in logarithms, from a plan that fits to wanted keep rates."""
    caps = choices.caps
    on = plan.mode != OUT
    ratio = np.log(np.where(on, want / np.where(on, plan.keep, 1.0), 1.0))

    def at(part: float) -> Plan:
        keep = np.where(on & (ratio != 0.0), plan.keep * np.exp(part * ratio), plan.keep)
        keep = np.clip(keep, np.minimum(plan.keep, want), np.maximum(plan.keep, want))  # exp rounds
        return replace(plan, keep=keep, band=choices.safe_bandwidth(plan.mode, keep))

    best = at(0.0)
    if not caps.fits(best.band):
        return plan
    low, high = 0.0, 1.0
    for step in range(60):
        part = high if step == 0 else 0.5 * (low + high)
        trial = at(part)
        if caps.fits(trial.band):
            best, low = trial, part
            if step == 0 or caps.filled(trial.band).any():
                break
        else:
            high = part
    return best
