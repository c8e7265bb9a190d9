"""Limits, interrupts, callbacks, warm starts and infeasible cells of OFDMA."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.api import load
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.formulation.problem import Problem
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import solve_bnb
from tests.solvers.ofdma.solving import REL_GAP, accepted, solve


def test_infeasible_device_of_the_public_case(cases: Path) -> None:
    result = solve(load(cases / "ofdma-4x16-infeasible-spectrum-s1.json"))
    assert result.status is Status.INFEASIBLE
    accepted(result)
    for finding in result.diagnosis:
        assert finding.device is not None
        assert finding.required > finding.available


def test_too_few_subcarriers(make_instance: Any) -> None:
    """Three devices, two sub-carriers: each fits alone, whatever the assignment one goes without."""
    result = solve(make_instance("ofdma", 3, 2))
    assert result.status is Status.INFEASIBLE
    (finding,) = result.diagnosis
    assert (finding.device, finding.budget, finding.available, finding.required) == (None, "subcarriers", 2.0, 3.0)
    assert "at least 1 of 3 devices" in result.message
    assert not any(name in result.message for name in ("latency_s", "energy_j", "bandwidth_hz", "power_max_w"))
    accepted(result)


def test_time_limit_is_kept(cases: Path) -> None:
    problem = Problem(load(cases / "ofdma-16x128-s1.json"))
    solve_bnb(problem, Options(time_limit=0.05))  # compile outside the clock
    begin = time.perf_counter()
    result = solve_bnb(problem, Options(rel_gap=1e-9, time_limit=1.5))
    assert time.perf_counter() - begin < 2.5
    assert result.status is Status.FEASIBLE
    assert problem.free_objective * (1 - 1e-8) <= result.lower_bound <= result.objective
    assert "time limit" in result.message
    accepted(result)


def test_time_limit_is_kept_by_large_cells() -> None:
    """32 devices, 256 sub-carriers: within the descents of the start, and in the first rounds after them."""
    options = CellOptions(devices=32, access="ofdma", subcarriers=256)
    instance = make_cell(options, np.random.default_rng(1)).instance
    for changes, limit in (({}, 0.3), ({}, 2.0), ({"common_keep": True}, 2.0)):
        problem = Problem(instance.with_changes(**changes))
        begin = time.perf_counter()
        result = solve_bnb(problem, Options(rel_gap=1e-9, time_limit=limit))
        assert time.perf_counter() - begin < limit + 1.0
        assert result.status is Status.FEASIBLE
        assert problem.free_objective * (1 - 1e-8) <= result.lower_bound <= result.objective


def test_interrupt_returns_incumbent_and_bound(cases: Path) -> None:
    problem = Problem(load(cases / "ofdma-16x128-s2.json"))
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.perf_counter()
    result = solve_bnb(problem, Options(rel_gap=1e-9, time_limit=60.0))
    assert time.perf_counter() - begin < 1.5 + 1.0
    assert result.status is Status.FEASIBLE
    assert "interrupted" in result.message


def test_same_bits_with_the_log_on(cases: Path, caplog: pytest.LogCaptureFixture) -> None:
    instance = load(cases / "ofdma-4x16-s2.json")
    silent = solve(instance)
    with caplog.at_level(logging.INFO, logger="edgealloc"):
        shown = solve(instance, log=True)
    assert "dual bound" in caplog.text
    for key in ("objective", "lower_bound", "nodes", "iterations"):
        assert getattr(silent, key) == getattr(shown, key)
    assert silent.allocation is not None
    assert shown.allocation is not None
    assert np.array_equal(silent.allocation.power_w, shown.allocation.power_w)


def test_callback_stops_and_bounds_rise(cases: Path) -> None:
    seen: list[Snapshot] = []

    def stop(snapshot: Snapshot) -> bool:
        seen.append(snapshot)
        return len(seen) == 5

    result = solve(load(cases / "ofdma-6x32-s1.json"), callback=stop)
    assert result.status is Status.FEASIBLE
    assert "callback" in result.message
    assert len(seen) <= 6  # the engine reports the node once more
    bounds = [snapshot.lower_bound for snapshot in seen]
    assert bounds == sorted(bounds)


def test_warm_start_is_kept(cases: Path) -> None:
    instance = load(cases / "ofdma-4x16-s1.json")
    best = solve(instance)
    again = solve_bnb(Problem(instance), Options(rel_gap=REL_GAP, warm_start=best.allocation, time_limit=1e-9))
    assert again.objective == pytest.approx(best.objective, rel=1e-9)
