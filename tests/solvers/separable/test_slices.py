"""Caps on groups of devices in FDMA and blocks: against brute force and against HiGHS, for any mix of variants."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest

import edgealloc
from edgealloc import EnergyCap, KeepFloor, ParticipationCap, PowerCap, Problem, SpectrumCap
from edgealloc.certificate.file import AnyCertificate, certificate_from_dict
from edgealloc.certificate.prices import Certificate
from edgealloc.data.constraints import Constraint
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.formulation.result import Result
from edgealloc.scenario import CellOptions, make_cell
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.verdict import Budget, TooMuchWork
from edgealloc.verify.report import Report
from edgealloc.verify.solution import verify, with_certificate
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


@pytest.mark.parametrize("batch", [0, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (1, 2))])
def test_caps_agree_with_brute_force(batch: int) -> None:
    ends = [check(seed) for seed in range(15 * batch, 15 * batch + 15)]
    assert ends.count(Status.OPTIMAL) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_caps_agree_with_brute_force_at_length(batch: int) -> None:
    for seed in range(1000 + 15 * batch, 1015 + 15 * batch):
        check(seed)


def cell(seed: int, **more: object) -> Instance:
    options = CellOptions(devices=5, bandwidth_hz=1e5, **more)  # type: ignore[arg-type]
    return make_cell(options, np.random.default_rng(seed)).instance


SLICES = (SpectrumCap(12e3, [0, 1], "A"), SpectrumCap(25e3, {2: 1.0, 3: 2.0}, "B"), SpectrumCap(24e3, [0, 1, 2]))


@pytest.mark.parametrize(
    ("changes", "common"),
    [({}, False), ({"pooling": "device"}, False), ({}, True)],
    ids=["pooled", "per device", "common rate"],
)
def test_convex_and_bnb_and_highs_agree_on_slices(changes: dict[str, str], common: bool) -> None:
    instance = cell(1, **changes).with_changes(common_keep=common)
    free = edgealloc.solve(instance, rel_gap=1e-9)
    sharp = edgealloc.solve(instance, constraints=SLICES, rel_gap=1e-9)
    assert (sharp.method, sharp.status) == ("convex", Status.OPTIMAL)
    assert sharp.objective > free.objective * (1 + 1e-4)  # they cost something
    if not common:
        assert sharp.prices["A"] > 0.0
    for method in ("bnb", "highs"):
        rough = edgealloc.solve(instance, method, constraints=SLICES, rel_gap=1e-5)
        assert rough.lower_bound <= sharp.objective * (1 + 1e-12)
        assert sharp.objective * (1 - 1e-9) <= rough.objective <= sharp.objective * (1 + 1.1e-5)
    assert verify(instance, sharp.solution(), constraints=SLICES, rel_gap=1e-9).ok


def test_slices_that_nothing_fits_into_are_named() -> None:
    instance = cell(1)
    for method in ("convex", "bnb", "highs"):
        result = edgealloc.solve(instance, method, constraints=[SpectrumCap(100.0, [0, 1], "A")])
        assert result.status is Status.INFEASIBLE, result.message
        assert result.diagnosis[0].budget == "constraints"
        assert "'A'" in result.message
    blocks = instance.with_changes(access="rb", block_hz=5e3)
    assert edgealloc.solve(blocks, constraints=[SpectrumCap(5e3, [0, 1])]).status is Status.INFEASIBLE
    assert edgealloc.solve(blocks, constraints=[SpectrumCap(2.0 * 5e3, [0, 1])]).status is Status.OPTIMAL


def test_a_slice_that_binds_nowhere_changes_nothing() -> None:
    for instance in (cell(2), cell(2).with_changes(exclusion_penalty=2.0)):
        free = edgealloc.solve(instance)
        loose = edgealloc.solve(instance, constraints=[SpectrumCap(1e5, [0, 1, 2]), ParticipationCap(5)])
        assert loose.method == free.method
        assert (loose.objective, loose.nodes, loose.iterations) == (free.objective, free.nodes, free.iterations)


def proved(problem: Problem, rel_gap: float = 1e-6) -> tuple[Result, AnyCertificate]:
    """A result with its certificate, as files hold it, which the checker accepts."""
    result, certificate = certified(edgealloc.solve(problem, rel_gap=rel_gap), rel_gap)
    certificate = certificate_from_dict(json.loads(json.dumps(certificate.to_file())))
    assert judged(result, certificate, rel_gap).ok, str(judged(result, certificate, rel_gap))
    return result, certificate


def judged(result: Result, certificate: AnyCertificate, rel_gap: float = 1e-6) -> Report:
    instance, solution = result.problem.instance, result.solution()
    return with_certificate(verify(instance, solution, rel_gap=rel_gap), instance, solution, certificate)


PROBLEMS = {
    "convex": (cell(1), SLICES),
    "common rate": (cell(1).with_changes(common_keep=True), SLICES),
    "selection": (
        cell(3).with_changes(exclusion_penalty=1.5),
        (*SLICES, ParticipationCap(4), KeepFloor(0.65, [1])),
    ),
    "blocks": (cell(4).with_changes(access="rb", block_hz=4e3), (SpectrumCap(6 * 4e3, [0, 1, 2], "A"),)),
    "budgets": (cell(1), (KeepFloor(0.7, [0]), PowerCap(0.05, [2]), EnergyCap(2.5, {3: 2.0}))),
    "infeasible": (cell(1), (SpectrumCap(100.0, [0, 1], "A"),)),
}


@pytest.mark.parametrize("kind", PROBLEMS)
def test_bounds_under_constraints_are_proved_from_files(kind: str) -> None:
    instance, rows = PROBLEMS[kind]
    result, certificate = proved(Problem(instance, constraints=rows))
    assert result.status is (Status.INFEASIBLE if kind == "infeasible" else Status.OPTIMAL)
    alone = edgealloc.solve(instance, rel_gap=1e-6)
    assert result.lower_bound > alone.objective  # so that the constraints are needed for the proof
    bare = replace(certificate, constraints=())
    assert not judged(result, bare).ok
    strip = replace(result, problem=Problem(instance), proof=None)  # the claim without its constraints
    found = judged(strip, certificate)
    assert any(fault.field == "constraints" for fault in found.faults), str(found)


@pytest.mark.parametrize("batch", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_certificates_under_random_caps_hold(batch: int) -> None:
    for seed in range(8 * batch, 8 * batch + 8):
        rng = np.random.default_rng([41, seed])
        instance = random_instance(seed, common=seed % 5 == 4)
        proved(Problem(instance, constraints=random_rows(rng, instance)), 1e-4)


def _with_node(certificate: Certificate, **changes: object) -> Certificate:
    nodes = [replace(node, **changes) if node.priced else node for node in certificate.nodes]  # type: ignore[arg-type]
    return replace(certificate, nodes=tuple(nodes))


def test_forged_proofs_of_slices_are_refused() -> None:
    result, honest = proved(Problem(cell(1), constraints=SLICES))
    assert isinstance(honest, Certificate)
    prices = honest.nodes[0].cap_prices
    assert max(prices) > 0.0
    narrow = (SpectrumCap(10e3, ("dev-0000", "dev-0001"), "A"), *honest.constraints[1:])
    lies = {
        "a price below zero": _with_node(honest, cap_prices=(-prices[0], *prices[1:])),
        "no price": _with_node(honest, cap_prices=()),
        "a price too few": _with_node(honest, cap_prices=prices[:-1]),
        "prices of other caps": _with_node(honest, cap_prices=(*prices[1:], prices[0])),
        "a price twice as high": _with_node(honest, cap_prices=(2.0 * prices[0], *prices[1:])),
        "a narrower slice": replace(honest, constraints=narrow),
        "a slice of others": replace(honest, constraints=(SpectrumCap(12e3, ("dev-0004",)), *narrow[1:])),
        "a floor that nobody asked for": replace(honest, constraints=(*honest.constraints, KeepFloor(0.9))),
        "a hair above": replace(honest, lower_bound=result.objective * (1 + 1e-9)),
        "a device that is none": replace(honest, constraints=(SpectrumCap(12e3, ("nobody",)), *narrow[1:])),
    }
    for name, lie in lies.items():
        assert not judged(result, lie).ok, name
    for name in ("a narrower slice", "a floor that nobody asked for"):  # true of other problems than this one
        assert any(fault.field == "constraints" for fault in judged(result, lies[name]).faults), name


def test_a_proof_under_constraints_is_none_of_the_instance_alone() -> None:
    result, certificate = proved(Problem(cell(1), constraints=SLICES))
    assert not check_certificate(cell(1), certificate, constraints=SLICES).faults  # by index, there by name
    assert {fault.field for fault in check_certificate(cell(1), certificate).faults} == {"constraints"}
    fewer = check_certificate(cell(1), certificate, constraints=result.problem.constraints[1:])
    assert [fault.field for fault in fewer.faults] == ["constraints"]


def test_a_broken_slice_is_refused() -> None:
    result, certificate = proved(Problem(cell(1), constraints=SLICES))
    solution = result.solution()
    wide = solution.bandwidth_hz.copy()
    wide[:2] *= 12e3 * (1.0 + 1e-13) / wide[:2].sum()
    report = verify(result.problem.instance, replace(solution, bandwidth_hz=wide), rel_gap=1e-6)
    assert any(fault.where == "A" for fault in report.faults), str(report)
    assert not with_certificate(report, result.problem.instance, solution, certificate).ok


def test_more_caps_than_anybody_has_are_too_much_work() -> None:
    instance = cell(1)
    rows = tuple(SpectrumCap(1e4 + n, ("dev-0000",)) for n in range(65))
    _result, honest = proved(Problem(instance, constraints=SLICES))
    proof = check_certificate(instance, replace(honest, constraints=rows), constraints=rows)
    assert [fault.field for fault in proof.faults] == ["work"]
    floors = tuple(KeepFloor(1e-9 * n, tuple(instance.device_names)) for n in range(4000))
    started = time.process_time()
    again = replace(honest, constraints=floors)
    assert "work" not in [fault.field for fault in check_certificate(instance, again, constraints=floors).faults]
    assert time.process_time() - started < 3.0  # every one is looked up, not compared with all others
    with pytest.raises(TooMuchWork):
        Budget.of(500_000).constraints(4000, 10_000)
