"""Standard output and standard error as a command finds them: full, closed, cut off, or without a letter.

Python's own streams raise in the middle of the work, end a program with a second error when they are flushed at
its end, or are not there at all. :func:`guarded` gives a command streams that behave: what standard output cannot
take is one :class:`OutputError`, what standard error cannot take is lost, and a letter that the encoding lacks is
an escape.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from edgealloc.errors import EdgeallocError

__all__ = ["OutputError", "guarded"]


class OutputError(EdgeallocError):
    """Standard output cannot be written.

    Parameters
    ----------
    error
        What the system said.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written ({error.strerror or error})")
        self.cut_off = error.errno == errno.EPIPE  # whoever read it has seen enough


class _Raw(io.RawIOBase):
    """A file descriptor whose faults are ours; once it has failed, it takes everything and says nothing."""

    def __init__(self, descriptor: int, loud: bool) -> None:
        self._descriptor, self._loud, self._failed = descriptor, loud, False

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write a part of the data; its length.

        Raises
        ------
        OutputError
            At the first fault of a loud one.
        """
        size = len(memoryview(data).cast("B"))
        if not self._failed:
            try:
                return os.write(self._descriptor, data)
            except OSError as error:
                self._failed = True
                if self._loud:
                    raise OutputError(error) from None
        return size


@contextmanager
def guarded() -> Iterator[None]:
    """Replace the standard streams of this process by streams that behave, for as long as a command runs.

    Streams that are no file, as those of a test or a notebook, only learn to escape letters that they lack.

    Raises
    ------
    OutputError
        In the block, or at its end, when standard output cannot be written.
    """
    _occupy()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _stream(sys.stdout, 1), _stream(sys.stderr, 2)
    try:
        yield
        sys.stdout.flush()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OutputError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Put something in the place of closed standard descriptors, or the next file that is opened would get it.

    Reading from a closed input ends at once; writing to a closed output fails, as it should.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            taken = os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free, which is this one
            os.set_inheritable(taken, True)


def _stream(stream: Any, descriptor: int) -> Any:
    buffer = getattr(stream, "buffer", None)
    if stream is not None and not isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        with suppress(AttributeError, ValueError):  # a stream of somebody's own
            stream.reconfigure(errors="backslashreplace")
        return stream
    if stream is not None:
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Raw(descriptor, loud=descriptor == 1)),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )
