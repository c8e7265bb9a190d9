"""``edgealloc calibrate`` and ``edgealloc validate`` on the offline default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from edgealloc.cli.app import main
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.models.trials.fit import predict
from edgealloc.models.trials.sweep import markdown, read_records
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

QUICK = ("--rounds", "1", "--local-epochs", "1", "--seeds", "1", "--train-size", "60", "--test-size", "100")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def case(tmp_path: Path) -> Path:
    cell = make_cell(CellOptions(devices=3, samples=(15, 25)), np.random.default_rng(1))
    return save_instance(cell.instance, tmp_path / "cell.json")


def test_from_pilot_runs_to_a_validated_cell_and_again_without_training(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, fitted, folder = tmp_path / "pilot.jsonl", tmp_path / "fitted.json", tmp_path / "seen"
    pilot = ("--dropouts", "0,0.3,0.6,0.9", "--underfit", "inverse-keep", "--store", store)
    calibrate = ("calibrate", case, *QUICK, *pilot, "--out", fitted)
    first = run(*calibrate)
    assert first.exit_code == 0, first.output
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

    validate = ("validate", fitted, *QUICK, "--methods", "auto,stragglers", "--out", folder)
    seen = run(*validate)
    assert seen.exit_code == 0, seen.output
    assert "least test loss at the end: " in seen.output
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
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


def test_ctrl_c_keeps_what_is_done_and_leaves_the_instance_alone(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgealloc.models.trials.sweep.run", interrupted)
    before = case.read_bytes()
    stopped = run("calibrate", case, *QUICK, "--store", tmp_path / "pilot.jsonl", "--out", case)
    assert stopped.exit_code == 130
    assert "the same command goes on from there" in stopped.output
    assert case.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rule", "nonsense"), "zero-filled"),
        (("--data", "nowhere.tsv"), "nowhere.tsv"),
        (("--train-size", "5000"), "at most"),
        (("--dropouts", "0,0.5"), "at least four rates"),
    ],
)
def test_faults_are_named_before_anything_is_trained(
    case: Path, tmp_path: Path, arguments: tuple[str, str], words: str
) -> None:
    result = run("calibrate", case, "--store", tmp_path / "pilot.jsonl", *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "pilot.jsonl").exists()


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
