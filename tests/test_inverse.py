"""Least budgets: both ends of the bracket are proven, the least budget of a known cell is found again."""

from __future__ import annotations

import math
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgealloc
from edgealloc.cli.app import main
from edgealloc.data.spec import Access
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.inverse import Resource, front, least, scaled
from edgealloc.method import Method
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Control, Options


@pytest.mark.parametrize("resource", ["bandwidth_hz", "latency_s", "energy_j"])
@pytest.mark.parametrize("access", ["fdma", "ofdma"])
def test_least_budget_brackets_the_budget_that_made_the_bound(access: Access, resource: Resource) -> None:
    known = make_cell(CellOptions(devices=3, access=access, subcarriers=8), np.random.default_rng(5)).instance
    target = edgealloc.solve(known, rel_gap=1e-9).objective
    other = scaled(known, resource, 1.7)
    found = least(other, resource, target * (1 + 1e-7), rel_tol=1e-3)
    assert found.message == ""
    assert found.rel_gap <= 1e-3
    assert found.factor_low <= 1 / 1.7 * (1 + 1e-9)
    assert found.factor >= 1 / 1.7 * (1 - 1e-3)
    assert found.result is not None
    assert found.result.objective <= found.target
    used = found.result.problem
    assert used.violations(found.result.allocation) == ()
    below = edgealloc.solve(scaled(other, resource, found.factor_low), rel_gap=1e-9)
    assert below.status == "infeasible" or below.lower_bound > found.target * (1 - 1e-8)


@pytest.mark.parametrize("resource", ["power_max_w", "freq_max_hz"])
def test_power_and_processors_are_budgets_too(make_instance, resource: Resource) -> None:
    known = make_instance("fdma", 3, bandwidth_hz=2e4, latency_s=7.0, energy_j=30.0, power_max_w=0.01)
    target = edgealloc.solve(known, rel_gap=1e-9).objective
    found = least(scaled(known, resource, 1.3), resource, target * (1 + 1e-7), rel_tol=1e-3)
    assert found.message == ""
    assert found.factor_low <= 1 / 1.3 <= found.factor * (1 + 1e-3)


def test_a_clock_never_falls_below_its_slowest(make_instance) -> None:
    instance = make_instance("fdma", 3)
    slow = scaled(instance, "freq_max_hz", 1e-6)
    np.testing.assert_array_equal(slow.freq_max_hz, instance.freq_min_hz)


def test_least_says_what_the_budget_is(tmp_path: Path, make_instance) -> None:
    instance = make_instance("fdma", 3, bandwidth_hz=2e4, power_max_w=0.01)
    edgealloc.save_instance(instance, tmp_path / "cell.json")
    target = str(edgealloc.solve(scaled(instance, "latency_s", 0.5)).objective)
    asked = ["least", str(tmp_path / "cell.json"), "--target", target, "--rel-tol", "0.01", "--resource"]
    done = CliRunner().invoke(main, [*asked, "deadline"])
    assert re.search(r"reached with  0\.\d+ of the deadline, [78]\.\d+ s$", done.output, re.MULTILINE), done.output
    done = CliRunner().invoke(main, [*asked, "power"])
    assert re.search(r"of the power, [\d.]+ to [\d.]+ mW a device$", done.output, re.MULTILINE), done.output


def test_least_finds_budgets_above_the_instance_s_own(make_instance) -> None:
    poor = scaled(make_instance("fdma", 3), "bandwidth_hz", 1e-3)
    target = edgealloc.solve(make_instance("fdma", 3)).objective
    found = least(poor, "bandwidth_hz", target + 1e-3)
    assert found.factor_low >= 1.0
    assert found.result is not None


def test_unreachable_targets_say_why(make_instance) -> None:
    instance = make_instance("fdma", 3)
    with pytest.raises(InputError, match="unlimited resources"):
        least(instance, "latency_s", Problem(instance).free_objective * 0.999)
    with pytest.raises(InputError, match="bandwidth_hz, latency_s, energy_j"):
        least(instance, "power", 1.0)  # type: ignore[arg-type]
    slow = instance.with_changes(latency_s=9.0, energy_j=0.02)  # no deadline makes up for missing energy
    found = least(slow, "latency_s", Problem(instance).free_objective * 1.01)
    assert found.result is None
    assert math.isinf(found.factor)
    assert "other budgets bind" in found.message


