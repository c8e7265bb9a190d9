r"""The reference route of P-SCA: every convex sub-problem stated in cvxpy, compiled once, solved by Clarabel.

It is written to be read against docs/psca.md, with the same variables as the native route: log keep x, log upload
time theta, log clock phi, power P, elastic v, shares c. Powers p_km are explicit here, so the rate is the sum of
perspectives c log(1 + a p / c), which cvxpy knows as relative entropy. What changes between sub-problems are
parameters that enter affinely (DPP): the tangent of log P, the slope of the penalty, boxes and linear terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from edgealloc.errors import needs
from edgealloc.solvers.psca import device as dev
from edgealloc.solvers.psca.subproblem.route import RouteError, Step, SubProblem
from edgealloc.solvers.row import PMAX
from edgealloc.units import FloatArray

__all__ = ["Reference"]

# Clarabel's own scaling of the rows undoes ours: with it one sub-problem in ten ends inaccurate or not at all
_TIGHT = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9, "equilibrate_enable": False}


@dataclass(slots=True, eq=False)
class Reference:
    """Solves sub-problems with cvxpy and Clarabel; keeps the compiled problem of each set of devices."""

    solver: str = "CLARABEL"
    _compiled: dict[bytes, _Stated] = field(default_factory=dict)

    def __call__(self, sub: SubProblem) -> Step:
        """Solve one.

        Raises
        ------
        MissingPackageError
            Without cvxpy.
        RouteError
            When the solver fails.
        """
        needs("cvxpy", "cvxpy", "the reference route of P-SCA")
        on = np.flatnonzero(sub.at.active)
        key = on.tobytes() + sub.at.option.tobytes() + bytes([bool(np.isfinite(sub.upper).any())])
        if key not in self._compiled:
            self._compiled[key] = _Stated.of(sub, on)
        return self._compiled[key].solve(sub, on, self.solver)


@dataclass(frozen=True, slots=True, eq=False)
class _Stated:
    """A sub-problem with its parameters and variables."""

    problem: Any
    parameter: dict[str, Any]
    variable: dict[str, Any]
    packed: Any

    @classmethod
    def of(cls, sub: SubProblem, on: np.ndarray[Any, np.dtype[np.intp]]) -> _Stated:
        """State the sub-problem of the devices ``on``."""
        cp: Any = import_module("cvxpy")  # its functions are bound at run time
        model, t = sub.model, sub.table[on]
        k, m = len(on), sub.at.share.shape[1]
        inverse = model.inverse_w[on] / model.row(sub.at.option)[on, PMAX][:, None]
        x, theta, phi, v = (cp.Variable(k, name=name) for name in ("x", "theta", "phi", "v"))
        if model.problem.instance.common_keep:
            x = cp.Variable(name="x") * np.ones(k)
        c, p = cp.Variable((k, m), name="c"), cp.Variable((k, m), name="p")
        par = {
            name: cp.Parameter(k, name=name)
            for name in ("x_low", "x_high", "slope", "lin_x", "log_ref", "per_ref")
        }
        par["curve"] = cp.Parameter(k, nonneg=True, name="curve")
        par["curve_at"] = cp.Parameter(k, name="curve_at")  # sqrt(curve) x_ref
        par["lin_c"] = cp.Parameter((k, m), name="lin_c")
        par["lower"], par["upper"] = cp.Parameter((k, m), name="lower"), cp.Parameter((k, m), name="upper")
        par["elastic"] = cp.Parameter(nonneg=True, name="elastic")

        def total(terms: list[tuple[FloatArray, Any]]) -> Any:
            """sum_j a_j exp(e_j) per device, terms with a = 0 left out."""
            parts = [cp.multiply(a, cp.exp(e)) for a, e in terms if np.any(a > 0.0)]
            return cp.sum(cp.vstack(parts), axis=0) if parts else np.zeros(k)

        safe = np.where(np.isfinite(inverse), inverse, 1.0)
        usable = np.isfinite(inverse).astype(np.float64)
        # c log(1 + p / (inverse c)) = c log a - rel_entr(c, (c + p / inverse) / a) for any a > 0: that of an
        # even split of power and columns keeps both arguments of the cone alike
        even = 1.0 + k / (m * safe)
        entropy = cp.rel_entr(c, cp.multiply(1.0 / even, c) + cp.multiply(1.0 / (even * safe), p))
        rate = cp.multiply(
            t[:, dev.BAND], cp.sum(cp.multiply(usable * np.log(even), c) - cp.multiply(usable, entropy), axis=1)
        )
        power = cp.sum(p, axis=1)
        log_power = par["log_ref"] + cp.multiply(par["per_ref"], power)  # tangent of log P, from above
        limits = [
            total([(t[:, dev.D0], -theta), (t[:, dev.D1], x - theta)]) <= rate + v,
            total([
                (t[:, dev.D1] * t[:, dev.DOWN], x), (t[:, dev.W0], -phi), (t[:, dev.W1], x - phi),
                (np.ones(k), theta),
            ]) <= 1.0 - t[:, dev.D0] * t[:, dev.DOWN],
            total([
                (t[:, dev.SEND], theta + log_power), (t[:, dev.HEAT] * t[:, dev.W0], 2 * phi),
                (t[:, dev.HEAT] * t[:, dev.W1], 2 * phi + x),
            ]) <= 1.0,
            x >= par["x_low"], x <= par["x_high"], phi >= t[:, dev.PHI_LO], phi <= 0.0,
            power <= 1.0, p >= 0.0, v >= 0.0, c >= par["lower"],
        ]  # fmt: skip
        if np.isfinite(sub.upper).any():
            limits.append(c <= par["upper"])
        packed = cp.sum(c, axis=0) <= 1.0
        objective = (
            cp.sum(cp.multiply(t[:, dev.UNDER], cp.exp(-x)))
            + par["slope"] @ x
            + par["lin_x"] @ x
            + cp.sum(cp.multiply(par["lin_c"], c))
            + par["elastic"] * cp.sum(v)
        )
        pool = model.pool()
        root, spread = np.sqrt(pool[1] * t[:, dev.SCALE]), np.sqrt(pool[2] * t[:, dev.SCALE])
        whole = pool[3] + 2.0 * pool[4]

        def gap(kept: Any, a: float, b: float) -> Any:
            """sqrt(a^2 + b^2 / y): a norm of convex, non-negative terms of the concave y = Lam + 2 lam (1 - Q)."""
            return cp.norm(cp.hstack([a, b * cp.power(whole - 2.0 * pool[4] * kept, -0.5)]))

        if pool[0] == dev.GLOBAL_GAP:
            objective += gap(t[:, dev.WEIGHT] @ cp.exp(2 * x), root[0], spread[0])
        else:
            objective += sum(t[i, dev.WEIGHT] * gap(cp.exp(2 * x[i]), root[i], spread[i]) for i in range(k))
        if model.problem.underfit.name not in ("inverse-keep", "perturbation"):
            objective += 0.5 * cp.sum_squares(cp.multiply(par["curve"], x) - par["curve_at"])
        problem = cp.Problem(cp.Minimize(objective), [*limits, packed])
        variables = {"x": x, "theta": theta, "phi": phi, "v": v, "c": c, "p": p}
        return cls(problem, par, variables, packed)

    def solve(self, sub: SubProblem, on: np.ndarray[Any, np.dtype[np.intp]], solver: str) -> Step:
        """Fill in the parameters, solve, and read the next iterate.

        Raises
        ------
        RouteError
            When the solver fails.
        """
        t, par, var = sub.table[on], self.parameter, self.variable
        reference = np.clip(sub.at.y[on, dev.POWER], 1e-9, 0.999)
        par["x_low"].value, par["x_high"].value = t[:, dev.X_LO], t[:, dev.X_HI]
        par["slope"].value, par["lin_x"].value = t[:, dev.SLOPE], t[:, dev.LIN_X]
        par["log_ref"].value, par["per_ref"].value = np.log(reference) - 1.0, 1.0 / reference
        par["curve"].value = np.sqrt(t[:, dev.CURVE])
        par["curve_at"].value = np.sqrt(t[:, dev.CURVE]) * t[:, dev.X_REF]
        par["lin_c"].value, par["lower"].value = sub.penalty[on], sub.lower[on]
        par["upper"].value = np.where(np.isfinite(sub.upper[on]), sub.upper[on], 1.0)
        par["elastic"].value = sub.elastic
        try:
            self.problem.solve(solver=solver, **(_TIGHT if solver == "CLARABEL" else {}))
        except import_module("cvxpy").SolverError as error:
            raise RouteError(f"{solver} failed on a sub-problem of P-SCA: {error}") from error
        if var["x"].value is None:
            raise RouteError(f"{solver} failed on a sub-problem of P-SCA: {self.problem.status}")
        y, share = sub.at.y.copy(), np.zeros_like(sub.at.share)
        y[on] = np.stack(
            [var["x"].value, var["theta"].value, var["phi"].value, var["p"].value.sum(axis=1), var["v"].value],
            axis=1,
        )
        y[:, dev.ELASTIC] = np.where(y[:, dev.ELASTIC] > 1e-7, y[:, dev.ELASTIC], 0.0)
        share[on] = np.clip(var["c"].value, sub.lower[on], np.minimum(sub.upper[on], 1.0))
        share /= np.maximum(share.sum(axis=0), 1.0)
        value = float(self.problem.value) - float(t[:, dev.SLOPE] @ t[:, dev.X_REF])
        return Step(
            replace(sub.at, y=y, share=share), value, 1e-9 * abs(value), 0.0, np.asarray(self.packed.dual_value)
        )
