"""A method: what it takes, how it is run, and what is made of it when it breaks down.

A method that is not ours is judged by what it returns. An allocation that breaks a budget, or a value or bound
that is not what the allocation has, is an error of the method and never a result.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgealloc.data.constraints import Constraint
from edgealloc.data.outcome import Diagnosis, Snapshot, Status, relative_gap
from edgealloc.errors import EdgeallocError, InputError, MissingPackageError, RefusedError, needs
from edgealloc.formulation.constrained import impossible
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result

if TYPE_CHECKING:
    from edgealloc.solvers.base import Options

__all__ = ["Method", "Solver"]

Solver = Callable[..., Result]
"""A method as a function: ``(problem, options) -> Result``."""

# What arithmetic and its assumptions raise where they fail; what the machine or its packages lack raises on.
_BREAKDOWNS = (ArithmeticError, ValueError, LookupError, AssertionError, EdgeallocError)


_LEAST_S, _MOST_S = 1.0, 10.0  # to find out whether an instance is infeasible without constraints too


def _no_row(problem: Problem, constraint: Constraint) -> bool:
    return False


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
        several solvers takes the name of one as a third argument. Or the function itself.
    solver
        That name; empty for the back end's own choice.
    chosen
        Whether ``auto`` and ``compare`` choose the method on their own.
    plain_devices
        Up to how many devices a first solve runs as Python, sooner than compiled code is there.
    foreign
        Not one of ours: what it returns is judged.
    rows
        Whether it takes a constraint of a problem beside those that any method takes, for they are built into the
        instance (:attr:`~edgealloc.formulation.problem.Problem.tightened`). One that is not ours is given all
        others, and judged by them.
    remark
        Why it was chosen, for the message of its result.
    package, extra
        What it needs beside edgealloc, by the name it is imported under, and the extra that brings it.
    """

    name: str
    summary: str
    takes: Callable[[Problem], bool]
    needs: str
    entry: str | Solver
    solver: str = ""
    chosen: bool = True
    plain_devices: int = 0
    foreign: bool = False
    rows: Callable[[Problem, Constraint], bool] = _no_row
    remark: str = ""
    package: str = ""
    extra: str = ""

    def refused(self, problem: Problem) -> tuple[Constraint, ...]:
        """The constraints of a problem that the method does not take."""
        if self.foreign:
            return ()
        tightened = problem.tightened
        return tuple(row for row in tightened.constraints if not self.rows(tightened, row))

    def accepts(self, problem: Problem) -> bool:
        """Whether it takes a problem with all of its constraints."""
        return self.takes(problem) and not self.refused(problem)

    def check_packages(self) -> None:
        """Make sure that what it needs is installed, before any work.

        Raises
        ------
        MissingPackageError
            Otherwise, with the extra that brings it.
        """
        if self.package:
            needs(self.package, self.extra, f"method {self.name!r}")

    def run(self, problem: Problem, options: Options) -> Result:
        """Solve a problem, after compiling what that needs and this machine lacks.

        A method that breaks down on a valid problem gives ``error``, or ``feasible`` with the warm start where
        that is within all budgets; the traceback goes to the logger ``edgealloc`` at DEBUG. With the environment
        variable ``EDGEALLOC_RAISE`` set, as in our tests, a method of ours raises. What the caller's own callback
        raises is raised.

        Raises
        ------
        InputError
            For a bad option.
        MissingPackageError
            Without a package that the method needs.
        RefusedError
            When the method does not take the problem, or one of its constraints.
        """
        from edgealloc.solvers.base import Control
        from edgealloc.solvers.compiling.clock import Clock
        from edgealloc.solvers.ending import infeasible

        left = self.refused(problem)
        if left:
            listed = "; ".join(map(str, left))
            raise RefusedError(f"method {self.name!r} does not take {listed}; use 'auto', or a back end that does")
        if hopeless := impossible(problem.instance, problem.constraints):
            return infeasible(problem, self.name, Control(options), hopeless)
        entry = self.entry
        if isinstance(entry, str):
            module, function = entry.split(":")
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
                result: Result = entry(problem.tightened, asked, *named)
                if self.foreign:
                    _judge(problem.tightened, result)
                if result.status is Status.NO_SOLUTION and self.chosen and not self.foreign:
                    result = _thin(problem.tightened, result, options)
                if problem.constraints:
                    result = _constrained(problem, result, options)
        except (InputError, MissingPackageError, RefusedError):
            raise
        except _BREAKDOWNS as error:
            if error in from_outside or (os.environ.get("EDGEALLOC_RAISE") and not self.foreign):
                raise
            result = _broken_down(problem, self, options, error, clock.seconds)
        message = "; ".join(text for text in (self.remark, result.message) if text)
        return replace(result, compile_seconds=clock.compile_seconds, message=message)

    def _ready(self, problem: Problem) -> AbstractContextManager[None]:
        """In which kernels are compiled ahead, or run as Python in a small first solve of this process."""
        if self.foreign:
            return nullcontext()
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


