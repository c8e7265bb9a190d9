r"""Is a claim of infeasibility true? Judged from the instance alone, by monotonicity.

Resources cap keep rates from above only (formulation, 5.1). So a device that cannot meet its budgets at its
least keep rate *with the whole spectrum to itself* makes the instance infeasible, and so do devices whose
least bandwidths add up to more than there is. What an upload time ``t`` leaves is one-dimensional: the
energy of computing increases with t (less time is left for it), the energy of sending decreases with t
(less power for the same bits). On an interval [a, b] the total is at least computing at a plus sending at
b, and intervals are halved until all are above the budget, or one point is below.

All in doubles, with a relative margin of 1e-9: closer calls are left open and said to be open. Rates are rounded
up and powers down, and nothing is the difference of two large numbers, so that the margin is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis
from edgealloc.errors import Fault
from edgealloc.units import FloatArray, dbm_to_w
from edgealloc.verify.blocks import blocks_there

__all__ = ["UNPROVED", "check_infeasible"]

UNPROVED = "the infeasibility is NOT proved by this check"

MARGIN = 1e-9
ROUNDING = 1e-12  # relative error of rates, powers and sums of times, generously
TINY, HUGE = 1e-280, 1e280  # noise between these loses no digits to the range of doubles
MAX_INTERVALS = 4000
SPECTRUM_DEVICES = 5000  # the spectrum of so many devices at most is added up
_BUDGETS = {"latency_s", "energy_j", "power_max_w", "freq_max_hz", "bandwidth_hz"}


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One device at its least keep rate under one menu row, with its budgets.

    ``noise_w``, increasing, is ``N0 B_m / g_m`` in W of each channel it may use, ``width_hz`` the width of one.
    """

    payload_bits: float
    work: float
    latency_s: float
    energy_j: float
    energy_static_j: float
    power_max_w: float
    freq_min_hz: float
    freq_max_hz: float
    capacitance: float
    downlink_bps: float
    bandwidth_hz: float
    channels: int
    gain: FloatArray
    noise_w_per_hz: float
    download_bits: float = 0.0  # beside the sub-adapter

    @property
    def width_hz(self) -> float:
        return self.bandwidth_hz / self.channels

    @property
    def noise_w(self) -> FloatArray:
        return np.asarray(self.noise_w_per_hz * self.width_hz / self.gain)


def check_infeasible(instance: Instance, diagnosis: tuple[Diagnosis, ...]) -> tuple[list[Fault], list[str]]:
    """Faults of a diagnosis, and notes on what it proves or leaves open."""
    if instance.exclusion_penalty is not None:
        allowed = "another status: with selection every device can be left out"
        return [Fault("solution", "status", "infeasible", allowed)], []
    if not diagnosis:
        return [Fault("solution", "diagnosis", "(missing)", "at least one finding for status infeasible")], []
    faults: list[Fault] = []
    notes: list[str] = []
    proved = False
    for finding in diagnosis:
        if finding.device is None:
            if finding.budget == "bandwidth_hz":
                proved |= _check_spectrum(instance, finding, faults, notes)
            elif finding.budget == "subcarriers":
                proved |= _check_count(instance, finding, faults, notes)
            else:
                notes.append(f"not checked, for it names no device: {finding.message}")
        elif finding.device not in instance.device_names:
            faults.append(
                Fault(finding.device, "diagnosis.device", repr(finding.device), "a device of the instance")
            )
        else:
            proved |= _check_device(instance, finding, faults, notes)
    if not proved and not faults:
        notes.append(UNPROVED)
    return faults, notes


