"""Devices of different rank: what travels, and three ways of merging, each against what it must leave alone."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest

from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate, weights_of
from edgealloc.models.exchange.dropout import draw_masks, full_masks, masked, scatter_adapter, slice_adapter
from edgealloc.models.exchange.ranks import cut_product, rank_of_label, restarted
from edgealloc.models.exchange.replies import gather
from edgealloc.models.exchange.wire import AdapterShape, a_name, b_name, pack, unpack
from edgealloc.scenario.adapter import LoraLayer

SHAPE = AdapterShape((LoraLayer("l", 12, 9, 4), LoraLayer("m", 10, 7, 2)), (("head", (2, 12)),))
LAYERS = ("l", "m")
WAYS = ("factors", "svd", "stack")


def state_of(seed: int, dtype: type = np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out: dict[str, np.ndarray] = {}
    for u in SHAPE.layers:
        out[a_name(u.name)] = rng.normal(size=(u.rank, u.n_in)).astype(dtype)
        out[b_name(u.name)] = rng.normal(size=(u.n_out, u.rank)).astype(dtype)
    return {**out, "head": rng.normal(size=(2, 12)).astype(dtype)}


def update_of(state: dict[str, np.ndarray], rank: int | None, samples: float = 1.0, keep: float = 1.0) -> Update:
    masks = draw_masks(SHAPE, keep, np.random.default_rng(int(samples)), rank=rank)
    return Update(slice_adapter(state, masks), masks, samples)


def product(state: Any, layer: str) -> np.ndarray:
    return np.asarray(state[b_name(layer)] @ state[a_name(layer)])


@pytest.mark.parametrize("keep", [1.0, 0.5])
@pytest.mark.parametrize("rank", [1, 2, 3, 4, 9])
def test_bits_on_the_wire_are_the_payload_and_slices_come_back_to_their_places(rank: int, keep: float) -> None:
    state = state_of(0, np.float32)
    masks = draw_masks(SHAPE, keep, np.random.default_rng(1), rank=rank)
    slices = slice_adapter(state, masks)
    wire = pack(slices)
    own = SHAPE.of_rank(rank)
    whole = sum(min(rank, u.rank) * (int(keep * u.n_in) + int(keep * u.n_out)) for u in SHAPE.layers)
    assert 8 * len(wire) == own.payload_fixed_bits + 32 * whole <= own.payload_bits(keep)
    if keep == 1.0:
        assert 8 * len(wire) == own.payload_bits(1.0)
    back = scatter_adapter(unpack(wire, slices), masks)
    for name, value in masked(state, masks).items():
        np.testing.assert_array_equal(back[name], value)
        part = min(rank, value.shape[0]) if "lora_A" in name else min(rank, value.shape[1])
        if "lora" in name:
            lost = value[part:] if "lora_A" in name else value[:, part:]
            assert not np.any(lost)
    filled = scatter_adapter(slices, masks, state)
    for name, value in state.items():
        np.testing.assert_array_equal(filled[name], value)


def test_ranks_do_not_change_which_columns_and_rows_are_drawn() -> None:
    one, other = (draw_masks(SHAPE, 0.4, np.random.default_rng(2), rank=rank) for rank in (None, 1))
    for layer in LAYERS:
        np.testing.assert_array_equal(one.columns[layer], other.columns[layer])
        np.testing.assert_array_equal(one.rows[layer], other.rows[layer])
    assert not one.ranks
    assert set(draw_masks(SHAPE, 0.4, np.random.default_rng(2), rank=3).ranks) == {"l"}  # m has two components
    for refuses in (partial(full_masks, SHAPE), SHAPE.of_rank):
        for rank in (0, -1, 2.5):
            with pytest.raises(ValueError, match=f"rank {rank}: a device has a whole number"):
                refuses(rank)


@pytest.mark.parametrize("way", WAYS)
def test_identical_devices_are_a_fixed_point_up_to_the_product(way: Any) -> None:
    state = state_of(0)
    same = [update_of(state, None, n) for n in (3.0, 5.0, 1.0)]
    before = {name: np.zeros_like(value) for name, value in state.items()}
    merged = aggregate(before, same, Aggregation(merge=way))
    for layer in LAYERS:
        got = product(merged.state, layer) + merged.base_residual.get(layer, 0.0)
        np.testing.assert_allclose(got, product(state, layer), atol=1e-12)
    np.testing.assert_allclose(merged.state["head"], state["head"], rtol=1e-12)


def test_equal_ranks_are_the_ordinary_mean_of_factors() -> None:
    states = [state_of(seed) for seed in range(3)]
    for rank in (2, None):
        mixed = [update_of(s, rank, 1.0 + k) for k, s in enumerate(states)]
        merged = aggregate(state_of(9), mixed, Aggregation()).state
        for name in merged:
            pieces = [full_masks(SHAPE, rank).cut(name, s[name]) for s in states]
            mean = np.average(pieces, axis=0, weights=[1.0, 2.0, 3.0])
            np.testing.assert_allclose(full_masks(SHAPE, rank).cut(name, merged[name]), mean, rtol=1e-12)


def test_padding_counts_as_zero_or_not_as_the_fill_rule_says() -> None:
    """HetLoRA's zero padding, and the mean over those who have the component."""
    states, before = [state_of(1), state_of(2)], state_of(9)
    updates = [update_of(states[0], 1, 1.0), update_of(states[1], 3, 3.0)]
    name = b_name("l")
    zero = aggregate(before, updates, Aggregation("zero")).state[name]
    keep = aggregate(before, updates, Aggregation("keepers")).state[name]
    both = 0.25 * states[0][name][:, 0] + 0.75 * states[1][name][:, 0]
    for got in (zero, keep):
        np.testing.assert_allclose(got[:, 0], both, rtol=1e-12)
    np.testing.assert_allclose(zero[:, 1:3], 0.75 * states[1][name][:, 1:3], rtol=1e-12)
    np.testing.assert_allclose(keep[:, 1:3], states[1][name][:, 1:3], rtol=1e-12)
    assert not np.any(zero[:, 3])
    np.testing.assert_array_equal(keep[:, 3], before[name][:, 3])


