"""What an allocation is worth, what it uses of every budget, and which budgets and ranges it breaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.device import chosen_adapter, compute_energy_j, cycles, download_s, payload_bits
from edgealloc.formulation.objective import Objective
from edgealloc.formulation.radio import (
    block_count,
    blocks_of,
    fdma_rate_bps,
    spare_hz,
    subcarrier_hz,
    subcarrier_rate_bps,
)
from edgealloc.units import BoolArray, FloatArray

__all__ = ["Evaluation", "Violation", "evaluate", "violations"]

BINDING_TOLERANCE = 1e-6  # a budget counts as binding when less than this share of it is left


@dataclass(frozen=True, slots=True)
class Violation:
    """A budget or range that an allocation breaks: which device, which field, the value and the limit."""

    device: str | None
    constraint: str
    value: float
    limit: float

    def __str__(self) -> str:
        where = self.device or "uplink"
        return f"{where}: {self.constraint} is {self.value!r}, the limit is {self.limit!r}"


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What an allocation is worth and what it uses, in double precision.

    Parameters
    ----------
    objective, underfit, stability
        The bound G and its two terms (``underfit`` includes the weight A).
    payload_bits, rate_bps, power_w, latency_s, energy_j
        Per device; 0 for a device left out. Shape [K].
    latency_slack_s, energy_slack_j
        What is left of the deadline and of the energy budget. Shape [K].
    bandwidth_hz
        Total bandwidth used, in Hz.
    violations
        Every broken budget or range; empty when the allocation is feasible.
    binding
        Per device, names of the constraints with no room left, in the words of the instance fields.
    """

    objective: float
    underfit: float
    stability: float
    payload_bits: FloatArray
    rate_bps: FloatArray
    power_w: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    latency_slack_s: FloatArray
    energy_slack_j: FloatArray
    bandwidth_hz: float
    violations: tuple[Violation, ...]
    binding: tuple[tuple[str, ...], ...]

    @property
    def feasible(self) -> bool:
        """Whether no budget or range is broken in double precision."""
        return not self.violations


@dataclass(frozen=True, slots=True, eq=False)
class _Use:
    """What an allocation uses, per device (shape [K]; 0 for a device left out) and in total."""

    payload_bits: FloatArray
    rate_bps: FloatArray
    power_w: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    bandwidth_hz: float


def evaluate(objective: Objective, allocation: Allocation) -> Evaluation:
    """Objective, use of every budget, slack, violations and binding constraints of an allocation.

    Raises
    ------
    InputError
        When an array of the allocation has the wrong shape for the instance.
    """
    inst, on = objective.instance, allocation.selected
    use = _used(inst, allocation)
    underfit, stability = objective.terms(np.where(on, allocation.keep, 0.0), on, np.maximum(allocation.option, 0))
    return Evaluation(
        objective=underfit + stability,
        underfit=underfit,
        stability=stability,
        payload_bits=use.payload_bits,
        rate_bps=use.rate_bps,
        power_w=use.power_w,
        latency_s=use.latency_s,
        energy_j=use.energy_j,
        latency_slack_s=inst.latency_s - use.latency_s,
        energy_slack_j=inst.energy_j - use.energy_j,
        bandwidth_hz=use.bandwidth_hz,
        violations=tuple(_broken(inst, allocation, use)),
        binding=_binding(inst, allocation, use),
    )


def violations(inst: Instance, allocation: Allocation) -> tuple[Violation, ...]:
    """Only the broken budgets and ranges of :func:`evaluate`.

    Raises
    ------
    InputError
        When an array of the allocation has the wrong shape for the instance.
    """
    return tuple(_broken(inst, allocation, _used(inst, allocation)))


