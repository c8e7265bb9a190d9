"""The checker's formulas in plain floats, one piece at a time, from docs/model.md; no number like another.

Where a line of the checker loses a term, a factor or an index, its numbers are no longer these.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgealloc.certificate.form import OUT
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption, BoundSpec

MENU = (
    AdapterOption("a", 7.3e5, 1.7e8, 1.43, download_bits=2.9e5, cycles_fixed=4.1e8, gain=1.9e-14),
    AdapterOption("b", 5.7e5, 2.3e8, 0.83),
)


def up(x: float) -> float:
    """The next double above."""
    return math.nextafter(x, math.inf)


def down(x: float) -> float:
    """The next double below."""
    return math.nextafter(x, -math.inf)


def bound(underfit: Any = "inverse-keep", pooling: Any = "global", **changes: Any) -> BoundSpec:
    """A bound no number of which is 0, 1 or 2."""
    numbers = {
        "underfit_weight": 0.37, "loss_range": 1.3, "lipschitz": 0.7, "curvature": 0.11, "sparsity_weight": 0.43,
        "confidence_delta": 0.17,
    }  # fmt: skip
    return BoundSpec(underfit, pooling=pooling, **(numbers | changes))


def uneven(make_instance: Any, access: str = "fdma", **changes: Any) -> Instance:
    """Three devices that differ in everything, the first with a menu; every budget counts."""
    fields: dict[str, Any] = {
        "bandwidth_hz": 1.3e6, "noise_psd_dbm_per_hz": -171.3, "latency_s": 14.7, "bound": bound(),
        "samples": np.array([310.0, 470.0, 190.0]), "gain": np.array([2.3e-14, 1.1e-14, 3.7e-14]),
        "power_max_w": np.array([0.13, 0.19, 0.11]), "energy_j": np.array([3.1, 4.7, 2.9]),
        "energy_static_j": np.array([0.11, 0.23, 0.07]), "payload_fixed_bits": np.array([1.7e5, 2.9e5, 0.7e5]),
        "payload_lora_bits": np.array([9.1e5, 6.7e5, 8.3e5]), "cycles_fixed": np.array([2.3e9, 3.1e9, 1.9e9]),
        "cycles_lora": np.array([1.3e9, 0.7e9, 1.1e9]), "freq_min_hz": np.array([3.1e8, 2.7e8, 2.3e8]),
        "freq_max_hz": np.array([1.9e9, 1.7e9, 2.3e9]), "capacitance": np.array([1.7e-28, 1.3e-28, 1.1e-28]),
        "downlink_bps": np.array([0.9e6, np.inf, 1.7e6]), "adapter_options": (MENU, None, None),
        "exclusion_penalty": 4.3, "block_hz": 1.7e4 if access == "rb" else None,
    }  # fmt: skip
    made: Instance = make_instance(access, devices=3, **(fields | changes))
    return made


def row_of(instance: Instance, k: int, row: int) -> AdapterOption | None:
    """The row of a device's menu, None without one."""
    menu = (instance.adapter_options or (None,) * instance.num_devices)[k]
    return None if menu is None or row == OUT else menu[row]


def needs(instance: Instance, k: int, row: int, s: float) -> tuple[float, float, float, float]:
    """Bits, cycles, seconds that are left beside the download, and joules per bit at a vanishing rate."""
    own = row_of(instance, k, row)
    lora = instance.payload_lora_bits[k] if own is None else own.payload_lora_bits
    cycles = instance.cycles_lora[k] if own is None else own.cycles_lora
    bits = instance.payload_fixed_bits[k] + lora * s
    work = instance.cycles_fixed[k] + cycles * s + (0.0 if own is None else own.cycles_fixed)
    down = bits + (0.0 if own is None else own.download_bits)
    gain = instance.gain[k] if own is None or own.gain is None else own.gain
    noise = 10.0 ** ((instance.noise_psd_dbm_per_hz - 30.0) / 10.0)
    window = instance.latency_s - down / instance.downlink_bps[k]
    return float(bits), float(work), float(window), float(noise * math.log(2.0) / gain)


def times(instance: Instance, k: int, row: int, s: float, sent_j: float) -> tuple[float, float]:
    """Seconds for the upload, by the energy that is left and by the greatest frequency."""
    _, work, window, _ = needs(instance, k, row, s)
    spare = float(instance.energy_j[k] - instance.energy_static_j[k]) - sent_j
    slow = math.sqrt(instance.capacitance[k] * work**3 / spare) if spare > 0.0 else math.inf
    return window - slow, float(window - work / instance.freq_max_hz[k])


def plane(
    instance: Instance, k: int, row: int, at: tuple[float, float], mix: float, limit: int, lam: float
) -> float:
    """What a plane is a tangent of, at keep rate and efficiency: bandwidth, and a constraint's share."""
    s, v = at
    bits, work, _, c = needs(instance, k, row, s)
    sent = c * bits * math.expm1(v) / v
    t1, t2 = times(instance, k, row, s, sent)
    if mix and not t1 > 0.0:
        return math.inf
    energy = float(instance.energy_j[k] - instance.energy_static_j[k])
    heat = float(instance.capacitance[k] * instance.freq_min_hz[k] ** 2 * work)
    power = float(instance.power_max_w[k])
    over = (0.0, sent + heat - energy, sent - power * t1, sent - power * t2)[limit]
    return bits * math.log(2.0) / (v * t1**mix * t2 ** (1.0 - mix)) + lam * over


def gap(spec: BoundSpec, samples: float, q: float) -> tuple[float, float]:
    """The stability term and its derivative."""
    y = spec.curvature + 2.0 * spec.sparsity_weight * (1.0 - q)
    spread = 24.0 * spec.loss_range * spec.lipschitz**2
    value = math.sqrt((spec.loss_range**2 + spread / y) / (2.0 * samples * spec.confidence_delta))
    return value, spec.sparsity_weight * spread / (2.0 * samples * spec.confidence_delta) / (y * y * value)
