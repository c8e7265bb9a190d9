"""The plans that an optimum has to beat: each within the budgets, each no better than the optimum."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")

import edgealloc
from edgealloc.errors import InputError
from edgealloc.models.trials.cell import DEFAULT_PLANS, plans_for
from edgealloc.models.trials.plans import admission, stragglers


@pytest.fixture
def tight(make_instance):
    """Five devices whose spectrum carries about a third of their adapters."""
    return make_instance("fdma", 5).with_changes(bandwidth_hz=1e4)


def test_no_restricted_plan_beats_the_optimum(tight) -> None:
    told: list[str] = []
    plans = {p.name: p for p in plans_for(tight, DEFAULT_PLANS, tell=told.append)}
    assert len(told) == len(plans) == len(DEFAULT_PLANS)
    best = plans["convex"]
    assert best.reports.all()
    assert best.round_s <= tight.latency_s
    assert np.all(best.energy_j <= tight.energy_j)
    for name in ("baseline:common", "baseline:equal"):
        assert plans[name].reports.all()
        assert plans[name].bound > best.bound * (1 - 1e-6)
    assert np.ptp(plans["baseline:common"].keep) < 1e-9
    assert np.ptp(best.keep) > 0.01


def test_a_method_that_finds_nothing_is_left_out_and_said_so(tight) -> None:
    told: list[str] = []
    plans = plans_for(tight, ["baseline:no-dropout", "psca"], tell=told.append)
    assert [p.name for p in plans] == ["psca"]
    assert "left out" in told[0]
    with pytest.raises(InputError, match="one that finds an allocation"):
        plans_for(tight, ["baseline:no-dropout"], tell=told.append)
    with pytest.raises(InputError, match="convex"):
        plans_for(tight, ["nonsense"], tell=told.append)


def test_stragglers_miss_the_deadline_and_pay(tight) -> None:
    plan = stragglers(tight, edgealloc.solve)
    late = ~plan.reports
    assert late.any(), "the cell should be too tight for whole adapters"
    assert np.all(np.isinf(plan.latency_s[late]))
    np.testing.assert_array_equal(plan.energy_j[late], tight.energy_j[late])
    assert plan.round_s == tight.latency_s
    assert np.isfinite(plan.round_j)
    ample = stragglers(tight.with_changes(bandwidth_hz=1e8), edgealloc.solve)
    assert ample.reports.all()
    assert np.isfinite(ample.bound)


@pytest.mark.parametrize("access", ["ofdma", "rb"])
def test_a_device_without_a_share_is_a_straggler(make_instance, access: str) -> None:
    cell = make_instance(access, 3)
    if access == "rb":
        cell = cell.with_changes(bandwidth_hz=2.0 * cell.block_hz)
    else:
        cell = cell.with_changes(gain=cell.gain[:, :2])
    plan = stragglers(cell, edgealloc.solve)
    assert not plan.reports.all()


def test_admission_takes_as_many_samples_as_the_spectrum_carries(tight) -> None:
    plan = admission(tight, edgealloc.solve)
    assert 0 < plan.selected.sum() < 5
    np.testing.assert_array_equal(plan.reports, plan.selected)
    np.testing.assert_array_equal(plan.keep[plan.selected], 1.0)

    def fits(chosen: np.ndarray) -> bool:
        whole = np.ones(len(chosen))
        cell = tight.take(chosen).with_changes(keep_min=whole, keep_max=whole)
        return edgealloc.solve(cell).status.has_allocation

    assert fits(np.flatnonzero(plan.selected))
    # every larger set of samples is too much: by enumeration
    for code in range(1, 2**5):
        chosen = np.flatnonzero([(code >> k) & 1 for k in range(5)])
        if tight.samples[chosen].sum() > tight.samples[plan.selected].sum():
            assert not fits(chosen)
