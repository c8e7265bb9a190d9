"""Cells on disk that somebody changed, or brought along, never enter a table; two runs never share a folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("pandas", reason="the extra frame is not installed")
pytest.importorskip("joblib", reason="the extra bench is not installed")

from edgealloc.bench import seal
from edgealloc.bench import sweep as bench
from edgealloc.bench.seal import read_row, write_row
from edgealloc.bench.suites import SUITES, Suite
from edgealloc.bench.sweep import TIMES, run_suite
from edgealloc.cli.app import main
from edgealloc.errors import InputError
from edgealloc.files.lock import sole_writer


@pytest.fixture
def suite() -> Suite:
    smoke = SUITES["smoke"]()
    return replace(smoke, cases=smoke.cases[:1], methods=("baseline:equal", "baseline:common"))


def _edited(**changes: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


TAMPER: dict[str, Callable[[Path], object]] = {
    "a better value": _edited(objective=1e-3),
    "a tighter bound": _edited(lower_bound=0.4),
    "another digest": _edited(seal="0" * 64),
    "no text as a digest": _edited(seal=3),
    "half a surrogate": _edited(seal="\ud800"),
    "no digest": lambda path: path.write_text('{"objective": 1.0}'),
    "half a file": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "nothing": lambda path: path.write_bytes(b""),
    "the neighbour's row": lambda path: path.write_bytes(
        next(p for p in path.parent.glob("*.json") if p != path).read_bytes()
    ),
}


@pytest.mark.parametrize("how", TAMPER)
def test_a_cell_that_was_changed_is_solved_again_and_said(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    frame = run_suite(suite, tmp_path)
    path = next((tmp_path / "cells").glob("*.json"))
    TAMPER[how](path)
    solved: list[str] = []
    own = bench.run_cell
    monkeypatch.setattr(bench, "run_cell", lambda cell: solved.append(cell.key) or own(cell))
    with caplog.at_level(logging.WARNING, "edgealloc"):
        again = run_suite(suite, tmp_path)
    assert solved == [path.name]
    assert "1 of 2 cells" in caplog.text
    assert again.drop(columns=list(TIMES)).equals(frame.drop(columns=list(TIMES)))
    caplog.clear()
    run_suite(suite, tmp_path)
    assert len(solved) == 1
    assert not caplog.records


def test_a_row_of_another_user_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_row({"objective": 1.5, "none": None}, path)
    assert read_row(path) == {"objective": 1.5, "none": None}
    assert read_row(tmp_path / "none.json") is None
    for home in ("another", "nowhere/that\0can be"):  # one key for this process where none can be kept
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / home.partition("\0")[0]))
        if "\0" in home:
            (tmp_path / "nowhere").write_text("")
        seal.user_key.cache_clear()
        assert read_row(path) is None
    monkeypatch.undo()
    seal.user_key.cache_clear()
    assert read_row(path) is not None


def test_the_key_is_kept_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    seal.user_key.cache_clear()
    key = seal.user_key()
    (path,) = (tmp_path / "edgealloc").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    seal.user_key.cache_clear()
    assert seal.user_key() == key
    path.unlink()

    def without_links(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", without_links)
    seal.user_key.cache_clear()
    assert seal.user_key() != key
    assert path.stat().st_size == len(key)
    monkeypatch.undo()
    seal.user_key.cache_clear()


def test_a_second_run_in_one_folder_is_refused(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SUITES, "smoke", lambda: suite)
    with sole_writer(tmp_path / "smoke" / "cells"):
        with pytest.raises(InputError, match="another process"):
            run_suite(suite, tmp_path / "smoke")
        done = CliRunner().invoke(main, ["bench", "smoke", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "name another folder" in done.output
    assert [path.name for path in (tmp_path / "smoke" / "cells").iterdir()] == [".lock"]
    assert len(run_suite(suite, tmp_path / "smoke")) == 2
