"""The correction of LoRA-FAIR (arXiv 2411.14961), solved exactly: B turned towards the mean of the products.

Per layer, with dW the mean of the products and A, B mean factors, the server adds the dB of the least

    f(dB) = 1 - cos(dW, (B + dB) A) + lambda ||dB||_F^2.

The paper descends a gradient. Here A = U S V^T turns the problem into one over X = (B + dB) U S [n_out, r], whose
stationary points are x_j = (beta t_j + w_j x0_j) / (alpha + w_j), column by column, with T = dW V: two scalars.
What is left is a search over n = ||X||. Derivation, and what is proven: docs/merging.md. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.models.exchange.wire import WireArray
from edgealloc.units import FloatArray

__all__ = ["fair_b", "fair_objective"]

_WEAKEST, _STRONGEST = 1e-20, 1e20  # of lambda ||B||^2: below it the limit of none, above it dB = 0
_LEAST = 1e-10  # of n, relative to the largest that it can be
_POINTS = 121  # of the first scan over n
_CELL = 17  # of those that follow, in the cell that was chosen
_ZOOMS = 14  # 16^14 is above the relative accuracy of a double
_NEWTON = 60  # steps; from the left of a concave function, so they cannot overshoot


def fair_objective(target: WireArray, a: WireArray, b: WireArray, change: WireArray, weight: float) -> float:
    """Value of what the correction minimises.

    Parameters
    ----------
    target
        Mean product dW. Shape [n_out, n_in].
    a, b
        Mean factors. Shapes [r, n_in] and [n_out, r].
    change
        dB. Shape [n_out, r].
    weight
        lambda >= 0.

    Returns
    -------
    float
        f(dB), without a unit; nan where one of the two products is zero, for then there is no angle.
    """
    product = (b + change) @ a
    norms = float(np.linalg.norm(target) * np.linalg.norm(product))
    cosine = float(np.sum(target * product)) / norms if norms > 0.0 else np.nan
    return 1.0 - cosine + weight * float(np.sum(change**2))


def fair_b(target: WireArray, a: WireArray, b: WireArray, weight: float) -> WireArray:
    """Return B + dB with dB = argmin 1 - cos(target, (B + dB) A) + weight ||dB||^2.

    The cosine knows no length, so B is turned and shortened, never lengthened: ||B + dB||^2 = <B + dB, B>.

    Parameters
    ----------
    target
        Mean product dW. Shape [n_out, n_in].
    a, b
        Mean factors. Shapes [r, n_in] and [n_out, r].
    weight
        lambda >= 0; at 0 the limit from above, the multiple of the least-squares solution that is nearest to B.

    Returns
    -------
    array
        B + dB, in double precision. B itself where there is nothing to turn to: a product that is zero, a target
        at right angles to all that A spans, or no minimum (only an infimum, as B shrinks to nothing). nan where a
        number given is not finite.

    Raises
    ------
    ValueError
        For a weight below 0, under which there is no least value.
    """
    if weight < 0.0:
        raise ValueError(f"fair_lambda {weight}: must be at least 0")
    wide = np.array(b, dtype=np.float64)
    turned = _turned(target, a, wide, weight)
    return wide if turned is None else turned


def _turned(target: WireArray, a: WireArray, b: FloatArray, weight: float) -> FloatArray | None:
    """The minimiser; None where B stays. All is brought to length one first, so no square over- or underflows."""
    units = [float(np.max(np.abs(array), initial=0.0)) for array in (target, a, b)]
    if not np.all(np.isfinite([*units, weight])):
        return np.full_like(b, np.nan)
    if not all(units):
        return None
    u, s, v = np.linalg.svd(np.asarray(a, dtype=float) / units[1], full_matrices=False)
    rank = int(np.sum(s > s[0] * max(a.shape) * np.finfo(float).eps))
    u, s, v = u[:, :rank], s[:rank] / s[0], v[:rank]
    inside = (b / units[2]) @ u  # B in the directions that A has; the others change nothing but the penalty
    size = float(np.linalg.norm(inside))
    wanted = (np.asarray(target, dtype=float) / units[0]) @ v.T
    length = float(np.linalg.norm(np.asarray(target, dtype=float) / units[0]))
    if size == 0.0 or float(np.linalg.norm(wanted)) <= length * max(a.shape) * np.finfo(float).eps:
        return None
    t, x0 = wanted / length, inside / size * s
    strength = float(weight) * (size * units[2]) * (size * units[2])  # no square, which would be infinite before
    if strength > _STRONGEST:
        return None
    if strength < _WEAKEST:
        change = _limit(t, x0, s)
    else:
        sums = _Sums(np.sum(t**2, axis=0), np.sum(t * x0, axis=0), np.sum(x0**2, axis=0), 2.0 * strength / s**2)
        change = _minimiser(sums, t, x0)
    return None if change is None else b + (change / s) @ u.T * (size * units[2])


def _limit(t: FloatArray, x0: FloatArray, s: FloatArray) -> FloatArray | None:
    """X - X0 as lambda falls to zero: the multiple of T that is nearest to X0 in units of B."""
    share = float(np.sum(t * x0 / s**2)) / float(np.sum((t / s) ** 2))
    return share * t - x0 if share > 0.0 else None


@dataclass(frozen=True, slots=True)
class _Sums:
    """All that the search needs: per column ||t||^2, <t, x0>, ||x0||^2 and the penalty w. Shapes [r]."""

    tt: FloatArray
    tx: FloatArray
    xx: FloatArray
    w: FloatArray

    def multipliers(self, n: FloatArray) -> FloatArray:
        """Alpha for the least f at ||X|| = n, by Newton steps on 1 / ||x(alpha)||, a concave function. [N]."""
        beta = 1.0 / n[:, None]
        q = np.maximum(beta**2 * self.tt + 2.0 * beta * self.w * self.tx + self.w**2 * self.xx, 0.0)
        low = np.sqrt(q) / n[:, None] - self.w * (1.0 + 4.0 * np.finfo(float).eps)
        alpha = np.asarray(np.max(low, axis=1))
        for _ in range(_NEWTON):
            shift = alpha[:, None] + self.w
            part = np.divide(q, shift**2, out=np.zeros_like(q), where=q > 0.0)
            square = np.sum(part, axis=1)
            slope = np.sum(np.divide(part, shift, out=np.zeros_like(q), where=q > 0.0), axis=1)
            step = np.divide(square * (np.sqrt(square) / n - 1.0), slope, out=np.zeros_like(n), where=slope > 0.0)
            alpha = alpha + np.maximum(step, 0.0)
            if np.all(step <= 1e-15 * (np.abs(alpha) + np.min(self.w))):
                break
        return alpha

    def at(self, n: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Alpha, the least f at ||X|| = n, and the sign with which that f falls in n. Shapes [N]."""
        alpha = self.multipliers(n)
        beta, a, w = 1.0 / n[:, None], alpha[:, None], self.w
        away = (beta**2 * self.tt - 2.0 * a * beta * self.tx + a**2 * self.xx) / (a + w) ** 2  # ||x - x0||^2
        along = (beta * self.tt + w * self.tx) / (a + w)  # <t, x>
        # ||B'||^2 - <B', B> in units of w: zero where f is stationary in n, negative where it falls
        circle = np.sum(
            w * (beta**2 * self.tt + beta * (w - a) * self.tx - a * w * self.xx) / (a + w) ** 2, axis=1
        )
        return alpha, 1.0 - np.sum(along, axis=1) / n + 0.5 * np.sum(w * away, axis=1), -np.sign(circle)


