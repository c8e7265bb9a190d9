"""Proofs of bounds with a stability term per cluster: true ones hold, and each premise is the instance's."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from flint import ctx

from edgealloc import SpectrumCap, conformance, solve
from edgealloc.certificate.file import certificate_from_dict, load_certificate, save_certificate
from edgealloc.certificate.prices import Certificate
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.files.instance import save_instance
from edgealloc.formulation.result import Result
from edgealloc.solvers.certify.write import certified
from edgealloc.verify.certificate import check_certificate
from edgealloc.verify.proof.enclosures import Balls, Intervals, Number
from edgealloc.verify.proof.pools import Pools
from edgealloc.verify.proof.verdict import BITS
from edgealloc.verify.solution import verify_files
from tests.conftest import small_instance
from tests.solvers.separable.test_brute_force import random_instance


def clustered(base: Instance, clusters: tuple[int, ...], **spec: object) -> Instance:
    """The instance with terms per cluster, and what else the bound is to have."""
    bound = replace(base.bound, pooling="cluster", **spec)  # type: ignore[arg-type]
    return base.with_changes(bound=bound, clusters=clusters)


def continuous(**spec: object) -> Instance:
    """Six devices in three clusters of two kinds of size, whose names are not in the order of the devices."""
    rng, k = np.random.default_rng(3), 6
    base = conformance.cell(
        samples=rng.uniform(200, 900, k), gain=10.0 ** rng.uniform(-11.5, -10, k), power_max_w=0.1, energy_j=4.0,
        cycles_fixed=rng.uniform(5e9, 1.1e10, k), bandwidth_hz=1.2e5,
    )  # fmt: skip
    return clustered(base, (9, 4, 9, 0, 4, 9), **spec)


def proved(instance: Instance, rel_gap: float = 1e-6, **more: object) -> tuple[Result, Certificate]:
    """A result with its certificate, read again from its file's content; it holds."""
    result = solve(instance, "bnb", rel_gap=rel_gap, time_limit=60.0, **more)  # type: ignore[arg-type]
    result, certificate = certified(result, rel_gap)
    again = certificate_from_dict(certificate.to_file())
    assert isinstance(again, Certificate)
    stated = result.problem.constraints
    assert not check_certificate(instance, again, constraints=stated).faults
    return result, again


def random_clusters(seed: int) -> Instance | None:
    """A random instance of every variant, in up to three clusters; None where all share one keep rate."""
    base = random_instance(seed)
    if base.common_keep:
        return None
    names = np.random.default_rng(seed).integers(0, 3, base.num_devices)
    return clustered(base, tuple(int(name) * 7 % 5 for name in names))


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(10, 200, 10))])
def test_random_instances_are_proved(first: int) -> None:
    told = []
    for seed in range(first, first + 10):
        instance = random_clusters(seed)
        if instance is None:
            continue
        result, certificate = proved(instance)
        told.append(result.status)
        if result.status is Status.INFEASIBLE:
            assert certificate.lower_bound == math.inf
        else:
            assert result.status is Status.OPTIMAL
            assert certificate.lower_bound <= result.objective
    assert told.count(Status.OPTIMAL) >= 3


@pytest.mark.parametrize("underfit", ["inverse-keep", "perturbation"])
def test_a_proof_in_files_is_accepted(underfit: str, tmp_path: Path) -> None:
    instance = continuous(underfit=underfit, underfit_weight=0.2)
    result, certificate = proved(instance)
    save_instance(instance, tmp_path / "cell.json")
    result.save(tmp_path / "solution.json")
    save_certificate(certificate, tmp_path / "proof.json")
    assert load_certificate(tmp_path / "proof.json").to_file() == certificate.to_file()
    report = verify_files(tmp_path / "cell.json", tmp_path / "solution.json", certificate=tmp_path / "proof.json")
    assert report.ok
    assert any("proved" in note for note in report.notes)


def test_one_cluster_and_one_each_prove_what_the_other_poolings_do() -> None:
    plain = conformance.cell(bandwidth_hz=2e4)
    for clusters, pooling in (((4, 4, 4), "global"), ((9, 0, 3), "device")):
        result, certificate = proved(clustered(plain, clusters))
        other = solve(plain.with_changes(bound=BoundSpec(pooling=pooling)), rel_gap=1e-6)  # type: ignore[arg-type]
        assert certificate.lower_bound <= other.objective
        assert certificate.lower_bound == pytest.approx(other.lower_bound, rel=1e-6)
        assert result.status is Status.OPTIMAL


def test_under_caps_there_are_prices_of_both() -> None:
    instance = continuous()
    free, _ = proved(instance)
    row = SpectrumCap(2.5e4, [*instance.device_names[:2]])
    result, certificate = proved(instance, constraints=[row])
    assert certificate.lower_bound > free.objective  # it binds
    priced = [node for node in certificate.nodes if node.priced is not None]
    assert any(max(node.cap_prices, default=0.0) > 0.0 for node in priced)
    assert check_certificate(instance, certificate).faults  # nobody stated it
    assert result.status is Status.OPTIMAL


