"""Constraints as JSON: a file of their own, and the list of them in a solution (docs/files.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgealloc.data.constraints import KINDS, Constraint, SubcarrierCap
from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import read_json, write_json

if TYPE_CHECKING:
    from edgealloc.files.schema import ConstraintFile

__all__ = ["constraints_from_list", "list_from_constraints", "load_constraints", "save_constraints"]


def load_constraints(path: str | Path) -> tuple[Constraint, ...]:
    """Read an ``edgealloc-constraints/1`` file; whether they fit an instance shows when they are used.

    Raises
    ------
    InputError
        Lists every fault of the file's structure.
    """
    from edgealloc.files.faults import require_format, structural_faults  # brings pydantic

    data = read_json(path)
    require_format("constraints", data, str(path))
    found = structural_faults("constraints", data)
    if found:
        raise InputError(str(path), (fault for _, fault in found))
    return constraints_from_list(data["constraints"])


def save_constraints(constraints: Iterable[Constraint], path: str | Path) -> Path:
    """Write an ``edgealloc-constraints/1`` file; it appears whole or not at all. Returns its path.

    Raises
    ------
    InputError
        For devices by index: a file has them by name, as ``Problem(instance, constraints=...).constraints`` has.
    """
    return write_json(
        {"format": "edgealloc-constraints/1", "constraints": list_from_constraints(constraints)}, path
    )


def constraints_from_list(entries: Iterable[Mapping[str, Any]]) -> tuple[Constraint, ...]:
    """Constraints from entries whose structure is sound.

    Raises
    ------
    InputError
        Where coefficients do not go with the devices.
    """
    rows, faults = [], []
    for entry in entries:
        row: Any = KINDS[entry["kind"]]
        devices, factors = entry.get("devices"), entry.get("coefficients")
        if factors is not None:
            names = devices or []
            if len(factors) != len(names) or len(set(names)) < len(names):
                allowed = f"one for each of the {len(names)} devices listed, each of them once"
                where = entry.get("name", entry["kind"])
                faults.append(Fault(where, "coefficients", f"{len(factors)} numbers", allowed))
                continue
            devices = dict(zip(names, factors, strict=True))
        rows.append(row(entry[row.key], devices, entry.get("name", "")))
    if faults:
        raise InputError("constraints", faults)
    return tuple(rows)


def list_from_constraints(constraints: Iterable[Constraint]) -> list[ConstraintFile]:
    """The JSON entries of constraints; :func:`constraints_from_list` turns them back into equal constraints.

    Raises
    ------
    InputError
        For devices by index.
    """
    entries: list[Any] = []
    rows = tuple(constraints)
    allowed = "names of devices; Problem(instance, constraints=...).constraints has them by name"
    faults = [
        Fault(row.label, "devices", repr(device), allowed)
        for row in rows
        for device in row.devices or ()
        if not isinstance(device, str)
    ]
    if faults:
        raise InputError("constraints", faults)
    for row in rows:
        entry: dict[str, Any] = {"kind": row.kind}
        entry |= {"name": row.name} if row.name else {}
        entry[row.key] = int(row.limit) if isinstance(row, SubcarrierCap) else row.limit
        if row.devices is not None:
            entry["devices"] = [str(device) for device in row.devices]
        if isinstance(row.devices, Mapping):
            entry["coefficients"] = [float(c) for c in row.devices.values()]
        entries.append(entry)
    return entries
