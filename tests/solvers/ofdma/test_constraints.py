"""Constraints of the user's own on sub-carriers, against enumeration; the checker rejects what breaks them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import edgealloc
from edgealloc import EnergyCap, KeepFloor, ParticipationCap, PowerCap, Problem, SpectrumCap, SubcarrierCap
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.data.constraints import Constraint
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import EdgeallocError
from edgealloc.formulation.radio import subcarrier_hz
from edgealloc.formulation.result import Result
from edgealloc.scenario import CellOptions, make_cell
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.solution import verify, with_certificate
from tests.solvers.ofdma.oracle import brute_force, random_curve, random_ofdma
from tests.solvers.ofdma.solving import REL_GAP

BLOCKS, CELLS = 4, 12


def capped(instance: Instance, most: np.ndarray) -> list[Constraint]:
    """Caps of each device: the first by its bandwidth, the others by number."""
    first = SpectrumCap(float(most[0]) * subcarrier_hz(instance), [0])
    return [first, *(SubcarrierCap(int(n), [k]) for k, n in enumerate(most.tolist()) if k)]


def agrees(problem: Problem, best: float) -> Result:
    """Solve by ``bnb``; bound and allocation agree with the enumerated optimum, and the checker accepts them."""
    result = edgealloc.solve(problem, "bnb", rel_gap=REL_GAP, time_limit=300.0)
    if math.isinf(best):
        assert result.status is Status.INFEASIBLE, str(result)
        assert result.diagnosis
    else:
        assert result.status is Status.OPTIMAL, str(result)
        assert result.lower_bound <= best * (1 + 1e-11)
        assert best * (1 - 1e-11) <= result.objective <= best * (1 + 2 * REL_GAP)
    report = verify(problem.instance, result.solution(), rel_gap=REL_GAP)
    assert report.ok, str(report)
    return result


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("cells", [CELLS // 2, pytest.param(CELLS, marks=pytest.mark.slow)])
def test_caps_and_floors_agree_with_enumeration(block: int, cells: int) -> None:
    proved = 0
    for seed in range(cells if block < 2 else CELLS // 2):
        rng = np.random.default_rng([31, block, seed])
        instance = random_ofdma(rng, common_keep=block == 3)
        if block == 2:
            instance = instance.with_changes(bound=random_curve(rng))
        k, m = instance.gain.shape
        most = rng.integers(1, m + 1, k) if rng.random() < 0.7 else np.full(k, math.ceil(m / k))
        rows = capped(instance, most)
        if rng.random() < 0.4:
            low = [float(x[-1]) if x is not None else 1.0 for x in instance.keep_levels or (None,) * k]
            rows.append(
                KeepFloor(float(rng.uniform(0.05, 0.6) * min(*low, *instance.keep_max)), [int(rng.integers(k))])
            )
        problem = Problem(instance, constraints=rows)
        best = brute_force(problem.tightened, lambda held, most=most: np.all(held <= most, axis=1))  # type: ignore[misc]
        if block == 2 and math.isfinite(best):  # under a curve the oracle is the value of a point
            result = edgealloc.solve(problem, "bnb", rel_gap=REL_GAP, time_limit=300.0)
            assert result.lower_bound <= best * (1 + 1e-9), str(result)
            assert result.objective <= best * (1 + 1e-6), str(result)
            proved += 1
            continue
        proved += math.isfinite(best)
        agrees(problem, best)
    assert proved >= 3


def test_a_cap_that_binds_nowhere_changes_nothing() -> None:
    instance = make_cell(CellOptions(devices=4, access="ofdma", subcarriers=16), np.random.default_rng(1)).instance
    free = edgealloc.solve(instance, rel_gap=REL_GAP)
    loose = edgealloc.solve(instance, rel_gap=REL_GAP, constraints=[SubcarrierCap(10)])
    assert loose.method == "bnb"
    assert loose.objective == free.objective
    assert loose.iterations <= free.iterations + 3
    assert loose.nodes == free.nodes


def test_a_cap_that_is_met_from_three_sides() -> None:
    """bnb, HiGHS and a descent on single devices do not share how they take a cap."""
    instance = random_ofdma(np.random.default_rng([31, 9]), (2, 5), keep_levels=None, exclusion_penalty=None)
    row = SubcarrierCap(2)
    one = edgealloc.solve(instance, "bnb", constraints=[row], rel_gap=1e-5)
    two = edgealloc.solve(instance, "highs", constraints=[row], rel_gap=1e-5)
    assert one.status is two.status
    assert one.objective == pytest.approx(two.objective, rel=2e-5)


def test_no_certificate_speaks_of_a_cap_on_sub_carriers() -> None:
    instance = random_ofdma(np.random.default_rng([31, 9]), (2, 5), keep_levels=None, exclusion_penalty=None)
    result = edgealloc.solve(instance, constraints=[SubcarrierCap(2)])
    with pytest.raises(EdgeallocError, match="cap on sub-carriers"):
        certified(result)


def test_bounds_under_floors_and_budgets_are_proved() -> None:
    """And under a cap on sub-carriers that is none."""
    instance = random_ofdma(np.random.default_rng([31, 9]), (2, 5), keep_levels=None, exclusion_penalty=None)
    free = edgealloc.solve(instance, rel_gap=REL_GAP)
    assert free.allocation is not None
    energy = 0.8 * float(free.problem.evaluate(free.allocation).energy_j[1])
    rows = [KeepFloor(float(free.allocation.keep[0]), [0]), EnergyCap(energy, [1]), SubcarrierCap(5)]
    result, certificate = certified(edgealloc.solve(instance, constraints=rows, rel_gap=REL_GAP), REL_GAP)
    assert result.status is Status.OPTIMAL, result.message
    assert result.lower_bound > free.objective
    certificate = certificate_from_dict(json.loads(json.dumps(certificate.to_file())))
    solution = result.solution()
    report = with_certificate(verify(instance, solution, rel_gap=REL_GAP), instance, solution, certificate)
    assert report.ok, str(report)
    bare = replace(certificate, constraints=())
    assert not with_certificate(verify(instance, solution, rel_gap=REL_GAP), instance, solution, bare).ok
    unstated = replace(solution, constraints=())
    assert not with_certificate(verify(instance, unstated, rel_gap=REL_GAP), instance, unstated, certificate).ok


@pytest.mark.parametrize(
    "row",
    [
        SubcarrierCap(2, ["dev-0000"]),
        KeepFloor(0.9, [1]),
        SpectrumCap(3e3, {"dev-0000": 1.0, "dev-0001": 2.0}, "slice"),
        PowerCap(1e-9, [0, 1]),
        EnergyCap(1e-3),
        ParticipationCap(1),
    ],
    ids=lambda row: type(row).__name__,
)
def test_the_checker_rejects_what_breaks_a_constraint(row: Constraint) -> None:
    """Of the constraint alone: the same solution is accepted for the instance."""
    instance = make_cell(CellOptions(devices=3, access="ofdma", subcarriers=12), np.random.default_rng(2)).instance
    solution = edgealloc.solve(instance, rel_gap=1e-3).solution()
    assert verify(instance, solution, rel_gap=1e-3).ok
    report = verify(instance, solution, constraints=[row], rel_gap=1e-3)
    assert not report.ok
    assert all(type(row).__name__ in fault.allowed for fault in report.faults)
    stated = replace(solution, constraints=Problem(instance, constraints=[row]).constraints)
    assert not verify(instance, stated, rel_gap=1e-3).ok


def test_a_perturbation_bound_under_a_cap_agrees_with_enumeration() -> None:
    for seed in range(6):
        rng = np.random.default_rng([32, seed])
        spec = BoundSpec(underfit="perturbation", underfit_weight=0.5)
        instance = random_ofdma(rng, (3, 5), bound=spec, exclusion_penalty=2.0)
        problem = Problem(instance, constraints=[SubcarrierCap(2)])
        agrees(problem, brute_force(problem, lambda held: np.all(held <= 2, axis=1)))
