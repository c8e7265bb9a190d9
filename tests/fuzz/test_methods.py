"""Fuzzing in the default run: 300 hostile cells, every method, against the oracle and the checker."""

from __future__ import annotations

import pytest

from tests.fuzz.checks import examine
from tests.fuzz.regimes import REGIMES, instance_of
from tests.fuzz.relations import related

CASES = 300
EACH = CASES // len(REGIMES) + 1


@pytest.mark.parametrize("regime", REGIMES)
def test_hostile_cells(regime: str) -> None:
    for seed in range(EACH):
        found, _ended = examine(instance_of(regime, seed), seed)
        assert not found, (regime, seed, found)


def test_relations_of_larger_cells() -> None:
    for seed in range(21):
        found, _ended = related(seed)
        assert not found, (seed, found)
