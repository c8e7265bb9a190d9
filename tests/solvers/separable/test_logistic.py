"""FDMA and resource blocks under a logistic term, with every variant, against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.data.outcome import Status
from edgealloc.data.spec import UnderfitLogistic
from tests.solvers.ofdma.oracle import random_logistic
from tests.solvers.separable.test_brute_force import check, random_instance


@pytest.mark.parametrize("batch", range(2))
def test_logistic_terms_against_brute_force(batch: int) -> None:
    ends = []
    for seed in range(12 * batch, 12 * batch + 12):
        bound = random_logistic(np.random.default_rng([19, seed]))
        ends.append(check(random_instance(seed).with_changes(bound=bound), 1e-6))
    assert ends.count(Status.OPTIMAL) >= 8


def test_one_common_rate_against_brute_force() -> None:
    ends = []
    for seed in range(6):
        bound = random_logistic(np.random.default_rng([20, seed]))
        ends.append(check(random_instance(seed, common=True).with_changes(bound=bound), 1e-5))
    assert ends.count(Status.OPTIMAL) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_logistic_terms_at_length(batch: int) -> None:
    for seed in range(1000 + 20 * batch, 1020 + 20 * batch):
        bound = random_logistic(np.random.default_rng([19, seed]))
        check(random_instance(seed, common=seed % 5 == 4).with_changes(bound=bound), 1e-5)


@pytest.mark.parametrize(("half", "steepness"), [(1e-6, 1e-6), (0.3, 1e6), (1e6, 1e6), (1e-100, 1e9)])
def test_extreme_terms_are_solved(half: float, steepness: float) -> None:
    """Flat, a step inside, and nothing learnt or to learn at any rate."""
    term = UnderfitLogistic(half, steepness)
    for seed in (1, 2, 5):
        bound = random_logistic(np.random.default_rng([21, seed]), underfit_logistic=term)
        check(random_instance(seed).with_changes(bound=bound, keep_levels=None), 1e-6)
