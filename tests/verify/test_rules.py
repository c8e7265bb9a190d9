"""Rules of use, claims and constraints, each at its edge and with numbers that no slip leaves alone."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from dataclasses import is_dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np
import pytest
from flint import arb, ctx

import edgealloc.certificate
import edgealloc.verify
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.prices import Certificate, Node
from edgealloc.certificate.subcarriers import OwnerCut, SubcarrierCertificate
from edgealloc.data.constraints import (
    HAIR,
    Constraint,
    EnergyCap,
    KeepFloor,
    ParticipationCap,
    PowerCap,
    SpectrumCap,
    SubcarrierCap,
)
from edgealloc.data.instance import Instance
from edgealloc.data.solution import Solution
from edgealloc.data.spec import BoundSpec, UnderfitLogistic
from edgealloc.errors import Fault, InputError
from edgealloc.verify.blocks import blocks_there
from edgealloc.verify.budgets import check_budgets, demand_of, use_as_balls
from edgealloc.verify.certificate import check_certificate, wants_digits
from edgealloc.verify.constraints import check_constraints
from edgealloc.verify.form import Findings
from edgealloc.verify.proof.enclosures import Intervals
from edgealloc.verify.report import Report
from edgealloc.verify.solution import exceeds, gap_of_excess
from edgealloc.verify.subcarriers.claim import Model
from edgealloc.verify.subcarriers.cover import Region
from edgealloc.verify.subcarriers.device import needs
from tests.verify.forging.honest import proof_of
from tests.verify.test_forged import bare_pieces
from tests.verify.test_form import Rows, said


def broken(instance: Instance, solution: Solution, *rows: Constraint) -> Rows:
    """Where, which field, what is found and what is allowed, of constraints alone."""
    found = Findings()
    check_constraints(instance, solution, rows, demand_of(instance, solution), found)
    return said(found)


def least_limit(holds: Callable[[float], bool], near: float) -> float:
    """The least double that is limit enough."""
    while not holds(near):
        near = math.nextafter(near, math.inf)
    while holds(math.nextafter(near, 0.0)):
        near = math.nextafter(near, 0.0)
    return near


# -- constraints ------------------------------------------------------------------------------------------------


def parted(make_instance: Any, by_hand: Any) -> tuple[Instance, Solution]:
    """Three devices, the second left out, with four, one and three of eight sub-carriers and uneven powers."""
    instance = make_instance("ofdma", devices=3, exclusion_penalty=4.0, bandwidth_hz=0.7e6)
    solution = replace(
        by_hand(instance).solution(),
        subcarriers=((0, 2, 5, 7), (1,), (3, 4, 6)),
        power_w=((0.011, 0.002, 0.0031, 0.007), (0.05,), (0.013, 0.0017, 0.0203)),
        selected=np.array([True, False, True]),
    )
    return instance, solution


def taken(instance: Instance, solution: Solution, cap: Any, k: int) -> Fraction:
    """What a device takes of what a cap limits, once more."""
    if cap is ParticipationCap:
        return Fraction(1)
    watts: Any = solution.power_w[k]
    if cap is PowerCap:
        return sum(map(Fraction, watts), Fraction(0)) if isinstance(watts, tuple) else Fraction(watts)
    if instance.access == "ofdma":
        return Fraction(instance.bandwidth_hz) / 8 * len(solution.subcarriers[k] or ())
    return Fraction(float(solution.bandwidth_hz[k]))


@pytest.mark.parametrize("cap", [SpectrumCap, PowerCap, ParticipationCap])
@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_a_sum_is_capped_to_the_last_digit(make_instance: Any, by_hand: Any, access: str, cap: Any) -> None:
    """Of those that take part, each times its coefficient, and no others; 2^-50 of the limit is forgiven."""
    if access == "ofdma":
        instance, solution = parted(make_instance, by_hand)
    else:
        instance = make_instance(devices=3, exclusion_penalty=4.0)
        solution = replace(
            by_hand(instance).solution(), selected=np.array([True, False, True]), power_w=(0.011, 0.023, 0.0507),
            bandwidth_hz=np.array([1.1e5, 2.3e5, 4.7e5]),
        )  # fmt: skip
    for weights in ({"dev-0000": 0.37, "dev-0001": 5.3, "dev-0002": 1.9}, {"dev-0002": 0.7}, None):
        pairs = (
            {0: 1.0, 2: 1.0} if weights is None else {int(d[-1]): c for d, c in weights.items() if d[-1] != "1"}
        )
        exact = sum((Fraction(c) * taken(instance, solution, cap, k) for k, c in pairs.items()), Fraction(0))

        def holds(limit: float, exact: Fraction = exact) -> bool:
            return exact <= Fraction(limit) * (1 + HAIR)

        limit = least_limit(holds, float(exact))
        assert not broken(instance, solution, cap(limit, weights))
        row = cap(math.nextafter(limit, 0.0), weights, "mine")
        found = f"a sum of {float(exact)!r}"
        assert broken(instance, solution, row) == [
            ("mine", row.key, found, f"at most {row.limit!r}, says {row}"),
        ]  # fmt: skip


def test_a_sum_of_just_what_is_forgiven_holds(make_instance: Any, by_hand: Any) -> None:
    instance = make_instance()
    solution = replace(by_hand(instance).solution(), power_w=(1.0 + 2.0**-50, 0.0, 0.0, 0.0))
    assert not broken(instance, solution, PowerCap(1.0, [0]))
    beyond = replace(solution, power_w=(1.0 + 2.0**-50 + 2.0**-52, 0.0, 0.0, 0.0))
    assert [row[0] for row in broken(instance, beyond, PowerCap(1.0, [0]))] == ["PowerCap"]


@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_energies_are_capped_to_the_last_digit(make_instance: Any, by_hand: Any, access: str) -> None:
    if access == "ofdma":
        instance, solution = parted(make_instance, by_hand)
    else:
        instance = make_instance(devices=3, exclusion_penalty=4.0)
        solution = replace(by_hand(instance).solution(), selected=np.array([True, False, True]))
    demand = demand_of(instance, solution)
    with ctx.workprec(400):
        energy = [use_as_balls(instance, solution, demand, k)[1] for k in range(3)]
        spent = arb(0.37) * energy[0] + arb(1.9) * energy[2]
        limit = least_limit(lambda x: bool(spent <= arb(x) * (1 + arb(1) / 2**50)), float(spent.mid()))
    weights = {"dev-0000": 0.37, "dev-0001": 5.3, "dev-0002": 1.9}
    assert not broken(instance, solution, EnergyCap(limit, weights))
    row = EnergyCap(math.nextafter(limit, 0.0), weights, "mine")
    ((where, field, value, allowed),) = broken(instance, solution, row)
    assert (where, field, allowed) == ("mine", "limit_j", f"at most {row.limit!r}, says {row}")
    assert float(value.removeprefix("a sum of ")) == pytest.approx(float(spent.mid()), rel=1e-15)


def test_floors_and_counts_hold_for_each_that_takes_part(make_instance: Any, by_hand: Any) -> None:
    instance, solution = parted(make_instance, by_hand)
    solution = replace(solution, keep=np.array([0.37, 0.1, 0.53]))
    assert not broken(instance, solution, KeepFloor(0.37), SubcarrierCap(4), SubcarrierCap(3, [1, 2]))
    floor, count = KeepFloor(math.nextafter(0.37, 1.0)), SubcarrierCap(3)
    assert broken(instance, solution, floor, count) == [
        ("dev-0000", "keep", "0.37", f"at least {floor.limit!r}, says {floor}"),
        ("dev-0000", "subcarriers", "4 sub-carriers", f"at most 3, says {count}"),
    ]
    assert [row[0] for row in broken(instance, solution, KeepFloor(0.6, [1, 2]), SubcarrierCap(2))] == [
        "dev-0002", "dev-0000", "dev-0002",
    ]  # fmt: skip
    none = replace(solution, keep=np.array([math.nan, 0.1, 0.53]), subcarriers=(None, None, (3, 4, 6)))
    assert [row[:2] for row in broken(instance, none, KeepFloor(0.1), SubcarrierCap(0))] == [
        ("dev-0000", "keep"), ("dev-0002", "subcarriers"),
    ]  # fmt: skip


# -- budgets and claims -----------------------------------------------------------------------------------------


def test_what_doubles_decide_needs_no_bits(make_instance: Any, by_hand: Any) -> None:
    instance = make_instance()
    solution = by_hand(instance).solution()
    check = check_budgets(instance, solution, demand_of(instance, solution))
    assert (check.faults, check.in_balls, check.bits) == ((), 0, 0)
    for k, budget in ((1, "latency_s"), (2, "energy_j")):
        used = float(getattr(solution, budget)[k])
        limit = 0.9 * used
        energies = np.where(np.arange(4) == k, limit, instance.energy_j)
        tight = replace(instance, **{budget: limit if budget == "latency_s" else energies})
        check = check_budgets(tight, solution, demand_of(tight, solution))
        fault = next(fault for fault in check.faults if fault.where == f"dev-000{k}")
        assert (fault.field, fault.allowed) == (budget, f"at most {limit!r}")
        value, over = fault.value.removesuffix(")").split(" (over by ")
        assert float(value) == pytest.approx(used, rel=1e-12)
        assert float(over) == pytest.approx(used - limit, rel=1e-2)
        assert check.bits == 64


@pytest.mark.parametrize(
    ("gain", "watt", "doubtful"),
    [
        (0.0, 0.01, False), (1e-300, 0.01, True), (0.9e-278, 0.01, True), (1.1e-278, 0.01, False),
        (1e-10, 0.0, False), (1e-300, 0.0, False), (1e-10, 1e-271, True), (1e-10, 1e-269, False),
    ],
)  # fmt: skip
def test_a_link_that_loses_digits_is_not_left_to_doubles(
    make_instance: Any, by_hand: Any, gain: float, watt: float, doubtful: bool
) -> None:
    """Beside another that carries the bits; one without gain or power carries none, and loses none."""
    good = make_instance("ofdma")
    gains = good.gain.copy()
    gains[3, 7] = gain
    solution = by_hand(good).solution()
    solution = replace(solution, power_w=(*solution.power_w[:3], (0.02, watt)))
    instance = replace(good, gain=gains)
    check = check_budgets(instance, solution, demand_of(instance, solution))
    assert (check.faults, check.in_balls, check.bits) == (((), 1, 64) if doubtful else ((), 0, 0))


@pytest.mark.parametrize(
    ("field", "value", "doubtful"),
    [
        ("capacitance", 0.0, 0), ("capacitance", 1e-299, 4), ("capacitance", 1e-297, 0), ("energy_j", 0.9e280, 0),
        ("energy_j", 1.1e280, 4), ("latency_s", 1e290, 0),
    ],
)  # fmt: skip
def test_numbers_at_the_ends_of_the_range_are_not_left_to_doubles(
    make_instance: Any, by_hand: Any, field: str, value: float, doubtful: int
) -> None:
    instance = make_instance(**{field: value})
    solution = by_hand(make_instance()).solution()
    assert check_budgets(instance, solution, demand_of(instance, solution)).in_balls == doubtful


def test_work_of_nothing_loses_no_digit(make_instance: Any, by_hand: Any) -> None:
    for cycles, doubtful in ((0.0, 0), (1e-290, 4)):
        instance = make_instance(cycles_fixed=0.0, cycles_lora=cycles)
        solution = by_hand(make_instance()).solution()
        check = check_budgets(instance, solution, demand_of(instance, solution))
        assert (check.faults, check.in_balls) == ((), doubtful)


@pytest.mark.parametrize("claim", [0.37, 3.7, -0.37])
def test_more_digits_are_asked_for_where_little_is_missing(claim: float) -> None:
    """A tenth of the claim at most, or where intervals say nothing."""
    size = abs(claim)
    for value, asked in (
        (claim, False), (claim + 0.01 * size, False), (math.inf, False), (math.nan, False),
        (math.nextafter(claim, -math.inf), True), (claim - 0.099 * size, True), (claim - 0.101 * size, False),
        (-math.inf, True), (claim - 0.1 * size, True),
    ):  # fmt: skip
        assert wants_digits(value, claim) is asked, value


def test_what_a_common_rate_proves_may_be_claimed(make_instance: Any) -> None:
    """All of it, and no more."""
    instance = make_instance(common_keep=True)
    claim = Certificate(instance.name, "common-rate", 0.01, bare_pieces([], []), touch=0.43)
    proved = check_certificate(instance, claim).lower_bound
    assert not check_certificate(instance, replace(claim, lower_bound=proved)).faults
    most = check_certificate(instance, replace(claim, lower_bound=9.0)).lower_bound  # balls prove a little more
    assert proved <= most <= proved * (1.0 + 1e-12)
    for bound, right in ((most, True), (math.nextafter(most, math.inf), False)):
        found = check_certificate(instance, replace(claim, lower_bound=bound))
        assert [fault.field for fault in found.faults] == ([] if right else ["lower_bound"])
        assert found.in_balls == 1 or most == proved


def test_a_bound_of_0_needs_no_proof_and_one_above_it_does(make_instance: Any) -> None:
    instance = make_instance()
    for bound, right in ((0.0, True), (-0.37, True), (5e-324, False)):
        empty = Certificate(instance.name, "prices", bound, bare_pieces([], []))
        assert (not check_certificate(instance, empty).faults) is right
    node = Certificate(instance.name, "prices", 0.0, bare_pieces([], []), (Node(),))
    assert check_certificate(instance, node).faults


def test_the_gap_of_the_excess_is_0_where_the_free_minimum_is_attained() -> None:
    """To 1e-12 of the objective, whatever its sign, and not beyond."""
    for upper in (0.37, -3.7):
        size = abs(upper)
        assert gap_of_excess(None, upper, upper - 0.9e-12 * size) == 0.0
        assert gap_of_excess(0.2, upper, upper + 0.1) == 0.0
        assert gap_of_excess(0.2, upper, upper - 1.1e-12 * size) == pytest.approx(0.2 / (1.1e-12 * size), rel=1e-2)
        assert gap_of_excess(0.2, upper, upper - 0.25) == pytest.approx(0.8, rel=1e-12)
        assert gap_of_excess(None, upper, upper - 0.25) is None


@pytest.mark.parametrize(("underfit", "slack"), [("inverse-keep", 1e-12), ("logistic", 1e-9)])
def test_only_a_feasible_allocation_speaks_against_a_bound(
    make_instance: Any, underfit: Any, slack: float
) -> None:
    term = UnderfitLogistic(0.3, 2.5) if underfit == "logistic" else None
    instance = make_instance(bound=BoundSpec(underfit, underfit_logistic=term))
    report = Report("cell", "by-hand", "feasible", (), objective=0.37, feasible=True)
    assert exceeds(0.37 * (1.0 + 1.1 * slack), report, instance)
    assert not exceeds(0.37 * (1.0 + 0.9 * slack), report, instance)
    assert not exceeds(9.0, replace(report, feasible=False), instance)
    assert not exceeds(9.0, replace(report, objective=None), instance)


# -- records ----------------------------------------------------------------------------------------------------


class Kinds:
    """Records of the checker that are not frozen, or compared by their content."""

    COLLECTING: ClassVar[set[str]] = {"Findings", "_Layout", "_Judge", "_Exact", "Found", "Budget"}
    COMPARED: ClassVar[set[str]] = {
        "Findings", "Report", "_Part", "Region", "Proof", "Box", "Cut", "OwnerCut", "Node", "CurveTerms",
        "NeededTerms",
    }  # fmt: skip


def test_records_are_frozen_and_compared_by_identity_but_for_some() -> None:
    """Arrays have no equality of their own, and what was checked is not to change under the checker's hands."""
    seen = set()
    for room in (edgealloc.verify, edgealloc.certificate):
        for entry in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            module = importlib.import_module(entry.name)
            for name, kind in inspect.getmembers(module, is_dataclass):
                if not inspect.isclass(kind) or kind.__module__ != entry.name:
                    continue
                seen.add(name)
                assert ("__eq__" in vars(kind)) is (name in Kinds.COMPARED), name
                assert ("__setattr__" in vars(kind)) is not (name in Kinds.COLLECTING), name
                assert "__slots__" in vars(kind), name
    assert seen > Kinds.COLLECTING | Kinds.COMPARED


