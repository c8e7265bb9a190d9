"""HiGHS objects that print nothing: every one that this package makes comes from here.

highspy switches callbacks on while it builds an object, and HiGHS 1.16 answers that first call with its banner on
the standard output of C, before any option could be set. So the option is set just before that call.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["quiet_highs"]


def quiet_highs() -> Any:
    """A ``highspy.Highs`` without a word, from its construction on."""
    engine = _kind()()
    engine.silent()  # highspy before 1.9 has no callbacks to switch on
    return engine


@cache
def _kind() -> type:
    """The class of silent HiGHS objects, made when it is first asked for."""
    import highspy  # 0.2 s, and only needed by those who ask

    class Quiet(highspy.Highs):
        """``Highs`` with its output off from the first call on."""

        def enableCallbacks(self) -> None:
            self.silent()
            super().enableCallbacks()  # type: ignore[no-untyped-call]

    return Quiet
