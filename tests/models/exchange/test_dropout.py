"""Masks as data: what a device gets, what travels, and what it weighs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgealloc.models.exchange.dropout import (
    draw_masks,
    full_masks,
    masked,
    round_generator,
    scatter_adapter,
    slice_adapter,
)
from edgealloc.models.exchange.wire import (
    AdapterShape,
    a_name,
    b_name,
    canonical_name,
    canonical_state,
    pack,
    unpack,
)
from edgealloc.scenario.adapter import LoraLayer

SHAPE = AdapterShape(
    (LoraLayer("enc.q", 40, 20, 4), LoraLayer("enc.v", 60, 100, 2)),
    (("cls.weight", (3, 40)), ("cls.bias", (3,))),
)


def random_state(shape: AdapterShape, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = {}
    for u in shape.layers:
        state[a_name(u.name)] = rng.normal(size=(u.rank, u.n_in)).astype(np.float32)
        state[b_name(u.name)] = rng.normal(size=(u.n_out, u.rank)).astype(np.float32)
    return state | {name: rng.normal(size=size).astype(np.float32) for name, size in shape.head}


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0, 1), seed=st.integers(0, 2**32 - 1), method=st.sampled_from(["bernoulli", "exact"]))
def test_scatter_undoes_slice(keep: float, seed: int, method: str) -> None:
    state = random_state(SHAPE)
    masks = draw_masks(SHAPE, keep, np.random.default_rng(seed), method)  # type: ignore[arg-type]
    slices = slice_adapter(state, masks)
    back = scatter_adapter(slices, masks)
    expected = masked(state, masks)
    assert list(back) == list(state)
    for name in state:
        np.testing.assert_array_equal(back[name], expected[name])
    over_base = scatter_adapter(slices, masks, base=state)
    for name in state:
        np.testing.assert_array_equal(over_base[name], state[name])
    received = unpack(pack(slices), slices)
    for name in slices:
        np.testing.assert_array_equal(received[name], slices[name])


@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.25, 0.3, 0.5, 0.95, 1.0])
def test_bytes_on_the_wire_equal_the_payload_model(keep: float, wire_dtype: str) -> None:
    # 20, 40, 60 and 100 all make keep * n whole, so the exact method meets D(s) = D0 + D1 s to the bit.
    shape = AdapterShape(SHAPE.layers, SHAPE.head, wire_dtype)
    masks = draw_masks(shape, keep, np.random.default_rng(1), "exact")
    wire = pack(slice_adapter(random_state(shape), masks), wire_dtype)
    bits = 16 if wire_dtype == "float16" else 32
    assert shape.payload_lora_bits == bits * (4 * (40 + 20) + 2 * (60 + 100))
    assert shape.payload_fixed_bits == bits * (3 * 40 + 3)
    assert 8 * len(wire) == pytest.approx(shape.payload_bits(keep), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_exact_masks_never_exceed_the_payload_model(keep: float, seed: int) -> None:
    masks = draw_masks(SHAPE, keep, np.random.default_rng(seed), "exact")
    bits = 8 * len(pack(slice_adapter(random_state(SHAPE), masks)))
    assert bits <= SHAPE.payload_bits(keep) * (1 + 1e-11)
    # Rounding down loses less than one column or row per factor.
    assert bits > SHAPE.payload_bits(keep) - 32 * 2 * sum(u.rank for u in SHAPE.layers)


def test_bernoulli_masks_have_the_payload_model_as_their_mean() -> None:
    rng = np.random.default_rng(5)
    state = random_state(SHAPE)
    bits = [8 * len(pack(slice_adapter(state, draw_masks(SHAPE, 0.3, rng, "bernoulli")))) for _ in range(400)]
    error = np.mean(bits) - SHAPE.payload_bits(0.3)
    assert abs(error) < 4 * np.std(bits) / np.sqrt(len(bits))
    assert np.std(bits) > 0


def test_a_layer_with_one_output_or_one_input_keeps_its_roles() -> None:
    shape = AdapterShape((LoraLayer("score", 6, 1, 2), LoraLayer("lift", 1, 6, 2)))
    state = random_state(shape)
    for seed in range(8):
        masks = draw_masks(shape, 0.5, np.random.default_rng(seed), "bernoulli")
        slices = slice_adapter(state, masks)
        assert slices["score.lora_A.weight"].shape == (2, masks.columns["score"].sum())
        assert slices["score.lora_B.weight"].shape == (masks.rows["score"].sum(), 2)
        back = scatter_adapter(slices, masks)
        for name, expected in masked(state, masks).items():
            np.testing.assert_array_equal(back[name], expected)


def test_frozen_a_is_neither_masked_nor_sent() -> None:
    shape = AdapterShape(SHAPE.layers, SHAPE.head, sends_a=False)
    masks = draw_masks(shape, 0.5, np.random.default_rng(0))
    assert all(mask.all() for mask in masks.columns.values())
    slices = slice_adapter(random_state(shape), masks, sends_a=False)
    assert not any("lora_A" in name for name in slices)
    assert 8 * len(pack(slices)) == shape.payload_bits(0.5)


def test_masks_depend_on_seed_round_and_device_only() -> None:
    def draw(*key: int) -> np.ndarray:
        return np.concatenate(list(draw_masks(SHAPE, 0.5, round_generator(7, *key)).rows.values()))

    np.testing.assert_array_equal(draw(0, 3, 1), draw(0, 3, 1))
    assert any((draw(0, 3, 1) != draw(0, 3, 2)).tolist())
    assert any((draw(0, 3, 1) != draw(0, 4, 1)).tolist())
    assert all(mask.all() for mask in full_masks(SHAPE).rows.values())


def test_both_peft_spellings_give_the_same_inventory() -> None:
    inside = {
        "base_model.model.bert.query.lora_A.default.weight": np.zeros((4, 16)),
        "base_model.model.bert.query.lora_B.default.weight": np.zeros((8, 4)),
        "base_model.model.classifier.modules_to_save.default.weight": np.zeros((2, 16)),
    }
    saved = canonical_state(inside)
    assert list(saved) == [
        "base_model.model.bert.query.lora_A.weight",
        "base_model.model.bert.query.lora_B.weight",
        "base_model.model.classifier.weight",
    ]
    shape = AdapterShape.from_state(inside)
    assert shape == AdapterShape.from_state(saved)
    assert shape.layers == (LoraLayer("base_model.model.bert.query", 16, 8, 4),)
    assert shape.payload_fixed_bits == 32 * 32


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x.lora_A.weight": np.zeros((4, 3))}, "allowed: A "),
        ({"x.lora_A.weight": np.zeros((4, 3)), "x.lora_B.weight": np.zeros((3, 5))}, "allowed: A "),
        ({"x.lora_embedding_A": np.zeros((4, 3))}, "linear layers"),
        ({"x.lora_magnitude_vector.default.weight": np.zeros(4)}, "linear layers"),
        ({"head.weight": np.zeros(4)}, "at least one pair"),
    ],
)
def test_adapters_that_masks_cannot_describe_are_refused(state: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdapterShape.from_state(state)


def test_bad_arguments_say_what_is_allowed() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"keep rate 1\.2"):
        draw_masks(SHAPE, 1.2, rng)
    with pytest.raises(ValueError, match="mask method"):
        draw_masks(SHAPE, 0.5, rng, "gauss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="wire_dtype"):
        AdapterShape(SHAPE.layers, wire_dtype="int3")
    masks = draw_masks(SHAPE, 0.5, rng)
    slices = slice_adapter(random_state(SHAPE), masks)
    with pytest.raises(ValueError, match="bytes on the wire"):
        unpack(pack(slices)[:-4], slices)
    with pytest.raises(ValueError, match="does not fit"):
        scatter_adapter(random_state(SHAPE), masks)
    assert canonical_name("classifier.weight") == "classifier.weight"


def test_masks_need_no_torch_and_the_package_owns_its_name() -> None:
    code = (
        "import sys; from edgealloc.models import draw_masks, aggregate;"
        "assert not {'torch', 'transformers', 'peft', 'pandas'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    wrong = (
        "import importlib.util as u, edgealloc.models as m;"
        "s = u.spec_from_file_location('models', m.__file__); s.loader.exec_module(u.module_from_spec(s))"
    )
    result = subprocess.run([sys.executable, "-c", wrong], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "imported as 'models'" in result.stderr


def test_a_saved_adapter_and_the_live_model_draw_and_send_the_same() -> None:
    """A file lists tensors in another order than the module: equal names, equal masks, equal bytes."""
    live = random_state(SHAPE)
    saved = {name: live[name] for name in reversed(live)}
    shapes = [AdapterShape.from_state(state) for state in (live, saved)]
    assert shapes[0].layers != shapes[1].layers
    one, other = (draw_masks(shape, 0.5, np.random.default_rng(7)) for shape in shapes)
    for side in ("columns", "rows"):
        for layer, mask in getattr(one, side).items():
            np.testing.assert_array_equal(mask, getattr(other, side)[layer])
    sent = slice_adapter(live, one)
    assert pack(sent) == pack(slice_adapter(saved, other))
    received = unpack(pack(sent), slice_adapter(saved, other))
    for name, value in sent.items():
        np.testing.assert_array_equal(received[name], value.astype(np.float32))


def test_what_the_wire_cannot_hold_is_no_infinity() -> None:
    small = {"a": np.array([65504.0, -1e-9]), "b": np.array([np.inf, np.nan])}
    back = unpack(pack(small, "float16"), small, "float16")
    np.testing.assert_array_equal(back["a"], [65504.0, 0.0])
    np.testing.assert_array_equal(
        back["b"], [np.inf, np.nan]
    )  # what is not finite stays so, and is refused by name
    for dtype, value in (("float16", 65520.0), ("float32", -1e39)):
        with pytest.raises(OverflowError, match=f"head: .* is more than {dtype} holds"):
            pack({"head": np.array([0.0, value])}, dtype)
