"""The methods that ``solve`` knows: what each takes, where it is, how one is chosen."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from edgealloc.data.outcome import Snapshot, Status
from edgealloc.errors import EdgeallocError, Fault, InputError, MissingPackageError, RefusedError, did_you_mean
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result

if TYPE_CHECKING:
    from edgealloc.solvers.base import Options

__all__ = ["METHODS", "Method", "choose", "exact_names", "find_method"]

# What arithmetic and its assumptions raise where they fail; what the machine or its packages lack raises on.
_BREAKDOWNS = (ArithmeticError, ValueError, LookupError, AssertionError, EdgeallocError)


@dataclass(frozen=True, slots=True)
class Method:
    """A solution method and what it takes.

    Parameters
    ----------
    name
        Name for ``solve(method=...)``.
    summary
        One line for lists and help texts.
    takes
        Whether it solves a problem, judged by the facts that the problem states.
    needs
        What ``takes`` asks for, in words.
    entry
        ``module:function`` of ``(problem, options) -> Result``, imported when first used. A back end that knows
        several solvers takes the name of one as a third argument.
    solver
        That name; empty for the back end's own choice.
    chosen
        Whether ``auto`` and ``compare`` choose the method on their own.
    plain_devices
        Up to how many devices a first solve runs as Python, sooner than compiled code is there.
    """

    name: str
    summary: str
    takes: Callable[[Problem], bool]
    needs: str
    entry: str
    solver: str = ""
    chosen: bool = True
    plain_devices: int = 0

    def run(self, problem: Problem, options: Options) -> Result:
        """Solve a problem, after compiling what that needs and this machine lacks.

        A method that breaks down on a valid problem gives ``error``, or ``feasible`` with the warm start where
        that is within all budgets. What the caller's own callback raises is raised.

        Raises
        ------
        InputError
            For a bad option.
        MissingPackageError
            Without a package that the method needs.
        RefusedError
            When the method does not take the problem.
        """
        from edgealloc.solvers.compiling.clock import Clock

        module, function = self.entry.split(":")
        entry = getattr(import_module(module), function)
        named = (self.solver,) if self.solver else ()
        callback, from_outside = options.callback, list[Exception]()

        def told(snapshot: Snapshot) -> bool | None:
            assert callback is not None
            try:
                return callback(snapshot)
            except Exception as error:
                from_outside.append(error)
                raise

        asked = options if callback is None else replace(options, callback=told)
        clock = Clock()
        try:
            with self._ready(problem):
                result: Result = entry(problem, asked, *named)
        except (InputError, MissingPackageError, RefusedError):
            raise
        except _BREAKDOWNS as error:
            if error in from_outside:
                raise
            result = _broken_down(problem, self.name, options, error, clock.seconds)
        return replace(result, compile_seconds=clock.compile_seconds)

    def _ready(self, problem: Problem) -> AbstractContextManager[None]:
        """In which kernels are compiled ahead, or run as Python in a small first solve of this process."""
        use = f"{self.name.partition(':')[0]} {problem.instance.access}"
        first = use not in _begun
        _begun.add(use)

        def compile_ahead() -> None:
            from edgealloc.solvers.compiling.warmup import prepare  # imports numba

            prepare(use)

        if first and problem.instance.num_devices <= self.plain_devices:
            from edgealloc.solvers.compiling.kernel import as_python

            return as_python(then=compile_ahead)
        compile_ahead()
        return nullcontext()


_begun: set[str] = set()  # uses of which a solve has begun in this process: "method access"


def _broken_down(problem: Problem, method: str, options: Options, error: Exception, seconds: float) -> Result:
    """The result of a method that a valid problem broke: nothing proved, and the warm start if it is feasible."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    logging.getLogger("edgealloc").debug("method %s broke down", method, exc_info=error)
    result = Result(
        problem=problem,
        method=method,
        status=Status.ERROR,
        objective=math.inf,
        lower_bound=-math.inf,
        free_objective=problem.free_objective,
        allocation=None,
        seconds=seconds,
        message=f"the method broke down ({told}); please report the instance, and try another method",
    )
    start = options.warm_start
    if start is None:
        return result
    try:
        used = problem.evaluate(start)
    except InputError:
        return result
    if not used.feasible:
        return result
    return replace(result, status=Status.FEASIBLE, objective=used.objective, allocation=start)


