"""Baselines: within all budgets, true to their name, never better than the optimum, and honest when infeasible."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.api import solve
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.methods import METHODS
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.baselines import BASELINES
from edgealloc.verify.solution import verify


def cell(access: str, seed: int = 2, **options: object) -> Instance:
    m = 16 if access == "ofdma" else None
    drawn = CellOptions(devices=4, access=access, subcarriers=m, **options)  # type: ignore[arg-type]
    return make_cell(drawn, np.random.default_rng(seed)).instance


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
@pytest.mark.parametrize("name", BASELINES)
def test_feasible_or_says_so(access: str, name: str) -> None:
    problem = Problem(cell(access, reference_keep=0.5).with_changes(name=f"{access}-roomy"))
    result = solve(problem, f"baseline:{name}", seed=1)
    reference = solve(problem, "psca+")
    if result.status is Status.LOCALLY_SOLVED:
        assert verify(problem.instance, result.solution()).ok
        assert result.objective >= reference.objective * (1.0 - 2e-3)  # psca+ is near the optimum, not at it
    else:
        assert result.status is Status.NO_SOLUTION
        assert result.allocation is None
        assert "no feasible allocation" in result.message


def test_most_are_feasible_with_room() -> None:
    problem = Problem(cell("fdma", reference_keep=0.5).with_changes(bandwidth_hz=1e7))
    results = {name: solve(problem, f"baseline:{name}") for name in BASELINES}
    feasible = {name for name, r in results.items() if r.status is Status.LOCALLY_SOLVED}
    assert {"common", "equal", "best-channel", "spectrum-only", "alternating", "random"} <= feasible


def test_true_to_their_names() -> None:
    inst = cell("fdma").with_changes(bandwidth_hz=20 * cell("fdma").bandwidth_hz)
    for name, keep in (("dropout-0.5", 0.5), ("dropout-0.3", 0.7)):
        result = solve(inst, f"baseline:{name}")
        assert result.allocation is not None, result.message
        np.testing.assert_allclose(result.allocation.keep, keep, rtol=0, atol=1e-15)
    common = solve(inst, "baseline:common").allocation
    assert common is not None
    assert np.ptp(common.keep) == 0.0
    equal = solve(inst, "baseline:equal").allocation
    assert equal is not None
    assert equal.bandwidth_hz is not None
    np.testing.assert_allclose(equal.bandwidth_hz, inst.bandwidth_hz / 4, rtol=1e-12)
    turns = solve(cell("ofdma"), "baseline:equal").allocation
    if turns is not None:
        np.testing.assert_array_equal(turns.owner, np.arange(16) % 4)


def test_common_is_the_best_common_rate() -> None:
    inst = cell("fdma", seed=5)
    exact = solve(inst.with_changes(common_keep=True), "convex", rel_gap=1e-8)
    assert solve(inst, "baseline:common").objective == pytest.approx(exact.objective, rel=1e-6)


def test_alternating_improves_on_its_start() -> None:
    inst = cell("fdma", seed=7)
    start, end = solve(inst, "baseline:equal"), solve(inst, "baseline:alternating")
    assert end.objective < start.objective
    assert end.objective >= solve(inst, "convex", rel_gap=1e-6).objective * (1 - 1e-6)


def test_random_depends_on_the_seed_alone() -> None:
    inst = cell("ofdma", seed=3, reference_keep=0.3)
    owners = [solve(inst, "baseline:random", seed=s) for s in (1, 1, 2)]
    assert owners[0].objective == owners[1].objective
    assert owners[0].objective != owners[2].objective


def test_names_are_checked() -> None:
    assert not METHODS["baseline"].chosen
    for name in ("baseline", "baseline:magic"):
        with pytest.raises(InputError, match="baseline:equal"):
            solve(cell("fdma"), name)
