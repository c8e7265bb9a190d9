"""What a device needs for one round: payload, cycles, latency, energy (docs/model.md, *What it costs*)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray, IntArray

__all__ = ["AdapterChoice", "chosen_adapter", "compute_energy_j", "cycles", "download_s", "payload_bits"]


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """The adapter that each device trains, after its menu row was picked. Shapes [K].

    Parameters
    ----------
    payload_lora_bits, cycles_lora
        D1 in bit and W1 in cycles.
    underfit_factor
        Multiplies the underfitting term; 1 without a menu.
    cycles_fixed, download_bits
        W0 in cycles, and what is downloaded beside the sub-adapter, in bit.
    gain
        Channel power gain; the instance's where no row has one. Shape [K], [K, M] for OFDMA.
    """

    payload_lora_bits: FloatArray
    cycles_lora: FloatArray
    underfit_factor: FloatArray
    cycles_fixed: FloatArray
    download_bits: FloatArray
    gain: FloatArray


def chosen_adapter(instance: Instance, option: IntArray) -> AdapterChoice:
    """What the chosen menu rows ``option`` say (shape [K]; -1 without a menu), else what the instance does."""
    bits, work, fixed = instance.payload_lora_bits, instance.cycles_lora, instance.cycles_fixed
    factor, more, gain = np.ones(instance.num_devices), np.zeros(instance.num_devices), instance.gain
    if instance.adapter_options is not None:
        bits, work, fixed, gain = bits.copy(), work.copy(), fixed.copy(), gain.copy()
        for k, menu in enumerate(instance.adapter_options):
            if menu is not None:
                row = menu[int(option[k])]
                bits[k], work[k], factor[k] = row.payload_lora_bits, row.cycles_lora, row.underfit_factor
                fixed[k], more[k] = fixed[k] + row.cycles_fixed, row.download_bits
                if row.gain is not None:
                    gain[k] = row.gain
    return AdapterChoice(bits, work, factor, fixed, more, gain)


def payload_bits(instance: Instance, adapter: AdapterChoice, keep: FloatArray) -> FloatArray:
    """Uploaded bits ``D(s) = D0 + D1 s``: a mask keeps a share s of A's columns and B's rows. Shape [K]."""
    return np.asarray(instance.payload_fixed_bits + adapter.payload_lora_bits * keep)


def cycles(adapter: AdapterChoice, keep: FloatArray) -> FloatArray:
    """Processor cycles of one local update, ``W(s) = W0 + W1 s``. Shape [K]."""
    return np.asarray(adapter.cycles_fixed + adapter.cycles_lora * keep)


def download_s(instance: Instance, adapter: AdapterChoice, payload: FloatArray) -> FloatArray:
    """Download time in s of sub-adapter and what comes with it, 0 at an infinite downlink rate. Shape [K]."""
    return np.asarray((payload + adapter.download_bits) / instance.downlink_bps)


def compute_energy_j(instance: Instance, work: FloatArray, freq_hz: FloatArray) -> FloatArray:
    """Energy in J of ``work`` cycles at frequency ``freq_hz``, ``kappa f^2 W``. Shape [K]."""
    return np.asarray(instance.capacitance * np.square(freq_hz) * work)
