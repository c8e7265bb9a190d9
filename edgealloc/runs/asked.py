"""What users ask of a run, read or refused: numbers of rounds, totals of time and energy, weights, targets.

Totals have a range wide of any run there will be. Beyond it the problems of single rounds leave what doubles hold,
and their answers would be worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np

from edgealloc.data.forms import number, numbers
from edgealloc.data.instance import Instance
from edgealloc.data.run import Goal
from edgealloc.errors import Fault, did_you_mean, shown
from edgealloc.runs.search import Interval
from edgealloc.units import FloatArray

__all__ = [
    "LEAST",
    "LOSS",
    "MOST_ROUNDS",
    "TOTAL",
    "Weights",
    "budget",
    "energy_totals",
    "goal_of",
    "is_loss",
    "is_total",
    "rounds_span",
    "weights_of",
]

MOST_ROUNDS = 1_000_000
LEAST, _MOST = 1e-12, 1e12  # s or J: of all rounds together; below, it is spent
TOTAL = f"a number from {LEAST:g} to {_MOST:g}"

_MOST_LOSS = 1e6  # nats, as of a learning curve
LOSS = f"a number above 0, at most {_MOST_LOSS:g}"


class Weights(NamedTuple):
    """What a second of all rounds together costs, and what the energy budgets cost when they are used up."""

    per_s: float
    per_share: float


def is_total(value: object, *, spent: bool = False) -> bool:
    """Whether it is a total of time in s or of energy in J; it may be ``spent``, and then less than nothing."""
    found = number(value)
    return found is not None and (-_MOST if spent else LEAST) <= found <= _MOST


def is_loss(value: object) -> bool:
    """Whether it is a measured loss in nats."""
    found = number(value)
    return found is not None and 0.0 < found <= _MOST_LOSS


def budget(key: str, value: object, faults: list[Fault], *, spent: bool = False) -> float:
    """A total as a number, maybe ``spent``; whether it is one, goes to the faults."""
    if not is_total(value, spent=spent):
        faults.append(Fault("options", key, shown(value), f"{_allowed(spent)}, or None for no such budget"))
        return 1.0
    return float(value)  # type: ignore[arg-type]


def energy_totals(given: Any, instance: Instance, faults: list[Fault], *, spent: bool = False) -> FloatArray:
    """Energy of all rounds together in J, in the order of the instance, maybe ``spent``. Shape [K]."""
    names = instance.device_names
    nothing = np.ones(len(names))
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                allowed = f"the name of a device; {did_you_mean(shown(name), names)}"
                faults.append(Fault("options", "energy_j", shown(name), allowed))
        missing = [name for name in names if name not in given]
        faults += [Fault(name, "energy_j", "(missing)", "a total for every device") for name in missing]
        values: Sequence[Any] = [given.get(name, 1.0) for name in names]
    else:
        array = numbers(faults, "energy_j", given, names, "options")
        if array is None:
            return nothing
        if array.ndim == 0:
            return np.full(len(names), budget("energy_j", float(array), faults, spent=spent))
        if array.shape != (len(names),):
            allowed = f"one number, one by name, or one per device ({len(names)})"
            faults.append(Fault("options", "energy_j", f"numbers of shape {array.shape}", allowed))
            return nothing
        values = array.tolist()
    wrong = [
        Fault(name, "energy_j", shown(value), _allowed(spent))
        for name, value in zip(names, values, strict=True)
        if not is_total(value, spent=spent)
    ]
    faults += wrong
    return nothing if wrong else np.array([float(value) for value in values])


def _allowed(spent: bool) -> str:
    return f"{TOTAL}, less where it is spent" if spent else TOTAL


def rounds_span(rounds: Any, faults: list[Fault]) -> Interval:
    """Least and greatest number of rounds; whether they are, goes to the faults."""
    first, last = (int(r) if r is not None and r == math.floor(r) else 0 for r in _pair(rounds))
    if not 1 <= first <= last <= MOST_ROUNDS:
        allowed = f"(least, greatest) whole numbers from 1 to {MOST_ROUNDS}"
        faults.append(Fault("options", "rounds", shown(rounds), allowed))
    return Interval(first, last)


def weights_of(given: Any, minimise: Any, faults: list[Fault]) -> Weights | None:
    """Two weights for a weighted sum, None for anything else."""
    if not (isinstance(minimise, str) and minimise == "weighted"):
        if given is not None:
            faults.append(Fault("options", "weights", shown(given), "none, but for minimise='weighted'"))
        return None
    found = Weights(*(weight or 0.0 for weight in _pair(given)))
    if not all(weight > 0.0 for weight in found):
        allowed = "two finite numbers > 0: what a second costs, and what all of energy_j does"
        faults.append(Fault("options", "weights", shown(given), allowed))
    return found


def _pair(given: Any) -> tuple[float | None, float | None]:
    """Two finite numbers, None in place of what is none."""
    none = None, None
    if isinstance(given, str | bytes | Mapping):
        return none
    try:
        first, second = (number(value) for value in given)
    except Exception:  # not two, not many, or whatever a stranger's object raises
        return none
    return tuple(v if v is not None and math.isfinite(v) else None for v in (first, second))  # type: ignore[return-value]


def goal_of(minimise: Any, target: Any, needed: bool, faults: list[Fault]) -> float | None:
    """The loss to be reached, None where the loss is minimised; all of the rounds that are ``needed`` are 1."""
    goals = get_args(Goal)
    if not (isinstance(minimise, str) and minimise in goals):
        allowed = f"{', '.join(goals)}; {did_you_mean(shown(minimise), goals, ' ')}".rstrip("; ")
        faults.append(Fault("options", "minimise", shown(minimise), allowed))
        return None
    if needed:
        if target is not None:
            allowed = "none: the rounds that are needed are the target"
            faults.append(Fault("options", "target", shown(target), allowed))
        if minimise == "loss":
            faults.append(Fault("options", "minimise", "'loss'", "'time', 'energy' or 'weighted'"))
        return 1.0
    if (target is None) is not (minimise == "loss"):
        allowed = (
            "none: the loss is minimised" if minimise == "loss" else f"a loss to reach, for minimise={minimise!r}"
        )
        faults.append(Fault("options", "target", shown(target), allowed))
    elif target is not None and ((goal := number(target)) is None or not math.isfinite(goal)):
        faults.append(Fault("options", "target", shown(target), "a finite number"))
    return None if target is None else number(target)
