"""One writer a folder or file: who comes second is told so, instead of both writing over each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import make_folder, output_fault

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["sole_appender", "sole_writer"]


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, for one process; the system gives it up when that process ends.

    Raises
    ------
    InputError
        When another process holds it, or it cannot be written.
    """
    with _held(make_folder(folder) / ".lock", folder, "folder"):
        yield


@contextmanager
def sole_appender(path: Path) -> Iterator[BinaryIO]:
    """Hold a file, which is made with its folder if need be, for one process, and lend it for appending.

    Yields
    ------
    file
        Open for appending, in bytes; what it held stays.

    Raises
    ------
    InputError
        When another process holds it, or it cannot be written.
    """
    make_folder(path.parent)
    with _held(path, path, "file") as file:
        yield file


@contextmanager
def _held(path: Path, what: Path, kind: str) -> Iterator[BinaryIO]:
    if (words := output_fault(path)) is not None:
        raise InputError(str(what), [Fault(kind, "path", words, f"a {kind} that can be written")])
    with path.open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                allowed = f"a {kind} that no other run writes to: wait for that run, or name another {kind}"
                raise InputError(str(what), [Fault(kind, "writer", "another process", allowed)]) from None
        try:
            yield file
        finally:
            if fcntl is not None:  # said, for a process forked meanwhile holds the file, and with it the lock
                fcntl.flock(file, fcntl.LOCK_UN)
