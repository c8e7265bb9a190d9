"""What a plan claims is checked at its edges: rounds, deadline, objective, gap, and the loss of all its terms."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from edgealloc import AdapterOption, Instance, LearningSpec, Status, plan_run
from edgealloc.files.run import RunClaims
from edgealloc.runs import NeededRounds
from edgealloc.verify.run import verify_run
from edgealloc.verify.solution import REL_TOL
from tests.conftest import small_instance

CURVE = LearningSpec(pace=0.6, exponent=1.5, order=2.0, overfit=4e-3, growth=1.6, protection=20.0)
NEEDED = NeededRounds(0.7, 1.3)
TIGHT = {"bandwidth_hz": 2e4, "latency_s": 13.0}


@cache
def planned(minimise: str, needed: bool = False, *, total: bool = True) -> tuple[Instance, RunClaims]:
    """A cell with its plan, without a certificate; spectrum is so scarce that keep rates are inside theirs."""
    cell = small_instance("fdma", 3, **TIGHT)
    asked: dict[str, Any] = {"curve": NEEDED if needed else CURVE, "minimise": minimise, "rounds": (1, 30)}
    if minimise != "loss" and not needed:
        asked["target"] = 0.65
    if minimise == "weighted":
        asked["weights"] = (0.37, 41.0)
    plan = plan_run(cell, time_s=300.0 if total else None, energy_j=40.0 if total else None, rel_gap=0.3, **asked)
    assert plan.result is not None, plan
    assert 0.03 < float(plan.result.allocation.keep.min()) < 0.97  # type: ignore[union-attr]
    return cell, plan.claims()


def told(cell: Instance, claims: RunClaims, within: float = 0.3, **lies: Any) -> list[str]:
    """Fields that are found at fault."""
    report = verify_run(cell, replace(claims, **lies), rel_gap=within)
    return [fault.field for fault in report.faults]


@pytest.mark.parametrize("kind", [("loss", False), ("energy", False), ("time", False), ("weighted", False),
                                  ("time", True), ("energy", True), ("weighted", True)])  # fmt: skip
def test_what_is_true_is_accepted_and_its_objective_may_be_a_hair_lower(kind: tuple[str, bool]) -> None:
    cell, claims = planned(*kind)
    assert not told(cell, claims)
    assert claims.objective is not None
    used = claims.objective * (1.0 - 0.5 * REL_TOL)
    gap = (used - (claims.lower_bound or 0.0)) / used
    assert told(cell, claims, objective=used, rel_gap=gap) == (["objective"] if kind[0] == "loss" else [])
    assert "objective" in told(cell, claims, objective=claims.objective * (1.0 - 1e-3))


@pytest.mark.parametrize("minimise", ["time", "energy", "weighted"])
def test_the_target_is_reached_or_missed_by_a_hair(minimise: str) -> None:
    cell, claims = planned(minimise)
    loss = claims.loss or 0.0
    for target, wrong in (
        (loss, False),
        (loss * (1.0 - 0.5 * REL_TOL), False),
        (loss * (1.0 - 1e-6), True),
        (0.0, True),
    ):
        assert ("target" in told(cell, claims, target=target)) is wrong, target


def test_rounds_may_be_the_first_and_the_last_of_those_asked_for() -> None:
    cell, claims = planned("loss")
    rounds = claims.rounds or 0
    assert rounds > 1
    for span, wrong in (
        ((rounds, rounds), False), ((1, rounds), False), ((rounds, 30), False), ((rounds + 1, 30), True),
        ((1, rounds - 1), True),
    ):  # fmt: skip
        assert ("rounds" in told(cell, claims, span=span)) is wrong, span


def test_rounds_have_the_deadline_of_the_instance_unless_the_whole_time_is_given() -> None:
    for minimise, total, caps, wrong in (
        ("loss", True, False, False), ("loss", True, True, True), ("loss", False, False, True),
        ("time", False, False, False), ("time", False, True, True),
    ):  # fmt: skip
        cell, claims = planned(minimise)
        shorter = cell.with_changes(latency_s=0.5 * (claims.latency_s or 0.0))
        lies = {"caps": caps} if total else {"caps": caps, "time_s": None}
        assert ("latency_s" in told(shorter, claims, **lies)) is wrong, (minimise, total, caps)
    cell, claims = planned("loss")
    at = cell.with_changes(latency_s=claims.latency_s)
    assert "latency_s" not in told(at, claims, caps=True)  # the deadline itself will do


def test_the_time_of_all_rounds_may_be_all_that_there_is() -> None:
    cell, claims = planned("loss")
    whole = (claims.rounds or 0) * (claims.latency_s or 0.0)
    assert "latency_s" not in told(cell, claims, time_s=math.nextafter(whole, math.inf))
    assert "latency_s" in told(cell, claims, time_s=whole * (1.0 - 1e-12))


def test_optimal_is_a_gap_within_the_one_that_is_accepted() -> None:
    cell, claims = planned("loss")
    gap = claims.rel_gap or 0.0
    assert gap > 1e-6
    assert claims.status is Status.OPTIMAL
    for status, accepted, wrong in (
        (Status.OPTIMAL, gap, False), (Status.OPTIMAL, gap * (1.0 - 1e-3), True), (Status.FEASIBLE, 0.0, False),
    ):  # fmt: skip
        assert told(cell, claims, accepted, status=status) == (["status"] if wrong else []), (status, accepted)


def test_the_loss_has_the_share_of_who_is_left_out_and_the_factor_of_the_adapter() -> None:
    menu = (AdapterOption("large", 1e7, 2e8), AdapterOption("small", 4e6, 1e8, underfit_factor=1.7))
    cell = small_instance(
        "fdma", 3, exclusion_penalty=0.83, adapter_options=(menu,) * 3, samples=(130.0, 220.0, 310.0)
    )
    plan = plan_run(cell.with_changes(gain=cell.gain * [1.0, 1e-9, 1.0]), curve=CURVE, rounds=(7, 7), rel_gap=0.3)
    claims, result = plan.claims(), plan.result
    assert result is not None
    assert result.allocation is not None
    assert result.allocation.selected.tolist() == [True, False, True]
    cell = plan.run.instance
    assert not told(cell, claims)
    left, kept = 0.0, 0.0
    for k, samples in enumerate((130.0, 220.0, 310.0)):
        share, s = samples / 660.0, float(result.allocation.keep[k])
        if k == 1:
            left += share * 0.83
            continue
        factor = (1.0, 1.7)[int(result.allocation.option[k])]
        left += share * factor / (1.0 + (CURVE.pace * 7.0 * s**CURVE.exponent) ** CURVE.order)
        kept += share * s * s
    rest = CURVE.overfit * 7.0**CURVE.growth / math.sqrt(1.0 + CURVE.protection * (1.0 - kept))
    loss = CURVE.floor + CURVE.drop * left + rest
    assert claims.loss == pytest.approx(loss, rel=1e-12)
    assert "loss" in told(cell, claims, loss=loss * (1.0 + 1e-6), objective=loss * (1.0 + 1e-6))


def test_needed_rounds_are_those_of_the_keep_rates() -> None:
    cell, claims = planned("time", True)
    assert claims.round is not None
    keep = claims.round.for_instance(cell).keep
    weights = cell.samples / cell.samples.sum()
    needed = (NEEDED.fixed + NEEDED.per_keep * float((weights / keep).sum())) / (claims.rounds or 0)
    assert claims.loss == pytest.approx(needed, rel=1e-12)
    assert needed <= 1.0
    for wrong in (needed * 0.99, needed * 1.01):
        assert "loss" in told(cell, claims, loss=wrong)