# -- sub-carriers, blocks, reports --------------------------------------------------------------------------------


def test_a_sub_carrier_has_one_owner_and_who_does_not_own_it_is_known(make_instance: Any) -> None:
    region = Region.root(make_instance("ofdma", 3, 4))
    for cut in (OwnerCut(1, 2, True), OwnerCut(0, 3, False), OwnerCut(2, 0, False)):
        region = region.meet(cut)
    fixed = region.fixed(make_instance("ofdma", 3, 4))
    assert fixed.tolist() == [[-1, -1, 0, 0], [-1, -1, 1, -1], [0, -1, 0, -1]]


def test_a_block_more_is_there_when_a_few_ulps_lack(make_instance: Any) -> None:
    for n in (3, 7, 29, 6007):
        band = 1.08e6
        for block, there in (
            (band / n, n), (band / n * (1.0 + 2.0**-51), n), (band / n * (1.0 + 2.0**-48), n - 1),
            (band / n * (1.0 - 2.0**-30), n),
        ):  # fmt: skip
            assert blocks_there(make_instance("rb", 2, bandwidth_hz=band, block_hz=block)) == there, (n, block)


def test_a_report_says_how_many_faults_it_does_not_show() -> None:
    faults = tuple(Fault("dev", "keep", k, "less") for k in range(InputError.MAX_SHOWN + 3))
    assert "... and 3 more" in str(Report("cell", "bnb", "optimal", faults))
    assert "more" not in str(Report("cell", "bnb", "optimal", faults[:-3]))


