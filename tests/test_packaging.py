"""What is installed is what is meant: exact versions, one top-level name, light imports, no clash with others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

import edgealloc
from tests import versions
from tests.places import ROOT

FOLDERS = {"edgealloc": "edgealloc", "solvers": "edgealloc/solvers", "models": "edgealloc/models"}
BUILD = "import setuptools.build_meta as b; print(b.build_{}('..'))"


def site_packages() -> Path:
    """The folder that holds the dependencies of this environment."""
    import numpy

    return Path(numpy.__file__).resolve().parents[1]


def call(*command: Path | str, cwd: Path) -> str:
    """Run a command without this interpreter's environment; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    run = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.strip()


def python(executable: Path | str, code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter without this one's environment; return what it prints."""
    return call(executable, "-c", code, cwd=cwd)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a distribution is built from."""
    source = tmp_path_factory.mktemp("build") / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("edgealloc", "solvers", "models"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    """A source distribution built from the copy."""
    return source.parent / python(sys.executable, BUILD.format("sdist"), source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source distribution."""
    folder = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(sdist, folder)
    (unpacked,) = folder.iterdir()
    return folder / python(sys.executable, BUILD.format("wheel"), unpacked).splitlines()[-1]


def fresh(home: Path, *what: Path | str) -> Path:
    """The interpreter of a fresh environment with edgealloc in it; dependencies are borrowed from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    executable = home / "bin" / "python"
    own = Path(python(executable, "import sysconfig; print(sysconfig.get_path('purelib'))", home))
    # a path in a .pth file is searched, but the editable install there is not activated
    (own / "borrowed.pth").write_text(f"{site_packages()}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(executable), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--disable-pip-version-check", *what], check=True)
    return executable


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel."""
    return fresh(tmp_path_factory.mktemp("fresh"), wheel)


def test_wheel_holds_one_top_level_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"edgealloc"}
    expected = {
        f"{inside}/{path.relative_to(ROOT / folder)}"
        for folder, inside in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".json", ".typed")
    }
    assert any(name.endswith(".json") for name in expected)
    assert expected <= set(names)
    assert sum(name.endswith("licenses/LICENSE") for name in names) == 1


