"""Single steps of proofs of sub-carriers, against enumeration and random points."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from flint import ctx

from edgealloc.certificate.subcarriers import Part
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.subcarriers.claim import Claim, Model, Places, share_slopes
from edgealloc.verify.subcarriers.device import needs
from edgealloc.verify.subcarriers.pays import pays_from
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


def test_a_set_that_a_cut_puts_just_at_0_is_closed() -> None:
    """Whatever is fixed: nothing, some, or all of it."""
    worth = np.array([[0.5, 0.25, -0.125]])
    for fixed, base in (
        ([1, 1, 0], -0.75),
        ([1, 1, 1], -0.625),
        ([0, 0, 0], 0.0),
        ([1, -1, 0], -0.5),
        ([-1, 1, 0], -0.25),
    ):
        rows = np.array(fixed, np.int8)
        found = open_sets(np.array([base]), worth, rows)
        assert found is not None
        assert found.shape == (0, 3), (fixed, base)
        below = open_sets(np.array([base - 2.0**-40]), worth, rows)
        assert below is not None
        assert below.tolist() == [[one == 1 for one in fixed]], (fixed, base)


def test_what_is_no_number_closes_nothing_and_infinity_everything() -> None:
    """Unless another cut does; nor is what cannot be added up."""
    free = np.full(2, -1, np.int8)
    for base, worth in (
        (np.nan, [0.0, 0.0]),
        (-np.inf, [1.0, 1.0]),
        (1.0, [np.nan, 0.0]),
        (1e308, [1e308, 1e308]),
    ):
        assert open_sets(np.array([base]), np.array([worth]), free) is None
        both = open_sets(np.array([base, -0.37]), np.array([worth, [0.5, 0.37]]), free)
        assert both is not None
        assert both.tolist() == [[False, False]]
    some = open_sets(np.array([-1.0, np.inf]), np.zeros((2, 2)), free)
    assert some is not None
    assert some.shape == (0, 2)


@pytest.mark.parametrize(("name", "size"), [("MAX_OPEN", 8), ("MAX_CELLS", 16)])
def test_more_sets_than_are_looked_at_are_none(monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> None:
    """Two cuts that close none of eight sets: as many may be open as that, and not one fewer."""
    for most, said in ((size, True), (size - 1, False)):
        monkeypatch.setattr(f"edgealloc.verify.subcarriers.sets.{name}", most)
        found = open_sets(np.full(2, -9.0), np.ones((2, 3)), np.full(3, -1, np.int8))
        assert (found is not None) is said


def test_the_rate_that_pays_is_where_the_share_falls_to_the_target() -> None:
    """Just there, and still falling: beyond its least place, or below the target by rounding, nothing is proved.

    Terms that cancel leave few digits of the share; targets below its least place are never reached.
    """
    crossed, all_of_it, none_of_it = [], 0, 0
    for seed in range(36):
        rng = np.random.default_rng(seed)
        weight = float(10.0 ** (4.0 * (seed % 3)) * rng.uniform(0.3, 1.0))
        bound = BoundSpec(("inverse-keep", "perturbation")[seed % 2], underfit_weight=weight)
        instance = random_ofdma(rng, bound=bound, keep_levels=None, adapter_options=None)
        low, high = 0.05 + 0.1 * rng.random(), 0.6 + 0.4 * rng.random()
        part = Part(0, 0, np.array([low, 0.5 * (low + high), high]), *np.zeros((3, 0)))
        none = np.zeros((1, instance.gain.shape[1]), bool)
        with np.errstate(all="ignore"):
            model, price = (
                Model.of(instance, Intervals, False),
                weight * float(rng.choice([0.0, 0.3, 0.999999, 4.0])),
            )
            grid = np.geomspace(low, high, 4001)
            values, slopes = _shares(model, price, grid)
            falls = values[slopes <= 0.0]
            targets = rng.choice(falls if len(falls) else values, 5).tolist()
            lowest = float(values.min())
            for least in (
                *targets,
                lowest - 0.01 * abs(lowest),
                lowest * (1.0 + 1e-13),
                2.0 * float(values.max()),
            ):
                claim = Claim(
                    part, least, np.zeros(none.size), Intervals.of(price), none[0].astype(np.int8) - 1, None
                )
                rate = pays_from(model, [claim], [none])[0]
                first = grid[(values < least) | (slopes > 0.0)].min(initial=math.inf)
                if np.isposinf(rate[0]):
                    all_of_it += 1
                    assert first == math.inf or np.all(values >= least - 1e-9 * abs(least))
                elif rate[0] == low:
                    none_of_it += 1
                    assert first <= grid[100]
                else:
                    value, slope = _shares(model, price, rate)
                    assert value[0] >= least
                    assert slope[0] <= 0.0
                    crossed.append(rate[0] / first)
    assert all_of_it > 10
    assert none_of_it > 30
    assert sum(share > 0.999 for share in crossed) > 150


def test_no_rate_beyond_the_least_share_is_said_to_pay() -> None:
    """Where the share falls below the target for so short that a grid steps over it, and rises again."""
    inside = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        bound = BoundSpec("inverse-keep", underfit_weight=0.37)
        instance = random_ofdma(rng, bound=bound, keep_levels=None, adapter_options=None)
        with np.errstate(all="ignore"):
            model, price = Model.of(instance, Intervals, False), float(rng.uniform(0.4, 3.0))
            low, high = 0.05, 1.0
            for _ in range(8):
                grid = np.linspace(low, high, 401)
                at = int(np.argmin(_shares(model, price, grid)[0]))
                low, high = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, 400)])
            turn = 0.5 * (low + high)
            if not 0.06 < turn < 0.9:
                continue
            inside += 1
            part = Part(0, 0, np.array([0.05, 1.0]), *np.zeros((3, 0)))
            none = np.zeros((1, instance.gain.shape[1]), bool)
            lowest = float(_shares(model, price, np.array([turn]))[0][0])
            for above in (1e-9, 1e-7, 1e-5, 1e-3):
                least = lowest + above * abs(lowest)
                fixed = none[0].astype(np.int8) - 1
                claim = Claim(part, least, np.zeros(none.size), Intervals.of(price), fixed, None)
                rate = pays_from(model, [claim], [none])[0][0]
                assert rate <= turn * (1.0 + 1e-6), (seed, above)
    assert inside > 5


def test_what_a_set_costs_is_left_of_the_target() -> None:
    """Its prices, whatever they come to: sets of sub-carriers that cost 0, 0.8, 1.6 and 2.4."""
    rng = np.random.default_rng(3)
    instance = random_ofdma(rng, bound=BoundSpec(underfit_weight=3.7), keep_levels=None, adapter_options=None)
    count = instance.gain.shape[1]
    part = Part(0, 0, np.array([0.11, 0.47, 0.83]), *np.zeros((3, 0)))
    sets = np.arange(count)[None, :] < np.arange(4)[:, None]
    fixed = np.full(count, -1, np.int8)
    with np.errstate(all="ignore"):
        model, nothing = Model.of(instance, Intervals, False), Intervals.of(0.0)
        share = _shares(model, 0.0, np.array([0.29]))[0][0]
        for j in range(4):
            claim = Claim(part, share + 0.8 * j, np.full(count, 0.8), nothing, fixed, None)
            rates = pays_from(model, [claim], [sets])[0]
            assert rates[j] == pytest.approx(0.29, rel=1e-6)
            assert np.all(np.diff(rates) >= 0.0)


def _shares(model: Model, price: float, keep: Any) -> tuple[Any, Any]:
    """The first device's share at keep rates, and its slope in log s."""
    rows = np.zeros(len(keep), np.intp)
    return share_slopes(Places(model.shares.take(rows), Intervals.of(np.full(len(keep), price))), keep)


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


def test_planes_touch_where_the_fastest_clock_is_far_beyond_what_energy_pays_for() -> None:
    """Computing at that clock takes next to nothing of the window, and the time to compute has no digits left."""
    checked = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        instance = random_ofdma(rng)
        level, keep, values = 10.0 ** rng.uniform(-5, 0, 12), rng.uniform(0.02, 1.0, 12), []
        for beyond in (1e4, 1e9):
            fast = instance.with_changes(freq_max_hz=instance.freq_max_hz * beyond)
            with np.errstate(all="ignore"):
                model = Model.of(fast, Intervals, False)
                rows = model.rows.take(np.arange(12) % len(model.number))
                values.append(needs(rows, model.radio.watt(level), keep).value.lower())
        known = np.isfinite(values[0])
        assert np.all(values[1][known] >= values[0][known] - 3e-2 * np.abs(values[0][known]))
        checked += known.sum()
    assert checked > 40


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
