"""A device as a row of numbers: the one layout that all kernels read.

A row holds what a device needs and may spend under one row of its adapter menu, in SI units; energy is net of its
static part. Its spectrum is not in it. OFDMA appends columns of its own to rows, see
:mod:`edgealloc.solvers.ofdma.kernels.device`. The table of P-SCA's sub-problem has other units and other columns;
:meth:`edgealloc.solvers.psca.model.Model.table` computes it from rows.

Budgets are scaled in two ways, which round differently. :func:`device_rows` shrinks the energy before the static
part is taken off, ``E (1 - shrink) - E0``. OFDMA scales plain rows afterwards, outwards by units in the last place
for its lower bounds (:class:`edgealloc.solvers.ofdma.cell.OfdmaCell`).
"""

from __future__ import annotations

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.formulation.device import AdapterChoice
from edgealloc.units import LN2, FloatArray

__all__ = [
    "BIT0",
    "BIT1",
    "CYC0",
    "CYC1",
    "DEADLINE",
    "DOWN",
    "ENERGY",
    "FMAX",
    "FMIN",
    "KAPPA",
    "PER_BIT",
    "PMAX",
    "SMAX",
    "SMIN",
    "WIDTH",
    "device_rows",
]

_ROUNDING = 2.0**-50  # relative to T, of that difference: rounded up where a bound may rest on it

WIDTH = 14
# Columns.
BIT0, BIT1 = 0, 1  # payload D0 + D1 s in bit
CYC0, CYC1 = 2, 3  # work W0 + W1 s in cycles
DOWN = 4  # 1/R, the download time per bit
ENERGY = 5  # E - E0
KAPPA = 6  # capacitance
PER_BIT = 7  # c = N0 ln2 / g, the least upload energy per bit; on the best sub-carrier for OFDMA
PMAX = 8
FMIN, FMAX = 9, 10
DEADLINE = 11  # T, less the time for what is downloaded beside the sub-adapter
SMIN, SMAX = 12, 13  # keep rates


def device_rows(instance: Instance, adapter: AdapterChoice, shrink: float = 0.0) -> FloatArray:
    """Rows of all devices, each under the adapter chosen for it. Shape [K, WIDTH].

    ``shrink`` > 0 reduces deadline, energy budget and power limit by this share, so that a point computed
    with rounding errors against the rows still meets the true budgets exactly.
    """
    k = instance.num_devices
    with np.errstate(divide="ignore"):
        least_energy = instance.noise_psd_w_per_hz * LN2 / adapter.gain.reshape(k, -1).max(axis=1)
    less = 1.0 - shrink
    beside = adapter.download_bits / instance.downlink_bps  # s that are gone before the sub-adapter comes
    rows = np.empty((k, WIDTH))
    for column, values in {
        BIT0: instance.payload_fixed_bits,
        BIT1: adapter.payload_lora_bits,
        CYC0: adapter.cycles_fixed,
        CYC1: adapter.cycles_lora,
        DOWN: 1.0 / instance.downlink_bps,
        ENERGY: instance.energy_j * less - instance.energy_static_j,
        KAPPA: instance.capacitance,
        PER_BIT: least_energy,
        PMAX: instance.power_max_w * less,
        FMIN: instance.freq_min_hz,
        FMAX: instance.freq_max_hz,
        DEADLINE: instance.latency_s * less
        - beside
        + (shrink <= 0.0) * _ROUNDING * instance.latency_s * (beside > 0.0),
        SMIN: instance.keep_min,
        SMAX: instance.keep_max,
    }.items():
        rows[:, column] = values
    return rows
