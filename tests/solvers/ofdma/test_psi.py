"""The profit rate that a keep rate needs, against the least over thousands of upload times."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, MODE_WIDTH, cannot_carry, psi
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, ENERGY, FMAX, FMIN, KAPPA, PMAX
from edgealloc.units import LN2, FloatArray

_KEEP = 0.5


def extreme_row(rng: np.random.Generator) -> FloatArray:
    """A device that computes for 1e-20 to 1 of the deadline, clocks from far below to far above that."""
    row = np.zeros(MODE_WIDTH)
    row[DEADLINE] = row[BAND] = 1.0
    row[BIT0] = 10 ** rng.uniform(-3, 3) * (rng.random() < 0.7)
    row[BIT1] = 10 ** rng.uniform(-3, 3)
    clock = 10 ** rng.uniform(-3, 12)
    cycles = clock * 10 ** rng.uniform(-20, 0)
    row[CYC0] = cycles * rng.random()
    row[CYC1] = (cycles - row[CYC0]) / _KEEP
    row[ENERGY] = 10 ** rng.uniform(-6, 6)
    row[KAPPA] = row[ENERGY] * 10 ** rng.uniform(-12, 0) / (clock * clock * cycles)
    row[FMAX] = clock * 10 ** rng.uniform(-1, 10)
    row[FMIN] = clock * 10 ** rng.uniform(-20, 0)
    row[PMAX] = row[ENERGY] * 10 ** rng.uniform(-3, 3)
    return row


def least_profit(row: FloatArray, level: float) -> tuple[float, float]:
    """Least of (bits - alpha e) / t over many times, and the size of its terms; inf where no time will do.

    Long uploads are told by the clock, for what is left of the deadline cancels.
    """
    bits, cycles = row[BIT0] + row[BIT1] * _KEEP, row[CYC0] + row[CYC1] * _KEEP
    window, alpha = row[DEADLINE], row[BAND] / (level * LN2)
    short = window * np.logspace(-25, 0, 1000)
    clock = np.concatenate((cycles / np.maximum(window - short, 1e-30), row[FMAX] * np.logspace(0, -25, 3000)))
    time = np.concatenate((short, window - cycles / clock[1000:]))
    on = (time > 0.0) & (time <= window) & (clock <= row[FMAX])
    clock = np.maximum(clock, row[FMIN])
    energy = np.minimum(row[ENERGY] - row[KAPPA] * clock * clock * cycles, row[PMAX] * time)
    on &= energy > 0.0
    if not on.any():
        return np.inf, 1.0
    rate = (bits - alpha * energy[on]) / time[on]
    best = int(np.argmin(rate))
    return float(rate[best]), float((bits + alpha * energy[on][best]) / time[on][best])


def test_it_lies_below_the_least_over_all_upload_times() -> None:
    """Also where a deadline in doubles has no digit left for the time that computing takes."""
    rng = np.random.default_rng(1)
    close = served = 0
    for _ in range(1500):
        row = extreme_row(rng)
        level = row[PMAX] * 10 ** rng.uniform(-4, 4)
        found = float(psi(row, level, _KEEP))
        least, size = least_profit(row, level)
        assert found <= least + 1e-11 * size, (row.tolist(), level)
        served += least < np.inf
        close += least < np.inf and found >= least - 0.01 * size
    assert served > 500
    assert close > 0.99 * served


def test_what_is_left_out_of_the_longest_upload_is_paid_for() -> None:
    """Power stops the device up to an end that rounding hides: a hair before, more time still means less profit.

    The energy, of which there is far more than power can spend, says nothing of that; psi was 1e-12 too high.
    """
    rng = np.random.default_rng(2)
    for _ in range(500):
        row = np.zeros(MODE_WIDTH)
        row[DEADLINE], row[BAND], row[BIT1] = 10 ** rng.uniform(-3, 3), 1.0, 10 ** rng.uniform(-3, 6)
        row[ENERGY], row[PMAX] = 1.0, 1e-30 / row[DEADLINE]
        row[FMIN], row[FMAX] = 1.0, 1e6
        row[CYC0] = row[DEADLINE] * 10 ** rng.uniform(-15, -13)
        row[KAPPA] = 1e-30
        bits = row[BIT1] * _KEEP
        level = row[BAND] / (bits * rng.uniform(0.3, 2.0) * LN2)  # all energy is worth about as many bits
        latest = Fraction(row[DEADLINE]) - Fraction(row[CYC0]) / Fraction(row[FMAX])
        assert Fraction(float(psi(row, level, _KEEP))) <= Fraction(bits) / latest * (1 - Fraction(2, 10**24))


@pytest.mark.parametrize("watt", [1e8, 1e16, 1e20, 1e40, 1e80])
def test_power_that_takes_all_energy_at_once_is_no_reason_to_call_a_rate_infeasible(watt: float) -> None:
    """The time that it takes is less than the last digit of the longest upload; psi was infinite there."""
    rng, finite = np.random.default_rng(3), 0
    for _ in range(300):
        row = extreme_row(rng)
        row[PMAX], level = row[ENERGY] * watt, row[ENERGY] * 10 ** rng.uniform(-4, 4)
        found = float(psi(row, level, _KEEP))
        least, size = least_profit(row, level)
        assert found <= least + 1e-11 * size, (row.tolist(), level)
        finite += least < np.inf
    assert finite > 150


@pytest.mark.parametrize("noise", [1e-40, 1e-22, 1e-12, 1e-3])
def test_what_a_set_is_proved_unable_to_carry_is_beyond_its_cap(noise: float) -> None:
    """From any water level; where next to no power is left, rounding made a level of less than 0."""
    rng, proved = np.random.default_rng(4), 0
    for _ in range(400):
        row = extreme_row(rng)
        row[PMAX] = row[ENERGY] * 10 ** rng.uniform(-3, 6)
        inv = np.sort(noise * row[PMAX] * 10 ** rng.uniform(0, 1, 3))
        cap = keep_cap(row, inv, -np.log2(inv), np.ones(3))[0]
        for s in (0.3 * cap, 0.999 * cap, 1.01 * cap, 3.0 * cap):
            if s > 0.0:
                beyond = bool(cannot_carry(row, inv, s, row[PMAX] * 10 ** rng.uniform(-20, 2)))
                assert not (beyond and s < cap), (row.tolist(), inv.tolist(), s, cap)
                proved += beyond
    assert proved > 20