def test_prices_of_other_clusters_prove_less() -> None:
    """The proof is of the prices that each cluster has: none holds with one moved, or with two exchanged."""
    instance = continuous()
    _, certificate = proved(instance)
    (node,) = (node for node in certificate.nodes if node.priced is not None)
    assert isinstance(node.kept_share, tuple)
    honest = node.kept_share
    moved = [tuple(q * (1.3 if e == moved else 1.0) for e, q in enumerate(honest)) for moved in range(3)]
    for shares in (*moved, honest[::-1], honest[1:] + honest[:1]):
        changed = replace(node, kept_share=shares)
        nodes = tuple(changed if each is node else each for each in certificate.nodes)
        told = check_certificate(instance, replace(certificate, nodes=nodes, rounds=()))
        assert any(fault.field.startswith("nodes[") and "proves" in fault.value for fault in told.faults), shares


def test_a_proof_is_of_the_partition_of_the_instance() -> None:
    """Under other names the same clusters are the same; with one device elsewhere they are not."""
    instance = continuous()
    _, certificate = proved(instance)
    renamed = instance.with_changes(clusters=(12, 5, 12, 1, 5, 12))
    assert not check_certificate(renamed, certificate).faults
    turned = instance.with_changes(clusters=(1, 2, 1, 3, 2, 1))  # the names in another order
    assert check_certificate(turned, certificate).faults
    assert check_certificate(instance.with_changes(clusters=(9, 9, 9, 0, 4, 9)), certificate).faults
    for pooling in ("global", "device"):
        other = instance.with_changes(bound=replace(instance.bound, pooling=pooling))  # type: ignore[arg-type]
        assert any(
            "kept_share in [0, 1]" in fault.allowed for fault in check_certificate(other, certificate).faults
        )


def test_proofs_of_other_poolings_prove_nothing_of_clusters() -> None:
    instance = continuous()
    for pooling in ("global", "device"):
        bound = replace(instance.bound, pooling=pooling)  # type: ignore[arg-type]
        for method in ("convex", "bnb"):
            _, certificate = certified(solve(instance.with_changes(bound=bound), method))
            told = check_certificate(instance, certificate)
            assert any("a list of 3 numbers" in fault.allowed for fault in told.faults)


def exact_terms(instance: Instance, keep: np.ndarray) -> float:
    """Sum of w_e gap_e(Q_e), with exact sums of the samples and of what is kept."""
    spec, total, value = instance.bound, sum(map(Fraction, instance.samples.tolist())), 0.0
    for name in set(instance.clusters or ()):
        mine = [k for k, other in enumerate(instance.clusters or ()) if other == name]
        held = sum(Fraction(float(instance.samples[k])) for k in mine)
        kept = sum(Fraction(float(instance.samples[k])) * Fraction(float(keep[k])) ** 2 for k in mine) / held
        y = spec.curvature + 2.0 * spec.sparsity_weight * float(1 - kept)
        loss = spec.loss_range**2 + 24.0 * spec.loss_range * spec.lipschitz**2 / y
        value += float(held / total) * math.sqrt(loss / (2.0 * float(held) * spec.confidence_delta))
    return value


def test_tangents_lie_below_the_terms_and_touch_them() -> None:
    rng = np.random.default_rng(0)
    for count, kind in itertools.product((1, 2, 4, 7), (Intervals, Balls)):
        names = rng.permutation(np.concatenate((np.arange(count), rng.integers(0, count, 7 - count))))
        base = small_instance(devices=7, samples=rng.uniform(1.0, 1e4, 7))
        instance = clustered(base, tuple(int(name) * 3 for name in names), curvature=float(rng.uniform(0.01, 1.0)))
        with ctx.workprec(BITS):
            pools = Pools.of(instance, kind)
            assert pools is not None
            assert pools.count == count
            keep = rng.uniform(0.0, 1.0, 7)
            own = np.array([instance.weights[names == e] @ keep[names == e] ** 2 for e in range(count)])
            own /= np.array([instance.weights[names == e].sum() for e in range(count)])
            at = np.vstack((np.minimum(own, 1.0), rng.uniform(0.0, 1.0, (20, count))))
            below = _below(pools, kind, instance, keep, at)
        true = exact_terms(instance, keep)
        assert np.all(below <= true * (1.0 + 4e-15))
        assert below[0] == pytest.approx(true, rel=1e-11)
        assert np.all(below[1:] < true * (1.0 - 1e-9))


def _below(pools: Pools, kind: type[Number], instance: Instance, keep: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The tangents at Q0 [J, E] at what is kept. Shape [J]."""
    constant, slope = pools.priced(at)
    s = kind.of(keep)
    weight = kind.of(instance.samples) / kind.of(instance.samples).total()
    found = []
    for j in range(len(at)):
        mine = slope.take(np.arange(7) + 7 * j)
        found.append(float((constant.take(j) + (mine * weight * s * s).total()).lower()))
    return np.array(found)


def test_intervals_hold_what_balls_say_of_clusters() -> None:
    rng = np.random.default_rng(1)
    instance, at = continuous(), rng.uniform(0.0, 1.0, (50, 3))
    rough = Pools.of(instance, Intervals)
    assert rough is not None
    with ctx.workprec(BITS):
        sharp = Pools.of(instance, Balls)
        assert sharp is not None
        for one, other in zip(rough.priced(at), sharp.priced(at), strict=True):
            low, high = other.lower(), other.upper()
            assert np.all((one.lower() <= low) & (high <= one.upper()))
            assert np.all(one.upper() - one.lower() <= 1e-12 * (1.0 + np.abs(high)))
