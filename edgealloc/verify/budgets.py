r"""Budgets decided with certainty: whether latency <= T and energy <= E in exact arithmetic.

The numbers of both files are doubles and taken as exact; ``N0 = 10^((dBm - 30) / 10)`` and logarithms are
real numbers. Each device is decided in two steps.

1. In doubles, all devices at once. Rate, latency and energy are sums, products and quotients of positive
   terms, so relative errors only add up. With unit roundoff ``u = 2^-53``: payload and cycles 2 roundings;
   signal to noise 5 (N0 is rounded once from a ball); ``log1p`` has condition number at most 1 on positive
   arguments and is taken to be accurate to 8 ulp; rate 4 more and one per sub-carrier added; latency and
   energy 6 more on top of a quotient of both. That is below ``(48 + n) u`` for n sub-carriers; a device is
   passed only if ``(128 + 4 n) u`` of the limit is left. Devices with an intermediate value near the
   underflow limit, where relative errors are not bounded, are not passed.
2. Otherwise in ball arithmetic (Arb through python-flint): the precision grows until the ball lies on one
   side of the limit. What 1024 bits do not decide counts as broken: a solver can always shave.

Formulas are written from docs/model.md, *What it costs*, and share no code with the problem model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from flint import arb, ctx

from edgealloc.data.instance import Instance
from edgealloc.data.solution import Solution
from edgealloc.errors import Fault
from edgealloc.units import BoolArray, FloatArray, IntArray

__all__ = ["PRECISIONS", "BudgetCheck", "Demand", "check_budgets", "demand_of", "use_as_balls"]

BUDGETS = ("latency_s", "energy_j")
PRECISIONS = (64, 128, 256, 512, 1024)
_UNIT = 2.0**-53
_TINY, _HUGE = 1e-280, 1e280  # between these no product of two or three values under- or overflows unseen


@dataclass(frozen=True, slots=True, eq=False)
class Demand:
    """Adapter figures of each device under its menu row. Shapes [K].

    Parameters
    ----------
    payload_lora_bits, cycles_lora, underfit_factor
        D1 in bit, W1 in cycles, and the factor on the underfitting term (1 without a menu).
    cycles_more, download_bits
        Cycles beside the device's W0, and bits that are downloaded beside the sub-adapter (0 without a menu).
    gain
        Channel power gain, of the row where it has one. [K, M] for OFDMA.
    """

    payload_lora_bits: FloatArray
    cycles_lora: FloatArray
    underfit_factor: FloatArray
    cycles_more: FloatArray
    download_bits: FloatArray
    gain: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class BudgetCheck:
    """Outcome of :func:`check_budgets`.

    Parameters
    ----------
    faults
        Every broken budget.
    rate_bps, latency_s, energy_j
        Use in double precision, 0 for devices left out. Shape [K].
    in_balls, bits
        How many devices needed ball arithmetic, and the highest precision that was needed.
    """

    faults: tuple[Fault, ...]
    rate_bps: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    in_balls: int
    bits: int


def _noise_w_per_hz(instance: Instance) -> arb:
    """N0 in W/Hz as a ball at the present precision."""
    return arb(10) ** ((arb(instance.noise_psd_dbm_per_hz) - 30) / 10)


def demand_of(instance: Instance, solution: Solution) -> Demand:
    """Adapter figures under the labels of a solution; labels must be known to fit."""
    bits, work = instance.payload_lora_bits.copy(), instance.cycles_lora.copy()
    factor, more, down = np.ones(instance.num_devices), *np.zeros((2, instance.num_devices))
    gain = instance.gain.copy()
    for k, menu in enumerate(instance.adapter_options or ()):
        for row in menu or ():
            if row.label == solution.adapter_option[k]:
                bits[k], work[k], factor[k] = row.payload_lora_bits, row.cycles_lora, row.underfit_factor
                more[k], down[k] = row.cycles_fixed, row.download_bits
                gain[k] = gain[k] if row.gain is None else row.gain
    return Demand(bits, work, factor, more, down, gain)


def check_budgets(instance: Instance, solution: Solution, demand: Demand) -> BudgetCheck:
    """Latency and energy of every selected device against its budgets, with certainty.

    The solution's form must be sound: names, sub-carriers and menu labels that exist.
    """
    rate, latency, energy, count, sound = _in_doubles(instance, solution, demand)
    room = 1.0 - (128.0 + 4.0 * count) * _UNIT
    on = solution.selected
    with np.errstate(invalid="ignore"):
        surely = sound & (latency <= instance.latency_s * room) & (energy <= instance.energy_j * room)
    faults: list[Fault] = []
    unsure, bits = np.flatnonzero(on & ~surely), 0
    for k in unsure.tolist():
        found, needed = _in_balls(instance, solution, demand, k)
        faults += found
        bits = max(bits, needed)
    return BudgetCheck(tuple(faults), rate, latency, energy, len(unsure), bits)


def _in_doubles(
    instance: Instance, solution: Solution, demand: Demand
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray, BoolArray]:
    """Rate, latency, energy, number of sub-carriers, and whether the error analysis holds. Shapes [K]."""
    k, keep, freq = instance.num_devices, solution.keep, solution.freq_hz
    device, width, watts, gain = _links(instance, solution, demand)
    with ctx.workprec(128):
        noise = float(_noise_w_per_hz(instance))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        signal, floor = watts * gain, noise * width
        ratio = signal / floor
        per_link = np.where(signal > 0, width * (np.log1p(ratio) / math.log(2.0)), 0.0)
        rate = np.bincount(device, weights=per_link, minlength=k)
        power = np.bincount(device, weights=watts, minlength=k)
        payload = instance.payload_fixed_bits + demand.payload_lora_bits * keep
        work = instance.cycles_fixed + demand.cycles_more + demand.cycles_lora * keep
        upload = payload / rate
        square = freq * freq
        switched = instance.capacitance * square
        latency = (payload + demand.download_bits) / instance.downlink_bps + work / freq + upload
        energy = switched * work + power * upload + instance.energy_static_j
    sound = np.isfinite(latency) & np.isfinite(energy)
    for value in (rate, payload, upload, freq, square, instance.energy_j):
        sound &= (value > _TINY) & (value < _HUGE)
    for value, zero in ((switched, instance.capacitance == 0), (work, work == 0), (power, power == 0)):
        sound &= zero | ((value > _TINY) & (value < _HUGE))
    link_ok = (watts == 0) | (gain == 0) | ((signal > _TINY) & (ratio > _TINY) & (ratio < _HUGE) & (floor > _TINY))
    sound &= np.bincount(device, weights=~link_ok, minlength=k) == 0
    on = solution.selected
    count = np.bincount(device, minlength=k)
    use = (np.where(on, value, 0.0) for value in (rate, latency, energy))
    return (*use, count, sound)  # type: ignore[return-value]


def _links(
    instance: Instance, solution: Solution, demand: Demand
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Device, width in Hz, power in W and gain of every link: one a device, or one a sub-carrier owned."""
    if instance.access != "ofdma":
        power = np.array(solution.power_w, dtype=np.float64)
        return np.arange(instance.num_devices), solution.bandwidth_hz, power, demand.gain
    pairs = [(k, m) for k, mine in enumerate(solution.subcarriers) for m in mine or ()]
    device = np.array([k for k, _ in pairs], dtype=np.intp)
    carrier = np.array([m for _, m in pairs], dtype=np.intp)
    watts = np.array([p for own in solution.power_w if isinstance(own, tuple) for p in own], dtype=np.float64)
    width = np.full(len(pairs), instance.bandwidth_hz / instance.gain.shape[1])
    return device, width, watts, instance.gain[device, carrier]


