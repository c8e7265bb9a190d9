"""Write the list of kernels that first solves need, ``solvers/compiling/kernels.json``, by compiling and watching.

    python -m benchmarks.kernel_list            says whether the committed list is up to date
    python -m benchmarks.kernel_list --write    writes it

Each use runs in a process of its own, all with one fresh cache, so that every kernel is compiled once. What a use
needs is what Python calls in it, and what those kernels call.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.variants_speed import VARIANTS
from edgealloc.api import solve
from edgealloc.conformance import CASES
from edgealloc.errors import EdgeallocError, MissingPackageError
from edgealloc.formulation.problem import Problem
from edgealloc.methods import METHODS
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

ACCESS = ("fdma", "rb", "ofdma")
Key = tuple[str, str, tuple[Any, ...]]  # module, name, argument types


def plain(access: Any) -> Problem:
    """A random cell of six devices, of 32 sub-carriers for OFDMA."""
    options = CellOptions(devices=6, access=access, subcarriers=32 if access == "ofdma" else None)
    return Problem(make_cell(options, np.random.default_rng(0)).instance)


def _solve(method: str, access: str) -> None:
    problem = plain(access)
    if not METHODS[method].takes(problem):
        return
    names = ("equal", "no-dropout", "alternating") if method == "baseline" else ("",)
    for name in names:
        solve(problem, f"{method}:{name}" if name else method, time_limit=30.0, rel_gap=1e-3)


def _variants(method: str) -> None:
    for case in CASES:
        with suppress(EdgeallocError):  # the method does not take the case
            solve(case.make(), method, time_limit=case.time_limit or 20.0, rel_gap=1e-6)


def _wide() -> None:
    """Cells of a usual size, whose trees need what the small ones above close without."""
    for options, change in VARIANTS.values():
        if options.access == "ofdma":
            problem = Problem(change(make_cell(options, np.random.default_rng(0)).instance))
            solve(problem, time_limit=20.0, rel_gap=1e-6)
    for seed in range(1, 6):
        options = CellOptions(devices=6, access="ofdma", subcarriers=32)
        solve(make_cell(options, np.random.default_rng(seed)).instance, time_limit=20.0, rel_gap=1e-6)


def _certificate(access: str) -> None:
    from edgealloc.solvers.certify.write import certified

    certified(solve(plain(access), rel_gap=1e-3), 1e-3)


def _online(access: str) -> None:
    from edgealloc.rounds.solver import RoundSolver

    solver = RoundSolver(time_budget_s=20.0)
    for _ in range(2):  # the second starts warm
        solver.solve(plain(access).instance)


def uses() -> dict[str, Callable[[], None]]:
    """What is run for each use; the names of first solves are ``method access``."""
    runs: dict[str, Callable[[], None]] = {
        f"{method} {access}": lambda m=method, a=access: _solve(m, a)  # type: ignore[misc]
        for method in METHODS
        for access in ACCESS
        if access == "fdma" or not METHODS[method].needs.startswith("a log-convex")
    }
    runs |= {f"variants {m}": lambda m=m: _variants(m) for m in ("auto", "psca", "psca+", "highs")}  # type: ignore[misc]
    runs |= {"wide ofdma": _wide}
    runs |= {f"certificate {a}": lambda a=a: _certificate(a) for a in ACCESS}  # type: ignore[misc]
    runs |= {f"online {a}": lambda a=a: _online(a) for a in ACCESS}  # type: ignore[misc]
    return runs


class Watch:
    """What Python calls, and which kernels call which, while it is on."""

    def __init__(self) -> None:
        self.called: set[Key] = set()
        self.edges: set[tuple[Key, Key]] = set()
        self._stack: list[Key] = []

    def start(self) -> None:
        """Listen to numba's dispatchers from now on."""
        from numba.core import dispatcher

        from edgealloc.solvers.compiling import kernel, warmup

        warmup.prepare = lambda use: None  # the old list must not decide what is compiled
        never: Any = lambda then: nullcontext()  # noqa: E731
        kernel.as_python = never
        Dispatcher: Any = dispatcher.Dispatcher
        compile_, template = Dispatcher.compile, Dispatcher.get_call_template

        def watched(this: Any, sig: Any) -> Any:
            key = _key(this, sig)
            if key is None:
                return compile_(this, sig)
            if not self._stack:
                self.called.add(key)
            self._stack.append(key)
            try:
                return compile_(this, sig)
            finally:
                self._stack.pop()

        def seen(this: Any, args: Any, kws: Any) -> Any:
            found = template(this, args, kws)
            key = _key(this, found[2])
            if key is not None and self._stack:
                self.edges.add((self._stack[-1], key))
            return found

        Dispatcher.compile, Dispatcher.get_call_template = watched, seen


def _key(dispatcher: Any, signature: Any) -> Key | None:
    from edgealloc.solvers.compiling.cache import KernelCache

    if not isinstance(dispatcher._cache, KernelCache) or dispatcher.targetoptions.get("parallel"):
        return None
    function = dispatcher.py_func
    return function.__module__.removeprefix("edgealloc.solvers."), function.__qualname__, tuple(signature)


def watched(use: str) -> tuple[set[Key], set[tuple[Key, Key]]]:
    """Run a use in this process, and say what it called and what it compiled called."""
    watch = Watch()
    watch.start()
    with suppress(MissingPackageError):
        uses()[use]()
    return watch.called, watch.edges


def observe(cache: str, only: tuple[str, ...] = ()) -> dict[str, dict[Any, bool]]:
    """Run all uses, each in a process of its own; entries of the list, and whether Python calls them."""
    from edgealloc.solvers.compiling.listing import Entry

    called: dict[str, set[Key]] = {}
    edges: dict[Key, set[Key]] = {}
    for use in only or tuple(uses()):
        code = f"import sys, pickle; from benchmarks.kernel_list import watched; r = watched({use!r}); "
        code += "sys.stdout.buffer.write(b'<<' + pickle.dumps(r))"
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "NUMBA_CACHE_DIR": cache}, stdout=subprocess.PIPE
        )
        if run.returncode:
            raise SystemExit(f"{use}: failed")
        called[use], pairs = pickle.loads(run.stdout.partition(b"<<")[2])
        for caller, callee in pairs:
            edges.setdefault(caller, set()).add(callee)
        print(f"{use}: {len(called[use])} called from Python", file=sys.stderr)
    found = {}
    for use, roots in called.items():
        every, waiting = set(roots), list(roots)
        while waiting:
            new = edges.get(waiting.pop(), set()) - every
            every |= new
            waiting += new
        if every:
            found[use] = {Entry(*key): key in roots for key in every}
    return found


def main() -> int:
    """Command line; 1 when the committed list is out of date."""
    from edgealloc.solvers.compiling.listing import PATH, list_text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write solvers/compiling/kernels.json")
    parser.add_argument("--cache", type=Path, help="folder of the cache, kept; a fresh one when not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = list_text(observe(str(arguments.cache or folder)))
    if arguments.write:
        PATH.write_text(text, encoding="utf-8")
        return 0
    old = PATH.read_text(encoding="utf-8")
    print("up to date" if old == text else "out of date: write it anew with --write")
    return int(old != text)


if __name__ == "__main__":
    sys.exit(main())
