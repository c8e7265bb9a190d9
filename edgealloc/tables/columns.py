"""The columns of anything that has columns, and the names of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgealloc.errors import Fault, InputError
from edgealloc.tables.arrays import NAME_COLUMNS, is_count, read_csv

__all__ = ["columns_of", "row_names"]


def columns_of(frame: Any) -> tuple[dict[str, Any], list[Any] | None]:
    """Columns by name, and the names of the rows where the frame has some.

    Parameters
    ----------
    frame
        A data frame (pandas, polars, pyarrow: anything with ``columns`` or ``column_names`` and ``frame[name]``),
        a mapping of sequences, a structured array, or the path of a .csv file.

    Returns
    -------
    dict, list or None
        The columns without the one of names, and that.

    Raises
    ------
    InputError
        For what has no columns, and for a title that is there twice.
    """
    if isinstance(frame, str | Path):
        columns = _of_file(Path(frame))
    elif isinstance(frame, Mapping):
        columns = dict(frame)
    elif isinstance(frame, np.ndarray) and frame.dtype.names:
        columns = {name: frame[name] for name in frame.dtype.names}
    else:
        titles = _titles(frame)
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            faults = [Fault("frame", title, "a column of this title twice", "one column each") for title in twice]
            raise InputError("frame", faults)
        columns = {title: frame[title] for title in titles}
    if not columns or not all(isinstance(title, str) for title in columns):
        allowed = "a data frame with titled columns, a mapping of sequences, or the path of a .csv file"
        raise InputError("frame", [Fault("frame", "type", type(frame).__name__, allowed)])
    names = None
    for title in list(columns):
        if title.lower() in NAME_COLUMNS or title == "device_names":
            names = _cells(columns.pop(title))
        elif title == "" or title.startswith("Unnamed: "):  # an index, as pandas writes it and reads it again
            cells = _cells(columns.pop(title))
            names = names if names is not None or is_count(cells) else cells
    return columns, row_names(frame) if names is None else names


def row_names(frame: Any) -> list[Any] | None:
    """The index of a pandas frame or series, unless it only counts the rows."""
    index = getattr(frame, "index", None)
    if index is None or callable(index):
        return None
    names = list(index)
    return None if is_count(names) else names


def _cells(column: Any) -> list[Any]:
    """The entries of a column as Python has them: scalars of arrow are no text and no numbers of ours."""
    for method in ("to_pylist", "tolist"):
        if callable(getattr(column, method, None)):
            return list(getattr(column, method)())
    return list(column)


def _titles(frame: Any) -> list[Any]:
    for attribute in ("columns", "column_names"):
        titles = getattr(frame, attribute, None)
        if isinstance(titles, Iterable) and all(isinstance(title, str) for title in titles):
            return list(titles)
    return []


def _of_file(path: Path) -> dict[str, list[Any]]:
    """The columns of a .csv file whose first line has the titles; cells that are numbers as numbers.

    Raises
    ------
    InputError
        When the file cannot be read, or a title is there twice.
    """
    if path.suffix.lower() != ".csv":
        allowed = "a .csv file; read other tables with pandas and give the frame"
        raise InputError(str(path), [Fault("file", "path", repr(str(path)), allowed)])
    titles, *rows = read_csv(path)
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        faults = [Fault("file", title, "a column of this title twice", "one column each") for title in twice]
        raise InputError(str(path), faults)
    return {
        title: [row[m] if title.lower() in NAME_COLUMNS else _number(row[m]) for row in rows]
        for m, title in enumerate(titles)
    }


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell
