"""Rules that hold the house together are worth something only if they can fail: each is broken here, in a copy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import house
from tests.places import ROOT

LINT = Path(sys.executable).parent / "lint-imports"  # of this environment, whatever PATH says


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code and its contracts, free to be spoiled."""
    for name in ("edgealloc", "solvers", "models", "pyproject.toml"):
        subprocess.run(["cp", "-a", str(ROOT / name), str(tmp_path / name)], check=True)
    return tmp_path


def lint(folder: Path) -> tuple[int, str]:
    """Exit status of the import rules in a folder, and what they print, without line breaks inside."""
    run = subprocess.run([str(LINT), "--no-cache"], cwd=folder, capture_output=True, text=True, check=False)
    return run.returncode, run.stdout + run.stderr


BREACHES = [  # file, what it imports, the rule that must notice
    ("edgealloc/formulation/radio.py", "edgealloc.solvers.fdma.convex", "floors of edgealloc"),
    ("edgealloc/rounds/plan.py", "edgealloc.models.exchange.wire", "floors of edgealloc"),
    ("solvers/search/tree.py", "edgealloc.solvers.ofdma.cell", "floors of the solvers"),
    ("solvers/psca/plan.py", "edgealloc.solvers.backends.judge", "floors of the solvers"),
    ("models/exchange/wire.py", "edgealloc.models.training.task", "floors of the trainer"),
    ("edgealloc/scenario/cell.py", "torch", "only training and trials import torch"),
    ("solvers/fdma/bandwidth.py", "numba", "only compiling imports numba"),
    ("edgealloc/verify/proof/share.py", "edgealloc.formulation.bound", "the checker writes the mathematics again"),
    ("edgealloc/data/allocation.py", "edgealloc.data.instance", "no circles"),
    ("edgealloc/data/instance.py", "edgealloc.data.allocation", "no circles"),
]


def test_every_breach_of_an_import_rule_is_noticed(copy: Path) -> None:
    for file, module, _ in BREACHES:
        with (copy / file).open("a") as out:
            out.write(f"\nimport {module}\n")
    status, said = lint(copy)
    assert status != 0
    for file, module, rule in BREACHES:
        assert f"{rule} BROKEN" in said, said
        importer = ".".join(Path("edgealloc", file.removeprefix("edgealloc/")).with_suffix("").parts)
        if rule != "no circles":  # that rule names the packages and the number of imports between them
            assert f"{importer} -> {module}" in said, said


@pytest.mark.parametrize("room", ["edgealloc/attic", "solvers/attic", "models/attic"])
def test_a_room_without_a_place_is_noticed(copy: Path, room: str) -> None:
    (copy / room).mkdir()
    (copy / room / "__init__.py").write_text('"""A room."""\n')
    status, said = lint(copy)
    assert status != 0
    assert "attic" in said, said


def test_a_breach_of_the_house_rules_is_noticed(tmp_path: Path) -> None:
    for folder in (*house.CODE, *house.BESIDE):
        (tmp_path / folder / "room").mkdir(parents=True)
    for number in range(house.MOST_FILES):
        (tmp_path / "solvers" / "room" / f"file{number}.py").write_text("")
    (tmp_path / "tests" / "fine.py").write_text(
        "from __future__ import annotations\nfrom solvers.room import file1"
    )
    assert (house.crowded(tmp_path), house.long(tmp_path), house.repeated(tmp_path)) == ({}, {}, [])
    assert house.private(tmp_path) == house.beside_the_doors(tmp_path) == []
    (tmp_path / "solvers" / "room" / "one_more.py").write_text("")
    (tmp_path / "tests" / "room" / "test_all.py").write_text("\n" * (house.MOST_LINES + 1))
    (tmp_path / "models" / "room" / "big_room.py").write_text(
        "figure.savefig(path)\nframe.to_csv(path)\nframe.to_csv(index=False)\nclick.echo(path)\npath.write_text(path)"
    )
    (tmp_path / "tests" / "fine.py").write_text(
        "from solvers._room import (\n    file,\n)\n\ndef f():\n    from a import _b"
    )
    assert house.crowded(tmp_path) == {"solvers/room": house.MOST_FILES + 1}
    assert house.long(tmp_path) == {"tests/room/test_all.py": house.MOST_LINES + 1}
    assert house.repeated(tmp_path) == ["models/room/big_room.py"]
    assert house.private(tmp_path) == ["tests/fine.py: file of solvers._room", "tests/fine.py: _b of a"]
    (tmp_path / "tests" / "fine.py").write_text("import _thread, a.b\nimport solvers._room.file as file")
    assert house.private(tmp_path) == ["tests/fine.py: solvers._room.file"]
    file = "models/room/big_room.py"
    found = [f"{file}:1: savefig", f"{file}:2: to_csv", f"{file}:4: echo", f"{file}:5: write_text"]
    assert house.beside_the_doors(tmp_path) == found
    (tmp_path / file).write_text("from click import echo\necho(path)\nclick.secho(path)\nprint(path)")
    assert house.beside_the_doors(tmp_path) == [f"{file}:2: echo", f"{file}:3: secho", f"{file}:4: print"]


def test_a_name_from_the_face_above_is_noticed(tmp_path: Path) -> None:
    """Faces import lazily, so that no import rule sees what comes through them."""
    below = tmp_path / "edgealloc" / "verify" / "proof"
    below.mkdir(parents=True)
    (tmp_path / "solvers").mkdir()
    (tmp_path / "edgealloc" / "errors.py").write_text("")
    fine = (
        "from edgealloc import errors, solvers\nimport edgealloc.errors as e\nfrom edgealloc.verify.form import f"
    )
    (below / "share.py").write_text(fine)
    (tmp_path / "solvers" / "base.py").write_text(fine)
    assert house.through_faces(tmp_path) == []
    (below / "share.py").write_text(
        "def f():\n    from edgealloc import solve\nfrom edgealloc.verify import verify"
    )
    (tmp_path / "solvers" / "base.py").write_text("import edgealloc.errors\nfrom .. import solve")
    assert house.through_faces(tmp_path) == [
        "edgealloc/verify/proof/share.py: verify of edgealloc.verify",
        "edgealloc/verify/proof/share.py: solve of edgealloc",
        "solvers/base.py: edgealloc.errors, without a name",
        "solvers/base.py: a relative import",
    ]
