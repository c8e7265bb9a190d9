"""Diagnoses of infeasibility: true ones are proved, false ones refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, ctx

from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.solution import Solution
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.verify.diagnosis import UNPROVED, Task, check_infeasible, greatest_rate, least_power, task_fits
from edgealloc.verify.solution import verify


def claim_infeasible(instance, *findings: Diagnosis) -> Solution:
    problem = Problem(instance)
    result = Result(
        problem, "by-hand", Status.INFEASIBLE, np.inf, np.inf, problem.free_objective, None, 0.0,
        diagnosis=findings, message="infeasible",
    )  # fmt: skip
    return result.solution()


def test_a_true_diagnosis_is_proved(make_instance):
    instance = make_instance(latency_s=4.0)  # computing alone takes 5 s at the highest frequency
    need = least_deadline(instance, 1)
    report = verify(instance, claim_infeasible(instance, Diagnosis("dev-0001", "latency_s", 4.0, need, "")))
    assert report.ok, str(report)
    assert any("proved infeasible" in note for note in report.notes)


def least_deadline(instance, k: int) -> float:
    """Least deadline of a device alone: the best of many powers, at the frequency that its energy affords."""
    bits = instance.payload_fixed_bits[k] + instance.payload_lora_bits[k] * instance.keep_min[k]
    work = instance.cycles_fixed[k] + instance.cycles_lora[k] * instance.keep_min[k]
    n0, b = instance.noise_psd_w_per_hz, instance.bandwidth_hz
    power = np.linspace(1e-4, 1, 20_001) * instance.power_max_w[k]
    upload = bits / (b * np.log2(1 + power * instance.gain[k] / (n0 * b)))
    left = instance.energy_j[k] - instance.energy_static_j[k] - power * upload
    freq = np.minimum(np.sqrt(left / (instance.capacitance[k] * work)), instance.freq_max_hz[k])
    return float(np.min(work / freq + upload + bits / instance.downlink_bps[k]))


@pytest.mark.parametrize(
    ("field", "finding"),
    [
        ("diagnosis.device", Diagnosis("stranger", "latency_s", 15.0, 20.0, "")),
        ("diagnosis.budget", Diagnosis("dev-0001", "patience", 15.0, 20.0, "")),
        ("diagnosis.available", Diagnosis("dev-0001", "latency_s", 14.0, 20.0, "")),
        ("diagnosis.required", Diagnosis("dev-0001", "latency_s", 15.0, 15.0, "")),
        ("diagnosis", Diagnosis("dev-0001", "latency_s", 15.0, 20.0, "")),
        ("diagnosis", Diagnosis(None, "bandwidth_hz", 1e6, 2e6, "")),
    ],
)
def test_a_false_diagnosis_is_rejected(make_instance, field, finding):
    report = verify(make_instance(), claim_infeasible(make_instance(), finding))
    assert (finding.device or "uplink", field) in {(fault.where, fault.field) for fault in report.faults}


@pytest.mark.parametrize("share", [0.5, 1.5])
def test_a_wrong_requirement_is_rejected(make_instance, share):
    instance = make_instance(latency_s=4.0)
    required = 4.0 + share * (least_deadline(instance, 1) - 4.0)
    report = verify(instance, claim_infeasible(instance, Diagnosis("dev-0001", "latency_s", 4.0, required, "")))
    assert [(fault.where, fault.field) for fault in report.faults] == [("dev-0001", "diagnosis.required")]


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
def test_too_little_spectrum_is_proved(make_instance, access):
    """Each device fits alone, but together they need about twice the spectrum."""
    instance = make_instance(
        access, latency_s=10.0, freq_max_hz=1.1e9, payload_fixed_bits=4e6, downlink_bps=np.inf
    )
    finding = Diagnosis(None, "bandwidth_hz", instance.bandwidth_hz, np.inf, "")
    report = verify(instance, claim_infeasible(instance, finding))
    assert report.ok, str(report)
    assert any(note.startswith("proved: devices need") for note in report.notes), str(report)


def test_infeasible_needs_a_diagnosis_and_no_selection(make_instance):
    report = verify(make_instance(), claim_infeasible(make_instance()))
    assert [fault.field for fault in report.faults] == ["diagnosis"]
    free = make_instance(exclusion_penalty=1.0, latency_s=4.0)
    report = verify(free, claim_infeasible(free, Diagnosis("dev-0001", "latency_s", 4.0, 9.0, "")))
    assert [fault.field for fault in report.faults] == ["status"]


@pytest.mark.parametrize(
    "change", [{}, {"subcarriers": 3}, {"available": 3.0}, {"required": 4.0}, {"access": "fdma"}]
)
def test_more_devices_than_subcarriers_is_counted(make_instance, change):
    fields = {"access": "ofdma", "subcarriers": 2, "available": 2.0, "required": 3.0} | change
    instance = make_instance(fields["access"], 3, fields["subcarriers"])
    finding = Diagnosis(None, "subcarriers", fields["available"], fields["required"], "")
    report = verify(instance, claim_infeasible(instance, finding))
    assert report.ok is not bool(change)
    assert any(note.startswith("proved: each of 3 devices") for note in report.notes) is not bool(change)


def _wide(make_instance, **changes):
    """A device that sends few bits over a wide band: the power that it needs is far below the noise."""
    fields = {
        "devices": 1, "bandwidth_hz": 1e15, "gain": np.array([1e-12]), "power_max_w": 10.0, "energy_static_j": 0.0,
        "payload_fixed_bits": 0.0, "payload_lora_bits": 2e6, "cycles_fixed": 0.0, "cycles_lora": 0.0,
        "freq_min_hz": 1e9, "freq_max_hz": 1e9, "capacitance": 0.0, "keep_min": 0.5, "downlink_bps": np.inf,
    }  # fmt: skip
    instance = make_instance(**(fields | changes))
    # without end of bandwidth: N0 ln 2 / g joules per bit
    return instance, 1e6 * instance.noise_psd_w_per_hz * math.log(2.0) / 1e-12


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
@pytest.mark.parametrize("room", [1e-7, 1e-5])
def test_a_false_diagnosis_at_low_signal_to_noise_is_rejected(make_instance, access, room):
    """Powers were differences of logarithms, and rates of numbers near 1: a wide band left no digit of them."""
    gain = np.full((1, 3), 1e-12) * [1.0, 1.0 + 1e-14, 1.0 + 3e-14] if access == "ofdma" else np.array([1e-12])
    instance, least = _wide(make_instance, access=access, gain=gain)
    instance = replace(instance, energy_j=np.array([least * (1.0 + room)]))
    found = Diagnosis("dev-0000", "energy_j", float(instance.energy_j[0]), np.inf, "")
    assert [fault.field for fault in verify(instance, claim_infeasible(instance, found)).faults] == ["diagnosis"]
    poor = replace(instance, energy_j=np.array([least * (1.0 - room)]))
    found = replace(found, available=float(poor.energy_j[0]))
    report = verify(poor, claim_infeasible(poor, found))
    assert report.ok
    assert any("proved infeasible alone" in note for note in report.notes)


@pytest.mark.parametrize("room", [1e-7, 1e-5])
def test_a_false_diagnosis_of_little_power_is_rejected(make_instance, room):
    """The rate of a power far below the noise, against the deadline."""
    instance, _ = _wide(make_instance, access="ofdma", gain=np.array([[1e-12, 1.001e-12, 1e-12]]), energy_j=1e9)
    slowest = 1e6 / (1e-9 * 1.001e-12 / instance.noise_psd_w_per_hz / math.log(2.0))
    for factor, field in ((1.0 + room, ["diagnosis"]), (1.0 - room, [])):
        case = replace(instance, power_max_w=np.array([1e-9]), latency_s=slowest * factor)
        found = Diagnosis("dev-0000", "power_max_w", 1e-9, np.inf, "")
        assert [fault.field for fault in verify(case, claim_infeasible(case, found)).faults] == field


def test_powers_and_rates_are_rounded_outwards():
    """Against balls of 300 bits: any number of channels, near each other or far apart, any signal to noise."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 9))
        spread = 10.0 ** rng.uniform(-14, 2)
        gain = np.sort(1e-10 * np.exp(spread * rng.normal(size=count)))[::-1].copy()
        task = Task(
            payload_bits=1.0, work=0.0, latency_s=1.0, energy_j=1.0, energy_static_j=0.0, power_max_w=1.0,
            freq_min_hz=1.0, freq_max_hz=1.0, capacitance=0.0, downlink_bps=math.inf, bandwidth_hz=1e6,
            channels=count, gain=gain, noise_w_per_hz=4e-21,
        )  # fmt: skip
        with ctx.workprec(300):
            noise = [arb(4e-21) * (arb(1e6) / count) / arb(g) for g in gain.tolist()]
            level = noise[0] * (1 + arb(10.0 ** rng.uniform(-14, 9)))
            wet = [level / n for n in noise if level > n]
            power = sum(((r - 1) * n for r, n in zip(wet, noise, strict=False)), arb(0))
            rate = arb(1e6) / count * sum((r.log() for r in wet), arb(0)) / arb.const_log2()
            low, high = least_power(task)(float(rate.mid())), greatest_rate(task, float(power.mid()))
            assert arb(low) < power < arb(low) * (1 + arb("1e-11"))
            assert rate < arb(high) < rate * (1 + arb("1e-11"))


