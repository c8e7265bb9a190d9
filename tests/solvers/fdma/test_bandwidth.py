"""The least bandwidth of a device: against brute force, its derivatives, its convexity."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from edgealloc.api import solve
from edgealloc.conformance import cell
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.formulation.device import chosen_adapter
from edgealloc.solvers.certify.write import certified
from edgealloc.solvers.fdma import bandwidth as bw
from edgealloc.solvers.row import device_rows
from tests.solvers.fdma.random_instances import random_fdma

LN2 = math.log(2.0)


def rows_of(instance: Instance) -> np.ndarray:
    return device_rows(instance, chosen_adapter(instance, np.zeros(instance.num_devices, dtype=np.intp)))


def brute_force(instance: Instance, k: int, keep: float) -> float:
    """Least bandwidth over a fine grid of processor frequencies, from docs/model.md and nothing else."""
    bits = instance.payload_fixed_bits[k] + instance.payload_lora_bits[k] * keep
    work = instance.cycles_fixed[k] + instance.cycles_lora[k] * keep
    freq = np.linspace(instance.freq_min_hz[k], instance.freq_max_hz[k], 20001)
    time = instance.latency_s - bits / instance.downlink_bps[k] - work / freq
    left = instance.energy_j[k] - instance.energy_static_j[k] - instance.capacitance[k] * freq**2 * work
    energy = np.minimum(instance.power_max_w[k] * time, left)
    ok = (time > 0) & (energy > 0)
    ratio = energy[ok] * instance.gain[k] / (instance.noise_psd_w_per_hz * LN2 * bits)
    # nats per second and Hz that spend all of `energy`: log of (exp(v) - 1) / v is `log ratio`, by bisection
    low, high = np.zeros(ratio.shape), np.full(ratio.shape, 700.0)
    for _ in range(80):
        v = 0.5 * (low + high)
        less = np.log(np.expm1(v) / v) < np.log(ratio)
        low, high = np.where(less, v, low), np.where(less, high, v)
    with np.errstate(divide="ignore"):
        needed = np.where(ratio > 1, bits * LN2 / (v * time[ok]), np.inf)
    return float(needed.min(initial=np.inf))


def test_least_bandwidth_is_the_best_over_all_frequencies() -> None:
    seen: Counter[int] = Counter()
    for seed in range(15):
        instance = random_fdma(np.random.default_rng(seed))
        rows = rows_of(instance)
        for k in range(instance.num_devices):
            for keep in (instance.keep_min[k], 0.5 * (instance.keep_min[k] + instance.keep_max[k])):
                band, *_rest, regime = bw.least_bandwidth(rows[k], keep, 0.0)
                grid = brute_force(instance, k, keep)
                seen[int(regime)] += 1
                assert band <= grid * (1 + 1e-9), (seed, k)
                # the grid misses the best frequency by a step at most; near infeasibility that step can matter
                if math.isfinite(grid):
                    assert grid <= band * 1.05, (seed, k, regime)
    regular = {bw.STATIONARY, bw.KINK, bw.FREQ_MIN, bw.POWER, bw.POWER_FREQ_MAX, bw.FREQ_FIXED}
    assert regular <= set(seen), f"a limit never set the answer: {seen}"
    assert {bw.BLOCKED_DEADLINE, bw.BLOCKED_ENERGY, bw.BLOCKED_POWER} <= set(seen), f"{seen}"


def test_derivatives_match_finite_differences() -> None:
    checked = 0
    for seed in range(40):
        instance = random_fdma(np.random.default_rng(seed))
        for row, x_max in zip(rows_of(instance), np.log(instance.keep_max), strict=True):
            for x in (x_max - 2.0, x_max - 1.0):
                here = bw.least_bandwidth(row, math.exp(x), 0.0)
                step = 1e-5
                left, right = (bw.least_bandwidth(row, math.exp(x + d), 0.0) for d in (-step, step))
                if not math.isfinite(right[0]) or len({here[-1], left[-1], right[-1]}) > 1 or abs(here[2]) > 1e3:
                    continue
                slope = (math.log(right[0]) - math.log(left[0])) / (2 * step)
                curve = (right[1] - left[1]) / (2 * step)
                v_slope = (right[3] - left[3]) / (2 * step)
                assert here[1] == pytest.approx(slope, rel=1e-6, abs=1e-7)
                assert here[2] == pytest.approx(curve, rel=1e-4, abs=1e-5)
                assert here[4] == pytest.approx(v_slope, rel=1e-4, abs=1e-5)
                checked += 1
    assert checked > 100


def test_log_bandwidth_is_convex_and_increasing_in_log_keep() -> None:
    checked = 0
    for seed in range(40):
        instance = random_fdma(np.random.default_rng(seed))
        for row in rows_of(instance):
            x = np.linspace(-6.0, 0.0, 121)
            band = np.array([bw.least_bandwidth(row, s, 0.0)[0] for s in np.exp(x)])
            log_band = np.log(band[np.isfinite(band)])
            assert np.all(np.isfinite(band) == (np.arange(121) < np.isfinite(band).sum()))  # feasible, then not
            if len(log_band) < 3:
                continue
            assert np.all(np.diff(log_band) >= -1e-12)
            assert np.all(np.diff(log_band, 2) >= -1e-10 * (1 + np.abs(log_band[1:-1])))
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("v", [1e-9, 1e-3, 0.0499999, 0.0500001, 1.0, 30.0])
def test_energy_shape_and_its_inverse(v: float) -> None:
    eps, first, second = bw.energy_shape(v)
    assert eps == pytest.approx(math.expm1(v) / v, rel=1e-14)
    # derivatives from the integral of r^n exp(v r) over r in [0, 1], by Gauss-Legendre
    nodes, weights = np.polynomial.legendre.leggauss(40)
    r = 0.5 * (nodes + 1)
    assert first == pytest.approx(0.5 * weights @ (r * np.exp(v * r)), rel=1e-12)
    assert second == pytest.approx(0.5 * weights @ (r**2 * np.exp(v * r)), rel=1e-11)
    assert bw.energy_shape_inverse(eps) == pytest.approx(v, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("v", [300.0, 354.0, 355.0, 400.0, 697.0])
def test_the_inverse_where_twice_the_logarithm_leaves_the_range_of_doubles(v: float) -> None:
    assert bw.energy_shape_inverse(math.expm1(v) / v) == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize("gain", [1e100, 1e150, 1e280])
def test_a_channel_however_good_is_no_reason_to_call_a_cell_infeasible(gain: float) -> None:
    result = solve(cell(gain=[gain, 2e-11, 1e-10]), method="bnb")
    assert result.status is Status.OPTIMAL
    assert result.objective < solve(cell(gain=[1e-3, 2e-11, 1e-10]), method="bnb").objective
    assert certified(result)[0].status is Status.OPTIMAL
