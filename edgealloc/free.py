"""G_free: the least bound when nothing is scarce, the reference of the excess gap.

Only the ranges keep_min..keep_max remain; discrete levels are ignored (formulation, section 3). Of a
menu the row with the least underfitting counts, and a device may be left out where selection allows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgealloc.device import chosen_adapter
from edgealloc.units import FloatArray

if TYPE_CHECKING:
    from edgealloc.problem import Problem

__all__ = ["free_minimum"]

_GRID = 513  # samples of a curve's keep range before the best interval is refined


def free_minimum(problem: Problem) -> tuple[float, FloatArray]:
    """Least G without resource constraints and the keep rates that attain it (0 for a device left out).

    Exact for ``inverse-keep`` and ``perturbation``. For a curve under global pooling, whose problem is not
    convex, the value is that of the best point found and so never below the true minimum, which makes the
    reported excess gap no smaller than it is.

    Returns
    -------
    objective, keep
        Scalar and shape [K].
    """
    option = _best_option(problem)
    if problem.instance.common_keep:
        keep = _common_rate(problem, option)
    elif problem.pooled:
        keep = _global_pooling(problem)
    else:
        keep = _minimise_over_keep(problem, 0.0)
    return problem.objective(keep, keep > 0, option), keep


def _best_option(problem: Problem) -> NDArray[np.intp]:
    """Menu row with the least underfitting factor, 0 where there is no menu. Shape [K]."""
    inst = problem.instance
    rows = np.zeros(inst.num_devices, dtype=np.intp)
    for k, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            rows[k] = int(np.argmin([row.underfit_factor for row in menu]))
    return rows


def _factors(problem: Problem) -> FloatArray:
    return chosen_adapter(problem.instance, _best_option(problem)).underfit_factor


def _minimise_over_keep(problem: Problem, price: FloatArray | float) -> FloatArray:
    """Argmin over s in the keep range of ``A f u(s) + stability-or-price share``, per device; 0 if left out.

    ``price`` >= 0 is the price on S = s^2 under global pooling; ignored for device pooling, whose own
    stability term takes its place. Shape [K].
    """
    inst = problem.instance
    weight = inst.bound.underfit_weight * _factors(problem)

    def share(keep: FloatArray) -> FloatArray:
        square = np.square(keep)
        spread = price * square if problem.pooled else problem.stability.value(square)
        return np.asarray(weight * problem.underfit.value(keep) + spread)

    low, high = inst.keep_min, inst.keep_max
    if problem.underfit.name == "inverse-keep" and problem.pooled:
        with np.errstate(divide="ignore"):
            keep = np.clip(np.cbrt(np.divide(weight, 2.0 * np.asarray(price))), low, high)
    else:
        if not problem.underfit.log_convex:  # several minima: start from the best grid cell
            ticks = np.linspace(0.0, 1.0, _GRID)
            values = np.stack([share(low + tick * (high - low)) for tick in ticks])
            cell = np.argmin(values, axis=0)
            left = low + ticks[np.maximum(cell - 1, 0)] * (high - low)
            right = low + ticks[np.minimum(cell + 1, _GRID - 1)] * (high - low)
        else:
            left, right = low, high
        keep = _golden(share, left, right)
        for end in (low, high):  # golden section never returns an end itself
            keep = np.where(share(end) <= share(keep), end, keep)
    if inst.exclusion_penalty is not None:
        out = np.full_like(keep, inst.bound.underfit_weight * inst.exclusion_penalty)
        if not problem.pooled:
            out += problem.stability.value(np.zeros_like(keep))
        keep = np.where(share(keep) <= out, keep, 0.0)
    return np.asarray(keep)


def _golden(share: object, left: FloatArray, right: FloatArray) -> FloatArray:
    """Golden-section minimum of unimodal functions, all devices at once."""
    assert callable(share)
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    a, b = left.copy(), right.copy()
    x, y = b - ratio * (b - a), a + ratio * (b - a)
    fx, fy = share(x), share(y)
    for _ in range(42):  # 0.618^42 = 2e-9 of the range, below what a flat minimum resolves
        lower = fx <= fy
        a, b = np.where(lower, a, x), np.where(lower, y, b)
        x_new = b - ratio * (b - a)
        y_new = a + ratio * (b - a)
        x, y = x_new, y_new
        fx, fy = share(x), share(y)
    return np.asarray(np.where(fx <= fy, x, y))


def _common_rate(problem: Problem, option: NDArray[np.intp]) -> FloatArray:
    """One rate for all: a grid over the shared range, refined around its best point."""
    inst = problem.instance
    low, high = float(inst.keep_min.max()), float(inst.keep_max.min())
    everybody = np.ones(inst.num_devices)

    def value(keep: float) -> float:
        return problem.objective(keep * everybody, None, option)

    for _ in range(4):
        grid = np.linspace(low, high, 65)
        best = int(np.argmin([value(s) for s in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        keep = float(grid[best])
    alone = inst.exclusion_penalty is not None and problem.objective(0 * everybody, 0 * everybody > 0) < value(
        keep
    )
    return np.asarray((0.0 if alone else keep) * everybody)


def _global_pooling(problem: Problem) -> FloatArray:
    """Bisection on Q: the price gap'(Q) makes devices answer with sum w s^2, which falls as Q grows."""
    weights = problem.instance.weights
    low, high = 0.0, 1.0
    keep_low = keep_high = _minimise_over_keep(problem, float(problem.stability.slope(np.asarray(1.0))))
    for step in range(64):
        middle = 0.5 * (low + high) if step else 1.0
        keep = _minimise_over_keep(problem, float(problem.stability.slope(np.asarray(middle))))
        if float(weights @ np.square(keep)) >= middle:
            low, keep_high = middle, keep
            if step == 0:
                return keep
        else:
            high, keep_low = middle, keep
    # Where answers jump (perturbation, curves, selection), Q lies between two answers: mix their squares.
    square_low, square_high = np.square(keep_low), np.square(keep_high)
    q_low, q_high = float(weights @ square_low), float(weights @ square_high)
    candidates = [keep_low, keep_high]
    if q_high > q_low and problem.instance.exclusion_penalty is None:
        share = np.clip((low - q_low) / (q_high - q_low), 0.0, 1.0)
        mixed = np.sqrt(square_low + share * (square_high - square_low))
        candidates.append(np.clip(mixed, problem.instance.keep_min, problem.instance.keep_max))
    option = _best_option(problem)
    return min(candidates, key=lambda keep: problem.objective(keep, keep > 0, option))
