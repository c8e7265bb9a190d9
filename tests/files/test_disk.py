"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgealloc.errors import InputError
from edgealloc.files.disk import same_file
from edgealloc.files.instance import (
    load_instance,
    save_instance,
)
from edgealloc.files.lock import sole_writer
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


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_writing_keeps_permissions_and_asks_for_them(make_instance, tmp_path, monkeypatch, mode):
    path = save_instance(make_instance(), tmp_path / "case.json")
    path.chmod(mode)
    save_instance(make_instance("rb"), path)  # a superuser may write everything
    assert path.stat().st_mode & 0o777 == mode
    monkeypatch.setattr(os, "access", lambda *_: False)
    before = path.read_bytes()
    with pytest.raises(InputError, match="Permission denied"):
        save_instance(make_instance(), path)
    assert path.read_bytes() == before


def test_an_interrupt_while_writing_leaves_the_old_file_and_no_litter(make_instance, tmp_path, monkeypatch):
    path = save_instance(make_instance(), tmp_path / "case.json")
    before = path.read_bytes()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_instance(make_instance("rb"), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["case.json"]


def test_a_full_device_and_strange_paths_are_input_errors(make_instance, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(InputError, match="No space left"):
        save_instance(make_instance(), "/dev/full")
    for path in (loop, tmp_path / ("x" * 300), tmp_path / "a\0b", tmp_path / "a\ud800b", loop / "case.json"):
        with pytest.raises(InputError) as caught:
            save_instance(make_instance(), path)
        assert caught.value.faults[0].field == "path"
        with pytest.raises(InputError) as caught:
            load_instance(path)
        assert caught.value.faults[0].field == "path"
        assert str(caught.value).replace("\n", "").isprintable()
    longest = tmp_path / ("x" * 255)  # the name of what is written first must fit too
    assert load_instance(save_instance(make_instance(), longest)) == make_instance()


def test_one_file_by_two_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, link, hard = tmp_path / "one", tmp_path / "link", tmp_path / "hard"
    (tmp_path / "folder").mkdir()
    assert same_file(one, Path("folder/../one"))
    assert same_file(one, Path("one"))  # neither is there yet
    link.symlink_to(one)
    assert same_file(one, link)
    one.write_text("")
    hard.hardlink_to(one)
    assert same_file(one, hard)
    assert same_file(link, hard)
    assert not same_file(one, tmp_path / "other")
    assert not same_file(Path("/dev/null"), Path("/dev/null"))


def test_reading_ends_with_its_limit(make_instance, tmp_path):
    path = save_instance(make_instance(), tmp_path / "case.json")
    for limit in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="max_mb"):
            load_instance(path, max_mb=limit)
    assert load_instance(path, max_mb=float("inf")) == make_instance()
    with pytest.raises(InputError, match="more than"):
        load_instance(path, max_mb=1e-4)


def test_one_writer_at_a_time(tmp_path):
    with sole_writer(tmp_path / "a"):
        with pytest.raises(InputError, match="another process"), sole_writer(tmp_path / "a"):
            pass
        with sole_writer(tmp_path / "b"):
            pass
    with sole_writer(tmp_path / "a"):
        pass


@pytest.mark.parametrize("target", ["missing/case.json", "."])
def test_a_target_that_cannot_be_written(make_instance, tmp_path, target):
    with pytest.raises(InputError) as caught:
        save_instance(make_instance(), tmp_path / target)
    assert caught.value.faults[0].field == "path"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork here")
def test_a_process_forked_meanwhile_does_not_hold_the_folder(tmp_path: Path) -> None:
    """A worker that outlives the run has inherited its files."""
    with sole_writer(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with sole_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
