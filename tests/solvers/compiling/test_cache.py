"""Compiled kernels: the cache never stops anybody and is never stale; compiling is told, timed and shared out.

Most tests compile the two toy kernels of toys.py in processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from edgealloc.solvers.compiling import cache as kernel_cache
from edgealloc.solvers.compiling import listing as kernel_list
from edgealloc.solvers.compiling.clock import Clock, loading
from edgealloc.solvers.compiling.kernel import KERNELS
from tests.places import ROOT
from tests.solvers.compiling.toys import CALL, INNER, OUTER, cold, files, run, start


def test_the_first_run_says_so_once_and_the_second_is_silent(package: Path) -> None:
    assert run(package, CALL) == ("30.0", "edgealloc: compiling for this machine, once")
    assert len(files(package)) == 2
    assert run(package, CALL) == ("30.0", "")


def test_the_line_is_a_log_record(package: Path) -> None:
    quiet = "import logging; logging.getLogger('edgealloc').setLevel(logging.ERROR)\n"
    assert run(package, quiet + CALL) == ("30.0", "")


def test_importing_the_solvers_imports_no_numba(package: Path) -> None:
    names = (
        "edgealloc.solvers, edgealloc.solvers.base, edgealloc.solvers.ofdma.solve, edgealloc.solvers.psca.solve"
    )
    assert run(package, f"import sys, {names}; print('numba' in sys.modules)")[0] == "False"


def test_loading_imports_nothing_that_only_compiling_needs(compiled: Path) -> None:
    """All that numba can compile is a second of imports, in every process that solves."""
    seen = CALL + "; import sys; print('numba.np.linalg' in sys.modules)"
    assert run(compiled, seen) == ("30.0\nFalse", "")


def test_a_changed_callee_is_noticed(compiled: Path) -> None:
    """The caller's file stays as it is; its compiled code holds the callee's."""
    inner = compiled / "edgealloc" / "solvers" / "toy_inner.py"
    inner.write_text(INNER.replace("x + STEP", "x - STEP"))
    assert run(compiled, CALL)[0] == "10.0"
    inner.write_text(INNER.replace("STEP = 1.0", "STEP = 3.0"))
    assert run(compiled, CALL)[0] == "50.0"
    inner.write_text(INNER + "# a comment is no change\n")
    assert run(compiled, CALL) == ("30.0", "")


def test_words_are_no_change(compiled: Path) -> None:
    """A docstring is a constant of its function's code, but nothing that is compiled."""
    inner = compiled / "edgealloc" / "solvers" / "toy_inner.py"
    outer = compiled / "edgealloc" / "solvers" / "toy_outer.py"
    inner.write_text(INNER.replace("(x):\n", '(x):\n    """x [1] and one more."""\n'))
    outer.write_text(OUTER.replace("(x):\n", '(x):\n    """Ten times that."""\n'))
    assert run(compiled, CALL) == ("30.0", "")
    inner.write_text(INNER.replace("(x):\n", '(x):\n    """Other words."""\n'))
    assert run(compiled, CALL) == ("30.0", "")
    assert len(files(compiled)) == 2


def test_a_first_constant_that_is_loaded_is_compiled_in() -> None:
    """A function that answers with its docstring is another one when the words change."""

    def piece(body: str) -> str:
        names: dict[str, Any] = {"__name__": "toy"}
        exec(f"def one():\n    {body}\n", names)
        return kernel_cache._piece(names["one"])[0]

    assert piece("'words'; return 'a'") == piece("'others'; return 'a'") == piece("return 'a'")
    assert len({piece("'a'; return 'a'"), piece("'b'; return 'b'"), piece("return 'a'")}) == 3


@pytest.mark.parametrize(
    "damage",
    [pytest.param(b"", marks=pytest.mark.slow), pytest.param(b"garbage", marks=pytest.mark.slow), None],
    ids=["empty", "garbage", "truncated"],
)
def test_damaged_files_are_rebuilt(compiled: Path, damage: bytes | None) -> None:
    whole = files(compiled)
    for path in compiled.rglob("*.kernel"):
        path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert run(compiled, CALL)[0] == "30.0"
    assert run(compiled, CALL) == ("30.0", "")
    assert files(compiled).keys() == whole.keys()


