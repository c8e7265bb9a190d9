"""Random instances far from any real cell, to drive every limit and every corner of the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec

__all__ = ["random_fdma"]


def random_fdma(rng: np.random.Generator, devices: int | None = None, **changes: Any) -> Instance:
    """A continuous FDMA instance with 1 to 12 devices whose budgets range over orders of magnitude.

    Most draws are infeasible; about one in seven has an allocation.
    """
    k = devices or int(rng.integers(1, 13))

    def between(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, k)

    def spread(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), k))

    def one(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    freq_min = spread(1e8, 1e9)
    fields: dict[str, Any] = {
        "name": "random",
        "access": "fdma",
        "bandwidth_hz": one(1e4, 1e7) * k / 10,
        "noise_psd_dbm_per_hz": -174.0,
        "latency_s": one(2, 60),
        "bound": BoundSpec(
            underfit_weight=one(1e-3, 10),
            pooling=rng.choice(["global", "device"]),
            loss_range=one(0.1, 3),
            lipschitz=one(0.1, 3),
            curvature=one(0.01, 1),
            sparsity_weight=float(rng.choice([0.0, one(0.01, 3)])),
        ),
        "samples": rng.integers(10, 3000, k),
        "gain": spread(1e-15, 1e-9),
        "power_max_w": spread(1e-3, 1),
        "energy_j": spread(0.3, 30),
        "energy_static_j": rng.choice([0.0, 0.1]) * between(0, 1),
        "payload_fixed_bits": rng.choice([0.0, 1.0]) * spread(1e3, 1e7),
        "payload_lora_bits": spread(1e5, 1e8),
        "cycles_fixed": rng.choice([0.0, 1.0, 1.0, 1.0]) * spread(1e8, 2e10),
        "cycles_lora": rng.choice([0.0, 1.0, 1.0]) * spread(1e6, 1e10),
        "freq_min_hz": freq_min,
        "freq_max_hz": freq_min * rng.choice([1.0, 1.0001, 3.0, 10.0]),
        "capacitance": rng.choice([0.0, 1.0, 1.0, 1.0, 1.0]) * spread(1e-29, 1e-26),
        "downlink_bps": np.where(rng.random(k) < 0.5, np.inf, spread(1e6, 1e8)),
        "keep_min": between(0.001, 0.2),
        "keep_max": between(0.3, 1),
    }
    return Instance(**{**fields, **changes})
