"""Sparse B beside a frozen A per task: orthogonal, of the planned size, and merged entry by entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgealloc.errors import InputError
from edgealloc.models.exchange.aggregation import Aggregation, Update, aggregate, weights_of
from edgealloc.models.exchange.dropout import draw_masks, full_masks, masked, scatter_adapter, slice_adapter
from edgealloc.models.exchange.orthogonal import orthogonal_a
from edgealloc.models.exchange.replies import gather
from edgealloc.models.exchange.wire import AdapterShape, a_name, b_name, pack, unpack
from edgealloc.scenario.adapter import LoraLayer

SHAPE = AdapterShape((LoraLayer("l", 48, 40, 5), LoraLayer("m", 30, 20, 2)), (("head", (2, 3)),), sends_a=False)


def state_of(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = {"head": rng.normal(size=(2, 3)).astype(np.float32)}
    for u in SHAPE.layers:
        out[a_name(u.name)] = rng.normal(size=(u.rank, u.n_in)).astype(np.float32)
        out[b_name(u.name)] = rng.normal(size=(u.n_out, u.rank)).astype(np.float32)
    return out


def sparse(seed: int, density: float, draw: int = 0, samples: float = 1.0) -> Update:
    masks = draw_masks(SHAPE, density, np.random.default_rng(draw), "entries")
    return Update(slice_adapter(state_of(seed), masks, sends_a=False), masks, samples)


def test_rows_of_all_tasks_are_orthonormal_and_drawn_from_the_seed_alone() -> None:
    drawn = orthogonal_a(SHAPE, 9, 3)
    for u in SHAPE.layers:
        for i, one in enumerate(drawn):
            for j, other in enumerate(drawn):
                gram = one[a_name(u.name)] @ other[a_name(u.name)].T
                np.testing.assert_allclose(gram, np.eye(u.rank) * (i == j), atol=1e-12)
    turned = replace(SHAPE, layers=SHAPE.layers[::-1])
    for mine, yours, other in zip(drawn, orthogonal_a(turned, 9, 3), orthogonal_a(SHAPE, 9, 4), strict=True):
        for name, value in mine.items():
            np.testing.assert_array_equal(value, yours[name])
            assert not np.allclose(value, other[name])
    with pytest.raises(ValueError, match="l: 10 tasks of rank 5 need 50 orthogonal rows, and there are 48 inputs"):
        orthogonal_a(SHAPE, 10, 3)
    for wrong in ((0, 3), (2.0, 3), (2, -1), (2, "a")):
        with pytest.raises(InputError, match="allowed: a whole number, at least"):
            orthogonal_a(SHAPE, *wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.55, 1.0])
def test_bits_on_the_wire_are_the_payload_and_entries_come_back_to_their_places(
    density: float, wire_dtype: str
) -> None:
    shape, state = replace(SHAPE, wire_dtype=wire_dtype), state_of(1)
    update = sparse(1, density)
    wire = pack(update.slices, wire_dtype)
    numbers = sum(u.rank * u.n_out for u in shape.layers)
    assert shape.payload_lora_bits == shape.bits_per_parameter * numbers  # q sum r n_out: A never travels
    assert 8 * len(wire) == shape.payload_bits(density)
    back = scatter_adapter(unpack(wire, update.slices, wire_dtype), update.masks)
    assert not any("lora_A" in name for name in back)
    for name, value in masked(state, update.masks).items():
        if name in back:
            np.testing.assert_allclose(back[name], value, rtol=1e-3, atol=1e-6)
    filled = scatter_adapter(update.slices, update.masks, state)
    for name, value in filled.items():
        np.testing.assert_array_equal(value, state[name])


def test_independent_masks_collide_in_the_square_of_their_density_and_equal_draws_are_nested() -> None:
    large = AdapterShape((LoraLayer("l", 4, 500, 8),), sends_a=False)
    for density in (0.1, 0.3, 0.7):
        met = [
            np.mean(
                np.logical_and(
                    *(
                        draw_masks(large, density, np.random.default_rng([seed, side]), "entries").entries["l"]
                        for side in (0, 1)
                    )
                )
            )
            for seed in range(20)
        ]
        assert np.mean(met) == pytest.approx(density**2, abs=0.004)
    low, high = (draw_masks(large, s, np.random.default_rng(1), "entries").entries["l"] for s in (0.2, 0.5))
    assert np.all(high[low])


@pytest.mark.parametrize("fill", ["zero", "keepers"])
def test_entries_are_merged_one_by_one_and_a_stays(fill: Any) -> None:
    before = state_of(9)
    updates = [sparse(1, 0.3, samples=1.0), sparse(2, 0.6, samples=3.0)]
    merged = aggregate(before, updates, Aggregation(fill)).state
    for u in SHAPE.layers:
        np.testing.assert_array_equal(merged[a_name(u.name)], before[a_name(u.name)])
        name = b_name(u.name)
        few, many = (update.masks.entries[u.name] for update in updates)
        both = 0.25 * state_of(1)[name] + 0.75 * state_of(2)[name]
        np.testing.assert_allclose(merged[name][few], both[few], rtol=1e-5, atol=1e-7)
        only = many & ~few
        share = 0.75 if fill == "zero" else 1.0
        np.testing.assert_allclose(merged[name][only], share * state_of(2)[name][only], rtol=1e-6)
        np.testing.assert_array_equal(merged[name][~many], 0.0 if fill == "zero" else before[name][~many])


def test_identical_devices_are_a_fixed_point() -> None:
    state = state_of(1)
    same = [sparse(1, 1.0, samples=n) for n in (1.0, 4.0)]
    merged = aggregate(state, same, Aggregation()).state
    for name, value in state.items():
        np.testing.assert_allclose(merged[name], value, rtol=1e-6)


def test_what_does_not_go_with_a_sparse_b_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="only beside an A that is frozen"):
        draw_masks(replace(SHAPE, sends_a=True), 0.5, rng, "entries")
    with pytest.raises(ValueError, match="in full rank"):
        draw_masks(SHAPE, 0.5, rng, "entries", rank=2)
    for rule in (Aggregation(correction="fair"), Aggregation(merge="stack")):
        with pytest.raises(ValueError, match="the mean of a sparse B is exact"):
            aggregate(state_of(9), [sparse(1, 0.5)], rule)


def test_a_sparse_reply_is_left_out_by_name_where_the_rule_does_not_take_it() -> None:
    before = state_of(9)
    whole = Update(slice_adapter(before, full_masks(SHAPE), sends_a=False), full_masks(SHAPE), 1.0)
    replies = {"whole": whole, "sparse": sparse(1, 0.5)}
    for field, word in (("correction", "fair"), ("correction", "exact"), ("merge", "stack"), ("robust", "clair")):
        rule = Aggregation(**{field: word})  # type: ignore[arg-type]
        got = gather(before, replies, rule, sends_a=False)
        assert set(got.weights) == {"whole"}
        assert f"{field} = '{word}'" in got.rejected["sparse"]
        with pytest.raises(InputError, match=f"{field} = '{word}'; allowed: .* with masks of single entries"):
            gather(before, replies, rule, sends_a=False, masks={n: u.masks for n, u in replies.items()})
    with pytest.raises(InputError, match=r"merge = 'svd'; allowed: .* where A is frozen"):
        gather(before, replies, Aggregation(merge="svd"), sends_a=False)


def test_replies_are_checked_entry_by_entry() -> None:
    before, good = state_of(9), sparse(1, 0.5)
    drawn = {name: good.masks for name in ("good", "other", "short", "shape")}
    short = Update({n: v[:-1] if v.ndim == 1 else v for n, v in good.slices.items()}, good.masks, 1.0)
    odd = replace(good.masks, entries={**good.masks.entries, "m": np.ones((3, 2), bool)})
    replies = {"good": good, "other": sparse(1, 0.5, draw=1), "short": short, "shape": replace(good, masks=odd)}
    got = gather(before, replies, sends_a=False, masks=drawn)
    assert set(got.weights) == {"good"}
    assert "other masks" in got.rejected["other"]
    assert "the masks make it [100]" in got.rejected["short"]
    assert "must have 20x2 entries" in got.rejected["shape"]
    whole = Update(slice_adapter(state_of(2), full_masks(SHAPE), sends_a=False), full_masks(SHAPE), 1.0)
    weights = weights_of(before, [good, whole], Aggregation(weighting="norm"))
    assert 0.2 < weights[0] < weights[1]
