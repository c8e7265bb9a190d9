"""The front door: load an instance, solve it, compare methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import Constraint, fitted
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Snapshot
from edgealloc.data.plausible import warn
from edgealloc.errors import EdgeallocError, Fault, InputError, MissingPackageError, RefusedError
from edgealloc.formulation.comparison import Comparison
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.method import Solver
from edgealloc.methods import choose, exact_names, find_method

__all__ = ["compare", "load", "solve"]


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

    instance = load_instance(path)
    warn(instance)
    return instance


def as_problem(source: Problem | Instance | str | Path, constraints: Iterable[Constraint] = ()) -> Problem:
    """The problem of an instance or of an instance file, with a warning of what looks like a mistake of unit.

    ``constraints`` are added to those that a problem has.

    Raises
    ------
    InputError
        For anything else, a faulty file, or constraints that do not fit the instance.
    """
    given: Any = source
    if isinstance(given, str | Path):
        from edgealloc.files.instance import load_instance

        given = load_instance(given)
    if not isinstance(given, Problem | Instance):
        inside = (
            "its .instance" if isinstance(getattr(given, "instance", None), Instance) else "an edgealloc.Instance"
        )
        allowed = f"{inside}, a Problem, or the path of an instance file"
        raise InputError("arguments", [Fault("arguments", "source", type(given).__name__, allowed)])
    problem = given if isinstance(given, Problem) else Problem(given)
    more = fitted(constraints, problem.instance)
    if more:
        problem = problem.constrained((*problem.constraints, *more))
    warn(problem.instance)
    return problem


def solve(
    source: Problem | Instance | str | Path,
    method: str | Solver = "auto",
    *,
    constraints: Iterable[Constraint] = (),
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
        A name from :data:`METHODS`, or ``auto`` for the first exact method that takes the problem; or a function
        ``(problem, options) -> Result`` of your own (:func:`edgealloc.register_method` gives it a name).
    constraints
        Constraints of your own (:mod:`edgealloc.data.constraints`): :class:`~edgealloc.SubcarrierCap`,
        :class:`~edgealloc.SpectrumCap`, :class:`~edgealloc.KeepFloor`, ... Allocation, bound and status are those
        of the problem with them. What no exact method takes, ``auto`` gives to a back end, as the message says.
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
        For a bad option, constraints that do not fit, or an unknown method (the nearest known name is in the
        message).
    EdgeallocError
        When the method does not take the problem or a constraint; the message says why and what to do.
    """
    from edgealloc.solvers.base import Options

    problem = as_problem(source, constraints)
    options = Options(rel_gap, time_limit, seed, warm_start, callback, log)
    return choose(method, problem).run(problem, options)


def compare(
    source: Problem | Instance | str | Path,
    methods: Iterable[str | Solver] | str | None = None,
    *,
    constraints: Iterable[Constraint] = (),
    rel_gap: float = 1e-4,
    time_limit: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Solve one instance by several methods, by default all of our own that take it.

    Parameters
    ----------
    source
        A problem, an instance, or the path of an instance file.
    methods
        Names from :data:`METHODS` or functions; None for those that choose themselves and take the problem, or
        where constraints leave none of them, for ``auto``.
    constraints
        As for :func:`solve`.
    rel_gap, time_limit, seed
        As for :func:`solve`, for each method anew; the limit in s.

    Returns
    -------
    Comparison
        A list of results, one per method in the order of the names, that shows itself as a table. A method that
        does not take the problem, or whose package is missing, is in its ``refused``, with the reason. Ctrl-C ends
        the method that runs, with what it has found; those after it are not started.

    Raises
    ------
    InputError, EdgeallocError
        As :func:`solve`; a refusal where no other method is named.
    """
    from edgealloc.solvers.base import Options, one_after_another

    problem, options = as_problem(source, constraints), Options(rel_gap, time_limit, seed)
    names: Iterable[str | Solver] = (exact_names(problem) or ["auto"]) if methods is None else methods
    if isinstance(methods, str):
        names = [methods]
    chosen, refused = [], list[tuple[str, EdgeallocError]]()
    for name in names:  # before the first is run, so that no work is lost
        try:
            method = choose(name, problem)
            method.check_packages()
            chosen.append(method)
        except (RefusedError, MissingPackageError) as error:
            refused.append((name if isinstance(name, str) else find_method(name).name, error))
    if len(refused) == 1 and not chosen:
        raise refused[0][1]
    return Comparison(one_after_another(lambda method: method.run(problem, options), chosen), tuple(refused))
