"""Sweeps and validations on the offline digits, and the clock and the meter of a plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from matplotlib.figure import Figure

from edgealloc.errors import InputError
from edgealloc.models.exchange.wire import AdapterShape
from edgealloc.models.training.checkpoint import Standing, save
from edgealloc.models.training.client import FederatedOptions
from edgealloc.models.training.digits import DIGITS_LEARNING_RATE
from edgealloc.models.training.federated import run
from edgealloc.models.training.task import Setup, build_task
from edgealloc.models.trials.cell import payload_note, trial_cell, verdict
from edgealloc.models.trials.picture import plot_validation
from edgealloc.models.trials.plans import Plan
from edgealloc.models.trials.store import opened, read_records
from edgealloc.models.trials.sweep import RULES, half_width, markdown, summarise, sweep
from edgealloc.models.trials.validate import Validation, validate
from edgealloc.models.trials.validate import markdown as validation_table
from edgealloc.report.style import looks_of
from edgealloc.scenario.options import CellOptions
from edgealloc.scenario.tensors import LoraLayer

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


@pytest.mark.usefixtures("untrained_digits")
def test_ranks_of_a_plan_are_trained_and_told_apart_in_the_store(tmp_path: Path) -> None:
    plans = [plan("whole"), plan("mixed", ranks=np.array([1, 0, 2]))]
    samples, store = np.ones(3), tmp_path / "validation.jsonl"
    seen = validate(plans, SMALL, QUICK, samples=samples, seeds=(0,), store=store)
    bits = {r["plan"]: r["upload_bits"] for r in seen.curves if r["round"] == 1}
    assert bits["mixed"] < bits["whole"]
    assert len(read_records(store)) == 2
    high = plan("high", ranks=np.array([1, 99, 2]))
    with pytest.raises(InputError, match="ranks = 99; allowed: at most 4, the rank of the adapter"):
        validate([high], SMALL, QUICK, samples=samples, seeds=(0,))
    with pytest.raises(InputError, match="ranks"):
        plan(ranks=np.array([1]))


def test_the_offline_default_transfers_to_digits_it_has_never_seen() -> None:
    task = build_task(Setup(), 0)
    start = replace(QUICK, rounds=4, local_epochs=3)
    history = run(task, 1.0, start)
    assert history.test.accuracy > 0.65  # five classes
    assert history.rounds[0]["validation_loss"] > history.rounds[-1]["validation_loss"] + 0.1
    shares = np.concatenate(task.devices)
    assert len(np.unique(shares)) == 200
    assert max(shares) < min(task.validation) < min(task.test)


@pytest.mark.usefixtures("untrained_digits")
def test_a_sweep_resumes_and_repeats_bit_for_bit(tmp_path: Path) -> None:
    store = tmp_path / "runs.jsonl"
    options = {"rounds": 2, "local_epochs": 1, "learning_rate": DIGITS_LEARNING_RATE}

    def runs(path: Path | None) -> list[dict[str, Any]]:
        found = sweep(SMALL, ["zero-filled", "inverted"], [0.0, 0.5], [0], store=path, options=options)
        return [{k: v for k, v in r.items() if k != "cpu_seconds"} for r in found]

    first = runs(store)
    assert len({r["key"] for r in first}) == 3  # without dropout both rules are one run
    lines = store.read_text().splitlines()
    store.write_text("\n".join(lines[:2]) + "\n" + lines[2][:40])  # cut off in the middle of a line
    assert len(read_records(store)) == 2
    assert runs(store) == first
    assert [r["key"] for r in read_records(store)] == list(dict.fromkeys(r["key"] for r in first))
    task = build_task(SMALL, 0)
    for rule in ("keepers", "inverted"):  # which is so, and not only said
        whole = run(task, 1.0, replace(RULES[rule], rounds=2, local_epochs=1, learning_rate=DIGITS_LEARNING_RATE))
        assert whole.test.loss == first[0]["test_loss"]
    assert [len(r["curves"]["test_loss"]) for r in first] == [2] * 4
    assert first[1]["curves"]["test_loss"][-1] == first[1]["test_loss"]
    old = [{k: v for k, v in r.items() if k != "curves"} for r in read_records(store)]
    store.unlink()
    with opened(store) as kept:  # a store of before there were curves: good for what it holds, no more
        for r in old:
            kept.add(r)
    assert [r.get("curves") for r in runs(store)] == [None] * 4
    assert len(read_records(store)) == 3
    again = sweep(SMALL, ["inverted"], [0.5], [0], store=store, options=options, curves=True)
    assert again[0]["curves"] == first[3]["curves"]
    assert len(read_records(store)) == 4
    table = summarise(first)
    assert [(r["rule"], r["dropout"]) for r in table] == [(r["rule"], r["dropout"]) for r in first]
    assert markdown(table).count("**") == 4  # one best rate per rule
    assert first[1]["test_loss"] != first[3]["test_loss"]


@pytest.mark.usefixtures("untrained_digits")
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
    best = {(r["plan"], r["seed"], r["round"]): r["validation_loss"] for r in seen.curves}
    for final in seen.finals:  # a round of the curves, and the one of least validation loss
        losses_of = [best[final["plan"], final["seed"], number] for number in (1, 2)]
        assert final["best_round"] == 1 + int(np.argmin(losses_of))
    assert against["late"]["difference"] == pytest.approx(rows["late"]["test_loss"] - rows["whole"]["test_loss"])
    assert validation_table(seen).count("\n") == 5
    assert len(seen.to_frame()) == 6
    again = validate(plans, SMALL, QUICK, samples=samples, seeds=(0, 1), store=store)
    assert (again.finals, again.curves) == (seen.finals, seen.curves)
    fresh = validate(plans[2:], SMALL, QUICK, samples=samples, seeds=(1,))
    assert fresh.finals[0]["test_loss"] == losses[1]
    assert rows["whole"]["best_rounds"] == tuple(r["best_round"] for r in seen.finals if r["plan"] == "whole")
    figure = plot_validation(seen, "three plans")
    figure.savefig(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="distinct names"):
        validate([plans[0], plans[0]], SMALL, QUICK, samples=samples)
    with pytest.raises(InputError, match="reference"):
        seen.against("nobody")


@pytest.mark.usefixtures("untrained_digits")
def test_a_run_that_was_cut_off_goes_on_after_its_last_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside a sweep too: the checkpoint is beside the store, and gone when the run is in it."""
    store = tmp_path / "runs.jsonl"
    options = {"rounds": 2, "local_epochs": 1, "learning_rate": DIGITS_LEARNING_RATE}

    def one(path: Path | None) -> list[dict[str, object]]:
        return sweep(SMALL, ["zero-filled"], [0.5], [0], store=path, options=options)

    (whole,) = one(None)
    rounds: list[int] = []

    def cut_off(path: Path, mark: str, standing: Standing) -> None:
        save(path, mark, standing)
        rounds.append(len(standing.records))
        if len(rounds) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("edgealloc.models.training.federated.save", cut_off)
    with pytest.raises(KeyboardInterrupt):
        one(store)
    assert len(list(tmp_path.glob("runs.*.npz"))) == 1
    assert read_records(store) == []
    (resumed,) = one(store)
    assert rounds == [1, 2]
    assert {k: v for k, v in resumed.items() if k != "cpu_seconds"} == {
        k: v for k, v in whole.items() if k != "cpu_seconds"
    }
    assert list(tmp_path.glob("*.npz")) == []


