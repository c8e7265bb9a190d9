"""Why an instance has no feasible allocation: which device, which budget, and what would rescue it.

Resources cap keep rates from above only (formulation 5.1), so an instance is infeasible exactly when it is at
``keep_min``. A device is tried alone with the whole spectrum first; then all together.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count
from edgealloc.solvers.fdma.alone import NEAR, NO_CHANNEL, Alone, lacking, remedied, round_up
from edgealloc.solvers.fdma.bandwidth import (
    BLOCKED_BOTH,
    BLOCKED_DEADLINE,
    BLOCKED_ENERGY,
    BLOCKED_POWER,
    least_bandwidth,
)
from edgealloc.solvers.fdma.caps import Caps
from edgealloc.solvers.fdma.cell import SHRINK, Cell
from edgealloc.solvers.fdma.response import BANDWIDTH
from edgealloc.solvers.row import (
    BIT0,
    BIT1,
    CYC0,
    CYC1,
    DEADLINE,
    DOWN,
    FMAX,
    FMIN,
    KAPPA,
    PER_BIT,
)
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["diagnose", "diagnose_problem", "no_level_in_common"]

MAX_DEVICES = 20  # a diagnosis each; the rest is counted


def diagnose(cell: Cell) -> tuple[Diagnosis, ...]:
    """Proven reasons why a continuous FDMA instance is infeasible; empty when it is not proved so.

    A device counts as blocked only if it stays so under budgets larger by 1e-12, and the spectrum as too small
    only if the *proven* least bandwidths exceed it, so that no rounding error makes an instance infeasible. The
    same holds for caps on the spectrum of groups.
    """
    found = _of_band(cell)
    if found or not cell.caps:
        return found
    return cell.caps.lacking(cell.problem, cell.least_hz(cell.low), np.ones(len(cell.low), dtype=bool))


def _of_band(cell: Cell) -> tuple[Diagnosis, ...]:
    """See :func:`diagnose`: what there is without caps."""
    enough = cell.bandwidth_at(cell.low, np.zeros_like(cell.low))[BANDWIDTH]
    if float(np.sum(enough)) <= cell.bandwidth_hz * (1.0 - 1e-9):
        return ()
    needed = cell.relaxed_bandwidth_at(cell.low)[BANDWIDTH]
    keep = np.clip(np.exp(cell.low), cell.problem.instance.keep_min, cell.problem.instance.keep_max)
    alone = needed > cell.bandwidth_hz * (1.0 + 1e-9)
    if alone.any():
        return _blocked(cell.problem.instance, keep, needed, alone)
    total = cell.least_total_hz(cell.low)
    if total <= cell.bandwidth_hz:
        return ()
    required = float(np.sum(enough)) * (1.0 + SHRINK)
    return (_crowded(cell.problem.instance, needed, required if total > required * (1.0 - NEAR) else math.inf),)


def diagnose_problem(problem: Problem) -> tuple[Diagnosis, ...]:
    """Why a problem with levels, menus or resource blocks is infeasible; a finding in any case.

    Every device is at its least allowed rate in the menu row that needs the least bandwidth. What that leaves open
    are levels without a common one, and calls too close for proofs in doubles.
    """
    inst = problem.instance
    least = _least_keeps(inst)
    if least is None:
        return no_level_in_common(inst)
    needed, enough = np.full((2, inst.num_devices), math.inf)
    menus = inst.adapter_options or (None,) * inst.num_devices
    for row in range(max((len(menu) for menu in menus if menu), default=1)):
        trial = np.array([min(row, len(menu) - 1) if menu else 0 for menu in menus], dtype=np.intp)
        cell = _easiest(problem, least, trial)
        needed = np.minimum(needed, cell.relaxed_bandwidth_at(cell.low)[BANDWIDTH])
        enough = np.minimum(enough, cell.bandwidth_at(cell.low, np.zeros_like(least))[BANDWIDTH])
    if inst.block_hz is None:
        there, total, required = inst.bandwidth_hz, float(np.sum(needed)), float(np.sum(enough)) * (1.0 + SHRINK)
        alone, sure = needed > there * (1.0 + SHRINK), total > required * (1.0 - NEAR)
        short = total > there * (1.0 + SHRINK)
    else:
        blocks, most = (np.ceil(need / inst.block_hz * (1.0 - SHRINK)) for need in (needed, enough))
        there = float(block_count(inst.bandwidth_hz, inst.block_hz))
        alone, short, sure = blocks > there, bool(np.sum(blocks) > there), bool(np.all(blocks == most))
        required = float(np.sum(most) * inst.block_hz)
    if alone.any():
        return _blocked(inst, least, needed, alone)
    if short:
        return (_crowded(inst, needed, required if sure else math.inf),)
    if problem.constraints:
        caps = Caps.of(problem, inst.bandwidth_hz, inst.bandwidth_hz, inst.block_hz or 0.0)
        least_hz = needed if inst.block_hz is None else blocks * inst.block_hz
        found = caps.lacking(problem, least_hz * (1.0 - SHRINK), np.ones(inst.num_devices, dtype=bool))
        if found:
            return found
    message = f"the spectrum of {inst.bandwidth_hz:.6g} Hz is too small for the allowed keep rates"
    message += " under these constraints" if problem.constraints else ""
    return (Diagnosis(None, "bandwidth_hz", inst.bandwidth_hz, math.inf, message),)


def no_level_in_common(inst: Instance) -> tuple[Diagnosis, ...]:
    """The finding where all devices must have one keep rate and their levels allow none; empty otherwise."""
    if inst.exclusion_penalty is not None or _least_keeps(inst) is not None:
        return ()
    message = (
        "common_keep needs a keep level that all devices share and may take, and there is none; give them "
        "keep_levels in common or allow selection"
    )
    return (Diagnosis(None, "keep_levels", 0.0, math.inf, message),)


def _least_keeps(inst: Instance) -> FloatArray | None:
    """Least allowed keep rate of each device, of all together under ``common_keep``; None if they share none."""
    levels = inst.keep_levels or (None,) * inst.num_devices
    if not inst.common_keep:
        return np.array([low if own is None else own[0] for low, own in zip(inst.keep_min, levels, strict=True)])
    low, high = float(inst.keep_min.max()), float(inst.keep_max.min())
    stepped = [own for own in levels if own is not None]
    shared = reduce(np.intersect1d, stepped) if stepped else np.array([low])
    shared = shared[(shared >= low) & (shared <= high)]
    return np.full(inst.num_devices, shared[0]) if len(shared) else None


def _crowded(inst: Instance, needed: FloatArray, required: float) -> Diagnosis:
    """The finding when all devices fit alone, but not together."""
    names = inst.device_names
    worst = ", ".join(f"{names[k]} ({needed[k]:.4g} Hz)" for k in np.argsort(needed)[::-1][:3])
    sure = math.isfinite(required)
    remedy = f"raise bandwidth_hz to {round_up(required)} or" if sure else "raise bandwidth_hz or"
    if inst.block_hz is None:
        message = (
            f"the spectrum is too small even at keep_min: all devices together need {np.sum(needed):.6g} Hz, "
            f"there are {inst.bandwidth_hz:.6g} Hz; the largest needs are {worst}; {remedy} allow selection"
        )
    else:
        blocks = np.ceil(needed / inst.block_hz * (1.0 - SHRINK))
        message = (
            f"too few resource blocks even at the least keep rates: all devices together need "
            f"{'' if sure else 'at least '}{int(np.sum(blocks))} blocks of {inst.block_hz:.6g} Hz, there are "
            f"{block_count(inst.bandwidth_hz, inst.block_hz)}; {remedy} allow selection"
        )
    return Diagnosis(None, "bandwidth_hz", inst.bandwidth_hz, required, message)


def _easiest(problem: Problem, least: FloatArray, option: IntArray) -> Cell:
    """The continuous FDMA cell in which every device keeps ``least`` under one menu row each."""
    inst = problem.instance
    adapter = chosen_adapter(inst, option)
    changes: dict[str, Any] = {"access": "fdma", "block_hz": None, "keep_levels": None, "adapter_options": None}
    menus = inst.adapter_options
    if menus is not None and adapter.download_bits.any():  # no other field says what it takes
        changes["adapter_options"] = tuple(m and (m[int(o)],) for m, o in zip(menus, option, strict=True))
    else:
        changes["cycles_fixed"] = adapter.cycles_fixed
    eased = inst.with_changes(
        **changes,
        common_keep=False,
        keep_min=np.minimum(least, inst.keep_max),
        payload_lora_bits=adapter.payload_lora_bits,
        cycles_lora=adapter.cycles_lora,
        gain=adapter.gain,
    )
    return Cell.of(type(problem)(eased, problem.underfit))


def _blocked(inst: Instance, keep: FloatArray, needed: FloatArray, alone: BoolArray) -> tuple[Diagnosis, ...]:
    """Findings for devices that are infeasible alone, and for the spectrum where the others lack that too. [K]."""
    findings: list[Diagnosis] = []
    index = np.flatnonzero(alone)
    for k in index[:MAX_DEVICES]:
        findings += _blocked_device(inst, int(k), Alone.of(inst, int(k), float(keep[k])))
    if len(index) > MAX_DEVICES:
        message = f"{len(index) - MAX_DEVICES} more devices are infeasible with the whole spectrum at keep_min"
        findings.append(Diagnosis(None, "latency_s", inst.latency_s, math.inf, message))
    rest = np.where(alone, 0.0, needed)
    if inst.block_hz is not None:
        rest = np.ceil(rest / inst.block_hz * (1.0 - SHRINK)) * inst.block_hz
    if float(np.sum(rest)) > inst.bandwidth_hz * (1.0 + NEAR):
        message = (
            f"the spectrum is too small for the other devices too: they need {np.sum(rest):.6g} Hz at keep_min, "
            f"there are {inst.bandwidth_hz:.6g} Hz; raise bandwidth_hz as well or allow selection"
        )
        findings.append(Diagnosis(None, "bandwidth_hz", inst.bandwidth_hz, math.inf, message))
    return tuple(findings)


def _blocked_device(inst: Instance, k: int, device: Alone) -> list[Diagnosis]:
    """The finding for a device that is infeasible alone; one per budget where it takes several to rescue it."""
    name, available = inst.device_names[k], device.available
    primary, what = _reason(inst, k, device)
    rescues = {budget: value for budget, value in device.required().items() if math.isfinite(value)}
    first = primary if primary in rescues or not rescues else next(iter(rescues))
    required = {budget: rescues[budget] for budget in dict.fromkeys((first, *rescues)) if budget in rescues}
    names = lacking(device.fits, available) if not required and not device.silent else ()
    return remedied(name, what, available, required, first, names)


@np.errstate(over="ignore")  # what is hopeless may overflow
def _reason(inst: Instance, k: int, device: Alone) -> tuple[str, str]:
    """The budget that lacks first in the easiest menu row, and a sentence without its subject."""
    if device.silent:
        return "energy_j", NO_CHANNEL
    found = [least_bandwidth(row, device.keep, 0.0) for row in device.rows]
    row, (band, *_rest, regime) = min(zip(device.rows, found, strict=True), key=lambda pair: pair[1][0])
    bits, work = row[BIT0] + row[BIT1] * device.keep, row[CYC0] + row[CYC1] * device.keep
    if regime == BLOCKED_DEADLINE:
        beside = max(inst.latency_s - row[DEADLINE], 0.0)  # for what the row downloads beside the sub-adapter
        seconds = beside + bits * row[DOWN] + work / row[FMAX]
        what = "cannot finish computing before the deadline at any keep rate"
        return "latency_s", f"{what}: needs {seconds:.4g} s without the upload, has {inst.latency_s:.4g} s"
    if regime == BLOCKED_ENERGY:
        least = row[KAPPA] * row[FMIN] ** 2 * work + row[PER_BIT] * bits + device.static_j
        what = "has too little energy at any keep rate, spectrum and frequency"
        return "energy_j", f"{what}: needs more than {least:.4g} J, has {inst.energy_j[k]:.4g} J"
    if regime == BLOCKED_BOTH:
        return "energy_j", "cannot afford a frequency that meets the deadline at any keep rate"
    if regime == BLOCKED_POWER:
        return "power_max_w", "cannot upload in the time that is left, with any bandwidth"
    what = "needs more than the whole spectrum at keep_min"
    return "bandwidth_hz", f"{what}: {band:.4g} Hz of {inst.bandwidth_hz:.4g} Hz"
