"""The simple schemes that papers compare with, as methods ``baseline:NAME``.

Each fixes something that the joint problem would choose, and does the rest as well as it can: powers, clocks and,
unless it says otherwise, keep rates are optimal on the spectrum it deals. One that finds nothing feasible says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import unsolved
from edgealloc.solvers.psca.model import Model
from edgealloc.solvers.psca.plan import Plan, best_plan
from edgealloc.solvers.psca.rounding.finish import allocation_of
from edgealloc.solvers.psca.solve import solve_psca
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, ENERGY, FMAX, FMIN, KAPPA, PMAX, SMAX
from edgealloc.units import FloatArray, IntArray

__all__ = ["BASELINES", "Baseline", "solve_baseline"]

_EXACT = 1.0 - 1e-13  # share of a band that is dealt, so that a sum of shares never exceeds it


@dataclass(frozen=True, slots=True)
class Baseline:
    """A named scheme: its summary, and either shares of the columns or an instance with less freedom."""

    summary: str
    shares: Callable[[Model, np.random.Generator], FloatArray] | None = None
    restrict: Callable[[Instance], Instance] | None = None
    plan: Callable[[Model, FloatArray], Plan | None] | None = None


def solve_baseline(problem: Problem, options: Options | None = None, name: str = "") -> Result:
    """Apply a baseline.

    Parameters
    ----------
    problem
        Any problem.
    options
        The seed (for ``random``) and the limits.
    name
        One of :data:`BASELINES`.

    Returns
    -------
    Result
        ``locally_solved`` with an allocation within all budgets, or ``no_solution`` with the reason.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name not in BASELINES:
        allowed = ", ".join(f"baseline:{known}" for known in BASELINES)
        raise InputError("options", [Fault("options", "method", f"baseline:{name}", allowed)])
    options, scheme = options or Options(), BASELINES[name]
    with Control(options) as control:
        if scheme.restrict is not None:
            inner = solve_psca(Problem(scheme.restrict(problem.instance), problem.underfit), options)
            allocation, trace = inner.allocation, inner.trace
        else:
            allocation, trace = _dealt(Model.of(problem), scheme, np.random.default_rng(options.seed)), ()
        result = replace(unsolved(problem, f"baseline:{name}", control), iterations=len(trace))
        if allocation is None or problem.violations(allocation):
            message = f"the baseline finds no feasible allocation here: {scheme.summary}"
            return replace(result, message=message)
        return replace(
            result,
            status=Status.LOCALLY_SOLVED,
            allocation=allocation,
            objective=problem.evaluate(allocation).objective,
            message=scheme.summary,
        )


def _dealt(model: Model, scheme: Baseline, rng: np.random.Generator) -> Allocation | None:
    """The allocation on the shares that a scheme deals."""
    assert scheme.shares is not None
    share = scheme.shares(model, rng)
    if model.blocks:
        share = np.floor(share * model.blocks + 1e-9) / model.blocks
    plan = (scheme.plan or _plan)(model, share)
    return None if plan is None else allocation_of(model, share, plan)


def _plan(model: Model, share: FloatArray) -> Plan | None:
    return best_plan(model.problem, model.caps(share)[:, :, 0], model.has_row)


def _whole(owner: IntArray, devices: int) -> FloatArray:
    return np.asarray((owner[None, :] == np.arange(devices)[:, None]).astype(np.float64))


def _equal(model: Model, rng: np.random.Generator) -> FloatArray:
    """Equal bandwidth, or sub-carriers in turn."""
    k, m = model.inverse_w.shape
    return _whole(np.asarray(np.arange(m) % k), k) if model.binary else np.full((k, 1), _EXACT / k)


def _random(model: Model, rng: np.random.Generator) -> FloatArray:
    """Sub-carriers to random devices; bandwidths uniform on the simplex."""
    k, m = model.inverse_w.shape
    return (
        _whole(np.asarray(rng.integers(k, size=m)), k)
        if model.binary
        else rng.dirichlet(np.ones(k))[:, None] * _EXACT
    )


