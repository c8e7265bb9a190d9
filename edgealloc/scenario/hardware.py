"""Kinds of devices: processor, radio and energy of a phone, an IoT board, a Jetson-like board.

These are models of kinds of hardware, not measurements of products. Operations per cycle are 30 % of the
peak: 4 cores x 16 single-precision operations (phone: two 128-bit fused multiply-add units per core),
4 x 8 (IoT board: one unit), 1024 x 2 (GPU of a Jetson-like board). Capacitance: 1e-28 is the customary value
for phones (Yang et al., IEEE Trans. Wireless Commun. 20(3), 2021, arXiv 1911.02417); the others are chosen so
that full speed draws 1 W and 6 W. 0.2 W is the 23 dBm of an ordinary handset (3GPP TS 38.101-1, power class
3), 0.1 W the 20 dBm of IoT modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["DEVICE_CLASSES", "DeviceClass"]


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Processor and radio of a kind of device; ranges are drawn from uniformly, per device.

    Parameters
    ----------
    name
        For example ``phone``.
    freq_min_hz, freq_max_hz
        Processor frequency range in Hz.
    flops_per_cycle
        Sustained floating-point operations per cycle on matrix products.
    capacitance
        Effective switched capacitance kappa in J s^2/cycle^3: full speed draws ``kappa f_max^3`` watt.
    power_max_w, energy_j
        (low, high) of the transmit power limit in W and of the round's energy budget in J.
    """

    name: str
    freq_min_hz: float
    freq_max_hz: float
    flops_per_cycle: float
    capacitance: float
    power_max_w: tuple[float, float]
    energy_j: tuple[float, float]


_CLASSES = (
    DeviceClass("phone", 3e8, 2.4e9, 20.0, 1e-28, (0.1, 0.2), (2.0, 8.0)),
    DeviceClass("iot", 3e8, 1.5e9, 10.0, 3e-28, (0.05, 0.1), (5.0, 14.0)),
    DeviceClass("jetson", 1e8, 6.25e8, 600.0, 2.5e-26, (0.1, 0.2), (3.0, 10.0)),
)
DEVICE_CLASSES: Mapping[str, DeviceClass] = MappingProxyType({c.name: c for c in _CLASSES})
