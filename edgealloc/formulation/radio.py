"""Uplink rates of the access schemes (docs/model.md, *What it costs*).

FDMA and resource blocks: ``r = b log2(1 + p g / (N0 b))``. OFDMA: the sum over a device's own
sub-carriers of ``B_m log2(1 + p_m g_m / (N0 B_m))`` with ``B_m = B / M``.
"""

from __future__ import annotations

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.units import LN2, FloatArray, IntArray

__all__ = ["fdma_rate_bps", "subcarrier_hz", "subcarrier_rate_bps"]


def fdma_rate_bps(
    bandwidth_hz: FloatArray, power_w: FloatArray, gain: FloatArray, noise_psd_w_per_hz: float
) -> FloatArray:
    """Shannon rate in bit/s of devices on bandwidth of their own; 0 where the bandwidth is 0. Shape [K]."""
    bandwidth = np.asarray(bandwidth_hz, dtype=np.float64)
    safe = np.where(bandwidth > 0, bandwidth, 1.0)
    rate = safe * np.log1p(power_w * gain / (noise_psd_w_per_hz * safe)) / LN2
    return np.where(bandwidth > 0, rate, 0.0)


def subcarrier_hz(instance: Instance) -> float:
    """Width ``B_m = B / M`` of one sub-carrier in Hz."""
    assert instance.num_subcarriers is not None
    return instance.bandwidth_hz / instance.num_subcarriers


def subcarrier_rate_bps(instance: Instance, owner: IntArray, power_w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Rate in bit/s and transmit power in W of every device on the sub-carriers it owns.

    Power that stands on a sub-carrier without an owner carries nothing and is charged to nobody.

    Parameters
    ----------
    instance
        An OFDMA instance.
    owner
        Device of each sub-carrier, -1 for none. Shape [M].
    power_w
        Transmit power on each sub-carrier in W. Shape [M].

    Returns
    -------
    rate_bps, power_w
        Shape [K] each.
    """
    used = np.flatnonzero(owner >= 0)
    devices = owner[used]
    width = subcarrier_hz(instance)
    snr = power_w[used] * instance.gain[devices, used] / (instance.noise_psd_w_per_hz * width)
    k = instance.num_devices
    rate = np.bincount(devices, weights=width * np.log1p(snr) / LN2, minlength=k)
    power = np.bincount(devices, weights=power_w[used], minlength=k)
    return rate.astype(np.float64), power.astype(np.float64)
