"""What a kind of forgery is: how it is made, what the refusal names, and which step it would get past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.verify.forging.honest import Data, Honest

__all__ = ["Forge", "Trick", "nothing"]

Forge = Callable[[Honest], Data]


@dataclass(frozen=True, slots=True)
class Trick:
    """One kind of forgery.

    Parameters
    ----------
    forge
        Makes it from an honest proof.
    cases
        Names of the honest proofs that it is made from.
    field, says
        What the refusal names: the start of a fault's field, and words of its text.
    off
        Replacements in the checker without which the forgery would be accepted; empty where there is none.
    """

    forge: Forge
    cases: tuple[str, ...]
    field: str
    says: str
    off: tuple[tuple[str, Any], ...] = ()


def nothing(*_: Any, **__: Any) -> None:
    """A check that finds nothing."""
