r"""FDMA as a disciplined convex program for any conic solver of cvxpy, methods ``cvxpy`` and ``cvxpy:NAME``.

The rows are those of :mod:`edgealloc.solvers.backends.logform`; every one is DCP, built from exponential cones.
The stability term ``sqrt(base + spread / y)`` is the norm of ``(sqrt(base), sqrt(spread) y^(-1/2))``, convex
because y is concave in x. Channel gains enter through one parameter, additively, so that solving again for new
channels needs no compilation (DPP).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import EnergyCap, PowerCap, SpectrumCap
from edgealloc.data.outcome import Status
from edgealloc.errors import Fault, InputError, RefusedError, needs
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.backends.judge import UNASKED, Claim, Stop, conclude, stop_of
from edgealloc.solvers.backends.logform import (
    LogForm,
    allocation_of,
    mean_exponential,
    quadrature_error,
    without_logarithm,
)
from edgealloc.solvers.base import Control, Options
from edgealloc.units import FloatArray

__all__ = ["STATUSES", "ConvexModel", "import_cvxpy", "solve_cvxpy", "to_cvxpy"]

# Every status of cvxpy 1.9 (cvxpy/settings.py); any other is a failure.
STATUSES = {
    "optimal": Stop.SOLVED,
    "optimal_inaccurate": Stop.LIMIT,
    "user_limit": Stop.LIMIT,
    "infeasible": Stop.INFEASIBLE,
    "infeasible_inaccurate": Stop.INFEASIBLE,
    "infeasible_or_unbounded": Stop.FAILED,
    "unbounded": Stop.FAILED,
    "unbounded_inaccurate": Stop.FAILED,
    "solver_error": Stop.FAILED,
}

# Exponential cones and a time limit: what each solver needs to be told. Preferred first.
_SETTINGS: dict[str, dict[str, Any]] = {
    "CLARABEL": {
        **{"tol_gap_rel": 1e-9, "tol_gap_abs": 1e-10, "tol_feas": 1e-9, "max_iter": 400},
        # Its default (10 passes, factors of 1e-4 to 1e4) makes no progress with 1000 devices.
        **{"equilibrate_max_iter": 50, "equilibrate_min_scaling": 1e-6, "equilibrate_max_scaling": 1e6},
    },
    "MOSEK": {},
    "ECOS": {"abstol": 1e-9, "reltol": 1e-9, "feastol": 1e-9, "max_iters": 400},
    "SCS": {"eps_abs": 1e-7, "eps_rel": 1e-7, "max_iters": 100_000},
}
_SECOND_TRY: dict[str, dict[str, Any]] = {"CLARABEL": {"equilibrate_enable": False}}  # after a failure
_HAIR = 1e-7  # relative: what rows of a problem's own are tightened by, above what solvers break them by
USER_TOLERANCE = 1e-6  # what a user's constraint may be broken by, in its own units, at the repaired point
_TIME_LIMITS = {"CLARABEL": "time_limit", "SCS": "time_limit_secs"}


def import_cvxpy() -> Any:
    """The package cvxpy, which is imported only where it is used.

    Raises
    ------
    MissingPackageError
        Without cvxpy; the message names its extra.
    """
    needs("cvxpy", "cvxpy", "a back end of cvxpy")
    import cvxpy

    return cvxpy


@dataclass(frozen=True, slots=True, eq=False)
class ConvexModel:
    """A cvxpy problem together with the meaning of its variables; add constraints of your own and solve.

    Parameters
    ----------
    source
        The problem that it models.
    problem
        The ``cvxpy.Problem``; its objective is the bound G divided by ``scale``.
    keep, upload_time, upload_energy, frequency, bandwidth, efficiency
        Variables (the bandwidth: an affine expression) of shape [K]. All but the last are natural *logarithms*:
        of the keep rate s, of t / T, of the upload energy over E - E0, of f / f_max, of b / B. The efficiency is
        ln(1 + SNR).
    energy_per_bit
        Parameter of shape [K], the only place where gains enter.
    scale
        Divisor of the objective.
    """

    source: Problem
    problem: Any
    keep: Any
    upload_time: Any
    upload_energy: Any
    frequency: Any
    bandwidth: Any
    efficiency: Any
    energy_per_bit: Any
    scale: float

    @property
    def allocation(self) -> Allocation | None:
        """The allocation in SI units that the variables hold, as the solver left it; None before a solve."""
        names = (self.keep, self.upload_time, self.upload_energy, self.frequency, self.bandwidth)
        if any(v.value is None for v in names):
            return None
        return allocation_of(self.source, *(np.asarray(v.value, dtype=np.float64) for v in names))

    def with_gain(self, gain: FloatArray) -> ConvexModel:
        """The same compiled model for new channel gains.

        Parameters
        ----------
        gain
            Channel power gains. Shape [K].

        Returns
        -------
        ConvexModel
            It shares its program with the old one, which must no longer be used.
        """
        inst = self.source.instance.with_changes(gain=gain)
        source = Problem(inst, self.source.underfit, self.source.constraints)
        form = LogForm.of(source)
        self.energy_per_bit.value = form.nats - form.snr
        values = {name: getattr(self, name) for name in self.__slots__}
        return ConvexModel(**(values | {"source": source}))

    def solve(
        self, constraints: Sequence[Any] = (), solver: str = "", options: Options | None = None, **settings: Any
    ) -> Result:
        """Solve, with constraints of your own if you like, and judge the answer.

        Parameters
        ----------
        constraints
            cvxpy constraints on the variables of this model.
        solver
            Name of a cvxpy solver; the best installed one by default.
        options
            Gap and limits.
        settings
            Passed on to the solver.

        Returns
        -------
        Result
            With constraints, ``lower_bound`` is that of the problem *without* them, which is still a bound, and
            the message says how far the repaired point breaks them (it keeps less, and takes no more spectrum).

        Raises
        ------
        InputError
            When the solver is not installed, or cannot be given a time limit and one was asked for.
        """
        cp = import_cvxpy()
        options = options or Options()
        name = _solver_name(cp, solver)
        told = _SETTINGS.get(name, {}) | settings
        if options.time_limit is not None:
            if name not in _TIME_LIMITS:
                known = ", ".join(_TIME_LIMITS)
                raise InputError("options", [Fault("options", "time_limit", name, f"a solver among {known}")])
            told[_TIME_LIMITS[name]] = options.time_limit
        program = self.problem
        if constraints:
            program = cp.Problem(program.objective, [*program.constraints, *constraints])
        with Control(options) as control:
            error = _run(cp, program, name, told)
            if error and name in _SECOND_TRY and not control.stopped():
                if options.time_limit is not None:
                    told[_TIME_LIMITS[name]] = max(options.time_limit - control.seconds, 0.01)
                error = _run(cp, program, name, told | _SECOND_TRY[name])
            native = "solver_error" if error else str(program.status)
            point = None if error else self.allocation
            detail = error
            if point is not None:
                detail = f"rate rows short by {quadrature_error(np.maximum(self.efficiency.value, 1e-9)):.1g}"
            claim = Claim(
                method=f"cvxpy:{name}",
                solver=f"{name} in cvxpy {version('cvxpy')}",
                native=native,
                stop=stop_of(STATUSES, native),
                point=point if native not in ("infeasible", "unbounded") else None,
                objective=float(program.value) * self.scale if point is not None else math.nan,
                detail=detail,
                iterations=int(getattr(program.solver_stats, "num_iters", 0) or 0) if not error else 0,
                redeal=not (constraints or self.source.constraints),
            )
            result = conclude(self.source, claim, control)
        return self._with_users_rows(result, constraints) if constraints else result

    def _with_users_rows(self, result: Result, constraints: Sequence[Any]) -> Result:
        """The result, unless the user's constraints are broken at the repaired point."""
        if result.allocation is None:
            return result
        inst, k = self.source.instance, self.source.instance.num_devices
        point, (fair,) = result.allocation, self.bandwidth.variables()
        assert point.bandwidth_hz is not None
        use = self.source.evaluate(point)
        time_s = (inst.payload_fixed_bits + inst.payload_lora_bits * point.keep) / use.rate_bps
        self.keep.value = np.log(point.keep)
        self.upload_time.value = np.log(time_s / inst.latency_s)
        self.upload_energy.value = np.log(point.power_w * time_s / (inst.energy_j - inst.energy_static_j))
        self.frequency.value = np.log(point.freq_hz / inst.freq_max_hz)
        fair.value = np.log(point.bandwidth_hz * k / inst.bandwidth_hz)
        self.efficiency.value = np.log1p(
            point.power_w * inst.gain / (inst.noise_psd_w_per_hz * point.bandwidth_hz)
        )
        worst = max(float(np.max(c.violation())) for c in constraints)
        message = f"{result.message}; your constraints are broken by {worst:.2g} at the repaired point"
        if worst <= USER_TOLERANCE:
            return replace(result, message=message)
        return replace(result, message=message, status=Status.NO_SOLUTION, allocation=None, objective=math.inf)


