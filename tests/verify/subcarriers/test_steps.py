"""Single steps of proofs of sub-carriers, against enumeration and random points."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from flint import ctx

from edgealloc.data.instance import Instance
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.subcarriers.claim import Model
from edgealloc.verify.subcarriers.device import needs
from edgealloc.verify.subcarriers.sets import open_sets
from tests.solvers.ofdma.oracle import random_ofdma


def test_open_sets_by_enumeration() -> None:
    """Just the sets that no cut puts at 0 or above, whatever is fixed."""
    rng = np.random.default_rng(1)
    for _ in range(60):
        cuts, count = int(rng.integers(1, 5)), int(rng.integers(1, 8))
        base, worth = rng.normal(size=cuts) - 0.5, rng.normal(size=(cuts, count)) * rng.choice([0.1, 1.0, 1e3])
        fixed = rng.choice(np.array([-1, -1, -1, 0, 1], np.int8), count)
        sets = np.array(list(itertools.product([False, True], repeat=count)))
        fits = np.all((sets | (fixed != 1)) & (~sets | (fixed != 0)), axis=1)
        low = np.all(base + sets @ worth.T < 0.0, axis=1)
        found = open_sets(base, worth, fixed)
        assert found is not None
        assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in sets[fits & low].tolist()}


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_the_profit_needed_lies_above_its_planes(kind: type[Number]) -> None:
    """Every upload time of every keep rate needs at least what the plane at another keep rate says; it touches."""
    checked, tight = 0, 0
    for seed in range(30 if kind is Intervals else 6):
        rng = np.random.default_rng(seed)
        instance = random_ofdma(rng)
        with ctx.workprec(128), np.errstate(all="ignore"):
            model = Model.of(instance, kind, False)
            count = 12
            number = rng.integers(len(model.number), size=count)
            level = 10.0 ** rng.uniform(-5, 0, count)
            keep = rng.uniform(0.02, 1.0, count)
            plane = needs(model.rows.take(number), model.radio.watt(level), keep)
            pairs = {row: pair for pair, row in model.number.items()}
            for i in range(count):
                if plane.unserved[i]:
                    assert not np.isfinite(_needed(instance, pairs[int(number[i])], level[i], keep[i])[0].min())
                    continue
                value, pull, lean, at = (
                    0.5 * float(x.lower()[i] + x.upper()[i])
                    for x in (plane.value, plane.pull, plane.lean, plane.at)
                )
                if not math.isfinite(value):
                    continue
                for s in (keep[i], *rng.uniform(0.02, 1.0, 3)):
                    need, time = _needed(instance, pairs[int(number[i])], level[i], s)
                    below = value + pull * (s - keep[i]) / time + lean * (1.0 / time - at)
                    good = np.isfinite(need)
                    size = np.abs(need) + np.abs(value) + np.abs(below) + 1.0
                    assert np.all(below[good] <= need[good] + 1e-9 * size[good])
                    checked += int(good.sum())
                    if s == keep[i] and good.any():
                        tight += bool(need.min() <= value + 1e-3 * abs(value))
    assert checked > 1000
    assert tight > 20


def _needed(instance: Instance, pair: tuple[int, int], level: float, keep: float) -> tuple[Any, Any]:
    """Profit rate (D - alpha e(t)) / t on a grid of upload times, written once more; inf where t is too long."""
    k, option = pair
    d1, w1 = instance.payload_lora_bits[k], instance.cycles_lora[k]
    menu = instance.adapter_options[k] if instance.adapter_options else None
    if menu:
        d1, w1 = menu[option].payload_lora_bits, menu[option].cycles_lora
    bits, work = instance.payload_fixed_bits[k] + d1 * keep, instance.cycles_fixed[k] + w1 * keep
    window = instance.latency_s - bits / instance.downlink_bps[k]
    longest = window - work / instance.freq_max_hz[k]
    time = np.concatenate((np.geomspace(1e-6, 1.0, 2000), 1.0 - np.geomspace(1e-9, 0.5, 500))) * max(longest, 1e-9)
    freq = np.maximum(instance.freq_min_hz[k], work / (window - time))
    left = instance.energy_j[k] - instance.energy_static_j[k] - instance.capacitance[k] * freq**2 * work
    alpha = instance.bandwidth_hz / instance.gain.shape[1] / (level * math.log(2.0))
    need = (bits - alpha * np.minimum(left, instance.power_max_w[k] * time)) / time
    return np.where((left >= 0.0) & (longest > 0.0), need, np.inf), time
