"""Underfitting terms of single devices: FDMA and blocks against brute force; proofs, files, refusals."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

import edgealloc
from edgealloc.certificate.file import certificate_from_dict
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import UnderfitCurve, UnderfitLogistic
from edgealloc.errors import InputError, RefusedError
from edgealloc.files.instance import dict_from_instance, instance_from_dict
from edgealloc.formulation.problem import Problem
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.solution import verify
from tests.solvers.ofdma.oracle import random_logistic
from tests.solvers.separable.test_brute_force import check, random_instance
from tests.verify.spoiling import mutate, refused

STEPS = UnderfitCurve([0.01, 0.2, 0.5, 1.0], [3.0, 1.2, 0.4, 0.1])  # type: ignore[arg-type]


def mixed(seed: int) -> Instance:
    """A small cell whose devices have the bound's term, logistic ones or a curve."""
    rng = np.random.default_rng([22, seed])
    cell = random_instance(seed)
    terms = [
        (None, STEPS, random_logistic(rng).underfit_logistic)[int(rng.integers(3))]
        for _ in range(cell.num_devices)
    ]
    terms[0] = random_logistic(rng).underfit_logistic
    return cell.with_changes(device_underfit=tuple(terms))


@pytest.mark.parametrize("batch", range(2))
def test_cells_against_brute_force(batch: int) -> None:
    ends = [check(mixed(seed), 1e-6) for seed in range(12 * batch, 12 * batch + 12)]
    assert ends.count(Status.OPTIMAL) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(10))
def test_cells_at_length(batch: int) -> None:
    for seed in range(1000 + 30 * batch, 1030 + 30 * batch):
        check(mixed(seed), 1e-5)


def test_the_same_term_for_all_is_the_bounds() -> None:
    """Given per device or in the bound, optimum and free minimum are the same."""
    for seed in range(6):
        rng = np.random.default_rng([23, seed])
        bound = random_logistic(rng)
        one = random_instance(seed).with_changes(bound=bound)
        each = one.with_changes(
            bound=random_logistic(rng, pooling=bound.pooling, underfit_weight=bound.underfit_weight,
                                  sparsity_weight=bound.sparsity_weight),
            device_underfit=(bound.underfit_logistic,) * one.num_devices,
        )  # fmt: skip
        keep = np.linspace(0.1, 0.3, one.num_devices)
        assert Problem(each).objective(keep) == Problem(one).objective(keep)
        assert Problem(each).free_objective == pytest.approx(Problem(one).free_objective, rel=1e-12)
        ours, theirs = (edgealloc.solve(cell, "bnb", rel_gap=1e-7) for cell in (each, one))
        assert ours.status is theirs.status
        if ours.status.has_allocation:
            assert ours.objective == pytest.approx(theirs.objective, rel=2e-7)


@pytest.mark.parametrize(("count", "least"), [(4, 2), pytest.param(10, 5, marks=pytest.mark.slow)])
def test_proofs_hold_and_forged_ones_do_not(count: int, least: int) -> None:
    proved = 0
    for seed in range(count):
        cell, rng = mixed(seed), np.random.default_rng(seed)
        result = edgealloc.solve(cell, "bnb", rel_gap=1e-6, time_limit=20.0)
        if not result.status.has_allocation:
            continue
        lowered, certificate = certified(result, 1e-6)
        assert lowered.lower_bound >= result.lower_bound - 1e-8 * abs(result.lower_bound)
        data: dict[str, Any] = json.loads(json.dumps(certificate.to_file()))
        assert not check_certificate(cell, certificate_from_dict(data)).faults
        assert verify(cell, result.solution(), rel_gap=1e-6).ok
        forged = copy.deepcopy(data)
        forged["lower_bound"] = result.objective * (1 + 1e-9)
        for _ in range(8):
            bad = copy.deepcopy(forged)
            mutate(bad, rng)
            assert refused(cell, bad)
        easier = cell.with_changes(device_underfit=(UnderfitLogistic(1e-3, 9.0),) * cell.num_devices)
        other = edgealloc.solve(easier, "bnb", rel_gap=1e-6)
        assert refused(easier, data) or other.objective >= data["lower_bound"]
        proved += 1
    assert proved >= least


