"""Any Pyomo solver, methods ``pyomo:ipopt``, ``pyomo:scip_direct``, ``pyomo:gurobi``...; we judge every answer.

IPOPT runs as its executable where there is one, else inside CasADi, which reads the model from an AMPL file. At
its default tolerance it can be 4e-4 off while it says optimal: we set it, and scale the objective, for a
device's share of G shrinks like 1/K and the tolerance does not.
"""

from __future__ import annotations

import logging
import math
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError, needs
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.backends.judge import UNASKED, Claim, Stop, conclude, stop_of
from edgealloc.solvers.backends.logform import without_logarithm
from edgealloc.solvers.backends.pyomo_model import Form, allocation_of_model, to_pyomo
from edgealloc.solvers.base import Control, Options

__all__ = ["IPOPT_STATUSES", "STATUSES", "solve_model", "solve_pyomo"]

# pyomo.opt.TerminationCondition, all of it; anything else is a failure.
STATUSES = {
    "optimal": Stop.SOLVED,
    "globallyOptimal": Stop.SOLVED,
    "locallyOptimal": Stop.SOLVED,
    "feasible": Stop.LIMIT,
    "maxTimeLimit": Stop.LIMIT,
    "maxIterations": Stop.LIMIT,
    "maxEvaluations": Stop.LIMIT,
    "minFunctionValue": Stop.LIMIT,
    "minStepLength": Stop.LIMIT,
    "userInterrupt": Stop.LIMIT,
    "resourceInterrupt": Stop.LIMIT,
    "noSolution": Stop.LIMIT,
    "intermediateNonInteger": Stop.LIMIT,
    "infeasible": Stop.INFEASIBLE,
} | dict.fromkeys(
    (
        *("unknown", "other", "unbounded", "infeasibleOrUnbounded", "invalidProblem", "solverFailure"),
        *("internalSolverError", "error", "licensingProblems"),
    ),
    Stop.FAILED,
)

# IPOPT's return codes (IpReturnCodes_inc.h) as CasADi spells them; anything else is a failure.
IPOPT_STATUSES = {
    "Solve_Succeeded": Stop.SOLVED,
    "Solved_To_Acceptable_Level": Stop.LIMIT,
    "Search_Direction_Becomes_Too_Small": Stop.LIMIT,
    "Maximum_Iterations_Exceeded": Stop.LIMIT,
    "Maximum_CpuTime_Exceeded": Stop.LIMIT,
    "Maximum_WallTime_Exceeded": Stop.LIMIT,
    "User_Requested_Stop": Stop.LIMIT,
    "Feasible_Point_Found": Stop.LIMIT,
    "Infeasible_Problem_Detected": Stop.INFEASIBLE,
} | dict.fromkeys(
    (
        *(
            "Diverging_Iterates",
            "Restoration_Failed",
            "Error_In_Step_Computation",
            "Not_Enough_Degrees_Of_Freedom",
        ),
        *("Invalid_Problem_Definition", "Invalid_Option", "Invalid_Number_Detected", "Unrecoverable_Exception"),
        *("NonIpopt_Exception_Thrown", "Insufficient_Memory", "Internal_Error"),
    ),
    Stop.FAILED,
)

IPOPT_TOL = 1e-9
# Solvers that search the whole tree, and what their bound is worth to us.
_GLOBAL = ("scip", "scip_direct", "scip_persistent", "gurobi", "gurobi_direct_minlp", "baron", "couenne")
MARGIN = 1e-5  # taken off such a bound, relatively: their default tolerances on rows are 1e-6


def solve_pyomo(problem: Problem, options: Options | None = None, solver: str = "ipopt") -> Result:
    """Solve with a Pyomo solver, in the ``log`` form where it exists.

    Parameters
    ----------
    problem
        Its underfitting term must be ``inverse-keep`` or ``perturbation``.
    options
        Gap and limits.
    solver
        Name of a Pyomo solver.

    Returns
    -------
    Result
        As :func:`solve_model`.

    Raises
    ------
    MissingPackageError, EdgeallocError, InputError
        As :func:`~edgealloc.solvers.backends.pyomo_model.to_pyomo` and :func:`solve_model`.
    """
    options = options or Options()
    inst = problem.instance
    flat = inst.access == "fdma" and not problem.structure.discrete
    if flat and without_logarithm(problem).any():
        with Control(options) as control:
            claim = Claim(f"pyomo:{solver}", "edgealloc", "infeasible", Stop.INFEASIBLE, detail=UNASKED)
            return conclude(problem, claim, control)
    form: Form = "log" if flat else "direct"
    return solve_model(problem, to_pyomo(problem, form), solver, options, redeal=True)


