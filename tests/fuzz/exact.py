"""What an allocation needs and is worth, in decimals of 80 digits, from the definitions in docs/model.md.

Every number of instance and allocation is taken as the exact double that it is. What this file says of a single
point needs no search, so it is the last word on each: on the oracle's own points and on those of methods.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance

# Logistic terms may be as steep as e^(a million).
EXACT = Context(prec=80, Emax=MAX_EMAX, Emin=MIN_EMIN)
ZERO, ONE = Decimal(0), Decimal(1)


def faults_of(instance: Instance, point: Allocation) -> list[str]:
    """Every rule and budget that a point breaks, each in a few words; empty where it is feasible."""
    with localcontext(EXACT):
        faults = _spectrum_faults(instance, point)
        for k in np.flatnonzero(point.selected).tolist():
            faults += [f"{instance.device_names[k]}: {fault}" for fault in _device_faults(instance, point, k)]
        on = point.selected
        if not on.all() and instance.exclusion_penalty is None:
            faults.append("left out without selection")
        if instance.common_keep and len(set(point.keep[on].tolist())) > 1:
            faults.append("several keep rates")
        return faults


def value_of(instance: Instance, point: Allocation) -> float:
    """G of a point, rounded once."""
    with localcontext(EXACT):
        spec = instance.bound
        samples = [Decimal(n) for n in instance.samples.tolist()]
        total = sum(samples, ZERO)
        keep = [Decimal(s) if on else ZERO for s, on in zip(point.keep.tolist(), point.selected, strict=True)]
        underfit = ZERO
        for k, s in enumerate(keep):
            own = _underfit(instance, s) * _menu_factor(instance, point, k) if point.selected[k] else None
            underfit += samples[k] / total * (Decimal(instance.exclusion_penalty or 0.0) if own is None else own)
        if spec.pooling == "global":
            gap = _gap(instance, sum((n / total * s * s for n, s in zip(samples, keep, strict=True)), ZERO), total)
        else:
            own = spec.pooling == "cluster"
            names = list(instance.clusters or ()) if own else list(range(len(keep)))
            gap = (
                sum((_of_pool(instance, [m == n for m in names], samples, keep) for n in set(names)), ZERO) / total
            )
        return float(Decimal(spec.underfit_weight) * underfit + gap)


def _of_pool(instance: Instance, inside: list[bool], samples: list[Decimal], keep: list[Decimal]) -> Decimal:
    """The stability term of the devices ``inside``, times their samples."""
    own = [(n, s) for n, s, there in zip(samples, keep, inside, strict=True) if there]
    held = sum((n for n, _ in own), ZERO)
    return held * _gap(instance, sum((n * s * s for n, s in own), ZERO) / held, held)


def _gap(instance: Instance, square: Decimal, samples: Decimal) -> Decimal:
    spec = instance.bound
    c, eta = Decimal(spec.loss_range), Decimal(spec.lipschitz)
    curved = Decimal(spec.curvature) + 2 * Decimal(spec.sparsity_weight) * (ONE - square)
    return ((c * c + 24 * c * eta * eta / curved) / (2 * samples * Decimal(spec.confidence_delta))).sqrt()


def _underfit(instance: Instance, s: Decimal) -> Decimal:
    spec = instance.bound
    if spec.underfit == "inverse-keep":
        return ONE / s - ONE
    if spec.underfit == "perturbation":
        return ONE - s * s
    if spec.underfit_logistic is not None:
        half, steepness = Decimal(spec.underfit_logistic.half), Decimal(spec.underfit_logistic.steepness)
        return ONE / (ONE + ((s / half).ln() * steepness).exp())
    assert spec.underfit_curve is not None
    knots = [Decimal(x) for x in spec.underfit_curve.keep.tolist()]
    values = [Decimal(y) for y in spec.underfit_curve.value.tolist()]
    i = max((j for j in range(len(knots) - 1) if knots[j] <= s), default=0)
    left, right = monotone_slopes(knots, values)[i : i + 2]
    wide = knots[i + 1] - knots[i]
    x = (s - knots[i]) / wide
    return (
        values[i] * (2 * x**3 - 3 * x**2 + 1)
        + wide * left * (x**3 - 2 * x**2 + x)
        + values[i + 1] * (3 * x**2 - 2 * x**3)
        + wide * right * (x**3 - x**2)
    )


def monotone_slopes(knots: list[Decimal], values: list[Decimal]) -> list[Decimal]:
    """Slopes of PCHIP at its knots: weighted harmonic means inside, one-sided three-point formulas at the ends."""
    wide = [b - a for a, b in pairwise(knots)]
    rise = [(b - a) / h for a, b, h in zip(values, values[1:], wide, strict=False)]
    if len(rise) == 1:
        return [rise[0], rise[0]]
    inner = [ZERO] * (len(rise) - 1)
    for i in range(len(inner)):
        if rise[i] * rise[i + 1] > 0:
            one, two = 2 * wide[i + 1] + wide[i], wide[i + 1] + 2 * wide[i]
            inner[i] = (one + two) / (one / rise[i] + two / rise[i + 1])
    return [_end(wide[0], wide[1], rise[0], rise[1]), *inner, _end(wide[-1], wide[-2], rise[-1], rise[-2])]


def _end(near: Decimal, far: Decimal, rise: Decimal, next_rise: Decimal) -> Decimal:
    slope = ((2 * near + far) * rise - near * next_rise) / (near + far)
    if slope * rise <= 0:
        return ZERO
    return 3 * rise if rise * next_rise <= 0 and abs(slope) > 3 * abs(rise) else slope


def _menu_factor(instance: Instance, point: Allocation, k: int) -> Decimal:
    menu = (instance.adapter_options or (None,) * instance.num_devices)[k]
    return ONE if menu is None else Decimal(menu[int(point.option[k])].underfit_factor)


def _spectrum_faults(instance: Instance, point: Allocation) -> list[str]:
    on = np.flatnonzero(point.selected)
    if point.owner is not None:
        return [
            f"sub-carrier {m} of somebody left out" for m, k in enumerate(point.owner) if k >= 0 and k not in on
        ]
    assert point.bandwidth_hz is not None
    band = [Fraction(b) for b in point.bandwidth_hz[on].tolist()]
    if instance.access == "fdma":
        return ["more than the bandwidth"] if sum(band) > Fraction(instance.bandwidth_hz) else []
    assert instance.block_hz is not None
    counts = [round(b / Fraction(instance.block_hz)) for b in band]
    whole = all(n * instance.block_hz == float(b) for n, b in zip(counts, band, strict=True))
    return ([] if whole else ["not whole blocks"]) + (
        ["more blocks than there are"] * (sum(counts) > blocks(instance))
    )


def blocks(instance: Instance) -> int:
    """Resource blocks in the band: B / block_hz rounded down, or up where the next one lacks 2^-50 of it."""
    ratio = Fraction(instance.bandwidth_hz) / Fraction(instance.block_hz or instance.bandwidth_hz)
    return int(ratio * (1 + Fraction(1, 2**50)))


def noise_density(instance: Instance) -> Decimal:
    """N0 in W/Hz."""
    return Decimal(10) ** ((Decimal(instance.noise_psd_dbm_per_hz) - 30) / 10)


def _log1p(ratio: Decimal) -> Decimal:
    """log(1 + x); a series where x is lost in the digits of 1."""
    if ratio < Decimal("1e-30"):
        return ratio * (ONE - ratio / 2 + ratio * ratio / 3)
    return (ONE + ratio).ln()


def _device_faults(instance: Instance, point: Allocation, k: int) -> list[str]:
    def of(field: str) -> Decimal:
        return Decimal(float(getattr(instance, field)[k]))

    menu = (instance.adapter_options or (None,) * instance.num_devices)[k]
    row = menu[int(point.option[k])] if menu is not None else None
    lora_bits = of("payload_lora_bits") if row is None else Decimal(row.payload_lora_bits)
    lora_cycles = of("cycles_lora") if row is None else Decimal(row.cycles_lora)
    more_cycles, beside = (ZERO, ZERO) if row is None else (Decimal(row.cycles_fixed), Decimal(row.download_bits))
    s, f = Decimal(float(point.keep[k])), Decimal(float(point.freq_hz[k]))
    bits, cycles = of("payload_fixed_bits") + lora_bits * s, of("cycles_fixed") + more_cycles + lora_cycles * s
    noise = noise_density(instance)
    if point.owner is not None:
        wide = Decimal(instance.bandwidth_hz) / Decimal(instance.gain.shape[1])
        own = np.flatnonzero(point.owner == k).tolist()
        links = [(wide, Decimal(float(point.power_w[m])), Decimal(float(instance.gain[k, m]))) for m in own]
    else:
        assert point.bandwidth_hz is not None
        wide = Decimal(float(point.bandwidth_hz[k]))
        gain = of("gain") if row is None or row.gain is None else Decimal(row.gain)
        links = [(wide, Decimal(float(point.power_w[k])), gain)]
    power = sum((p for _b, p, _g in links), ZERO)
    rate = sum((b * _log1p(p * g / (noise * b)) for b, p, g in links if b > 0), ZERO) / Decimal(2).ln()
    if rate <= 0:
        return ["no rate"]
    sending = bits / rate
    downlink = float(instance.downlink_bps[k])
    latency = cycles / f + sending + ((bits + beside) / Decimal(downlink) if np.isfinite(downlink) else ZERO)
    energy = of("capacitance") * f * f * cycles + power * sending + of("energy_static_j")
    levels = (instance.keep_levels or (None,) * instance.num_devices)[k]
    broken = {
        "keep rate out of range": not of("keep_min") <= s <= of("keep_max"),
        "no such level": levels is not None and float(point.keep[k]) not in levels.tolist(),
        "frequency out of range": not of("freq_min_hz") <= f <= of("freq_max_hz"),
        "negative power": any(p < 0 for _b, p, _g in links),
        "too much power": power > of("power_max_w"),
        f"late by {float(latency / Decimal(instance.latency_s) - 1):.3g}": latency > Decimal(instance.latency_s),
        f"too much energy by {float(energy / of('energy_j') - 1):.3g}": energy > of("energy_j"),
    }
    return [fault for fault, is_broken in broken.items() if is_broken]
