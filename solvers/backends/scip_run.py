"""SCIP as a global oracle for every access scheme and variant, method ``scip``."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.metadata import version
from typing import Any

import numpy as np

from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.solvers.backends.judge import UNASKED, Claim, Stop, conclude, stop_of
from edgealloc.solvers.backends.logform import without_logarithm
from edgealloc.solvers.backends.scip_model import TERMS, V_MAX, build
from edgealloc.solvers.base import Control, Options

__all__ = ["FEASTOL", "STATUSES", "solve_scip"]

# Every status of SCIP 9 and 10 (scip/type_stat.h) in PySCIPOpt's spelling; any other is a failure.
STATUSES = {
    "optimal": Stop.SOLVED,
    "gaplimit": Stop.SOLVED,
    "infeasible": Stop.INFEASIBLE,
    "inforunbd": Stop.FAILED,
    "unbounded": Stop.FAILED,
    "unknown": Stop.FAILED,
} | dict.fromkeys(
    (
        *("timelimit", "userinterrupt", "terminate", "nodelimit", "totalnodelimit", "stallnodelimit", "memlimit"),
        *("sollimit", "bestsollimit", "restartlimit", "primallimit", "duallimit"),
    ),
    Stop.LIMIT,
)

FEASTOL = 1e-8  # at SCIP's own 1e-6 it ends 2e-5 below the optimum of fdma-100-s1
# Rows that hold to FEASTOL only make a relaxation; what its duals and sums are wrong by is taken off its bound.
MARGIN = 1e-6  # relative
# Variables beyond which SCIP goes without its local NLP searches: the Ipopt that PySCIPOpt 6 ships corrupts memory
# there and aborts the process (400 FDMA devices; 250, with 2250 variables, are solved). It costs SCIP incumbents.
NLP_MOST = 2500
_LOOK_S = 0.05  # how often a running SCIP is asked to stop, once somebody wants it to


def solve_scip(problem: Problem, options: Options | None = None) -> Result:
    """Solve with SCIP; the answer is judged by us.

    Parameters
    ----------
    problem
        Any access scheme, with any variant but curves and users' functions.
    options
        Gap, limits, callback.

    Returns
    -------
    Result
        Its bound is SCIP's, on a program that is a relaxation, less :data:`MARGIN`, or ours where that is better.

    Raises
    ------
    MissingPackageError, EdgeallocError
        As :func:`build`.
    """
    options = options or Options()
    with Control(options) as control:
        if without_logarithm(problem).any() and problem.instance.exclusion_penalty is None:
            return conclude(
                problem, Claim("scip", "edgealloc", "infeasible", Stop.INFEASIBLE, detail=UNASKED), control
            )
        out = build(problem)
        model = out.model
        model.setParams({"limits/gap": 0.5 * options.rel_gap, "numerics/feastol": FEASTOL})
        if model.getNVars() > NLP_MOST:
            model.setParam("heuristics/subnlp/freq", -1)
        model.setParams({"randomization/randomseedshift": options.seed, "parallel/maxnthreads": 1})
        if options.time_limit is not None:
            model.setParam("limits/time", max(options.time_limit - control.seconds, 0.01))
        _optimize(model, control)
        native = str(model.getStatus())
        found = model.getNSols() > 0
        boxed = (
            found and float(np.max(out.values_of_v, initial=0.0)) > 0.99 * V_MAX
        )  # a bound of ours, not implied
        bound = float(model.getDualbound()) / out.scale
        claim = Claim(
            method="scip",
            solver=f"SCIP {model.version()} in PySCIPOpt {version('pyscipopt')}",
            native=native,
            stop=stop_of(STATUSES, native),
            point=out.point() if found else None,
            objective=float(model.getObjVal()) / out.scale if found else math.nan,
            lower_bound=bound - MARGIN * abs(bound),
            reason=""
            if boxed
            else f"SCIP's own; its rows and tolerances only relax; less {MARGIN:g} for rounding",
            detail=f"upload energy short by {out.shortfall(TERMS):.1g}" if found else "",
            nodes=int(model.getNTotalNodes()),
        )
        return conclude(problem, claim, control)


def _optimize(model: Any, control: Control) -> None:
    """Run SCIP on a thread of its own, while this one hears of Ctrl-C.

    SCIP's own handler of the signal prints on standard output, and hides the interrupt from :class:`Control`.
    """
    model.setParam("misc/catchctrlc", False)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(model.optimizeNogil)
        try:
            while not wait([work], _LOOK_S).done:
                if control.reason:
                    model.interruptSolve()
        except BaseException:  # a second Ctrl-C: the pool waits for SCIP, which must not go on to its end
            model.interruptSolve()
            raise
    work.result()
