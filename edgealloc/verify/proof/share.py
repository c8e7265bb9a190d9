"""One device's part of the objective in a certificate, and the least of it with what bandwidth costs.

Written from docs/model.md (*What is minimised*) and docs/mathematics.md (section 5) in a number type with proven
error bounds (:mod:`edgealloc.verify.proof.enclosures`); all arrays have one entry per piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.certificate.form import OUT
from edgealloc.data.instance import Instance
from edgealloc.units import BoolArray, FloatArray, IntArray
from edgealloc.verify.proof.curve import Curve
from edgealloc.verify.proof.device import Line
from edgealloc.verify.proof.enclosures import Number
from edgealloc.verify.proof.logistic import Logistic
from edgealloc.verify.proof.several import Several

__all__ = ["Shares", "gap_slope", "gap_value", "stability"]


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """The devices' parts of the objective: ``A w f u(s)`` plus ``nu w s^2``, or plus the device's own gap term.

    Parameters
    ----------
    underfit
        ``inverse-keep``, ``perturbation``, ``curve``, ``logistic`` or ``by device``.
    under, weight
        A w_k f and w_k. Shape [N].
    own
        ``(C^2, 24 C eta^2, Lam, 2 lam, 1 / (2 n_k delta))`` for device pooling, None for global.
    out
        Whether the piece leaves the device out, and what it costs then. Shape [N].
    curve
        The measured curve, the logistic term, or the terms of devices that differ, where there is one.
    """

    underfit: str
    under: Number
    weight: Number
    own: tuple[Number, ...] | None
    out: BoolArray
    out_cost: Number
    curve: Curve | Logistic | Several | None = None

    @classmethod
    def of(cls, instance: Instance, device: IntArray, option: IntArray, kind: type[Number]) -> Shares:
        """Shares of the pieces of ``device`` [N] under the menu rows ``option`` [N]."""
        spec, factor = instance.bound, np.ones(len(device))
        name: str = spec.underfit
        for i, (k, row) in enumerate(
            zip(device.tolist(), option.tolist(), strict=True) if instance.adapter_options else ()
        ):
            menu = (instance.adapter_options or ())[k]
            if menu is not None and row != OUT:
                factor[i] = menu[row].underfit_factor
        weight = kind.of(instance.samples[device]) / kind.of(instance.samples).total()
        a_w = weight * spec.underfit_weight
        own = None
        if spec.pooling == "device":
            own = stability(instance, kind.of(instance.samples[device]), kind)
        penalty = 0.0 if instance.exclusion_penalty is None else instance.exclusion_penalty
        out_cost = a_w * penalty
        if own is not None:
            out_cost = out_cost + weight * gap_value(own, kind.of(np.zeros(len(device))))
        curve: Curve | Logistic | Several | None = None
        if instance.device_underfit is not None:
            name, curve = "by device", Several.of(instance, device, kind)
        elif spec.underfit_curve is not None:
            curve = Curve.of(spec.underfit_curve, kind)
        elif spec.underfit_logistic is not None:
            curve = Logistic.of(spec.underfit_logistic, kind)
        return cls(name, a_w * kind.of(factor), weight, own, option == OUT, out_cost, curve)

    def take(self, index: Any) -> Shares:
        """A selection of the pieces."""
        own = None if self.own is None else tuple(c if c.lower().ndim == 0 else c.take(index) for c in self.own)
        return Shares(
            self.underfit,
            self.under.take(index),
            self.weight.take(index),
            own,
            self.out[index],
            self.out_cost.take(index),
            self.curve.take(index) if isinstance(self.curve, Several) else self.curve,
        )

    def value(self, keep: FloatArray, nu: Number) -> Number:
        """Value at keep rates. Shape [N]."""
        return self._under(keep) + self._rest(keep, nu)[0]

    def value_and_slope(self, keep: FloatArray, nu: Number) -> tuple[Number, Number]:
        """Value and derivative in x = log s at keep rates, but for curves. Shapes [N]."""
        s, (value, slope) = self.under.of(keep), self._rest(keep, nu)
        falls = self.under / s if self.underfit == "inverse-keep" else self.under * (s * s) * 2.0
        return self._under(keep) + value, slope - falls

    def _under(self, keep: FloatArray) -> Number:
        """``A w f u(s)``. Shape [N]."""
        s = self.under.of(keep)
        if self.curve is not None:
            return self.under * self.curve.value(keep)
        if self.underfit == "inverse-keep":
            return self.under * ((1.0 - s) / s)  # near 1 digits cancel in 1 / s - 1, and in 1 - s^2
        return self.under * ((1.0 - s) * (1.0 + s))

    def _rest(self, keep: FloatArray, nu: Number) -> tuple[Number, Number]:
        """What is not underfitting, and its derivative in x = log s; convex in s^2 and rising. Shapes [N]."""
        s = self.under.of(keep)
        square = s * s
        if self.own is None:
            cost = self.weight * square * nu
            return cost, cost * 2.0
        return self.weight * gap_value(self.own, square), self.weight * gap_slope(self.own, square) * square * 2.0

    def floor(self, left: FloatArray, right: FloatArray, nu: Number, mu: Number, line: Line) -> FloatArray:
        """Doubles not above the least of share + mu line over [left, right]; ``nu`` and ``mu`` too. Shapes [N]."""
        if self.underfit == "inverse-keep":
            found = self._convex_floor(left, right, nu, mu, line)
        else:
            found = self._concave_floor(left, right, nu, mu, line)
        return np.where(self.out, self.out_cost.lower(), found)

    def _convex_floor(self, left: FloatArray, right: FloatArray, nu: Number, mu: Number, line: Line) -> FloatArray:
        """All terms are convex in x: the tangent at (about) the minimiser, at the better of the two ends."""
        at, wide = left.copy(), np.flatnonzero(left < right)
        if len(wide):
            at[wide] = self.take(wide)._minimiser(
                left[wide], right[wide], nu.take(wide), mu.take(wide), line.take(wide)
            )
        value, slope = self.value_and_slope(at, nu)
        value, slope = value + mu * line.at(at), slope + mu * line.slope
        kind = type(value)
        ends = [slope * (kind.of(end) / kind.of(at)).log() for end in (left, right)]
        fall = np.minimum(ends[0].lower(), ends[1].lower())
        return (value + kind.of(np.where(left == right, 0.0, fall))).lower()

    def _minimiser(self, left: FloatArray, right: FloatArray, nu: Number, mu: Number, line: Line) -> FloatArray:
        """About where the derivative changes sign, by bisection in doubles; nothing depends on how well."""
        lo, hi = np.log(left), np.log(right)
        under, weight = _mid(self.under), _mid(self.weight)
        pay, price = _mid(mu) * _mid(line.slope), _mid(nu)
        own = None if self.own is None else [_mid(c) for c in self.own]
        for _ in range(56):
            x = 0.5 * (lo + hi)
            square = np.exp(2.0 * x)
            if own is None:
                rise = price * weight * square
            else:
                y = own[2] + own[3] * (1.0 - square)
                with np.errstate(divide="ignore", invalid="ignore"):
                    root = np.sqrt((own[0] + own[1] / y) * own[4])
                    rise = np.where(
                        root > 0, weight * own[3] * own[1] * own[4] / (2.0 * y * y * root) * square, 0.0
                    )
            rising = 2.0 * rise + pay > under * np.exp(-x)
            lo, hi = np.where(rising, lo, x), np.where(rising, x, hi)
        return np.clip(np.exp(0.5 * (lo + hi)), left, right)

    def _concave_floor(
        self, left: FloatArray, right: FloatArray, nu: Number, mu: Number, line: Line
    ) -> FloatArray:
        """Other terms: all is linear in S = s^2 but the line, concave where it rises, and the own gap.

        The own gap term is convex in S: its tangent in the middle. A line that may fall counts with its least end.
        A curve lies above a line in S.
        """
        kind = type(self.under)
        a, b = kind.of(left), kind.of(right)
        pays = [line.at(left), line.at(right)]
        falls = line.slope.lower() < 0.0
        least = kind.of(np.minimum(pays[0].lower(), pays[1].lower()))
        pays = [pay.where(~falls, least) for pay in pays]
        squares = [a * a, b * b]
        if self.curve is None:
            values = [self.under * (1.0 - square) for square in squares]
        else:
            values = [self.under * end for end in self.curve.ends(left, right, squared=True)]
        if self.own is None:
            values = [v + self.weight * nu * square for v, square in zip(values, squares, strict=True)]
        else:
            middle = kind.of(np.sqrt(0.5 * (left * left + right * right)))
            square = middle * middle
            touch, slope = gap_value(self.own, square), gap_slope(self.own, square)
            values = [
                v + self.weight * (touch + slope * (end - square)) for v, end in zip(values, squares, strict=True)
            ]
        floors = [(v + mu * pay).lower() for v, pay in zip(values, pays, strict=True)]
        return np.asarray(np.minimum(floors[0], floors[1]))

    def concave_ends(self, left: FloatArray, right: FloatArray, nu: Number) -> tuple[FloatArray, FloatArray]:
        """Doubles not above the values at both ends of a function of s, concave and below the share. Shapes [N].

        What is convex in s^2 lies above its tangent in the middle, kept a square where it bends down. Under a
        curve: a line in s below the curve, and the tangent of the rest in s.
        """
        kind = type(self.under)
        middle = 0.5 * (left + right)
        m = kind.of(middle)
        steps = [(kind.of(end) - m) / m for end in (left, right)]
        if self.curve is None:
            value, slope = self.value_and_slope(middle, nu)
            down = kind.of(np.minimum(slope.lower(), 0.0))
            ends = [value + slope * step + down * step * step * 0.5 for step in steps]
        else:
            value, slope = self._rest(middle, nu)
            curve = self.curve.ends(left, right, squared=False)
            ends = [self.under * u + value + slope * step for u, step in zip(curve, steps, strict=True)]
        return ends[0].lower(), ends[1].lower()

    def curve_least(self, left: FloatArray, right: FloatArray, nu: Number) -> FloatArray:
        """Doubles not above the share on intervals, sharp where it is least at an end; for curves. Shape [N].

        The rest lies above its tangent in s at either end, and a cubic above its least Bernstein coefficient.
        """
        assert self.curve is not None
        kind, least = type(self.under), np.full(len(left), -np.inf)
        a, b = kind.of(left), kind.of(right)
        for touch in (left, right):
            under = [self.under * u for u in self.curve.below(left, right, touch)]
            value, slope = self._rest(touch, nu)
            first, last = (value + slope * ((end - kind.of(touch)) / kind.of(touch)) for end in (a, b))
            parts = [first, (first * 2.0 + last) / 3.0, (first + last * 2.0) / 3.0, last]
            sums = [(u + v).lower() for u, v in zip(under, parts, strict=True)]
            least = np.maximum(least, np.min(sums, axis=0))
        return least


def _mid(x: Number) -> FloatArray:
    lower, upper = x.lower(), x.upper()
    return np.asarray(np.where(np.isfinite(lower) & np.isfinite(upper), 0.5 * (lower + upper), 0.0))


def stability(instance: Instance, samples: Number, kind: type[Number]) -> tuple[Number, ...]:
    """``(C^2, 24 C eta^2, Lam, 2 lam, 1 / (2 n delta))`` of the overfitting term."""
    spec = instance.bound
    c, eta = kind.of(spec.loss_range), kind.of(spec.lipschitz)
    scale = 1.0 / (samples * kind.of(spec.confidence_delta) * 2.0)
    base, spread = c * c, c * eta * eta * 24.0
    # a product with an exact zero is one, which its rounding outwards does not say
    base = base if spec.loss_range else kind.of(0.0)
    spread = spread if spec.loss_range and spec.lipschitz else kind.of(0.0)
    return base, spread, kind.of(spec.curvature), kind.of(2.0 * spec.sparsity_weight), scale


def gap_value(term: tuple[Number, ...], square: Number) -> Number:
    """gap(Q) = sqrt((C^2 + 24 C eta^2 / (Lam + 2 lam (1 - Q))) / (2 n delta))."""
    if term[0].is_zero() and term[1].is_zero():
        return square.of(np.zeros((square * term[4]).lower().shape))
    y = term[2] + term[3] * (1.0 - square)
    return ((term[0] + term[1] / y) * term[4]).sqrt()


def gap_slope(term: tuple[Number, ...], square: Number) -> Number:
    """gap'(Q) = lam 24 C eta^2 / (2 n delta) / (y^2 gap(Q)); 0 where gap is constant."""
    if term[1].is_zero() or term[3].is_zero():
        return square.of(np.zeros((square * term[4]).lower().shape))
    y = term[2] + term[3] * (1.0 - square)
    return term[3] * term[1] * term[4] / (y * y * gap_value(term, square) * 2.0)
