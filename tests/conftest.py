"""Shared fixtures: small instances made in code, allocations built by hand, the public cases.

The core tests need no file from outside the repository; those that read the public cases skip where the
cases are absent.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import Access, AdapterOption, BoundSpec
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import spare_hz
from edgealloc.formulation.result import Result
from tests.places import CASES, FAULTS

# A method that breaks down is a defect of ours: no test is to take it for a result.
os.environ.setdefault("EDGEALLOC_RAISE", "1")

# A shell starts its background jobs with Ctrl-C ignored, and tests that press it would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MakeInstance = Callable[..., Instance]
ByHand = Callable[..., Result]


@pytest.fixture(scope="session")
def cases() -> Path:
    """Folder of the public case files: EDGEALLOC_CASES, or ../shared/cases beside the checkout."""
    if not CASES.is_dir():
        pytest.skip(f"no public cases in {CASES}; set EDGEALLOC_CASES to their folder")
    return CASES


@pytest.fixture(scope="session")
def faults() -> Path:
    """Folder of instances that failed once: EDGEALLOC_FAULTS, or ../shared/faults beside the checkout."""
    folder = FAULTS / "instances"
    if not folder.is_dir():
        pytest.skip(f"no instances that failed once in {folder}; set EDGEALLOC_FAULTS to the folder above")
    return folder


def small_instance(access: Access = "fdma", devices: int = 4, subcarriers: int = 8, **changes: Any) -> Instance:
    """An instance with comfortable budgets: a 1 MHz cell, 10 s of computing within 15 s, uploads below 1 s."""
    rng = np.random.default_rng(devices * 100 + subcarriers)
    shape = (devices, subcarriers) if access == "ofdma" else (devices,)
    fields: dict[str, Any] = {
        "name": f"{access}-{devices}",
        "access": access,
        "bandwidth_hz": 1.08e6 if access == "rb" else 1e6,
        "noise_psd_dbm_per_hz": -174.0,
        "latency_s": 15.0,
        "bound": BoundSpec(),
        "samples": np.arange(devices) * 50.0 + 300.0,
        "gain": 1e-10 * rng.exponential(size=shape) + 1e-11,
        "power_max_w": 0.1,
        "energy_j": 3.0,
        "energy_static_j": 0.01,
        "payload_fixed_bits": 1e4,
        "payload_lora_bits": 1e6,
        "cycles_fixed": 1e10,
        "cycles_lora": 2e8,
        "freq_min_hz": 3e8,
        "freq_max_hz": 2e9,
        "capacitance": 1e-28,
        "downlink_bps": np.where(np.arange(devices) % 2, np.inf, 1e7),
        "keep_min": 0.05,
        "keep_max": 1.0,
        "block_hz": 1.8e5 if access == "rb" else None,
    }
    return Instance(**(fields | changes))


@pytest.fixture(scope="session")
def make_instance() -> MakeInstance:
    """Factory of small instances: ``make_instance(access, devices, subcarriers, **changed_fields)``."""
    return small_instance


@pytest.fixture(scope="session")
def menu() -> tuple[AdapterOption, ...]:
    """A menu of two LoRA ranks."""
    return (AdapterOption("r=4", 5e5, 1e8, 1.4), AdapterOption("r=8", 1e6, 2e8, 1.0))


def _by_hand(instance: Instance, keep: float = 0.3, **changes: Any) -> Result:
    """A feasible result: equal spectrum, half the power, a medium frequency, and a small keep rate."""
    problem, k, m = Problem(instance), instance.num_devices, instance.num_subcarriers
    fields: dict[str, Any] = {"keep": np.full(k, keep), "freq_hz": np.full(k, 1e9)}
    if instance.adapter_options is not None:
        fields["option"] = np.array([-1 if menu is None else 0 for menu in instance.adapter_options])
    if m is not None:
        fields["owner"] = np.arange(m) % k
        fields["power_w"] = np.full(m, 0.4 * float(instance.power_max_w.min()) / -(-m // k))
    else:
        width = instance.block_hz or instance.bandwidth_hz / k
        if instance.block_hz is None and spare_hz(np.full(k, width), instance.bandwidth_hz) < 0.0:
            width = np.nextafter(width, 0.0)  # K rounded quotients may be more than the whole
        fields["bandwidth_hz"] = np.full(k, width)
        fields["power_w"] = 0.5 * instance.power_max_w
    allocation = Allocation(**(fields | changes))
    use = problem.evaluate(allocation)
    assert use.feasible, use.violations
    return Result(
        problem=problem,
        method="by-hand",
        status=Status.FEASIBLE,
        objective=use.objective,
        lower_bound=problem.free_objective,
        free_objective=problem.free_objective,
        allocation=allocation,
        seconds=0.0,
    )


@pytest.fixture(scope="session")
def by_hand() -> ByHand:
    """Factory of feasible results built without a solver: ``by_hand(instance, keep, **allocation_fields)``."""
    return _by_hand


@pytest.fixture
def untrained_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offline backbone without its pre-training: most of the time of a test that does not look at accuracy."""
    from edgealloc.models.training import digits

    monkeypatch.setattr(digits, "_EPOCHS", 0)
    monkeypatch.setattr(digits, "_pretrained", lru_cache(digits._pretrained.__wrapped__))
