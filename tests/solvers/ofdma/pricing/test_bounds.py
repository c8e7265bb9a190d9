"""Cuts, counts, covers and pricing bounds, against enumerated sets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from edgealloc.formulation.problem import Problem
from edgealloc.solvers.ofdma import node as ofdma_node
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, profits, proven_keep, psi
from edgealloc.solvers.ofdma.kernels.share import best_share, free_keeps, share
from edgealloc.solvers.ofdma.pricing import mode as ofdma_pricing
from edgealloc.solvers.ofdma.pricing.counts import count_cuts
from edgealloc.solvers.ofdma.pricing.cover import Cover
from edgealloc.solvers.ofdma.pricing.cuts import make_cuts
from edgealloc.solvers.row import (
    BIT0,
    BIT1,
    CYC0,
    CYC1,
    DEADLINE,
    DOWN,
    ENERGY,
    FMAX,
    FMIN,
    KAPPA,
    PMAX,
    SMAX,
    SMIN,
)
from tests.solvers.ofdma.oracle import random_curve, random_ofdma
from tests.solvers.ofdma.solving import solve


def test_covers_bound_every_set_of_a_part() -> None:
    """The table of a part is no higher than any set that carries a keep rate of it, and often above all cuts."""
    rng = np.random.default_rng(5)
    tighter = compared = 0
    for _ in range(40):
        cell = OfdmaCell.of(Problem(random_ofdma(rng)))
        for i, k in enumerate(cell.device):
            m = cell.subcarriers
            mu = rng.uniform(0.5, 1.0, m) * cell.size / (4.0 * m)
            everything = cell.cap(i, np.ones(m, bool))[0]
            low = float(cell.rows[i, SMIN])
            if not everything > low:
                continue
            row, inv_a, log2_a = cell.rows[i], cell.inv_a[k], cell.log2_a[k]
            low = low + rng.uniform(0.0, 0.9) * (min(everything, 1.0) - low)
            high, none = low * 1.003, np.empty(0)
            order, nothing = np.arange(m), np.zeros(m, bool)
            cover = Cover.of(
                row, cell.objective, none, inv_a, log2_a, 0.0, mu, low, high, float(inv_a[0]), 1e-9, order,
                nothing, bool(rng.integers(2)),
            )  # fmt: skip
            a, bp = make_cuts(
                row, cell.objective, 0.0, low, high, none, inv_a, mu, float(inv_a[0]) * 2, 5, 3, 1e-9
            )
            cuts = float(np.max(a + np.minimum(mu - bp, 0.0).sum(axis=1)))
            for sets in itertools.product((0.0, 1.0), repeat=m):
                used = np.array(sets)
                cap = keep_cap(row, inv_a, log2_a, used)[0]
                if cap >= low:
                    least = float(share(row, cell.objective, 0.0, min(cap, high))) + float(mu @ used)
                    assert cover.bound <= least * (1.0 + 1e-12)
                    compared += 1
            tighter += cover.bound > cuts + 1e-3 * cell.size
    assert compared > 500
    assert tighter > 10


def draws(count: int) -> list[tuple[OfdmaCell, int, np.ndarray, np.random.Generator]]:
    """(Cell, mode, set, generator) with a cap between nothing and plenty."""
    found = []
    seed = 0
    while len(found) < count:
        seed += 1
        rng = np.random.default_rng([9, seed])
        cell = OfdmaCell.of(Problem(random_ofdma(rng, exclusion_penalty=None)))
        mode = int(rng.integers(len(cell.device)))
        mask = rng.random(cell.subcarriers) < 0.7
        if 1e-3 < cell.cap(mode, mask)[0] < 30.0:
            found.append((cell, mode, mask, rng))
    return found


def slow_bits(row: np.ndarray, inv_a: np.ndarray, time_s: float, energy_j: float) -> float:
    """Bits that energy can carry in a time over channels, by water-filling one channel at a time."""
    power, n, total = energy_j / time_s, 0, 0.0
    for x in inv_a:
        if n and n * x - total >= power:
            break
        n, total = n + 1, total + float(x)
    level = (power + total) / n
    return time_s * float(row[BAND]) * float(np.sum(np.log2(level / inv_a[:n])))


def slow_slack(row: np.ndarray, inv_a: np.ndarray, s: float) -> float:
    """Bits to spare at keep rate s, at the best upload time: dense grid, then a bounded search."""
    deadline, energy, kappa, fmin, fmax, down, pmax = row[[DEADLINE, ENERGY, KAPPA, FMIN, FMAX, DOWN, PMAX]]
    bits, cycles = row[BIT0] + row[BIT1] * s, row[CYC0] + row[CYC1] * s
    window = deadline - bits * down
    longest = window - cycles / fmax
    if longest <= 0.0:
        return -math.inf

    def short(t: float) -> float:
        freq = max(fmin, cycles / (window - t)) if cycles else fmin
        e = min(energy - kappa * freq**2 * cycles, pmax * t)
        return float(bits - slow_bits(row, inv_a, t, e)) if e > 0.0 else float(bits * (2.0 - e))

    ticks = longest * np.r_[np.geomspace(1e-5, 0.05, 100), np.linspace(0.05, 1.0, 300)]
    best = min(ticks, key=short)
    ends = (max(0.9 * best - longest / 200, 1e-9), min(1.1 * best + longest / 200, longest))
    fine = minimize_scalar(short, bounds=ends, method="bounded", options={"xatol": 1e-13 * longest})
    return -min(short(best), float(fine.fun))


@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_cap_against_slow_search(count: int) -> None:
    """Just below the cap the set carries its bits at some upload time, just above at none."""
    for cell, mode, mask, _rng in draws(count):
        cap, level = cell.cap(mode, mask)
        k, row = cell.device[mode], cell.rows[mode]
        inv_a = cell.inv_a[k][mask[cell.order[k]]]
        assert slow_slack(row, inv_a, cap * (1 - 1e-6)) > -1e-6 * row[BIT1]
        assert slow_slack(row, inv_a, cap * (1 + 1e-6)) < 1e-9 * row[BIT1]
        assert cap < proven_keep(row, inv_a, cap, level) <= cap * (1 + 1e-7) + 1e-9


def test_profit_needed_is_below_every_upload_time() -> None:
    """psi against a grid of upload times: never above any of them, and no further below than rounding."""
    for cell, mode, mask, rng in draws(100):
        row, level = cell.rows[mode], cell.cap(mode, mask)[1] * float(rng.uniform(0.5, 2.0))
        s = float(rng.uniform(row[SMIN], 1.0))
        deadline, energy, kappa, fmin, fmax, down, pmax = row[[DEADLINE, ENERGY, KAPPA, FMIN, FMAX, DOWN, PMAX]]
        bits, cycles = row[BIT0] + row[BIT1] * s, row[CYC0] + row[CYC1] * s
        window = deadline - bits * down
        longest = window - cycles / fmax
        need = psi(row, level, s)
        if longest <= 0.0:
            assert need == math.inf
            continue
        t = longest * np.r_[np.geomspace(1e-6, 1e-2, 2000), np.linspace(1e-2, 1.0, 20000)]
        with np.errstate(divide="ignore"):
            freq = np.maximum(fmin, cycles / (window - t)) if cycles else fmin
        e = np.minimum(energy - kappa * freq**2 * cycles, pmax * t)
        values = np.where(e > 0.0, (bits - row[BAND] / (level * math.log(2.0)) * e) / t, math.inf)
        least = float(values.min())
        if need == math.inf:
            assert least == math.inf
            continue
        size = float((bits + row[BAND] / (level * math.log(2.0)) * energy) / t[np.argmin(values)])
        assert need <= least
        assert need >= least - 1e-4 * size


@pytest.mark.parametrize("count", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_cuts_bound_every_set(count: int) -> None:
    """Cut constants and profits against the exact share of random sets."""
    for cell, mode, mask, rng in draws(count):
        k, row, objective = cell.device[mode], cell.rows[mode], cell.objective
        nu = float(rng.choice([0.0, cell.pools.slope(0.3)]))
        levels = cell.levels[mode][~np.isnan(cell.levels[mode])]
        free = free_keeps(row, objective, nu)
        high = float(row[SMAX]) if len(levels) else free[-1]
        mu = rng.uniform(0, 2e-2, cell.subcarriers) * cell.size
        level = cell.cap(mode, mask)[1]
        a, bp = make_cuts(
            row, objective, nu, row[SMIN], high, levels, cell.inv_a[k], mu, level, 5, 3, 1e-7 * cell.size
        )
        pi = np.empty(cell.subcarriers)
        profits(row[BAND], level, cell.inv_a[k], pi)
        assert len(a) == 5 * 11
        for _ in range(20):
            some = rng.random(cell.subcarriers) < 0.6
            value = best_share(row, objective, nu, free, levels, cell.cap(mode, some)[0])[0]
            assert np.all(a - bp @ some[cell.order[k]] <= value)


def test_cuts_with_counts_bound_every_set() -> None:
    """As above for cuts that hold for sets of some numbers of sub-carriers only."""
    sharper = 0
    for cell, mode, mask, rng in draws(60):
        k, row, objective = cell.device[mode], cell.rows[mode], cell.objective
        nu = float(rng.choice([0.0, cell.pools.slope(0.3)]))
        levels = cell.levels[mode][~np.isnan(cell.levels[mode])]
        free = free_keeps(row, objective, nu)
        high = float(row[SMAX]) if len(levels) else free[-1]
        mu = rng.uniform(0, 2e-2, cell.subcarriers) * cell.size
        level, m = cell.cap(mode, mask)[1], cell.subcarriers
        fixed = np.full(m, -1)
        n_low, n_high = np.sort(rng.integers(0, m + 1, 2))
        a, bp, slopes = count_cuts(
            row, objective, nu, row[SMIN], high, levels, cell.inv_a[k], mu, fixed, n_low, n_high, level, 5, 7, 1e-7
        )
        sharper += bool(np.any(slopes[:, 2] != 0.0))
        for _ in range(20):
            some = rng.permutation(m) < rng.integers(n_low, n_high + 1)
            value = best_share(row, objective, nu, free, levels, cell.cap(mode, some)[0])[0]
            assert np.all(a - bp @ some[cell.order[k]] <= value)
    assert sharper > 20


@pytest.mark.parametrize(("count", "least"), [(4, 80), pytest.param(12, 300, marks=pytest.mark.slow)])
def test_every_pricing_bound_is_below_the_enumerated_optimum(
    count: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All sets of a mode at each price that the search visits, not only what its final bound rests on."""
    asked = 0
    price = ofdma_node.price_mode

    def checked(mode: Any, ask: Any, *rest: Any) -> Any:
        nonlocal asked
        answer = price(mode, ask, *rest)
        free = free_keeps(mode.row, mode.objective, ask.nu)
        for inside in itertools.product((0.0, 1.0), repeat=len(ask.mu)):
            if any(f >= 0 and f != x for f, x in zip(ask.fixed, inside, strict=True)):
                continue
            cap = keep_cap(mode.row, mode.inv_a, mode.log2_a, np.array(inside))[0]
            value = best_share(mode.row, mode.objective, ask.nu, free, mode.levels, cap)[0]
            assert answer.bound <= value + ask.mu @ np.array(inside) + 1e-14
        asked += 1
        return answer

    monkeypatch.setattr(ofdma_node, "price_mode", checked)
    for seed in range(count):
        for work in (1, 8000):
            monkeypatch.setattr(ofdma_pricing, "_FIRST_WORK", work)
            monkeypatch.setattr(ofdma_pricing, "_CHUNK", min(work, 1_000_000))
            solve(random_ofdma(np.random.default_rng([18, seed])), rel_gap=1e-4)
    for seed in range(count // 3):
        rng = np.random.default_rng([19, seed])
        solve(random_ofdma(rng, bound=random_curve(rng)), rel_gap=1e-4)
    assert asked > least
