"""Which devices belong together: planted kinds, one kind, and B that have no direction."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.models.exchange.clusters import LEAST_SILHOUETTE, Dendrogram, b_distances

State = dict[str, np.ndarray]


def _devices(kinds: int, each: int, noise: float, seed: int, size: int = 64, common: float = 0.0) -> list[State]:
    """B of two layers [size, 4]: that of the kind, and noise as large as ``noise`` times it."""
    rng = np.random.default_rng(seed)
    states: list[State] = [{} for _ in range(kinds * each)]
    for layer in ("query", "value"):
        shared = common * rng.standard_normal((size, 4))
        for kind in range(kinds):
            own = shared + rng.standard_normal((size, 4))
            for i in range(each):
                b = own + noise * rng.standard_normal((size, 4))
                states[kind * each + i][f"{layer}.lora_B.weight"] = b.astype("f4")
    return states


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("kinds", "each"), [(2, 3), (3, 4), (4, 4)])
def test_planted_clusters_are_found(kinds: int, each: int, noise: float) -> None:
    for seed in range(5):
        tree = Dendrogram.of(b_distances(_devices(kinds, each, noise, seed, common=float(seed % 2))))
        assert tree.by_silhouette(4) == kinds
        np.testing.assert_array_equal(tree.labels(kinds), np.repeat(np.arange(kinds), each))


@pytest.mark.parametrize("noise", [0.02, 0.3, 1.0, 3.0])
def test_one_kind_gives_one_cluster(noise: float) -> None:
    for seed in range(5):
        for count in (2, 5, 16):
            tree = Dendrogram.of(b_distances(_devices(1, count, noise, seed)))
            assert tree.by_silhouette(4) == 1


def test_the_threshold_is_what_decides_between_one_and_more() -> None:
    tree = Dendrogram.of(b_distances(_devices(2, 4, 1.0, 3)))
    reached = tree.silhouette(2)
    assert reached > LEAST_SILHOUETTE
    assert tree.by_silhouette(4, least=reached) == 2
    assert tree.by_silhouette(4, least=np.nextafter(reached, 1.0)) == 1
    assert tree.by_silhouette(1) == 1


def test_distances_are_the_mean_of_one_less_the_cosine() -> None:
    states = _devices(2, 2, 0.5, 0)
    d = b_distances(states)
    for i in range(4):
        for j in range(4):
            told = []
            for name in states[0]:
                a, b = states[i][name].ravel().astype(float), states[j][name].ravel().astype(float)
                told.append(1.0 - a @ b / np.sqrt((a @ a) * (b @ b)))
            assert d[i, j] == pytest.approx(np.mean(told), abs=1e-12)
    scaled = [{name: 1e-30 * (k + 1) * b.astype(float) for name, b in s.items()} for k, s in enumerate(states)]
    np.testing.assert_allclose(b_distances(scaled), d, atol=1e-12)
    opposite = b_distances([states[0], {name: -b for name, b in states[0].items()}])
    assert opposite[0, 1] == pytest.approx(2.0)


def test_b_without_a_direction_is_no_fault() -> None:
    name = "query.lora_B.weight"
    zero, one = {name: np.zeros((6, 2))}, {name: np.ones((6, 2))}
    np.testing.assert_array_equal(b_distances([zero, zero, zero]), np.zeros((3, 3)))
    assert Dendrogram.of(b_distances([zero, zero, zero])).by_silhouette(3) == 1
    assert Dendrogram.of(b_distances([one, one, one])).silhouette(2) == 0.0
    mixed = Dendrogram.of(b_distances([zero, one, zero, one]))
    assert mixed.distance[0, 1] == 1.0
    assert mixed.by_silhouette(3) == 2
    np.testing.assert_array_equal(mixed.labels(2), [0, 1, 0, 1])
    alone = Dendrogram.of(b_distances([zero]))
    assert alone.by_silhouette(4) == 1
    np.testing.assert_array_equal(alone.labels(1), [0])
    for broken in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"device 1: query\.lora_B\.weight is not finite"):
            b_distances([one, {name: np.full((6, 2), broken)}])
    with pytest.raises(ValueError, match="same rank"):
        b_distances([one, {name: np.ones((6, 1))}])
    with pytest.raises(ValueError, match="at least one B"):
        b_distances([])


def test_cuts_have_as_many_clusters_as_asked_also_where_merges_tie() -> None:
    tree = Dendrogram.of(np.ones((5, 5)) - np.eye(5))
    for m in range(1, 6):
        assert len(np.unique(tree.labels(m))) == m
    assert np.isnan(tree.silhouette(1))
    assert tree.silhouette(5) == 0.0
    with pytest.raises(ValueError, match="must be 1 to 5"):
        tree.labels(6)
    for bad in (np.ones((2, 2)), np.full((2, 2), np.nan), np.array([[0.0, 1.0], [2.0, 0.0]])):
        with pytest.raises(ValueError, match="distances"):
            Dendrogram.of(bad)


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    for seed in range(5):
        tree = Dendrogram.of(b_distances(_devices(3, 3, 1.5, seed)))
        for m in range(2, 9):
            told = metrics.silhouette_score(tree.distance, tree.labels(m), metric="precomputed")
            assert tree.silhouette(m) == pytest.approx(told, abs=1e-12)
