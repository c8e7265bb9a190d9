"""Lines of the checker where a turned sign or comparison would go unnoticed by whole proofs: each by itself."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.prices import Certificate
from edgealloc.data.spec import BoundSpec
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.diagnosis import Task, greatest_rate, task_fits
from edgealloc.verify.proof.device import Device, Line, most_efficient
from edgealloc.verify.proof.enclosures import Intervals
from edgealloc.verify.proof.share import Shares
from edgealloc.verify.subcarriers.cover import Region, check_parts
from tests.verify.test_forged import bare_part


@pytest.mark.parametrize(
    "change",
    [{"touch": 2.0}, {"touch": 0.01}, {"touch": 0.15}, {"touch": 0.97}, {"cap": 0.15, "touch": 0.5}],
)
def test_a_common_rate_touches_and_ends_where_all_devices_can(
    make_instance: Any, change: dict[str, float]
) -> None:
    """Within the greatest least rate and the least greatest one; a cap below is a matter of infeasibility."""
    low, high = np.array([0.1, 0.2, 0.1, 0.1]), np.array([1.0, 1.0, 0.95, 1.0])
    instance = make_instance(
        common_keep=True, keep_min=low, keep_max=high, bandwidth_hz=1e4, energy_j=np.array([1.0, 1.1, 1.2, 3.0]),
        latency_s=16.0,
    )  # fmt: skip
    certificate = certified(solve(instance, "convex", rel_gap=1e-9), 1e-9)[1]
    assert isinstance(certificate, Certificate)
    assert not check_certificate(instance, certificate).faults
    bad = replace(certificate, lower_bound=-9.0, **change)
    if "cap" in change:
        bad = replace(bad, pieces=replace(bad.pieces, left=np.full(4, 0.15)))
    assert [fault.field for fault in check_certificate(instance, bad).faults] == ["touch, cap"]
    assert isinstance(certificate_from_dict(certificate.to_file()), Certificate)


def test_the_efficiency_that_energy_affords(make_instance: Any) -> None:
    """Not below the root of ``c D (e^v - 1)/v = E - E0``, and not far above it; the fixed payload counts."""
    instance = make_instance(payload_fixed_bits=np.array([0.0, 1e5, 1e6, 1e7]))
    rows, keep = np.arange(4), np.array([0.1, 0.4, 0.7, 1.0])
    found = most_efficient(Device.of(instance, rows, np.zeros(4, np.intp), Intervals), keep)
    bits = instance.payload_fixed_bits + instance.payload_lora_bits * keep
    c = instance.noise_psd_w_per_hz * math.log(2.0) / instance.gain
    ratio = (instance.energy_j - instance.energy_static_j) / (c * bits)
    low, high = np.zeros(4), np.full(4, 100.0)
    for _ in range(100):
        middle = 0.5 * (low + high)
        under = np.expm1(middle) < ratio * middle
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    assert np.all(found >= low)
    assert np.all(found <= 2.2 * low)
    assert found == pytest.approx(2.0 * np.log(ratio), rel=1e-9)
    few = instance.with_changes(energy_j=instance.energy_static_j + c * bits * np.array([1.02, 1.3, 2.1, 3.4]))
    least = most_efficient(Device.of(few, rows, np.zeros(4, np.intp), Intervals), keep)
    assert least == pytest.approx(
        [2.0 * 0.02, 2.0 * math.log(1.3), 2.0 * math.log(2.1), 2.0 * math.log(3.4)], rel=0.02
    )


def test_a_line_that_falls_counts_with_its_least_end(make_instance: Any) -> None:
    """No honest plane falls, but a certificate may give one that does: the floor holds all the same."""
    instance = make_instance(bound=BoundSpec("perturbation", underfit_weight=0.1))
    rows, kind = np.arange(4), Intervals
    with np.errstate(all="ignore"):
        shares = Shares.of(instance, rows, np.zeros(4, np.intp), kind)
        line = Line(kind.of(np.full(4, 100.0)), kind.of(np.array([-50.0, -1e-3, 0.0, 50.0])), np.full(4, 0.5))
        left, right, nu, mu = np.full(4, 0.2), np.full(4, 0.9), kind.of(0.3), kind.of(0.01)
        floor = shares.floor(left, right, nu, mu, line)
        for s in np.linspace(0.2, 0.9, 30):
            at = np.full(4, s)
            assert np.all(floor <= (shares.value(at, nu) + mu * line.at(at)).upper())
        ends = [(shares.value(end, nu) + mu * line.at(end)).upper() for end in (left, right)]
    assert np.all(floor[2:] >= np.minimum(*ends)[2:] - 1e-9)  # and is sharp where the line does not fall


@pytest.mark.parametrize("counting", [False, True])
def test_a_single_keep_rate_is_to_be_covered_too(make_instance: Any, counting: bool) -> None:
    instance = make_instance("ofdma", devices=2, keep_min=np.array([0.3, 0.05]), keep_max=np.array([0.3, 1.0]))
    region = Region.root(instance)
    both = (bare_part(0, 0.3, 0.3), bare_part(1, 0.05, 1.0))
    assert check_parts(instance, region, both, counting) is None
    assert "'dev-0000'" in str(check_parts(instance, region, both[1:], counting))
    later = bare_part(0, math.nextafter(0.3, 1.0), 1.0)
    assert "'dev-0000'" in str(check_parts(instance, region, (later, both[1]), counting))


@pytest.mark.parametrize(("room", "fits"), [(1e-7, True), (1e-10, None), (-1e-10, None), (-1e-7, False)])
def test_a_deadline_too_close_to_call_is_left_open(room: float, fits: bool | None) -> None:
    """Within the margin of the least upload time nothing is said; beyond it, on either side, it is."""
    task = Task(
        payload_bits=1e6, work=0.0, latency_s=1.0, energy_j=1e9, energy_static_j=0.0, power_max_w=0.1,
        freq_min_hz=1e9, freq_max_hz=1e9, capacitance=0.0, downlink_bps=math.inf, bandwidth_hz=1e6, channels=2,
        gain=np.array([1e-10, 0.7e-10]), noise_w_per_hz=4e-21,
    )  # fmt: skip
    shortest = task.payload_bits / greatest_rate(task, task.power_max_w)
    assert task_fits(replace(task, latency_s=shortest * (1.0 + room))) is fits


@pytest.mark.parametrize(("room", "fits"), [(1e-6, True), (-1e-6, False)])
def test_the_energy_of_work_that_takes_no_time(room: float, fits: bool) -> None:
    """A ten-billionth of the deadline: the time left for it is a difference of nearly equal numbers."""
    task = Task(
        payload_bits=1e6, work=1.0, latency_s=15.0, energy_j=1.0, energy_static_j=0.0, power_max_w=0.1,
        freq_min_hz=1e9, freq_max_hz=1e9, capacitance=1e-18, downlink_bps=math.inf, bandwidth_hz=1e6, channels=1,
        gain=np.array([1e-10]), noise_w_per_hz=4e-21,
    )  # fmt: skip
    computing = 1e-18 * 1e9**2
    longest = 15.0 - 1e-9
    sending = longest * (1e6 * 4e-21 / 1e-10) * math.expm1(1e6 / longest * math.log(2.0) / 1e6)
    assert task_fits(replace(task, energy_j=(computing + sending) * (1.0 + room))) is fits


def test_nothing_fits_without_a_channel_or_without_energy() -> None:
    task = Task(
        payload_bits=1e3, work=0.0, latency_s=1.0, energy_j=1.0, energy_static_j=0.3, power_max_w=0.1,
        freq_min_hz=1e9, freq_max_hz=1e9, capacitance=0.0, downlink_bps=math.inf, bandwidth_hz=1e6, channels=1,
        gain=np.array([1e-10]), noise_w_per_hz=4e-21,
    )  # fmt: skip
    assert task_fits(task) is True
    assert task_fits(replace(task, gain=np.zeros(0))) is False
    assert task_fits(replace(task, energy_j=0.3)) is False


@pytest.mark.parametrize(("room", "fits"), [(1e-7, True), (1e-10, None), (-1e-10, None), (-1e-7, False)])
def test_an_energy_too_close_to_call_is_left_open(room: float, fits: bool | None) -> None:
    """Of sending alone, for as long as there is time; and with static energy, of which the margin is a part."""
    task = Task(
        payload_bits=1e6, work=0.0, latency_s=1.0, energy_j=1.0, energy_static_j=0.0, power_max_w=0.1,
        freq_min_hz=1e9, freq_max_hz=1e9, capacitance=0.0, downlink_bps=math.inf, bandwidth_hz=1e6, channels=1,
        gain=np.array([1e-10]), noise_w_per_hz=4e-21,
    )  # fmt: skip
    least = (1e6 * 4e-21 / 1e-10) * math.expm1(math.log(2.0))
    assert task_fits(replace(task, energy_j=least * (1.0 + room))) is fits
    both = replace(task, energy_static_j=3.0 * least, energy_j=4.0 * least * (1.0 + room))
    assert task_fits(both) is fits


@pytest.mark.parametrize(("room", "fits"), [(1e-5, True), (-1e-5, False)])
def test_computing_and_sending_share_the_time(room: float, fits: bool) -> None:
    """The least energy of all upload times, found once more, with every term in it."""
    task = Task(
        payload_bits=0.83e6, work=0.9e10, latency_s=13.7, energy_j=1.0, energy_static_j=0.037, power_max_w=0.13,
        freq_min_hz=0.71e9, freq_max_hz=1.9e9, capacitance=1.3e-28, downlink_bps=1.7e6, bandwidth_hz=0.61e5,
        channels=2, gain=np.array([1.1e-11, 0.7e-11]), noise_w_per_hz=4.1e-21, download_bits=0.31e6,
    )  # fmt: skip
    noise = 4.1e-21 * 0.305e5 / task.gain
    left = 13.7 - (0.83e6 + 0.31e6) / 1.7e6

    def spent(t: float) -> float:
        freq, rate = max(0.71e9, 0.9e10 / (left - t)), 0.83e6 / t
        level = math.sqrt(noise[0] * noise[1] * 2.0 ** (rate / 0.305e5))  # both channels are wet
        assert level > noise[1]
        return float(1.3e-28 * freq**2 * 0.9e10 + t * (2.0 * level - noise.sum()))

    low, high = 0.5, left - 0.9e10 / 1.9e9
    for _ in range(200):
        a, b = low + 0.382 * (high - low), low + 0.618 * (high - low)
        low, high = (low, b) if spent(a) < spent(b) else (a, high)
    assert 0.6 < low < left - 0.9e10 / 1.9e9 - 0.1
    assert task_fits(replace(task, energy_j=0.037 + spent(low) * (1.0 + room))) is fits
    for key, factor in (("power_max_w", 1e-6), ("freq_max_hz", 0.3), ("latency_s", 0.3)):
        assert task_fits(replace(task, energy_j=1e3, **{key: getattr(task, key) * factor})) is False
    assert task_fits(replace(task, energy_j=1e3)) is True