def _required_band(instance, k: int) -> float:
    """Bandwidth that a device needs alone for its least payload: all power, what computing leaves of the time."""
    bits = instance.payload_fixed_bits[k] + instance.payload_lora_bits[k] * instance.keep_min[k]
    work = instance.cycles_fixed[k] + instance.cycles_lora[k] * instance.keep_min[k]
    seconds = instance.latency_s - work / instance.freq_max_hz[k] - bits / instance.downlink_bps[k]
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = 0.5 * (low + high)
        snr = instance.power_max_w[k] * instance.gain[k] / (instance.noise_psd_w_per_hz * max(middle, 1e-9))
        low, high = (low, middle) if middle * np.log1p(snr) / np.log(2.0) * seconds >= bits else (middle, high)
    return high


def _crowd(make_instance, room: float, devices: int = 2, access: str = "fdma", **changes):
    """Devices alike whose least bandwidths add up to the band, times 1 + room less."""
    fields = {
        "energy_j": 100.0,
        "gain": np.full(devices, 1e-11),
        "downlink_bps": np.inf,
        "payload_fixed_bits": 4e6,
    }
    instance = make_instance(access, devices, **(fields | changes))
    need = devices * _required_band(instance, 0)
    return replace(instance, bandwidth_hz=need * (1.0 + room)), need


