"""The objective: the generalisation bound G as a function of keep rates, selection and menu rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.bound import StabilityTerm, UnderfitTerm, device_terms, underfit_term
from edgealloc.formulation.device import chosen_adapter
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["Objective"]


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """The bound G of an instance; call it for its value.

    Parameters
    ----------
    instance
        The instance.
    underfit
        The underfitting term u(s).
    stability
        The stability term: one of the pooled data, or one per device.
    """

    instance: Instance
    underfit: UnderfitTerm
    stability: StabilityTerm

    @classmethod
    def of(
        cls, instance: Instance, underfit: Callable[[FloatArray], FloatArray] | UnderfitTerm | None = None
    ) -> Objective:
        """The objective of an instance, with another underfitting term where one is given.

        A function ``underfit`` takes an array of keep rates, any shape, and gives one of the same shape.

        Raises
        ------
        InputError
            When ``underfit`` is not finite, negative or increases somewhere on a fine grid of keep rates.
        """
        if underfit is None and instance.device_underfit is not None:
            specs = [instance.bound_of(k) for k in range(instance.num_devices)]
            underfit = device_terms(specs, instance.keep_min)
        elif underfit is None:
            underfit = underfit_term(instance.bound, float(instance.keep_min.min()))
        elif not isinstance(underfit, UnderfitTerm):
            underfit = _custom_term(underfit, float(instance.keep_min.min()), float(instance.keep_max.max()))
        pooled = instance.bound.pooling == "global"
        samples = np.asarray(instance.total_samples) if pooled else instance.samples
        return cls(instance, underfit, StabilityTerm.of(instance.bound, samples))

    @property
    def pooled(self) -> bool:
        """Whether one stability term covers the pooled data (``pooling: global``)."""
        return self.instance.bound.pooling == "global"

    def __call__(
        self,
        keep: FloatArray,
        selected: BoolArray | None = None,
        option: IntArray | None = None,
    ) -> float:
        """The bound G of keep rates (shape [K]), with everybody selected and no menu by default."""
        return float(sum(self.terms(keep, selected, option)))

    def terms(
        self,
        keep: FloatArray,
        selected: BoolArray | None = None,
        option: IntArray | None = None,
    ) -> tuple[float, float]:
        """The two terms of G: underfitting (with its weight A) and stability. Arguments as for G, shapes [K]."""
        inst = self.instance
        k = inst.num_devices
        on = np.ones(k, dtype=bool) if selected is None else selected
        choice = np.zeros(k, dtype=np.intp) if option is None else option
        factor = chosen_adapter(inst, choice).underfit_factor
        loss = np.full(k, inst.exclusion_penalty or 0.0)
        loss[on] = factor[on] * self.underfit.at(np.flatnonzero(on), keep[on])
        dropped = np.where(on, (1.0 - keep) * (1.0 + keep), 1.0)  # 1 - s^2 cancels where next to nothing is
        underfit = inst.bound.underfit_weight * float(inst.weights @ loss)
        if self.pooled:
            return underfit, float(self.stability.of_dropped(np.asarray(inst.weights @ dropped)))
        return underfit, float(inst.weights @ self.stability.of_dropped(dropped))


def _custom_term(function: Callable[[FloatArray], FloatArray], low: float, high: float) -> UnderfitTerm:
    """Wrap a user's u(s); its slope is a central difference, its shape is not known.

    Raises
    ------
    InputError
        When u is not finite, is negative, increases or does not keep the shape on a grid of 1025 keep rates.
    """
    grid = np.linspace(low, high, 1025)
    sample = np.asarray(function(grid), dtype=np.float64)
    allowed = "a finite, non-negative, non-increasing function of an array of keep rates, result of the same shape"
    if sample.shape != grid.shape or not np.all(np.isfinite(sample) & (sample >= 0)):
        raise InputError("problem", [Fault("bound", "underfit", f"shape {sample.shape}", allowed)])
    rise = np.diff(sample)
    if np.any(rise > 1e-12 * (1 + np.abs(sample[:-1]))):
        where = float(grid[int(np.argmax(rise))])
        raise InputError("problem", [Fault("bound", "underfit", f"increases near keep = {where:.4g}", allowed)])

    slope = _Slope(function, low, high)
    return UnderfitTerm("custom", function, slope, False, False, "nothing is known of a user's function")


@dataclass(frozen=True, slots=True)
class _Slope:
    """du/ds of a user's function on [low, high] by central differences; no closure, which could not be pickled."""

    function: Callable[[FloatArray], FloatArray]
    low: float
    high: float

    def __call__(self, keep: FloatArray) -> FloatArray:
        step = 1e-6 * np.asarray(keep)
        left, right = np.maximum(keep - step, self.low), np.minimum(keep + step, self.high)
        return np.asarray((self.function(right) - self.function(left)) / (right - left))