def _check_device(instance: Instance, finding: Diagnosis, faults: list[Fault], notes: list[str]) -> bool:
    name, budget = str(finding.device), finding.budget
    if budget not in _BUDGETS:
        faults.append(Fault(name, "diagnosis.budget", repr(budget), f"one of {sorted(_BUDGETS)}"))
        return False
    tasks = _tasks(instance, instance.device_names.index(name))
    whole = float(instance.bandwidth_hz)  # a task has whole blocks of it
    if not _numbers_fit(name, whole if budget == "bandwidth_hz" else getattr(tasks[0], budget), finding, faults):
        return False
    fits = _any_fits(tasks)
    if fits:
        allowed = "a device that cannot meet its budgets alone; this one can"
        faults.append(Fault(name, "diagnosis", budget, allowed))
        return False
    if fits is None:
        notes.append(f"{name}: too close to feasible to be decided in double precision")
        return False
    notes.append(f"{name}: proved infeasible alone, at its least keep rate with the whole spectrum")
    if math.isfinite(finding.required):
        values = [finding.required * (1 + s * 1e-6) for s in (1, -1)]
        if budget == "bandwidth_hz":
            values = [_usable_hz(replace(instance, bandwidth_hz=max(v, whole))) for v in values]
        more, less = (_any_fits(_with(tasks, budget, value)) for value in values)
        if more is False:
            faults.append(
                Fault(name, "diagnosis.required", f"{finding.required!r} ({budget})", "more: still infeasible")
            )
        elif less:
            faults.append(Fault(name, "diagnosis.required", f"{finding.required!r} ({budget})", "less would do"))
    return True


def _numbers_fit(name: str, actual: float, finding: Diagnosis, faults: list[Fault]) -> bool:
    if not math.isclose(finding.available, actual, rel_tol=1e-12):
        allowed = f"{actual!r}, the {finding.budget} of the instance"
        faults.append(Fault(name, "diagnosis.available", repr(finding.available), allowed))
        return False
    if not finding.required > finding.available:
        faults.append(Fault(name, "diagnosis.required", repr(finding.required), "more than available"))
        return False
    return True


def _with(tasks: list[Task], budget: str, value: float) -> list[Task]:
    changes: dict[str, Any] = {budget: value}
    return [replace(task, **changes) for task in tasks]


def _least_keep(instance: Instance, k: int) -> float:
    levels = instance.keep_levels or (None,) * instance.num_devices
    if not instance.common_keep:
        return _least_own(instance, k, levels[k])
    least = max(_least_own(instance, i, own) for i, own in enumerate(levels))  # one rate for all lies above these
    stepped = [own.tolist() for own in levels if own is not None]
    shared = set(stepped[0]).intersection(*stepped[1:]) if stepped else set()
    return min((rate for rate in shared if rate >= least), default=least)


def _usable_hz(instance: Instance) -> float:
    """The band in Hz, or what its whole resource blocks come to."""
    if instance.block_hz is None:
        return float(instance.bandwidth_hz)
    return float(blocks_there(instance) * instance.block_hz)


def _least_own(instance: Instance, k: int, levels: FloatArray | None) -> float:
    return float(instance.keep_min[k] if levels is None else levels.min())


def _tasks(instance: Instance, k: int) -> list[Task]:
    """The device alone with the whole spectrum, once per row of its menu."""
    keep, menu = _least_keep(instance, k), (instance.adapter_options or (None,) * instance.num_devices)[k]
    own = np.sort(np.atleast_1d(instance.gain[k]))[::-1]
    lora = [
        (
            row.payload_lora_bits, row.cycles_lora, row.cycles_fixed, row.download_bits,
            own if row.gain is None else np.array([row.gain]),
        )
        for row in menu or ()
    ]  # fmt: skip
    lora = lora or [(float(instance.payload_lora_bits[k]), float(instance.cycles_lora[k]), 0.0, 0.0, own)]
    return [
        Task(
            payload_bits=float(instance.payload_fixed_bits[k]) + bits * keep,
            work=float(instance.cycles_fixed[k]) + more + cycles * keep,
            download_bits=down,
            latency_s=float(instance.latency_s),
            bandwidth_hz=_usable_hz(instance),
            channels=len(gain),
            gain=gain[gain > 0],
            noise_w_per_hz=float(dbm_to_w(instance.noise_psd_dbm_per_hz)),
            **{
                key: float(getattr(instance, key)[k])
                for key in ("energy_j", "energy_static_j", "power_max_w", "freq_min_hz", "freq_max_hz",
                            "capacitance", "downlink_bps")
            },
        )
        for bits, cycles, more, down, gain in lora
    ]  # fmt: skip


def _any_fits(tasks: list[Task]) -> bool | None:
    """True when some menu row fits, False when none does, None when it is open."""
    answers = [task_fits(task) for task in tasks]
    return True if True in answers else (None if None in answers else False)