def test_plans_of_which_a_run_diverged_are_not_ranked() -> None:
    scores = ("test_loss", "test_accuracy", "train_loss", "best_test_loss", "best_round", "bound", "stability")
    same = dict.fromkeys(("round_s", "round_j", "reporting", "rounds", "run_s", "run_j"), 1.0)

    def final(name: str, seed: int, loss: float) -> dict[str, object]:
        gone = np.isnan(loss)
        said = {"ending": "diverged" if gone else "completed", "reason": "round 1: too large" if gone else ""}
        return {"plan": name, "seed": seed, **same, **dict.fromkeys(scores, loss), **said}

    losses = {"wild": (0.1, np.nan), "calm": (0.5, 0.6)}
    seen = Validation((), tuple(final(n, i, x) for n, pair in losses.items() for i, x in enumerate(pair)))
    assert [line.split()[1] for line in validation_table(seen).splitlines()[2:]] == ["calm", "wild"]
    assert "diverged in 1 of 2" in validation_table(seen)
    words = verdict(seen)
    assert words.count("calm, 0.550") == 2
    assert "calm - wild: not compared, a run diverged" in words
    assert "wild, seed 1: diverged, round 1: too large" in words


def finished(name: str, best_rounds: tuple[int, ...], loss: float = 0.5) -> list[dict[str, object]]:
    """Final records of a plan, a seed for each best round."""
    scores = ("test_loss", "test_accuracy", "train_loss", "best_test_loss", "bound", "stability")
    meter = dict.fromkeys(("round_s", "round_j", "reporting", "rounds", "run_s", "run_j"), 1.0)
    said = {"ending": "completed", "reason": "", **dict.fromkeys(scores, loss)}
    return [{"plan": name, "seed": i, **meter, **said, "best_round": n} for i, n in enumerate(best_rounds)]


