"""``edgealloc calibrate`` and ``edgealloc validate`` on the offline default, as small as it gets."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgealloc.cli.app import main
from edgealloc.data.learning import LearningSpec
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.files.lock import sole_writer
from edgealloc.files.run import load_run
from edgealloc.models.training.client import Score
from edgealloc.models.training.federated import History
from edgealloc.models.trials.fit import fit, predict
from edgealloc.models.trials.learning import fit_learning
from edgealloc.models.trials.store import read_records
from edgealloc.models.trials.sweep import markdown
from edgealloc.runs.planning import plan_run
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

QUICK = ("--rounds", "1", "--local-epochs", "2", "--learning-rate", "0.03", "--seeds", "1")
SIZES = ("--train-size", "60", "--validation-size", "30", "--test-size", "100")
DROPOUTS = ("--dropouts", "0,0.3,0.6,0.9", "--underfit", "inverse-keep")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def cheap(untrained_digits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few starts of the fit, no pre-training: neither is what the commands are about."""
    monkeypatch.setattr("edgealloc.models.trials.fit.fit", partial(fit, starts=2))
    monkeypatch.setattr("edgealloc.models.trials.learning.fit_learning", partial(fit_learning, starts=2))


@pytest.fixture
def case(tmp_path: Path) -> Path:
    cell = make_cell(CellOptions(devices=3, samples=(15, 25)), np.random.default_rng(1))
    return save_instance(cell.instance, tmp_path / "cell.json")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs that train nothing and score what they are told to, by keep rate."""

    def pretend(train: Any, test: Any, curve: Any = lambda keep, options: ()) -> None:
        def trained(task: object, keep: float, options: object, **more: object) -> History:
            scores = Score(float(train(keep)), 0.5), Score(float(test(keep)), 0.5)
            rounds = [
                {"validation_loss": loss, "test_loss": loss, "test_accuracy": 0.5, "upload_bits": [1]}
                for loss in curve(keep, options)
            ]
            return History(tuple(rounds), *scores, 0, scores[1], {})

        monkeypatch.setattr("edgealloc.models.trials.sweep.run", trained)

    return pretend


def test_from_pilot_runs_to_a_validated_cell_and_again_without_training(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fitted, folder = tmp_path / "pilot.jsonl", tmp_path / "fitted.json", tmp_path / "seen"
    calibrate = ("calibrate", case, *QUICK, *SIZES, *DROPOUTS, "--store", store, "--out", fitted, "--anyway")
    first = run(*calibrate)
    assert first.exit_code == 0, first.output
    assert "pilot runs, digits, 4 of 4: dropout 0.9, seed 0: loss" in first.output  # no terminal, no bar: lines
    records = read_records(store)
    assert [r["dropout"] for r in records] == [0.0, 0.3, 0.6, 0.9]
    before, after = load_instance(case), load_instance(fitted)
    assert after.bound != before.bound
    assert replace(after, bound=before.bound) == before
    # the error that is printed is that of the constants that were written
    keep = 1.0 - np.array([0.0, 0.3, 0.6, 0.9])
    misfit = predict(after.bound, keep, 60, 3) - np.array([r["test_loss"] for r in records])
    slack = float(first.output.split("slack ")[1].split()[0])
    error = float(first.output.split("fit error ")[1].split()[0])
    assert error == pytest.approx(np.sqrt(np.mean((misfit - slack) ** 2)), abs=1e-3)  # the slack is rounded

    validate = ("validate", fitted, *QUICK, *SIZES, "--methods", "auto,stragglers", "--out", folder)
    seen = run(*validate)
    assert seen.exit_code == 0, seen.output
    assert "least test loss at the end: " in seen.output
    # the cell was drawn for another adapter than the digits', and says so, also in the file
    for words in (seen.output, (folder / "validation.md").read_text()):
        assert "D1 (payload_lora_bits) is" in words
        assert "losses and uploaded bits are those of the adapter" in words
    written = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}
    assert set(written) == {
        *("runs.jsonl", "validation.csv", "validation-curves.csv", "validation.md", "validation.png")
    }
    assert written["validation.csv"].count(b"\n") == 3

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("edgealloc.models.trials.sweep.run", refuse)
    monkeypatch.setattr("edgealloc.models.trials.validate.run", refuse)
    assert run(*calibrate).output == first.output
    assert run(*validate).output == seen.output
    assert (folder / "validation.csv").read_bytes() == written["validation.csv"]


def test_a_planned_run_and_its_rivals_are_trained_within_the_same_totals(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = LearningSpec(pace=0.8, exponent=0.6, order=2.0, overfit=2e-2, growth=1.5, protection=5.0)
    cell = load_instance(case).with_changes(learning=curve)
    save_instance(cell, case)
    total = 3.0 * cell.latency_s
    folder = tmp_path / "seen"
    common = ("validate", case, *SIZES, "--rounds", "3", "--local-epochs", "1", "--seeds", "2", "--out", folder)
    named = ("--methods", "psca,baseline:equal,admission")
    command = (*common, *named, "--run", "--time", total, "--rel-gap", "1e-2")
    seen = CliRunner().invoke(main, [*map(str, command), "--json"])
    assert seen.exit_code == 0, seen.output
    told = json.loads(seen.stdout)
    rows = {row["plan"]: row for row in told["runs"]}
    assert list(rows) == ["planned", "psca", "baseline:equal", "no dropout, admission"]
    plan = load_run(folder / "plan.json")
    assert told["plan"]["rounds"] == plan.rounds == rows["planned"]["rounds"]
    assert rows["planned"]["predicted_loss"] == plan.loss
    # the others plan their round by the bound, and are no better by the curve than what was planned by it
    assert plan.lower_bound is not None
    assert min(rows[name]["predicted_loss"] for name in ("psca", "baseline:equal")) >= plan.lower_bound
    everybody = rows["no dropout, admission"]["reporting"] == 3
    assert (rows["no dropout, admission"]["predicted_loss"] is not None) is everybody
    for row in rows.values():
        assert 1 <= row["rounds"] <= 3
        assert row["run_s"] <= total * (1.0 + 1e-9)
        assert len(row["best_rounds"]) == row["seeds"] == 2
        assert (row["best_test_loss_against"] is None) is (row["plan"] == "planned")
    files = {"plan.json", "run.csv", "run-curves.csv", "run.md", "run.png", "runs.jsonl", ".lock"}
    assert {path.name for path in folder.iterdir()} <= files
    with_run = (folder / "run.md").read_text()

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("edgealloc.models.trials.validate.run", refuse)
    again = run(*command)
    assert "| planned | " in again.output
    assert f"{plan.loss:.3f}" in again.output.split("| planned | ")[1].splitlines()[0]
    assert (folder / "run.md").read_text() == with_run
    assert "| planned | " in with_run
    alone = run(*common, "--time", "5", "--energy", "7")
    assert alone.exit_code == 2
    assert "time = 5" in alone.output
    assert "energy = 7" in alone.output
    none = run(*common, "--run", "--time", "1e-3")
    assert none.exit_code == 3
    assert "not even 1 round" in none.output
    save_instance(cell.with_changes(learning=None), case)
    without = run(*common, "--run", "--patience", "2")
    assert without.exit_code == 2
    assert "edgealloc calibrate" in without.output
    assert "patience = 2" in without.output


def test_a_run_is_asked_for_in_vain_before_anything_is_loaded(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Totals and gaps that are none; outputs onto what is read; Ctrl-C while planning, which trains nothing."""
    save_instance(load_instance(case).with_changes(learning=LearningSpec()), case)
    (folder := tmp_path / "seen").mkdir()
    common = ("validate", case, *QUICK, *SIZES, "--run", "--out", folder)
    wrong = run(*common, "--time", "nan", "--energy", "-3", "--patience", "1")
    assert wrong.exit_code == 2
    for words in ("time = nan", "energy = -3; allowed: a number from", "patience = 1"):
        assert words in wrong.output
    assert "rel_gap = 0" in run(*common, "--rel-gap", "0").output
    for name in ("plan.json", "run.csv", "run-curves.csv", "run.md", "run.png", "runs.jsonl"):
        own = folder / name
        own.write_bytes(case.read_bytes())
        onto = run("validate", own, *common[2:])
        said = f"{name}'; allowed: a file other than that of CASE" in onto.output
        assert (onto.exit_code, said) == (2, True), onto.output
        assert own.read_bytes() == case.read_bytes()
        own.write_text("sentence,label\n")
        assert f"{name}'; allowed: a file other than that of --data" in run(*common, "--data", own).output
        assert own.read_text() == "sentence,label\n"
        own.unlink()
    calibrate = ("calibrate", case, *QUICK, "--data", folder / "texts.csv", "--check", folder / "more.csv")
    for option, at, read in (("--out", "texts.csv", "--data"), ("--store", "more.csv", "--check")):
        (folder / at).write_text("sentence,label\n")
        assert f"a file other than that of {read}" in run(*calibrate, option, folder / at).output

    def interrupted(instance: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return plan_run(instance, **options)

    monkeypatch.setattr("edgealloc.runs.planning.plan_run", interrupted)
    stopped = run(*common)
    assert (stopped.exit_code, "Aborted!" in stopped.output) == (1, True)
    assert not (folder / "runs.jsonl").exists()


def test_rules_are_compared_by_the_losses_of_every_round(case: Path, tmp_path: Path, pretended: Any) -> None:
    """By the curves alone: at half the adapter the other rule loses nothing, and sends half."""
    falling = [1.2, 0.9, 0.7, 0.6, 0.62]

    def curves(keep: float, options: Any) -> list[float]:
        return [loss + (0.5 * (1 - keep) if options.scaling == "none" else 0.0) for loss in falling]

    pretended(lambda keep: 0.4, lambda keep: 0.7, curves)
    command = ("calibrate", case, *QUICK, *SIZES, *DROPOUTS, "--store", tmp_path / "p.jsonl")
    seen = run(*command, "--rule", "zero-filled", "--against", "inverted, zero-filled")
    assert "pilot runs, digits, 8 of 8: inverted, dropout 0.9, seed 0: loss" in seen.output
    assert len(read_records(tmp_path / "p.jsonl")) == 7  # without dropout both are the same run
    assert "| digits | inverted | 0.9 | 1 | 4.0 | 0.600 | 0.4 |" in seen.output
    assert "rule to take, digits: to within 0.020 of 0.600 nats" in seen.output
    assert seen.output.rstrip().endswith(": inverted")
    assert "learning, digits, rule zero-filled: L = " in seen.output
    assert "learning, digits, rule inverted: L = " in seen.output
    assert "note: learning curve of inverted: one seed" in seen.output
    alone = run(*command)
    assert "rule to take" not in alone.output
    refused = run(*command, "--against", "nonsense")
    assert refused.exit_code == 2
    assert "'nonsense'; allowed: zero-filled" in refused.output


def test_too_few_rounds_give_a_bound_and_no_learning_curve(case: Path, tmp_path: Path, pretended: Any) -> None:
    pretended(lambda keep: 0.4 - 0.1 * keep, lambda keep: 0.7 - 0.1 * keep)
    seen = run("calibrate", case, *QUICK, *SIZES, *DROPOUTS, "--store", tmp_path / "p.jsonl")
    assert "note: no learning curve of inverted: 0 rounds, allowed: at least 4 with a test loss" in seen.output
    assert "best dropout: fitted" in seen.output


def test_ctrl_c_keeps_what_is_done_and_leaves_the_instance_alone(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgealloc.models.trials.sweep.run", interrupted)
    before = case.read_bytes()
    stopped = run("calibrate", case, *QUICK, *SIZES, "--store", tmp_path / "pilot.jsonl", "--out", case)
    assert stopped.exit_code == 130
    assert "the same command goes on from there" in stopped.output
    assert case.read_bytes() == before


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (lambda keep: 1.6, lambda keep: 1.61 + 0.3 * keep, "the pilot learned nothing"),
        (lambda keep: 0.5, lambda keep: 0.9 + 0.1 * (-1) ** round(10 * keep), "the fit says nothing"),
    ],
    ids=["nothing learned", "nothing fitted"],
)
def test_a_pilot_that_says_nothing_writes_no_bound_unless_told_to(
    case: Path, tmp_path: Path, pretended: Any, train: Any, test: Any, words: str
) -> None:
    pretended(train, test)
    out = tmp_path / "fitted.json"
    command = ("calibrate", case, *QUICK, *SIZES, *DROPOUTS, "--store", tmp_path / "p.jsonl", "--out", out)
    held = run(*command)
    assert held.exit_code == 1
    assert f"Warning: {words}" in held.output
    assert "--anyway" in held.output
    assert not out.exists()
    told = run(*command, "--anyway")
    assert told.exit_code == 0
    assert f"Warning: {words}" in told.output
    assert load_instance(out).bound != load_instance(case).bound


