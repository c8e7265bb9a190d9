r"""IPOPT and SCIP on continuous FDMA, each in the best form we know.

IPOPT (through CasADi, MUMPS, exact Hessian) takes the logarithmic form as it stands. What it gains from: the
pooled kept share as a variable of its own, so that the Hessian stays block diagonal; rows as log-sum-exp;
the adaptive barrier; and an objective scaled so that every device counts. Without the scaling it reports
success 7e-5 away from the optimum of ``fdma-1000-s1``.

SCIP takes a geometric program: sums of exponentials of linear terms, all convex and recognised as such. The
Shannon row e^z - 1 <= SNR, z = D ln 2 / (t b), must become a sum of that kind too. We use

.. math:: e^z - 1 = z\, e^{z/2}\, \frac{\sinh(z/2)}{z/2},\qquad
          \frac{\sinh(v)}{v} = \sum_{j \ge 0} \frac{v^{2j}}{(2j+1)!}

cut off after ``terms`` terms, which needs about a third of the terms of the plain exponential series. Dropped
terms are positive, so the cut row asks for *less* power than Shannon's: the program is a relaxation, its
dual bound stays a lower bound (within SCIP's own tolerances), and its point errs to the infeasible side.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.logform import LogForm, allocation_of
from edgealloc.errors import MissingPackageError
from edgealloc.problem import Problem
from edgealloc.result import Allocation
from edgealloc.units import FloatArray

__all__ = ["PEERS", "PeerRun", "solve_ipopt", "solve_scip"]


@dataclass(frozen=True, slots=True, eq=False)
class PeerRun:
    """What a peer says, in its own words, before anybody judged it.

    Parameters
    ----------
    peer
        Name and version.
    status
        The peer's own status.
    allocation
        Its point, or None.
    objective
        The objective it reports, NaN without a point.
    lower_bound
        The dual bound it reports, ``-inf`` for a local solver.
    build_s, solve_s
        Time to build the model and to solve it, wall clock in s; ``solve_s`` is the best of all repeats.
    detail
        Iterations or nodes, and how exact the model was.
    """

    peer: str
    status: str
    allocation: Allocation | None
    objective: float
    lower_bound: float
    build_s: float
    solve_s: float
    detail: str


def solve_ipopt(problem: Problem, time_limit_s: float = 120.0, repeats: int = 1, tol: float = 1e-8) -> PeerRun:
    """Solve with IPOPT.

    Parameters
    ----------
    problem
        Continuous FDMA with the inverse-keep term.
    time_limit_s
        Wall-clock limit of one solve in s.
    repeats
        The solve is timed this often from the same start; the best time counts.
    tol
        IPOPT's ``tol``, on the scaled problem. With it the objective is right to about 1e-7 relative.

    Raises
    ------
    MissingPackageError, ValueError
        Without casadi; when the problem has no logarithmic form.
    """
    if find_spec("casadi") is None:
        raise MissingPackageError("casadi", "bench", "the peer IPOPT")
    import casadi as ca

    form = LogForm.of(problem)
    started = time.perf_counter()
    program, start, low, high, row_max, scale = _ipopt_program(ca, problem, form)
    options: dict[str, Any] = {
        "print_time": False,
        "ipopt.print_level": 0,
        "ipopt.sb": "yes",
        "ipopt.tol": tol,
        "ipopt.mu_strategy": "adaptive",
        "ipopt.nlp_scaling_method": "none",  # the form is scaled already
        "ipopt.max_wall_time": time_limit_s,
    }
    solver = ca.nlpsol("ipopt", "ipopt", program, options)
    build_s = time.perf_counter() - started
    solve_s, answer = math.inf, None
    for _ in range(repeats):
        started = time.perf_counter()
        answer = solver(x0=start, lbx=low, ubx=high, lbg=-np.inf, ubg=row_max)
        solve_s = min(solve_s, time.perf_counter() - started)
    assert answer is not None
    stats = solver.stats()
    k = problem.instance.num_devices
    point = np.asarray(answer["x"], dtype=np.float64).ravel()[: 5 * k].reshape(5, k)
    return PeerRun(
        peer=f"IPOPT (MUMPS) in CasADi {version('casadi')}",
        status=str(stats["return_status"]),
        allocation=allocation_of(problem, *point) if np.all(np.isfinite(point)) else None,
        objective=float(answer["f"]) / scale,
        lower_bound=-math.inf,
        build_s=build_s,
        solve_s=solve_s,
        detail=f"{stats['iter_count']} iterations, tol {tol:g}",
    )


def _ipopt_program(ca: Any, problem: Problem, form: LogForm) -> tuple[Any, ...]:
    """The logarithmic form for CasADi: program, start, variable bounds, row maxima, objective scale."""
    k = problem.instance.num_devices
    x, tau, eps, phi, beta = (ca.SX.sym(name, k) for name in ("x", "tau", "eps", "phi", "beta"))
    latency = form.download_fixed + form.download_lora * ca.exp(x) + ca.exp(tau)
    latency += form.compute_fixed * ca.exp(-phi) + form.compute_lora * ca.exp(x - phi)
    energy = form.energy_fixed * ca.exp(2 * phi) + form.energy_lora * ca.exp(2 * phi + x) + ca.exp(eps)
    payload = ca.log(form.head + ca.exp(x)) if form.head.any() else x
    softplus = ca.log1p(ca.exp(eps - tau - beta + form.snr))
    rows = [
        ca.log(latency),
        ca.log(energy),
        eps - tau + form.power,
        payload + form.nats - tau - beta - ca.log(softplus),
        ca.sum1(ca.exp(beta)),
    ]
    row_max = [np.zeros(4 * k), np.ones(1)]
    variables = [x, tau, eps, phi, beta]
    free = np.full(k, np.inf)
    low, high = [form.x_min, -free, -free, form.phi_min, -free], [form.x_max, free, free, np.zeros(k), free]
    start = [
        np.clip(np.log(0.3), form.x_min, form.x_max) * np.ones(k),  # middling values; IPOPT moves off bounds
        np.full(k, np.log(0.4)),
        np.full(k, np.log(0.4)),
        np.clip(np.log(0.6), form.phi_min, 0.0) * np.ones(k),
        np.full(k, -np.log(k) - 0.1),
    ]
    objective = ca.sum1(form.underfit * (ca.exp(-x) - 1))
    if form.pooled:
        share = ca.SX.sym("share")  # Q = sum w s^2: one column instead of a dense K x K Hessian
        rows.append(ca.sum1(form.weight * ca.exp(2 * x)) - share)
        row_max.append(np.zeros(1))
        variables.append(share)
        low, high, start = [*low, np.zeros(1)], [*high, np.ones(1)], [*start, np.full(1, 0.2)]
        y = form.curvature + form.sparsity * (1 - share)
        objective += ca.sqrt(float(form.stability_base) + float(form.stability_spread) / y)
    else:
        y = form.curvature + form.sparsity * (1 - ca.exp(2 * x))
        objective += ca.sum1(form.weight * ca.sqrt(form.stability_base + form.stability_spread / y))
    # IPOPT's tolerance is absolute and a device's share of G shrinks like 1/K; sqrt(K) was the fastest of
    # 1, sqrt(K) and K among those that reach 1e-7 at K = 1000.
    scale = math.sqrt(k) / problem.free_objective
    program = {"x": ca.vertcat(*variables), "f": scale * objective, "g": ca.vertcat(*rows)}
    arrays = (np.concatenate(parts) for parts in (start, low, high, row_max))
    return (program, *arrays, scale)


# SCIP needs bounds. These are far outside of what a cell uses; a point that touches them is reported as such
# and its dual bound discarded, for a bound under a restriction bounds nothing.
SHARE_LOG = (-30.0, 0.0)  # log t/T, log e/E, log b/B
NATS_LOG = (-12.0, 4.0)  # log z, z = D ln 2 / (t b): spectral efficiencies up to 78 bit/s/Hz
SNR_LOG = (-20.0, 60.0)


def solve_scip(
    problem: Problem, time_limit_s: float = 120.0, rel_gap: float = 1e-6, terms: int = 14, feastol: float = 1e-8
) -> PeerRun:
    """Solve with SCIP in geometric-program form.

    Parameters
    ----------
    problem
        Continuous FDMA with the inverse-keep term.
    time_limit_s
        Wall-clock limit in s.
    rel_gap
        SCIP's ``limits/gap``.
    terms
        Terms of the sinh series; ``detail`` states the largest relative error it leaves in e^z - 1.
    feastol
        SCIP's feasibility tolerance. At its default 1e-6 it ends 2e-5 below the optimum of
        ``fdma-100-s1``.

    Raises
    ------
    MissingPackageError, ValueError
        Without pyscipopt; when the problem has no logarithmic form.
    """
    if find_spec("pyscipopt") is None:
        raise MissingPackageError("pyscipopt", "bench", "the peer SCIP")
    import pyscipopt as scip

    form = LogForm.of(problem)
    started = time.perf_counter()
    model, points = _scip_program(scip, problem, form, terms)
    model.setParams({"limits/gap": rel_gap, "limits/time": time_limit_s, "numerics/feastol": feastol})
    build_s = time.perf_counter() - started
    started = time.perf_counter()
    model.optimize()
    solve_s = time.perf_counter() - started
    found = model.getNSols() > 0
    point = np.array([[model.getVal(v) for v in row] for row in points]).T if found else np.zeros((5, 0))
    detail = f"{model.getNTotalNodes()} nodes, gap {rel_gap:g}, feastol {feastol:g}"
    boxed = False
    if found:
        log_z = _log_nats(form, point)
        missing = _truncation(log_z, terms)
        detail += f", {terms} terms, series short by {missing:.1e}"
        inside = NATS_LOG[0] + 0.1 < log_z.min() and log_z.max() < NATS_LOG[1] - 0.1
        boxed = not (inside and np.min(point[[1, 2, 4]]) > SHARE_LOG[0] + 0.1)
        detail += ", touches SCIP's variable bounds: no dual bound" if boxed else ""
    return PeerRun(
        peer=f"SCIP {model.version()} in PySCIPOpt {version('pyscipopt')}",
        status=str(model.getStatus()),
        allocation=allocation_of(problem, *point) if found else None,
        objective=float(model.getObjVal()) if found else math.nan,
        lower_bound=-math.inf if boxed else float(model.getDualbound()),
        build_s=build_s,
        solve_s=solve_s,
        detail=detail,
    )


def _scip_program(scip: Any, problem: Problem, form: LogForm, terms: int) -> tuple[Any, list[tuple[Any, ...]]]:
    """The geometric program for SCIP: the model and (x, tau, eps, phi, beta) of each device."""
    exp, total = scip.exp, scip.quicksum
    model = scip.Model("fdma")
    model.hideOutput()

    def variable(low: float, high: float, cost: float = 0.0) -> Any:
        return model.addVar(lb=float(low), ub=float(high), obj=cost)

    points: list[tuple[Any, ...]] = []
    for k in range(problem.instance.num_devices):
        x, phi = variable(form.x_min[k], form.x_max[k]), variable(form.phi_min[k], 0.0)
        tau, eps, beta = (variable(*SHARE_LOG) for _ in range(3))
        compute = form.compute_fixed[k] * exp(-phi) + form.compute_lora[k] * exp(x - phi)
        model.addCons(compute + form.download_lora[k] * exp(x) + exp(tau) <= 1.0 - form.download_fixed[k])
        energy = form.energy_fixed[k] * exp(2 * phi) + form.energy_lora[k] * exp(2 * phi + x)
        model.addCons(energy + exp(eps) <= 1.0)
        model.addCons(eps - tau <= -form.power[k])
        payload = x
        if form.head[k] > 0:  # payload >= log(D0/D1 + s) is a posynomial row as well
            payload = variable(*np.log(form.head[k] + np.exp([form.x_min[k], form.x_max[k]])))
            model.addCons(form.head[k] * exp(-payload) + exp(x - payload) <= 1.0)
        # zeta = log z and z = e^zeta as two variables: terms then share two columns, not four
        zeta, z, snr = variable(*NATS_LOG), variable(0.0, math.exp(NATS_LOG[1])), variable(*SNR_LOG)
        model.addCons(zeta >= payload - tau - beta + form.nats[k])
        model.addCons(exp(zeta) <= z)
        model.addCons(snr <= eps - tau - beta + form.snr[k])
        series = (exp((2 * j + 1) * zeta + 0.5 * z - snr + c) for j, c in enumerate(_log_sinhc(terms)))
        model.addCons(total(series) <= 1.0)
        points.append((x, tau, eps, phi, beta))
    model.addCons(total(exp(point[4]) for point in points) <= 1.0)
    keep = [point[0] for point in points]
    underfit = variable(0.0, float(form.underfit @ np.exp(-form.x_min)), cost=1.0)
    model.addCons(total(a * exp(-x) for a, x in zip(form.underfit, keep, strict=True)) <= underfit)
    model.addObjoffset(-float(form.underfit.sum()))
    groups = [(keep, form.weight, 1.0)]
    if not form.pooled:
        groups = [([x], np.ones(1), float(w)) for x, w in zip(keep, form.weight, strict=True)]
    bases, spreads = np.atleast_1d(form.stability_base), np.atleast_1d(form.stability_spread)
    for (members, weight, factor), base, spread in zip(groups, bases, spreads, strict=True):
        _scip_stability(scip, variable, model, form, members, weight, factor, float(base), float(spread))
    return model, points


def _scip_stability(
    scip: Any,
    variable: Callable[..., Any],
    model: Any,
    form: LogForm,
    members: list[Any],
    weight: FloatArray,
    factor: float,
    base: float,
    spread: float,
) -> None:
    """Add ``factor sqrt(base + spread / y)``, y = Lam + 2 lam (1 - sum w s^2), to the objective as posynomials."""
    exp = scip.exp
    y_max = form.curvature + form.sparsity
    least, most = (math.sqrt(base + spread / y) for y in (y_max, form.curvature))
    log_y = variable(math.log(form.curvature), math.log(y_max))
    squares = scip.quicksum(form.sparsity * w * exp(2 * x) for w, x in zip(weight, members, strict=True))
    model.addCons(exp(log_y) + squares <= y_max)
    log_gap, gap = variable(math.log(least), math.log(most)), variable(0.0, most, cost=factor)
    model.addCons(base * exp(-2 * log_gap) + spread * exp(-log_y - 2 * log_gap) <= 1.0)
    model.addCons(exp(log_gap) <= gap)


def _log_sinhc(terms: int) -> list[float]:
    """Logs of the coefficients of z^(2j) in sinh(z/2) / (z/2): 1 / (4^j (2j+1)!)."""
    return [-j * math.log(4.0) - math.lgamma(2 * j + 2) for j in range(terms)]


def _log_nats(form: LogForm, point: FloatArray) -> FloatArray:
    """log z of every device at a point (x, tau, eps, phi, beta), shape [5, K]."""
    x, tau, _, _, beta = point
    return np.asarray(np.log(form.head + np.exp(x)) + form.nats - tau - beta)


def _truncation(log_z: FloatArray, terms: int) -> float:
    """Largest share of e^z - 1 that the cut series misses."""
    logs = np.array(_log_sinhc(terms + 80))[:, None] + 2.0 * np.arange(terms + 80)[:, None] * log_z
    parts = np.exp(logs - logs.max(axis=0))
    return float(np.max(parts[terms:].sum(axis=0) / parts.sum(axis=0)))


PEERS: dict[str, Callable[..., PeerRun]] = {"ipopt": solve_ipopt, "scip": solve_scip}
