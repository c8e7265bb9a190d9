"""Certificates: what solvers prove is proved again without them, and nothing that is corrupted passes."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from flint import ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from edgealloc import solve
from edgealloc.certificate.file import certificate_from_dict, save_certificate
from edgealloc.certificate.prices import Certificate, seal
from edgealloc.cli.app import main
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import EdgeallocError
from edgealloc.files.instance import load_instance, save_instance
from edgealloc.formulation.result import Result
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.enclosures import Balls, Intervals
from edgealloc.verify.solution import verify_files
from tests.solvers.fdma.random_instances import random_fdma
from tests.solvers.separable.test_brute_force import random_instance
from tests.verify.spoiling import refused

CONVEX = [
    "fdma-2-s1", "fdma-5-s2", "fdma-10-s1", "fdma-10-ample-s1", "fdma-20-s2", "fdma-20-device-s1",
    "fdma-20-head-downlink-s1", "fdma-100-s1", "fdma-1000-s1",
]  # fmt: skip
SEARCHED = [
    "fdma-20-levels-s1", "fdma-20-levels-s2", "fdma-20-perturbation-s2", "rb-10-s2", "fdma-10-s1",
    pytest.param("rb-10-s1", marks=pytest.mark.slow),
]  # fmt: skip


def tight(make: Callable[..., Instance], **changes: Any) -> Instance:
    """An instance whose spectrum, energy and power bind."""
    scarce = {"bandwidth_hz": 1e4, "energy_j": np.array([1.0, 1.1, 1.2, 3.0]), "latency_s": 16.0}
    return make(devices=4, **{**scarce, **changes})


def proved(instance: Instance, rel_gap: float = 1e-9) -> tuple[Result, Certificate]:
    """The optimum with its certificate, by way of its file."""
    result = solve(instance, "convex", rel_gap=rel_gap)
    assert result.status is Status.OPTIMAL
    lowered, certificate = certified(result, rel_gap)
    assert result.lower_bound - 1e-11 * abs(result.lower_bound) <= lowered.lower_bound <= result.lower_bound
    return lowered, certificate_from_dict(json.loads(json.dumps(certificate.to_file())))


@pytest.mark.parametrize("name", CONVEX)
def test_public_cases_are_proved(cases: Path, name: str) -> None:
    instance = load_instance(cases / f"{name}.json")
    result, certificate = proved(instance)
    proof = check_certificate(instance, certificate)
    assert not proof.faults
    assert result.lower_bound <= proof.lower_bound <= result.objective


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("scarce", [False, True])
def test_every_form_of_the_convex_method(make_instance: Any, pooling: Any, common: bool, scarce: bool) -> None:
    changes = {} if scarce else {"bandwidth_hz": 1e9}
    instance = tight(make_instance, bound=BoundSpec(pooling=pooling), common_keep=common, **changes)
    result, certificate = proved(instance)
    assert certificate.kind == ("common-rate" if common else "prices")
    assert check_certificate(instance, certificate).lower_bound <= result.objective


def test_random_instances_are_proved() -> None:
    """Budgets over orders of magnitude, every limit binding somewhere: no proof exceeds a feasible objective."""
    count, limits = 0, set[int]()
    for seed in (*range(100), 290):  # the first whose power and energy bind together
        instance = random_fdma(np.random.default_rng(seed), common_keep=seed % 3 == 0)
        result = solve(instance, "convex", rel_gap=1e-9)
        if not result.status.has_allocation:
            continue
        lowered, certificate = certified(result, 1e-9)
        proof = check_certificate(instance, certificate)
        assert not proof.faults
        assert lowered.lower_bound >= result.lower_bound * (1 - 1e-10)
        assert proof.lower_bound <= result.objective
        count += 1
        limits |= set(certificate.pieces.line.limit.tolist())
    assert count >= 10
    assert limits == {0, 1, 2, 3}


@pytest.mark.parametrize("name", SEARCHED)
def test_searches_of_public_cases_are_proved(cases: Path, name: str) -> None:
    instance = load_instance(cases / f"{name}.json")
    result = solve(instance, "bnb", rel_gap=1e-6)
    lowered, certificate = certified(result, 1e-6)
    assert lowered.lower_bound == result.lower_bound
    again = certificate_from_dict(json.loads(json.dumps(certificate.to_file())))
    proof = check_certificate(instance, again)
    assert not proof.faults
    assert result.lower_bound <= proof.lower_bound <= result.objective


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_searches_of_every_variant_are_proved(common: bool, part: int) -> None:
    """Levels, menus, selection, blocks, perturbation and curves, mixed at random."""
    count, curves = 0, 0
    for seed in range(45 // part):
        instance = random_instance(seed, common=common)
        result = solve(instance, "bnb", rel_gap=1e-6, time_limit=20.0)
        if not result.status.has_allocation:
            continue
        lowered, certificate = certified(result, 1e-6)
        proof = check_certificate(instance, certificate)
        assert not proof.faults
        assert lowered.lower_bound >= result.lower_bound * (1 - 1e-9)
        assert proof.lower_bound <= result.objective * (1 + 1e-12)
        count += 1
        curves += instance.bound.underfit == "curve"
    assert count >= 25 // part
    assert curves >= 12 // part


def test_a_hopeful_bound_is_not_proved(make_instance: Any) -> None:
    """A bound above the optimum by a tenth of the gap has no certificate."""
    instance = tight(make_instance)
    result, certificate = proved(instance)
    hopeful = replace(certificate, lower_bound=result.objective * (1 + 1e-12))
    assert check_certificate(instance, hopeful).faults


def test_what_has_no_certificate_is_said_so(make_instance: Any) -> None:
    for method in ("psca", "baseline:equal"):
        with pytest.raises(EdgeallocError, match=r"no certificate|no lower bound"):
            certified(solve(tight(make_instance), method))


def test_infeasible_results_are_proved(make_instance: Any, cases: Path) -> None:
    """A single device, too little spectrum, whole blocks, one common rate: by the file, which claims no bound."""
    scarce: dict[str, Any] = {"bandwidth_hz": 2e3, "keep_min": 0.3, "devices": 4}
    instances = [
        load_instance(cases / "fdma-10-infeasible-deadline-s1.json"), make_instance(latency_s=3.0),
        make_instance(**scarce), make_instance(**scarce, common_keep=True),
        make_instance(**scarce, access="rb", block_hz=500.0),
    ]  # fmt: skip
    for instance in instances:
        result = solve(instance)
        assert result.status is Status.INFEASIBLE
        data = json.loads(json.dumps(certified(result)[1].to_file()))
        assert data["lower_bound"] is None
        assert not refused(instance, data)
        roomy = replace(instance, bandwidth_hz=1e12, latency_s=1e6, energy_j=np.full(instance.num_devices, 1e6))
        assert refused(roomy, data)


# -- corruption -------------------------------------------------------------------------------------------------


# -- numbers ----------------------------------------------------------------------------------------------------

reals = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(reals, reals), min_size=1, max_size=5))
def test_intervals_hold_what_balls_say(pairs: list[tuple[float, float]]) -> None:
    """Every operation: the ball lies inside the interval. At 2400 bits no sum of doubles is rounded."""
    x, y = np.array(pairs).T
    with ctx.workprec(2400), np.errstate(all="ignore"):
        results = []
        for kind in (Intervals, Balls):
            a, b = kind.of(x), kind.of(y)
            c = a * a + 1.0
            arithmetic = [a + b, a - b, a * b, a / b, -a, 2.0 - a, 1.0 / a, a.total()]
            results.append([*arithmetic, c.log(), c.sqrt(), (a / 1e5).exp(), (a / 1e5).expm1()])
        for interval, ball in zip(*results, strict=True):
            assert np.all(interval.lower() <= ball.upper())
            assert np.all(interval.upper() >= ball.lower())
            middle = np.array([float(v.mid()) for v in np.ravel(ball.values)])
            known = np.isfinite(middle) & np.isfinite(ball.lower()).ravel()
            assert np.all(np.ravel(interval.lower())[known] <= middle[known])
            assert np.all(np.ravel(interval.upper())[known] >= middle[known])


def test_ends_beyond_doubles_are_no_matter_for_a_warning() -> None:
    """0 times infinity, sums of opposite infinities, ends beyond doubles: nothing is known, quietly."""
    largest = np.finfo(float).max
    low = np.array([0.0, 0.0, -np.inf, largest, -largest, 5e-324])
    one = Intervals(low, np.array([0.0, np.inf, np.inf, largest, 1.0, 1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for some in (one.take([0]), one):
            for other in (one, -one, one * one):
                for found in (some + other, some - other, some * other, some / other, other.total()):
                    assert np.all(found.lower() <= found.upper())
        for name in ("exp", "expm1", "log", "sqrt", "total"):
            getattr(one, name)()
        assert np.isneginf((one.take([0]) * one.take([1])).lower())


def test_what_is_not_known_is_infinite() -> None:
    for kind in (Intervals, Balls):
        with np.errstate(all="ignore"):
            values = kind.of([1.0, -1.0, 0.0])
            for unknown in ((values - 1.0).log().take([0, 1]), 1.0 / (values * 0.0), values.log().take([1, 2])):
                assert np.all(np.isneginf(unknown.lower()))
                assert np.all(np.isposinf(unknown.upper()))


# -- command line -----------------------------------------------------------------------------------------------


def test_command_line(make_instance: Any, tmp_path: Path) -> None:
    case, solution, proof = (tmp_path / f"{name}.json" for name in ("case", "solution", "proof"))
    save_instance(tight(make_instance), case)
    runner = CliRunner()
    made = runner.invoke(main, ["solve", str(case), "--out", str(solution), "--certificate", str(proof)])
    assert made.exit_code == 0, made.output
    fine = runner.invoke(main, ["verify", str(case), str(solution), "--certificate", str(proof)])
    assert fine.exit_code == 0
    assert "lower_bound proved" in fine.output
    data = json.loads(proof.read_text())
    data["nodes"][0]["price_per_hz"] *= 1.1
    proof.write_text(json.dumps(data))
    damaged = runner.invoke(main, ["verify", str(case), str(solution), "--certificate", str(proof)])
    assert damaged.exit_code == 1
    assert "sha256" in damaged.output
    data["sha256"] = seal(data)
    proof.write_text(json.dumps(data))
    forged = runner.invoke(main, ["verify", str(case), str(solution), "--certificate", str(proof)])
    assert forged.exit_code == 1
    assert "nodes[0]" in forged.output


def test_a_solution_may_not_claim_more_than_its_certificate(make_instance: Any, tmp_path: Path) -> None:
    instance = tight(make_instance)
    result, certificate = proved(instance)
    case, solution, proof = (tmp_path / f"{name}.json" for name in ("case", "solution", "proof"))
    save_instance(instance, case)
    result.save(solution)
    weaker = replace(certificate, lower_bound=certificate.lower_bound * (1 - 1e-6))
    save_certificate(weaker, proof)
    report = verify_files(case, solution, proof)
    assert [fault.field for fault in report.faults] == ["lower_bound"]
    save_certificate(certificate, proof)
    assert verify_files(case, solution, proof).ok