def to_cvxpy(problem: Problem) -> ConvexModel:
    """The continuous FDMA problem as a cvxpy problem, for constraints of your own and any conic solver.

    Parameters
    ----------
    problem
        A log-convex problem with FDMA.

    Returns
    -------
    ConvexModel
        Its program and variables, with a method to solve it. Everything in it is dimensionless.

    Raises
    ------
    MissingPackageError
        Without cvxpy.
    RefusedError
        When the problem is not log-convex, or has constraints other than caps on spectrum, power and energy.
    EdgeallocError
        When a device has no gain or no energy.
    """
    cp = import_cvxpy()
    if problem.instance.access == "ofdma":
        raise RefusedError(
            "OFDMA is not convex; its relaxation is edgealloc.solvers.backends.cvxpy_ofdma.ofdma_relaxation"
        )
    if not problem.structure.log_convex:
        why = "; ".join(problem.structure.reasons)
        raise RefusedError(f"cvxpy takes log-convex problems only: {why}")
    problem = problem.tightened
    form, k = LogForm.of(problem), problem.instance.num_devices
    x, tau, eps, phi, fair, v = (
        cp.Variable(k, name=name)
        for name in ("log_keep", "log_upload_time", "log_upload_energy", "log_freq", "log_fair_band", "efficiency")
    )
    beta = fair - math.log(k)  # b K / B is near 1 in any cell; b / B would be near 0 in large ones
    energy_per_bit = cp.Parameter(k, name="log_energy_per_bit", value=form.nats - form.snr)
    compute = _posynomial(cp, (form.compute_fixed, -phi), (form.compute_lora, x - phi))
    energy = _posynomial(cp, (form.energy_fixed, 2 * phi), (form.energy_lora, x + 2 * phi))
    download = _posynomial(cp, (form.download_lora, x))
    payload = x
    if form.head.any():
        payload = cp.log_sum_exp(cp.vstack([x, np.log(np.maximum(form.head, 1e-300))]), axis=0)
    nodes, logs = mean_exponential()
    spread = cp.reshape(v, (k, 1), order="C") @ nodes[None, :] + np.tile(logs, (k, 1))
    rows = [
        download + compute + cp.exp(tau) <= 1.0 - form.download_fixed,
        energy + cp.exp(eps) <= 1.0,
        eps - tau + form.power <= 0.0,
        payload + form.nats - tau - beta <= cp.log(v),
        payload + energy_per_bit + cp.log_sum_exp(spread, axis=1) <= eps,
        cp.sum(cp.exp(fair)) <= k,
        x >= form.x_min,
        x <= form.x_max,
        phi >= form.phi_min,
        phi <= 0.0,
    ]
    if problem.instance.common_keep and k > 1:
        rows.append(x[1:] == x[:-1])
    rows += _constraints(cp, problem, cp.exp(beta), cp.exp(eps - tau), energy + cp.exp(eps))
    loss = form.underfit @ (cp.exp(-x) - 1.0)
    square = cp.exp(2.0 * x)
    kept = form.weight @ square if form.pooled else square
    inverse_root = cp.power(form.curvature + form.sparsity * (1.0 - kept), -0.5)
    base, steep = np.sqrt(form.stability_base), np.sqrt(form.stability_spread)
    if form.pooled:
        gap = cp.norm(cp.hstack([base, steep * inverse_root]))
    else:
        gap = form.weight @ cp.norm(cp.vstack([base, cp.multiply(steep, inverse_root)]), axis=0)
    scale = problem.size / k  # a device's share of G shrinks like 1/K, tolerances do not
    program = cp.Problem(cp.Minimize((loss + gap) / scale), rows)
    return ConvexModel(problem, program, x, tau, eps, phi, beta, v, energy_per_bit, scale)


