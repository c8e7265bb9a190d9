r"""FDMA and resource blocks in logarithmic variables, scaled: the form that outside solvers take.

Per device: x = log s, tau = log(t / T), eps = log(e / (E - E0)), phi = log(f / f_max), beta = log(b / B), and
v, the spectral efficiency in nats. Every row is a posynomial <= 1, a linear row, or one of

.. math:: \pi(x) + \mathrm{nats} - \tau - \beta \le \log v, \qquad
          \pi(x) + \mathrm{nats} - \mathrm{snr} + \log\varepsilon(v) \le \epsilon, \qquad
          \pi = \log(D_0/D_1 + s), \quad \varepsilon(v) = (e^v - 1)/v,

the Shannon rate and the energy that it costs. Both are convex, for log v is concave and eps(v) log-convex:
it is the mean of e^{vu} over u in [0, 1]. A Gauss-Legendre rule turns that mean into a short sum of
exponentials (:func:`mean_exponential`). All derivatives of e^{vu} in u are positive, so the rule errs downwards,
always: a form built on it asks for *less* energy than Shannon, it is a relaxation, and its optimum a lower bound.
Units vanish: solvers see numbers around 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import EdgeallocError, RefusedError
from edgealloc.formulation.device import chosen_adapter
from edgealloc.formulation.problem import Problem
from edgealloc.units import LN2, BoolArray, FloatArray, IntArray

__all__ = ["TERMS", "LogForm", "allocation_of", "mean_exponential", "quadrature_error", "without_logarithm"]

TERMS = 14  # relative error of eps(v) below 1e-12 up to v = 20, that is 29 bit/s/Hz


@dataclass(frozen=True, slots=True)
class LogForm:
    """Coefficients of the logarithmic form; all dimensionless.

    Parameters
    ----------
    download_fixed, download_lora
        Share of the deadline that D0 and D1 take in the downlink, at keep rate 1. Shape [K].
    compute_fixed, compute_lora
        Share of the deadline that W0 and W1 take at the highest frequency. Shape [K].
    energy_fixed, energy_lora
        Share of the energy budget (less its static part) that W0 and W1 take at the highest frequency. Shape [K].
    power
        log((E - E0) / (power_max T)); the power row is ``eps - tau + power <= 0``. Shape [K].
    snr
        log((E - E0) g / (N0 T B)); the signal-to-noise ratio is ``exp(eps - tau - beta + snr)``. Shape [K].
    nats
        log(D1 ln 2 / (T B)); v = ``exp(x - tau - beta + nats)`` nats per channel use when D0 = 0.
        Shape [K].
    head
        D0 / D1. Shape [K].
    x_min, x_max, phi_min
        Ranges of log s and lower end of log(f / f_max). Shape [K].
    underfit
        A w_k times the factor of the adapter. Shape [K].
    weight
        w_k. Shape [K].
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
    def of(cls, problem: Problem, option: IntArray | None = None) -> LogForm:
        """The form of a problem without sub-carriers.

        Parameters
        ----------
        problem
            FDMA or resource blocks.
        option
            Menu rows; the first ones by default. Shape [K].

        Returns
        -------
        LogForm
            Its coefficients.

        Raises
        ------
        RefusedError
            For sub-carriers.
        EdgeallocError
            When there is no such form: a device without gain, or one whose static energy leaves
            nothing.
        """
        inst, spec, stability = problem.instance, problem.instance.bound, problem.stability
        energy_j = inst.energy_j - inst.energy_static_j
        if inst.access == "ofdma":
            raise RefusedError(f"{inst.name}: sub-carriers have no logarithmic form")
        if without_logarithm(problem).any():
            raise EdgeallocError(f"{inst.name}: a device has no gain or no energy, its logarithm does not exist")
        k = inst.num_devices
        adapter = chosen_adapter(inst, np.zeros(k, dtype=np.intp) if option is None else option)
        time_hz = inst.freq_max_hz * inst.latency_s
        joule = inst.capacitance * np.square(inst.freq_max_hz) / energy_j
        channel_uses = inst.latency_s * inst.bandwidth_hz
        return cls(
            download_fixed=(inst.payload_fixed_bits + adapter.download_bits) / inst.downlink_bps / inst.latency_s,
            download_lora=adapter.payload_lora_bits / inst.downlink_bps / inst.latency_s,
            compute_fixed=adapter.cycles_fixed / time_hz,
            compute_lora=adapter.cycles_lora / time_hz,
            energy_fixed=joule * adapter.cycles_fixed,
            energy_lora=joule * adapter.cycles_lora,
            power=np.log(energy_j / (inst.power_max_w * inst.latency_s)),
            snr=np.log(energy_j * inst.gain / (inst.noise_psd_w_per_hz * channel_uses)),
            nats=np.log(adapter.payload_lora_bits * LN2 / channel_uses),
            head=inst.payload_fixed_bits / adapter.payload_lora_bits,
            x_min=np.log(inst.keep_min),
            x_max=np.log(inst.keep_max),
            phi_min=np.log(inst.freq_min_hz / inst.freq_max_hz),
            underfit=spec.underfit_weight * inst.weights * adapter.underfit_factor,
            weight=inst.weights,
            stability_base=np.asarray(stability.base * stability.scale),
            stability_spread=np.asarray(stability.spread * stability.scale),
            curvature=spec.curvature,
            sparsity=2.0 * spec.sparsity_weight,
            pooled=problem.pooled,
        )