def test_one_bit_is_enough_to_count_as_damaged(compiled: Path) -> None:
    for path in compiled.rglob("*.kernel"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    assert run(compiled, CALL) == ("30.0", "edgealloc: compiling for this machine, once")


def closed(home: Path) -> None:
    """Leave no folder to write to, for root as well: files stand where the folders would be."""
    (home / "edgealloc" / "solvers" / "compiling" / "__pycache__").write_text("")
    (home / ".cache").write_text("")


def test_nowhere_to_write_is_one_warning(package: Path) -> None:
    closed(package)
    out, err = run(package, CALL)
    assert out == "30.0"
    assert len(err.splitlines()) == 1
    assert "NUMBA_CACHE_DIR" in err
    assert files(package) == {}
    named = str(package / "named")
    assert run(package, CALL, NUMBA_CACHE_DIR=named)[1] == "edgealloc: compiling for this machine, once"
    assert run(package, CALL, NUMBA_CACHE_DIR=named)[1] == ""


def test_without_a_place_beside_the_package_the_user_cache_is_taken(package: Path) -> None:
    (package / "edgealloc" / "solvers" / "compiling" / "__pycache__").write_text("")
    run(package, CALL)
    assert [path.parent.name for path in (package / ".cache").rglob("*.kernel")] == ["kernels"] * 2
    assert run(package, CALL) == ("30.0", "")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_only_read_uses_what_is_there(compiled: Path) -> None:
    """An image with a warm cache, run by a service user without a home."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        _as_a_service_user(Path(shutil.copytree(compiled, Path(folder) / "site")))


def _as_a_service_user(package: Path) -> None:
    # everything is imported first: the service user may not be able to read the interpreter's own files
    become = "import os, numba, edgealloc.solvers.toy_outer, edgealloc.solvers.compiling.dispatch\n"
    become += "numba.njit(lambda x: x + 1)(1.0)\n"
    become += "os.setgid(65534); os.setuid(65534)\n"
    assert run(package, become + CALL, HOME="/nonexistent") == ("30.0", "")
    for path in package.rglob("*.kernel"):
        path.unlink()
    out, err = run(package, become + CALL, HOME="/nonexistent")
    assert out == "30.0"
    assert len(err.splitlines()) == 1
    assert "NUMBA_CACHE_DIR" in err


def test_a_full_disk_stops_nobody(package: Path) -> None:
    full = """
import edgealloc.solvers.compiling.cache as cache
def write(path, payload):
    raise OSError(28, "No space left on device")
cache._write = write
"""
    out, err = run(package, full + CALL)
    assert out == "30.0"
    assert len(err.splitlines()) == 2
    assert "No space left on device" in err


def test_each_processor_has_files_of_its_own(compiled: Path) -> None:
    one = set(files(compiled))
    run(compiled, CALL, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert len(files(compiled)) == 4
    assert one < set(files(compiled))
    assert run(compiled, CALL) == ("30.0", "")


@pytest.mark.slow
def test_specialisations_compiled_at_once_do_not_take_each_others_place(package: Path) -> None:
    calls = [CALL, CALL.replace("2.0", "2"), CALL.replace("2.0", "2j"), CALL] * 2
    processes = [start(package, call) for call in calls]
    answers = ["30.0", "30.0", "(10+20j)", "30.0"] * 2
    assert [process.communicate(timeout=600)[0].strip() for process in processes] == answers
    for call, answer in zip(calls[:3], answers, strict=False):
        assert run(package, call) == (answer, "")


def test_a_child_forked_after_a_call_compiles_and_answers(package: Path) -> None:
    code = (
        CALL
        + """
import os, sys
sys.stdout.flush()  # or the child prints what is still in the buffer once more
if os.fork() == 0:
    print(outer(2), outer(2.0), flush=True)
    os._exit(0)
os.wait()
"""
    )
    assert run(package, code)[0].split() == ["30.0", "30.0", "30.0"]


def test_files_that_nobody_uses_go_and_those_in_use_stay(compiled: Path) -> None:
    folder = next(compiled.rglob("*.kernel")).parent
    for name, age_days in (("old.kernel", 100), ("draft.kernel.tmp-1", 2), ("new.kernel", 10), ("other.txt", 900)):
        (folder / name).write_text("")
        past = (folder / name).stat().st_mtime - 86400 * age_days
        os.utime(folder / name, (past, past))
    used = next(path for path in folder.glob("toy_outer*"))
    past = used.stat().st_mtime - 86400 * 50
    os.utime(used, (past, past))
    assert run(compiled, CALL) == ("30.0", "")
    assert used.stat().st_mtime > past  # read, so it stays
    run(compiled, CALL.replace("2.0", "2"))  # something to compile: the time to tidy
    there = {path.name for path in folder.iterdir()}
    assert {"new.kernel", "other.txt"} <= there
    assert not {"old.kernel", "draft.kernel.tmp-1"} & there


def test_compiling_is_not_in_the_seconds(package: Path) -> None:
    """Nested kernels count once: what the clock shows and what compiling took add up to the time that passed."""
    code = """
import time, numba, edgealloc.solvers.compiling.dispatch
numba.njit(lambda x: x + 1)(1.0)  # numba is there and has loaded what it needs itself
from edgealloc.solvers.toy_outer import outer
from edgealloc.solvers.base import Control, Options
began, control = time.perf_counter(), Control(Options(time_limit=1e-9 + {limit}))
outer(2.0)
took, stopped = time.perf_counter() - began, control.stopped()
print(took, control.clock.compile_seconds, control.seconds, stopped)
outer(2.0)
"""
    out, _ = run(package, code.replace("{limit}", "1000"))
    took, compiled, seconds, stopped = out.split()
    assert float(compiled) > 0
    assert float(compiled) + float(seconds) == pytest.approx(float(took), abs=0.02 + 0.05 * float(took))
    assert stopped == "False"
    assert float(run(package, code.replace("{limit}", "1000"))[0].split()[1]) == 0.0


def test_loading_is_in_no_seconds() -> None:
    began, clock = time.perf_counter(), Clock()
    with loading():
        time.sleep(0.05)
    assert clock.compile_seconds == 0.0
    assert clock.seconds <= time.perf_counter() - began - 0.05


def test_every_kernel_has_a_fingerprint_of_its_own() -> None:
    """What a kernel refers to must have a value that can be told; a module of ours has not."""
    for entry in kernel_list.every_entry():
        entry.dispatcher()
    assert len(KERNELS) > 50
    assert len({kernel_cache.fingerprint(kernel.dispatcher) for kernel in KERNELS.values()}) == len(KERNELS)


def test_the_list_names_kernels_that_are_there() -> None:
    """python -m benchmarks.kernel_list --write renews the list after a change of kernels."""
    entries = kernel_list.every_entry()
    gone = [(entry.module, entry.name) for entry in entries if entry.dispatcher() is None]
    assert gone == []
    assert {"convex fdma", "bnb ofdma", "psca ofdma"} <= set(json.loads(kernel_list.PATH.read_text())["uses"])
    assert all(kernel_list.use_of(use).called for use in ("convex fdma", "bnb ofdma", "psca ofdma"))


@pytest.mark.slow  # by default, test_compiling_is_not_in_the_seconds
def test_a_cold_solve_keeps_its_limit_and_a_warm_one_compiles_nothing(tmp_path: Path) -> None:
    """What has to be compiled takes longer than the limit on any machine of today; the search does not."""
    out, err = run(ROOT, cold("bnb", "rb", limit=5.0), NUMBA_CACHE_DIR=str(tmp_path))
    status, objective, seconds, compiled = json.loads(out)
    assert status == "optimal"
    assert 0 < seconds < 5.0
    assert compiled > 0
    assert re.fullmatch(r"edgealloc: compiling for this machine, once: \d+ kernels, about \d+ s", err)
    out, err = run(ROOT, cold("bnb", "rb"), NUMBA_CACHE_DIR=str(tmp_path))
    assert json.loads(out)[1] == objective
    assert json.loads(out)[3] == 0.0
    assert err == ""


@pytest.mark.slow
def test_eight_cold_processes_at_once_agree(tmp_path: Path) -> None:
    processes = [start(ROOT, cold("bnb", "rb"), NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(8)]
    answers = [json.loads(process.communicate(timeout=600)[0]) for process in processes]
    assert len({answer[1] for answer in answers}) == 1
    assert {answer[0] for answer in answers} == {"optimal"}


@pytest.mark.slow
def test_without_workers_it_compiles_alone(tmp_path: Path) -> None:
    broken = "import sys; sys.executable = '/bin/false'\n"
    out, _ = run(ROOT, broken + cold("bnb", "rb"), NUMBA_CACHE_DIR=str(tmp_path))
    assert json.loads(out)[0] == "optimal"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "access"),
    [("convex", "fdma"), ("bnb", "rb"), ("bnb", "ofdma"), ("psca", "fdma"), ("psca", "ofdma")],
)
def test_after_warmup_nothing_is_compiled(
    tmp_path_factory: pytest.TempPathFactory, method: str, access: str
) -> None:
    cache = str(tmp_path_factory.getbasetemp() / "warm")  # one for all the cases: only the first fills it
    warm = "from edgealloc.cli.app import main; main(['warmup'])"
    out, _ = run(ROOT, warm, NUMBA_CACHE_DIR=cache)
    assert re.search(r"compiled +\d+ of \d+ kernels", out)
    out, err = run(ROOT, cold(method, access), NUMBA_CACHE_DIR=cache)
    assert json.loads(out)[3] == 0.0
    assert err == ""
