"""The bound's constants, fitted to pilot runs.

C, eta, Lam, lam and A of the bound (formulation, section 3) cannot be measured one by one. Pilot runs at a few
common keep rates s give the test loss L(s); the constants are chosen so that G(s) - slack matches it:

    G(s) = A u(s) + sqrt((C^2 + 24 C eta^2 / (Lam + 2 lam (1 - s^2))) / (2 n delta)),   slack >= 0.

G is an upper bound, so a constant slack above the loss is no fault, and no constant moves its minimiser; it is
used as far as it improves the fit. Scaling (eta^2, Lam, lam) together changes nothing, so lam stays fixed. The
constants belong to the rule they were fitted for (masks, scaling, aggregation), and to the pilot's task.

Where neither parametric u fits in error and minimum, u is a curve: what the *training* loss gains by dropout, made
monotone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from edgealloc.data.instance import BoundSpec, Instance, UnderfitCurve
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.bound import StabilityTerm, underfit_term
from edgealloc.units import FloatArray

Kind = Literal["inverse-keep", "perturbation", "curve"]
_LOG_RANGE = (np.log(1e-6), np.log(1e3))
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
    """

    rule: str
    keep: FloatArray
    train_loss: FloatArray
    test_loss: FloatArray
    test_error: FloatArray
    samples: int
    devices: int

    @property
    def best_keep(self) -> float:
        """The measured rate of least mean test loss."""
        return float(self.keep[np.argmin(self.test_loss)])

    def loss_at(self, keep: ArrayLike) -> FloatArray:
        """Interpolate the measured test loss (monotone cubics) at keep rates within the measured ones."""
        from scipy.interpolate import PchipInterpolator

        return np.asarray(PchipInterpolator(self.keep, self.test_loss, extrapolate=False)(keep))


def pilot_from_records(records: Iterable[Mapping[str, Any]], *, data: str, rule: str) -> Pilot:
    """Average the records of :func:`edgealloc.models.trials.sweep.sweep` of one data set and rule over seeds.

    Raises
    ------
    InputError
        If there are fewer than four rates, or runs of different sizes are mixed.
    """
    chosen = [r for r in records if r["data"] == data and r["rule"] == rule]
    keeps = sorted({1.0 - float(r["dropout"]) for r in chosen})
    sizes = {(int(r["samples"]), int(r["devices"])) for r in chosen}
    faults = []
    if len(keeps) < 4:
        faults.append(Fault("pilot runs", "dropout", f"{len(keeps)} rates for {data}, {rule}", "at least 4 rates"))
    if len(sizes) > 1:
        faults.append(Fault("pilot runs", "samples, devices", str(sorted(sizes)), "one size"))
    if faults:
        raise InputError("calibration", faults)
    groups = [[r for r in chosen if 1.0 - float(r["dropout"]) == s] for s in keeps]

    def mean(name: str) -> FloatArray:
        return np.array([np.mean([r[name] for r in group]) for group in groups])

    error = [
        np.std([r["test_loss"] for r in g], ddof=1) / np.sqrt(len(g)) if len(g) > 1 else np.nan for g in groups
    ]
    ((samples, devices),) = sizes
    return Pilot(rule, np.array(keeps), mean("train_loss"), mean("test_loss"), np.array(error), samples, devices)


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
        """Return the predicted test loss G - slack at common keep rates, for the pilot's samples."""
        return predict(self.spec, keep, self.pilot.samples, self.pilot.devices) - self.slack

    def apply(self, instance: Instance) -> Instance:
        """Return the instance with its ``bound`` block replaced."""
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
    return float(np.sqrt(np.nanmean(values**2)))


def predict(spec: BoundSpec, keep: ArrayLike, samples: int, devices: int) -> FloatArray:
    """Return G at common keep rates [P] for n samples in K equal shares."""
    rates = np.asarray(keep, dtype=float)
    return spec.underfit_weight * underfit_term(spec).value(rates) + _gap(spec, rates, samples, devices)


def _gap(spec: BoundSpec, rates: FloatArray, samples: int, devices: int) -> FloatArray:
    per_term = samples / devices if spec.pooling == "device" else samples
    return StabilityTerm.of(spec, np.asarray(float(per_term))).value(rates**2)


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

    def residual(x: FloatArray) -> FloatArray:
        spec = spec_of(x)
        bound = spec.underfit_weight * shape + _gap(spec, pilot.keep, pilot.samples, pilot.devices)
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


def calibrate(
    pilot: Pilot, *, tolerance: float = 0.05, shift: float = 0.1, curve: bool = True, **options: Any
) -> Calibration:
    """Fit the bound: the better parametric form, or a curve where neither fits.

    A form fits if its error is within ``tolerance``, and its minimum, which is what an allocation follows, within
    ``shift`` of the best rate measured. Where none does, the least error among those with a right minimum wins,
    else the least error.

    Parameters
    ----------
    pilot
        Mean losses over keep rates.
    tolerance
        Largest error of a parametric fit, in nats rms.
    shift
        Largest distance of the minimum from the best rate measured.
    curve
        Whether a curve may be used; it is no use to devices whose keep rates go beyond the pilot's.
    **options
        As for :func:`fit`.
    """

    def misplaced(found: Calibration) -> bool:
        return abs(found.best_keep - pilot.best_keep) > shift

    forms: tuple[Kind, ...] = ("inverse-keep", "perturbation")
    found = [fit(pilot, kind, **options) for kind in forms]
    fitting = [c for c in found if c.rms_error <= tolerance and not misplaced(c)]
    if fitting:
        return min(fitting, key=lambda c: c.rms_error)
    if curve:
        found.append(fit(pilot, "curve", **options))
    return min(found, key=lambda c: (misplaced(c), c.rms_error))


@dataclass(frozen=True, slots=True)
class Transfer:
    """How constants fitted on one task do on another.

    Attributes
    ----------
    predicted_keep, measured_keep
        Rates of least loss, by the constants and by the runs of the other task.
    regret
        Measured loss at the predicted rate (interpolated) minus the least one measured, in nats.
    correlation
        Of predicted and measured loss over the rates.
    rms_error, rms_shape_error
        Root mean square of G - loss in nats; the same after removing the mean difference.
    """

    predicted_keep: float
    measured_keep: float
    regret: float
    correlation: float
    rms_error: float
    rms_shape_error: float


def transfer(calibration: Calibration, other: Pilot) -> Transfer:
    """Check constants on a task that they were not fitted to."""
    grid = np.linspace(other.keep[0], other.keep[-1], 2001)
    values = predict(calibration.spec, grid, other.samples, other.devices)
    best = float(grid[np.argmin(values)])
    guess = predict(calibration.spec, other.keep, other.samples, other.devices) - calibration.slack
    miss = guess - other.test_loss
    return Transfer(
        best,
        other.best_keep,
        float(other.loss_at(best)) - float(other.test_loss.min()),
        float(np.corrcoef(guess, other.test_loss)[0, 1]),
        float(np.sqrt(np.mean(miss**2))),
        float(np.std(miss)),
    )
