"""Units by name: ``power_dbm`` is ``power_max_w`` in dBm, ``bandwidth_mhz`` is ``bandwidth_hz`` in MHz.

Two small tables, what is measured and in which units, make the one of all names. Units are in lower case, as names
are: ``mj`` and ``mw`` are a thousandth, ``mhz``, ``mbit`` and ``mbps`` a million.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgealloc.units import FloatArray, db_to_linear, dbm_to_w, linear_to_db

__all__ = ["NAMES", "Convert"]

Convert = Callable[[Any], FloatArray]


def _times(factor: float) -> Convert:
    return lambda values: values * factor


def _over(divisor: float) -> Convert:
    return lambda values: values / divisor  # rounds once: 3 mJ are the double nearest to 0.003 J


def _as_given(values: Any) -> Any:
    return values


_UNITS: Mapping[str, Mapping[str, Convert]] = {
    "power": {"w": _as_given, "mw": _over(1e3), "dbm": dbm_to_w, "dbw": db_to_linear},
    "energy": {"j": _as_given, "mj": _over(1e3), "kj": _times(1e3), "wh": _times(3600.0), "mwh": _times(3.6)},
    "time": {"s": _as_given, "ms": _over(1e3), "min": _times(60.0)},
    "frequency": {"hz": _as_given, "khz": _times(1e3), "mhz": _times(1e6), "ghz": _times(1e9)},
    "rate": {"bps": _as_given, "kbps": _times(1e3), "mbps": _times(1e6), "gbps": _times(1e9)},
    "data": {
        "bits": _as_given,
        "bit": _as_given,
        "kbit": _times(1e3),
        "mbit": _times(1e6),
        "bytes": _times(8.0),
        "kib": _times(8.0 * 2**10),
        "mib": _times(8.0 * 2**20),
    },
    "density": {"dbm_per_hz": _as_given, "w_per_hz": lambda values: linear_to_db(values) + 30.0},
    "gain": {"db": db_to_linear},
    "loss": {"db": lambda values: db_to_linear(-values)},
}

# What is measured: the stem of a name -> (field of an instance, units).
_STEMS: Mapping[str, tuple[str, str]] = {
    "power_max": ("power_max_w", "power"),
    "power": ("power_max_w", "power"),
    "energy": ("energy_j", "energy"),
    "energy_static": ("energy_static_j", "energy"),
    "latency": ("latency_s", "time"),
    "deadline": ("latency_s", "time"),
    "freq_min": ("freq_min_hz", "frequency"),
    "frequency_min": ("freq_min_hz", "frequency"),
    "freq_max": ("freq_max_hz", "frequency"),
    "frequency_max": ("freq_max_hz", "frequency"),
    "frequency": ("freq_max_hz", "frequency"),
    "bandwidth": ("bandwidth_hz", "frequency"),
    "block": ("block_hz", "frequency"),
    "downlink": ("downlink_bps", "rate"),
    "payload_fixed": ("payload_fixed_bits", "data"),
    "payload_lora": ("payload_lora_bits", "data"),
    "noise_psd": ("noise_psd_dbm_per_hz", "density"),
    "noise": ("noise_psd_dbm_per_hz", "density"),
    "gain": ("gain", "gain"),
    "path_loss": ("gain", "loss"),
    "pathloss": ("gain", "loss"),
}

NAMES: Mapping[str, tuple[str, Convert]] = {
    f"{stem}_{unit}": (field, convert)
    for stem, (field, kind) in _STEMS.items()
    for unit, convert in _UNITS[kind].items()
}
"""Every name with a unit: the field of an instance that it is, and how to convert it."""
