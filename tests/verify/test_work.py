"""Small certificates that would keep the checker busy without end: refused before the work is done."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc import solve
from edgealloc.certificate.file import AnyCertificate, certificate_from_dict
from edgealloc.certificate.form import Cut
from edgealloc.certificate.prices import Certificate, Node, Round
from edgealloc.certificate.subcarriers import Branch, OwnerCut, Part, SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import EdgeallocError
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.verdict import Budget, TooMuchWork
from edgealloc.verify.subcarriers.sets import open_sets
from tests.conftest import small_instance
from tests.solvers.ofdma.oracle import random_ofdma
from tests.verify.forging.honest import proof_of
from tests.verify.test_forged import bare_part, bare_pieces

NONE = np.zeros(0)


def rounds_without_end(instance: Instance) -> AnyCertificate:
    """Rounds that drop nothing, each as dear as a leaf."""
    nothing = Round(0.0, 0.5, np.zeros(0, dtype=np.intp))
    pieces = bare_pieces([0.05, 0.05], [1.0, 1.0])
    return Certificate(instance.name, "prices", -9.0, pieces, (Node(-1, None, 0.0, 0.5),), (nothing,) * 15_000)


def leaves_without_end(instance: Instance) -> AnyCertificate:
    """One node with thousands of children, and thousands of pieces; each proves what little is claimed."""
    ends = np.linspace(0.0, 1.0, 3_001)
    cuts = [Cut(0, None, a, b) for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
    nodes = (Node(), *(Node(0, cut, 0.0, 0.5) for cut in cuts))
    pieces = bare_pieces([0.05] * 5_000, [1.0] * 5_000, [k % 2 for k in range(5_000)])
    return Certificate(instance.name, "prices", -9.0, pieces, nodes)


def options_without_end(instance: Instance) -> AnyCertificate:
    """A long list of options, which every node below it holds."""
    cut = Cut(0, tuple(range(60_000)), 0.0, 1.0)
    nodes = (Node(), *(Node(i, cut if not i else Cut(0)) for i in range(3_000)), Node(3_000, Cut(0), 0.0, 0.5))
    return Certificate(instance.name, "prices", -9.0, bare_pieces([0.05, 0.05], [1.0, 1.0]), nodes)


def planes_without_end(instance: Instance) -> AnyCertificate:
    """A part of a thousand levels by a thousand cells."""
    many = np.linspace(0.1, 1.0, 1000)
    parts = (Part(0, 0, many, many, np.ones(1000), NONE), bare_part(1, 0.05, 1.0))
    leaf = Branch(-1, None, np.zeros(8), 0.5, np.full(2, -9.0), parts)
    return SubcarrierCertificate(instance.name, -99.0, (leaf,))


def parts_without_end(instance: Instance) -> AnyCertificate:
    """Thousands of parts that say the same."""
    levels = np.array([0.1, 0.2, 0.3])
    part = Part(1, 0, np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0]), levels, levels, NONE)
    parts = (bare_part(0, 0.05, 1.0), *(part,) * 6_900)
    leaf = Branch(-1, None, np.zeros(8), 0.5, np.full(2, -9.0), parts)
    return SubcarrierCertificate(instance.name, -99.0, (leaf,))


def owners_without_end(instance: Instance) -> AnyCertificate:
    """A chain of cuts: every node holds those of all above it."""
    nodes: list[Branch] = [Branch()]
    proof = (np.zeros(8), 0.5, np.full(2, -9.0), (bare_part(0, 0.05, 1.0), bare_part(1, 0.05, 1.0)))
    for i in range(2_500):
        at = max(2 * i - 1, 0)
        nodes += [Branch(at, OwnerCut(0, i % 8, True)), Branch(at, OwnerCut(0, i % 8, False), *proof)]
    nodes[-2] = Branch(nodes[-2].parent, nodes[-2].cut, *proof)
    return SubcarrierCertificate(instance.name, -99.0, tuple(nodes))


def levels_without_end(instance: Instance) -> AnyCertificate:
    """Two edges, between which the instance has a thousand keep levels, under a thousand water levels."""
    many = np.linspace(0.1, 1.0, 1000)
    parts = (Part(0, 0, np.array([0.05, 1.0]), many, np.ones(1000), NONE), bare_part(1, 0.05, 1.0))
    leaf = Branch(-1, None, np.zeros(8), 0.5, np.full(2, -9.0), parts)
    return SubcarrierCertificate(instance.name, -99.0, (leaf,))


def rows_without_end(instance: Instance) -> AnyCertificate:
    """Thousands of children, each of which is asked for every row of a long menu."""
    nodes = (Node(), *(Node(0, Cut(0), 0.0, 0.5) for _ in range(6_000)))
    return Certificate(instance.name, "prices", -9.0, bare_pieces([0.05, 0.05], [1.0, 1.0]), nodes)


@pytest.mark.parametrize(
    "make",
    [
        levels_without_end,
        rows_without_end,
        rounds_without_end,
        leaves_without_end,
        options_without_end,
        planes_without_end,
        parts_without_end,
        owners_without_end,
    ],
)
def test_a_small_file_has_a_small_budget(make_instance: Any, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All below a megabyte, and none evaluated at all."""
    carriers = make in (levels_without_end, planes_without_end, parts_without_end, owners_without_end)
    changes: dict[str, Any] = {}
    if make is levels_without_end:
        changes["keep_levels"] = [np.linspace(0.05, 1.0, 1000), None]
    if make is rows_without_end:
        changes["adapter_options"] = [[AdapterOption(f"{i}", 1e6, 1e8) for i in range(3_000)], None]
    instance = make_instance("ofdma" if carriers else "fdma", devices=2, **changes)
    certificate = certificate_from_dict(json.loads(json.dumps(make(instance).to_file())))
    assert 1_000 < certificate.size < 1_000_000
    for name in ("certificate", "subcarriers.leaf"):
        monkeypatch.setattr(f"edgealloc.verify.{name}.Model", None)
    assert [fault.field for fault in check_certificate(instance, certificate).faults] == ["work"]


