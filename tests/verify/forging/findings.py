"""Forgers' tricks with diagnoses: reasons why nothing is feasible that are none, or wrong numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgealloc import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis

__all__ = ["FINDING_TRICKS", "FindingTrick"]

MakeInstance = Callable[..., Instance]
CROWD: dict[str, Any] = {
    "latency_s": 10.0, "freq_max_hz": 1.1e9, "payload_fixed_bits": 4e6, "downlink_bps": np.inf,
}  # fmt: skip
# Each with a device that cannot do alone, by the budget that its diagnosis names, or with too little spectrum.
ALONE: dict[str, dict[str, Any]] = {
    "deadline": {"latency_s": 4.0},
    "energy": {"energy_j": np.array([3.0, 0.3, 3.0, 3.0])},
    "blocks": {"access": "rb", "latency_s": 4.0},
    "carriers": {"access": "ofdma", "latency_s": 4.0},
}
TOGETHER: dict[str, dict[str, Any]] = {"crowd": CROWD, "crowd on blocks": CROWD | {"access": "rb"}}
CASES = ALONE | TOGETHER


@dataclass(frozen=True, slots=True)
class FindingTrick:
    """One kind of false diagnosis: of an infeasible instance and its true finding, or of a feasible instance."""

    forge: Callable[[Instance, Diagnosis], tuple[Instance, Diagnosis]]
    cases: tuple[str, ...]
    field: str
    says: str


def true_finding(make_instance: MakeInstance, case: str) -> tuple[Instance, Diagnosis]:
    """An infeasible instance, and what the solver says of it."""
    instance = make_instance(**CASES[case])
    return instance, solve(instance).diagnosis[0]


def of_a_feasible_instance(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    """The same words about a cell that has what it needs."""
    rich = replace(instance, latency_s=40.0, energy_j=np.full(4, 30.0), bandwidth_hz=2e7)
    device = 0 if finding.device is None else rich.device_names.index(finding.device)
    value = getattr(rich, finding.budget)
    there = float(value if np.ndim(value) == 0 else value[device])
    return rich, replace(finding, available=there, required=2.0 * there)


def of_a_device_that_can(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    """One device lacks something; another is blamed for it."""
    energy = np.full(4, 3.0)
    energy[0] = 1e-3
    able = replace(instance, latency_s=40.0, energy_j=energy)
    return able, Diagnosis("dev-0001", "energy_j", 3.0, 4.0, "")


def of_a_stranger(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    return instance, replace(finding, device="dev-9999")


def of_a_budget_that_is_none(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    return instance, replace(finding, budget="samples")


def with_another_budget(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    """The instance has more of it than is said."""
    return instance, replace(finding, available=0.9 * finding.available)


def that_needs_no_more(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    return instance, replace(finding, required=finding.available)


def that_asks_for_too_little(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    """Whoever follows the advice stays infeasible."""
    return instance, replace(finding, required=0.5 * (finding.available + finding.required))


def that_asks_for_too_much(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    """Whoever follows the advice pays for what is not needed."""
    return instance, replace(finding, required=1.01 * finding.required)


def where_all_may_be_left_out(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    return replace(instance, exclusion_penalty=1.0), finding


def of_more_devices_than_carriers(instance: Instance, finding: Diagnosis) -> tuple[Instance, Diagnosis]:
    """There are eight sub-carriers for four devices."""
    return instance, Diagnosis(None, "subcarriers", 3.0, 4.0, "")


EVERY, SINGLE = tuple(CASES), tuple(ALONE)
FINDING_TRICKS = (
    FindingTrick(of_a_feasible_instance, EVERY, "diagnosis", ""),
    FindingTrick(of_a_device_that_can, SINGLE, "diagnosis", "this one can"),
    FindingTrick(of_a_stranger, SINGLE, "diagnosis.device", "a device of the instance"),
    FindingTrick(of_a_budget_that_is_none, SINGLE, "diagnosis.budget", "one of"),
    FindingTrick(with_another_budget, EVERY, "diagnosis.available", "of the instance"),
    FindingTrick(that_needs_no_more, EVERY, "diagnosis.required", "more than available"),
    FindingTrick(that_asks_for_too_little, EVERY, "diagnosis.required", "more"),
    FindingTrick(that_asks_for_too_much, EVERY, "diagnosis.required", "less would do"),
    FindingTrick(where_all_may_be_left_out, EVERY, "status", "every device can be left out"),
    FindingTrick(of_more_devices_than_carriers, ("carriers",), "diagnosis", "fewer sub-carriers than devices"),
)
