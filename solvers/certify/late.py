"""The end of writing a certificate that takes too long."""

from __future__ import annotations

from edgealloc.errors import EdgeallocError
from edgealloc.solvers.base import Control

__all__ = ["in_time"]


def in_time(control: Control) -> None:
    """Go on while there is time.

    Parameters
    ----------
    control
        Its clock began with the writing.

    Raises
    ------
    EdgeallocError
        When time is up: half a certificate proves nothing.
    """
    if control.stopped():
        limit = control.options.time_limit
        raise EdgeallocError(
            f"writing it took longer than {limit:g} s; the result stands as it is: allow more time or a larger gap"
        )