def test_files_and_devices_taken_keep_the_terms() -> None:
    cell = mixed(3)
    again = instance_from_dict(json.loads(json.dumps(dict_from_instance(cell))))
    assert again == cell
    back = cell.take(np.arange(cell.num_devices)[::-1])
    assert back.device_underfit == (cell.device_underfit or ())[::-1]
    plain = cell.with_changes(device_underfit=(None,) * cell.num_devices)
    assert plain.device_underfit is None
    assert "own underfitting terms" in repr(cell)


def test_faults_name_the_device_and_the_field() -> None:
    cell = random_instance(0)
    names, k = cell.device_names, cell.num_devices
    short = UnderfitCurve([0.5, 0.9], [1.0, 0.2])  # type: ignore[arg-type]
    for term, field in (
        (UnderfitLogistic(-1.0, 2.0), "underfit_logistic.half"),
        (short, "keep_min"),
        (3, "device_underfit"),
    ):
        with pytest.raises(InputError) as caught:
            cell.with_changes(device_underfit=(term,) + (None,) * (k - 1))
        assert (names[0], field) in {(fault.where, fault.field) for fault in caught.value.faults}
    with pytest.raises(InputError, match="common_keep"):
        cell.with_changes(device_underfit=(UnderfitLogistic(0.3, 2.0),) * k, common_keep=True, keep_levels=None)
    data = json.loads(json.dumps(dict_from_instance(cell)))
    data["devices"][0] |= {
        "underfit_curve": {"keep": [0.01, 1.0], "value": [1.0, 0.0]},
        "underfit_logistic": {"half": 0.3, "steepness": 2.0},
    }
    with pytest.raises(InputError, match="one term a device"):
        instance_from_dict(data)


@pytest.mark.parametrize("method", ["baseline:equal", "convex", "cvxpy", "pyomo", "scip"])
def test_methods_that_cannot_refuse_them_by_name(method: str) -> None:
    with pytest.raises(RefusedError, match="by device"):
        edgealloc.solve(mixed(3), method)


@pytest.mark.parametrize("method", ["psca", "psca+", "highs"])
def test_other_methods_are_no_better_than_the_optimum(method: str) -> None:
    from edgealloc.conformance import ofdma

    carriers = ofdma(device_underfit=(UnderfitLogistic(0.3, 2.0), STEPS))
    for cell in (mixed(3), mixed(5), carriers):
        problem = Problem(cell)
        best = edgealloc.solve(problem, "auto", rel_gap=1e-4, time_limit=30.0)
        result = edgealloc.solve(problem, method, rel_gap=1e-2, time_limit=10.0)
        if result.allocation is None:
            continue
        assert not problem.violations(result.allocation)
        assert best.lower_bound <= result.objective
        assert result.lower_bound <= best.objective


def test_proofs_on_sub_carriers_hold() -> None:
    from edgealloc.conformance import ofdma

    cell = ofdma(device_underfit=(UnderfitLogistic(0.3, 2.0), STEPS))
    result = edgealloc.solve(cell, "bnb", rel_gap=1e-5, time_limit=30.0)
    lowered, certificate = certified(result, 1e-5)
    assert lowered.lower_bound >= result.lower_bound - 1e-8 * abs(result.lower_bound)
    forged: dict[str, Any] = json.loads(json.dumps(certificate.to_file()))
    forged["lower_bound"] = result.objective * (1 + 1e-9)
    for seed in range(20):
        bad = copy.deepcopy(forged)
        mutate(bad, np.random.default_rng(seed))
        assert refused(cell, bad)