def task_fits(task: Task) -> bool | None:
    """Whether some upload time, power and frequency meet the device's budgets; None when too close to call."""
    energy = task.energy_j - task.energy_static_j
    if not len(task.gain) or energy <= 0:
        return False
    slack = ROUNDING * task.latency_s  # of differences of times
    left = task.latency_s - (task.payload_bits + task.download_bits) / task.downlink_bps
    longest = left - task.work / task.freq_max_hz
    if longest < -MARGIN * task.latency_s:
        return False
    rate = greatest_rate(task, task.power_max_w)
    if not (0.0 < rate < math.inf and TINY < task.noise_w[0] <= task.noise_w[-1] < HUGE):
        return None
    shortest = task.payload_bits / rate
    if shortest > longest + MARGIN * task.latency_s:
        return False
    if not 0.0 < shortest <= longest - MARGIN * task.latency_s:
        return None

    def computing(tau: float) -> float:
        freq = max(task.freq_min_hz, task.work / tau)
        return task.capacitance * freq * freq * task.work

    power = least_power(task)

    def sending(t: float) -> float:
        return t * power(task.payload_bits / t)

    intervals = [(shortest, longest + slack)]
    for _ in range(MAX_INTERVALS):
        if not intervals:
            return False
        a, b = intervals.pop()
        middle = 0.5 * (a + b)
        inside = shortest + slack <= middle <= longest - 2.0 * slack
        if inside and computing(left - middle - slack) + sending(middle) <= energy - MARGIN * task.energy_j:
            return True
        # what is not a number proves nothing: the interval stays
        if not computing(left - a + 2.0 * slack) + sending(b) > energy + MARGIN * task.energy_j:
            intervals += [(a, middle), (middle, b)]
    return None


def greatest_rate(task: Task, power_w: float) -> float:
    """Rate in bit/s that no power split (water-filling) on the task's channels exceeds.

    The water stands above channel i by the sum of the steps of the noise from there on: sums of positive terms,
    for a level less a noise would lose all digits where there is little power.
    """
    gain, noise = task.gain, task.noise_w
    depth = _Floors(noise[1:] * ((gain[:-1] - gain[1:]) / gain[:-1])).filled(power_w)
    return float(task.width_hz / math.log(2.0) * np.log1p(depth / noise[: len(depth)]).sum() * (1.0 + ROUNDING))


def least_power(task: Task) -> Callable[[float], float]:
    """Power in W that every split needs that carries a rate in bit/s; the same in the logarithm of the noise."""
    gain, noise, per_bit = task.gain, task.noise_w, math.log(2.0)
    with np.errstate(over="ignore"):
        near = np.log1p((gain[:-1] - gain[1:]) / gain[1:])
    floors = _Floors(np.where(gain[:-1] <= 2.0 * gain[1:], near, np.log(gain[:-1]) - np.log(gain[1:])))

    def power_w(rate_bps: float) -> float:
        with np.errstate(over="ignore"):
            depth = floors.filled(rate_bps * per_bit / task.width_hz)
            return float((noise[: len(depth)] * np.expm1(depth)).sum() * (1.0 - ROUNDING))

    return power_w


class _Floors:
    """Floors that water is poured over; ``step`` [N - 1] is the rise from each to the next, >= 0."""

    def __init__(self, step: FloatArray) -> None:
        self.step = step
        self.below = np.append(0.0, np.cumsum(np.arange(1, len(step) + 1) * step))  # what fills all up to this one

    def filled(self, amount: float) -> FloatArray:
        """Depth over each of the lowest floors, which are wet, when ``amount`` is poured in. Shape [wet]."""
        wet = max(int(self.below.searchsorted(amount, side="right")), 1)
        depth = np.full(wet, (amount - self.below[wet - 1]) / wet)
        if wet > 1:
            depth[:-1] += self.step[wet - 2 :: -1].cumsum()[::-1]
        return depth


