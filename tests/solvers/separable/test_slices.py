"""Caps on groups of devices in FDMA and blocks: against brute force and against HiGHS, for any mix of variants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import edgealloc
from edgealloc import ParticipationCap, Problem, SpectrumCap
from edgealloc.data.constraints import HAIR, Constraint
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.formulation.result import Result
from edgealloc.verify.solution import verify
from tests.solvers.separable.test_brute_force import Brute, Choice, random_instance

GAP = 1e-5


class CappedBrute(Brute):
    """Brute force over what meets the caps."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.caps = problem.constraints

    def _best_of(self, lists: list[list[Choice]]) -> tuple[float, list[Choice]]:
        if any(not own for own in lists):
            return math.inf, []
        weights = [row.weights(self.inst) for row in self.caps]
        total = np.zeros((3 + len(self.caps), 1))
        for k, own in enumerate(lists):
            table = np.array([choice[2:] for choice in own]).T
            uses = [
                w[k] * (table[0] > 0 if isinstance(row, ParticipationCap) else table[0])
                for w, row in zip(weights, self.caps, strict=True)
            ]
            table = np.vstack((table, *uses))
            total = (total[:, :, None] + table[:, None, :]).reshape(len(table), -1)
        gap = self.problem.stability.value(np.minimum(total[2], 1.0)) if self.problem.pooled else 0.0
        limit = self.inst.bandwidth_hz
        if self.inst.block_hz:
            limit = self.inst.block_hz * (math.floor(limit / self.inst.block_hz * (1 + 1e-13)) + 0.5)
        fits = total[0] <= limit
        for row, used in zip(self.caps, total[3:], strict=True):
            fits &= used <= row.limit * (1 + (1e-10 if self.inst.block_hz else 0.0)) + 0.0
        value = np.where(fits, total[1] + gap, np.inf)
        at = int(np.argmin(value))
        index = np.unravel_index(at, [len(own) for own in lists])
        return float(value[at]), [own[int(i)] for own, i in zip(lists, index, strict=True)]


def random_rows(rng: np.random.Generator, instance: Instance) -> list[Constraint]:
    """One to three caps, disjoint, nested or crossing, with and without coefficients."""
    k, rows = instance.num_devices, list[Constraint]()
    for _ in range(int(rng.integers(1, 4))):
        some = rng.choice(k, int(rng.integers(1, k + 1)), replace=False).tolist()
        weights = {d: float(rng.choice([1.0, 1.0, rng.uniform(0.2, 3.0)])) for d in some}
        share = float(np.exp(rng.uniform(np.log(0.02), 0.0)))
        devices = weights if rng.random() < 0.5 else some
        if instance.exclusion_penalty is not None and rng.random() < 0.3:
            rows.append(ParticipationCap(float(rng.integers(0, k + 1)), some))
        elif instance.block_hz and rng.random() < 0.7:
            count = math.ceil(share * instance.bandwidth_hz / instance.block_hz)
            rows.append(SpectrumCap(count * instance.block_hz, some))
        else:
            rows.append(SpectrumCap(share * instance.bandwidth_hz, devices))
    return rows


def meets(problem: Problem, result: Result, best: float, rel_gap: float = GAP) -> None:
    """Bound and allocation agree with a value found, and the checker accepts them."""
    slack = 1e-9 * abs(best) if math.isfinite(best) else 0.0
    assert result.status in (Status.OPTIMAL, Status.INFEASIBLE), f"{result!r} {result.message}"
    assert result.lower_bound <= best + slack, f"bound {result.lower_bound} above a feasible point {best}"
    report = verify(problem.instance, result.solution(), rel_gap=rel_gap)
    assert report.ok, str(report)
    if result.status is Status.INFEASIBLE:
        assert math.isinf(best)
        return
    assert result.rel_gap <= rel_gap
    assert result.objective <= best * (1 + rel_gap) + slack


def check(seed: int) -> Status:
    rng = np.random.default_rng([41, seed])
    instance = random_instance(seed, common=seed % 5 == 4)
    problem = Problem(instance, constraints=random_rows(rng, instance))
    result = edgealloc.solve(problem, "bnb", rel_gap=GAP, time_limit=300)
    meets(problem, result, CappedBrute(problem).best(points=21))
    return result.status


@pytest.mark.parametrize("batch", range(3))
def test_caps_agree_with_brute_force(batch: int) -> None:
    ends = [check(seed) for seed in range(15 * batch, 15 * batch + 15)]
    assert ends.count(Status.OPTIMAL) >= 7