def _best_channel(model: Model, rng: np.random.Generator) -> FloatArray:
    """Sub-carriers to whoever hears them best; a band in proportion to the rate that its power buys there."""
    k, _m = model.inverse_w.shape
    if model.binary:
        return _whole(np.asarray(np.argmin(model.inverse_w, axis=0)), k)
    worth = np.log1p(model.problem.instance.power_max_w / model.inverse_w[:, 0])
    return np.asarray((worth / worth.sum() * _EXACT)[:, None])


def _fair_rates(model: Model, rng: np.random.Generator) -> FloatArray:
    """Spectrum for the largest sum of log rates at full power, blind to learning."""
    inst = model.problem.instance
    k, m = model.inverse_w.shape
    if not model.binary:
        share = np.full(k, 1.0 / k)
        snr = inst.power_max_w / model.inverse_w[:, 0]
        for _ in range(200):  # multiplicative ascent: share_k moves with its own elasticity of the rate
            rate = share * np.log1p(snr / share)
            slope = np.log1p(snr / share) - snr / (share + snr)
            share = share * (slope / rate)
            share /= share.sum()
        return np.asarray((share * _EXACT)[:, None])
    owner = np.full(m, -1)
    rate = np.full(k, 1e-9)
    gain = np.log1p(inst.power_max_w[:, None] * k / m / model.inverse_w)
    for column in np.argsort(-gain.max(axis=0), kind="stable"):
        to = int(np.argmax(np.log1p(gain[:, column] / rate)))
        owner[column] = to
        rate[to] += gain[to, column]
    return _whole(owner, k)


def _alternating(model: Model, rng: np.random.Generator) -> FloatArray:
    """Keep rates for the spectrum, spectrum for the keep rates, and so on from equal shares, while G falls.

    The spectrum step moves shares towards devices whose bound falls most per share at the present keep rates:
    whole columns one by one, a band by a tenth.
    """
    share = _equal(model, rng)
    plan = _plan(model, share)
    for _ in range(100):
        if plan is None:
            break
        worth = _worth(model, share, plan)
        best = plan.value
        if model.binary:
            trials = [_whole(np.argmax(worth, axis=0), len(share))]
            gains = worth.max(axis=0) - np.sum(np.where(share > 0.5, worth, 0.0), axis=0)
            for column in np.argsort(-gains)[:4]:
                one = share.copy()
                one[:, column] = _whole(np.argmax(worth[:, [column]], axis=0), len(share))[:, 0]
                trials.append(one)
        else:
            target = share * np.maximum(worth, 1e-300)
            trials = [share + part * (target / target.sum() * _EXACT - share) for part in (0.5, 0.1, 0.02)]
        plans = [(_plan(model, trial), trial) for trial in trials]
        fits = [(p, t) for p, t in plans if p is not None and p.value < best * (1.0 - 1e-9)]
        if not fits:
            break
        plan, share = min(fits, key=lambda pair: pair[0].value)
    return share


def _worth(model: Model, share: FloatArray, plan: Plan) -> FloatArray:
    """Fall of G per share of each column, by a small change of each device's shares at fixed others. [K, M]."""
    problem, inst = model.problem, model.problem.instance
    option = np.maximum(plan.option, 0)
    rows = option, np.arange(len(share))
    caps = model.caps(share)[rows]
    more = model.caps(share * 1.01)[rows][:, 0]
    rise = np.maximum(np.minimum(more, inst.keep_max) - np.minimum(caps[:, 0], inst.keep_max), 0.0)
    at_cap = plan.keep >= caps[:, 0] * (1.0 - 1e-6)
    steep = np.empty(len(share))
    for k in range(len(share)):
        keep = plan.keep.copy()
        keep[k] = min(keep[k] + rise[k], inst.keep_max[k])
        steep[k] = plan.value - problem.objective(keep, plan.selected, option) if plan.selected[k] else 0.0
    steep = np.where(at_cap, np.maximum(steep, 0.0), 0.0) * 100.0  # per doubling of the device's shares
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.min(np.where(share > 0.0, model.inverse_w, np.inf), axis=1, keepdims=True)
        ratio = model.inverse_w / (least + caps[:, 3:4])
        profit = np.where(ratio < 1.0, ratio - 1.0 - np.log(ratio), 0.0)
        own = np.sum(profit * share, axis=1, keepdims=True)
        return np.where(own > 0.0, steep[:, None] * profit / own, 0.0)


