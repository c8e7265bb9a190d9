"""A solved cell in a folder of its own, and what every command must answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgealloc.cli.app import main
from edgealloc.files.instance import save_instance
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

SMALL = ("--devices", "2", "--rounds", "1", "--policies", "equal-split")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def answered(done: Result, *statuses: int) -> None:
    """It ended as it should, with nothing on the streams that steers them."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in statuses, done.output
    words = done.output.replace("\n", "")
    assert words.isprintable(), [c for c in words if not c.isprintable()]


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cell, its solution and the proof."""
    folder = tmp_path_factory.mktemp("solved")
    cell = make_cell(CellOptions(devices=3), np.random.default_rng(3))
    save_instance(cell.instance, folder / "cell.json")
    done = run(
        "solve", folder / "cell.json", "--out", folder / "solution.json", "--certificate", folder / "proof.json"
    )
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def folder(solved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, free to be spoiled, with the keys of sealed cells in a place of its own."""
    for path in solved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "keys"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- names ----
