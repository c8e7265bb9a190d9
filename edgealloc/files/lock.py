"""One writer a folder: who comes second is told so, instead of both writing over each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import make_folder, output_fault

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["sole_writer"]


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, for one process; the system gives it up when that process ends.

    Raises
    ------
    InputError
        When another process holds it, or it cannot be written.
    """
    path = make_folder(folder) / ".lock"
    if (words := output_fault(path)) is not None:
        raise InputError(str(folder), [Fault("folder", "path", words, "a folder that can be written")])
    with path.open("a") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                allowed = "a folder that no other run writes to: wait for that run, or name another folder"
                raise InputError(str(folder), [Fault("folder", "writer", "another process", allowed)]) from None
        try:
            yield
        finally:
            if fcntl is not None:  # said, for a process forked meanwhile holds the file, and with it the lock
                fcntl.flock(file, fcntl.LOCK_UN)