def _fixed_clock(model: Model, share: FloatArray) -> Plan | None:
    """Keep rates alone: full power, and the clock that computes within half the deadline."""
    problem, inst = model.problem, model.problem.instance
    caps = np.full(model.has_row.shape, -2.0)
    for o in range(len(caps)):
        row = model.rows[o]
        d0, d1, w0, w1, down, deadline = row.T[[BIT0, BIT1, CYC0, CYC1, DOWN, DEADLINE]]
        energy, kappa, power, f_min, f_max, top = row.T[[ENERGY, KAPPA, PMAX, FMIN, FMAX, SMAX]]
        clock = np.clip((w0 + w1 * top) / (0.5 * deadline), f_min, f_max)
        columns = np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            # power spread evenly over what the device has
            rate = model.band * np.sum(share * np.log1p(power[:, None] / columns / model.inverse_w), axis=1)
            per_bit = down + 1.0 / rate
            by_time = (deadline - d0 * per_bit - w0 / clock) / (d1 * per_bit + w1 / clock)
            heat = kappa * clock**2
            by_energy = (energy - power * d0 / rate - heat * w0) / (power * d1 / rate + heat * w1)
        caps[o] = np.where(rate > 0.0, np.minimum(by_time, by_energy), -2.0)
    # the optimal power and clock of allocation_of carry at least as much, so these rates are feasible
    return best_plan(problem, np.minimum(caps, inst.keep_max), model.has_row)


def _no_dropout(inst: Instance) -> Instance:
    return _fixed_keep(inst, inst.keep_max)


def _fixed_keep(inst: Instance, keep: FloatArray) -> Instance:
    """The instance with one allowed keep rate per device; levels are met from below."""
    keep = np.clip(keep, inst.keep_min, inst.keep_max)
    for k, levels in enumerate(inst.keep_levels or ()):
        if levels is not None:
            below = levels[levels <= keep[k] * (1.0 + 1e-12)]
            keep[k] = below[-1] if len(below) else levels[0]
    return inst.with_changes(keep_min=keep, keep_max=keep, keep_levels=None)


def _dropout(rate: float) -> Callable[[Instance], Instance]:
    return lambda inst: _fixed_keep(inst, np.full(inst.num_devices, 1.0 - rate))


BASELINES: dict[str, Baseline] = {
    "no-dropout": Baseline("every device keeps as much as it may; spectrum optimised", restrict=_no_dropout),
    "common": Baseline("one best dropout rate for all", restrict=lambda inst: inst.with_changes(common_keep=True)),
    "dropout-0.1": Baseline("dropout rate 0.1 for all; spectrum optimised", restrict=_dropout(0.1)),
    "dropout-0.3": Baseline("dropout rate 0.3 for all; spectrum optimised", restrict=_dropout(0.3)),
    "dropout-0.5": Baseline("dropout rate 0.5 for all; spectrum optimised", restrict=_dropout(0.5)),
    "equal": Baseline("equal bandwidth or sub-carriers in turn; keep rates optimised", _equal),
    "best-channel": Baseline("spectrum to the best channels; keep rates optimised", _best_channel),
    "random": Baseline("random spectrum; keep rates optimised", _random),
    "keep-only": Baseline(
        "keep rates alone: equal spectrum, full power, clock for half the deadline", _equal, plan=_fixed_clock
    ),
    "spectrum-only": Baseline("spectrum for fair rates, blind to learning; keep rates follow", _fair_rates),
    "alternating": Baseline("spectrum and keep rates in turn until neither improves", _alternating),
}
