"""Small random OFDMA instances of every variant, and their optima by brute force.

The oracle shares one thing with the solver, the keep cap of a set of sub-carriers (``keep_cap``), which
``test_cap_against_slow_search`` checks on its own. Sets, menus, levels and selection are enumerated here, keep
rates minimised by other means; all assignments at once, as arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve, UnderfitLogistic
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.device import UNDER
from edgealloc.solvers.row import SMAX, SMIN
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["brute_force", "random_curve", "random_logistic", "random_ofdma"]


def random_ofdma(rng: np.random.Generator, shape: tuple[int, int] | None = None, **changes: Any) -> Instance:
    """An OFDMA instance with (2, 4) to (3, 6) devices and sub-carriers; about half of the draws are feasible."""
    k, m = shape or (int(rng.integers(2, 4)), int(rng.integers(4, 7)))
    base = rng.uniform(3e9, 1.6e10, k) * rng.choice([0.0, 1.0, 1.0, 1.0, 1.0], k)
    gain = 10.0 ** rng.uniform(-12.5, -9.5, k)[:, None] * rng.exponential(size=(k, m))
    gain *= rng.random((k, m)) > rng.choice([0.0, 0.3])
    lora = 12582912.0 * rng.choice([0.3, 1.0, 2.0], k)
    keep_min, keep_max = rng.choice([0.02, 0.1], k), rng.choice([0.5, 1.0], k)
    fields: dict[str, Any] = {
        "name": "random",
        "access": "ofdma",
        "bandwidth_hz": m * 10.0 ** rng.uniform(3.5, 5.0),
        "noise_psd_dbm_per_hz": -174.0,
        "latency_s": 15.0,
        "bound": BoundSpec(
            underfit=rng.choice(["inverse-keep", "perturbation"]),
            underfit_weight=10.0 ** rng.uniform(-2, 0),
            pooling=rng.choice(["global", "device"]),
            sparsity_weight=rng.choice([0.0, 0.1, 0.5, 2.0]),
        ),
        "samples": rng.integers(100, 2000, k),
        "gain": gain,
        "power_max_w": 10.0 ** rng.uniform(-3, -0.5, k),
        "energy_j": rng.uniform(1, 8, k),
        "energy_static_j": rng.choice([0.0, 0.3], k),
        "payload_fixed_bits": rng.choice([0.0, 0.0, 3e5, 1e6], k),
        "payload_lora_bits": lora,
        "cycles_fixed": base,
        "cycles_lora": base * rng.choice([0.0, 0.02, 0.3, 1.0], k),
        "freq_min_hz": rng.choice([1e8, 3e8, 9e8], k),
        "freq_max_hz": 2e9,
        "capacitance": 1e-28 * rng.choice([0.0, 1.0, 1.0, 1.0, 1.0], k),
        "downlink_bps": rng.choice([np.inf, np.inf, 1e6], k),
        "keep_min": keep_min,
        "keep_max": keep_max,
        "exclusion_penalty": rng.choice([None, None, 1.0, 6.0]),
    }
    if rng.random() < 0.35:
        fields["keep_levels"] = tuple(
            np.linspace(low, high, int(rng.integers(1, 5))) if rng.random() < 0.7 else None
            for low, high in zip(keep_min, keep_max, strict=True)
        )
    if rng.random() < 0.35:
        fields["adapter_options"] = tuple(
            (
                AdapterOption("small", 0.4 * bits, 0.2 * work, float(rng.choice([1.0, 1.3, 2.0]))),
                AdapterOption("large", bits, work, 1.0),
            )
            if rng.random() < 0.7
            else None
            for bits, work in zip(lora, fields["cycles_fixed"] + 1e7, strict=True)
        )
    return Instance(**{**fields, **changes})


def random_curve(rng: np.random.Generator) -> BoundSpec:
    """A bound with a falling underfitting curve of 3 to 7 knots, rarely convex."""
    n = int(rng.integers(3, 8))
    knots = np.r_[0.02, np.sort(rng.uniform(0.03, 0.97, n - 2)), 1.0]
    curve = UnderfitCurve(knots, np.sort(rng.choice([rng.uniform(0, 2, n), rng.exponential(size=n)]))[::-1])
    return BoundSpec(
        underfit="curve",
        underfit_curve=curve,
        underfit_weight=10.0 ** rng.uniform(-2, 0.5),
        pooling=rng.choice(["global", "device"]),
        sparsity_weight=rng.choice([0.0, 0.1, 0.5, 2.0]),
    )


def random_logistic(rng: np.random.Generator, **changes: Any) -> BoundSpec:
    """A bound with a logistic underfitting term, from nearly straight to steep."""
    term = UnderfitLogistic(half=10.0 ** rng.uniform(-2, 0.3), steepness=10.0 ** rng.uniform(-0.7, 1.5))
    fields: dict[str, Any] = {
        "underfit": "logistic",
        "underfit_logistic": term,
        "underfit_weight": 10.0 ** rng.uniform(-2, 0.5),
        "pooling": rng.choice(["global", "device"]),
        "sparsity_weight": rng.choice([0.0, 0.1, 0.5, 2.0]),
    }
    return BoundSpec(**(fields | changes))


def brute_force(source: Instance | Problem, allowed: Callable[[IntArray], BoolArray] | None = None) -> float:
    """Least objective over all assignments, menu rows, levels, selections and keep rates; inf when infeasible.

    With curves and other functions, the value of a feasible point that a zooming grid could not improve.
    ``allowed`` says of numbers of sub-carriers, shape [N, K], which rows are; it must allow less of everything.
    """
    problem = source if isinstance(source, Problem) else Problem(source)
    instance = problem.instance
    cell = OfdmaCell.of(problem)
    k, m = cell.devices, cell.subcarriers
    first = 0 if allowed is None else -1  # a device gains by every sub-carrier that it may own
    owners = np.array(list(itertools.product(range(first, k), repeat=m)))
    if allowed is not None:
        owners = owners[allowed(np.stack([(owners == d).sum(axis=1) for d in range(k)], axis=1))]
    codes = 1 << np.arange(m)
    sets = [np.array([code >> j & 1 for j in range(m)], bool) for code in range(1 << m)]
    caps = np.array([[cell.cap(i, mask)[0] for mask in sets] for i in range(len(cell.device))])
    mine = [(owners == d) @ codes for d in range(k)]
    choices = []
    for d in range(k):
        options: list[tuple[int, float | None]] = []
        for i in range(cell.start[d], cell.start[d + 1]):
            levels = cell.levels[i][~np.isnan(cell.levels[i])]
            options += [(i, float(s)) for s in levels] if len(levels) else [(i, None)]
        if instance.common_keep:
            options = [(i, None) for i in range(cell.start[d], cell.start[d + 1])]
        choices.append(options + ([(-1, None)] if instance.exclusion_penalty is not None else []))
    best = np.inf
    for combination in itertools.product(*choices):
        top = np.stack(
            [caps[i][mine[d]] if i >= 0 else np.full(len(owners), 2.0) for d, (i, _s) in enumerate(combination)],
            axis=1,
        )
        if instance.common_keep:
            best = min(best, _least_common(problem, cell, combination, float(top.min(axis=1).max())))
            continue
        least = np.array([0.0 if i < 0 else cell.rows[i, SMIN] if s is None else s for i, s in combination])
        good = np.all(top >= least, axis=1)
        if good.any():
            best = min(best, _least_objective(problem, cell, combination, np.unique(top[good], axis=0)))
    return best


def _least_common(
    problem: Problem, cell: OfdmaCell, combination: tuple[tuple[int, float | None], ...], top: float
) -> float:
    """Least objective with given modes and one rate of at most ``top``, by grids that zoom in."""
    inst = problem.instance
    on = np.array([i >= 0 for i, _s in combination])
    option = np.array([max(int(cell.option[i]), 0) if i >= 0 else 0 for i, _s in combination])

    def value(s: float) -> float:
        return problem.objective(np.where(on, s, 0.0), on, option)

    if not on.any():
        return value(0.0)
    low, high = float(inst.keep_min[on].max()), min(top, float(inst.keep_max[on].min()))
    lists = [np.asarray(v) for v, used in zip(inst.keep_levels or (), on, strict=False) if used and v is not None]
    if lists:
        shared = [s for s in lists[0] if low <= s <= high and all(s in other for other in lists)]
        return min((value(float(s)) for s in shared), default=np.inf)
    best = np.inf
    for _ in range(5 if low <= high else 0):
        grid = np.linspace(low, high, 101)
        values = [value(float(s)) for s in grid]
        at = int(np.argmin(values))
        best, low, high = min(best, values[at]), float(grid[max(at - 1, 0)]), float(grid[min(at + 1, 100)])
    return best


def _least_objective(
    problem: Problem, cell: OfdmaCell, combination: tuple[tuple[int, float | None], ...], caps: FloatArray
) -> float:
    """Least objective with given modes and levels, over rows of caps and continuous keep rates under them."""
    inst, spec = problem.instance, problem.instance.bound
    weights = inst.weights
    factor = np.ones(len(weights))
    low, high = np.zeros(len(weights)), np.zeros(len(weights))
    for d, (i, s) in enumerate(combination):
        if i >= 0:
            factor[d] = cell.rows[i, UNDER] / (spec.underfit_weight * weights[d])
            low[d], high[d] = (cell.rows[i, SMIN], cell.rows[i, SMAX]) if s is None else (s, s)
    on = np.array([i >= 0 for i, _s in combination])
    high = np.minimum(np.where(on, high, 0.0), np.where(on, caps, 0.0))
    high = np.maximum(high, low)

    if problem.pools is not None:  # with its caps given, every cluster is alone
        values = np.zeros(len(caps))
        for e in range(int(problem.pools.max()) + 1):
            mine, own = problem.objective.of_cluster(e)
            part = Problem(own.instance, own.underfit)
            values += float(weights[mine].sum()) * _pooled(part, factor[mine], on[mine], low[mine], high[:, mine])
        return float(np.min(values))
    if not problem.underfit.square_convex or problem.underfit.name in ("logistic", "by device"):
        return _zoomed(problem, factor, on, low, high)
    if not problem.pooled:
        under = _under(problem, factor, on, _golden(problem, factor, on, low, high))
        return float(np.min(under + _own(problem, factor, on, low, high)))
    return float(np.min(_pooled(problem, factor, on, low, high)))


def _pooled(problem: Problem, factor: FloatArray, on: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Least objective of one pool under each row of greatest rates [N, K], by bisection on Q.

    Its dual in the price nu = gap'(Q) is exact, for the problem is convex in s^2.
    """
    weights = problem.instance.weights
    left, right = np.zeros(len(high)), np.ones(len(high))
    for _ in range(70):
        q = 0.5 * (left + right)
        nu = problem.stability.slope(q)[:, None]
        s = _answer(problem, factor, on, nu, low, high)
        more = np.square(s) @ weights > q
        left, right = np.where(more, q, left), np.where(more, right, q)
    values = []
    for q in (left, right):
        slope = problem.stability.slope(q)
        s = _answer(problem, factor, on, slope[:, None], low, high)
        values.append(
            _under(problem, factor, on, s) + problem.stability.value(q) + slope * (np.square(s) @ weights - q)
        )
    return np.asarray(np.maximum(*values))


