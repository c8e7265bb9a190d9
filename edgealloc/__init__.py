"""edgealloc: provably optimal resource allocation for federated LoRA fine-tuning at the wireless edge.

The public names are imported when they are first used, so that ``import edgealloc`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgealloc.allocation import Allocation
    from edgealloc.api import METHODS, compare, load, solve
    from edgealloc.errors import EdgeallocError, InputError, MissingPackageError, StatusError
    from edgealloc.instance import AdapterOption, BoundSpec, Instance, UnderfitCurve
    from edgealloc.instance_file import save_instance
    from edgealloc.inverse import front, least
    from edgealloc.outcome import Snapshot, Status
    from edgealloc.problem import Problem
    from edgealloc.result import Result
    from edgealloc.scenario import CellOptions, make_cell
    from edgealloc.solvers.cvxpy_backend import to_cvxpy
    from edgealloc.solvers.pyomo_model import to_pyomo
    from edgealloc.verify import verify_files

_HOME = {
    "METHODS": "api",
    "compare": "api",
    "load": "api",
    "solve": "api",
    "EdgeallocError": "errors",
    "InputError": "errors",
    "MissingPackageError": "errors",
    "StatusError": "errors",
    "AdapterOption": "instance",
    "BoundSpec": "instance",
    "Instance": "instance",
    "UnderfitCurve": "instance",
    "front": "inverse",
    "least": "inverse",
    "save_instance": "instance_file",
    "Problem": "problem",
    "Allocation": "allocation",
    "Result": "result",
    "Snapshot": "outcome",
    "Status": "outcome",
    "CellOptions": "scenario",
    "make_cell": "scenario",
    "to_cvxpy": "solvers.cvxpy_backend",
    "to_pyomo": "solvers.pyomo_model",
    "verify_files": "verify",
}

__all__ = [
    "METHODS",
    "AdapterOption",
    "Allocation",
    "BoundSpec",
    "CellOptions",
    "EdgeallocError",
    "InputError",
    "Instance",
    "MissingPackageError",
    "Problem",
    "Result",
    "Snapshot",
    "Status",
    "StatusError",
    "UnderfitCurve",
    "compare",
    "front",
    "least",
    "load",
    "make_cell",
    "save_instance",
    "solve",
    "to_cvxpy",
    "to_pyomo",
    "verify_files",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"edgealloc.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'edgealloc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
