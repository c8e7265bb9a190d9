"""The contract of a solution method, as one call: ``print(conformance.run("mine"))``.

Every case is an instance made here, small enough for any solver, and every answer is checked against the problem
model and an exact method of edgealloc: what a status promises, that allocations break no budget, that bounds are
bounds, that limits are kept. A method is judged on the cases that it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec, UnderfitLogistic
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS, find_method
from edgealloc.solvers.base import Options
from edgealloc.solvers.compiling.clock import Clock

__all__ = ["CASES", "Case", "Finding", "Report", "run"]

Solver = Callable[[Problem, Options], Result]

REL_GAP = 1e-4
LATE_S = 3.0  # how late a method may be on a time limit, start-up of an outside solver included


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A problem and what must come out.

    Parameters
    ----------
    name
        Short name.
    make
        Makes the instance.
    expects
        ``optimum``, ``infeasible``, or ``free`` where nothing is scarce.
    time_limit
        Limit in s, None for the limit of the run.
    """

    name: str
    make: Callable[[], Instance]
    expects: str = "optimum"
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of one case: whether it holds, and what was seen."""

    case: str
    check: str
    ok: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings for a method, and the cases that it does not take."""

    method: str
    findings: tuple[Finding, ...]
    not_taken: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every check of every case that was taken holds, and at least one case was taken."""
        return bool(self.findings) and all(finding.ok for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that do not hold."""
        return tuple(finding for finding in self.findings if not finding.ok)

    def __str__(self) -> str:
        cases = len({finding.case for finding in self.findings})
        head = f"{self.method}: {len(self.findings)} checks on {cases} cases, {len(self.failures)} failed"
        head += f"; not taken: {', '.join(self.not_taken)}" if self.not_taken else ""
        return "\n".join([head, *(f"  {f.case}: {f.check}: {f.seen}" for f in self.failures)])


def cell(**changes: Any) -> Instance:
    """Three devices whose spectrum, deadline and energy all matter."""
    fields: dict[str, Any] = {
        "name": "conformance",
        "access": "fdma",
        "bandwidth_hz": 6.0e4,
        "noise_psd_dbm_per_hz": -174.0,
        "latency_s": 15.0,
        "bound": BoundSpec(),
        "samples": np.array([300.0, 800.0, 500.0]),
        "gain": np.array([3e-12, 2e-11, 1e-10]),
        "power_max_w": np.array([0.1, 0.2, 0.05]),
        "energy_j": np.array([4.0, 3.0, 5.0]),
        "energy_static_j": 0.1,
        "payload_fixed_bits": 0.0,
        "payload_lora_bits": 1e7,
        "cycles_fixed": np.array([6e9, 1e10, 1.2e10]),
        "cycles_lora": 2e8,
        "freq_min_hz": 3e8,
        "freq_max_hz": 2e9,
        "capacitance": 1e-28,
        "downlink_bps": math.inf,
        "keep_min": 0.02,
        "keep_max": 1.0,
    }
    return Instance(**(fields | changes))


def ofdma(**changes: Any) -> Instance:
    """Two devices on six sub-carriers with very different gains."""
    rng = np.random.default_rng(5)
    gain = np.array([[4e-12], [3e-11]]) * rng.exponential(size=(2, 6))
    pair: dict[str, Any] = {key: getattr(cell(), key)[:2] for key in UNEQUAL if key != "gain"}
    return cell(**(pair | {"access": "ofdma", "gain": gain} | changes))


UNEQUAL = ("samples", "gain", "power_max_w", "energy_j", "cycles_fixed")  # the fields in which devices differ
LEVELS = (np.array([0.02, 0.1, 0.2, 0.4, 0.7, 1.0]),)
TERMS = (UnderfitLogistic(0.2, 3.0), None, UnderfitLogistic(0.4, 6.0))
FETCH = tuple(AdapterOption(f"m={m}", 1e7, 2e8, 0.6 ** (m - 1), 1.2e7 * (m - 1), 3e8 * (m - 1)) for m in (1, 2, 3))
MENU = (AdapterOption("r=4", 5e6, 1e8, 1.6), AdapterOption("r=8", 1e7, 2e8, 1.0))
NEAR_OR_FAR = (AdapterOption("m=1", 1e7, 2e8, 1.4, gain=3e-10), AdapterOption("m=2", 1e7, 2e8, 1.0, gain=2e-12))


def _scaled() -> Instance:
    """The plain cell with bits, Hz and gains a million times larger: the same problem in other units."""
    base, f = cell(), 1e6
    return cell(
        bandwidth_hz=f * base.bandwidth_hz, payload_lora_bits=f * base.payload_lora_bits, gain=f * base.gain
    )


