"""Constraints that are built into the instance or priced, to the last digit."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgealloc.data.constraints import EnergyCap, KeepFloor, ParticipationCap, PowerCap, SpectrumCap
from edgealloc.verify.folding import HAIR, Rows, priced_rows, with_constraints


@pytest.mark.parametrize(("cap", "field"), [(PowerCap, "power_max_w"), (EnergyCap, "energy_j")])
def test_a_cap_on_one_device_is_its_budget(make_instance: Any, cap: Any, field: str) -> None:
    instance = make_instance()
    folded = with_constraints(instance, [cap(0.03, {"dev-0001": 3.0}), cap(0.5, [0, 1]), cap(9.0, [2])])
    least = Fraction(0.03) * (1 + HAIR) / 3
    found, others = getattr(folded, field), getattr(instance, field)
    assert least <= Fraction(found[1]) <= least * (1 + Fraction(1, 2**52))
    assert np.array_equal(found[[0, 2, 3]], others[[0, 2, 3]])
    assert folded.with_changes(**{field: others}) == instance.with_changes(**{field: others})


def test_a_floor_raises_the_least_rate_and_takes_levels_away(make_instance: Any) -> None:
    levels = (np.array([0.05, 0.2, 0.4]),) * 3 + (None,)
    instance = make_instance(keep_levels=levels)
    folded = with_constraints(instance, [KeepFloor(0.2, [1, 3]), KeepFloor(0.1, [1])])
    assert folded.keep_min.tolist() == [0.05, 0.2, 0.05, 0.2]
    assert folded.keep_levels is not None
    assert [None if some is None else some.tolist() for some in folded.keep_levels] == [
        [0.05, 0.2, 0.4], [0.2, 0.4], [0.05, 0.2, 0.4], None,
    ]  # fmt: skip
    assert with_constraints(instance, [KeepFloor(0.01, [1])]) is instance


def test_rows_are_rounded_up_to_whole_blocks_and_no_further(make_instance: Any) -> None:
    """A sum of doubles nearest to blocks may be 2^-53 of it above as many blocks."""
    blocks = make_instance("rb", bandwidth_hz=8.0, block_hz=1.0)
    caps = [
        SpectrumCap(3.5, [0, 1]),
        SpectrumCap(7.0, {"dev-0000": 2.0}),
        SpectrumCap(7.0, {"dev-0000": 2.0, "dev-0001": 1.0}),
    ]
    caps.append(ParticipationCap(2.0, [1, 2, 3]))
    assert priced_rows([KeepFloor(0.1), *caps, PowerCap(1.0)]) == tuple(caps)
    rows = Rows.of(blocks, caps)
    assert len(rows) == 4
    assert rows.limit[0] == math.nextafter(3.0, 4.0)
    assert rows.limit[1] == math.nextafter(6.0, 7.0)
    for limit, exact in zip(rows.limit[2:], (7, 2), strict=True):
        assert exact * (1 + HAIR) <= Fraction(limit) <= exact * (1 + HAIR) * (1 + Fraction(1, 2**52))
    assert rows.spectrum.tolist() == [[1, 1, 0, 0], [2, 0, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0]]
    assert rows.devices.tolist() == [[0, 0, 0, 0]] * 3 + [[0, 1, 1, 1]]
    assert Rows.of(make_instance(), caps[:1]).limit[0] >= 3.5
    most = rows.most_hz()
    assert most[0] == pytest.approx(3.0, rel=1e-12)
    assert most[1] == pytest.approx(3.0, rel=1e-12)
    assert np.isposinf(most[2:]).all()


def test_nobody_takes_part_under_a_cap_below_one(make_instance: Any) -> None:
    rows = Rows.of(make_instance(), [ParticipationCap(0.5, [2])])
    most = rows.most_hz()
    assert most[2] == -1.0
    assert np.isposinf(most[[0, 1, 3]]).all()
