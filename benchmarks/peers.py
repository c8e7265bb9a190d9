r"""IPOPT and SCIP on continuous FDMA, each in the best form we know.

IPOPT (through CasADi, MUMPS, exact Hessian) takes the logarithmic form (:mod:`edgealloc.solvers.backends.logform`)
with Shannon's rate as it stands. What it gains from: the pooled kept share as a variable of its own, so that the
Hessian stays block diagonal; rows as log-sum-exp; the adaptive barrier; and an objective scaled so that every
device counts. Without the scaling it reports success 7e-5 away from the optimum of ``fdma-1000-s1``.

SCIP takes the model of :mod:`edgealloc.solvers.backends.scip_model`: sums of exponentials of linear terms, all
convex and recognised as such, Shannon's rate through a short quadrature that errs to the side of a relaxation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.errors import EdgeallocError, needs
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.backends.logform import LogForm, allocation_of
from edgealloc.solvers.backends.scip_model import TERMS, build

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
    MissingPackageError, EdgeallocError
        Without casadi; when the problem has no logarithmic form.
    """
    needs("casadi", "bench", "the peer IPOPT")
    import casadi as ca

    if problem.underfit.name != "inverse-keep" or problem.structure.discrete or problem.instance.common_keep:
        raise EdgeallocError(f"{problem.instance.name}: IPOPT takes continuous FDMA, inverse-keep, own rates")
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


def solve_scip(
    problem: Problem, time_limit_s: float = 120.0, rel_gap: float = 1e-6, terms: int = TERMS, feastol: float = 1e-8
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
        Terms of the quadrature; ``detail`` states the largest relative error it leaves in the upload energy.
    feastol
        SCIP's feasibility tolerance; its default 1e-6 shows in the objective of large cells.

    Raises
    ------
    MissingPackageError, EdgeallocError
        Without pyscipopt; when the problem has no logarithmic form.
    """
    started = time.perf_counter()
    out = build(problem, terms)
    model = out.model
    model.setParams({"limits/gap": rel_gap, "limits/time": time_limit_s, "numerics/feastol": feastol})
    build_s = time.perf_counter() - started
    started = time.perf_counter()
    model.optimize()
    solve_s = time.perf_counter() - started
    found = model.getNSols() > 0
    short = f", {terms} terms, upload energy short by {out.shortfall(terms):.1g}" if found else ""
    return PeerRun(
        peer=f"SCIP {model.version()} in PySCIPOpt {version('pyscipopt')}",
        status=str(model.getStatus()),
        allocation=out.point() if found else None,
        objective=float(model.getObjVal()) / out.scale if found else math.nan,
        lower_bound=float(model.getDualbound()) / out.scale,
        build_s=build_s,
        solve_s=solve_s,
        detail=f"{model.getNTotalNodes()} nodes, gap {rel_gap:g}, feastol {feastol:g}{short}",
    )


PEERS: dict[str, Callable[..., PeerRun]] = {"ipopt": solve_ipopt, "scip": solve_scip}
