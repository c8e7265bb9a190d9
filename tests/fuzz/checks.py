"""What every answer to a tiny cell must be: right by the oracle, accepted by the checker, in time."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgealloc import solve
from edgealloc.certificate.file import AnyCertificate
from edgealloc.certificate.prices import seal
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Diagnosis, Status
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.solution import verify, with_certificate
from tests.fuzz.exact import faults_of, value_of
from tests.fuzz.oracle import Answer, ask
from tests.verify.spoiling import mutate, numbers_of, refused

LIMIT_S = 1.5  # of each method
LATE_S = 1.0  # by which a limit may be missed
GAP = 1e-4
# A bound is computed in doubles: it may be this far above a value of exact arithmetic, relatively.
DIGITS = 1e-12
CURVE_DIGITS = 1e-9
BESIDE = 2e-6  # how closely `required` of a diagnosis is checked
PARTIAL = ("psca", "psca+", "highs")  # some of the regimes' variants they refuse by name
MOST_BLOCKS = 1000  # of a band that is asked about


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind (a column of the report), the method, and what was seen."""

    kind: str
    method: str
    text: str


KINDS = ("wrong bound", "wrong answer", "raised", "rejected", "no certificate", "false proof", "diagnosis", "late",
         "empty")  # fmt: skip


def methods_for(instance: Instance, seed: int | None) -> list[str]:
    """The method that chooses itself, and of the others a sample, the slower the smaller; all without a seed."""
    problem = Problem(instance)
    names = ["auto"] + ["bnb"] * (METHODS["convex"].takes(problem) and (seed or 0) % 2 == 0)
    if seed is None:
        names += ["psca", "psca+", "highs"]
    else:
        names += ["psca"] * (seed % 4 == 1) + ["psca+"] * (seed % 16 == 3) + ["highs"] * (seed % 32 == 7)
    return [name for name in names if name == "auto" or METHODS[name].takes(problem) or name not in PARTIAL]


def examine(instance: Instance, seed: int | None) -> tuple[list[Finding], Counter[str]]:
    """Findings about methods, and how often each ended how; the seed decides what is sampled.

    Proofs every other seed; without a seed nothing is left out.
    """
    answer = ask(instance)
    found, ended = [], Counter[str]()
    for method in methods_for(instance, seed):
        before = time.process_time()
        try:
            result = solve(instance, method, rel_gap=GAP, time_limit=LIMIT_S)
        except Exception as error:  # whatever it is, it is a finding
            found.append(Finding("raised", method, f"{type(error).__name__}: {error}"))
            continue
        used = time.process_time() - before - result.compile_seconds
        ended[f"{method} {result.status.value}"] += 1
        if used > LIMIT_S + LATE_S:
            found.append(Finding("late", method, f"{used:.1f} s of processor time for a limit of {LIMIT_S} s"))
        found += _judged(instance, answer, result, method)
        if seed is None or seed % 2 == 0:
            found += _accepted(instance, result, method)
            found += _proved(instance, answer, result, method, seed)
    return found, ended


def _judged(instance: Instance, answer: Answer, result: Result, method: str) -> Iterator[Finding]:
    if result.status is Status.ERROR:
        yield Finding("raised", method, result.message)
        return
    digits = CURVE_DIGITS if instance.bound.underfit == "curve" else DIGITS
    slack = digits * abs(answer.value) if math.isfinite(answer.value) else 0.0
    if result.lower_bound > answer.value + slack:
        yield Finding("wrong bound", method, f"{result.lower_bound!r} above {answer.value!r}, which is feasible")
    if result.status is Status.INFEASIBLE:
        if answer.point is not None:
            yield Finding("wrong answer", method, f"infeasible, but {answer.value!r} is reached")
        for finding in result.diagnosis:
            yield from _rescued(instance, finding, method)
        return
    if result.allocation is None:
        if "time limit" in result.message:  # a loaded machine has a say in this, so it is no finding
            return
        if instance.exclusion_penalty is not None:
            yield Finding("wrong answer", method, "nothing found, though all may be left out")
        elif (
            method in ("auto", "bnb")
            and answer.point is not None
            and ask(_narrower(instance), bracket=False).point is not None
        ):
            yield Finding("empty", method, f"{result.status.value}, but {answer.value!r} is reached")
        return
    broken = faults_of(instance, result.allocation)
    if broken:
        yield Finding("wrong answer", method, f"breaks, in exact arithmetic: {'; '.join(broken)}")
    exact = value_of(instance, result.allocation)
    most = instance.bound.underfit_curve.value[0] if instance.bound.underfit_curve is not None else 0.0
    rounded = 1e-15 * instance.bound.underfit_weight * float(most)  # where a curve ends at 0
    if not math.isclose(exact, result.objective, rel_tol=1e-9, abs_tol=rounded):
        yield Finding("wrong answer", method, f"objective {result.objective!r}, exactly {exact!r}")
    if not broken and exact < answer.lower - 1e-9 * abs(answer.lower):
        yield Finding("oracle", method, f"{exact!r} is feasible, below the oracle's bound {answer.lower!r}")
    if result.status is Status.OPTIMAL and exact > answer.value + 1.01 * GAP * abs(exact):
        yield Finding("wrong answer", method, f"optimal with {exact!r}, but {answer.value!r} is reached")


