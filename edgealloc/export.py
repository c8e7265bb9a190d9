"""A problem as a file for programs of others, written by the library that holds the model.

``nl`` and ``gms`` are the Pyomo model (:func:`edgealloc.to_pyomo`), ``mps`` and ``lp`` the mixed-integer program
of HiGHS, refined to a gap: its optimum, times the size of the objective, is that of the problem within it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from edgealloc.errors import Fault, InputError, RefusedError
from edgealloc.files.disk import write_file
from edgealloc.formulation.problem import Problem
from edgealloc.methods import METHODS
from edgealloc.solvers.base import Options

__all__ = ["FORMATS", "export"]

FORMATS: Mapping[str, str] = {"nl": "pyomo", "gms": "pyomo", "mps": "highs", "lp": "highs"}


def export(problem: Problem, path: str | Path, to: str = "", rel_gap: float = 1e-3) -> Path:
    """Write a problem as a model file.

    Parameters
    ----------
    problem
        The problem, with constraints that the writing back end takes.
    path
        Where to; an existing file is replaced. The file appears whole or not at all.
    to
        ``nl``, ``gms``, ``mps`` or ``lp``; by the ending of the path when empty.
    rel_gap
        For ``mps`` and ``lp``: how near the program's optimum is to that of the problem.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    InputError
        For another format.
    RefusedError
        When the back end does not take the problem or a constraint.
    MissingPackageError
        Without the package that writes the format.
    """
    kind = to or Path(path).suffix.lstrip(".")
    if kind not in FORMATS:
        why = "; no library here writes cbf (cvxpy does so through MOSEK alone)" if kind == "cbf" else ""
        raise InputError("export", [Fault("export", "to", repr(kind), f"{', '.join(FORMATS)}{why}")])
    method = METHODS[FORMATS[kind]]
    if not method.accepts(problem):
        left = "; ".join(map(str, method.refused(problem))) or "; ".join(problem.structure.reasons)
        raise RefusedError(f"{kind} is written by {method.name}, which takes {method.needs}; not {left}")
    with TemporaryDirectory() as folder:
        draft = str(Path(folder) / f"model.{kind}")
        _WRITERS[method.name](problem.tightened, draft, rel_gap)
        return write_file(Path(draft).read_bytes(), path)


def _pyomo(problem: Problem, draft: str, rel_gap: float) -> None:
    from edgealloc.solvers.backends.pyomo_model import to_pyomo

    to_pyomo(problem).write(draft, io_options={"symbolic_solver_labels": True})


def _highs(problem: Problem, draft: str, rel_gap: float) -> None:
    from edgealloc.solvers.backends.highs.solve import write_program

    write_program(problem, Options(rel_gap), draft)


_WRITERS = {"pyomo": _pyomo, "highs": _highs}
