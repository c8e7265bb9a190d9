"""The command line: what is printed, which files appear, and every exit status."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

import edgealloc
from edgealloc import methods
from edgealloc.bench.suites import SUITES
from edgealloc.cli.app import main
from edgealloc.cli.solve import EXIT_CODES
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.errors import PlausibilityWarning
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.formulation.problem import Problem
from edgealloc.report.progress import Progress, snapshot_text
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.fdma.convex import solve_convex
from tests.places import ROOT


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small, tight, feasible cell as a file."""
    cell = make_cell(CellOptions(devices=4), np.random.default_rng(3))
    return save_instance(cell.instance, tmp_path_factory.mktemp("cli") / "cell.json")


@pytest.fixture
def hopeless(case: Path, tmp_path: Path) -> Path:
    """The cell with a deadline that one device's processor cannot meet."""
    instance = load_instance(case)
    cycles = instance.cycles_fixed.copy()
    cycles[2] *= 1e3
    return save_instance(instance.with_changes(cycles_fixed=cycles), tmp_path / "hopeless.json")


def use_method(monkeypatch: pytest.MonkeyPatch, entry: Any) -> None:
    """Offer ``entry(problem, options)`` as the only method, under the name ``probe``."""

    probe = methods.Method("probe", "", lambda _: True, "any problem", entry)
    monkeypatch.setattr(methods, "METHODS", {"probe": probe})


def test_readme_example_runs_as_printed(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert sum(bool(line.strip()) for line in example.splitlines()) == 10
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Result: optimal by convex" in done.stdout
    assert "ACCEPTED" in done.stdout


def test_readme_commands_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.split() for block in blocks for line in block.splitlines() if line.startswith("edgealloc ")]
    assert len(lines) == 9
    for _, *arguments in lines:
        done = run(*arguments)
        assert done.exit_code == 0, done.output


def test_new_solve_verify(tmp_path: Path) -> None:
    case, places, out = tmp_path / "cell.json", tmp_path / "places.json", tmp_path / "solution.json"
    assert run("new", "--devices", "3", "--seed", "5", "--out", case, "--positions", places).exit_code == 0
    assert load_instance(case) == make_cell(CellOptions(devices=3), np.random.default_rng(5)).instance
    pictures = tmp_path / "pictures"
    solve = ("solve", case, "--method", "convex", "--rel-gap", "1e-6", "--time-limit", "60", "--out", out)
    solved = run(*solve, "--plot", pictures, "--positions", places)
    assert solved.exit_code == 0, solved.output
    assert all(name in solved.stdout for name in ("dev-0000", "dev-0001", "dev-0002"))
    assert {path.name for path in pictures.iterdir()} == {"allocation.png", "bounds.png", "cell.png"}
    claimed = json.loads(out.read_text())
    assert claimed["status"] == "optimal"
    assert claimed["rel_gap"] <= 1e-6
    assert f"{claimed['objective']:.10g}" in solved.stdout
    assert run("verify", case, out).exit_code == 0
    claimed["devices"][1]["keep"] = 0.9
    out.write_text(json.dumps(claimed))
    rejected = run("verify", case, out)
    assert rejected.exit_code == 1
    assert "dev-0001" in rejected.stdout
    as_json = json.loads(run("verify", case, out, "--json").stdout)
    assert as_json["ok"] is False
    assert any(fault["where"] == "dev-0001" for fault in as_json["faults"])


def test_new_prints_an_instance_without_out() -> None:
    printed = json.loads(run("new", "--devices", "2", "--access", "ofdma", "--subcarriers", "5").stdout)
    assert (printed["access"], printed["uplink"]["subcarriers"], len(printed["devices"])) == ("ofdma", 5, 2)


def test_new_offers_every_cell_option() -> None:
    help_text = run("new", "--help").output
    assert all(f"--{name.replace('_', '-')}" in help_text for name in CellOptions.__dataclass_fields__)
    words = ("--classes", "iot=1", "--samples", "50", "60", "--targets", "query,value", "--radius-m", "80")
    printed = json.loads(run("new", "--devices", "2", *words).stdout)
    options = CellOptions(
        devices=2, classes=(("iot", 1.0),), samples=(50, 60), targets=("query", "value"), radius_m=80.0
    )
    expected = make_cell(options, np.random.default_rng(0)).instance
    assert [device["gain"] for device in printed["devices"]] == expected.gain.tolist()
    assert [device["payload_lora_bits"] for device in printed["devices"]] == expected.payload_lora_bits.tolist()


