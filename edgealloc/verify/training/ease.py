"""Whether the problem of one round is no harder than the rounds of runs: its budgets, and both terms of the loss.

Decided by exact fractions and in balls. Derived in docs/runs.md, section *What is checked*.
"""

from __future__ import annotations

import math
from fractions import Fraction

from flint import arb, ctx

from edgealloc.certificate.run import RunPiece
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec
from edgealloc.data.spec import BoundSpec, UnderfitLogistic
from edgealloc.verify.proof.verdict import BITS

__all__ = ["enough", "is_below", "round_spec"]


def enough(budget: float, rounds: int, cap: float, whole: Fraction | None, caps: bool) -> bool:
    """Whether a budget of one round is at least what each of so many rounds may use."""
    if not math.isfinite(budget):
        return False
    if (caps or whole is None) and budget >= cap:
        return True
    return whole is not None and Fraction(budget) * rounds >= whole


def is_below(instance: Instance, spec: LearningSpec, piece: RunPiece) -> bool:
    """Whether both terms of a piece's problem are nowhere above those of its runs, decided in balls."""
    if not (piece.half > 0.0 and piece.steepness > 0.0 and piece.loss_range >= 0.0 and piece.lipschitz >= 0.0):
        return False
    with ctx.workprec(BITS):
        for s in (float(instance.keep_min.min()), float(instance.keep_max.max())):
            mine = arb(piece.steepness) * (arb(s) / arb(piece.half)).log()
            progress = (arb(spec.pace) * piece.last).log() + arb(spec.exponent) * arb(s).log()
            if not mine >= arb(spec.order) * progress:
                return False
        if not piece.loss_range:
            return True  # no overfitting at all
        small, most = arb(piece.loss_range), arb(spec.overfit) * arb(piece.first) ** arb(spec.growth)
        samples = sum((arb(n) for n in instance.samples.tolist()), arb(0))
        square = small * small * (1 + arb(spec.protection)) + 24 * small * arb(piece.lipschitz) ** 2
        return bool(square <= samples * most * most)


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
