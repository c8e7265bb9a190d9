r"""Continuous FDMA in logarithmic variables, scaled: the form that the peers solve (formulation, section 5.2).

Per device: x = log s, tau = log(t / T), eps = log(e / (E - E0)), phi = log(f / f_max), beta = log(b / B).
Every row is a posynomial <= 1, a linear row, or the rate row

.. math:: \log D(s) - \log(t b) + \log\ln 2 \le \log \ln(1 + e g / (N_0 t b))

which is convex because log softplus is concave. Units vanish: the peers see numbers around 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.device import chosen_adapter, compute_energy_j, cycles, download_s, payload_bits
from edgealloc.problem import Problem
from edgealloc.result import Allocation
from edgealloc.units import FloatArray

__all__ = ["Judgement", "LogForm", "allocation_of", "judge", "repair"]

MARGIN = 1e-12  # share of each budget left unused by a repaired point, to absorb rounding in evaluate()


@dataclass(frozen=True, slots=True)
class LogForm:
    """Coefficients of the logarithmic form; shape [K] each unless a scalar, all dimensionless.

    Parameters
    ----------
    download_fixed, download_lora
        Share of the deadline that D0 and D1 take in the downlink, at keep rate 1.
    compute_fixed, compute_lora
        Share of the deadline that W0 and W1 take at the highest frequency.
    energy_fixed, energy_lora
        Share of the energy budget (less its static part) that W0 and W1 take at the highest frequency.
    power
        log((E - E0) / (power_max T)); the power row is ``eps - tau + power <= 0``.
    snr
        log((E - E0) g / (N0 T B)); the signal-to-noise ratio is ``exp(eps - tau - beta + snr)``.
    nats
        log(D1 ln 2 / (T B)); z = ``exp(x - tau - beta + nats)`` nats per channel use when D0 = 0.
    head
        D0 / D1.
    x_min, x_max, phi_min
        Ranges of log s and lower end of log(f / f_max).
    underfit
        A w_k.
    weight
        w_k.
    stability_base, stability_spread
        ``C^2`` and ``24 C eta^2`` times 1 / (2 n delta): a scalar for global pooling, else shape [K].
    curvature, sparsity
        ``Lam`` and ``2 lam``.
    pooled
        Whether one stability term covers all devices.
    """

    download_fixed: FloatArray
    download_lora: FloatArray
    compute_fixed: FloatArray
    compute_lora: FloatArray
    energy_fixed: FloatArray
    energy_lora: FloatArray
    power: FloatArray
    snr: FloatArray
    nats: FloatArray
    head: FloatArray
    x_min: FloatArray
    x_max: FloatArray
    phi_min: FloatArray
    underfit: FloatArray
    weight: FloatArray
    stability_base: FloatArray
    stability_spread: FloatArray
    curvature: float
    sparsity: float
    pooled: bool

    @classmethod
    def of(cls, problem: Problem) -> LogForm:
        """The form of a continuous FDMA problem with the inverse-keep term.

        Raises
        ------
        ValueError
            When the problem has no such form: not log-convex, one common rate, a device without gain, or
            one whose static energy leaves nothing.
        """
        inst, spec, stability = problem.instance, problem.instance.bound, problem.stability
        energy_j = inst.energy_j - inst.energy_static_j
        if not problem.structure.log_convex or inst.common_keep or problem.underfit.name != "inverse-keep":
            raise ValueError(f"{inst.name}: the peers take continuous FDMA with inverse-keep and own rates only")
        if not (np.all(inst.gain > 0) and np.all(energy_j > 0)):
            raise ValueError(f"{inst.name}: a device has no gain or no energy, its logarithm does not exist")
        time_hz = inst.freq_max_hz * inst.latency_s
        joule = inst.capacitance * np.square(inst.freq_max_hz) / energy_j
        channel_uses = inst.latency_s * inst.bandwidth_hz
        return cls(
            download_fixed=inst.payload_fixed_bits / inst.downlink_bps / inst.latency_s,
            download_lora=inst.payload_lora_bits / inst.downlink_bps / inst.latency_s,
            compute_fixed=inst.cycles_fixed / time_hz,
            compute_lora=inst.cycles_lora / time_hz,
            energy_fixed=joule * inst.cycles_fixed,
            energy_lora=joule * inst.cycles_lora,
            power=np.log(energy_j / (inst.power_max_w * inst.latency_s)),
            snr=np.log(energy_j * inst.gain / (inst.noise_psd_w_per_hz * channel_uses)),
            nats=np.log(inst.payload_lora_bits * np.log(2.0) / channel_uses),
            head=inst.payload_fixed_bits / inst.payload_lora_bits,
            x_min=np.log(inst.keep_min),
            x_max=np.log(inst.keep_max),
            phi_min=np.log(inst.freq_min_hz / inst.freq_max_hz),
            underfit=spec.underfit_weight * inst.weights,
            weight=inst.weights,
            stability_base=np.asarray(stability.base * stability.scale),
            stability_spread=np.asarray(stability.spread * stability.scale),
            curvature=spec.curvature,
            sparsity=2.0 * spec.sparsity_weight,
            pooled=problem.pooled,
        )


def allocation_of(
    problem: Problem, x: FloatArray, tau: FloatArray, eps: FloatArray, phi: FloatArray, beta: FloatArray
) -> Allocation:
    """The allocation, in SI units, of a point in logarithmic variables. Shapes [K]."""
    inst = problem.instance
    energy_j = inst.energy_j - inst.energy_static_j
    return Allocation(
        keep=np.exp(x),
        freq_hz=inst.freq_max_hz * np.exp(phi),
        power_w=energy_j * np.exp(eps - tau) / inst.latency_s,
        bandwidth_hz=inst.bandwidth_hz * np.exp(beta),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """A peer's point as we see it.

    Parameters
    ----------
    violation
        Largest relative excess over a budget or range at the point as returned, 0 when feasible.
    raw_objective
        G at the point as returned, feasible or not.
    objective
        G at the repaired point, ``inf`` when it cannot be repaired.
    allocation
        The repaired point, feasible in double precision, or None.
    """

    violation: float
    raw_objective: float
    objective: float
    allocation: Allocation | None


def judge(problem: Problem, point: Allocation) -> Judgement:
    """Evaluate a peer's point with the problem model alone, and repair it."""
    seen = problem.evaluate(point)
    excess = [
        abs(v.value - v.limit) / abs(v.limit) if v.limit else float("inf") for v in seen.violations
    ]  # NaN stays NaN: max() below must not hide it
    violation = float(np.max(excess)) if excess else 0.0
    repaired = repair(problem, point)
    objective = problem.objective(repaired.keep) if repaired is not None else float("inf")
    return Judgement(violation, seen.objective, objective, repaired)


