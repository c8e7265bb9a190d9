"""Why an OFDMA instance has no feasible allocation, and what would rescue it.

Derived: docs/ofdma.md, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from edgealloc.data.outcome import Diagnosis
from edgealloc.solvers.fdma.alone import NO_CHANNEL, lacking, least_value, remedied
from edgealloc.solvers.ofdma.cell import SHRINK, OfdmaCell
from edgealloc.solvers.ofdma.kernels.cap import keep_cap
from edgealloc.solvers.ofdma.kernels.device import BAND, proven_keep
from edgealloc.solvers.row import DEADLINE, ENERGY, FMAX, PMAX, SMIN
from edgealloc.units import FloatArray

__all__ = ["blocked_devices", "too_little_spectrum"]

MAX_DEVICES = 20  # a diagnosis each; the rest is counted
_HAIRS = (
    1e-15,
    1e-14,
    1e-13,
    1e-12,
    1e-11,
    1e-10,
    1e-9,
    1e-8,
    1e-7,
)  # all below NEAR, to which less is proved short
_COLUMNS = {
    "freq_max_hz": FMAX,
    "latency_s": DEADLINE,
    "energy_j": ENERGY,
    "power_max_w": PMAX,
    "bandwidth_hz": BAND,
}


def blocked_devices(cell: OfdmaCell) -> tuple[Diagnosis, ...]:
    """Devices proved infeasible alone, with all sub-carriers at their least keep rate and any menu row."""
    if np.all(np.isfinite(cell.out)):
        return ()  # selection leaves them out
    blocked = [
        k for k in range(cell.devices) if all(_proved(cell, i) for i in range(cell.start[k], cell.start[k + 1]))
    ]
    findings = [finding for k in blocked[:MAX_DEVICES] for finding in _findings(cell, k)]
    if len(blocked) > MAX_DEVICES:
        count = len(blocked) - MAX_DEVICES
        message = f"{count} more devices are infeasible with the whole spectrum at keep_min"
        findings.append(Diagnosis(None, "latency_s", cell.problem.instance.latency_s, math.inf, message))
    return tuple(findings)


def _changed(
    cell: OfdmaCell, row: FloatArray, mode: int, changes: Mapping[str, float]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A mode row with budgets multiplied by factors, and 1 / a and its logarithm: noise grows with the width."""
    row, k = row.copy(), cell.device[mode]
    for name, factor in changes.items():
        if name == "energy_j":  # the factor is that of the whole budget, static part included
            row[ENERGY] += (factor - 1.0) * cell.problem.instance.energy_j[k]
        elif name == "latency_s":
            beside = _beside_s(cell, mode)
            row[DEADLINE] = (row[DEADLINE] + beside) * factor - beside
        else:
            row[_COLUMNS[name]] *= factor
    band = changes.get("bandwidth_hz", 1.0)
    return row, cell.inv_a[k] * band, cell.log2_a[k] - math.log2(band)


def _beside_s(cell: OfdmaCell, mode: int) -> float:
    """Seconds that go by for what is downloaded beside the sub-adapter."""
    inst, k, option = cell.problem.instance, cell.device[mode], cell.option[mode]
    menu = inst.adapter_options[k] if inst.adapter_options else None
    return float(menu[option].download_bits / inst.downlink_bps[k]) if menu else 0.0


def _proved(cell: OfdmaCell, mode: int, changes: Mapping[str, float] | None = None) -> bool:
    """Whether a mode is proved infeasible with all sub-carriers once budgets are multiplied by factors."""
    row, inv_a, log2_a = _changed(cell, cell.rows[mode], mode, changes or {})
    cap, level = keep_cap(row, inv_a, log2_a, np.ones(cell.subcarriers))
    return bool(cap < row[SMIN] and proven_keep(row, inv_a, cap, level) <= row[SMIN])


