"""Proofs written to deceive: each claims what is not true of its instance, and has to be refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.certificate.prices import Certificate, Cut, Node, Pieces, Planes
from edgealloc.certificate.subcarriers import Branch, Part, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.errors import EdgeallocError
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.verdict import Proof
from edgealloc.verify.solution import DOUBT, verify, with_certificate
from edgealloc.verify.subcarriers.sets import open_sets

# -- covers -----------------------------------------------------------------------------------------------------

LOW, HIGH = Cut(None, None, 0.0, 0.22), Cut(None, None, 0.22, 1.0)  # one interval for all devices


def bare_pieces(left: list[float], right: list[float], device: list[int] | None = None) -> Pieces:
    """Pieces without a plane below them: nothing is said of the bandwidth."""
    count = len(left)
    zero, none = np.zeros(count), np.zeros(count, dtype=np.intp)
    rows = np.arange(count) if device is None else np.array(device, dtype=np.intp)
    return Pieces(rows, none, np.array(left), np.array(right), Planes(np.array(left), zero, zero, none, zero))


def bare_part(device: int, low: float, high: float) -> Part:
    """A part with no cuts but that of slope 0."""
    none = np.zeros(0)
    return Part(device, 0, np.array([low, high]), none, none, none)


def apart(make_instance: Any, access: str) -> Instance:
    """Two devices whose ranges of the keep rate have nothing in common; feasible."""
    ranges = {"keep_min": np.array([0.05, 0.25]), "keep_max": np.array([0.2, 1.0])}
    instance: Instance = make_instance(access, devices=2, **ranges)
    assert solve(instance, "bnb", rel_gap=1e-2).status.has_allocation
    return instance


def test_one_interval_for_all_covers_nothing_where_rates_are_apart(make_instance: Any) -> None:
    """Whoever puts both devices below 0.22, or both above, has an empty box: nothing fits, they say."""
    instance = apart(make_instance, "fdma")
    pieces = bare_pieces([0.05, 0.25], [0.2, 1.0])
    forged = Certificate(instance.name, "prices", np.inf, pieces, (Node(), Node(0, LOW), Node(0, HIGH)))
    assert [fault.field for fault in check_certificate(instance, forged).faults] == ["nodes[0]"]


def test_the_same_on_subcarriers(make_instance: Any) -> None:
    instance = apart(make_instance, "ofdma")
    carriers = instance.gain.shape[1]

    def leaf(cut: Cut, kept: int) -> Branch:
        least = np.array([-0.1 if k == kept else 1.0 for k in range(2)])
        ends = (0.05, 0.2) if kept == 0 else (0.25, 1.0)
        return Branch(0, cut, np.zeros(carriers), 0.0, least, (bare_part(kept, *ends),))

    forged = SubcarrierCertificate(instance.name, np.inf, (Branch(), leaf(LOW, 0), leaf(HIGH, 1)))
    assert [fault.field for fault in check_certificate(instance, forged).faults] == ["nodes[0]"]


def test_a_bound_above_a_feasible_value_needs_the_hole(make_instance: Any) -> None:
    """A finite claim by the same tree: the pieces of both devices are cut at 0.3, and none lies on both sides."""
    instance = make_instance(devices=2)
    best = solve(instance, "convex", rel_gap=1e-9)
    middle = 0.5 * float(best.allocation.keep.min() + best.allocation.keep.max())
    cuts = Cut(None, None, 0.0, middle), Cut(None, None, middle, 1.0)
    pieces = bare_pieces([0.05, middle, 0.05, middle], [middle, 1.0, middle, 1.0], [0, 0, 1, 1])
    nodes = (Node(), *(Node(0, cut, 0.0, 0.5) for cut in cuts))
    forged = Certificate(instance.name, "prices", 0.0, pieces, nodes)
    assert [fault.field for fault in check_certificate(instance, forged).faults] == ["nodes[0]"]


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_one_interval_for_all_is_a_cover_where_the_rate_is_common(make_instance: Any, access: str) -> None:
    """The rule is there for a reason: with one rate for all the two children leave nothing out."""
    instance = make_instance(access, devices=2, common_keep=True)
    if access == "fdma":
        pieces = bare_pieces([0.05, 0.05], [1.0, 1.0])
        nodes = (Node(), Node(0, LOW, 0.0, 0.5), Node(0, HIGH, 0.0, 0.5))
        assert not check_certificate(instance, Certificate(instance.name, "prices", -1.0, pieces, nodes)).faults
        return
    parts = tuple(bare_part(k, 0.05, 1.0) for k in range(2))
    proof = (np.zeros(instance.gain.shape[1]), 0.0, np.full(2, -9.0), parts)
    branches = (Branch(), Branch(0, LOW, *proof), Branch(0, HIGH, *proof))
    assert not check_certificate(instance, SubcarrierCertificate(instance.name, -99.0, branches)).faults


# -- sets of sub-carriers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 1e30, 1e60, 1e150, 1e290, 1e308])
@pytest.mark.parametrize("least", [1e-300, 1e-34, 1e-12])
def test_a_huge_slope_closes_no_set(make_instance: Any, slope: float, least: float) -> None:
    """A device costs a hair, whatever it owns: all digits of that were lost in the scale of another cut."""
    instance = make_instance("ofdma", devices=2)
    levels, slopes = np.array([0.05]), np.array([slope])
    parts = tuple(Part(k, 0, np.array([0.02, 1.0]), levels, slopes, np.zeros(0)) for k in range(2))
    leaf = Branch(-1, None, np.zeros(8), 0.5, np.full(2, least), parts)
    proof = check_certificate(instance, SubcarrierCertificate(instance.name, np.inf, (leaf,)))
    assert "sets that nothing excludes" in proof.faults[0].value


@pytest.mark.parametrize("value", [1e-300, 1e-10])
def test_next_to_nothing_is_no_device(make_instance: Any, value: float) -> None:
    """That one device is left out is not counted by a number near 0: a margin stands against rounding unseen."""
    instance = make_instance("ofdma", devices=2, energy_j=np.array([3.0, 1e-9]), energy_static_j=0.0)
    parts = (bare_part(0, 0.05, 1.0), Part(1, 0, np.array([0.05]), np.array([0.05]), np.array([1.0]), np.zeros(0)))

    def faults(least: float) -> list[str]:
        leaf = Branch(-1, None, np.zeros(8), 0.5, np.array([-1e-15, least]), parts)
        return [
            f.allowed
            for f in check_certificate(instance, SubcarrierCertificate(instance.name, np.inf, (leaf,))).faults
        ]

    assert faults(0.5) == []
    assert faults(value) == ["more than 1e-09 devices left out"]


def test_no_set_is_closed_that_exact_sums_leave_open() -> None:
    """Cuts of all sizes beside each other, down to the least doubles; exact fractions say which are open."""
    rng = np.random.default_rng(3)
    for _ in range(150):
        cuts, count = int(rng.integers(1, 5)), int(rng.integers(1, 6))
        size = 10.0 ** rng.choice([-323, -300, -160, -34, 0, 30, 60, 150, 300], (cuts, 1))
        worth = rng.normal(size=(cuts, count)) * size
        base = rng.normal(size=cuts) * (size[:, 0] if rng.random() < 0.5 else 1e-300)
        worth[rng.random(worth.shape) < 0.2] = 0.0
        found = open_sets(base, worth, np.full(count, -1, np.int8))
        assert found is not None
        rows = {tuple(row) for row in found.tolist()}
        exact = [[Fraction(b), *map(Fraction, row)] for b, row in zip(base.tolist(), worth.tolist(), strict=True)]
        for some in itertools.product([False, True], repeat=count):
            held = [0, *(m + 1 for m in range(count) if some[m])]
            sums = [sum((cut[m] for m in held), Fraction(0)) for cut in exact]
            assert max(sums) >= 0 or some in rows
            clear = any(10**12 * s > sum(map(abs, cut)) for s, cut in zip(sums, exact, strict=True))
            assert not (clear and some in rows)  # nor is anything left open that a cut closes by far


# -- the tripwire -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [np.inf, 2.0])
def test_a_proof_above_a_feasible_value_is_never_believed(
    make_instance: Any, by_hand: Any, monkeypatch: pytest.MonkeyPatch, bound: float
) -> None:
    """Whatever hole a checker still has: the allocation beside the proof says that one of them is wrong."""
    result = by_hand(make_instance())
    solution, instance = result.solution(), result.problem.instance
    report = verify(instance, solution)
    assert report.feasible
    certificate = Certificate(instance.name, "prices", bound, bare_pieces([], []))
    monkeypatch.setattr("edgealloc.verify.solution.check_certificate", lambda *_, **__: Proof((), bound, 1))
    judged = with_certificate(report, instance, solution, certificate)
    assert [(fault.field, DOUBT in fault.allowed) for fault in judged.faults] == [("lower_bound", True)]
    assert not judged.ok
    monkeypatch.setattr(
        "edgealloc.verify.solution.check_certificate", lambda *_, **__: Proof((), result.objective, 1)
    )
    assert with_certificate(report, instance, solution, certificate).ok
    broken = replace(solution, keep=solution.keep + 0.1)  # no allocation of the instance, and so no witness
    assert not verify(instance, broken).feasible


def test_no_solver_hands_out_a_proof_above_its_own_allocation(
    make_instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = solve(make_instance(), "convex", rel_gap=1e-6)
    monkeypatch.setattr("edgealloc.solvers.certify.write.check_certificate", lambda *_, **__: Proof((), 2.0, 1))
    with pytest.raises(EdgeallocError, match="the checker or the proof is wrong"):
        certified(result, 1e-6)
