r"""Penalised successive convex approximation, method ``psca`` (docs/psca.md).

Binaries are relaxed and c (1 - c) is charged at a penalty that grows until they are binary. At an iterate two
things are not convex and are replaced by their tangents, which lie above: the penalty, and the logarithm of the
transmit power in the energy budget (perturbation and curves add their underfitting term). The sub-problem is
convex, its solution feasible, and the penalised objective does not increase at a fixed penalty:

    relax:      penalty 0, until the objective rests
    narrow:     levels and blocks shrink to the two neighbours of the relaxed answer, a binary each
    penalise:   a few steps, then a larger penalty, until all is binary
    polish:     exact keep rates, powers and clocks on the binary spectrum; repair and exchanges of sub-carriers
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Status
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ending import nobody, unsolved
from edgealloc.solvers.psca.bound import root_bound
from edgealloc.solvers.psca.loop import Search
from edgealloc.solvers.psca.model import Iterate, Model
from edgealloc.solvers.psca.rounding.deal import deal, whole_columns
from edgealloc.solvers.psca.rounding.finish import allocation_of, band_plan
from edgealloc.solvers.psca.settings import PscaSettings
from edgealloc.solvers.psca.subproblem.route import Native, Route, RouteError

__all__ = ["PscaSettings", "solve_psca", "solve_psca_plus"]


VARIANTS = ("bound", "cvxpy")
_KICKS = 4  # of psca+: times that half of the sub-carriers change hands at random before a polish
DIVE_NODES = 40  # of branch and bound, at the end of psca+ on one band
RESCUE_S = 10.0  # that branch and bound may take where no start led anywhere and there is no limit


def solve_psca(
    problem: Problem,
    options: Options | None = None,
    variant: str = "",
    settings: PscaSettings | None = None,
    route: Route | None = None,
) -> Result:
    """Solve a problem locally by penalised successive convex approximation.

    Parameters
    ----------
    problem
        Any problem.
    options
        Limits, seed, warm start, callback; ``rel_gap`` is not used, for nothing is proved.
    variant
        ``bound`` attaches a root dual bound, ``cvxpy`` takes the reference route; both with a ``+`` between.
    settings, route
        More than the variant says.

    Returns
    -------
    Result
        ``locally_solved`` with an integral allocation within all budgets, or ``no_solution``. The trace shows the
        penalised objective of the sub-problems.

    Raises
    ------
    InputError
        For an unknown variant.
    MissingPackageError
        For ``cvxpy`` without that package.
    """
    settings = settings or PscaSettings()
    return _run(problem, options, "psca", variant, settings, route)


def solve_psca_plus(problem: Problem, options: Options | None = None, variant: str = "") -> Result:
    """As :func:`solve_psca` from three starts, with knapsack rounding and local search: method ``psca+``.

    On one band (FDMA, blocks) that is not log-convex it ends with a few nodes of branch and bound.

    Parameters
    ----------
    problem
        Any problem.
    options
        Limits, seed, warm start, callback.
    variant
        As for :func:`solve_psca`.

    Returns
    -------
    Result
        As :func:`solve_psca`.

    Raises
    ------
    InputError
        For an unknown variant.
    MissingPackageError
        For ``cvxpy`` without that package.
    """
    return _run(problem, options, "psca+", variant, PscaSettings(search=True, starts=3), None)


def _run(
    problem: Problem,
    options: Options | None,
    family: str,
    variant: str,
    settings: PscaSettings,
    route: Route | None,
) -> Result:
    """Read the variant, choose the route, and solve under the options' clock.

    Raises
    ------
    InputError
        For an unknown variant.
    """
    words = [word for word in variant.split("+") if word]
    unknown = [word for word in words if word not in VARIANTS]
    if unknown:
        raise InputError("options", [Fault("options", "method", f"{family}:{variant}", ", ".join(VARIANTS))])
    if "bound" in words:
        settings = replace(settings, bound=True)
    if "cvxpy" in words and route is None:
        from edgealloc.solvers.psca.subproblem.reference import Reference

        route = Reference()
    with Control(options or Options()) as control:
        return _solve(problem, control, settings, route or Native(), ":".join([family, *words]))


def _solve(problem: Problem, control: Control, settings: PscaSettings, route: Route, name: str) -> Result:
    """The method from every start; the best allocation, with a root bound where one is asked for.

    A start ends where its sub-problems break down, without harm to the others. ``name`` is that of the method in
    results and snapshots.
    """
    model = Model.of(problem)
    start = model.start()
    best: tuple[float, Allocation, Search] | None = None
    message = "there is no start within every device's deadline and energy"
    if start is not None:
        message = "no start led to an allocation within the budgets"
        for number, at in enumerate(_starts(model, start, settings, control), start=1):
            search = Search(
                model, settings, control, route, at, name, price := _elastic(model), 1e6 * price, number
            )
            try:
                search.relax()
                relaxed = search.prices
                search.narrow()
                if not control.stopped():
                    search.penalise()
            except RouteError as error:
                message = str(error)
                continue
            found = _finish(model, search, settings)
            if found is not None and (best is None or found[0] < best[0]):
                search.prices = relaxed
                best = (*found, search)
            if control.stopped():
                break
    if best is None:
        message = f"stopped: {control.reason}" if control.reason else message
        rescued = _rescue(unsolved(problem, name, control, message=message), control)
        return replace(rescued, seconds=control.seconds, trace=tuple(control.trace))
    value, allocation, search = best
    if settings.search and not (model.binary or problem.structure.log_convex or control.stopped()):
        value, allocation = min((value, allocation), _dive(problem, allocation, control), key=lambda pair: pair[0])
    bound = -math.inf
    prices: dict[str, float] = {}
    if settings.bound and search.prices is not None:
        bound, prices = root_bound(problem, allocation, search.prices, control)
    binary = 4.0 * search.unbinary(search.at) / search.count()
    message = f"local solution: stationarity residual {search.residual:.1e}, integrality residual {binary:.1e}"
    if settings.bound and bound == -math.inf:
        message += "; no root bound for this problem"
    message = message if not control.reason else f"{message}; stopped: {control.reason}"
    return replace(
        unsolved(problem, name, control, min(bound, value), message),
        status=Status.LOCALLY_SOLVED,
        objective=value,
        allocation=allocation,
        iterations=len(control.trace),
        prices=prices,
    )


def _dive(problem: Problem, allocation: Allocation, control: Control) -> tuple[float, Allocation]:
    """The best allocation of a few nodes of branch and bound on a single band, started from a local one.

    On one band local optima differ in who keeps much and who keeps little; exchanges of spectrum do not mend it.
    """
    from edgealloc.solvers.exact import solve_bnb

    limit = control.options.time_limit
    left = None if limit is None else max(limit - control.seconds, 1e-3)
    options = Options(
        rel_gap=1e-4, time_limit=left, warm_start=allocation, callback=lambda seen: seen.nodes >= DIVE_NODES
    )
    found = solve_bnb(problem, options)
    return (math.inf, allocation) if found.allocation is None else (found.objective, found.allocation)


def _rescue(result: Result, control: Control) -> Result:
    """An allocation where no start led to one: of a few nodes of branch and bound, or with nobody where allowed.

    ``result`` says in its message why the starts ended.
    """
    from edgealloc.solvers.exact import solve_bnb

    problem = result.problem
    found: list[tuple[float, str, Allocation]] = []
    remedy = "allow more time or use an exact method"
    if problem.instance.exclusion_penalty is not None:
        empty = nobody(problem)
        found.append((problem.evaluate(empty).objective, "everybody is left out", empty))
    if not control.stopped():
        limit = control.options.time_limit
        left = RESCUE_S if limit is None else min(max(limit - control.seconds, 1e-3), RESCUE_S)
        options = Options(rel_gap=1e-4, time_limit=left, callback=lambda seen: seen.nodes >= DIVE_NODES)
        exact = solve_bnb(problem, options)
        if exact.allocation is not None:
            found.append((exact.objective, "this one is of a few nodes of branch and bound", exact.allocation))
        if exact.status is Status.INFEASIBLE:
            remedy = f"there is none, says an exact method: {exact.message}"
    if not found:
        return replace(result, message=f"{result.message}; {remedy}")
    value, how, allocation = min(found, key=lambda each: each[0])
    return replace(
        result,
        status=Status.LOCALLY_SOLVED,
        objective=value,
        allocation=allocation,
        message=f"{result.message}; {how}",
    )


def _elastic(model: Model) -> float:
    """A price of unsent payload above any multiplier of a feasible point, so that elastics vanish if they can."""
    inst = model.problem.instance
    factor = max((max(r.underfit_factor for r in m) for m in inst.adapter_options or () if m), default=1.0)
    steepest = np.clip(model.problem.underfit.inflection, inst.keep_min, inst.keep_max)
    steep = float(np.max(np.abs(model.problem.underfit.slope(steepest)) * inst.weights))
    return 10.0 * max(inst.bound.underfit_weight * max(factor, 1.0) * steep, 1e-6)


def _starts(model: Model, first: Iterate, settings: PscaSettings, control: Control) -> list[Iterate]:
    """The warm start if there is one, else equal shares; then random shares."""
    starts = [first]
    warm = control.options.warm_start
    if warm is not None and warm.keep.shape == first.keep.shape and (warm.owner is None) == (not model.binary):
        k = len(first.share)
        if warm.owner is not None:
            share = (warm.owner[None, :] == np.arange(k)[:, None]).astype(np.float64)
        else:
            assert warm.bandwidth_hz is not None
            share = (warm.bandwidth_hz / model.column_hz)[:, None]
        starts.insert(0, replace(first, share=0.8 * share + 0.2 * first.share))
        starts = starts[: max(settings.starts, 1)]
    rng = np.random.default_rng(control.options.seed)
    while len(starts) < settings.starts and not (model.problem.structure.log_convex):
        draw = rng.gamma(0.5, size=first.share.shape)
        draw = np.where(first.active[:, None], draw, 0.0)
        starts.append(replace(first, share=0.9 * (0.3 * first.share / 0.9 + 0.7 * draw / draw.sum(axis=0))))
    return starts


def _finish(model: Model, search: Search, settings: PscaSettings) -> tuple[float, Allocation] | None:
    """Polish: binary spectrum, best plan on it, allocation within all budgets, and its objective."""
    at = search.at
    if model.binary:
        control = search.control
        owner, plan = deal(model, whole_columns(np.where(at.active[:, None], at.share, 0.0)), control)
        if plan is None:
            return None
        rng = np.random.default_rng(control.options.seed)
        for _ in range(_KICKS if settings.search else 0):  # out of a local optimum, maybe into a better
            if control.stopped() or not plan.selected.any():
                break
            trial = owner.copy()
            columns = rng.choice(len(owner), size=min(max(2, len(owner) // 2), len(owner)), replace=False)
            trial[columns] = rng.choice(np.flatnonzero(plan.selected), size=len(columns))
            trial, other = deal(model, trial, control)
            if other is not None and other.value < plan.value:
                owner, plan = trial, other
        share = (owner[None, :] == np.arange(len(at.share))[:, None]).astype(np.float64)
    else:
        found = band_plan(model, at, settings.search, search.control)
        if found is None:
            return None
        share, plan = found
    allocation = allocation_of(model, share, plan)
    if allocation is None:
        return None
    return model.problem.evaluate(allocation).objective, allocation
