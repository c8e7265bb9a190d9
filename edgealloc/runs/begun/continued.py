r"""The rest of a run that has begun: what it can reach is again within reach of one round's problem.

With progress P_k behind it, device k has 1 / (1 + (a (P_k + R s^q))^alpha) left to learn after R rounds more. That
is no logistic in log s, so the problem takes it as a measured curve of each device: PCHIP through points of it,
lowered by the share by which it is above the truth anywhere. Derived in docs/runs.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.learning import LearningSpec
from edgealloc.data.spec import UnderfitCurve
from edgealloc.formulation.device import chosen_adapter
from edgealloc.runs.begun.past import Past
from edgealloc.runs.training import BEGUN, TrainingRun, round_bound
from edgealloc.units import FloatArray

__all__ = ["ContinuedRun"]

_KNOTS = (33, 65, 129, 257)
_CELLS = 32  # between two knots, in each of which the curve is compared
_EXCESS = 1e-5  # share by which a curve may be above what it stands for, before more knots are taken
_ROUNDING = 1e-12  # relative
_WIDE = 1e-3  # relative: a curve needs two keep rates


@dataclass(frozen=True, slots=True, eq=False)
class ContinuedRun(TrainingRun):
    """What is left to be planned: budgets are what is left, rounds those to come.

    Parameters
    ----------
    instance, learning, time_s, energy_j, caps, constraints, spent_j
        As for :class:`~edgealloc.runs.training.TrainingRun`; energies have shape [K].
    past
        What is trained.
    pilots
        The curve of the pilots, where ``learning`` was made to agree with what was measured.
    """

    past: Past = field(default_factory=Past)
    pilots: LearningSpec | None = None

    @property
    def unwritten(self) -> str:
        """See :attr:`TrainingRun.unwritten`."""
        return BEGUN

    def terms(self, first: int, last: int, *, up: bool) -> dict[str, Any]:
        """As :meth:`TrainingRun.terms`, with what each device has learned.

        Parameters
        ----------
        first, last
            Rounds to come.
        up
            Whether the terms must lie below, and not only near, those of every run of these rounds.

        Returns
        -------
        dict
            Changes of the instance.
        """
        inst, spec, past = self.instance, self.learning, self.past
        early, late = past.rounds + first, past.rounds + last
        # 1 + l (1 - mean kept) is linear in Q, for all Q at most that between its greatest values at 0 and at 1.
        most = 1.0 + spec.protection * max(1.0 - past.kept / late, 0.0)
        least = 1.0 + spec.protection * max(1.0 - (past.kept + first) / early, 0.0)
        shrink = 1.0 - _ROUNDING if up else 1.0
        flat = replace(
            spec,
            overfit=spec.overfit * float(early) ** spec.growth / math.sqrt(least) * shrink,
            growth=0.0,
            protection=max(most / least - 1.0, 0.0) / shrink,
        )
        bound = round_bound(flat, 1, last, inst)
        progress = past.of(inst.device_names)
        if not progress.any():
            return {"bound": bound, "device_underfit": None}
        if inst.common_keep or (progress == progress[0]).all():
            ends = float(inst.keep_min.min()), float(inst.keep_max.max())
            curve = self._curve(self._parts(progress), last, *ends, up=up)
            bound = replace(bound, underfit="curve", underfit_curve=curve, underfit_logistic=None)
            return {"bound": bound, "device_underfit": None}
        rows = zip(progress.tolist(), inst.keep_min.tolist(), inst.keep_max.tolist(), strict=True)
        own = [self._curve(((1.0, p),), last, low, high, up=up) if p else None for p, low, high in rows]
        return {"bound": bound, "device_underfit": tuple(own)}

    def loss(self, rounds: Iterable[int] | int, allocation: Allocation) -> FloatArray:
        """F after so many rounds more, in nats; 0 of them is now. Shape of ``rounds``."""
        inst, spec, past, on = self.instance, self.learning, self.past, allocation.selected
        count = np.asarray(rounds, dtype=np.float64)
        factor = chosen_adapter(inst, allocation.option).underfit_factor
        keep, share = np.where(on, allocation.keep, 1.0), inst.weights
        left_out = float(share[~on].sum()) * (inst.exclusion_penalty or 0.0)
        progress = past.of(inst.device_names) + count[..., None] * keep**spec.exponent
        with np.errstate(over="ignore", divide="ignore"):
            left = 1.0 / (1.0 + np.exp(spec.order * (np.log(spec.pace) + np.log(progress))))
        learning = spec.drop * (np.where(on, share * factor, 0.0) * left).sum(axis=-1) + spec.drop * left_out
        whole = past.rounds + count
        kept = (past.kept + count * float(share @ np.where(on, keep * keep, 0.0))) / np.maximum(whole, 1.0)
        damped = np.sqrt(1.0 + spec.protection * np.maximum(1.0 - kept, 0.0))
        return np.asarray(spec.floor + learning + spec.overfit * whole**spec.growth / damped)

    def _parts(self, progress: FloatArray) -> tuple[tuple[float, float], ...]:
        """Shares of the data with the progress of each, at a keep rate that is common to all.

        Where devices may be left out, or menus weigh them differently, all have the greatest progress: a bound.
        """
        if self.instance.exclusion_penalty is not None or self.instance.adapter_options is not None:
            return ((1.0, float(progress.max())),)
        distinct, which = np.unique(progress, return_inverse=True)
        shares = np.bincount(which, self.instance.weights) / self.instance.weights.sum()
        return tuple(zip(shares.tolist(), distinct.tolist(), strict=True))

    def _curve(
        self, parts: tuple[tuple[float, float], ...], last: int, low: float, high: float, *, up: bool
    ) -> UnderfitCurve:
        spec = self.learning
        curve, excess = _fitted((spec.pace, spec.exponent, spec.order), parts, last, low, high)
        return UnderfitCurve(curve.keep, curve.value * (1.0 - excess)) if up else curve


@lru_cache(maxsize=4096)
def _fitted(
    shape: tuple[float, float, float], parts: tuple[tuple[float, float], ...], last: int, low: float, high: float
) -> tuple[UnderfitCurve, float]:
    """PCHIP through what is left to learn, and a share of it by which it is nowhere too high.

    Both fall in x = log s. In a cell of width h the excess is at most the greater of those at its ends and h / 2
    times the greatest difference of the slopes, whose factors are monotone in x for the one and a parabola in s
    for the other.
    """
    from scipy.interpolate import PchipInterpolator

    low = min(low, high * (1.0 - _WIDE))
    best: tuple[UnderfitCurve, float] | None = None
    for count in _KNOTS:
        x = np.linspace(math.log(low), math.log(high), (count - 1) * _CELLS + 1)
        s = np.exp(x)
        s[0], s[-1] = low, high
        value, gentle, steep = _left(shape, parts, last, x)
        knots = slice(None, None, _CELLS)
        curve = PchipInterpolator(s[knots], value[knots])
        height, fall = curve(s), -curve(s, 1)
        sag = 0.75 * np.abs(np.repeat(curve.c[0], _CELLS)) * np.square(np.diff(s))  # of parabolas from chords
        ends = np.minimum(fall[:-1], fall[1:]) - sag, np.maximum(fall[:-1], fall[1:]) + sag
        least, most = np.maximum(ends[0], 0.0) * s[:-1], ends[1] * s[1:]
        apart = np.maximum(most - gentle, steep - least)
        above = np.maximum(height[:-1] - value[:-1], height[1:] - value[1:]) + 0.5 * np.diff(x) * apart
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(above > 0.0, above / height[1:], 0.0)
        excess = min(float(share.max()) * (1.0 + _ROUNDING) + _ROUNDING, 1.0)
        if best is None or excess < best[1]:
            best = UnderfitCurve(s[knots], value[knots]), excess
        if best[1] <= _EXCESS:
            break
    assert best is not None
    return best


def _left(
    shape: tuple[float, float, float], parts: tuple[tuple[float, float], ...], last: int, x: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """What is left to learn at log keep rates [N], and the least and greatest -du/dx between each two [N - 1]."""
    pace, exponent, order = shape
    value, gentle, steep = np.zeros(len(x)), np.zeros(len(x) - 1), np.zeros(len(x) - 1)
    for weight, progress in parts:
        more = last * np.exp(exponent * x)
        with np.errstate(over="ignore"):
            z = order * (math.log(pace) + np.log(progress + more))
            left, done = 1.0 / (1.0 + np.exp(z)), 1.0 / (1.0 + np.exp(-z))
        rise = order * exponent * weight * more / (progress + more)
        value += weight * left
        gentle += left[1:] * done[:-1] * rise[:-1]
        steep += left[:-1] * done[1:] * rise[1:]
    return value, gentle, steep
