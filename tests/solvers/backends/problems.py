"""Problems for outside solvers, and marks for those that are not installed."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc import conformance
from edgealloc.data.spec import AdapterOption, BoundSpec
from edgealloc.formulation.problem import Problem
from edgealloc.formulation.result import Result
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions

needs_cvxpy = pytest.mark.skipif(find_spec("cvxpy") is None, reason="needs edgealloc[cvxpy]")


needs_pyomo = pytest.mark.skipif(find_spec("pyomo") is None, reason="needs edgealloc[pyomo]")


needs_scip = pytest.mark.skipif(find_spec("pyscipopt") is None, reason="needs edgealloc[scip]")


CONVEX = {
    "pooled": {},
    "per device": {"bound": BoundSpec(pooling="device")},
    "head and downlink": {"payload_fixed_bits": 2e5, "downlink_bps": 5e6},
    "common rate": {"common_keep": True},
}


def problem_of(**changes: Any) -> Problem:
    return Problem(conformance.cell(**changes))


def exact(problem: Problem, rel_gap: float = 1e-9) -> Result:
    return edgealloc.solve(problem, rel_gap=rel_gap)


def random_problem(rng: np.random.Generator) -> Problem:
    """A random small cell with a random mixture of variants (no OFDMA)."""
    access = rng.choice(["fdma", "rb"])
    k = int(rng.integers(2, 5))
    options = CellOptions(devices=k, access=access, pooling=str(rng.choice(["global", "device"])))  # type: ignore[arg-type]
    inst = make_cell(options, rng).instance
    changes: dict[str, Any] = {"bandwidth_hz": inst.bandwidth_hz * rng.uniform(0.5, 1.2)}
    if rng.random() < 0.4:
        levels = np.unique(np.append(rng.uniform(0.02, 1.0, 4), 0.02))
        changes["keep_levels"] = tuple(levels if rng.random() < 0.7 else None for _ in range(k))
    if rng.random() < 0.4:
        d1, w1 = float(inst.payload_lora_bits[0]), float(inst.cycles_lora[0])
        menu = (AdapterOption("half", 0.5 * d1, 0.5 * w1, 1.4), AdapterOption("full", d1, w1, 1.0))
        changes["adapter_options"] = tuple(menu if rng.random() < 0.7 else None for _ in range(k))
    if rng.random() < 0.4:
        changes["exclusion_penalty"] = float(rng.uniform(0.5, 6.0))
    if rng.random() < 0.2 and "keep_levels" not in changes:
        changes["common_keep"] = True
    if rng.random() < 0.3:
        changes["bound"] = replace(
            inst.bound, underfit="perturbation", underfit_weight=5 * inst.bound.underfit_weight
        )
    return Problem(inst.with_changes(**changes))
