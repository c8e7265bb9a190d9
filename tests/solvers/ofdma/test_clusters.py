"""A stability term per cluster on sub-carriers: against enumeration, and proofs of what was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgealloc.certificate.file import certificate_from_dict
from edgealloc.certificate.subcarriers import SubcarrierCertificate
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.scenario.cell import make_cell
from edgealloc.scenario.options import CellOptions
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from tests.solvers.ofdma.oracle import random_ofdma
from tests.solvers.ofdma.solving import REL_GAP, accepted, compare, solve


def clustered(base: Instance, clusters: tuple[int, ...]) -> Instance:
    return base.with_changes(bound=replace(base.bound, pooling="cluster"), clusters=clusters)


def random_clusters(seed: int) -> Instance:
    """A random instance of every variant in up to three clusters."""
    rng = np.random.default_rng([11, seed])
    base = random_ofdma(rng)
    return clustered(base, tuple(int(name) * 3 % 7 for name in rng.integers(0, 3, base.num_devices)))


@pytest.mark.parametrize(
    ("first", "count"), [(0, 6), *(pytest.param(n, 20, marks=pytest.mark.slow) for n in range(0, 400, 20))]
)
def test_against_brute_force_with_proofs(first: int, count: int) -> None:
    statuses = []
    for seed in range(first, first + count):
        instance = random_clusters(seed)
        result = compare(instance, seed=seed)
        proved, certificate = certified(result, REL_GAP)
        assert not check_certificate(instance, certificate_from_dict(certificate.to_file())).faults
        assert proved.status is result.status
        statuses.append(result.status)
    assert statuses.count(Status.OPTIMAL) >= count // 2
    assert statuses.count(Status.INFEASIBLE) >= count // 7


def test_one_cluster_and_one_each_are_what_the_other_poolings_are() -> None:
    cell = make_cell(CellOptions(devices=4, access="ofdma", subcarriers=16), np.random.default_rng(2)).instance
    for clusters, pooling in (((3, 3, 3, 3), "global"), ((9, 1, 4, 0), "device")):
        one = solve(clustered(cell, clusters))
        other = solve(cell.with_changes(bound=replace(cell.bound, pooling=pooling)))  # type: ignore[arg-type]
        assert one.status is other.status is Status.OPTIMAL
        assert one.objective == pytest.approx(other.objective, rel=2 * REL_GAP)
        assert max(one.lower_bound, other.lower_bound) <= min(one.objective, other.objective)
        accepted(one)


def test_a_larger_cell_is_proved_and_another_partition_is_not() -> None:
    cell = make_cell(CellOptions(devices=6, access="ofdma", subcarriers=16), np.random.default_rng(4)).instance
    instance = clustered(cell, (8, 8, 1, 1, 8, 1))
    result, certificate = certified(solve(instance), REL_GAP)
    assert result.status is Status.OPTIMAL
    assert isinstance(certificate, SubcarrierCertificate)
    priced = [node.kept_share for node in certificate.nodes if node.prices is not None]
    assert all(isinstance(kept, tuple) and len(kept) == 2 for kept in priced)
    assert not check_certificate(instance, certificate).faults
    assert check_certificate(clustered(cell, (8, 1, 1, 1, 8, 8)), certificate).faults
    assert not check_certificate(clustered(cell, (7, 7, 5, 5, 7, 5)), certificate).faults  # names alone


def test_a_search_takes_nothing_up_from_other_clusters() -> None:
    cell = make_cell(CellOptions(devices=4, access="ofdma", subcarriers=16), np.random.default_rng(1)).instance
    like = solve(clustered(cell, (0, 1, 0, 1)))
    other = clustered(cell, (0, 0, 1, 2))
    assert solve(other, like=like).objective == solve(other).objective