def test_a_best_round_is_a_round() -> None:
    seen = Validation((), (*finished("psca", (4, 11)), *finished("convex", (7, 7))))
    assert [row["best_rounds"] for row in seen.table()] == [(4, 11), (7, 7)]
    cells = {line.split(" | ")[0]: line.split(" | ")[-3] for line in validation_table(seen).splitlines()[2:]}
    assert cells == {"| psca": "4 to 11", "| convex": "7"}


def test_plans_look_as_their_methods_do_everywhere() -> None:
    methods = ("psca", "convex", "baseline:equal", "no dropout, stragglers")
    finals = [row for name in methods for row in finished(name, (1,))]
    curves = [
        {"plan": row["plan"], "seed": 0, "round": n, "seconds": n, "joules": n, "test_loss": 1.0 / n}
        for row in finals
        for n in (1, 2)
    ]
    figure = Figure()
    axes = figure.subplots(2, 2)
    assert plot_validation(Validation(tuple(curves), tuple(finals)), ax=axes, size="page") is figure
    looks = looks_of(methods)
    for axis in axes.flat[:3]:
        lines = {line.get_label(): line for line in axis.get_lines() if not line.get_label().startswith("_")}
        assert {name: line.get_color() for name, line in lines.items()} == {n: looks[n]["color"] for n in methods}
        assert {name: line.get_marker() for name, line in lines.items()} == {
            n: looks[n]["marker"] for n in methods
        }
    with pytest.raises(InputError, match="4 axes"):
        plot_validation(Validation((), tuple(finals)), ax=axes[0])


def test_a_cell_that_counts_on_another_adapter_is_noticed() -> None:
    shape = AdapterShape((LoraLayer("q", 384, 384, 16),), (("head", (2, 10)),))
    drawn = CellOptions(devices=3)
    rng = np.random.default_rng(0)
    right = trial_cell(drawn, shape.payload_fixed_bits, shape.payload_lora_bits, rng)
    assert payload_note(right, shape) is None
    wrong = right.with_changes(payload_lora_bits=np.array([2_359_296.0] * 3))
    note = payload_note(wrong, shape)
    assert note is not None
    assert "D1 (payload_lora_bits) is 2,359,296 bit in the cell, 393,216 bit in the adapter" in note
    assert "D0" not in note


def test_student_intervals() -> None:
    # t quantile 0.975 with 2 degrees of freedom: 4.302653 (any table)
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert np.isnan(half_width([1.0]))
