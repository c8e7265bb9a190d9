r"""The node relaxation of OFDMA as a disciplined convex program; exact where every sub-carrier has its owner.

With upload times t_k, energies e_km and air times u_km (device k uses sub-carrier m for u_km seconds), the bits
``B_m u log2(1 + e g / (N0 B_m u))`` are jointly concave (a perspective), power ``sum_m e_km <= p_max t_k`` is
linear, and computing within ``tau = T - t - D/R`` costs ``kappa W^3 / tau^2``, or ``kappa f_min^2 W`` where it is
more: both convex. All that is not convex is ``u_km = c_km t_k``. It is replaced by ``u_km <= t_k`` and
``u_km <= t_max c_km``, which says the same where c is 0 or 1, and for shares in between is a relaxation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.solvers.backends.cvxpy_fdma import import_cvxpy
from edgealloc.units import LN2, FloatArray, IntArray

__all__ = ["OfdmaRelaxation", "ofdma_relaxation"]

MARGIN = (
    1e-6  # taken off the value of a solved relaxation, relatively: conic solvers meet their rows to about 1e-8
)


@dataclass(frozen=True, slots=True, eq=False)
class OfdmaRelaxation:
    """A relaxation whose owners are bounded by parameters: one compilation serves every node.

    Parameters
    ----------
    source, problem, scale
        The problem; the ``cvxpy.Problem``, whose objective is G divided by ``scale``.
    keep, owner
        Keep rates, shape [K]; shares of the sub-carriers, shape [K, M].
    least, most
        Parameters: bounds of ``owner``. Shape [K, M].
    """

    source: Problem
    problem: Any
    scale: float
    keep: Any
    owner: Any
    least: Any
    most: Any

    def value(
        self, least: FloatArray | None = None, most: FloatArray | None = None, solver: str = "CLARABEL"
    ) -> float:
        """Value of the relaxation with owners between bounds.

        Less :data:`MARGIN` it is a lower bound of G over all assignments within the bounds.

        Parameters
        ----------
        least, most
            Bounds of the shares; 0 and 1 by default. Shape [K, M].
        solver
            Name of a cvxpy solver.

        Returns
        -------
        float
            G of the relaxation; ``inf`` where it has no point.

        Raises
        ------
        EdgeallocError
            When the solver does not solve it, which happens at assignments that are barely feasible.
        """
        shape = self.least.shape
        self.least.value = np.zeros(shape) if least is None else least
        self.most.value = np.ones(shape) if most is None else most
        try:
            self.problem.solve(solver=solver)
        except import_cvxpy().error.SolverError as error:
            raise EdgeallocError(f"{solver} did not solve the relaxation: {error}") from error
        if self.problem.status in ("infeasible", "infeasible_inaccurate"):
            return math.inf
        if self.problem.status != "optimal":
            raise EdgeallocError(f"{solver} did not solve the relaxation: {self.problem.status}")
        return float(self.problem.value) * self.scale

    def value_of(self, owner: IntArray, solver: str = "CLARABEL") -> float:
        """Value of one assignment (shape [M], -1 for nobody): no relaxation, the best G that it allows."""
        fixed = (owner[None, :] == np.arange(self.least.shape[0])[:, None]).astype(np.float64)
        return self.value(fixed, fixed, solver)


def ofdma_relaxation(problem: Problem) -> OfdmaRelaxation:
    """The relaxation of an OFDMA problem with inverse-keep, without levels, menus, selection.

    Parameters
    ----------
    problem
        An OFDMA problem.

    Returns
    -------
    OfdmaRelaxation
        The compiled program; bounds of the owners are its parameters.

    Raises
    ------
    MissingPackageError
        Without cvxpy.
    EdgeallocError
        For other problems.
    """
    cp = import_cvxpy()
    inst, spec, term = problem.instance, problem.instance.bound, problem.stability
    if problem.underfit.name != "inverse-keep" or problem.structure.discrete != ("sub-carriers",):
        raise EdgeallocError("the OFDMA relaxation takes inverse-keep without levels, menus or selection")
    k, m = inst.gain.shape
    deadline, energy_j = inst.latency_s, inst.energy_j - inst.energy_static_j
    if np.any(energy_j <= 0):
        raise EdgeallocError(f"{inst.name}: the static energy of a device leaves nothing")
    width = subcarrier_hz(inst)
    # units: T for times, the energy budget for energies, D1 for bits, the work at full frequency for cycles
    snr = inst.gain * (energy_j / (inst.noise_psd_w_per_hz * width * deadline))[:, None]
    bits_per_use = width * deadline / LN2 / inst.payload_lora_bits
    work_fixed = inst.cycles_fixed / (inst.freq_max_hz * deadline)
    work_lora = inst.cycles_lora / (inst.freq_max_hz * deadline)
    heat = inst.capacitance * inst.freq_max_hz**3 * deadline / energy_j
    keep, time, compute = cp.Variable(k, pos=True), cp.Variable(k, nonneg=True), cp.Variable(k, nonneg=True)
    air, energy = cp.Variable((k, m), nonneg=True), cp.Variable((k, m), nonneg=True)
    owner = cp.Variable((k, m), nonneg=True)
    least, most = cp.Parameter((k, m), nonneg=True), cp.Parameter((k, m), nonneg=True)
    work = work_fixed + cp.multiply(work_lora, keep)
    bits = inst.payload_fixed_bits / inst.payload_lora_bits + keep
    download = cp.multiply(inst.payload_lora_bits / inst.downlink_bps / deadline, bits)
    left = 1.0 - time - download  # for computing
    slow = inst.freq_min_hz / inst.freq_max_hz
    longest = np.maximum(1.0 - work_fixed - work_lora * inst.keep_min, 0.0)  # of the upload
    power = inst.power_max_w * deadline / energy_j
    rows = [
        keep >= inst.keep_min,
        keep <= inst.keep_max,
        owner >= least,
        owner <= most,
        cp.sum(owner, axis=0) <= 1.0,
        air <= cp.reshape(time, (k, 1), order="C") @ np.ones((1, m)),
        air <= cp.multiply(np.repeat(longest[:, None], m, axis=1), owner),
        cp.multiply(bits_per_use, cp.sum(-cp.rel_entr(air, air + cp.multiply(snr, energy)), axis=1)) >= bits,
        cp.sum(energy, axis=1) <= cp.multiply(power, time),
        work <= left,
        cp.multiply(heat * slow**2, work) <= compute,
        cp.sum(energy, axis=1) + compute <= 1.0,
    ]
    # W^3 / tau^2 <= compute / heat, as W <= (compute / heat)^(1/3) tau^(2/3)
    for i in np.flatnonzero(heat > 0):
        rows.append(work[i] <= cp.geo_mean(cp.hstack([compute[i] / heat[i], left[i]]), p=[1, 2]))
    if inst.common_keep and k > 1:
        rows.append(keep[1:] == keep[:-1])
    square = cp.square(keep)
    kept = inst.weights @ square if problem.pooled else square
    root = cp.power(spec.curvature + 2.0 * spec.sparsity_weight * (1.0 - kept), -0.5)
    base, steep = np.sqrt(term.base * term.scale), np.sqrt(term.spread * term.scale)
    if problem.pooled:
        gap = cp.norm(cp.hstack([base, steep * root]))
    else:
        gap = inst.weights @ cp.norm(cp.vstack([base, cp.multiply(steep, root)]), axis=0)
    scale = problem.free_objective / k
    loss = spec.underfit_weight * inst.weights @ (cp.inv_pos(keep) - 1.0)
    program = cp.Problem(cp.Minimize((loss + gap) / scale), rows)
    return OfdmaRelaxation(problem, program, scale, keep, owner, least, most)