def test_each_reason_alone_leaves_a_device_unserved(make_instance: Any) -> None:
    """The time after computing, the heat of the least frequency, and all heat of what time there is."""
    cell = make_instance("ofdma", 1, 4, energy_static_j=0.0, cycles_fixed=3e9, cycles_lora=1e9)
    work = 3e9 + 0.37e9
    cases: list[tuple[dict[str, float], float]] = []
    for side in (1.0 - 1e-6, 1.0 + 1e-6):
        heat = 1e-28 * 1e9**2 * work
        cases += [
            ({"freq_max_hz": work / 2.0, "freq_min_hz": 1.0, "latency_s": 2.0 * side, "energy_j": 1e3}, side),
            ({"freq_min_hz": 1e9, "freq_max_hz": 4e9, "latency_s": 1e3, "energy_j": heat * side}, side),
            (
                {
                    "freq_min_hz": 1.0,
                    "freq_max_hz": 1e12,
                    "latency_s": 5.0,
                    "energy_j": 1e-28 * work**3 / 25.0 * side,
                },
                side,
            ),
        ]
    for changes, side in cases:
        one = cell.with_changes(capacitance=1e-28, downlink_bps=math.inf, **changes)
        with np.errstate(all="ignore"):
            model = Model.of(one, Intervals, False)
            plane = needs(
                model.rows.take(np.zeros(1, np.intp)), model.radio.watt(np.array([1e-3])), np.array([0.37])
            )
        assert bool(plane.unserved[0]) is (side < 1.0), (changes, side)


def test_a_leaf_at_fault_proves_nothing() -> None:
    """Whatever the others do."""
    honest = proof_of("two by four")
    cell, certificate = honest.instance, certificate_from_dict(honest.data)
    assert isinstance(certificate, SubcarrierCertificate)
    proved = check_certificate(cell, certificate)
    assert not proved.faults
    assert proved.lower_bound >= certificate.lower_bound > 0.0
    last = certificate.nodes[-1]
    assert last.least is not None
    more = replace(last, least=last.least + 0.37)
    spoilt = check_certificate(cell, replace(certificate, nodes=(*certificate.nodes[:-1], more)), every=True)
    assert spoilt.faults
    assert spoilt.lower_bound == -math.inf