def test_new_lists_all_faults() -> None:
    done = run("new", "--devices", "0", "--latency-s", "-1", "--classes", "toaster=1")
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert all(word in done.stderr for word in ("devices", "latency_s", "toaster"))
    assert run("new", "--classes", "phone").exit_code == 2


def test_solve_json_is_the_solution_file(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.json"
    printed = json.loads(run("solve", case, "--json", "--out", out).stdout)
    assert printed == json.loads(out.read_text())


def test_defaults_are_those_of_the_library(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Options] = []

    def keep(problem: Problem, options: Options) -> edgealloc.Result:
        given.append(options)
        return solve_convex(problem, options)

    use_method(monkeypatch, keep)
    assert run("solve", case).exit_code == 0
    assert dataclasses.replace(given[0], callback=None) == Options()


def test_infeasible_exits_3_with_the_diagnosis(hopeless: Path, tmp_path: Path) -> None:
    done = run("solve", hopeless, "--out", tmp_path / "s.json")
    assert done.exit_code == 3
    assert "dev-0002" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())["diagnosis"][0]["device"] == "dev-0002"
    assert run("verify", hopeless, tmp_path / "s.json").exit_code == 0


@pytest.mark.parametrize("method", ["auto", "nonesuch"])
def test_bad_input_exits_2_with_all_faults(case: Path, tmp_path: Path, method: str) -> None:
    data = json.loads(case.read_text())
    data["devices"][0]["energy_j"] = -1.0
    data["devices"][3]["gain"] = "loud"
    data["latency"] = data.pop("latency_s")
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(data))
    done = run("solve", broken, "--method", method)
    assert done.exit_code == 2
    assert all(word in done.stderr for word in ("energy_j", "gain", "latency", "dev-0000", "dev-0003"))
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["solve", "{case}", "--method", "nonesuch"],
        ["solve", "{case}", "--rel-gap", "-1"],
        ["solve", "{case}", "--time-limit", "0"],
        ["solve", "missing.json"],
        ["solve", "{case}", "--warm-start", "missing.json"],
        ["solve", "{case}", "--positions", "missing.json"],
        ["solve", "{case}", "--plot", "pictures", "--positions", "missing.json"],
        ["solve", "{case}", "--out", "no/such/folder/s.json"],
        ["verify", "{case}", "missing.json"],
        ["verify", "missing.json", "missing.json"],
        ["compare", "{case}", "--methods", "convex,nonesuch"],
        ["schema", "nonesuch"],
    ],
)
def test_bad_usage_exits_2(
    arguments: list[str], case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*(a.format(case=case) for a in arguments))
    assert done.exit_code == 2
    assert done.stderr
    assert "Traceback" not in done.output
    assert not any(tmp_path.iterdir())


def test_every_status_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == {status.value for status in Status}
    assert {s for s in Status if EXIT_CODES[s] == 0} == {s for s in Status if s.has_allocation}


