"""Whole runs: budgets in all, rounds of their own, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgealloc.api import solve
from edgealloc.errors import InputError, StatusError
from edgealloc.formulation.result import Result
from edgealloc.models.trials.runs import longest, one_round, plan_from_run, rivals_for, run_table, validate_runs
from edgealloc.models.trials.validate import Validation
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from tests.models.trials.test_validate import QUICK, SMALL, plan

CELL = make_cell(CellOptions(devices=3, samples=(15, 25)), np.random.default_rng(1)).instance


@dataclass(frozen=True)
class Planned:
    """What a planner would hand over."""

    rounds: int
    result: Result | None


def test_budgets_of_a_run_are_divided_over_its_rounds() -> None:
    cell = one_round(CELL, 4, time_s=2.0 * CELL.latency_s, energy_j=8.0 * CELL.energy_j)
    assert cell.latency_s == CELL.latency_s / 2
    assert cell.energy_j.tolist() == CELL.energy_j.tolist()  # a round's own cap is the tighter one
    assert one_round(CELL, 4).energy_j.tolist() == CELL.energy_j.tolist()
    with pytest.raises(InputError) as error:
        one_round(CELL, 0, time_s=0.0, energy_j=[1.0, 2.0])
    assert [fault.field for fault in error.value.faults] == ["rounds", "time_s", "energy_j"]


def test_a_rival_trains_as_long_as_the_budgets_reach() -> None:
    p = plan()  # 9 s a round; 1, 2 and 5 J
    assert longest(p, 50).rounds == 50
    assert longest(p, 50, time_s=90.0).rounds == 10  # to the round, in spite of rounding
    assert longest(p, 50, time_s=90.0, energy_j=[4.0, 100.0, 100.0]).rounds == 4
    assert (
        longest(replace(p, selected=np.array([False, True, True])), 50, energy_j=[1.0, 100.0, 100.0]).rounds == 20
    )
    assert longest(p, 50, time_s=1.0).rounds == 1
    with pytest.raises(InputError, match="rounds"):
        plan(rounds=0)


def test_planned_runs_and_rivals_are_trained_for_their_rounds(untrained_digits: None, tmp_path: Path) -> None:
    total = 3.0 * CELL.latency_s
    cell = one_round(CELL, 3, time_s=total)
    planned = plan_from_run(Planned(3, solve(cell)))
    assert planned.rounds == 3
    with pytest.raises(StatusError, match="no plan"):
        plan_from_run(Planned(0, None))
    rivals = rivals_for(CELL, ["baseline:equal"], 2, time_s=total, tell=lambda words: None)
    assert [r.rounds for r in rivals] == [2]
    store = tmp_path / "runs.jsonl"
    setup, samples = replace(SMALL, train_size=60), CELL.samples
    seen = validate_runs([planned, *rivals], setup, QUICK, samples=samples, seeds=(0, 1), store=store)
    assert {(r["plan"], r["rounds"], r["rounds_trained"]) for r in seen.finals} == {
        ("planned", 3, 3),
        ("baseline:equal", 2, 2),
    }
    assert {r["plan"]: r["run_s"] for r in seen.finals}["planned"] <= total * (1 + 1e-9)
    for final in seen.finals:
        own = [r for r in seen.curves if (r["plan"], r["seed"]) == (final["plan"], final["seed"])]
        assert own[-1]["test_loss"] == final["test_loss"]
        assert min(own, key=lambda r: r["validation_loss"])["test_loss"] == final["best_test_loss"]
    table = run_table(seen, "planned", {"planned": 0.5})
    assert "| planned | 3 | " in table
    assert "| 0.500 |" in table
    again = validate_runs([planned, *rivals], setup, QUICK, samples=samples, seeds=(0, 1), store=store)
    assert again.finals == seen.finals
    with pytest.raises(InputError, match="patience"):
        validate_runs([planned], setup, replace(QUICK, patience=2), samples=samples)


def test_differences_are_paired_over_seeds() -> None:
    meter = {"round_s": 1.0, "round_j": 1.0, "reporting": 3, "bound": 0.0, "stability": 0.0}
    meter |= {"rounds": 5, "run_s": 5.0, "run_j": 5.0, "train_loss": 0.1, "test_accuracy": 0.5, "best_round": 4}
    finals = [
        {
            "plan": name,
            "seed": seed,
            "test_loss": 0.4 + seed + worse,
            "best_test_loss": 0.3 + seed,
            "ending": "",
            **meter,
        }
        for name, worse in (("planned", 0.0), ("rival", 0.125))
        for seed in (0, 1, 2)
    ]
    last = run_table(Validation((), tuple(finals)), "planned").splitlines()[-1]
    assert "| +0.125 +- 0.000 |" in last  # whatever seeds differ by
    assert "| +0.000 +- 0.000 |" in last
