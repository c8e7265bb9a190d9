"""The methods that ``solve`` knows: their table, how one is chosen, how one of your own is added."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from edgealloc.data.constraints import (
    Constraint,
    EnergyCap,
    ParticipationCap,
    PowerCap,
    SpectrumCap,
    SubcarrierCap,
)
from edgealloc.errors import EdgeallocError, Fault, InputError, RefusedError, did_you_mean, shown
from edgealloc.formulation.problem import Problem
from edgealloc.method import Method, Solver

__all__ = [
    "METHODS",
    "adopt",
    "choose",
    "exact_names",
    "find_method",
    "foreign_code",
    "foreign_methods",
    "known_names",
    "register_method",
]

GROUP = "edgealloc.methods"  # entry points of other packages
_BACK_ENDS = {"highs": "highspy", "scip": "pyscipopt", "cvxpy": "cvxpy"}  # for constraints, proven bounds first


def _any(problem: Problem) -> bool:
    return True


def _one_gain(problem: Problem) -> bool:
    """Whether no row of a menu has a channel of its own."""
    return not problem.own_gains


def _one_term(problem: Problem) -> bool:
    return problem.underfit.name != "by device" and _plain(problem)


def _plain(problem: Problem) -> bool:
    """Neither a stability term per cluster nor a channel of a menu row's own."""
    return problem.pools is None and _one_gain(problem)


def _log_convex(problem: Problem) -> bool:
    return problem.structure.log_convex and _plain(problem)


def _closed_form(problem: Problem) -> bool:
    return problem.underfit.name in ("inverse-keep", "perturbation") and _plain(problem)


def _exact_rows(problem: Problem, row: Constraint) -> bool:
    """Caps on spectrum and on who takes part; with OFDMA numbers of sub-carriers of single devices."""
    if problem.instance.access != "ofdma":
        return isinstance(row, SpectrumCap | ParticipationCap)
    return isinstance(row, SubcarrierCap) or (
        isinstance(row, SpectrumCap) and len(row.members(problem.instance)) == 1
    )


def _linear(problem: Problem, row: Constraint) -> bool:
    """A cap on bandwidths, sub-carriers or who takes part."""
    return isinstance(row, SpectrumCap | SubcarrierCap | ParticipationCap)


def _convex_caps(problem: Problem, row: Constraint) -> bool:
    """A cap that is convex in logarithms."""
    return isinstance(row, SpectrumCap | PowerCap | EnergyCap)


def _caps(problem: Problem, row: Constraint) -> bool:
    """Any cap, on power and energy where nobody may be left out."""
    return _linear(problem, row) or problem.instance.exclusion_penalty is None


# In the order in which ``auto`` tries them.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "convex",
            "proven optimum of continuous FDMA by its hidden convexity",
            _log_convex,
            "a log-convex problem: access fdma, underfit inverse-keep, no levels, menus, selection or clusters",
            "edgealloc.solvers.fdma.convex:solve_convex",
            plain_devices=500,
            rows=_exact_rows,
        ),
        Method(
            "bnb",
            "proven optimum by branch and bound: OFDMA, blocks, levels, menus, selection, other bounds",
            _any,
            "any problem",
            "edgealloc.solvers.exact:solve_bnb",
            rows=_exact_rows,
        ),
        Method(
            "cvxpy",
            "any conic solver, cvxpy:CLARABEL for one by name; its point repaired, its bound recomputed",
            _log_convex,
            "a log-convex problem without clusters",
            "edgealloc.solvers.backends.cvxpy_fdma:solve_cvxpy",
            chosen=False,
            rows=_convex_caps,
            package="cvxpy",
            extra="cvxpy",
        ),
        Method(
            "pyomo",
            "any Pyomo solver by name, as pyomo:ipopt or pyomo:gurobi; its point repaired, its claims checked",
            _closed_form,
            "underfit inverse-keep or perturbation, without clusters and gains of menu rows",
            "edgealloc.solvers.backends.pyomo_run:solve_pyomo",
            chosen=False,
            package="pyomo",
            extra="pyomo",
        ),
        Method(
            "highs",
            "mixed-integer linear programs of proven lines, refined; takes caps on spectrum and participation",
            _one_gain,
            "any problem without gains of menu rows",
            "edgealloc.solvers.backends.highs.solve:solve_highs",
            chosen=False,
            rows=_linear,
        ),
        Method(
            "scip",
            "global oracle for every access scheme and variant, far slower than ours; its point repaired",
            _closed_form,
            "underfit inverse-keep or perturbation, without clusters and gains of menu rows",
            "edgealloc.solvers.backends.scip_run:solve_scip",
            chosen=False,
            rows=_caps,
            package="pyscipopt",
            extra="scip",
        ),
        Method(
            "psca",
            "penalised successive convex approximation: fast, local, nothing proved",
            _plain,
            "any problem without a stability term per cluster and gains of menu rows",
            "edgealloc.solvers.psca.solve:solve_psca",
            chosen=False,
        ),
        Method(
            "psca+",
            "psca from three starts, with knapsack rounding and local search",
            _plain,
            "any problem without a stability term per cluster and gains of menu rows",
            "edgealloc.solvers.psca.solve:solve_psca_plus",
            chosen=False,
        ),
        Method(
            "baseline",
            "simple schemes to compare with, by name: baseline:equal, baseline:no-dropout, ...",
            _one_term,
            "any problem without terms of single devices, clusters and gains of menu rows",
            "edgealloc.solvers.baselines:solve_baseline",
            chosen=False,
        ),
    )
}


