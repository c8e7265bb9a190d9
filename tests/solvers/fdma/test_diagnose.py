"""Diagnoses: what is named rescues, a hair less does not, all that lacks is named, and the checker agrees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edgealloc import conformance
from edgealloc.api import solve
from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.spec import AdapterOption
from edgealloc.files.instance import load_instance
from edgealloc.solvers.fdma.alone import Alone
from edgealloc.verify.solution import verify
from tests.fuzz.regimes import instance_of

NEAR = 1.1e-6  # a hair: a number is named where a value 1e-6 below it is proved short


def _with(instance, finding: Diagnosis, value: float):
    """The instance with the budget of a finding at another value."""
    old = getattr(instance, finding.budget)
    if np.ndim(old) == 0:
        return replace(instance, **{finding.budget: value})
    new = old.copy()
    new[instance.device_names.index(finding.device)] = value
    return replace(instance, **{finding.budget: new})


def _alone(instance, k: int):
    """Device k alone; under one common rate it may keep no less than the least that all may keep."""
    one = instance.take([k])
    if not instance.common_keep:
        return one
    stepped = [set(own) for own in instance.keep_levels or () if own is not None]
    least = max(instance.keep_min.max(), *(min(own) for own in stepped), 0.0)
    shared = set.intersection(*stepped) if stepped else {least}
    return one.with_changes(keep_levels=([min(rate for rate in shared if rate >= least)],), common_keep=False)


def _status(instance) -> Status:
    return solve(instance, time_limit=20.0, rel_gap=0.1).status


def _check_number(instance, finding: Diagnosis) -> None:
    """The budget named rescues its device alone, or all where it is the spectrum; a hair less does not."""
    if finding.device is not None:
        instance = _alone(instance, instance.device_names.index(finding.device))
    assert finding.required > finding.available
    assert _status(_with(instance, finding, finding.required)).has_allocation, finding.message
    short = _status(_with(instance, finding, max(finding.available, finding.required * (1.0 - NEAR))))
    if finding.device is None:  # a search may leave so near a call open
        assert not short.has_allocation, finding.message
    else:
        assert short is Status.INFEASIBLE, finding.message


def _random(make_instance, rng, access: str, devices: int):
    """Budgets around what is needed; menus, levels and one common rate now and then."""
    menu = tuple(
        AdapterOption(f"r{n}", float(rng.uniform(2e5, 3e6)), float(rng.uniform(0, 4e9)), 1.0) for n in range(3)
    )
    low = float(rng.uniform(0.05, 0.3))
    levels = np.sort(rng.uniform(low, 1.0, 4))
    band = float(rng.uniform(0.5e5, 2e6))
    return make_instance(
        access, devices, 3,
        bandwidth_hz=band,
        block_hz=band / int(rng.integers(1, 12)) if access == "rb" else None,
        latency_s=float(rng.uniform(3.0, 9.0)),
        energy_j=rng.uniform(0.5, 4.0, devices),
        energy_static_j=0.4 if rng.uniform() < 0.3 else 0.0,
        power_max_w=10.0 ** rng.uniform(-4, -1, devices),
        gain=10.0 ** rng.uniform(-13, -10, (devices, 3) if access == "ofdma" else devices),
        keep_min=low,
        adapter_options=(menu,) * devices if rng.uniform() < 0.4 else None,
        keep_levels=tuple(levels for _ in range(devices)) if rng.uniform() < 0.3 else None,
        common_keep=bool(rng.uniform() < 0.3),
    )  # fmt: skip


@pytest.mark.parametrize(("access", "least"), [("fdma", 20), ("rb", 20), ("ofdma", 12)])
@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_what_is_named_rescues_and_a_hair_less_does_not(make_instance, access, least, part):
    rng = np.random.default_rng(5)
    numbers = 0
    for _ in range(60 // part):
        instance = _random(make_instance, rng, access, 1)
        result = solve(instance, time_limit=20.0, rel_gap=0.1)
        if result.status is not Status.INFEASIBLE:
            continue
        report = verify(instance, result.solution())
        assert report.ok, f"{report}\n{result.message}"
        for finding in result.diagnosis:
            if math.isfinite(finding.required):
                _check_number(instance, finding)
                numbers += 1
    assert numbers >= least // part


def _scarce(seed: int):
    """A hostile instance of one of five regimes, mostly infeasible: some budgets up to a thousand times less."""
    regime = ("plain", "pairs", "scales", "degenerate", "boundary")[seed % 5]
    instance = instance_of(regime, seed).with_changes(exclusion_penalty=None)
    rng = np.random.default_rng([3, seed])
    if regime == "boundary":
        return instance
    for budget in rng.choice(["latency_s", "energy_j", "power_max_w", "bandwidth_hz"], int(rng.integers(1, 3))):
        factor = 10.0 ** rng.uniform(-3.0, 0.0)
        changes = {budget: getattr(instance, budget) * factor}
        if budget == "bandwidth_hz" and instance.block_hz is not None:
            changes["block_hz"] = instance.block_hz * factor
        instance = instance.with_changes(**changes)
    return instance


def _diagnosed(seed: int) -> int:
    """Check all findings of an instance of the sweep; how many numbers they name."""
    instance, numbers = _scarce(seed), 0
    result = solve(instance, time_limit=20.0, rel_gap=0.1)
    if result.status is not Status.INFEASIBLE:
        return 0
    assert result.diagnosis
    report = verify(instance, result.solution())
    assert report.ok, f"{report}\n{result.message}"
    for finding in result.diagnosis:
        if finding.budget != "subcarriers" and math.isfinite(finding.required):
            _check_number(instance, finding)
            numbers += 1
    return numbers


@pytest.mark.parametrize("count", [8, pytest.param(24, marks=pytest.mark.slow)])
def test_findings_of_hostile_instances(count):
    # at the latency named for 917 no search found what was said to fit: caps are exact to a share of 1e-7 only
    assert sum(map(_diagnosed, [*range(count), 917])) >= 5 * count // 8


@pytest.mark.slow
@pytest.mark.parametrize("block", range(30))
def test_findings_of_thousands_of_hostile_instances(block):
    assert sum(map(_diagnosed, range(100 * block, 100 * (block + 1)))) >= 50


@pytest.mark.parametrize("access", ["fdma", "rb"])
@pytest.mark.parametrize("count", [30, pytest.param(80, marks=pytest.mark.slow)])
def test_a_spectrum_that_is_named_holds_all(make_instance, access, count):
    rng = np.random.default_rng(11)
    numbers = 0
    for _ in range(count):
        instance = _random(make_instance, rng, access, 3).with_changes(
            latency_s=12.0, energy_j=20.0, power_max_w=0.1, bandwidth_hz=float(10.0 ** rng.uniform(3, 4.5)),
            block_hz=None, access="fdma",
        )  # fmt: skip
        if access == "rb":
            instance = instance.with_changes(access="rb", block_hz=instance.bandwidth_hz / int(rng.integers(1, 9)))
        result = solve(instance, time_limit=20.0, rel_gap=0.1)
        if result.status is not Status.INFEASIBLE:
            continue
        assert verify(instance, result.solution()).ok, result.message
        for finding in result.diagnosis:
            if finding.device is None and math.isfinite(finding.required):
                _check_number(instance, finding)
                numbers += 1
    assert numbers >= count // 10


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_budgets_that_lack_together_are_all_named(make_instance, access):
    """Too slow for the deadline, and too little energy for any speed: neither alone helps."""
    instance = make_instance(
        access, 1, 2, energy_j=1e-4, energy_static_j=0.0, power_max_w=1e-6, bandwidth_hz=300.0, capacitance=0.0
    )
    instance = replace(instance, gain=np.full_like(instance.gain, 1e-13))
    result = solve(instance)
    assert result.status is Status.INFEASIBLE
    assert {f.budget for f in result.diagnosis} == {"latency_s", "energy_j"}  # as good as the power
    assert all(math.isinf(f.required) for f in result.diagnosis)
    assert "latency_s and energy_j together" in result.message
    assert verify(instance, result.solution()).ok
    for more in (replace(instance, energy_j=np.array([1e3])), replace(instance, latency_s=1e9)):
        (finding,) = solve(more).diagnosis
        assert getattr(more, finding.budget) == getattr(instance, finding.budget)
        if access == "fdma" or math.isfinite(finding.required):  # sub-carriers: proofs so far out are coarser
            _check_number(more, finding)


def test_a_blocked_device_does_not_hide_that_the_spectrum_lacks(make_instance):
    instance = make_instance(devices=4, energy_j=np.array([1e-3, 3.0, 3.0, 3.0]))
    largest = max(Alone.of(instance, k, 0.05).needs_hz({}, 0.0) for k in (1, 2, 3))
    instance = instance.with_changes(bandwidth_hz=1.2 * largest)
    result = solve(instance)
    assert [(f.device, f.budget) for f in result.diagnosis] == [("dev-0000", "energy_j"), (None, "bandwidth_hz")]
    assert verify(instance, result.solution()).ok
    enough = instance.with_changes(bandwidth_hz=1e6)
    assert [f.device for f in solve(enough).diagnosis] == ["dev-0000"]


def test_the_least_shared_level_counts_under_one_common_rate(make_instance):
    """Levels 0.1 and 0.2 are not shared: what rescues has to do for 0.9."""
    instance = make_instance(
        devices=2,
        common_keep=True,
        keep_levels=([0.1, 0.9], [0.2, 0.9]),
        payload_lora_bits=4e7,
        gain=1e-11 * np.ones(2),
    )
    result = solve(instance)
    assert result.status is Status.INFEASIBLE
    report = verify(instance, result.solution())
    assert report.ok, str(report)
    for finding in result.diagnosis:
        if math.isfinite(finding.required):
            _check_number(instance, finding)


@pytest.mark.parametrize(
    ("name", "budgets"),
    [
        ("seed141", {"bandwidth_hz"}),
        ("seed705", {"latency_s"}),
        ("seed301", {"power_max_w"}),
        ("seed190", {"energy_j"}),
        ("nine_on_six", {"subcarriers"}),
    ],
)
def test_findings_of_the_known_faults(faults, name, budgets):
    instance = load_instance(faults / f"{name}.json")
    result = solve(instance)
    assert result.status is Status.INFEASIBLE
    assert {finding.budget for finding in result.diagnosis} == budgets
    report = verify(instance, result.solution())
    assert report.ok, str(report)
    for finding in result.diagnosis:
        if finding.budget == "subcarriers":
            assert (finding.available, finding.required) == (6.0, 9.0)
            assert not {"latency_s", "energy_j", "bandwidth_hz", "keep_min"} & set(result.message.split())
        elif math.isfinite(finding.required):
            _check_number(instance, finding)


def test_time_without_the_upload_counts_what_a_row_downloads_beside_the_sub_adapter() -> None:
    row = AdapterOption("experts", 1e7, 2e8, download_bits=3e8)
    found = solve(conformance.cell(adapter_options=((row,), None, None), downlink_bps=1e7)).diagnosis[0]
    needs = 3e8 / 1e7 + 1e7 * 0.02 / 1e7 + (6e9 + 2e8 * 0.02) / 2e9
    assert found.budget == "latency_s"
    assert f"needs {needs:.4g} s without the upload, has 15 s" in found.message
    assert found.required > needs > 15.0
