"""Sweeps and validations on the offline digits, and the clock and the meter of a plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgealloc.errors import InputError
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.digits import DIGITS_LEARNING_RATE
from edgealloc.models.training.federated import run
from edgealloc.models.training.task import Setup, build_task
from edgealloc.models.trials.picture import plot_validation
from edgealloc.models.trials.sweep import half_width, markdown, read_records, summarise, sweep
from edgealloc.models.trials.validate import Plan, validate
from edgealloc.models.trials.validate import markdown as validation_table

SMALL = Setup(train_size=100, validation_size=50, test_size=200, devices=3)
QUICK = FederatedOptions(rounds=2, local_epochs=1, learning_rate=DIGITS_LEARNING_RATE)


def plan(name: str = "p", **changes: object) -> Plan:
    facts = {
        "keep": np.array([0.5, 0.8, 1.0]),
        "latency_s": np.array([2.0, 3.0, 9.0]),
        "energy_j": np.array([1.0, 2.0, 5.0]),
        "deadline_s": 10.0,
        "energy_limit_j": np.array([4.0, 4.0, 6.0]),
        "selected": np.array([True, True, True]),
        "bound": 0.9,
        "stability": 0.5,
    }
    return Plan(name, **(facts | changes))  # type: ignore[arg-type]


def test_the_clock_and_the_meter() -> None:
    assert (plan().round_s, plan().round_j) == (9.0, 8.0)
    late = plan(deadline_s=5.0)
    assert late.reports.tolist() == [True, True, False]
    assert (late.round_s, late.round_j) == (5.0, 8.0)  # waited for, and paid for
    empty = plan(energy_limit_j=np.array([4.0, 1.5, 6.0]))
    assert empty.reports.tolist() == [True, False, True]
    assert (empty.round_s, empty.round_j) == (10.0, 7.5)
    without = plan(deadline_s=5.0, selected=np.array([True, True, False]))
    assert (without.round_s, without.round_j) == (3.0, 3.0)
    with pytest.raises(InputError, match="latency_s"):
        plan(latency_s=np.array([1.0]))


def test_the_offline_default_transfers_to_digits_it_has_never_seen() -> None:
    task = build_task(Setup(), 0)
    start = replace(QUICK, rounds=4, local_epochs=3)
    history = run(task, 1.0, start)
    assert history.test.accuracy > 0.65  # five classes
    assert history.rounds[0]["validation_loss"] > history.rounds[-1]["validation_loss"] + 0.1
    shares = np.concatenate(task.devices)
    assert len(np.unique(shares)) == 200
    assert max(shares) < min(task.validation) < min(task.test)


def test_a_sweep_resumes_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    store = tmp_path / "runs.jsonl"
    options = {"rounds": 2, "local_epochs": 1, "learning_rate": DIGITS_LEARNING_RATE}

    def runs(path: Path | None) -> list[dict[str, object]]:
        found = sweep(SMALL, ["zero-filled", "inverted"], [0.0, 0.5], [0], store=path, options=options)
        return [{k: v for k, v in r.items() if k != "cpu_seconds"} for r in found]

    first = runs(store)
    assert len({r["key"] for r in first}) == 4
    lines = store.read_text().splitlines()
    store.write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])  # cut off in the middle of a line
    assert len(read_records(store)) == 2
    assert runs(store) == first
    assert [json.loads(x)["key"] for x in store.read_text().splitlines()] == [r["key"] for r in first]
    table = summarise(first)
    assert [(r["rule"], r["dropout"]) for r in table] == [(r["rule"], r["dropout"]) for r in first]
    assert markdown(table).count("**") == 4  # one best rate per rule
    assert first[0]["test_loss"] == first[2]["test_loss"], "no dropout: the rule does not matter"
    assert first[1]["test_loss"] != first[3]["test_loss"]


def test_a_validation_is_paired_resumable_and_drawn(tmp_path: Path) -> None:
    plans = [plan("whole", keep=np.ones(3)), plan("late", keep=np.ones(3), deadline_s=5.0), plan("dropped")]
    samples = np.array([10.0, 20.0, 30.0])
    store = tmp_path / "validation.jsonl"
    seen = validate(plans, SMALL, QUICK, samples=samples, seeds=(0, 1), store=store)
    assert len(seen.finals) == 6
    assert len(seen.curves) == 12
    late = [r for r in seen.curves if r["plan"] == "late" and r["seed"] == 0]
    assert [r["seconds"] for r in late] == [5.0, 10.0]
    assert [r["joules"] for r in late] == [8.0, 16.0]
    assert all(r["reporting"] == 2 for r in late)
    rows = {r["plan"]: r for r in seen.table()}
    losses = [r["test_loss"] for r in seen.finals if r["plan"] == "dropped"]
    assert rows["dropped"]["test_loss"] == np.mean(losses)
    assert rows["dropped"]["test_loss_ci95"] == half_width(losses)
    against = {r["plan"]: r for r in seen.against("whole")}
    assert set(against) == {"late", "dropped"}
    assert against["late"]["difference"] == pytest.approx(rows["late"]["test_loss"] - rows["whole"]["test_loss"])
    assert validation_table(seen).count("\n") == 5
    assert len(seen.to_frame()) == 6
    again = validate(plans, SMALL, QUICK, samples=samples, seeds=(0, 1), store=store)
    assert (again.finals, again.curves) == (seen.finals, seen.curves)
    fresh = validate(plans[2:], SMALL, QUICK, samples=samples, seeds=(1,))
    assert fresh.finals[0]["test_loss"] == losses[1]
    figure = plot_validation(seen, "three plans")
    figure.savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="distinct names"):
        validate([plans[0], plans[0]], SMALL, QUICK, samples=samples)
    with pytest.raises(InputError, match="reference"):
        seen.against("nobody")


def test_student_intervals() -> None:
    # t quantile 0.975 with 2 degrees of freedom: 4.302653 (any table)
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert np.isnan(half_width([1.0]))
