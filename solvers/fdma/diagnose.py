"""Why an instance has no feasible allocation: which device, which budget, and what would rescue it.

Resources cap keep rates from above only (formulation 5.1), so an instance is infeasible exactly when it is at
``keep_min``. A device is tried alone with the whole spectrum first; then all together.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.fdma.bandwidth import (
    BLOCKED_BOTH,
    BLOCKED_DEADLINE,
    BLOCKED_ENERGY,
    BLOCKED_POWER,
    least_bandwidth,
)
from edgealloc.solvers.fdma.cell import SHRINK, Cell
from edgealloc.solvers.fdma.response import BANDWIDTH
from edgealloc.solvers.row import (
    BIT0,
    BIT1,
    CYC0,
    CYC1,
    DEADLINE,
    DOWN,
    ENERGY,
    FMAX,
    FMIN,
    KAPPA,
    PER_BIT,
    PMAX,
    device_rows,
)
from edgealloc.units import FloatArray, IntArray

__all__ = ["diagnose", "diagnose_problem", "round_up"]

MAX_DEVICES = 20  # a diagnosis each; the rest is counted

# Budget of the instance -> column of the device row, in the order in which remedies are offered.
_REMEDIES = {"freq_max_hz": FMAX, "latency_s": DEADLINE, "energy_j": ENERGY, "power_max_w": PMAX}
_UNITS = {"freq_max_hz": "Hz", "latency_s": "s", "energy_j": "J", "power_max_w": "W", "bandwidth_hz": "Hz"}


def diagnose(cell: Cell) -> tuple[Diagnosis, ...]:
    """Proven reasons why a continuous FDMA instance is infeasible; empty when it is not proved so.

    A device counts as blocked only if it stays so under budgets larger by 1e-12, and the spectrum as too small
    only if the *proven* least bandwidths exceed it, so that no rounding error makes an instance infeasible.
    """
    needed = cell.bandwidth_at(cell.low, np.zeros_like(cell.low))[BANDWIDTH]
    if float(np.sum(needed)) <= cell.bandwidth_hz * (1.0 - 1e-9):
        return ()
    needed = cell.relaxed_bandwidth_at(cell.low)[BANDWIDTH]
    alone = np.flatnonzero(needed > cell.bandwidth_hz * (1.0 + 1e-9))
    if len(alone):
        rows = device_rows(cell.problem.instance, cell.adapter)
        findings = [_blocked_device(cell, int(k), rows[k]) for k in alone[:MAX_DEVICES]]
        if len(alone) > MAX_DEVICES:
            count = len(alone) - MAX_DEVICES
            message = f"{count} more devices are infeasible with the whole spectrum at keep_min"
            findings.append(Diagnosis(None, "latency_s", cell.problem.instance.latency_s, math.inf, message))
        return tuple(findings)
    total = cell.least_total_hz(cell.low)
    if total <= cell.bandwidth_hz:
        return ()
    worst = np.argsort(needed)[::-1][:3]
    names = ", ".join(f"{cell.problem.instance.device_names[k]} ({needed[k]:.4g} Hz)" for k in worst)
    message = (
        f"the spectrum is too small even at keep_min: all devices together need {total:.6g} Hz, there are "
        f"{cell.bandwidth_hz:.6g} Hz; the largest needs are {names}; raise bandwidth_hz to "
        f"{round_up(total)} or allow selection"
    )
    return (Diagnosis(None, "bandwidth_hz", cell.bandwidth_hz, total, message),)


def diagnose_problem(problem: Problem) -> tuple[Diagnosis, ...]:
    """Why a problem with levels, menus or resource blocks is infeasible; a finding in any case.

    Its easiest continuous form, with every device at its least allowed rate in the menu row that needs the least
    bandwidth, is diagnosed first; what is left is the rounding up to whole blocks, or levels without a common one.
    """
    inst = problem.instance
    k = inst.num_devices
    levels = inst.keep_levels or (None,) * k
    least = np.array([low if own is None else own[0] for low, own in zip(inst.keep_min, levels, strict=True)])
    if inst.common_keep:
        least = np.full(k, least.max())
    menus = inst.adapter_options or (None,) * k
    rows = max((len(menu) for menu in menus if menu), default=1)
    need, option = np.full(k, math.inf), np.zeros(k, dtype=np.intp)
    for row in range(rows):
        trial = np.array([min(row, len(menu) - 1) if menu else 0 for menu in menus], dtype=np.intp)
        cell = _easiest(problem, least, trial)
        band = cell.relaxed_bandwidth_at(cell.low)[BANDWIDTH]
        better = band < need
        need, option = np.where(better, band, need), np.where(better, trial, option)
    findings = diagnose(_easiest(problem, least, option))
    if findings:
        return findings
    if inst.common_keep and not all(own is None or float(least[0]) in own for own in levels):
        message = (
            "common_keep needs a keep level that all devices share, and none that they share fits the "
            "spectrum; give them keep_levels in common or allow selection"
        )
        return (Diagnosis(None, "keep_levels", 0.0, math.inf, message),)
    message = f"the spectrum of {inst.bandwidth_hz:.6g} Hz is too small for the allowed keep rates"
    required = math.inf
    if inst.access == "rb" and inst.block_hz is not None:
        blocks = np.ceil(need / inst.block_hz)
        there = math.floor(inst.bandwidth_hz / inst.block_hz)
        required = float(np.sum(blocks) * inst.block_hz)
        message = (
            "too few resource blocks even at the least keep rates: all devices together need "
            f"{int(np.sum(blocks))} blocks of {inst.block_hz:.6g} Hz, there are {there}; raise bandwidth_hz to "
            f"{round_up(required)} or allow selection"
        )
    return (Diagnosis(None, "bandwidth_hz", inst.bandwidth_hz, required, message),)


def _easiest(problem: Problem, least: FloatArray, option: IntArray) -> Cell:
    """The continuous FDMA cell in which every device keeps ``least`` under one menu row each."""
    inst = problem.instance
    adapter = chosen_adapter(inst, option)
    changes = {"access": "fdma", "block_hz": None, "keep_levels": None, "adapter_options": None}
    eased = inst.with_changes(
        **changes,
        common_keep=False,
        keep_min=np.minimum(least, inst.keep_max),
        payload_lora_bits=adapter.payload_lora_bits,
        cycles_lora=adapter.cycles_lora,
    )
    return Cell.of(type(problem)(eased, problem.underfit))


def _blocked_device(cell: Cell, k: int, row: FloatArray) -> Diagnosis:
    """The finding for a device that is infeasible alone with the whole spectrum."""
    inst = cell.problem.instance
    keep = math.exp(cell.low[k])
    band, *_rest, regime = least_bandwidth(row, keep, 0.0)
    required = {budget: _least_budget(row, keep, budget, cell.bandwidth_hz) for budget in _REMEDIES}
    static = float(inst.energy_static_j[k])
    required["energy_j"] += static
    available = {budget: float(row[column]) for budget, column in _REMEDIES.items()}
    available["energy_j"] += static
    bits = row[BIT0] + row[BIT1] * keep
    work = row[CYC0] + row[CYC1] * keep
    name = inst.device_names[k]
    if inst.gain[k] == 0.0:
        primary, what = "energy_j", "has no channel (gain 0) and cannot upload at any keep rate"
    elif regime == BLOCKED_DEADLINE:
        seconds = bits * row[DOWN] + work / row[FMAX]
        primary, what = "latency_s", "cannot finish computing before the deadline at any keep rate"
        what += f": needs {seconds:.4g} s without the upload, has {inst.latency_s:.4g} s"
    elif regime == BLOCKED_ENERGY:
        least = row[KAPPA] * row[FMIN] ** 2 * work + row[PER_BIT] * bits + static
        primary, what = "energy_j", "has too little energy at any keep rate, spectrum and frequency"
        what += f": needs more than {least:.4g} J, has {inst.energy_j[k]:.4g} J"
    elif regime == BLOCKED_BOTH:
        primary, what = "energy_j", "cannot afford a frequency that meets the deadline at any keep rate"
    elif regime == BLOCKED_POWER:
        primary, what = "power_max_w", "cannot upload in the time that is left, with any bandwidth"
    else:
        primary, what = "bandwidth_hz", "needs more than the whole spectrum at keep_min"
        what += f": {band:.4g} Hz of {cell.bandwidth_hz:.4g} Hz"
        required["bandwidth_hz"], available["bandwidth_hz"] = band, cell.bandwidth_hz
    order = dict.fromkeys((primary, *required))
    remedies = [
        f"raise {budget} to {round_up(required[budget])} {_UNITS[budget]}"
        for budget in order
        if math.isfinite(required[budget]) and required[budget] > available[budget]
    ]
    remedies.append("select it out (selection)")
    message = f"{name} {what}; {', or '.join(remedies)}"
    return Diagnosis(name, primary, available[primary], required[primary], message)


def round_up(value: float) -> str:
    """Four significant digits, never below the value, so that the remedy works as printed."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit) * unit:.4g}"


def _least_budget(row: FloatArray, keep: float, budget: str, bandwidth_hz: float) -> float:
    """Least value of one budget with which the device fits into the spectrum at keep, others unchanged."""
    column = _REMEDIES[budget]

    def fits(value: float) -> bool:
        trial = row.copy()
        trial[column] = value
        return bool(least_bandwidth(trial, keep, 0.0)[0] <= bandwidth_hz * (1.0 - SHRINK))

    low = max(float(row[column]), 1e-12)
    high = 2.0 * low
    while not fits(high):
        if high > 1e9 * max(float(row[column]), 1e-3):
            return math.inf
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
