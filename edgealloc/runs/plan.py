"""What planning a run returns: rounds, deadline, the allocation of a round, and how good that is proven to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgealloc.data.outcome import Diagnosis, Status, relative_gap
from edgealloc.data.run import Goal, RunClaims
from edgealloc.data.solution import finite_or_none
from edgealloc.errors import EdgeallocError, StatusError
from edgealloc.files.run import save_run
from edgealloc.formulation.evaluation import Evaluation
from edgealloc.formulation.result import Result
from edgealloc.runs.asked import Weights
from edgealloc.runs.needed import NeededRun
from edgealloc.runs.search import Excluded, Interval, Solved
from edgealloc.runs.training import TrainingRun
from edgealloc.solvers.base import Options
from edgealloc.units import FloatArray
from edgealloc.verify.solution import OPTIMAL_GAP

if TYPE_CHECKING:
    import pandas as pd

    from edgealloc.certificate.run import RunCertificate

__all__ = ["RunPlan"]

_HAIR = 1e-9  # relative: a proof that costs the gap no more leaves `optimal` what it was


@dataclass(frozen=True, slots=True, eq=False)
class RunPlan:
    """A training run that breaks no budget, and what is proven of all others.

    Parameters
    ----------
    run
        What was planned: a round's instance, the learning curve, the budgets of all rounds together.
    span
        Least and greatest number of rounds that could be chosen.
    method, status
        What solved single rounds; how it ended.
    minimise, target
        ``loss``, ``time``, ``energy`` or ``weighted``; the loss to be reached, or None.
    rounds
        R, how many rounds to train; 0 without a plan.
    result
        The allocation of each round, on an instance with the budgets of one; None without a plan.
    loss
        Predicted loss after R rounds, in nats; of :class:`~edgealloc.runs.NeededRounds` the share of R that is
        needed; ``inf`` without a plan.
    objective, lower_bound
        What is minimised: the loss in nats, the time of all rounds in s, the share of the energy budgets, or the
        weighted sum of these two; and a proven lower bound of it.
    seconds, solves, message
        Wall-clock time in s; how many rounds were solved; remarks.
    diagnosis
        Why not even the shortest run is feasible; empty otherwise.
    pieces
        Intervals of rounds with the solves that prove the bound.
    weights, excluded
        Of a weighted sum: what a second and all of the energy cost; and budgets that are not enough, which prove
        its bound.
    """

    run: TrainingRun
    span: Interval
    method: str
    status: Status
    minimise: Goal
    target: float | None
    rounds: int
    result: Result | None
    loss: float
    objective: float
    lower_bound: float
    seconds: float
    solves: int
    message: str = ""
    diagnosis: tuple[Diagnosis, ...] = ()
    pieces: tuple[Solved, ...] = ()
    weights: Weights | None = None
    excluded: tuple[Excluded, ...] = ()

    @property
    def stop(self) -> bool:
        """Whether a run that has begun ends here: no round more is planned, and ``message`` says why."""
        return self.rounds == 0 and math.isfinite(self.loss)

    @property
    def rel_gap(self) -> float:
        """``(objective - lower_bound) / |objective|``."""
        return relative_gap(self.objective, self.lower_bound)

    @property
    def latency_s(self) -> float:
        """T, the deadline of each round in s; nan without a plan."""
        return math.nan if self.result is None else self.result.problem.instance.latency_s

    @property
    def time_s(self) -> float:
        """What all rounds take together, in s: R times that of the slowest device; nan without a plan."""
        return math.nan if self.result is None else self.rounds * float(self._use().latency_s.max())

    @property
    def energy_j(self) -> FloatArray:
        """What all rounds take of each device, in J. Shape [K]; empty without a plan."""
        return np.zeros(0) if self.result is None else self.rounds * self._use().energy_j

    def _use(self) -> Evaluation:
        assert self.result is not None
        assert self.result.allocation is not None
        return self.result.problem.evaluate(self.result.allocation)

    def raise_for_status(self) -> RunPlan:
        """The plan itself, when there is one.

        Raises
        ------
        StatusError
            Without one; the message holds the status and the remedy.
        """
        if self.result is not None:
            return self
        raise StatusError(f"{self.status.value}: {self.message}")

    def claims(self) -> RunClaims:
        """What this plan claims, as its file states it.

        Raises
        ------
        EdgeallocError
            For runs that files do not describe yet: the rest of one that has begun.
        """
        if self.run.unwritten:
            raise EdgeallocError(f"{self.run.unwritten} has no file yet")
        run, none = self.run, self.result is None
        totals = None
        if run.energy_j is not None:
            totals = dict(zip(run.instance.device_names, run.energy_j.tolist(), strict=True))
        return RunClaims(
            instance_name=run.instance.name,
            method=self.method,
            status=self.status,
            minimise=self.minimise,
            learning=run.stated,
            time_s=run.time_s,
            energy_j=totals,
            caps=run.caps,
            span=(self.span.first, self.span.last),
            target=self.target,
            rounds=None if none else self.rounds,
            latency_s=None if none else float(self.latency_s),
            loss=finite_or_none(self.loss),
            objective=finite_or_none(self.objective),
            lower_bound=finite_or_none(self.lower_bound),
            rel_gap=finite_or_none(self.rel_gap),
            seconds=float(self.seconds),
            solves=self.solves,
            message=self.message,
            round=None if self.result is None else self.result.solution(),
            weights=None if self.weights is None else (float(self.weights.per_s), float(self.weights.per_share)),
        )

    def save(self, path: str | Path) -> Path:
        """Write the plan as an ``edgealloc-runplan/1`` JSON file; it appears whole or not at all.

        Parameters
        ----------
        path
            Where to; an existing file is replaced.

        Returns
        -------
        pathlib.Path
            The path.

        Raises
        ------
        InputError
            When the file cannot be written.
        EdgeallocError
            As :meth:`claims`.
        """
        return save_run(self.claims(), path)

    def to_frame(self) -> pd.DataFrame:
        """One row per device: what :meth:`edgealloc.Result.to_frame` has, and its sums over all rounds.

        ``total_energy_j`` is what all rounds take of it in J, ``total_upload_bits`` what it sends in them.

        Raises
        ------
        MissingPackageError
            Without pandas.
        StatusError
            Without a plan.
        """
        result = self.raise_for_status().result
        assert result is not None
        frame = result.to_frame()
        frame["total_energy_j"] = self.energy_j
        frame["total_upload_bits"] = self.rounds * self._use().payload_bits
        return frame

    def certified(self, time_limit: float | None = 600.0) -> tuple[RunPlan, RunCertificate]:
        """The plan with the certificate of its lower bound, or of its infeasibility.

        Parameters
        ----------
        time_limit
            Wall-clock limit in s of writing it; None for none.

        Returns
        -------
        plan, certificate
            The plan's bound is the one proved, a hair lower where rounding costs the proof a few digits.

        Raises
        ------
        EdgeallocError
            When there is no bound to prove, under constraints that a plan without an allocation does not state,
            when time is up, and for runs that have no certificate yet.
        InputError
            For a limit that is none.
        """
        Options(time_limit=time_limit)  # which says so
        if self.run.unwritten:
            raise EdgeallocError(f"{self.run.unwritten} has a proven bound, but no certificate yet")
        from edgealloc.runs.proof import run_certificate, weighted_certificate  # brings compiled code

        loss, wanted = self.minimise == "loss", self.lower_bound
        if not (self.pieces or self.excluded) or not wanted > -math.inf:
            raise EdgeallocError(
                f"a plan with status {self.status.value} has no lower bound that could be certified"
            )
        if self.weights is not None:
            assert self.target is not None
            least = self.weights, self.target, wanted
            return self._proved(weighted_certificate(self.run, self.span, self.excluded, least, time_limit))
        if not loss:  # no run within the bound's budget reaches the target
            assert self.target is not None
            wanted = math.nextafter(self.target, math.inf)
        certificate = run_certificate(self.run, self.span, self.pieces, wanted, time_limit)
        if not loss and not certificate.lower_bound >= wanted:
            raise EdgeallocError("the proof misses the target by rounding; ask for a slightly larger rel_gap")
        return self._proved(certificate, lowers=loss)

    def _proved(self, certificate: RunCertificate, *, lowers: bool = True) -> tuple[RunPlan, RunCertificate]:
        """The plan with what a certificate proves of it, which may lower its bound.

        Raises
        ------
        EdgeallocError
            As :meth:`certified`.
        """
        pieces = (*certificate.pieces, *(piece for wall in certificate.walls for piece in wall.pieces))
        if self.result is None and any(piece.certificate.constraints for piece in pieces):
            raise EdgeallocError(
                "the proof leans on constraints, which a plan without an allocation does not state; "
                "there is no certificate"
            )
        if not lowers:
            return self, certificate
        if self.lower_bound <= certificate.lower_bound:
            return self, certificate
        if self.status is Status.INFEASIBLE:
            raise EdgeallocError("the infeasibility is too close to be certified")
        plan = replace(self, lower_bound=certificate.lower_bound)
        if plan.status is Status.OPTIMAL and not plan.rel_gap <= max(OPTIMAL_GAP, self.rel_gap * (1.0 + _HAIR)):
            message = f"the certificate proves a gap of {plan.rel_gap:.3g} only"
            plan = replace(plan, status=Status.FEASIBLE, message=message)
        return plan, certificate

    def __repr__(self) -> str:
        head = f"RunPlan: {self.status.value} by {self.method} on {self.run.instance.name!r}"
        if self.stop:
            told = f"predicted loss {self.loss:.6g} nats as it is"
            if isinstance(self.run, NeededRun):
                told = f"{self.loss:.6g} rounds without dropout are needed still"
            return f"{head}\n  {self.message}\n  {told}"
        if self.result is None:
            return f"{head}\n  no plan; {self.message.splitlines()[0] if self.message else ''}"
        keep = (
            self.result.allocation.keep[self.result.allocation.selected] if self.result.allocation else np.zeros(0)
        )
        span = f"{keep.min():.3f} to {keep.max():.3f}" if keep.size else "none selected"
        told = "rounds needed, of these" if isinstance(self.run, NeededRun) else "predicted loss in nats"
        unit = {"loss": "nats", "time": "s", "energy": "of the energy budgets"}.get(self.minimise, "")
        return "\n".join(
            [
                head,
                f"  {self.rounds} rounds of {self.latency_s:.6g} s, {self.time_s:.6g} s in all, keep rates {span}",
                f"  {told}: {self.loss:.6g}",
                f"  {self.minimise} {self.objective:.9g} {unit}, bound {self.lower_bound:.9g}, "
                f"rel_gap {self.rel_gap:.2g}",
                f"  {self.seconds:.3g} s, {self.solves} rounds solved",
            ]
        )
