"""The notebooks of docs/ run from the first cell to the last, and are kept without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.places import ROOT

NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))


def shown(source: str, names: dict[str, Any]) -> Any:
    """Run a cell as a notebook does; what its last line is worth."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_something(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = json.loads(path.read_text())["cells"]
    values = [shown("".join(c["source"]), names) for c in cells if c["cell_type"] == "code"]
    rich = [value for value in values if hasattr(value, "_repr_html_") and value._repr_html_()]
    figures = [value for value in values if hasattr(value, "savefig")]
    assert rich
    assert figures
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in figures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    kept = json.loads(path.read_text())
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert path.stat().st_size < 10_000
    assert kept["nbformat"] == 4
    assert len({cell["id"] for cell in kept["cells"]}) == len(kept["cells"])


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["federated_loop", "first_cell", "psca_against_the_proof"]
