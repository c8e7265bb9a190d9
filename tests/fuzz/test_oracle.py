"""The oracle before it judges others: reference values of public cells, its two sides, its exact arithmetic."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.data.allocation import Allocation
from edgealloc.files.instance import load_instance
from tests.fuzz.exact import faults_of, value_of
from tests.fuzz.oracle import ask
from tests.fuzz.regimes import REGIMES, instance_of


@pytest.mark.parametrize("name", ["fdma-2-s1", "fdma-2-s2", "ofdma-2x8-s1", "ofdma-2x8-s2"])
def test_reference_values_of_public_cells(cases: Path, name: str) -> None:
    known = json.loads((cases / "references.json").read_text(encoding="utf-8"))[name]
    answer = ask(load_instance(cases / f"{name}.json"))
    assert answer.value == pytest.approx(known["value"], rel=2e-7)
    assert 0.85 * answer.value < answer.lower <= answer.value


@pytest.mark.parametrize("each", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_the_two_sides_meet(each: int) -> None:
    """Points are feasible in exact arithmetic; bounds below come close; most cells are decided."""
    close, open_ = [], 0
    for regime in REGIMES:
        for seed in range(7_000_000, 7_000_000 + each):
            instance = instance_of(regime, seed)
            answer = ask(instance)
            if answer.point is None:
                open_ += math.isfinite(answer.lower)
                continue
            assert faults_of(instance, answer.point) == []
            assert answer.lower <= answer.value == value_of(instance, answer.point)
            close.append(answer.value - answer.lower <= 1.1e-2 * abs(answer.value))
    assert len(close) > 15 * each // 6
    assert np.mean(close) > 0.7
    assert open_ < 6


def test_exact_arithmetic_sees_a_deadline_missed_by_an_ulp(make_instance: Any) -> None:
    instance = make_instance(
        "fdma", 1, cycles_fixed=0.0, cycles_lora=0.0, payload_fixed_bits=0.0, keep_min=0.5, downlink_bps=math.inf
    )
    point = Allocation(keep=[0.5], freq_hz=[1e9], power_w=[0.1], bandwidth_hz=[1e6])
    rate = 1e6 * math.log2(1.0 + 0.1 * instance.gain[0] / (instance.noise_psd_w_per_hz * 1e6))
    seconds = 0.5 * instance.payload_lora_bits[0] / rate
    around = seconds * (1.0 + np.arange(-40, 41) * 2.0**-53)
    late = [bool(faults_of(instance.with_changes(latency_s=float(t)), point)) for t in around]
    assert late[0]
    assert not late[-1]
    assert late == sorted(late, reverse=True)


@pytest.mark.parametrize("regime", REGIMES)
def test_seeds_always_give_the_same(regime: str) -> None:
    assert instance_of(regime, 3) == instance_of(regime, 3)
    assert instance_of(regime, 3) != instance_of(regime, 4)
