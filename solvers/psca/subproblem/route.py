"""Sub-problems of P-SCA and the native way to solve them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from edgealloc.errors import EdgeallocError
from edgealloc.solvers.base import Control
from edgealloc.solvers.psca import device as dev
from edgealloc.solvers.psca.model import Iterate, Model
from edgealloc.solvers.psca.subproblem.step import sub_problem
from edgealloc.solvers.row import PMAX
from edgealloc.units import FloatArray, IntArray

__all__ = ["Native", "Route", "RouteError", "Step", "SubProblem"]


class RouteError(EdgeallocError):
    """A sub-problem that a route could not solve; P-SCA goes on with its next start."""


@dataclass(frozen=True, slots=True, eq=False)
class SubProblem:
    """A convex sub-problem about an iterate.

    Parameters
    ----------
    model, at
        The problem as arrays, and the iterate.
    table
        Device table (:mod:`edgealloc.solvers.psca.device`). Shape [K, 19].
    penalty, lower, upper
        Linear cost of the shares and their box; ``inf`` in ``upper`` where the column sums suffice. Shapes [K, M].
    elastic
        Cost of a unit of what is not sent.
    tol
        Absolute duality gap asked for.
    control
        Asks to stop before that.
    """

    model: Model
    at: Iterate
    table: FloatArray
    penalty: FloatArray
    lower: FloatArray
    upper: FloatArray
    elastic: float
    tol: float
    control: Control


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Solution of a sub-problem.

    Parameters
    ----------
    next
        The next iterate.
    objective, gap, residual
        Value of the sub-problem, its duality gap, and the largest dual residual.
    prices
        Prices of the columns. Shape [M].
    """

    next: Iterate
    objective: float
    gap: float
    residual: float
    prices: FloatArray


class Route(Protocol):
    """A way to solve sub-problems."""

    def __call__(self, sub: SubProblem) -> Step:
        """Solve one.

        Raises
        ------
        RouteError
            When it cannot be solved.
        """
        ...


class Native:
    """The compiled interior-point method of :mod:`edgealloc.solvers.psca.subproblem.step`."""

    def __call__(self, sub: SubProblem) -> Step:
        """Solve one; the start is the iterate drawn into the interior.

        Raises
        ------
        RouteError
            When rounding or a device without a channel breaks it.
        """
        model, on = sub.model, np.flatnonzero(sub.at.active)
        joint = model.problem.instance.common_keep
        table = np.ascontiguousarray(sub.table[on])
        power = model.row(sub.at.option)[on, PMAX][:, None]
        inverse = np.ascontiguousarray(model.inverse_w[on] / power)
        order = np.ascontiguousarray(model.order[on])
        y, share = _interior(table, inverse, order, sub.at.y[on], sub.at.share[on], sub.lower[on], sub.upper[on])
        common = np.array([float(y[:, dev.X].min()) - 0.02 if joint else -1e3])
        if joint:
            common[0] = min(common[0], float(table[:, dev.X_LO].max()) - 1e-3)
        try:
            value, gap, residual, _steps, prices = sub_problem(
                table, model.pool(), inverse, order, np.ascontiguousarray(sub.penalty[on]),
                np.ascontiguousarray(sub.lower[on]), np.ascontiguousarray(sub.upper[on]),
                sub.elastic, joint, sub.tol, 100, y, share, common, sub.control.stopped,
            )  # fmt: skip
        except np.linalg.LinAlgError:  # a device without a channel leaves its step without a unique answer
            value, gap, residual, prices = np.nan, np.inf, np.inf, np.zeros(0)
        if not (np.isfinite(value) and np.all(np.isfinite(y)) and np.all(np.isfinite(share))):
            raise RouteError("the convex sub-problem broke down (is a device without a channel?)")
        if joint:
            y[:, dev.X] = common[0]
        full_y, full_share = sub.at.y.copy(), np.zeros_like(sub.at.share)
        full_y[on], full_share[on] = y, share
        return Step(replace(sub.at, y=full_y, share=full_share), value, gap, residual, prices)


def _interior(
    table: FloatArray,
    inverse: FloatArray,
    order: IntArray,
    y: FloatArray,
    share: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """A strictly feasible start near an iterate: less of everything, the elastic takes up what is not sent."""
    y = y.copy()
    top = np.where(np.isfinite(upper), upper, 1.0)
    share = 0.97 * share + 0.03 * 0.9 / len(share)
    share = np.clip(
        share, lower + 0.02 * (top - lower), np.where(np.isfinite(upper), top - 0.02 * (top - lower), np.inf)
    )
    share *= np.minimum(1.0, 0.995 / share.sum(axis=0))
    share = np.maximum(share, lower + 1e-4 * (top - lower))
    width = table[:, dev.X_HI] - table[:, dev.X_LO]
    y[:, dev.X] = np.clip(y[:, dev.X] - 0.02, table[:, dev.X_LO] + 0.01 * width, table[:, dev.X_HI] - 0.01 * width)
    y[:, dev.THETA] -= 0.02
    y[:, dev.PHI] = np.clip(y[:, dev.PHI], table[:, dev.PHI_LO] * 0.999, table[:, dev.PHI_LO] * 0.001)
    y[:, dev.POWER] = np.clip(y[:, dev.POWER], 1e-9, 0.999)
    table[:, dev.P_REF] = y[:, dev.POWER]
    h = np.empty(dev.NUM_H)
    for k in range(len(y)):
        y[k, dev.ELASTIC] = 0.0
        for _ in range(400):
            dev.constraints(table[k], inverse[k], order[k], y[k], share[k], -1e3, h)
            if h[dev.H_TIME] > 0.0 and h[dev.H_ENERGY] > 0.0:
                break
            y[k, dev.THETA] -= 0.02
            if h[dev.H_ENERGY] <= 0.0 and h[dev.H_TIME] > 0.0:
                y[k, dev.PHI] = max(y[k, dev.PHI] - 0.005, table[k, dev.PHI_LO] * 0.999)
        y[k, dev.ELASTIC] = max(0.0, -h[dev.H_SEND]) + 0.02
    return y, share
