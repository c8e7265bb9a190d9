"""Values as users give them, brought into the form that is kept, or a fault that names device and field.

numpy would take the real part of complex numbers, numbers in quotes, booleans, and what lies under the mask of a
masked array. Here these are faults, and so is whatever numpy raises on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from edgealloc.errors import Fault, InputError, did_you_mean, shown
from edgealloc.units import FloatArray

__all__ = ["default_names", "known_fields", "many", "names_of", "number", "numbers", "per_device"]

T = TypeVar("T")

_COMPLEX = "real numbers; of a complex channel coefficient h the power gain is abs(h)**2"


def number(value: Any) -> float | None:
    """A real number as a float; None for anything else: text, booleans, complex numbers, arrays that hold many."""
    if value is None or isinstance(value, str | bytes | bool | np.bool_ | complex | np.complexfloating):
        return None
    if isinstance(value, np.ndarray) and (value.ndim or value.dtype.kind not in "iuf"):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # lists; whatever a tensor says
        return None


def numbers(
    faults: list[Fault], key: str, value: Any, names: Sequence[str] = (), where: str = "devices"
) -> FloatArray | None:
    """Numbers of any shape as an array of doubles, or None and a fault for each entry that is none.

    Parameters
    ----------
    faults
        List that faults are added to.
    key
        Name of the field.
    value
        What was given: a number, a sequence of any kind, nested or not, an array.
    names
        Names of the devices, by the first index; without names it is ``device 3``.
    where
        What the array belongs to as a whole.
    """
    array: Any = None
    hidden = isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value)
    if not hidden:
        try:
            array = np.asarray(value)
        except Exception:  # ragged lists; tensors of a graph or another device: whatever is raised
            array = None
    if array is not None and array.dtype.kind in "iuf":
        return np.asarray(array, dtype=np.float64)
    if array is not None and array.dtype.kind == "c":
        faults.append(Fault(where, key, "complex numbers", _COMPLEX))
        return None
    if array is None or array.ndim == 0 or isinstance(value, str | bytes | Mapping):
        if array is None and isinstance(value, list | tuple):
            return _rows(faults, key, value, names)
        alone = number(value)  # of a type of its own, such as Fraction
        if alone is None:
            given = "an array with masked entries" if hidden else shown(value)
            faults.append(Fault(where, key, given, "a number, or an array of numbers"))
        return None if alone is None else np.asarray(alone)
    return _rows(faults, key, value if isinstance(value, list | tuple) else array.tolist(), names)


def _real(value: Any) -> str:
    """What is wanted in place of an entry that is no number; of text, what it lacks."""
    if isinstance(value, str):
        for text, wanted in (
            (value, "a number, not text"),
            (value.replace(",", "."), "a number, with a decimal point"),
        ):
            with suppress(ValueError):
                float(text)
                return wanted
    return "a number"


def many(value: Any) -> int:
    """How many entries a value has; 0 for one that stands alone."""
    try:
        return 0 if isinstance(value, str | bytes | Mapping) else len(value)
    except TypeError:  # numbers, and arrays of no dimension
        return 0


def _rows(faults: list[Fault], key: str, rows: Any, names: Sequence[str]) -> FloatArray | None:
    """What numpy made no numbers of, device by device; lengths are those of the first list."""
    before, found, length = len(faults), [], None
    for i, row in enumerate(rows):
        where = names[i] if i < len(names) else f"device {i}"
        if not many(row):
            alone = number(row)
            if alone is None:
                faults.append(Fault(where, key, shown(row), _real(row)))
            elif length is not None:
                faults.append(Fault(where, key, "one number", f"a list of {length}, as other devices have"))
            found.append([alone])
            continue
        entries = [number(entry) for entry in row]
        faults += [
            Fault(where, f"{key}[{m}]", shown(entry), _real(entry))
            for m, (entry, read) in enumerate(zip(row, entries, strict=True))
            if read is None
        ]
        length = len(entries) if length is None else length
        if len(entries) != length:
            faults.append(
                Fault(where, key, f"a list of {len(entries)}", f"a list of {length}, as other devices have")
            )
        found.append(entries)
    if len(faults) > before:
        return None
    array = np.array(found, dtype=np.float64)
    return array if length is not None else array[:, 0]


def per_device(faults: list[Fault], key: str, value: Any, one: str) -> list[Any] | None:
    """A sequence with an entry for each device as a list, or None and a fault for what has no such order."""
    if isinstance(value, str | bytes | Mapping | set | frozenset) or not isinstance(value, Iterable):
        faults.append(Fault("devices", key, shown(value), f"a sequence, {one} per device"))
        return None
    return list(value)


def names_of(faults: list[Fault], value: Any) -> tuple[str, ...]:
    """Device names from any sequence of texts and whole numbers; these become text, as in files."""
    given = per_device(faults, "device_names", value, "one name")
    names = []
    for i, name in enumerate(given or ()):
        whole = isinstance(name, int | np.integer) and not isinstance(name, bool)
        if not isinstance(name, str) and not whole:
            faults.append(Fault(f"device {i}", "name", shown(name), "text, or a whole number"))
        names.append(str(name))
    return tuple(names)


def default_names(k: int) -> tuple[str, ...]:
    """Names of devices that have none: ``dev-0000`` and so on."""
    width = max(4, len(str(max(k - 1, 0))))
    return tuple(f"dev-{i:0{width}d}" for i in range(k))


def known_fields(cls: type[T]) -> type[T]:
    """A dataclass that answers a misspelt field with the nearest one it has, as an :class:`InputError`."""
    build: Callable[..., None] = cls.__init__
    known = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]

    @wraps(build)
    def init(self: Any, *args: Any, **given: Any) -> None:
        unknown = [key for key in given if key not in known]
        if unknown:
            advice = [
                Fault("arguments", key, "given", f"not a field; {did_you_mean(key, known)}") for key in unknown
            ]
            raise InputError(cls.__name__, advice)
        build(self, *args, **given)

    cls.__init__ = init  # type: ignore[method-assign]
    return cls
