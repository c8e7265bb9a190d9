"""A training run of R rounds: its budgets in all, the loss it is predicted to end with, the problem of one round.

For rounds R from ``first`` to ``last``, all that a run can reach is within reach of *one* round's problem:
learning as after ``last`` rounds, overfitting as after ``first``, the budgets of a run of ``first``. Its bound is
theirs; for ``first == last`` it is the problem itself. Derived in docs/runs.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import Constraint
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, NeededRounds
from edgealloc.data.run import Aim
from edgealloc.data.spec import BoundSpec, UnderfitLogistic
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.units import FloatArray

__all__ = ["BEGUN", "LITTLE_J", "TrainingRun", "both_budgeted", "budgeted", "longest", "round_bound", "share_of"]

BEGUN = "the rest of a run that has begun"
LITTLE_J = 1e-30  # of a device that has nothing left: no round of it is that cheap, and it may be left out

_ROUNDING = 2.0**-50  # relative; a product, root, exponential or logarithm in doubles is off by less
_FAINT = 1e-100  # nats; overfitting below it counts as none
_BASE = 2.0**-64  # of the overfitting term: the square of it is lost in the rounding of the rest


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRun:
    """What is to be planned.

    Parameters
    ----------
    instance
        One round: devices, channel, and caps of time and energy that hold in every round.
    learning
        The learning curve.
    time_s
        Time in s for all rounds together; None without such a budget.
    energy_j
        Energy in J that each device may spend in all rounds together, shape [K]; None without such a budget.
    caps
        Whether the instance's own deadline and energy budgets hold in every round beside the totals; without, each
        total that is given stands in their place.
    constraints
        Constraints of one's own on every round.
    spent_j
        Energy in J that each device has spent of the whole run's before, shape [K]: shares are of both together.
        None: none.
    """

    instance: Instance
    learning: LearningSpec
    time_s: float | None = None
    energy_j: FloatArray | None = None
    caps: bool = True
    constraints: tuple[Constraint, ...] = ()
    spent_j: FloatArray | None = None

    @property
    def stated(self) -> LearningSpec | NeededRounds:
        """What files state of it: the learning curve, or the rounds that are needed."""
        return self.learning

    @property
    def unwritten(self) -> str:
        """What kind of run it is that no file or certificate describes yet; empty where they do."""
        return "" if self.spent_j is None else BEGUN

    def share(self, used_j: FloatArray) -> float:
        """The largest share of a device's energy that is spent once it uses so much more, in J. Shape [K]."""
        assert self.energy_j is not None
        spent = np.zeros(len(self.energy_j)) if self.spent_j is None else self.spent_j
        return float(((spent + used_j) / np.maximum(spent + self.energy_j, LITTLE_J)).max())

    def relaxed(self, first: int, last: int) -> Problem:
        """The one round whose optimum plus the floor L is below the loss of every run of ``first`` to ``last``."""
        return self._round(first, last, up=True)

    def single(self, rounds: int) -> Problem:
        """One round of a run of so many, its budgets rounded down: that many such rounds break no budget."""
        return self._round(rounds, rounds, up=False)

    def _round(self, first: int, last: int, *, up: bool) -> Problem:
        base = self.instance
        latency, energy = base.latency_s, base.energy_j
        if self.time_s is not None:
            share = share_of(self.time_s, first, up=up)
            latency = min(latency, share) if self.caps else share
        if self.energy_j is not None:
            shares = np.array([share_of(total, first, up=up) for total in self.energy_j.tolist()])
            energy = np.minimum(energy, shares) if self.caps else shares
        terms = self.terms(first, last, up=up)
        instance = base.with_changes(latency_s=latency, energy_j=energy, learning=None, **terms)
        return Problem(instance, None, self.constraints)

    def terms(self, first: int, last: int, *, up: bool) -> dict[str, Any]:
        """The round's ``bound`` and ``device_underfit``: below the loss of every run of these rounds.

        Parameters
        ----------
        first, last
            Rounds.
        up
            Whether rounding must not raise them above that.

        Returns
        -------
        dict
            Changes of the instance.
        """
        return {"bound": round_bound(self.learning, first, last, self.instance), "device_underfit": None}

    def loss(self, rounds: Iterable[int] | int, allocation: Allocation) -> FloatArray:
        """F, the predicted loss in nats after so many rounds of an allocation. Shape of ``rounds``."""
        inst, spec, on = self.instance, self.learning, allocation.selected
        count = np.asarray(rounds, dtype=np.float64)
        factor = chosen_adapter(inst, allocation.option).underfit_factor
        keep, share = np.where(on, allocation.keep, 1.0), inst.weights
        left_out = float(share[~on].sum()) * (inst.exclusion_penalty or 0.0)
        with np.errstate(over="ignore"):
            progress = np.log(spec.pace * count[..., None]) + spec.exponent * np.log(keep)
            left = 1.0 / (1.0 + np.exp(spec.order * progress))
        learning = spec.drop * (np.where(on, share * factor, 0.0) * left).sum(axis=-1) + spec.drop * left_out
        kept = float(share @ np.where(on, keep * keep, 0.0))
        damped = math.sqrt(1.0 + spec.protection * max(1.0 - kept, 0.0))
        return np.asarray(spec.floor + learning + spec.overfit * count**spec.growth / damped)