def register_method(
    name: str,
    entry: str | Solver,
    *,
    takes: Callable[[Problem], bool] | None = None,
    needs: str = "any problem",
    summary: str = "",
    chosen: bool = False,
) -> Method:
    """Give a method of your own a name that ``solve``, ``compare``, rounds, benchmarks and ``conformance`` know.

    It holds for this process; :func:`edgealloc.bench.sweep.run_suite` hands it to its worker processes. A package
    that is installed needs no call: an entry point of the group ``edgealloc.methods``, of the method's name, is
    found everywhere, on the command line too. ``conformance.run(name)`` says whether it keeps the contract.

    Parameters
    ----------
    name
        Name for ``solve(method=...)``; without a colon. A method of your own may be registered anew.
    entry
        A function ``(problem, options) -> Result``, or ``module:function``.
    takes
        Whether it solves a problem; all when None.
    needs
        What ``takes`` asks for, in words.
    summary
        One line for lists.
    chosen
        Whether ``compare`` chooses it when no methods are named.

    Returns
    -------
    Method
        What was registered.

    Raises
    ------
    InputError
        For a name that is not free, or an entry that is none.
    """
    given: Any = entry
    faults = []
    if not isinstance(name, str) or not name or ":" in name or name == "auto":
        faults.append(Fault("method", "name", repr(name), "text without a colon, not 'auto'"))
    elif name in METHODS and not METHODS[name].foreign:
        faults.append(Fault("method", "name", repr(name), "a name that no method of edgealloc has"))
    if not callable(given) and not (isinstance(given, str) and given.count(":") == 1):
        faults.append(
            Fault("method", "entry", repr(given), "a function (problem, options) -> Result, or 'module:function'")
        )
    if faults:
        raise InputError("method", faults)
    METHODS[name] = Method(name, summary, takes or _any, needs, entry, chosen=chosen, foreign=True)
    return METHODS[name]


