"""Certificates spoilt on purpose: one number changed, one part lost, and whether the checker notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.prices import seal
from edgealloc.data.instance import Instance
from edgealloc.errors import InputError
from edgealloc.verify.certificate import check_certificate

Change = Callable[[dict[str, Any]], None]


def put(*path: Any, by: Any) -> Change:
    """Change one entry; a function is applied to the old value."""

    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = by(at[path[-1]]) if callable(by) else by

    return change


def lose(*path: Any) -> Change:
    """Remove one entry."""

    def change(data: dict[str, Any]) -> None:
        at: Any = data
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]

    return change


def refused(instance: Instance, data: dict[str, Any]) -> bool:
    """Whether the checker rejects a certificate object, by form or by proof."""
    try:
        return bool(check_certificate(instance, certificate_from_dict(data)).faults)
    except InputError:
        return True


def numbers_of(at: Any) -> list[tuple[Any, Any]]:
    """Every number of an object, as (container, key)."""
    found: list[tuple[Any, Any]] = []
    for key, value in at.items() if isinstance(at, dict) else enumerate(at):
        if isinstance(value, dict | list):
            found += numbers_of(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((at, key))
    return found


def mutate(
    data: dict[str, Any], rng: np.random.Generator, most: int = 5, digits: int = 12, factor: float = 1e6
) -> None:
    """Change up to ``most`` numbers of a certificate's proof at random, and make the checksum good again.

    Integers by up to 2; others by sign, by a share of 10^-``digits`` to 1, or by ``factor``.
    """
    numbers = [pair for key in ("pieces", "nodes") for pair in numbers_of(data.get(key, {}))]
    for i in rng.integers(len(numbers), size=int(rng.integers(1, most + 1))).tolist():
        at, key = numbers[i]
        if isinstance(at[key], int):
            at[key] += int(rng.integers(-2, 3))
        else:
            at[key] *= float(rng.choice([-1.0, 0.0, 1 + rng.normal() * 10.0 ** rng.integers(-digits, 1), factor]))
    data["sha256"] = seal(data)
