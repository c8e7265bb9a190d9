"""What is installed is what is meant: one top-level name, light imports, no clash with other packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def site_packages() -> Path:
    """The folder that holds the dependencies of this environment."""
    import numpy

    return Path(numpy.__file__).resolve().parents[1]


def python(executable: Path | str, code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter without this one's environment; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    run = subprocess.run(
        [str(executable), "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source distribution that was built from a copy of the tree."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("edgealloc", "solvers", "models"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import setuptools.build_meta as b; print(b.build_{}('..'))"
    sdist = python(sys.executable, build.format("sdist"), source).splitlines()[-1]
    shutil.unpack_archive(folder / sdist, folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    name = python(sys.executable, build.format("wheel"), unpacked).splitlines()[-1]
    return unpacked.parent / name


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel; dependencies are borrowed from this one."""
    home = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    executable = home / "bin" / "python"
    own = Path(python(executable, "import sysconfig; print(sysconfig.get_path('purelib'))", home))
    pip = [sys.executable, "-m", "pip", "--python", str(executable), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)], check=True)
    # a path in a .pth file is searched, but the editable install there is not activated
    (own / "borrowed.pth").write_text(f"{site_packages()}\n")
    return executable


def test_wheel_holds_one_top_level_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"edgealloc"}
    expected = {
        f"edgealloc/{prefix}{path.name}"
        for folder, prefix in (("edgealloc", ""), ("solvers", "solvers/"), ("models", "models/"))
        for path in (ROOT / folder).iterdir()
        if path.suffix in (".py", ".json", ".typed")
    }
    assert expected <= set(names)
    assert sum(name.endswith("licenses/LICENSE") for name in names) == 1


def test_installed_beside_decoys(installed: Path, tmp_path: Path) -> None:
    """A project that embeds edgealloc may have modules called models and solvers: neither hides the other."""
    (tmp_path / "models.py").write_text("OWNER = 'the other project'\n")
    (tmp_path / "solvers.py").write_text("OWNER = 'the other project'\n")
    code = """
import models, solvers, edgealloc, edgealloc.models, edgealloc.solvers, edgealloc.solvers.convex, pathlib, sys
assert models.OWNER == solvers.OWNER == 'the other project'
assert pathlib.Path(edgealloc.__file__).is_relative_to(sys.prefix), edgealloc.__file__
assert pathlib.Path(edgealloc.solvers.__file__).is_relative_to(sys.prefix), edgealloc.solvers.__file__
print(edgealloc.__version__)
"""
    version = python(installed, code, tmp_path)
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("package", ["models", "solvers"])
def test_wrong_import_name_is_refused(package: str) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
try:
    import {package}
except ImportError as error:
    print(error)
"""
    assert f"edgealloc.{package}" in python(sys.executable, code, ROOT)


def test_command_is_installed(installed: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [str(installed.parent / "edgealloc"), "schema", "instance"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout)["type"] == "object"


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """Modules in memory after running code in a fresh interpreter."""
    return set(python(sys.executable, f"{code}\nimport sys; print(*sys.modules)", tmp_path).split())


HEAVY = {
    "torch",
    "pandas",
    "cvxpy",
    "pyomo",
    "pydantic",
    "matplotlib",
    "scipy",
    "scipy.optimize",
    "numba",
    "transformers",
}


def test_import_is_light(tmp_path: Path) -> None:
    assert not loaded_by("import edgealloc", tmp_path) & (HEAVY | {"numpy"})
    assert not loaded_by("import edgealloc.models, edgealloc.solvers", tmp_path) & HEAVY


def test_help_is_light(tmp_path: Path) -> None:
    code = "from edgealloc.cli import main\nmain(['--help'], standalone_mode=False)"
    assert not loaded_by(code, tmp_path) & (HEAVY | {"numpy", "rich"})


def test_solving_needs_no_optional_package(tmp_path: Path) -> None:
    code = """
import numpy as np, edgealloc
from edgealloc.scenario import CellOptions, make_cell
assert edgealloc.solve(make_cell(CellOptions(devices=3), np.random.default_rng(1)).instance).status == 'optimal'
"""
    assert not loaded_by(code, tmp_path) & {"torch", "pandas", "cvxpy", "pyomo", "pydantic", "matplotlib"}


def test_every_public_name_resolves() -> None:
    import edgealloc

    assert [name for name in edgealloc.__all__ if not hasattr(edgealloc, name)] == []
