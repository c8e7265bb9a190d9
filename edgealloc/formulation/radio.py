"""Uplink rates of the access schemes (docs/model.md, *What it costs*).

FDMA and resource blocks: ``r = b log2(1 + p g / (N0 b))``. OFDMA: the sum over a device's own
sub-carriers of ``B_m log2(1 + p_m g_m / (N0 B_m))`` with ``B_m = B / M``.

Resource blocks are counted: how many the band holds and how many a bandwidth is, never how many Hz they come to.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.units import LN2, FloatArray, IntArray

__all__ = ["block_count", "blocks_of", "fdma_rate_bps", "spare_hz", "subcarrier_hz", "subcarrier_rate_bps"]

_WHOLE = Fraction(1, 2**50)  # relative: a quotient of two doubles so near below a whole number is meant to be it


def fdma_rate_bps(
    bandwidth_hz: FloatArray, power_w: FloatArray, gain: FloatArray, noise_psd_w_per_hz: float
) -> FloatArray:
    """Shannon rate in bit/s of devices on bandwidth of their own; 0 where the bandwidth is 0. Shape [K]."""
    bandwidth = np.asarray(bandwidth_hz, dtype=np.float64)
    safe = np.where(bandwidth > 0, bandwidth, 1.0)
    rate = safe * _nats(power_w, gain, noise_psd_w_per_hz * safe) / LN2
    return np.where(bandwidth > 0, rate, 0.0)


def _nats(power_w: FloatArray, gain: FloatArray, noise_w: FloatArray | float) -> FloatArray:
    """Spectral efficiency ``log(1 + p g / noise)``; the quotient may be beyond doubles. Of one shape."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        nats = np.log1p(power_w * gain / noise_w)
        return np.where(np.isinf(nats), np.log(power_w) + np.log(gain) - np.log(noise_w), nats)


def block_count(bandwidth_hz: float, block_hz: float) -> int:
    """Whole resource blocks in a band of ``bandwidth_hz``, both in Hz: n where ``block_hz`` is B / n in doubles.

    B / block_hz, exactly, is rounded to the nearest whole number within 2^-50 of it, relative; down otherwise.
    """
    return math.floor(Fraction(bandwidth_hz) / Fraction(block_hz) * (1 + _WHOLE))


def blocks_of(bandwidth_hz: FloatArray, block_hz: float) -> FloatArray:
    """How many blocks bandwidths in Hz are, to the nearest whole number. Of the same shape."""
    return np.asarray(np.rint(bandwidth_hz / block_hz))


def spare_hz(bandwidth_hz: FloatArray, total_hz: float) -> float:
    """What bandwidths [K] leave of ``total_hz``, in Hz, rounded once: its sign is that of the exact difference."""
    parts = np.append(-np.asarray(bandwidth_hz), total_hz)
    rough = float(np.sum(parts))
    if not math.isfinite(rough):
        return rough
    return math.fsum(parts)


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
    nats = _nats(power_w[used], instance.gain[devices, used], instance.noise_psd_w_per_hz * width)
    k = instance.num_devices
    rate = np.bincount(devices, weights=width * nats / LN2, minlength=k)
    power = np.bincount(devices, weights=power_w[used], minlength=k)
    return rate.astype(np.float64), power.astype(np.float64)
