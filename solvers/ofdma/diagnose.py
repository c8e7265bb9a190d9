"""Why an OFDMA instance has no feasible allocation, and what would rescue it.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math

import numpy as np

from edgealloc.data.outcome import Diagnosis
from edgealloc.solvers.fdma.diagnose import round_up
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, proven_keep
from edgealloc.solvers.row import DEADLINE, ENERGY, FMAX, PMAX, SMIN

__all__ = ["blocked_devices", "too_little_spectrum"]

MAX_DEVICES = 20  # a diagnosis each; the rest is counted
_REMEDIES = {
    "freq_max_hz": FMAX,
    "latency_s": DEADLINE,
    "energy_j": ENERGY,
    "power_max_w": PMAX,
    "bandwidth_hz": BAND,
}
_UNITS = {"freq_max_hz": "Hz", "latency_s": "s", "energy_j": "J", "power_max_w": "W", "bandwidth_hz": "Hz"}


def blocked_devices(cell: OfdmaCell) -> tuple[Diagnosis, ...]:
    """Devices proved infeasible alone, with all sub-carriers at their least keep rate and any menu row."""
    if np.all(np.isfinite(cell.out)):
        return ()  # selection leaves them out
    blocked = [
        k for k in range(cell.devices) if all(_proved(cell, i) for i in range(cell.start[k], cell.start[k + 1]))
    ]
    findings = [_finding(cell, k) for k in blocked[:MAX_DEVICES]]
    if len(blocked) > MAX_DEVICES:
        count = len(blocked) - MAX_DEVICES
        message = f"{count} more devices are infeasible with the whole spectrum at keep_min"
        findings.append(Diagnosis(None, "latency_s", cell.problem.instance.latency_s, math.inf, message))
    return tuple(findings)


def _proved(cell: OfdmaCell, mode: int) -> bool:
    """Whether a mode is proved infeasible with all sub-carriers."""
    row, k = cell.rows[mode], cell.device[mode]
    cap, level = keep_cap(row, cell.inv_a[k], cell.log2_a[k], np.ones(cell.subcarriers))
    return bool(cap < row[SMIN] and proven_keep(row, cell.inv_a[k], cap, level) <= row[SMIN])


def _fits(cell: OfdmaCell, mode: int, column: int, factor: float) -> bool:
    """Whether a mode fits alone once a budget is multiplied by a factor."""
    row, k = cell.safe_rows[mode].copy(), cell.device[mode]
    inv_a, log2_a = cell.inv_a[k], cell.log2_a[k]
    if column == ENERGY:  # the factor is that of the whole budget, static part included
        row[ENERGY] += (factor - 1.0) * cell.problem.instance.energy_j[k]
    else:
        row[column] *= factor
    if column == BAND:  # noise grows with the width
        inv_a, log2_a = inv_a * factor, log2_a - math.log2(factor)
    if row[ENERGY] <= 0.0:
        return False
    return bool(keep_cap(row, inv_a, log2_a, np.ones(cell.subcarriers))[0] >= row[SMIN])


def _finding(cell: OfdmaCell, k: int) -> Diagnosis:
    """What keeps a device from its budgets, and the least of each budget that would do."""
    inst = cell.problem.instance
    modes = range(cell.start[k], cell.start[k + 1])
    available = {
        "freq_max_hz": float(inst.freq_max_hz[k]),
        "latency_s": inst.latency_s,
        "energy_j": float(inst.energy_j[k]),
        "power_max_w": float(inst.power_max_w[k]),
        "bandwidth_hz": inst.bandwidth_hz,
    }
    factors = {name: min(_least_factor(cell, i, column) for i in modes) for name, column in _REMEDIES.items()}
    required = {name: available[name] * factor for name, factor in factors.items() if math.isfinite(factor)}
    if not np.any(inst.gain[k]):
        name, what = "energy_j", "has no channel (gain 0) and cannot upload at any keep rate"
        required = {}
    else:
        name = min(factors, key=lambda budget: factors[budget])
        what = "cannot meet its budgets at its least keep rate even with all sub-carriers"
    remedies = [f"raise {budget} to {round_up(value)} {_UNITS[budget]}" for budget, value in required.items()]
    remedies.append("select it out (selection)")
    message = f"{inst.device_names[k]} {what}; {', or '.join(remedies)}"
    return Diagnosis(inst.device_names[k], name, available[name], required.get(name, math.inf), message)


def _least_factor(cell: OfdmaCell, mode: int, column: int) -> float:
    """Least factor of one budget with which a mode fits alone, others unchanged; inf if none is found."""
    low, high = 1.0, 2.0
    while not _fits(cell, mode, column, high):
        low, high = high, 2.0 * high
        if high > 1e9:
            return math.inf
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _fits(cell, mode, column, middle) else (middle, high)
    return high


def too_little_spectrum(cell: OfdmaCell, left_out: int) -> tuple[Diagnosis, ...]:
    """The finding when all devices fit alone but not together; proved by the search, which left some out."""
    inst = cell.problem.instance
    message = (
        f"the sub-carriers are too few even at keep_min: whatever the assignment, at least {max(left_out, 1)} of "
        f"{cell.devices} devices cannot meet their budgets; raise bandwidth_hz (now {inst.bandwidth_hz:.6g} Hz), "
        "latency_s or energy_j, lower keep_min, or allow selection"
    )
    return (Diagnosis(None, "bandwidth_hz", inst.bandwidth_hz, math.inf, message),)
