"""A suite of one's own files: known by content, refusals as rows, two gaps."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("pandas", reason="the extra frame is not installed")
pytest.importorskip("joblib", reason="the extra bench is not installed")

import edgealloc
from edgealloc import conformance
from edgealloc.bench import sweep as bench
from edgealloc.bench.own import own_suite
from edgealloc.bench.sweep import cells_of, run_suite
from edgealloc.bench.tables import case_table
from edgealloc.cli.app import main
from edgealloc.errors import InputError

METHODS = ("auto", "convex", "baseline:common")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two instances, one of which `convex` does not take, and a file that is no instance."""
    place = tmp_path / "cells"
    (place / "more").mkdir(parents=True)
    edgealloc.save_instance(conformance.cell(name="plain"), place / "plain.json")
    levels = (np.array([0.02, 0.1, 0.4]),) * 3
    edgealloc.save_instance(conformance.cell(name="stepped", keep_levels=levels), place / "more" / "stepped.json")
    edgealloc.solve(conformance.cell(name="plain"), "baseline:equal").save(place / "solution.json")
    (place / "broken.json").write_text("{")
    return place


def test_a_folder_of_ones_own_is_benched_with_refusals_as_rows(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "edgealloc"):
        suite = own_suite(folder)
    assert "broken.json" in caplog.text
    assert [case.name for case in suite.cases] == ["stepped", "plain"]
    frame = run_suite(suite, tmp_path / "out", METHODS)
    rows = {(row.case, row.method): row for row in frame.itertuples()}
    refused = rows["stepped", "convex"]
    assert refused.status == "refused"
    assert "log-convex" in refused.message
    common = rows["plain", "baseline:common"]
    assert np.isnan(common.own_gap)  # it proves nothing itself
    assert common.gap > 1e-3
    assert rows["plain", "convex"].own_gap <= 1e-4
    table = case_table(frame)
    assert {"own gap", "gap to best bound", "why"} <= set(table.columns)
    assert table["why"].astype(bool).sum() == 1


def test_moved_and_renamed_files_are_not_solved_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_suite(own_suite(folder / "plain.json"), tmp_path / "out", METHODS)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (folder / "plain.json").rename(moved / "renamed.json")
    edgealloc.save_instance(edgealloc.load(moved / "renamed.json"), moved / "copy.json")
    monkeypatch.setattr(bench, "run_cell", lambda cell: pytest.fail(f"{cell.key} was solved again"))
    frame = run_suite(own_suite([moved / "renamed.json", moved / "copy.json"]), tmp_path / "out", METHODS)
    assert frame["case"].tolist() == ["renamed"] * 3 + ["copy"] * 3
    assert set(frame["suite"]) == {"own"}


def test_another_instance_under_the_same_name_is_another_cell(folder: Path) -> None:
    before = {cell.key for cell in cells_of(own_suite(folder / "plain.json"), METHODS, bench.BenchOptions())}
    edgealloc.save_instance(conformance.cell(name="plain", latency_s=14.0), folder / "plain.json")
    after = {cell.key for cell in cells_of(own_suite(folder / "plain.json"), METHODS, bench.BenchOptions())}
    assert not before & after


def test_names_and_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-folder"):
        own_suite(tmp_path / "no-such-folder")
    with pytest.raises(InputError, match="at least one"):
        own_suite(tmp_path)
    done = CliRunner().invoke(main, ["bench", "smoky"])
    assert done.exit_code == 2
    assert "smoke" in done.output


def test_files_of_one_name_are_told_apart(folder: Path) -> None:
    (folder / "more" / "plain.json").write_bytes((folder / "plain.json").read_bytes())
    names = [case.name for case in own_suite(folder).cases]
    assert len(set(names)) == 3
    assert sum(name.endswith("plain") for name in names) == 2


def test_the_commands_take_files_and_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.json").unlink()
    words = ["bench", str(folder), "--methods", "convex,baseline:common", "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(main, [*words, "--no-figures"])
    assert done.exit_code == 0, done.output
    assert "gap to best bound" in done.output
    assert "refused" in done.output
    assert (tmp_path / "o" / "cells" / "cells-cases.md").exists()
    files = [str(folder / "plain.json"), str(folder / "more" / "stepped.json")]
    done = CliRunner().invoke(main, ["compare", *files, "--methods", "convex,baseline:common"])
    assert done.exit_code == 0, done.output
    assert "plain" in done.output
    assert "convex: refused" in done.output
