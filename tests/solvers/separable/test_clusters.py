"""A stability term per cluster: against enumeration, at both ends of the scale, by two methods, by the checker."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from edgealloc import conformance, solve
from edgealloc.api import Result
from edgealloc.data.instance import Instance
from edgealloc.data.outcome import Status
from edgealloc.data.spec import BoundSpec
from edgealloc.errors import InputError, RefusedError
from edgealloc.files.instance import dict_from_instance, instance_from_dict, save_instance
from edgealloc.formulation.problem import Problem
from edgealloc.methods import METHODS
from edgealloc.solvers.ofdma.cell import OfdmaCell
from edgealloc.verify.bound import bound_value, free_bracket
from edgealloc.verify.solution import verify_files
from tests.solvers.separable.test_brute_force import Brute, random_instance

RATES = np.array([0.05, 0.15, 0.3, 0.55, 1.0])


def _gap(instance: Instance, samples: float, kept: float) -> float:
    """The stability term, written once more."""
    b = instance.bound
    y = b.curvature + 2.0 * b.sparsity_weight * (1.0 - kept)
    return math.sqrt(
        (b.loss_range**2 + 24.0 * b.loss_range * b.lipschitz**2 / y) / (2.0 * samples * b.confidence_delta)
    )


def _pooled(instance: Instance, keep: np.ndarray) -> float:
    """sum_e (n_e / n) gap_e of the mean of s^2 in a cluster; 0 for who is left out."""
    total, n = 0.0, instance.samples
    for cluster in set(instance.clusters or ()):
        mine = np.array([c == cluster for c in instance.clusters or ()])
        kept = float(n[mine] @ np.square(keep[mine]) / n[mine].sum())
        total += float(n[mine].sum() / n.sum()) * _gap(instance, float(n[mine].sum()), kept)
    return total


def _clustered(instance: Instance, clusters: tuple[int, ...]) -> Instance:
    spec = instance.bound
    kind = {f: getattr(spec, f) for f in spec.__slots__} | {"pooling": "cluster"}
    return instance.with_changes(bound=BoundSpec(**kind), clusters=clusters)


def _of_levels(seed: int) -> Instance:
    """A random instance of three devices and a few levels, two of them in one cluster."""
    rng = np.random.default_rng(seed)
    base = next(i for i in map(random_instance, itertools.count(1000 * seed)) if i.num_devices == 3)
    levels = tuple(np.sort(rng.choice(RATES, 3, replace=False)) for _ in range(3))
    clusters = [(0, 1, 0), (5, 5, 2), (1, 0, 0)][seed % 3]
    return _clustered(base.with_changes(keep_levels=levels, keep_max=1.0), clusters)


def _enumerated(instance: Instance) -> float:
    problem = Problem(instance).of_resources
    brute, best = Brute(problem), math.inf
    room = instance.bandwidth_hz
    if instance.block_hz:
        room = instance.block_hz * math.floor(room / instance.block_hz * (1 + 1e-12)) * (1 + 1e-10)
    for picks in itertools.product(*(brute.choices(k, RATES) for k in range(3))):
        if sum(pick[2] for pick in picks) <= room * (1 + 1e-10):
            keep = np.array([pick[1] for pick in picks])
            best = min(best, sum(pick[3] for pick in picks) + _pooled(instance, keep))
    return best


@pytest.mark.parametrize("first", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_one_band_agrees_with_enumeration(first: int) -> None:
    solved = [_agrees(_of_levels(seed)) for seed in range(first, first + 8)]
    assert sum(solved) >= 4


def _agrees(instance: Instance) -> bool:
    """Whether there is an allocation; the methods that take the instance say so, and find the optimum."""
    best = _enumerated(instance)
    for method in ("bnb", "highs") if METHODS["highs"].accepts(Problem(instance)) else ("bnb",):
        result = solve(instance, method=method, rel_gap=1e-7, time_limit=60.0)
        if math.isinf(best):
            assert result.status is Status.INFEASIBLE
            continue
        assert result.status is Status.OPTIMAL
        assert result.lower_bound <= best * (1 + 1e-9)
        assert result.objective == pytest.approx(best, rel=2e-7)
    return math.isfinite(best)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2))])
def test_subcarriers_agree_with_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gain = np.array([[4e-12], [3e-11], [1e-11]]) * rng.exponential(size=(3, 5))
    levels = tuple(np.sort(rng.choice(RATES, 3, replace=False)) for _ in range(3))
    base = conformance.cell(access="ofdma", gain=gain, keep_levels=levels, exclusion_penalty=3.0, bandwidth_hz=9e4)
    instance = _clustered(base, (0, 1, 0))
    cell = OfdmaCell.of(Problem(instance).of_resources)
    assert len(cell.device) == 3
    w, a, best = instance.weights, instance.bound.underfit_weight, math.inf
    caps: dict[tuple[int, bytes], float] = {}
    for owner in itertools.product(range(-1, 3), repeat=5):
        options = []
        for k in range(3):
            mask = np.array(owner) == k
            cap = caps.setdefault((k, mask.tobytes()), float(cell.cap(k, mask)[0]) if mask.any() else -1.0)
            options.append([0.0, *(s for s in levels[k] if s <= cap)])
        for keep in itertools.product(*options):
            s = np.array(keep)
            loss = np.where(s > 0.0, 1.0 / np.where(s > 0.0, s, 1.0) - 1.0, 3.0)
            best = min(best, a * float(w @ loss) + _pooled(instance, s))
    assert solve(instance).method == "bnb"
    for method in ("bnb", "highs"):
        result = solve(instance, method=method, rel_gap=1e-6, time_limit=60.0)
        assert result.status is Status.OPTIMAL
        assert result.lower_bound <= best * (1 + 1e-9)
        assert result.objective == pytest.approx(best, rel=2e-6)


@pytest.mark.parametrize(("clusters", "pooling"), [((4, 4, 4), "global"), ((9, 0, 3), "device")])
def test_one_cluster_is_global_and_one_each_is_device_pooling(clusters: tuple[int, ...], pooling: str) -> None:
    for make in (conformance.cell, lambda **c: conformance.cell(exclusion_penalty=3.0, bandwidth_hz=2e4, **c)):
        plain = make(bound=BoundSpec(pooling=pooling))
        instance = _clustered(plain, clusters)
        ours, theirs = Problem(instance), Problem(plain)
        rng = np.random.default_rng(0)
        for _ in range(20):
            keep, on = rng.uniform(0.02, 1.0, 3), rng.random(3) < 0.7
            on |= plain.exclusion_penalty is None
            assert ours.objective(keep, on) == pytest.approx(theirs.objective(keep, on), rel=1e-14)
        assert ours.free_objective == pytest.approx(theirs.free_objective, rel=1e-12)
        one, other = solve(instance, rel_gap=1e-7), solve(plain, rel_gap=1e-7)
        assert one.status is other.status is Status.OPTIMAL
        assert one.objective == pytest.approx(other.objective, rel=2e-7)
        assert one.lower_bound <= other.objective * (1 + 1e-12)
        assert other.lower_bound <= one.objective * (1 + 1e-12)


def _between(rng: np.random.Generator) -> Instance:
    k = 6
    base = conformance.cell(
        samples=rng.uniform(200, 900, k), gain=10.0 ** rng.uniform(-11.5, -10, k), power_max_w=0.1, energy_j=4.0,
        cycles_fixed=rng.uniform(5e9, 1.1e10, k), bandwidth_hz=1.2e5,
    )  # fmt: skip
    return _clustered(base, (0, 1, 2, 0, 1, 0))


@pytest.mark.parametrize("underfit", ["inverse-keep", "perturbation"])
def test_two_methods_and_the_checker_agree_on_continuous_rates(underfit: str, tmp_path: Path) -> None:
    instance = _between(np.random.default_rng(3))
    spec = BoundSpec(underfit=underfit, underfit_weight=0.2, pooling="cluster")  # type: ignore[arg-type]
    instance = instance.with_changes(bound=spec)
    results: list[Result] = [solve(instance, method=m, rel_gap=1e-6, time_limit=60.0) for m in ("bnb", "highs")]
    for one, other in itertools.permutations(results):
        assert one.status is Status.OPTIMAL
        assert one.lower_bound <= other.objective * (1 + 1e-12)
    first = results[0]
    assert first.allocation is not None
    everyone, ones = np.ones(6, bool), np.ones(6)
    assert bound_value(instance, first.allocation.keep, everyone, ones) == pytest.approx(
        first.objective, rel=1e-13
    )
    bracket = free_bracket(instance)
    assert bracket is not None
    assert bracket[0] * (1 - 1e-8) <= first.free_objective <= bracket[1] * (1 + 1e-8)
    save_instance(instance, tmp_path / "cell.json")
    first.save(tmp_path / "solution.json")
    assert verify_files(tmp_path / "cell.json", tmp_path / "solution.json").ok


def test_a_finer_cut_cannot_lower_the_bound_of_the_same_rates() -> None:
    """Fewer samples a term, and every term is convex: pooling more is never worse where rates are equal."""
    instance = _between(np.random.default_rng(4))
    rng, cuts = np.random.default_rng(0), [(0,) * 6, (0, 0, 0, 1, 1, 1), (0, 0, 2, 1, 1, 1), tuple(range(6))]
    for _ in range(20):
        keep = rng.uniform(0.05, 1.0, 6)
        values = [Problem(instance.with_changes(clusters=cut)).objective(keep) for cut in cuts]
        assert values == sorted(values)


def test_who_does_not_know_clusters_refuses_them() -> None:
    instance = _clustered(conformance.cell(), (0, 1, 0))
    problem = Problem(instance)
    takers = {name for name, method in METHODS.items() if method.takes(problem)}
    assert takers == {"bnb", "highs"}
    with pytest.raises(RefusedError, match="clusters"):
        solve(instance, method="convex")
    with pytest.raises(RefusedError, match="per cluster"):
        solve(instance, method="psca")
    with pytest.raises(RefusedError, match="pooled by cluster"):
        _ = problem.pooled


def test_infeasible_cells_say_what_is_missing() -> None:
    for changes in ({"latency_s": 5.5}, {"bandwidth_hz": 300.0}, {"gain": np.array([3e-12, 0.0, 1e-10])}):
        instance = _clustered(conformance.cell(**changes), (0, 1, 0))
        for method in ("bnb", "highs"):
            result = solve(instance, method=method)
            assert result.status is Status.INFEASIBLE
            assert result.diagnosis


def test_files_and_faults_name_device_and_field() -> None:
    instance = _clustered(conformance.cell(), (0, 1, 0))
    data = dict_from_instance(instance)
    assert [device["cluster"] for device in data["devices"]] == [0, 1, 0]
    assert instance_from_dict(data) == instance
    assert instance.take([2, 0]).clusters == (0, 0)
    del data["devices"][1]["cluster"]
    with pytest.raises(InputError, match="dev-0001: cluster = None; allowed: a whole number >= 0"):
        instance_from_dict(data)
    for wrong in ((0, 1), (0, 0.5, 1), (0, -1, 1), (0, "a", 1)):
        with pytest.raises(InputError, match="cluster"):
            instance.with_changes(clusters=wrong)
    with pytest.raises(InputError, match="common_keep = True; allowed: false where pooling is cluster"):
        instance.with_changes(common_keep=True)


@pytest.mark.parametrize("cluster", [2**53, 2**53 + 1, 10**30, 1e300])
def test_names_of_clusters_that_doubles_do_not_tell_apart_are_refused(cluster: float) -> None:
    with pytest.raises(InputError, match=r"dev-0001: cluster = .*; allowed: a whole number from 0 to 2"):
        conformance.cell(bound=BoundSpec(pooling="cluster"), clusters=(2**53 - 1, cluster, 0))
    told_apart = conformance.cell(bound=BoundSpec(pooling="cluster"), clusters=(2**53 - 1, 2**53 - 2, 0))
    assert solve(told_apart).status is Status.OPTIMAL