def _minimiser(sums: _Sums, t: FloatArray, x0: FloatArray) -> FloatArray | None:
    """X - X0 of the lowest minimum; None where none is below that of dB = 0.

    f is least over every sphere ||X|| = n (a trust-region problem, solved globally); over n it is scanned, and
    each change from falling to rising is a minimum.
    """
    now = float(np.sqrt(np.sum(sums.xx)))
    floor = min(_LEAST, 1e-3 * float(np.sum(sums.w * np.abs(sums.tx)) / np.sum(sums.w * sums.tt)))
    n = np.unique(np.concatenate([np.geomspace(max(floor, 1e-100), 1.0, _POINTS), [now], [1.0 + 1e-6]]))
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        _, value, falls = sums.at(n)
        ends = [i for i in range(len(n) - 1) if falls[i] > 0 >= falls[i + 1]]
        if not ends:
            return None
        best = min(ends, key=lambda i: min(value[i], value[i + 1]))
        low, high = n[best], n[best + 1]
        for _ in range(_ZOOMS):
            inner = np.linspace(low, high, _CELL)
            _, _, falls = sums.at(inner)
            cell = int(np.argmax(falls[1:] <= 0))  # the first change, of those in the cell
            low, high = inner[cell], inner[cell + 1]
            if not low < high:
                break
        (alpha,), (least,), _ = sums.at(np.array([high]))
    if not least < 1.0 - float(np.sum(sums.tx)) / now:
        return None
    return np.asarray((t / high - alpha * x0) / (alpha + sums.w))
