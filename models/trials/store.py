"""Finished runs on disk, a line of JSON each, so that what was trained is not trained again.

Every line carries a digest of itself. A line that is damaged, in whatever way, is left out, its run is trained
again, and no other line is touched: the file only ever grows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edgealloc.errors import printable
from edgealloc.files.lock import sole_appender

__all__ = ["Record", "Store", "opened", "read_records", "scores"]

log = logging.getLogger("edgealloc")

Record = dict[str, Any]

_DIGEST = "digest"  # the line's key for the digest of the rest
_NAMED = 5  # lines that a message lists


@dataclass(slots=True)
class Store:
    """Records by key, and the file that takes new ones; in memory alone where there is none.

    Parameters
    ----------
    known
        Records by key.
    path
        The file, or None.
    """

    known: dict[str, Record]
    path: Path | None = None
    _file: BinaryIO | None = field(default=None, repr=False)

    def add(self, record: Record) -> None:
        """Keep a record under its ``key``; it is on the disk, whole, when this returns."""
        plain = _plain(record)
        if self._file is not None:
            line = json.dumps(plain | {_DIGEST: _digest(plain)}, allow_nan=False)
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        self.known[record["key"]] = json.loads(json.dumps(plain))

    def checkpoint(self, key: str) -> Path | None:
        """Where an unfinished run is kept, beside the file; None in memory."""
        return None if self.path is None else self.path.with_name(f"{self.path.stem}.{key}.npz")


@contextmanager
def opened(path: Path | None) -> Iterator[Store]:
    """Lend a store, for this process alone; two runs on one file would train the same things twice.

    Parameters
    ----------
    path
        The file, which is made if need be; None keeps records in memory.

    Yields
    ------
    Store
        With what the file holds.

    Raises
    ------
    InputError
        If another process has it, or it cannot be read and written.
    """
    if path is None:
        yield Store({})
        return
    with sole_appender(path) as file:
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):  # a run that was killed: its half line ends here
            file.write(b"\n")
        yield Store({record["key"]: record for record in _records(content, path)}, path, file)


def read_records(path: Path) -> list[Record]:
    """Read the records of a file; lines that are not as they were written are left out, and counted in the log.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of dict
        In the order of the file; empty where there is none.
    """
    return _records(path.read_bytes(), path) if path.exists() else []


def scores(record: Record) -> Record:
    """A flat record with nan where a number is missing because the run diverged: JSON has no nan."""
    return {key: math.nan if value is None else value for key, value in record.items()}


def _records(content: bytes, path: Path) -> list[Record]:
    found, bad = [], []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            sound = isinstance(record, dict) and "key" in record and record.pop(_DIGEST, None) == _digest(record)
        except (ValueError, RecursionError):  # no JSON, no UTF-8, or a number that is none
            sound = False
        if sound:
            found.append(record)
        else:
            bad.append(number)
    if bad:
        lines = ", ".join(map(str, bad[:_NAMED])) + ", ..." * (len(bad) > _NAMED)
        log.warning(
            "%s: %d lines (%s) are damaged or of an older version: left out, their runs are trained again",
            printable(path), len(bad), lines,
        )  # fmt: skip
    return found


def _plain(value: Any) -> Any:
    """The value with None for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]