def test_a_limit_with_nothing_found_exits_4(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(problem: Problem, options: Options) -> edgealloc.Result:
        free = problem.free_objective
        return edgealloc.Result(
            problem, "probe", Status.NO_SOLUTION, math.inf, free, free, None, 1.0, message="time limit"
        )

    use_method(monkeypatch, nothing)
    done = run("solve", case)
    assert done.exit_code == 4
    assert "time limit" in done.stdout


def test_an_unexpected_error_exits_1(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(problem: Problem, options: Options) -> edgealloc.Result:
        raise RuntimeError("a defect")

    use_method(monkeypatch, broken)
    assert run("solve", case).exit_code == 1


def test_missing_package_exits_1_with_the_remedy(
    case: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgealloc.errors.find_spec", lambda name: None)
    done = run("solve", case, "--plot", tmp_path)
    assert done.exit_code == 1
    assert "edgealloc[plot]" in done.stderr


def test_interrupt_returns_the_incumbent(case: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    optimum = edgealloc.solve(case)
    stopped = []

    def endless(problem: Problem, options: Options) -> edgealloc.Result:
        with Control(options) as control:
            for iteration in range(1000):
                control.report(Snapshot("probe", control.seconds, iteration, 0.0, optimum.objective, 1.0))
                if iteration == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                if control.stopped():
                    break
            stopped.append(iteration)
        fields = {name: getattr(optimum, name) for name in type(optimum).__dataclass_fields__}
        changed = {"status": Status.FEASIBLE, "lower_bound": 0.0, "message": control.reason, "method": "probe"}
        return edgealloc.Result(**(fields | changed))

    use_method(monkeypatch, endless)
    done = run("solve", case, "--out", tmp_path / "s.json")
    assert done.exit_code == 0, done.output
    assert stopped == [3]
    assert "interrupted" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())["status"] == "feasible"


def test_warm_start_is_handed_over(case: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run("solve", case, "--out", tmp_path / "s.json").exit_code == 0
    given = []

    def keep(problem: Problem, options: Options) -> edgealloc.Result:
        given.append(options.warm_start)
        return solve_convex(problem, options)

    use_method(monkeypatch, keep)
    assert run("solve", case, "--warm-start", tmp_path / "s.json").exit_code == 0
    keeps = [device["keep"] for device in json.loads((tmp_path / "s.json").read_text())["devices"]]
    assert given[0].keep.tolist() == keeps


def test_log_and_progress_change_nothing(case: Path) -> None:
    quiet, loud = (json.loads(run("solve", case, "--json", *more).stdout) for more in ([], ["--log"]))
    assert quiet | {"seconds": 0} == loud | {"seconds": 0}


def test_compare_lists_every_method(case: Path) -> None:
    done = run("compare", case, "--rel-gap", "1e-6")
    assert done.exit_code == 0
    takers = [m.name for m in methods.METHODS.values() if m.chosen and m.takes(Problem(load_instance(case)))]
    assert all(name in done.stdout for name in takers)
    rows = json.loads(run("compare", case, "--methods", "convex", "--json").stdout)
    assert [row["method"] for row in rows] == ["convex"]


def test_compare_reports_infeasibility(hopeless: Path) -> None:
    assert run("compare", hopeless, "--methods", "convex").exit_code == 3


@pytest.mark.parametrize("kind", ["instance", "solution"])
def test_schema_accepts_what_the_commands_write(kind: str, case: Path) -> None:
    schema = json.loads(run("schema", kind).stdout)
    written = case.read_text() if kind == "instance" else run("solve", case, "--json").stdout
    Draft202012Validator(schema).validate(json.loads(written))
    wrong = json.loads(written) | {"unknown": 1}
    assert not Draft202012Validator(schema).is_valid(wrong)


@pytest.mark.usefixtures("untrained_digits")
def test_demo_proves_verifies_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgealloc.demo._ROUNDS", 2)
    monkeypatch.setattr("edgealloc.demo._TRAINED", ("auto", "stragglers"))
    whole = SUITES["demo"]()  # the slow test draws all of it
    few = dataclasses.replace(whole, cases=whole.cases[:2], methods=("auto", "baseline:equal"))
    monkeypatch.setitem(SUITES, "demo", lambda: few)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PlausibilityWarning)  # a tour whose own cells look odd teaches to look away
        _demo(tmp_path)


@pytest.mark.slow
def test_demo_as_it_is(tmp_path: Path) -> None:
    _demo(tmp_path)


def _demo(tmp_path: Path) -> None:
    done = run("demo", "--devices", "5", "--out", tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert "ACCEPTED" in done.stdout
    assert "optimal by convex" in done.stdout
    assert "optimal by bnb" in done.stdout
    assert "search tree " in done.stdout
    for method in ("psca", "psca+", "baseline:equal", "baseline:no-dropout"):
        assert re.search(rf"^ *{re.escape(method)} ", done.stdout, re.MULTILINE), done.stdout
    paths = re.findall(r"\S+\.(?:png|json)", done.stdout)
    assert "least test loss at the end: " in done.stdout
    assert done.stdout.count("lower_bound proved") == 2
    # three files of each cell, three pictures of the first, a tree, four of the other; deadlines; the training
    assert len(paths) == 6 + 1 + 7 + 1 + 1
    assert all(Path(path).is_file() for path in paths)


def test_progress_waits_a_second_and_stays_off_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    snapshot = Snapshot("convex", 1.0, 3, 0.25, 0.5, 0.5, nodes=7, open_nodes=2)
    shown = []
    for delay, terminal in ((0.0, True), (60.0, True), (0.0, False)):
        monkeypatch.setattr("edgealloc.report.progress.DELAY_S", delay)
        stream = StringIO()
        console = Console(file=stream, force_terminal=terminal, force_interactive=terminal, width=120)
        with Progress("cell", console) as progress:
            progress.update(snapshot)
            patience = time.monotonic() + (5.0 if delay == 0.0 and terminal else 0.05)
            while "incumbent" not in stream.getvalue() and time.monotonic() < patience:
                time.sleep(0.01)
        shown.append("incumbent 0.5" in stream.getvalue())
    assert shown == [True, False, False]
    assert snapshot_text(snapshot) == "convex 3  incumbent 0.5  bound 0.25  gap 5.0e-01  nodes 7 (2 open)"


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_script_runs(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out
