"""What server and clients share: the learning task, how it is trained, the cell, and the devices in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from edgealloc import BoundSpec
from edgealloc.models import AdapterShape, FederatedOptions, Setup, Task, build_task
from edgealloc.models.training.digits import DIGITS_LEARNING_RATE
from edgealloc.rounds import DeviceState, System

torch.set_num_threads(1)  # one per client; and the same bits everywhere

MEAN_GAIN = (4e-12, 1e-11, 2e-11, 6e-11)  # of devices near and far; more devices repeat them


def name_of(k: int) -> str:
    """Return the name of device k."""
    return f"dev-{k:02d}"


@lru_cache(maxsize=1)
def task_of(devices: int, seed: int) -> Task:
    """Return the offline task, the same in every process: a small vision transformer on digits it has not seen."""
    setup = Setup(train_size=40 * devices, validation_size=100, devices=devices, quantity_skew=0.4)
    return build_task(setup, seed)


def options_of(config: dict[str, Any]) -> FederatedOptions:
    """Return how devices train."""
    return FederatedOptions(
        rounds=int(config["rounds"]), learning_rate=DIGITS_LEARNING_RATE, seed=int(config["seed"])
    )


def system_of(task: Task) -> System:
    """Return a cell with spectrum for about a third of the adapter; a device may be left out at a penalty."""
    shape = AdapterShape.from_state(task.initial)
    return System(
        access="fdma",
        bandwidth_hz=1.6e3 * len(task.devices),
        noise_psd_dbm_per_hz=-174.0,
        latency_s=15.0,
        bound=BoundSpec(),
        payload_fixed_bits=shape.payload_fixed_bits,
        payload_lora_bits=shape.payload_lora_bits,
        cycles_fixed=2e10,
        cycles_lora=4e8,
        exclusion_penalty=20.0,
    )


def state_of(task: Task, k: int, number: int, seed: int) -> DeviceState:
    """Return how device k stands in a round: its channel fades from round to round."""
    fading = np.random.default_rng([seed, number, k]).exponential()
    return DeviceState(
        gain=MEAN_GAIN[k % len(MEAN_GAIN)] * max(fading, 0.05),
        samples=len(task.devices[k]),
        energy_j=6.0,
        power_max_w=0.1,
        freq_min_hz=3e8,
        freq_max_hz=2e9,
        capacitance=1e-28,
    )
