"""Faults of a file, all at once, in words: which device, which key, what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError
from typing_extensions import is_typeddict  # pydantic needs this one before Python 3.12

from edgealloc.data.spec import device_fields
from edgealloc.errors import Fault, InputError, did_you_mean
from edgealloc.files.schema import FORMATS, TYPES, FileKind, adapter
from edgealloc.files.types import MANY, ONE

__all__ = ["require_format", "structural_faults"]

_TAGS = (ONE, MANY, "effective-rounds", "needed-rounds")  # pydantic's, in paths: which of several types it took


def require_format(kind: FileKind, data: Mapping[str, Any], subject: str) -> None:
    """Refuse a file whose ``format`` is not that of its kind, before anything else is said about it.

    Raises
    ------
    InputError
        With that one fault.
    """
    given, tag = data.get("format", "(missing)"), FORMATS[kind]
    if given != tag:
        raise InputError(subject, [Fault("file", "format", repr(given), repr(tag))])


def structural_faults(kind: FileKind, data: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], Fault]]:
    """Every structural fault of a parsed file with its path in the file.

    Structure means keys, types and ranges of single values; relations between values are the business of
    :class:`~edgealloc.data.instance.Instance` and of the checker.
    """
    try:
        adapter(kind).validate_python(data)
    except ValidationError as error:
        return [_translate(kind, data, dict(e)) for e in error.errors(include_url=False)]
    return []


def _translate(
    kind: FileKind, data: Mapping[str, Any], error: dict[str, Any]
) -> tuple[tuple[str | int, ...], Fault]:
    """One pydantic error in the words of the project: where, field, value, allowed."""
    path = tuple(part for part in error["loc"] if part not in _TAGS)
    where, rest = _place(kind, data, path)
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in rest).lstrip(".")
    value = _shown(error["input"])
    if error["type"] == "missing":
        return path, Fault(where, field, "(missing)", "this key is required")
    if error["type"] == "extra_forbidden":
        return path, Fault(where, field, value, _nearest(kind, path))
    device_key = kind == "instance" and len(path) >= 3 and path[0] == "devices"
    allowed = device_fields().get(str(path[2])) if device_key else None
    words = error["msg"].removeprefix("Input should be ").replace("valid dictionary", "JSON object")
    return path, Fault(where, field, value, allowed or words)


def _place(
    kind: FileKind, data: Mapping[str, Any], path: tuple[str | int, ...]
) -> tuple[str, tuple[str | int, ...]]:
    """Device name (or block of the file) that a path lies in, and the rest of the path."""
    if len(path) >= 2 and path[0] == "devices" and isinstance(path[1], int):
        device = data["devices"][path[1]]
        name = device.get("name") if isinstance(device, dict) else None
        where = name if isinstance(name, str) and name else f"device {path[1]}"
        return where, path[2:] or ("entry",)
    if len(path) >= 2 and isinstance(path[0], str):
        return path[0], path[1:]
    return kind, path


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _nearest(kind: FileKind, path: tuple[str | int, ...]) -> str:
    """Advice for an unknown key: the nearest key that is known at that place, or all of them."""
    known = _keys_at(kind, path[:-1])
    return f"not a key; {did_you_mean(str(path[-1]), known)}"


def _keys_at(kind: FileKind, path: tuple[str | int, ...]) -> list[str]:
    nodes: list[Any] = [TYPES[kind]]
    for part in path:
        if isinstance(part, str) and part in get_type_hints(nodes[0]):
            nodes = list(_typed_dicts(get_type_hints(nodes[0])[part]))
        elif isinstance(part, str) and len(nodes) > 1:  # which of several forms it is, by its `kind`
            nodes = [node for node in nodes if part in get_args(get_type_hints(node).get("kind"))]
        # else a place in a list, or the id of a device
    return list(get_type_hints(nodes[0]))


def _typed_dicts(hint: Any) -> Iterator[Any]:
    """The TypedDict types inside a type such as ``list[X] | None``."""
    if is_typeddict(hint):
        yield hint
    for argument in getattr(hint, "__args__", ()):
        yield from _typed_dicts(argument)
