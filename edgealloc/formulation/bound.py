r"""The upper bound of the generalisation error (docs/model.md, *What is minimised*).

.. math:: G(s) = A \sum_k w_k\, \phi_k\, u(s_k) + \mathrm{gap}(s)

``u`` is the underfitting term: dropping more makes the empirical error grow. ``gap`` is the
overfitting term from pointwise hypothesis stability under sparsity regularisation (LoRA Dropout,
arXiv 2404.09610, Theorem 4.4). ``phi_k`` is the factor of the adapter option, 1 without a menu.

Write ``S_k = s_k^2`` and ``Q = sum_k w_k S_k``, the expected share of entries kept in the product BA.
With ``a = C^2``, ``c = 24 C eta^2`` and ``y = Lam + 2 lam (1 - Q)`` the stability term is
``sqrt((a + c / y) / (2 n delta))``. It increases in Q and is convex in Q (docs/mathematics.md, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.spec import BoundSpec
from edgealloc.formulation.logistic import Logistic
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["DeviceTerms", "StabilityTerm", "UnderfitTerm", "device_terms", "dropped_of", "underfit_term"]


@dataclass(frozen=True, slots=True)
class UnderfitTerm:
    """The underfitting term u(s) with its derivative and what is known of its shape.

    Parameters
    ----------
    name
        ``inverse-keep``, ``perturbation``, ``curve``, ``logistic``, ``by device`` or ``custom``.
    value, slope
        u(s) and du/ds, functions of arrays of keep rates in (0, 1], any shape; u is not increasing.
    log_convex
        Whether u is convex as a function of log s, which makes continuous FDMA a convex problem.
    square_convex
        Whether u is convex as a function of s^2, which makes the problem without resources convex.
    reason
        Why, in one sentence.
    inflection
        Keep rate of the steepest fall, of each device (shape [K]) where they differ, as far as one is known; 0
        where it falls less and less.
    """

    name: str
    value: Callable[[FloatArray], FloatArray]
    slope: Callable[[FloatArray], FloatArray]
    log_convex: bool
    square_convex: bool
    reason: str
    inflection: float | FloatArray = 0.0

    def at(self, device: IntArray, keep: FloatArray) -> FloatArray:
        """The term of devices, shape [N], at keep rates, shape [N]; all have the same but with ``by device``."""
        if isinstance(self.value, DeviceTerms):
            return self.value.at(device, keep)
        return np.asarray(self.value(keep))

    def take(self, device: IntArray) -> UnderfitTerm:
        """The term of some of the devices only, shape [N], as :meth:`Instance.take` takes them."""
        if not isinstance(self.value, DeviceTerms):
            return self
        some = DeviceTerms(self.value.terms, self.value.which[device])
        bends = np.array([term.inflection for term in some.terms])[some.which]
        return replace(self, value=some, slope=some.slope, inflection=bends)

    def parts(self, device: IntArray) -> list[tuple[UnderfitTerm, BoolArray]]:
        """The terms that devices, shape [N], have, and which of them have each, shape [N]."""
        if not isinstance(self.value, DeviceTerms):
            return [(self, np.ones(len(device), dtype=bool))]
        which = self.value.which[device]
        return [(self.value.terms[i], which == i) for i in np.unique(which)]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTerms:
    """Underfitting terms of devices that differ; call it for their values at keep rates [..., K].

    Parameters
    ----------
    terms
        The different terms.
    which
        The one of each device. Shape [K].
    """

    terms: tuple[UnderfitTerm, ...]
    which: IntArray

    def __call__(self, keep: FloatArray) -> FloatArray:
        """Values at keep rates, the last axis devices. Same shape."""
        return self._spread("value", np.arange(len(self.which)), np.asarray(keep))

    def at(self, device: IntArray, keep: FloatArray) -> FloatArray:
        """Values of devices at keep rates. Shapes [N]."""
        return self._spread("value", device, keep)

    def slope(self, keep: FloatArray) -> FloatArray:
        """Derivatives at keep rates, the last axis devices. Same shape."""
        return self._spread("slope", np.arange(len(self.which)), np.asarray(keep))

    def _spread(self, name: str, device: IntArray, keep: FloatArray) -> FloatArray:
        found, which = np.empty(keep.shape), self.which[device]
        for i in np.unique(which):
            mine = which == i
            found[..., mine] = getattr(self.terms[i], name)(keep[..., mine])
        return found


def _inverse_keep(keep: FloatArray) -> FloatArray:
    return np.asarray((1.0 - keep) / keep)  # 1 / keep - 1 cancels where next to nothing is dropped


def _inverse_keep_slope(keep: FloatArray) -> FloatArray:
    return np.asarray(-1.0 / np.square(keep))


def dropped_of(keep: FloatArray) -> FloatArray:
    """1 - s^2 of keep rates, which cancels where next to nothing is dropped. Same shape."""
    return np.asarray((1.0 - keep) * (1.0 + keep))


def _perturbation_slope(keep: FloatArray) -> FloatArray:
    return np.asarray(-2.0 * np.asarray(keep))


def underfit_term(spec: BoundSpec, low: float = 0.0) -> UnderfitTerm:
    """The underfitting term that a bound specification names, for keep rates from ``low`` on.

    Sources: ``inverse-keep`` is the gradient-variance factor of Federated Dropout (arXiv 2501.00379);
    ``perturbation`` is ``E||drop(BA) - BA||^2 / ||BA||^2`` for unscaled masks (docs/mathematics.md);
    ``curve`` interpolates measured points by monotone cubics (PCHIP); ``logistic`` is what is left to learn after
    so many rounds (docs/model.md).
    """
    if spec.underfit == "inverse-keep":
        reason = "1/s - 1 = exp(-x) - 1 is convex in x = log s, and S^(-1/2) - 1 is convex in S = s^2"
        return UnderfitTerm("inverse-keep", _inverse_keep, _inverse_keep_slope, True, True, reason)
    if spec.underfit == "perturbation":
        reason = "1 - s^2 = 1 - exp(2x) is concave in x = log s"
        return UnderfitTerm("perturbation", dropped_of, _perturbation_slope, False, True, reason)
    if spec.underfit_logistic is not None:
        term = Logistic(spec.underfit_logistic.half, spec.underfit_logistic.steepness)
        reason = f"1 / (1 + (s / h)^m) is concave in x = log s up to h = {term.half:.6g}, and convex beyond"
        bend = term.inflection(1.0)
        return UnderfitTerm("logistic", term, term.slope, False, term.inflection(2.0) <= low, reason, bend)
    from scipy.interpolate import PchipInterpolator  # 0.3 s, and needed by curves only

    assert spec.underfit_curve is not None
    with np.errstate(over="ignore"):  # slopes next to nothing, whose inverses are beyond doubles, count as 0
        curve = PchipInterpolator(spec.underfit_curve.keep, spec.underfit_curve.value, extrapolate=False)
    reason = "an interpolated curve need not be convex"
    return UnderfitTerm("curve", curve, curve.derivative(), False, False, reason)


def device_terms(specs: Sequence[BoundSpec], low: FloatArray) -> UnderfitTerm:
    """The terms of the bounds of K devices as one, for keep rates of each from ``low`` [K] on."""
    known: dict[tuple[object, ...], int] = {}
    terms: list[UnderfitTerm] = []
    which = np.empty(len(specs), dtype=np.intp)
    for k, spec in enumerate(specs):
        key = (spec.underfit, spec.underfit_logistic, id(spec.underfit_curve))
        if key not in known:
            known[key] = len(terms)
            terms.append(underfit_term(spec, float(low.min())))
        which[k] = known[key]
    both = DeviceTerms(tuple(terms), which)
    square = all(term.square_convex for term in terms)
    bends = np.array([terms[i].inflection for i in which])
    return UnderfitTerm("by device", both, both.slope, False, square, "devices have terms of their own", bends)


@dataclass(frozen=True, slots=True)
class StabilityTerm:
    """Overfitting term ``sqrt((C^2 + 24 C eta^2 / y(Q)) / (2 n delta))`` with its derivatives in Q.

    Parameters
    ----------
    base, spread
        ``C^2`` and ``24 C eta^2``, dimensionless.
    curvature, sparsity
        ``Lam`` and ``lam``; ``y(Q) = Lam + 2 lam (1 - Q)``.
    scale
        ``1 / (2 n delta)``, a scalar for the pooled data or shape [K] for one term per device.
    """

    base: float
    spread: float
    curvature: float
    sparsity: float
    scale: FloatArray

    @classmethod
    def of(cls, spec: BoundSpec, samples: FloatArray) -> StabilityTerm:
        """The term of ``spec`` for ``samples`` training samples (a scalar n, or n_k of shape [K])."""
        c, eta = spec.loss_range, spec.lipschitz
        scale = 1.0 / (2.0 * np.asarray(samples, dtype=np.float64) * spec.confidence_delta)
        return cls(c * c, 24.0 * c * eta * eta, spec.curvature, spec.sparsity_weight, np.asarray(scale))

    def value(self, square: FloatArray) -> FloatArray:
        """The term at ``square`` = Q (or S_k = s_k^2, shape [K]), broadcast against ``scale``."""
        return self.of_dropped(np.maximum(1.0 - square, 0.0))  # weights may sum to 1 + 2^-52

    def of_dropped(self, dropped: FloatArray) -> FloatArray:
        """The term where 1 - Q (or 1 - S_k, shape [K]) is known better than Q; as :meth:`value`."""
        y = self.curvature + 2.0 * self.sparsity * dropped
        return np.asarray(np.sqrt((self.base + self.spread / y) * self.scale))

    def slope(self, square: FloatArray) -> FloatArray:
        """Derivative in Q: ``lam c scale / (y^2 value)``; never negative. Shapes as of :meth:`value`."""
        y = self.curvature + 2.0 * self.sparsity * np.maximum(1.0 - square, 0.0)
        numerator = self.sparsity * self.spread * self.scale
        root = np.sqrt((self.base + self.spread / y) * self.scale)
        return np.asarray(np.divide(numerator / y / y, root, out=np.zeros_like(root), where=root > 0))

    def pooled_slope(self, kept: float) -> float:
        """As :meth:`slope` for global pooling at one value of Q, without the cost of arrays."""
        return self.pooled_slope_of_dropped(max(1.0 - kept, 0.0))

    def pooled_slope_of_dropped(self, dropped: float) -> float:
        """The same where 1 - Q is known better than Q."""
        y = self.curvature + 2.0 * self.sparsity * dropped
        scale = float(self.scale)
        root = math.sqrt((self.base + self.spread / y) * scale)
        return self.sparsity * self.spread * scale / y / y / root if root > 0.0 else 0.0