def _under(problem: Problem, factor: FloatArray, on: FloatArray, s: FloatArray) -> FloatArray:
    """Underfitting at keep rates [N, K], with its weight. Shape [N]."""
    inst = problem.instance
    u = np.full(s.shape, inst.exclusion_penalty or 0.0)
    for d in np.flatnonzero(on):
        u[:, d] = factor[d] * problem.underfit.at(np.full(len(s), d), s[:, d])
    return np.asarray(inst.bound.underfit_weight * (u @ inst.weights))


def _answer(
    problem: Problem, factor: FloatArray, on: FloatArray, nu: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Keep rates that minimise A f u(s) + nu s^2 between low and high; 0 for a device left out."""
    a = problem.instance.bound.underfit_weight * factor
    if problem.underfit.name == "inverse-keep":
        with np.errstate(divide="ignore"):
            s = np.clip(np.cbrt(a / (2.0 * nu)), low, high)
    else:
        s = np.where(a > nu, high, low)
    return np.where(on, s, 0.0)


def _zoomed(problem: Problem, factor: FloatArray, on: FloatArray, low: FloatArray, high: FloatArray) -> float:
    """Least objective by grids of keep rates that zoom in; rows of caps that another row beats are left out."""
    inst, weights = problem.instance, problem.instance.weights
    high = np.unique(high, axis=0)
    beaten = np.array([np.any(np.all(high >= row, axis=1) & np.any(high > row, axis=1)) for row in high])
    out = np.where(on, 0.0, inst.exclusion_penalty or 0.0)

    def own(d: int, s: FloatArray) -> FloatArray:
        u = factor[d] * problem.underfit.at(np.full(len(s), d), s) if on[d] else np.full(s.shape, out[d])
        value = inst.bound.underfit_weight * weights[d] * u
        if problem.pooled:
            return np.asarray(value)
        square = np.zeros((len(weights), len(s)))
        square[d] = s * s if on[d] else 0.0
        return np.asarray(value + weights[d] * problem.stability.value(square.T)[:, d])

    best = np.inf
    for row in high[~beaten]:
        left, right = np.broadcast_to(low, row.shape).copy(), row.copy()
        points = 2001 if not problem.pooled else 400 if len(row) == 2 else 60
        for _ in range(8):
            grids = [np.linspace(a, b, points) for a, b in zip(left, right, strict=True)]
            values = [own(d, grid) for d, grid in enumerate(grids)]
            if problem.pooled:
                kept = sum(np.ix_(*(weights[d] * on[d] * np.square(g) for d, g in enumerate(grids))))
                whole = sum(np.ix_(*values)) + problem.stability.value(np.asarray(kept))
                at = np.unravel_index(int(np.argmin(whole)), whole.shape)
                best = min(best, float(whole[at]))
            else:
                at = tuple(int(np.argmin(v)) for v in values)
                best = min(best, float(sum(v[i] for v, i in zip(values, at, strict=True))))
            step = (right - left) / (points - 1)
            centre = np.array([grid[i] for grid, i in zip(grids, at, strict=True)])
            left, right = np.maximum(left, centre - 2 * step), np.minimum(right, centre + 2 * step)
            points = min(points, 41)
    return best


def _golden(problem: Problem, factor: FloatArray, on: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Keep rates that minimise each device's own terms, by golden section in s^2, in which they are convex."""
    a, b = np.broadcast_to(low**2, high.shape).copy(), high**2
    ratio = (np.sqrt(5.0) - 1.0) / 2.0

    def share(q: FloatArray) -> FloatArray:
        u = problem.underfit.value(np.sqrt(np.where(on, q, 1.0)))
        return np.asarray(problem.instance.bound.underfit_weight * factor * u + problem.stability.value(q))

    for _ in range(60):
        x, y = b - ratio * (b - a), a + ratio * (b - a)
        less = share(x) <= share(y)
        a, b = np.where(less, a, x), np.where(less, y, b)
    s = np.where(on, np.sqrt(0.5 * (a + b)), 0.0)
    for end in (np.broadcast_to(low, high.shape), high):
        s = np.where(on & (share(end**2) < share(s**2)), end, s)
    return s


def _own(problem: Problem, factor: FloatArray, on: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    s = _golden(problem, factor, on, low, high)
    return np.asarray(problem.stability.value(np.square(s)) @ problem.instance.weights)
