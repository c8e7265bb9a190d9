"""What reaches the streams of a real process: nothing that we did not write. click's runner could not see it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.cli.app import main
from edgealloc.data.instance import Instance
from edgealloc.data.learning import LearningSpec
from edgealloc.files.instance import save_instance
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from tests.places import ROOT

SOLVE = """
import sys, warnings
from edgealloc import PlausibilityWarning, solve
warnings.simplefilter("ignore", PlausibilityWarning)  # ours, and right: some cells have little spectrum on purpose
for pair in sys.argv[1:]:
    case, method = pair.split("=")
    status = solve(case, method, time_limit=0.5, rel_gap=1e-3).status  # what is printed is printed at once
    assert status != "error", pair
"""
OWN = (
    *("fdma=convex", "fdma=psca", "fdma=psca+", "fdma=baseline:equal", "fdma=bnb", "levels=bnb", "rb=bnb"),
    *("ofdma=bnb", "ofdma=psca", "ofdma=psca+", "ofdma=baseline:random", "short=convex", "short-ofdma=bnb"),
)
OUTSIDE = {
    "highspy": ("fdma=highs", "rb=highs", "ofdma=highs", "short=highs", "short-ofdma=highs"),
    "pyscipopt": ("fdma=scip", "ofdma=scip", "short=scip", "fdma=pyomo:scip_direct"),
    "cvxpy": ("fdma=cvxpy", "fdma=cvxpy:SCS", "short=cvxpy"),
    "casadi": ("fdma=pyomo:ipopt", "steep=pyomo:ipopt", "ofdma=pyomo:ipopt", "short=pyomo:ipopt"),
}


def run(folder: Path, *words: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Python with a program, or the command line, in a folder; both streams caught as file descriptors."""
    program = [sys.executable, "-c", code or "from edgealloc.cli.app import main; main()", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(program, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def foreign(text: str) -> list[str]:
    """Lines that are not the package's own notice that it compiles."""
    return [line for line in text.splitlines() if not line.startswith("edgealloc:")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    def cell(**options: Any) -> Instance:
        return make_cell(CellOptions(**options), np.random.default_rng(1)).instance

    made = tmp_path_factory.mktemp("streams")
    fdma, ofdma = cell(access="fdma", devices=3), cell(access="ofdma", devices=2, subcarriers=8)
    cells = {
        "fdma": fdma,
        "levels": fdma.with_changes(keep_levels=(None, np.array([0.1, 0.2]), np.array([0.3]))),
        "rb": cell(access="rb", devices=3),
        "ofdma": ofdma,
        "large-ofdma": cell(access="ofdma", devices=4, subcarriers=16),
        "steep": fdma.with_changes(bound=replace(fdma.bound, underfit="perturbation", underfit_weight=0.3)),
        "learning": fdma.with_changes(learning=LearningSpec()),
        "short": fdma.with_changes(bandwidth_hz=1e-3 * fdma.bandwidth_hz),
        "short-ofdma": ofdma.with_changes(bandwidth_hz=1e-3 * ofdma.bandwidth_hz),
    }
    for name, cell in cells.items():
        save_instance(cell, made / name)
    return made


def test_no_method_of_ours_prints(folder) -> None:
    done = run(folder, *OWN, code=SOLVE)
    assert (done.stdout, foreign(done.stderr), done.returncode) == ("", [], 0)


@pytest.mark.parametrize("package", OUTSIDE)
def test_no_outside_solver_prints(folder, package) -> None:
    pytest.importorskip(package)
    done = run(folder, *OUTSIDE[package], code=SOLVE)
    assert (done.stdout, foreign(done.stderr), done.returncode) == ("", [], 0)


TOLD = {"validate": ("Warning: the cell counts", "convex", "training, digits", "written ")}  # plans and runs
JSON = {
    "new": ("new", "--devices", "3", "--seed", "1"),
    "schema": ("schema", "solution"),
    "solve": ("solve", "ofdma", "--json", "--out", "ofdma.json", "--certificate", "ofdma.proof.json"),
    "verify": ("verify", "ofdma", "ofdma.json", "--certificate", "ofdma.proof.json", "--json"),
    "methods": ("methods", "--json"),
    "compare": ("compare", "fdma", "--methods", "auto,highs,psca", "--rel-gap", "1e-3", "--json"),
    "least": ("least", "fdma", "--resource", "deadline", "--target", "0.5", "--json"),
    "plan": ("plan", "learning", "--time", "60", "--rounds", "2:2", "--json"),
    "simulate": (
        *("simulate", "--rounds", "3", "--devices", "3", "--access", "ofdma", "--subcarriers", "6"),
        *("--out", "rounds.csv", "--json"),
    ),
}


# Each command with descriptors of its own, in one process: most of the time of a short one is its start.
COMMANDS = """
import ctypes, json, os, sys
from edgealloc.cli.app import main

codes = []
for name, words in json.loads(sys.argv[1]).items():
    for descriptor, end in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{end}", os.O_WRONLY | os.O_CREAT), descriptor)
    if name == "validate":
        from edgealloc.models.training import digits
        digits._EPOCHS = 0  # the backbone need not have learned anything
    try:
        main(words)
    except SystemExit as asked:
        codes.append(asked.code)
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)  # what a library in C has not written yet
sys.exit(codes != [0] * len(codes))
"""


if importlib.util.find_spec("torch") and importlib.util.find_spec("peft"):
    JSON["validate"] = (
        *("validate", "fdma", "--methods", "auto", "--seeds", "1", "--rounds", "1", "--train-size", "30"),
        *("--validation-size", "20", "--test-size", "20", "--out", "trained", "--json"),
    )


def test_commands_that_print_json_print_nothing_else(folder) -> None:
    flagged = {name for name, command in main.commands.items() if any(p.name == "as_json" for p in command.params)}
    assert flagged - {"validate"} <= set(JSON), "a command with --json is missing here"
    done = run(folder, json.dumps(JSON), code=COMMANDS)  # in this order: verify reads what solve wrote
    assert (done.stdout, foreign(done.stderr), done.returncode) == ("", [], 0)
    for name in JSON:
        assert json.loads((folder / f"{name}.out").read_text()), name
        words = foreign((folder / f"{name}.err").read_text())
        assert [line for line in words if not line.startswith(TOLD.get(name, "nothing"))] == [], name


def test_bench_prints_its_table_alone(folder) -> None:
    pytest.importorskip("joblib")
    words = ("bench", "smoke", "--limit", "1", "--methods", "bnb,highs", "--jobs", "2", "--time-limit", "1")
    done = run(folder, *words, "--no-figures", "--out", "out")
    assert done.stdout == (folder / "out" / "smoke" / "smoke.md").read_text() + "\n"
    assert [line for line in foreign(done.stderr) if not line.startswith("written ")] == []


INTERRUPTED = """
import os, signal, sys, threading, time
from edgealloc import solve

first, pressed = signal.getsignal(signal.SIGINT), []

def press(_snapshot=None):
    if not pressed:  # a second one would raise, as it should
        pressed.append(os.kill(os.getpid(), signal.SIGINT))

def later():
    while signal.getsignal(signal.SIGINT) is first:
        time.sleep(0.01)
    time.sleep(1.0)
    press()

case, method = sys.argv[1:]
if method == "scip":
    import pyscipopt
    threading.Thread(target=later).start()
result = solve(case, method, time_limit=100.0, rel_gap=1e-9, callback=None if method == "scip" else press)
assert result.status in ("feasible", "no_solution") and "interrupt" in result.message, result
assert result.seconds < 60.0, result
"""


@pytest.mark.parametrize("method", ["bnb", "scip"])
def test_ctrl_c_ends_a_solve_without_a_word(folder, method) -> None:
    pytest.importorskip({"bnb": "highspy", "scip": "pyscipopt"}[method])
    done = run(folder, "large-ofdma", method, code=INTERRUPTED)
    assert (done.stdout, foreign(done.stderr), done.returncode) == ("", [], 0)


def test_ctrl_c_while_the_commands_are_imported_is_a_word(tmp_path: Path) -> None:
    code = """
import sys
class Pressed:
    def find_spec(self, name, *rest):
        if name == "edgealloc.cli.bench":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
from edgealloc.__main__ import main
main()
"""
    done = run(tmp_path, "methods", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Aborted!\n")
