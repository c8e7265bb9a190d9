"""What all certificates share: format, checksum, cuts of the tree, and a reader that collects faults of form."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgealloc.data.constraints import Constraint
from edgealloc.errors import Fault, InputError
from edgealloc.files.constraints import constraints_from_list, list_from_constraints
from edgealloc.units import FloatArray, IntArray

__all__ = [
    "FORMAT",
    "OUT",
    "Cut",
    "Kept",
    "Reader",
    "canonical",
    "constraints_entry",
    "cut_to_dict",
    "kept_entry",
    "seal",
]

FORMAT = "edgealloc-certificate/1"
MAX_FAULTS = 50  # more of them tell nothing new
OUT = -1  # the option of a device that is left out
Kept = float | tuple[float, ...]  # Q0 of all devices, or of each cluster in the order of their names


_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxstring = 80
_SHORT.maxlong = _SHORT.maxother = 80


@dataclass(frozen=True, slots=True)
class Cut:
    """Restricts one device (None: all that take part) to options (None: any) and keep rates in [low, high]."""

    device: int | None
    options: tuple[int, ...] | None = None
    low: float = 0.0
    high: float = 1.0


def cut_to_dict(cut: Cut) -> dict[str, Any]:
    """The JSON object of a cut."""
    options = None if cut.options is None else list(cut.options)
    return {"device": cut.device, "options": options, "low": cut.low, "high": cut.high}


def kept_entry(kept: Kept) -> float | list[float]:
    """Q0 as JSON has it: a number, or a list where there are clusters."""
    return list(kept) if isinstance(kept, tuple) else kept


def constraints_entry(constraints: tuple[Constraint, ...]) -> dict[str, Any]:
    """The key ``constraints`` of a certificate, as a solution has it; no key where there are none."""
    return {"constraints": list_from_constraints(constraints)} if constraints else {}


def canonical(data: Mapping[str, Any]) -> bytes:
    """The content without the checksum, with sorted keys and no spaces."""
    content = {key: value for key, value in data.items() if key != "sha256"}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def seal(data: Mapping[str, Any]) -> str:
    """SHA-256 of the content without the checksum itself: guards against damage, not against intent."""
    return hashlib.sha256(canonical(data)).hexdigest()


def _double(value: Any) -> float:
    """A number of JSON as the nearest double; nan for what is none, or too large."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


class Reader:
    """Reads the parts of a certificate and collects every fault of form on the way."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.faults: list[Fault] = []

    def fault(self, key: str, value: Any, allowed: str) -> None:
        """Note a fault; after 50 of them :meth:`finish`."""
        text = _SHORT.repr(value)
        self.faults.append(Fault("certificate", key, text if len(text) <= 80 else text[:77] + "...", allowed))
        if len(self.faults) >= MAX_FAULTS:
            self.finish()

    def finish(self) -> None:
        """End the reading of a part.

        Raises
        ------
        InputError
            Lists the faults so far, if there are any.
        """
        if self.faults:
            raise InputError(self.subject, self.faults)

    def same(self, value: Any, wanted: str, key: str) -> None:
        """Note a fault unless the value is the one wanted."""
        if value != wanted:
            self.fault(key, value, f"{wanted!r}" if key == "format" else "the checksum of the content")

    def number(self, value: Any, key: str) -> float:
        """A finite number as the nearest double; 0 and a fault for anything else."""
        number = _double(value)
        if not math.isfinite(number):
            self.fault(key, value, "a finite number")
            return 0.0
        return number

    def kept(self, value: Any, key: str) -> Kept:
        """A finite number, or a list of them."""
        return (
            tuple(self.floats(value, key, len(value)).tolist())
            if isinstance(value, list)
            else self.number(value, key)
        )

    def whole(self, value: Any, key: str, least: int = 0) -> int:
        """A whole number from ``least`` to 2^31 - 1; ``least`` and a fault for anything else."""
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
            self.fault(key, value, f"a whole number >= {least}")
            return least
        return value

    def part(self, value: Any, key: str, names: set[str], optional: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
        """An object with just these keys."""
        if not isinstance(value, dict) or not names <= set(value) <= names | optional:
            self.fault(key, value, f"an object with {', '.join(sorted(names))}")
            self.finish()
        return dict(value)

    def floats(self, value: Any, key: str, count: int) -> FloatArray:
        """A list of ``count`` finite numbers. Shape [count]; zeros and a fault for anything else."""
        right = isinstance(value, list) and len(value) == count
        array = np.array([_double(v) for v in value] if right else np.zeros(count), dtype=np.float64)
        if not right or not np.all(np.isfinite(array)):
            self.fault(key, value, f"{count} finite numbers")
        return array

    def ints(self, value: Any, key: str, count: int | None = None) -> IntArray:
        """A list of whole numbers, of ``count`` if that is given. Shape [count]; a fault for anything else."""
        ok = isinstance(value, list) and (count is None or len(value) == count)
        ok = ok and all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**31 for v in value)
        if not ok:
            self.fault(key, value, "a list of whole numbers" if count is None else f"{count} whole numbers")
        return np.asarray(value if ok else [0] * (count or 0), dtype=np.intp)

    def bound(self, value: Any) -> float:
        """A lower bound; null stands for a claim of infeasibility, ``inf``."""
        return math.inf if value is None else self.number(value, "lower_bound")

    def cut(self, value: Any, key: str) -> Cut:
        """An object with just the fields of :class:`Cut`."""
        c = self.part(value, key, {"device", "options", "low", "high"})
        return Cut(
            None if c["device"] is None else self.whole(c["device"], f"{key}.device"),
            None if c["options"] is None else tuple(self.ints(c["options"], f"{key}.options").tolist()),
            self.number(c["low"], f"{key}.low"),
            self.number(c["high"], f"{key}.high"),
        )

    def constraints(self, data: Mapping[str, Any]) -> tuple[Constraint, ...]:
        """Those that a proof uses; a fault for each that is none.

        Raises
        ------
        InputError
            Where their structure is not sound.
        """
        if "constraints" not in data:
            return ()
        from edgealloc.files.faults import structural_faults  # brings pydantic

        wrapped = {"format": "edgealloc-constraints/1", "constraints": data["constraints"]}
        found = structural_faults("constraints", wrapped)
        if found:
            raise InputError(self.subject, (fault for _, fault in found))
        return constraints_from_list(data["constraints"])

    def listed(self, value: Any, key: str) -> list[Any]:
        """A list; an empty one and a fault for anything else."""
        if not isinstance(value, list):
            self.fault(key, value, "a list")
            return []
        return value
