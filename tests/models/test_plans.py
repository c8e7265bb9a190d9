"""The plans that an optimum has to beat: each within the budgets, each no better than the optimum."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")

import edgealloc
from edgealloc.models.plans import equal_shares, most_devices, validation_plans
from edgealloc.models.validate import plan_from_result


@pytest.fixture
def tight(make_instance):
    """Five devices whose spectrum carries about a third of their adapters."""
    return make_instance("fdma", 5).with_changes(bandwidth_hz=1e4)


def test_no_restricted_plan_beats_the_optimum(tight) -> None:
    plans = {p.name: p for p in validation_plans(tight, {"optimum": edgealloc.solve}, edgealloc.solve)}
    assert set(plans) == {
        "optimum",
        "one common rate",
        "equal shares",
        "no dropout",
        "no dropout, most devices",
    }
    best = plans["optimum"]
    assert best.reports.all()
    assert best.round_s <= tight.latency_s
    assert np.all(best.energy_j <= tight.energy_j)
    for name in ("one common rate", "equal shares"):
        assert plans[name].reports.all()
        assert plans[name].bound > best.bound * (1 - 1e-6)
    assert np.ptp(plans["one common rate"].keep) < 1e-9
    assert np.ptp(best.keep) > 0.01


def test_stragglers_miss_the_deadline_and_pay(tight) -> None:
    plan = equal_shares(tight, edgealloc.solve, dropout=False)
    assert (~plan.reports).sum() > 0, "the cell should be too tight for whole adapters"
    late = ~plan.reports
    assert np.all(np.isinf(plan.latency_s[late]))
    np.testing.assert_array_equal(plan.energy_j[late], tight.energy_j[late])
    assert plan.round_s == tight.latency_s
    assert np.isfinite(plan.round_j)


def test_the_most_devices_fit_into_the_spectrum_and_one_more_does_not(tight) -> None:
    plan = most_devices(tight, edgealloc.solve)
    count = int(plan.selected.sum())
    assert 0 < count < 5
    assert plan.reports.sum() == count

    def fits(chosen: np.ndarray) -> bool:
        whole = np.ones(len(chosen))
        return edgealloc.solve(
            tight.take(chosen).with_changes(keep_min=whole, keep_max=whole)
        ).status.has_allocation

    assert fits(np.flatnonzero(plan.selected))
    for extra in np.flatnonzero(~plan.selected):
        assert not fits(np.append(np.flatnonzero(plan.selected), extra))


def test_equal_shares_stop_at_the_best_rate_when_spectrum_is_ample(tight) -> None:
    ample = tight.with_changes(bandwidth_hz=1e8)
    plan = equal_shares(ample, edgealloc.solve)
    optimum = plan_from_result(edgealloc.solve(ample))
    np.testing.assert_allclose(plan.keep, optimum.keep, atol=2e-3)
    assert plan.bound == pytest.approx(optimum.bound, rel=1e-5)
    assert plan.stability == pytest.approx(optimum.stability, rel=1e-2)
