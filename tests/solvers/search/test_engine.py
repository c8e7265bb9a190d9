"""The branch-and-bound engine: right answers, bounds that hold whenever it stops, determinism, tree and log."""

from __future__ import annotations

import importlib.util
import itertools
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc import load, solve
from edgealloc.data.outcome import Snapshot, Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import InputError
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.base import Control, Options
from edgealloc.solvers.exact import search
from edgealloc.solvers.search.engine import Found, Outcome, Relaxation, Relaxed, branch_and_bound
from edgealloc.solvers.search.log import write_trace
from edgealloc.solvers.search.tree import Fate, draw
from tests.conftest import MakeInstance
from tests.places import ROOT

Fixed = tuple[int, ...]


@dataclass(slots=True)
class Knapsack(Relaxation[Fixed, Fixed]):
    """Least negative value of items within a weight; a box fixes the first items, its bound is fractional."""

    value: np.ndarray
    weight: np.ndarray
    room: float
    pause_s: float = 0.0

    def root(self) -> Fixed:
        return ()

    def relax(
        self, box: Fixed, guess: Any, best: Found[Fixed] | None, cutoff: float, control: Control
    ) -> Relaxed[Fixed, Fixed]:
        time.sleep(self.pause_s)
        taken = np.array(box, dtype=float)
        left = self.room - float(taken @ self.weight[: len(box)])
        if left < 0:
            return Relaxed(math.inf)
        bound = -float(taken @ self.value[: len(box)])
        rest = sorted(range(len(box), len(self.value)), key=lambda i: -self.value[i] / self.weight[i])
        picks = list(box) + [0] * len(rest)
        whole, room = bound, left
        for i in rest:
            part = min(1.0, room / self.weight[i])
            bound -= part * float(self.value[i])
            room -= part * float(self.weight[i])
            if part == 1.0:
                picks[i] = 1
                whole -= float(self.value[i])
        children = tuple((*box, i) for i in (1, 0)) if rest else ()
        return Relaxed(bound - 1e-9, (Found(whole, tuple(picks)),), children, branched_on=f"item {len(box)}")


def knapsack(seed: int, pause_s: float = 0.0) -> Knapsack:
    """Twelve random items."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(1, 10, 12)
    return Knapsack(weight + rng.uniform(0, 3, 12), weight, 0.4 * float(weight.sum()), pause_s)


def run(model: Knapsack, **options: Any) -> Outcome[Fixed]:
    with Control(Options(**({"rel_gap": 1e-9} | options))) as control:
        return branch_and_bound(model, control)


@pytest.fixture(scope="module")
def tight(make_instance: MakeInstance) -> Problem:
    """Twelve devices with few levels and scarce spectrum: some tens of nodes."""
    rng = np.random.default_rng(3)
    instance = make_instance(
        devices=12,
        bandwidth_hz=4e4,
        payload_lora_bits=rng.uniform(1e6, 6e6, 12),
        keep_levels=tuple(np.sort(rng.choice(np.arange(2, 41) / 40, 5, replace=False)) for _ in range(12)),
        exclusion_penalty=6.0,
    )
    return Problem(instance)


@pytest.mark.parametrize("seed", range(20))
def test_knapsack_optima(seed: int) -> None:
    model = knapsack(seed)
    best = min(
        -float(np.dot(pick, model.value))
        for pick in itertools.product((0, 1), repeat=12)
        if np.dot(pick, model.weight) <= model.room
    )
    outcome = run(model)
    assert outcome.upper == pytest.approx(best, rel=1e-12)
    assert outcome.lower_bound <= best
    assert outcome.exhausted
    assert outcome.lower_bound >= best * (1 + 1e-8)  # negative values: the bound is below by the gap only


def test_bounds_hold_wherever_it_stops() -> None:
    model = knapsack(3)
    best = run(model).upper
    total = run(model).nodes
    last = -math.inf
    for nodes in range(1, total + 1):
        outcome = run(model, callback=lambda s, n=nodes: s.nodes >= n)
        assert outcome.nodes == nodes
        assert last <= outcome.lower_bound <= best <= outcome.upper
        last = outcome.lower_bound


def test_the_example_finds_the_known_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "examples" / "toy_bnb.py"
    spec = importlib.util.spec_from_file_location("toy_bnb", path)
    assert spec is not None
    assert spec.loader is not None
    toy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, toy)  # where dataclasses look their module up
    spec.loader.exec_module(toy)
    outcome = toy.solve()
    assert outcome.lower_bound <= toy.KNOWN_MINIMUM <= outcome.upper + 1e-9
    assert outcome.upper - outcome.lower_bound <= 1.1e-6


def test_infeasible_root() -> None:
    model = knapsack(0)
    model.room = -1.0
    outcome = run(model)
    assert outcome.best is None
    assert outcome.lower_bound == math.inf
    assert [node.fate for node in outcome.tree.nodes] == [Fate.INFEASIBLE]


def test_memory_for_nodes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The incumbent and its bound stand when it is used up, and the reason is told."""
    whole = run(knapsack(3))
    monkeypatch.setattr("edgealloc.solvers.search.engine.MOST_NODES", 15)
    with Control(Options(rel_gap=1e-9)) as control:
        outcome = branch_and_bound(knapsack(3), control)
    assert 15 <= len(outcome.tree.nodes) <= 16 < len(whole.tree.nodes)
    assert outcome.lower_bound <= whole.upper <= outcome.upper < math.inf
    assert "memory for 15 nodes is used up" in control.reason