@pytest.mark.parametrize(("room", "proved"), [(-1e-6, True), (-1e-8, True), (-3e-10, False), (3e-10, False)])
def test_a_spectrum_too_close_to_call_is_left_open(make_instance, room, proved):
    instance, _need = _crowd(make_instance, room)
    found = Diagnosis(None, "bandwidth_hz", float(instance.bandwidth_hz), np.inf, "")
    faults, notes = check_infeasible(instance, (found,))
    assert not faults
    assert any("proved: devices need" in note for note in notes) is proved
    assert any("too close to enough" in note for note in notes) is not proved
    assert (UNPROVED in notes) is not proved


def test_a_spectrum_that_would_do_is_named(make_instance):
    """To six digits: neither less nor more of them."""
    instance, need = _crowd(make_instance, -0.1)
    for factor, right in (
        (1.0, True),
        (1.0 - 5e-6, False),
        (1.0 + 5e-6, False),
        (1.0 - 5e-7, True),
        (1.0 + 5e-7, True),
        *((1.0 + 1e-7 * digits, False) for digits in (11, 12, 13, 15, 17, 19, 22, 25, 31)),
    ):
        found = Diagnosis(None, "bandwidth_hz", float(instance.bandwidth_hz), need * factor, "")
        faults, _ = check_infeasible(instance, (found,))
        assert (not faults) is right, factor


def test_whole_blocks_are_counted(make_instance):
    """Devices that need 1.4 blocks each take two."""
    instance, need = _crowd(make_instance, 0.0)
    block = need / 2.8
    for blocks, fits in ((3, False), (4, True)):
        cell = replace(instance, access="rb", block_hz=block, bandwidth_hz=blocks * block)
        found = Diagnosis(None, "bandwidth_hz", float(cell.bandwidth_hz), 4 * block, "")
        faults, notes = (
            check_infeasible(cell, (found,))
            if blocks < 4
            else check_infeasible(cell, (replace(found, required=5 * block),))
        )
        assert bool(faults) is fits
        assert any("at least 4 resource blocks" in note for note in notes) is not fits


