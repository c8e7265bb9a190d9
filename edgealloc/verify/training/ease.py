"""Whether the problem of one round is no harder than the rounds of runs: its budgets, and both terms of the loss.

Decided by exact fractions and in balls. Derived in docs/runs.md, section *What is checked*.
"""

from __future__ import annotations

import math
from fractions import Fraction

from flint import arb, ctx

from edgealloc.certificate.run import CurveTerms, NeededTerms, RunPiece
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec, NeededRounds
from edgealloc.data.spec import BoundSpec, UnderfitLogistic
from edgealloc.verify.proof.verdict import BITS

__all__ = ["enough", "is_below", "round_of", "round_spec"]


def enough(budget: float, rounds: int, cap: float, whole: Fraction | None, caps: bool) -> bool:
    """Whether a budget of one round is at least what each of so many rounds may use."""
    if not math.isfinite(budget):
        return False
    if (caps or whole is None) and budget >= cap:
        return True
    return whole is not None and Fraction(budget) * rounds >= whole


def is_below(instance: Instance, spec: LearningSpec | NeededRounds, piece: RunPiece) -> bool:
    """Whether both terms of a piece's problem are nowhere above those of its runs, exactly or in balls."""
    terms = piece.terms
    if isinstance(spec, NeededRounds):
        return isinstance(terms, NeededTerms) and _is_less(instance, spec, terms, piece.last)
    if not isinstance(terms, CurveTerms):
        return False
    if not (terms.half > 0.0 and terms.steepness > 0.0 and terms.loss_range >= 0.0 and terms.lipschitz >= 0.0):
        return False
    with ctx.workprec(BITS):
        for s in (float(instance.keep_min.min()), float(instance.keep_max.max())):
            mine = arb(terms.steepness) * (arb(s) / arb(terms.half)).log()
            progress = (arb(spec.pace) * piece.last).log() + arb(spec.exponent) * arb(s).log()
            if not mine >= arb(spec.order) * progress:
                return False
        if not terms.loss_range:
            return True  # no overfitting at all
        small, most = arb(terms.loss_range), arb(spec.overfit) * arb(piece.first) ** arb(spec.growth)
        samples = sum((arb(n) for n in instance.samples.tolist()), arb(0))
        square = small * small * (1 + arb(spec.protection)) + 24 * small * arb(terms.lipschitz) ** 2
        return bool(square <= samples * most * most)


def _is_less(instance: Instance, needed: NeededRounds, terms: NeededTerms, last: int) -> bool:
    """Whether the weight and the constant are at most c1 and c0 + c1 over the rounds: by exact fractions.

    Then A sum_k w_k phi_k (1 / s_k - 1) + C / sqrt(n) is at most R(s) / R, for no term of the sum is negative.
    """
    weight, c = Fraction(terms.underfit_weight), Fraction(terms.loss_range)
    if not (weight >= 0 and c >= 0):
        return False
    slope, whole = Fraction(needed.per_keep), Fraction(needed.fixed) + Fraction(needed.per_keep)
    samples = sum((Fraction(n) for n in instance.samples.tolist()), Fraction(0))
    return weight * last <= slope and (c * last) ** 2 <= samples * whole**2


def round_of(spec: LearningSpec | NeededRounds, terms: CurveTerms | NeededTerms) -> BoundSpec:
    """The bound of one round with the terms of a piece, which are of the kind of ``spec``."""
    if isinstance(spec, LearningSpec) and isinstance(terms, CurveTerms):
        return round_spec(spec, terms.half, terms.steepness, terms.loss_range, terms.lipschitz)
    assert isinstance(terms, NeededTerms)
    return BoundSpec(
        underfit="inverse-keep",
        underfit_weight=terms.underfit_weight,
        pooling="global",
        loss_range=terms.loss_range,
        lipschitz=0.0,
        curvature=1.0,
        sparsity_weight=0.0,
        confidence_delta=0.5,
    )


def round_spec(
    spec: LearningSpec, half: float, steepness: float, loss_range: float, lipschitz: float
) -> BoundSpec:
    """The bound of one round under a learning curve, with its underfitting term, and C and eta of the other."""
    return BoundSpec(
        underfit="logistic",
        underfit_weight=spec.drop,
        underfit_logistic=UnderfitLogistic(half, steepness),
        pooling="global",
        loss_range=loss_range,
        lipschitz=lipschitz,
        curvature=1.0,
        sparsity_weight=spec.protection / 2.0,
        confidence_delta=0.5,
    )
