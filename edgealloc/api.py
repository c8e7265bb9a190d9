"""The front door: load an instance, solve it, compare methods."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.errors import EdgeallocError, Fault, InputError, MissingPackageError, RefusedError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result

if TYPE_CHECKING:
    from edgealloc.solvers.base import Options

__all__ = ["METHODS", "Method", "compare", "find_method", "load", "solve"]

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
        that is within all budgets; the traceback goes to the logger ``edgealloc`` at DEBUG. With the environment
        variable ``EDGEALLOC_RAISE`` set, as in our tests, it raises. What the caller's own callback raises is
        raised.

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
            if error in from_outside or os.environ.get("EDGEALLOC_RAISE"):
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


def load(path: str | Path) -> Instance:
    """Read an ``edgealloc-instance/1`` JSON file.

    Parameters
    ----------
    path
        Path of the file.

    Returns
    -------
    Instance
        The instance; ``save_instance`` writes it back.

    Raises
    ------
    InputError
        Lists every fault of the file: device, field, value, what is allowed.
    """
    from edgealloc.files.instance import load_instance

    return load_instance(path)


def as_problem(source: Problem | Instance | str | Path) -> Problem:
    """The problem of an instance or of an instance file."""
    if isinstance(source, Problem):
        return source
    return Problem(source if isinstance(source, Instance) else load(source))


def solve(
    source: Problem | Instance | str | Path,
    method: str = "auto",
    *,
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
    warm_start: Allocation | None = None,
    callback: Callable[[Snapshot], bool | None] | None = None,
    log: bool = False,
) -> Result:
    """Choose dropout rates, spectrum, power and processor frequencies of an instance.

    Parameters
    ----------
    source
        A problem, an instance, or the path of an instance file.
    method
        A name from :data:`METHODS`, or ``auto`` for the first exact method that takes the problem.
    rel_gap
        Stop when ``(UB - LB) / |UB|`` is at most this.
    time_limit
        Wall-clock limit in s, compiling not counted. The incumbent and its bound are returned.
    seed
        Seed of whatever the method draws at random.
    warm_start
        An allocation to start from.
    callback
        Called with a :class:`~edgealloc.formulation.result.Snapshot` per iteration; a true answer stops the solve.
    log
        Log progress at INFO on the logger ``edgealloc``.

    Returns
    -------
    Result
        Its status says what the allocation is. Limits and infeasibility do not raise.

    Raises
    ------
    InputError
        For a bad option, or an unknown method (the nearest known name is in the message).
    EdgeallocError
        When the method does not take the problem; the message says why and what to do.
    """
    from edgealloc.solvers.base import Options

    problem = as_problem(source)
    options = Options(rel_gap, time_limit, seed, warm_start, callback, log)
    return _choose(method, problem).run(problem, options)


def find_method(name: str) -> Method:
    """The method of a name; ``cvxpy:SCS`` is the back end ``cvxpy`` with the solver SCS.

    Raises
    ------
    InputError
        For an unknown name; the known ones are in the message.
    """
    family, _, solver = name.partition(":")
    if family not in METHODS or (solver and METHODS[family].chosen):
        raise InputError("options", [Fault("options", "method", repr(name), ", ".join(["auto", *METHODS]))])
    return replace(METHODS[family], name=name, solver=solver) if solver else METHODS[family]


def _choose(name: str, problem: Problem) -> Method:
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


def compare(
    source: Problem | Instance | str | Path,
    methods: Iterable[str] | None = None,
    *,
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
) -> list[Result]:
    """Solve one instance by several methods, by default all of our own that take it.

    Parameters
    ----------
    source
        A problem, an instance, or the path of an instance file.
    methods
        Names from :data:`METHODS`; None for those that choose themselves and take the problem.
    rel_gap, time_limit, seed
        As for :func:`solve`, for each method anew; the limit in s.

    Returns
    -------
    list of Result
        One per method, in the order of the names.

    Raises
    ------
    InputError, EdgeallocError
        As :func:`solve`.
    """
    problem = as_problem(source)
    names = (
        [m.name for m in METHODS.values() if m.chosen and m.takes(problem)] if methods is None else list(methods)
    )
    return [solve(problem, name, rel_gap=rel_gap, time_limit=time_limit, seed=seed) for name in names]