def _used(inst: Instance, allocation: Allocation) -> _Use:
    _check_shapes(inst, allocation)
    on = allocation.selected
    keep = np.where(on, allocation.keep, 0.0)
    adapter = chosen_adapter(inst, allocation.option)
    payload = np.where(on, payload_bits(inst, adapter, keep), 0.0)
    work = np.where(on, cycles(adapter, keep), 0.0)
    if inst.access == "ofdma":
        assert allocation.owner is not None
        rate, power = subcarrier_rate_bps(inst, allocation.owner, allocation.power_w)
        used = subcarrier_hz(inst) * float(np.sum(allocation.owner >= 0))
    else:
        assert allocation.bandwidth_hz is not None
        bandwidth = np.where(on, allocation.bandwidth_hz, 0.0)
        power = np.where(on, allocation.power_w, 0.0)
        rate = fdma_rate_bps(bandwidth, power, adapter.gain, inst.noise_psd_w_per_hz)
        used = float(np.sum(bandwidth))
    with np.errstate(divide="ignore", invalid="ignore"):
        upload = np.where(payload > 0, payload / rate, 0.0)
        compute = np.where(work > 0, work / allocation.freq_hz, 0.0)
    latency = np.where(on, download_s(inst, adapter, payload) + compute + upload, 0.0)
    sending = np.multiply(
        power, upload, out=np.zeros_like(upload), where=power > 0.0
    )  # 0 W times inf s is no energy
    energy = compute_energy_j(inst, work, allocation.freq_hz) + sending + inst.energy_static_j
    return _Use(payload, rate, power, latency, np.where(on, energy, 0.0), used)


def _check_shapes(inst: Instance, allocation: Allocation) -> None:
    k, m = inst.num_devices, inst.num_subcarriers
    expected: dict[str, tuple[int, ...] | None] = {
        "keep": (k,),
        "freq_hz": (k,),
        "selected": (k,),
        "option": (k,),
        "power_w": (k,) if m is None else (m,),
        "bandwidth_hz": (k,) if m is None else None,
        "owner": None if m is None else (m,),
    }
    faults = []
    for name, shape in expected.items():
        value = getattr(allocation, name)
        if shape is None and value is not None:
            faults.append(Fault("allocation", name, "given", f"None for access {inst.access}"))
        elif shape is not None and (value is None or value.shape != shape):
            got = "None" if value is None else f"shape {value.shape}"
            faults.append(Fault("allocation", name, got, f"shape {shape}"))
    for i in np.flatnonzero((allocation.option >= 0)[:k]) if not faults else ():
        menu = inst.adapter_options[i] if inst.adapter_options else None
        if menu is None or allocation.option[i] >= len(menu):
            allowed = "-1 (no menu)" if menu is None else f"0..{len(menu) - 1}"
            faults.append(Fault(inst.device_names[i], "adapter option", str(allocation.option[i]), allowed))
    if faults:
        raise InputError("allocation", faults)


