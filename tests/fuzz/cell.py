"""A tiny cell as arrays, and all that its devices may do and be given, enumerated."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import PchipInterpolator

from edgealloc.data.instance import Instance
from edgealloc.units import FloatArray
from tests.fuzz.carry import caps_of_bands, caps_of_sets
from tests.fuzz.exact import blocks, noise_density
from tests.fuzz.weigh import Worth

OUT = -1
POOLINGS = {"device": 0.0, "global": 1.0, "cluster": 2.0}


@dataclass(frozen=True)
class Choice:
    """What one device does but for its keep rate: a menu row (0 without a menu) or OUT; the rates it may take."""

    option: int
    low: float
    high: float


class Cell:
    """An instance as arrays; with ``ease`` every budget is that much larger."""

    def __init__(self, instance: Instance, ease: float = 0.0) -> None:
        self.instance, self.ease = instance, ease
        spec = instance.bound
        term = {"inverse-keep": 0, "perturbation": 1, "curve": 2, "logistic": 3}[spec.underfit]
        self.weight = np.asarray(instance.samples / instance.samples.sum())
        knots, cubics = np.zeros(0), np.zeros((4, 0))
        if spec.underfit_curve is not None:
            curve = PchipInterpolator(spec.underfit_curve.keep, spec.underfit_curve.value)
            knots, cubics = np.asarray(curve.x), np.ascontiguousarray(curve.c)
        if spec.underfit_logistic is not None:
            knots = np.array([spec.underfit_logistic.half, spec.underfit_logistic.steepness])
        c, eta = spec.loss_range, spec.lipschitz
        numbers = (term, spec.underfit_weight, c * c, 24.0 * c * eta * eta, spec.curvature,
                   2.0 * spec.sparsity_weight, 2.0 * spec.confidence_delta, POOLINGS[spec.pooling])  # fmt: skip
        names = list(instance.clusters or ())
        pool = np.array([names.index(name) for name in names] if spec.pooling == "cluster" else [], np.int64)
        self._terms = (np.asarray(self.weight), instance.samples, np.array(numbers, float), knots, cubics, pool)
        density = float(noise_density(instance)) * (1.0 - ease)
        self.density = density  # W/Hz
        with np.errstate(divide="ignore"):
            self.noise = density / instance.gain  # W/Hz
        self.memo: dict[tuple[int, int], FloatArray] = {}

    def row(self, k: int, option: int) -> FloatArray:
        """A device under a menu row, as ``tests/fuzz/carry.py`` reads it."""
        inst, more = self.instance, 1.0 + self.ease
        menu = (inst.adapter_options or (None,) * inst.num_devices)[k]
        bits, cycles, fixed, beside = inst.payload_lora_bits[k], inst.cycles_lora[k], inst.cycles_fixed[k], 0.0
        if menu is not None:
            one = menu[option]
            bits, cycles, fixed = one.payload_lora_bits, one.cycles_lora, fixed + one.cycles_fixed
            beside = one.download_bits / inst.downlink_bps[k]  # s of the deadline, whatever is kept
        return np.array([
            inst.payload_fixed_bits[k], bits, fixed, cycles, inst.latency_s * more - beside,
            inst.energy_j[k] * more - inst.energy_static_j[k], inst.power_max_w[k] * more,
            inst.freq_min_hz[k] / more, inst.freq_max_hz[k] * more, inst.capacitance[k],
            1.0 / inst.downlink_bps[k], inst.keep_min[k], inst.keep_max[k],
        ], float)  # fmt: skip

    def noise_of(self, k: int, option: int) -> FloatArray:
        """Noise over gain in W/Hz of a device's channels under a menu row; in a band there is one. Shape [M]."""
        menu = (self.instance.adapter_options or (None,) * self.instance.num_devices)[k]
        own = None if menu is None or option == OUT else menu[option].gain
        if own is None:
            return np.atleast_1d(self.noise[k])
        return np.array([self.density / own if own > 0.0 else math.inf])

    def noises(self, combination: tuple[Choice, ...]) -> FloatArray:
        """That of each device in a band. Shape [K]."""
        return np.array([self.noise_of(k, choice.option)[0] for k, choice in enumerate(combination)])

    def factor(self, k: int, option: int) -> float:
        """What the menu row multiplies the underfitting by."""
        menu = (self.instance.adapter_options or (None,) * self.instance.num_devices)[k]
        return 1.0 if menu is None else menu[option].underfit_factor

    def choices(self, k: int, out: bool = True) -> list[Choice]:
        """All that device k may do; a level is a range of one rate."""
        inst = self.instance
        menu = (inst.adapter_options or (None,) * inst.num_devices)[k]
        levels = (inst.keep_levels or (None,) * inst.num_devices)[k]
        ranges = [(inst.keep_min[k], inst.keep_max[k])] if levels is None else [(s, s) for s in levels]
        rows = range(len(menu) if menu is not None else 1)
        inside = [Choice(o, float(a), float(b)) for o in rows for a, b in ranges]
        return inside + [Choice(OUT, 0.0, 0.0)] * (out and inst.exclusion_penalty is not None)

    def costs(self, combination: tuple[Choice, ...]) -> tuple[Worth, float]:
        """What keep rates of those who take part are worth, and what leaving out the others costs."""
        spec, inst = self.instance.bound, self.instance
        pay = [
            spec.underfit_weight * self.weight[k] * self.factor(k, c.option) if c.option != OUT else 0.0
            for k, c in enumerate(combination)
        ]
        absent = sum(self.weight[k] for k, c in enumerate(combination) if c.option == OUT)
        return Worth(np.array(pay), *self._terms), spec.underfit_weight * absent * (inst.exclusion_penalty or 0.0)

    def table(self, k: int, option: int) -> FloatArray:
        """Largest keep rates of a device by the bits of a set of sub-carriers, or by a number of blocks."""
        if (k, option) not in self.memo:
            inst, row = self.instance, self.row(k, option)
            if inst.access == "ofdma":
                caps = caps_of_sets(row, self.noise[k], inst.bandwidth_hz / inst.gain.shape[1])
            else:
                assert inst.block_hz is not None
                noise = float(self.noise_of(k, option)[0])
                caps = caps_of_bands(row, noise, np.arange(blocks(inst) + 1) * inst.block_hz)
            self.memo[k, option] = np.maximum.accumulate(caps) if inst.access == "rb" else caps
        return self.memo[k, option]

    @cached_property
    def deals(self) -> dict[int, FloatArray]:
        """By how many take part: who may get what, rows of table entries. Nothing is left over."""
        inst, found = self.instance, {}
        for n in range(1, inst.num_devices + 1):
            if inst.access == "ofdma":
                owners = np.array(list(itertools.product(range(n), repeat=inst.gain.shape[1])))
                bits = 1 << np.arange(inst.gain.shape[1])
                found[n] = np.stack([(owners == j) @ bits for j in range(n)], axis=1)
            else:
                there = blocks(inst)
                some = np.array(list(itertools.product(range(there + 1), repeat=n - 1)), int).reshape(
                    (there + 1) ** (n - 1), n - 1
                )
                last = there - some.sum(axis=1, keepdims=True)
                found[n] = np.hstack([some, last])[last[:, 0] >= 0]
        return found

    def caps(self, combination: tuple[Choice, ...]) -> tuple[FloatArray, FloatArray]:
        """Largest keep rates together, no row beaten by another, and the deal behind each. Both [A, K]."""
        on = [k for k, c in enumerate(combination) if c.option != OUT]
        deals = self.deals[len(on)]
        top = np.stack([self.table(k, combination[k].option)[deals[:, j]] for j, k in enumerate(on)], axis=1)
        low, high = (np.array([getattr(combination[k], end) for k in on]) for end in ("low", "high"))
        good = np.all(top >= low, axis=1)
        top, first = np.unique(np.minimum(top[good], high), axis=0, return_index=True)
        beaten = [bool(np.any(np.all(top >= row, axis=1) & np.any(top > row, axis=1))) for row in top]
        stay = ~np.array(beaten, bool)
        caps, chosen = (
            np.zeros((int(stay.sum()), len(combination))),
            np.zeros((int(stay.sum()), len(combination)), int),
        )
        caps[:, on], chosen[:, on] = top[stay], deals[good][first][stay]
        return caps, chosen
