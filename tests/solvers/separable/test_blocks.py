"""How many resource blocks a band has: one rule for methods, model, diagnosis and checkers (docs/files.md)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edgealloc.api import solve
from edgealloc.data.allocation import Allocation
from edgealloc.data.outcome import Status
from edgealloc.files.instance import load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.radio import block_count
from edgealloc.formulation.result import Result
from edgealloc.solvers.base import Options
from edgealloc.solvers.certify.write import certified
from edgealloc.solvers.exact import solve_bnb
from edgealloc.solvers.psca.model import Model
from edgealloc.solvers.separable.choices import Choices
from edgealloc.solvers.separable.plans import plan_of
from edgealloc.verify.blocks import blocks_there
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.model import budget_hz
from edgealloc.verify.solution import verify


def _counts(instance) -> set[int]:
    """Blocks of a band by the model, the checker, the proof checker, ``bnb`` and P-SCA."""
    problem, width = Problem(instance), instance.block_hz
    return {
        block_count(instance.bandwidth_hz, width), blocks_there(instance), math.floor(budget_hz(instance) / width),
        math.floor(Choices.of(problem).limit_hz / width), Model.of(problem).blocks,
    }  # fmt: skip


@pytest.mark.parametrize("count", [80, pytest.param(300, marks=pytest.mark.slow)])
def test_the_nth_part_of_a_band_fits_n_times(make_instance, count):
    rng = np.random.default_rng(1)
    short = 0  # n of the doubles B / n are more than B
    for _ in range(count):
        n, band = int(rng.integers(1, 3000)), float(10.0 ** rng.uniform(4, 8))
        width = band / n
        short += Fraction(width) * n > Fraction(band)
        assert _counts(make_instance("rb", 1, bandwidth_hz=band, block_hz=width)) == {n}, (band, n)
        assert _counts(make_instance("rb", 1, bandwidth_hz=n * width, block_hz=width)) == {n}
        if n > 1:
            wider = width * (1.0 + 1e-12)
            assert _counts(make_instance("rb", 1, bandwidth_hz=band, block_hz=wider)) == {n - 1}
    assert short > count // 4


@pytest.mark.parametrize("count", [60, pytest.param(150, marks=pytest.mark.slow)])
def test_n_blocks_fit_though_their_doubles_sum_to_more(make_instance, count):
    """And one block more does not, for the model and the checker alike."""
    rng, over = np.random.default_rng(2), 0
    for _ in range(count):
        n, k = int(rng.integers(6, 60)), 4
        band = n * float(rng.uniform(1e5, 2e5))
        instance = make_instance("rb", k, bandwidth_hz=band, block_hz=band / n)
        problem, width = Problem(instance), band / n
        held = rng.multinomial(n - k, np.ones(k) / k) + 1.0
        over += math.fsum(held * width) > band
        plain = {"keep": np.full(k, 0.05), "freq_hz": np.full(k, 1e9), "power_w": instance.power_max_w / 2}
        allocation = Allocation(**plain, bandwidth_hz=held * width)
        assert problem.violations(allocation) == ()
        assert plan_of(Choices.of(problem), allocation) is not None
        report = verify(instance, _stated(problem, allocation))
        assert report.feasible, str(report)
        held[0] += 1.0
        many = Allocation(**plain, bandwidth_hz=held * width)
        assert [v.constraint for v in problem.violations(many)] == ["bandwidth_hz"]
        assert not verify(instance, _stated(problem, many)).feasible
    assert over >= count // 19


def _stated(problem, allocation):
    value = problem.evaluate(allocation).objective
    return Result(
        problem, "by-hand", Status.FEASIBLE, value, problem.free_objective, problem.free_objective, allocation, 0.0
    ).solution()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7])
def test_a_block_each_is_solved_and_one_device_more_diagnosed(make_instance, n):
    """Solver, checker, proof checker and diagnosis draw the line at n devices in B / n Hz each."""
    rng = np.random.default_rng(n)
    for _ in range(6):
        band = n * float(rng.uniform(1e5, 2e5))
        fits = make_instance("rb", n, bandwidth_hz=band, block_hz=band / n)
        result = solve_bnb(Problem(fits), Options(time_limit=20.0))
        assert result.status is Status.OPTIMAL, result.message
        result, certificate = certified(result)
        assert verify(fits, result.solution()).ok
        assert not check_certificate(fits, certificate).faults
        less = fits.with_changes(block_hz=band / n * (1.0 - 1e-10))
        assert result.objective == pytest.approx(solve_bnb(Problem(less)).objective, rel=1.1e-4)
        crowd = make_instance("rb", n + 1, bandwidth_hz=band, block_hz=band / n)
        result = solve_bnb(Problem(crowd), Options(time_limit=20.0))
        assert result.status is Status.INFEASIBLE
        (finding,) = result.diagnosis
        assert finding.required == pytest.approx(band * (n + 1) / n, rel=1e-14)
        assert f"need {n + 1} blocks" in finding.message
        assert f"there are {n};" in finding.message
        assert verify(crowd, result.solution()).ok
        rescued = crowd.with_changes(bandwidth_hz=finding.required)
        assert solve_bnb(Problem(rescued)).status is Status.OPTIMAL
        short = crowd.with_changes(bandwidth_hz=finding.required * (1.0 - 1e-9))
        assert solve_bnb(Problem(short)).status is Status.INFEASIBLE


@pytest.mark.parametrize("name", ["rb_block_ulp", "seed949", "seed59"])
def test_bands_that_were_counted_differently(faults, name):
    instance = load_instance(faults / f"{name}.json")
    narrower = instance.with_changes(block_hz=instance.block_hz * (1.0 - 1e-11))
    result, other = (solve(case, method="bnb", time_limit=60.0) for case in (instance, narrower))
    assert result.status is other.status is Status.OPTIMAL
    assert verify(instance, result.solution()).ok
    assert result.objective == pytest.approx(other.objective, rel=2.1e-4)
    assert result.objective <= solve(instance, method="psca").objective * (1.0 + 1.1e-4)
