"""The solver-agnostic problem: minimise the generalisation bound within latency and energy.

A :class:`Problem` knows what an allocation is worth and which budgets it breaks, and states the facts of
its structure. It knows no solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from edgealloc.data.allocation import Allocation
from edgealloc.data.constraints import Constraint, fitted
from edgealloc.data.instance import Instance
from edgealloc.formulation import evaluation
from edgealloc.formulation.bound import StabilityTerm, UnderfitTerm
from edgealloc.formulation.constrained import broken, folded
from edgealloc.formulation.evaluation import Evaluation, Violation
from edgealloc.formulation.free import free_minimum
from edgealloc.formulation.objective import Objective
from edgealloc.units import FloatArray, IntArray

__all__ = ["Problem", "Structure"]


@dataclass(frozen=True, slots=True)
class Structure:
    """Facts about a problem, from which solvers choose.

    Parameters
    ----------
    separable
        The objective is a sum over devices, once the pooled sparsity (global pooling) carries a price.
    monotone
        Keeping less is feasible whenever keeping more was: resources cap keep rates from above only.
    log_convex
        The problem is convex in the logarithms of keep rate, time, energy, bandwidth and frequency.
    discrete
        What must be branched on: any of ``keep levels``, ``adapter options``, ``selection``,
        ``resource blocks``, ``sub-carriers``.
    reasons
        Why ``log_convex`` holds or fails, one sentence each.
    """

    separable: bool
    monotone: bool
    log_convex: bool
    discrete: tuple[str, ...]
    reasons: tuple[str, ...]


class Problem:
    """An instance together with its bound; what every solver takes.

    Parameters
    ----------
    instance
        The instance.
    underfit
        Replaces the underfitting term of the instance: a function u(s) of an array of keep rates, smooth and not
        increasing on [min keep_min, max keep_max], or a full :class:`~edgealloc.formulation.bound.UnderfitTerm`.
    constraints
        Constraints of your own (:mod:`edgealloc.data.constraints`): allocations that break one are not feasible.

    Attributes
    ----------
    instance
        The instance.
    constraints
        The constraints, with devices by name.
    objective
        The bound G: ``problem.objective(keep, selected, option)``, see
        :class:`~edgealloc.formulation.objective.Objective`.

    Raises
    ------
    InputError
        When ``underfit`` is not finite, negative or increases somewhere on a fine grid of keep rates; for
        constraints that do not fit the instance.
    """

    def __init__(
        self,
        instance: Instance,
        underfit: Callable[[FloatArray], FloatArray] | UnderfitTerm | None = None,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        self.instance = instance
        self.constraints = fitted(constraints, instance)
        self.objective = Objective.of(instance, underfit)

    @property
    def underfit(self) -> UnderfitTerm:
        """The underfitting term u(s)."""
        return self.objective.underfit

    @property
    def stability(self) -> StabilityTerm:
        """The stability term: one of the pooled data, or one per device or cluster."""
        return self.objective.stability

    @property
    def pooled(self) -> bool:
        """Whether one stability term covers the pooled data; see :attr:`Objective.pooled`, also for the error."""
        return self.objective.pooled

    @property
    def pools(self) -> IntArray | None:
        """The cluster of each device, from 0 on, where the stability term is pooled by cluster. Shape [K]."""
        return self.objective.pools

    @property
    def own_gains(self) -> bool:
        """Whether rows of adapter menus have channels of their own."""
        return any(row.gain is not None for menu in self.instance.adapter_options or () for row in menu or ())

    @cached_property
    def of_resources(self) -> Problem:
        """A problem of the same resources whose stability term is not pooled by cluster; it may be itself.

        For what asks only which allocations there are: the objective is another.
        """
        if self.pools is None:
            return self
        spec = replace(self.instance.bound, pooling="global")
        return Problem(self.instance.with_changes(bound=spec), self.underfit, self.constraints)

    def constrained(self, constraints: Iterable[Constraint]) -> Problem:
        """The same problem with other constraints in place of its own.

        Parameters
        ----------
        constraints
            All of them; none for the instance alone.

        Returns
        -------
        Problem
            With the instance and the underfitting term of this one.
        """
        return Problem(self.instance, self.underfit, constraints)

    @cached_property
    def tightened(self) -> Problem:
        """The problem with those constraints built into its instance that its fields can say; it may be itself."""
        instance, rest = folded(self.instance, self.constraints)
        return self if rest == self.constraints else Problem(instance, self.underfit, rest)

    @cached_property
    def structure(self) -> Structure:
        """Facts about this problem (docs/model.md, *What makes it solvable*)."""
        inst = self.instance
        discrete = tuple(
            name
            for name, present in (
                ("keep levels", inst.keep_levels is not None),
                ("adapter options", inst.adapter_options is not None),
                ("selection", inst.exclusion_penalty is not None),
                ("resource blocks", inst.access == "rb"),
                ("sub-carriers", inst.access == "ofdma"),
            )
            if present
        )
        reasons = [f"underfitting term {self.underfit.name!r}: {self.underfit.reason}"]
        if self.pools is not None:
            reasons.append("the stability term is pooled by cluster")
        reasons += [
            f"{name} are discrete" if name != "selection" else "selection is discrete" for name in discrete
        ]
        if self.own_gains:
            reasons.append("rows of adapter menus have gains of their own")
        if not discrete:
            reasons.append(
                "latency, energy and bandwidth are posynomials and the uplink rate is log-concave "
                "(docs/mathematics.md, section 3)"
            )
        return Structure(
            separable=not inst.common_keep,
            monotone=True,
            log_convex=not discrete and self.underfit.log_convex,
            discrete=discrete,
            reasons=tuple(reasons),
        )

    @cached_property
    def free(self) -> tuple[float, FloatArray]:
        """G_free and keep rates, shape [K], that attain it: the minimum with the resource constraints removed."""
        return free_minimum(self.objective)

    @property
    def free_objective(self) -> float:
        """G_free, the minimum of G over the keep ranges with the resource constraints removed."""
        return self.free[0]

    @cached_property
    def size(self) -> float:
        """A positive size of the objective for scales and tolerances: G_free unless that is next to nothing.

        G_free may be 0, as where neither term has a weight, or 1e-300 beside an objective of 1 elsewhere.
        """
        inst = self.instance
        worst = abs(self.objective(inst.keep_min)) if math.isfinite(self.objective(inst.keep_min)) else 1.0
        return max(abs(self.free_objective), 1e-12 * worst) or 1.0

    def evaluate(self, allocation: Allocation) -> Evaluation:
        """Objective, use of every budget, slack, violations and binding budgets of an allocation.

        Parameters
        ----------
        allocation
            What to evaluate; it need not be feasible.

        Returns
        -------
        Evaluation
            Per device in SI units, shape [K]; in double precision (the checker decides exactly).

        Raises
        ------
        InputError
            When an array of the allocation has the wrong shape for this instance, or a menu has no such row.
        """
        use = evaluation.evaluate(self.objective, allocation)
        if not self.constraints:
            return use
        more = broken(self.instance, self.constraints, allocation, use)
        return replace(use, violations=(*use.violations, *more))

    def violations(self, allocation: Allocation) -> tuple[Violation, ...]:
        """Only the broken budgets and ranges of :meth:`evaluate`.

        Parameters
        ----------
        allocation
            What to judge.

        Returns
        -------
        tuple of Violation
            One per device and constraint that is broken; empty for a feasible allocation.

        Raises
        ------
        InputError
            As :meth:`evaluate`.
        """
        if self.constraints:
            return self.evaluate(allocation).violations
        return evaluation.violations(self.instance, allocation)
