"""Adapters on real architectures, and the cached path against the plain one."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's extra is not installed")
pytest.importorskip("peft", reason="the trainer's extra is not installed")

from edgealloc.models.exchange.wire import AdapterShape  # noqa: E402
from edgealloc.models.training.backbone import AdapterHandle  # noqa: E402
from edgealloc.models.training.cache import Feed  # noqa: E402


def shaken(handle: AdapterHandle, seed: int = 0) -> dict[str, np.ndarray]:
    """Write a random adapter (B is zero at the start, which would hide errors) and return it."""
    rng = np.random.default_rng(seed)
    state = {name: 0.3 * rng.normal(size=v.shape).astype(np.float32) for name, v in handle.read().items()}
    handle.write(state)
    return state


@pytest.mark.parametrize("kind", ["bert", "gpt2", "distilbert"])
def test_the_inventory_counts_what_trains(make_model, kind: str) -> None:
    model = make_model(kind)
    handle = AdapterHandle.of(model)
    state = shaken(handle)
    shape = AdapterShape.from_state(handle.read())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.payload_bits(1.0) == 32 * trained
    for name, value in handle.read().items():
        np.testing.assert_array_equal(value, state[name])
    from peft import get_peft_model_state_dict

    saved = get_peft_model_state_dict(model)
    assert set(saved) == set(handle.parameters)
    for name, value in saved.items():
        np.testing.assert_array_equal(value.numpy(), state[name])
    with pytest.raises(ValueError, match="disagree on"):
        handle.write({name: v for name, v in state.items() if "lora_A" not in name})


@pytest.mark.parametrize(
    ("kind", "last_layers", "cut"),
    [("bert", 1, True), ("bert", 2, True), ("bert", None, True), ("distilbert", 1, False), ("gpt2", 1, False)],
)
def test_shortcuts_give_the_plain_logits_and_gradients(
    make_model, token_examples, kind: str, last_layers, cut: bool
) -> None:
    handle = AdapterHandle.of(make_model(kind, last_layers=last_layers))
    examples = token_examples(40)
    plain = Feed(handle, examples, fast=False)
    fast = Feed(handle, examples)
    assert (plain.cached, fast.cached, fast.first_token_only) == (False, True, cut)
    # queries, keys and values; GPT-2 normalises before it maps, so no map reads the cached input itself
    assert fast.frozen_maps == (0 if kind == "gpt2" else 3)
    shaken(handle)
    index = torch.tensor([3, 17, 5, 33, 0])

    def step(feed: Feed) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        handle.model.zero_grad()
        with feed.shortcuts():
            logits = feed.logits(index)
            torch.nn.functional.cross_entropy(logits, feed.labels[index]).backward()
        return logits.detach().numpy(), {n: p.grad.numpy().copy() for n, p in handle.parameters.items()}

    logits, gradients = step(plain)
    fast_logits, fast_gradients = step(fast)
    np.testing.assert_allclose(fast_logits, logits, rtol=1e-4, atol=2e-6)
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() > 0, name
        np.testing.assert_allclose(fast_gradients[name], gradient, rtol=1e-3, atol=1e-5)
    # and outside of the context the model is the plain one again
    np.testing.assert_array_equal(step(plain)[0], logits)


def test_a_looked_up_map_notices_that_its_weight_has_changed(make_model, token_examples) -> None:
    """The exact aggregation moves base weights in the middle of a run: what they made before is stale then."""
    handle = AdapterHandle.of(make_model("bert"))
    plain, fast = (Feed(handle, token_examples(40), fast=chosen) for chosen in (False, True))
    state = shaken(handle)
    index = torch.tensor([3, 17, 5, 33, 0])
    products = {name: state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"] for name in handle.layers}
    with torch.no_grad():
        with fast.shortcuts():
            before = fast.logits(index).numpy()
            with handle.base_restored() as shift:
                shift(products)
                moved = plain.logits(index).numpy()
                np.testing.assert_allclose(fast.logits(index).numpy(), moved, rtol=1e-4, atol=2e-6)
                assert np.abs(moved - before).max() > 1e-3
        with handle.base_restored() as shift:
            shift(products)
            with fast.shortcuts():
                np.testing.assert_allclose(fast.logits(index).numpy(), moved, rtol=1e-4, atol=2e-6)
        with fast.shortcuts():
            np.testing.assert_array_equal(fast.logits(index).numpy(), before)


def test_looked_up_maps_keep_the_precision_of_autocast(make_model, token_examples) -> None:
    handle = AdapterHandle.of(make_model("bert"))
    plain, fast = (Feed(handle, token_examples(40), fast=chosen) for chosen in (False, True))
    shaken(handle)
    index = torch.arange(12)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), fast.shortcuts():
        low = fast.logits(index).float().numpy()
    with torch.no_grad():
        high = plain.logits(index).numpy()
    # eight bits of mantissa: half a percent of the largest, a few times over
    np.testing.assert_allclose(low, high, atol=0.02 * np.abs(high).max())
    assert np.abs(low - high).max() > 0


def test_a_causal_layer_is_not_cut_to_its_first_token(make_model, token_examples) -> None:
    model = make_model("bert")
    model.base_model.model.bert.encoder.layer[-1].get_submodule("attention.self").is_causal = True
    assert not Feed(AdapterHandle.of(model), token_examples(20)).first_token_only


def test_a_model_that_pools_over_all_tokens_is_not_cut(make_model, token_examples) -> None:
    model = make_model("bert")

    class MeanPooler(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden.mean(1)

    model.base_model.model.bert.pooler = MeanPooler()
    examples = token_examples(20)
    examples.inputs["attention_mask"][:] = 1
    feed = Feed(AdapterHandle.of(model), examples)
    assert feed.cached
    assert not feed.first_token_only


def test_a_model_whose_lower_layers_matter_twice_is_not_cached(make_model, token_examples, caplog) -> None:
    model = make_model("bert")
    bert = model.base_model.model.bert

    class Peeking(torch.nn.Module):
        """A pooler that looks at the first layer again, behind the cache's back."""

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            again = bert.encoder.layer[0](hidden)  # a tuple before transformers 5
            return hidden[:, 0] + (again[0] if isinstance(again, tuple) else again)[:, 0]

    bert.pooler = Peeking()
    feed = Feed(AdapterHandle.of(model), token_examples(20))
    assert not feed.cached
    assert "plain path" in caplog.text


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_base_residuals_act_like_the_adapter_they_replace(make_model, token_examples, kind: str) -> None:
    """Moving B A from the adapter into the base weight leaves the function as it was, for Linear and Conv1D."""
    handle = AdapterHandle.of(make_model(kind))
    feed = Feed(handle, token_examples(12), fast=False)
    state = shaken(handle)
    index = torch.arange(12)
    with torch.no_grad():
        before = feed.logits(index).numpy()
        products = {
            name: state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"] for name in handle.layers
        }
        emptied = {name: v * (0 if "lora_B" in name else 1) for name, v in state.items()}
        with handle.base_restored() as shift:
            handle.write(emptied)
            assert np.abs(feed.logits(index).numpy() - before).max() > 1e-3
            shift(products)
            np.testing.assert_allclose(feed.logits(index).numpy(), before, rtol=1e-4, atol=1e-5)
        handle.write(state)
        np.testing.assert_array_equal(feed.logits(index).numpy(), before)


def test_scaling_is_changed_for_the_duration_only(make_model) -> None:
    handle = AdapterHandle.of(make_model())
    (layer, *_) = handle.layers.values()
    before = layer.scaling["default"]

    def fail_inside() -> None:
        with handle.scaled(4.0):
            assert layer.scaling["default"] == 4 * before
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert layer.scaling["default"] == before