def repair(problem: Problem, point: Allocation) -> Allocation | None:
    """Shave keep rates until the point breaks no budget; its split of the band and frequencies stay.

    The band is filled exactly, each device spends all of its time, and the greatest keep rate not above the
    peer's is found by bisection (less kept needs less time, power and energy, so feasible rates are an
    interval).

    Returns
    -------
    Allocation or None
        None when a device is infeasible even at ``keep_min`` with the peer's bandwidth and frequency.
    """
    inst = problem.instance
    assert point.bandwidth_hz is not None
    adapter = chosen_adapter(inst, point.option)
    band = point.bandwidth_hz * (inst.bandwidth_hz / point.bandwidth_hz.sum()) * (1.0 - MARGIN)
    freq = np.clip(point.freq_hz, inst.freq_min_hz, inst.freq_max_hz)

    def power_w(keep: FloatArray) -> FloatArray:
        """Power in W that finishes on time, NaN where no power does or a budget breaks."""
        bits, work = payload_bits(inst, adapter, keep), cycles(inst, adapter, keep)
        time_s = (inst.latency_s - download_s(inst, bits) - work / freq) * (1.0 - MARGIN)
        energy_j = (inst.energy_j - inst.energy_static_j - compute_energy_j(inst, work, freq)) * (1.0 - MARGIN)
        with np.errstate(all="ignore"):
            need = np.expm1(bits * np.log(2.0) / (time_s * band)) * inst.noise_psd_w_per_hz * band / inst.gain
            need = need * (1.0 + MARGIN)
            fits = (time_s > 0) & (energy_j > 0) & (need <= inst.power_max_w) & (need * time_s <= energy_j)
        return np.where(fits, need, np.nan)

    high = np.clip(point.keep, inst.keep_min, inst.keep_max)
    low = np.where(np.isnan(power_w(high)), inst.keep_min, high)
    if np.isnan(power_w(low)).any():
        return None
    for _ in range(60):
        middle = 0.5 * (low + high)
        fits = ~np.isnan(power_w(middle))
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    repaired = Allocation(keep=low, freq_hz=freq, power_w=power_w(low), bandwidth_hz=band)
    return repaired if problem.evaluate(repaired).feasible else None
