r"""Runs that need a number of rounds, as convergence analyses state it, in place of ending with a loss.

.. math:: R(s) = c_0 + c_1 \Bigl(1 + \sum_k w_k \phi_k (1 / s_k - 1)\Bigr)

That is ``c_0 + c_1 sum_k w_k / s_k`` without menus. R rounds are enough when R(s) / R is at most 1. For R1 to R2
rounds that is at least what one problem allows, with the inverse-keep term: R(s) / R2 under the budgets of R1.
Derived in docs/runs.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.learning import NeededRounds
from edgealloc.data.spec import BoundSpec
from edgealloc.formulation.device import chosen_adapter
from edgealloc.runs.training import TrainingRun
from edgealloc.units import FloatArray

__all__ = ["NeededRounds", "NeededRun"]

_ROUNDING = 2.0**-48  # relative
_DONE = 1e-12  # share of a run, below which it is done but for rounding


@dataclass(frozen=True, slots=True, eq=False)
class NeededRun(TrainingRun):
    """What is to be planned; its loss is the rounds that are needed over those there are, to be at most 1.

    Parameters
    ----------
    instance, learning, time_s, energy_j, caps, constraints, spent_j
        As for :class:`~edgealloc.runs.training.TrainingRun`; energies have shape [K]. Of the curve only the floor
        counts, which is 0.
    needed
        How many rounds it takes.
    """

    needed: NeededRounds = field(default_factory=lambda: NeededRounds(0.0, 1.0))

    @property
    def stated(self) -> NeededRounds:
        """See :attr:`TrainingRun.stated`."""
        return self.needed

    def terms(self, first: int, last: int, *, up: bool) -> dict[str, Any]:
        """As :meth:`TrainingRun.terms`.

        Parameters
        ----------
        first, last
            Rounds.
        up
            Whether rounding must not raise the terms.

        Returns
        -------
        dict
            Changes of the instance: the inverse-keep term with weight c1 / R2, and c0 + c1 over R2 as a stability
            term that does not depend on what is kept.
        """
        less = 1.0 - _ROUNDING if up else 1.0
        fixed, slope = float(self.needed.fixed), float(self.needed.per_keep)
        bound = BoundSpec(
            underfit="inverse-keep",
            underfit_weight=slope / last * less,
            pooling="global",
            loss_range=math.sqrt(self.instance.total_samples) * (fixed + slope) / last * less,
            lipschitz=0.0,
            curvature=1.0,
            sparsity_weight=0.0,
            confidence_delta=0.5,
        )
        return {"bound": bound, "device_underfit": None}

    def after(self, allocation: Allocation, rounds: int) -> NeededRounds | None:
        """What is needed once so many rounds of an allocation are trained; None when nothing is.

        A round at keep rates s brings the share 1 / R(s) of the run, whatever the others were: see docs/runs.md.
        """
        left = 1.0 - rounds / float(self.loss(1, allocation))
        return NeededRounds(self.needed.fixed * left, self.needed.per_keep * left) if left > _DONE else None

    def loss(self, rounds: Iterable[int] | int, allocation: Allocation) -> FloatArray:
        """R(s) / R of an allocation: at most 1 where so many rounds are enough. Shape of ``rounds``."""
        inst, on = self.instance, allocation.selected
        factor = chosen_adapter(inst, allocation.option).underfit_factor
        keep, share = np.where(on, allocation.keep, 1.0), inst.weights
        lost = np.where(on, factor * (1.0 - keep) / keep, inst.exclusion_penalty or 0.0)
        whole = self.needed.fixed + self.needed.per_keep * (1.0 + float(share @ lost))
        return np.asarray(whole / np.asarray(rounds, dtype=np.float64))