def _constraints(cp: Any, problem: Problem, share: Any, power: Any, energy: Any) -> list[Any]:
    """Caps of the problem as rows, each divided by its limit and a hair within it, for points are not exact.

    ``share`` is the share of the band, ``power`` that of what spends the budget in the deadline, ``energy`` what
    is used of the budget beyond its static part. Shapes [K].

    Raises
    ------
    RefusedError
        For another kind of constraint.
    """
    inst, rows = problem.instance, []
    budget = inst.energy_j - inst.energy_static_j
    for row in problem.constraints:
        limit, weight = row.limit or 1.0, row.weights(inst)
        most = (1.0 - _HAIR) * row.limit / limit
        if isinstance(row, SpectrumCap):
            rows.append((weight * inst.bandwidth_hz / limit) @ share <= most)
        elif isinstance(row, PowerCap):
            rows.append((weight * budget / (inst.latency_s * limit)) @ power <= most)
        elif isinstance(row, EnergyCap):
            fixed = float(weight @ inst.energy_static_j) / limit
            rows.append((weight * budget / limit) @ energy <= most - fixed)
        else:
            raise RefusedError(f"cvxpy takes caps on spectrum, power and energy; this is {row}")
    return rows


def _posynomial(cp: Any, *terms: tuple[FloatArray, Any]) -> Any:
    """``sum coefficient exp(exponent)`` over the terms that have a coefficient at all. Shape [K]."""
    return sum((cp.multiply(c, cp.exp(e)) for c, e in terms if np.any(c > 0)), start=0.0)