def test_pieces_that_rounds_drop_cost_little(make_instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a long search: thousands of leaves, few of thousands of pieces left. It was refused."""
    instance = make_instance("fdma", devices=2)
    ends = np.linspace(0.0, 1.0, 1_701)
    cuts = [Cut(0, None, a, b) for a, b in itertools.pairwise(ends.tolist())]
    nodes = (Node(), *(Node(0, cut, 0.0, 0.5) for cut in cuts))
    pieces = bare_pieces([0.05] * 4_000, [1.0] * 4_000, [k % 2 for k in range(4_000)])
    dropped = Round(0.0, 0.5, np.arange(250, 4_000))
    monkeypatch.setattr("edgealloc.verify.certificate.Model", None)
    for rounds, refused in (((), True), ((dropped,), False)):
        made = Certificate(instance.name, "prices", -9.0, pieces, nodes, rounds)
        certificate = certificate_from_dict(json.loads(json.dumps(made.to_file())))
        assert certificate.size < 1_000_000
        if refused:
            assert [fault.field for fault in check_certificate(instance, certificate).faults] == ["work"]
        else:
            with pytest.raises(AttributeError):  # the model is asked for
                check_certificate(instance, certificate)


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_levels_that_all_share_are_found_once(
    make_instance: Any, access: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each device and part: that was the square of the devices, for every leaf."""
    k, levels = 8, [np.array([0.1, 0.5])] * 8
    instance = make_instance(access, devices=k, keep_levels=levels, common_keep=True)
    nothing = Node(-1, None, 0.0, 0.5)
    certificate: AnyCertificate = Certificate(
        instance.name, "prices", -9.0, bare_pieces([0.05] * k, [1.0] * k), (nothing,)
    )
    if access == "ofdma":
        parts = tuple(bare_part(i, 0.05, 1.0) for i in range(k))
        leaf = Branch(-1, None, np.zeros(8), 0.5, np.full(k, -9.0), parts)
        certificate = SubcarrierCertificate(instance.name, -99.0, (leaf,))
    calls: list[Any] = []
    found = np.intersect1d

    def counted(*args: Any) -> Any:
        calls.append(args)
        return found(*args)

    monkeypatch.setattr("edgealloc.verify.proof.cover.np.intersect1d", counted)
    assert not check_certificate(instance, certificate).faults
    assert len(calls) < k


def test_sets_left_open_are_paid_for(make_instance: Any) -> None:
    """A short file that leaves open all sets of many sub-carriers."""
    instance = make_instance("ofdma", devices=2, subcarriers=17)
    parts = tuple(Part(k, 0, np.array([0.05, 1.0]), NONE, NONE, np.linspace(0.1, 1.0, 9)) for k in range(2))
    leaf = Branch(-1, None, np.zeros(17), 0.5, np.full(2, 9.0), parts)
    certificate = SubcarrierCertificate(instance.name, 1.0, (leaf,), size=2_000)
    assert [fault.field for fault in check_certificate(instance, certificate).faults] == ["work"]


def split(certificate: AnyCertificate, count: int) -> AnyCertificate:
    """The same proof for many children of its last leaf, which share the keep rates of a device."""
    nodes: list[Any] = list(certificate.nodes)
    prices = "price_per_hz" if certificate.kind == "prices" else "prices"
    at = max(i for i, node in enumerate(nodes) if getattr(node, prices) is not None)
    leaf, ends = nodes[at], np.linspace(0.0, 1.0, count + 1).tolist()
    bare = Node if isinstance(leaf, Node) else Branch
    nodes[at] = bare(leaf.parent, leaf.cut)
    nodes += [replace(leaf, parent=at, cut=Cut(0, None, a, b)) for a, b in itertools.pairwise(ends)]
    changed: AnyCertificate = replace(certificate, nodes=tuple(nodes))
    return certificate_from_dict(json.loads(json.dumps(changed.to_file())))


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("convex", 4_000),
        ("levels and selection", 4_000),
        ("two by four", 500),
        ("curve on carriers", 400),
        ("random", 200),
    ],
)
@pytest.mark.slow
def test_a_true_proof_of_a_megabyte_is_accepted(name: str, leaves: int) -> None:
    """Whatever number of leaves goes into a megabyte: more than one in three of what it may cost is left."""
    proof = proof_of(name)
    certificate = split(certificate_from_dict(proof.data), leaves)
    assert 500_000 < certificate.size < 1_000_000
    spent: list[Budget] = []

    class Watched(Budget):
        @classmethod
        def of(cls, size: int) -> Budget:
            spent.append(Budget.of(size))
            return spent[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgealloc.verify.certificate.Budget", Watched)
        judged = check_certificate(proof.instance, certificate)
    assert not judged.faults
    assert judged.leaves >= leaves
    assert spent[0].spent < 0.65 * spent[0].limit


def test_a_search_over_sets_is_paid_for_step_by_step() -> None:
    """Before each step, by the numbers that it looks at."""
    told: list[int] = []
    sets = open_sets(
        np.array([-6.5, -1e9]), np.array([[1.0] * 12, [0.0] * 12]), np.full(12, -1, np.int8), told.append
    )
    assert sets is not None
    assert len(told) == 12
    assert told[0] == 2
    assert len(sets) < sum(told) < 2 * 12 * 2**12

    def enough(numbers: int) -> None:
        if numbers > 100:
            raise TooMuchWork

    with pytest.raises(TooMuchWork):
        open_sets(np.array([-6.5]), np.ones((1, 12)), np.full(12, -1, np.int8), enough)


def test_the_budget_goes_by_the_size() -> None:
    """A megabyte is free to grow into; twice the size is four times the work; what has no size has no limit."""
    small, large = Budget.of(1_000), Budget.of(2_000_000)
    assert large.limit == 4.0 * small.limit
    assert Budget.of(1_000_000).limit == small.limit
    Budget.of(0).spend(1e300)
    with pytest.raises(TooMuchWork):
        small.spend(1.001 * small.limit)


def test_honest_proofs_stay_far_below_their_budget() -> None:
    """A hundredth of what is allowed: the budget is there for attacks."""
    spent: list[Budget] = []

    class Watched(Budget):
        @classmethod
        def of(cls, size: int) -> Budget:
            spent.append(Budget.of(size))
            return spent[-1]

    instance = random_ofdma(np.random.default_rng(121))
    certificate = certified(solve(instance, "bnb", rel_gap=1e-6))[1]
    certificate = certificate_from_dict(json.loads(json.dumps(certificate.to_file())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgealloc.verify.certificate.Budget", Watched)
        assert not check_certificate(instance, certificate).faults
    assert 0.0 < spent[0].spent < 0.05 * spent[0].limit


def test_the_first_fault_ends_the_work(make_instance: Any) -> None:
    """Unless every leaf is asked for, as the writer does for the bound that all of them prove."""
    instance = make_instance(devices=2)
    certificate = rounds_without_end(instance)
    halves = (Node(), Node(0, Cut(0, None, 0.0, 0.5), 0.0, 0.5), Node(0, Cut(0, None, 0.5, 1.0), 0.0, 0.5))
    certificate = replace(certificate, nodes=halves, rounds=(), lower_bound=9.0)
    first, both = check_certificate(instance, certificate), check_certificate(instance, certificate, every=True)
    assert [fault.field for fault in first.faults] == ["nodes[1]"]
    assert [fault.field for fault in both.faults] == ["nodes[1]", "nodes[2]"]
    assert both.lower_bound <= first.lower_bound
    assert first.in_balls == 0  # a claim missed by far is no matter of rounding


def test_no_proof_is_handed_out_that_readers_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer spends no more than the one who will read the file may."""
    result = solve(small_instance("ofdma", 3, 8), method="bnb")
    monkeypatch.setattr("edgealloc.verify.proof.verdict.WORK", 10.0)
    with pytest.raises(EdgeallocError, match="reasonable time"):
        certified(result)
