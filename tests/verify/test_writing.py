"""Certificates are written where they once were not, in the time that is given, and never at a result's cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgealloc.api import load, solve
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import EdgeallocError
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.solution import verify, with_certificate


def proved(source: Any, **options: Any) -> None:
    """The optimum stays one with its certificate, and the checker accepts both."""
    result = solve(source, "bnb", time_limit=60.0, **options)
    assert result.status is Status.OPTIMAL, result
    after, certificate = certified(result)
    assert after.status is Status.OPTIMAL, after.message
    instance = result.problem.instance
    assert not check_certificate(instance, certificate).faults
    assert verify(instance, after.solution()).ok


@pytest.mark.parametrize("pooling", ["global", "device"])
@pytest.mark.parametrize(
    ("loss_range", "lipschitz", "sparsity"), [(0.0, 1.0, 0.5), (1.0, 0.0, 0.5), (1.0, 1.0, 0.0)]
)
def test_a_stability_term_that_is_constant(
    make_instance: Any, pooling: Any, loss_range: float, lipschitz: float, sparsity: float
) -> None:
    """Its slope is zero over zero at a loss range of 0, and rounding outwards made nothing of an exact zero."""
    bound = BoundSpec(
        pooling=pooling, loss_range=loss_range, lipschitz=lipschitz, sparsity_weight=sparsity, underfit_weight=0.1
    )
    for access, subcarriers in (("rb", 0), ("ofdma", 4)):
        proved(make_instance(access, 2, subcarriers, bound=bound, payload_lora_bits=2e8))


@pytest.mark.parametrize("access", ["fdma", "rb", "ofdma"])
@pytest.mark.parametrize("underfit", ["inverse-keep", "perturbation"])
def test_an_optimum_of_nothing(make_instance: Any, access: Any, underfit: Any) -> None:
    """Everybody keeps everything, and the loss has no range: G is 0, which no cut of sub-carriers ever showed."""
    bound = BoundSpec(underfit=underfit, loss_range=0.0)
    result = solve(make_instance(access, 2, 4, bound=bound), "bnb")
    assert result.objective == 0.0
    lowered, certificate = certified(result)
    assert certificate.lower_bound == 0.0
    instance, solution = result.problem.instance, lowered.solution()
    judged = with_certificate(verify(instance, solution), instance, solution, certificate)
    assert judged.ok, str(judged)
    above = replace(certificate, lower_bound=5e-324)
    assert check_certificate(result.problem.instance, above).faults[0].field.split(".")[0] in ("nodes", "pieces")


def test_levels_of_a_device_that_carries_none(make_instance: Any) -> None:
    """The weak device carries rates below its least level only: what lies between has not to be proved."""
    base = make_instance("fdma", 2)
    gain = np.array([base.gain[0], base.gain[1] * 1e-5])
    inst = base.with_changes(
        gain=gain,
        exclusion_penalty=1e6,
        keep_levels=(None, np.array([0.9, 1.0])),
        bound=BoundSpec(pooling="device"),
    )
    result = solve(inst, "bnb")
    assert result.allocation is not None
    assert result.allocation.selected.tolist() == [True, False]
    proved(inst)


@pytest.mark.parametrize(
    "name", ["seed306", "seed998", "seed684", "seed864", "seed22", "seed1048", "seed522", "seed386", "seed1301"]
)
def test_instances_that_had_no_certificate(faults: Path, name: str) -> None:
    proved(load(faults / f"{name}.json"))


@pytest.mark.parametrize(
    ("access", "pooling"),
    [
        ("fdma", "global"),
        ("rb", "device"),
        ("ofdma", "global"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("fdma", "device"), ("rb", "global"), ("ofdma", "device"))
        ),
    ],
)
@pytest.mark.parametrize(
    "constants",
    [
        {"loss_range": 1e-150, "underfit_weight": 0.0, "lipschitz": 0.0},
        {"loss_range": 1e-150, "underfit_weight": 0.05, "lipschitz": 0.0},
        {"loss_range": 1e-160, "underfit_weight": 1e-300, "lipschitz": 1e-160},  # squares that no double holds
    ],
)
def test_an_objective_of_a_tiny_scale_has_a_certificate(
    make_instance: Any, access: Any, pooling: Any, constants: dict[str, float]
) -> None:
    """Of the optimum, or of a bound that is honest about its gap."""
    bound = BoundSpec(pooling=pooling, **constants)
    result = solve(make_instance(access, 3, 6, bound=bound, payload_lora_bits=2e7))
    after, certificate = certified(result)
    instance = result.problem.instance
    assert not check_certificate(instance, certificate).faults
    assert after.status is Status.OPTIMAL or after.rel_gap > 1e-4
    assert after.lower_bound <= certificate.lower_bound <= after.objective
    assert verify(instance, after.solution()).ok


@pytest.mark.parametrize(("access", "subcarriers"), [("rb", 0), ("ofdma", 6)])
def test_writing_ends_with_its_time_limit(make_instance: Any, access: Any, subcarriers: int) -> None:
    result = solve(make_instance(access, 2, subcarriers), "bnb")
    with pytest.raises(EdgeallocError, match="took longer than 1e-09 s; the result stands as it is"):
        certified(result, time_limit=1e-9)
    assert certified(result, time_limit=None)[0].status is result.status


def test_spectrum_to_spare_needs_no_search_of_sets(make_instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sub-carriers cost nothing, all sets cost the same: a search of them did not end for 64."""
    monkeypatch.setattr("edgealloc.solvers.certify.leaf.price_mode", None)
    for latency in (15.0, 12.0):  # all keep everything; some keep as much as all sub-carriers carry
        proved(make_instance("ofdma", 8, 64, bandwidth_hz=4e7, latency_s=latency))


def test_a_bound_below_the_optimum_is_proved_without_telling_sets_apart(make_instance: Any) -> None:
    """Sub-carriers of one price and one gain: sets of as many cost the same, and there are 10^17 of them."""
    rng = np.random.default_rng(5)
    cell = make_instance("ofdma", 4, 60, bandwidth_hz=6e5, latency_s=11.0)
    flat = cell.with_changes(gain=np.repeat(cell.gain[:, :1], 60, axis=1) * rng.uniform(0.999, 1.001, (4, 60)))
    result = solve(flat, "bnb", rel_gap=0.05, time_limit=60.0)
    assert result.status is Status.OPTIMAL, result
    less = replace(result, lower_bound=result.lower_bound * (1.0 - 0.01), status=Status.FEASIBLE)
    after, certificate = certified(less, time_limit=20.0)
    assert after.lower_bound == less.lower_bound == certificate.lower_bound


@pytest.mark.parametrize("gain", [1e-12, 10.0**-6.5])
def test_who_cannot_be_served_at_all_leaves_nothing_to_search(
    make_instance: Any, monkeypatch: pytest.MonkeyPatch, gain: float
) -> None:
    """All sub-carriers are too few for each of three: whatever the sets of the fourth."""
    monkeypatch.setattr("edgealloc.solvers.certify.leaf.price_mode", None)
    cell = make_instance("ofdma", 4, 64)
    weak = np.array([1.0, gain, gain, gain])[:, None]
    result = solve(cell.with_changes(gain=cell.gain * weak), "bnb")
    assert result.status is Status.INFEASIBLE
    after, certificate = certified(result)
    assert certificate.lower_bound == after.lower_bound == np.inf
    assert not check_certificate(result.problem.instance, certificate).faults
