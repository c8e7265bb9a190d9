"""What commands say and take: methods, schemas, standard input, tables with units, pictures in three formats."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from edgealloc.cli.app import main
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.method import Method
from edgealloc.methods import METHODS
from edgealloc.solvers.base import Control, Options
from tests.cli.conftest import answered, run


def piped(text: str, *arguments: object) -> object:
    return CliRunner().invoke(main, [str(a) for a in arguments], input=text)


def test_methods_are_listed_with_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("methods", "--json")
    answered(done, 0)
    rows = {row["method"]: row for row in json.loads(done.output)}
    assert set(METHODS) <= set(rows)
    assert "baseline:equal" in rows
    assert rows["bnb"]["installed"] == "yes"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    rows = {row["method"]: row for row in json.loads(run("methods", "--json").output)}
    assert rows["scip"]["installed"] == "edgealloc[scip]"
    assert "bnb" in run("methods").output


def test_schema_of_a_plan_is_one() -> None:
    done = run("schema", "plan")
    answered(done, 0)
    jsonschema.Draft202012Validator.check_schema(json.loads(done.output))


def test_a_dash_is_standard_input(folder: Path) -> None:
    text = (folder / "cell.json").read_text()
    done = piped(text, "solve", "-", "--out", "s.json")
    answered(done, 0)  # type: ignore[arg-type]
    answered(piped(text, "verify", "-", "s.json"), 0)  # type: ignore[arg-type]
    answered(piped((folder / "s.json").read_text(), "verify", "cell.json", "-"), 0)  # type: ignore[arg-type]
    (folder / "-").write_text("no instance")
    answered(run("solve", "./-"), 2)
    twice = piped(text, "verify", "-", "-")
    answered(twice, 2)  # type: ignore[arg-type]
    assert "standard input for one of them" in twice.output  # type: ignore[attr-defined]
    answered(piped("", "solve", "-"), 2)  # type: ignore[arg-type]


def test_rounds_are_a_table_with_units_and_a_legend() -> None:
    done = run("simulate", "--devices", "2", "--rounds", "2", "--policies", "equal-split")
    answered(done, 0)
    for told in ("bound G", "energy", " J ", "time", "without: rounds with no allocation"):
        assert told in done.output


@pytest.mark.parametrize("ending", ["pdf", "svg"])
def test_pictures_of_a_solve_in_the_format_asked_for(folder: Path, ending: str) -> None:
    answered(run("solve", "cell.json", "--plot", "out", "--plot-format", ending), 0)
    assert (folder / "out" / f"allocation.{ending}").is_file()


def test_positions_of_another_cell_are_refused_before_the_work(folder: Path) -> None:
    (folder / "places.json").write_text(json.dumps({"position_m": [[0, 0]], "line_of_sight": [True]}))
    done = run("solve", "cell.json", "--plot", "out", "--positions", "places.json")
    answered(done, 2)
    assert "one a device (3)" in done.output
    assert "bound G" not in done.output


def test_extras_are_asked_for_before_the_first_method_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("solved before it was known that a package is missing")

    monkeypatch.setattr("edgealloc.errors.find_spec", lambda name: None)
    both = run("compare", "cell.json", "--methods", "convex,scip")
    answered(both, 0)
    assert "scip: refused" in both.output
    assert "edgealloc[scip]" in both.output
    monkeypatch.setattr("edgealloc.method.Method.run", never)
    done = run("compare", "cell.json", "--methods", "scip")
    answered(done, 1)
    assert "edgealloc[scip]" in done.output


def test_the_solution_is_written_even_where_the_certificate_cannot_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgealloc.errors import Fault, InputError

    def full(*_: object, **__: object) -> None:
        raise InputError("proof.json", [Fault("file", "path", "proof.json", "a disk with room")])

    monkeypatch.setattr("edgealloc.certificate.file.save_certificate", full)
    done = run("solve", "cell.json", "--certificate", "p.json", "--out", "new.json")
    answered(done, 2)
    assert (folder / "new.json").is_file()
    assert "bound G" in done.output


def test_the_least_of_a_budget_for_machines(folder: Path) -> None:
    best = json.loads((folder / "solution.json").read_text())["objective"]
    words = ("least", "cell.json", "--resource", "energy", "--rel-tol", "1e-2", "--json", "--target")
    found = json.loads(run(*words, 1.02 * best, "--out", "less.json").stdout)
    assert found["resource"] == "energy_j"
    assert found["objective"] <= found["target"] == 1.02 * best
    assert found["factor_low"] < found["factor"] < 1.0
    assert found["enough"] == load_instance(folder / "less.json").energy_j.tolist()
    assert all(less < enough for less, enough in zip(found["too_little"], found["enough"], strict=True))
    tight = load_instance(folder / "cell.json").with_changes(latency_s=1e-3)
    save_instance(tight, folder / "tight.json")
    never = run("least", "tight.json", "--resource", "energy", "--target", 1.02 * best, "--json")
    assert never.exit_code == 3
    assert json.loads(never.stdout)["factor"] is json.loads(never.stdout)["enough"] is None


def test_ctrl_c_ends_a_comparison_of_named_methods(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, asked = Method.run, list[str]()

    def pressed(self: Method, problem: Problem, options: Options) -> Result:
        asked.append(self.name)
        with Control(options) as control:
            signal.raise_signal(signal.SIGINT)
            assert control.stopped()
        return honest(self, problem, options)

    monkeypatch.setattr(Method, "run", pressed)
    done = run("compare", "cell.json", "cell.json", "--methods", "convex,psca", "--json")
    answered(done, 0)
    assert asked == ["convex"]
    assert [row["method"] for row in json.loads(done.stdout)] == ["convex"]
