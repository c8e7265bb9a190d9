"""Diagnoses of infeasibility: true ones are proved, false ones refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.solution import Solution
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
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
    finding = Diagnosis(None, "bandwidth_hz", instance.bandwidth_hz, 1e8, "")
    report = verify(instance, claim_infeasible(instance, finding))
    assert report.ok, str(report)
    assert any(note.startswith("proved: devices need") for note in report.notes), str(report)


def test_infeasible_needs_a_diagnosis_and_no_selection(make_instance):
    report = verify(make_instance(), claim_infeasible(make_instance()))
    assert [fault.field for fault in report.faults] == ["diagnosis"]
    free = make_instance(exclusion_penalty=1.0, latency_s=4.0)
    report = verify(free, claim_infeasible(free, Diagnosis("dev-0001", "latency_s", 4.0, 9.0, "")))
    assert [fault.field for fault in report.faults] == ["status"]
