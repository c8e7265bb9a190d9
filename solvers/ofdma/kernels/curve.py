"""The objective of an OFDMA problem as one vector for the compiled kernels; curves as cubic pieces.

A curve is its own PCHIP interpolation. Of a user's function it is only known that it falls: it is replaced by
monotone cubic pieces through many of its values, lowered until they stay below the function between the points of
a much finer grid, whatever it does there. Bounds are those of this model; allocations are valued by the function.
"""

from __future__ import annotations

import numpy as np

from edgealloc.formulation.bound import UnderfitTerm
from edgealloc.formulation.logistic import Logistic
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.ofdma.kernels.share import BENT, CURVE, LOGISTIC
from edgealloc.units import FloatArray, IntArray

__all__ = ["objective_vector"]

_PIECES, _FINE = 512, 8192  # cubic pieces of a user's function, and grid points in each
_ROUNDING = 2.0**-48  # of the function's values and of the cubics
_STEEP = 64.0  # a steeper logistic term feels the rounding of s^2


def objective_vector(problem: Problem) -> tuple[FloatArray, IntArray]:
    """The vector of :mod:`edgealloc.solvers.ofdma.kernels.share`, and where in it each device's term begins.

    Returns
    -------
    objective, begin
        Shape [8 + 5 P], P = 0 without a curve, one such after another where devices have different terms; [K].
    """
    vectors: list[FloatArray] = []
    begin, size = np.zeros(problem.instance.num_devices, dtype=np.intp), 0
    for term, mine in problem.underfit.parts(np.arange(problem.instance.num_devices)):
        vectors.append(_vector(problem, term))
        begin[mine] = size
        size += len(vectors[-1])
    return np.concatenate(vectors), begin


def _vector(problem: Problem, underfit: UnderfitTerm) -> FloatArray:
    """The vector of one underfitting term. Shape [8 + 5 P]."""
    name, term = underfit.name, problem.stability
    kind = {"inverse-keep": 0.0, "perturbation": 1.0}.get(name, CURVE)
    knots, cubics = (np.zeros(1), np.zeros((4, 0)))
    logistic = underfit.value
    if isinstance(logistic, Logistic):
        convex = logistic.inflection(2.0) <= problem.instance.keep_min.min() and logistic.steepness <= _STEEP
        kind = LOGISTIC if convex else BENT
        # two pieces, concave and convex in s, with room for five numbers each
        knots = np.array([-1.0, logistic.inflection(1.0), np.inf])
        cubics = np.array([[logistic.half, logistic.steepness], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    elif kind == CURVE:
        knots, cubics = _pieces(problem, underfit)
    slope = 2.0 * term.sparsity
    head = [
        kind,
        float(problem.objective.own),
        term.base,
        term.spread,
        term.curvature,
        slope,
        cubics.shape[1],
    ]
    return np.concatenate((np.array(head), knots, cubics.ravel()))


def _pieces(problem: Problem, underfit: UnderfitTerm) -> tuple[FloatArray, FloatArray]:
    """Knots [P + 1] and coefficients c0 to c3 [4, P] of cubic pieces nowhere above the underfitting term."""
    if underfit.name == "curve":
        curve = underfit.value
        return np.asarray(curve.x), np.asarray(curve.c)[::-1]  # type: ignore[attr-defined]
    from scipy.interpolate import PchipInterpolator

    inst = problem.instance
    low, high = float(inst.keep_min.min()), float(inst.keep_max.max())
    if low == high:
        only = float(underfit.value(np.array([low]))[0])
        return np.array([low, low + 1.0]), np.array([[only], [0.0], [0.0], [0.0]])
    knots = np.r_[np.geomspace(low, high, _PIECES + 1)[:-1], high]
    knots[0] = low
    values = np.minimum.accumulate(np.asarray(underfit.value(knots), dtype=np.float64))
    model = PchipInterpolator(knots, values)
    excess = np.empty(_PIECES)
    for i in range(_PIECES):
        fine = np.linspace(knots[i], knots[i + 1], _FINE + 1)
        truth = np.asarray(underfit.value(fine), dtype=np.float64)
        # on each step of the fine grid the model is at most its left value, the function at least its right one
        excess[i] = np.max(model(fine[:-1]) - truth[1:])
    excess = np.maximum(excess, 0.0) + _ROUNDING * np.abs(values[:-1])
    at_knot = np.maximum(np.r_[excess[0], excess], np.r_[excess, excess[-1]])
    cubics = np.asarray(model.c)[::-1].copy()
    cubics[0] -= at_knot[:-1]
    cubics[1] -= np.diff(at_knot) / np.diff(knots)
    return knots, cubics