def test_stacking_is_exact_at_any_mix_of_ranks_and_dropout() -> None:
    for keep in (1.0, 0.5):
        updates = [update_of(state_of(k), rank, 1.0 + k, keep) for k, rank in enumerate((1, 3, 4, None))]
        before = state_of(9)
        merged = aggregate(before, updates, Aggregation(merge="stack"))
        for layer in LAYERS:
            parts = [scatter_adapter(u.slices, u.masks) for u in updates]
            factors = [
                (0.1 * u.samples * p[b_name(layer)], p[a_name(layer)]) for u, p in zip(updates, parts, strict=True)
            ]
            stacked = np.hstack([b for b, _ in factors]) @ np.vstack([a for _, a in factors])
            np.testing.assert_allclose(merged.base_residual[layer], stacked, atol=1e-12)
            assert not np.any(merged.state[b_name(layer)])
            np.testing.assert_array_equal(merged.state[a_name(layer)], before[a_name(layer)])


def test_svd_keeps_the_best_part_of_the_mean_product_in_front() -> None:
    updates = [update_of(state_of(k), rank, 1.0 + k) for k, rank in enumerate((1, 3, 4))]
    merged = aggregate(state_of(9), updates, Aggregation(merge="svd")).state
    mean = aggregate(state_of(9), updates, Aggregation(merge="stack")).base_residual
    for u in SHAPE.layers:
        values = np.linalg.svd(mean[u.name])[1]
        for rank in range(1, u.rank + 1):  # what a device of this rank gets is the best that there is of its rank
            part = masked(merged, full_masks(SHAPE, rank))
            miss = np.linalg.norm(product(part, u.name) - mean[u.name])
            np.testing.assert_allclose(miss, np.sqrt(np.sum(values[rank:] ** 2)), rtol=1e-9, atol=1e-9)
    exact = aggregate(state_of(9), updates, Aggregation(merge="svd", correction="exact"))
    for layer in LAYERS:
        np.testing.assert_allclose(
            product(exact.state, layer) + exact.base_residual[layer], mean[layer], atol=1e-12
        )


