"""The bound's constants, fitted to pilot runs.

C, eta, Lam, lam and A of the bound (docs/model.md) cannot be measured one by one. Pilot runs at a few
common keep rates s give the test loss L(s); the constants are chosen so that G(s) - slack matches it:

    G(s) = A u(s) + sqrt((C^2 + 24 C eta^2 / (Lam + 2 lam (1 - s^2))) / (2 n delta)),   slack >= 0.

G is an upper bound, so a constant slack above the loss is no fault, and no constant moves its minimiser; it is
used as far as it improves the fit. Scaling (eta^2, Lam, lam) together changes nothing, so lam stays fixed. The
constants belong to the rule they were fitted for (masks, scaling, aggregation), and to the pilot's task.

Where neither parametric u fits in error and minimum, u is a curve: what the *training* loss gains by dropout, made
monotone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.models.trials.fit import Calibration, Kind, Pilot, fit, predict
from edgealloc.units import FloatArray


def pilot_from_records(records: Iterable[Mapping[str, Any]], *, data: str, rule: str) -> Pilot:
    """Average the records of :func:`edgealloc.models.trials.sweep.sweep` of one data set and rule over seeds.

    Parameters
    ----------
    records
        Of any number of data sets and rules.
    data, rule
        Which of them.

    Returns
    -------
    Pilot
        Mean losses in nats over the keep rates [P].

    Raises
    ------
    InputError
        If there are fewer than four rates, runs of different sizes are mixed, or a run diverged.
    """
    chosen = [r for r in records if r["data"] == data and r["rule"] == rule]
    keeps = sorted({1.0 - float(r["dropout"]) for r in chosen})
    sizes = {(int(r["samples"]), int(r["devices"])) for r in chosen}
    faults = []
    if len(keeps) < 4:
        faults.append(Fault("pilot runs", "dropout", f"{len(keeps)} rates for {data}, {rule}", "at least 4 rates"))
    if len(sizes) > 1:
        faults.append(Fault("pilot runs", "samples, devices", str(sorted(sizes)), "one size"))
    for r in chosen:
        if not all(math.isfinite(r[name]) for name in ("train_loss", "test_loss")):
            why = r.get("reason") or "losses that are not finite"
            where = f"dropout {r['dropout']:g}, seed {r.get('seed', '?')}"
            faults.append(
                Fault(where, "run", f"diverged ({why})", "a lower learning rate, or pilot runs without it")
            )
    if faults:
        raise InputError("calibration", faults)
    groups = [[r for r in chosen if 1.0 - float(r["dropout"]) == s] for s in keeps]

    def mean(name: str) -> FloatArray:
        return np.array([np.mean([r[name] for r in group]) for group in groups])

    error = [
        np.std([r["test_loss"] for r in g], ddof=1) / np.sqrt(len(g)) if len(g) > 1 else np.nan for g in groups
    ]
    ((samples, devices),) = sizes
    losses = mean("train_loss"), mean("test_loss"), np.array(error)
    blind = float(np.mean([r.get("blind_loss", math.nan) for r in chosen]))
    return Pilot(rule, np.array(keeps), *losses, samples, devices, blind)


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

    Returns
    -------
    Calibration
        The constants, with the misfit.
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

    Parameters
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
    """Check constants on a task that they were not fitted to.

    Parameters
    ----------
    calibration
        The constants.
    other
        Pilot runs of the other task.

    Returns
    -------
    Transfer
        How far prediction and measurement lie apart.
    """
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
