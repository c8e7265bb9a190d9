"""Docstrings state parameters, returns, errors and shapes; each rule that says so fails when it is broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import docstrings
from tests.places import ROOT

HEAD = '"""A module."""\n\nfrom __future__ import annotations\n\n'


@pytest.mark.slow  # `make lint` asks the same
def test_the_tree_keeps_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    assert docstrings.main() == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("D103", "def f():\n    return 1\n"),
        ("D102", 'class C:\n    """A class."""\n\n    def f(self):\n        return 1\n'),
        ("D400", 'def f():\n    """One"""\n    return 1\n'),
        ("D205", 'def f():\n    """One.\n    Two.\n    """\n    return 1\n'),
        ("D407", 'def f():\n    """One.\n\n    Returns:\n    """\n    return 1\n'),
        ("DOC501", 'def f():\n    """One."""\n    raise ValueError("no")\n'),
    ],
)
def test_ruff_notices(tmp_path: Path, code: str, body: str) -> None:
    ruff = [str(Path(sys.executable).parent / "ruff"), "check", "--no-cache", "--output-format", "json"]
    (tmp_path / "bad.py").write_text(HEAD + body)
    run = subprocess.run(
        [*ruff, "--config", str(ROOT / "pyproject.toml"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert f'"{code}"' in run.stdout


@pytest.fixture
def face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """What numpydoc's rules find in a module of this text that exports ``f``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "written_face", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def findings(body: str) -> list[str]:
        (tmp_path / "written_face.py").write_text(HEAD + body + '\n\n__all__ = ["f"]\n')
        return list(docstrings.refused(docstrings.public(["written_face"])))

    return findings


def _function(signature: str, *sections: str, body: str = "return 1") -> str:
    text = "\n\n".join(["Say something.", *(section.strip("\n") for section in sections)])
    return f"def f{signature}:\n    " + f'"""{text}\n"""\n{body}'.replace("\n", "\n    ")


A = "Parameters\n----------\na\n    First.\n"
B = "b\n    Second.\n"
RETURNS = "Returns\n-------\nint\n    One.\n"


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("GL08", "def f(a):\n    return 1"),
        ("PR01", _function("(a, b)", A, RETURNS)),
        ("PR02", _function("(a)", A + B, RETURNS)),
        ("PR03", _function("(b, a)", A + B, RETURNS)),
        ("PR07", _function("(a, b)", A + "b\n", RETURNS)),
        ("RT01", _function("(a)", A)),
        ("RT03", _function("(a)", A, "Returns\n-------\nint\n")),
        ("YD01", _function("(a)", A, body="yield 1")),
        ("GL06", _function("(a)", A, RETURNS, "Beware\n------\nOf it.\n")),
        ("GL07", _function("(a)", RETURNS, A)),
        ("PR01", 'class f:\n    """A class."""\n\n    def __init__(self, a):\n        self.a = a'),
        ("RT01", 'class f:\n    """A class."""\n\n    @classmethod\n    def g(cls, a):\n' + " " * 8 + '"""Go."""\n'
         + " " * 8 + "return 1"),
    ],
)  # fmt: skip
def test_numpydoc_notices(face: Callable[[str], list[str]], code: str, body: str) -> None:
    assert code in {text.split()[1] for text in face(body)}


@pytest.mark.parametrize(
    "body",
    [
        _function("(a, b)", A + B, RETURNS),
        _function("()"),
        "from enum import Enum\n\n\nclass f(Enum):\n" + '    """Kinds."""\n\n    A = 1',
        "from dataclasses import dataclass, field\n\n\n@dataclass\nclass f:\n"
        '    """Options."""\n\n    a: int = field(default=1, metadata={"help": "how many"})',
    ],
    ids=["whole", "no-parameters", "enumeration", "fields-with-help"],
)
def test_numpydoc_is_content(face: Callable[[str], list[str]], body: str) -> None:
    assert face(body) == []


CLASS = 'class C:\n    """One.\n\n    Parameters\n    ----------\n    x\n        A.\n    """\n    x: IntArray\n'


def _array(description: str, prose: str = "Go.") -> str:
    return (
        f'def go(x: FloatArray, n: int):\n    """{prose}\n\n    Parameters\n    ----------\n'
        f'    x\n        {description}\n    n\n        How many.\n    """\n'
    )


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (_array("Keep rates."), 1),
        (_array("Keep rates. Shape [K]."), 0),
        (_array("Keep rates.", "Go. Shapes [K]."), 0),
        (CLASS, 1),
        (CLASS.replace("A.", "A. Shape [K]."), 0),
    ],
)
def test_arrays_state_their_shape(tmp_path: Path, text: str, faults: int) -> None:
    path = tmp_path / "arrays.py"
    path.write_text(HEAD + text)
    assert len(list(docstrings.unshaped(path))) == faults


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ('def go(x: FloatArray):\n    """Go."""\n', 1),
        ('def go(x: FloatArray):\n    """Go. Shape [K]."""\n', 0),
        ('def go() -> IntArray | None:\n    """Go."""\n', 1),
        ('class C:\n    """One."""\n\n    def go(self, x: ArrayLike):\n        """Go."""\n', 1),
        ('def go(x: float):\n    """Go."""\n', 0),
        ('def _go(x: FloatArray):\n    """Go."""\n', 0),
    ],
)
def test_functions_with_arrays_say_a_shape(tmp_path: Path, text: str, faults: int) -> None:
    path = tmp_path / "functions.py"
    path.write_text(HEAD + text)
    assert len(list(docstrings.shapeless(path))) == faults


def _kernel(docstring: str, parameters: str = "a, b, c, d, e, f, g", decorator: str = "kernel") -> str:
    return f'@{decorator}\ndef go({parameters}):\n    """Go.\n\n    {docstring}\n    """\n    return 1\n'


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (_kernel("More."), "a, b, c, d, e, f, g"),
        (_kernel("More.", decorator="kernel(inner=True)"), "a, b, c, d, e, f, g"),
        (_kernel("Takes a, b [K]; ``c`` [K, M], d, e and f [M]."), "g"),
        (_kernel("Takes a, b [K]; ``c`` [K, M], d, e and f [M], g [2]."), None),
        (_kernel("Takes a, b [K]; c is a number."), None),  # six arrays are left, and six may be silent
        (_kernel("Numbers: a.", "a, b, c, d, e, f, g, h"), "b, c, d, e, f, g, h"),
        (_kernel("More.", "a, b, c, d, e, f"), None),
        (_kernel("More.", decorator="njit"), None),
    ],
)
def test_kernels_state_shapes(tmp_path: Path, text: str, missing: str | None) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(HEAD + text)
    found = [line.partition("no shape of ")[2] for line in docstrings.unstated(path)]
    assert found == ([] if missing is None else [missing])
