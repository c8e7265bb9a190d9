"""The page of the merging benchmark: what is compared with what, and what it says of runs that are not there."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from benchmarks.merging_rows import SECTIONS
from benchmarks.merging_rules import ROWS, main, read_stores, report

MEAN, NONE, CLAIR = "zero-filled, dropout .3", "no dropout", "CLAIR, 3 of 10 flipped"
HONEST, SPOILT = "mean, all honest", "mean, 3 of 10 flipped"


def record(entry: str, seed: int, loss: float, **changes: Any) -> dict[str, Any]:
    base = {"data": "sst2", "seed": seed, "entry": entry, "device": "cpu", "budget": 20000, "devices": 5}
    base |= {"round_bits": 1000, "upload_bits": 19000, "rounds": 19, "best_round": 7, "best_test_loss": loss}
    return base | {"best_test_accuracy": 0.5, "ending": "completed", "figures": {}} | changes


def line_of(page: str, row: str) -> str:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {row} |")]
    return line


def write(folder: Path, *records: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "merging_rules.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder


def test_every_row_has_one_name_and_something_to_be_compared_with() -> None:
    assert len(set(ROWS)) == len(ROWS)
    for section in SECTIONS:
        assert all(section.against(name) in section.rows for name in section.rows)
        assert section.against(section.reference) == section.reference


def test_differences_are_paired_by_seed_and_have_student_s_interval() -> None:
    runs = [record(MEAN, s, 1.0 + s) for s in range(3)] + [record(NONE, s, 1.1 + s + 0.1 * s) for s in range(3)]
    line = line_of(report(runs), NONE)
    # apart .1, .2, .3: t(.975, 2) = 4.303 times .1 / sqrt(3)
    assert "| +0.200 +- 0.248 |" in line
    assert "| 2.200 +- 2.733 |" in line
    assert "| 0 | 95 % | 19 | 7, 7, 7 |" in line
    # a seed without its reference counts for the mean and not for the difference
    assert "| +0.150 +- 0.635 |" in line_of(report(runs[:2] + runs[3:]), NONE)


def test_rows_may_be_compared_with_another_than_the_reference_and_say_what_they_found() -> None:
    runs = [record(HONEST, 0, 1.0), record(SPOILT, 0, 3.0)]
    runs.append(record(CLAIR, 0, 1.5, best_round=[3, 5], figures={"flipped left out": 3, "sst2": 0.25}))
    page = report(runs)
    assert f"| -1.500 to *{SPOILT}* |" in line_of(page, CLAIR)
    assert "| 3 to 5 |" in line_of(page, CLAIR)
    assert line_of(page, CLAIR).endswith("| flipped left out 3; sst2 0.250 |")
    assert "| +2.000 |" in line_of(page, SPOILT)


def test_runs_that_diverged_are_counted_and_not_averaged() -> None:
    runs = [record(MEAN, 0, 1.0), record(NONE, 0, math.nan), record(NONE, 1, 2.0)]
    assert "| 1 (1 diverged) |" in line_of(report(runs), NONE)
    lost = line_of(report(runs[:2]), NONE)
    assert lost.startswith(f"| {NONE} | 0 (1 diverged) |")
    assert lost.count("|") == line_of(report(runs), NONE).count("|")


def test_stores_of_several_folders_make_one_page_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", record(MEAN, 0, 1.0), record(NONE, 1, math.nan))
    other = write(tmp_path / "other", record(NONE, 0, 1.5), record(NONE, 1, math.nan))
    out = tmp_path / "page"
    out.mkdir()
    asked = ["--task", "sst2", "--seeds", "0", "1", "--rules", MEAN, NONE, "--out", str(out)]
    main([*asked, "--join", str(one), str(other)])
    assert "+0.500" in (out / "merging_rules.md").read_text()
    assert capsys.readouterr().err == f"1 of 4 runs are missing:\n  sst2, seed 1: {MEAN}\n"
    write(other, record(MEAN, 0, 1.25))
    with pytest.raises(SystemExit, match="another result"):
        read_stores([one, other])
    with pytest.raises(SystemExit, match="no runs"):
        main([*asked, "--join", str(out)])


def test_what_cannot_be_meant_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, words in (
        (["--data", "x", "--task", "a+b+c"], "two as ONE"),
        (["--data", "x", "--join", "y"], "leave --data out"),
        ([], "--data FOLDER is needed"),
        (["--data", "x", "--rules", "mean"], "invalid choice"),
        (["--data", str(tmp_path), "--task", "sst2+none"], "has no folder sst2"),
    ):
        with pytest.raises(SystemExit):
            main(asked)
        assert words in capsys.readouterr().err
    old = record(MEAN, 0, 1.0)
    del old["budget"]
    with pytest.raises(SystemExit, match="older layout"):
        read_stores([write(tmp_path / "old", old)])
