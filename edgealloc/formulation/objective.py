"""The objective: the generalisation bound G as a function of keep rates, selection and menu rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError, RefusedError
from edgealloc.formulation.bound import StabilityTerm, UnderfitTerm, device_terms, dropped_of, underfit_term
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
        The stability term: one of the pooled data, or one per device or cluster.
    pools
        The cluster of each device, from 0 on, where the stability term is pooled by cluster; else None. Shape [K].
    """

    instance: Instance
    underfit: UnderfitTerm
    stability: StabilityTerm
    pools: IntArray | None = None

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
        if instance.bound.pooling == "cluster":
            _, pools = np.unique(np.array(instance.clusters, dtype=np.intp), return_inverse=True)
            of_each = np.asarray(np.bincount(pools, instance.samples), dtype=np.float64)
            return cls(instance, underfit, StabilityTerm.of(instance.bound, of_each), pools)
        pooled = instance.bound.pooling == "global"
        samples = np.asarray(instance.total_samples) if pooled else instance.samples
        return cls(instance, underfit, StabilityTerm.of(instance.bound, samples))

    @property
    def pooled(self) -> bool:
        """Whether one stability term covers the pooled data (``pooling: global``); False: every device has one.

        Raises
        ------
        RefusedError
            Where it is pooled by cluster, which is neither: who asks does not know of clusters.
        """
        if self.pools is not None:
            raise RefusedError(
                "the stability term is pooled by cluster, which this does not take: use method 'auto', or pooling "
                "'global' or 'device'"
            )
        return self.instance.bound.pooling == "global"

    @property
    def own(self) -> bool:
        """Whether every device has a stability term of its own (``pooling: device``)."""
        return self.instance.bound.pooling == "device"

    def of_cluster(self, cluster: int) -> tuple[IntArray, Objective]:
        """The devices of a cluster, and the objective of what they do alone, pooled among them.

        G is the mean of these objectives by the clusters' samples; nothing but resources couples clusters.

        Parameters
        ----------
        cluster
            From 0 on; pooling is by cluster.

        Returns
        -------
        array, Objective
            Shape [K'], and that of the instance with these devices only.
        """
        mine = np.flatnonzero(self.pools == cluster)
        part = self.instance.take(mine)
        part = part.with_changes(bound=replace(part.bound, pooling="global"))
        return mine, Objective.of(part, self.underfit.take(mine))

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
        dropped = np.where(on, dropped_of(keep), 1.0)
        underfit = inst.bound.underfit_weight * float(inst.weights @ loss)
        if self.pools is not None:
            weight = np.bincount(self.pools, inst.weights)
            mean = np.bincount(self.pools, inst.weights * dropped) / weight
            return underfit, float(weight @ self.stability.of_dropped(mean))
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