def _log_convex(problem: Problem) -> bool:
    return problem.structure.log_convex


# In the order in which ``auto`` tries them.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "convex",
            "proven optimum of continuous FDMA by its hidden convexity",
            _log_convex,
            "a log-convex problem: access fdma, underfit inverse-keep, no levels, menus or selection",
            "edgealloc.solvers.fdma.convex:solve_convex",
            plain_devices=500,
        ),
        Method(
            "bnb",
            "proven optimum by branch and bound: OFDMA, blocks, levels, menus, selection, other bounds",
            lambda problem: True,
            "any problem",
            "edgealloc.solvers.exact:solve_bnb",
        ),
        Method(
            "cvxpy",
            "any conic solver, cvxpy:CLARABEL for one by name; its point repaired, its bound recomputed",
            _log_convex,
            "a log-convex problem",
            "edgealloc.solvers.backends.cvxpy_fdma:solve_cvxpy",
            chosen=False,
        ),
        Method(
            "pyomo",
            "any Pyomo solver by name, as pyomo:ipopt or pyomo:gurobi; its point repaired, its claims checked",
            lambda problem: problem.underfit.name in ("inverse-keep", "perturbation"),
            "underfit inverse-keep or perturbation",
            "edgealloc.solvers.backends.pyomo_run:solve_pyomo",
            chosen=False,
        ),
        Method(
            "highs",
            "mixed-integer linear programs of proven lines, refined; takes linear side constraints",
            lambda problem: True,
            "any problem",
            "edgealloc.solvers.backends.highs.solve:solve_highs",
            chosen=False,
        ),
        Method(
            "scip",
            "global oracle for every access scheme and variant, far slower than ours; its point repaired",
            lambda problem: problem.underfit.name in ("inverse-keep", "perturbation"),
            "underfit inverse-keep or perturbation",
            "edgealloc.solvers.backends.scip_run:solve_scip",
            chosen=False,
        ),
        Method(
            "psca",
            "penalised successive convex approximation: fast, local, nothing proved",
            lambda problem: True,
            "any problem",
            "edgealloc.solvers.psca.solve:solve_psca",
            chosen=False,
        ),
        Method(
            "psca+",
            "psca from three starts, with knapsack rounding and local search",
            lambda problem: True,
            "any problem",
            "edgealloc.solvers.psca.solve:solve_psca_plus",
            chosen=False,
        ),
        Method(
            "baseline",
            "simple schemes to compare with, by name: baseline:equal, baseline:no-dropout, ...",
            lambda problem: True,
            "any problem",
            "edgealloc.solvers.baselines:solve_baseline",
            chosen=False,
        ),
    )
}


def find_method(name: str) -> Method:
    """The method of a name; ``cvxpy:SCS`` is the back end ``cvxpy`` with the solver SCS.

    Raises
    ------
    InputError
        For an unknown name; the known ones are in the message.
    """
    family, _, solver = name.partition(":") if isinstance(name, str) else ("", "", "")
    if family not in METHODS or (solver and METHODS[family].chosen):
        known = ["auto", *METHODS]
        near = did_you_mean(family, known, " ")
        raise InputError(
            "options", [Fault("options", "method", repr(name), f"{', '.join(known)}; {near}".rstrip("; "))]
        )
    return replace(METHODS[family], name=name, solver=solver) if solver else METHODS[family]


def choose(name: str, problem: Problem) -> Method:
    """The method of a name that takes a problem; ``auto`` is the first exact one that does.

    Raises
    ------
    InputError
        For an unknown name.
    RefusedError
        When the method does not take the problem.
    """
    if name == "auto":
        for method in METHODS.values():
            if method.chosen and method.takes(problem):
                return method
        why = "; ".join(problem.structure.reasons)
        known = "; ".join(f"{m.name}: {m.needs}" for m in METHODS.values() if m.chosen)
        raise RefusedError(f"no method takes this problem ({why}); there is {known}")
    method = find_method(name)
    if not method.takes(problem):
        why = "; ".join(problem.structure.reasons)
        raise RefusedError(f"method {name!r} takes {method.needs}; this problem is not that: {why}; use 'auto'")
    return method


def exact_names(problem: Problem) -> list[str]:
    """The methods that choose themselves and take the problem, in the order of ``METHODS``."""
    return [method.name for method in METHODS.values() if method.chosen and method.takes(problem)]
