"""Fuzzing in the tests: 344 hostile cells, 224 by default, every method, against the oracle and the checker."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgealloc.files.instance import load_instance
from tests.fuzz.checks import examine
from tests.fuzz.covers import forged
from tests.fuzz.regimes import REGIMES, instance_of
from tests.fuzz.relations import related

KEPT = sorted((Path(__file__).parent / "kept").glob("*.json"))  # what fuzzing found, each mended
CASES = 340
EACH, FIRST = CASES // len(REGIMES) + 1, 28  # of a regime: in all, by default


@pytest.mark.parametrize(
    "seeds", [range(FIRST), pytest.param(range(FIRST, EACH), marks=pytest.mark.slow)], ids=["first", "others"]
)
@pytest.mark.parametrize("regime", REGIMES)
def test_hostile_cells(regime: str, seeds: range) -> None:
    for seed in seeds:
        found, _ended = examine(instance_of(regime, seed), seed)
        assert not found, (regime, seed, found)


def test_relations_of_larger_cells() -> None:
    for seed in range(21):
        found, _ended = related(seed)
        assert not found, (seed, found)


def test_covers_with_holes() -> None:
    refused = 0
    for seed in range(60):
        found, ended = forged(seed)
        assert not found, (seed, found)
        refused += ended["tree refused"]
    assert 20 < refused < 110


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_fuzzing_found_stays_mended(path: Path) -> None:
    found, _ended = examine(load_instance(path), None)
    assert not found
