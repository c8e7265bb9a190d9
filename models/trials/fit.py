"""The bound fitted to pilot runs: constants or a curve, and how well they fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec, UnderfitCurve
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.bound import StabilityTerm, underfit_term
from edgealloc.units import FloatArray

Kind = Literal["inverse-keep", "perturbation", "curve"]


_LOG_RANGE = (np.log(1e-6), np.log(1e3))


# What a pilot must show at least before its constants are believed.
_LEARNED = 0.95  # training loss, in that of knowing the classes' frequencies alone
_NOISE = 3.0  # span of the test losses, in the noise of their means: six equal rates span 2.5 of it by chance
_EXPLAINED = 0.7  # error of the fit, in the standard deviation of the losses: half of the variance


_SLACK_PRICE = 0.003  # residual per nat of slack: enough to choose none where none is needed


@dataclass(frozen=True, slots=True, eq=False)
class Pilot:
    """Mean losses of pilot runs at common keep rates, for one rule and task.

    Parameters
    ----------
    rule
        Name of the rule (masks, scaling, aggregation).
    keep
        Keep rates, increasing. Shape [P].
    train_loss, test_loss
        Mean over seeds of the final losses, in nats. Shape [P].
    test_error
        Standard error of ``test_loss``; nan where there is one seed. Shape [P].
    samples, devices
        n and K of the runs, of equal shares.
    blind_loss
        The training loss in nats of who knows the frequencies of the classes only; nan if unknown.
    """

    rule: str
    keep: FloatArray
    train_loss: FloatArray
    test_loss: FloatArray
    test_error: FloatArray
    samples: int
    devices: int
    blind_loss: float = math.nan

    @property
    def best_keep(self) -> float:
        """The measured rate of least mean test loss."""
        return float(self.keep[np.argmin(self.test_loss)])

    def loss_at(self, keep: ArrayLike) -> FloatArray:
        """Interpolate the measured test loss in nats by monotone cubics, within the measured rates. Any shape."""
        from scipy.interpolate import PchipInterpolator

        return np.asarray(PchipInterpolator(self.keep, self.test_loss, extrapolate=False)(keep))


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Fitted constants, and how well they fit.

    Parameters
    ----------
    spec
        The ``bound`` block.
    pilot
        What it was fitted to.
    slack
        How far G lies above the loss at every rate, in nats.
    rms_error
        Root mean square of G - slack - test loss over the pilot's rates, in nats.
    best_keep
        Minimiser of the fitted G over the pilot's range of rates.
    """

    spec: BoundSpec
    pilot: Pilot
    slack: float
    rms_error: float
    best_keep: float

    def loss(self, keep: ArrayLike) -> FloatArray:
        """Return the test loss that is predicted, G - slack in nats, at keep rates common to all. Any shape."""
        return predict(self.spec, keep, self.pilot.samples, self.pilot.devices) - self.slack

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these constants say nothing about keep rates; empty where nothing speaks against them."""
        p, found = self.pilot, []
        least, spread = float(p.train_loss.min()), float(np.ptp(p.test_loss))
        noise, deviation = _rms(p.test_error), float(np.std(p.test_loss))
        if least >= _LEARNED * p.blind_loss:
            found.append(
                f"the pilot learned nothing: its least training loss is {least:.3f} nats, and knowing how "
                f"frequent each class is gives {p.blind_loss:.3f}; train longer, or at another learning rate"
            )
        if spread <= _NOISE * noise:
            found.append(
                f"the pilot does not tell rates apart: test losses span {spread:.3f} nats, their means are good "
                f"to {noise:.3f}; more seeds, rates further apart, or a task that overfits"
            )
        if self.rms_error >= _EXPLAINED * deviation:
            found.append(
                f"the fit says nothing: its error is {self.rms_error:.3f} nats rms, and the test losses deviate "
                f"from their own mean by {deviation:.3f}; more seeds, or another form of the term"
            )
        return tuple(found)

    def apply(self, instance: Instance, *, anyway: bool = False) -> Instance:
        """Return the instance with its ``bound`` block replaced.

        Parameters
        ----------
        instance
            The cell.
        anyway
            Whether constants that say nothing (``doubts``) are taken all the same.

        Returns
        -------
        Instance
            With the constants.

        Raises
        ------
        InputError
            For constants that say nothing.
        """
        if not anyway:
            refuse_doubtful("fit", self.doubts)
        return replace(instance, bound=self.spec)

    def report(self) -> str:
        """Return the fit in a few lines, the misfit included."""
        p, s = self.pilot, self.spec
        lines = [
            f"rule {p.rule}: underfit {s.underfit}, A = {s.underfit_weight:.4g}, C = {s.loss_range:.4g}, "
            f"eta = {s.lipschitz:.4g}, Lam = {s.curvature:.4g}, lam = {s.sparsity_weight:.4g} (fixed)",
            f"slack {self.slack:.4g} nats; fit error {self.rms_error:.4f} nats rms; noise of the pilot means "
            + ("unknown (one seed)" if np.isnan(p.test_error).all() else f"{_rms(p.test_error):.4f}"),
            f"best dropout: fitted {1 - self.best_keep:.2f}, measured {1 - p.best_keep:.2f}",
        ]
        values = self.loss(p.keep)
        rows = zip(1 - p.keep, p.test_loss, values, strict=True)
        return "\n".join(
            [*lines, *(f"  dropout {g:.2f}: test loss {y:.3f}, G - slack {v:.3f}" for g, y, v in rows)]
        )


def _rms(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else math.nan


def predict(spec: BoundSpec, keep: ArrayLike, samples: int, devices: int) -> FloatArray:
    """Return the bound G at common keep rates (docs/model.md).

    Parameters
    ----------
    spec
        Constants of the bound.
    keep
        Keep rates. Shape [P].
    samples, devices
        n and K, in equal shares.

    Returns
    -------
    array
        G in nats. Shape [P].
    """
    rates = np.asarray(keep, dtype=float)
    return spec.underfit_weight * underfit_term(spec).value(rates) + _gap(spec, rates, samples, devices)


def _gap(spec: BoundSpec, rates: FloatArray, samples: int, devices: int) -> FloatArray:
    return _stability(spec, samples, devices).value(rates**2)


def _stability(spec: BoundSpec, samples: int, devices: int) -> StabilityTerm:
    if spec.pooling == "cluster":
        allowed = "global or device: a pilot run has no clusters"
        raise InputError("calibration", [Fault("bound", "pooling", "cluster", allowed)])
    per_term = samples / devices if spec.pooling == "device" else samples
    return StabilityTerm.of(spec, np.asarray(float(per_term)))


def _curve(pilot: Pilot) -> UnderfitCurve:
    """Return the gain of training loss over no dropout, the nearest non-increasing one in the keep rate."""
    from scipy.optimize import isotonic_regression

    falling = isotonic_regression(pilot.train_loss, increasing=False).x
    return UnderfitCurve(pilot.keep, falling - falling[-1])


def fit(
    pilot: Pilot,
    kind: Kind,
    *,
    pooling: Literal["global", "device"] = "global",
    confidence_delta: float = 0.1,
    sparsity_weight: float = 0.5,
    starts: int = 40,
) -> Calibration:
    """Fit A, C, eta and Lam by least squares in the test loss, from many starts.

    The starts are a fixed quasi-random set in the logarithms, so the fit is the same every time. It is a local
    method: the best of the starts is reported with its error, not a proof of a least one.

    Parameters
    ----------
    pilot
        Mean losses over keep rates.
    kind
        Form of the underfitting term.
    pooling, confidence_delta, sparsity_weight
        Taken over into the bound.
    starts
        Number of starts; a fit takes one or two seconds at 40.

    Returns
    -------
    Calibration
        The constants and the misfit.
    """
    from scipy.optimize import least_squares
    from scipy.stats import qmc

    base = BoundSpec(
        kind,
        1.0,
        pooling,
        confidence_delta=confidence_delta,
        sparsity_weight=sparsity_weight,
        underfit_curve=_curve(pilot) if kind == "curve" else None,
    )

    shape = underfit_term(base).value(pilot.keep)

    def spec_of(x: FloatArray) -> BoundSpec:
        a, c, eta, lam = np.exp(x[:4])
        return replace(
            base, underfit_weight=float(a), loss_range=float(c), lipschitz=float(eta), curvature=float(lam)
        )

    term, square = _stability(base, pilot.samples, pilot.devices), pilot.keep**2

    def residual(x: FloatArray) -> FloatArray:
        a, c, eta, lam = np.exp(x[:4])  # as in spec_of, without the checks that every BoundSpec goes through
        gap = StabilityTerm(c * c, 24.0 * c * eta * eta, lam, term.sparsity, term.scale).value(square)
        bound = a * shape + gap
        return np.append(bound - x[4] - pilot.test_loss, _SLACK_PRICE * x[4])

    # C^2 / (2 n delta) is of the order of the squared loss; the others are spread over what C allows.
    size = float(np.max(pilot.test_loss)) * np.sqrt(2 * pilot.samples * confidence_delta)
    centre = np.log([0.1, 0.3 * size, 0.3 * np.sqrt(size), 0.1])
    top = 5.0 * float(np.max(pilot.test_loss))
    low, high = np.append(np.full(4, _LOG_RANGE[0]), 0.0), np.append(np.full(4, _LOG_RANGE[1]), top)
    best: Any = None
    for unit in qmc.Halton(5, scramble=False).random(starts):
        start = np.append(np.clip(centre + 6.0 * (unit[:4] - 0.5), *_LOG_RANGE), 0.2 * top * unit[4])
        found = least_squares(residual, start, bounds=(low, high), x_scale="jac")
        if best is None or found.cost < best.cost:
            best = found
    spec = spec_of(best.x)
    grid = np.linspace(pilot.keep[0], pilot.keep[-1], 2001)
    values = predict(spec, grid, pilot.samples, pilot.devices)
    rms = float(np.sqrt(np.mean(np.square(best.fun[:-1]))))
    return Calibration(spec, pilot, float(best.x[4]), rms, float(grid[np.argmin(values)]))


def refuse_doubtful(field: str, doubts: Sequence[str]) -> None:
    """Refuse constants of a pilot that say nothing, for the reasons given; nothing happens without any.

    Raises
    ------
    InputError
        For each doubt, under the name of the field.
    """
    if doubts:
        allowed = "constants that say something; anyway=True (calibrate --anyway) takes them all the same"
        raise InputError("calibration", [Fault("pilot", field, doubt, allowed) for doubt in doubts])
