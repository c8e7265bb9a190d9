"""Values that are allowed and look like a mistake of unit: dBm for W, ms for s, shares for counts.

The limits are far from what radios, processors and adapters are. A budget counts as mistaken where every device
has a hundred times what it could use at most; only there this room has formulas, and they are rough.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.errors import PlausibilityWarning
from edgealloc.units import BoolArray, FloatArray

__all__ = ["Remark", "remarks_on", "warn"]

NOISE_DBM_PER_HZ = (-180.0, -120.0)  # thermal noise is -174; a receiver adds 1 to 20 dB, interference more
MOST_POWER_W = 10.0
LEAST_BANDWIDTH_HZ = 1e3
LEAST_CLOCK_HZ = 1e6
LEAST_PAYLOAD_BITS = 1e3
SILENCE = (
    "(to silence: warnings.simplefilter('ignore', edgealloc.PlausibilityWarning), "
    "or PYTHONWARNINGS=ignore::UserWarning)"
)
TIMES_THE_MOST = 100.0  # a budget as many times what could be used at most is not one


@dataclass(frozen=True, slots=True)
class Remark:
    """A value that looks like a mistake.

    Parameters
    ----------
    where
        Device, or the block of the file that the field is in; ``dev-3 and 4 more`` for several devices.
    field
        Name of the field.
    value
        The value, of the first device.
    looks_like
        What it looks like, and what to do if so.
    """

    where: str
    field: str
    value: float
    looks_like: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field} = {self.value:.6g} {self.looks_like}"


def remarks_on(instance: Any) -> list[Remark]:
    """What looks mistaken in an :class:`~edgealloc.data.instance.Instance`; mostly nothing."""
    found: list[Remark] = []
    gain, noise, band = instance.gain, instance.noise_psd_dbm_per_hz, instance.bandwidth_hz
    k = len(instance.samples)

    def devices(bad: BoolArray, field: str, values: FloatArray, looks_like: str) -> None:
        index = np.flatnonzero(bad)
        if len(index):
            more = f" and {len(index) - 1} more" if len(index) > 1 else ""
            name = instance.device_names[index[0]]
            found.append(Remark(f"{name}{more}", field, float(values[index[0]]), looks_like))

    best = gain.max(axis=1) if gain.ndim == 2 else gain
    devices(best > 1.0, "gain", best, "amplifies: in dB? Then 10**(dB/10). A path loss? Then 1 / loss")
    if gain.ndim == 2 and k > gain.shape[1] and instance.exclusion_penalty is None:
        looks_like = f"devices on {gain.shape[1]} sub-carriers: transposed? give gain.T, of shape [K, M]"
        found.append(Remark("devices", "gain", float(k), looks_like))
    if not NOISE_DBM_PER_HZ[0] <= noise <= NOISE_DBM_PER_HZ[1]:
        found.append(Remark("uplink", "noise_psd_dbm_per_hz", noise, _noise_looks_like(noise, band)))
    if band < LEAST_BANDWIDTH_HZ:
        found.append(Remark("uplink", "bandwidth_hz", band, "Hz is next to nothing: kHz or MHz?"))
    power, clock = instance.power_max_w, instance.freq_max_hz
    devices(power > MOST_POWER_W, "power_max_w", power, "W is more than 10: mW, or dBm (10**((dBm-30)/10) W)?")
    devices(clock < LEAST_CLOCK_HZ, "freq_max_hz", clock, "Hz is slower than 1 MHz: MHz or GHz?")
    payload = instance.payload_fixed_bits + instance.payload_lora_bits * instance.keep_max
    if instance.adapter_options is None:
        small, looks_like = payload < LEAST_PAYLOAD_BITS, "bit is less than 1 kbit in all: Mbit or MB?"
        devices(small, "payload_lora_bits", instance.payload_lora_bits, looks_like)
    if instance.total_samples < k:
        devices(instance.samples > 0, "samples", instance.samples, "is less than one each: shares of the data?")
    return found + _idle_budgets(instance, payload)


def _noise_looks_like(noise: float, band: float) -> str:
    if -1e-9 < noise < 1e-9:
        return "dBm/Hz is a milliwatt: W/Hz or W? Of W/Hz it is 10*log10(value) + 30 dBm/Hz"
    if noise > NOISE_DBM_PER_HZ[1]:
        density = noise - 10.0 * np.log10(band)
        return f"dBm/Hz is far above thermal noise (-174): in the whole band? Then it is {density:.4g} dBm/Hz"
    return "dBm/Hz is below thermal noise (-174): dBW/Hz? Then add 30"


def _idle_budgets(instance: Any, payload: FloatArray) -> list[Remark]:
    """Energy and deadline, where all devices have many times what full speed and full power could use."""
    found = []
    power, clock = instance.power_max_w, instance.freq_max_hz
    work = instance.cycles_fixed + instance.cycles_lora * instance.keep_max
    share = instance.bandwidth_hz / len(work)
    gain = instance.gain.mean(axis=1) if instance.gain.ndim == 2 else instance.gain
    with np.errstate(all="ignore"):  # absurd values overflow; then there is nothing to remark here
        rate = share * np.log2(1.0 + power * gain / (instance.noise_psd_w_per_hz * share))
        time_s = work / clock + payload * (1.0 / rate + 1.0 / instance.downlink_bps)
        energy_j = instance.capacitance * clock**2 * work + power * instance.latency_s
        spare = instance.energy_j / (instance.energy_static_j + energy_j)
        if instance.adapter_options is None and instance.latency_s > TIMES_THE_MOST * time_s.max():
            looks_like = f"s is {instance.latency_s / time_s.max():.0f} times what any device needs: ms?"
            found.append(Remark("instance", "latency_s", instance.latency_s, looks_like))
        if spare.min() > TIMES_THE_MOST:
            looks_like = f"J is {spare.min():.0f} times what any device could spend: mJ? Or is energy not scarce?"
            found.append(Remark(f"all {len(work)} devices", "energy_j", float(instance.energy_j[0]), looks_like))
    return found


def warn(instance: Any) -> None:
    """Warn of what looks mistaken in an instance: one :class:`PlausibilityWarning`, where edgealloc was called."""
    found = remarks_on(instance)
    if not found:
        return
    lines = [f"instance {instance.name!r} may hold a mistake of unit:", *(f"  - {remark}" for remark in found)]
    lines.append(f"  {SILENCE}")
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("edgealloc."):
        level, frame = level + 1, frame.f_back
    warnings.warn("\n".join(lines), PlausibilityWarning, stacklevel=level)