def _run(cp: Any, program: Any, name: str, settings: dict[str, Any]) -> str:
    """Solve a cvxpy problem; what the solver says where it fails, for cvxpy has no status for it then."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # the status says so
            program.solve(solver=name, **settings)
    except cp.error.SolverError as error:
        return str(error).splitlines()[0]
    return ""


def _solver_name(cp: Any, wanted: str) -> str:
    """The solver asked for, or the best one installed, in cvxpy's spelling.

    Raises
    ------
    InputError
        When it is not installed.
    """
    installed = [name for name in _SETTINGS if name in cp.installed_solvers()]
    if not wanted:
        return installed[0]
    if wanted.upper() not in cp.installed_solvers():
        allowed = f"an installed cvxpy solver with exponential cones: {', '.join(installed)}"
        raise InputError("options", [Fault("options", "method", f"cvxpy:{wanted}", allowed)])
    return wanted.upper()


def solve_cvxpy(problem: Problem, options: Options | None = None, solver: str = "") -> Result:
    """Solve a log-convex problem with a conic solver; the answer is judged by us.

    Parameters
    ----------
    problem
        A log-convex problem with FDMA.
    options
        Gap and limits.
    solver
        Name of a cvxpy solver; the best one installed by default.

    Returns
    -------
    Result
        Its allocation is the solver's point, repaired where it breaks a budget; its bound is ours, by weak
        duality.

    Raises
    ------
    MissingPackageError, InputError, EdgeallocError
        As :func:`to_cvxpy` and :meth:`ConvexModel.solve`.
    """
    options = options or Options()
    if without_logarithm(problem).any():
        import_cvxpy()  # a missing package is said before anything else
        with Control(options) as control:
            claim = Claim("cvxpy", "edgealloc", "infeasible", Stop.INFEASIBLE, detail=UNASKED)
            return conclude(problem, claim, control)
    return to_cvxpy(problem).solve(solver=solver, options=options)