def test_divergence_is_named_and_never_fitted(case: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "p.jsonl", tmp_path / "fitted.json"
    wild = ("--learning-rate", "1e30")
    done = run("calibrate", case, *QUICK, *SIZES, *DROPOUTS, *wild, "--store", store, "--out", out)
    assert done.exit_code == 2
    assert "dropout 0.9, seed 0: run = diverged (round 1, device 0: training loss" in done.output
    assert not out.exists()
    for line in store.read_text().splitlines():
        record = json.loads(line, parse_constant=lambda literal: pytest.fail(literal))
        assert (record["ending"], record["test_loss"]) == ("diverged", None)
    folder = tmp_path / "seen"
    seen = run("validate", case, *QUICK, *SIZES, *wild, "--methods", "psca,baseline:equal", "--out", folder)
    assert seen.exit_code == 0, seen.output
    assert "diverged in 1 of 1" in seen.output
    assert "none, for runs of every plan diverged" in seen.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rule", "nonsense"), ("zero-filled",)),
        (("--data", "nowhere.tsv"), ("nowhere.tsv",)),
        (("--train-size", "5000"), ("at most",)),
        (("--train-size", "2"), ("at least 3, one for every device",)),
        (("--dropouts", "0,0.5"), ("at least four rates",)),
        (("--dropouts", "0,nan,0.5,0.6"), ("at least four rates",)),
        (("--device", "nowhere"), ("device = 'nowhere'", "cuda:0")),
        (("--rounds", "0", "--seeds", "-1", "--threads", "0"), ("rounds = 0", "seeds = -1", "threads = 0")),
        (
            ("--learning-rate", "nan", "--batch-size", "0", "--label-noise", "inf", "--train-size", "0"),
            ("learning_rate = nan", "batch_size = 0", "label_noise = inf", "train_size = 0"),
        ),
        (("--patience", "-1", "--rank", "0", "--concentration", "0"), ("patience", "rank", "concentration")),
        (("--target-modules", "nothing_like_it"), ("layers that it has",)),
        (("--fair-lambda", "0.1"), ("fair_lambda = 0.1", "the rule fair")),
        (("--rule", "fair", "--fair-lambda", "nan", "--rounds", "0"), ("fair_lambda = nan", "rounds = 0")),
    ],
)
def test_faults_are_named_together_before_anything_is_trained(
    case: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = run("calibrate", case, "--store", tmp_path / "pilot.jsonl", *arguments)
    assert result.exit_code == 2, result.output
    assert all(word in result.output for word in words), result.output
    assert not (tmp_path / "pilot.jsonl").exists()


def test_outputs_that_cannot_be_written_are_named_before_anything_is_trained(case: Path, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    (folder / "validation.csv").mkdir(parents=True)
    result = run("validate", case, *QUICK, *SIZES, "--slack", "nan", "--out", folder)
    assert result.exit_code == 2
    assert "validation.csv' is a folder" in result.output
    assert "slack = nan" in result.output
    assert not (folder / "runs.jsonl").exists()
    with sole_writer(tmp_path / "other"):
        result = run("validate", case, *QUICK, *SIZES, "--methods", "psca", "--out", tmp_path / "other")
    assert result.exit_code == 2
    assert "another process" in result.output


def test_a_rule_that_no_plan_can_train_is_refused_before_anything_is_solved(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgealloc.models.trials.cell.plans_for", lambda *a, **k: pytest.fail("it was solved"))
    result = run("validate", case, *SIZES, "--rule", "clair", "--methods", "psca", "--out", tmp_path / "seen")
    assert result.exit_code == 2
    assert "robust = clair; allowed: none" in result.output


def test_options_reach_the_task(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank, layers, split and early stopping, as the trainer gets them."""
    seen: list[tuple[Any, Any]] = []

    def look(setup: Any, rules: Any, dropouts: Any, seeds: Any, *, options: Any, **more: Any) -> list[Any]:
        seen.append((setup, options))
        raise KeyboardInterrupt

    monkeypatch.setattr("edgealloc.models.trials.sweep.sweep", look)
    chosen = ("--rank", "2", "--last-layers", "1", "--concentration", "0.3", "--patience", "4")
    assert run("calibrate", case, *chosen, "--store", tmp_path / "p.jsonl").exit_code == 130
    assert run("calibrate", case, "--store", tmp_path / "p.jsonl").exit_code == 130
    (setup, options), (usual, plain) = seen
    assert (setup.lora.rank, setup.lora.alpha, setup.lora.last_layers) == (2, 4, 1)
    assert setup.lora.target_modules == usual.usual_lora.target_modules
    assert (setup.concentration, options["patience"]) == (0.3, 4)
    assert (usual.lora, usual.concentration, plain["patience"], plain["rounds"]) == (None, None, 0, 4)
    assert math.isclose(plain["learning_rate"], 1e-2)


def test_names_of_data_never_steer_the_terminal(case: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a\x1b[31m\u202e|b\n"
    odd.mkdir()
    rows = "sentence\tlabel\n" + "\n".join(f"word {i}\t{i % 2}" for i in range(8))
    (odd / "train.tsv").write_text(rows)
    for words in (("--data", odd / "none.tsv"), ("--data", odd), ("--rule", "a\x1b[31m")):
        for command in (
            ("calibrate", case, "--store", odd / "s.jsonl"),
            ("validate", case, "--out", odd / "seen"),
        ):
            done = run(*command, *words)
            assert done.exit_code == 2, done.output
            assert done.output.replace("\n", "").isprintable()
    # the name of a data set is that of its folder, and stands in tables
    record = {"data": odd.name, "rule": "exact", "dropout": 0.1, "seeds": 1, "test_loss_ci95": 0.0}
    scores = ("train_loss", "test_loss", "test_accuracy", "best_test_loss")
    row = markdown([record | dict.fromkeys(scores, 1.0)]).splitlines()[2]
    assert row.isprintable()
    assert row.replace(r"\|", "").count("|") == 10
