"""A suite of one's own instances: files, and folders of files.

A cell is known by what its instance is, not by where it lies: moved or renamed files are not solved again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edgealloc.bench.suites import Case, Suite
from edgealloc.errors import Fault, InputError, printable
from edgealloc.files.disk import read_json
from edgealloc.files.instance import load_instance

__all__ = ["own_suite"]

logger = logging.getLogger("edgealloc")

METHODS = ("auto", "psca", "psca+")  # unless others are named


def own_suite(paths: str | Path | Iterable[str | Path], name: str = "") -> Suite:
    """The suite of some instance files.

    Parameters
    ----------
    paths
        Files, and folders of which every instance below is taken; what else is there is passed over.
    name
        Name of the suite; that of the folder, or ``own``, when empty.

    Returns
    -------
    Suite
        A case per file, named by its file, and by its folders too where two files have one name.

    Raises
    ------
    InputError
        For a file that is no valid instance, a path that is not there, and where there is no instance at all.
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    files, faults = [], []
    for path in given:
        if not path.exists():
            faults.append(Fault("bench", "path", repr(str(path)), "a file or a folder that is there"))
        files += (
            [found for found in sorted(path.rglob("*.json")) if _is_instance(found)] if path.is_dir() else [path]
        )
    files = list(dict.fromkeys(files))
    if not files and not faults:
        told = ", ".join(repr(str(path)) for path in given)
        faults.append(Fault("bench", "path", told, "at least one edgealloc-instance/1 file"))
    if faults:
        raise InputError("bench", faults)
    often = Counter(path.stem for path in files)
    names = [path.stem if often[path.stem] == 1 else str(path.with_suffix("")).replace("/", ".") for path in files]
    cases = tuple(Case(label, 0, given=load_instance(path)) for label, path in zip(names, files, strict=True))
    title = name or (given[0].resolve().name if len(given) == 1 and given[0].is_dir() else "own")
    return Suite(title, f"{len(cases)} instances of your own", cases, METHODS)


def _is_instance(path: Path) -> bool:
    """Whether a file says that it is an instance; whether it is a valid one shows later."""
    try:
        data = read_json(path)
    except InputError as error:
        logger.warning("%s is passed over: %s", printable(path), error.faults[0] if error.faults else error)
        return False
    return str(data.get("format", "")).startswith("edgealloc-instance")
