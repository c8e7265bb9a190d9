"""Form of a solution: every rule at its edge, what is said, and numbers that no slip leaves alone."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc.data.instance import Instance
from edgealloc.data.solution import Solution
from edgealloc.verify.form import (
    Findings,
    check_form,
    check_numbers,
    check_ranges,
    check_spectrum,
    check_stated_use,
    total,
)

Rows = list[tuple[str, str, str, str]]
USE = ("rate_bps", "latency_s", "energy_j")


def said(found: Findings) -> Rows:
    """Faults as tuples: where, which field, what is found, what is allowed."""
    return [(fault.where, fault.field, fault.value, fault.allowed) for fault in found.faults]


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
@pytest.mark.parametrize(
    "key", ["keep", "dropout", "freq_hz", "rate_bps", "latency_s", "energy_j", "bandwidth_hz"]
)
def test_every_column_holds_finite_numbers_from_0_on(
    make_instance: Any, by_hand: Any, access: str, key: str
) -> None:
    solution = by_hand(make_instance(access)).solution()
    for value, right in ((0.0, True), (0.37, True), (-1e-300, False), (math.inf, False), (-math.inf, False)):
        column = getattr(solution, key).copy()
        column[2] = value
        found = Findings()
        check_numbers(replace(solution, **{key: column}), found)
        assert said(found) == ([] if right else [("dev-0002", key, repr(value), "a finite number >= 0")])
    absent = getattr(solution, key).copy()
    absent[1] = math.nan
    check_numbers(replace(solution, **{key: absent}), found := Findings())
    assert bool(found.faults) is (key != "bandwidth_hz")
    check_numbers(replace(solution, **{key: absent[:3]}), found := Findings())
    assert said(found) == [("solution", key, "of length 3", "one entry per device (4)")]


def test_single_numbers_carriers_and_powers_are_looked_at(make_instance: Any, by_hand: Any) -> None:
    solution = by_hand(make_instance("ofdma")).solution()

    def faults(**changes: Any) -> Rows:
        found = Findings()
        check_numbers(replace(solution, **changes), found)
        return said(found)

    for key in ("objective", "free_objective", "lower_bound", "rel_gap", "excess_gap"):
        for value in (math.nan, math.inf, -math.inf):
            assert faults(**{key: value}) == [("solution", key, repr(value), "a finite number, or None")]
        assert not faults(**{key: None})
        assert not faults(**{key: -0.37})
    rest = solution.subcarriers[1:]
    for carrier, right in ((0, True), (np.int64(3), True), (-1, False), (True, False), (1.0, False), (7, True)):
        wanted = [] if right else [("dev-0000", "subcarriers", repr(carrier), "whole numbers >= 0")]
        assert faults(subcarriers=((carrier, 4), *rest)) == wanted
    others = solution.power_w[1:]
    for watt, right in ((0.0, True), (0.37, True), (-1e-300, False), (math.inf, False), (math.nan, False)):
        wanted = [] if right else [("dev-0000", "power_w", repr(watt), "a finite number >= 0")]
        assert faults(power_w=((0.01, watt), *others)) == wanted
        assert faults(power_w=(watt, *others)) == wanted
    assert faults(power_w=others) == [("solution", "power_w", "of length 3", "one entry per device (4)")]
    assert faults(selected=solution.selected[:2])[0][1:3] == ("selected", "of length 2")


def test_each_form_fault_says_what_is_allowed(make_instance: Any, by_hand: Any, menu: Any) -> None:
    def faults(instance: Instance, solution: Solution) -> Rows:
        found = Findings()
        check_form(instance, solution, found)
        return said(found)

    parts = make_instance("ofdma")
    good = by_hand(parts).solution()
    rest, watts = good.subcarriers[1:], good.power_w[1:]
    assert faults(parts, good) == []
    assert faults(parts, replace(good, subcarriers=((0, 7), *rest))) == []
    assert faults(parts, replace(good, subcarriers=((0, 8), *rest))) == [
        ("dev-0000", "subcarriers", "8", "0..7"),
    ]  # fmt: skip
    assert faults(parts, replace(good, power_w=((0.01,), *watts))) == [
        ("dev-0000", "power_w", "1 numbers", "one per sub-carrier listed (2)"),
    ]  # fmt: skip
    assert faults(parts, replace(good, power_w=(0.37, *watts))) == [
        ("dev-0000", "power_w", "0.37", "a list for access ofdma, otherwise a number"),
    ]  # fmt: skip
    assert faults(parts, replace(good, subcarriers=(None, *rest))) == [
        ("dev-0000", "subcarriers", "null", "a list for access ofdma"),
    ]  # fmt: skip
    band = np.where(np.arange(4) == 2, 0.37, math.nan)
    assert faults(parts, replace(good, bandwidth_hz=band)) == [("dev-0002", "bandwidth_hz", "0.37", "null")]
    plain = make_instance(adapter_options=(menu, None, menu, None), exclusion_penalty=1.0)
    good = by_hand(plain).solution()
    assert faults(plain, good) == []
    assert faults(plain, replace(good, bandwidth_hz=np.where(np.arange(4) == 2, math.nan, 0.37))) == [
        ("dev-0002", "bandwidth_hz", "nan", "a number"),
    ]  # fmt: skip
    assert faults(plain, replace(good, subcarriers=(None, (1,), None, None))) == [
        ("dev-0001", "subcarriers", "(1,)", "null for access fdma"), ("dev-0001", "subcarriers", "1", "0..-1"),
    ]  # fmt: skip
    assert faults(plain, replace(good, adapter_option=("r=4", "r=4", "r=9", None))) == [
        ("dev-0001", "adapter_option", "r=4", "null: there is no menu"),
        ("dev-0002", "adapter_option", "r=9", "one of ['r=4', 'r=8']"),
    ]
    out = replace(good, selected=np.array([False, True, True, True]))
    assert faults(plain, out) == [("dev-0000", "adapter_option", "r=4", "null: there is no menu")]
    names = good.device_names
    assert faults(plain, replace(good, device_names=(*names[:2], names[3], names[2]))) == [
        ("dev-0003", "name", "at place 2", "the order of the instance: dev-0002"),
    ]  # fmt: skip
    assert faults(plain, replace(good, device_names=(*names[:2], "x", names[1]))) == [
        ("dev-0002", "name", "(missing)", "every device of the instance"),
        ("dev-0003", "name", "(missing)", "every device of the instance"),
        ("x", "name", "x", "a device of the instance"),
        ("dev-0001", "name", "dev-0001 (repeated)", "each device once"),
    ]


def test_ranges_hold_at_their_ends_and_not_beyond(make_instance: Any, by_hand: Any) -> None:
    instance = make_instance(
        keep_min=0.05, keep_max=0.83, exclusion_penalty=2.0, keep_levels=(None, np.array([0.3, 0.6]), None, None)
    )
    solution = by_hand(instance).solution()

    def faults(key: str, k: int, value: Any, at: Instance = instance, **more: Any) -> list[tuple[str, str]]:
        column = list(getattr(solution, key)) if key == "power_w" else getattr(solution, key).copy()
        column[k] = value
        changed = replace(solution, **{key: tuple(column) if key == "power_w" else column}, **more)
        if key == "keep":
            changed = replace(changed, dropout=1.0 - changed.keep)
        found = Findings()
        check_ranges(at, changed, found)
        return [(fault.where, fault.field) for fault in found.faults]

    up = {"keep": 0.83, "freq_hz": 2e9, "power_w": 0.1}
    for key, most in up.items():
        assert not faults(key, 2, most)
        assert faults(key, 2, math.nextafter(most, math.inf)) == [("dev-0002", key)]
    for key, least in {"keep": 0.05, "freq_hz": 3e8}.items():
        assert not faults(key, 2, least)
        assert faults(key, 2, math.nextafter(least, 0.0)) == [("dev-0002", key)]
    assert not faults("dropout", 2, 0.7 + 2.0**-51)
    assert (
        faults("dropout", 2, 0.7 + 2.0**-49) == faults("dropout", 2, 0.7 - 2.0**-49) == [("dev-0002", "dropout")]
    )
    assert not faults("keep", 1, 0.6)
    assert faults("keep", 1, 0.37) == [("dev-0001", "keep")]
    shared = replace(instance, keep_levels=None, common_keep=True)
    assert not faults("keep", 2, 0.3, shared)
    assert faults("keep", 2, 0.37, shared) == [("dev-0002", "keep")]
    out = np.array([True, True, False, True])
    assert faults("power_w", 2, 0.0, selected=out) == [
        ("dev-0002", key) for key in ("keep", "freq_hz", "rate_bps", "latency_s", "energy_j")
    ]
    assert faults("power_w", 2, 1e-300, selected=out)[-1] == ("dev-0002", "power_w")
    assert faults("keep", 2, 0.0, replace(instance, exclusion_penalty=None), selected=out)[0] == (
        "dev-0002", "selected",
    )  # fmt: skip


def test_the_spectrum_is_given_once(make_instance: Any, by_hand: Any) -> None:
    def faults(instance: Instance, solution: Solution) -> Rows:
        found = Findings()
        check_spectrum(instance, solution, found)
        return said(found)

    parts = make_instance("ofdma", exclusion_penalty=2.0)
    good = by_hand(parts).solution()
    twice = replace(good, subcarriers=((0, 4), (1, 5), (2, 4), (3, 2)))
    assert faults(parts, good) == []
    assert faults(parts, twice) == [
        ("dev-0002", "subcarriers", "4 (also of dev-0000)", "one device each"),
        ("dev-0003", "subcarriers", "2 (also of dev-0002)", "one device each"),
    ]
    out = np.array([True, False, True, True])
    assert faults(parts, replace(good, selected=out)) == [
        ("dev-0001", "subcarriers", "(1, 5)", "none for a device left out"),
    ]  # fmt: skip
    plain = make_instance()
    band = np.array([1e5, 2e5, 3e5, 4e5])
    good = by_hand(plain).solution()
    assert faults(plain, replace(good, bandwidth_hz=band)) == []
    assert faults(plain, replace(good, bandwidth_hz=band + np.array([0.0, 0.0, 0.5, 0.0]))) == [
        ("uplink", "bandwidth_hz", "1000000.5 in total (over by 0.5)", "at most 1000000.0"),
    ]  # fmt: skip
    assert faults(plain, replace(good, bandwidth_hz=band, selected=out)) == [
        ("dev-0001", "bandwidth_hz", "200000.0", "0 for a device left out"),
    ]  # fmt: skip
    blocks = make_instance("rb")
    good = by_hand(blocks).solution()
    assert faults(blocks, replace(good, bandwidth_hz=np.array([1.0, 1.0, 1.0, 3.0]) * 1.8e5)) == []
    assert faults(blocks, replace(good, bandwidth_hz=np.array([1.0, 1.0, 2.0, 3.0]) * 1.8e5)) == [
        ("uplink", "bandwidth_hz", "7 blocks in total", "at most 6"),
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["rate_bps", "latency_s", "energy_j"])
def test_stated_use_may_be_off_by_a_billionth(make_instance: Any, by_hand: Any, key: str) -> None:
    instance = make_instance()
    solution = by_hand(instance).solution()
    actual = getattr(solution, key)
    for share, right in ((0.97e-9, True), (1.03e-9, False)):
        for sign in (1.0, -1.0):
            column = actual.copy()
            column[3] *= 1.0 + sign * share
            found = Findings()
            changed = replace(solution, **{key: column})
            check_stated_use(instance, changed, *(getattr(solution, c) for c in USE), found)
            assert [(f.where, f.field) for f in found.faults] == ([] if right else [("dev-0003", key)])


def test_sums_beyond_the_range_of_doubles_are_known_too() -> None:
    most = sys.float_info.max
    for parts, exact in (
        ([0.37, 1e16, -1e16], 0.37), ([most, most, -most], most), ([-most, -most, most], -most),
        ([most, most], math.inf), ([-most, -most], -math.inf), ([0.37, math.inf], math.inf), ([], 0.0),
        ([most, most, -most, -1.0], most), ([most, most, -0.5 * most], math.inf),
    ):  # fmt: skip
        assert total(parts) == exact
    assert math.isnan(total([math.inf, -math.inf]))
