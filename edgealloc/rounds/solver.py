"""Rounds that follow each other: every round is solved from where the last one ended, within a time budget.

Whatever the budget, a result carries an allocation that breaks no budget of the instance if one was found, and the
best lower bound that was proved meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status, relative_gap
from edgealloc.data.plausible import warn
from edgealloc.errors import Fault, InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS, choose, find_method
from edgealloc.rounds.carried import carried
from edgealloc.rounds.ranges import RANGES
from edgealloc.rounds.system import DeviceState, System
from edgealloc.solvers.base import Options
from edgealloc.solvers.compiling.clock import Clock
from edgealloc.units import LN2, dbm_to_w

__all__ = ["RoundSolver", "made_up_states"]

_PSCA_SHARE = 0.8  # of the time budget at most, before the exact method takes over; its bound is soon a good one
_FIRST_RESERVE = 0.1  # of the time budget, before anything was learned
_LEAST_LIMIT_S = 1e-4  # a method must be told some time
_MOST_RESERVED = 0.5  # of the time budget


@dataclass(slots=True)
class RoundSolver:
    """Solves one instance after the other; keeps the last allocation and how late solvers come home.

    Parameters
    ----------
    method
        ``auto`` or a name from :data:`edgealloc.METHODS`. On OFDMA ``psca`` is the brisk P-SCA of
        :mod:`edgealloc.solvers.psca.online` with its certified gap; with a time budget ``auto`` runs that first
        and spends what is left on the exact method.
    time_budget_s
        Wall-clock time that a round may take, in s; None for no limit.
    rel_gap, seed
        As for :func:`edgealloc.solve`.
    """

    method: str = "auto"
    time_budget_s: float | None = None
    rel_gap: float = 1e-4
    seed: int = 0
    _last: tuple[Instance, Allocation] | None = field(default=None, init=False, repr=False)
    _reserve_s: float = field(default=0.0, init=False, repr=False)
    _warned: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        budget = self.time_budget_s
        if budget is not None and not (math.isfinite(budget) and budget > 0.0):
            allowed = "a finite number of seconds > 0, or None"
            raise InputError("options", [Fault("options", "time_budget_s", repr(budget), allowed)])
        if self.method != "auto":
            find_method(self.method)
        Options(rel_gap=self.rel_gap)  # checks it
        self._reserve_s = _FIRST_RESERVE * (budget or 0.0)

    def solve(self, instance: Instance, within_s: float | None = None) -> Result:
        """Solve a round.

        Parameters
        ----------
        instance
            The round. The last one's allocation is where the method starts, for the devices that are still there.
        within_s
            Wall-clock time in s that is left of the round, where that may be less than the time budget.

        Returns
        -------
        Result
            ``lower_bound`` is that of the resource-free minimum where the method proves none. Limits and
            infeasibility do not raise.

        Raises
        ------
        EdgeallocError
            When the method does not take the problem.
        """
        clock = Clock()
        problem = Problem(instance)
        start = None if self._last is None else carried(*self._last, instance)
        if not self._warned:  # later rounds look the same, those that find nothing too
            self._warned = True
            warn(instance)
        limit = within_s
        if self.time_budget_s is not None:
            limit = min(self.time_budget_s, math.inf if within_s is None else within_s) - self._reserve_s
        result: Result | None = None
        for name, share in self._stages(problem):
            left = None if limit is None else limit - clock.seconds
            if result is not None and (
                (left is not None and left < _LEAST_LIMIT_S) or _closed(result, self.rel_gap)
            ):
                break
            given = None if left is None else max(share * left, _LEAST_LIMIT_S)
            options = Options(self.rel_gap, given, self.seed, start)
            result = _merged(result, _run(name, problem, options), self.rel_gap)
            if result.status is Status.INFEASIBLE:
                break
            start = result.allocation or start
        assert result is not None
        if result.status is Status.NO_SOLUTION and start is not None:
            result = _fallback(result, start)
        if result.lower_bound == -math.inf and problem.underfit.square_convex:
            floor = problem.free_objective - 1e-9 * abs(problem.free_objective)
            result = replace(result, lower_bound=min(floor, result.objective))
        if result.allocation is not None:
            self._last = (instance, result.allocation)
        seconds = clock.seconds
        self._learn(seconds, limit)
        return replace(result, seconds=seconds, compile_seconds=clock.compile_seconds)

    def _stages(self, problem: Problem) -> list[tuple[str, float]]:
        """Methods to run one after the other, each with its share of the time that is left."""
        if self.method != "auto":
            return [(self.method, 1.0)]
        exact = next((m.name for m in METHODS.values() if m.chosen and m.takes(problem)), None)
        if exact is None:
            return [("psca", 1.0)]
        if problem.instance.access == "ofdma" and self.time_budget_s is not None:
            return [("psca", _PSCA_SHARE), (exact, 1.0)]
        return [(exact, 1.0)]

    def _learn(self, seconds: float, limit: float | None) -> None:
        """Keep back what solvers took beyond the limit they were given, so that the budget holds next time."""
        if limit is None or self.time_budget_s is None:
            return
        late = max(seconds - limit, 0.0)
        self._reserve_s = min(max(0.9 * self._reserve_s, 1.1 * late), _MOST_RESERVED * self.time_budget_s)


def _run(name: str, problem: Problem, options: Options) -> Result:
    if name == "psca" and problem.instance.access == "ofdma":
        from edgealloc.solvers.compiling.warmup import prepare
        from edgealloc.solvers.psca.online import solve_online_psca  # its kernels load only when they are needed

        prepare("online ofdma")
        return solve_online_psca(problem, options)
    return choose("psca:bound" if name == "psca" else name, problem).run(problem, options)


def _closed(result: Result, rel_gap: float) -> bool:
    return result.allocation is not None and result.rel_gap <= rel_gap


def _merged(first: Result | None, second: Result, rel_gap: float) -> Result:
    """The better allocation with the better bound."""
    if first is None or second.status is Status.INFEASIBLE:
        return second
    bound = max(first.lower_bound, second.lower_bound)
    best = second if second.objective <= first.objective else first
    if best.allocation is None:
        return replace(second, lower_bound=bound)
    closed = relative_gap(best.objective, bound) <= rel_gap
    return replace(
        best,
        method=second.method,
        status=Status.OPTIMAL if closed else Status.FEASIBLE,
        lower_bound=min(bound, best.objective),
        message="" if closed else second.message,
        nodes=second.nodes,
        iterations=first.iterations + second.iterations,
    )


def _fallback(result: Result, start: Allocation) -> Result:
    """Time ran out before the method had an allocation: what the last round's spectrum still carries."""
    from edgealloc.solvers.psca.rounds import on_spectrum  # its kernels load only when they are needed

    allocation = on_spectrum(result.problem, start)
    if allocation is None or result.problem.violations(allocation):
        return result
    return replace(
        result,
        status=Status.FEASIBLE,
        allocation=allocation,
        objective=result.problem.evaluate(allocation).objective,
        message=f"{result.message}; the spectrum of the last round is kept",
    )


