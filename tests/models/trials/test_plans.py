"""The plans that an optimum has to beat: each within the budgets, each no better than the optimum."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the trainer's extra is not installed")

import edgealloc
from edgealloc.data.spec import AdapterOption
from edgealloc.errors import InputError
from edgealloc.models.exchange.wire import AdapterShape
from edgealloc.models.trials.cell import DEFAULT_PLANS, payload_note, plans_for, require_ranks
from edgealloc.models.trials.plans import admission, plan_from_result, stragglers
from edgealloc.scenario.tensors import LoraLayer


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


def menu_cell(tight, labels=("r=1", "r=4")):
    bits, work = float(tight.payload_lora_bits[0]), float(tight.cycles_lora[0])
    small = AdapterOption(labels[0], bits / 4, work / 4, 1.5)
    whole = AdapterOption(labels[1], bits, work, 1.0)
    return tight.with_changes(adapter_options=((small, whole), None, (small,), (whole,), (small, whole)))


def test_ranks_that_a_menu_gave_reach_the_trainer_and_the_bound(tight) -> None:
    cell = menu_cell(tight)
    result = edgealloc.solve(cell, "psca")
    plan = plan_from_result(result)
    assert plan.ranks is not None
    assert plan.ranks[1:4].tolist() == [0, 1, 4]
    assert set(plan.ranks[[0, 4]]) <= {1, 4}
    assert plan_from_result(edgealloc.solve(tight, "psca")).ranks is None
    for special in (stragglers, admission):
        own = special(cell.with_changes(bandwidth_hz=1e7), edgealloc.solve)
        assert own.ranks is not None
        assert own.reports.all()
        rows = np.array(
            [
                {0: -1, 1: 0, 4: len(menu or ()) - 1}[int(r)]
                for r, menu in zip(own.ranks, cell.adapter_options, strict=True)
            ]
        )
        assert own.bound == pytest.approx(result.problem.objective(own.keep, option=rows), rel=1e-12)


def test_rows_that_are_no_ranks_or_above_the_model_are_named_before_anything_is_solved(tight) -> None:
    shape = AdapterShape((LoraLayer("l", 10, 10, 4),))
    with pytest.raises(InputError, match=r"8 bit.*labelled r=8"):
        require_ranks(menu_cell(tight, ("8 bit", "r=4")), shape)
    with pytest.raises(InputError, match="at most r=4, the rank of the adapter that is trained"):
        require_ranks(menu_cell(tight, ("r=1", "r=16")), shape)
    with pytest.raises(InputError, match=r"8 bit.*labelled r=8"):
        plan_from_result(edgealloc.solve(menu_cell(tight, ("8 bit", "16 bit")), "psca"))
    right = menu_cell(tight.with_changes(payload_fixed_bits=np.zeros(5), payload_lora_bits=np.full(5, 2560.0)))
    assert payload_note(right, shape) is None
    note = payload_note(menu_cell(tight), shape)
    assert note is not None
    assert "D1 of r=1 is" in note
    assert "640 bit in the adapter" in note
