"""Model files for programs of others: each is read back by a library and has the optimum of the instance."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import edgealloc
from edgealloc import conformance
from edgealloc.cli.app import main
from edgealloc.data.constraints import PowerCap, SpectrumCap
from edgealloc.errors import InputError, RefusedError
from edgealloc.export import export
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.quiet import quiet_highs
from tests.solvers.backends.problems import exact, needs_pyomo, problem_of


@pytest.mark.parametrize("kind", ["mps", "lp"])
@pytest.mark.parametrize("cap", [False, True])
def test_a_program_that_highs_reads_back_has_the_optimum(kind: str, cap: bool, tmp_path: Path) -> None:
    rows = [SpectrumCap(1.5e4, [0, 1])] if cap else []
    problem = Problem(conformance.cell(), constraints=rows)
    engine = quiet_highs()
    engine.readModel(str(export(problem, tmp_path / f"model.{kind}", rel_gap=1e-4)))
    engine.run()
    want = edgealloc.solve(problem, "highs", rel_gap=1e-6)
    assert engine.getInfo().objective_function_value * problem.size == pytest.approx(want.objective, rel=3e-4)
    assert not cap or want.objective > exact(problem_of()).objective * (1 + 1e-3)


@needs_pyomo
@pytest.mark.parametrize("kind", ["nl", "gms"])
def test_pyomo_writes_its_model(kind: str, tmp_path: Path) -> None:
    text = export(problem_of(), tmp_path / f"model.{kind}").read_text()
    assert len(text) > 1000
    assert ("MODEL" in text.upper()) if kind == "gms" else text.startswith("g3")


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MOSEK"):
        export(problem_of(), tmp_path / "model.cbf")
    with pytest.raises(RefusedError, match="PowerCap"):
        export(Problem(conformance.cell(), constraints=[PowerCap(0.1)]), tmp_path / "model.mps")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    case = edgealloc.save_instance(conformance.cell(), tmp_path / "cell.json")
    done = CliRunner().invoke(main, ["export", str(case), "--to", "lp", "--out", str(tmp_path / "cell.lp")])
    assert done.exit_code == 0, done.output
    assert "end" in (tmp_path / "cell.lp").read_text().lower().split()
