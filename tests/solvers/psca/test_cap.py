"""The largest keep rate on given spectrum: against its definition, and P-SCA's search against that of OFDMA."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgealloc.api import solve
from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.ofdma.kernels import cap as ofdma
from edgealloc.solvers.ofdma.kernels.device import BAND, MODE_WIDTH
from edgealloc.solvers.psca.cap import keep_cap
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, ENERGY, FMAX, FMIN, KAPPA, PMAX, SMAX

FloatArray = NDArray[np.float64]


COLUMNS = {
    "bit0": BIT0, "bit1": BIT1, "cyc0": CYC0, "cyc1": CYC1, "down": DOWN, "energy": ENERGY, "kappa": KAPPA,
    "pmax": PMAX, "fmin": FMIN, "fmax": FMAX, "deadline": DEADLINE, "smax": SMAX,
}  # fmt: skip


def row_of(**columns: float) -> FloatArray:
    """A row with room for the columns that OFDMA appends."""
    row = np.full(MODE_WIDTH, np.nan)
    for name, value in columns.items():
        row[COLUMNS[name]] = value
    return row


def random_row(rng: np.random.Generator) -> FloatArray:
    """A device that the deadline, power, energy or the largest rate stops, often with an extreme in it."""
    fmax = 10.0 ** rng.uniform(8.0, 9.7)
    return row_of(
        bit0=rng.choice([0.0, 10.0 ** rng.uniform(3.0, 7.0)]),
        bit1=10.0 ** rng.uniform(4.0, 9.0),
        cyc0=rng.choice([0.0, 10.0 ** rng.uniform(7.0, 11.0)]),
        cyc1=rng.choice([0.0, 10.0 ** rng.uniform(6.0, 11.0)]),
        down=rng.choice([0.0, 10.0 ** rng.uniform(-10.0, -6.0)]),
        energy=rng.choice([1e-6, 10.0 ** rng.uniform(-3.0, 3.0), 1e9]),
        kappa=rng.choice([0.0, 10.0 ** rng.uniform(-30.0, -26.0)]),
        pmax=10.0 ** rng.uniform(-4.0, 2.0),
        fmin=fmax * rng.choice([1e-6, rng.uniform(0.01, 1.0), 1.0]),
        fmax=fmax,
        deadline=10.0 ** rng.uniform(-1.0, 3.0),
        smax=rng.choice([1.0, 0.1]),
    )


def random_inverse(rng: np.random.Generator) -> FloatArray:
    """1/a in W of up to 40 columns, upwards; some alike, some far apart, some without gain."""
    size = int(rng.integers(1, 40))
    inverse = 10.0 ** (rng.uniform(-9.0, 0.0) + rng.choice([0.0, 0.5, 4.0]) * rng.standard_normal(size))
    inverse[rng.random(size) < rng.choice([0.0, 0.2])] = np.inf
    return np.sort(inverse)


def both_caps(row: FloatArray, inverse: FloatArray, hz: float) -> tuple[float, float, float]:
    """The caps by OFDMA's search and by P-SCA's, from 0 to the row's largest rate; best SNR at P-SCA's level."""
    row[BAND] = hz
    whole = np.ones(len(inverse))
    with np.errstate(divide="ignore"):
        first = ofdma.keep_cap(row, inverse, -np.log2(inverse), whole)[0]
    second, _rate, _power, excess = keep_cap(row, hz / math.log(2.0), inverse, whole, len(inverse))
    return min(max(first, 0.0), row[SMAX]), max(second, 0.0), excess / inverse[0]


@pytest.mark.parametrize("count", [800, pytest.param(3000, marks=pytest.mark.slow)])
def test_searches_of_ofdma_and_psca_agree(count: int) -> None:
    """P-SCA's search ends closer to the top: it may win by OFDMA's last bracket, 1e-7 in log level, never lose."""
    rng = np.random.default_rng(1)
    seen = np.zeros(3, int)
    for _ in range(count):
        row = random_row(rng)
        first, second, snr = both_caps(row, random_inverse(rng), 10.0 ** rng.uniform(3.0, 7.0))
        seen += second == 0.0, 0.0 < second < row[SMAX], second == row[SMAX]
        assert abs(first - second) <= 2e-6  # even where rates are minute
        if second > 1e-4:
            bracket = (second + row[BIT0] / row[BIT1]) * 1e-7 * (1.0 + 1.0 / snr)
            assert -1e-11 * second <= second - first <= bracket
    assert seen.min() > count // 8


def test_device_without_cycles_sends_until_the_deadline() -> None:
    """It may leave no time for computing, where the clock is 0 cycles by 0 s."""
    for seed in range(50):
        rng = np.random.default_rng([2, seed])
        row = row_of(
            bit0=1e5, bit1=1e8, cyc0=0.0, cyc1=0.0, down=rng.choice([0.0, 1e-9]), energy=1e9, kappa=1e-28,
            pmax=0.1, fmin=1e9, fmax=2e9, deadline=10.0, smax=1.0,
        )  # fmt: skip
        inverse = np.sort(10.0 ** rng.uniform(-4.0, -2.0, 3))
        per_bit = row[DOWN] + 1.0 / (1e6 / math.log(2.0) * water_rate(inverse, 0.1))
        expected = min((10.0 / per_bit - 1e5) / 1e8, 1.0)
        assert both_caps(row, inverse, 1e6)[:2] == pytest.approx((expected, expected), rel=1e-9)


@pytest.mark.parametrize("access", ["ofdma", "fdma"])
def test_psca_solves_devices_without_cycles(access: Any) -> None:
    """P-SCA once took them for infeasible on most spectrum, and ended up to a third above the optimum."""
    options = CellOptions(devices=3, access=access, subcarriers=8 if access == "ofdma" else None)
    instance = make_cell(options, np.random.default_rng(0)).instance
    problem = Problem(instance.with_changes(cycles_fixed=np.zeros(3), cycles_lora=np.zeros(3)))
    assert solve(problem, "psca").objective <= solve(problem, "bnb", rel_gap=1e-6).objective * (1.0 + 1e-5)


def test_cap_is_the_largest_feasible_keep_rate() -> None:
    # against a fine grid over upload time and a search over s: the definition, not the derivation
    rng = np.random.default_rng(4)
    for _ in range(12):
        n = int(rng.integers(1, 5))
        inverse = np.sort(10.0 ** rng.uniform(-4.0, 0.0, n))
        row = row_of(
            bit0=rng.choice([0.0, 1e6]), bit1=1e7, cyc0=1e10, cyc1=rng.choice([0.0, 2e8]),
            down=rng.choice([0.0, 1e-8]), energy=rng.uniform(0.5, 4.0), kappa=1e-28, pmax=rng.uniform(0.05, 0.3),
            fmin=3e8, fmax=2e9, deadline=15.0, smax=1.0,
        )  # fmt: skip
        band = 10.0 ** rng.uniform(4.0, 5.5)
        found = keep_cap(row, band, inverse, np.ones(n), n)[0]

        def feasible(s: float, row=row, band=band, inverse=inverse) -> bool:  # type: ignore[no-untyped-def]
            bits, work = row[BIT0] + row[BIT1] * s, row[CYC0] + row[CYC1] * s
            window = row[DEADLINE] - bits * row[DOWN]
            for upload in np.linspace(0.0, window - work / row[FMAX], 1500)[1:]:
                clock = max(work / (window - upload) if upload < window else math.inf, row[FMIN])
                left = row[ENERGY] - row[KAPPA] * clock**2 * work
                power = min(row[PMAX], left / upload)
                sent = band * water_rate(inverse, power) * upload if power > 0 else 0.0
                if clock <= row[FMAX] * (1 + 1e-9) and sent >= bits:
                    return True
            return False

        if found < 1e-3:
            assert not feasible(max(found, 0.0) + 5e-3)
        else:
            assert feasible(found * 0.998)
            assert found >= 1.0 or not feasible(found * 1.002)


def test_no_step_of_the_cap_is_lost_where_computing_is_short() -> None:
    """One clock, and computing takes 1e-9 to 1e-3 of a round: a hair of s less leaves much more time for it.

    Newton's steps then are below the last digit of s though 1e-6 of the energy lacks.
    """
    rng, bound = np.random.default_rng(7), 0
    for _ in range(500):
        share, lacks = 10.0 ** rng.uniform(-9.0, -5.0), 10.0 ** rng.uniform(-9.0, -6.0)
        work = 1e10 + rng.choice([0.0, 5e8])
        row = row_of(
            bit0=0.0, bit1=1e7, cyc0=1e10, cyc1=2.0 * (work - 1e10), down=0.0, energy=1.0 - lacks,
            kappa=0.9e-18 / work, pmax=1.0, fmin=1e9, fmax=1e9, deadline=work / 1e9 / share, smax=1.0,
        )  # fmt: skip
        upload = row[DEADLINE] * (1.0 - share)  # of half the bits
        power = 0.1 / upload
        s, _clock, _by = ofdma.keep_at_rate(row, 5e6 / upload, power, 0.0, 1.0, 1.0)
        spent = power * upload * s / 0.5 + row[KAPPA] * 1e18 * (row[CYC0] + row[CYC1] * s)
        assert spent <= (1.0 + 1e-12) * row[ENERGY], (spent - row[ENERGY], s)
        bound += s >= 0.5 * (1.0 - 11.0 * lacks) - 1e-14
    assert bound == 500


def test_a_cap_breaks_no_budget_wherever_the_clock_ends() -> None:
    """All that may bind, orders of magnitude apart, in exact arithmetic; and next to no rate is lost.

    Energy that just pays for the slowest clock: the slope there is next to nothing, and a step that rounding
    turned led to rates of 1e7. Energy for a clock of a millionth of the fastest: 60 steps did not get there.
    """
    rng, caps = np.random.default_rng(5), 0
    for _ in range(2500):
        fmax, whole = 10.0 ** rng.uniform(3.0, 12.0), 10.0 ** rng.uniform(-2.0, 10.0)
        fixed = rng.choice([0.0, rng.random(), 1.0 - 1e-4])
        cycles, part = fmax * 10.0 ** rng.uniform(-16.0, 0.0), rng.choice([0.0, 1.0, rng.random()])
        fmin = fmax * rng.choice([1.0, 10.0 ** rng.uniform(-12.0, 0.0), 1.0 - 10.0 ** rng.uniform(-16.0, -1.0)])
        clock = rng.choice([fmax, fmin, max(cycles, fmin)])
        share = rng.choice([10.0 ** rng.uniform(-16.0, 8.0), 1.0 - 10.0 ** rng.uniform(-16.0, -1.0)])
        row = row_of(
            bit0=whole * fixed, bit1=whole * (1.0 - fixed), cyc0=cycles * part, cyc1=cycles * (1.0 - part),
            down=rng.choice([0.0, 10.0 ** rng.uniform(-12.0, -0.5)]) / whole, energy=1.0,
            kappa=share / (clock * clock * cycles), pmax=1.0, fmin=fmin, fmax=fmax, deadline=1.0, smax=1.0,
        )  # fmt: skip
        upload = (1.0 - whole * row[DOWN]) * rng.choice([1.0 - 10.0 ** rng.uniform(-16.0, -1.0), rng.random()])
        rate, power = whole / upload, rng.choice([10.0 ** rng.uniform(-12.0, 0.0), 1e-15]) / upload
        least, unit = rng.choice([0.0, 1e-3, -row[BIT0] / row[BIT1]]), rng.choice([0.0, 1.0])
        s, _clock, _by = ofdma.keep_at_rate(row, rate, power, least, 1.0, unit)
        assert s <= 1.0
        if s < max(least, 1e-9):  # none, or below the last digit of 1
            continue
        caps += s < 1.0
        late, over = beyond(row, rate, power, s)
        assert max(late, over) <= 0.0, (row.tolist(), rate, power, least, unit)
        if s < 0.999:
            late, over = beyond(row, rate, power, s + 1e-6)
            assert max(late, over) > -1e-5, (row.tolist(), rate, power, least, unit)
    assert caps > 300


@pytest.mark.parametrize("deadline", [1e16, 1e30, 1e60, 1e90, 4.5e133, 1e200])
def test_a_round_without_end_leaves_what_energy_carries(deadline: float) -> None:
    """Newton comes from rates of 1e117, and goes by what rounding leaves of its slope; halving takes 400 steps."""
    row = row_of(
        bit0=0.0, bit1=1e7, cyc0=1e10, cyc1=2e8, down=0.0, energy=2.9, kappa=1e-28, pmax=4e-20, fmin=4e-134,
        fmax=2e9, deadline=deadline, smax=1.0,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    for _ in range(200):
        power = 3.3e-20 * 10.0 ** rng.uniform(-3.0, 0.0)
        rate = power * 10.0 ** rng.uniform(9.0, 11.0)
        s, _clock, _by = ofdma.keep_at_rate(row, rate, power, 0.0, np.inf, 1.0)
        assert s == pytest.approx(min(2.9 / power, deadline) * rate / 1e7, rel=1e-9)


def beyond(row: FloatArray, rate: float, power: float, s: float) -> tuple[float, float]:
    """By what share of deadline and energy, 1e-12 more, a keep rate is beyond them at its best clock, exactly.

    Allocations are computed with budgets that are less by as much.
    """
    r = {name: Fraction(float(row[column])) for name, column in COLUMNS.items()}
    keep, upload = Fraction(float(s)), 1 / Fraction(float(rate))
    r |= {name: r[name] * (1 + Fraction(1, 10**12)) for name in ("deadline", "energy")}
    bits, work = r["bit0"] + r["bit1"] * keep, r["cyc0"] + r["cyc1"] * keep
    left = r["deadline"] - bits * (r["down"] + upload)
    late = work / r["fmax"] - left
    clock = min(max(work / left if left > 0 else r["fmax"], r["fmin"]), r["fmax"])
    over = r["kappa"] * clock * clock * work + Fraction(float(power)) * bits * upload - r["energy"]
    return float(late / r["deadline"]), float(over / r["energy"])


def water_rate(inverse: FloatArray, power: float) -> float:
    """Water-filling by trying every number of used columns."""
    best = 0.0
    for n in range(1, len(inverse) + 1):
        level = (power + inverse[:n].sum()) / n
        if level > inverse[n - 1]:
            best = float(np.log(level / inverse[:n]).sum())
    return best
