"""From OFDMA assignments to allocations and back."""

from __future__ import annotations

import math

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.solvers.ofdma.cell import Assignment, OfdmaCell
from edgealloc.solvers.ofdma.kernels.cap import water
from edgealloc.solvers.ofdma.kernels.device import BAND, WEAK
from edgealloc.solvers.row import BIT0, BIT1, CYC0, CYC1, DEADLINE, DOWN, FMAX, FMIN
from edgealloc.units import LN2

__all__ = ["allocation_of", "assignment_of"]


def allocation_of(cell: OfdmaCell, plan: Assignment) -> Allocation:
    """Powers and frequencies that carry an assignment; breaks no budget."""
    inst = cell.problem.instance
    keep, freq = plan.keep.copy(), inst.freq_min_hz.copy()
    power, owner = np.zeros(cell.subcarriers), np.full(cell.subcarriers, -1)
    for k in np.flatnonzero(plan.mode >= 0):
        row = cell.safe_rows[plan.mode[k]]
        own = (plan.owner == k)[cell.order[k]]
        _cap, level, excess = water(row, cell.inv_a[k], cell.log2_a[k], own.astype(float))
        mine = np.flatnonzero(plan.owner == k)
        inverse = np.full(cell.subcarriers, np.inf)
        inverse[cell.order[k]] = cell.inv_a[k]
        least = inverse[mine].min(initial=np.inf)
        if excess <= WEAK * least:
            mine = mine[inverse[mine] - least < excess]
            power[mine] = excess - (inverse[mine] - least)
            nats = np.log1p(power[mine] / inverse[mine])
        else:
            mine = mine[inverse[mine] < level]
            power[mine] = level - inverse[mine]
            nats = np.log(level / inverse[mine])
        owner[mine] = k
        rate = row[BAND] / LN2 * math.fsum(nats)
        bits, work = row[BIT0] + row[BIT1] * keep[k], row[CYC0] + row[CYC1] * keep[k]
        time = row[DEADLINE] - bits * (row[DOWN] + 1.0 / rate)
        freq[k] = min(max(row[FMIN], work / time if time > 0.0 else row[FMAX]), row[FMAX])
    option = np.where(plan.mode >= 0, cell.option[plan.mode], -1)
    return Allocation(keep=keep, freq_hz=freq, power_w=power, owner=owner, selected=plan.mode >= 0, option=option)


def assignment_of(cell: OfdmaCell, allocation: Allocation) -> Assignment | None:
    """The assignment of an allocation, with the best keep rates; None when its owners cannot carry it."""
    owner = allocation.owner
    if owner is None or owner.shape != (cell.subcarriers,) or allocation.keep.shape != (cell.devices,):
        return None
    if np.any(~allocation.selected) and not np.all(np.isfinite(cell.out[~allocation.selected])):
        return None
    sizes = np.diff(cell.start)
    rows = np.where(allocation.option >= 0, allocation.option, 0)
    if np.any(rows >= sizes) or np.any(owner >= cell.devices):
        return None
    mode = np.where(allocation.selected, cell.start[:-1] + rows, -1)
    return cell.keeps(np.asarray(owner, dtype=np.int64), mode)
