"""Files of plans of a whole training run, ``edgealloc-runplan/1``: read with all faults at once, written whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edgealloc.data.learning import LearningSpec, NeededRounds, learning_faults, learning_numbers
from edgealloc.data.outcome import Status
from edgealloc.data.run import RunClaims
from edgealloc.errors import Fault, InputError
from edgealloc.files.disk import read_json, write_json
from edgealloc.files.solution import dict_from_solution, solution_from_dict

__all__ = ["dict_from_run", "load_run", "run_from_dict", "save_run"]

NEEDED = "needed-rounds"
_RENAMED = {"instance_name": "instance", "span": "rounds_range"}


def load_run(path: str | Path) -> RunClaims:
    """Read an ``edgealloc-runplan/1`` file; its claims are not judged (see :mod:`edgealloc.verify.run`).

    Raises
    ------
    InputError
        Lists every fault of the file's structure.
    """
    return run_from_dict(read_json(path), subject=str(path))


def save_run(claims: RunClaims, path: str | Path) -> Path:
    """Write an ``edgealloc-runplan/1`` file; it appears whole or not at all. Returns its path."""
    return write_json(dict_from_run(claims), path)


def dict_from_run(claims: RunClaims) -> dict[str, Any]:
    """The JSON object of a plan; :func:`run_from_dict` turns it back into an equal one."""
    data: dict[str, Any] = {"format": "edgealloc-runplan/1"}
    for f in fields(claims):
        data[_RENAMED.get(f.name, f.name)] = getattr(claims, f.name)
    learning = claims.learning
    data["status"], data["rounds_range"] = claims.status.value, list(claims.span)
    if isinstance(learning, NeededRounds):
        data["learning"] = {"form": NEEDED, **asdict(learning)}
    else:
        data["learning"] = {"form": learning.form, **learning_numbers(learning)}
    if claims.weights is None:
        del data["weights"]
    else:
        data["weights"] = list(claims.weights)
    data["energy_j"] = None if claims.energy_j is None else dict(claims.energy_j)
    data["round"] = None if claims.round is None else dict_from_solution(claims.round)
    return data


def run_from_dict(data: Mapping[str, Any], *, subject: str = "plan of a run") -> RunClaims:
    """The claims of a parsed file.

    Parameters
    ----------
    data
        The JSON object of an ``edgealloc-runplan/1`` file.
    subject
        What the error message calls it, for example the path.

    Raises
    ------
    InputError
        Lists every structural fault.
    """
    from edgealloc.files.faults import require_format, structural_faults  # brings pydantic

    require_format("runplan", data, subject)
    found = [fault for _, fault in structural_faults("runplan", data)]
    if not found:
        learning: LearningSpec | NeededRounds
        if data["learning"]["form"] == NEEDED:
            learning = NeededRounds(data["learning"]["fixed"], data["learning"]["per_keep"])
            found = learning.faults()
        else:
            learning = LearningSpec(**data["learning"])
            found = learning_faults(learning)
        first, last = data["rounds_range"]
        if not first <= last:
            found.append(Fault("plan", "rounds_range", f"[{first}, {last}]", "the least number of rounds first"))
    if found:
        raise InputError(subject, found)
    kept: dict[str, Any] = {f.name: data.get(_RENAMED.get(f.name, f.name)) for f in fields(RunClaims)}
    kept["weights"] = tuple(data["weights"]) if "weights" in data else None
    kept["status"], kept["learning"], kept["span"] = Status(data["status"]), learning, (first, last)
    kept["round"] = None if data["round"] is None else solution_from_dict(data["round"], subject=subject)
    return RunClaims(**kept)
