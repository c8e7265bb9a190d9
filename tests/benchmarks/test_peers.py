"""The peers of the benchmark reach our proven optimum, and what we say of their points is true."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import PEERS, PeerRun, solve_ipopt, solve_scip
from edgealloc.api import solve
from edgealloc.data.allocation import Allocation
from edgealloc.data.instance import Instance
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import EdgeallocError
from edgealloc.files.instance import load_instance
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.backends.judge import judge

PACKAGE = {"ipopt": "casadi", "scip": "pyscipopt"}
REFERENCES = {
    "ipopt": ("fdma-2-s1", "fdma-10-s1", "fdma-10-ample-s1", "fdma-20-device-s1", "fdma-100-s1"),
    "scip": ("fdma-2-s1", "fdma-10-s1", "fdma-20-head-downlink-s1"),
}


def run_peer(name: str, problem: Problem, **options: float) -> PeerRun:
    """The peer's run; the test is skipped where its package is absent."""
    pytest.importorskip(PACKAGE[name], reason=f"the peer {name} needs {PACKAGE[name]}: edgealloc[bench]")
    return PEERS[name](problem, **options)


def tight_cell(pooling: str = "global", head_bits: float = 0.0, downlink_bps: float = np.inf) -> Instance:
    """Four devices whose spectrum, deadline and energy all matter; drawn by hand, not by the generator."""
    return Instance(
        name=f"tight-{pooling}",
        access="fdma",
        bandwidth_hz=1.0e5,
        noise_psd_dbm_per_hz=-174.0,
        latency_s=15.0,
        bound=BoundSpec(pooling="global" if pooling == "global" else "device"),
        samples=np.array([300.0, 800.0, 500.0, 1000.0]),
        gain=np.array([3e-12, 2e-11, 1e-10, 8e-12]),
        power_max_w=np.array([0.1, 0.2, 0.05, 0.1]),
        energy_j=np.array([4.0, 3.0, 5.0, 2.5]),
        energy_static_j=0.1,
        payload_fixed_bits=head_bits,
        payload_lora_bits=1e7,
        cycles_fixed=np.array([6e9, 1e10, 1.2e10, 8e9]),
        cycles_lora=2e8,
        freq_min_hz=3e8,
        freq_max_hz=2e9,
        capacitance=1e-28,
        downlink_bps=downlink_bps,
        keep_min=0.02,
        keep_max=1.0,
    )


VARIANTS = {
    "pooled": tight_cell(),
    "per device": tight_cell("device"),
    "head and downlink": tight_cell(head_bits=2e5, downlink_bps=5e6),
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_peer_agrees_with_the_proven_optimum(name: str, variant: str) -> None:
    problem = Problem(VARIANTS[variant])
    run = run_peer(name, problem)
    assert run.allocation is not None, run.status
    judged = judge(problem, run.allocation)
    ours = solve(problem, method="convex", rel_gap=1e-9)
    assert judged.allocation is not None
    assert problem.evaluate(judged.allocation).feasible
    assert judged.violation < 1e-6
    assert ours.lower_bound <= judged.objective <= ours.objective * (1 + 1e-6)
    assert run.objective == pytest.approx(ours.objective, rel=1e-6)
    # the cell must be one that the resources shape, or the agreement above says little
    assert ours.objective > 1.01 * ours.free_objective


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, list_ in REFERENCES.items() for case in list_])
def test_peer_reproduces_the_public_optimum(name: str, case: str, cases: Path) -> None:
    reference = json.loads((cases / "references.json").read_text(encoding="utf-8"))[case]
    assert reference["kind"] == "optimum"
    problem = Problem(load_instance(cases / f"{case}.json"))
    run = run_peer(name, problem)
    assert run.allocation is not None, run.status
    assert judge(problem, run.allocation).objective == pytest.approx(reference["value"], rel=1e-6)


def test_scip_bound_stays_below_the_optimum_even_with_a_short_series() -> None:
    problem = Problem(VARIANTS["pooled"])
    optimum = solve(problem, method="convex", rel_gap=1e-9).objective
    pytest.importorskip("pyscipopt", reason="the peer scip needs pyscipopt: edgealloc[bench]")
    short = solve_scip(problem, terms=2)
    assert short.lower_bound < optimum * (1 - 1e-4)  # two terms are too few here: a relaxation that shows
    assert short.allocation is not None
    judged = judge(problem, short.allocation)
    assert judged.violation > 1e-4  # so the point errs to the infeasible side
    assert judged.objective >= optimum * (1 - 1e-9)  # and its repair is worth no more than it is


def test_judge_states_the_violation_and_repairs_it() -> None:
    problem = Problem(VARIANTS["pooled"])
    inst = problem.instance
    best = solve(problem, method="convex", rel_gap=1e-9).allocation
    assert best is not None
    assert best.bandwidth_hz is not None
    used = float(best.bandwidth_hz.sum())
    greedy = replace(best, bandwidth_hz=best.bandwidth_hz * 1.05 * inst.bandwidth_hz / used)
    judged = judge(problem, greedy)
    assert judged.violation == pytest.approx(0.05, rel=1e-6)
    assert judged.allocation is not None
    assert problem.evaluate(judged.allocation).feasible
    assert judged.objective == pytest.approx(problem.objective(best.keep), rel=1e-6)
    assert np.all(judged.allocation.keep <= greedy.keep)


def test_judge_gives_up_on_a_point_without_a_feasible_shave() -> None:
    problem = Problem(VARIANTS["pooled"])
    k = problem.instance.num_devices
    band = np.full(k, 1.0)
    band[0] = problem.instance.bandwidth_hz  # the others are left with next to nothing
    hopeless = Allocation(
        keep=np.full(k, 0.5), freq_hz=np.full(k, 1e9), power_w=np.full(k, 0.05), bandwidth_hz=band
    )
    judged = judge(problem, hopeless)
    assert judged.allocation is None
    assert judged.objective == math.inf
    assert judged.violation > 0


@pytest.mark.parametrize("name", PEERS)
def test_time_limit_reaches_the_peer(name: str) -> None:
    run = run_peer(name, Problem(VARIANTS["pooled"]), time_limit_s=1e-6)
    assert run.status in ("Maximum_WallTime_Exceeded", "timelimit")


def test_problems_without_a_logarithmic_form_are_refused() -> None:
    for change in (
        {"bound": BoundSpec(underfit="perturbation")},
        {"common_keep": True},
        {"gain": np.array([0.0, 1e-11, 1e-11, 1e-11])},
        {"energy_static_j": np.array([4.0, 0.0, 0.0, 0.0])},
    ):
        with pytest.raises(EdgeallocError, match="tight-global"):
            solve_ipopt(Problem(VARIANTS["pooled"].with_changes(**change)))


def test_ipopt_best_time_is_of_the_same_answer() -> None:
    pytest.importorskip("casadi", reason="the peer ipopt needs casadi: edgealloc[bench]")
    problem = Problem(VARIANTS["pooled"])
    assert solve_ipopt(problem, repeats=3).objective == solve_ipopt(problem, repeats=1).objective
