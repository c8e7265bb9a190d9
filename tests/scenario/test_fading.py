"""Fading: unit mean power, the correlations that the delay profile and the Doppler spectrum prescribe."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import j0

from edgealloc.errors import InputError
from edgealloc.scenario.fading import (
    DELAY_PROFILES,
    DelayProfile,
    delay_profile,
    doppler_hz,
    draw_fading,
    draw_rayleigh,
    evolve,
    jakes_process,
    lag_correlation,
)

LINKS = 40_000
# Five standard errors of a mean of LINKS unit-variance variables.
TOLERANCE = 5 / np.sqrt(LINKS)


def test_rayleigh_power_is_exponential_with_unit_mean() -> None:
    power = np.abs(draw_rayleigh(LINKS, np.random.default_rng(1))) ** 2
    assert power.mean() == pytest.approx(1.0, abs=TOLERANCE)
    assert (power > 1.0).mean() == pytest.approx(np.exp(-1.0), abs=TOLERANCE)


def test_rician_has_unit_mean_power_and_the_spread_of_its_factor() -> None:
    # Var |h|^2 = (1 + 2 K)/(1 + K)^2 for a unit-power Rician amplitude.
    for k_db in (-10.0, 3.0, 9.0):
        k = 10 ** (k_db / 10)
        power = draw_fading(np.full(LINKS, k_db), np.random.default_rng(2)).power_gain()[:, 0]
        assert power.mean() == pytest.approx(1.0, abs=TOLERANCE)
        assert power.var() == pytest.approx((1 + 2 * k) / (1 + k) ** 2, rel=0.06)


def test_rician_limits_are_rayleigh_and_no_fading() -> None:
    power = draw_fading(np.repeat([-np.inf, np.inf], LINKS), np.random.default_rng(3)).power_gain()[:, 0]
    assert (power[:LINKS] > 1.0).mean() == pytest.approx(np.exp(-1.0), abs=TOLERANCE)
    assert power[LINKS:] == pytest.approx(np.ones(LINKS), abs=1e-12)


def rayleigh_response(
    links: int, seed: int, subcarriers: int, profile: DelayProfile, spacing_hz: float
) -> NDArray[np.complex128]:
    """Amplitudes [K, M] of links without a fixed ray."""
    state = draw_fading(np.full(links, -np.inf), np.random.default_rng(seed), subcarriers, profile, spacing_hz)
    assert state.response is not None
    assert not state.ray.any()
    return np.asarray(state.taps @ state.response)


@pytest.mark.parametrize("name", list(DELAY_PROFILES))
def test_tabled_profiles_have_unit_delay_spread(name: str) -> None:
    # TR 38.901 normalises each table to a delay spread of one: a wrong digit in our copy shows here.
    profile = delay_profile(name, 1.0)
    assert profile.power.sum() == pytest.approx(1.0, abs=1e-14)
    assert profile.delay_spread_s == pytest.approx(1.0, abs=1e-4)
    assert len(profile.power) == {"TDL-A": 23, "TDL-B": 23, "TDL-C": 24}[name]


@pytest.mark.parametrize("name", list(DELAY_PROFILES))
def test_subcarriers_have_unit_power_and_the_correlation_of_the_profile(name: str) -> None:
    profile = delay_profile(name, 300e-9)
    spacing_hz = 250e3
    h = rayleigh_response(LINKS, 4, 8, profile, spacing_hz)
    assert (np.abs(h) ** 2).mean(axis=0) == pytest.approx(np.ones(8), abs=TOLERANCE)
    # E[h(f + spacing) h*(f)] is the Fourier transform of the delay profile.
    analytic = np.exp(-2j * np.pi * np.outer(np.arange(8) * spacing_hz, profile.delay_s)) @ profile.power
    measured = (h * h[:, :1].conj()).mean(axis=0)
    assert measured == pytest.approx(analytic, abs=TOLERANCE)
    # Powers of Gaussian amplitudes: Cov(|h|^2, |h'|^2) = |E h h'*|^2.
    power = np.abs(h) ** 2
    covariance = ((power[:, 0] - 1.0)[:, None] * (power - 1.0)).mean(axis=0)
    assert covariance == pytest.approx(np.abs(analytic) ** 2, abs=4 * TOLERANCE)
    assert abs(analytic[1]) > 0.8 > np.abs(analytic).min()  # neighbours alike, others less


def test_no_delay_spread_is_flat() -> None:
    profile = delay_profile("TDL-C", 0.0)
    h = rayleigh_response(5, 5, 3, profile, 5e8)
    assert np.abs(h - h[:, :1]).max() < 1e-12


def test_ar1_keeps_the_power_and_has_the_correlation_asked_for() -> None:
    rng = np.random.default_rng(6)
    profile = delay_profile("TDL-A", 1e-7)
    before = draw_fading(np.full(LINKS, -np.inf), rng, 1, profile).taps
    after = evolve(before, 0.8, rng, profile.power)
    assert (np.abs(after) ** 2).mean(axis=0) == pytest.approx(profile.power, rel=0.06)
    correlation = (after * before.conj()).mean(axis=0) / profile.power
    assert correlation == pytest.approx(np.full(len(profile.power), 0.8), abs=TOLERANCE)
    assert np.array_equal(evolve(before, 1.0, rng, profile.power), before)


def test_jakes_process_has_the_bessel_autocorrelation() -> None:
    time = np.array([0.0, 1e-3, 5e-3, 12e-3])
    doppler = float(doppler_hz(15.0, 2e9))
    assert doppler == pytest.approx(100.0)
    h = jakes_process(time, doppler, LINKS, np.random.default_rng(7))
    assert (np.abs(h) ** 2).mean(axis=1) == pytest.approx(np.ones(4), abs=TOLERANCE)
    expected = j0(2 * np.pi * doppler * time)
    assert lag_correlation(doppler, time) == pytest.approx(expected, abs=1e-15)
    assert (h * h[0].conj()).mean(axis=1) == pytest.approx(expected, abs=TOLERANCE)


def test_same_seed_same_bits() -> None:
    profile = delay_profile("TDL-B", 1e-7)
    first, second = (draw_fading(np.zeros(7), np.random.default_rng(8), 4, profile, 1e6) for _ in range(2))
    assert np.array_equal(first.power_gain(), second.power_gain())


def test_bad_options_name_the_field() -> None:
    with pytest.raises(InputError, match=r"delay_profile(.|\n)*delay_spread_s"):
        delay_profile("TDL-Z", -1.0)
    with pytest.raises(InputError, match="correlation"):
        evolve(np.ones(3, dtype=complex), 1.5, np.random.default_rng(0))