def test_a_limit_keeps_the_bracket(make_instance) -> None:
    instance = make_instance("fdma", 3)
    target = edgealloc.solve(instance).objective + 1e-3
    found = least(instance, "bandwidth_hz", target, callback=lambda low, high: True)
    assert found.message == "stopped by the callback"
    assert found.factor == 1.0
    assert found.solves == 1


def test_ctrl_c_keeps_the_bracket(make_instance, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = make_instance("fdma", 3)
    target = edgealloc.solve(instance).objective + 1e-3
    found = least(instance, "bandwidth_hz", target, callback=lambda low, high: signal.raise_signal(signal.SIGINT))
    assert (found.message, found.factor, found.solves) == ("interrupted", 1.0, 1)
    honest = Method.run

    def pressed(self: Method, problem: Problem, options: Options) -> Result:
        with Control(options) as control:
            signal.raise_signal(signal.SIGINT)
            assert control.stopped()
        return honest(self, problem, options)

    monkeypatch.setattr(Method, "run", pressed)
    found = least(instance, "bandwidth_hz", target)
    assert (found.message, found.solves) == ("interrupted", 1)
    assert len(front(instance, "bandwidth_hz", [1.0, 2.0])) == 1


@pytest.mark.parametrize("penalty", [None, 4.0])
@pytest.mark.parametrize("bandwidth_hz", [1.08e6, 0.7e6])
def test_a_band_of_blocks_ends_at_one_block(make_instance, penalty: float | None, bandwidth_hz: float) -> None:
    """Half a block is no spectrum, and no reason to raise."""
    changes = {"block_hz": 0.18e6, "bandwidth_hz": bandwidth_hz, "exclusion_penalty": penalty}
    found = least(make_instance("rb", devices=1, **changes), "bandwidth_hz", 50.0)
    assert found.factor * bandwidth_hz == pytest.approx(0.18e6, rel=1e-9)
    if penalty is None:  # proved, for nobody can send on less
        assert found.factor_low < found.factor <= found.factor_low * (1 + 1e-9)
        assert not found.message
    else:  # all might be left out on less
        assert found.factor_low == 0.0
        assert "one resource block" in found.message


def test_front_falls_with_the_budget() -> None:
    instance = make_cell(CellOptions(devices=3), np.random.default_rng(5)).instance
    points = front(instance, "bandwidth_hz", (0.5, 1.0, 2.0, 4.0), rel_gap=1e-8)
    values = [point.objective for point in points]
    assert all(np.diff(values) < 0)


def test_own_underfitting_term_is_kept() -> None:
    instance = make_cell(CellOptions(devices=2), np.random.default_rng(5)).instance
    problem = Problem(instance, lambda s: 2.0 * (1.0 - s) ** 2)
    target = edgealloc.solve(problem).objective
    found = least(problem, "bandwidth_hz", target * (1 + 1e-5), rel_tol=0.02)
    assert found.factor <= 1.0
    assert found.factor > 0.9


def test_command_writes_an_instance_that_just_reaches_the_target(tmp_path: Path) -> None:
    instance = make_cell(CellOptions(devices=3), np.random.default_rng(5)).instance
    case = edgealloc.save_instance(instance, tmp_path / "cell.json")
    target = edgealloc.solve(scaled(instance, "latency_s", 1.3)).objective
    options = ["--resource", "deadline", "--out", str(tmp_path / "least.json")]
    call = ["least", str(case), *options, "--target"]
    done = CliRunner().invoke(main, [*call, repr(target)])
    assert done.exit_code == 0, done.output
    assert "(proven)" in done.output
    written = edgealloc.load(tmp_path / "least.json")
    assert written.latency_s == pytest.approx(1.3 * instance.latency_s, rel=2e-4)
    done = CliRunner().invoke(main, [*call, "0.0"])
    assert done.exit_code == 2
    assert "unlimited resources" in done.output
