"""What options of the trainer may be: each check is a fault or nothing, so that all faults are told at once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

from edgealloc.errors import Fault, InputError, shown

__all__ = ["device", "number", "require", "whole", "word"]


def whole(field: str, value: object, least: int) -> Fault | None:
    """The fault of what should be a whole number of at least ``least``."""
    good = not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least
    return None if good else Fault("options", field, shown(value), f"a whole number, at least {least}")


def number(field: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> Fault | None:
    """The fault of what should be a finite number in [low, high], or above ``low`` where ``above``."""
    if not isinstance(value, bool) and isinstance(value, Real):
        x = float(value)
        if math.isfinite(x) and (low < x if above else low <= x) and x <= high:
            return None
    side = f"above {low:g}" if above else f"at least {low:g}"
    top = "" if math.isinf(high) else f" and at most {high:g}"
    return Fault("options", field, shown(value), f"a finite number {side}{top}")


def word(field: str, value: object, allowed: Iterable[str]) -> Fault | None:
    """The fault of what should be one of some words."""
    known = list(allowed)
    return None if value in known else Fault("options", field, shown(value), ", ".join(known))


def device(name: str) -> Fault | None:
    """The fault of what should be a torch device of this machine; torch is imported for it."""
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return Fault("options", "device", f"{name!r} ({said})", "a torch device of this machine, as cpu or cuda:0")
    return None


def require(subject: str, faults: Iterable[Fault | None]) -> None:
    """Refuse what has a fault.

    Raises
    ------
    InputError
        Names them all.
    """
    if found := [fault for fault in faults if fault is not None]:
        raise InputError(subject, found)
