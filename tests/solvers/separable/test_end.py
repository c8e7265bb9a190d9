"""A search ends by itself, with few pieces, where only rounding is left of the gap or of the feasible set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.base import Options
from edgealloc.solvers.exact import search
from edgealloc.solvers.fdma.bandwidth import least_bandwidth
from edgealloc.solvers.separable.choices import Choices
from edgealloc.solvers.separable.record import SeparableProof

NODES = 400  # enough for every case here; a search that goes on for ever is stopped


def ended(problem: Problem, rel_gap: float) -> tuple[Any, int]:
    """The result of a search without a time limit, and how many pieces it left."""
    options = Options(rel_gap=rel_gap, callback=lambda seen: seen.nodes >= NODES)
    result, _tree = search(problem, options)
    assert "callback" not in result.message, result
    assert isinstance(result.proof, SeparableProof)
    return result, len(result.proof.relaxation.pieces)


@pytest.mark.parametrize("access", ["fdma", "rb"])
@pytest.mark.parametrize("spare", [1e-15, 3e-15, 1e-14])
def test_a_thin_feasible_set_is_not_parted_for_ever(make_instance: Any, access: str, spare: float) -> None:
    """The spectrum is what the least keep rate takes, and hardly more: pieces are too narrow for a cut."""
    base = make_instance(access, 1)
    row = Choices.of(Problem(base)).rows[0]
    band = least_bandwidth(row, float(base.keep_min[0]), 0.0)[0] * (1.0 + spare)
    inst = base.with_changes(bandwidth_hz=band, **({"block_hz": band} if access == "rb" else {}))
    result, pieces = ended(Problem(inst), 1e-4)
    assert result.status in (Status.NO_SOLUTION, Status.OPTIMAL), result
    assert pieces < 100


@pytest.mark.parametrize("pooling", ["global", "device"])
def test_lines_are_not_refined_beyond_rounding(make_instance: Any, pooling: Any) -> None:
    """A gap of 1e-15 is asked for: halving pieces, or parting boxes, could go on until memory ends."""
    inst = make_instance("fdma", 2, bound=BoundSpec(pooling=pooling), payload_lora_bits=6e7, downlink_bps=np.inf)
    result, pieces = ended(Problem(inst), 1e-15)
    assert result.status is Status.FEASIBLE
    assert "rounding" in result.message
    assert result.rel_gap < 1e-11
    assert pieces < 10_000
