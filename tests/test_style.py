"""The house rules that tools can check: lint, format, types, import layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

# The scripts of this environment, whatever PATH says.
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check", "--quiet", "."], id="ruff-check"),
        pytest.param(["ruff", "format", "--check", "--quiet", "."], id="ruff-format"),
        pytest.param(["mypy"], id="mypy-strict"),
        pytest.param(["lint-imports"], id="import-layers"),
    ],
)
def test_tool_finds_nothing(command: list[str]) -> None:
    run = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_layer_breach_is_noticed(tmp_path: Path) -> None:
    """The contract is worth something only if it can fail: let a formula module import a solver."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("edgealloc", "solvers", "models", "pyproject.toml"):
        subprocess.run(["cp", "-a", str(ROOT / name), str(copy / name)], check=True)
    with (copy / "edgealloc" / "radio.py").open("a") as file:
        file.write("\nimport torch\nfrom edgealloc.solvers import convex\n")
    run = subprocess.run(
        [str(BIN / "lint-imports"), "--no-cache"], cwd=copy, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    assert "edgealloc.formulation.radio -> edgealloc.solvers.fdma.convex" in run.stdout
    assert "edgealloc.formulation.radio -> torch" in run.stdout
