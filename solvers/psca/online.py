r"""P-SCA for rounds that follow each other: few steps from the last round, and a bound at P-SCA's own prices.

Any prices mu >= 0 of sub-carriers and nu = gap'(Q0) of the kept share bound the optimum
(solvers/ofdma/relaxation.py):

.. math:: \mathrm{gap}(Q_0) - \nu Q_0
          + \sum_k \min_S [\mathrm{share}_\nu(\mathrm{cap}_k(S)) + \mu(S)] - \sum_m \mu_m.

The prices of the relaxed sub-problem (penalty 0) nearly maximise it. So one pass of pricing, a few milliseconds,
certifies the allocation to within a few 1e-4, without a search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.ofdma.allocation import assignment_of
from edgealloc.solvers.ofdma.box import OfdmaBox, Region
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.device import EPS
from edgealloc.solvers.ofdma.pricing.mode import Ask, price_mode
from edgealloc.solvers.ofdma.start import price_guess
from edgealloc.solvers.psca.solve import PscaSettings, solve_psca
from edgealloc.solvers.psca.subproblem.route import Native, Step, SubProblem
from edgealloc.units import FloatArray

__all__ = ["BRISK", "bound_at_prices", "solve_online_psca"]

# Two relaxed steps, penalties that grow fast: a third of the sub-problems of plain P-SCA, and the polish makes up
# for it (benchmarks/online_latency.py); whatever is lost shows in the certified gap.
BRISK = PscaSettings(
    relax_steps=2, relax_tol=1e-5, gap=1e-6, penalty_start=0.5, penalty_steps=1, penalty_factor=8.0
)

_SEARCH_SHARE = 0.8  # of a time limit; the rest is for the bound
_STEP = 1e-5  # what pricing may leave undecided, relative to the objective
_MAX_WORK = 100_000  # nodes of one search in pricing before its root bound has to do


@dataclass(slots=True)
class _PriceKeeper:
    """The native route, remembering the column prices of the last sub-problem without penalty."""

    native: Native = field(default_factory=Native)
    prices: FloatArray | None = None

    def __call__(self, sub: SubProblem) -> Step:
        step = self.native(sub)
        if not np.any(sub.penalty):
            self.prices = step.prices
        return step


def solve_online_psca(problem: Problem, options: Options) -> Result:
    """Solve an OFDMA problem locally and bound it by one pass of pricing; other problems go to ``psca:bound``.

    Parameters
    ----------
    problem
        Any problem.
    options
        Limits, warm start, seed, callback.

    Returns
    -------
    Result
        As :func:`~edgealloc.solvers.psca.solve.solve_psca`, with a proven ``lower_bound``.
    """
    if problem.instance.access != "ofdma":
        return solve_psca(problem, options, "bound")
    control, route = Control(options), _PriceKeeper()
    limit = None if options.time_limit is None else _SEARCH_SHARE * options.time_limit
    result = solve_psca(problem, replace(options, time_limit=limit), "", BRISK, route)
    if result.allocation is None or route.prices is None:
        return result
    # One pass is short: it is made even when time is up, for an allocation without a bound is worth little.
    bound = bound_at_prices(problem, result.allocation, route.prices)
    message = result.message if bound > -math.inf else f"{result.message}; no bound for this problem"
    return replace(
        result,
        method="psca:online",
        lower_bound=min(bound, result.objective),
        seconds=control.seconds,
        message=message,
    )


def bound_at_prices(problem: Problem, near: Allocation, prices: FloatArray) -> float:
    """Proven lower bound of an OFDMA problem at prices of the sub-carriers.

    Parameters
    ----------
    problem
        An OFDMA problem.
    near
        An allocation near the optimum: nu is the slope of the stability term where it stands, and pricing starts
        from its sets. Any allocation within the budgets gives a valid bound.
    prices
        Prices of the sub-carriers; negative ones count as 0. Shape [M].

    Returns
    -------
    float
        A lower bound of G; ``-inf`` where there is none.
    """
    control = Control(Options())
    try:
        cell = OfdmaCell.of(problem)
    except EdgeallocError:  # a variant that column generation does not take
        return -math.inf
    plan = assignment_of(cell, near)
    if plan is None:
        return -math.inf
    prices = np.maximum(prices, 0.0)
    q = float(problem.instance.weights @ np.square(near.keep * near.selected))
    nu = cell.pools.slope(q)
    terms = [cell.pools.gap(q), -nu * q] if cell.pooled else []
    _guess, levels = price_guess(cell, plan, np.array([nu]))
    region = Region.of(cell, OfdmaBox())
    step = _STEP * cell.size / cell.devices
    for k in range(cell.devices):
        least = float(cell.out[k]) if region.out[k] else math.inf
        mu, fixed = prices[cell.order[k]], region.fixed[k][cell.order[k]]
        for i in range(cell.start[k], cell.start[k + 1]):
            mode = region.modes[i]
            if mode is None:
                continue
            ask = Ask(mu, fixed, nu, math.inf, step, 0.1 * step, _MAX_WORK)
            least = min(least, price_mode(mode, ask, float(levels[i]), control).bound)
        terms.append(least)
    terms += (-prices).tolist()
    # The sum is exact; each term carries its own margin but for the rounding of gap, slope and the sums of prices.
    return math.fsum(terms) - 64.0 * EPS * math.fsum(abs(term) for term in terms)
