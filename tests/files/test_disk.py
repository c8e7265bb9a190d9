"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edgealloc.errors import InputError
from edgealloc.files.instance import (
    load_instance,
    save_instance,
)
from edgealloc.files.solution import load_solution


@pytest.mark.parametrize("name", ["none.json", "."])
def test_missing_file_and_directory(tmp_path, name):
    for load in (load_instance, load_solution):
        with pytest.raises(InputError, match="has 1 fault") as caught:
            load(tmp_path / name)
        assert caught.value.faults[0].field == "path"


def test_a_failed_write_leaves_the_old_file_and_no_litter(make_instance, tmp_path, monkeypatch):
    path = save_instance(make_instance(), tmp_path / "case.json")
    before = path.read_bytes()

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(InputError, match="No space left"):
        save_instance(make_instance("rb"), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["case.json"]


def test_writing_follows_links_and_honours_the_umask(make_instance, tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    save_instance(make_instance(), link)
    assert link.is_symlink()
    assert load_instance(real) == make_instance()
    mask = os.umask(0)
    os.umask(mask)
    assert real.stat().st_mode & 0o777 == 0o666 & ~mask


def test_writing_to_a_pipe():
    code = (
        "import sys; from edgealloc.files.solution import save_solution, solution_from_dict; import json;"
        "save_solution(solution_from_dict(json.load(sys.stdin)), '/dev/stdout')"
    )
    empty = {
        "format": "edgealloc-solution/1", "instance": "x", "method": "m", "status": "no_solution",
        "objective": None, "lower_bound": 0.5, "rel_gap": None, "excess_gap": None, "free_objective": 0.4,
        "seconds": 1.0, "devices": [],
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(empty), capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout) == empty


@pytest.mark.parametrize("target", ["missing/case.json", "."])
def test_a_target_that_cannot_be_written(make_instance, tmp_path, target):
    with pytest.raises(InputError) as caught:
        save_instance(make_instance(), tmp_path / target)
    assert caught.value.faults[0].field == "path"
