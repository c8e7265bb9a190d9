r"""Best prices for devices that each pick one of finitely many columns.

With columns (cost, bandwidth, kept share) per device, prices mu per Hz and nu = gap'(Q0) give the dual value

.. math:: D(\mu, Q_0) = \mathrm{gap}(Q_0) - \nu Q_0 - \mu B + \sum_k \min_j (c_j + \mu b_j + \nu q_j),

a lower bound for *any* mu >= 0 and Q0 in [0, 1] (weak duality, and the tangent of the convex gap). D is concave
in (mu, nu) and piecewise smooth: :func:`search_prices` maximises it by cutting lines, in mu for fixed nu
and around that in nu, where gap(Q0) - nu Q0 is kept exactly as the conjugate that it is.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.formulation.problem import Problem
from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.separable.priced import Priced
from edgealloc.units import FloatArray, IntArray

__all__ = ["search_prices"]

_ROUNDING = 64.0 * 2.0**-53


def stability_constants(problem: Problem) -> FloatArray:
    """(base, spread, curvature, sparsity, scale) of the pooled stability term; zeros for device pooling. [5]."""
    if not problem.pooled:
        return np.zeros(5)
    t = problem.stability
    return np.array([t.base, t.spread, t.curvature, t.sparsity, float(t.scale)])


def search_prices(
    start: IntArray,
    columns: tuple[FloatArray, FloatArray, FloatArray],
    budget_hz: float,
    term: FloatArray,
    guess: tuple[float, float],
    tolerance: float,
    enough: float,
) -> Priced:
    """Maximise the dual value.

    Parameters
    ----------
    start
        First column of each device, and the number of columns at the end. Shape [K + 1].
    columns
        Cost, bandwidth in Hz, kept share. Shape [N] each.
    budget_hz
        B.
    term
        See :func:`stability_constants`. Shape [5].
    guess
        (mu, Q0) to start from.
    tolerance
        Absolute error of the maximum at which to stop.
    enough
        A bound at which to stop early.
    """
    cost, band, kept = columns
    count = len(start) - 1
    picks, share, found = np.zeros((4, count), dtype=np.intp), np.zeros(4), np.zeros(2)
    feasible = _search(start, cost, band, kept, budget_hz, term, guess, tolerance, enough, picks, share, found)
    mu, q = float(found[0]), float(found[1])
    nu = gap_slope(term, q)
    least = np.empty(count)
    _least(start, cost, band, kept, mu, nu, least)
    if not feasible:
        return Priced(math.inf, mu, q, nu, least, picks, share)
    gap = gap_value(term, q)
    # every column is a sum of non-negative terms and a few negative line values: bound their sizes together
    size = gap + 2.0 * nu + mu * budget_hz * 2.0 + float(np.sum(np.abs(least))) + 2.0 * _largest(start, cost)
    bound = math.fsum((gap, -nu * q, -mu * budget_hz, math.fsum(least))) - _ROUNDING * size
    return Priced(bound, mu, q, nu, least, picks, share)


def _largest(start: IntArray, cost: FloatArray) -> float:
    return float(np.sum(np.maximum.reduceat(np.abs(cost), start[:-1])))


@kernel
def gap_value(term, q):  # type: ignore[no-untyped-def]
    """gap(Q)."""
    if term[4] <= 0.0:
        return 0.0
    y = term[2] + 2.0 * term[3] * max(1.0 - q, 0.0)
    return math.sqrt((term[0] + term[1] / y) * term[4])


@kernel
def gap_slope(term, q):  # type: ignore[no-untyped-def]
    """gap'(Q)."""
    root = gap_value(term, q)
    if root == 0.0:
        return 0.0
    y = term[2] + 2.0 * term[3] * max(1.0 - q, 0.0)
    return term[3] * term[1] * term[4] / (y * y * root)


