"""A problem of one round counts as no harder than its runs only up to the edge of each term."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgealloc.certificate.prices import Certificate, Pieces, Planes
from edgealloc.certificate.run import CurveTerms, NeededTerms, RunPiece
from edgealloc.data.learning import LearningSpec, NeededRounds
from edgealloc.verify.training.ease import enough, is_below
from tests.conftest import small_instance

SPEC = LearningSpec(pace=0.37, exponent=1.3, order=2.1, overfit=0.013, growth=1.7, protection=5.3)
CELL = small_instance(
    "fdma", 2, samples=(130.0, 41.0), keep_min=np.array([0.11, 0.07]), keep_max=np.array([0.83, 0.71])
)
FIRST, LAST = 3, 7
NONE = np.zeros(0)
NOTHING = Certificate(
    "none", "prices", 0.0,
    Pieces(NONE.astype(int), NONE.astype(int), NONE, NONE, Planes(NONE, NONE, NONE, NONE.astype(int), NONE)),
)  # fmt: skip


def below(terms: CurveTerms | NeededTerms, spec: Any = SPEC) -> bool:
    return is_below(CELL, spec, RunPiece(FIRST, LAST, 10.0, CELL.energy_j, terms, NOTHING))


def half_at(steepness: float) -> float:
    """The greatest half at which the term is as low as after the last round, at both ends of the keep rates."""
    ends = (0.07, 0.83)
    progress = [SPEC.order * math.log(SPEC.pace * LAST * s**SPEC.exponent) for s in ends]
    return float(min(s * math.exp(-p / steepness) for s, p in zip(ends, progress, strict=True)))


@pytest.mark.parametrize("steepness", [1.9, SPEC.order * SPEC.exponent, 3.7])
def test_a_learning_term_is_low_enough_up_to_its_half(steepness: float) -> None:
    half = half_at(steepness)
    assert below(CurveTerms(half * (1.0 - 1e-9), steepness, 0.0, 0.0))
    assert not below(CurveTerms(half * (1.0 + 1e-9), steepness, 0.0, 0.0))


@pytest.mark.parametrize("protected", [0.0, 0.3, 1.0])
def test_an_overfitting_term_is_low_enough_up_to_that_of_the_first_round(protected: float) -> None:
    """L^2 (1 + l) + 24 L eta^2 <= n (E R^b)^2, for any share of the two."""
    steepness, most = 3.7, 171.0 * (SPEC.overfit * FIRST**SPEC.growth) ** 2
    half = 0.9 * half_at(steepness)
    loss_range = math.sqrt(protected * most / (1.0 + SPEC.protection)) or 1e-3 * math.sqrt(most)
    rest = most - loss_range**2 * (1.0 + SPEC.protection)
    lipschitz = math.sqrt(max(rest, 0.0) / (24.0 * loss_range))
    for factor, low in ((1.0 - 1e-9, True), (1.0 + 1e-9, False)):
        root = math.sqrt(factor)
        assert below(CurveTerms(half, steepness, loss_range * factor, lipschitz * root)) is low
    assert not below(CurveTerms(half, steepness, -loss_range, lipschitz))
    assert not below(CurveTerms(half, steepness, loss_range, -lipschitz or -1e-300))
    assert not below(CurveTerms(0.0, steepness, loss_range, lipschitz))
    assert not below(CurveTerms(half, -steepness, loss_range, lipschitz))


def test_needed_rounds_are_low_enough_up_to_their_weight_and_their_constant() -> None:
    needed = NeededRounds(0.6, 1.7)
    weight, constant = 1.7 / LAST, math.sqrt(171.0) * 2.3 / LAST
    assert below(NeededTerms(weight * (1.0 - 1e-12), constant * (1.0 - 1e-12)), needed)
    assert below(NeededTerms(0.0, 0.0), needed)
    assert below(NeededTerms(weight * 0.5, 0.3 * constant), needed)
    assert not below(NeededTerms(weight * (1.0 + 1e-12), 0.3 * constant), needed)
    assert not below(NeededTerms(weight * 0.5, constant * (1.0 + 1e-12)), needed)
    assert not below(NeededTerms(-weight, 0.3 * constant), needed)
    assert not below(NeededTerms(weight, -0.3 * constant), needed)


def test_terms_of_the_other_kind_are_none() -> None:
    assert not below(NeededTerms(0.0, 0.0))
    assert not below(CurveTerms(0.1, 2.0, 0.0, 0.0), NeededRounds(0.6, 1.7))


def test_a_budget_is_enough_from_the_share_of_the_whole_on() -> None:
    whole = Fraction(37, 10)
    least = 3.7 / 4
    for budget, cap, caps, there in (
        (math.nextafter(least, 9.0), 2.0, False, True), (math.nextafter(least, 0.0), 2.0, False, False),
        (math.nextafter(least, 0.0), 0.9, True, True), (math.nextafter(least, 0.0), 0.9, False, False),
        (0.9, 0.9, True, True), (math.nextafter(0.9, 0.0), 0.9, True, False), (math.inf, 0.9, True, False),
    ):  # fmt: skip
        assert enough(budget, 4, cap, whole, caps) is there, (budget, cap, caps)
    for budget, there in ((0.9, True), (math.nextafter(0.9, 0.0), False)):
        assert enough(budget, 4, 0.9, None, False) is there
