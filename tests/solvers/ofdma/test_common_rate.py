"""OFDMA with one common keep rate, against brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgealloc.data.instance import Instance
from edgealloc.formulation.problem import Problem
from tests.solvers.ofdma.oracle import random_curve, random_ofdma
from tests.solvers.ofdma.solving import REL_GAP
from tests.solvers.ofdma.test_curves import compare_curve


def common_instance(seed: int) -> Instance:
    """Any mix of variants with one rate; levels, where there are any, are partly shared."""
    rng = np.random.default_rng([17, seed])
    changes: dict[str, Any] = {"common_keep": True}
    if rng.random() < 0.3:
        changes["bound"] = random_curve(rng)
    instance = random_ofdma(rng, **changes)
    if instance.keep_levels is not None:
        lists = [np.unique(np.r_[rng.uniform(0.1, 0.5, 2), 0.1, 0.25, 0.5]) for _ in instance.keep_levels]
        instance = instance.with_changes(keep_levels=tuple(lists), keep_min=0.1, keep_max=0.5)
    return instance


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 24), marks=pytest.mark.slow)], ids=str)
def test_common_rate_against_brute_force(seeds: range) -> None:
    for seed in seeds:
        compare_curve(Problem(common_instance(seed)), REL_GAP)


@pytest.mark.parametrize("seed", [1013, 1119, 1345, 1651, 1902])
def test_common_rates_that_once_failed(seed: int) -> None:
    """Gaps of 10 % that stood for minutes, a free objective above the objective, a gap of 1e-6 and an error."""
    compare_curve(Problem(common_instance(seed)), REL_GAP)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_common_rate_at_length(block: int) -> None:
    for seed in range(1000 + 100 * block, 1000 + 100 * (block + 1)):
        compare_curve(Problem(common_instance(seed)), REL_GAP)
