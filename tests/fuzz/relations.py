"""Relations between optima that hold whatever the optima are, for cells too large for the oracle.

Each changes an instance so that the optimum can only fall (``<=``), or stays (``==``). Bounds and objectives tell:
the lower bound of what can only be better is at most any objective of the other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgealloc import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import InputError
from edgealloc.formulation.result import Result
from tests.fuzz.checks import GAP, LIMIT_S, Finding
from tests.fuzz.regimes import VARIANTS, Rng, draw

SLACK = 1e-9  # of a scaled or permuted instance, whose numbers are rounded anew


def larger_of(seed: int) -> Instance:
    """A cell of 5 to 50 devices (OFDMA: 3 to 5 with 8 to 16 sub-carriers), with up to one variant."""
    rng = np.random.default_rng([1000, seed])
    while True:
        access = ("fdma", "rb", "ofdma")[seed % 3]
        k = int(rng.integers(3, 6)) if access == "ofdma" else int(rng.choice([5, 8, 12, 20, 50]))
        fields = draw(rng, access, devices=k)  # type: ignore[arg-type]
        fields["energy_j"] = fields["energy_j"] * 3.0
        fields["payload_lora_bits"] = fields["payload_lora_bits"] * 0.2
        if access == "rb":
            fields["block_hz"] = fields["bandwidth_hz"] / (3 * k)
        if access == "ofdma":
            fading = rng.exponential(size=(k, int(rng.choice([8, 12, 16])))) + 1e-3
            fields["gain"] = fields["gain"].mean(axis=1, keepdims=True) * fading
        if rng.random() < 0.5:
            VARIANTS[int(rng.integers(len(VARIANTS)))](rng, fields)
        try:
            return Instance(**fields).with_changes(name=f"relations-{seed}")
        except InputError:
            continue


def permuted(inst: Instance, rng: Rng) -> Instance:
    """Devices in another order, and sub-carriers."""
    other = inst.take(rng.permutation(inst.num_devices))
    if inst.access != "ofdma":
        return other
    return other.with_changes(gain=other.gain[:, rng.permutation(other.gain.shape[1])])


def in_other_units(inst: Instance, rng: Rng) -> Instance:
    """Time, frequency and energy counted in other units, all powers of two."""
    hz, watt, cycle = (2.0 ** int(n) for n in rng.integers(-20, 21, 3))
    changes: dict[str, Any] = {
        "bandwidth_hz": inst.bandwidth_hz * hz,
        "latency_s": inst.latency_s / hz,
        "power_max_w": inst.power_max_w * watt,
        "gain": inst.gain * hz / watt,
        "energy_j": inst.energy_j * watt / hz,
        "energy_static_j": inst.energy_static_j * watt / hz,
        "downlink_bps": inst.downlink_bps * hz,
        "cycles_fixed": inst.cycles_fixed * cycle,
        "cycles_lora": inst.cycles_lora * cycle,
        "freq_min_hz": inst.freq_min_hz * hz * cycle,
        "freq_max_hz": inst.freq_max_hz * hz * cycle,
        "capacitance": inst.capacitance * watt / hz / (hz * cycle) ** 2 / cycle,
    }
    if inst.block_hz is not None:
        changes["block_hz"] = inst.block_hz * hz
    if inst.adapter_options is not None:
        changes["adapter_options"] = tuple(
            menu and tuple(replace(row, cycles_lora=row.cycles_lora * cycle) for row in menu)
            for menu in inst.adapter_options
        )
    return inst.with_changes(**changes)


def relaxed(inst: Instance, rng: Rng) -> Instance:
    """One budget larger."""
    name = str(rng.choice(["latency_s", "energy_j", "power_max_w", "freq_max_hz", "gain", "downlink_bps"]))
    return inst.with_changes(**{name: getattr(inst, name) * float(rng.choice([1.0 + 1e-6, 1.1, 3.0]))})


def more_spectrum(inst: Instance, rng: Rng) -> Instance:
    """More bandwidth, a block or a sub-carrier more."""
    if inst.access == "ofdma":
        m = inst.gain.shape[1]
        new = inst.gain[:, rng.permutation(m)[:1]] * rng.exponential(size=(inst.num_devices, 1))
        return inst.with_changes(gain=np.hstack([inst.gain, new]), bandwidth_hz=inst.bandwidth_hz * (m + 1) / m)
    extra = inst.block_hz if inst.block_hz is not None else 0.01 * inst.bandwidth_hz
    return inst.with_changes(bandwidth_hz=inst.bandwidth_hz + extra)


def less_work(inst: Instance, _rng: Rng) -> Instance:
    """Less to send and to compute."""
    return inst.with_changes(
        payload_fixed_bits=inst.payload_fixed_bits * 0.9, cycles_fixed=inst.cycles_fixed * 0.99
    )


def freer(inst: Instance, _rng: Rng) -> Instance:
    """Fewer rules: no levels, no common rate, leaving out allowed, a row more on a menu."""
    changes: dict[str, Any] = {"keep_levels": None, "common_keep": False}
    if inst.exclusion_penalty is None:
        changes["exclusion_penalty"] = 5.0
    if inst.adapter_options is not None:
        changes["adapter_options"] = tuple(
            menu and (*menu, AdapterOption("more", 0.7 * menu[0].payload_lora_bits, menu[0].cycles_lora, 1.2))
            for menu in inst.adapter_options
        )
    return inst.with_changes(**changes)


def doubled(inst: Instance, _rng: Rng) -> Instance:
    """Every device twice with half of its data, the spectrum twice as well: each pair may do as the one did."""
    twice = np.repeat(np.arange(inst.num_devices), 2)
    changes: dict[str, Any] = {
        name: getattr(inst, name)[twice]
        for name in ("power_max_w", "energy_j", "energy_static_j", "payload_fixed_bits", "payload_lora_bits",
                     "cycles_fixed", "cycles_lora", "freq_min_hz", "freq_max_hz", "capacitance", "downlink_bps",
                     "keep_min", "keep_max")
    }  # fmt: skip
    changes |= {name: entry and tuple(entry[k] for k in twice) for name, entry in
                (("keep_levels", inst.keep_levels), ("adapter_options", inst.adapter_options))}  # fmt: skip
    gain = inst.gain[twice]
    changes["gain"] = np.hstack([gain, gain]) if inst.access == "ofdma" else gain
    bound = replace(inst.bound, pooling="global")
    return inst.with_changes(
        bandwidth_hz=2.0 * inst.bandwidth_hz,
        samples=inst.samples[twice] / 2.0,
        device_names=(),
        bound=bound,
        **changes,
    )


# What each relation says of the optimum after the change, and which instances it takes.
RELATIONS: tuple[tuple[Callable[[Instance, Rng], Instance], str], ...] = (
    (permuted, "=="), (in_other_units, "=="), (relaxed, "<="), (more_spectrum, "<="), (less_work, "<="),
    (freer, "<="), (doubled, "<="),
)  # fmt: skip


def related(seed: int) -> tuple[list[Finding], Counter[str]]:
    """Findings about one relation of one cell, and how its two solves ended."""
    rng = np.random.default_rng([2000, seed])
    change, sign = RELATIONS[seed // 3 % len(RELATIONS)]
    before = larger_of(seed)
    if change is doubled:
        before = before.with_changes(bound=replace(before.bound, pooling="global"))
    pair = (before, change(before, rng))
    results, found, ended = [], [], Counter[str]()
    for inst in pair:
        try:
            results.append(solve(inst, rel_gap=GAP, time_limit=LIMIT_S))
        except Exception as error:
            found.append(Finding("raised", "auto", f"{change.__name__}: {type(error).__name__}: {error}"))
            return found, ended
        ended[f"auto {results[-1].status.value}"] += 1
        if results[-1].status is Status.ERROR:
            found.append(Finding("raised", "auto", f"{change.__name__}: {results[-1].message}"))
    first, second = results
    found += _worse(second, first, change.__name__)
    if sign == "==":
        found += _worse(first, second, change.__name__)
    return found, ended


def _worse(better: Result, other: Result, name: str) -> list[Finding]:
    """A finding where the bound of what can only be better lies above what the other reaches."""
    reached = other.objective if other.allocation is not None else math.inf
    bound = math.inf if better.status is Status.INFEASIBLE else better.lower_bound
    if bound <= reached + SLACK * abs(reached) if math.isfinite(reached) else True:
        return []
    return [Finding("relation", "auto", f"{name}: {bound!r} is the bound of what cannot be above {reached!r}")]