def solve_model(
    problem: Problem,
    model: Any,
    solver: str = "ipopt",
    options: Options | None = None,
    *,
    redeal: bool = False,
    **settings: Any,
) -> Result:
    """Solve a model of :func:`to_pyomo`, with whatever was added to it, and judge the answer.

    Parameters
    ----------
    problem, model
        The problem and its model.
    solver
        Name of a Pyomo solver.
    options
        Gap and limits.
    redeal
        Whether a repair may deal the spectrum anew; not where rows of your own hold the shares.
    settings
        Options of the solver itself.

    Returns
    -------
    Result
        Its allocation is the model's point, repaired where it breaks a budget, and its objective ours.

    Raises
    ------
    InputError
        When the solver is not available.
    MissingPackageError
        For IPOPT when there is neither an executable nor casadi.
    """
    import pyomo.environ as pyo

    options = options or Options()
    with Control(options) as control, _Quiet():
        engine = pyo.SolverFactory(solver)
        if engine.available(exception_flag=False):
            claim = _by_pyomo(problem, model, solver, engine, options, settings)
        elif solver == "ipopt":
            needs("casadi", "pyomo", "IPOPT without an executable")
            claim = _by_casadi(problem, model, options, settings)
        else:
            allowed = "a solver that pyomo finds here (pyomo help --solvers)"
            raise InputError("options", [Fault("options", "method", f"pyomo:{solver}", allowed)])
        return conclude(problem, replace(claim, redeal=redeal), control)


class _Quiet:
    """Silences what Pyomo logs about solvers that are not there."""

    def __enter__(self) -> None:
        self.level = logging.getLogger("pyomo").level
        logging.getLogger("pyomo").setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("pyomo").setLevel(self.level)


def _scaling(problem: Problem) -> float:
    return problem.instance.num_devices / problem.free_objective


def _by_pyomo(
    problem: Problem, model: Any, solver: str, engine: Any, options: Options, settings: dict[str, Any]
) -> Claim:
    """Through Pyomo's own interface."""
    if solver == "ipopt":
        settings = {
            "tol": IPOPT_TOL,
            "obj_scaling_factor": _scaling(problem),
            "mu_strategy": "adaptive",
        } | settings
    more: dict[str, Any] = {"options": settings} if settings else {}
    if options.time_limit is not None:
        more["time_limit" if solver == "mindtpy" else "timelimit"] = options.time_limit
    answer = engine.solve(model, load_solutions=False, **more)
    native = str(answer.solver.termination_condition)
    found = len(answer.solution) > 0
    if found:
        model.solutions.load_from(answer)
    bound = float(answer.problem.lower_bound) if answer.problem.lower_bound is not None else -math.inf
    trusted = solver in _GLOBAL and math.isfinite(bound)
    return Claim(
        method=f"pyomo:{solver}",
        solver=f"{solver} in pyomo {version('pyomo')}",
        native=native,
        stop=stop_of(STATUSES, native),
        point=allocation_of_model(problem, model) if found else None,
        objective=_value(model) if found else math.nan,
        lower_bound=bound - MARGIN * abs(bound),
        reason=f"{solver}'s own, rows exact or relaxed, less {MARGIN:g} for its tolerances" if trusted else "",
    )


def _value(model: Any) -> float:
    from pyomo.environ import value

    return float(value(model.bound))


def _by_casadi(problem: Problem, model: Any, options: Options, settings: dict[str, Any]) -> Claim:
    """IPOPT inside CasADi, from an AMPL file of the model."""
    import casadi as ca
    from pyomo.repn.plugins.nl_writer import NLWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nl"
        with path.open("w") as stream:
            columns = NLWriter().write(model, stream, linear_presolve=False, scale_model=False).variables
        builder = ca.NlpBuilder()
        builder.import_nl(str(path))
    told: dict[str, Any] = {
        "tol": IPOPT_TOL,
        "obj_scaling_factor": _scaling(problem),
        "mu_strategy": "adaptive",
        "print_level": 0,
        "sb": "yes",
    }
    if options.time_limit is not None:
        told["max_wall_time"] = options.time_limit
    told |= settings
    program = {"x": ca.vertcat(*builder.x), "f": builder.f, "g": ca.vertcat(*builder.g)}
    quiet = {"print_time": False, "show_eval_warnings": False}  # a step out of the domain is taken back
    engine = ca.nlpsol("ipopt", "ipopt", program, quiet | {f"ipopt.{k}": v for k, v in told.items()})
    answer = engine(x0=builder.x_init, lbx=builder.x_lb, ubx=builder.x_ub, lbg=builder.g_lb, ubg=builder.g_ub)
    stats = engine.stats()
    native, point = str(stats["return_status"]), np.asarray(answer["x"], dtype=np.float64).ravel()
    usable = bool(np.all(np.isfinite(point))) and not any(builder.discrete)
    for variable, number in zip(columns, point, strict=True):
        variable.set_value(float(number), skip_validation=True)
    remark = "the model has integer variables, which IPOPT ignores: no point" if any(builder.discrete) else ""
    return Claim(
        method="pyomo:ipopt",
        solver=f"IPOPT in CasADi {version('casadi')}",
        native=native,
        stop=stop_of(IPOPT_STATUSES, native),
        point=allocation_of_model(problem, model) if usable else None,
        objective=float(answer["f"]) if usable else math.nan,
        detail=remark,
        iterations=int(stats["iter_count"]),
    )
