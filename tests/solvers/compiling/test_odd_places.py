"""The cache where users, folders, interpreters and settings are odd."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.solvers.compiling.toys import cold, files, run, start

BECOME = """
import os, sys, numba, edgealloc.solvers.toy_outer, edgealloc.solvers.compiling.dispatch
from edgealloc.solvers.toy_outer import outer
outer.dispatcher, numba.njit(lambda x: x + 1)(1.0)
os.setgid(43210); os.setuid(43210)
"""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_stops_nobody(package: Path) -> None:
    """One that may be written and not listed is as good as any; one that may not be entered holds nothing."""
    with tempfile.TemporaryDirectory() as named:  # pytest's own folders are closed to other users
        Path(named).chmod(0o755)
        drop = Path(named) / "edgealloc"
        drop.mkdir()
        drop.chmod(0o1333)
        assert run(package, BECOME + "print(outer(2.0))", NUMBA_CACHE_DIR=named)[0] == "30.0"
        assert len(files(drop)) == 2
        Path(named).chmod(0o700)
        ask = "print(outer.dispatcher._cache.holds((numba.types.float64,)))"
        assert run(package, BECOME + ask, NUMBA_CACHE_DIR=named)[0] == "False"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can become another user")
def test_a_user_without_a_home_gets_no_folder_of_that_name(package: Path) -> None:
    """Neither HOME nor an entry in the list of users: ``~`` stands for itself, wherever the process is."""
    code = """
import os, tempfile
from edgealloc.bench import seal
from edgealloc.solvers.compiling.cache import folders
os.setgid(43210); os.setuid(43210)
del os.environ["HOME"]
print(*folders())
with tempfile.TemporaryDirectory() as here:
    os.chdir(here)
    assert len(seal.user_key()) == 32
    assert os.listdir() == []
    os.chdir("/")
"""
    out, _ = run(package, code)
    assert out == str(package / "edgealloc" / "solvers" / "compiling" / "__pycache__" / "kernels")


@pytest.mark.parametrize("executable", ["None", "''", "'/nonexistent'", "sys.executable"])
def test_a_path_and_an_interpreter_of_any_kind_stop_nobody(package: Path, executable: str) -> None:
    """Python passes over what is no text in ``sys.path``; another program has no interpreter to start."""
    code = f"""
import pathlib, sys
from edgealloc.solvers.compiling import warmup
sys.executable = {executable}
sys.path.append(pathlib.Path("/nonexistent"))
with warmup._workers(warmup._Work({{}}), 1):
    print("fine")
"""
    assert run(package, code)[0] == "fine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_child_forked_while_kernels_are_compiled_does_not_keep_the_others_waiting(package: Path) -> None:
    code = """
import os, signal, time
from edgealloc.solvers.compiling import warmup
with warmup._alone():
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
warmup._LOCK_WAIT_S = 5.0
started = time.monotonic()
with warmup._alone():
    print(time.monotonic() - started < 4.0)
os.kill(child, signal.SIGKILL)
"""
    assert run(package, code)[0] == "True"


def test_with_numba_switched_off_methods_answer_and_warmup_says_so(tmp_path: Path) -> None:
    off = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DISABLE_JIT": "1"}
    status, _, _, compiled = json.loads(run(ROOT, cold("bnb", "fdma"), **off)[0])
    assert (status, compiled) == ("optimal", 0.0)
    process = start(ROOT, "from edgealloc.cli.app import main; main(['warmup'])", **off)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "NUMBA_DISABLE_JIT" in err
