"""Examples spread over devices."""

from __future__ import annotations

import numpy as np
import pytest

from edgealloc.models.training.examples import (
    device_sizes,
    flip_labels,
    skewed_weights,
    split_dirichlet,
    split_iid,
)


def test_splits_use_every_example_once() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    sizes = device_sizes(300, skewed_weights(7, 1.0, rng))
    assert sizes.sum() == 300
    assert sizes.min() >= 1
    for parts in (split_iid(sizes, rng), split_dirichlet(labels, sizes, 0.2, rng)):
        assert [len(p) for p in parts] == sizes.tolist()
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))


def test_sizes_follow_the_weights() -> None:
    np.testing.assert_array_equal(device_sizes(103, [1, 1, 1]) - 34, [1, 0, 0])
    sizes = device_sizes(10_000, [1, 2, 5])
    np.testing.assert_allclose(sizes / 10_000, np.array([1, 2, 5]) / 8, atol=3e-4)
    with pytest.raises(ValueError, match="cannot give"):
        device_sizes(2, [1, 1, 1])
    with pytest.raises(ValueError, match="positive weight"):
        device_sizes(9, [1, 0, 1])


def test_the_concentration_sets_how_uneven_the_classes_are() -> None:
    labels = np.repeat(np.arange(5), 200)
    sizes = np.full(10, 100)

    def unevenness(concentration: float) -> float:
        parts = split_dirichlet(labels, sizes, concentration, np.random.default_rng(1))
        shares = np.array([np.bincount(labels[p], minlength=5) / len(p) for p in parts])
        return float(np.abs(shares - 0.2).mean())

    assert unevenness(0.1) > unevenness(1.0) > unevenness(1000.0)
    assert unevenness(1000.0) < 0.05
    with pytest.raises(ValueError, match="concentration 0"):
        split_dirichlet(labels, sizes, 0.0, np.random.default_rng(1))


def test_flipped_labels_are_counted_and_never_the_old_ones() -> None:
    labels = np.random.default_rng(0).integers(0, 6, 500)
    flipped = flip_labels(labels, 0.2, 6, np.random.default_rng(1))
    assert (flipped != labels).sum() == 100
    assert set(flipped) <= set(range(6))
    np.testing.assert_array_equal(flip_labels(labels, 0.0, 6, np.random.default_rng(1)), labels)