def _dead_carrier() -> Instance:
    gain = ofdma().gain.copy()
    gain[:, 2] = 0.0
    gain[0, 4] = 0.0
    return ofdma(gain=gain)


def _clustered_carriers() -> Instance:
    gain = np.concatenate([ofdma().gain, ofdma().gain[::-1, ::-1][:1]])
    bound = BoundSpec(pooling="cluster")
    return cell(access="ofdma", gain=gain, bound=bound, clusters=(0, 1, 0), keep_min=0.002)


def _logistic(half: float, steepness: float, **changes: Any) -> BoundSpec:
    term = UnderfitLogistic(half, steepness)
    return BoundSpec(underfit="logistic", underfit_weight=0.3, underfit_logistic=term, **changes)


CASES: tuple[Case, ...] = (
    Case("plain", cell),
    Case("device pooling", lambda: cell(bound=BoundSpec(pooling="device"))),
    Case("head and downlink", lambda: cell(payload_fixed_bits=2e5, downlink_bps=5e6)),
    Case("ample", lambda: cell(bandwidth_hz=1e9, energy_j=60.0, power_max_w=10.0, freq_max_hz=1e10), "free"),
    Case("one device", lambda: cell().take([1]).with_changes(bandwidth_hz=2e4)),
    Case("equal devices", lambda: cell(**{key: np.full(3, getattr(cell(), key)[1]) for key in UNEQUAL})),
    Case("scaled by 1e6", _scaled),
    Case("no compute that depends on the keep rate", lambda: cell(cycles_lora=0.0)),
    Case("deadline too short", lambda: cell(latency_s=5.5), "infeasible"),
    Case("spectrum too small", lambda: cell(bandwidth_hz=300.0), "infeasible"),
    Case("device without a channel", lambda: cell(gain=np.array([3e-12, 0.0, 1e-10])), "infeasible"),
    Case("a limit of no time", cell, "anything", 0.001),
    Case("common rate", lambda: cell(common_keep=True)),
    Case("perturbation", lambda: cell(bound=BoundSpec(underfit="perturbation", underfit_weight=0.3))),
    Case("logistic", lambda: cell(bound=_logistic(0.2, 3.0))),
    Case("logistic, device pooling", lambda: cell(bound=_logistic(0.3, 6.0, pooling="device"))),
    Case("logistic on sub-carriers", lambda: ofdma(bound=_logistic(0.2, 3.0))),
    Case("terms of single devices", lambda: cell(device_underfit=TERMS)),
    Case("terms of single devices on sub-carriers", lambda: ofdma(device_underfit=TERMS[:2])),
    Case("keep levels", lambda: cell(keep_levels=LEVELS * 3)),
    Case("adapter menu", lambda: cell(adapter_options=(MENU, None, MENU))),
    Case("experts to fetch", lambda: cell(adapter_options=(FETCH,) * 3, downlink_bps=5e6)),
    Case("experts to fetch on sub-carriers", lambda: ofdma(adapter_options=(FETCH,) * 2, downlink_bps=5e6)),
    Case("menu rows with gains of their own", lambda: cell(adapter_options=(NEAR_OR_FAR, None, NEAR_OR_FAR))),
    Case("selection", lambda: cell(exclusion_penalty=3.0, bandwidth_hz=2e4)),
    Case(
        "selection of a device without a channel",
        lambda: cell(exclusion_penalty=3.0, gain=np.array([3e-12, 0.0, 1e-10])),
    ),
    Case("resource blocks", lambda: cell(access="rb", block_hz=5e3)),
    Case("clusters", lambda: cell(bound=BoundSpec(pooling="cluster"), clusters=(0, 1, 0))),
    Case(
        "clusters of blocks, with a menu and selection",
        lambda: cell(
            bound=BoundSpec(underfit="perturbation", underfit_weight=0.3, pooling="cluster"),
            clusters=(0, 0, 1),
            access="rb",
            block_hz=5e3,
            adapter_options=(MENU, None, MENU),
            exclusion_penalty=3.0,
        ),
    ),
    Case("clusters on sub-carriers", _clustered_carriers),
    Case("sub-carriers", ofdma),
    Case("sub-carriers, device pooling", lambda: ofdma(bound=BoundSpec(pooling="device"))),
    Case("sub-carriers without gain", _dead_carrier),
    Case("sub-carriers, spectrum too small", lambda: ofdma(bandwidth_hz=300.0), "infeasible"),
)


