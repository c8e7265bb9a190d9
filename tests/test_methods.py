"""Methods of one's own: by function, by name, from a package, in worker processes; judged, not believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.bench.suites import SUITES
from edgealloc.bench.sweep import BenchOptions, cells_of, run_suite
from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Status
from edgealloc.errors import EdgeallocError, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS, find_method, foreign_code
from edgealloc.rounds import RoundSolver
from edgealloc.solvers.base import Options
from edgealloc.solvers.baselines import solve_baseline


def equal_shares(problem: Problem, options: Options) -> Result:
    return replace(solve_baseline(problem, options, "equal"), method="mine")


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_a_function_is_a_method(make_instance) -> None:
    result = edgealloc.solve(make_instance(), equal_shares)
    assert (result.method, result.status) == ("mine", Status.LOCALLY_SOLVED)
    ours, theirs = edgealloc.compare(make_instance(), ["convex", equal_shares])
    assert ours.objective <= theirs.objective * (1.0 + 1e-12)


def test_a_registered_name_is_known_wherever_methods_are(make_instance) -> None:
    edgealloc.register_method(
        "mine", equal_shares, takes=lambda problem: problem.instance.access == "fdma", needs="fdma"
    )
    assert edgealloc.solve(make_instance(), "mine").status is Status.LOCALLY_SOLVED
    assert RoundSolver("mine").solve(make_instance()).method == "mine"
    with pytest.raises(EdgeallocError, match="method 'mine' takes fdma"):
        edgealloc.solve(make_instance("ofdma", 2), "mine")
    with pytest.raises(InputError, match="did you mean 'mine'"):
        edgealloc.solve(make_instance(), "mien")
    edgealloc.register_method("mine", equal_shares)  # a notebook's cell is run twice
    assert [r.method for r in edgealloc.compare(make_instance())] == ["convex", "bnb"]
    edgealloc.register_method("mine", equal_shares, chosen=True)
    assert edgealloc.solve(make_instance()).method == "convex"
    assert [r.method for r in edgealloc.compare(make_instance())] == ["convex", "bnb", "mine"]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("auto", equal_shares),
        ("bnb", equal_shares),
        ("a:b", equal_shares),
        ("", equal_shares),
        ("mine", 3),
        ("mine", "x"),
    ],
)
def test_names_that_are_not_free_are_refused(name: str, entry: Any) -> None:
    with pytest.raises(InputError):
        edgealloc.register_method(name, entry)


def _best(problem: Problem) -> Result:
    return edgealloc.solve(problem)


FORGERIES: dict[str, Callable[[Problem, Options], Any]] = {
    "no Result": lambda problem, options: 0.4,
    "a better value": lambda problem, options: replace(_best(problem), objective=0.9 * _best(problem).objective),
    "a bound above": lambda problem, options: replace(_best(problem), lower_bound=2.0 * _best(problem).objective),
    "no allocation": lambda problem, options: replace(_best(problem), allocation=None),
    "a broken budget": lambda problem, options: replace(_best(problem), allocation=_too_strong(problem)),
    "a division by zero": lambda problem, options: 1 / 0,
}


def _too_strong(problem: Problem) -> Allocation:
    allocation = edgealloc.solve(problem).allocation
    assert allocation is not None
    return replace(allocation, power_w=3.0 * problem.instance.power_max_w)


@pytest.mark.parametrize("name", sorted(FORGERIES))
def test_what_a_method_claims_falsely_is_its_error(make_instance, name: str) -> None:
    start = edgealloc.solve(make_instance()).allocation
    alone = edgealloc.solve(make_instance(), FORGERIES[name])
    assert alone.status is Status.ERROR
    assert "it is not one of edgealloc's" in alone.message
    begun = edgealloc.solve(make_instance(), FORGERIES[name], warm_start=start)
    assert begun.status is Status.FEASIBLE
    assert begun.allocation is start


def test_conformance_takes_registered_names() -> None:
    edgealloc.register_method("mine", equal_shares)
    edgealloc.register_method("forged", FORGERIES["a better value"])
    few = tuple(case for case in conformance.CASES if case.name in ("plain", "deadline too short", "keep levels"))
    assert conformance.run("mine", proves_infeasible=False, cases=few).ok
    report = conformance.run("forged", cases=few)
    assert not report.ok


def test_worker_processes_know_registered_methods(tmp_path: Path) -> None:
    edgealloc.register_method("mine", lambda problem, options: solve_baseline(problem, options, "equal"))
    suite = SUITES["smoke"]()
    suite = replace(suite, cases=suite.cases[:1])
    frame = run_suite(suite, tmp_path, ("mine", "baseline:equal"), BenchOptions(jobs=2))
    mine, theirs = frame["objective"]
    assert mine == theirs
    assert frame["verified"].all()


def test_a_changed_method_is_another_cell() -> None:
    suite = SUITES["smoke"]()
    edgealloc.register_method("mine", equal_shares)
    (first, *_) = cells_of(suite, ("mine",), BenchOptions())
    before = first.key
    edgealloc.register_method("mine", solve_baseline)
    assert first.key != before
    assert foreign_code("bnb") == ""


PLUGIN = """
from dataclasses import replace
from edgealloc.solvers.baselines import solve_baseline
def solve(problem, options):
    return replace(solve_baseline(problem, options, "equal"), method="plugged")
"""


SOLVES = """
import sys
from edgealloc.cli.app import main
for method in sys.argv[2:]:
    try:
        main(["solve", sys.argv[1], "--method", method])
    except SystemExit:
        print("===")
"""


def test_an_installed_package_brings_its_methods(make_instance, tmp_path: Path) -> None:
    (tmp_path / "their_solver.py").write_text(PLUGIN)
    info = tmp_path / "their_solver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-solver\nVersion: 1.0\n")
    points = ("[edgealloc.methods]", "plugged = t:solve", "broken = t:nothing", "bnb = t:solve")
    (info / "entry_points.txt").write_text("\n".join(points).replace("t:", "their_solver:"))
    case = edgealloc.save_instance(make_instance(), tmp_path / "cell.json")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", SOLVES, str(case), "plugged", "bnb", "broken", "plugd"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    printed = done.stdout.split("===\n")
    assert "locally_solved by plugged" in printed[0]
    assert "optimal by bnb" in printed[1]  # our own names are not taken over
    assert printed[2:] == ["", "", ""]
    assert "method 'broken' (their_solver:nothing) cannot be imported: AttributeError" in done.stderr
    assert "did you mean 'plugged'?" in done.stderr


def test_a_lambda_and_a_partial_have_names() -> None:
    import functools

    assert find_method(functools.partial(equal_shares)).name == "partial"
    assert find_method(lambda problem, options: None).name == "<lambda>"
