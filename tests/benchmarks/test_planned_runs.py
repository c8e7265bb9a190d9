"""The page of planned runs: the rounds and the rate that a curve calls the best, against those measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from benchmarks.planned_runs import Best, best_table, bests, predicted, rows_of
from edgealloc.data.learning import LearningSpec
from edgealloc.models.trials.plans import Plan
from edgealloc.models.trials.validate import Validation
from tests.conftest import small_instance

CURVE = LearningSpec(pace=0.6, exponent=0.5, order=2.0, overfit=2e-2, growth=1.6, protection=20.0)


def plan(name: str, keep: float, rounds: int, **changes: Any) -> Plan:
    ones = np.ones(2)
    parts = {"latency_s": ones, "energy_j": ones, "deadline_s": 1.0, "energy_limit_j": ones}
    some = Plan(name=name, keep=np.full(2, keep), selected=np.ones(2, bool), **parts)
    return replace(some, rounds=rounds, **changes)


def seen(losses: dict[str, list[list[float]]], ending: str = "completed") -> Validation:
    """Test losses by plan, seed and round."""
    curves, finals = [], []
    for name, runs in losses.items():
        for seed, run in enumerate(runs):
            finals.append({"plan": name, "seed": seed, "ending": ending})
            for i, loss in enumerate(run, start=1):
                told = {"round": i, "test_loss": loss, "validation_loss": 2.0 * loss}
                curves.append({"plan": name, "seed": seed, **told})
    return Validation(tuple(curves), tuple(finals))


def test_the_best_round_is_that_of_the_curve_and_of_the_mean_loss() -> None:
    cell, most = small_instance("fdma", 2), 12
    plans = [plan("planned", 0.5, 3), plan("long", 0.9, 12), plan("few", 1.0, 3, selected=np.array([True, False]))]
    long = np.linspace(0.9, 0.5, 12)
    long[5] = 0.1
    runs = {"planned": [[0.9, 0.6, 0.5], [0.7, 0.4, 0.7]], "long": [list(long)] * 2, "few": [[0.1] * 3] * 2}
    found = bests(plans, seen(runs), CURVE, cell, most)
    assert [best.plan for best in found] == ["planned", "long"]  # the curve knows nothing of who is left out
    planned, whole = found
    said = [predicted(CURVE, replace(plans[0], rounds=r), cell) for r in range(1, most + 1)]
    assert (planned.predicted_round, planned.predicted_loss) == (int(np.argmin(said)) + 1, min(said))
    assert planned.predicted_round > planned.trained  # then what is lost is that of the last round trained
    assert planned.measured_round == 2  # of the mean over seeds, .8 .5 .6, as neither of them has it
    assert planned.measured_loss == pytest.approx(0.5)
    assert planned.lost == pytest.approx(0.1)
    assert (whole.keep, whole.measured_round) == (pytest.approx(0.9), 6)
    assert whole.lost == pytest.approx(long[whole.predicted_round - 1] - 0.1)
    assert not bests(plans, seen(runs, "diverged"), CURVE, cell, most)


def test_the_page_says_which_rate_was_predicted_and_which_was_best() -> None:
    rates = [Best("a|b", 0.5, 4, 4, 0.4, 3, 0.6, 0.0), Best("c", 0.2, 9, 8, 0.5, 9, 0.45, 0.01)]
    page = best_table(rates)
    assert "| a\\|b | 0.50 | 4 | 0.400 | 3 | 0.600 | 0.000 |" in page
    assert "| c | 0.20 | 8 | 0.500 | 9 (its last) | 0.450 | 0.010 |" in page
    assert "0.50 predicted, 0.20 measured; the predicted one's own best is 0.150 nats above the least" in page


def test_rows_keep_every_loss_and_who_was_heard() -> None:
    few = plan("few", 0.5, 2, selected=np.array([True, False]))
    (row, _) = rows_of("sst2", [few], seen({"few": [[0.5, 0.25], [0.5, 0.25]]}))
    assert row["keep"] == "0.5 0"
    assert (row["test_loss"], row["validation_loss"]) == ("0.5000 0.2500", "1.0000 0.5000")
