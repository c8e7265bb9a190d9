r"""The best that any energy policy could do: a horizon of continuous FDMA rounds solved at once, channels known.

.. math:: \min \sum_t G_t(s_t) \quad\text{s.t. every round's constraints, and}\quad
          \sum_t E_{kt}(s_t, f_t, e_t) \le H_k \text{ for every device.}

In logarithms the energies are posynomials and each round is convex (docs/mathematics.md, section 3), so the sum
over rounds is one convex program. It is stated in cvxpy; it grows with rounds times devices: for small horizons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgealloc.data.instance import Instance
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.rounds.solver import RoundSolver
from edgealloc.solvers.backends.cvxpy_fdma import import_cvxpy, to_cvxpy
from edgealloc.solvers.backends.logform import LogForm
from edgealloc.units import FloatArray

__all__ = ["Clairvoyant", "clairvoyant"]

_MARGIN = 1e-7  # what caps are cut by, for the conic solver meets them to its tolerance only


@dataclass(frozen=True, slots=True, eq=False)
class Clairvoyant:
    """The optimum of a horizon.

    Parameters
    ----------
    claimed
        Mean bound over the rounds that the conic solver claims; a lower bound to its tolerance.
    objective
        Bound of each round when it is solved anew, and proven, under the caps below. Shape [R].
    energy_j
        Caps of each round in J; their sums over the rounds are within the budgets. Shape [R, K].
    """

    claimed: float
    objective: FloatArray
    energy_j: FloatArray


def clairvoyant(rounds: Sequence[Instance], budget_j: FloatArray) -> Clairvoyant | None:
    """Solve a horizon at once; None where the solver fails or the budgets do not carry every round.

    Parameters
    ----------
    rounds
        Continuous FDMA rounds of the same devices; their ``energy_j`` is not used.
    budget_j
        Horizon budgets in J. Shape [K].

    Raises
    ------
    InputError
        Without rounds, or when their devices differ.
    MissingPackageError
        Without cvxpy.
    EdgeallocError
        When a round is not log-convex.
    """
    cp = import_cvxpy()
    if not rounds or any(r.device_names != rounds[0].device_names for r in rounds):
        allowed = "at least one round, all of the same devices"
        raise InputError("horizon", [Fault("horizon", "rounds", f"{len(rounds)} rounds", allowed)])
    budget_j = np.asarray(budget_j, dtype=np.float64)
    constraints, objective, shares = [], 0.0, []
    for instance in rounds:
        model = to_cvxpy(Problem(instance.with_changes(energy_j=budget_j)))
        form, static = LogForm.of(model.source), instance.energy_static_j / budget_j
        used = cp.exp(model.upload_energy) + cp.multiply(form.energy_fixed, cp.exp(2 * model.frequency))
        used += cp.multiply(form.energy_lora, cp.exp(model.keep + 2 * model.frequency))
        shares.append(static + cp.multiply(1.0 - static, used))  # of the budget
        constraints += model.problem.constraints
        objective += model.problem.objective.args[0] * model.scale
    scale = abs(float(Problem(rounds[0]).free_objective)) * len(rounds)
    program = cp.Problem(cp.Minimize(objective / scale), [*constraints, sum(shares) <= 1.0])
    try:
        program.solve(solver="CLARABEL", tol_gap_rel=1e-9, tol_gap_abs=1e-10, tol_feas=1e-9, max_iter=400)
    except cp.error.SolverError:
        return None
    if program.status not in ("optimal", "optimal_inaccurate"):
        return None
    part = np.stack([np.asarray(share.value) for share in shares])
    part *= (1.0 - _MARGIN) / np.maximum(part.sum(axis=0), 1.0)
    solver, values = RoundSolver("convex", rel_gap=1e-8), []
    for instance, mine in zip(rounds, part, strict=True):
        result = solver.solve(instance.with_changes(energy_j=mine * budget_j))
        if result.allocation is None:
            return None
        values.append(result.objective)
    return Clairvoyant(float(program.value) * scale / len(rounds), np.array(values), part * budget_j)