@pytest.mark.parametrize(("share", "subcarriers", "proved"), [(1.5, 3, True), (0.9, 2, False)])
def test_sub_carriers_are_counted(make_instance, share, subcarriers, proved):
    """Two devices that need 1.5 sub-carriers each, of channels alike, need four."""
    _cell, need = _crowd(make_instance, 0.0)
    width = need / 2.0 / share
    cell = make_instance(
        "ofdma", 2, subcarriers, gain=np.full((2, subcarriers), 1e-11), bandwidth_hz=width * subcarriers,
        energy_j=100.0, downlink_bps=np.inf, payload_fixed_bits=4e6,
    )  # fmt: skip
    found = Diagnosis(None, "bandwidth_hz", float(cell.bandwidth_hz), np.inf, "")
    faults, notes = check_infeasible(cell, (found,))
    assert not faults
    assert any("at least 4 sub-carriers, there are 3" in note for note in notes) is proved
    assert any("overlaps are not examined" in note for note in notes) is not proved


def test_more_devices_than_are_added_up(make_instance, monkeypatch):
    monkeypatch.setattr("edgealloc.verify.diagnosis.SPECTRUM_DEVICES", 1)
    instance, _ = _crowd(make_instance, -0.1)
    found = Diagnosis(None, "bandwidth_hz", float(instance.bandwidth_hz), np.inf, "")
    assert check_infeasible(instance, (found,))[1] == [
        "the spectrum of more than 1 devices is not added up here", UNPROVED,
    ]  # fmt: skip


def test_a_finding_about_nobody_is_not_checked(make_instance):
    found = Diagnosis(None, "latency_s", 15.0, 20.0, "all are late")
    assert check_infeasible(make_instance(), (found,)) == (
        [], ["not checked, for it names no device: all are late", UNPROVED],
    )  # fmt: skip


@pytest.mark.parametrize("levels", [None, [0.3, 0.6]])
def test_one_rate_for_all_is_the_least_that_all_may_take(make_instance, levels):
    """A device that could upload at its own least rate, not at that of the other."""
    keep_min = np.array([0.01, 0.5])
    steps = None if levels is None else (np.array([0.01, *levels]), np.array(levels[1:]))
    base, _ = _crowd(make_instance, 0.0, payload_fixed_bits=0.0, payload_lora_bits=4e6)
    rate = 0.5 if levels is None else 0.6
    need = _required_band(replace(base, keep_min=np.full(2, rate)), 0)
    for room, proved in ((-1e-4, True), (1e-4, False)):
        cell = replace(
            base, common_keep=True, keep_min=keep_min, keep_levels=steps, bandwidth_hz=need * (1.0 + room)
        )
        found = Diagnosis("dev-0000", "".join(["bandwidth", "_hz"]), float(cell.bandwidth_hz), need, "")
        if not proved:
            found = replace(found, required=2.0 * need)
        faults, notes = check_infeasible(cell, (found,))
        assert (not faults) is proved, faults
        assert any("proved infeasible alone" in note for note in notes) is proved


def test_a_bandwidth_that_would_do_alone_is_named(make_instance):
    base, _ = _crowd(make_instance, 0.0)
    need = _required_band(base, 1)
    cell = replace(base, bandwidth_hz=0.5 * need)
    for factor, right in ((1.0, True), (1.0 - 5e-6, False), (1.0 + 5e-6, False)):
        found = Diagnosis("dev-0001", "".join(["bandwidth", "_hz"]), 0.5 * need, need * factor, "")
        faults, _ = check_infeasible(cell, (found,))
        assert (not faults) is right, factor


def test_no_more_is_asked_than_the_stated_spectrum_needs(make_instance, monkeypatch):
    """That there is too little is known soon; six digits of what would do are not, nor what is stated wrong."""
    instance, need = _crowd(make_instance, -0.1, devices=3)
    asked = []
    monkeypatch.setattr(
        "edgealloc.verify.diagnosis.task_fits", lambda task: asked.append(task.bandwidth_hz) or task_fits(task)
    )
    counts = []
    for required in (np.inf, need * (1.0 + 3e-7), need):
        asked.clear()
        found = Diagnosis(None, "bandwidth_hz", float(instance.bandwidth_hz), required, "")
        assert check_infeasible(instance, (found,))[0] == []
        counts.append(len(asked))
    assert counts[0] <= 3 * 6
    assert 3 * 18 <= counts[1] <= counts[2] + 12 <= 3 * 28
