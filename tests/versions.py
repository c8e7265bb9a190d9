"""The versions that the environments are made of: `python tests/versions.py oldest | lock | check | others`.

The lock (lock.txt) is a list of constraints for pip. It is made on the oldest Python that the project claims, so
that its versions serve the newer ones too. The standard library is enough: it runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "lock.txt"
HEADER = "# Exact versions for every Python that the project claims; renewed by `make lock`.\n"
# Never locked: torch names its own CUDA libraries, which differ between machines, and pip comes with Python.
UNLOCKED = re.compile(r"(nvidia|cuda|triton)(-.*)?|pip|edgealloc")
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+?)(\[(?P<extras>[\w,-]+)\])?>=(?P<floor>[\d.]+)")


def canonical(name: str) -> str:
    """A distribution's name as the registry compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(path: Path = ROOT / "pyproject.toml") -> list[str]:
    """Everything that pyproject.toml asks for, to build, to solve and as an extra."""
    project = tomllib.loads(path.read_text())
    extras = project["project"]["optional-dependencies"].values()
    texts = [*project["build-system"]["requires"], *project["project"]["dependencies"], *chain(*extras)]
    return [text for text in texts if not text.startswith("edgealloc[")]  # extras that name other extras


def floors(texts: Iterable[str]) -> dict[str, str]:
    """The lower bound of each requirement; a requirement without one is an error, for nothing could test it."""
    found: dict[str, str] = {}
    for text in texts:
        match = REQUIREMENT.fullmatch(text)
        if match is None:
            raise SystemExit(f"{text}: write it as NAME>=VERSION, for `make test-oldest` installs the lower bound")
        name = canonical(match["name"])
        if found.setdefault(name, match["floor"]) != match["floor"]:
            raise SystemExit(f"{text}: another requirement gives {name} the lower bound {found[name]}")
    return found


def locked(path: Path = LOCK) -> dict[str, str]:
    """The lock as name and version."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}


def lock_of(report: dict[str, Any]) -> str:
    """The text of a lock from pip's installation report; local labels (+cpu) belong to one machine."""
    metadata = [entry["metadata"] for entry in report["install"]]
    pins = {canonical(entry["name"]): entry["version"].partition("+")[0] for entry in metadata}
    return HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins) if not UNLOCKED.fullmatch(name))


def newest(constraints: Iterable[str]) -> dict[str, Any]:
    """Pip's report on what it would install today for all extras; nothing is installed."""
    with TemporaryDirectory() as folder:
        held, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        held.write_text("".join(f"{text}\n" for text in constraints))
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--dry-run"]
        subprocess.run(
            [*pip, "--ignore-installed", "--constraint", held, "--report", report, "--editable", ".[test]"],
            cwd=ROOT,
            check=True,
        )
        result: dict[str, Any] = json.loads(report.read_text())
        return result


def strays(pins: dict[str, str]) -> list[str]:
    """Distributions of this environment that are not what the lock says."""
    found = {canonical(item.name): item.version.partition("+")[0] for item in distributions()}
    return [
        f"{name} {version}, the lock says {pins.get(name, 'nothing')}"
        for name, version in sorted(found.items())
        if not UNLOCKED.fullmatch(name) and pins.get(name) != version
    ]


def oldest_python() -> tuple[int, int]:
    """The oldest Python that pyproject.toml claims."""
    text = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    major, minor = text.removeprefix(">=").split(".")
    return int(major), int(minor)


def other_pythons() -> list[Path]:
    """One interpreter for each minor version at hand that the project claims, but for this one's; newest first."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    ask = "import sys, venv, ensurepip; print(*sys.version_info[:2], sys.executable)"
    found: dict[tuple[int, int], Path] = {}
    for candidate in (path for folder in folders for path in sorted(folder.glob("python3.*"))):
        if re.fullmatch(r"python3\.\d+", candidate.name) and os.access(candidate, os.X_OK):
            run = subprocess.run([candidate, "-c", ask], capture_output=True, text=True, check=False)
            if run.returncode == 0:  # a version manager's shim may stand for a Python that is switched off
                major, minor, executable = run.stdout.strip().split(" ", 2)
                found.setdefault((int(major), int(minor)), Path(executable))
    return [found[key] for key in sorted(found, reverse=True) if oldest_python() <= key != sys.version_info[:2]]


def main(command: str, *arguments: str) -> None:
    if command == "oldest":
        given = dict(text.split("==") for text in arguments)  # what the caller holds elsewhere
        pins = floors(requirements()) | given
        print("".join(f"{name}=={version}\n" for name, version in sorted(pins.items())), end="")
    elif command == "lock":
        if sys.version_info[:2] != oldest_python():
            python = "python{}.{}".format(*oldest_python())
            raise SystemExit(f"the lock is made on the oldest Python: make lock VENV=.venv-lock PYTHON={python}")
        LOCK.write_text(lock_of(newest(arguments)))
    elif command == "check":
        if wrong := strays(locked()):
            raise SystemExit("not from the lock: " + "; ".join(wrong))
    elif command == "others":
        print("".join(f"{path}\n" for path in other_pythons()), end="")
    else:
        raise SystemExit(f"{command}: no such command")


if __name__ == "__main__":
    main(*sys.argv[1:])
