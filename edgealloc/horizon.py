r"""Energy over a horizon of rounds: how much of its battery a device may spend in each.

A device has H_k joules for R rounds. Each round a *policy* names a cap per device; the round is then the usual
problem with ``energy_j`` at the cap, so no round spends more than its cap, and the ledger never grants more than
what is left: **no policy can exceed a horizon budget**, whatever it does.

Policies
--------
``EqualSplit``
    H/R in every round; what is not spent is lost. The per-round policy that the others are compared with.
``Rollover``
    What is left, shared equally among the rounds left.
``VirtualQueue``
    Drift-plus-penalty with an exponential queue price. Lagrangian duality says that the best caps over a horizon
    make a joule worth the same in every round. Each device carries a price :math:`\lambda` per joule; a round's
    caps are moved, by a few solves of the round, until a joule is worth :math:`\lambda`; then the price follows
    the virtual queue of what was spent beyond the fair share,

    .. math:: \lambda \leftarrow \lambda \exp(\eta (e_t / \bar e_t - 1)), \qquad \eta = \min(1, 5/\sqrt R),

    with e the energy spent and :math:`\bar e_t` what is left over the rounds left. Good channels get more, bad
    ones less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.instance import Instance
from edgealloc.problem import Problem
from edgealloc.result import Allocation, Result
from edgealloc.solvers.psca_model import Model
from edgealloc.units import FloatArray

__all__ = [
    "POLICIES",
    "EnergyLedger",
    "EnergyPolicy",
    "EqualSplit",
    "Rollover",
    "RoundView",
    "VirtualQueue",
    "energy_worth",
    "make_policy",
]

_DAMPING, _LONGEST = 0.5, 0.7  # of a step of log(cap) per difference in log(worth); its largest length
_CLOSE = 0.02  # steps of log(cap) below this end the search
_STEP = 1e-4  # relative step of the difference quotient in energy_worth


@dataclass(slots=True)
class EnergyLedger:
    """What every device has left of its horizon budget.

    Parameters
    ----------
    budget_j
        Horizon budgets in J by device name.
    rounds
        Rounds in the horizon.
    """

    budget_j: Mapping[str, float]
    rounds: int
    _left_j: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        faults = [
            Fault(name, "budget_j", repr(value), "a finite number > 0")
            for name, value in self.budget_j.items()
            if not (math.isfinite(value) and value > 0.0)
        ]
        if self.rounds < 1:
            faults.append(Fault("horizon", "rounds", repr(self.rounds), "an integer >= 1"))
        if faults:
            raise InputError("horizon", faults)
        self._left_j = dict(self.budget_j)

    def left_j(self, names: tuple[str, ...]) -> FloatArray:
        """What is left, in J, never negative. Shape [len(names)]."""
        return np.array([max(self._left_j[name], 0.0) for name in names])

    def spend(self, names: tuple[str, ...], energy_j: FloatArray) -> None:
        """Book what a round took; rounded against the device, so that the sum never exceeds the budget."""
        for name, joules in zip(names, energy_j.tolist(), strict=True):
            if joules > 0.0:
                self._left_j[name] = math.nextafter(self._left_j[name] - joules, -math.inf)


@dataclass(frozen=True, slots=True)
class RoundView:
    """What a policy sees of a round.

    Parameters
    ----------
    instance
        The round, with its channel; its ``energy_j`` is not meant.
    left_j
        What each device has left, in J. Shape [K].
    budget_j
        Horizon budgets in J. Shape [K].
    number, rounds
        This round, from 0, and the rounds in the horizon.
    probe
        Solves the round with caps, shape [K] in J.
    """

    instance: Instance
    left_j: FloatArray
    budget_j: FloatArray
    number: int
    rounds: int
    probe: Callable[[FloatArray], Result]

    @property
    def rounds_left(self) -> int:
        """Rounds left, this one included; 1 beyond the horizon."""
        return max(self.rounds - self.number, 1)


class EnergyPolicy(Protocol):
    """Names the caps of a round. May keep state; a new horizon takes a new policy."""

    def caps_j(self, view: RoundView) -> FloatArray:
        """Caps in J, shape [K]; the ledger cuts them to what is left."""
        ...


@dataclass(frozen=True, slots=True)
class EqualSplit:
    """H/R in every round."""

    def caps_j(self, view: RoundView) -> FloatArray:
        """See :class:`EnergyPolicy`."""
        return view.budget_j / view.rounds


@dataclass(frozen=True, slots=True)
class Rollover:
    """What is left over the rounds left."""

    def caps_j(self, view: RoundView) -> FloatArray:
        """See :class:`EnergyPolicy`."""
        return view.left_j / view.rounds_left


@dataclass(slots=True)
class VirtualQueue:
    """Caps at which a joule is worth its price; prices follow what was spent.

    Parameters
    ----------
    least, most
        Limits of a cap, in units of what ``Rollover`` would give. Later rounds are left ``least`` each, too.
    solves
        Solves of a round with trial caps, at most.
    """

    least: float = 0.3
    most: float = 4.0
    solves: int = 4
    _price: dict[str, float] = field(default_factory=dict, init=False, repr=False)
    _ratio: dict[str, float] = field(default_factory=dict, init=False, repr=False)  # cap over fair share, smoothed
    _before: dict[str, tuple[float, float]] = field(
        default_factory=dict, init=False, repr=False
    )  # left, fair share

    def __post_init__(self) -> None:
        rules = (
            (0.0 < self.least <= 1.0, "least", "in (0, 1]"),
            (self.most >= 1.0, "most", ">= 1"),
            (self.solves >= 1, "solves", ">= 1"),
        )
        faults = [
            Fault("horizon", name, repr(getattr(self, name)), allowed) for ok, name, allowed in rules if not ok
        ]
        if faults:
            raise InputError("horizon", faults)

    def caps_j(self, view: RoundView) -> FloatArray:
        """See :class:`EnergyPolicy`."""
        names, fair = view.instance.device_names, view.left_j / view.rounds_left
        self._charge(view)
        low = self.least * fair
        high = np.minimum(self.most * fair, view.left_j - low * (view.rounds_left - 1))
        caps = np.clip(np.array([self._ratio.get(name, 1.0) for name in names]) * fair, low, high)
        for _ in range(self.solves):
            result = view.probe(caps)
            if result.allocation is None:
                return fair
            worth = energy_worth(result.problem, result.allocation)
            for name, value in zip(names, worth.tolist(), strict=True):
                if value > 0.0:
                    self._price.setdefault(name, value)
            price = np.array([self._price.get(name, math.nan) for name in names])
            with np.errstate(divide="ignore"):
                step = np.clip(_DAMPING * (np.log(worth) - np.log(price)), -_LONGEST, _LONGEST)
            still = np.isnan(price) | ~result.allocation.selected  # never worth anything so far, or left out
            step = np.where(still, 0.0, step)
            caps = np.clip(caps * np.exp(step), low, high)
            if float(np.max(np.abs(step))) < _CLOSE:
                break
        for name, ratio in zip(names, (caps / fair).tolist(), strict=True):
            self._ratio[name] = 0.5 * (self._ratio.get(name, 1.0) + ratio)
        self._before |= {n: (x, y) for n, x, y in zip(names, view.left_j.tolist(), fair.tolist(), strict=True)}
        return caps

    def _charge(self, view: RoundView) -> None:
        """Move the prices by what was spent since the last call."""
        rate = min(1.0, 5.0 / math.sqrt(view.rounds))
        for name, left in zip(view.instance.device_names, view.left_j.tolist(), strict=True):
            if name in self._before and name in self._price:
                before, fair = self._before[name]
                self._price[name] *= math.exp(rate * ((before - left) / fair - 1.0))


POLICIES: dict[str, Callable[[], EnergyPolicy]] = {
    "equal-split": EqualSplit,
    "rollover": Rollover,
    "virtual-queue": VirtualQueue,
}


def make_policy(name: str) -> EnergyPolicy:
    """A fresh policy of a name in :data:`POLICIES`; InputError for another."""
    if name not in POLICIES:
        raise InputError("horizon", [Fault("horizon", "policy", repr(name), ", ".join(POLICIES))])
    return POLICIES[name]()


def energy_worth(problem: Problem, allocation: Allocation) -> FloatArray:
    """What one more joule for a device would take off the bound, per J, its spectrum fixed. Shape [K].

    ``-dG/ds`` times the growth of the largest keep rate that its spectrum carries, a central difference. At an
    optimum of continuous FDMA this is the derivative of the optimal bound in ``energy_j`` (envelope theorem: what
    a joule saves of the spectrum is worth just as much). 0 for a device left out.
    """
    inst, on, k = problem.instance, allocation.selected, problem.instance.num_devices
    if allocation.owner is not None:
        share = (allocation.owner[None, :] == np.arange(k)[:, None]).astype(np.float64)
    else:
        assert allocation.bandwidth_hz is not None
        width = Model.of(problem).column_hz
        share = (np.where(on, allocation.bandwidth_hz, 0.0) / width)[:, None]
    row = np.maximum(allocation.option, 0), np.arange(k)
    caps = [
        Model.of(Problem(inst.with_changes(energy_j=factor * inst.energy_j), problem.underfit)).caps(share)[
            :, :, 0
        ][row]
        for factor in (1.0 - _STEP, 1.0 + _STEP)
    ]
    keep, weight = np.where(on, allocation.keep, 1.0), inst.weights
    square = np.square(np.where(on, keep, 0.0))
    if problem.pooled:
        spread = problem.stability.pooled_slope(float(weight @ square)) * weight
    else:
        spread = weight * problem.stability.slope(square)
    factor = np.ones(k)
    for i, menu in enumerate(inst.adapter_options or ()):
        if menu is not None:
            factor[i] = menu[int(row[0][i])].underfit_factor
    fall = -inst.bound.underfit_weight * weight * factor * problem.underfit.slope(keep) - 2.0 * keep * spread
    rise = (caps[1] - caps[0]) / (2.0 * _STEP * inst.energy_j)
    limited = on & (caps[0] > 0.0) & (keep >= (1.0 - 1e-9) * caps[0])  # its spectrum could not carry more
    return np.where(limited, np.maximum(fall, 0.0) * np.maximum(rise, 0.0), 0.0)
