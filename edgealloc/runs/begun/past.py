r"""What a run has behind it: rounds at whatever keep rates, and what was measured, as they count for what is left.

A round at keep rate s brings a device s^q effective rounds, and they add up. Overfitting depends on the mean of
what was kept. With the same keep rates in every round the loss is that of the learning curve (docs/runs.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec
from edgealloc.units import FloatArray

__all__ = ["Past", "corrected"]

_MOST = math.log(2.0)  # that a measured loss may move a constant, either way
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Past:
    """Rounds that are trained.

    Parameters
    ----------
    rounds
        How many.
    progress
        Effective rounds of each device by name, the sum of s^q over the rounds in which it took part.
    kept
        Sum over the rounds of the share that is kept in the merged product, ``sum_k w_k s_k^2``.
    """

    rounds: int = 0
    progress: Mapping[str, float] = field(default_factory=dict)
    kept: float = 0.0

    def of(self, names: tuple[str, ...]) -> FloatArray:
        """Effective rounds of some devices, 0 for who is new. Shape [len(names)]."""
        return np.array([self.progress.get(name, 0.0) for name in names])

    def after(self, instance: Instance, allocation: Allocation, exponent: float, rounds: int = 1) -> Past:
        """The past when rounds of an allocation have been trained too.

        Parameters
        ----------
        instance
            Whose devices took part.
        allocation
            Of each of these rounds.
        exponent
            q of the learning curve.
        rounds
            How many.
        """
        on = allocation.selected
        keep = np.where(on, allocation.keep, 0.0)
        progress = dict(self.progress)
        for name, rate in zip(instance.device_names, keep.tolist(), strict=True):
            progress[name] = progress.get(name, 0.0) + rounds * rate**exponent
        kept = self.kept + rounds * min(float(instance.weights @ (keep * keep)), 1.0)
        return Past(self.rounds + rounds, progress, kept)


def corrected(spec: LearningSpec, loss: float, value: Callable[[LearningSpec], float]) -> LearningSpec:
    """The learning curve that agrees with a measured loss: one constant is scaled, and the rest is a shift.

    It is the pace a while learning weighs more in the loss than overfitting does, then the overfitting E: that of
    the two in whose logarithm the loss moves more. It is scaled by a factor from 1/2 to 2. What that leaves
    unexplained moves the floor L, which is never below 0.

    Parameters
    ----------
    spec
        The curve of the pilots.
    loss
        What was measured, in nats.
    value
        The loss that a curve predicts for now, in nats.
    """

    def scaled(key: str, log_factor: float) -> LearningSpec:
        return replace(spec, **{key: getattr(spec, key) * math.exp(log_factor)})

    step = 1e-4
    moves = {key: value(scaled(key, step)) - value(scaled(key, -step)) for key in ("pace", "overfit")}
    key = max(moves, key=lambda name: abs(moves[name]))
    found = spec
    if moves[key]:
        low, high = -_MOST, _MOST
        rising = moves[key] > 0.0
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            if (value(scaled(key, middle)) < loss) is rising:
                low = middle
            else:
                high = middle
        found = scaled(key, 0.5 * (low + high))
    return replace(found, floor=max(0.0, found.floor + loss - value(found)))
