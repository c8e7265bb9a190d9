"""Lines below the bandwidth against their formulas in plain floats: every term of every plane."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from edgealloc.certificate.form import OUT
from edgealloc.certificate.prices import Planes
from edgealloc.data.instance import Instance
from edgealloc.verify.proof.device import Device, bandwidth_line, blocked, farthest, gains_of, most_efficient
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from tests.verify.proof.plain import needs, plane, times, uneven

CASES = [(k, row, mix, limit) for (k, row), mix, limit in product(
    ((0, 0), (0, 1), (1, 0), (2, 0)), (0.0, 0.43, 1.0), range(4)
)]  # fmt: skip
DEVICE, OPTION = np.array([case[0] for case in CASES]), np.array([case[1] for case in CASES])
TOUCH, EFFICIENCY = np.linspace(0.31, 0.83, len(CASES)), np.linspace(0.47, 1.37, len(CASES))
LEFT, LAM = 0.71 * TOUCH, np.linspace(1.3e3, 7.9e3, len(CASES))


def planes(**changes: Any) -> Planes:
    """One for each case."""
    mix, limit = np.array([case[2] for case in CASES]), np.array([case[3] for case in CASES])
    return replace(Planes(TOUCH, EFFICIENCY, mix, limit, LAM), **changes)


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_planes_are_tangents(make_instance: Any, kind: type[Number]) -> None:
    """The value where it touches, less what may be gained by another efficiency, and the slope in log s."""
    instance = uneven(make_instance)
    device = Device.of(instance, DEVICE, OPTION, kind)
    line, most = bandwidth_line(device, planes(), LEFT), most_efficient(device, LEFT)
    assert np.all(line.touch == TOUCH)
    for i, (k, row, mix, limit) in enumerate(CASES):

        def f(s: float, v: float, k: int = k, row: int = row, m: float = mix, n: int = limit, i: int = i) -> float:
            return plane(instance, k, row, (s, v), m, n, LAM[i])

        s, v, h = TOUCH[i], EFFICIENCY[i], 1e-5
        rise = (f(s * math.exp(h), v) - f(s * math.exp(-h), v)) / (2.0 * h)
        gain = (f(s, v + h) - f(s, v - h)) / (2.0 * h)
        base = f(s, v) - abs(gain) * max(v, most[i] - v)
        size = f(s, v) + abs(gain) * v
        for found, known in ((line.base, base), (line.slope, rise)):
            assert abs(found.lower()[i] - known) <= 1e-6 * size, CASES[i]
            assert 0.0 <= found.upper()[i] - found.lower()[i] <= 1e-9 * size
        at = line.at(0.9 * TOUCH)
        assert abs(at.lower()[i] - (base + rise * math.log(0.9))) <= 1e-6 * size


def test_a_plane_says_nothing_outside_of_its_domain(make_instance: Any) -> None:
    """Each number by itself: at the edge it is a plane, beyond it is none."""
    device = Device.of(uneven(make_instance), DEVICE, OPTION, Intervals)
    for name, good, bad in (
        ("touch", 1e-3, 0.0), ("touch", 1e-3, -0.5), ("efficiency", 0.01, -0.01), ("mix", 0.0, -1e-9),
        ("mix", 1.0, 1.0 + 1e-9), ("limit", 0, -1), ("limit", 3, 4), ("multiplier", 0.0, -1e-9),
    ):  # fmt: skip
        for value, sound in ((good, True), (bad, False)):
            column = getattr(planes(), name).copy()
            column[::2] = value
            with np.errstate(all="ignore"):
                base = bandwidth_line(device, planes(**{name: column}), LEFT).base.lower()
            assert np.all(np.isfinite(base[1::2]))
            assert np.all(np.isneginf(base[::2]) if not sound else np.isfinite(base[::2])), (name, value)
    with np.errstate(all="ignore"):
        none = bandwidth_line(device, planes(efficiency=np.zeros(len(CASES)), limit=np.full(len(CASES), 3)), LEFT)
        odd = bandwidth_line(device, planes(touch=np.full(len(CASES), -0.5)), LEFT)
    assert none.base.is_zero()
    assert none.slope.is_zero()
    assert np.all(odd.touch == 1.0)


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_without_cycles_the_form_by_frequency_is_left(make_instance: Any, kind: type[Number]) -> None:
    """The other says nothing, for its derivative is 0 / 0."""
    instance = uneven(make_instance, cycles_fixed=0.0, cycles_lora=0.0, adapter_options=None)
    zero, half = np.zeros(3, np.intp), np.full(3, 0.6)
    device = Device.of(instance, np.arange(3), zero, kind)
    with np.errstate(all="ignore"):
        line, other = (
            bandwidth_line(device, Planes(half, half, np.full(3, m), zero, np.zeros(3)), half) for m in (0.0, 1.0)
        )
    assert np.all(np.isneginf(other.at(half).lower()))
    most = most_efficient(device, half)
    for k in range(3):
        known, less = (plane(instance, k, 0, (0.6, v), 0.0, 0, 0.0) for v in (0.6, 0.6 - 1e-6))
        assert line.base.lower()[k] == pytest.approx(known - (less - known) * 1e6 * (most[k] - 0.6), rel=1e-5)


def test_the_farthest_of_two_ends() -> None:
    touch, most = np.array([0.3, 0.7, 0.4, 0.25]), np.array([0.4, 0.5, 3.7, 0.75])
    found = farthest(touch, most)
    assert found[:2].tolist() == [0.3, 0.7]
    assert found[2] == np.nextafter(3.7 - 0.4, np.inf)
    assert found[3] == np.nextafter(0.5, 1.0)


def test_gains_are_those_of_the_row(make_instance: Any) -> None:
    instance = uneven(make_instance)
    device, option = np.array([0, 0, 0, 1, 2]), np.array([0, 1, OUT, 0, OUT])
    known = [1.9e-14, 2.3e-14, 2.3e-14, 1.1e-14, 3.7e-14]
    assert gains_of(instance, device, option).tolist() == known
    assert instance.gain.tolist() == [2.3e-14, 1.1e-14, 3.7e-14]
    plain = uneven(make_instance, adapter_options=None)
    assert gains_of(plain, device, option).tolist() == [2.3e-14, 2.3e-14, 2.3e-14, 1.1e-14, 3.7e-14]


def edges(instance: Instance, k: int, row: int, s: float) -> dict[str, Instance]:
    """For each reason why nothing fits, the instance with one budget at its edge and no other reason."""
    bits, work, window, c = needs(instance, k, row, s)
    sent, slow = c * bits, float(instance.capacitance[k]) * work**3
    static = float(instance.energy_static_j[k])
    t1, t2 = times(instance, k, row, s, sent)

    def at(**values: float) -> Instance:
        columns = {name: getattr(instance, name).copy() for name in values}
        for name, value in values.items():
            columns[name][k] = value
        return instance.with_changes(**columns)

    least = work / window * 1.1  # a frequency that computes in time
    return {
        "computing at the least frequency": at(
            energy_j=static + sent + instance.capacitance[k] * least**2 * work, freq_min_hz=least
        ),
        "power by energy": at(power_max_w=sent / t1, freq_max_hz=9e9),
        "power by frequency": at(power_max_w=sent / t2, energy_j=99.0),
        "no time by energy": at(
            energy_j=static + sent + slow / window**2, freq_max_hz=9e9, freq_min_hz=1e7, power_max_w=1e9
        ),
        "no time by frequency": at(freq_max_hz=work / window, energy_j=99.0, freq_min_hz=1e7, power_max_w=1e9),
        "nothing": instance,
    }


@pytest.mark.parametrize("kind", [Intervals, Balls])
def test_what_cannot_be_done_at_any_bandwidth(make_instance: Any, kind: type[Number]) -> None:
    """A hair beyond each budget, and not a hair within it."""
    for k, row in ((0, 0), (0, 1), (1, 0), (2, 0)):
        for why, edge in edges(uneven(make_instance), k, row, 0.37).items():
            keep = np.array([0.37 * (1.0 - 1e-7), 0.37, 0.37 * (1.0 + 1e-7)])
            with np.errstate(all="ignore"):
                found = blocked(Device.of(edge, np.full(3, k), np.full(3, row), kind), keep)
            assert found[[0, 2]].tolist() == [False, why != "nothing"], (k, row, why)