def _in_balls(instance: Instance, solution: Solution, demand: Demand, k: int) -> tuple[list[Fault], int]:
    """Faults of one device, decided in ball arithmetic, and the bits that this took."""
    name, freq = instance.device_names[k], float(solution.freq_hz[k])
    if freq <= 0.0:
        return [Fault(name, "latency_s", "inf (freq_hz is 0)", f"at most {instance.latency_s!r}")], 0
    if not any(p > 0 and g > 0 and b > 0 for b, p, g in _own_links(demand, solution, k)):
        return [Fault(name, "latency_s", "inf (the uplink rate is 0)", f"at most {instance.latency_s!r}")], 0
    limits = dict(zip(BUDGETS, (float(instance.latency_s), float(instance.energy_j[k])), strict=True))
    faults, needed = [], 0
    for bits in PRECISIONS:
        needed = bits
        with ctx.workprec(bits):
            use = dict(zip(BUDGETS, use_as_balls(instance, solution, demand, k), strict=True))
            for budget in list(limits):
                limit = limits[budget]
                if use[budget] <= limit:
                    del limits[budget]
                elif use[budget] > limit:
                    over = float((use[budget] - limit).mid())
                    text = f"{float(use[budget].mid())!r} (over by {over:.3g})"
                    faults.append(Fault(name, budget, text, f"at most {limit!r}"))
                    del limits[budget]
        if not limits:
            break
    for budget, limit in limits.items():
        text = f"equal to the limit to {PRECISIONS[-1]} bits, so not surely within it"
        faults.append(Fault(name, budget, text, f"at most {limit!r}"))
    return faults, needed


def _own_links(demand: Demand, solution: Solution, k: int) -> list[tuple[float, float, float]]:
    """Width (Hz, 1 for a sub-carrier), power (W) and gain of the links of one device."""
    watts = solution.power_w[k]
    if not isinstance(watts, tuple):
        return [(float(solution.bandwidth_hz[k]), watts, float(demand.gain[k]))]
    mine = solution.subcarriers[k] or ()
    return [(1.0, p, float(demand.gain[k, m])) for m, p in zip(mine, watts, strict=True)]


def use_as_balls(instance: Instance, solution: Solution, demand: Demand, k: int) -> tuple[arb, arb]:
    """Latency in s and energy in J of device k as balls at the present precision (docs/model.md)."""
    noise, keep = _noise_w_per_hz(instance), arb(float(solution.keep[k]))
    subcarrier = arb(float(instance.bandwidth_hz)) / instance.gain.shape[1] if instance.access == "ofdma" else None
    rate, power = arb(0), arb(0)
    for hz, watt, gain in _own_links(demand, solution, k):
        power += arb(watt)
        if watt > 0 and gain > 0 and hz > 0:
            width = arb(hz) if subcarrier is None else subcarrier
            rate += width * (arb(watt) * arb(gain) / (noise * width)).log1p() / arb.const_log2()
    payload = arb(float(instance.payload_fixed_bits[k])) + arb(float(demand.payload_lora_bits[k])) * keep
    work = arb(float(instance.cycles_fixed[k])) + arb(float(demand.cycles_more[k]))
    work += arb(float(demand.cycles_lora[k])) * keep
    freq, upload = arb(float(solution.freq_hz[k])), payload / rate
    latency = work / freq + upload
    if np.isfinite(instance.downlink_bps[k]):
        latency += (payload + arb(float(demand.download_bits[k]))) / arb(float(instance.downlink_bps[k]))
    compute = arb(float(instance.capacitance[k])) * freq * freq * work
    return latency, compute + power * upload + arb(float(instance.energy_static_j[k]))
