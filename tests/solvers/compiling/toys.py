"""Two toy kernels in a copy of the package, and processes of their own that call them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

INNER = """
from edgealloc.solvers.compiling.kernel import kernel
STEP = 1.0
@kernel
def inner(x):
    return x + STEP
"""
OUTER = """
from edgealloc.solvers.compiling.kernel import kernel
from edgealloc.solvers.toy_inner import inner
@kernel
def outer(x):
    return 10.0 * inner(x)
"""
CALL = "from edgealloc.solvers.toy_outer import outer; print(outer(2.0))"


def _without_kernels(folder: str, _names: list[str]) -> list[str]:
    """Bytecode comes along, or each process would compile the package's modules; compiled kernels do not."""
    return ["__pycache__"] if Path(folder).name == "compiling" else []


def _copy(home: Path) -> Path:
    shutil.copytree(ROOT / "edgealloc", home / "edgealloc", ignore=_without_kernels)
    solvers = home / "edgealloc" / "solvers"
    assert not solvers.is_symlink()
    (solvers / "toy_inner.py").write_text(INNER)
    (solvers / "toy_outer.py").write_text(OUTER)
    return home


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with a copy of edgealloc in which two toy kernels are."""
    return _copy(tmp_path / "site")


@pytest.fixture(scope="session")
def called_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a copy, with the two kernels compiled by a process that called them."""
    home = _copy(tmp_path_factory.mktemp("toys") / "site")
    assert run(home, CALL)[0] == "30.0"
    assert len(files(home)) == 2
    return home


@pytest.fixture
def compiled(package: Path, called_once: Path) -> Path:
    """The same with the two kernels compiled."""
    beside = Path("edgealloc", "solvers", "compiling", "__pycache__")
    shutil.copytree(called_once / beside, package / beside)
    return package


def start(home: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    """Python in a process of its own, with the package of a folder and nothing of our environment's cache."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA", "XDG", "PYTHON"))}
    env = kept | {"PYTHONPATH": str(home), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"} | environment
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(home: Path, code: str, **environment: str) -> tuple[str, str]:
    """Standard output and error of a process that succeeds."""
    process = start(home, code, **environment)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out.strip(), err.strip()


def files(home: Path) -> dict[str, bytes]:
    """The compiled kernels of a copy of the package, by name."""
    return {path.name: path.read_bytes() for path in home.rglob("*.kernel")}


COLD = """
import json, sys, numpy as np, edgealloc
from edgealloc.scenario.cell import CellOptions, make_cell
options = CellOptions(devices={devices}, access="{access}", subcarriers={subcarriers})
instance = make_cell(options, np.random.default_rng(0)).instance
result = edgealloc.solve(instance, "{method}", time_limit={limit})
print(json.dumps([result.status, result.objective, result.seconds, result.compile_seconds]))
"""


def cold(method: str, access: str = "fdma", limit: float | None = None) -> str:
    """Code that solves a cell of the kind that the list was made with."""
    values = {"method": method, "access": access, "limit": limit, "devices": 6}
    return COLD.format(subcarriers=32 if access == "ofdma" else None, **values)