def test_memory_for_pieces_is_limited(make_instance: MakeInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two devices at a small gap once took 1.5 GB, all of it at the root."""
    bound = BoundSpec("perturbation", 5.0)
    problem = Problem(make_instance(devices=2, bandwidth_hz=3e4, payload_lora_bits=4e6, bound=bound))
    whole = solve(problem, "bnb", rel_gap=1e-6)
    monkeypatch.setattr("edgealloc.solvers.separable.relaxation.MOST_PIECES", 18)
    monkeypatch.setattr("edgealloc.solvers.separable.relaxation._CUT_PIECES", 2)
    result, outcome = search(problem, Options(rel_gap=1e-6))
    assert outcome is not None
    assert result.status is Status.FEASIBLE, result
    assert "memory for 18 pieces" in result.message
    assert result.lower_bound <= whole.objective <= result.objective * (1.0 + 1e-6)
    assert len(result.proof.relaxation.pieces) <= 18


def test_time_limit_and_callback() -> None:
    slow = knapsack(3, pause_s=0.02)
    started = time.perf_counter()
    outcome = run(slow, time_limit=0.3)
    assert time.perf_counter() - started < 1.3
    assert not outcome.exhausted
    assert outcome.lower_bound < outcome.upper
    assert run(slow, callback=lambda s: s.nodes >= 3).nodes == 3


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupt_returns_incumbent_and_bound() -> None:
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    started = time.perf_counter()
    outcome = run(knapsack(3, pause_s=0.02))
    assert time.perf_counter() - started < 2.0
    assert outcome.best is not None
    assert outcome.lower_bound < outcome.upper
    assert not outcome.exhausted


def test_same_search_with_log_on_and_off(tight: Problem, caplog: pytest.LogCaptureFixture) -> None:
    def signature(log: bool) -> list[Any]:
        result, outcome = search(tight, Options(rel_gap=1e-9, log=log))
        assert outcome is not None
        assert result.allocation is not None
        arrays = (result.allocation.keep, result.allocation.bandwidth_hz, result.allocation.power_w)
        numbers = [float(x).hex() for array in arrays if array is not None for x in array]
        ends = [(n.number, n.parent, n.bound.hex(), n.fate, n.branched_on) for n in outcome.tree.nodes]
        return [result.nodes, result.objective.hex(), result.lower_bound.hex(), numbers, ends]

    quiet = signature(False)
    with caplog.at_level(logging.INFO, logger="edgealloc"):
        loud = signature(True)
    assert quiet == loud == signature(False)
    assert quiet[0] > 20
    assert any("dual bound" in line for line in caplog.messages)
    assert any("bnb on" in line and "optimal" in line for line in caplog.messages)


def test_warm_start_is_kept_and_used(tight: Problem) -> None:
    cold = solve(tight, "bnb", rel_gap=1e-9)
    warm = solve(tight, "bnb", rel_gap=1e-9, warm_start=cold.allocation)
    assert warm.objective <= cold.objective
    assert warm.nodes <= cold.nodes
    stopped = solve(tight, "bnb", rel_gap=1e-12, warm_start=cold.allocation, callback=lambda s: True)
    assert stopped.objective <= cold.objective
    assert stopped.lower_bound <= cold.objective


def test_bound_only_rises_and_incumbent_only_falls(tight: Problem) -> None:
    trace: list[Snapshot] = []
    result = solve(tight, "bnb", rel_gap=1e-9, callback=lambda s: trace.append(s))
    assert len(trace) == result.nodes
    for before, after in itertools.pairwise(trace):
        assert after.lower_bound >= before.lower_bound
        assert after.objective <= before.objective
    assert result.lower_bound == pytest.approx(trace[-1].lower_bound, rel=1e-12)


def test_limits_on_a_large_problem(make_instance: MakeInstance) -> None:
    rng = np.random.default_rng(0)
    instance = make_instance(devices=600, bandwidth_hz=2e6, gain=rng.exponential(1e-10, 600) + 1e-12)
    instance = instance.with_changes(exclusion_penalty=3.0, access="rb", block_hz=500.0)
    solve(instance, "bnb", rel_gap=0.5)  # compile
    started = time.perf_counter()
    result = solve(instance, "bnb", rel_gap=1e-15, time_limit=1.0)
    assert time.perf_counter() - started < 3.0
    assert result.status in (Status.FEASIBLE, Status.OPTIMAL)
    assert result.lower_bound <= result.objective


def test_infeasible_blocks_are_diagnosed(make_instance: MakeInstance) -> None:
    instance = make_instance("rb", devices=7, bandwidth_hz=1.08e6)  # six blocks
    result = solve(instance, "bnb")
    assert result.status is Status.INFEASIBLE
    assert "resource blocks" in result.message
    assert result.diagnosis[0].required == pytest.approx(7 * 1.8e5)
    assert solve(instance.with_changes(bandwidth_hz=7 * 1.8e5), "bnb").status is Status.OPTIMAL
    assert solve(instance.with_changes(exclusion_penalty=2.0), "bnb").status is Status.OPTIMAL


def test_levels_without_a_common_one_are_diagnosed(make_instance: MakeInstance) -> None:
    instance = make_instance(devices=2, common_keep=True, keep_levels=([0.1, 0.2], [0.15, 0.3]))
    result = solve(instance, "bnb")
    assert result.status is Status.INFEASIBLE
    assert "keep level that all devices share" in result.message
    shared = solve(instance.with_changes(keep_levels=([0.1, 0.2], [0.15, 0.2])), "bnb")
    assert shared.allocation is not None
    assert set(shared.allocation.keep) == {0.2}


def test_public_cases(cases: Path) -> None:
    references = json.loads((cases / "references.json").read_text())
    for name in (
        "fdma-20-perturbation-s1",
        "fdma-20-perturbation-s2",
        "fdma-20-levels-s1",
        "rb-10-s1",
        "rb-10-s2",
    ):
        result = solve(load(cases / f"{name}.json"), "bnb", rel_gap=1e-6, time_limit=60)
        assert result.status is Status.OPTIMAL, name
        known = references[name].get("value")
        if known is not None:  # a local optimum: an upper bound
            assert result.lower_bound <= known * (1 + 1e-7)
            assert result.objective <= known * (1 + 1e-6)


def test_agrees_with_the_convex_method(cases: Path) -> None:
    for name in ("fdma-20-s1", "fdma-20-device-s1", "fdma-20-head-downlink-s1", "fdma-10-ample-s1"):
        instance = load(cases / f"{name}.json")
        exact, tree = solve(instance, "convex", rel_gap=1e-9), solve(instance, "bnb", rel_gap=1e-7)
        assert tree.lower_bound <= exact.objective
        assert exact.lower_bound <= tree.objective <= exact.objective * (1 + 2e-7)


def test_user_function(make_instance: MakeInstance) -> None:
    instance = make_instance(devices=3, bandwidth_hz=3e4)
    plain = Problem(instance)
    known = solve(plain, "convex", rel_gap=1e-9)
    own = Problem(instance, underfit=lambda s: 1.0 / s - 1.0)
    result = solve(own, "bnb", rel_gap=1e-4, time_limit=60)
    assert result.status is Status.OPTIMAL
    assert result.lower_bound <= known.objective <= result.objective * (1 + 1e-9)


def test_tree_export_and_trace(tight: Problem, tmp_path: Path) -> None:
    networkx = pytest.importorskip("networkx")
    result, outcome = search(tight, Options(rel_gap=1e-9))
    assert outcome is not None
    graph = outcome.tree.to_networkx()
    assert networkx.is_arborescence(graph)
    assert graph.number_of_nodes() == len(outcome.tree.nodes)
    for node, data in graph.nodes(data=True):
        assert all(graph.nodes[child]["bound"] >= data["bound"] for child in graph.successors(node))
        assert (graph.out_degree(node) > 0) == (data["fate"] == "branched")
    lines = write_trace(result.trace, tmp_path / "trace.jsonl").read_text().splitlines()
    assert len(lines) == result.nodes
    assert json.loads(lines[-1])["lower_bound"] <= result.objective
    pytest.importorskip("matplotlib")
    assert draw(outcome.tree, tmp_path / "tree.png").stat().st_size > 5000


def test_a_cutoff_is_a_number() -> None:
    wrong: Any
    for wrong in (math.nan, "1", None, True):
        with pytest.raises(InputError, match="cutoff"):
            Options(cutoff=wrong)
