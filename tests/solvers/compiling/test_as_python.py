"""Kernels that run as Python in a small first solve: the same bits, in time, and without numba."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edgealloc.conformance import CASES
from edgealloc.formulation.problem import Problem
from edgealloc.methods import METHODS
from edgealloc.scenario.cell import CellOptions, make_cell
from edgealloc.solvers.base import Options
from edgealloc.solvers.compiling import kernel as kernels
from edgealloc.solvers.compiling.kernel import as_python, kernel
from edgealloc.solvers.fdma.convex import solve_convex
from tests.places import ROOT


@pytest.fixture
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a fresh process, whatever ran before in this one."""
    monkeypatch.setattr(kernels.Kernel, "_loaded", False)
    monkeypatch.setattr(kernels, "_PATIENCE_S", 600.0)


def _never() -> None:
    raise AssertionError("compiled code was asked for")


def _cells() -> dict[str, Problem]:
    cells = {case.name: Problem(case.make()) for case in CASES}
    for seed in range(6):
        options = CellOptions(devices=(1, 3, 10, 20, 40, 60)[seed])
        cells[f"random {seed}"] = Problem(make_cell(options, np.random.default_rng(seed)).instance)
    return {name: cell for name, cell in cells.items() if METHODS["convex"].takes(cell)}


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("name", _cells())
def test_the_bits_are_those_of_compiled_code(name: str) -> None:
    problem, options = _cells()[name], Options(rel_gap=1e-9)
    with as_python(_never):
        plain = solve_convex(problem, options)
    compiled = solve_convex(problem, options)
    assert (plain.status, plain.iterations, plain.message) == (
        compiled.status,
        compiled.iterations,
        compiled.message,
    )
    assert [step.lower_bound for step in plain.trace] == [step.lower_bound for step in compiled.trace]
    assert plain.objective == compiled.objective
    if compiled.allocation is not None:
        assert plain.allocation is not None
        for field in ("keep", "freq_hz", "power_w", "bandwidth_hz"):
            assert np.array_equal(getattr(plain.allocation, field), getattr(compiled.allocation, field)), field


@kernel
def _inverse(values, x):  # type: ignore[no-untyped-def]
    values[0] += 1.0
    return 1.0 / x


@pytest.mark.usefixtures("nothing_loaded")
def test_where_python_raises_compiled_code_starts_from_the_same_values() -> None:
    """Python's floats do not divide by zero; what was changed until then is changed once."""
    values = np.ones(1)
    with as_python(_never):
        assert _inverse(values, 0.0) == np.inf
    assert values[0] == 2.0


def test_after_a_while_compiled_code_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_PATIENCE_S", -1.0)
    asked = []
    with as_python(lambda: asked.append(True)):
        assert _inverse(np.ones(1), 2.0) == 0.5
        assert _inverse(np.ones(1), 4.0) == 0.25
    assert asked == [True]
    assert _inverse.dispatcher.overloads


FIRST = """
import sys, numpy as np, edgealloc
from edgealloc.scenario.cell import CellOptions, make_cell
from edgealloc.solvers.compiling import kernel
kernel._PATIENCE_S = 600.0  # a loaded machine has no say in this
instance = make_cell(CellOptions(devices=20), np.random.default_rng(0)).instance
result = edgealloc.solve(instance, time_limit=600.0)
print(result.status, result.compile_seconds, "numba" in sys.modules)
"""


def test_a_first_convex_solve_needs_no_numba() -> None:
    run = subprocess.run([sys.executable, "-c", FIRST], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["optimal", "0.0", "False"]
    assert run.stderr == ""