@kernel(inner=True)
def _tangent_point(term, nu, low, high):  # type: ignore[no-untyped-def]
    """Q0 in [low, high] with gap'(Q0) = nu, by bisection; gap' does not fall."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        if gap_slope(term, middle) < nu:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


@kernel
def _least(start, cost, band, kept, mu, nu, out):  # type: ignore[no-untyped-def]
    """Least priced cost of each device.

    Parameters
    ----------
    start
        First column of each device, and the end. Shape [K + 1].
    cost, band, kept
        Columns: cost, bandwidth in Hz, kept share. Shapes [N].
    mu, nu : numbers
        Prices per Hz and per unit of the kept share.
    out
        Filled. Shape [K].
    """
    for k in range(len(start) - 1):
        best = math.inf
        for j in range(start[k], start[k + 1]):
            best = min(best, cost[j] + mu * band[j] + nu * kept[j])
        out[k] = best


@kernel(inner=True)
def _respond(start, cost, band, kept, mu, nu, pick):  # type: ignore[no-untyped-def]
    """Every device's best column at prices: sums of priced cost, bandwidth (Hz) and kept share.

    Parameters
    ----------
    start
        First column of each device, and the end. Shape [K + 1].
    cost, band, kept
        Columns: cost, bandwidth in Hz, kept share. Shapes [N].
    mu, nu : numbers
        Prices per Hz and per unit of the kept share.
    pick
        Filled with the columns picked. Shape [K].
    """
    value, used, square = 0.0, 0.0, 0.0
    for k in range(len(start) - 1):
        best, at = math.inf, start[k]
        for j in range(start[k], start[k + 1]):
            priced = cost[j] + mu * band[j] + nu * kept[j]
            if priced < best:
                best, at = priced, j
        pick[k] = at
        value += best
        used += band[at]
        square += kept[at]
    return value, used, square


@kernel(inner=True)
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Copy ``source`` to ``target``, both [N].

    Numba's own assignment brings formatted messages along, seconds to compile.
    """
    for k in range(source.size):
        target[k] = source[k]


@kernel(inner=True)
def _copy_both(source, target):  # type: ignore[no-untyped-def]
    """Copy two rows, [2, N]."""
    for i in range(2):
        _copy(source[i], target[i])


@kernel(inner=True)
def _best_mu(start, cost, band, kept, budget, nu, guess, tolerance, pick):  # type: ignore[no-untyped-def]
    """Maximise over mu for fixed nu by intersecting the lines on either side of the maximum.

    Parameters
    ----------
    start
        First column of each device, and the end. Shape [K + 1].
    cost, band, kept
        Columns: cost, bandwidth in Hz, kept share. Shapes [N].
    budget, nu, guess, tolerance : numbers
        Bandwidth in Hz, price of the kept share, mu to start from, absolute error of the maximum.
    pick
        Filled with the columns picked on the left and on the right. Shape [2, K].

    Returns
    -------
    mu, value, kept, mix
        The price per Hz, the value there, the mixed kept share, and how much the right side counts in it.
    """
    trial = np.empty(len(start) - 1, np.intp)
    mu = guess if guess > 0.0 else 1e-3 / budget
    value, used, square = _respond(start, cost, band, kept, mu, nu, pick[0])
    left = right = mu
    v_left = v_right = value - mu * budget
    g_left = g_right = used - budget
    q_left = q_right = square
    _copy(pick[0], pick[1])
    factor = 1.1
    if g_left > 0.0:
        while g_right > 0.0:  # terminates: the least bandwidths fit
            left, v_left, g_left, q_left = right, v_right, g_right, q_right
            _copy(pick[1], pick[0])
            right *= factor
            factor = min(factor * factor, 1e3)
            if right * max(budget, 1.0) > 1e290:  # what it prices is to be added up
                return left, v_left, q_left, 0.0
            value, used, q_right = _respond(start, cost, band, kept, right, nu, pick[1])
            v_right, g_right = value - right * budget, used - budget
    else:
        while g_left <= 0.0:
            right, v_right, g_right, q_right = left, v_left, g_left, q_left
            _copy(pick[0], pick[1])
            left = left / factor if left > 1e-18 / budget else 0.0
            factor = min(factor * factor, 1e3)
            value, used, q_left = _respond(start, cost, band, kept, left, nu, pick[0])
            v_left, g_left = value - left * budget, used - budget
            if left == 0.0 and g_left <= 0.0:  # spectrum is not scarce
                _copy(pick[0], pick[1])
                return 0.0, v_left, q_left, 0.0
    best, best_mu = (v_left, left) if v_left >= v_right else (v_right, right)
    for step in range(200):
        new = (v_right - g_right * right - v_left + g_left * left) / (g_left - g_right)
        model = v_left + g_left * (new - left)
        if model - best <= tolerance or not left < new < right:
            break
        if step % 4 == 3:  # lines can creep from one side only
            new = 0.5 * (left + right)
            model = math.inf
        value, used, square = _respond(start, cost, band, kept, new, nu, trial)
        v_new, g_new = value - new * budget, used - budget
        if v_new > best:
            best, best_mu = v_new, new
        if g_new > 0.0:
            left, v_left, g_left, q_left = new, v_new, g_new, square
            _copy(trial, pick[0])
        else:
            right, v_right, g_right, q_right = new, v_new, g_new, square
            _copy(trial, pick[1])
        if v_new >= model - tolerance:
            break
    mix = g_left / (g_left - g_right) if g_left > g_right else 0.0
    return best_mu, best, (1.0 - mix) * q_left + mix * q_right, mix