def test_a_product_of_lower_rank_leaves_components_that_can_still_learn() -> None:
    like = state_of(9)[a_name("l")]
    flat = np.outer(np.arange(1.0, 10.0), np.ones(12))
    a, b = cut_product(flat, like)
    np.testing.assert_allclose(b @ a, flat, rtol=1e-12)
    np.testing.assert_array_equal(a[1:], like[1:])
    assert not np.any(b[:, 1:])
    a, b = cut_product(np.zeros((9, 12)), like)
    np.testing.assert_array_equal(a, like)
    assert not np.any(b)
    assert np.all(np.isnan(cut_product(np.full((9, 12), np.inf), like)[1]))
    for size in (1e-320, 1e-200, 1e200, 1e306):  # of what a double holds, nothing is lost
        a, b = cut_product(np.full((9, 12), size), like)
        np.testing.assert_allclose(b @ a, size, rtol=1e-3 if size < 1e-300 else 1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_number_formats_stay_and_one_device_comes_back(way: Any, dtype: type) -> None:
    before = state_of(9, dtype)
    update = update_of(state_of(1, dtype), 1)
    merged = aggregate(before, [update], Aggregation(merge=way))
    assert {value.dtype for value in merged.state.values()} == {np.dtype(dtype)}
    one = scatter_adapter(update.slices, update.masks)
    for layer in LAYERS:
        got = product({n: v.astype(float) for n, v in merged.state.items()}, layer)
        want = product({n: v.astype(float) for n, v in one.items()}, layer)
        tolerance = 20 * float(np.finfo(dtype).eps) * np.abs(want).max()
        np.testing.assert_allclose(got + merged.base_residual.get(layer, 0.0), want, atol=tolerance)


def test_weights_by_norm_are_those_of_the_products_and_even_before_anything_is_learned() -> None:
    states = [state_of(seed) for seed in range(3)]
    updates = [update_of(s, rank, 50.0 * k + 1) for k, (s, rank) in enumerate(zip(states, (1, 2, 4), strict=True))]
    rule = Aggregation(weighting="norm")
    sizes = []
    for update in updates:
        part = scatter_adapter(update.slices, update.masks)
        sizes.append(np.sqrt(sum(np.sum(product(part, layer) ** 2) for layer in LAYERS)))
    np.testing.assert_allclose(weights_of(states[0], updates, rule), np.array(sizes) / np.sum(sizes), rtol=1e-12)
    got = gather(state_of(9), {f"d{k}": u for k, u in enumerate(updates)}, rule)
    np.testing.assert_allclose(list(got.weights.values()), np.array(sizes) / np.sum(sizes), rtol=1e-12)
    zero = {n: np.zeros_like(v) for n, v in states[0].items()}
    np.testing.assert_array_equal(weights_of(zero, [update_of(zero, 2)] * 4, rule), 0.25)
    # a frozen A does not travel and counts
    lean = Update({n: v for n, v in updates[0].slices.items() if "lora_A" not in n}, updates[0].masks, 1.0)
    np.testing.assert_allclose(weights_of(states[0], [lean, updates[0]], rule), 0.5, rtol=1e-12)


def test_what_a_way_of_merging_leaves_nothing_to_is_refused() -> None:
    for way, correction in itertools.product(("svd", "stack"), ("fair", "project")):
        with pytest.raises(ValueError, match=f"correction = '{correction}'; allowed: none.* with merge {way}"):
            Aggregation(merge=way, correction=correction)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"allowed: none with merge stack"):
        Aggregation(merge="stack", correction="exact")
    lean = {n: v for n, v in update_of(state_of(1), 2).slices.items() if "lora_A" not in n}
    with pytest.raises(ValueError, match="which is frozen"):
        aggregate(state_of(9), [Update(lean, full_masks(SHAPE, 2), 1.0)], Aggregation(merge="svd"))


def test_a_reply_of_another_rank_than_was_drawn_is_rejected_by_name() -> None:
    before = state_of(9)
    replies = {"good": update_of(state_of(1), 2), "bad": update_of(state_of(2), 3)}
    drawn = {name: full_masks(SHAPE, 2) for name in replies}
    got = gather(before, replies, masks=drawn)
    assert set(got.weights) == {"good"}
    assert "other masks" in got.rejected["bad"]
    broken = full_masks(SHAPE, 2).ranks["l"][:3]
    odd = Update(
        replies["good"].slices, type(drawn["good"])(drawn["good"].columns, drawn["good"].rows, {"l": broken}), 1.0
    )
    assert "ranks of l is an array" in gather(before, {"odd": odd}).rejected["odd"]


def test_labels_of_menus_are_ranks_or_refused() -> None:
    assert [rank_of_label(label) for label in ("r=1", "r = 16", " r=8 ")] == [1, 16, 8]
    for label in ("8", "r=0", "r=8,16 bit", "rank 8", "r=-1", ""):
        with pytest.raises(ValueError, match="labelled r=8"):
            rank_of_label(label)


def test_an_adapter_that_starts_anew_has_no_product_and_an_a_like_pefts() -> None:
    state = state_of(0, np.float32)
    fresh = restarted(state, np.random.default_rng(3))
    assert list(fresh) == list(state)
    for u in SHAPE.layers:
        assert not np.any(fresh[b_name(u.name)])
        a = fresh[a_name(u.name)]
        assert a.dtype == np.float32
        assert 0.5 < np.abs(a).max() * np.sqrt(u.n_in) <= 1.0
    np.testing.assert_array_equal(fresh["head"], state["head"])
