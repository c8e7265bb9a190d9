"""Solution files: what was claimed, as JSON, read with all faults at once and written whole or not at all.

The format (docs/files.md) is written down as types in :mod:`edgealloc.files.schema`. Numbers are
doubles written with the shortest decimal that reads back to the same bits, so a round trip is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.data.solution import Solution, finite_or_none
from edgealloc.errors import InputError
from edgealloc.files.constraints import constraints_from_list, list_from_constraints
from edgealloc.files.disk import read_json, write_json

if TYPE_CHECKING:
    from edgealloc.files.schema import SolutionDeviceFile, SolutionFile

__all__ = ["dict_from_solution", "load_solution", "save_solution", "solution_from_dict"]


def load_solution(path: str | Path) -> Solution:
    """Read an ``edgealloc-solution/1`` file; its claims are not judged (see :mod:`edgealloc.verify.solution`).

    Raises
    ------
    InputError
        Lists every fault of the file's structure.
    """
    return solution_from_dict(read_json(path), subject=str(path))


def save_solution(solution: Solution, path: str | Path) -> Path:
    """Write an ``edgealloc-solution/1`` file; it appears whole or not at all. Returns its path."""
    return write_json(dict_from_solution(solution), path)


def solution_from_dict(data: Mapping[str, Any], *, subject: str = "solution") -> Solution:
    """A solution from a parsed file.

    Raises
    ------
    InputError
        Lists every structural fault.
    """
    from edgealloc.files.faults import require_format, structural_faults  # brings pydantic

    require_format("solution", data, subject)
    found = structural_faults("solution", data)
    if found:
        raise InputError(subject, (fault for _, fault in found))
    claims: dict[str, Any] = {key: data[key] for key in ("objective", "lower_bound", "rel_gap", "excess_gap")}
    diagnosis = tuple(
        Diagnosis(d["device"], d["budget"], d["available"], _none_to_inf(d["required"]), d["message"])
        for d in data.get("diagnosis", ())
    )
    return Solution(
        instance_name=data["instance"],
        method=data["method"],
        status=Status(data["status"]),
        free_objective=data["free_objective"],
        seconds=float(data["seconds"]),
        message=data.get("message", ""),
        diagnosis=diagnosis,
        constraints=constraints_from_list(data.get("constraints", ())),
        **claims,
        **_columns(tuple(data["devices"])),
    )


def dict_from_solution(solution: Solution) -> SolutionFile:
    """The JSON object of a solution; :func:`solution_from_dict` turns it back into an equal solution."""
    columns: dict[str, Any] = {
        "name": solution.device_names,
        "keep": solution.keep.tolist(),
        "dropout": solution.dropout.tolist(),
        "bandwidth_hz": [finite_or_none(b) for b in solution.bandwidth_hz.tolist()],
        "subcarriers": [None if c is None else list(c) for c in solution.subcarriers],
        "power_w": [list(p) if isinstance(p, tuple) else p for p in solution.power_w],
        "selected": solution.selected.tolist(),
        "adapter_option": solution.adapter_option,
        "freq_hz": solution.freq_hz.tolist(),
        "rate_bps": solution.rate_bps.tolist(),
        "latency_s": solution.latency_s.tolist(),
        "energy_j": solution.energy_j.tolist(),
    }
    devices: Any = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    data: SolutionFile = {
        "format": "edgealloc-solution/1",
        "instance": solution.instance_name,
        "method": solution.method,
        "status": solution.status.value,
        "objective": solution.objective,
        "lower_bound": solution.lower_bound,
        "rel_gap": solution.rel_gap,
        "excess_gap": solution.excess_gap,
        "free_objective": solution.free_objective,
        "seconds": solution.seconds,
        "devices": devices,
    }
    if solution.diagnosis:
        data["diagnosis"] = [
            {
                "device": d.device,
                "budget": d.budget,
                "available": d.available,
                "required": finite_or_none(d.required),
                "message": d.message,
            }
            for d in solution.diagnosis
        ]
    if solution.message:
        data["message"] = solution.message
    if solution.constraints:
        data["constraints"] = list_from_constraints(solution.constraints)
    return data


def _columns(devices: tuple[SolutionDeviceFile, ...]) -> dict[str, Any]:
    """The per-device columns of a file, as arrays where they are numbers."""
    columns: dict[str, Any] = {"device_names": tuple(d["name"] for d in devices)}
    for key in ("keep", "dropout", "bandwidth_hz", "freq_hz", "rate_bps", "latency_s", "energy_j"):
        # null becomes NaN, which no comparison accepts by mistake
        columns[key] = np.array([d[key] for d in devices], dtype=np.float64)
    columns["selected"] = np.array([d["selected"] for d in devices], dtype=np.bool_)
    columns["adapter_option"] = tuple(d["adapter_option"] for d in devices)
    powers = (d["power_w"] for d in devices)
    columns["power_w"] = tuple(tuple(p) if isinstance(p, list) else float(p) for p in powers)
    carriers = (d["subcarriers"] for d in devices)
    columns["subcarriers"] = tuple(None if c is None else tuple(c) for c in carriers)
    return columns


def _none_to_inf(value: float | None) -> float:
    return float("inf") if value is None else float(value)