@kernel
def _search(start, cost, band, kept, budget, term, guess, tolerance, enough, picks, share, found):  # type: ignore[no-untyped-def]
    """Kernel of :func:`search_prices`; False when no choice of columns fits the budget.

    Parameters
    ----------
    start
        First column of each device, and the end. Shape [K + 1].
    cost, band, kept
        Columns: cost, bandwidth in Hz, kept share. Shapes [N].
    budget, tolerance, enough : numbers
        Bandwidth in Hz, absolute error of the maximum, a bound at which to stop early.
    term, guess
        Constants of the stability term (:func:`stability_constants`); the pair (mu, Q0) to start from. Shapes [5],
        [2].
    picks, share, found
        Filled: columns picked on the four sides, how much each counts, and (mu, Q0). Shapes [4, K], [4], [2].
    """
    least = 0.0
    for k in range(len(start) - 1):
        smallest = math.inf
        for j in range(start[k], start[k + 1]):
            smallest = min(smallest, band[j])
        least += smallest
    if least > budget * (1.0 + 1e-12):
        return False
    inner = 0.25 * tolerance
    if gap_slope(term, 1.0) == 0.0:
        mu, _best, _q, mix = _best_mu(start, cost, band, kept, budget, 0.0, guess[0], inner, picks[:2])
        share[0], share[1] = 1.0 - mix, mix
        _copy_both(picks[:2], picks[2:])
        found[0], found[1] = mu, 0.0
        return True
    q = min(max(guess[1], 0.0), 1.0)
    mu = guess[0]
    best = -math.inf
    have_left, have_right = False, False
    nu_left, nu_right, v_left, v_right, k_left, k_right = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    q_low, q_high = 0.0, 1.0
    mix_left, mix_right = 0.0, 0.0
    two = np.empty((2, len(start) - 1), np.intp)
    for step in range(60):
        nu = gap_slope(term, q)
        mu, value, square, mix = _best_mu(start, cost, band, kept, budget, nu, mu, inner, two)
        dual = gap_value(term, q) - nu * q + value
        if dual > best:
            best = dual
            found[0], found[1] = mu, q
        if square >= q:  # the optimum is at this nu or a larger one
            have_left = True
            nu_left, v_left, k_left, mix_left, q_low = nu, value, square, mix, q
            _copy_both(two, picks[:2])
        else:
            have_right = True
            nu_right, v_right, k_right, mix_right, q_high = nu, value, square, mix, q
            _copy_both(two, picks[2:])
        if best >= enough:
            break
        if not (have_left and have_right):
            if square == q or (have_left and q >= 1.0) or (have_right and q <= 0.0):
                break
            q = min(max(square, 0.0), 1.0)  # the answer at one side brackets the optimum from the other
            continue
        # maximise gap(Q) - nu Q + min of the two lines over nu
        cross = (
            (v_right - k_right * nu_right - v_left + k_left * nu_left) / (k_left - k_right)
            if k_left > k_right
            else nu_left
        )
        if gap_slope(term, k_left) <= cross:
            new = k_left
        elif gap_slope(term, k_right) >= cross:
            new = k_right
        else:
            new = _tangent_point(term, cross, q_low, q_high)
        new = min(max(new, q_low), q_high)
        at = gap_slope(term, new)
        model = (
            gap_value(term, new)
            - at * new
            + min(v_left + k_left * (at - nu_left), v_right + k_right * (at - nu_right))
        )
        if model - best <= 0.5 * tolerance or q_high - q_low <= 1e-15:
            break
        q = new if step % 5 != 4 else 0.5 * (q_low + q_high)
    if have_left and have_right:
        weight = (found[1] - k_right) / (k_left - k_right) if k_left > k_right else 0.5
        weight = min(max(weight, 0.0), 1.0)
    else:
        weight = 1.0 if have_left else 0.0
        if have_left:
            _copy_both(picks[:2], picks[2:])
        else:
            _copy_both(picks[2:], picks[:2])
    share[0], share[1] = weight * (1.0 - mix_left), weight * mix_left
    share[2], share[3] = (1.0 - weight) * (1.0 - mix_right), (1.0 - weight) * mix_right
    return True
