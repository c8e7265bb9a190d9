"""Fuzzing in the default run: 300 hostile cells, every method, against the oracle and the checker."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgealloc.files.instance import load_instance
from tests.fuzz.checks import examine
from tests.fuzz.regimes import REGIMES, instance_of
from tests.fuzz.relations import related

KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))  # what fuzzing found, each mended
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


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_fuzzing_found_stays_mended(path: Path) -> None:
    found, _ended = examine(load_instance(path), None)
    assert not found
