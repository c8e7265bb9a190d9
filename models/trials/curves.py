"""Learning curves of pilot runs: the test loss round after round at a few common keep rates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.units import FloatArray

__all__ = ["LearningCurves", "curves_from_records"]

_LEAST_RATES = 3
_LEAST_ROUNDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class LearningCurves:
    """Mean test losses of pilot runs at common keep rates, round after round, for one rule and task.

    Parameters
    ----------
    data, rule
        Names of the task, and of the rule (masks, scaling, aggregation).
    keep
        Keep rates, increasing. Shape [P].
    loss
        Mean over seeds of the test loss after 1, ..., R rounds, in nats; nan where nothing was scored. Shape
        [P, R].
    noise
        Standard error of ``loss``; nan where there is one seed. Shape [P, R].
    blind_loss
        The loss in nats of who knows the frequencies of the classes only, which is where training begins; nan if
        unknown.
    left_out
        The runs that diverged, in words; no curve contains them.
    """

    data: str
    rule: str
    keep: FloatArray
    loss: FloatArray
    noise: FloatArray
    blind_loss: float = math.nan
    left_out: tuple[str, ...] = ()

    @property
    def rounds(self) -> FloatArray:
        """Numbers of rounds, 1, 2, ... Shape [R]."""
        return np.arange(1.0, self.loss.shape[1] + 1.0)

    @property
    def best(self) -> tuple[float, int, float]:
        """The keep rate and the number of rounds of the least mean loss, and that loss."""
        rate, column = np.unravel_index(np.nanargmin(self.loss), self.loss.shape)
        return float(self.keep[rate]), int(column) + 1, float(self.loss[rate, column])

    @property
    def mean_noise(self) -> float:
        """Root mean square of the standard errors, in nats; nan where no rate has two seeds."""
        known = self.noise[~np.isnan(self.noise)]
        return float(np.sqrt(np.mean(known**2))) if known.size else math.nan

    @property
    def still_falling(self) -> bool:
        """Whether no rate had its least loss before its last round, so that nothing is known of overfitting."""
        measured = ~np.isnan(self.loss)
        last = [int(np.flatnonzero(row)[-1]) for row in measured]
        return all(int(np.nanargmin(row)) == end for row, end in zip(self.loss, last, strict=True))


def curves_from_records(records: Iterable[Mapping[str, Any]], *, data: str, rule: str) -> LearningCurves:
    """Average the curves of :func:`edgealloc.models.trials.sweep.sweep` of one data set and rule over seeds.

    A curve goes as far as all seeds of its rate do. Runs that diverged are left out, and named.

    Parameters
    ----------
    records
        Of any number of data sets and rules.
    data, rule
        Which of them.

    Returns
    -------
    LearningCurves
        Mean losses in nats, by keep rate [P] and round [R].

    Raises
    ------
    InputError
        If runs of different sizes are mixed, runs have no curves (they are of before these were kept), or fewer
        than three rates and four rounds are left.
    """
    chosen = [r for r in records if r["data"] == data and r["rule"] == rule]
    lost = [r for r in chosen if r.get("ending") == "diverged"]
    kept = [r for r in chosen if r.get("ending") != "diverged"]
    where = f"{data}, {rule}"
    faults = []
    sizes = {(int(r["samples"]), int(r["devices"])) for r in kept}
    if len(sizes) > 1:
        faults.append(Fault("pilot runs", "samples, devices", str(sorted(sizes)), "one size"))
    if bare := sum("curves" not in r for r in kept):
        allowed = "runs with the losses of every round: sweep(..., curves=True) trains them again"
        faults.append(Fault("pilot runs", "curves", f"{bare} runs of {where} without", allowed))
    rates = sorted({1.0 - float(r["dropout"]) for r in kept})
    if len(rates) < _LEAST_RATES:
        found = f"{len(rates)} rates for {where}" + (f"; {len(lost)} runs diverged" if lost else "")
        faults.append(Fault("pilot runs", "dropout", found, f"at least {_LEAST_RATES} rates"))
    if faults:
        raise InputError("calibration", faults)

    curves = [[_floats(r["curves"]["test_loss"]) for r in kept if 1.0 - float(r["dropout"]) == s] for s in rates]
    ends = [min(map(len, group)) for group in curves]
    loss = np.full((len(rates), max(ends)), math.nan)
    noise = np.full_like(loss, math.nan)
    for i, (group, end) in enumerate(zip(curves, ends, strict=True)):
        runs = np.array([curve[:end] for curve in group])
        loss[i, :end] = runs.mean(axis=0)
        if len(group) > 1:
            noise[i, :end] = runs.std(axis=0, ddof=1) / math.sqrt(len(group))
    if np.min(np.sum(np.isfinite(loss), axis=1)) < _LEAST_ROUNDS:
        raise InputError(
            "calibration",
            [Fault("pilot runs", "rounds", f"{min(ends)} rounds", f"at least {_LEAST_ROUNDS} with a test loss")],
        )
    left_out = tuple(
        f"dropout {r['dropout']:g}, seed {r.get('seed', '?')}: diverged ({r.get('reason') or 'no reason given'})"
        for r in lost
    )
    with warnings.catch_warnings():  # nothing but nan where no run knows it
        warnings.simplefilter("ignore", RuntimeWarning)
        blind = float(np.nanmean([r.get("blind_loss", math.nan) for r in kept]))
    return LearningCurves(data, rule, np.array(rates), loss, noise, blind, left_out)


def _floats(values: Iterable[float | None]) -> list[float]:
    """Losses with nan for rounds that were not scored."""
    return [math.nan if value is None else float(value) for value in values]