def _fits(cell: OfdmaCell, mode: int, changes: Mapping[str, float]) -> bool:
    """Whether a mode surely fits alone once budgets are multiplied by factors."""
    row, inv_a, log2_a = _changed(cell, cell.safe_rows[mode], mode, changes)
    if "energy_j" in changes:
        row[ENERGY] -= SHRINK * changes["energy_j"] * cell.problem.instance.energy_j[cell.device[mode]]
    if row[ENERGY] <= 0.0:
        return False
    return bool(keep_cap(row, inv_a, log2_a, np.ones(cell.subcarriers))[0] >= row[SMIN])


def _enough(cell: OfdmaCell, k: int, budget: str, value: float) -> float:
    """The value of a budget, or a hair more, with which a search takes the device alone; inf where none does.

    Caps are exact to 1e-7 of the water level only, so that a value next to one that fits need not fit.
    """
    alone = cell.problem.instance.take([k]).with_changes(common_keep=False)
    term = cell.problem.underfit.take(np.array([k]))
    for more in (0.0, *_HAIRS):
        trial = value * (1.0 + more)
        one = OfdmaCell.of(type(cell.problem)(alone.with_changes(**{budget: trial}), term))
        every = np.ones(cell.subcarriers, dtype=bool)
        least = cell.safe_rows[cell.start[k] : cell.start[k + 1], SMIN]
        if any(one.cap(mode, every, safe=True)[0] >= low for mode, low in enumerate(least)):
            return trial
    return math.inf


def _findings(cell: OfdmaCell, k: int) -> list[Diagnosis]:
    """What keeps a device from its budgets: the least of each that would do, or all that it takes together."""
    inst, name = cell.problem.instance, cell.problem.instance.device_names[k]
    modes = range(cell.start[k], cell.start[k + 1])
    available = {budget: float(np.ravel(getattr(inst, budget))[k if np.ndim(getattr(inst, budget)) else 0])
                 for budget in _COLUMNS}  # fmt: skip
    if not np.any(inst.gain[k]):
        return remedied(name, NO_CHANNEL, available, {}, "energy_j", ())

    def fits(changes: Mapping[str, float]) -> bool:
        return any(_fits(cell, mode, changes) for mode in modes)

    def short(changes: Mapping[str, float]) -> bool:
        return all(_proved(cell, mode, changes) for mode in modes)

    factors = {budget: least_value(fits, short, budget, 1.0) for budget in _COLUMNS}
    found = {
        budget: _enough(cell, k, budget, available[budget] * factor)
        for budget, factor in factors.items()
        if math.isfinite(factor)
    }
    required = {budget: value for budget, value in found.items() if math.isfinite(value)}
    what = "cannot meet its budgets at its least keep rate even with all sub-carriers"
    names = () if required else lacking(fits, dict.fromkeys(_COLUMNS, 1.0))
    first = min(required, key=lambda budget: factors[budget]) if required else next(iter(names), "latency_s")
    return remedied(name, what, available, required, first, names)


def too_little_spectrum(cell: OfdmaCell, left_out: int) -> tuple[Diagnosis, ...]:
    """The finding when all devices fit alone but not together; proved by the search, which left some out."""
    inst = cell.problem.instance
    left = cell.devices - cell.subcarriers
    if left > 0:
        message = (
            f"{cell.devices} devices share {cell.subcarriers} sub-carriers, and each needs one of its own: "
            f"whatever the assignment, at least {left} of {cell.devices} devices go without, and no budget helps; "
            "divide the band into more sub-carriers, leave devices out, or allow selection"
        )
        return (Diagnosis(None, "subcarriers", float(cell.subcarriers), float(cell.devices), message),)
    message = (
        f"the sub-carriers are too few even at keep_min: whatever the assignment, at least {max(left_out, 1)} of "
        f"{cell.devices} devices cannot meet their budgets; raise bandwidth_hz (now {inst.bandwidth_hz:.6g} Hz), "
        "latency_s or energy_j, lower keep_min, or allow selection"
    )
    return (Diagnosis(None, "bandwidth_hz", inst.bandwidth_hz, math.inf, message),)
