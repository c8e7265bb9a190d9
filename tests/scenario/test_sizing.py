"""Spectrum sizing against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgealloc.scenario.sizing import (
    Demand,
    OperatingPoint,
    bandwidth_for_rate_hz,
    deal_subcarriers,
    least_bandwidth,
)


def test_bandwidth_for_rate_inverts_shannons_formula() -> None:
    snr_hz = np.geomspace(1e4, 1e10, 13)[:, None]
    share = np.array([1e-6, 1e-3, 0.1, 0.5, 0.69])  # of the wide-band limit x / ln 2
    rate = share * snr_hz / np.log(2.0)
    band = bandwidth_for_rate_hz(rate, snr_hz)
    assert band * np.log2(1.0 + snr_hz / band) == pytest.approx(rate, rel=1e-12)


def test_rates_beyond_the_wide_band_limit_have_no_bandwidth() -> None:
    limit = 1e6 / np.log(2.0)
    assert np.isnan(bandwidth_for_rate_hz(np.array([limit * 1.0001, limit * 2]), np.array([1e6, 1e6]))).all()


def _demand(rng: np.random.Generator, devices: int) -> Demand:
    return Demand(
        payload_bits=rng.uniform(1e6, 4e6, devices),
        cycles=rng.uniform(2e9, 1.5e10, devices),
        time_s=np.full(devices, 15.0),
        energy_j=rng.uniform(1.0, 6.0, devices),
        freq_min_hz=np.full(devices, 3e8),
        freq_max_hz=np.full(devices, 2e9),
        capacitance=np.full(devices, 1e-28),
        power_max_w=rng.uniform(0.05, 0.2, devices),
    )


def test_operating_points_meet_the_budgets_and_are_near_the_least_bandwidth() -> None:
    rng = np.random.default_rng(1)
    d = _demand(rng, 60)
    snr_hz_per_w = 10.0 ** rng.uniform(5.0, 10.0, 60)
    point = least_bandwidth(d, snr_hz_per_w, snr_min_db=0.0)
    served = np.isfinite(point.bandwidth_hz)
    assert 10 < served.sum() < 60  # the draw holds both cases
    band, power, freq = point.bandwidth_hz[served], point.power_w[served], point.freq_hz[served]
    upload_s = d.payload_bits[served] / (band * np.log2(1 + power * snr_hz_per_w[served] / band))
    assert np.all(upload_s + d.cycles[served] / freq <= 15.0)
    spent = power * upload_s + d.capacitance[served] * freq**2 * d.cycles[served]
    assert np.all(spent <= d.energy_j[served])
    assert np.all(power <= d.power_max_w[served])
    assert np.all(power * snr_hz_per_w[served] / band >= 1.0)
    # Brute force over 4,000 frequencies: no better than ours by more than the grid's coarseness, and where we
    # serve nobody there is nothing to serve (the 0 dB rule aside, hence half a decibel of room).
    freq = np.geomspace(3e8, 2e9, 4000)
    time = 15.0 - d.cycles[:, None] / freq
    energy = d.energy_j[:, None] - 1e-28 * freq**2 * d.cycles[:, None]
    ok = (time > 0) & (energy > 0)
    power = np.where(ok, np.minimum(d.power_max_w[:, None], energy / np.where(ok, time, 1.0)), 1e-9)
    rate = d.payload_bits[:, None] / np.where(ok, time, 1.0)
    snr_hz = power * snr_hz_per_w[:, None]
    brute = np.where(ok, bandwidth_for_rate_hz(rate, snr_hz), np.nan)
    brute = np.where(snr_hz / brute >= 10**0.05, brute, np.nan)
    best = np.nanmin(np.where(np.isnan(brute), np.inf, brute), axis=1)
    assert np.all(point.bandwidth_hz[served] <= 1.05 * best[served])
    assert np.all(np.isinf(best[~served]))


def test_dealt_subcarriers_carry_every_rate() -> None:
    rng = np.random.default_rng(2)
    devices, subcarriers = 5, 24
    snr = 1e7 * rng.exponential(size=(devices, subcarriers))
    power, rate = rng.uniform(0.1, 0.2, devices), rng.uniform(2e4, 8e4, devices)
    band = bandwidth_for_rate_hz(rate, power * snr.mean(axis=1))
    point = OperatingPoint(np.full(devices, 1e9), power, rate, band)
    width, owner = deal_subcarriers(point, snr)
    for k in range(devices):
        mine = np.flatnonzero(owner == k)
        got = width * np.log2(1 + power[k] / len(mine) * snr[k, mine] / width).sum()
        assert got >= rate[k]
    doubled, _ = deal_subcarriers(replace(point, rate_bps=2 * rate), snr)
    assert doubled > 1.5 * width