def without_logarithm(problem: Problem) -> BoolArray:
    """Devices without gain on any sub-carrier or without energy: they cannot upload at all. Shape [K]."""
    inst = problem.instance
    gain = inst.gain if inst.gain.ndim == 1 else inst.gain.max(axis=1)
    return np.asarray((gain <= 0) | (inst.energy_j <= inst.energy_static_j))


def mean_exponential(terms: int = TERMS) -> tuple[FloatArray, FloatArray]:
    """Nodes u and log weights, shapes [terms], with ``sum exp(v u + log w) <= eps(v) = (e^v - 1)/v``.

    Gauss-Legendre on [0, 1]; its error is v^(2n) e^(v xi) (n!)^4 / ((2n+1) ((2n)!)^3) > 0
    (Abramowitz and Stegun, 25.4.30).
    """
    nodes, weights = np.polynomial.legendre.leggauss(terms)
    return 0.5 * (nodes + 1.0), np.log(0.5 * weights)


def quadrature_error(v: FloatArray, terms: int = TERMS) -> float:
    """Largest share of eps(v) that the rule misses.

    Parameters
    ----------
    v
        Efficiencies > 0 in nats. Any shape.
    terms
        Nodes of the rule.

    Returns
    -------
    float
        0 down to rounding errors, never less.
    """
    nodes, logs = mean_exponential(terms)
    rule = np.exp(np.multiply.outer(v, nodes) + logs).sum(axis=-1)
    return max(0.0, float(np.max(1.0 - rule * v / np.expm1(v))))


def allocation_of(
    problem: Problem, x: FloatArray, tau: FloatArray, eps: FloatArray, phi: FloatArray, beta: FloatArray
) -> Allocation:
    """The allocation, in SI units, of a point in logarithmic variables.

    Parameters
    ----------
    problem
        FDMA or resource blocks.
    x, tau, eps, phi, beta
        As the module names them; all dimensionless. Shapes [K].

    Returns
    -------
    Allocation
        As the point says: budgets may be broken.
    """
    inst = problem.instance
    energy_j = inst.energy_j - inst.energy_static_j
    return Allocation(
        keep=np.exp(x),
        freq_hz=inst.freq_max_hz * np.exp(phi),
        power_w=energy_j * np.exp(eps - tau) / inst.latency_s,
        bandwidth_hz=inst.bandwidth_hz * np.exp(beta),
    )
