"""What a training run comes to at these keep rates: the loss predicted after so many rounds, or the rounds needed.

Their formulas are in docs/runs.md; the numbers of the first are fitted to the losses that pilot runs had round by
round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from edgealloc.data.forms import known_fields, number
from edgealloc.data.spec import Rule, check, range_faults
from edgealloc.errors import Fault, shown

__all__ = ["LEARNING_RULES", "NEEDED_RULES", "LearningSpec", "NeededRounds", "learning_faults", "learning_numbers"]

Form = Literal["effective-rounds"]

# Wide of all that was ever fitted, and so that no power of them overflows.
_SHAPE: Rule = (lambda a: (a >= 0.15) & (a <= 50), "a number from 0.15 to 50")
_LOSS: Rule = (lambda a: (a >= 0) & (a <= 1e6), "a number from 0 to 1e6")

LEARNING_RULES: Mapping[str, Rule] = {
    "floor": _LOSS,
    "drop": _LOSS,
    "pace": (lambda a: (a >= 1e-6) & (a <= 1e6), "a number from 1e-6 to 1e6"),
    "exponent": _SHAPE,
    "order": _SHAPE,
    "overfit": _LOSS,
    "growth": (lambda a: (a >= 0) & (a <= 10), "a number from 0 to 10"),
    "protection": (lambda a: (a >= 0) & (a <= 1e9), "a number from 0 to 1e9"),
}

NEEDED_RULES: Mapping[str, Rule] = {
    "fixed": (lambda a: (a >= 0) & (a <= 1e9), "a number from 0 to 1e9"),
    "per_keep": (lambda a: (a >= 1e-9) & (a <= 1e9), "a number from 1e-9 to 1e9"),
}


@known_fields
@dataclass(frozen=True, slots=True)
class LearningSpec:
    r"""Constants of the loss that is predicted after R rounds at keep rates s_k; all dimensionless but the losses.

    .. math:: F = L + D \sum_k \frac{w_k}{1 + (a R s_k^q)^\alpha}
              + \frac{E R^b}{\sqrt{1 + l (1 - \sum_k w_k s_k^2)}}

    The defaults are a fit to one pilot (two classes of sentences, few devices, masks merged by a zero-filled
    mean). They show the shape of a plan, and say nothing of another task.

    Parameters
    ----------
    form
        ``effective-rounds``, the formula above.
    floor, drop
        L, the loss that training tends to but for overfitting, and D, the loss that it has to lose; in nats.
    pace, exponent, order
        a, q and alpha: ``a R s^q`` is the progress after R rounds at keep rate s, alpha how sharply the loss falls
        once it passes 1.
    overfit, growth, protection
        E in nats and b: how overfitting grows with the rounds; l: how dropout holds it down.
    """

    form: Form = "effective-rounds"
    floor: float = 0.44
    drop: float = 0.24
    pace: float = 0.38
    exponent: float = 1.9
    order: float = 2.8
    overfit: float = 1e-3
    growth: float = 2.1
    protection: float = 100.0

    def __post_init__(self) -> None:
        _as_numbers(self, LEARNING_RULES)


@known_fields
@dataclass(frozen=True, slots=True)
class NeededRounds:
    """How many rounds a run needs: ``fixed + per_keep * sum_k w_k / s_k``.

    Parameters
    ----------
    fixed
        c0 >= 0, rounds whatever is kept.
    per_keep
        c1 > 0, rounds without dropout beyond these; with keep rate 1/2 everywhere twice as many.
    """

    fixed: float
    per_keep: float

    def __post_init__(self) -> None:
        _as_numbers(self, NEEDED_RULES)

    def faults(self) -> list[Fault]:
        """What is wrong with the constants."""
        return range_faults("curve", self, NEEDED_RULES)


def _as_numbers(spec: object, rules: Mapping[str, Rule]) -> None:
    """Constants of whatever type of number as floats; the rest stays, and is a fault."""
    for key in rules:
        value = number(getattr(spec, key))
        if value is not None:
            object.__setattr__(spec, key, value)


def learning_faults(spec: object) -> list[Fault]:
    """What is wrong with the constants of a learning curve."""
    if not isinstance(spec, LearningSpec):
        return [Fault("instance", "learning", shown(spec), "an edgealloc.LearningSpec, or None")]
    faults: list[Fault] = []
    kinds = get_args(Form)
    check(faults, spec.form in kinds, "learning", "form", spec.form, ", ".join(kinds))
    return faults + range_faults("learning", spec, LEARNING_RULES)


def learning_numbers(spec: LearningSpec) -> dict[str, float]:
    """The constants by name, as files have them."""
    return {f.name: float(getattr(spec, f.name)) for f in fields(spec) if f.name in LEARNING_RULES}