def budgeted(run: TrainingRun, aim: Aim, budget: float) -> TrainingRun:
    """The run with so many s for all rounds together, or so large a share of its energy budgets."""
    if aim == "time":
        return replace(run, time_s=budget)
    assert run.energy_j is not None
    part = run.energy_j * budget
    if run.spent_j is not None:  # a hair more than rounding takes of the whole
        whole = (run.spent_j + run.energy_j) * budget * (1.0 + _ROUNDING)
        part = np.maximum(whole - run.spent_j, LITTLE_J)
    return replace(run, energy_j=np.nextafter(part, math.inf))


def longest(run: TrainingRun, rounds: int) -> float:
    """Time in s that no run of so many rounds exceeds, where the instance's own deadline holds in every round."""
    return run.time_s or math.nextafter(rounds * run.instance.latency_s, math.inf)


def both_budgeted(run: TrainingRun, time_s: float, share: float) -> TrainingRun:
    """The run with so many s for all rounds together, and so large a share of its energy budgets."""
    return budgeted(budgeted(run, "time", time_s), "energy", share)


def share_of(total: float, rounds: int, *, up: bool) -> float:
    """``total / rounds`` rounded up, or down to what so many rounds may take each."""
    share = total / rounds
    over = Fraction(share) * rounds - Fraction(total)
    if up:
        return math.nextafter(share, math.inf) if over < 0 else share
    return math.nextafter(share, 0.0) if over > 0 else share


def round_bound(spec: LearningSpec, first: int, last: int, instance: Instance) -> BoundSpec:
    """The bound of one round: learning as after ``last`` rounds and overfitting as after ``first``, a hair below.

    With C to 0 and eta to infinity at the same C eta^2 the overfitting term has no constant part left, and is
    ``E R^b / sqrt(1 + l (1 - Q))``.

    Parameters
    ----------
    spec
        The learning curve.
    first, last
        Rounds.
    instance
        Whose samples the term divides by, and whose keep rates the hair is for.
    """
    # A rounded power is off by its exponent's rounding times a logarithm, the steepness likewise.
    log_half = -math.log(spec.pace * last) / spec.exponent
    hair = _ROUNDING * (4.0 + abs(log_half) - math.log(float(instance.keep_min.min())))
    half = math.exp(log_half) * (1.0 - hair)
    most = spec.overfit * float(first) ** spec.growth * (1.0 - _ROUNDING * (4.0 + spec.growth))
    c = _BASE * most if most > _FAINT else 0.0
    eta = math.sqrt(instance.total_samples * most / (24.0 * _BASE)) * (1.0 - 4.0 * _ROUNDING) if c else 0.0
    return BoundSpec(
        underfit="logistic",
        underfit_weight=spec.drop,
        underfit_logistic=UnderfitLogistic(half, spec.exponent * spec.order),
        pooling="global",
        loss_range=c,
        lipschitz=eta,
        curvature=1.0,
        sparsity_weight=0.5 * spec.protection,
        confidence_delta=0.5,
    )