def _check_spectrum(instance: Instance, finding: Diagnosis, faults: list[Fault], notes: list[str]) -> bool:
    """The shared spectrum: least needs of all devices, bracketed until they add up to more than there is."""
    if not _numbers_fit("uplink", float(instance.bandwidth_hz), finding, faults):
        return False
    if instance.num_devices > SPECTRUM_DEVICES:
        notes.append(f"the spectrum of more than {SPECTRUM_DEVICES} devices is not added up here")
        return False
    tasks = [_tasks(instance, k) for k in range(instance.num_devices)]
    if instance.access == "ofdma":
        total, there = sum(_least_channels(task) for task in tasks), instance.gain.shape[1]
        if total > there:
            notes.append(f"proved: devices need at least {total} sub-carriers, there are {there}")
            return True
        notes.append("the best sub-carriers would do for each device alone; overlaps are not examined")
        return False
    band = _usable_hz(instance)
    unit, there = ("Hz", band) if instance.block_hz is None else ("blocks", float(blocks_there(instance)))
    stated = finding.required / (instance.block_hz or 1.0)
    low, high, known, lacks = np.zeros(len(tasks)), np.full(len(tasks), band), np.zeros(len(tasks), bool), False
    close = np.zeros(len(tasks), bool)  # to call in the middle, where a device would be asked the same again
    for _ in range(34):
        middle = 0.5 * (low + high)
        for k in np.flatnonzero(~close).tolist():
            answer = _any_fits(_with(tasks[k], "bandwidth_hz", float(middle[k])))
            if answer is None:
                close[k] = True
            elif answer:
                high[k], known[k] = middle[k], True
            else:
                low[k] = middle[k]
        least, enough = _blocks(instance, low).sum(), _blocks(instance, high).sum()
        if least > there * (1 + MARGIN) and not lacks:
            lacks = True
            needs = f"at least {least:.0f} resource" if instance.block_hz else f"more than {least:.6g}"
            notes.append(f"proved: devices need {needs} {unit}, there are {there:.6g}{' Hz' * (unit == 'Hz')}")
        more, less = least > stated * (1 + 1e-6), bool(known.all()) and enough < stated * (1 - 1e-6) < math.inf
        if lacks and (more or less):
            wrong = f"more than {least:.6g} {unit}" if more else f"less would do: {enough:.6g} {unit}"
            faults.append(Fault("uplink", "diagnosis.required", f"{finding.required!r} (bandwidth_hz)", wrong))
            return True
        settled = least >= stated * (1 - 1e-6) and enough <= stated * (1 + 1e-6)  # to the digits asked for
        if lacks and (settled or math.isinf(stated)):  # inf says nothing
            return True
        if not lacks and enough <= there and all(_any_fits(t) for t in tasks):
            allowed = f"a spectrum that is too small; {enough:.6g} {unit} are enough"
            faults.append(Fault("uplink", "diagnosis", "bandwidth_hz", allowed))
            return False
        if close.all():
            break
    if not lacks:
        notes.append("the spectrum is too close to enough to be decided in double precision")
    return lacks


def _blocks(instance: Instance, bandwidth_hz: FloatArray) -> FloatArray:
    """Bandwidths in Hz as they are, or as numbers of whole resource blocks, rounded up. Shape [K]."""
    if instance.block_hz is None:
        return bandwidth_hz
    return np.asarray(np.ceil(bandwidth_hz / instance.block_hz * (1 - 1e-12)))


def _check_count(instance: Instance, finding: Diagnosis, faults: list[Fault], notes: list[str]) -> bool:
    """More devices than sub-carriers: each has something to send, at the least keep rate too."""
    there, devices = instance.num_subcarriers or 0, instance.num_devices
    stated = finding.available == there and finding.required == devices
    if not 0 < there < devices or not stated:
        allowed = f"{devices} devices and {there} sub-carriers, where there are fewer sub-carriers than devices"
        value = f"subcarriers, {finding.available!r} and {finding.required!r}"
        faults.append(Fault("uplink", "diagnosis", value, allowed))
        return False
    notes.append(f"proved: each of {devices} devices needs a sub-carrier, there are {there}")
    return True


def _least_channels(tasks: list[Task]) -> int:
    """Least number of its own best sub-carriers with which a device may fit; more than all if none does."""
    total = tasks[0].channels
    for count in range(1, total + 1):
        # as many channels of the same width: the device's best ones
        some = [replace(t, channels=count, bandwidth_hz=t.width_hz * count, gain=t.gain[:count]) for t in tasks]
        if _any_fits(some) is not False:
            return count
    return total + 1