def _broken(inst: Instance, allocation: Allocation, use: _Use) -> list[Violation]:
    latency, energy, power, used = use.latency_s, use.energy_j, use.power_w, use.bandwidth_hz
    on, keep, freq = allocation.selected, allocation.keep, allocation.freq_hz
    found: list[Violation] = []

    def report(bad: BoolArray, constraint: str, values: FloatArray, limit: FloatArray) -> None:
        limits = np.broadcast_to(limit, values.shape)
        for i in np.flatnonzero(bad):
            found.append(Violation(inst.device_names[i], constraint, float(values[i]), float(limits[i])))

    # `not (a <= b)` rather than `a > b`, so that a NaN is a violation too
    report(on & ~(latency <= inst.latency_s), "latency_s", latency, np.asarray(inst.latency_s))
    report(on & ~(energy <= inst.energy_j), "energy_j", energy, inst.energy_j)
    report(on & ~(power <= inst.power_max_w), "power_max_w", power, inst.power_max_w)
    report(on & ~(keep >= inst.keep_min), "keep_min", keep, inst.keep_min)
    report(on & ~(keep <= inst.keep_max), "keep_max", keep, inst.keep_max)
    report(on & ~(freq >= inst.freq_min_hz), "freq_min_hz", freq, inst.freq_min_hz)
    report(on & ~(freq <= inst.freq_max_hz), "freq_max_hz", freq, inst.freq_max_hz)
    for i, levels in enumerate(inst.keep_levels or ()):
        if levels is not None and on[i] and keep[i] not in levels:
            found.append(Violation(inst.device_names[i], "keep_levels", float(keep[i]), float("nan")))
    for i, menu in enumerate(inst.adapter_options or ()):
        if menu is not None and on[i] and allocation.option[i] < 0:
            found.append(Violation(inst.device_names[i], "adapter_options", -1.0, float(len(menu) - 1)))
    if inst.common_keep and on.any() and np.ptp(keep[on]) > 0:
        found.append(Violation(None, "common_keep", float(keep[on].max()), float(keep[on].min())))
    if inst.exclusion_penalty is None:
        report(~on, "selected", on.astype(np.float64), np.asarray(1.0))
    if allocation.owner is not None:
        idle = (allocation.owner < -1) | (allocation.owner >= inst.num_devices)
        for m in np.flatnonzero(idle):
            found.append(Violation(None, f"owner[{m}]", float(allocation.owner[m]), inst.num_devices - 1.0))
        taken = allocation.owner[allocation.owner >= 0]
        for i in np.unique(taken[~on[taken]] if not idle.any() else []):
            found.append(Violation(inst.device_names[int(i)], "subcarriers (not selected)", 1.0, 0.0))
        for m in np.flatnonzero(~(allocation.power_w >= 0)):
            found.append(Violation(None, f"power_w[{m}]", float(allocation.power_w[m]), 0.0))
        return found
    assert allocation.bandwidth_hz is not None
    band = allocation.bandwidth_hz
    report(on & ~(band >= 0), "bandwidth_hz", band, np.asarray(0.0))
    report(on & ~(power >= 0), "power_w", power, np.asarray(0.0))
    fits = spare_hz(np.where(on, band, 0.0), inst.bandwidth_hz) >= 0.0  # exactly: a rounded sum may hide an ulp
    if inst.block_hz is not None:
        # n blocks need not be a double, nor its quotient be n: the nearest double to n blocks counts
        blocks = np.where(on, blocks_of(band, inst.block_hz), 0.0)
        whole = on & (band == blocks * inst.block_hz)
        report(on & ~whole, "bandwidth_hz (whole blocks)", band, np.asarray(inst.block_hz))
        if whole[on].all():
            fits = bool(np.sum(blocks) <= block_count(inst.bandwidth_hz, inst.block_hz))
    if not fits:
        found.append(Violation(None, "bandwidth_hz", used, inst.bandwidth_hz))
    return found


def _binding(inst: Instance, allocation: Allocation, use: _Use) -> tuple[tuple[str, ...], ...]:
    latency, energy, power = use.latency_s, use.energy_j, use.power_w
    share = 1.0 - BINDING_TOLERANCE
    keep, freq = allocation.keep, allocation.freq_hz
    tests = {
        "latency_s": latency >= share * inst.latency_s,
        "energy_j": energy >= share * inst.energy_j,
        "power_max_w": power >= share * inst.power_max_w,
        "freq_max_hz": freq >= share * inst.freq_max_hz,
        "freq_min_hz": freq * share <= inst.freq_min_hz,
        "keep_max": keep >= share * inst.keep_max,
        "keep_min": keep * share <= inst.keep_min,
    }
    table = np.stack(list(tests.values()), axis=1) & allocation.selected[:, None]
    names = np.array(list(tests))
    # few distinct rows occur, so the tuples are shared between devices
    codes = table @ (1 << np.arange(len(names)))
    rows = {int(c): tuple(names[(int(c) >> np.arange(len(names))) & 1 == 1].tolist()) for c in np.unique(codes)}
    return tuple(rows[int(c)] for c in codes)
