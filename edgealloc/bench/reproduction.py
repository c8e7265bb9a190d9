"""Whether a run of a suite reproduces a committed table, apart from times."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import read_file

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["differences", "read_frame"]

_SAME = ("instance_hash", "rel_gap_asked", "seed", "status", "verified")
_CLOSE = ("objective", "free_objective")
_RTOL, _ATOL_GAP = 1e-9, 1e-6  # another libm may round otherwise; on one machine all is the same to the bit


def read_frame(path: Path) -> pd.DataFrame:
    """The frame of a CSV that a sweep wrote.

    Raises
    ------
    InputError
        When it cannot be read, or lacks a column that comparisons need.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(io.BytesIO(read_file(path)))
    except InputError:
        raise
    except ValueError as error:  # no table, wrong encoding
        raise InputError(str(path), [Fault("file", "content", str(error).strip(), "a table as CSV")]) from None
    missing = [name for name in ("case", "method", "excess_gap", *_SAME, *_CLOSE) if name not in frame]
    faults = [
        Fault("file", "column", f"{name} (missing)", "a table that `edgealloc bench` wrote") for name in missing
    ]
    if faults:
        raise InputError(str(path), faults)
    return frame


def differences(frame: pd.DataFrame, committed: pd.DataFrame) -> list[str]:
    """What in a frame differs from the committed one, a line each; empty when it reproduces it.

    Only the cells of ``frame`` are looked at. Where the exact method stopped at a limit, in either run, how far it
    came depends on the machine: of it only the check of its allocation must agree, and of the case no gaps.
    """
    keys = ["case", "method"]
    known = committed.set_index(keys)
    limited = {
        str(case)
        for table in (frame, committed)
        for case in table.loc[
            table["status"].isin(["feasible", "no_solution"]) & (table["method"] == "auto"), "case"
        ]
    }
    found = []
    for row in frame.to_dict("records"):
        name = f"{row['method']} on {row['case']}"
        if (row["case"], row["method"]) not in known.index:
            found.append(f"{name}: not in the committed table")
            continue
        old = known.loc[(row["case"], row["method"])]
        stopped = row["case"] in limited
        free = stopped and row["method"] == "auto"
        for column in ("instance_hash", "verified") if free else _SAME:
            if _plain(row[column]) != _plain(old[column]):
                found.append(f"{name}: {column} {row[column]} where {old[column]} is committed")
        for column in () if free else _CLOSE:
            if not _close(row[column], old[column], _RTOL * abs(old[column])):
                found.append(f"{name}: {column} {row[column]!r} where {old[column]!r} is committed")
        if not stopped and not _close(row["excess_gap"], old["excess_gap"], _ATOL_GAP):
            found.append(f"{name}: excess_gap {row['excess_gap']!r} where {old['excess_gap']!r} is committed")
    return found


def _plain(value: Any) -> str:
    """As text: a frame read from CSV has other types than one just made."""
    return "" if value is None or value != value else str(value)


def _close(new: float, old: float, tol: float) -> bool:
    return (math.isnan(new) and math.isnan(old)) or abs(new - old) <= tol
