"""What the checker and its certificates are made of: nothing that was read or decided can be changed later."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, is_dataclass
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest

import edgealloc.certificate
import edgealloc.verify

COLLECTING = {"Budget", "Findings", "Found", "_Exact", "_Judge", "_Layout"}  # what they hold grows
COMPARED = {  # by what they hold; the others hold arrays, which have no answer to that
    "Box", "CurveTerms", "Cut", "Findings", "NeededTerms", "Node", "OwnerCut", "Proof", "Region", "Report",
    "_Part",
}  # fmt: skip


def parts() -> list[type[Any]]:
    """All dataclasses of the two packages."""
    found = []
    for package in (edgealloc.verify, edgealloc.certificate):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            held = vars(import_module(module.name)).values()
            found += [c for c in held if isinstance(c, type) and is_dataclass(c) and c.__module__ == module.name]
    return found


@pytest.mark.parametrize("part", parts(), ids=lambda part: f"{part.__module__}.{part.__name__}")
def test_parts_stay_as_they_were_made(part: Any) -> None:
    """No field can be changed but of those that collect, and none can be added to any."""
    empty, name = object.__new__(part), part.__slots__[0]
    assert not hasattr(empty, "__dict__")
    if part.__name__ in COLLECTING:
        setattr(empty, name, 0.37)
        assert getattr(empty, name) == 0.37
    else:
        with pytest.raises(FrozenInstanceError):
            setattr(empty, name, 0.37)
    assert (part.__eq__ is not object.__eq__) is (part.__name__ in COMPARED)