def _narrower(instance: Instance) -> Instance:
    """Budgets smaller by more than the margin that exact methods leave for rounding (1e-12)."""
    less = 1.0 - 1e-10
    changes = {name: getattr(instance, name) * less for name in ("latency_s", "energy_j", "power_max_w")}
    return instance.with_changes(**changes)


def _accepted(instance: Instance, result: Result, method: str) -> Iterator[Finding]:
    report = verify(instance, result.solution())
    if not report.ok:
        yield Finding("rejected", method, "; ".join(map(str, report.faults)))


def _rescued(instance: Instance, finding: Diagnosis, method: str) -> Iterator[Finding]:
    """Whether `required` rescues, and a little less does not."""
    if not math.isfinite(finding.required) or finding.budget == "subcarriers":
        return
    names = list(instance.device_names)
    if finding.device is None:
        alone = instance
    else:
        k = names.index(finding.device)
        if instance.common_keep and instance.keep_levels is not None:
            return  # the least rate that all share is the diagnosis' affair
        alone = instance.take([k])
        if instance.common_keep:
            alone = alone.with_changes(keep_min=float(instance.keep_min.max()))
    value = finding.required
    if finding.budget == "bandwidth_hz" and instance.block_hz and value > MOST_BLOCKS * instance.block_hz:
        return  # the oracle lists numbers of blocks one by one
    more, less = (alone.with_changes(**{finding.budget: value * (1.0 + side * BESIDE)}) for side in (1.0, -1.0))
    told = f"{finding.device}: {finding.budget} = {value!r}"
    if ask(more, bracket=False).point is None and math.isinf(ask(more).lower):
        yield Finding("diagnosis", method, f"{told} does not rescue")
    if ask(less, bracket=False).point is not None:
        yield Finding("diagnosis", method, f"{told}, but less does")


def _proved(
    instance: Instance, answer: Answer, result: Result, method: str, seed: int | None
) -> Iterator[Finding]:
    """Whether an exact claim has a proof that the checker accepts, and no proof of more."""
    exact = result.method in ("convex", "bnb")
    if not exact or result.status not in (Status.OPTIMAL, Status.INFEASIBLE):
        return
    try:
        result_proved, certificate = certified(result, GAP)
    except EdgeallocError as error:
        yield Finding("no certificate", method, f"{result.status.value}: {error}")
        return
    except Exception as error:
        yield Finding("raised", method, f"writing the certificate: {type(error).__name__}: {error}")
        return
    if result_proved.status is not result.status:
        yield Finding("no certificate", method, f"{result.status.value} became {result_proved.status.value}")
    elif (
        seed is None or seed % 4 == 0
    ):  # what has written the certificate has checked it too; here the whole way of the files
        solution = result_proved.solution()
        report = with_certificate(verify(instance, solution), instance, solution, certificate)
        if not report.ok:
            yield Finding("rejected", method, "with its certificate: " + "; ".join(map(str, report.faults)))
    if answer.point is not None and (seed is None or seed % 4 == 2):
        yield from _forged(instance, answer, certificate, method, seed or 0)


def _forged(
    instance: Instance, answer: Answer, certificate: AnyCertificate, method: str, seed: int
) -> Iterator[Finding]:
    """A claim above a feasible value must be refused: with the proof as it is, numbers changed, or a node lost."""
    rng = np.random.default_rng(seed)
    kind = ("as it is", "changed", "shortened")[int(rng.integers(3))]
    above = answer.value + max(1e-6 * abs(answer.value), 1e-300)
    data = certificate.to_file()
    data["lower_bound"] = above
    if kind == "shortened" and len(data.get("nodes", ())) > 2:
        data["nodes"].pop()
    if kind == "changed" and numbers_of({key: data.get(key, {}) for key in ("pieces", "nodes")}):
        mutate(data, rng, most=3)
    data["sha256"] = seal(data)
    if not refused(instance, data):
        yield Finding("false proof", method, f"{kind}: {above!r} proved, but {answer.value!r} is reached")
