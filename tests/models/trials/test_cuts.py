"""How many experts the bound wants, beside the silhouette."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc import conformance, solve
from edgealloc.data.outcome import Status
from edgealloc.data.spec import AdapterOption, BoundSpec
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.models.exchange.clusters import Dendrogram
from edgealloc.models.trials.lease import cut_instance, plan_experts

CELL = conformance.cell()
APART = Dendrogram.of(np.array([[0.0, 0.9, 0.1], [0.9, 0.0, 0.9], [0.1, 0.9, 0.0]]))


def test_every_cut_has_a_proven_bound_and_both_choices_are_told() -> None:
    plan = plan_experts(CELL, APART, rel_gap=1e-6)
    assert [cut.clusters for cut in plan.cuts] == [1, 2, 3]
    assert [cut.labels.tolist() for cut in plan.cuts] == [[0, 0, 0], [0, 1, 0], [0, 1, 2]]
    for cut in plan.cuts:
        assert cut.result.status is Status.OPTIMAL
        assert cut.result.lower_bound <= cut.result.objective * (1 + 1e-12)
    values = [cut.result.objective for cut in plan.cuts]
    assert values == sorted(values)  # without a gain, more experts have fewer samples each and nothing else
    assert (plan.by_bound, plan.by_silhouette, plan.decided) == (1, 2, True)
    for m, pooling in ((1, "global"), (3, "device")):
        plain = solve(CELL.with_changes(bound=BoundSpec(pooling=pooling)), rel_gap=1e-6)  # type: ignore[arg-type]
        assert plan.cuts[m - 1].result.objective == plain.objective
        assert plan.cuts[m - 1].result.lower_bound == plain.lower_bound
    records = plan.records()
    assert [record["by_bound"] for record in records] == [True, False, False]
    assert [record["by_silhouette"] for record in records] == [False, True, False]


def test_a_gain_that_was_measured_changes_the_choice() -> None:
    cell = CELL.with_changes(bound=BoundSpec(underfit_weight=0.5))
    plan = plan_experts(cell, APART, underfit_factor={2: 0.2, 3: 0.2}, rel_gap=1e-5)
    assert plan.by_bound == 2
    assert plan.decided
    one = cut_instance(CELL, np.array([0, 1, 0]), 0.2)
    keep = np.array([0.3, 0.5, 0.2])
    under, gap = Problem(one).objective.terms(keep)
    assert under == pytest.approx(0.2 * Problem(CELL).objective.terms(keep)[0])
    assert gap == Problem(cut_instance(CELL, np.array([0, 1, 0]))).objective.terms(keep)[1]


def test_menus_are_those_of_the_cut() -> None:
    def menus(clusters: int, labels: np.ndarray) -> list[list[AdapterOption] | None]:
        rows = [AdapterOption(f"m={m}", 1e7, m * 2e8, 0.8 ** (m - 1)) for m in range(1, clusters + 1)]
        return [rows for _ in labels]

    plan = plan_experts(CELL, APART, 2, menus=menus, rel_gap=1e-5)
    assert plan.cuts[0].result.allocation is not None
    assert plan.cuts[1].result.allocation is not None
    assert plan.cuts[0].result.allocation.option.tolist() == [0, 0, 0]
    assert max(plan.cuts[1].result.allocation.option.tolist()) == 1


def test_what_does_not_fit_is_named() -> None:
    hopeless = plan_experts(CELL.with_changes(latency_s=5.5), APART)
    assert hopeless.by_bound is None
    assert not hopeless.decided
    assert all(cut.result.status is Status.INFEASIBLE for cut in hopeless.cuts)
    with pytest.raises(InputError, match="of 3 devices"):
        plan_experts(CELL.take([0, 1]), APART)
    with pytest.raises(InputError, match="at least 1"):
        plan_experts(CELL, APART, 0)