def test_a_wheel_from_the_tree_holds_the_same(wheel: Path, source: Path) -> None:
    direct = source.parent / python(sys.executable, BUILD.format("wheel"), source).splitlines()[-1]
    assert sorted(zipfile.ZipFile(direct).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow  # the environment that runs all tests is one
def test_an_editable_install_holds_every_module(source: Path, tmp_path: Path) -> None:
    executable = fresh(tmp_path / "home", "--no-build-isolation", "--editable", source)
    code = f"""
from importlib.util import find_spec
from pathlib import Path
source = Path({str(source)!r})
for folder, package in {dict(FOLDERS)!r}.items():
    for path in (source / folder).rglob("*.py"):
        inside = path.relative_to(source / folder)
        if not any((source / folder / parent).is_symlink() for parent in inside.parents):
            name = ".".join(Path(package, inside.with_suffix("")).parts).removesuffix(".__init__")
            assert Path(find_spec(name).origin).resolve() == path.resolve(), name
"""
    python(executable, code, tmp_path)


def test_every_room_is_in_the_list_of_packages() -> None:
    """setuptools finds no package behind a link, so the list is written out: one left out is not installed."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = {
        ".".join(path.parent.relative_to(ROOT).parts).removeprefix("edgealloc.")
        for folder in ("edgealloc", "solvers", "models")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert sorted(setuptools["packages"]) == sorted(
        "edgealloc" if room == "edgealloc" else f"edgealloc.{room}" for room in rooms
    )


def test_installed_beside_decoys(installed: Path, tmp_path: Path) -> None:
    """A project that embeds edgealloc may have modules called models and solvers: neither hides the other."""
    (tmp_path / "models.py").write_text("OWNER = 'the other project'\n")
    (tmp_path / "solvers.py").write_text("OWNER = 'the other project'\n")
    code = """
import models, solvers, edgealloc, edgealloc.models, edgealloc.solvers, edgealloc.solvers.fdma.convex, pathlib, sys
assert models.OWNER == solvers.OWNER == 'the other project'
assert pathlib.Path(edgealloc.__file__).is_relative_to(sys.prefix), edgealloc.__file__
assert pathlib.Path(edgealloc.solvers.__file__).is_relative_to(sys.prefix), edgealloc.solvers.__file__
print(edgealloc.__version__)
"""
    assert python(installed, code, tmp_path) == edgealloc.__version__


def test_the_version_is_the_same_everywhere(wheel: Path, sdist: Path) -> None:
    """`edgealloc.__version__` is the source; the files that must write it out again agree with it."""
    version = edgealloc.__version__
    metadata = zipfile.ZipFile(wheel).read(f"edgealloc-{version}.dist-info/METADATA").decode()
    assert f"\nVersion: {version}\n" in metadata
    assert sdist.name == f"edgealloc-{version}.tar.gz"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert re.fullmatch(rf"{re.escape(version)} - (unreleased|\d{{4}}-\d\d-\d\d)", newest[1]), newest[1]


def test_the_lock_pins_every_requirement() -> None:
    lines = versions.LOCK.read_text().splitlines()[1:]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    pins = versions.locked()
    assert [name for name in pins if versions.UNLOCKED.fullmatch(name)] == []
    floors = versions.floors(versions.requirements())
    assert {"numpy", "setuptools", "torch", "ruff"} <= floors.keys()
    assert [name for name in floors if name not in pins] == []
    assert [name for name, floor in floors.items() if parts(pins[name]) < parts(floor)] == []


def parts(version: str) -> list[int]:
    """The numbers of a version, for comparing."""
    return [int(part) for part in re.findall(r"\d+", version)]


def test_a_lock_holds_nothing_of_one_machine() -> None:
    names = [
        ("Torch", "2.13.0+cpu"),
        ("nvidia-nccl-cu13", "2.0"),
        ("edgealloc", "0.1.0"),
        ("my.Own_pkg", "1.0.post1"),
    ]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in names]}
    assert versions.lock_of(report) == versions.HEADER + "my-own-pkg==1.0.post1\ntorch==2.13.0\n"


def test_strays_from_the_lock_are_named() -> None:
    """`check` compares this environment, which need not be made from the lock, with what it is given."""
    here = {versions.canonical(item.name): item.version.partition("+")[0] for item in distributions()}
    assert versions.strays(here) == []
    assert versions.strays({**here, "pytest": "0.1"}) == [f"pytest {here['pytest']}, the lock says 0.1"]
    del here["pytest"]
    assert versions.strays(here) == [f"pytest {pytest.__version__}, the lock says nothing"]


@pytest.mark.parametrize(
    "text", ["numpy", "numpy==1.26", "numpy>=1.26,<3", "numpy>=1.26; python_version < '3.12'"]
)
def test_a_requirement_without_a_lower_bound_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="write it as NAME>=VERSION"):
        versions.floors([text])


def test_two_lower_bounds_for_one_package_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"gives numpy the lower bound 1\.26"):
        versions.floors(["numpy>=1.26", "NumPy>=2"])


def test_only_a_python_that_runs_is_a_second_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version manager's shim may stand for a Python that is switched off, and an old Python is not claimed."""
    this = "{} {}".format(*sys.version_info[:2])
    scripts = {"python3.12": "exit 127", "python3.98": "echo 3 98 /new", "python3.10": "echo 3 10 /old"}
    for name, line in {**scripts, "python3.99": f"echo {this} /this"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert versions.other_pythons() == [Path("/new")]


@pytest.mark.slow
@pytest.mark.parametrize("which", ["this Python", "another Python"])
def test_from_the_lock_in_a_fresh_environment(which: str, wheel: Path, sdist: Path, tmp_path: Path) -> None:
    """Wheel and source distribution install with the lock's versions and prove an FDMA and an OFDMA cell."""
    others = [] if which == "this Python" else versions.other_pythons()
    if which != "this Python" and not others:
        pytest.skip(f"no second Python at hand that edgealloc claims, beside {sys.version.split()[0]}")
    call(others[0] if others else sys.executable, "-m", "venv", "fresh", cwd=tmp_path)
    home = tmp_path / "fresh" / "bin"
    shutil.copy(versions.LOCK, tmp_path / "lock.txt")
    pip = (home / "python", "-m", "pip", "install", "-q")
    install = ("env", "PIP_CONSTRAINT=lock.txt", "PIP_BUILD_CONSTRAINT=lock.txt", *pip)
    call(*install, wheel, "setuptools", cwd=tmp_path)  # some Pythons bring a setuptools of their own
    call(home / "python", ROOT / "tests" / "versions.py", "check", cwd=tmp_path)
    for access in ("fdma", "ofdma"):
        cell, solution, proof = f"{access}.json", f"{access}-solution.json", f"{access}-proof.json"
        draw = ("new", "--access", access, "--devices", "3", "--subcarriers", "6", "--seed", "7")
        call(home / "edgealloc", *draw, "--out", cell, cwd=tmp_path)
        call(home / "edgealloc", "solve", cell, "--out", solution, "--certificate", proof, cwd=tmp_path)
        assert json.loads((tmp_path / solution).read_text())["status"] == "optimal"
        call(home / "edgealloc", "verify", cell, solution, "--certificate", proof, cwd=tmp_path)
    call(*install, "--force-reinstall", "--no-deps", sdist, cwd=tmp_path)
    call(home / "edgealloc", "verify", "fdma.json", "fdma-solution.json", cwd=tmp_path)


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
    code = "from edgealloc.cli.app import main\nmain(['--help'], standalone_mode=False)"
    assert not loaded_by(code, tmp_path) & (HEAVY | {"numpy", "rich"})


def test_solving_needs_no_optional_package(tmp_path: Path) -> None:
    code = """
import numpy as np, edgealloc
from edgealloc.scenario.cell import CellOptions, make_cell
assert edgealloc.solve(make_cell(CellOptions(devices=3), np.random.default_rng(1)).instance).status == 'optimal'
"""
    assert not loaded_by(code, tmp_path) & {"torch", "pandas", "cvxpy", "pyomo", "pydantic", "matplotlib"}


def test_every_public_name_resolves() -> None:
    assert [name for name in edgealloc.__all__ if not hasattr(edgealloc, name)] == []