def _plugged_in(name: str) -> bool:
    """Whether another package has a method of this name, which then is registered.

    Raises
    ------
    EdgeallocError
        When it cannot be imported.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=name):
        try:
            entry = point.load()
        except Exception as error:  # whatever importing a stranger's module raises
            told = f"{type(error).__name__}: {error}"
            raise EdgeallocError(f"method {name!r} ({point.value}) cannot be imported: {told}") from error
        if isinstance(entry, Method):
            METHODS[name] = replace(entry, name=name, foreign=True)
        else:
            register_method(name, entry)
        return True
    return False


def foreign_methods(names: Iterable[str]) -> tuple[Method, ...]:
    """Those of some methods that are not ours, for processes that do not know them; see :func:`adopt`."""
    found = (METHODS.get(name.partition(":")[0]) for name in names)
    return tuple(method for method in found if method is not None and method.foreign)


def adopt(methods: Iterable[Method]) -> None:
    """Know the methods that another process has registered."""
    METHODS.update((method.name, method) for method in methods)


def foreign_code(name: str) -> str:
    """A digest of the source of a method that is not ours, as far as it can be read; empty for ours."""
    for method in foreign_methods([name]):
        entry: Any = method.entry
        if isinstance(entry, str):
            module, function = entry.split(":")
            entry = getattr(import_module(module), function)
        try:
            text = inspect.getsource(entry)
        except (OSError, TypeError):
            text = repr(entry)
        return hashlib.sha256(text.encode()).hexdigest()
    return ""


def known_names() -> list[str]:
    """Names of all methods, ours first; those of other packages are imported, but for the ones that cannot be."""
    from importlib.metadata import entry_points

    for name in entry_points(group=GROUP).names:
        with suppress(EdgeallocError):
            if name not in METHODS:
                _plugged_in(name)
    return list(METHODS)


def find_method(name: str | Solver) -> Method:
    """The method of a name, or of a function; ``cvxpy:SCS`` is the back end ``cvxpy`` with the solver SCS.

    Raises
    ------
    InputError
        For an unknown name; the known ones are in the message.
    """
    given: Any = name
    if callable(given):
        label = getattr(given, "__name__", type(given).__name__)
        return Method(label, "", _any, "any problem", given, chosen=False, foreign=True)
    family, _, solver = given.partition(":") if isinstance(given, str) else ("", "", "")
    known = family in METHODS or (family not in ("", "auto") and _plugged_in(family))
    if not known or (solver and (METHODS[family].chosen or METHODS[family].foreign)):
        from importlib.metadata import entry_points

        names = list(dict.fromkeys(["auto", *METHODS, *entry_points(group=GROUP).names]))
        near = did_you_mean(family, names, " ")
        allowed = f"{', '.join(names)}; {near}".rstrip("; ")
        raise InputError("options", [Fault("options", "method", shown(given), allowed)])
    return replace(METHODS[family], name=given, solver=solver) if solver else METHODS[family]


def choose(name: str | Solver, problem: Problem) -> Method:
    """The method of a name that takes a problem; ``auto`` is the first exact one that does.

    Raises
    ------
    InputError
        For an unknown name.
    RefusedError
        When the method does not take the problem.
    """
    if name == "auto":
        return _automatic(problem)
    method = find_method(name)
    why = "; ".join(problem.structure.reasons)
    if not method.takes(problem):
        raise RefusedError(
            f"method {method.name!r} takes {method.needs}; this problem is not that: {why}; use 'auto'"
        )
    left = method.refused(problem)
    if left:
        others = [m.name for m in METHODS.values() if m.accepts(problem)]
        known = f"these do: {', '.join(others)}" if others else "no method of edgealloc takes them all"
        raise RefusedError(f"method {method.name!r} does not take {'; '.join(map(str, left))}; {known}")
    return method


def _automatic(problem: Problem) -> Method:
    """The first exact method that takes a problem; with constraints that none takes, the first back end that does.

    Raises
    ------
    RefusedError
        Where there is none.
    """
    ours = [
        method for method in METHODS.values() if method.chosen and method.takes(problem) and not method.foreign
    ]
    for method in ours:
        if method.accepts(problem):
            return method
    if not ours:
        why = "; ".join(problem.structure.reasons)
        known = "; ".join(f"{m.name}: {m.needs}" for m in METHODS.values() if m.chosen and not m.foreign)
        raise RefusedError(f"no method takes this problem ({why}); there is {known}")
    left = "; ".join(map(str, ours[-1].refused(problem)))
    for name, package in _BACK_ENDS.items():
        if METHODS[name].accepts(problem) and find_spec(package) is not None:
            return replace(METHODS[name], remark=f"solved by {name}, for {ours[-1].name!r} does not take {left}")
    more = [f"{name} (edgealloc[{name}])" for name in _BACK_ENDS if METHODS[name].accepts(problem)]
    known = f"these do, once installed: {', '.join(more)}" if more else "no back end takes them all either"
    raise RefusedError(f"no exact method takes {left}; {known}")


def exact_names(problem: Problem) -> list[str]:
    """The methods that choose themselves and take the problem and its constraints, in the order of ``METHODS``."""
    return [method.name for method in METHODS.values() if method.chosen and method.accepts(problem)]
