"""Constraints at the door: what is refused by which name, what the instance says itself, starts, comparisons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

import edgealloc
from edgealloc import (
    EnergyCap,
    KeepFloor,
    ParticipationCap,
    PowerCap,
    Problem,
    SpectrumCap,
    SubcarrierCap,
    conformance,
)
from edgealloc.bench.own import own_suite
from edgealloc.bench.sweep import BenchOptions, run_suite
from edgealloc.cli.app import main
from edgealloc.data.constraints import Cap, Constraint, fitted
from edgealloc.data.outcome import Status
from edgealloc.errors import InputError, MissingPackageError, RefusedError
from edgealloc.files.constraints import save_constraints
from edgealloc.files.instance import save_instance
from edgealloc.formulation.result import Result
from edgealloc.methods import METHODS
from edgealloc.verify.folding import with_constraints
from edgealloc.verify.solution import verify


@dataclass(frozen=True, slots=True)
class LatencyCap(Cap):
    """A kind that nobody here knows."""

    limit_s: float
    devices: Any = None
    name: str = ""
    kind: ClassVar[str] = "latency"
    key: ClassVar[str] = "limit_s"


def test_a_kind_of_ones_own_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"LatencyCap.*SpectrumCap"):
        edgealloc.solve(conformance.cell(), lambda p, o: None, constraints=[LatencyCap(1.0)])  # type: ignore[arg-type]


def test_one_device_may_be_given_as_numpy_has_it() -> None:
    instance = conformance.cell()
    for given in (np.array(1), np.int64(1), np.array(["dev-0001"])[0], np.array([1])):
        (row,) = fitted([KeepFloor(0.1, given)], instance)
        assert row.devices == ("dev-0001",)
    with pytest.raises(InputError, match="devices"):
        fitted([KeepFloor(0.1, np.array(1.5))], instance)


def test_limits_stay_what_they_were_given_as() -> None:
    (row,) = fitted([SubcarrierCap(3, [0])], conformance.ofdma())
    assert isinstance(row, SubcarrierCap)
    assert isinstance(row.limit_subcarriers, int)
    assert row == SubcarrierCap(3, ("dev-0000",))


def test_a_floor_above_what_a_shared_rate_may_be_is_the_floors_fault() -> None:
    high = np.full(conformance.cell().num_devices, 1.0)
    high[1] = 0.4
    instance = conformance.cell(common_keep=True, keep_max=high)
    with pytest.raises(InputError, match=r"my floor: keep_min = 0.5; allowed: at most 0.4.*dev-0001.*common_keep"):
        edgealloc.solve(instance, constraints=[KeepFloor(0.5, [0], "my floor")])


@pytest.mark.parametrize("method", ["auto", "bnb", "highs", "psca", "baseline:equal"])
@pytest.mark.parametrize("row", [ParticipationCap(1, name="mine"), SpectrumCap(0.0, [1], "mine")])
def test_what_no_allocation_meets_is_infeasible_with_the_reason(method: str, row: Constraint) -> None:
    instance = conformance.cell()
    try:
        result = edgealloc.solve(instance, method, constraints=[row])
    except RefusedError:
        assert method in ("psca", "baseline:equal")
        return
    assert result.status is Status.INFEASIBLE
    assert "'mine'" in result.message
    assert "exclusion_penalty" in result.message
    assert (
        edgealloc.solve(instance.with_changes(exclusion_penalty=2.0), constraints=[row]).status is Status.OPTIMAL
    )


def test_caps_on_single_devices_are_budgets_of_the_instance() -> None:
    instance = conformance.cell()
    free = edgealloc.solve(instance, rel_gap=1e-8)
    assert free.allocation is not None
    watt = 0.5 * float(free.allocation.power_w[0])
    rows = [PowerCap(3.0 * watt, {0: 3.0}), EnergyCap(0.7 * float(instance.energy_j[1]), [1])]
    power, energy = instance.power_max_w.copy(), instance.energy_j.copy()
    power[0], energy[1] = watt, 0.7 * energy[1]
    want = edgealloc.solve(instance.with_changes(power_max_w=power, energy_j=energy), rel_gap=1e-8)
    for method in ("auto", "bnb", "psca"):
        got = edgealloc.solve(instance, method, constraints=rows, rel_gap=1e-7)
        assert got.allocation is not None, got.message
        assert got.objective == pytest.approx(want.objective, rel=2e-3 if method == "psca" else 2e-7)
        assert got.lower_bound <= want.objective * (1 + 1e-12)
        assert verify(instance, got.solution(), constraints=rows, rel_gap=1e-6).ok


def test_the_checker_folds_outwards_and_by_itself() -> None:
    """In exact arithmetic: what a constraint allows, the folded instance allows."""
    from fractions import Fraction

    instance, rng = conformance.cell(), np.random.default_rng(5)
    for _ in range(200):
        limit, c = float(rng.uniform(0.001, 0.05)), float(rng.uniform(0.6, 3.0))
        rows = fitted([PowerCap(limit, {0: c}), KeepFloor(0.3, [1])], instance)
        theirs, ours = with_constraints(instance, rows), Problem(instance, constraints=rows).tightened.instance
        allowed = Fraction(limit) * (1 + Fraction(1, 2**50)) / Fraction(c)
        assert Fraction(float(ours.power_max_w[0])) <= allowed <= Fraction(float(theirs.power_max_w[0]))
        assert float(theirs.power_max_w[0]) <= np.nextafter(ours.power_max_w[0], 1.0)
        assert theirs.keep_min[1] == ours.keep_min[1] == 0.3


@pytest.mark.parametrize("method", ["convex", "bnb", "highs", "psca", "psca+", "baseline:equal"])
def test_a_warm_start_serves_under_constraints(method: str) -> None:
    """One that breaks a floor or a cap is no allocation of the problem; one that meets them is not lost."""
    instance = conformance.cell()
    free = edgealloc.solve(instance)
    assert free.allocation is not None
    rows: list[Constraint] = [KeepFloor(min(1.0, 1.05 * float(free.allocation.keep[0])), [0])]
    if method in ("convex", "bnb", "highs"):
        rows.append(SpectrumCap(0.3 * instance.bandwidth_hz, [1, 2], "slice"))
    sharp = edgealloc.solve(instance, constraints=rows, rel_gap=1e-6)
    assert sharp.allocation is not None
    for start in (free.allocation, sharp.allocation):
        got = edgealloc.solve(instance, method, constraints=rows, warm_start=start, rel_gap=1e-5)
        assert got.allocation is not None, got.message
        assert not got.problem.violations(got.allocation)
        assert got.lower_bound <= sharp.objective * (1 + 1e-12)
        if method in ("convex", "bnb"):
            assert got.status is Status.OPTIMAL
            assert got.objective <= sharp.objective * (1 + 2e-5)


def test_a_warm_start_serves_under_caps_on_sub_carriers() -> None:
    instance = conformance.ofdma()
    free = edgealloc.solve(instance, rel_gap=1e-3)
    rows = [SubcarrierCap(3), KeepFloor(0.02, [0])]
    sharp = edgealloc.solve(instance, constraints=rows, rel_gap=1e-3)
    for start in (free.allocation, sharp.allocation):
        got = edgealloc.solve(instance, "bnb", constraints=rows, warm_start=start, rel_gap=1e-3)
        assert got.allocation is not None
        assert not got.problem.violations(got.allocation)
        assert got.objective <= sharp.objective * (1 + 1e-3)


def test_compare_returns_refusals_beside_results(monkeypatch: pytest.MonkeyPatch) -> None:
    instance, row = conformance.cell(), SpectrumCap(0.3 * conformance.cell().bandwidth_hz, [0, 1])
    found = edgealloc.compare(instance, ["convex", "psca"], constraints=[row])
    assert [result.method for result in found] == ["convex"]
    ((name, why),) = found.refused
    assert name == "psca"
    assert isinstance(why, RefusedError)
    assert "psca: refused" in repr(found)
    with pytest.raises(RefusedError):
        edgealloc.compare(instance, ["psca"], constraints=[row])
    assert not edgealloc.compare(instance, ["psca", "baseline:equal"], constraints=[row])
    monkeypatch.setitem(METHODS, "cvxpy", replace(METHODS["cvxpy"], package="no_such_package"))
    absent = edgealloc.compare(instance, ["cvxpy", "convex"])
    assert [result.method for result in absent] == ["convex"]
    assert isinstance(absent.refused[0][1], MissingPackageError)


def test_a_bench_takes_constraints(tmp_path: Path) -> None:
    instance = conformance.cell()
    save_instance(instance, tmp_path / "cell.json")
    rows = Problem(instance, constraints=[SpectrumCap(0.2 * instance.bandwidth_hz, [0, 1], "slice")]).constraints
    save_constraints(rows, tmp_path / "rows.json")
    suite = own_suite([tmp_path / "cell.json"])
    options, plain = BenchOptions(backend="sequential"), suite
    capped = replace(suite, cases=tuple(replace(case, constraints=rows) for case in suite.cases))
    free = run_suite(plain, tmp_path / "out", ("auto",), options)
    under = run_suite(capped, tmp_path / "out", ("auto", "psca"), options)  # the same folder: no row is mistaken
    assert under["objective"][0] > free["objective"][0] * (1 + 1e-4)
    assert under["verified"][0]
    assert list(under["status"]) == ["optimal", "refused"]
    arguments = [
        "bench",
        str(tmp_path / "cell.json"),
        "--constraints",
        str(tmp_path / "rows.json"),
        "--no-figures",
    ]
    ran = CliRunner().invoke(main, [*arguments, "--methods", "auto", "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output


def test_whether_an_ofdma_cell_is_infeasible_by_itself_is_said_or_left_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = conformance.ofdma()
    result = edgealloc.solve(instance, constraints=[KeepFloor(0.95)])
    assert result.status is Status.INFEASIBLE
    assert result.diagnosis[0].budget == "constraints"
    assert "not decided" not in result.message

    from edgealloc.solvers import exact

    def slow(problem: Problem, options: Any = None) -> Result:
        found = real(problem, options)
        if problem.instance.keep_min.max() > 0.9:
            return found
        return replace(found, status=Status.NO_SOLUTION, allocation=None)  # the cell alone, out of time

    real = exact.solve_bnb
    monkeypatch.setattr(exact, "solve_bnb", slow)
    open_still = edgealloc.solve(instance, constraints=[KeepFloor(0.95)])
    assert open_still.status is Status.INFEASIBLE
    assert "not decided in" in open_still.message


def test_outside_claims_under_constraints_say_whose_bound_it_is() -> None:
    instance = conformance.cell()
    row = SpectrumCap(0.3 * instance.bandwidth_hz, [0, 1])
    result = edgealloc.solve(instance, "highs", constraints=[row])
    assert "HiGHS' own" in result.message
    report = verify(instance, result.solution())
    assert any("not proved" in note for note in report.notes)


@pytest.mark.parametrize("kind", [EnergyCap, PowerCap, SpectrumCap])
def test_the_checker_notices_a_cap_that_is_broken_by_little(kind: type[Cap]) -> None:
    """Just above what is used a cap holds; a millionth below it does not."""
    instance = conformance.cell()
    result = edgealloc.solve(instance)
    assert result.allocation is not None
    use = result.problem.evaluate(result.allocation)
    used = {
        EnergyCap: use.energy_j,
        PowerCap: result.allocation.power_w,
        SpectrumCap: result.allocation.bandwidth_hz,
    }
    total = float(np.sum(used[kind][:2]))
    for share, holds in ((1.0 + 1e-9, True), (1.0 - 1e-6, False)):
        report = verify(instance, result.solution(), constraints=[kind(share * total, [0, 1])])
        assert report.ok is holds, report.faults
