"""Aggregation rules: each against what it must leave alone and what it must mend."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate
from edgealloc.models.exchange.dropout import draw_masks, full_masks, slice_adapter
from edgealloc.models.exchange.wire import AdapterShape, a_name, b_name
from edgealloc.scenario.adapter import LoraLayer

SHAPE = AdapterShape((LoraLayer("l", 12, 9, 3),), (("cls.weight", (2, 12)),))
A, B = a_name("l"), b_name("l")
EVERY_RULE = [
    Aggregation(fill, weighting, correction)  # type: ignore[arg-type]
    for fill, weighting, correction in itertools.product(
        ("zero", "keepers"), ("samples", "uniform"), ("none", "exact", "fair", "project")
    )
]


def state_of(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        A: rng.normal(size=(3, 12)).astype(np.float32),
        B: rng.normal(size=(9, 3)).astype(np.float32),
        "cls.weight": rng.normal(size=(2, 12)).astype(np.float32),
    }


def updates_of(keep: float, seeds: range, samples: list[float]) -> list[Update]:
    out = []
    for seed, n in zip(seeds, samples, strict=True):
        masks = draw_masks(SHAPE, keep, np.random.default_rng(100 + seed))
        out.append(Update(slice_adapter(state_of(seed), masks), masks, n))
    return out


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rule", EVERY_RULE)
def test_every_rule_keeps_the_number_formats_of_the_server(rule: Aggregation, dtype: type) -> None:
    """Updates came over a wire of their own format; with nobody, the adapter stays as it is."""
    before = {name: value.astype(dtype) for name, value in state_of(0).items()}
    for updates in (updates_of(0.5, range(2), [1.0, 2.0]), []):
        merged = aggregate(before, updates, rule)
        assert {value.dtype for value in merged.state.values()} == {np.dtype(dtype)}
        assert all(residual.dtype == np.float64 for residual in merged.base_residual.values())


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_identical_devices_without_dropout_are_a_fixed_point(rule: Aggregation) -> None:
    state = state_of(0)
    same = [Update(slice_adapter(state, full_masks(SHAPE)), full_masks(SHAPE), n) for n in (3.0, 5.0, 1.0)]
    merged = aggregate(state, same, rule)
    for name in state:
        np.testing.assert_allclose(merged.state[name], state[name], rtol=2e-6, atol=1e-6)
    for residual in merged.base_residual.values():
        np.testing.assert_allclose(residual, 0, atol=1e-6)


def test_keepers_leave_an_untouched_adapter_alone_at_any_dropout() -> None:
    state = state_of(0)
    updates = []
    for seed in range(4):
        masks = draw_masks(SHAPE, 0.4, np.random.default_rng(seed))
        updates.append(Update(slice_adapter(state, masks), masks, 1.0 + seed))
    merged = aggregate(state, updates, Aggregation("keepers"))
    for name in state:
        np.testing.assert_allclose(merged.state[name], state[name], rtol=1e-6)
    shrunk = aggregate(state, updates, Aggregation("zero")).state
    assert np.linalg.norm(shrunk[A]) < 0.7 * np.linalg.norm(state[A])
    np.testing.assert_allclose(shrunk["cls.weight"], state["cls.weight"], rtol=1e-6)


@pytest.mark.parametrize("fill", ["zero", "keepers"])
def test_no_dropout_is_plain_federated_averaging(fill: str) -> None:
    samples = [3.0, 5.0, 2.0]
    states = [state_of(seed) for seed in range(3)]
    updates = [
        Update(slice_adapter(s, full_masks(SHAPE)), full_masks(SHAPE), n)
        for s, n in zip(states, samples, strict=True)
    ]
    merged = aggregate(state_of(9), updates, Aggregation(fill)).state  # type: ignore[arg-type]
    for name in merged:
        expected = np.average([s[name] for s in states], axis=0, weights=samples)
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-6)


def test_zero_fill_and_keepers_against_entry_by_entry_sums() -> None:
    samples = [3.0, 5.0, 2.0, 7.0]
    updates = updates_of(0.35, range(4), samples)
    previous = state_of(9)
    zero = aggregate(previous, updates, Aggregation("zero")).state[A]
    keep = aggregate(previous, updates, Aggregation("keepers")).state[A]
    unseen = 0
    for column in range(12):
        holders = [k for k in range(4) if updates[k].masks.columns["l"][column]]
        mass = sum(samples[k] for k in holders)
        total = sum((samples[k] * state_of(k)[A][:, column] for k in holders), start=np.zeros(3))
        np.testing.assert_allclose(zero[:, column], total / sum(samples), rtol=1e-5, atol=1e-7)
        expected = total / mass if holders else previous[A][:, column]
        np.testing.assert_allclose(keep[:, column], expected, rtol=1e-5, atol=1e-7)
        unseen += not holders
    assert unseen, "the draw should leave a column that nobody kept"


def test_uniform_weighting_ignores_samples() -> None:
    heavy, even = updates_of(0.5, range(3), [1.0, 1.0, 98.0]), updates_of(0.5, range(3), [1.0, 1.0, 1.0])
    previous = state_of(9)
    uniform = aggregate(previous, heavy, Aggregation(weighting="uniform")).state
    np.testing.assert_array_equal(uniform[B], aggregate(previous, even, Aggregation()).state[B])
    assert not np.allclose(uniform[B], aggregate(previous, heavy, Aggregation()).state[B])


@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("fill", ["zero", "keepers"])
def test_the_exact_correction_restores_the_mean_product(fill: str, keep: float) -> None:
    updates = updates_of(keep, range(3), [1.0, 2.0, 3.0])
    previous = state_of(9)
    plain = aggregate(previous, updates, Aggregation(fill)).state  # type: ignore[arg-type]
    merged = aggregate(previous, updates, Aggregation(fill, correction="exact"))  # type: ignore[arg-type]
    total, kept = np.zeros((9, 12)), np.zeros((9, 12))
    for k, update in enumerate(updates):
        device = state_of(k)
        block = np.outer(update.masks.rows["l"], update.masks.columns["l"])
        total += (
            update.samples
            * block
            * ((device[B] * update.masks.rows["l"][:, None]) @ (device[A] * update.masks.columns["l"]))
        )
        kept += update.samples * block
    before = previous[B] @ previous[A]
    mean = total / 6 if fill == "zero" else np.where(kept > 0, total / np.where(kept > 0, kept, 1), before)
    got = merged.state[B] @ merged.state[A] + merged.base_residual["l"]
    np.testing.assert_allclose(got, mean, atol=1e-5)
    # and without it the product of the means is something else
    assert np.linalg.norm(plain[B] @ plain[A] - mean) > 0.2 * np.linalg.norm(mean)


def test_the_projection_brings_the_product_closer_and_a_huge_ridge_switches_it_off() -> None:
    updates = updates_of(1.0, range(3), [1.0, 2.0, 3.0])
    previous = state_of(9)
    mean = sum(u.samples / 6 * (state_of(k)[B] @ state_of(k)[A]) for k, u in enumerate(updates))

    def miss(rule: Aggregation) -> float:
        state = aggregate(previous, updates, rule).state
        return float(np.linalg.norm(state[B] @ state[A] - mean))

    plain = miss(Aggregation())
    least = miss(Aggregation(correction="project", project_ridge=0.0))
    assert least < miss(Aggregation(correction="project", project_ridge=0.1)) < plain
    assert miss(Aggregation(correction="project", project_ridge=1e9)) == pytest.approx(plain, rel=1e-5)
    # no B at all does better than the unregularised correction
    mean_a = aggregate(previous, updates, Aggregation()).state[A].astype(float)
    best_b = np.linalg.lstsq(mean_a.T, mean.T, rcond=None)[0].T
    assert least == pytest.approx(float(np.linalg.norm(best_b @ mean_a - mean)), rel=1e-4)


def test_a_frozen_a_stays_and_makes_the_mean_exact() -> None:
    shape = AdapterShape(SHAPE.layers, SHAPE.head, sends_a=False)
    previous = state_of(9)
    updates = []
    for seed in range(3):
        masks = draw_masks(shape, 0.5, np.random.default_rng(seed))
        updates.append(Update(slice_adapter(state_of(seed), masks, sends_a=False), masks, 1.0 + seed))
    merged = aggregate(previous, updates, Aggregation(correction="exact"))
    np.testing.assert_array_equal(merged.state[A], previous[A])
    np.testing.assert_allclose(merged.base_residual["l"], 0, atol=1e-6)


def test_a_round_without_reports_changes_nothing_and_bad_rules_are_refused() -> None:
    previous = state_of(9)
    merged = aggregate(previous, [], Aggregation(correction="exact"))
    for name in previous:
        np.testing.assert_array_equal(merged.state[name], previous[name])
    with pytest.raises(InputError) as caught:
        Aggregation(fill="ones", merge=["svd"], fair_lambda="much", project_ridge=True)  # type: ignore[arg-type]
    for words in ("fill = 'ones'", "merge = ['svd']", "fair_lambda = 'much'", "project_ridge = True"):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="positive number of samples"):
        aggregate(previous, updates_of(0.5, range(2), [1.0, 0.0]), Aggregation())
