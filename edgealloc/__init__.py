"""edgealloc: provably optimal resource allocation for federated LoRA fine-tuning at the wireless edge.

The public names are imported when they are first used, so that ``import edgealloc`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgealloc.api import METHODS, compare, load, solve
    from edgealloc.data.allocation import Allocation
    from edgealloc.data.instance import Instance
    from edgealloc.data.outcome import Snapshot, Status
    from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitCurve
    from edgealloc.errors import EdgeallocError, InputError, MissingPackageError, StatusError
    from edgealloc.files.instance import save_instance
    from edgealloc.formulation.problem import Problem
    from edgealloc.formulation.result import Result
    from edgealloc.inverse import front, least
    from edgealloc.scenario.cell import make_cell
    from edgealloc.scenario.options import CellOptions
    from edgealloc.solvers.backends.cvxpy_fdma import to_cvxpy
    from edgealloc.solvers.backends.pyomo_model import to_pyomo
    from edgealloc.verify.solution import verify_files

_HOME = {
    "METHODS": "api",
    "compare": "api",
    "load": "api",
    "solve": "api",
    "EdgeallocError": "errors",
    "InputError": "errors",
    "MissingPackageError": "errors",
    "StatusError": "errors",
    "AdapterOption": "data.spec",
    "BoundSpec": "data.spec",
    "Instance": "data.instance",
    "UnderfitCurve": "data.spec",
    "front": "inverse",
    "least": "inverse",
    "save_instance": "files.instance",
    "Problem": "formulation.problem",
    "Allocation": "data.allocation",
    "Result": "formulation.result",
    "Snapshot": "data.outcome",
    "Status": "data.outcome",
    "CellOptions": "scenario.options",
    "make_cell": "scenario.cell",
    "to_cvxpy": "solvers.backends.cvxpy_fdma",
    "to_pyomo": "solvers.backends.pyomo_model",
    "verify_files": "verify.solution",
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
