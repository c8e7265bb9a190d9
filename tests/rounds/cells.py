"""A small system and states of devices in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgealloc.data.spec import BoundSpec
from edgealloc.rounds.system import DeviceState, System


def a_system(**changes: Any) -> System:
    """A cell of 200 kHz with a deadline of 15 s."""
    fields: dict[str, Any] = {
        "access": "fdma",
        "bandwidth_hz": 2e5,
        "noise_psd_dbm_per_hz": -174.0,
        "latency_s": 15.0,
        "bound": BoundSpec(),
        "payload_fixed_bits": 1e4,
        "payload_lora_bits": 1e7,
        "cycles_fixed": 1e10,
        "cycles_lora": 2e8,
    }
    return System(**(fields | changes))


def a_state(**changes: Any) -> DeviceState:
    """A device that can take part in it."""
    fields: dict[str, Any] = {
        "gain": 3e-11,
        "samples": 400,
        "energy_j": 3.0,
        "power_max_w": 0.1,
        "freq_min_hz": 3e8,
        "freq_max_hz": 2e9,
        "capacitance": 1e-28,
    }
    return DeviceState(**(fields | changes))


def some_states(
    rng: np.random.Generator | None = None, count: int = 5, subcarriers: int | None = None
) -> dict[str, DeviceState]:
    """Devices d0, d1, ... that differ in samples and in gains, which are drawn if there is a source."""
    size = (count,) if subcarriers is None else (count, subcarriers)
    gains = 3e-11 * (np.arange(count) + 1.0) if rng is None else 3e-11 * rng.exponential(size=size) + 1e-11
    return {
        f"d{k}": a_state(gain=float(gains[k]) if subcarriers is None else gains[k], samples=300 + 50 * k)
        for k in range(count)
    }
