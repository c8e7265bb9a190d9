"""edgealloc: provably optimal resource allocation for federated LoRA fine-tuning at the wireless edge.

The public names are imported when they are first used, so that ``import edgealloc`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgealloc.api import compare as compare
    from edgealloc.api import load as load
    from edgealloc.api import solve as solve
    from edgealloc.data.allocation import Allocation as Allocation
    from edgealloc.data.constraints import EnergyCap as EnergyCap
    from edgealloc.data.constraints import KeepFloor as KeepFloor
    from edgealloc.data.constraints import ParticipationCap as ParticipationCap
    from edgealloc.data.constraints import PowerCap as PowerCap
    from edgealloc.data.constraints import SpectrumCap as SpectrumCap
    from edgealloc.data.constraints import SubcarrierCap as SubcarrierCap
    from edgealloc.data.instance import Instance as Instance
    from edgealloc.data.learning import LearningSpec as LearningSpec
    from edgealloc.data.outcome import Diagnosis as Diagnosis
    from edgealloc.data.outcome import Snapshot as Snapshot
    from edgealloc.data.outcome import Status as Status
    from edgealloc.data.spec import AdapterOption as AdapterOption
    from edgealloc.data.spec import BoundSpec as BoundSpec
    from edgealloc.data.spec import UnderfitCurve as UnderfitCurve
    from edgealloc.data.spec import UnderfitLogistic as UnderfitLogistic
    from edgealloc.errors import EdgeallocError as EdgeallocError
    from edgealloc.errors import InputError as InputError
    from edgealloc.errors import MissingPackageError as MissingPackageError
    from edgealloc.errors import PlausibilityWarning as PlausibilityWarning
    from edgealloc.errors import StatusError as StatusError
    from edgealloc.files.instance import save_instance as save_instance
    from edgealloc.formulation.problem import Problem as Problem
    from edgealloc.formulation.result import Result as Result
    from edgealloc.inverse import front as front
    from edgealloc.inverse import least as least
    from edgealloc.methods import METHODS as METHODS
    from edgealloc.methods import register_method as register_method
    from edgealloc.runs.plan import RunPlan as RunPlan
    from edgealloc.runs.planning import plan_run as plan_run
    from edgealloc.runs.replanning import replan as replan
    from edgealloc.scenario.cell import make_cell as make_cell
    from edgealloc.scenario.options import CellOptions as CellOptions
    from edgealloc.solvers.backends.cvxpy_fdma import to_cvxpy as to_cvxpy
    from edgealloc.solvers.backends.pyomo_model import to_pyomo as to_pyomo
    from edgealloc.verify.solution import verify_files as verify_files

_HOME = {
    "AdapterOption": "data.spec",
    "Allocation": "data.allocation",
    "BoundSpec": "data.spec",
    "CellOptions": "scenario.options",
    "Diagnosis": "data.outcome",
    "EdgeallocError": "errors",
    "EnergyCap": "data.constraints",
    "InputError": "errors",
    "Instance": "data.instance",
    "KeepFloor": "data.constraints",
    "LearningSpec": "data.learning",
    "METHODS": "methods",
    "MissingPackageError": "errors",
    "ParticipationCap": "data.constraints",
    "PlausibilityWarning": "errors",
    "PowerCap": "data.constraints",
    "Problem": "formulation.problem",
    "Result": "formulation.result",
    "RunPlan": "runs.plan",
    "Snapshot": "data.outcome",
    "SpectrumCap": "data.constraints",
    "Status": "data.outcome",
    "StatusError": "errors",
    "SubcarrierCap": "data.constraints",
    "UnderfitCurve": "data.spec",
    "UnderfitLogistic": "data.spec",
    "compare": "api",
    "front": "inverse",
    "least": "inverse",
    "load": "api",
    "make_cell": "scenario.cell",
    "plan_run": "runs.planning",
    "register_method": "methods",
    "replan": "runs.replanning",
    "save_instance": "files.instance",
    "solve": "api",
    "to_cvxpy": "solvers.backends.cvxpy_fdma",
    "to_pyomo": "solvers.backends.pyomo_model",
    "verify_files": "verify.solution",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