def _judge(problem: Problem, result: Any) -> None:
    """Make sure that a result is what it says: its allocation within budgets, its value that of the allocation.

    Raises
    ------
    ValueError
        Otherwise, with what is wrong.
    """
    if not isinstance(result, Result):
        raise ValueError(f"it returned {type(result).__name__}, not a Result")
    allocation = result.allocation
    if (allocation is not None) != result.status.has_allocation:
        raise ValueError(
            f"the status is {result.status.value} {'without' if allocation is None else 'with'} an allocation"
        )
    if allocation is None:
        return
    use = problem.evaluate(allocation)
    if use.violations:
        raise ValueError(f"its allocation breaks a budget ({use.violations[0]})")
    if not math.isclose(result.objective, use.objective, rel_tol=1e-9):
        raise ValueError(f"its objective is {result.objective!r}, that of its allocation {use.objective!r}")
    if not result.lower_bound <= result.objective + 1e-9 * abs(result.objective):
        raise ValueError(f"its lower bound {result.lower_bound!r} is above its objective {result.objective!r}")


def _constrained(problem: Problem, result: Result, options: Options) -> Result:
    """A result of a problem some of whose constraints were built into the instance, for the problem itself.

    Findings of infeasibility stand where they hold without any constraint; else the constraints are what is named.
    """
    result = replace(result, problem=problem, free_objective=problem.free_objective)
    if result.status is not Status.INFEASIBLE:
        return result
    from edgealloc.solvers.base import Options as Limits
    from edgealloc.solvers.exact import infeasible_alone, solve_bnb

    bare, limit = problem.constrained(()), options.time_limit
    seconds = _MOST_S if limit is None else min(max(limit - result.seconds, _LEAST_S), _MOST_S)
    alone, open_still = infeasible_alone(bare), False
    if not alone and bare.instance.exclusion_penalty is None:
        try:  # any allocation is enough to know
            asked = Limits(time_limit=seconds, callback=lambda snapshot: math.isfinite(snapshot.objective))
            found = solve_bnb(bare, asked)
            alone, open_still = found.diagnosis, found.status is Status.NO_SOLUTION
        except EdgeallocError:  # a problem that the exact methods do not take
            open_still = True
    if alone:
        return replace(result, diagnosis=alone, message="\n".join(finding.message for finding in alone))
    listed, first = "; ".join(map(str, problem.constraints)), result.message.splitlines()[:1]
    what = f"no allocation meets the budgets and {listed}; relax one of them"
    if open_still:
        what += f" (whether the budgets alone allow one was not decided in {seconds:.3g} s)"
    message = ": ".join([what, *first])
    count = float(len(problem.constraints))
    return replace(result, diagnosis=(Diagnosis(None, "constraints", count, math.inf, message),), message=message)


def _thin(problem: Problem, result: Result, options: Options) -> Result:
    """The point of the local method where an exact one has a bound and nothing within its margins."""
    from edgealloc.solvers.ending import THIN
    from edgealloc.solvers.psca.solve import solve_psca

    limit = _MOST_S if options.time_limit is None else min(options.time_limit - result.seconds, _MOST_S)
    beyond = (
        problem.pools is not None or problem.own_gains or problem.constraints
    )  # what that method does not take
    if THIN not in result.message or limit <= 0.0 or beyond:
        return result
    found = solve_psca(problem, replace(options, time_limit=limit, warm_start=None, callback=None, log=False))
    if found.allocation is None or found.objective < result.lower_bound:
        return result
    closed = relative_gap(found.objective, result.lower_bound) <= options.rel_gap
    return replace(
        result,
        status=Status.OPTIMAL if closed else Status.FEASIBLE,
        objective=found.objective,
        allocation=found.allocation,
        message="" if closed else f"the feasible set is {THIN}; the allocation is that of method 'psca'",
        seconds=result.seconds + found.seconds,
    )


def _broken_down(problem: Problem, method: Method, options: Options, error: Exception, seconds: float) -> Result:
    """The result of a method that a valid problem broke: nothing proved, and the warm start if it is feasible."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    logging.getLogger("edgealloc").debug("method %s broke down", method.name, exc_info=error)
    remedy = (
        "it is not one of edgealloc's" if method.foreign else "please report the instance, and try another method"
    )
    result = Result(
        problem=problem,
        method=method.name,
        status=Status.ERROR,
        objective=math.inf,
        lower_bound=-math.inf,
        free_objective=problem.free_objective,
        allocation=None,
        seconds=seconds,
        message=f"the method broke down ({told}); {remedy}",
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
