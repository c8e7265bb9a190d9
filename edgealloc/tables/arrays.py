"""Arrays of numbers from .npy, .npz, .mat and .csv files."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError

__all__ = ["NAME_COLUMNS", "Stored", "file_of", "is_count", "read_array", "read_csv"]

SUFFIXES = (".npy", ".npz", ".mat", ".csv")
NAME_COLUMNS = ("name", "device", "device_name", "id", "client")
_PREFERRED = ("gain", "gains", "gain_db", "gains_db")


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An array as a file has it, and the names of its rows where the file has those."""

    values: Any
    names: list[str] | None = None


def file_of(text: str) -> tuple[Path, str]:
    """The file of ``path`` or ``path:NAME``, and the name or nothing."""
    head, _, wanted = text.rpartition(":")
    named = Path(text).suffix.lower() not in SUFFIXES and head
    return (Path(head), wanted) if named else (Path(text), "")


def read_array(source: str | Path) -> Stored:
    """Read the one array of a file; of several, the one called gain or that which ``file.mat:NAME`` names.

    Parameters
    ----------
    source
        Path of a .npy, .npz, .mat or .csv file; ``path:NAME`` for one of several arrays of a .npz or .mat file.

    Returns
    -------
    Stored
        The array as it is stored, of any shape and type.

    Raises
    ------
    InputError
        When the file cannot be read, or it does not say which array is meant.
    """
    text = str(source)
    path, wanted = file_of(text)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(text, [Fault("file", "path", repr(text), f"a file of {', '.join(SUFFIXES)}")])
    if suffix == ".csv":
        return _of_csv(path)
    if not path.is_file():
        raise InputError(text, [Fault("file", "path", f"{str(path)!r} (no such file)", "a readable file")])
    try:
        held = _of_matlab(path) if suffix == ".mat" else np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return Stored(held)
        return Stored(_one_of(held, wanted, text))
    except InputError:
        raise
    except NotImplementedError:
        allowed = "a file up to version 7: in MATLAB save(..., '-v7')"
        raise InputError(text, [Fault("file", "content", "a .mat file of version 7.3", allowed)]) from None
    except Exception as error:  # a damaged file makes numpy and scipy raise whatever comes
        raise InputError(text, [Fault("file", "content", f"unreadable ({error})", f"a {suffix} file")]) from None


def _of_matlab(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}


def _one_of(held: Mapping[str, Any], wanted: str, text: str) -> Any:
    """The array wanted, or the only one of numbers; MATLAB keeps single numbers as arrays of one.

    Raises
    ------
    InputError
        When it is not there, or there are several.
    """
    many = {name: held[name] for name in held if held[name].dtype.kind in "iufc" and held[name].size > 1}
    if wanted:
        if wanted in held:
            return held[wanted]
    elif len(many) == 1:
        return next(iter(many.values()))
    else:
        for name in _PREFERRED:
            if name in many:
                return many[name]
    shapes = ", ".join(f"{name} {value.shape}" for name, value in many.items()) or "none"
    which = f"no array {wanted!r}" if wanted else "more than one array, or none"
    raise InputError(text, [Fault("file", "content", which, f"FILE:NAME with a name of it; arrays: {shapes}")])


def read_csv(path: Path) -> list[list[str]]:
    """The cells of a table of text; parted by commas, semicolons, tabs, or else by spaces, as the first line is.

    Raises
    ------
    InputError
        When the file cannot be read, is empty, or a line has more or fewer cells than the first.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise InputError(
                str(path), [Fault("file", "path", "no regular file", "a file, text parted by commas")]
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            str(path), [Fault("file", "path", f"{error.strerror}", "a readable file, text parted by commas")]
        ) from None
    except UnicodeDecodeError:
        raise InputError(str(path), [Fault("file", "content", "not UTF-8", "text in UTF-8")]) from None
    whole = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # not splitlines: names may hold other ends
    lines = [f"{line}\n" for line in whole if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(str(path), [Fault("file", "content", "empty", "a table of text, parted by commas")])
    mark = max(",;\t", key=lines[0].count)
    if mark in lines[0]:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=mark)]
    else:
        rows = [line.split() for line in lines]
    width = len(rows[0])
    faults = [
        Fault(f"row {i + 1}", "cells", str(len(row)), f"{width}, as the first row has")
        for i, row in enumerate(rows)
        if len(row) != width
    ]
    if faults:
        raise InputError(str(path), faults)
    return rows


def is_count(cells: list[Any]) -> bool:
    """Whether a column without a name only counts rows, as pandas writes it."""
    return [str(cell) for cell in cells] == [str(i) for i in range(len(cells))]


def _of_csv(path: Path) -> Stored:
    """The numbers of a .csv file; without the line of titles, and without a first column of names or a count.

    Raises
    ------
    InputError
        Names row and column of each cell that is no number.
    """
    rows, names = read_csv(path), None
    counted = is_count(rows[0]) or (rows[0][0] == "" and is_count(rows[0][1:]))  # what pandas calls columns
    titled = counted or not any(map(_is_number, rows[0][1:] or rows[0]))
    titles = rows.pop(0) if titled else [""] * len(rows[0])
    first = [row[0] for row in rows]
    if titled and len(titles) > 1 and (titles[0].lower() in ("", *NAME_COLUMNS)):
        names = None if titles[0] == "" and is_count(first) else first
        rows, titles = [row[1:] for row in rows], titles[1:]
    faults = [
        Fault(f"row {i + 1}", titles[m] or f"column {m + 1}", repr(cell), "a number, with a decimal point")
        for i, row in enumerate(rows)
        for m, cell in enumerate(row)
        if not _is_number(cell)
    ]
    if faults:
        raise InputError(str(path), faults)
    values = np.array([[float(cell) for cell in row] for row in rows])
    return Stored(values[:, 0] if len(titles) == 1 else values, names)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
