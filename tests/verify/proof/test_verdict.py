"""What may be spent on a certificate: every price by itself, and the edges of every limit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgealloc.certificate.form import Cut
from edgealloc.certificate.prices import Certificate, Node
from edgealloc.certificate.subcarriers import Branch, OwnerCut, SubcarrierCertificate
from edgealloc.verify.proof.verdict import Budget, Found, Proof, TooMuchWork
from tests.verify.test_forged import bare_part, bare_pieces


def spent(ask: Any) -> float:
    """What a question costs."""
    budget = Budget(math.inf)
    ask(budget)
    return budget.spent


def test_a_budget_goes_by_the_size() -> None:
    """Six seconds up to a megabyte, then by its square; none without a size."""
    sizes = (0, 1, 999_999, 1_000_000, 1_300_000, 3_000_000)
    assert [Budget.of(size).limit for size in sizes] == pytest.approx([math.inf, 6e6, 6e6, 6e6, 6e6 * 1.69, 54e6])


def test_a_budget_may_be_spent_to_the_last() -> None:
    budget = Budget(0.7)
    budget.spend(0.3)
    budget.spend(0.4)
    assert budget.spent == 0.7
    with pytest.raises(TooMuchWork, match=r"more than 0\.7 units of work"):
        budget.spend(1e-9)
    with pytest.raises(TooMuchWork):
        Budget(1.0).spend(math.nan)


def test_every_node_pays_for_the_cuts_above_it() -> None:
    """Its own options and those above it, a cut above it, and the rows of a menu; owners have no options."""
    cuts = (None, Cut(0, (0, 1, 3)), Cut(0), OwnerCut(0, 1, True), Cut(1, (2,)))
    parents = (-1, 0, 1, 2, 7)
    load = (0, 4, 5, 6, 1)  # the last one's parent is none: that is a fault found later
    wanted = sum(5.0 + cuts_ + 0.5 * 13 for cuts_ in load)
    branches = tuple(Branch(p, cut) for p, cut in zip(parents, cuts, strict=True))
    assert spent(lambda b: b.tree(SubcarrierCertificate("", 0.0, branches), 13)) == pytest.approx(wanted)
    some = [i for i, cut in enumerate(cuts) if not isinstance(cut, OwnerCut)][:3]
    nodes = tuple(Node(parents[i], cuts[i]) for i in some)  # type: ignore[arg-type]
    certificate = Certificate("", "prices", 0.0, bare_pieces([0.05], [1.0]), nodes)
    assert spent(lambda b: b.tree(certificate, 0)) == pytest.approx(sum(5.0 + load[i] for i in some))
    own = Certificate("", "prices", 0.0, bare_pieces([0.05], [1.0]), (Node(), Node(1, Cut(0))))
    assert spent(lambda b: b.tree(own, 0)) == 10.0  # a node above itself is none


def test_caps_are_few() -> None:
    budget = Budget(math.inf)
    for count in (0, 63, 64):
        budget.caps(count)
    for count in (65, 300):
        with pytest.raises(TooMuchWork, match=f"^{count} caps with prices, more than 64$"):
            budget.caps(count)
    assert budget.spent == 0.0


def test_planes_are_not_too_many() -> None:
    budget = Budget(math.inf)
    budget.leaf((), 100_000, 0)
    for points in (100_001, 300_000):
        with pytest.raises(TooMuchWork, match=f"^{points} planes at one leaf, more than 100000$"):
            budget.leaf((), points, 0)
    assert budget.spent == pytest.approx(300.0 + 15.0 * 100_000)


def test_prices_of_work() -> None:
    """Every part is counted, each by its own price; in balls all is 25 times as dear, or 150 a piece."""
    parts = [bare_part(k, 0.05, 1.0) for k in range(3)]
    leaf = 300.0 + 20.0 * 11 + 500.0 * 3 + 15.0 * 17 + 4.0 * 7
    asked = [
        (lambda b: b.constraints(13, 7), 13 * 27.0),
        (lambda b: b.rounds(5, 17), 6e3 * 6 + 2.0 * 17 * 7),
        (lambda b: b.prices(19, 11, 3, 5, 7), 200.0 + 0.2 * 19 + 2.0 * 11 + 3 + 2.0 * 7 + 5 * (15.0 + 0.02 * 19)),
        (lambda b: b.prices(19, 11, 3, 5), 200.0 + 0.2 * 19 + 2.0 * 11 + 3 + 5 * (15.0 + 0.02 * 19)),
        (lambda b: b.in_balls(13), 12e3 + 150.0 * 13),
        (lambda b: b.leaf(parts, 17, 11, 7), leaf),
        (lambda b: b.leaf(parts, 17, 11), leaf - 28.0),
        (lambda b: b.leaf(parts, 17, 11, 7, balls=True), 25.0 * leaf),
        (lambda b: b.search(113), 20.0 + 0.02 * 113),
        (lambda b: b.sets(13, True, False), 13 * 15.0),
        (lambda b: b.sets(13, False, False), 13 * 50.0),
        (lambda b: b.sets(13, True, True), 13 * 375.0),
        (lambda b: b.sets(13, False, True), 13 * 1250.0),
    ]
    assert [spent(ask) for ask, _ in asked] == pytest.approx([price for _, price in asked])


def test_a_fault_says_what_was_found() -> None:
    found = Found()
    found.add("nodes[3]", 0.37, "something else")
    (fault,) = found.faults
    assert (fault.where, fault.field, fault.value, fault.allowed) == (
        "certificate", "nodes[3]", "0.37", "something else",
    )  # fmt: skip
    empty = Proof(())
    assert (empty.lower_bound, empty.leaves, empty.in_balls) == (-math.inf, 0, 0)
    assert Found().faults == []