def made_up_states(
    system: System, rng: np.random.Generator, strength: float, devices: int = 5, subcarriers: int = 16
) -> dict[str, DeviceState]:
    """States of nobody, to try a system on: spectrum is scarce at ``strength`` 1, channels stronger with it."""
    cycles = system.cycles_fixed or 1e9
    power, band = 0.1, system.bandwidth_hz / devices
    noise = float(dbm_to_w(system.noise_psd_dbm_per_hz))
    low, high = 0.05, 1.0
    curve = system.bound.underfit_curve
    if curve is not None:
        low, high = max(low, float(curve.keep[0])), min(high, float(curve.keep[-1]))
    if system.keep_levels:
        low, high = min(low, *system.keep_levels), max(system.keep_levels)
    scarce = math.sqrt(low * max(low, min(high, 0.3)))  # keep rate that the channel is made to carry
    rate = (system.payload_fixed_bits + system.payload_lora_bits * scarce) / (0.5 * system.latency_s)
    gain = math.expm1(LN2 * min(rate / band, 15.0)) * noise * band / power * strength
    freq_hz = max(cycles, 1.0) / (0.5 * system.latency_s)
    energy_j = 1.7 * 1e-28 * freq_hz**2 * cycles + 0.5 * power * system.latency_s  # binds now and then
    spread = np.minimum(rng.exponential(gain, (devices, subcarriers)) + 0.1 * gain, RANGES["gain"].most)
    return {
        f"made-up-{k}": DeviceState(
            gain=spread[k] if system.access == "ofdma" else float(spread[k, 0]),
            samples=100.0 * (k + 1),
            energy_j=min(energy_j, RANGES["energy_j"].most),
            power_max_w=power,
            freq_min_hz=0.1 * freq_hz,
            freq_max_hz=min(max(2e9, 4.0 * freq_hz), RANGES["freq_max_hz"].most),
            capacitance=1e-28,
            cycles_fixed=cycles,
            cycles_lora=system.cycles_lora or 0.0,
            keep_min=low,
            keep_max=high,
        )
        for k in range(devices)
    }