def run(
    method: str | Solver,
    takes: Callable[[Problem], bool] | None = None,
    *,
    exact: bool = False,
    proves_infeasible: bool = True,
    time_limit: float = 60.0,
    cases: tuple[Case, ...] = CASES,
) -> Report:
    """Run a method through the contract.

    Parameters
    ----------
    method
        Name of a registered method, or a function ``(problem, options) -> Result`` that is not registered yet.
    takes
        Which problems the function takes; all by default. A registered method says so itself.
    exact
        The method must prove the optimum of every case that it takes.
    proves_infeasible
        The method must say ``infeasible`` where that is so; otherwise ``no_solution`` will do as well.
    time_limit
        Limit in s of each solve.
    cases
        The cases, by default all.
    """
    solver: Solver
    if isinstance(method, str):
        entry = find_method(method)
        name, solver, takes = method, entry.run, entry.takes
    else:
        name, solver = getattr(method, "__name__", "solver"), method
    findings: list[Finding] = []
    skipped: list[str] = []
    for case in cases:
        problem = Problem(case.make())
        if takes is not None and not takes(problem):
            skipped.append(case.name)
            continue
        options = Options(rel_gap=REL_GAP, time_limit=case.time_limit or time_limit)
        clock = Clock()
        try:
            result = solver(problem, options)
        except (InputError, NotImplementedError) as error:
            skipped.append(f"{case.name} ({type(error).__name__})")
            continue
        except Exception as error:  # whatever a method raises is a finding about it
            findings.append(
                Finding(case.name, "solves without raising", False, f"{type(error).__name__}: {error}")
            )
            continue
        seconds = clock.seconds
        for check, ok, seen in _checks(case, problem, result, exact, proves_infeasible):
            findings.append(Finding(case.name, check, bool(ok), seen))
        limit = options.time_limit or math.inf
        findings.append(Finding(case.name, "keeps the time limit", seconds <= limit + LATE_S, f"{seconds:.2f} s"))
    return Report(name, tuple(findings), tuple(skipped))


def _checks(
    case: Case, problem: Problem, result: Result, exact: bool, proves_infeasible: bool
) -> Iterator[tuple[str, bool, str]]:
    """What the answer to a case must satisfy: the check, whether it holds, what was seen."""
    status, allocation = result.status, result.allocation
    seen = f"{status.value}: {result.message}"
    yield "returns a status", isinstance(status, Status), seen
    yield "an allocation stands where the status says so", (allocation is not None) == status.has_allocation, seen
    yield "numbers are numbers", not (math.isnan(result.objective) or math.isnan(result.lower_bound)), seen
    yield "no error", status is not Status.ERROR, seen
    yield (
        "states G_free",
        math.isclose(result.free_objective, problem.free_objective, rel_tol=1e-12),
        f"{result.free_objective!r}, not {problem.free_objective!r}",
    )
    if case.expects == "infeasible":
        allowed = {Status.INFEASIBLE} if proves_infeasible else {Status.INFEASIBLE, Status.NO_SOLUTION}
        yield "says that there is no solution", status in allowed, seen
        yield "infeasible comes with a diagnosis", status is not Status.INFEASIBLE or bool(result.diagnosis), seen
        return
    yield "does not call it infeasible", status is not Status.INFEASIBLE, seen
    if allocation is not None:
        use = problem.evaluate(allocation)
        yield "breaks no budget", use.feasible, "; ".join(map(str, use.violations))
        value = f"{result.objective!r}, evaluates to {use.objective!r}"
        yield (
            "the objective is that of the allocation",
            math.isclose(result.objective, use.objective, rel_tol=1e-12),
            value,
        )
        bounds = f"bound {result.lower_bound!r}, objective {result.objective!r}"
        yield "the bound is below the objective", result.lower_bound <= result.objective * (1 + 1e-12), bounds
        closed = status is not Status.OPTIMAL or result.rel_gap <= REL_GAP
        yield "optimal means a closed gap", closed, bounds
    if case.expects == "anything":
        return
    low, high = reference(case.name)
    span = f"bound {result.lower_bound!r}, objective {result.objective!r}, optimum in [{low!r}, {high!r}]"
    yield "the bound is below the optimum", result.lower_bound <= high * (1 + 1e-12), span
    yield "the objective is not below the optimum", result.objective >= low * (1 - 1e-12), span
    if exact:
        yield "proves the optimum", status is Status.OPTIMAL, seen
    if case.expects == "free" and allocation is not None:
        near = result.objective <= problem.free_objective * (1 + 2 * REL_GAP)
        yield "attains G_free where nothing is scarce", near, span


@cache
def reference(name: str) -> tuple[float, float]:
    """Proven interval of a case's optimum, from the exact methods of edgealloc; all reals if none takes it."""
    problem = Problem(next(case for case in CASES if case.name == name).make())
    if not any(method.chosen and method.takes(problem) for method in METHODS.values()):
        return -math.inf, math.inf
    result = solve(problem, rel_gap=1e-7, time_limit=60.0)
    return result.lower_bound, result.objective
