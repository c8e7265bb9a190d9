r"""The model that SCIP gets, for every access scheme and variant.

Rows are those of :mod:`edgealloc.solvers.backends.logform`, as sums of exponentials of linear terms, which SCIP
recognises as convex. What is discrete stays linear in logarithms: a list of levels is ``x = sum z_l log s_l``, a
menu row shifts exponents, whole blocks bound ``exp(log b)``. With sub-carriers the rate is ``sum_m log(1 + p_m
g_m)``, concave as it stands, and one row per device is not convex, ``P <= exp(eps - tau)``: energy is power times
time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import RefusedError, needs
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count, subcarrier_hz
from edgealloc.solvers.backends.logform import (
    LogForm,
    allocation_of,
    mean_exponential,
    quadrature_error,
    without_logarithm,
)
from edgealloc.solvers.backends.scip_caps import add_caps
from edgealloc.units import FloatArray

__all__ = ["TERMS", "V_MAX", "ScipModel", "build", "takes_scip"]

TERMS = 10  # of the quadrature: eps(v) to 1e-10 up to v = 12, and each costs SCIP an auxiliary variable
V_MAX = 60.0  # nats, 87 bit/s/Hz: no device comes near, and energy bounds v first in any sensible cell


def takes_scip(problem: Problem) -> bool:
    """Whether the underfitting term can be written down for SCIP: not a curve, not a function."""
    return problem.underfit.name in ("inverse-keep", "perturbation")


@dataclass(slots=True, eq=False)
class ScipModel:
    """A SCIP model and the meaning of its variables.

    Parameters
    ----------
    problem, model, scale
        The problem; the ``pyscipopt.Model``, whose objective is the bound G times ``scale``: a device's share of G
        shrinks like 1/K, SCIP's tolerances do not.
    shares
        Per device (x, tau, eps, phi, beta); beta is None with sub-carriers.
    efficiency
        v of each device, empty with sub-carriers.
    selected, option
        Binary per device, or None; binaries per device and menu row, or None.
    owner, power
        Binary and power (share of the device's limit) per device and sub-carrier.
    blocks
        Number of blocks per device.
    """

    problem: Problem
    model: Any
    scale: float
    shares: list[tuple[Any, ...]] = field(default_factory=list)
    efficiency: list[Any] = field(default_factory=list)
    selected: list[Any] = field(default_factory=list)
    option: list[list[Any] | None] = field(default_factory=list)
    owner: list[list[Any]] = field(default_factory=list)
    power: list[list[Any]] = field(default_factory=list)
    blocks: list[Any] = field(default_factory=list)

    def point(self) -> Allocation:
        """The best point that SCIP holds, as it stands."""
        inst, value = self.problem.instance, self.model.getVal
        k = inst.num_devices
        log = np.array([[0.0 if v is None else value(v) for v in row] for row in self.shares]).T
        on = np.array([s is None or value(s) > 0.5 for s in self.selected])
        option = np.array(
            [-1 if rows is None else int(np.argmax([value(y) for y in rows])) for rows in self.option]
        )
        plain = allocation_of(self.problem, *log)
        changes: dict[str, Any] = {"keep": plain.keep, "freq_hz": plain.freq_hz, "selected": on, "option": option}
        if self.owner:
            share = np.array([[value(c) for c in row] for row in self.owner])
            owner = np.where(share.max(axis=0) > 0.5, share.argmax(axis=0), -1)
            power = np.array([[value(q) for q in row] for row in self.power]) * inst.power_max_w[:, None]
            power_m = np.where(owner >= 0, power[np.maximum(owner, 0), np.arange(len(owner))], 0.0)
            return Allocation(**changes, power_w=np.maximum(power_m, 0.0), owner=owner)
        band = plain.bandwidth_hz
        if inst.block_hz is not None:
            band = np.array([round(value(n)) for n in self.blocks]) * inst.block_hz
        assert band is not None
        return Allocation(
            **changes, power_w=np.where(on, plain.power_w, np.zeros(k)), bandwidth_hz=np.where(on, band, 0.0)
        )

    @property
    def values_of_v(self) -> FloatArray:
        """Spectral efficiencies of the devices that take part, in nats, shape [N]; empty with sub-carriers."""
        value = self.model.getVal
        pairs = zip(self.efficiency, self.selected, strict=False)
        return np.array([value(v) for v, s in pairs if s is None or value(s) > 0.5])

    def shortfall(self, terms: int) -> float:
        """Largest share by which the quadrature underrates the upload energy at SCIP's point."""
        v = self.values_of_v
        return quadrature_error(v, terms) if len(v) else 0.0


def build(problem: Problem, terms: int = TERMS) -> ScipModel:
    """The SCIP model of a problem.

    Parameters
    ----------
    problem
        Its underfitting term must be ``inverse-keep`` or ``perturbation``.
    terms
        Nodes of the quadrature (:func:`~edgealloc.solvers.backends.logform.mean_exponential`).

    Returns
    -------
    ScipModel
        The model and its variables.

    Raises
    ------
    MissingPackageError
        Without pyscipopt.
    RefusedError
        For curves and users' functions.
    EdgeallocError
        For a device without gain or energy (no logarithm).
    """
    needs("pyscipopt", "scip", "method 'scip'")
    if not takes_scip(problem):
        raise RefusedError(f"SCIP takes inverse-keep and perturbation; this is {problem.underfit.name!r}")
    import pyscipopt as scip

    model = scip.Model(problem.instance.name)
    model.hideOutput()
    scale = problem.instance.num_devices / problem.size
    return _Builder(problem, scip, ScipModel(problem, model, scale), terms).build()


@dataclass(slots=True, eq=False)
class _Builder:
    """Adds variables and rows to a model, device by device."""

    problem: Problem
    scip: Any
    out: ScipModel
    terms: int
    forms: list[LogForm] = field(default_factory=list)
    squares: list[Any] = field(default_factory=list)
    bands: list[Any] = field(default_factory=list)
    energies: list[Any] = field(default_factory=list)

    def variable(self, low: float, high: float, kind: str = "C", cost: float = 0.0) -> Any:
        """A new variable: kind C continuous, B binary, I integer."""
        return self.out.model.addVar(lb=float(low), ub=float(high), vtype=kind, obj=cost)

    def row(self, expression: Any) -> None:
        """Add a constraint."""
        self.out.model.addCons(expression)

    def sum(self, terms: Iterable[Any]) -> Any:
        """A sum in SCIP's own kind."""
        return self.scip.quicksum(terms)

    def build(self) -> ScipModel:
        """The whole model: devices one by one, then the spectrum and the stability term."""
        problem, inst = self.problem, self.problem.instance
        flat, idle = problem, without_logarithm(problem)
        if idle.any() and inst.exclusion_penalty is not None:  # they stay out; any numbers do for their rows
            gain = np.where(idle.reshape(-1, *(1,) * (inst.gain.ndim - 1)), 1e-9, inst.gain)
            energy_j = np.where(idle, inst.energy_static_j + 1.0, inst.energy_j)
            flat = Problem(inst.with_changes(gain=gain, energy_j=energy_j), problem.underfit)
        if inst.access == "ofdma":  # the same rows, for the rate's own are the only ones that differ
            best = flat.instance.gain.max(axis=1)
            flat = Problem(flat.instance.with_changes(access="fdma", gain=best), problem.underfit)
        menus = inst.adapter_options or (None,) * inst.num_devices
        depth = max((len(menu) for menu in menus if menu), default=1)
        for row in range(depth):
            option = np.array([min(row, len(menu) - 1) if menu else 0 for menu in menus], dtype=np.intp)
            self.forms.append(LogForm.of(flat, option))
        common = self.variable(-20.0, 0.0) if inst.common_keep else None
        for k in range(inst.num_devices):
            self._device(k, common)
            if idle[k]:
                self.row(self.out.selected[k] == 0)
        self._spectrum()
        add_caps(self.problem, self.out, self.bands, self.energies, self.scip)
        self._stability()
        return self.out

    def _device(self, k: int, common: Any) -> None:
        """Rows of one device: choices, latency, energy, power, rate, loss."""
        inst, form, exp = self.problem.instance, self.forms[0], self.scip.exp
        x, phi = self.variable(form.x_min[k], form.x_max[k]), self.variable(form.phi_min[k], 0.0)
        selected = None if inst.exclusion_penalty is None else self.variable(0, 1, "B")
        out = 0.0 if selected is None else 1.0 - selected  # 1 for a device left out: its rows go slack
        menu = inst.adapter_options[k] if inst.adapter_options else None
        pick = [self.variable(0, 1, "B") for _ in menu] if menu else None
        if pick:
            self.row(self.sum(pick) == 1)
        levels = inst.keep_levels[k] if inst.keep_levels else None
        if levels is not None:
            chosen = [self.variable(0, 1, "B") for _ in levels]
            self.row(self.sum(chosen) == 1)
            self.row(self.sum(z * math.log(s) for z, s in zip(chosen, levels, strict=True)) == x)
        if common is not None:
            self.row(x - common <= 20.0 * out)
            self.row(common - x <= 20.0 * out)
        # bits = log(D(s) ln 2 / (T B)), linear in x where nothing but the adapter is uploaded
        nats = self._row("nats", k)
        fixed = math.log(form.head[k]) + nats[0] if form.head[k] > 0 else -math.inf
        ends = np.logaddexp(fixed, [nats.min() + form.x_min[k], nats.max() + form.x_max[k]])
        bits = x + self._linear(pick, nats)
        if form.head[k] > 0:
            lora, bits = bits, self.variable(ends[0], ends[1] + 1e-6)
            self.row(exp(fixed - bits) + exp(lora - bits) <= 1.0)
        rate = self._subcarriers if inst.access == "ofdma" else self._band
        tau, eps, beta = rate(k, bits, ends, out)
        latency, energy, most = exp(tau), exp(eps), 1.0
        for c, heat, exponent, warmth in (
            (self._row("compute_fixed", k), self._row("energy_fixed", k), -phi, 2 * phi),
            (self._row("compute_lora", k), self._row("energy_lora", k), x - phi, x + 2 * phi),
            (self._row("download_lora", k), 0.0, x, 0.0),
        ):
            latency += self._exp(pick, c, exponent)
            energy += self._exp(pick, heat, warmth)
            most += float(np.max(c) + np.max(heat))
        beside = self._row("download_fixed", k)
        self.row(latency + self._linear(pick, beside) <= 1.0 + (most + float(np.max(beside))) * out)
        self.row(energy <= 1.0 + most * out)
        self.energies.append(energy)
        self.out.shares.append((x, tau, eps, phi, beta))
        self.out.selected.append(selected)
        self.out.option.append(pick)
        self._loss(k, x, selected, pick)

    def _row(self, name: str, k: int) -> FloatArray:
        """One coefficient of device k under every menu row that it has."""
        menu = self.problem.instance.adapter_options[k] if self.problem.instance.adapter_options else None
        return np.array([float(getattr(form, name)[k]) for form in self.forms[: len(menu) if menu else 1]])

    def _linear(self, pick: list[Any] | None, values: FloatArray) -> Any:
        """The value of the menu row picked, as a linear term."""
        if not pick or np.ptp(values) == 0.0:
            return float(values[0])
        return self.sum(y * float(c) for y, c in zip(pick, values, strict=True))

    def _exp(self, pick: list[Any] | None, coefficient: float | FloatArray, exponent: Any) -> Any:
        """``coefficient exp(exponent)`` for the menu row picked; 0 is as good as 1e-13 of the greatest."""
        values = np.atleast_1d(np.asarray(coefficient, dtype=np.float64))
        if not values.max() > 0.0:
            return 0.0
        if not pick or np.ptp(values) == 0.0:
            return float(values[0]) * self.scip.exp(exponent)
        return self.scip.exp(exponent + self._linear(pick, np.log(np.maximum(values, 1e-13 * values.max()))))

    # Variables get the bounds that the rows imply, no others. A device left out rests at tau = eps = beta = 0 and
    # v = 1, and its rows are slack by just what that takes: large constants make SCIP wrong (docs/backends.md).

    def _band(self, k: int, bits: Any, ends: FloatArray, out: Any) -> tuple[Any, Any, Any]:
        """FDMA and blocks: Shannon's rate with its energy; returns tau, eps, beta."""
        inst, form, exp = self.problem.instance, self.forms[0], self.scip.exp
        snr, power = float(form.snr[k]), float(form.power[k])
        reserve = max(
            snr - ends[0], 0.0
        )  # log of the energy budget over the least upload energy; eps(v) >= e^(v/2)
        v = self.variable(min(1.0, math.exp(ends[0])), min(max(1.0, 2.0 * reserve), V_MAX) + 1e-3)
        least = ends[0] - math.log(v.getUbOriginal()) - 1e-3
        tau, beta = self.variable(min(least, 0.0), 0.0), self.variable(min(least, 0.0), 0.0)
        eps = self.variable(min(ends[0] - snr - 1e-3, 0.0), 0.0)
        self.row(eps - tau + power <= max(power, 0.0) * out)
        self.row(bits - tau - beta - max(ends[1], 0.0) * out <= self.scip.log(v))
        nodes, logs = mean_exponential(self.terms)
        cost = bits - snr - eps - max(ends[1] - snr + 1.0, 0.0) * out
        self.row(self.sum(exp(float(u) * v + (cost + float(w))) for u, w in zip(nodes, logs, strict=True)) <= 1.0)
        if inst.block_hz is not None:
            most = block_count(inst.bandwidth_hz, inst.block_hz)
            self.out.blocks.append(self.variable(0, most, "I"))
            self.row(exp(beta) <= inst.block_hz / inst.bandwidth_hz * self.out.blocks[-1] + out)
        else:
            self.bands.append(self.variable(0.0, 1.0))
            self.row(exp(beta) <= self.bands[-1] + out)
        self.out.efficiency.append(v)
        return tau, eps, beta

    def _subcarriers(self, k: int, bits: Any, ends: FloatArray, out: Any) -> tuple[Any, Any, None]:
        """Own sub-carriers: a concave rate, and the one row that is not convex, power times time below energy."""
        inst, form = self.problem.instance, self.forms[0]
        snr = inst.power_max_w[k] * inst.gain[k] / (inst.noise_psd_w_per_hz * subcarrier_hz(inst))
        full = np.log1p(snr) / len(snr)  # rate of each sub-carrier at full power, in nats times B
        own = [self.variable(0, 1, "B") for _ in snr]
        power = [self.variable(0.0, 1.0) for _ in snr]
        parts = [self.variable(0.0, r) for r in full]
        for c, q, r, s, most in zip(own, power, parts, snr, full, strict=True):
            self.row(q <= c)
            self.row(r <= self.scip.log(1.0 + float(s) * q) * (1.0 / len(snr)))
            self.row(r <= float(most) * c)
        least = math.exp(ends[0])  # of the rate, for the upload takes no longer than the deadline
        total = self.variable(0.999 * least, max(float(full.sum()), least) + 1e-6)
        tau = self.variable(min(ends[0] - math.log(max(float(full.sum()), least)) - 1e-3, 0.0), 0.0)
        eps = self.variable(min(ends[0] - float(form.snr[k]) - 1e-3, 0.0), 0.0)
        used = self.variable(0.0, 1.0)
        self.row(total <= self.sum(parts) + least * out)
        self.row(self.sum(power) <= used)
        self.row(bits - tau - (ends[1] - ends[0] + 0.1) * out <= self.scip.log(total))
        self.row(used <= self.scip.exp(eps - tau + float(form.power[k])) + out)
        self.out.owner.append(own)
        self.out.power.append(power)
        return tau, eps, None

    def _loss(self, k: int, x: Any, selected: Any, pick: list[Any] | None) -> None:
        """Underfitting, and the square of the keep rate, of a device that may be left out."""
        inst, exp = self.problem.instance, self.scip.exp
        under = self.out.scale * self._row("underfit", k)
        inverse = self.problem.underfit.name == "inverse-keep"
        most = float(under.max()) * (math.exp(-float(self.forms[0].x_min[k])) if inverse else 1.0)
        out_cost = 0.0
        if inst.exclusion_penalty is not None:
            out_cost = inst.bound.underfit_weight * float(inst.weights[k]) * inst.exclusion_penalty
            out_cost *= self.out.scale
        loss = self.variable(0.0, max(most, out_cost), cost=1.0)
        term = self._exp(pick, under, -x) if inverse else -self._exp(pick, under, 2 * x)
        constant = self._linear(pick, -under if inverse else under)
        square = self.variable(0.0, 1.0)
        if selected is None:
            self.row(term + constant <= loss)
            self.row(exp(2 * x) <= square)
        else:
            self.row(term + constant - 2.0 * most * (1.0 - selected) <= loss)
            self.row(out_cost * (1.0 - selected) <= loss)
            self.row(exp(2 * x) - (1.0 - selected) <= square)
        self.squares.append(square)

    def _spectrum(self) -> None:
        """What the devices share: the band, the blocks, or every sub-carrier."""
        inst, out = self.problem.instance, self.out
        if out.owner:
            for m in range(len(out.owner[0])):
                self.row(self.sum(row[m] for row in out.owner) <= 1)
        elif out.blocks:
            most = block_count(inst.bandwidth_hz, inst.block_hz or 1.0)
            self.row(self.sum(out.blocks) <= most)
        else:
            self.row(self.sum(self.bands) <= 1)

    def _stability(self) -> None:
        """``sqrt(base + spread / y)``, y = Lam + 2 lam (1 - sum w s^2), as posynomials of log y and log gap."""
        form, exp = self.forms[0], self.scip.exp
        groups = [(self.squares, form.weight, 1.0)]
        if not form.pooled:
            groups = [([q], np.ones(1), float(w)) for q, w in zip(self.squares, form.weight, strict=True)]
        bases, spreads = (
            np.atleast_1d(np.square(self.out.scale) * c) for c in (form.stability_base, form.stability_spread)
        )
        y_max = form.curvature + form.sparsity
        for (members, weight, factor), base, spread in zip(groups, bases, spreads, strict=True):
            if not base + spread > 0.0:
                continue
            least, most = (math.sqrt(base + spread / y) for y in (y_max, form.curvature))
            log_y = self.variable(math.log(form.curvature), math.log(y_max))
            kept = self.sum(form.sparsity * float(w) * q for w, q in zip(weight, members, strict=True))
            self.row(exp(log_y) + kept <= y_max)
            log_gap = self.variable(math.log(least), math.log(most) + 1e-9)
            gap = self.variable(0.0, 1.001 * most, cost=factor)
            self.row(float(base) * exp(-2 * log_gap) + float(spread) * exp(-log_y - 2 * log_gap) <= 1.0)
            self.row(exp(log_gap) <= gap)
